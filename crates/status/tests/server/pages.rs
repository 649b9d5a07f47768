//! Pages and answers of the API: the same figures, and the right ones.

use crate::records::{self, archive, some};
use crate::world::World;
use serde_json::Value;

/// Every page of a world that has some of everything.
pub const PAGES: &[&str] = &[
    "/dashboard",
    "/clients",
    "/clients/web1",
    "/clients/db1",
    "/repositories",
    "/repositories/main",
    "/jobs",
    "/jobs?state=failed",
    "/jobs?kind=backup&client=web1&limit=2",
    "/jobs/5",
    "/archives",
    "/archives?client=web1&limit=1",
    "/archives/main/0000000000000000000000000000000000000000000000000000000000000003",
    "/schedules",
    "/schedules?month=2027-02",
    "/policies",
    "/policies/standard",
    "/check-configs",
    "/log",
    "/about",
];

#[test]
fn the_dashboard_says_who_has_no_good_backup() {
    let world = World::filled(some);
    let dashboard = world.api("/dashboard");
    let names = |list: &Value| list.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&dashboard["overdue"]), ["db1/data"]);
    assert_eq!(names(&dashboard["failing"]), [""; 0]);
    let db1 = &dashboard["overdue"][0];
    assert_eq!((db1["last_job"].as_u64(), db1["last_phase"].as_str()), (Some(5), Some("failed")));
    assert!(db1["last_failure"].as_str().unwrap().starts_with("client-connection-failed: db1 does not answer"), "{db1}");
    // Three days, although an incomplete archive is newer.
    assert!((db1["age"].as_f64().unwrap() - 72.0 * 3600.0).abs() < 600.0, "{db1}");
    let totals = &dashboard["totals"];
    assert_eq!(totals["archives"], 4);
    assert_eq!(totals["total_data"], 4_000_000 + 1 + 2 + 3 + 4);
    assert_eq!((totals["clients"].as_u64(), totals["queued"].as_u64()), (Some(3), Some(1)));
    assert_eq!(dashboard["failed"][0]["number"], 5);
    assert_eq!(dashboard["upcoming"][0]["schedule"], "nightly");

    let page = world.page("/");
    for text in ["No good backup within the target", "db1/data", "client-connection-failed", "4.00 MB", "overdue", "nightly"] {
        assert!(page.contains(text), "{text} is not on\n{page}");
    }
    assert!(!page.contains("All is well"));

    // A backup later all is well, and the page knows at once.
    world.store.write("backup", "root", |w| w.archives().insert(&archive(8, "db1/data", 0))).unwrap();
    let dashboard = world.api("/dashboard");
    assert_eq!(names(&dashboard["overdue"]), [""; 0]);
    // The job that failed is still the last one that ended.
    assert_eq!(names(&dashboard["failing"]), ["db1/data"]);
    assert_eq!(dashboard["totals"]["archives"], 5);
    world.store.write("job", "root", |w| w.jobs().insert(&records::ended(8, "db1/data", 0, None))).unwrap();
    assert!(world.page("/").contains("All is well"));
}

#[test]
fn a_target_is_a_configs_own() {
    let world = World::filled(some);
    assert_eq!(world.api("/clients/web1")["configs"][0]["overdue"], false);
    world
        .store
        .write("shorter", "root", |w| {
            w.configs().update(&"web1/etc".parse().unwrap(), |config| {
                config.target_age_hours = 11;
                Ok(())
            })
        })
        .unwrap();
    assert_eq!(world.api("/clients/web1")["configs"][0]["overdue"], true);
    assert_eq!(world.api("/clients")["clients"][2]["overdue"], 1);
    assert!(world.page("/clients").contains("overdue"));
}

