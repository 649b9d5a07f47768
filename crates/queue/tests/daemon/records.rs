//! Adding, changing, removing, listing, undoing.

use crate::harness::{Daemon, client, config, repository};
use model::JobState;
use serde_json::{Value, json};
use wire::control::ErrorKind;

#[test]
fn records_are_kept_with_who_and_why() {
    let mut daemon = Daemon::start();
    daemon.with(&[("web1/etc", "well")]);
    daemon.crash();
    daemon.up();
    let repositories = daemon.ok("ListRepositories", json!({}));
    assert_eq!(repositories["repositories"][0]["url"], "/srv/main");
    // The server's clock, not the caller's.
    assert!(repositories["repositories"][0]["created"].as_i64().unwrap() > 0);
    assert_eq!(daemon.ok("ListConfigs", json!({}))["configs"][0]["client"], "web1");
    let log = daemon.ok("GetLog", json!({"limit": 10}));
    let entries = log["entries"].as_array().unwrap();
    let notes: Vec<_> = entries.iter().map(|e| (e["note"].as_str().unwrap(), e["actor"].as_str().unwrap())).collect();
    assert_eq!(
        notes,
        [
            ("add config web1/etc", "root"),
            ("add client web1", "root"),
            ("add repository main", "root"),
            ("first start: make the server's settings", "borgcubed")
        ]
    );
    assert_eq!(entries[0]["records"], json!(["configs/web1/etc"]));
    assert_eq!(entries[1]["records"], json!(["clients/web1"]));
    assert_eq!(daemon.ok("GetLog", json!({"limit": 1}))["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let daemon = Daemon::start();
    daemon.with(&[("web1/etc", "well")]);
    let refused = |method: &str, parameters: Value, kind: ErrorKind, word: &str| {
        let (found, message) = daemon.fails(method, parameters);
        assert_eq!(found, kind, "{method}: {message}");
        assert!(message.contains(word), "{method}: {message}");
    };
    let mut bad = repository("bad");
    bad.url = "relative/path".into();
    refused("AddRepository", json!({"repository": bad}), ErrorKind::InvalidArgument, "absolute path");
    refused("AddRepository", json!({"repository": repository("main")}), ErrorKind::AlreadyExists, "repository main");
    let mut twin = repository("twin");
    twin.repository_id = repository("main").repository_id;
    refused("AddRepository", json!({"repository": twin}), ErrorKind::AlreadyExists, "as main");
    refused("AddClient", json!({"client": client("web1")}), ErrorKind::AlreadyExists, "client web1");
    refused("AddConfig", json!({"config": config("web2/etc", "main", "well")}), ErrorKind::NotFound, "client web2");
    refused("AddConfig", json!({"config": config("web1/var", "other", "well")}), ErrorKind::NotFound, "repository other");
    let mut empty = config("web1/var", "main", "well");
    empty.paths.clear();
    refused("AddConfig", json!({"config": empty}), ErrorKind::InvalidArgument, "path");
    refused("RemoveClient", json!({"name": "web1"}), ErrorKind::Conflict, "web1/etc");
    refused("RemoveRepository", json!({"name": "main"}), ErrorKind::Conflict, "web1/etc");
    refused("RemoveConfig", json!({"name": "web1/var"}), ErrorKind::NotFound, "web1/var");
    refused("RemoveClient", json!({"name": "web9"}), ErrorKind::NotFound, "client list");
    let settings = daemon.ok("GetSettings", json!({}))["settings"].clone();
    let mut zero = settings.clone();
    zero["limits"]["total"] = 0.into();
    refused("UpdateSettings", json!({"previous": settings, "settings": zero}), ErrorKind::InvalidArgument, "limit");
    // Nothing of all this was written.
    assert_eq!(daemon.ok("GetLog", json!({"limit": 100}))["entries"].as_array().unwrap().len(), 4);
}

#[test]
fn changes_compare_with_what_the_caller_saw() {
    let daemon = Daemon::start();
    daemon.with(&[("web1/etc", "well")]);
    let seen = daemon.ok("ListClients", json!({}))["clients"][0].clone();
    let mut mine = seen.clone();
    mine["description"] = "mine".into();
    let mut theirs = seen.clone();
    theirs["description"] = "theirs".into();
    daemon.ok("UpdateClient", json!({"previous": seen, "client": theirs}));
    let (kind, message) = daemon.fails("UpdateClient", json!({"previous": seen, "client": mine}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("look at it again"), "{message}");
    daemon.ok("UpdateClient", json!({"previous": theirs, "client": mine}));
    assert_eq!(daemon.ok("ListClients", json!({}))["clients"][0], mine);
    let mut renamed = mine.clone();
    renamed["name"] = "web2".into();
    assert_eq!(daemon.fails("UpdateClient", json!({"previous": mine, "client": renamed})).0, ErrorKind::InvalidArgument);
    let seen = daemon.ok("ListRepositories", json!({}))["repositories"][0].clone();
    let mut other = seen.clone();
    other["repository_id"] = "cd".repeat(32).into();
    assert_eq!(daemon.fails("UpdateRepository", json!({"previous": seen, "repository": other})).0, ErrorKind::InvalidArgument);
    let seen = daemon.ok("ListConfigs", json!({}))["configs"][0].clone();
    let mut nowhere = seen.clone();
    nowhere["repository"] = "nowhere".into();
    assert_eq!(daemon.fails("UpdateConfig", json!({"previous": seen, "config": nowhere})).0, ErrorKind::NotFound);
}

#[test]
fn running_jobs_stand_in_the_way() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::ClientInProgress);
    let (kind, message) = daemon.fails("RemoveConfig", json!({"name": "a/x"}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains(&format!("job {job}")) && message.contains("job cancel"), "{message}");
    let seen = daemon.ok("ListRepositories", json!({}))["repositories"][0].clone();
    let mut moved = seen.clone();
    moved["url"] = "/srv/elsewhere".into();
    let (kind, message) = daemon.fails("UpdateRepository", json!({"previous": seen, "repository": moved}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("only its description"), "{message}");
    let mut described = seen.clone();
    described["description"] = "the main one".into();
    daemon.ok("UpdateRepository", json!({"previous": seen, "repository": described}));
    daemon.go(job);
    daemon.reaches(job, JobState::Done);
    moved["description"] = "the main one".into();
    daemon.ok("UpdateRepository", json!({"previous": described, "repository": moved}));
    for (method, name) in [("RemoveConfig", "a/x"), ("RemoveClient", "a"), ("RemoveRepository", "main")] {
        daemon.ok(method, json!({"name": name}));
    }
    assert_eq!(daemon.job(job).state, JobState::Done);
}

#[test]
fn undo_takes_back_what_nothing_hangs_on() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let number = |note: &str| {
        let log = daemon.ok("GetLog", json!({"limit": 100}));
        log["entries"].as_array().unwrap().iter().find(|e| e["note"] == note).unwrap()["transaction"].as_u64().unwrap()
    };
    let undo = |note: &str| daemon.call::<Value>("Undo", json!({"transaction": number(note)}));
    let refused = |note: &str, word: &str| {
        let error = undo(note).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict, "{error:?}");
        assert!(error.message.contains(word), "{error:?}");
    };
    refused("add client a", "config a/x would be left");
    refused("add repository main", "config a/x would be left");
    refused("first start: make the server's settings", "settings");
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::ClientInProgress);
    refused("add config a/x", &format!("job {job} uses"));
    refused("run config a/x", "stays done");
    daemon.go(job);
    daemon.reaches(job, JobState::Done);
    refused(&format!("job {job}: done"), "stays done");
    daemon.ok("RemoveConfig", json!({"name": "a/x"}));
    daemon.ok("RemoveClient", json!({"name": "a"}));
    refused("remove config a/x", "come back without");
    undo("remove client a").unwrap();
    undo("remove config a/x").unwrap();
    assert_eq!(daemon.ok("ListConfigs", json!({}))["configs"][0]["paths"], json!(["/hold"]));
    assert_eq!(daemon.fails("Undo", json!({"transaction": 99999})).0, ErrorKind::NotFound);
    // The twin that was added meanwhile.
    daemon.ok("RemoveConfig", json!({"name": "a/x"}));
    daemon.ok("RemoveRepository", json!({"name": "main"}));
    let mut twin = repository("twin");
    twin.repository_id = repository("main").repository_id;
    daemon.ok("AddRepository", json!({"repository": twin}));
    refused("remove repository main", "known as twin");
    // Settings count as soon as they are back.
    daemon.limits(model::queue::Limits { per_client: 3, per_repository: 3, total: 3 });
    let again = undo("change the settings").unwrap()["transaction"].as_u64().unwrap();
    assert_eq!(daemon.ok("GetSettings", json!({}))["settings"]["limits"]["total"], 16);
    refused("change the settings", &format!("is undone already, by transaction {again}"));
}

