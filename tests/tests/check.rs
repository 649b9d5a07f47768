//! Real damage, with the real programs: a check names what is damaged, backups heal what clients still have, a stock borg repairs the rest, and
//! the repository comes back.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use testkit::borgs::{Borg, not_run};
use testkit::system::TestSystem;
use testkit::tree::Random;
use testkit::world::BorgWorld;
use tests::{number, text};

const PASSPHRASE: &str = "what nobody damages";

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
        // Each is one chunk.
        (0..8).for_each(|n| fs::write(source.join(format!("file{n}")), Random::new(n).bytes(300_000)).unwrap());
        system.add_config("host", "all", "main", &["--compression=lz4"], &[&source]);
        Scene { system, repository, source }
    }

    fn backup(&self) -> String {
        self.system.run_ok("host/all");
        text(&tests::newest_archive(&self.system), "name").to_owned()
    }

    /// The list of files of the next archive is not that of the one before, and has a chunk of its own.
    fn add_something(&self) {
        fs::write(self.source.join("something"), "else").unwrap();
    }

    /// The largest segment: it has the files of the first backup.
    fn data_segment(&self) -> PathBuf {
        self.system.settle();
        let segments = fs::read_dir(self.repository.join("data/0")).unwrap().flatten().map(|entry| entry.path());
        segments.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
    }

    fn damage(&self) -> Option<Value> {
        let output = self.system.cli(&["repository", "damage", "main", "--json"]);
        let damage: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(if damage.is_null() { 0 } else { 1 }));
        Some(damage).filter(|damage| !damage.is_null())
    }

    /// What stock borg cannot extract of an archive, asked of a copy.
    fn oracle(&self, archive: &str) -> BTreeSet<String> {
        self.system.settle();
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        let copy = world.join("copy");
        assert!(Command::new("cp").arg("-r").arg(&self.repository).arg(&copy).status().unwrap().success());
        let borg = Borg::judges().pop().unwrap();
        let files =
            fs::read_dir(&self.source).unwrap().flatten().map(|entry| entry.path().to_str().unwrap().trim_start_matches('/').to_owned());
        let fails = |file: &String| {
            let mut command = borg.command(&world);
            command.args(["extract", "--stdout"]).arg(format!("{}::{archive}", copy.display())).arg(file);
            !command.output().unwrap().status.success()
        };
        files.filter(fails).collect()
    }

    /// Everything of this archive is there, read on the server.
    fn assert_whole(&self, archive: &str) {
        let target = tempfile::tempdir().unwrap();
        let into = target.path().join("out");
        self.system.cli_ok(&["archive", "extract", archive, "--to", into.to_str().unwrap()]);
        let root = into.join(self.source.strip_prefix("/").unwrap());
        for n in 0..8 {
            let name = format!("file{n}");
            assert_eq!(fs::read(root.join(&name)).unwrap(), fs::read(self.source.join(&name)).unwrap(), "{name}");
        }
    }

    fn repair(&self, borg: &Borg, how: &[&str]) {
        let world = BorgWorld::new();
        // As docs/check.md has it: no --yes, with an old borg neither.
        let mut words =
            vec!["repository", "release", "main", "--with-passphrase", "--", borg.program.to_str().unwrap(), "check", "--repair"];
        words.extend(how);
        let mut release = self.system.cli_command(&words);
        release.env("BORG_BASE_DIR", world.path()).env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
        release.env("BORG_CHECK_I_KNOW_WHAT_I_AM_DOING", "YES");
        let output = release.output().unwrap();
        // Borg ends with 1 when it has repaired something.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    }

    /// A complete check that finds nothing, and so ends it.
    fn assert_sound(&self, archives: &[&str]) {
        let report = self.system.cli_json(&["repository", "check", "main", "--verify-data"]);
        assert_eq!((number(&report, "error_count"), &report["damage"]), (0, &Value::Null), "{report}");
        assert_eq!(self.damage(), None);
        archives.iter().for_each(|archive| self.assert_whole(archive));
        self.judged(archives);
    }

    /// Stock borgs find nothing wrong, and these archives.
    fn judged(&self, archives: &[&str]) {
        self.system.settle();
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        for borg in Borg::judges() {
            borg.check_verify_data(&world, &self.repository).unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
            let found: BTreeSet<String> = borg.archives(&world, &self.repository).unwrap().into_iter().collect();
            assert_eq!(found, archives.iter().map(|name| (*name).to_owned()).collect());
        }
    }
}

