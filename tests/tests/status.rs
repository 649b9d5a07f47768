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
