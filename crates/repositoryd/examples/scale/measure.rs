//! What people and timers ask.

use crate::Sizes;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::{TestSystem, process};

/// Each question is asked so many times; the median counts.
const TIMES: usize = 5;

pub fn measure(sizes: &Sizes, system: &TestSystem) {
    nix_sync();
    println!("\n| | first | median of the next {TIMES} | output |");
    println!("|---|---|---|---|");
    let cli = |words: &[&str]| system.cli_command(words);
    let scheduler = |words: &[&str]| {
        let mut command = system.command("borgcube-scheduler");
        command.env("BORGCUBE_STATE", system.state()).env("TRIGGER_UNIT", "x.timer").args(words);
        command
    };
    row("borgcube-scheduler sync, nothing is due", &|| scheduler(&["sync"]));
    row("borgcube-scheduler run, nothing is due", &|| scheduler(&["run", "nightly-client001"]));
    for words in [
        "status",
        "client list",
        "client show client007",
        "config list",
        "schedule list",
        "archive list",
        "archive list --client client007",
        "archive list --client client007 --label home",
        "archive list --repository store2",
        "archive list --repository store2 --json",
        "archive list --limit 20000",
        "job list",
        "job list --client client007",
        "job list --job-state failed",
        "job list --job-state done --repository store1",
        "job list --kind check",
        "job list --label home --limit 1000",
        "job list --before 500",
        "policy preview --client client007",
        "policy preview --client client007 --quick",
        "policy preview --quick",
        "policy preview --going",
        "policy preview",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        row(&words.join(" "), &|| cli(&words));
    }
    row("policy preview standard --going --keep-daily 30", &|| cli(&["policy", "preview", "standard", "--going", "--keep-daily", "30"]));
    let archives = system.cli_json(&["archive", "list", "--limit", "1"]);
    let name = archives[0]["name"].as_str().expect("a name").to_owned();
    let id = archives[0]["id"].as_str().expect("an id").to_owned();
    row("archive show NAME", &|| cli(&["archive", "show", &name]));
    row("archive show ID", &|| cli(&["archive", "show", &id[..12]]));
    println!("\nMemory: {}", memory(system));
    let _ = sizes;
}

fn row(name: &str, command: &dyn Fn() -> Command) {
    let once = || {
        let mut command = command();
        let start = Instant::now();
        let output = command.output().expect("it starts");
        let took = start.elapsed();
        assert!(output.status.success(), "{name}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (took, output.stdout.len())
    };
    let (first, bytes) = once();
    // What takes that long is not asked again and again.
    let times = if first > Duration::from_secs(10) { 1 } else { TIMES };
    let mut took: Vec<Duration> = (0..times).map(|_| once().0).collect();
    took.sort();
    println!("| {name} | {} | {} | {bytes} bytes |", milliseconds(first), milliseconds(took[took.len() / 2]));
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Peaks of the daemons.
fn memory(system: &TestSystem) -> String {
    let mut said = vec![];
    for program in ["borgcubed", "borgcube-repositoryd"] {
        for pid in system.pids(program) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let of = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim_start_matches(':').trim().to_owned()
            };
            said.push(format!("{} {} (peak {})", process::program(pid).unwrap_or_default(), of("VmRSS"), of("VmHWM")));
        }
    }
    said.join(", ")
}

fn nix_sync() {
    let _ = Command::new("sync").status();
}
