//! Many clients at once: never more jobs than the limits allow, and one repository that takes from all of them at the same time.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testkit::borgs::Borg;
use testkit::process;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::Random;
use testkit::world::BorgWorld;
use tests::{PATIENCE, Tap, job, number, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "enough for eight clients";
const RUNNING: [&str; 5] = ["client_preparing", "client_prepared", "client_in_progress", "client_done", "client_cleanup"];

/// Clients whose backups last until their taps are closed.
struct Scene {
    system: TestSystem,
    taps: Vec<Option<Tap>>,
}

impl Scene {
    /// So many local clients `c0`, `c1` and so on, each with a config `slow` into repository `main`.
    fn new(clients: usize, options: &[&str]) -> Scene {
        let system = TestSystem::start();
        system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
        let mut taps = vec![];
        for number in 0..clients {
            let cache = system.join(format!("cache-{number}"));
            system.cli_ok(&["client", "add", &client(number), "--local", &format!("--remote-cache-dir={}", cache.display())]);
            let pipes = system.join(format!("pipes-{number}"));
            fs::create_dir(&pipes).unwrap();
            taps.push(Some(Tap::open(&pipes.join("tap"), 1000)));
            let own = system.join(format!("source-{number}"));
            fs::create_dir(&own).unwrap();
            system.add_config(&client(number), "slow", "main", &[&["--read-special"], options].concat(), &[&pipes, &own]);
        }
        Scene { system, taps }
    }

    fn source(&self, client: usize) -> PathBuf {
        self.system.join(format!("source-{client}"))
    }

    fn run(&self, client: usize) -> u64 {
        start(&self.system, &format!("c{client}/slow"))
    }

    /// The client's backup goes on, once it has come to its pipe: a borg that opened it later would wait for ever.
    fn let_go(&mut self, client: usize) {
        let pipe = self.system.join(format!("pipes-{client}/tap"));
        let reads = |pid: i32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd"));
            open.is_ok_and(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == pipe)))
        };
        let reading = || process::descendants(self.system.up_pid()).into_iter().any(reads).then_some(());
        assert!(retry_until(PATIENCE, reading).is_some(), "client {client} does not come to its pipe\n{}", self.system.log());
        if let Some(tap) = self.taps[client].take() {
            tap.close();
        }
    }

    /// States of these jobs.
    fn states(&self, jobs: &[u64]) -> Vec<String> {
        jobs.iter().map(|n| text(&job(&self.system, *n), "state").to_owned()).collect()
    }

    /// Waits until exactly `expected` of the jobs run, and looks for a while whether it stays so.
    #[track_caller]
    fn exactly(&self, expected: usize, jobs: &[u64]) -> Vec<u64> {
        let running = || {
            let states = self.states(jobs);
            jobs.iter().zip(&states).filter(|(_, s)| RUNNING.contains(&s.as_str())).map(|(n, _)| *n).collect::<Vec<_>>()
        };
        let there = retry_until(PATIENCE, || (running().len() >= expected).then_some(()));
        assert!(there.is_some(), "never {expected} at once: {:?}\n{}", self.states(jobs), self.system.log());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) {
            let now = running();
            assert_eq!(now.len(), expected, "{:?}", self.states(jobs));
            for number in now {
                wait_for_state(&self.system, number, "client_in_progress");
            }
        }
        running()
    }

    fn why(&self, job: u64) -> String {
        let shown = self.system.cli_json(&["job", "show", &job.to_string()]);
        text(&shown, "waits").to_owned()
    }
}

fn client(number: usize) -> String {
    format!("c{number}")
}

fn limits(system: &TestSystem) -> (u64, u64, u64) {
    let settings = system.cli_json(&["settings", "show"]);
    let limit = |name: &str| number(&settings["limits"], name);
    (limit("per_client"), limit("per_repository"), limit("total"))
}

#[test]
fn four_clients_and_a_limit_of_two_that_is_raised_while_they_run() {
    let mut scene = Scene::new(4, &[]);
    assert_eq!(limits(&scene.system), (1, 8, 16));
    scene.system.cli_ok(&["settings", "edit", "--per-repository", "2"]);
    let jobs: Vec<u64> = (0..4).map(|client| scene.run(client)).collect();
    assert_eq!(scene.exactly(2, &jobs), jobs[..2]);
    for waiting in &jobs[2..] {
        assert_eq!(scene.why(*waiting), "waits for another job of repository main");
    }

    // No restart, no signal: the next job starts because the setting changed.
    scene.system.cli_ok(&["settings", "edit", "--per-repository", "8", "--total", "3"]);
    assert_eq!(scene.exactly(3, &jobs), jobs[..3]);
    assert_eq!(scene.why(jobs[3]), "waits: as many jobs run as the server allows");

    // A limit below what runs already ends nothing, and starts nothing.
    scene.system.cli_ok(&["settings", "edit", "--total", "1"]);
    scene.let_go(0);
    assert_eq!(text(&wait_for_end(&scene.system, jobs[0]), "state"), "done");
    assert_eq!(scene.exactly(2, &jobs), jobs[1..3]);
    scene.let_go(1);
    wait_for_end(&scene.system, jobs[1]);
    assert_eq!(scene.exactly(1, &jobs), jobs[2..3]);
    scene.let_go(2);
    scene.exactly(1, &jobs[3..]);
    scene.let_go(3);
    for number in jobs {
        assert_eq!(text(&wait_for_end(&scene.system, number), "state"), "done", "{}", scene.system.log());
    }

    // They outlive a restart.
    scene.system.down();
    scene.system.up();
    assert_eq!(limits(&scene.system), (1, 8, 1));
    assert_eq!(scene.system.cli_fails(&["settings", "edit", "--per-client", "0"]).0, 2);
}

