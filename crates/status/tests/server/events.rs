//! Live events: from borgcubed to everybody who looks.

use crate::records::{job, some};
use crate::world::{Control, World};
use model::progress::{Progress, Statistics};
use model::{JobState, Timestamp};
use wire::control::Event;

fn progress(job: u64, size: u64) -> Event {
    let statistics = Statistics { nfiles: 3, original_size: size, ..Statistics::default() };
    let expected = Some(Statistics { original_size: 1000, ..Statistics::default() });
    Event::Progress { job, progress: Progress { statistics, path: "/etc/x".into(), rate: 10, expected, time: Timestamp(5), steps: None } }
}

#[test]
fn what_happens_is_seen_by_all_who_look() {
    let world = World::filled(some);
    let control = Control::listen(&world, vec![]);
    control.wait();
    world.until("healthy", |world| world.get("/healthz").status == 200);
    let mut viewers: Vec<_> = (0..20).map(|_| world.events(None)).collect();
    assert!(viewers[0].head.contains("content-type: text/event-stream") && viewers[0].head.contains("cache-control: no-cache"));
    for viewer in &mut viewers {
        assert_eq!(viewer.named("borgcubed").data["connected"], true);
    }
    assert!(world.get("/metrics").text().contains("borgcube_status_viewers 20\n"));

    let mut running = job(7, "new1/all");
    running.update_state(JobState::JobCreated, JobState::ClientPreparing, Timestamp::now()).unwrap();
    world.store.write("begin", "root", |w| w.jobs().put(&running)).unwrap();
    control.events.send(Event::Job(Box::new(running))).unwrap();
    control.events.send(progress(7, 420)).unwrap();
    let mut last = None;
    for viewer in &mut viewers {
        let begun = viewer.named("job");
        assert_eq!((begun.data["number"].as_u64(), begun.data["phase"].as_str()), (Some(7), Some("running")));
        let moved = viewer.named("progress");
        assert_eq!(moved.data["progress"]["percent"], 42);
        assert_eq!(moved.id, None);
        last = begun.id;
    }
    // Pages that are loaded now show the same.
    let page = world.page("/");
    assert!(page.contains("data-progress=\"7\"") && page.contains("value=\"42\"") && page.contains("/etc/x"), "{page}");
    assert_eq!(world.api("/jobs/7")["job"]["progress"]["percent"], 42);

    // Who was away gets what was missed, and nothing twice.
    control.events.send(Event::SchedulesChanged).unwrap();
    viewers[0].named("schedules");
    let mut back = world.events(last.as_deref());
    assert_eq!(back.named("borgcubed").id, None);
    assert_eq!(back.next().unwrap().name, "schedules");
    let mut strange = world.events(Some("77-1"));
    strange.named("resync");
}

#[test]
fn borgcubed_goes_and_comes_back() {
    let world = World::filled(some);
    assert!(world.page("/").contains("What runs is not known"));
    let first = Control::listen(&world, vec![]);
    first.wait();
    let mut viewer = world.events(None);
    world.until("connected", |world| !world.page("/").contains("What runs is not known"));
    drop(first);
    while viewer.named("borgcubed").data["connected"] != false {}
    assert_eq!(world.get("/healthz").status, 503);
    assert!(world.page("/about").contains("not heard of"));
    let second = Control::listen(&world, vec![]);
    second.wait();
    while viewer.named("borgcubed").data["connected"] != true {}
    // What happened meanwhile nobody has told.
    viewer.named("resync");
    second.events.send(progress(7, 1)).unwrap();
    viewer.named("progress");
}

#[test]
fn a_stop_ends_streams_at_once() {
    let mut world = World::new();
    let mut viewer = world.events(None);
    viewer.named("borgcubed");
    assert!(world.stop() < std::time::Duration::from_secs(3));
    while viewer.next().is_some() {}
}

#[test]
fn viewers_have_a_limit() {
    let mut world = World::new();
    world.stop();
    world.start(&["--max-viewers", "2"]);
    let mut viewers = [world.events(None), world.events(None)];
    for viewer in &mut viewers {
        viewer.named("borgcubed");
    }
    assert_eq!(world.get("/api/v1/events").status, 503);
    assert_eq!(world.get("/").status, 200);
    drop(viewers);
    world.until("there is room again", |world| {
        use std::io::{Read, Write};
        let mut stream = world.connect();
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        &begin == b"HTTP/1.1 200"
    });
}
