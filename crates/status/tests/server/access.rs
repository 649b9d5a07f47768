//! Who may look, who may have something done, and what does not get through.

use crate::records::some;
use crate::world::{Control, PATIENCE, World};
use model::queue::Limits;
use model::token::Token;
use model::web_user::{Role, SignIn, TokenHash, WebSettings, WebUser};
use model::{Settings, Timestamp};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use store::Store;

pub fn token(byte: u8) -> String {
    Token::from_random([byte; 32]).to_hex()
}

pub fn user(name: &str, role: Role, sign_in: SignIn) -> WebUser {
    let name = name.parse().unwrap();
    WebUser { name, role, sign_in, enabled: true, created: Timestamp::now(), expires: None, comment: String::new() }
}

pub fn with_token(name: &str, role: Role, byte: u8) -> WebUser {
    user(name, role, SignIn::Token { hash: TokenHash::of(&Token::from_random([byte; 32])) })
}

/// alice is an operator (1), vera a viewer (2), adam an administrator (3); max is disabled (4), eve has expired (5).
pub fn people(store: &Store) {
    some(store);
    let all = [
        with_token("alice", Role::Operator, 1),
        with_token("vera", Role::Viewer, 2),
        with_token("adam", Role::Administrator, 3),
        WebUser { enabled: false, ..with_token("max", Role::Administrator, 4) },
        WebUser { expires: Some(Timestamp(1)), ..with_token("eve", Role::Administrator, 5) },
    ];
    store.write("users", "root", |w| all.iter().try_for_each(|user| w.web_users().insert(user))).unwrap();
}

pub fn settings(store: &Store, web: WebSettings) {
    let settings = Settings { server_id: "x".into(), limits: Limits::default(), sessions: Default::default(), web };
    store.write("settings", "root", |w| w.set_settings(&settings)).unwrap();
}

pub fn cookie(byte: u8) -> String {
    format!("Cookie: borgcube-session={}\r\n", token(byte))
}

pub fn bearer(byte: u8) -> String {
    format!("Authorization: Bearer {}\r\n", token(byte))
}

/// What a form of this user carries.
pub fn csrf(world: &World, headers: &str) -> String {
    let me: Value = serde_json::from_slice(&world.look("/api/v1/me", headers).body).unwrap();
    me["user"]["csrf"].as_str().unwrap().to_owned()
}

