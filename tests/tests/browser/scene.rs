//! A system with something of everything, and a backup that runs as long as it is looked at.

use std::cell::Cell;
use std::fs;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::{Random, Spec, make};
use tests::{PATIENCE, Tap, start};

/// Names in addresses.
const NAMES: &[&str] = &["web1", "db1", "main", "etc", "slow", "data", "standard", "nightly"];

pub struct Scene {
    system: TestSystem,
    tap: Tap,
    address: String,
    operator: String,
    job: Cell<u64>,
}

impl Scene {
    pub fn new() -> Scene {
        let system = TestSystem::start();
        let written = retry_until(PATIENCE, || fs::read_to_string(system.state().join("run/status.url")).ok());
        let address = written.expect("the address is written down").trim().trim_end_matches('/').to_owned();
        system.add_repository("main", "none", None);
        system.add_local_client("web1");
        let source = system.join("source");
        make(&source, Spec::default());
        system.add_config("web1", "etc", "main", &[], &[&source]);
        system.cli_ok(&["schedule", "add", "nightly", "--at", "daily 02:30 UTC", "--run", "web1/etc"]);
        system.cli_ok(&["policy", "add", "standard", "--keep-daily", "7", "--zone", "UTC", "--config", "web1/etc"]);
        for seed in 1..3 {
            fs::write(source.join("own"), Random::new(seed).bytes(300_000)).unwrap();
            system.run_ok("web1/etc");
        }
        // Nobody answers there.
        let nowhere =
            ["client", "add", "db1", "--remote", "root@127.0.0.1", "--server", "x@127.0.0.1", "--rsh-option=-p", "--rsh-option=1"];
        system.cli_ok(&nowhere);
        system.add_config("db1", "data", "main", &[], &[&source]);
        assert!(!system.run("db1/data").status.success());
        system.cli_ok(&["repository", "check", "main", "--verify-data"]);
        let operator = system.cli_json(&["user", "add", "alice", "--role", "operator"])["token"].as_str().unwrap().to_owned();
        let slow = system.join("slow");
        system.add_config("web1", "slow", "main", &["--read-special"], &[&slow]);
        let tap = Tap::open(&slow, 200_000);
        Scene { system, tap, address, operator, job: Cell::new(0) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// The token of somebody who may run configs.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// Starts the backup that runs until [`end_slow`](Self::end_slow); gives its job.
    pub fn start_slow(&self) -> u64 {
        self.job.set(start(&self.system, "web1/slow"));
        self.job.get()
    }

    /// That backup's job.
    pub fn job(&self) -> u64 {
        self.job.get()
    }

    /// Lets it come to its end.
    pub fn end_slow(self) -> TestSystem {
        self.tap.close();
        self.system
    }
}

/// An address without its query and the names in it: the kind of page that is there.
pub fn shape(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let is_name = |segment: &str| {
        NAMES.contains(&segment)
            || (!segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit()))
            || (segment.len() == 64 && segment.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let segments: Vec<&str> = path.split('/').map(|segment| if is_name(segment) { "*" } else { segment }).collect();
    segments.join("/")
}
