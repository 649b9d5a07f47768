//! Archives of other origin, with the real programs: once imported they are like any other, and until then nothing of theirs is deleted.

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use testkit::borgs::Borg;
use testkit::system::TestSystem;
use testkit::tree::{Random, Spec, assert_same, make};
use testkit::world::BorgWorld;
use tests::{assert_failed, newest_archive, newest_job, number, text};

const PASSPHRASE: &str = "what others have made";

/// Adopts a repository that a stock borg has made.
fn adopt(system: &TestSystem, name: &str, path: &Path, mode: &str) {
    let secret = system.secret_file(&format!("secret-{name}"), PASSPHRASE).display().to_string();
    let passphrase = ["--passphrase-file", &secret];
    let passphrase = if mode == "none" { &[][..] } else { &passphrase };
    system.cli_ok(&[&["repository", "add", name, &path.display().to_string(), "--adopt"], passphrase].concat());
}

fn foreign(system: &TestSystem, repository: &str) -> Vec<String> {
    let listed = system.cli_json(&["archive", "list", "--foreign", "--repository", repository]);
    listed.as_array().unwrap().iter().map(|archive| text(archive, "name").to_owned()).collect()
}

/// Names of the records, the newest first.
fn records(system: &TestSystem, repository: &str) -> Vec<String> {
    let listed = system.cli_json(&["archive", "list", "--repository", repository]);
    listed.as_array().unwrap().iter().map(|archive| text(archive, "name").to_owned()).collect()
}

/// What came of the newest job.
fn result(system: &TestSystem) -> (u64, u64, u64) {
    let job = newest_job(system);
    let result = &job["yield"];
    assert_eq!(text(result, "kind"), "imported", "{job}");
    (number(result, "imported"), number(result, "refused"), number(result, "skipped"))
}

fn below(root: &Path, source: &Path) -> PathBuf {
    root.join(source.strip_prefix("/").unwrap())
}

