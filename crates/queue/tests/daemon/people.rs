//! Who may ask, and what happens to those who do not speak Varlink.

use crate::harness::{Caller, Daemon, wait};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use wire::control::{ControlError, ErrorKind};

/// No test: what a user without any right does, in a process of that user.
#[test]
fn as_nobody() {
    let Some(socket) = std::env::var_os("AS_NOBODY") else { return };
    let mut caller = Caller::new(UnixStream::connect(socket).unwrap());
    let mut said = vec![];
    for (method, parameters) in
        [("GetStatus", json!({})), ("AddClient", json!({"client": crate::harness::client("evil")})), ("Nonsense", json!({}))]
    {
        caller.send(method, parameters, false);
        said.push(serde_json::to_value(caller.reply()).unwrap());
    }
    caller.send("org.varlink.service.GetInfo", json!({}), false);
    said.push(serde_json::to_value(caller.reply()).unwrap());
    // More connections than strangers get: those beyond are closed, and nobody else notices.
    let crowd: Vec<_> = (0..40).map(|_| UnixStream::connect(std::env::var_os("AS_NOBODY").unwrap()).unwrap()).collect();
    println!("SAID {}", Value::from(said));
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    drop(crowd);
    std::process::exit(0);
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).unwrap() == 0
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_stranger_is_refused_politely() {
    if !is_root() {
        eprintln!("\n!!!!! NOT RUN: permission of strangers: only root can become somebody else\n");
        return;
    }
    let daemon = Daemon::start();
    for directory in [daemon.directory.path(), &daemon.state, &daemon.state.join("run")] {
        open_to_all(directory);
    }
    std::fs::set_permissions(daemon.socket(), std::fs::Permissions::from_mode(0o666)).unwrap();
    // The target directory may be closed to that user.
    let program = daemon.directory.path().join("nobody");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program);
    let mut child = Command::new(&program)
        .args(["--exact", "people::as_nobody", "--nocapture"])
        .env("AS_NOBODY", daemon.socket())
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = String::new();
    let mut stdout = child.stdout.take().unwrap();
    let said: Vec<wire::control::Reply> = loop {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "it ended: {out}\n{}", daemon.log());
        out.push(byte[0] as char);
        if let Some(said) = out.split("SAID ").nth(1).and_then(|text| text.strip_suffix('\n')) {
            break serde_json::from_str(said).unwrap();
        }
    };
    // While the crowd stands there.
    assert_eq!(daemon.ok("ListClients", json!({})), json!({"clients": []}));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    for reply in &said[..3] {
        let error = ControlError::from_reply(reply).unwrap();
        assert_eq!(error.kind, ErrorKind::PermissionDenied);
        assert!(error.message.starts_with("user:nobody may not"), "{}", error.message);
    }
    assert_eq!(said[3].parameters["product"], "borgcubed");
}

#[test]
fn garbage_hurts_nobody() {
    let daemon = Daemon::start();
    let mut watcher = daemon.connect();
    watcher.send("Watch", json!({}), true);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n\0"[..], b"\0", b"[]\0", b"\xff\xff\xff\0", b"{\"method\":{}}\0", b"nonsense without an end"] {
        let mut caller = daemon.connect();
        caller.raw(garbage);
        caller.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(caller.is_closed());
    }
    // A call without an end is cut off.
    let mut endless = daemon.connect();
    let mut sent = 0;
    while endless.stream.write_all(&[b' '; 65536]).is_ok() {
        sent += 65536;
        assert!(sent < 64 * 1024 * 1024);
    }
    // So is nothing else: the watcher still watches.
    daemon.repository("main");
    assert!(matches!(watcher.event().0, wire::control::Event::Repository(_)));
}

#[test]
fn varlink_errors_are_varlinks_own() {
    let daemon = Daemon::start();
    let mut caller = daemon.connect();
    let mut ask = |method: &str, parameters: Value| {
        caller.send(method, parameters, false);
        caller.reply()
    };
    assert_eq!(ask("Nonsense", json!({})).error.unwrap(), "org.varlink.service.MethodNotFound");
    assert_eq!(ask("com.example.X", json!({})).error.unwrap(), "org.varlink.service.InterfaceNotFound");
    let reply = ask("CancelJob", json!({"job": "five"}));
    assert_eq!(reply.error.unwrap(), "org.varlink.service.InvalidParameter");
    assert!(reply.parameters["message"].as_str().unwrap().contains("five"));
    assert_eq!(ask("Watch", json!({})).error.unwrap(), "org.varlink.service.ExpectedMore");
    let reply = ask("org.varlink.service.GetInterfaceDescription", json!({"interface": "org.borgcube.Control"}));
    assert_eq!(reply.parameters["description"], wire::control::DESCRIPTION);
    let info = ask("org.varlink.service.GetInfo", json!({})).parameters;
    assert_eq!(info["interfaces"], json!(["org.varlink.service", "org.borgcube.Control"]));
    // Several calls at once are answered in order; one of them wants no answer.
    caller.raw(b"{\"method\":\"org.borgcube.Control.GetStatus\"}\0{\"method\":\"org.borgcube.Control.GetStatus\",\"oneway\":true}\0");
    caller.raw(b"{\"method\":\"org.borgcube.Control.ListJobs\",\"parameters\":{\"filter\":{}}}\0");
    assert!(caller.reply().parameters["pid"].is_u64());
    assert_eq!(caller.reply().parameters, json!({"jobs": []}));
}

#[test]
fn a_call_is_carried_out_though_its_caller_does_not_wait() {
    let daemon = Daemon::start();
    let mut caller = daemon.connect();
    caller.send("AddClient", json!({"client": crate::harness::client("web1")}), false);
    drop(caller);
    wait("the client", || daemon.ok("ListClients", json!({}))["clients"].as_array().filter(|c| c.len() == 1).map(|_| ()));
}

#[test]
fn a_thousand_callers_come_and_go() {
    let daemon = Daemon::start();
    for _ in 0..1000 {
        assert!(daemon.call::<Value>("GetSettings", json!({})).is_ok());
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert!(open < 30, "{open} descriptors are open");
}

#[test]
fn many_calls_at_once_are_all_answered_in_order() {
    let daemon = Daemon::start();
    let mut caller = daemon.connect();
    let mut bytes = vec![];
    for n in 0..300 {
        let client = crate::harness::client(&format!("client-{n}"));
        let call = json!({"method": "org.borgcube.Control.AddClient", "parameters": {"client": client}});
        bytes.extend(call.to_string().into_bytes());
        bytes.push(0);
    }
    bytes.extend(b"{\"method\":\"org.borgcube.Control.ListClients\"}\0");
    caller.raw(&bytes);
    caller.stream.shutdown(std::net::Shutdown::Write).unwrap();
    // Somebody else gets a turn in between.
    assert!(daemon.call::<Value>("GetSettings", json!({})).is_ok());
    for _ in 0..300 {
        assert_eq!(caller.reply().error, None);
    }
    assert_eq!(caller.reply().parameters["clients"].as_array().unwrap().len(), 300);
    assert!(caller.is_closed());
}
