//! What a person does to a repository besides backups, with the real programs: delete, compact, check, release.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use testkit::borgs::Borg;
use testkit::process;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::Random;
use testkit::world::BorgWorld;
use tests::{PATIENCE, Tap, number, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "what a person maintains";

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

    /// A backup with a file that no other has; gives the archive's name.
    fn backup(&self, seed: u64) -> String {
        fs::write(self.source.join("own"), Random::new(seed).bytes(3 << 20)).unwrap();
        fs::write(self.source.join("common"), Random::new(1).bytes(1 << 20)).unwrap();
        self.system.run_ok("host/all");
        text(&tests::newest_archive(&self.system), "name").to_owned()
    }

    fn judge(&self, archives: &[&String]) {
        self.system.settle();
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        for borg in Borg::judges() {
            borg.check_verify_data(&world, &self.repository).unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
            let found = borg.archives(&world, &self.repository).unwrap();
            assert_eq!(found.iter().collect::<BTreeSet<_>>(), archives.iter().copied().collect());
        }
    }
}

/// Bytes of all files below.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }).sum()
}

/// As a schedule has it done: jobs without a client, seen in the queue like others.
#[test]
fn a_schedule_compacts_and_checks() {
    let scene = Scene::new();
    let archives: Vec<String> = (20..22).map(|seed| scene.backup(seed)).collect();
    scene.system.cli_ok(&["archive", "delete", &archives[0], "--now", "--yes"]);
    let before = size(&scene.repository);
    let add = ["schedule", "add", "upkeep", "--at", "weekly sun 10:00 UTC", "--verify-data", "main", "--compact", "main"];
    scene.system.cli_ok(&add);
    let ran = scene.system.cli_json(&["schedule", "run", "upkeep"]);
    let jobs: Vec<u64> = ran["jobs"].as_array().unwrap().iter().map(|job| job.as_u64().unwrap()).collect();
    let [compact, check] = jobs[..] else { panic!("{ran}") };
    let ended = wait_for_end(&scene.system, compact);
    assert_eq!((&ended["state"], &ended["kind"]), (&"done".into(), &"compact".into()), "{ended}");
    assert!(number(&ended["yield"], "freed") >= 3 << 20, "{ended}");
    let ended = wait_for_end(&scene.system, check);
    assert_eq!(
        (&ended["state"], &ended["verify_data"], &ended["yield"]["error_count"]),
        (&"done".into(), &true.into(), &0.into()),
        "{ended}"
    );
    assert!(size(&scene.repository) + (3 << 20) <= before);
    let list = scene.system.cli_ok(&["job", "list", "--kind", "check"]);
    assert!(list.contains("check of main") && !list.contains("host/all"), "{list}");
    scene.judge(&[&archives[1]]);

    // Damage makes the job fail, and is named.
    let segment = fs::read_dir(scene.repository.join("data/0")).unwrap().flatten().map(|entry| entry.path());
    let largest = segment.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let (code, said) = scene.system.cli_fails(&["repository", "check", "main", "--job", "--wait"]);
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("repository-check-needed: the repository is damaged"), "{said}");
    let failed = tests::newest_job(&scene.system);
    assert!(number(&failed["yield"], "error_count") > 0 && !failed["warnings"].as_array().unwrap().is_empty(), "{failed}");
}

