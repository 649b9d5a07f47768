//! Several processes at one database: killed writers and readers, concurrent ones, one that grows the map under the others.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use std::io::{BufRead, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::*;
use store::{Options, Store};

const SMALL: usize = 512 * 1024;

fn open(dir: &Path) -> Store {
    Options::new().map_size(SMALL).open(dir).unwrap()
}

/// This test program once more, in the role that the test `child` finds in its environment.
struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    fn start(role: &str, dir: &Path) -> Helper {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture"])
            .env("STORE_TEST_ROLE", role)
            .env("STORE_TEST_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Helper { child, input, output }
    }

    /// The next line that the role itself printed; the test harness prints others.
    fn line(&mut self) -> Option<String> {
        self.output.by_ref().map_while(Result::ok).find_map(|line| line.split_once("> ").map(|(_, text)| text.to_owned()))
    }

    fn expect(&mut self, text: &str) {
        assert_eq!(self.line().as_deref(), Some(text));
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.input.as_mut().unwrap(), "{text}").unwrap();
    }

    /// SIGKILL.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let rest: Vec<String> = std::iter::from_fn(|| self.line()).collect();
        self.child.wait().unwrap();
        rest
    }

    fn finish(mut self) {
        drop(self.input.take());
        while self.line().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(text: impl std::fmt::Display) {
    println!("> {text}");
    std::io::stdout().flush().unwrap();
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
#[ignore = "not a test: what the other processes of the tests run"]
fn child() {
    let Ok(role) = std::env::var("STORE_TEST_ROLE") else { return };
    let dir = std::env::var("STORE_TEST_DIR").unwrap();
    let store = open(Path::new(&dir));
    match role.as_str() {
        "die in the middle of a write" => {
            let _ = store.write_at(T0, "half", "child", |w| {
                for n in 0..500 {
                    w.clients().insert(&client(&format!("half{n}")))?;
                }
                w.clients().remove(&client_name("web1"))?;
                w.jobs().create(|n| job(n, "web1/etc", "main"))?;
                say("in the middle");
                hear();
                Ok(())
            });
        }
        "commit for ever" => loop {
            let n = bump(&store);
            say(n);
        },
        "commit 200 times" => {
            say("ready");
            hear();
            for _ in 0..200 {
                bump(&store);
            }
        }
        "read for ever" => store
            .read(|r| {
                r.clients().count()?;
                say("reading");
                hear();
                Ok(())
            })
            .unwrap(),
        "read, wait, read and write" => {
            say(store.read(|r| r.clients().count()).unwrap());
            hear();
            say(store.read(|r| r.clients().count()).unwrap());
            store.write_at(T0, "add", "child", |w| w.clients().insert(&client("by-the-child"))).unwrap();
            say(store.stat().unwrap().map_size > SMALL as u64);
        }
        other => panic!("no such role: {other}"),
    }
}

/// One transaction that changes three tables; returns the job's number.
fn bump(store: &Store) -> u64 {
    let (number, _) = store
        .write_at(T0, "bump", "someone", |w| {
            let number = w.jobs().create(|n| job(n, "web1/etc", "main"))?.number;
            for name in ["left", "right"] {
                w.clients().update(&client_name(name), |c| {
                    let count: u64 = c.description.parse().unwrap_or(0);
                    c.description = (count + 1).to_string();
                    Ok(())
                })?;
            }
            Ok(number)
        })
        .unwrap();
    number
}

/// The count of `bump`s, which all records agree upon.
fn bumps(store: &Store) -> u64 {
    store
        .read(|r| {
            let count = |name| r.clients().require(&client_name(name)).map(|c| c.description.parse::<u64>().unwrap_or(0));
            let (left, right) = (count("left")?, count("right")?);
            assert_eq!(left, right);
            assert_eq!(left, r.jobs().count()?);
            Ok(left)
        })
        .unwrap()
}

fn for_bumps(dir: &Path) -> Store {
    let store = open(dir);
    store
        .write_at(T0, "set up", "root", |w| {
            w.clients().insert(&client("left"))?;
            w.clients().insert(&client("right"))
        })
        .unwrap();
    store
}

#[test]
fn a_writer_killed_in_the_middle_leaves_the_last_committed_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write_at(T0, "add", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    let before = store.read(|r| Ok((r.clients().list()?, r.log().newest(9)?))).unwrap();
    let mut helper = Helper::start("die in the middle of a write", dir.path());
    helper.expect("in the middle");
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 1, "readers go on meanwhile");
    helper.kill();

    assert_eq!(store.read(|r| Ok((r.clients().list()?, r.log().newest(9)?))).unwrap(), before);
    let begin = Instant::now();
    let (job, _) = store.write_at(T0, "run", "root", |w| w.jobs().create(|n| job(n, "web1/etc", "main"))).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "the next writer gets the dead one's lock");
    assert_eq!(job.number, 1);
    verify(&store);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.read(|r| r.clients().list()).unwrap(), before.0);
    verify(&store);
}