#[test]
fn repositories_say_how_much_was_checked_and_what_is_damaged() {
    let world = World::filled(some);
    let store = |damaged| world.store.write("check", "owner", |w| w.health().put(&records::health("main", damaged))).unwrap();
    assert!(world.page("/repositories").contains("never checked"));
    assert!(world.api("/dashboard")["unsound"].as_array().unwrap().is_empty());
    store(false);
    let main = &world.api("/repositories/main")["repository"];
    assert_eq!((main["structure"]["per_cent"].as_u64(), main["structure"]["promise"].as_str()), (Some(100), Some("holds")), "{main}");
    // Somebody checked it by hand, which is no job.
    let by_hand = |good: bool| {
        let main = &world.api("/repositories/main")["repository"];
        let health = world.store.read(|r| r.health().get(&"main".parse().unwrap())).unwrap().unwrap();
        assert_eq!(main["last_check"].as_i64(), Some(health.checked.0));
        assert_eq!((main["last_check_good"].as_bool(), main["last_check_job"].is_null()), (Some(good), true), "{main}");
    };
    by_hand(true);
    // Half of it was never verified, and is older than the promise.
    assert_eq!((main["data"]["per_cent"].as_u64(), main["data"]["promise"].as_str()), (Some(50), Some("broken")), "{main}");
    assert_eq!((main["data"]["never"].as_u64(), main["data"]["bytes"].as_u64(), main["damage"].is_null()), (Some(500), Some(1000), true));
    let page = world.page("/repositories/main");
    assert!(page.contains(main["data"]["text"].as_str().unwrap()) && page.contains("late"), "{page}");
    assert!(!page.contains("<h2>Damage"), "{page}");
    assert_eq!(world.api("/dashboard")["unsound"][0]["name"], "main");
    assert!(world.page("/").contains("is not checked as often as promised"));

    store(true);
    by_hand(false);
    let detail = world.api("/repositories/main");
    let damage = &detail["damage"];
    assert_eq!(detail["repository"]["damage"], damage["summary"]);
    assert_eq!((damage["error_count"].as_u64(), damage["clients"][0].as_str()), (Some(9), Some("web1")), "{damage}");
    let page = world.page("/repositories/main");
    for text in [damage["summary"].as_str().unwrap(), "etc/passwd", "3 more files", "1 more archive", "segment 12: an object", "9 errors"] {
        assert!(page.contains(text), "{text} is not on\n{page}");
    }
    assert!(page.contains(&format!("/archives/main/{:064x}", 2)));
    assert!(world.page("/").contains("is damaged:"), "{}", world.page("/"));
    assert!(!world.page("/").contains("All is well"));
    let metrics = world.get("/metrics").text();
    for sample in [
        "borgcube_repository_damaged{repository=\"main\"} 1",
        "borgcube_repository_data_checked_ratio{repository=\"main\"} 0.5",
        "borgcube_repository_data_check_late{repository=\"main\"} 1",
        "borgcube_repository_structure_check_late{repository=\"main\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample} is not in\n{metrics}");
    }
}

