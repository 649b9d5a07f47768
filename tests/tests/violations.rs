//! A client that does what no backup does: the job fails with the rule's name, the client reads one clean line, and nothing has changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use testkit::borgs::Borg;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{newest_archive, newest_job, number, text};

const PASSPHRASE: &str = "nobody but the owner";

/// Every file of a repository that says what it holds.
fn contents(repository: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut stack = vec![repository.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                stack.push(path);
            } else if !path.ends_with("nonce") {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn each_deed_has_its_rule() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    system.add_local_client("victim");
    let source = system.join("source");
    make(&source, Spec { files: 10, ..Spec::default() });
    system.add_config("victim", "all", "main", &[], &[&source]);
    system.run_ok("victim/all");
    let first = newest_archive(&system);
    let foreign = text(&first, "id").to_owned();

    let python = Borg::v1_4_5().expect("borg 1.4.5 is needed").program.with_file_name("python");
    let borg = system.join("hostile");
    fs::write(&borg, format!("#!{}\n{}", python.display(), include_str!("hostile.py"))).unwrap();
    fs::set_permissions(&borg, fs::Permissions::from_mode(0o755)).unwrap();
    system.cli_ok(&["client", "add", "hostile", "--local", &format!("--remote-borg={}", borg.display())]);
    system.add_config("hostile", "all", "main", &[], &[&source]);
    system.settle();
    let before = contents(&repository);

    for (deed, rule) in [
        ("list", "method"),
        ("destroy", "method"),
        ("read", "get-not-own"),
        ("wrong-id", "chunk-id"),
        ("delete", "delete-not-own"),
        ("bomb", "message"),
        ("commit", "commit-nothing"),
    ] {
        fs::write(system.join("deed"), format!("{deed} {foreign}")).unwrap();
        assert_eq!(system.run("hostile/all").status.code(), Some(10), "{deed}");
        let record = newest_job(&system);
        let failure = &record["failure"];
        assert_eq!(failure["cause"]["word"], "policy-violation", "{deed}: {record}");
        assert_eq!(text(&failure["cause"], "rule"), rule, "{deed}: {failure}");
        // The rule in words, and what this client did.
        assert!(text(failure, "message").contains(" (this client: "), "{failure}");
        let log = system.cli_ok(&["job", "log", &number(&record, "number").to_string()]);
        if deed != "bomb" {
            let told = log.lines().filter(|line| line.contains("BorgCube refused this backup")).count();
            assert!(told >= 1, "{deed}: the client was not told:\n{log}");
        }
        assert!(!log.contains("was not punished") && !log.contains("panicked"), "{log}");
        system.settle();
        let after = contents(&repository);
        let changed: Vec<_> = before.keys().filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(changed.is_empty() && before.len() == after.len(), "{deed} changed {changed:?}");
    }

    // A token that leads nowhere is no accusation of the client whose job it is: somebody tried.
    fs::write(system.join("deed"), format!("other-token {foreign}")).unwrap();
    assert_eq!(system.run("hostile/all").status.code(), Some(10));

    assert_eq!(system.cli_json(&["archive", "list"]).as_array().map(Vec::len), Some(1));
    system.run_ok("victim/all");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for judge in Borg::judges() {
        judge.judge(&world, &repository, text(&newest_archive(&system), "name"), &source).unwrap();
    }
}
