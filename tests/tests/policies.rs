//! Retention with the real programs: what a policy would do is shown, held archives stay, a grace period can be ended, and what goes is gone
//! from the repository.

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use testkit::borgs::Borg;
use testkit::system::TestSystem;
use testkit::tree::Random;
use testkit::world::BorgWorld;
use tests::{number, text};

const PASSPHRASE: &str = "what a policy keeps";

struct Scene {
    system: TestSystem,
    repository: PathBuf,
    source: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let system = TestSystem::start();
        let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
        system.add_local_client("host");
        let source = system.join("source");
        fs::create_dir(&source).unwrap();
        system.add_config("host", "all", "main", &["--compression=lz4"], &[&source]);
        Scene { system, repository, source }
    }

    /// A backup with a file of 1 MiB that no other has, in a second of its own, as rules count; gives the archive's name.
    fn backup(&self, seed: u64) -> String {
        tests::wait_for_another_second();
        fs::write(self.source.join("own"), Random::new(seed).bytes(1 << 20)).unwrap();
        self.system.run_ok("host/all");
        text(&tests::newest_archive(&self.system), "name").to_owned()
    }

    fn archive(&self, name: &str) -> Value {
        self.system.cli_json(&["archive", "show", name])
    }

    /// `NAME SENTENCE` of each archive, the newest first.
    fn preview(&self, options: &[&str]) -> (Vec<String>, Value) {
        let shown = self.system.cli_json(&[&["policy", "preview"], options].concat());
        let archives = shown["groups"].as_array().unwrap().iter().flat_map(|group| group["archives"].as_array().unwrap());
        let lines = archives.map(|archive| format!("{} {}", text(archive, "name"), text(archive, "sentence")));
        (lines.collect(), shown["freed"].clone())
    }
}

