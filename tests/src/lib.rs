//! What the whole-system tests share: asking a running system questions, and sources that a backup reads as slowly as a test wants.
//!
//! Development only. Every test here starts the real programs as separate processes, with a real borg as client and as judge.

pub mod load;
pub mod web;

use serde_json::Value;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::Random;

/// Longest time that anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The record of job `number`.
pub fn job(system: &TestSystem, number: u64) -> Value {
    let shown = system.cli_json(&["job", "show", &number.to_string()]);
    if shown["job"].is_object() { shown["job"].clone() } else { shown }
}

/// The newest job's record.
pub fn newest_job(system: &TestSystem) -> Value {
    let jobs = system.cli_json(&["job", "list", "--limit", "1"]);
    jobs.as_array().and_then(|j| j.first()).cloned().expect("there is a job")
}

/// The newest archive's record.
pub fn newest_archive(system: &TestSystem) -> Value {
    let archives = system.cli_json(&["archive", "list", "--limit", "1"]);
    archives.as_array().and_then(|a| a.first()).cloned().expect("there is an archive")
}

/// Text of a field.
pub fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_else(|| panic!("{field} is text in {record}"))
}

/// Number of a field.
pub fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("{field} is a number in {record}"))
}

/// Starts a run and gives the job's number.
pub fn start(system: &TestSystem, config: &str) -> u64 {
    number(&system.cli_json(&["run", config]), "job")
}

/// Waits until job `number` has ended and gives its record.
pub fn wait_for_end(system: &TestSystem, number: u64) -> Value {
    let ended = retry_until(PATIENCE + PATIENCE, || {
        let job = job(system, number);
        matches!(text(&job, "state"), "done" | "failed" | "cancelled").then_some(job)
    });
    ended.unwrap_or_else(|| panic!("job {number} did not end: {}\n{}", job(system, number), system.log()))
}

/// Waits until job `number` is in `state`.
pub fn wait_for_state(system: &TestSystem, number: u64, state: &str) {
    let there = retry_until(PATIENCE, || (text(&job(system, number), "state") == state).then_some(()));
    assert!(there.is_some(), "job {number} never came to {state}: {}\n{}", job(system, number), system.log());
}

/// Waits for the next second of the clock: two archives of one second are one to a policy, and many programs tell times in whole seconds.
pub fn wait_for_another_second() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
    // The kernel stamps files by a clock that lags behind this one by a tick.
    std::thread::sleep(Duration::from_secs(now.as_secs() + 1) - now + Duration::from_millis(50));
}

/// Asserts that a job failed with this cause, in one sentence that the person at the terminal sees.
#[track_caller]
pub fn assert_failed(record: &Value, cause: &str) {
    let word = record["failure"]["cause"]["word"].as_str().unwrap_or("none");
    assert_eq!(word, cause, "{record}");
    let message = text(&record["failure"], "message");
    assert!(message.len() > 10 && !message.contains('\n'), "{message:?}");
}

/// A FIFO that a test feeds while borg reads it with `--read-special`: the backup lasts as long as the test wants.
pub struct Tap {
    /// Keeps the FIFO open whatever happens to its name; read only to let the feeder through at the end.
    reader: File,
    stop: Arc<AtomicBool>,
    feeder: Option<JoinHandle<u64>>,
}

impl Tap {
    /// Makes the FIFO and trickles incompressible data into whoever reads it, `rate` bytes ten times a second.
    pub fn open(path: &Path, rate: usize) -> Tap {
        let name = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        nix::unistd::mkfifo(name.as_c_str(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO can be made");
        let stop = Arc::new(AtomicBool::new(false));
        let (fifo, end) = (path.to_owned(), stop.clone());
        let reader = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).expect("the FIFO can be read");
        let feeder = std::thread::spawn(move || feed(&fifo, rate, &end));
        Tap { reader, stop, feeder: Some(feeder) }
    }

    /// Lets the readers see the end of the file; gives the bytes that were read.
    pub fn close(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let Some(feeder) = self.feeder.take() else { return 0 };
        // A feeder that waits for room in the pipe is let through.
        let mut sink = vec![0; 1 << 16];
        while !feeder.is_finished() {
            let _ = self.reader.read(&mut sink);
            std::thread::sleep(Duration::from_millis(5));
        }
        feeder.join().unwrap_or(0)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.feeder.is_some() {
            self.end();
        }
    }
}

/// Writes until told to stop. A reader sees the end of the file only then.
fn feed(path: &Path, rate: usize, stop: &AtomicBool) -> u64 {
    let mut random = Random::new(0x7a9);
    let mut total = 0;
    let Ok(mut fifo) = OpenOptions::new().write(true).open(path) else { return total };
    while !stop.load(Ordering::Relaxed) {
        let piece = random.bytes(rate);
        if fifo.write_all(&piece).is_err() {
            break;
        }
        total += piece.len() as u64;
        std::thread::sleep(Duration::from_millis(100));
    }
    total
}