#[test]
fn archives_of_stock_borgs_become_archives_like_others() {
    let system = TestSystem::start();
    let modes = ["repokey", "none", "repokey-blake2"];
    for (borg, mode) in Borg::all_clients().into_iter().zip(modes) {
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        let name = format!("of-{}", borg.version.replace('.', "-"));
        let (repository, source) = (system.join(&name), system.join(format!("source-{name}")));
        make(&source, Spec { files: 30, big: 3 << 20, seed: 7 });
        borg.init(&world, &repository, mode).unwrap();
        for archive in ["other.checkpoint", "first", "second"] {
            fs::write(source.join("own"), Random::new(archive.len() as u64).bytes(1 << 20)).unwrap();
            borg.create(&world, &repository, archive, &["--comment", "by \u{1b}[2Jhand"], &[&source]).unwrap();
        }
        adopt(&system, &name, &repository, mode);
        let client = format!("client-{name}");
        system.cli_ok(&["client", "add", &client, "--local", &format!("--remote-borg={}", borg.program.display())]);

        let listed = system.cli_json(&["archive", "list", "--foreign", "--repository", &name]);
        assert_eq!(listed.as_array().unwrap().len(), 3);
        let first = listed.as_array().unwrap().iter().find(|archive| archive["name"] == "first").unwrap();
        assert_eq!(text(first, "comment"), "by \\u{1b}[2Jhand");
        // Older ones may have it from a distribution, or not.
        assert!(first["signed"] == true || !borg.at_least([1, 2, 5]), "{first}");
        assert!(!text(first, "hostname").is_empty() && !text(first, "username").is_empty());
        // Nothing of it is known yet, and a delete keeps everything.
        assert_eq!(records(&system, &name), Vec::<String>::new());

        let import = ["archive", "import", &name, "--match", "first|sec.*|other.*", "--client", &client, "--label", "all"];
        let plan = system.cli_json(&[&import[..], &["--dry-run"]].concat());
        let skipped = plan.as_array().unwrap().iter().filter(|one| one["import_as"].is_null()).count();
        assert_eq!((plan.as_array().unwrap().len(), skipped), (3, 1), "{plan}");
        assert_eq!(foreign(&system, &name).len(), 3, "a dry run");
        system.cli_ok(&[&import[..], &["--wait"]].concat());
        assert_eq!(result(&system), (2, 0, 1));
        assert_eq!(records(&system, &name), ["second", "first"]);
        assert_eq!(foreign(&system, &name), ["other.checkpoint"]);
        let record = system.cli_json(&["archive", "show", "second", "--repository", &name]);
        system.settle();
        let info = borg.info_json(&world, &repository, Some("second")).unwrap();
        let stats = &info["archives"][0]["stats"];
        assert_eq!(number(&record["statistics"], "nfiles"), number(stats, "nfiles"), "{record} {info}");
        assert_eq!(text(&record["imported"], "by"), text(&newest_job(&system), "actor"));
        assert_eq!(text(&record, "label"), "all");
        let shown = system.cli_ok(&["archive", "show", "second", "--repository", &name]);
        assert!(shown.contains("hostname=") && !shown.contains('\u{1b}'), "{shown}");

        // Again: there is nothing to do.
        system.cli_ok(&[&import[..], &["--wait"]].concat());
        assert_eq!(records(&system, &name).len(), 2);

        // The client sends nothing that its archives have.
        system.add_config(&client, "all", &name, &[], &[&source]);
        system.run_ok(&format!("{client}/all"));
        let made = newest_archive(&system);
        let sent = number(&made["counters"], "put_bytes");
        assert!(sent < 200_000, "{sent} of {}", made["statistics"]);
        assert!(number(&made["statistics"], "original_size") > 4 << 20);

        // A delete still keeps what it has no list of, and says so; then the checkpoint is imported as well.
        let said = system.cli_ok(&["archive", "delete", "first", "--repository", &name, "--now", "--yes"]);
        assert!(said.contains("other.checkpoint"), "{said}");
        system.cli_ok(&["archive", "import", &name, "other.checkpoint", "--client", &client, "--wait"]);
        assert_eq!(foreign(&system, &name), Vec::<String>::new());
        let warned = system.cli_json(&["archive", "show", "other.checkpoint", "--repository", &name]);
        assert!(warned["warnings"].to_string().contains("checkpoint"), "{warned}");
        system.cli_ok(&["archive", "delete", "other.checkpoint", "--repository", &name, "--now", "--yes"]);
        let compacted = system.cli_json(&["repository", "compact", &name]);
        assert!(number(&compacted, "freed") > 1 << 20, "{compacted}");

        // What is left is whole, here and for its maker, and comes back on server and client.
        system.cli_ok(&["repository", "check", &name, "--verify-data"]);
        let target = system.join(format!("here-{name}"));
        system.cli_ok(&["archive", "extract", "second", "--repository", &name, "--to", &target.display().to_string(), "--privileged"]);
        assert_same(&source, &below(&target, &source));
        let there = system.join(format!("there-{name}")).display().to_string();
        system.cli_ok(&["restore", "second", "--repository", &name, "--into", &there, "--wait", "--yes"]);
        assert_same(&source, &below(Path::new(&there), &source));
        system.settle();
        borg.check_verify_data(&world, &repository).unwrap();
    }
}

