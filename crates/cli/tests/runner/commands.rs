//! The program in front of a control socket: exit codes, JSON, errors, what is sent.

use crate::fake::{Fake, error, ok};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

fn client(name: &str) -> Value {
    let connection = json!({"kind": "local", "remote_borg": null, "remote_cache_dir": null});
    json!({"name": name, "description": "", "connection": connection, "keys": [], "borg_binary": "if-needed", "created": 0})
}

fn clients() -> Fake {
    Fake::start(|method, _, _| match method {
        "ListClients" => ok(json!({"clients": [client("nas"), client("web1")]})),
        "ListRestoreTests" => {
            let good = json!({"time": 0, "job": 7, "archive": "a", "what": "x"});
            let tests = |label: &str, good: Value| json!({"client": "web1", "label": label, "last_good": good, "last_failed": null, "last_unproven": null, "recorded_files": 1});
            ok(json!({"tests": [tests("etc", good), tests("home", Value::Null)]}))
        }
        _ => ok(json!({})),
    })
}

#[test]
fn nobody_listens() {
    let nobody = Fake::nobody();
    let (code, out, err) = nobody.run(&["client", "list"]);
    assert_eq!((code, out.as_str()), (6, ""));
    let state = nobody.state().display().to_string();
    assert_eq!(err, format!("borgcube: borgcube up is not running in {state}\n  Start it with: borgcube up --state {state}\n"));
    let (code, out, err) = nobody.run(&["client", "list", "--json"]);
    assert_eq!((code, out.as_str()), (6, ""));
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((&error["error"]["kind"], &error["error"]["code"]), (&json!("unreachable"), &json!(6)));
}

#[test]
fn each_error_of_the_server_has_its_exit_code() {
    let cases = [
        ("NotFound", 3),
        ("AlreadyExists", 4),
        ("Conflict", 4),
        ("InvalidArgument", 2),
        ("PermissionDenied", 5),
        ("Stopping", 6),
        ("Internal", 1),
        ("SomethingNew", 1),
    ];
    for (kind, expected) in cases {
        let fake = Fake::start(move |_, _, _| error(kind, "it says \u{1b}[2J why"));
        let (code, _, err) = fake.run(&["run", "web1/etc"]);
        assert_eq!(code, expected, "{kind}");
        assert_eq!(err, "borgcube: it says \\u{1b}[2J why\n", "{kind}");
        let (code, out, err) = fake.run(&["run", "web1/etc", "--json"]);
        assert_eq!((code, out.as_str()), (expected, ""));
        assert_eq!(serde_json::from_str::<Value>(&err).unwrap()["error"]["code"], expected);
    }
}

#[test]
fn a_server_that_makes_no_sense_or_goes_away() {
    let strange = Fake::start(|_, _, _| ok(json!({"clients": 5})));
    let (code, _, err) = strange.run(&["client", "list"]);
    assert_eq!(code, 1);
    assert!(err.contains("same version"), "{err}");
    let gone = Fake::start(|_, _, _| vec![]);
    assert_eq!(gone.run(&["client", "list"]).0, 6);
}