pub const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[test]
fn people_sign_in_with_a_token_and_out() {
    let world = World::filled(people);
    assert_eq!(world.look("/api/v1/me", "").text(), r#"{"user":null}"#);
    assert!(world.page("/sign-in?next=%2Fjobs").contains(r#"name="next" value="/jobs""#));
    // Only addresses of ours.
    assert!(world.page("/sign-in?next=https%3A%2F%2Fevil.example").contains(r#"name="next" value="/""#));
    let body = format!("token={}&next=%2Fjobs%3Fstate%3Dfailed", token(1));
    let signed = world.send("/sign-in", FORM, &body);
    assert_eq!((signed.status, signed.header("location")), (303, "/jobs?state=failed"), "{}", signed.text());
    let set = signed.header("set-cookie").to_owned();
    assert!(
        set.starts_with(&format!("borgcube-session={}; Path=/; HttpOnly; SameSite=Strict", token(1))) && !set.contains("Secure"),
        "{set}"
    );
    let origin = format!("{FORM}Origin: http://{}\r\n", world.host());
    assert_eq!(world.send("/sign-in", &origin, &body).status, 303);
    let https = format!("{FORM}Origin: https://{}\r\n", world.host());
    let secure = world.send("/sign-in", &https, &body).header("set-cookie").to_owned();
    assert!(secure.starts_with(&format!("__Host-borgcube-session={}; Path=/;", token(1))) && secure.ends_with("; Secure"), "{secure}");
    assert!(world.look("/clients/web1", &format!("Cookie: __Host-borgcube-session={}\r\n", token(1))).text().contains("alice"));
    let page = world.look("/clients/web1", &cookie(1)).text();
    assert!(page.contains("alice") && page.contains(r#"action="/do/run-config""#) && page.contains(r#"action="/sign-out""#), "{page}");
    assert!(!page.contains(&token(1)));
    // Who looks, or is nobody, sees no buttons.
    for headers in ["", &*cookie(2), &*cookie(4), &*cookie(5), &*cookie(9)] {
        assert!(!world.look("/clients/web1", headers).text().contains("/do/"), "{headers}");
    }
    assert!(world.look("/clients/web1", &cookie(2)).text().contains("vera"));
    assert!(!world.look("/repositories/main", &cookie(1)).text().contains("/do/prune-repository"));
    assert!(world.look("/repositories/main", &cookie(3)).text().contains("/do/prune-repository"));
    let out = world.send("/sign-out", &format!("{FORM}{}", cookie(1)), "");
    assert_eq!((out.status, out.header("set-cookie")), (403, ""));
    let out = world.send("/sign-out", &format!("{FORM}{}", cookie(1)), &format!("csrf={}", csrf(&world, &cookie(1))));
    assert_eq!((out.status, out.header("set-cookie").contains("Max-Age=0")), (303, true));
}

#[test]
fn wrong_tokens_open_nothing_and_get_slower() {
    let world = World::filled(people);
    for wrong in [token(9), token(4), token(5), "alice".into(), String::new(), "<script>".into()] {
        let refused = world.send("/sign-in", FORM, &format!("token={wrong}"));
        assert_eq!((refused.status, refused.header("set-cookie")), (403, ""), "{wrong}");
        assert!(refused.text().contains("No user has that token") && !refused.text().contains(&token(4)));
        if !wrong.is_empty() && !wrong.contains('<') {
            assert_eq!(world.look("/", &format!("Authorization: Bearer {wrong}\r\n")).status, 401, "{wrong}");
        }
    }
    let elsewhere = format!("{FORM}Origin: http://evil.example\r\n");
    assert_eq!(world.send("/sign-in", &elsewhere, &format!("token={}", token(1))).status, 403);
    let answers: Vec<u16> = (0..10).map(|_| world.send("/sign-in", FORM, &format!("token={}", token(9))).status).collect();
    assert!(answers.starts_with(&[403; 4]) && answers.ends_with(&[429; 4]), "{answers:?}");
    // A good one has to wait as well; whoever is signed in goes on.
    assert_eq!(world.send("/sign-in", FORM, &format!("token={}", token(1))).status, 429);
    assert!(world.look("/", &cookie(1)).text().contains("alice"));
}

#[test]
fn forms_of_others_do_nothing() {
    let world = World::filled(people);
    let control = Control::listen(&world, vec![]);
    control.wait();
    let (hers, his) = (csrf(&world, &cookie(1)), csrf(&world, &cookie(3)));
    assert_ne!(hers, his);
    let form = |csrf: &str| format!("config=web1%2Fetc&back=%2Fclients%2Fweb1&csrf={csrf}");
    let send = |headers: &str, body: &str| world.send("/do/run-config", &format!("{FORM}{headers}"), body);
    // Nobody in particular is asked to sign in.
    assert_eq!(send("", &form(&hers)).header("location"), "/sign-in?next=%2F");
    let own = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n", world.host());
    for (headers, body) in [
        (cookie(1), "config=web1%2Fetc".to_owned()),
        (cookie(1), form("")),
        (cookie(1), form(&his)),
        (cookie(1) + "Origin: http://evil.example\r\n", form(&hers)),
        (cookie(1) + "Origin: null\r\n", form(&hers)),
        (cookie(1) + "Origin: http://localhost:1\r\n", form(&hers)),
        (cookie(1) + "Sec-Fetch-Site: cross-site\r\n", form(&hers)),
        (cookie(1) + "Sec-Fetch-Site: same-site\r\n", form(&hers)),
    ] {
        let refused = send(&headers, &body);
        assert_eq!(refused.status, 403, "{headers} {body}: {}", refused.text());
    }
    assert!(control.acts.lock().unwrap().is_empty());
    let done = send(&(cookie(1) + &own), &form(&hers));
    let place = done.header("location").to_owned();
    assert_eq!(done.status, 303, "{}", done.text());
    assert!(place.starts_with("/clients/web1?did="), "{place}");
    let asked = control.acts.lock().unwrap()[0].clone();
    assert_eq!(asked["credential"], json!({ "kind": "token", "token": token(1) }));
    assert_eq!(asked["call"]["method"], "org.borgcube.Control.RunConfig");
    assert_eq!(asked["call"]["parameters"]["config"], "web1/etc");
    // What came of it is told to her, and to nobody else.
    let page = world.look(&place, &cookie(1)).text();
    assert!(page.contains("The backup is queued.") && page.contains(r#"href="/jobs/9""#), "{page}");
    assert!(page.contains("in a blackout") && !page.contains("<i>in a blackout"));
    for headers in ["", &*cookie(3)] {
        assert!(!world.look(&place, headers).text().contains("The backup is queued."));
    }
    // An address of somebody else is no place to go on to.
    let body = form(&hers).replace("%2Fclients%2Fweb1", "https%3A%2F%2Fevil.example");
    assert!(send(&cookie(1), &body).header("location").starts_with("/?did="));
    assert_eq!(world.look("/do/run-config", &cookie(1)).status, 405);
}

#[test]
fn programs_send_a_bearer_token_and_json() {
    let world = World::filled(people);
    let post = |name: &str, headers: &str, body: &Value| {
        world.send(&format!("/api/v1/do/{name}"), &format!("Content-Type: application/json\r\n{headers}"), &body.to_string())
    };
    let run = json!({ "config": "web1/etc" });
    assert_eq!(post("run-config", &bearer(1), &run).status, 503, "borgcubed is not there");
    let control = Control::listen(&world, vec![]);
    control.wait();
    let done = post("run-config", &bearer(1), &run);
    let answer: Value = serde_json::from_slice(&done.body).unwrap();
    assert_eq!((done.status, &answer["outcome"]["jobs"], &answer["reply"]["job"]), (200, &json!([9]), &json!(9)), "{answer}");
    assert!(!done.text().contains(&token(1)));
    for headers in ["", &*bearer(9), &*bearer(4), &*bearer(5), "Authorization: Bearer\r\n"] {
        assert_eq!(post("run-config", headers, &run).status, 401, "{headers}");
    }
    // A cookie is a browser's: it takes what a page of ours got.
    assert_eq!(post("run-config", &cookie(1), &run).status, 403);
    assert_eq!(post("run-config", &cookie(1), &json!({ "config": "web1/etc", "csrf": csrf(&world, &cookie(1)) })).status, 200);
    // What borgcubed says is handed on, whoever sees buttons here.
    let refused = post("cancel-job", &bearer(2), &json!({ "job": 5 }));
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("<i>it</i> may not"), "{}", refused.text());
    for (name, body, status) in [
        ("nothing", json!({}), 404),
        ("run-config", json!({}), 400),
        ("run-config", json!({ "config": "/" }), 400),
        ("run-config", json!({ "config": "web1/etc", "bogus": 1 }), 400),
        ("prune-repository", json!({ "repository": "main", "policiy": "nope" }), 400),
        ("edit-schedule", json!({ "record": "nightly", "version": "x", "enabled": "True" }), 400),
        ("run-config", json!({ "config": { "a": 1 } }), 400),
        ("cancel-job", json!({ "job": "x" }), 400),
        ("enable-schedule", json!({ "schedule": "nothing" }), 404),
        ("hold-archives", json!({ "archive": "x" }), 400),
        ("hold-archives", json!({}), 400),
        ("test-restore", json!({ "archive": "main/00" }), 404),
    ] {
        let answer = post(name, &bearer(3), &body);
        assert_eq!(answer.status, status, "{name} {body}: {}", answer.text());
    }
    assert_eq!(world.send("/api/v1/do/run-config", &bearer(1), &run.to_string()).status, 400, "no content type");
    let long = json!({ "config": "x".repeat(600 * 1024) });
    assert!([413, 0].contains(&post("run-config", &bearer(1), &long).status));
}

#[test]
fn every_act_becomes_the_call_it_says() {
    let world = World::filled(people);
    let control = Control::listen(&world, vec![]);
    control.wait();
    let archive = &world.api("/archives")["archives"][0];
    let archive = format!("{}/{}", archive["repository"].as_str().unwrap(), archive["id"].as_str().unwrap());
    let schedule = world.api("/schedules")["schedules"][0]["name"].clone();
    let cases = [
        ("run-config", json!({ "config": "web1/etc" }), "RunConfig"),
        ("run-schedule", json!({ "schedule": schedule }), "RunSchedule"),
        ("enable-schedule", json!({ "schedule": schedule }), "UpdateSchedule"),
        ("disable-schedule", json!({ "schedule": schedule }), "UpdateSchedule"),
        ("cancel-job", json!({ "job": 5 }), "CancelJob"),
        ("check-repository", json!({ "repository": "main", "verify_data": true }), "RunMaintenance"),
        ("compact-repository", json!({ "repository": "main" }), "RunMaintenance"),
        ("prune-repository", json!({ "repository": "main" }), "RunMaintenance"),
        ("test-restore", json!({ "archive": archive }), "RunRestoreTest"),
        ("test-restore", json!({ "config": "web1/etc" }), "RunRestoreTest"),
        ("hold-archives", json!({ "archive": [archive], "reason": "audit" }), "HoldArchives"),
        ("release-archives", json!({ "archive": archive }), "ReleaseArchives"),
        ("delete-archives", json!({ "archive": archive, "grace_hours": 48 }), "DeleteArchives"),
        ("undelete-archives", json!({ "archive": archive, "hold": true }), "UndeleteArchives"),
        ("confirm-policy", json!({ "policy": "standard", "config": "web1/etc" }), "ConfirmPolicy"),
    ];
    let described: std::collections::BTreeSet<String> = world.api("/openapi.json")["paths"]
        .as_object()
        .unwrap()
        .keys()
        .filter_map(|path| path.strip_prefix("/do/").map(str::to_owned))
        .collect();
    let tried = cases.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert!(described.is_superset(&tried), "{described:?}");
    for (name, body, method) in cases {
        let headers = format!("Content-Type: application/json\r\n{}", bearer(3));
        world.send(&format!("/api/v1/do/{name}"), &headers, &body.to_string());
        let asked = control.acts.lock().unwrap().pop().unwrap_or_else(|| panic!("{name} asked for nothing"));
        assert_eq!(asked["call"]["method"], format!("org.borgcube.Control.{method}"), "{name}");
        let parameters = asked["call"]["parameters"].to_string();
        match name {
            "enable-schedule" => assert_eq!(asked["call"]["parameters"]["schedule"]["enabled"], true),
            "disable-schedule" => assert_eq!(asked["call"]["parameters"]["schedule"]["enabled"], false),
            "hold-archives" => assert!(parameters.contains("audit") && parameters.contains("\"main\""), "{parameters}"),
            _ => {}
        }
    }
}

#[test]
fn who_has_to_sign_in_sees_nothing_before() {
    let mut world = World::filled(people);
    world.stop();
    world.start(&["--require-sign-in"]);
    let asked = world.get("/jobs?state=failed");
    assert_eq!((asked.status, asked.header("location")), (303, "/sign-in?next=%2Fjobs%3Fstate%3Dfailed"));
    for path in ["/api/v1/jobs", "/api/v1/events", "/api/v1/openapi.json", "/api/v1/me", "/metrics"] {
        let answer = world.get(path);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{path}");
        let kind = if path == "/metrics" { "text/plain; charset=utf-8" } else { "application/json" };
        assert_eq!(answer.header("content-type"), kind, "programs read {path}");
        assert!(!answer.text().contains("web1"), "{path}");
    }
    assert_eq!(world.look("/", &cookie(9)).status, 303);
    for path in ["/static/style.css", "/static/live.js", "/sign-in"] {
        assert_eq!(world.get(path).status, 200, "{path}");
    }
    assert_eq!(world.get("/healthz").status, 503, "borgcubed is not there");
    assert_eq!(world.look("/metrics", &bearer(2)).status, 200);
    assert_eq!(world.look("/jobs", &cookie(2)).status, 200);
    assert_eq!(world.look("/api/v1/jobs", &bearer(2)).status, 200);
}

#[test]
fn a_web_server_before_us_vouches_where_two_settings_say_so() {
    let mut world = World::filled(|store| {
        people(store);
        let users = [user("bob@example.net", Role::Operator, SignIn::Proxy), user("root", Role::Administrator, SignIn::Peer)];
        store.write("users", "root", |w| users.iter().try_for_each(|user| w.web_users().insert(user))).unwrap();
    });
    let bob = "X-Forwarded-User: bob@example.net\r\n";
    let named = |world: &World, headers: &str| {
        let me: Value = serde_json::from_slice(&world.look("/api/v1/me", headers).body).unwrap();
        me["user"]["name"].as_str().map(str::to_owned)
    };
    let start = |world: &mut World, arguments: &[&str]| {
        world.stop();
        world.start(arguments);
    };
    let both = WebSettings { peer: true, proxy: true, downloads: false };
    settings(&world.store, both);
    assert_eq!(named(&world, bob), None, "nobody told the program which header");
    start(&mut world, &["--user-header", "X-Forwarded-User"]);
    assert_eq!(named(&world, bob).as_deref(), Some("bob@example.net"));
    // A void cookie that its browser keeps does not stand before it; a good one does.
    assert_eq!(named(&world, &(cookie(9) + bob)).as_deref(), Some("bob@example.net"));
    assert_eq!(named(&world, &(cookie(4) + bob)).as_deref(), Some("bob@example.net"));
    assert_eq!(named(&world, &(cookie(1) + bob)).as_deref(), Some("alice"));
    // Neither users with a token, nor Unix users, nor a second name.
    for headers in ["X-Forwarded-User: alice\r\n", "X-Forwarded-User: root\r\n", "X-Forwarded-User: \r\n"] {
        assert_eq!(named(&world, headers), None, "{headers}");
    }
    assert_eq!(world.look("/api/v1/me", &format!("{bob}X-Forwarded-User: root\r\n")).status, 400);
    // A browser that is signed in there can be led astray: its forms are looked at.
    let control = Control::listen(&world, vec![]);
    control.wait();
    let form = format!("{FORM}{bob}");
    assert_eq!(world.send("/do/run-config", &form, "config=web1%2Fetc").status, 403);
    let csrf = csrf(&world, bob);
    assert_eq!(world.send("/do/run-config", &form, &format!("config=web1%2Fetc&csrf={csrf}")).status, 303);
    assert_eq!(control.acts.lock().unwrap()[0]["credential"], json!({ "kind": "proxy", "name": "bob@example.net" }));
    settings(&world.store, WebSettings { proxy: false, ..both });
    assert_eq!(named(&world, bob), None, "the setting is off");
    let (code, said) = crate::world::run(&["--listen", "0.0.0.0:0", "--expose", "--host", "x", "--user-header", "X-User"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn unix_users_are_who_they_are_where_a_setting_says_so() {
    let me = unix::socket::user_name(unix::socket::own_uid()).unwrap().expect("who runs the tests has a name");
    let mut world = World::filled(|store| {
        people(store);
        store.write("user", "root", |w| w.web_users().insert(&user(&me, Role::Operator, SignIn::Peer))).unwrap();
    });
    let socket = world.layout().state().join("run/pages.sock");
    world.stop();
    world.start(&["--listen", &format!("unix:{}", socket.display())]);
    let ask = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    world.until("it listens", |_| socket.exists());
    assert!(ask().contains(r#"{"user":null}"#), "off at first");
    settings(&world.store, WebSettings { peer: true, ..WebSettings::default() });
    assert!(ask().contains(&format!(r#""name":"{me}""#)), "{}", ask());
    // Over TCP nobody knows who it is.
    assert_eq!(world.look("/api/v1/me", "").text(), r#"{"user":null}"#);
}
