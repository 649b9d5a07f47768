//! Repositories that exist already, near and far, and every compression a client may choose.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use testkit::borgs::Borg;
use testkit::sshd::Sshd;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{newest_archive, text};

const PASSPHRASE: &str = "an old and trusted passphrase";

fn stock() -> Borg {
    Borg::v1_4_5().expect("borg 1.4.5 is needed")
}

#[test]
fn an_old_repository_is_adopted_with_its_archives() {
    let system = TestSystem::start();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let (repository, source) = (system.join("old"), system.join("source"));
    make(&source, Spec::default());
    stock().init(&world, &repository, "repokey-blake2").unwrap();
    stock().create(&world, &repository, "before", &[], &[&source]).unwrap();

    // The passphrase comes over a descriptor, here standard input.
    let path = repository.display().to_string();
    let mut add = system.cli_command(&["repository", "add", "old", &path, "--adopt", "--passphrase-fd", "0"]);
    let mut add = add.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(add.stdin.take().unwrap(), "{PASSPHRASE}").unwrap();
    let output = add.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(system.cli_json(&["repository", "show", "old"])["encryption"], "repokey-blake2");

    system.add_local_client("host");
    system.add_config("host", "all", "old", &[], &[&source]);
    system.run_ok("host/all");
    let archive = newest_archive(&system);
    // What was there before is not the client's to refer to, so it was sent; but it was not stored twice.
    let counters = &archive["counters"];
    assert!(counters["put_bytes"].as_u64().unwrap() > 3 << 20, "{counters}");
    assert!(archive["statistics"]["deduplicated_size"].as_u64().unwrap() < 1 << 20, "{archive}");
    system.settle();
    for judge in Borg::judges() {
        judge.judge(&world, &repository, text(&archive, "name"), &source).unwrap();
        judge.judge(&world, &repository, "before", &source).unwrap();
    }
    // And stock borg may go on with it, and then we again.
    stock().create(&world, &repository, "between", &[], &[&source]).unwrap();
    system.run_ok("host/all");
    system.settle();
    assert_eq!(stock().archives(&world, &repository).unwrap().len(), 4);
    stock().check_verify_data(&world, &repository).unwrap();
}

#[test]
fn a_keyfile_repository_is_adopted_with_its_key() {
    let system = TestSystem::start();
    let mut world = BorgWorld::with_passphrase(PASSPHRASE);
    let key = system.join("exported.key");
    world.set("BORG_KEY_FILE", &key);
    let (repository, source) = (system.join("keyed"), system.join("source"));
    make(&source, Spec { files: 5, ..Spec::default() });
    stock().init(&world, &repository, "keyfile").unwrap();
    let secret = system.secret_file("secret", PASSPHRASE);
    let (path, secret) = (repository.display().to_string(), secret.display().to_string());
    let (_, said) = system.cli_fails(&["repository", "add", "keyed", &path, "--adopt", "--passphrase-file", &secret]);
    assert!(said.contains("--key-file"), "{said}");
    system.cli_ok(&[
        "repository",
        "add",
        "keyed",
        &path,
        "--adopt",
        "--passphrase-file",
        &secret,
        "--key-file",
        &key.display().to_string(),
    ]);
    system.add_local_client("host");
    system.add_config("host", "all", "keyed", &[], &[&source]);
    system.run_ok("host/all");
    system.settle();
    for judge in Borg::judges() {
        judge.judge(&world, &repository, text(&newest_archive(&system), "name"), &source).unwrap();
    }
}

