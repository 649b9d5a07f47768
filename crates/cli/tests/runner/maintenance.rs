//! Delete, compact, check and release in front of an owner that answers as a test wants it.

use crate::fake::{Fake, ok, said};
use model::{Cause, Failure, Timestamp};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use wire::frame;
use wire::maintenance::{Granted, Maintain, Operation, Progress, Report};
use wire::session::{kind, read_json, write_json};

/// What the owner says to one request.
enum Say {
    Progress(u64, u64),
    Report(Report),
    Granted(u64),
    Failed(Cause),
    /// Waits until the other side closes the connection.
    Wait,
}

struct Owner {
    control: Fake,
    asked: Arc<Mutex<Vec<Operation>>>,
}

impl Owner {
    fn start(answer: impl Fn(&Operation) -> Vec<Say> + Send + 'static) -> Owner {
        let control = Fake::start(|method, parameters, _| match method {
            "ListRepositories" => ok(json!({ "repositories": [repository()] })),
            "ListArchives" => {
                let name = parameters["filter"]["name"].as_str().unwrap();
                let archives = [archive("one", 'a'), archive("two", 'b')];
                let found: Vec<_> =
                    archives.into_iter().filter(|a| a["name"] == name || a["id"].as_str().unwrap().starts_with(name)).collect();
                ok(json!({ "archives": found }))
            }
            other => panic!("{other} was not expected"),
        });
        let directory = control.state().join("run/repositories");
        std::fs::create_dir(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("main.sock")).unwrap();
        let asked = Arc::new(Mutex::new(vec![]));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&mut stream.unwrap(), &answer, &heard);
            }
        });
        Owner { control, asked }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.control.run(arguments)
    }

    fn asked(&self) -> Vec<Operation> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(stream: &mut UnixStream, answer: &impl Fn(&Operation) -> Vec<Say>, asked: &Mutex<Vec<Operation>>) {
    let mut payload = vec![];
    assert_eq!(frame::read(stream, &mut payload).unwrap(), kind::MAINTAIN);
    let request: Maintain = read_json(&payload).unwrap();
    assert_eq!(request.version, wire::session::VERSION);
    asked.lock().unwrap().push(request.operation.clone());
    for say in answer(&request.operation) {
        let written = match say {
            Say::Progress(done, total) => write_json(stream, kind::PROGRESS, &Progress { unit: "segments".into(), done, total }),
            Say::Report(report) => write_json(stream, kind::REPORT, &report),
            Say::Granted(sessions) => {
                let granted = Granted { url: "/srv/main".into(), host_id: Some("here@1".into()), sessions };
                write_json(stream, kind::GRANTED, &granted)
            }
            Say::Failed(cause) => write_json(stream, kind::FAILED, &Failure::new(cause, "it says why")),
            Say::Wait => {
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "nothing but the end is expected");
                Ok(())
            }
        };
        written.unwrap();
    }
}

fn repository() -> Value {
    json!({"name": "main", "url": "/srv/main", "repository_id": "00", "encryption": "repokey-blake2", "created": 0})
}

fn archive(name: &str, digit: char) -> Value {
    json!({
        "id": digit.to_string().repeat(64), "name": name, "repository": "main", "client": "web1", "label": "etc", "job": 1,
        "statistics": {"nfiles": 1, "original_size": 2, "compressed_size": 2, "deduplicated_size": 2},
        "start": 0, "end": 0, "view_digest": ""
    })
}

fn deleted(operation: &Operation) -> Vec<Say> {
    let Operation::Delete { archives, .. } = operation else { panic!("{operation:?}") };
    vec![Say::Progress(1, 2), Say::Report(Report::Deleted { archives: archives.clone(), chunks: 7, bytes: 1_500_000, kept_because: None })]
}