#[test]
fn lists_are_tables_or_arrays_of_records() {
    let fake = clients();
    let (code, out, _) = fake.run(&["client", "list"]);
    assert_eq!((code, out.as_str()), (0, out.as_str()));
    assert!(out.starts_with("NAME\tCONNECTION\tRESTORE TESTED\tDESCRIPTION\nnas\tlocal\tnever\t\nweb1\tlocal\t"), "{out}");
    let (_, out, _) = fake.run(&["client", "list", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    let (_, out, _) = fake.run(&["client", "show", "web1", "--json"]);
    assert_eq!(listed[1]["name"], serde_json::from_str::<Value>(&out).unwrap()["name"]);
    for (record, name, job, without) in [(&listed[0], "nas", Value::Null, 0), (&listed[1], "web1", json!(7), 1)] {
        for (field, value) in client(name).as_object().unwrap() {
            assert_eq!(record[field], *value, "{record}");
        }
        assert_eq!((&record["last_good_restore_test"]["job"], &record["configs_without_restore_test"]), (&job, &json!(without)));
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let (code, _, err) = clients().run(&["client", "show", "other"]);
    assert_eq!(code, 3);
    assert_eq!(err, "borgcube: there is no client other\n  borgcube client list shows what there is.\n");
}

#[test]
fn names_that_mean_nothing() {
    let fake = Fake::start(|_, _, _| ok(json!({"archives": []})));
    let (code, _, err) = fake.run(&["archive", "show", "5caa"]);
    assert_eq!(code, 3);
    assert!(err.contains("there is no archive \"5caa\"") && err.contains("at least 8 digits"), "{err}");
    assert!(!fake.run(&["archive", "show", "web1-etc"]).2.contains("8 digits"));
    let (code, _, err) = fake.run(&["job", "show", "abc"]);
    assert_eq!(code, 2);
    assert!(err.contains("a job is named by its number; borgcube job list shows them"), "{err}");
}

#[test]
fn usage_errors() {
    let fake = clients();
    for wrong in [
        &["client", "add", "x"][..],
        &["client", "add", "-x", "--local"],
        &["client", "add", "a b", "--local"],
        &["client", "add", "x", "--remote", "$(id)", "--server", "b@h"],
        &["config", "add", "l", "--client", "web1", "--repository", "r", "relative"],
        &["run", "web1"],
        &["run", "web1/etc", "--name", "a/b"],
        &["repository", "add", "r", "/srv/x"],
        &["repository", "add", "r", "/srv/x", "--adopt", "--encryption", "none"],
        &["repository", "add", "r", "/srv/x", "--encryption", "aes"],
        &["client", "edit", "web1"],
        &["job", "list", "--job-state", "lost"],
        &["nonsense"],
    ] {
        let (code, out, err) = fake.run(wrong);
        assert_eq!((code, out.as_str()), (2, ""), "{wrong:?} {err}");
        assert!(!err.is_empty());
        let (code, out, err) = fake.run(&[wrong, &["--json"]].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{wrong:?}");
        let error: Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{wrong:?}: {e}: {err}"));
        assert_eq!(error["error"]["kind"], "usage", "{wrong:?}");
    }
    assert!(fake.methods().iter().all(|m| m == "ListClients"), "{:?}", fake.methods());
}

#[test]
fn records_arrive_as_they_were_typed() {
    let fake = clients();
    let arguments =
        ["config", "add", "home", "--client", "web1", "--repository", "main", "--exclude", "*.o", "--compression", "zstd,3", "/home"];
    let (code, out, _) = fake.run(&arguments);
    assert_eq!(code, 0);
    assert_eq!(out, "Added backup config web1/home. Run it with: borgcube run web1/home --wait\n");
    let config = &fake.last()["config"];
    assert_eq!(config["excludes"], json!(["*.o"]));
    assert_eq!((&config["client"], &config["label"], &config["compression"]), (&json!("web1"), &json!("home"), &json!("zstd,3")));
    let (code, out, _) = fake.run(&["client", "edit", "web1", "--description", "the web", "--quiet"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(fake.last()["previous"], client("web1"));
    assert_eq!(fake.last()["client"]["description"], "the web");
}

#[test]
fn a_reader_that_went_away_is_no_failure() {
    let many: Vec<Value> = (0..20_000).map(|n| client(&format!("client-{n}"))).collect();
    let fake = Fake::start(move |_, _, _| ok(json!({ "clients": many, "tests": [] })));
    let mut child = fake.command(&["client", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn the_shell_completes_names_of_the_running_server() {
    let fake = clients();
    let complete = |words: &[&str]| {
        let state = fake.state().display().to_string();
        let all = [&["borgcube", "--state", &state], words].concat();
        let mut command = fake.command(&[]);
        // Words as the shell has them follow after --; nothing of the usual command line.
        let mut asking = std::process::Command::new(command.get_program());
        asking.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (all.len() - 1).to_string()).env("_CLAP_IFS", "\n");
        asking.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").arg("--").args(&all);
        command.stdout(Stdio::null());
        let output = asking.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(complete(&["client", "show", ""]).starts_with("nas\nweb1\n--"));
    assert_eq!(complete(&["config", "add", "x", "--client", "w"]), "web1");
    assert!(complete(&["repo"]).contains("repository"));
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = Fake::nobody().run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("COMPLETE"), "{shell}: {out}");
    }
}

#[test]
fn secrets_are_read_from_a_descriptor_and_never_stand_on_the_command_line() {
    let fake = Fake::start(|method, _, _| match method {
        "ListRepositories" => ok(json!({"repositories": []})),
        _ => ok(json!({})),
    });
    let arguments = ["repository", "add", "r", "/nonexistent/x", "--encryption", "repokey", "--passphrase-fd", "0"];
    let mut child = fake.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let (code, _, err) = crate::fake::said(&child.wait_with_output().unwrap());
    assert_eq!(code, 2);
    assert!(err.contains("is empty"), "{err}");
    assert!(!fake.state().join("credentials/r").exists(), "nothing stays of a call that failed");
    let (code, _, err) = fake.run(&["repository", "add", "r", "/x", "--encryption", "repokey", "--passphrase", "secret"]);
    assert_eq!(code, 2, "{err}");
}
