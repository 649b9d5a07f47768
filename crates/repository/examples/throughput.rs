//! How fast a repository on this machine takes objects: `cargo run --release -p repository --example throughput [DIRECTORY]`.
#![allow(clippy::unwrap_used, reason = "this is a measurement")]

use borg::Id;
use repository::{OpenOptions, Repository};
use std::path::Path;
use std::time::Instant;

fn id(n: u64) -> Id {
    // Spread as hashes are.
    let mut bytes = [0; 32];
    for (part, salt) in bytes.chunks_mut(8).zip(1u64..) {
        let mixed = (n ^ salt << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        part.copy_from_slice(&mixed.to_le_bytes());
    }
    Id(bytes)
}

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).unwrap();
    let options = |name: &str| OpenOptions {
        exclusive: true,
        index: Some(dir.path().join(name).with_extension("index")),
        ..OpenOptions::at(dir.path().join(name).to_str().unwrap())
    };
    for (name, count, size) in [("small", 1_000_000u64, 600), ("large", 1500, 1 << 20)] {
        let content: Vec<u8> = (0..size).map(|n: i32| (n & 0xff) as u8 ^ (n >> 8) as u8).collect();
        let mut repository = Repository::open(&OpenOptions { create: true, ..options(name) }).unwrap();
        let (began, before) = (Instant::now(), processor_time());
        for n in 0..count {
            repository.put(&id(n), &content, size as u32).unwrap();
        }
        let put = began.elapsed();
        repository.commit().unwrap();
        let (all, processor) = (began.elapsed(), processor_time() - before);
        let megabytes = (count * size as u64) as f64 / 1e6;
        println!(
            "{count} objects of {size} bytes: {:.0} puts/s, {:.0} MB/s ({:.0} puts per second of processor time), with one commit ({:.2} s of {:.2} s)",
            count as f64 / all.as_secs_f64(),
            megabytes / all.as_secs_f64(),
            count as f64 / processor,
            (all - put).as_secs_f64(),
            all.as_secs_f64()
        );
        let began = Instant::now();
        repository.close();
        println!("  close with Borg's index: {:.2} s", began.elapsed().as_secs_f64());
        let began = Instant::now();
        let mut repository = Repository::open(&options(name)).unwrap();
        println!("  open with our index: {:.3} s", began.elapsed().as_secs_f64());
        let began = Instant::now();
        let reader = repository.reader().unwrap();
        let reads = count.min(100_000);
        for n in 0..reads {
            reader.get(&id(n * 7919 % count)).unwrap().unwrap();
        }
        println!("  {:.0} reads/s in another order", reads as f64 / began.elapsed().as_secs_f64());
        let began = Instant::now();
        for n in 0..100 {
            repository.put(&Id([n; 32]), b"a small transaction", 0).unwrap();
            repository.commit().unwrap();
        }
        println!("  {:.1} ms for a small transaction", began.elapsed().as_secs_f64() * 10.0);
        repository.close();
        remove(&options(name).index.unwrap());
        let began = Instant::now();
        Repository::open(&options(name)).unwrap().close();
        println!("  open without an index: {:.2} s", began.elapsed().as_secs_f64());
    }
}

/// Seconds of processor time of all threads: what others do on the machine does not count.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name: utime and stime are fields 14 and 15, in hundredths of a second.
    let behind = stat.rsplit(')').next().unwrap();
    behind.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn remove(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}