#[test]
fn a_writer_killed_at_any_moment_loses_no_commit_and_halves_none() {
    let dir = tempfile::tempdir().unwrap();
    drop(for_bumps(dir.path()));
    let mut last = 0;
    for round in 0..12 {
        let mut helper = Helper::start("commit for ever", dir.path());
        let mut told: u64 = helper.line().unwrap().parse().unwrap();
        assert_eq!(told, last + 1, "numbers go on after the crash");
        sleep(Duration::from_micros(1700 * round * round));
        if let Some(line) = helper.kill().last() {
            // The last line may be cut short by the kill, but the numbers before are the same.
            told = line.parse().unwrap_or(told);
        }
        let store = open(dir.path());
        last = bumps(&store);
        assert!(last == told || last == told + 1, "told {told}, stored {last}");
        verify(&store);
    }
}

#[test]
fn two_processes_write_and_a_third_thread_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = for_bumps(dir.path());
    let mut helper = Helper::start("commit 200 times", dir.path());
    helper.expect("ready");
    helper.tell("go");
    let reader = {
        let store = store.clone();
        std::thread::spawn(move || {
            let mut seen = 0;
            let begin = Instant::now();
            while seen < 400 && begin.elapsed() < Duration::from_secs(60) {
                let now = bumps(&store);
                assert!(now >= seen, "snapshots only go forward");
                seen = now;
            }
            seen
        })
    };
    for _ in 0..200 {
        bump(&store);
    }
    helper.finish();
    assert_eq!(reader.join().unwrap(), 400);
    assert_eq!(bumps(&store), 400);
    let numbers: Vec<u64> = store.read(|r| r.jobs().list()).unwrap().iter().map(|j| j.number).collect();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>(), "no number twice, none left out");
    verify(&store);
}

#[test]
fn a_killed_reader_s_slot_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut helper = Helper::start("read for ever", dir.path());
    helper.expect("reading");
    assert_eq!(store.clear_stale_readers().unwrap(), 0, "it lives");
    helper.kill();
    assert_eq!(store.clear_stale_readers().unwrap(), 1);
    assert_eq!(store.clear_stale_readers().unwrap(), 0);
}

fn fill(store: &Store, from: usize, to: usize) {
    for n in from..to {
        let mut client = client(&format!("web{n}"));
        client.description = "x".repeat(2000);
        store.write_at(T0, "fill", "root", |w| w.clients().insert(&client)).unwrap();
    }
}

#[test]
fn the_map_grows_and_other_processes_follow() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store, 0, 10);
    let mut helper = Helper::start("read, wait, read and write", dir.path());
    helper.expect("10");
    fill(&store, 10, 1000);
    assert!(store.stat().unwrap().map_size >= 4 * SMALL as u64);
    helper.tell("go");
    helper.expect("1000");
    helper.expect("true");
    helper.finish();
    assert!(store.read(|r| r.clients().exists(&client_name("by-the-child"))).unwrap());
    verify(&store);
    drop(store);
    // Whoever opens it with the small size again works all the same.
    let store = open(dir.path());
    fill(&store, 1000, 1100);
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 1101);
    verify(&store);
}

#[test]
fn one_transaction_larger_than_the_map_runs_again_until_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut runs = 0;
    store
        .write_at(T0, "much", "root", |w| {
            runs += 1;
            for n in 0..1500 {
                let mut client = client(&format!("web{n}"));
                client.description = "x".repeat(2000);
                w.clients().insert(&client)?;
            }
            Ok(())
        })
        .unwrap();
    assert!(runs > 1);
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 1500);
    assert_eq!(store.read(|r| r.log().newest(9)).unwrap().len(), 1, "one entry, however often it ran");
    verify(&store);
}

#[test]
fn a_caller_that_hides_the_full_map_is_run_again_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let insert = |w: &mut store::Write<'_>| -> store::Result<()> {
        for n in 0..600 {
            let mut client = client(&format!("web{n}"));
            client.description = "x".repeat(2000);
            w.clients().insert(&client)?;
        }
        Ok(())
    };
    store.write_at(T0, "much", "root", |w| insert(w).map_err(|_| store::Error::caller("something failed"))).unwrap();
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 600);
}

#[test]
fn the_map_grows_while_threads_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let clients = store.read(|r| r.clients().list()).unwrap();
                    assert!(clients.iter().all(|c| c.description.len() == 2000));
                }
            });
        }
        // The readers end also when this fails.
        let filled = scope.spawn(|| fill(&store, 0, 400)).join();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        filled.unwrap();
    });
    assert!(store.stat().unwrap().map_size > SMALL as u64);
    verify(&store);
}
