//! The status pages of a whole system: a real backup whose progress arrives while it runs, and figures that stock borg agrees with.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use testkit::borgs::Borg;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::web::{address, api, connect, get};
use tests::{PATIENCE, Tap, newest_archive, number, start, text, wait_for_end};

const PASSPHRASE: &str = "correct horse battery staple";

/// Events until `enough` has seen what it wanted.
fn watch(mut stream: BufReader<TcpStream>, mut enough: impl FnMut(&str, &Value) -> bool) {
    let mut name = String::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the events ended");
        if let Some(event) = line.trim_end().strip_prefix("event: ") {
            event.clone_into(&mut name);
        } else if let Some(data) = line.trim_end().strip_prefix("data: ")
            && enough(&name, &serde_json::from_str(data).unwrap())
        {
            return;
        }
    }
}

#[test]
fn a_backup_is_watched_and_its_figures_are_those_of_stock_borg() {
    let system = TestSystem::start();
    let healthy = retry_until(PATIENCE, || (get(&system, "/healthz").0 == 200).then_some(()));
    assert!(healthy.is_some(), "{}", system.log());
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    let slow = system.join("slow");
    system.add_config("host", "slow", "main", &["--read-special"], &[&slow]);
    assert!(get(&system, "/").1.contains("never"), "two configs, no backup yet");

    // As slow as we want it: it is watched while it runs.
    let tap = Tap::open(&slow, 200_000);
    let viewer = connect(&system, "/api/v1/events");
    let job = start(&system, "host/slow");
    let (mut began, mut sizes) = (false, vec![]);
    watch(viewer, |name, data| {
        match name {
            "job" if data["number"] == job && data["phase"] == "running" => began = true,
            "progress" if data["job"] == job => sizes.push(number(&data["progress"], "original_size")),
            _ => {}
        }
        sizes.dedup();
        began && sizes.iter().filter(|size| **size > 0).count() >= 2
    });
    assert!(sizes.is_sorted(), "{sizes:?}");
    // The pages know it as well.
    let (_, page) = get(&system, "/");
    assert!(page.contains(&format!("data-progress=\"{job}\"")), "{page}");
    let running = &api(&system, "/dashboard")["running"][0];
    assert_eq!((number(running, "number"), text(running, "subject")), (job, "host/slow"));
    assert!(running["progress"]["original_size"].is_u64(), "{running}");
    let viewer = connect(&system, "/api/v1/events");
    tap.close();
    watch(viewer, |name, data| name == "job" && data["number"] == job && data["phase"] == "done");
    wait_for_end(&system, job);

    system.run_ok("host/all");
    let archive = newest_archive(&system);
    let (id, name) = (text(&archive, "id"), text(&archive, "name"));
    let shown = api(&system, &format!("/archives/main/{id}"));
    let (_, page) = get(&system, &format!("/archives/main/{id}"));
    let job_page = api(&system, &format!("/jobs/{}", number(&archive, "job")));
    assert_eq!(job_page["archive"], id);
    assert_eq!(job_page["history"].as_array().unwrap().last().unwrap()["state"], "done");
    assert!(!job_page["log"].as_array().unwrap().is_empty() && job_page["trouble"].is_null(), "{job_page}");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let borg = Borg::judges().into_iter().next().expect("a borg to judge");
    let stock = borg.info_json(&world, &repository, Some(name)).unwrap()["archives"][0].clone();
    assert_eq!(stock["id"], id);
    for figure in ["nfiles", "original_size", "compressed_size"] {
        let there = number(&stock["stats"], figure);
        assert_eq!(number(&shown["archive"]["statistics"], figure), there, "{figure}");
        if figure != "nfiles" {
            assert!(page.contains(&format!("title=\"{there} bytes\"")), "{figure} {there} is not on the page");
        }
    }

    // The sums, over what stock borg says of each archive.
    let listed = system.cli_json(&["archive", "list"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|archive| text(archive, "name")).collect();
    let size = |name: &&str| number(&borg.info_json(&world, &repository, Some(name)).unwrap()["archives"][0]["stats"], "original_size");
    let sums = &api(&system, "/repositories/main")["repository"]["sizes"];
    assert_eq!(number(sums, "original_size"), names.iter().map(size).sum::<u64>());
    let dashboard = api(&system, "/dashboard");
    assert_eq!(dashboard["totals"]["archives"], 2);
    assert_eq!(dashboard["totals"]["backups_today"].as_u64().map(|today| today <= 2), Some(true));
    assert_eq!(dashboard["totals"]["total_data"], sums["original_size"]);
    assert!(get(&system, "/").1.contains(&format!("title=\"{} bytes\"", dashboard["totals"]["total_data"])));
    assert!(get(&system, "/").1.contains("All is well"));
    let metrics = get(&system, "/metrics").1;
    assert!(metrics.contains(&format!("borgcube_original_bytes {}\n", dashboard["totals"]["total_data"])), "{metrics}");
}

#[test]
fn a_trigger_is_used_over_the_web() {
    let system = TestSystem::start();
    system.add_repository("main", "none", None);
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    let add = |access: &str| text(&system.cli_json(&["trigger", "add", "--config", "host/all", "--access", access]), "id").to_owned();
    let (web, here) = (add("anonymous-web"), add("local-cli"));
    let post = |id: &str| {
        let address = address(&system);
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "POST /trigger/{id} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n").unwrap();
        let mut whole = String::new();
        stream.read_to_string(&mut whole).unwrap();
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), serde_json::from_str::<Value>(body).unwrap())
    };
    let (status, refused) = post(&here);
    assert_eq!((status, &post("nonsense")), (404, &(404, refused.clone())), "{refused}");
    assert_eq!(get(&system, &format!("/trigger/{web}")).0, 405);
    assert!(system.cli_json(&["job", "list"]).as_array().unwrap().is_empty(), "nothing was started yet");
    let (status, ran) = post(&web);
    assert_eq!(status, 200, "{ran}");
    let job = ran["jobs"][0].as_u64().unwrap();
    wait_for_end(&system, job);
    assert_eq!(api(&system, &format!("/jobs/{job}"))["job"]["state"], "done");
    let note = format!("trigger {}… used from anonymous-web", &web[..8]);
    let log = api(&system, "/log");
    assert!(log["entries"].as_array().unwrap().iter().any(|entry| entry["note"] == note), "{log}");
}