#[test]
fn one_client_does_one_thing_at_a_time_unless_told_otherwise() {
    let mut scene = Scene::new(1, &[]);
    let system = &scene.system;
    system.add_repository("other", "repokey-blake2", Some(PASSPHRASE));
    let source = scene.source(0);
    fs::write(source.join("file"), "content").unwrap();
    system.add_config("c0", "same", "main", &[], &[&source]);
    system.add_config("c0", "elsewhere", "other", &[], &[&source]);
    let slow = scene.run(0);
    wait_for_state(system, slow, "client_in_progress");
    let (same, elsewhere) = (start(system, "c0/same"), start(system, "c0/elsewhere"));
    assert_eq!(scene.exactly(1, &[slow, same, elsewhere]), [slow]);
    for waiting in [same, elsewhere] {
        assert_eq!(scene.why(waiting), "waits for another job of client c0");
    }
    // Two jobs into one repository would share the client's cache: that stays forbidden.
    system.cli_ok(&["settings", "edit", "--per-client", "2"]);
    assert_eq!(text(&wait_for_end(system, elsewhere), "state"), "done");
    assert_eq!(scene.why(same), "waits for another job of client c0");
    scene.let_go(0);
    for number in [slow, same] {
        assert_eq!(text(&wait_for_end(&scene.system, number), "state"), "done");
    }
}

/// Incompressible files of which every second is the same for everybody.
fn fill(root: &Path, client: usize, generation: u64) {
    for file in 0..80u64 {
        let directory = root.join(format!("{}", file / 20));
        fs::create_dir_all(&directory).unwrap();
        let seed = if file % 2 == 0 { 1000 + file } else { 10_000 * (client as u64 + 1) + 100 * generation + file };
        let length = 1000 + 2000 * (file as usize % 40);
        fs::write(directory.join(format!("{file}")), Random::new(seed).bytes(length)).unwrap();
    }
}

#[test]
fn eight_clients_into_one_repository_at_once() {
    const CLIENTS: usize = 8;
    let mut scene = Scene::new(CLIENTS, &["--compression=lz4"]);
    for client in 0..CLIENTS {
        fill(&scene.source(client), client, 0);
    }
    let jobs: Vec<u64> = (0..CLIENTS).map(|client| scene.run(client)).collect();
    // All eight are connected and read from their pipes before the first goes on.
    assert_eq!(scene.exactly(CLIENTS, &jobs), jobs);
    for client in 0..CLIENTS {
        scene.let_go(client);
    }
    let first = all_done(&scene, &jobs);

    // Half of it was everybody's. Stored is what was there once, whoever was first.
    let sum = |records: &[Value], field: &str| records.iter().map(|j| number(&j["statistics"], field)).sum::<u64>();
    let (all, new) = (sum(&first, "original_size"), sum(&first, "deduplicated_size"));
    assert!(new * 100 < all * 70, "{new} of {all} bytes were stored");
    judge(&scene, &first);

    // Once more, all at the same time, with something new for each and without the pipes.
    for client in 0..CLIENTS {
        fill(&scene.source(client), client, 1);
        fs::remove_file(scene.system.join(format!("pipes-{client}/tap"))).unwrap();
    }
    let jobs: Vec<u64> = (0..CLIENTS).map(|client| scene.run(client)).collect();
    let second = all_done(&scene, &jobs);
    let (all, new) = (sum(&second, "original_size"), sum(&second, "deduplicated_size"));
    assert!(new * 100 < all * 60, "{new} of {all} bytes were stored again");
    judge(&scene, &second);
}

fn all_done(scene: &Scene, jobs: &[u64]) -> Vec<Value> {
    let ended: Vec<Value> = jobs.iter().map(|number| wait_for_end(&scene.system, *number)).collect();
    for record in &ended {
        assert_eq!(text(record, "state"), "done", "{record}\n{}", scene.system.log());
    }
    ended
}

/// Both judges about the repository, and about each archive byte for byte.
fn judge(scene: &Scene, jobs: &[Value]) {
    scene.system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let repository = scene.system.join("repository-main");
    for borg in Borg::judges() {
        borg.check_verify_data(&world, &repository).unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
        for (client, record) in jobs.iter().enumerate() {
            let source = scene.source(client);
            let into = tempfile::tempdir_in(world.path()).unwrap();
            borg.extract(&world, &repository, text(record, "archive_name"), into.path()).unwrap();
            let inside = into.path().join(source.strip_prefix("/").unwrap());
            let differences = testkit::tree::differences(&source, &inside);
            assert!(differences.is_empty(), "client {client}: {}", testkit::tree::listed(&differences));
        }
        if borg.at_least([1, 2, 5]) {
            let archives = borg.list_with_tam(&world, &repository).unwrap();
            assert!(archives.iter().all(|(_, tam)| tam == "verified"), "{archives:?}");
        }
    }
}
