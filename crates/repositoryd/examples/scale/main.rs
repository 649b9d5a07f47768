//! A server with many clients and archives: what does it cost to ask it something? `scripts/bench scale` builds and starts it.
//!
//! It adds repositories, clients, configs, schedules and a policy as people do, then writes what years of backups leave behind straight into the
//! repositories, the view lists and the database: every archive with its record, its job, its metadata and its view list, as an owner writes
//! them; every chunk with an object of a few bytes. Then it starts BorgCube on that and measures.
//!
//! `BENCH_SCALE_CLIENTS`, `BENCH_SCALE_ARCHIVES` and `BENCH_SCALE_REFERENCES` make it smaller; `BENCH_SCALE_WAIT=1` keeps it until Enter is pressed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a measurement")]

mod lists;
mod make;
mod measure;

use std::time::Instant;

/// How large everything is.
pub struct Sizes {
    /// Clients, of two configs each.
    pub clients: usize,
    /// Archives of all of them.
    pub archives: usize,
    /// References in all files of all view lists.
    pub references: usize,
}

/// Repositories that the clients share.
pub const REPOSITORIES: usize = 4;

/// Configs of each client.
pub const LABELS: [&str; 2] = ["system", "home"];

impl Sizes {
    /// Backup configs.
    pub fn configs(&self) -> usize {
        self.clients * LABELS.len()
    }

    /// Archives of each config, one a day.
    pub fn days(&self) -> usize {
        self.archives / self.configs()
    }
}

fn main() {
    let number = |name: &str, default: usize| {
        let text = std::env::var(format!("BENCH_SCALE_{name}")).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let sizes =
        Sizes { clients: number("CLIENTS", 200), archives: number("ARCHIVES", 100_000), references: number("REFERENCES", 50_000_000) };
    println!(
        "\n### {} clients, {} configs, {} archives in {REPOSITORIES} repositories, {} million references in view lists\n",
        sizes.clients,
        sizes.configs(),
        sizes.days() * sizes.configs(),
        sizes.references / 1_000_000
    );
    let start = Instant::now();
    let system = make::make(&sizes);
    println!("made in {:.0} s", start.elapsed().as_secs_f64());
    measure::measure(&sizes, &system);
    if std::env::var_os("BENCH_SCALE_WAIT").is_some() {
        println!("state {}; Enter ends it", system.state().display());
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}