#[test]
fn what_a_policy_would_do() {
    let scene = Scene::new();
    let archives: Vec<String> = (1..5).map(|seed| scene.backup(seed)).collect();
    let add = ["policy", "add", "short", "--keep-last", "1", "--minimum", "0", "--zone", "UTC", "--config", "host/all"];
    scene.system.cli_ok(&add);
    let (_, said) = scene.system.cli_fails(&add);
    assert!(said.contains("there is a policy short already"), "{said}");
    let (lines, freed) = scene.preview(&["short"]);
    assert_eq!(lines[0], format!("{} kept by secondly #1", archives[3]));
    assert_eq!(lines[3], format!("{} goes: enough are kept: secondly", archives[0]));
    assert_eq!((number(&freed[0], "archives"), text(&freed[0], "repository")), (3, "main"));
    let bytes = number(&freed[0], "bytes");
    assert!((3 << 20..4 << 20).contains(&bytes), "{freed}");
    // Asked for what goes alone, it is told of nothing else, and counts the same.
    assert_eq!(scene.preview(&["short", "--going"]), (lines[1..].to_vec(), freed));

    // As if it had other rules; what is stored stays as it is.
    let (lines, _) = scene.preview(&["short", "--keep-last", "2", "--quick"]);
    assert_eq!(lines[1], format!("{} kept by secondly #2", archives[2]));
    let (code, said) = scene.system.cli_fails(&["policy", "preview", "--keep-last", "2"]);
    assert!(code == 2 && said.contains("which policy"), "{said}");
    scene.system.cli_ok(&["archive", "hold", &archives[0], "--reason", "the audit"]);
    scene.system.cli_ok(&["policy", "edit", "short", "--keep-last", "3"]);
    let (lines, _) = scene.preview(&["--client", "h.*", "--quick"]);
    assert_eq!(lines[3], format!("{} kept by hold", archives[0]));
    assert_eq!(scene.preview(&["--client", "other", "--quick"]).0, Vec::<String>::new());
    let (code, said) = scene.system.cli_fails(&["policy", "preview", "none"]);
    assert!(code == 3 && said.contains("there is no policy none"), "{said}");

    // Two policies are none.
    scene.system.cli_ok(&["policy", "add", "rival", "--keep-daily", "1", "--zone", "UTC", "--config", "host/all"]);
    let shown = scene.system.cli_json(&["policy", "preview", "--quick"]);
    assert!(text(&shown["groups"][0], "stopped").contains("the policies rival and short both are for it"), "{shown}");
    scene.system.cli_ok(&["policy", "remove", "rival"]);
    assert_eq!(scene.system.cli_json(&["policy", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn grace_and_holds() {
    let scene = Scene::new();
    let system = &scene.system;
    let (one, two) = (scene.backup(1), scene.backup(2));
    let said = system.cli_ok(&["archive", "delete", &one, "--yes"]);
    assert!(said.contains("borgcube archive undelete"), "{said}");
    let pending = scene.archive(&one)["pending_deletion"].clone();
    let days = (pending["due"].as_i64().unwrap() - pending["since"].as_i64().unwrap()) / 86_400_000_000;
    assert_eq!(days, 7, "a week, where no policy says otherwise: {pending}");
    system.cli_ok(&["archive", "undelete", &one]);
    let archive = scene.archive(&one);
    assert!(archive["pending_deletion"].is_null() && archive["hold"]["reason"] == "undeleted", "{archive}");

    // A hold is a hold, for the server and for the owner.
    let (_, said) = system.cli_fails(&["archive", "delete", &one, "--yes"]);
    assert!(said.contains("held by") && said.contains("archive release"), "{said}");
    let (_, said) = system.cli_fails(&["archive", "delete", &one, "--now", "--yes"]);
    assert!(said.contains("held by") && said.contains("nothing was deleted"), "{said}");
    let (code, said) = system.cli_fails(&["archive", "delete", "nothing", "--repository", "main", "--now", "--yes"]);
    assert!(code == 3 && said.contains("archive-missing") && said.contains("archive list"), "{said}");
    system.cli_ok(&["archive", "release", &one]);
    assert_ne!(system.cli_fails(&["archive", "release", &one]).0, 0);
    assert_ne!(system.cli_fails(&["archive", "undelete", &one]).0, 0);
    system.cli_ok(&["archive", "delete", &one, "--now", "--yes"]);
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for borg in Borg::judges() {
        borg.check_verify_data(&world, &scene.repository).unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
        assert_eq!(borg.archives(&world, &scene.repository).unwrap(), std::slice::from_ref(&two));
    }
}

#[test]
fn what_goes_is_deleted_behind_its_grace_period() {
    let scene = Scene::new();
    let system = &scene.system;
    let archives: Vec<String> = (1..5).map(|seed| scene.backup(seed)).collect();
    let add = ["policy", "add", "short", "--keep-last", "2", "--minimum", "0", "--zone", "UTC", "--config", "host/all"];
    system.cli_ok(&add);
    let marked = system.cli_json(&["prune", "short", "--compact"]);
    assert_eq!(marked["marked"], serde_json::json!([archives[1], archives[0]]), "{marked}");
    assert_eq!(marked["deleted"], serde_json::json!([]), "a week is not over: {marked}");
    assert_eq!(scene.preview(&["short", "--quick"]).0[3], format!("{} is going already", archives[0]));
    assert_eq!(system.cli_json(&["prune"])["marked"], serde_json::json!([]));
    system.cli_ok(&["archive", "undelete", &archives[1]]);

    // Another grace period decides again; then it is over at once.
    system.cli_ok(&["policy", "edit", "short", "--grace", "0"]);
    assert!(scene.archive(&archives[0])["pending_deletion"].is_null());
    let done = system.cli_json(&["prune", "--repository", "main", "--compact"]);
    assert_eq!(done["deleted"][0]["archives"], serde_json::json!([archives[0]]), "{done}");
    assert!(number(&done["deleted"][0], "freed") >= 1 << 20, "{done}");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for borg in Borg::judges() {
        borg.check_verify_data(&world, &scene.repository).unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
        let mut left = borg.archives(&world, &scene.repository).unwrap();
        left.sort();
        let mut expected = archives[1..].to_vec();
        expected.sort();
        assert_eq!(left, expected);
    }
}

#[test]
fn a_burst_stops_pruning_until_somebody_confirms() {
    let scene = Scene::new();
    let system = &scene.system;
    let archives: Vec<String> = (1..4).map(|seed| scene.backup(seed)).collect();
    let add = [
        "policy",
        "add",
        "short",
        "--keep-last",
        "1",
        "--minimum",
        "0",
        "--most-per-day",
        "2",
        "--grace",
        "0",
        "--zone",
        "UTC",
        "--config",
        "host/all",
    ];
    system.cli_ok(&add);
    let (code, said) = system.cli_fails(&["prune"]);
    assert!(code == 1 && said.contains("3 archives were made between"), "{said}");
    assert_eq!(system.cli_json(&["archive", "list"]).as_array().unwrap().len(), 3);
    let shown = system.cli_json(&["policy", "preview", "--quick"]);
    assert!(text(&shown["groups"][0], "stopped").contains("are a burst"), "{shown}");
    system.cli_ok(&["policy", "confirm", "short", "--config", "host/all"]);
    system.cli_ok(&["prune"]);
    let left = system.cli_json(&["archive", "list"]);
    assert_eq!((left.as_array().unwrap().len(), text(&left[0], "name")), (1, archives[2].as_str()));
}

#[test]
fn a_schedule_prunes() {
    let scene = Scene::new();
    let system = &scene.system;
    let archives: Vec<String> = (1..4).map(|seed| scene.backup(seed)).collect();
    let add = ["policy", "add", "short", "--keep-last", "1", "--minimum", "0", "--grace", "0", "--zone", "UTC", "--config", "host/all"];
    system.cli_ok(&add);
    system.cli_ok(&["archive", "hold", &archives[0]]);
    system.cli_ok(&["schedule", "add", "tidy", "--at", "yearly 01-01 00:00 UTC", "--prune", "all"]);
    let (_, said) = system.cli_fails(&["schedule", "add", "bad", "--at", "yearly 01-01 00:00 UTC", "--prune-by", "none"]);
    assert!(said.contains("there is no policy none"), "{said}");
    let ran = system.cli_json(&["schedule", "run", "tidy"]);
    let job = tests::wait_for_end(system, ran["jobs"][0].as_u64().unwrap());
    assert_eq!((text(&job, "state"), text(&job, "kind")), ("done", "prune"), "{job}");
    let came = &job["yield"];
    assert_eq!((number(came, "marked"), number(came, "deleted"), number(came, "stopped")), (1, 1, 0), "{job}");
    assert!(number(came, "freed") >= 1 << 20, "{job}");
    let left = system.cli_json(&["archive", "list"]);
    let names: Vec<&str> = left.as_array().unwrap().iter().map(|archive| text(archive, "name")).collect();
    assert_eq!(names, [archives[2].as_str(), archives[0].as_str()]);
}