#[test]
fn a_repository_behind_ssh() {
    let system = TestSystem::start();
    let mut storage = Sshd::start();
    let key = storage.authorize("");
    let source = system.join("source");
    make(&source, Spec { files: 5, ..Spec::default() });
    let repository = system.join("far");
    let url = format!("ssh://{}:{}{}", storage.destination(), storage.port(), repository.display());
    let secret = system.secret_file("secret", PASSPHRASE);
    let (rsh, borg) = (storage.rsh(&key), stock().program.display().to_string());
    let options = ["--encryption", "repokey", "--passphrase-file", secret.to_str().unwrap(), "--rsh", &rsh, "--remote-borg", &borg];
    system.cli_ok(&[&["repository", "add", "far", &url], &options[..]].concat());
    system.add_local_client("host");
    system.add_config("host", "all", "far", &[], &[&source]);
    system.run_ok("host/all");
    let first = text(&newest_archive(&system), "name").to_owned();

    system.settle();
    storage.stop();
    let output = system.run("host/all");
    assert_eq!(output.status.code(), Some(10));
    tests::assert_failed(&tests::newest_job(&system), "repository-unreachable");
    storage.come_back();

    system.run_ok("host/all");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for judge in Borg::judges() {
        judge.judge(&world, &repository, text(&newest_archive(&system), "name"), &source).unwrap();
        assert!(judge.archives(&world, &repository).unwrap().contains(&first));
    }
}

#[test]
fn every_compression_of_the_client() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    let borg = format!("--remote-borg={}", stock().program.display());
    system.cli_ok(&["client", "add", "host", "--local", &borg]);
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let specs = [
        "none",
        "lz4",
        "zstd,3",
        "zlib,6",
        "lzma,6",
        "auto,zstd",
        "auto,lzma,3",
        "obfuscate,2,lz4",
        "obfuscate,250,zstd,1",
        "obfuscate,110,none",
    ];
    let mut made = vec![];
    for (n, spec) in specs.iter().enumerate() {
        // A source of its own each, or nothing but the first would be compressed.
        let source = system.join(format!("source-{n}"));
        make(&source, Spec { seed: n as u64 + 10, files: 10, big: 1 << 20 });
        let label = format!("c{n}");
        system.add_config("host", &label, "main", &[&format!("--compression={spec}")], &[&source]);
        system.run_ok(&format!("host/{label}"));
        made.push((text(&newest_archive(&system), "name").to_owned(), source));
    }
    system.settle();
    for judge in Borg::judges() {
        for ((archive, source), spec) in made.iter().zip(specs) {
            judge.judge(&world, &repository, archive, source).unwrap_or_else(|e| panic!("{spec}: {e:#}"));
        }
    }
}

#[test]
fn what_a_config_says_is_what_borg_does() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "none", None);
    system.add_local_client("host");
    let source = system.join("source");
    fs::create_dir_all(source.join("cache/keep")).unwrap();
    for file in ["a.txt", "b.tmp", "cache/c", "cache/keep/d", "it's $(odd)"] {
        fs::write(source.join(file), file).unwrap();
    }
    let keep = format!("--pattern=+ {}/cache/keep", source.display());
    let drop = format!("--pattern=- {}/cache/*", source.display());
    system.add_config("host", "all", "main", &["--exclude=*.tmp", &keep, &drop, "--one-file-system", "--ignore-inode"], &[&source]);
    system.run_ok("host/all");
    system.settle();
    let items = stock().extract_list(&BorgWorld::new(), &repository, text(&newest_archive(&system), "name")).unwrap();
    let mut names: Vec<_> = items.iter().filter_map(|i| i.split_once("source/").map(|(_, name)| name)).collect();
    names.sort_unstable();
    assert_eq!(names, ["a.txt", "cache", "cache/keep", "cache/keep/d", "it's $(odd)"]);

    // Taken out of the list again, and nothing on the disk is touched.
    system.cli_ok(&["config", "remove", "host/all"]);
    system.cli_ok(&["repository", "remove", "main", "--yes"]);
    assert!(repository.join("config").exists());
    let transaction = system.cli_json(&["log", "-n", "1"])[0]["transaction"].as_u64().unwrap();
    system.cli_ok(&["undo", &transaction.to_string()]);
    assert_eq!(system.cli_json(&["archive", "list"]).as_array().map(Vec::len), Some(1));
}