#[test]
fn damage_refuses_one_archive_and_names_the_files() {
    let system = TestSystem::start();
    let Some(borg) = Borg::v1_4_5() else { return testkit::borgs::not_run("imports of damaged archives", "borg 1.4.5 is not installed") };
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let (repository, source) = (system.join("repository"), system.join("source"));
    fs::create_dir(&source).unwrap();
    borg.init(&world, &repository, "authenticated").unwrap();
    for archive in 0..3 {
        for file in 0..3 {
            fs::write(source.join(format!("file {file}")), Random::new(archive * 10 + file).bytes(50_000)).unwrap();
        }
        borg.create(&world, &repository, &format!("archive {archive}"), &[], &[&source]).unwrap();
    }
    let dump = system.join("dump.json");
    let place = |archive: &str| format!("{}::{archive}", repository.display());
    borg.run(&world, ["debug", "dump-archive", &place("archive 1"), &dump.display().to_string()]).unwrap();
    let dump: Value = serde_json::from_str(&fs::read_to_string(&dump).unwrap()).unwrap();
    let items = dump["_items"].as_array().unwrap();
    let item = items.iter().find(|item| item["path"].as_str().is_some_and(|path| path.ends_with("file 1"))).unwrap();
    // Borg marks what was bytes.
    let chunk = item["chunks"][0][0].as_str().unwrap().trim_start_matches('\u{7f}');
    borg.run(&world, ["debug", "delete-obj", &repository.display().to_string(), chunk]).unwrap();

    adopt(&system, "main", &repository, "authenticated");
    system.add_local_client("host");
    let (code, said) = system.cli_fails(&["archive", "import", "main", "--all", "--client", "host", "--wait"]);
    assert!(code != 0 && said.contains("archive 1") && said.contains("file 1") && !said.contains("file 2"), "{said}");
    assert_eq!(result(&system), (2, 1, 0));
    let job = newest_job(&system);
    assert_failed(&job, "repository-check-needed");
    assert_eq!(records(&system, "main"), ["archive 2", "archive 0"]);
    assert_eq!(foreign(&system, "main"), ["archive 1"]);
    assert!(
        job["warnings"].to_string().contains(chunk) || system.cli_ok(&["job", "log", &number(&job, "number").to_string()]).contains(chunk)
    );
    // Whoever does not want it any more deletes it; then nothing stands in the way of the others.
    system.cli_ok(&["archive", "delete", "archive 1", "--repository", "main", "--now", "--yes"]);
    let deleted = system.cli_json(&["archive", "delete", "archive 0", "--repository", "main", "--now", "--yes"]);
    assert!(deleted[0]["kept_because"].is_null() && (150_000..160_000).contains(&number(&deleted[0], "bytes")), "{deleted}");

    // Bad input says what to do.
    for (arguments, code, words) in [
        (&["nothing", "--client", "host"][..], 3, "--foreign"),
        (&["--all", "--client", "nobody"], 3, "nobody"),
        (&["--all"], 2, "--client"),
        (&["--match", "a)|(b", "--client", "host"], 2, "regular expression"),
        (&["--all", "x", "--client", "host"], 2, "--all"),
    ] {
        let (found, said) = system.cli_fails(&[&["archive", "import", "main"], arguments].concat());
        assert!(found == code && said.contains(words), "{arguments:?}: {found} {said}");
    }
}

#[test]
fn a_server_that_lost_its_state_goes_on() {
    let mut before = TestSystem::start();
    let repository = before.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    let source = before.join("source");
    make(&source, Spec { files: 10, big: 1 << 20, seed: 3 });
    for client in ["web-1", "web-1-x"] {
        before.add_local_client(client);
        for label in ["etc", "x-etc"] {
            before.add_config(client, label, "main", &[], &[&source]);
            before.run_ok(&format!("{client}/{label}"));
        }
    }
    before.run_ok("web-1/etc");
    before.run_ok("web-1/etc");
    let add = ["policy", "add", "short", "--keep-last", "2", "--minimum", "0", "--zone", "UTC", "--matching", ".*/.*"];
    let plan = |system: &TestSystem| {
        system.cli_ok(&add);
        let shown = system.cli_json(&["policy", "preview", "short"]);
        let archives = shown["groups"].as_array().unwrap().iter().flat_map(|group| {
            let config = group["config"].clone();
            let archives = group["archives"].as_array().unwrap().iter();
            archives.map(move |one| format!("{config} {} {} {}", text(one, "name"), one["time"], text(one, "sentence"))).collect::<Vec<_>>()
        });
        (archives.collect::<Vec<_>>(), number(&shown["freed"][0], "archives"))
    };
    let planned = plan(&before);
    assert_eq!((planned.0.len(), planned.1), (6, 1), "{planned:?}");
    before.settle();
    before.down();

    let after = TestSystem::start();
    adopt(&after, "main", &repository, "repokey-blake2");
    for client in ["web-1", "web-1-x"] {
        after.add_local_client(client);
    }
    after.cli_ok(&["archive", "import", "main", "--all", "--attribute-by-name", "--wait"]);
    assert_eq!(result(&after), (6, 0, 0));
    assert_eq!(plan(&after), planned);
    // Its clients go on where they were.
    after.add_config("web-1", "etc", "main", &[], &[&source]);
    after.run_ok("web-1/etc");
    assert!(number(&newest_archive(&after)["counters"], "put_bytes") < 100_000);
    let oldest = records(&after, "main").pop().unwrap();
    let there = after.join("there").display().to_string();
    after.cli_ok(&["restore", &oldest, "--into", &there, "--wait", "--yes"]);
    assert_same(&source, &below(Path::new(&there), &source));
    after.settle();
    for judge in Borg::judges() {
        judge.check_verify_data(&BorgWorld::with_passphrase(PASSPHRASE), &repository).unwrap();
    }
}

