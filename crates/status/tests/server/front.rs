//! Behind a real nginx, set up as docs/status.md says.

use crate::access::{cookie, settings, token, user, with_token};
use crate::records::some;
use crate::world::{Control, PATIENCE, World};
use model::web_user::{Role, SignIn, WebSettings};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::control::Event;

const NGINX: &str = "/usr/sbin/nginx";

/// What the documentation has in its `server`, for this server and with what stands for a certificate left out.
fn documented(world: &World) -> String {
    let text = include_str!("../../../../docs/status.md");
    let begin = text.find("    location / {\n").expect("the documentation has a location");
    let location = &text[begin..begin + text[begin..].find("    }\n").expect("which ends") + 6];
    assert!(location.contains("proxy_pass http://127.0.0.1:8420;"));
    location.replace("127.0.0.1:8420", &world.host())
}

/// The lines of the documentation by which a sign-in service's word is passed on.
fn asked() -> String {
    let text = include_str!("../../../../docs/status.md");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| ["auth_request", "proxy_set_header X-Forwarded-Email $email"].iter().any(|word| line.trim_start().starts_with(word)))
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    lines.join("\n")
}

struct Front {
    nginx: std::process::Child,
    directory: tempfile::TempDir,
}

impl Front {
    /// Three servers: one that passes everything on, one that asks for a password, one that asks a sign-in service.
    fn start(world: &World) -> Front {
        let directory = tempfile::Builder::new().prefix("bc-front-").tempdir().unwrap();
        // Its workers are nobody where it is root.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (at, location, asked) = (directory.path().display(), documented(world), asked());
        std::fs::write(directory.path().join("passwords"), "bob@example.net:{PLAIN}secret\n").unwrap();
        let with = |lines: &str| location.replacen("{\n", &format!("{{\n{lines}\n"), 1);
        let (basic, asked) =
            (with("auth_basic BorgCube; auth_basic_user_file passwords; proxy_set_header X-Forwarded-Email $remote_user;"), with(&asked));
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {at}/{kind};")).join(" ");
        let conf = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/errors;
             events {{}}
             http {{
                 access_log off; {temporary}
                 map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
                 server {{ listen unix:{at}/plain; {location} }}
                 server {{ listen unix:{at}/basic; {basic} }}
                 server {{
                     listen unix:{at}/asked;
                     location = /oauth2/auth {{ internal; proxy_pass http://unix:{at}/service; proxy_pass_request_body off; proxy_set_header Content-Length ''; }}
                     {asked}
                 }}
                 server {{
                     listen unix:{at}/service;
                     location / {{ if ($cookie_sso != good) {{ return 401; }} add_header X-Auth-Request-Email bob@example.net; return 202; }}
                 }}
             }}"
        );
        std::fs::write(directory.path().join("conf"), conf).unwrap();
        let mut nginx = std::process::Command::new(NGINX);
        nginx.arg("-p").arg(directory.path()).args(["-c", "conf", "-e"]).arg(directory.path().join("errors"));
        let nginx = nginx.stdin(std::process::Stdio::null()).spawn().unwrap();
        let mut front = Front { nginx, directory };
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(front.socket("service")).is_err() {
            let ended = front.nginx.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "{ended:?} {:?}",
                std::fs::read_to_string(front.directory.path().join("errors"))
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        front
    }

    fn socket(&self, server: &str) -> PathBuf {
        self.directory.path().join(server)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.nginx.kill();
        let _ = self.nginx.wait();
    }
}

/// A request as a browser would send it to the web server's name.
fn ask(socket: &Path, method: &str, path: &str, headers: &str, body: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: backup.example.net\r\n{length}{headers}\r\n{body}").unwrap();
    stream
}

/// All of the answer.
fn answer(socket: &Path, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut text = String::new();
    ask(socket, method, path, &format!("Connection: close\r\n{headers}"), body).read_to_string(&mut text).unwrap();
    text
}

/// Lines until one has this.
fn until(reader: &mut impl BufRead, what: &str) -> String {
    let mut read = String::new();
    while !read.contains(what) {
        assert!(reader.read_line(&mut read).unwrap() > 0, "{what} never came: {read}");
    }
    read
}

#[test]
fn behind_nginx() {
    if !Path::new(NGINX).exists() {
        eprintln!("\n!!!!! NOT RUN: behind_nginx: there is no {NGINX} (scripts/setup test installs it)\n");
        return;
    }
    let mut world = World::filled(|store| {
        some(store);
        let users = [
            with_token("alice", Role::Operator, 1),
            user("bob@example.net", Role::Operator, SignIn::Proxy),
            user("adam@example.net", Role::Administrator, SignIn::Proxy),
        ];
        store.write("users", "root", |w| users.iter().try_for_each(|user| w.web_users().insert(user))).unwrap();
        settings(store, WebSettings { proxy: true, ..WebSettings::default() });
    });
    world.stop();
    world.start(&["--require-sign-in", "--host", "backup.example.net", "--user-header", "X-Forwarded-Email"]);
    let control = Control::listen(&world, vec![]);
    control.wait();
    let front = Front::start(&world);
    let (plain, basic, asked) = (front.socket("plain"), front.socket("basic"), front.socket("asked"));

    // By token. What browsers reach by TLS they keep for TLS.
    assert!(answer(&plain, "GET", "/jobs", "", "").contains("ocation: /sign-in?next=%2Fjobs"));
    let form = "Content-Type: application/x-www-form-urlencoded\r\nOrigin: https://backup.example.net\r\n";
    let signed = answer(&plain, "POST", "/sign-in", form, &format!("token={}", token(1)));
    assert!(signed.starts_with("HTTP/1.1 303") && signed.contains("; Secure"), "{signed}");
    assert!(answer(&plain, "GET", "/", &cookie(1), "").contains("alice"));
    let elsewhere = answer(&plain, "POST", "/sign-in", &form.replace("backup", "evil"), &format!("token={}", token(1)));
    assert!(elsewhere.starts_with("HTTP/1.1 403"), "{elsewhere}");

    // By the header that nginx sets, whatever a browser sends by that name.
    let spoof = "X-Forwarded-Email: adam@example.net\r\n";
    let known = format!("Authorization: Basic Ym9iQGV4YW1wbGUubmV0OnNlY3JldA==\r\n{spoof}");
    let sso = format!("Cookie: sso=good\r\n{spoof}");
    for (socket, headers) in [(&basic, &known), (&asked, &sso)] {
        let nobody = answer(socket, "GET", "/api/v1/me", spoof, "");
        assert!(nobody.starts_with("HTTP/1.1 401") && !nobody.contains("adam"), "{nobody}");
        let me = answer(socket, "GET", "/api/v1/me", headers, "");
        assert!(me.contains(r#""name":"bob@example.net""#) && me.contains(r#""role":"operator""#), "{me}");
        let csrf = me.split_once(r#""csrf":""#).unwrap().1.split('"').next().unwrap();
        let act = format!("Content-Type: application/json\r\nOrigin: https://backup.example.net\r\n{headers}");
        let refused = answer(socket, "POST", "/api/v1/do/run-config", &act, r#"{"config": "web1/etc"}"#);
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("the field csrf is missing: GET /api/v1/me"), "{refused}");
        let done = answer(socket, "POST", "/api/v1/do/run-config", &act, &json!({ "config": "web1/etc", "csrf": csrf }).to_string());
        assert!(done.starts_with("HTTP/1.1 200"), "{done}");
        let credential = control.acts.lock().unwrap().pop().unwrap()["credential"].clone();
        assert_eq!(credential, json!({ "kind": "proxy", "name": "bob@example.net" }));
    }

    // Events as they happen, both ways.
    let mut stream = BufReader::new(ask(&asked, "GET", "/api/v1/events", &sso, ""));
    until(&mut stream, "event: borgcubed");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://backup.example.net\r\n";
    let mut socket = ask(&asked, "GET", "/api/v1/socket", &format!("{upgrade}{sso}"), "");
    let mut received = vec![];
    let mut wait = |socket: &mut UnixStream, what: &[u8]| {
        while !received.windows(what.len()).any(|window| window == what) {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&received)));
            received.push(byte[0]);
        }
    };
    wait(&mut socket, b"HTTP/1.1 101");
    wait(&mut socket, br#""event":"borgcubed""#);
    control.events.send(Event::SchedulesChanged).unwrap();
    until(&mut stream, "event: schedules");
    wait(&mut socket, br#""event":"schedules""#);
}
