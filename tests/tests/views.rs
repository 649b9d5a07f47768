//! A client keeps its chunks cache while it is exactly its view, whatever its borg; and gets a new one whenever it is not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use testkit::borgs::Borg;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make, modify};
use testkit::world::BorgWorld;
use tests::{assert_failed, newest_archive, newest_job, number, start, text, wait_for_end};

const PASSPHRASE: &str = "a view of one's own";

fn chunks_cache(system: &TestSystem) -> PathBuf {
    let server = fs::read_dir(system.home().join(".cache/borgcube")).unwrap().next().unwrap().unwrap().path();
    let repository = fs::read_dir(server.join("cache")).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("chunks").exists());
    repository.expect("a cache").join("chunks")
}

/// Runs the config; whether the client kept its cache, and the bytes it sent.
fn run(system: &TestSystem, config: &str) -> (bool, u64) {
    system.run_ok(config);
    let log = system.cli_ok(&["job", "log", &number(&newest_job(system), "number").to_string()]);
    let (kept, got) = (log.contains("keeps its chunks cache"), log.contains("gets a chunks cache"));
    assert!(kept != got, "{log}");
    (kept, number(&newest_archive(system)["counters"], "put_bytes"))
}

fn judge(system: &TestSystem, repository: &Path, source: &Path) {
    let archive = newest_archive(system);
    system.settle();
    for judge in Borg::judges() {
        judge.judge(&BorgWorld::with_passphrase(PASSPHRASE), repository, text(&archive, "name"), source).unwrap();
    }
}

fn keeps_its_cache(client: Option<Borg>, version: &str) {
    let Some(client) = client else {
        testkit::borgs::not_run(&format!("kept caches of client {version}"), "that borg is not installed");
        return;
    };
    let system = TestSystem::start();
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", client.program.display())]);
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    system.add_config("host", "again", "main", &[], &[&source]);
    let (kept, all) = run(&system, "host/all");
    assert!(!kept);
    let (kept, sent) = run(&system, "host/all");
    assert!(kept && sent < all / 10, "{kept} {sent} of {all}");
    modify(&source, 1);
    let (kept, sent) = run(&system, "host/again");
    assert!(kept && sent < all, "{kept} {sent} of {all}");
    judge(&system, &repository, &source);
    assert!(run(&system, "host/all").0);
    // Somebody has touched it, or it is gone.
    let chunks = chunks_cache(&system);
    fs::OpenOptions::new().append(true).open(&chunks).and_then(|mut file| file.write_all(b"x")).unwrap();
    let (kept, sent) = run(&system, "host/all");
    assert!(!kept && sent < all / 10, "{kept} {sent} of {all}");
    assert!(run(&system, "host/all").0);
    fs::remove_file(&chunks).unwrap();
    assert!(!run(&system, "host/all").0);
    assert!(run(&system, "host/all").0);
    // An archive went, and its list is the base of others.
    let archives = system.cli_json(&["archive", "list"]);
    let oldest = archives.as_array().unwrap().iter().min_by_key(|a| number(a, "job")).unwrap().clone();
    system.cli_ok(&["archive", "delete", "--now", "--yes", text(&oldest, "name")]);
    let (kept, sent) = run(&system, "host/all");
    assert!(!kept && sent < all / 10, "{kept} {sent} of {all}");
    assert!(run(&system, "host/again").0);
    judge(&system, &repository, &source);
}

#[test]
fn kept_caches_of_client_1_1_18() {
    keeps_its_cache(Borg::v1_1_18(), "1.1.18");
}

#[test]
fn kept_caches_of_client_1_2_4() {
    keeps_its_cache(Borg::v1_2_4().or_else(Borg::debian), "1.2.4");
}

#[test]
fn kept_caches_of_client_1_4_5() {
    keeps_its_cache(Borg::v1_4_5(), "1.4.5");
}

#[test]
fn a_lost_chunk_ends_in_one_retry_with_a_whole_cache() {
    let system = TestSystem::start();
    system.cli_ok(&["client", "add", "host", "--local"]);
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    assert!(!run(&system, "host/all").0);
    assert!(run(&system, "host/all").0);
    let archive = newest_archive(&system);
    system.settle();
    // Somebody's disk loses a chunk of a file; the lists, and the client's cache, still have it.
    let (world, tool) = (BorgWorld::with_passphrase(PASSPHRASE), Borg::judges().pop().unwrap());
    let dump = system.join("dump.json");
    let of = format!("{}::{}", repository.display(), text(&archive, "name"));
    tool.run(&world, ["debug", "dump-archive", &of, dump.to_str().unwrap()]).unwrap();
    let dump: serde_json::Value = serde_json::from_str(&fs::read_to_string(dump).unwrap()).unwrap();
    let items = dump["_items"].as_array().unwrap();
    let chunk = items.iter().find_map(|item| item["chunks"][0][0].as_str()).expect("a file with a chunk");
    // Borg marks what it shows as hexadecimal.
    let chunk = chunk.trim_start_matches('\u{7f}');
    let said = tool.run(&world, ["debug", "delete-obj", repository.to_str().unwrap(), chunk]).unwrap();
    assert!(said.contains("deleted"), "{said}");

    let first = start(&system, "host/all");
    assert_failed(&wait_for_end(&system, first), "view-stale");
    let again = wait_for_end(&system, first + 1);
    assert_eq!((text(&again, "state"), number(&again, "retry_of")), ("done", first));
    let log = |job: u64| system.cli_ok(&["job", "log", &job.to_string()]);
    assert!(log(first).contains("keeps its chunks cache"), "{}", log(first));
    assert!(log(first + 1).contains("gets a chunks cache"), "{}", log(first + 1));
    judge(&system, &repository, &source);
    assert!(run(&system, "host/all").0);
    assert_eq!(number(&newest_job(&system), "number"), first + 2, "once is enough");
}
