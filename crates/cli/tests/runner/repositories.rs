//! `borgcube repository` with the real programs and a real borg.

use crate::fake::{Fake, error, ok};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use testkit::TestSystem;

fn words<'a>(line: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    line.split(' ').chain(more.iter().copied()).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn secrets_are_private_and_gone_when_the_call_fails() {
    let system = TestSystem::start();
    let path = system.add_repository("main", "repokey", Some("correct horse battery"));
    let credentials = system.state().join("credentials");
    let file = credentials.join("main/passphrase");
    assert_eq!(fs::read_to_string(&file).unwrap(), "correct horse battery");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(credentials.join("main")).unwrap().permissions().mode() & 0o777, 0o700);

    let wrong = text(&system.secret_file("wrong", "wrong horse battery"));
    let (code, said) = system.cli_fails(&words("repository add other --adopt --passphrase-file", &[&wrong, &text(&path)]));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("passphrase-wrong"), "{said}");
    let nothing_left = |name: &str| ["credentials", "views", "index"].iter().all(|kind| !system.state().join(kind).join(name).exists());
    assert!(nothing_left("other"));

    let weak = text(&system.secret_file("weak", "secret"));
    let (code, said) = system.cli_fails(&words("repository add weak /nonexistent/x --encryption keyfile --passphrase-file", &[&weak]));
    assert!(code == 2 && said.contains("--generate-passphrase"), "{code} {said}");
    system.cli_fails(&words("repository add weak /proc/version/x --encryption keyfile --generate-passphrase", &[]));
    assert!(nothing_left("weak"));

    let (_, said) = system.cli_fails(&words("repository add other --encryption repokey --generate-passphrase", &[&text(&path)]));
    assert!(said.contains("exists already") && said.contains("--adopt"), "{said}");
    let (code, said) = system.cli_fails(&words("repository add other --adopt", &[&text(&system.join("nothing"))]));
    assert_eq!(code, 3, "{said}");
    let (code, _) = system.cli_fails(&words("repository add main --adopt", &[&text(&path)]));
    assert_eq!(code, 4);
    assert_eq!(system.cli_json(&["repository", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_was_forgotten_is_adopted_again_with_the_secrets_that_stayed() {
    let system = TestSystem::start();
    let path = text(&system.join("keyed"));
    system.cli_ok(&words("repository add keyed --encryption keyfile-blake2 --generate-passphrase", &[&path]));
    let before = system.cli_json(&["repository", "show", "keyed"]);
    let said = system.cli_ok(&["repository", "remove", "keyed", "--yes"]);
    assert!(said.contains(&path), "{said}");
    let (code, said) =
        system.cli_fails(&words("repository add keyed --encryption keyfile --generate-passphrase", &[&text(&system.join("new"))]));
    assert_eq!(code, 4, "an old key is never overwritten: {said}");
    let said = system.cli_ok(&words("repository add keyed --adopt", &[&path]));
    assert!(said.contains("keyfile-blake2") && said.contains("0 archives"), "{said}");
    assert_eq!(system.cli_json(&["repository", "show", "keyed"])["repository_id"], before["repository_id"]);
}

#[test]
fn keys_and_passphrases_of_stock_borg_are_adopted() {
    let system = TestSystem::start();
    let path = text(&system.join("stock"));
    let key = text(&system.join("stock.key"));
    let borg = |arguments: &[&str]| {
        let mut command = std::process::Command::new("borg");
        command.env("BORG_BASE_DIR", system.home()).env("BORG_PASSPHRASE", "correct horse battery").env("BORG_SELFTEST", "disabled");
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    borg(&["init", "--encryption=keyfile", &path]);
    borg(&["key", "export", &path, &key]);
    let passphrase = text(&system.secret_file("passphrase", "correct horse battery"));
    let (_, said) = system.cli_fails(&words("repository add stock --adopt --passphrase-file", &[&passphrase, &path]));
    assert!(said.contains("key-missing") && said.contains("--key-file"), "{said}");
    system.cli_ok(&words("repository add stock --adopt --passphrase-file", &[&passphrase, "--key-file", &key, &path]));
    assert_eq!(system.cli_json(&["repository", "show", "stock"])["encryption"], "keyfile");
}

#[test]
fn a_change_is_tried_before_it_is_stored() {
    let system = TestSystem::start();
    let old = system.add_repository("main", "repokey", Some("correct horse battery"));
    let other = system.add_repository("other", "none", None);
    let wrong = text(&system.secret_file("wrong", "wrong horse battery"));
    let file = system.state().join("credentials/main/passphrase");

    let (_, said) = system.cli_fails(&words("repository edit main --passphrase-file", &[&wrong]));
    assert!(said.contains("passphrase-wrong"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "correct horse battery");
    let (code, said) = system.cli_fails(&words("repository edit main --url", &[&text(&other)]));
    assert_eq!(code, 4, "{said}");

    let moved = system.join("moved");
    fs::rename(&old, &moved).unwrap();
    system.cli_ok(&words("repository edit main --description here --url", &[&text(&moved)]));
    let record = system.cli_json(&["repository", "show", "main"]);
    assert_eq!((&record["url"], &record["description"]), (&text(&moved).into(), &"here".into()));
    assert_eq!(system.cli_fails(&["repository", "edit", "main", "--description", "here"]).0, 2);

    // What it replaces may be the only copy.
    assert_eq!(system.cli_fails(&words("repository edit main --no-check --passphrase-file", &[&wrong])).0, 2);
    assert_eq!(fs::read_to_string(&file).unwrap(), "correct horse battery");
    let left = fs::read_dir(system.state().join("credentials/main")).unwrap().count();
    assert_eq!(left, 1, "nothing stays of trying");
}

#[test]
fn a_new_repository_keeps_its_secrets_when_the_record_is_refused() {
    testkit::system::programs();
    let fake = Fake::start(|method, _, _| match method {
        "ListRepositories" => ok(json!({"repositories": []})),
        "AddRepository" => error("Conflict", "the database is full"),
        other => panic!("{other} was not expected"),
    });
    let path = fake.state().join("repository");
    let arguments = ["repository", "add", "main", &text(&path), "--encryption", "keyfile", "--generate-passphrase"];
    let (code, _, said) = fake.run(&arguments);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("borgcube repository add main {} --adopt", path.display())), "{said}");
    assert!(path.join("config").exists());
    for secret in ["passphrase", "key"] {
        assert!(fake.state().join("credentials/main").join(secret).exists(), "{secret}");
    }
}
