//! What users of the status pages may have done, over the control socket as the status daemon uses it.

use crate::harness::{self, Daemon};
use model::{JobState, Timestamp, WebUser};
use serde_json::{Value, json};
use wire::control::{ControlError, ErrorKind, INTERFACE};

fn add(daemon: &Daemon, name: &str, role: &str) -> String {
    let issued = daemon.ok("AddWebUser", json!({ "name": name, "role": role, "sign_in": "token" }));
    issued["token"].as_str().unwrap().to_owned()
}

fn by_token(token: &str) -> Value {
    json!({ "kind": "token", "token": token })
}

fn wrap(credential: &Value, method: &str, parameters: Value) -> Value {
    json!({ "credential": credential, "call": { "method": format!("{INTERFACE}.{method}"), "parameters": parameters } })
}

fn act(daemon: &Daemon, credential: &Value, method: &str, parameters: Value) -> Result<Value, ControlError> {
    daemon.call("OnBehalf", wrap(credential, method, parameters))
}

#[track_caller]
fn refused(daemon: &Daemon, credential: &Value, method: &str, parameters: Value) -> (ErrorKind, String) {
    let error = act(daemon, credential, method, parameters).expect_err("this should have been refused");
    (error.kind, error.message)
}

fn user(daemon: &Daemon, name: &str) -> Value {
    let all = daemon.ok("ListWebUsers", json!({}));
    all["users"].as_array().unwrap().iter().find(|user| user["name"] == name).unwrap().clone()
}

/// The newest transaction whose note begins so; jobs write some of their own meanwhile.
fn noted(daemon: &Daemon, begins: &str) -> Value {
    let log = daemon.ok("GetLog", json!({ "limit": 50 }));
    let entries = log["entries"].as_array().unwrap();
    let found = entries.iter().find(|entry| entry["note"].as_str().unwrap().starts_with(begins));
    found.unwrap_or_else(|| panic!("{begins}: {entries:?}"))["transaction"].clone()
}

#[test]
fn an_operator_runs_and_cancels_and_the_log_has_the_name() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let alice = by_token(&add(&daemon, "alice", "operator"));
    let job = act(&daemon, &alice, "RunConfig", json!({ "config": "a/x" })).unwrap()["job"].as_u64().unwrap();
    daemon.reaches(job, JobState::ClientInProgress);
    assert_eq!(daemon.job(job).actor, "web:alice");
    act(&daemon, &alice, "CancelJob", json!({ "job": job })).unwrap();
    let over = harness::wait("the job to end", || Some(daemon.job(job)).filter(|job| job.state.is_final()));
    assert_eq!(over.state, JobState::Cancelled);
    assert!(format!("{:?}", over.failure).contains("web:alice"), "{:?}", over.failure);
    let log = daemon.ok("GetLog", json!({ "limit": 50 }));
    let entry = log["entries"].as_array().unwrap().iter().find(|entry| entry["note"] == "run config a/x").unwrap();
    assert_eq!(entry["actor"], "web:alice");
}

#[test]
fn nobody_does_what_the_role_does_not_allow() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "talk")]);
    let (vera, alice) = (by_token(&add(&daemon, "vera", "viewer")), by_token(&add(&daemon, "alice", "operator")));
    let adam = by_token(&add(&daemon, "adam", "administrator"));
    let run = || json!({ "config": "a/x" });
    let (kind, message) = refused(&daemon, &vera, "RunConfig", run());
    assert_eq!((kind, message.as_str()), (ErrorKind::PermissionDenied, "vera is a viewer; this takes the role operator"));
    let prune = || json!({ "repository": "main", "work": { "kind": "prune", "compact": false } });
    assert_eq!(refused(&daemon, &alice, "RunMaintenance", prune()).0, ErrorKind::PermissionDenied);
    // Whoever took the status daemon over, and has seen the token of an administrator: still none of these.
    let config = harness::config("a/x", "main", "talk");
    let mut hooked = serde_json::to_value(&config).unwrap();
    hooked["hooks"] = json!([{ "name": "h", "before": "id", "seconds": 1 }]);
    let transaction = daemon.ok("GetLog", json!({ "limit": 1 }))["entries"][0]["transaction"].clone();
    let settings = daemon.ok("GetSettings", json!({}))["settings"].clone();
    let mut believing = settings.clone();
    believing["web"] = json!({ "peer": true, "proxy": true });
    let forbidden = [
        ("AddWebUser", json!({ "name": "eve", "role": "administrator", "sign_in": "token" })),
        ("RenewWebToken", json!({ "name": "adam" })),
        ("UpdateSettings", json!({ "previous": settings, "settings": believing })),
        ("UpdateConfig", json!({ "previous": config, "config": hooked })),
        ("AddClient", json!({ "client": harness::client("local") })),
        ("Undo", json!({ "transaction": transaction })),
        ("AddRepository", json!({ "repository": harness::repository("other") })),
        ("ListTriggers", json!({})),
        ("GetConfiguration", json!({})),
        ("OnBehalf", wrap(&adam, "RunConfig", run())),
        ("Wake", json!({})),
    ];
    let before = daemon.ok("GetLog", json!({ "limit": 1 }))["entries"][0]["transaction"].clone();
    for (method, parameters) in forbidden {
        let (kind, message) = refused(&daemon, &adam, method, parameters);
        assert_eq!(kind, ErrorKind::PermissionDenied, "{method}: {message}");
        assert!(message.contains("on the web"), "{method}: {message}");
    }
    assert_eq!(daemon.ok("GetLog", json!({ "limit": 1 }))["entries"][0]["transaction"], before, "nothing was written");
    assert!(act(&daemon, &adam, "RunMaintenance", prune()).is_ok());
}