/// What a person types who has the sheet on paper.
fn typed(sheet: &str) -> String {
    let lines = sheet.lines().skip_while(|line| *line != "BORG PAPER KEY v1").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('-') && !line.is_empty());
    lines.map(|line| line.split_once(": ").unwrap().1.to_owned() + "\n").collect()
}

#[test]
fn keys_are_printed_as_stock_borg_takes_them_back() {
    let system = TestSystem::start();
    let judges = Borg::judges();
    let modes = ["repokey", "keyfile-blake2", "authenticated"];
    for (borg, mode) in judges.iter().cycle().zip(modes) {
        let mut world = BorgWorld::with_passphrase(PASSPHRASE);
        let name = format!("{mode}-{}", borg.version.replace('.', "-"));
        let repository = system.add_repository(&name, mode, Some(PASSPHRASE));
        let place = repository.display().to_string();
        let keyfile = system.state().join("credentials").join(&name).join("key");
        if mode.starts_with("keyfile") {
            world.set("BORG_KEY_FILE", &keyfile);
        }
        let sheet = system.cli_ok(&["keys", "export", &name]);
        assert!(sheet.contains(&place) && !sheet.contains(PASSPHRASE), "{sheet}");
        let file = system.join(format!("{name}.key"));
        system.cli_ok(&["keys", "export", &name, "--format", "key", "--output", &file.display().to_string()]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        system.settle();

        // Byte for byte what Borg writes.
        for (format, options) in [("paper", &["--paper"][..]), ("key", &[])] {
            let theirs = system.join(format!("theirs-{name}-{format}")).display().to_string();
            borg.run(&world, [&["key", "export"], options, &[&place, &theirs]].concat()).unwrap();
            assert_eq!(system.cli_ok(&["keys", "export", &name, "--format", format]), fs::read_to_string(&theirs).unwrap(), "{name}");
        }
        system.settle();
        // The key is lost, and comes back from paper, and from the file.
        let key = fs::read_to_string(&file).unwrap();
        assert!(sheet.contains(&key), "the sheet has the file as it is");
        for from_paper in [true, false] {
            lose_key(&repository, &keyfile, mode);
            assert!(borg.run(&world, ["list", &place]).is_err(), "{name}");
            let mut command = borg.command(&world);
            command.args(["key", "import"]);
            let mut command = if from_paper {
                command.args(["--paper", &place]);
                command
            } else {
                command.args([&place, &file.display().to_string()]);
                command
            };
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(typed(&sheet).as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{name} {}", String::from_utf8_lossy(&output.stderr));
            borg.run(&world, ["list", &place]).unwrap();
        }
    }
    system.add_repository("open", "none", None);
    let (code, said) = system.cli_fails(&["keys", "export", "open"]);
    assert!(code == 2 && said.contains("has no key"), "{code} {said}");
    let all = system.join("all");
    let output = system.cli(&["keys", "export", "--all", "--output", &all.display().to_string()]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("open"), "{output:?}");
    let keys = modes.len();
    assert_eq!(fs::read_to_string(&all).unwrap().matches("BORG PAPER KEY").count(), keys);
    let (code, said) = system.cli_fails(&["keys", "export", "--all", "--output", &all.display().to_string()]);
    assert!(code == 4 && said.contains("not written over"), "{code} {said}");
    // A file that others may read is no place for it.
    let open = fs::File::create(system.join("public")).unwrap();
    open.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    let status = system.cli_command(&["keys", "export", "--all"]).stdout(open).stderr(Stdio::null()).status().unwrap();
    assert!(!status.success() && fs::metadata(system.join("public")).unwrap().len() == 0);
    // Who has them stands in the log.
    let log = system.cli_ok(&["log", "--limit", "50"]);
    assert!(log.contains("key of repository repokey") && log.contains("exported"), "{log}");
}

/// As a broken disk would leave it.
fn lose_key(repository: &Path, keyfile: &Path, mode: &str) {
    if mode.starts_with("keyfile") {
        return fs::remove_file(keyfile).unwrap();
    }
    let config = fs::read_to_string(repository.join("config")).unwrap();
    let (front, _) = config.split_once("key = ").unwrap();
    fs::write(repository.join("config"), format!("{front}key = \n")).unwrap();
}
