//! `make bench ONLY=status`: the status pages of a large server while a backup runs. Prints figures and asserts nothing of them.
//!
//! BENCH_STATUS_RECORDS (100000), BENCH_STATUS_VIEWERS (1000), BENCH_STATUS_RATE (200 requests a second) and BENCH_STATUS_SECONDS (30) make it
//! smaller.

use std::collections::BTreeMap;
use std::time::Duration;
use tests::load::{Plan, Took, run};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn print(name: &str, took: &[Took]) {
    let sorted = |of: fn(&Took) -> Duration| {
        let mut times: Vec<Duration> = took.iter().map(of).collect();
        times.sort();
        times
    };
    let (due, sent) = (sorted(|took| took.due), sorted(|took| took.sent));
    let at = |times: &[Duration], per_cent: usize| ms(times[(times.len() - 1) * per_cent / 100]);
    println!("| {name} | {} | {} | {} | {} | {} |", took.len(), at(&sent, 50), at(&sent, 99), at(&due, 99), at(&due, 100));
}

fn main() {
    let plan = Plan {
        records: setting("BENCH_STATUS_RECORDS", 100_000),
        viewers: setting("BENCH_STATUS_VIEWERS", 1000),
        a_second: setting("BENCH_STATUS_RATE", 200),
        seconds: setting("BENCH_STATUS_SECONDS", 30),
    };
    let outcome = run(plan);
    let Plan { records, viewers, a_second, seconds } = plan;
    println!("{records} jobs and archives, {viewers} viewers of live events, {a_second} requests a second for {seconds} s, two backups:\n");
    println!("| | requests | median | p99 | p99 since it was due | slowest since it was due |");
    println!("|---|---|---|---|---|---|");
    let everything: Vec<Took> = outcome.took.values().flatten().copied().collect();
    print("all", &everything);
    let by_path: BTreeMap<_, _> = outcome.took;
    for (path, took) in &by_path {
        print(&format!("`{path}`"), took);
    }
    let each = outcome.memory_idle.saturating_sub(outcome.memory) as f64 / viewers.max(1) as f64;
    println!("\nThe first page after a start: {}.", ms(outcome.first));
    println!(
        "Memory of the status daemon: {:.1} MB, with {viewers} idle viewers {:.1} MB ({each:.1} kB each), at the end {:.1} MB.",
        outcome.memory as f64 / 1024.0,
        outcome.memory_idle as f64 / 1024.0,
        outcome.memory_end as f64 / 1024.0
    );
    println!("Its processor time: {:.2} s for each second.", outcome.processor.as_secs_f64() / seconds as f64);
    println!(
        "Each viewer heard at least {} times how far the backup was, and {} times of a job; the backup read {:.0} MB.",
        outcome.progress,
        outcome.jobs,
        outcome.read as f64 / 1e6
    );
}
