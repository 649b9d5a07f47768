//! BorgCube beside stock borg in one run, doing the same work over the same two SSH connections: the server logs in to the
//! client and starts `borg create` there, which logs in to the server. `scripts/bench` builds and starts it.
//!
//! Processor time is that of everything below the client's sshd (borg and its ssh), and of everything below the
//! server's sshd and, for BorgCube, below `borgcube up` (which includes the ssh that it starts).
//!
//! | module | measures |
//! |---|---|
//! | [`backup`] | `big` and `small`: first and unchanged runs of one client |
//! | [`clients`] | several clients into one repository |
//! | [`delete`] | one archive of many is deleted, and the repository compacted |
//! | [`puts`] | small objects through session and owner |
//! | [`restore`] | an archive is restored to its client |
//! | [`prune`] | 30 of 365 archives go, and the repository is compacted |
//! | [`verify`] | everything is read and proved |

mod backup;
mod clients;
mod delete;
mod figures;
mod prune;
mod puts;
mod restore;
mod scenes;
mod sources;
mod verify;
mod watch;

use std::process::ExitCode;
use testkit::Borg;

const PARTS: [&str; 8] = ["big", "small", "clients", "delete", "puts", "restore", "prune", "verify"];

/// What is measured, and how large it is.
pub struct Sizes {
    /// Bytes of the big file.
    pub big: usize,
    /// Number of small files.
    pub small: usize,
    /// Bytes of each of eight clients.
    pub client: usize,
    /// Archives in the repository of which one is deleted.
    pub archives: usize,
    /// Files in each of them.
    pub archive_files: usize,
    /// Objects that are put.
    pub puts: usize,
    /// Archives in the repository that is pruned.
    pub prune_archives: usize,
    /// Files in each of them.
    pub prune_files: usize,
    /// Runs of which the median is told.
    pub rounds: usize,
    /// Seconds of `--lock-wait` of stock clients.
    pub lock_wait: usize,
}

fn main() -> ExitCode {
    let parts: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("there is no part {unknown}: the parts are {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    let Some(borg) = Borg::v1_4_5().or_else(Borg::debian) else {
        eprintln!("there is no borg on this machine: run scripts/setup test");
        return ExitCode::FAILURE;
    };
    let sizes = Sizes {
        big: number("BIG", 1 << 30),
        small: number("SMALL", 50_000),
        client: number("CLIENT", 190_000_000),
        archives: number("ARCHIVES", 20),
        archive_files: number("ARCHIVE_FILES", 20_000),
        puts: number("PUTS", 500_000),
        prune_archives: number("PRUNE_ARCHIVES", 365),
        prune_files: number("PRUNE_FILES", 4000),
        rounds: number("ROUNDS", 3),
        lock_wait: number("LOCK_WAIT", 120),
    };
    println!("BorgCube beside borg {}, repositories {}, lz4", borg.version, scenes::MODE);
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    if wanted("big") {
        backup::big(&borg, &sizes);
    }
    if wanted("small") {
        backup::small(&borg, &sizes);
    }
    if wanted("clients") {
        clients::run(&borg, &sizes);
    }
    if wanted("delete") {
        delete::run(&borg, &sizes);
    }
    if wanted("puts") {
        puts::run(&sizes);
    }
    if wanted("restore") {
        restore::run(&borg, &sizes);
    }
    if wanted("prune") {
        prune::run(&borg, &sizes);
    }
    if wanted("verify") {
        verify::run(&borg, &sizes);
    }
    ExitCode::SUCCESS
}

/// A size from the environment, for trying things out.
fn number(name: &str, default: usize) -> usize {
    match std::env::var(format!("BENCH_{name}")) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("BENCH_{name} is {text:?}, which is not a number")),
    }
}
