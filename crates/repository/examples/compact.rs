//! How long a compaction keeps the writer from those who store: `cargo run --release -p repository --example compact [DIRECTORY]`.
//!
//! One thread has the repository and serves requests in their order, as the owner does. Two others put objects of up to 20 MiB all the time,
//! and one asks for one step of a compaction after the other.
#![allow(clippy::unwrap_used, reason = "this is a measurement")]

use borg::Id;
use repository::{Compaction, OpenOptions, Repository, Step};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The most that Borg stores: 20 MiB without a little.
const LARGE: usize = borg::MAX_OBJECT;
/// As the owner's.
const SLICE: Duration = Duration::from_millis(50);

enum Request {
    Put(Id, Vec<u8>, Instant),
    Commit,
    Compact(Compaction, SyncSender<(Compaction, bool)>),
}

fn id(n: u64) -> Id {
    let mut bytes = [0; 32];
    for (part, salt) in bytes.chunks_mut(8).zip(1u64..) {
        let mixed = (n ^ salt << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        part.copy_from_slice(&mixed.to_le_bytes());
    }
    Id(bytes)
}

/// What a backup stores: mostly chunks of up to 2 MiB, many small ones, now and then the largest that there can be.
fn size(n: u64) -> usize {
    match n % 100 {
        0 => LARGE,
        1..30 => 2 << 20,
        30..60 => 300_000,
        _ => 600,
    }
}

/// Durations of one kind.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn say(&mut self, what: &str) {
        self.0.sort_unstable();
        let at = |share: usize| self.0.get((self.0.len() * share / 100).min(self.0.len().saturating_sub(1))).copied().unwrap_or_default();
        let [median, most, longest] = [at(50), at(99), at(100)].map(|time| time.as_secs_f64() * 1000.0);
        println!("  {what}: {} times, median {median:.1} ms, 99 of 100 within {most:.1} ms, the longest {longest:.1} ms", self.0.len());
    }
}

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).unwrap();
    let path = dir.path().join("repo");
    let options =
        OpenOptions { exclusive: true, create: true, index: Some(dir.path().join("index")), ..OpenOptions::at(path.to_str().unwrap()) };
    let noise: Vec<u8> = (0..LARGE as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut repository = Repository::open(&options).unwrap();
    let count = 3000;
    for n in 0..count {
        repository.put(&id(n), &noise[..size(n)], 0).unwrap();
    }
    for n in count..count + 500_000 {
        repository.put(&id(n), &noise[..600], 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..count).chain(count..count + 500_000).filter(|n| n / 100 % 3 == 0) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    // As if it had been a while ago.
    let dropped = drop_caches(&path.join("data/0"));
    println!(
        "{} MiB stored; of the files, the system's cache {}",
        bytes(&path) >> 20,
        if dropped { "has nothing" } else { "may have parts" }
    );

    let (requests, work) = sync_channel::<Request>(64);
    let (ended, next) = (AtomicBool::new(false), AtomicU64::new(1 << 40));
    let alone = Duration::from_secs(5);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (requests, ended, next, noise) = (requests.clone(), &ended, &next, &noise);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    // A client and a network are not as fast as a memory: about 100 MB a second of each.
                    std::thread::sleep(Duration::from_secs_f64(size(n) as f64 / 100e6));
                    requests.send(Request::Put(id(n), noise[..size(n)].to_vec(), Instant::now())).unwrap();
                    if n % 500 == 0 {
                        requests.send(Request::Commit).unwrap();
                    }
                }
            });
        }
        let mut compaction = repository.plan_compaction(10).unwrap();
        println!("{} segments of which {} MiB can be freed", compaction.victims(), compaction.freeable() >> 20);
        let ended = &ended;
        scope.spawn(move || {
            std::thread::sleep(alone);
            let (reply, answer) = sync_channel(1);
            loop {
                requests.send(Request::Compact(compaction, reply.clone())).unwrap();
                let (now, done) = answer.recv().unwrap();
                if done {
                    println!("{} segments are gone, and {} MiB freed", now.segments(), now.freed() >> 20);
                    break;
                }
                compaction = now;
            }
            ended.store(true, Ordering::Relaxed);
        });
        serve(&mut repository, &work);
    });
    repository.close();
}

fn serve(repository: &mut Repository, work: &Receiver<Request>) {
    let [mut steps, mut commits, mut others] = [const { Times(vec![]) }; 3];
    let [mut before, mut beside] = [const { Times(vec![]) }; 2];
    let (mut begun, mut stored) = (None, 0);
    for request in work {
        let begin = Instant::now();
        match request {
            Request::Put(id, data, sent) => {
                stored += data.len() as u64;
                repository.put(&id, &data, 0).unwrap();
                if begun.is_none() { &mut before } else { &mut beside }.0.push(sent.elapsed());
            }
            Request::Commit => {
                repository.commit().unwrap();
                others.0.push(begin.elapsed());
            }
            Request::Compact(mut compaction, reply) => {
                if begun.is_none() {
                    (begun, stored) = (Some(begin), 0);
                }
                let step = repository.compact_step(&mut compaction, SLICE).unwrap();
                steps.0.push(begin.elapsed());
                if step == Step::Commit {
                    let begin = Instant::now();
                    repository.commit().unwrap();
                    commits.0.push(begin.elapsed());
                }
                reply.send((compaction, step == Step::Done)).unwrap();
            }
        }
    }
    let seconds = begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
    println!("{seconds:.1} s, in which {} MiB were stored beside it", stored >> 20);
    steps.say("steps of the compaction");
    commits.say("its commits");
    others.say("commits of those who store");
    before.say("an object waits, without a compaction");
    beside.say("an object waits, beside the compaction");
}

fn segments(path: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())
}

fn bytes(path: &Path) -> u64 {
    segments(&path.join("data/0")).map(|file| file.metadata().unwrap().len()).sum()
}

/// Whether the system could be told to forget what it has read of these files.
fn drop_caches(path: &Path) -> bool {
    segments(path).all(|file| {
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", file.display())).args(["iflag=nocache", "count=0", "status=none"]);
        dd.status().is_ok_and(|status| status.success())
    })
}