#[test]
fn every_page_is_a_page() {
    let world = World::filled(some);
    for path in PAGES {
        let page = world.page(path);
        assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"), "{path}");
        assert_eq!(page.matches("<h1>").count(), 1, "{path}");
        for needed in
            ["<title>", "name=\"viewport\"", "class=\"skip\"", "<main id=\"main\"", "aria-label=\"Main\"", "aria-current=\"page\""]
        {
            assert!(page.contains(needed), "{path} has no {needed}");
        }
        // What the policy forbids would not work anyway.
        for forbidden in ["style=", "<style", "onclick", "javascript:", "http://", "https://"] {
            assert!(!page.contains(forbidden), "{path} has {forbidden}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{path}");
        // An element of each id, and every table has its head.
        let ids: Vec<_> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(ids.len(), ids.iter().collect::<std::collections::BTreeSet<_>>().len(), "{path}: {ids:?}");
        assert_eq!(page.matches("<table").count(), page.matches("<thead>").count(), "{path}");
        assert!(page.matches("scope=\"col\"").count() > 0 || !page.contains("<table"), "{path}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let world = World::filled(some);
    let mut seen = std::collections::BTreeSet::new();
    let mut waiting = vec!["/".to_owned()];
    while let Some(path) = waiting.pop() {
        // Months have no end.
        if seen.len() > 300 || path.contains("month=") || !seen.insert(path.clone()) {
            continue;
        }
        let answer = world.get(&path);
        assert_eq!(answer.status, if path == "/healthz" { 503 } else { 200 }, "{path}");
        if !answer.header("content-type").starts_with("text/html") {
            continue;
        }
        let base = path.split('?').next().unwrap().to_owned();
        for link in answer.text().split(" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&#38;", "&")) {
            match link.as_bytes().first() {
                Some(b'#') => {}
                Some(b'?') => waiting.push(format!("{base}{link}")),
                _ => waiting.push(link),
            }
        }
    }
    assert!(seen.len() > 25, "{seen:?}");
}

#[test]
fn long_lists_have_pages() {
    let world = World::filled(|store| {
        some(store);
        store
            .write("many", "root", |w| {
                for number in 100..260 {
                    w.jobs().insert(&records::ended(number, if number % 2 == 0 { "web1/etc" } else { "db1/data" }, 5, None))?;
                    w.archives().insert(&archive(number, "web1/etc", 5))?;
                }
                Ok(())
            })
            .unwrap();
    });
    let walk = |list: &str, query: &str| {
        let mut found = vec![];
        let mut next = Some(query.to_owned());
        while let Some(query) = next {
            let page = world.api(&format!("/{list}{query}"));
            found.extend(page[list].as_array().unwrap().iter().map(|row| row["number"].as_u64().or(row["job"].as_u64()).unwrap()));
            next = page["window"]["next"].as_str().map(str::to_owned);
        }
        found
    };
    let jobs = walk("jobs", "?client=web1&limit=7");
    let expected: Vec<u64> = (100..260).rev().filter(|number| number % 2 == 0).chain([3, 2, 1]).collect();
    assert_eq!(jobs, expected);
    assert_eq!(walk("jobs", "?kind=check"), [0; 0]);
    assert_eq!(walk("jobs", "?kind=backup&state=queued"), [7]);
    let mut archives = walk("archives", "?repository=main&limit=9");
    archives.sort_unstable();
    assert_eq!(archives, [1, 2, 3, 4, 5].into_iter().chain(100..260).collect::<Vec<u64>>());
    assert!(world.page("/jobs?client=web1").contains("rel=\"next\""));
    assert_eq!(world.api("/log?limit=1")["window"]["next"], "?limit=1&before=3");
}

#[test]
fn what_is_not_there_and_what_makes_no_sense() {
    let world = World::filled(some);
    for path in [
        "/nothing",
        "/clients/nobody",
        "/clients/%3Cscript%3E",
        "/jobs/999",
        "/jobs/x",
        "/jobs/-1",
        "/archives/main/12",
        "/repositories/x",
        "/policies/x",
        "/static/../Cargo.toml",
        "/clients/web1/x",
    ] {
        let answer = world.get(path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        let api = world.get(&format!("/api/v1{path}"));
        assert_eq!(api.status, 404, "{path}");
        let error: Value = serde_json::from_slice(&api.body).unwrap();
        assert!(error["error"]["message"].as_str().unwrap().starts_with("there is no"), "{error}");
    }
    for path in [
        "/jobs?before=x",
        "/jobs?state=nonsense",
        "/jobs?limit=0",
        "/jobs?limit=100000",
        "/jobs?client=-x",
        "/archives?before=1.2",
        "/schedules?month=13",
        "/schedules?month=9999-12",
        "/schedules?month=2026-13",
        "/log?before=x",
        "/policies/standard?after=x",
    ] {
        let answer = world.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.text().contains("parameter "), "{path}");
    }
}

#[test]
fn metrics_have_the_form_and_the_figures() {
    let world = World::filled(some);
    let answer = world.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    let line =
        regex::Regex::new(r#"^(# (TYPE|HELP) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.e+-]+|# EOF)$"#).unwrap();
    for each in text.lines() {
        assert!(line.is_match(each), "{each}");
    }
    // One family is in one place.
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(families.len(), families.iter().collect::<std::collections::BTreeSet<_>>().len());
    for sample in [
        "borgcube_archives 4",
        "borgcube_original_bytes 4000010",
        "borgcube_jobs_queued 1",
        "borgcube_borgcubed_up 0",
        "borgcube_target_age_exceeded{client=\"db1\",label=\"data\",repository=\"main\"} 1",
        "borgcube_target_age_exceeded{client=\"web1\",label=\"etc\",repository=\"main\"} 0",
        "borgcube_last_job_failed{client=\"db1\",label=\"data\",repository=\"main\"} 1",
        "borgcube_repository_archives{repository=\"main\"} 4",
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample} is not in\n{text}");
    }
    assert!(text.contains("borgcube_last_success_timestamp_seconds{client=\"web1\""));
}

#[test]
fn without_a_database_it_says_so_and_waits() {
    let mut world = World::new();
    world.stop();
    let (db, away) = (world.layout().db(), world.layout().state().join("away"));
    std::fs::rename(&db, &away).unwrap();
    world.start(&[]);
    let answer = world.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("the database is not there"), "{}", answer.text());
    assert_eq!(world.get("/healthz").status, 503);
    assert!(!db.exists(), "it makes nothing");
    std::fs::rename(&away, &db).unwrap();
    assert!(world.page("/").contains("Nothing is backed up yet"));
}

#[test]
fn space_is_shown_over_time_and_where_it_is_not_known() {
    let world = World::filled(some);
    let far = model::Repository { url: "ssh://borg@storage/./far".into(), ..records::repository("far") };
    world.store.write("add", "root", |w| w.repositories().insert(&far)).unwrap();
    let page = world.page("/repositories/main");
    assert!(page.contains("not known") && !page.contains("on disk, by day"), "{page}");
    for (days, segments) in [(3, 5_000_000), (1, 9_000_000), (1, 7_000_000)] {
        for name in ["main", "far"] {
            world.store.write("measured", "owner", |w| w.space().note(&records::space(name, days, segments))).unwrap();
        }
    }
    let page = world.page("/repositories/main");
    for part in
        ["on disk, by day", "unique, by day", "3 values, from 5.00 MB to 7.00 MB, at most 7.00 MB", "700.00 kB", "1\u{202f}234 chunks"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("stored for the archives there are"), "{page}");
    let answer = world.api("/repositories/main");
    let history: Vec<_> = answer["space_history"].as_array().unwrap().iter().map(|space| space["segment_bytes"].clone()).collect();
    assert_eq!(history, [5_000_000, 7_000_000]);
    assert_eq!(answer["repository"]["space"]["unique_bytes"], 3_500_000);
    // What is known of the time before it moved to another host is of no use.
    let answer = world.api("/repositories/far");
    assert!(answer["repository"]["space"].is_null() && answer["space_history"].as_array().unwrap().is_empty(), "{answer}");
    assert!(world.page("/repositories").contains("not known"));
    let metrics = world.get("/metrics").text();
    assert!(metrics.contains("borgcube_repository_segment_bytes{repository=\"main\"} 7000000\n"), "{metrics}");
    assert!(!metrics.contains("borgcube_repository_segment_bytes{repository=\"far\"}"), "{metrics}");
}

/// What the dashboard for Grafana asks for is there, under that name and with those labels.
#[test]
fn grafana_asks_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(include_str!("../../../../packaging/grafana/borgcube.json")).unwrap();
    let world = World::filled(some);
    world.store.write("check", "owner", |w| w.health().put(&records::health("main", true))).unwrap();
    world.store.write("measured", "owner", |w| w.space().note(&records::space("main", 0, 1000))).unwrap();
    let metrics = world.get("/metrics").text();
    let name = regex::Regex::new("borgcube_[a-z_]+").unwrap();
    let label = regex::Regex::new(r"\{\{([a-z]+)\}\}").unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            for found in name.find_iter(target["expr"].as_str().unwrap()) {
                let samples: Vec<_> = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(found.as_str())).collect();
                assert!(!samples.is_empty(), "{} of panel {}", found.as_str(), panel["title"]);
                for label in label.captures_iter(target["legendFormat"].as_str().unwrap()) {
                    assert!(samples[0].contains(&format!("{}=\"", &label[1])), "{} has no {}", samples[0], &label[1]);
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 15, "{asked}");
}
