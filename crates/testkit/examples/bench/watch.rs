//! Looks at running processes ten times a second: peak memory and processor time by kind of process.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use testkit::process;

const PAUSE: Duration = Duration::from_millis(100);

/// What was seen of processes of one kind.
#[derive(Clone, Default)]
pub struct Seen {
    /// Peak resident memory of the largest of them, in KiB, as the kernel counts it (VmHWM).
    pub peak_kib: u64,
    /// Clock ticks (10 ms) that all of them used while they were watched, but for their last moments.
    pub ticks: u64,
    /// How many there were.
    pub count: usize,
}

/// A thread that looks.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<HashMap<i32, One>>,
}

struct One {
    kind: String,
    peak_kib: u64,
    ticks_at_first: u64,
    ticks: u64,
}

impl Watch {
    /// Looks at these processes and all below them.
    pub fn start(roots: &[i32]) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (roots, end) = (roots.to_vec(), stop.clone());
        // Those that run already have used time for something else.
        let mut found = HashMap::new();
        look(&roots, &mut found, true);
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
                look(&roots, &mut found, false);
            }
            found
        });
        Watch { stop, thread }
    }

    /// What was seen, by kind.
    pub fn end(self) -> BTreeMap<String, Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut kinds: BTreeMap<String, Seen> = BTreeMap::new();
        for one in self.thread.join().expect("looking does not fail").into_values() {
            let seen = kinds.entry(one.kind).or_default();
            seen.peak_kib = seen.peak_kib.max(one.peak_kib);
            seen.ticks += one.ticks.saturating_sub(one.ticks_at_first);
            seen.count += 1;
        }
        kinds
    }
}

fn look(roots: &[i32], found: &mut HashMap<i32, One>, first: bool) {
    let pids: Vec<i32> = roots.iter().flat_map(|root| process::descendants(*root).into_iter().chain([*root])).collect();
    for pid in pids {
        let (Some(kind), Some(peak_kib), Some(ticks)) = (kind(pid), peak(pid), ticks(pid)) else { continue };
        let one = found.entry(pid).or_insert_with(|| One {
            kind: kind.clone(),
            peak_kib: 0,
            ticks_at_first: if first { ticks } else { 0 },
            ticks,
        });
        // Between fork and exec it was something else.
        one.kind = kind;
        one.peak_kib = one.peak_kib.max(peak_kib);
        one.ticks = ticks;
    }
}

/// None for what is of no interest: shells, and what is on its way to become something else.
fn kind(pid: i32) -> Option<String> {
    let program = process::program(pid)?;
    let arguments = process::arguments(pid);
    let has = |word: &str| arguments.iter().any(|a| a == word);
    Some(match program.as_str() {
        "borgcube-repositoryd" => "owner".into(),
        "borgcube-session" => "session".into(),
        "borgcube-proxy" => "shim".into(),
        "borgcube-worker" => "worker".into(),
        "borgcube" => "borgcube up".into(),
        "borgcubed" | "ssh" => program,
        name if name.starts_with("sshd") => "sshd".into(),
        name if name.starts_with("python") && has("serve") => "borg serve".into(),
        name if name.starts_with("python") => "client's borg".into(),
        _ => return None,
    })
}

fn peak(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// User and system time of the process alone.
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    Some(after.split_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum())
}