#[test]
fn jobs_are_listed_by_every_filter() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "well"), ("a/y", "fail"), ("b/x", "well")]);
    let mut numbers = vec![];
    for _ in 0..3 {
        for (config, end) in [("a/x", JobState::Done), ("a/y", JobState::Failed), ("b/x", JobState::Done)] {
            let job = daemon.run(config);
            daemon.reaches(job, end);
            numbers.push(job);
        }
    }
    let list = |filter: Value| -> Vec<u64> {
        let jobs = daemon.ok("ListJobs", json!({ "filter": filter }));
        jobs["jobs"].as_array().unwrap().iter().map(|job| job["number"].as_u64().unwrap()).collect()
    };
    let every = |keep: &[usize]| -> Vec<u64> {
        numbers.iter().enumerate().filter(|(at, _)| keep.contains(&(at % 3))).map(|(_, n)| *n).rev().collect()
    };
    assert_eq!(list(json!({})), every(&[0, 1, 2]));
    assert_eq!(list(json!({"client": "a"})), every(&[0, 1]));
    assert_eq!(list(json!({"label": "x"})), every(&[0, 2]));
    assert_eq!(list(json!({"client": "a", "label": "x"})), every(&[0]));
    assert_eq!(list(json!({"state": "failed"})), every(&[1]));
    assert_eq!(list(json!({"state": "failed", "client": "b"})), Vec::<u64>::new());
    assert_eq!(list(json!({"repository": "main", "limit": 2})), every(&[0, 1, 2])[..2]);
    assert_eq!(list(json!({"label": "x", "limit": 4})), every(&[0, 2])[..4]);
    assert_eq!(list(json!({"before": numbers[2]})), [numbers[1], numbers[0]]);
    assert_eq!(list(json!({"repository": "other"})), Vec::<u64>::new());
    assert_eq!(daemon.ok("ListArchives", json!({"filter": {}})), json!({"archives": []}));
}