#[test]
fn without_a_good_credential_nothing_is_done_and_no_log_has_a_token() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "talk")]);
    let token = add(&daemon, "alice", "operator");
    let alice = by_token(&token);
    let run = || json!({ "config": "a/x" });
    let nobody = |credential: &Value| {
        let (kind, message) = refused(&daemon, credential, "RunConfig", run());
        assert_eq!(kind, ErrorKind::Unauthenticated, "{message}");
        assert!(!message.contains(&token), "{message}");
        message
    };
    assert_eq!(nobody(&by_token(&"0".repeat(64))), "no user has that token");
    assert_eq!(nobody(&by_token(&token.to_uppercase())), "no user has that token");
    assert_eq!(nobody(&by_token("alice")), "no user has that token");
    // Names are claims of the status daemon; nobody said that they are believed.
    for way in ["peer", "proxy"] {
        assert!(nobody(&json!({ "kind": way, "name": "alice" })).contains("is off"));
    }
    daemon.ok("AddWebUser", json!({ "name": "root", "role": "operator", "sign_in": "peer" }));
    let settings = daemon.ok("GetSettings", json!({}))["settings"].clone();
    let mut believing = settings.clone();
    believing["web"] = json!({ "peer": true, "proxy": false });
    daemon.ok("UpdateSettings", json!({ "previous": settings, "settings": believing }));
    assert!(nobody(&json!({ "kind": "peer", "name": "alice" })).contains("there is no user \"alice\" who signs in by peer"));
    assert!(nobody(&json!({ "kind": "proxy", "name": "root" })).contains("is off"));
    assert!(act(&daemon, &json!({ "kind": "peer", "name": "root" }), "RunConfig", run()).is_ok());
    // Disabled, then expired.
    let previous = user(&daemon, "alice");
    let mut off = previous.clone();
    off["enabled"] = false.into();
    daemon.ok("UpdateWebUser", json!({ "previous": previous, "user": off }));
    assert_eq!(nobody(&alice), "the user alice is disabled");
    let store = store::Store::open(unix::paths::Layout::new(&daemon.state).db()).unwrap();
    let late = |user: &mut WebUser| {
        (user.enabled, user.expires) = (true, Some(Timestamp::now()));
        Ok(())
    };
    store.write("expire", "root", |w| w.web_users().update(&"alice".parse().unwrap(), late)).unwrap();
    assert_eq!(nobody(&alice), "the user alice has expired");
    // A flood is a few lines.
    let mut flood = daemon.connect();
    for n in 0..300 {
        let credential = by_token(&format!("{n:064x}"));
        assert!(flood.call::<Value>("OnBehalf", wrap(&credential, "RunConfig", run())).is_err());
    }
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("refused")).count();
    assert!((5..60).contains(&lines), "{lines}");
    assert!(log.contains("the user alice is disabled") && !log.contains(&token), "{log}");
    for entry in std::fs::read_dir(unix::paths::Layout::new(&daemon.state).db()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(64).any(|window| window == token.as_bytes()), "the database has a token");
    }
}

#[test]
fn a_token_that_was_replaced_never_comes_back() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "talk")]);
    let old = by_token(&add(&daemon, "alice", "operator"));
    let renewed = daemon.ok("RenewWebToken", json!({ "name": "alice" }));
    let transaction = noted(&daemon, "new token for user alice");
    let new = by_token(renewed["token"].as_str().unwrap());
    let run = || json!({ "config": "a/x" });
    assert_eq!(refused(&daemon, &old, "RunConfig", run()).0, ErrorKind::Unauthenticated);
    assert!(act(&daemon, &new, "RunConfig", run()).is_ok());
    let (kind, message) = daemon.fails("Undo", json!({ "transaction": transaction }));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("does not come back"), "{message}");
    // Removing is undone as anything else.
    daemon.ok("RemoveWebUser", json!({ "name": "alice" }));
    assert_eq!(refused(&daemon, &new, "RunConfig", run()).0, ErrorKind::Unauthenticated);
    let transaction = noted(&daemon, "remove user alice");
    daemon.ok("Undo", json!({ "transaction": transaction }));
    assert!(act(&daemon, &new, "RunConfig", run()).is_ok());
    // How somebody signs in is not edited.
    let previous = user(&daemon, "alice");
    let mut other = previous.clone();
    other["sign_in"] = json!({ "kind": "peer" });
    assert_eq!(daemon.fails("UpdateWebUser", json!({ "previous": previous, "user": other })).0, ErrorKind::InvalidArgument);
    assert_eq!(daemon.fails("AddWebUser", json!({ "name": "alice", "role": "viewer", "sign_in": "token" })).0, ErrorKind::AlreadyExists);
    assert_eq!(daemon.fails("RenewWebToken", json!({ "name": "bob" })).0, ErrorKind::NotFound);
}