fn names(damage: &Value) -> BTreeSet<&str> {
    damage["archives"].as_array().unwrap().iter().map(|archive| text(archive, "name")).collect()
}

fn files(damage: &Value, archive: &str) -> BTreeSet<String> {
    let found = damage["archives"].as_array().unwrap().iter().find(|found| found["name"] == archive).unwrap();
    found["files"]["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_flipped_byte_is_named_healed_by_the_next_backup_and_repaired_by_stock_borg() {
    let Some(old) = Borg::v1_2_4() else { return not_run("a repair by borg 1.2.4", "there is no borg 1.2.4") };
    let scene = Scene::new();
    let system = &scene.system;
    let add = ["check-config", "add", "nightly", "--matching", "m.*", "--every", "14d", "--skip", "0", "--at-most", "30min"];
    system.cli_ok(&add);
    let first = scene.backup();
    let report = system.cli_json(&["repository", "check", "--config", "nightly"]);
    assert_eq!((number(&report, "error_count"), &report["structure"]["promise"]), (0, &"holds".into()), "{report}");
    // Nothing is due again to one that leaves out what was checked lately, and it does not say that it has looked.
    system.cli_ok(&["check-config", "add", "lately", "--repository", "main", "--every", "14d"]);
    let idle = system.cli_ok(&["repository", "check", "--config", "lately"]);
    assert!(idle.contains("nothing was due") && !idle.contains("is whole"), "{idle}");
    system.cli_ok(&["check-config", "remove", "lately"]);
    let shown = system.cli_ok(&["repository", "show", "main"]);
    assert!(shown.contains("100 % in 14 days") && shown.contains("never verified"), "{shown}");

    let segment = scene.data_segment();
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    // As a disk does it, which changes no time.
    file.set_modified(modified).unwrap();

    // A schedule's job finds it, and names what stock borg cannot read.
    system.cli_ok(&["schedule", "add", "checks", "--at", "yearly 01-01 00:00 UTC", "--check-config", "nightly"]);
    let ran = system.cli_json(&["schedule", "run", "checks"]);
    let job = tests::wait_for_end(system, ran["jobs"][0].as_u64().unwrap());
    tests::assert_failed(&job, "repository-check-needed");
    let damage = scene.damage().unwrap();
    assert_eq!((names(&damage), number(&damage, "chunks")), (BTreeSet::from([first.as_str()]), 1), "{damage}");
    assert_eq!((&damage["archives"][0]["client"], &damage["archives"][0]["label"]), (&"host".into(), &"all".into()));
    let oracle = scene.oracle(&first);
    assert_eq!((files(&damage, &first), oracle.len()), (oracle, 1), "{damage}");
    let told = String::from_utf8(system.cli(&["repository", "damage", "main"]).stdout).unwrap();
    assert!(told.contains("1 chunk damaged or missing, in 1 archive of host") && told.contains("source/file"), "{told}");
    assert!(system.cli_ok(&["repository", "list"]).contains("DAMAGED"));

    // What the client still has heals the older archive as well.
    let second = scene.backup();
    [&first, &second].iter().for_each(|archive| scene.assert_whole(archive));
    let (code, said) = system.cli_fails(&["repository", "check", "main"]);
    assert_eq!(code, 1, "the segment still has the bad entry: {said}");
    let left = scene.damage().unwrap();
    assert_eq!((number(&left, "chunks"), names(&left).len(), number(&left, "healed")), (0, 0, 1), "{left}");
    let told = String::from_utf8(system.cli(&["repository", "damage", "main"]).stdout).unwrap();
    assert!(told.contains("1 chunk healed") && told.contains("--repair --repository-only") && !told.contains("0 chunks"), "{told}");
    // Whoever asks for anything hears of it first.
    for words in [&["status"][..], &["doctor"]] {
        let said = String::from_utf8(system.cli(words).stdout).unwrap();
        let line = said.lines().next().unwrap();
        assert!(line.starts_with("PROBLEM") && line.contains("repository main is DAMAGED since"), "{said}");
    }

    // Nothing that an archive needs is lost, so the old borg may repair the segments, too.
    scene.repair(&old, &["--repository-only"]);
    scene.assert_sound(&[&first, &second]);
    let third = scene.backup();
    scene.assert_sound(&[&first, &second, &third]);
}

#[test]
fn a_segment_that_is_gone_takes_what_only_it_had() {
    let scene = Scene::new();
    let system = &scene.system;
    let first = scene.backup();
    scene.add_something();
    let second = scene.backup();
    fs::remove_file(scene.data_segment()).unwrap();
    let (code, said) = system.cli_fails(&["repository", "check", "main", "--verify-data"]);
    assert!(code == 1 && said.contains("borgcube repository damage main"), "{said}");
    // Whoever calls this may be root, and reads nothing that a client wrote; a job does, confined, and need not read all data again.
    assert!(said.contains("Which files are concerned, a job finds out: borgcube repository check main --job --wait"), "{said}");
    assert!(scene.damage().unwrap()["archives"].as_array().unwrap().iter().all(|archive| archive["files"].is_null()));
    system.cli_fails(&["repository", "check", "main", "--job", "--wait"]);
    let damage = scene.damage().unwrap();
    assert_eq!((names(&damage), number(&damage, "chunks") >= 8), (BTreeSet::from([first.as_str(), second.as_str()]), true), "{damage}");
    assert_eq!((files(&damage, &second).len(), files(&damage, &second)), (8, scene.oracle(&second)), "{damage}");
    // That of the first one is gone with it.
    let lost = damage["archives"].as_array().unwrap().iter().find(|archive| archive["name"] == first.as_str()).unwrap();
    assert!(text(lost, "error").contains("metadata"), "{lost}");

    let third = scene.backup();
    [&second, &third].iter().for_each(|archive| scene.assert_whole(archive));
    let (_, said) = system.cli_fails(&["repository", "check", "main", "--verify-data"]);
    assert!(said.contains(&first) && !said.contains(&second), "{said}");
    // No client can send that again; it can be given up without any repair.
    system.cli_ok(&["archive", "delete", &first, "--now", "--yes"]);
    scene.assert_sound(&[&second, &third]);
}

#[test]
fn a_segment_that_was_cut_off_is_repaired_by_stock_borg() {
    let Some(new) = Borg::v1_4_5() else { return not_run("a repair by borg 1.4.5", "there is no borg 1.4.5") };
    let scene = Scene::new();
    let system = &scene.system;
    scene.backup();
    scene.add_something();
    let second = scene.backup();
    let segment = scene.data_segment();
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(segment.metadata().unwrap().len() / 2).unwrap();
    // It is not even opened, and nothing is written to it.
    let (_, said) = system.cli_fails(&["repository", "check", "main"]);
    let number_of = segment.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("segment {number_of}")), "{said}");
    let damage = scene.damage().unwrap();
    assert!(damage["errors"][0].as_str().unwrap().contains("cannot be opened"), "{damage}");
    let shown = system.cli_ok(&["repository", "show", "main"]);
    assert!(shown.contains("it cannot be opened") && !shown.contains("all sound"), "{shown}");
    assert!(!system.run("host/all").status.success());
    // The first archive's own metadata is lost, and half of the files of the second: a repair takes the one out and puts zeros into the other,
    // which is stock borg's archive from then on.
    scene.repair(&new, &[]);
    assert!(!scene.oracle(&second).is_empty());
    let third = scene.backup();
    scene.assert_whole(&third);
    // What was sent again is put into its place by another repair.
    scene.repair(&new, &[]);
    assert_eq!(scene.oracle(&second), BTreeSet::new());
    let report = system.cli_json(&["repository", "check", "main", "--verify-data"]);
    assert_eq!((number(&report, "error_count"), &report["damage"]), (0, &Value::Null), "{report}");
    let fourth = scene.backup();
    [&third, &fourth].iter().for_each(|archive| scene.assert_whole(archive));
    scene.judged(&[&second, &third, &fourth]);
}