#[test]
fn what_was_deleted_comes_back_as_space() {
    let scene = Scene::new();
    let archives: Vec<String> = (10..13).map(|seed| scene.backup(seed)).collect();
    let delete = ["archive", "delete", archives[1].as_str()];
    let would = scene.system.cli_json(&[&delete[..], &["--dry-run"]].concat());
    assert_eq!(scene.system.cli_json(&["archive", "list"]).as_array().unwrap().len(), 3, "nothing was deleted yet");
    let did = scene.system.cli_json(&[&delete[..], &["--now", "--yes"]].concat());
    for report in [&would, &did] {
        assert_eq!(report[0]["archives"][0], archives[1], "{report}");
        let bytes = number(&report[0], "bytes");
        assert!((3 << 20..4 << 20).contains(&bytes), "its own file, and not the common one: {report}");
    }
    assert_eq!((&would[0]["dry_run"], &did[0]["dry_run"]), (&true.into(), &false.into()));
    let left = scene.system.cli_json(&["archive", "list"]);
    assert!(left.as_array().unwrap().iter().all(|archive| archive["name"] != archives[1]), "{left}");
    assert_eq!(scene.system.cli_fails(&["archive", "delete", &archives[1], "--yes"]).0, 3);

    let before = size(&scene.repository);
    let compacted = scene.system.cli_json(&["repository", "compact", "main"]);
    assert!(number(&compacted, "freed") >= 3 << 20 && number(&compacted, "segments") > 0, "{compacted}");
    assert!(size(&scene.repository) + (3 << 20) <= before, "{} of {before} bytes are left", size(&scene.repository));
    let again = scene.system.cli_json(&["repository", "compact", "main"]);
    assert_eq!(number(&again, "orphans"), 0, "{again}");
    scene.judge(&[&archives[0], &archives[2]]);
    let next = scene.backup(13);
    scene.judge(&[&archives[0], &archives[2], &next]);
}

#[test]
fn damage_is_found_and_nothing_else() {
    let scene = Scene::new();
    scene.backup(20);
    for options in [&["repository", "check", "main"][..], &["repository", "check", "main", "--verify-data"]] {
        let report = scene.system.cli_json(options);
        assert_eq!(number(&report, "error_count"), 0, "{report}");
        assert!(number(&report, "objects") > 3 && number(&report, "bytes") > 4 << 20, "{report}");
    }
    scene.system.settle();
    // One bit in the middle of the largest segment.
    let segments = fs::read_dir(scene.repository.join("data/0")).unwrap().flatten().map(|entry| entry.path());
    let largest = segments.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let (code, said) = scene.system.cli_fails(&["repository", "check", "main"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("repository main is damaged") && said.contains("copy the repository") && !said.contains("--repair"), "{said}");
}

#[test]
fn stock_borg_has_the_repository_while_a_backup_waits() {
    let scene = Scene::new();
    let system = &scene.system;
    let first = scene.backup(30);
    let pipe = scene.source.join("pipe");
    let tap = Tap::open(&pipe, 300_000);
    system.add_config("host", "slow", "main", &["--read-special"], &[&scene.source]);
    let job = start(system, "host/slow");
    wait_for_state(system, job, "client_in_progress");
    let reads = |pid: i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.is_ok_and(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == pipe)))
    };
    let reading = || process::descendants(system.up_pid()).into_iter().any(reads).then_some(());
    assert!(retry_until(PATIENCE, reading).is_some(), "{}", system.log());

    let world = BorgWorld::new();
    let borg = Borg::judges().pop().unwrap();
    let shell = format!("echo begin; {0} list --short && {0} create ::by-hand /etc/hostname && exit 33", borg.program.display());
    let mut release = system.cli_command(&["repository", "release", "main", "--with-passphrase", "--", "sh", "-c", &shell]);
    release.env("BORG_BASE_DIR", world.path()).env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
    let mut child = release.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "begin\n");
    let mut listed = String::new();
    std::io::Read::read_to_string(&mut out, &mut listed).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(33), "the command's own code\n{said}\n{listed}");
    assert!(listed.lines().any(|name| name == first), "{listed}\n{said}");
    assert!(said.contains("1 session waits until the command has ended."), "{said}");

    tap.close();
    let ended = wait_for_end(system, job);
    assert_eq!(text(&ended, "state"), "done", "{ended}\n{}", system.log());
    let second = text(&ended, "archive_name").to_owned();
    scene.judge(&[&first, &"by-hand".to_owned(), &second]);

    // BorgCube has no record of it, and deletes it all the same where it is told the repository.
    let (code, said) = system.cli_fails(&["archive", "delete", "by-hand", "--yes"]);
    assert_eq!(code, 3, "{said}");
    let deleted = system.cli_ok(&["archive", "delete", "by-hand", "--repository", "main", "--now", "--yes"]);
    assert!(deleted.contains("Some chunks stay"), "its chunks are on no list: {deleted}");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    assert_eq!(borg.archives(&world, &scene.repository).unwrap().into_iter().collect::<BTreeSet<_>>(), [first, second].into());
}
