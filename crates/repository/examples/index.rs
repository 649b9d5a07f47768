//! Measures the index: `cargo run --release -p repository --example index -- 10000000`.

use std::path::Path;
use std::time::{Duration, Instant};

use borg::{Id, RepositoryId};
use repository::Entry;
use repository::index::{BorgIndex, Checkpoint, Index, write_borg_index};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Ids as hashes are: all bits count.
fn id(number: u64) -> Id {
    let mut id = [0; 32];
    let mut state = number.wrapping_add(0x1234_5678);
    for word in id.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        *word = (mixed ^ mixed >> 31).to_le_bytes();
    }
    Id(id)
}

/// A line of /proc/self/status.
fn memory(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim_start_matches(':').trim().to_owned()
}

/// Time this thread has had a processor: on a busy machine it tells more than the clock.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn rate(what: &str, count: u64, took: Duration) {
    println!(
        "{what:<34} {:>9.2} s   {:>9.0} /s   RSS {} (peak {})",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        memory("VmRSS"),
        memory("VmHWM")
    );
}

fn lookups(index: &Index, what: &str, from: u64, count: u64) -> Outcome<()> {
    let (turns, start, busy) = (1_000_000, Instant::now(), processor());
    let mut found = 0;
    for turn in 0..turns {
        found += u64::from(index.get(&id(from + turn * 7_919_993 % count))?.is_some());
    }
    rate(&format!("{what} ({found} found)"), turns, start.elapsed());
    println!("  of which on a processor: {:?}", processor() - busy);
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().unwrap_or("1000000".to_owned()).parse()?;
    let temporary = tempfile::tempdir_in(arguments.next().unwrap_or("/tmp".to_owned()))?;
    measure(count, temporary.path())
}

fn measure(count: u64, dir: &Path) -> Outcome<()> {
    let repository = RepositoryId([7; 32]);
    let (index, _) = Index::open(Some(dir), repository)?;
    let (mut longest, start) = (Duration::ZERO, Instant::now());
    for number in 0..count {
        let start = Instant::now();
        index.insert(id(number), Entry { segment: (number / 500) as u32, offset: number as u32, size: 1 << 20, csize: 1 << 19 })?;
        longest = longest.max(start.elapsed());
    }
    rate("inserted, each looked up before", count, start.elapsed());
    println!("longest insertion: {longest:?}");
    let start = Instant::now();
    index.checkpoint(&Checkpoint::default())?;
    rate("checkpoint", count, start.elapsed());
    lookups(&index, "lookups right after", 0, count)?;

    drop(index);
    let start = Instant::now();
    let (index, checkpoint) = Index::open(Some(dir), repository)?;
    println!("opened in {:?}, {} objects, RSS {}", start.elapsed(), index.len(), memory("VmRSS"));
    assert!(checkpoint.is_some() && index.len() == count);
    std::thread::sleep(Duration::from_secs(3));
    lookups(&index, "lookups, known", 0, count)?;
    lookups(&index, "lookups, unknown", count, count)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..2).map(|_| scope.spawn(|| lookups(&index, "lookups, two threads", 0, count).map_err(|error| error.to_string()))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    rate("both threads", 2_000_000, start.elapsed());

    let mut most = Duration::ZERO;
    let start = Instant::now();
    for turn in 0..20 {
        for number in 0..1000 {
            index.insert(id(count + turn * 1000 + number), Entry { segment: 1, offset: 8, size: 1, csize: 1 })?;
        }
        let start = Instant::now();
        index.checkpoint(&Checkpoint::default())?;
        most = most.max(start.elapsed());
    }
    println!("20 times 1000 insertions and a checkpoint: {:?}, longest checkpoint {most:?}", start.elapsed());

    let start = Instant::now();
    let walked = index.iter()?.count() as u64;
    rate("walked through", walked, start.elapsed());
    let path = dir.join("index.1");
    let start = Instant::now();
    write_borg_index(index.len(), || index.iter(), &path)?;
    rate("Borg's index written", walked, start.elapsed());
    println!("Borg's index: {} bytes", std::fs::metadata(&path)?.len());
    let start = Instant::now();
    assert_eq!(BorgIndex::open(&path)?.count() as u64, walked);
    rate("Borg's index read", walked, start.elapsed());
    Ok(())
}
