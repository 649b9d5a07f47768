//! What one measured piece of work cost, and tables of it.

use crate::watch::{Seen, Watch};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use testkit::process;

/// The costs.
#[derive(Clone, Default)]
pub struct Figures {
    pub wall: Duration,
    pub client: Duration,
    pub server: Duration,
    pub seen: BTreeMap<String, Seen>,
}

/// Measures one piece of work against the processes on both sides.
pub fn measured(client: &[i32], server: &[i32], work: impl FnOnce()) -> Figures {
    // What earlier work left to be written is not this one's.
    nix::unistd::sync();
    let used = |pids: &[i32]| pids.iter().map(|pid| process::processor_time(*pid)).sum::<Duration>();
    let watch = Watch::start(&[client, server].concat());
    let (client_before, server_before, begin) = (used(client), used(server), Instant::now());
    work();
    let wall = begin.elapsed();
    let seen = watch.end();
    // sshd reaps a connection a moment after its client has gone; only then is its time counted.
    std::thread::sleep(Duration::from_millis(500));
    let (client, server) = (used(client).saturating_sub(client_before), used(server).saturating_sub(server_before));
    Figures { wall, client, server, seen }
}

/// The same of work of children of this process, which `alone` waits for.
pub fn alone(work: impl FnOnce()) -> Figures {
    let me = i32::try_from(std::process::id()).expect("a process number");
    measured(&[], &[me], work)
}

/// The run with the median wall time.
pub fn median(mut runs: Vec<Figures>) -> Figures {
    runs.sort_by_key(|run| run.wall);
    runs.swap_remove(runs.len() / 2)
}

/// Wall times of all runs, for judging how far they can be trusted.
pub fn spread(runs: &[Figures]) -> String {
    let mut walls: Vec<Duration> = runs.iter().map(|run| run.wall).collect();
    walls.sort();
    walls.iter().map(|wall| format!("{:.2}", wall.as_secs_f64())).collect::<Vec<_>>().join(" ")
}

pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub fn ratio(ours: Duration, stock: Duration) -> String {
    format!("{:.2}", ours.as_secs_f64() / stock.as_secs_f64().max(0.01))
}

/// Beginning of a table in Markdown.
pub fn head(columns: &[&str]) {
    println!("\n| {} |", columns.join(" | "));
    println!("|{}", "---|".repeat(columns.len()));
}

/// A line of it.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// Wall and processor times of one run.
pub fn costs(name: &str, figures: &Figures) {
    row(&[name.to_owned(), seconds(figures.wall), seconds(figures.client), seconds(figures.server)]);
}

/// How much ours is of stock's.
pub fn ratios(ours: &Figures, stock: &Figures) {
    row(&["ratio".to_owned(), ratio(ours.wall, stock.wall), ratio(ours.client, stock.client), ratio(ours.server, stock.server)]);
}

/// Peak memory and processor time of each kind of process.
pub fn processes(rows: &[(&str, &Figures)]) {
    head(&["process", "peak memory of the largest", "processor time of all, about", "processes"]);
    for (name, figures) in rows {
        for (program, seen) in &figures.seen {
            row(&[
                format!("{name}: {program}"),
                format!("{:.1} MiB", seen.peak_kib as f64 / 1024.0),
                format!("{:.2} s", seen.ticks as f64 / 100.0),
                seen.count.to_string(),
            ]);
        }
    }
}