#[test]
fn archives_are_deleted_by_name_or_id() {
    let owner = Owner::start(deleted);
    let (code, out, err) = owner.run(&["archive", "delete", "one", "bbbbbbbb", "two", "--now", "--yes"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "Deleted 2 archives from repository main; a compact can free 1.50 MB in 7 chunks.\n");
    assert_eq!(owner.asked(), [Operation::Delete { archives: vec!["one".into(), "two".into()], dry_run: false }]);
    let (code, out, _) = owner.run(&["archive", "delete", "one", "--dry-run", "--json"]);
    assert_eq!(code, 0);
    let expected =
        json!([{"repository": "main", "archives": ["one"], "chunks": 7, "bytes": 1_500_000, "kept_because": null, "dry_run": true}]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected);
    assert_eq!(owner.asked(), [Operation::Delete { archives: vec!["one".into()], dry_run: true }]);
}

#[test]
fn nothing_is_deleted_without_a_yes_or_when_a_name_is_wrong() {
    let owner = Owner::start(deleted);
    let (code, _, err) = owner.run(&["archive", "delete", "one"]);
    assert_eq!(code, 2);
    assert!(err.contains("--yes deletes without asking"), "{err}");
    let (code, _, err) = owner.run(&["archive", "delete", "one", "three", "--yes"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("three"), "{err}");
    assert_eq!(owner.asked(), []);
}

/// Archives that a stock borg made or rewrote have no record here.
#[test]
fn an_archive_without_a_record_is_its_repositorys_owners_business() {
    let owner = Owner::start(deleted);
    let (code, _, err) = owner.run(&["archive", "delete", "foreign", "--yes"]);
    assert_eq!(code, 3);
    assert!(err.contains("made or rewrote need --repository REPOSITORY"), "{err}");
    let (code, _, err) = owner.run(&["archive", "delete", "foreign", "-r", "nowhere", "--yes"]);
    assert_eq!(code, 3);
    assert!(err.contains("there is no repository nowhere"), "{err}");
    assert_eq!(owner.asked(), []);
    let (code, out, err) = owner.run(&["archive", "delete", "foreign", "one", "foreign", "-r", "main", "--now", "--yes"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("Deleted 2 archives from repository main"), "{out}");
    assert_eq!(owner.asked(), [Operation::Delete { archives: vec!["one".into(), "foreign".into()], dry_run: false }]);
    let full = Owner::start(|_| vec![Say::Failed(Cause::RepositoryEnospc)]);
    let (_, _, err) = full.run(&["archive", "delete", "one", "--now", "--yes"]);
    assert!(err.contains("by other means; then delete archives and compact") && !err.contains("checkpoint"), "{err}");
}

/// A terminal of script(1): the question is asked after what would go is known.
#[test]
fn a_person_is_asked_and_may_say_no() {
    for (answer, expected) in [("n", 1), ("y", 2)] {
        let owner = Owner::start(deleted);
        let program = env!("CARGO_BIN_EXE_borgcube");
        let line = format!("{program} --state {} archive delete --now one", owner.control.state().display());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut heard = String::new();
        while !heard.contains("[y/N]") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "{heard}");
            heard.push(byte[0] as char);
        }
        assert!(heard.contains("a compact could then free 1.50 MB"), "{heard}");
        assert_eq!(owner.asked().len(), 1);
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("{answer}\n").as_bytes()).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(owner.asked().len() + 1, expected, "{rest}");
        assert_eq!(status.code(), Some(i32::from(answer == "n")), "{rest}");
    }
}

