//! What goes on ends with the right to it; wrong tokens get slower; who is refused can go on.

use crate::access::{FORM, bearer, cookie, csrf, people, settings, token, user};
use crate::sockets::{event, frame, open};
use crate::world::{Control, World};
use model::UserName;
use model::web_user::{Role, SignIn, WebSettings};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use wire::control::Event;

fn change(world: &World, control: &Control, name: &str, change: impl Fn(&mut model::WebUser)) {
    let name: UserName = name.parse().unwrap();
    let written = world.store.write("change a user", "root", |w| {
        let mut user = w.view().web_users().get(&name)?.expect("it is there");
        change(&mut user);
        w.web_users().put(&user)
    });
    written.unwrap();
    control.events.send(Event::UsersChanged).unwrap();
}

fn until(stream: &mut BufReader<TcpStream>, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it ended before {wanted}");
    }
}

#[test]
fn events_end_with_the_right_to_see_them() {
    let mut world = World::filled(people);
    world.stop();
    world.start(&["--require-sign-in"]);
    let control = Control::listen(&world, vec![]);
    control.wait();
    world.until("healthy", |world| world.get("/healthz").status == 200);
    let events = |headers: &str| {
        let (head, stream) = open(&world, "/api/v1/events", headers);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nconnection: close\r\n"), "{head}");
        let mut stream = BufReader::new(stream);
        until(&mut stream, "event: borgcubed");
        stream
    };
    let (mut hers, mut too, mut others) = (events(&bearer(1)), events(&cookie(1)), events(&cookie(2)));
    let (_, mut socket) = open(&world, "/api/v1/socket", &bearer(1));
    event(&mut socket, "borgcubed");
    let again = open(&world, "/api/v1/events", &bearer(9)).0;
    assert!(again.starts_with("HTTP/1.1 401"), "{again}");
    change(&world, &control, "alice", |user| user.enabled = false);
    for stream in [&mut hers, &mut too] {
        stream.read_to_end(&mut vec![]).expect("it ends");
    }
    let (kind, said) = frame(&mut socket);
    assert_eq!((kind, said[2..].to_vec()), (8, b"signed out".to_vec()));
    // Nobody else is concerned.
    control.events.send(Event::SchedulesChanged).unwrap();
    until(&mut others, "event: schedules");
    // Who signs out is gone as well, and comes back with the token.
    let out = world.send("/sign-out", &format!("{FORM}{}", cookie(2)), &format!("csrf={}", csrf(&world, &cookie(2))));
    assert_eq!(out.status, 303);
    others.read_to_end(&mut vec![]).expect("it ends");
    drop(events(&cookie(2)));
}

#[test]
fn answers_to_earlier_requests_come_before_the_events() {
    let world = World::filled(people);
    let mut stream = world.connect();
    let host = world.host();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all([request("/static/style.css"), request("/jobs"), request("/api/v1/events")].concat().as_bytes()).unwrap();
    let mut stream = BufReader::new(stream);
    let css = world.get("/static/style.css").text();
    until(&mut stream, css.trim_end().lines().last().unwrap());
    until(&mut stream, "<h1>Jobs</h1>");
    until(&mut stream, "</html>");
    until(&mut stream, "text/event-stream");
    until(&mut stream, "event: borgcubed");
}

#[test]
fn guessing_ends_soon_and_disturbs_nobody_who_is_signed_in() {
    let world = World::filled(people);
    assert_eq!(world.look("/api/v1/jobs", &bearer(1)).status, 200);
    let refused: Vec<_> = (0..70).map(|_| world.look("/api/v1/jobs", &bearer(9))).collect();
    assert!(refused[..60].iter().all(|answer| answer.status == 401));
    // A minute may have begun anew on a machine that is very slow.
    let waits = refused.iter().filter(|answer| answer.status == 429).inspect(|answer| {
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&seconds));
    });
    assert!(waits.count() >= 1);
    assert_eq!(world.look("/api/v1/jobs", &bearer(1)).status, 200, "who was known goes on");
    assert_eq!(world.look("/api/v1/jobs", &bearer(2)).status, 429, "nobody learns here which token is good");
    assert_eq!(world.look("/jobs", &cookie(9)).status, 200, "what everybody may see");
    assert_eq!(world.get("/healthz").header("retry-after"), "5", "503 says when to ask again");
}

#[test]
fn an_old_cookie_beside_a_good_name_is_no_guess() {
    let mut world = World::filled(|store| {
        people(store);
        settings(store, WebSettings { proxy: true, ..WebSettings::default() });
        store.write("a user", "root", |w| w.web_users().insert(&user("bob", Role::Viewer, SignIn::Proxy))).unwrap();
    });
    world.stop();
    world.start(&["--require-sign-in", "--user-header", "X-User"]);
    let his = format!("{}X-User: bob\r\n", cookie(9));
    assert!((0..70).all(|_| world.look("/api/v1/jobs", &his).status == 200));
    assert_eq!(world.look("/api/v1/jobs", &bearer(1)).status, 200, "nobody was guessing");
    assert!((0..70).any(|_| world.look("/api/v1/jobs", &bearer(9)).status == 429));
    assert_eq!(world.look("/api/v1/jobs", &his).status, 200, "he is known by his name");
}

#[test]
fn who_is_refused_can_go_on() {
    let world = World::filled(people);
    for (path, status) in [("/nothing", 404), ("/jobs?limit=x", 400), ("/clients/new", 403)] {
        let answer = world.look(path, &cookie(1));
        let page = answer.text();
        assert_eq!(answer.status, status, "{path}: {page}");
        assert!(
            page.contains(r#"<a href="/clients">Clients</a>"#) && page.contains("alice") && page.contains("Sign out"),
            "{path}: {page}"
        );
        assert!(!page.contains("live.js"), "there is nothing live on it");
        assert!(!page.contains(&token(1)));
    }
    assert!(world.get("/nothing").text().contains(r#"<a href="/sign-in?next=%2Fnothing">Sign in</a>"#));
}
