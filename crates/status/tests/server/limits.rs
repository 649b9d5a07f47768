//! What is refused, and what every answer says to browsers.

use crate::records::some;
use crate::world::{Control, TRIGGER, World, run};
use std::io::Write;

#[test]
fn every_answer_is_hardened() {
    let world = World::filled(some);
    for path in ["/", "/nothing", "/static/style.css", "/api/v1/jobs", "/api/v1/nothing", "/metrics", "/healthz"] {
        let answer = world.get(path);
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert!(!answer.header("cache-control").is_empty(), "{path}");
        assert!(answer.header("access-control-allow-origin").is_empty(), "{path}");
    }
}

#[test]
fn only_looking_is_allowed() {
    let world = World::filled(some);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"] {
        let answer =
            world.raw(format!("{method} /jobs/5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
    let whole = world.get("/about");
    let head = world.raw(b"HEAD /static/style.css HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), world.get("/static/style.css").body.len().to_string());
    assert!(!whole.body.is_empty());
    assert_eq!(world.raw(b"HEAD /api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").status, 200);
}

#[test]
fn triggers_are_handed_on_and_nothing_is_told_of_them() {
    let world = World::filled(some);
    // Nobody is there to start anything: that is said, and it is no secret.
    assert_eq!(world.post(&format!("/trigger/{TRIGGER}")).status, 503);
    let control = Control::listen(&world, vec![]);
    control.wait();
    let used = world.post(&format!("/trigger/{TRIGGER}"));
    assert_eq!((used.status, used.header("content-type")), (200, "application/json"), "{}", used.text());
    assert_eq!(used.text(), r#"{"jobs":[9,10]}"#);
    // One that there is not, and what is no id at all, get the same answer.
    let answers: Vec<_> =
        ["f".repeat(32).as_str(), "x", "%3Cscript%3E", &TRIGGER[1..]].map(|id| world.post(&format!("/trigger/{id}"))).into();
    for answer in &answers {
        assert_eq!((answer.status, answer.text()), (404, answers[0].text()));
        assert!(answer.text().contains("there is no such trigger"), "{}", answer.text());
    }
    // A look at the address starts nothing.
    let looked = world.get(&format!("/trigger/{TRIGGER}"));
    assert_eq!((looked.status, looked.header("allow")), (405, "POST"));
    for path in ["/trigger/", "/trigger", &format!("/trigger/{TRIGGER}/x"), &format!("/api/v1/trigger/{TRIGGER}")] {
        assert!([404, 405].contains(&world.post(path).status), "{path}");
    }
    let elsewhere = format!("POST /trigger/{TRIGGER} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(world.raw(elsewhere.as_bytes()).status, 421);
}

#[test]
fn only_our_own_names() {
    let mut world = World::filled(some);
    let ask = |world: &World, host: &str| world.raw(format!("GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes()).status;
    for good in ["Host: localhost\r\n", "Host: localhost:8420\r\n", "Host: [::1]:1\r\n", "host: 127.0.0.1\r\n"] {
        assert_eq!(ask(&world, good), 200, "{good}");
    }
    for bad in [
        "",
        "Host: evil.example\r\n",
        "Host: \r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: localhost.evil.example:80\r\n",
        "Host: backup.example.net\r\n",
    ] {
        assert_eq!(ask(&world, bad), 421, "{bad:?}");
    }
    assert_eq!(world.raw(b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").status, 421);
    world.stop();
    world.start(&["--host", "backup.example.net"]);
    assert_eq!(ask(&world, "Host: backup.example.net\r\n"), 200);
    assert_eq!(ask(&world, "Host: evil.example\r\n"), 421);
}

#[test]
fn what_is_too_much_is_cut_off_and_hurts_nobody() {
    let world = World::filled(some);
    let long = "x".repeat(5000);
    assert_eq!(world.get(&format!("/jobs?client={long}")).status, 414);
    let heads = |count: usize, size: usize| {
        let many: String = (0..count).map(|n| format!("X-{n}: {}\r\n", "y".repeat(size))).collect();
        world.raw(format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{many}\r\n").as_bytes()).status
    };
    assert_eq!(heads(40, 10), 200);
    assert_eq!(heads(100, 10), 431);
    // It may be closed before all of it is sent, and then the answer is lost on the way.
    assert!([431, 0].contains(&heads(1, 100_000)));
    for garbage in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
    ] {
        let status = world.raw(garbage).status;
        assert!(status == 400 || status == 505 || status == 0, "{garbage:?}: {status}");
    }
    // A body that nobody asked for is not waited for.
    assert_eq!(world.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n").status, 200);
    let mut idle: Vec<_> = (0..200).map(|_| world.connect()).collect();
    for stream in &mut idle {
        stream.write_all(b"GET / HT").unwrap();
    }
    assert_eq!(world.get("/").status, 200);
}

#[test]
fn it_is_opened_by_two_settings_only() {
    let (code, said) = run(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("say where to listen"), "{said}");
    for arguments in [&["--listen", "0.0.0.0:0"][..], &["--listen", "0.0.0.0:0", "--expose"], &["--listen", "0.0.0.0:0", "--host", "x"]] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(1));
        assert!(said.contains("can be reached from other machines"), "{said}");
    }
    let (code, said) = run(&["--listen", "8420"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("unix:/PATH"), "{said}");
}