#[test]
fn compact_shows_progress_and_what_it_freed() {
    let owner = Owner::start(|_| {
        vec![Say::Progress(3, 9), Say::Report(Report::Compacted { segments: 3, freed: 2_000_000, orphans: 1, skipped: 0 })]
    });
    let (code, out, err) = owner.run(&["repository", "compact", "main", "--threshold", "20"]);
    assert_eq!((code, err.as_str()), (0, "compact of main: 3 of 9 segments\n"));
    assert_eq!(out, "Compacted repository main: 2.00 MB freed, 3 segment files gone, 1 object that no archive needs deleted.\n");
    assert_eq!(owner.asked(), [Operation::Compact { threshold: 20 }]);
    let (code, out, err) = owner.run(&["repository", "compact", "main", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        json!({"repository": "main", "segments": 3, "freed": 2_000_000, "orphans": 1, "skipped": 0})
    );
    assert_eq!(owner.run(&["repository", "compact", "main", "--threshold", "100"]).0, 2);
    assert_eq!(owner.run(&["repository", "compact", "other"]).0, 3);
}

fn checked(errors: Vec<String>, not_due_since: Option<Timestamp>) -> Report {
    let read = if not_due_since.is_some() { 0 } else { 9 };
    Report::Checked {
        objects: read,
        bytes: read * 100,
        error_count: errors.len() as u64,
        errors,
        complete: true,
        structure: None,
        data: None,
        damage: None,
        chunks: vec![],
        not_due_since,
    }
}

/// What was not looked at is not whole.
#[test]
fn a_check_to_which_nothing_was_due_says_so() {
    let last = Timestamp(1_800_000_000_000_000);
    let owner = Owner::start(move |_| vec![Say::Report(checked(vec![], Some(last)))]);
    let (code, out, _) = owner.run(&["repository", "check", "main"]);
    let expected =
        "Repository main: nothing was due, so nothing was checked. The last check was at 2027-01-15 08:00:00; no damage is known.\n";
    assert_eq!((code, out.as_str()), (0, expected));
    let (_, out, _) = owner.run(&["repository", "check", "main", "--json"]);
    assert!(!serde_json::from_str::<Value>(&out).unwrap()["not_due_since"].is_null(), "{out}");
}

#[test]
fn damage_is_an_error_with_exit_code_1_and_in_json_a_report() {
    let owner = Owner::start(|operation| {
        let Operation::Check { verify_data } = operation else { panic!("{operation:?}") };
        let errors = if *verify_data { vec!["object 00ff: wrong id".to_owned()] } else { vec![] };
        vec![Say::Report(checked(errors, None))]
    });
    let (code, out, _) = owner.run(&["repository", "check", "main"]);
    assert_eq!((code, out.as_str()), (0, "Repository main is whole: 9 objects, 900 B read.\n"));
    let (code, out, err) = owner.run(&["repository", "check", "main", "--verify-data"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("borgcube: repository main is damaged: 1 error\n  - object 00ff: wrong id\n"), "{err}");
    let (code, out, err) = owner.run(&["repository", "check", "main", "--verify-data", "--json"]);
    assert_eq!(code, 1);
    let record = serde_json::from_str::<Value>(&out).unwrap();
    assert_eq!(record["errors"], json!(["object 00ff: wrong id"]));
    assert!(record["advice"].to_string().contains("copy the repository"), "{record}");
    assert_eq!(serde_json::from_str::<Value>(&err).unwrap()["error"]["code"], 1);
    assert!(!err.contains("00ff"), "an error is listed once: {err}");
    let (_, out, _) = owner.run(&["repository", "check", "main", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["advice"], json!([]));
}

#[test]
fn what_an_owner_refuses_and_one_that_goes_away() {
    let owner = Owner::start(|_| vec![Say::Failed(Cause::RepositoryLockTimeout)]);
    let (code, _, err) = owner.run(&["repository", "check", "main"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.starts_with("borgcube: repository main: repository-lock-timeout: it says why\n"), "{err}");
    let gone = Owner::start(|_| vec![Say::Progress(1, 0)]);
    let (code, _, err) = gone.run(&["repository", "compact", "main"]);
    assert_eq!(code, 6);
    assert!(err.contains("the owner of repository main ended before it had answered"), "{err}");
    let strange = Owner::start(|_| vec![Say::Granted(0)]);
    assert_eq!(strange.run(&["repository", "compact", "main"]).0, 1);
}

#[test]
fn ctrl_c_ends_the_operation_by_closing_the_connection() {
    let owner = Owner::start(|_| vec![Say::Progress(1, 9), Say::Wait]);
    let mut child = owner.control.command(&["repository", "compact", "main"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    assert!(line.contains("1 of 9"), "{line}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_released_repository_is_the_commands_and_its_exit_code_is_ours() {
    let owner = Owner::start(|_| vec![Say::Progress(0, 0), Say::Granted(2), Say::Wait]);
    let shell = "echo $BORG_REPO $BORG_HOST_ID ${BORG_PASSPHRASE-none} ${BORG_PASSCOMMAND-none}; exit 7";
    let mut command = owner.control.command(&["repository", "release", "main", "--wait", "9", "--", "sh", "-c", shell]);
    command.env_remove("BORG_PASSPHRASE").env_remove("BORG_PASSCOMMAND").env_remove("BORG_PASSPHRASE_FD");
    let (code, out, err) = said(&command.output().unwrap());
    assert_eq!((code, out.as_str()), (7, "/srv/main here@1 none none\n"));
    assert!(err.contains("2 sessions wait until the command has ended. Chunks sent so far look like orphans to `borg check`"), "{err}");
    assert!(err.contains("--with-passphrase"), "{err}");
    assert_eq!(owner.asked(), [Operation::Release { wait_seconds: 9 }]);
    let (code, _, err) = owner.run(&["repository", "release", "main", "--", "/nonexistent/borg"]);
    assert_eq!(code, 127, "{err}");
    let (code, _, _) = owner.run(&["repository", "release", "main", "--", "/"]);
    assert_eq!(code, 126);
    let (code, _, _) = owner.run(&["repository", "release", "main", "--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(code, 137);
    assert_eq!(owner.run(&["repository", "release", "main"]).0, 2);
}

/// A repair by such a borg costs archives that are healthy.
#[test]
fn a_repair_by_an_old_borg_needs_a_yes() {
    let owner = Owner::start(|_| vec![Say::Granted(0), Say::Wait]);
    let borg = |version: &str| {
        let path = owner.control.state().join(format!("borg-{version}"));
        let script = format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo borg {version}; else echo ran $*; fi\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (old, new) = (borg("1.2.4"), borg("1.4.5"));
    let (code, out, err) = owner.run(&["repository", "release", "main", "--", &old, "check", "--repair"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("Borg 1.2.4 spoils healthy archives") && err.contains("--yes"), "{err}");
    let script = format!("{old} check --repair");
    assert_eq!(owner.run(&["repository", "release", "main", "--", "sh", "-c", &script]).0, 2);
    assert_eq!(owner.asked(), [], "the repository was released");
    let (code, out, err) = owner.run(&["repository", "release", "main", "--yes", "--", &old, "check", "--repair"]);
    assert_eq!((code, out.as_str()), (0, "ran check --repair\n"));
    assert!(err.contains("WARNING: Borg 1.2.4 spoils"), "{err}");
    for words in [[&new, "check", "--repair"], [&old, "check", "--verify-data"]] {
        let (code, _, err) = owner.run(&[&["repository", "release", "main", "--"][..], &words].concat());
        assert_eq!(code, 0, "{err}");
        assert!(!err.contains("WARNING"), "{err}");
    }
}

#[test]
fn the_passphrase_is_read_by_a_command_and_never_an_argument_or_a_variable() {
    let owner = Owner::start(|_| vec![Say::Granted(0), Say::Wait]);
    let credentials = owner.control.state().join("credentials/main");
    let release = |shell: &str| owner.control.command(&["repository", "release", "main", "--with-passphrase", "--", "sh", "-c", shell]);
    let (code, _, err) = said(&release("true").output().unwrap());
    assert_eq!(code, 3, "{err}");
    std::fs::create_dir_all(&credentials).unwrap();
    let file = credentials.join("passphrase");
    std::fs::write(&file, "it's a secret").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (code, out, err) = said(&release("env; eval $BORG_PASSCOMMAND").env("BORG_PASSPHRASE", "another").output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    let (environment, secret) = out.rsplit_once('\n').unwrap();
    assert_eq!(secret, "it's a secret");
    assert!(environment.contains("BORG_PASSCOMMAND=cat '/") && !environment.contains("secret"), "{environment}");
    assert!(!environment.contains("BORG_PASSPHRASE="), "{environment}");
    std::fs::write(credentials.join("key"), "BORG_KEY 00").unwrap();
    let (_, out, _) = said(&release("cat $BORG_KEY_FILE").output().unwrap());
    assert_eq!(out, "BORG_KEY 00");
}

/// The signals that end a service reach the command; it decides what becomes of them.
#[test]
fn signals_go_to_the_command() {
    let owner = Owner::start(|_| vec![Say::Granted(0), Say::Wait]);
    let shell = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = owner.control.command(&["repository", "release", "main", "--", "sh", "-c", shell]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest.as_str()), (Some(5), "heard\n"));
}

#[test]
fn the_command_goes_on_when_the_owner_goes_away() {
    let owner = Owner::start(|_| vec![Say::Granted(0)]);
    let (code, out, err) = owner.run(&["repository", "release", "main", "--", "sh", "-c", "sleep 0.3; echo done"]);
    assert_eq!((code, out.as_str()), (0, "done\n"));
    assert!(err.contains("only Borg's own lock"), "{err}");
}