#[test]
fn daemons_come_and_go() {
    let mut system = TestSystem::start();
    let healthy = |system: &TestSystem| retry_until(PATIENCE, || (get(system, "/healthz").0 == 200).then_some(())).is_some();
    assert!(healthy(&system), "{}", system.log());
    // Whoever asks meanwhile waits: the socket stays.
    let pid = system.wait_for("borgcube-statusd", PATIENCE);
    testkit::process::signal(pid, nix::sys::signal::Signal::SIGKILL);
    assert!(healthy(&system));
    assert_ne!(system.wait_for("borgcube-statusd", PATIENCE), pid);
    // Without the queue daemon the pages go on; they find the next one.
    testkit::process::signal(system.wait_for("borgcubed", PATIENCE), nix::sys::signal::Signal::SIGKILL);
    assert!(healthy(&system));
    assert_eq!(get(&system, "/").0, 200);
    let url = system.state().join("run/status.url");
    system.down();
    assert!(!url.exists() && !system.state().join("run/status.sock").exists());
    system.up();
    assert!(healthy(&system));
}

/// A form or a JSON body, with these headers beside the necessary ones; status, head and body of the answer.
fn post(system: &TestSystem, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let address = address(system);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).unwrap();
    let mut whole = String::new();
    stream.read_to_string(&mut whole).unwrap();
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn somebody_signs_in_and_runs_and_cancels_backups() {
    let system = TestSystem::start();
    system.add_repository("main", "none", None);
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    let slow = system.join("slow");
    system.add_config("host", "slow", "main", &["--read-special"], &[&slow]);
    let add = |name: &str, role: &str| text(&system.cli_json(&["user", "add", name, "--role", role]), "token").to_owned();
    let (alice, vera) = (add("alice", "operator"), add("vera", "viewer"));
    assert_eq!((alice.len(), alice == vera), (64, false));

    // As a browser does it.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (status, head, body) = post(&system, "/sign-in", form, &format!("token={alice}&next=%2Fclients%2Fhost"));
    assert_eq!(status, 303, "{body}");
    assert!(head.contains("location: /clients/host\r") && head.contains("httponly; samesite=strict"), "{head}");
    let cookie = format!("Cookie: borgcube-session={alice}\r\n");
    let look = |path: &str| {
        let address = address(&system);
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{cookie}\r\n").unwrap();
        let mut whole = String::new();
        stream.read_to_string(&mut whole).unwrap();
        whole
    };
    let page = look("/clients/host");
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("the page has forms").to_owned();
    let body = format!("csrf={csrf}&back=%2Fclients%2Fhost&config=host%2Fall");
    let (status, head, answer) = post(&system, "/do/run-config", &format!("{form}{cookie}"), &body);
    assert_eq!(status, 303, "{answer}");
    let place = head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
    let page = look(&place);
    assert!(page.contains("The backup is queued."), "{page}");
    let job: u64 = page.split("<a href=\"/jobs/").nth(1).and_then(|rest| rest.split('"').next()).unwrap().parse().unwrap();
    wait_for_end(&system, job);
    let done = api(&system, &format!("/jobs/{job}"));
    assert_eq!((&done["job"]["state"], &done["actor"]), (&"done".into(), &"web:alice".into()), "{done}");

    // As a program does it; one that runs is cancelled.
    let tap = Tap::open(&slow, 200_000);
    let program = |token: &str, act: &str, fields: Value| {
        let headers = format!("Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n");
        let (status, _, body) = post(&system, &format!("/api/v1/do/{act}"), &headers, &fields.to_string());
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, refused) = program(&vera, "run-config", serde_json::json!({ "config": "host/slow" }));
    assert_eq!((status, text(&refused["error"], "message")), (403, "vera is a viewer; this takes the role operator"));
    let (status, ran) = program(&alice, "run-config", serde_json::json!({ "config": "host/slow" }));
    assert_eq!(status, 200, "{ran}");
    let job = ran["outcome"]["jobs"][0].as_u64().unwrap();
    retry_until(PATIENCE, || (api(&system, &format!("/jobs/{job}"))["job"]["phase"] == "running").then_some(())).expect("it runs");
    assert_eq!(program(&alice, "cancel-job", serde_json::json!({ "job": job })).0, 200);
    wait_for_end(&system, job);
    drop(tap);
    assert_eq!(api(&system, &format!("/jobs/{job}"))["job"]["state"], "cancelled");
    let log = system.cli_json(&["log"]);
    let notes: Vec<_> = log.as_array().unwrap().iter().filter(|e| e["actor"] == "web:alice").map(|e| text(e, "note").to_owned()).collect();
    assert!(notes.contains(&"run config host/all".to_owned()) && notes.contains(&"run config host/slow".to_owned()), "{log}");

    // A new token voids the old one at once; no log has either.
    let renewed = text(&system.cli_json(&["user", "token", "alice"]), "token").to_owned();
    assert_eq!(program(&alice, "run-config", serde_json::json!({ "config": "host/all" })).0, 401);
    assert!(!look("/clients/host").contains("/do/"));
    for token in [&alice, &vera, &renewed] {
        assert!(!system.log().contains(token.as_str()));
        assert!(!system.cli_json(&["user", "list"]).to_string().contains(token.as_str()));
        assert!(!log.to_string().contains(token.as_str()));
    }
}
