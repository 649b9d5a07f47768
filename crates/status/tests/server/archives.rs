//! What is in archives, from an owner that answers as a repository's does: names that are attacks, viewers that are slow or gone.

use crate::hostile::{CORPUS, check};
use crate::owner::{self, Builder, Objects, directory, link};
use crate::records::{self, some};
use crate::world::{Answer, World};
use model::token::Token;
use model::web_user::{Role, SignIn, TokenHash, WebSettings, WebUser};
use model::{Archive, Timestamp};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Shelf {
    world: World,
    objects: Arc<Objects>,
    /// Connections that are open.
    open: Arc<AtomicUsize>,
    id: String,
    token: String,
}

fn user(name: &str, role: Role, byte: u8) -> WebUser {
    let hash = TokenHash::of(&Token::from_random([byte; 32]));
    let (name, comment) = (name.parse().unwrap(), String::new());
    WebUser { name, role, sign_in: SignIn::Token { hash }, enabled: true, created: Timestamp(0), expires: None, comment }
}

impl Shelf {
    /// An archive with a record, in the hands of an owner.
    fn with(builder: Builder) -> Shelf {
        let objects = Arc::new(builder.finish());
        let id = owner::id_of(&objects.metadata).to_hex();
        let world = World::filled(|store| {
            some(store);
            store
                .write("let read", "root", |w| {
                    let limits = model::queue::Limits::default();
                    let web = WebSettings { downloads: true, ..WebSettings::default() };
                    w.set_settings(&model::Settings { server_id: "s".into(), limits, sessions: Default::default(), web })?;
                    w.web_users().insert(&user("otto", Role::Operator, 1))?;
                    w.web_users().insert(&user("vera", Role::Viewer, 2))?;
                    w.archives().insert(&Archive { id: id.clone(), ..records::archive(9, "web1/etc", 1) })
                })
                .unwrap();
        });
        let listener = unix::socket::listen(&world.layout().repository_socket("main"), 0o600).unwrap();
        let open = Arc::new(AtomicUsize::new(0));
        let (answering, counted) = (Arc::clone(&objects), Arc::clone(&open));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (objects, open) = (Arc::clone(&answering), Arc::clone(&counted));
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    owner::serve(&objects, stream.unwrap());
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Shelf { world, objects, open, id, token: Token::from_random([1; 32]).to_hex() }
    }

    fn request(&self, path: &str, token: &str) -> Vec<u8> {
        let host = self.world.host();
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n").into_bytes()
    }

    fn get(&self, path: &str) -> Answer {
        self.world.raw(&self.request(&format!("/archives/main/{}/{path}", self.id), &self.token))
    }

    fn files(&self, path: &str) -> Value {
        let mut page = Value::Null;
        self.world.until("the list of files is read", |world| {
            let answer = world.raw(&self.request(&format!("/api/v1/archives/main/{}/files/{path}", self.id), &self.token));
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            page = serde_json::from_slice(&answer.body).unwrap();
            page["complete"] == true
        });
        page
    }

    /// Begins a download and takes its first bytes.
    fn begin(&self, path: &str) -> TcpStream {
        let mut stream = self.world.connect();
        stream.write_all(&self.request(&format!("/archives/main/{}/{path}", self.id), &self.token)).unwrap();
        let mut bytes = vec![0; 4096];
        stream.read_exact(&mut bytes).unwrap();
        assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes));
        stream
    }
}

#[test]
fn names_in_archives_are_text_and_lead_nowhere() {
    let mut builder = Builder::default();
    for (number, evil) in CORPUS.iter().enumerate() {
        builder.add(&directory(format!("{number}")));
        let file = builder.file(format!("{number}/{evil}"), &[evil.as_bytes()]);
        builder.add(&file).add(&link(format!("{number}/link"), evil)).add(&link(format!("{number}/{evil}.link"), "x"));
    }
    for out in ["../../etc/shadow", "/etc/shadow", "0/../../x"] {
        let file = builder.file(out, &[b"outside"]);
        builder.add(&file);
    }
    builder.raw(b"\x81\xa4nonsense");
    let shelf = Shelf::with(builder);
    let root = shelf.files("");
    assert!(root["strange"].as_u64() > Some(3), "{root}");
    assert!(!root["complaints"].as_array().unwrap().is_empty(), "{root}");
    let document = shelf.world.api("/openapi.json");
    let schema =
        &document["paths"]["/archives/{repository}/{id}/files/{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    crate::schema::check(&document, schema, &shelf.files("0"), "files").unwrap();
    let mut contents = BTreeSet::new();
    for (number, evil) in CORPUS.iter().enumerate() {
        // Names with slashes are directories.
        let mut left = vec![number.to_string()];
        while let Some(path) = left.pop() {
            check(&path, &shelf.get(&format!("files/{path}")).text(), evil);
            for row in shelf.files(&path)["entries"].as_array().unwrap() {
                let path = row["path"].as_str().unwrap();
                assert!(path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%/".contains(&b)), "{path}");
                if row["kind"] == "directory" {
                    left.push(path.to_owned());
                } else if row["kind"] == "file" {
                    let file = shelf.get(&format!("file/{path}"));
                    assert_eq!((file.status, file.header("content-type")), (200, "application/octet-stream"), "{}", file.text());
                    let disposition = file.header("content-disposition");
                    assert!(disposition.starts_with("attachment; ") && !disposition.contains(['<', '\u{202e}']), "{disposition}");
                    contents.insert(file.text());
                }
            }
        }
    }
    let shown = CORPUS.iter().filter(|evil| !evil.contains('\0')).map(|evil| (*evil).to_owned());
    assert_eq!(contents, shown.collect());
    for path in ["files/..", "file/..%2f..%2fetc%2fshadow", "file/%2e%2e/%2e%2e/etc/shadow", "tar/..", "files/0%2f..", "file/0%00"] {
        let answer = shelf.get(path);
        assert_eq!(answer.status, 404, "{path}");
        check(path, &answer.text(), "nothing");
    }
    // A viewer is not let in, and the pages say so.
    let viewer = Token::from_random([2; 32]).to_hex();
    assert_eq!(shelf.world.raw(&shelf.request(&format!("/archives/main/{}/files", shelf.id), &viewer)).status, 403);
    assert_eq!(shelf.world.get(&format!("/archives/main/{}/tar", shelf.id)).status, 303);
}

#[test]
fn who_takes_nothing_fills_nothing_and_who_goes_ends_it() {
    const CHUNKS: usize = 100;
    let mut builder = Builder::default();
    // Zeros compress: little to keep here, much to send.
    let chunk = vec![0; 4 << 20];
    let large = builder.file("large", &vec![chunk.as_slice(); CHUNKS]);
    let small = builder.file("small", &[b"small"]);
    builder.add(&large).add(&small);
    let shelf = Shelf::with(builder);
    let downloads = [shelf.begin("file/large"), shelf.begin("tar"), shelf.begin("file/large")];
    let full = shelf.get("file/small");
    assert!(full.status == 503 && full.text().contains("3 downloads"), "{}", full.text());
    // Pages go on, directories among them.
    assert_eq!(shelf.files("")["total"], 2);
    // What is no directory says what it is, and where to get it.
    let file = shelf.get("files/small");
    assert!(file.status == 404 && file.text().contains("small is a file"), "{}", file.text());
    assert!(file.text().contains(&format!(r#"<a href="/archives/main/{}/file/small">"#, shelf.id)), "{}", file.text());
    assert_eq!(shelf.world.get("/archives").status, 200);
    let asked = shelf.objects.asked.load(Ordering::SeqCst);
    assert!(asked < 3 * CHUNKS / 2, "nobody has taken what {asked} objects hold");
    drop(downloads);
    shelf.world.until("the downloads have ended", |_| shelf.open.load(Ordering::SeqCst) == 0);
    shelf.world.until("there is room again", |_| shelf.get("file/small").body == b"small");
    // What breaks off is no whole file.
    shelf.objects.payloads.lock().unwrap().remove(&owner::id_of(&chunk));
    let broken = shelf.get("file/large");
    assert!(broken.body.is_empty() && broken.header("content-length") == (CHUNKS * chunk.len()).to_string(), "{}", broken.status);
    let tar = shelf.get("file/small");
    assert_eq!(tar.body, b"small");
}

#[test]
fn a_download_ends_with_the_right_to_it() {
    const CHUNKS: usize = 100;
    let mut builder = Builder::default();
    let chunk = vec![0; 4 << 20];
    let large = builder.file("large", &vec![chunk.as_slice(); CHUNKS]);
    builder.add(&large);
    let shelf = Shelf::with(builder);
    let control = crate::world::Control::listen(&shelf.world, vec![]);
    control.wait();
    shelf.world.until("healthy", |world| world.get("/healthz").status == 200);
    let mut download = shelf.begin("file/large");
    let disabled = WebUser { enabled: false, ..user("otto", Role::Operator, 1) };
    shelf.world.store.write("disable", "root", |w| w.web_users().put(&disabled)).unwrap();
    control.events.send(wire::control::Event::UsersChanged).unwrap();
    shelf.world.until("the owner is left alone", |_| shelf.open.load(Ordering::SeqCst) == 0);
    // The owner of this test asks nobody: what is on its way already is all that comes.
    let mut rest = vec![];
    let _ = download.read_to_end(&mut rest);
    assert!(rest.len() < 30 << 20, "{} bytes", rest.len());
}

#[test]
fn a_tar_archive_says_what_is_missing() {
    let mut builder = Builder::default();
    let (lost, whole) = (builder.file("d/lost", &[b"lost"]), builder.file("d/whole", &[b"whole"]));
    builder.add(&lost).add(&whole);
    let shelf = Shelf::with(builder);
    let is_noted = |tar: &Answer| tar.body.windows(9).any(|window| window == b"BORGCUBE-");
    let before = shelf.get("tar/d");
    assert!(before.status == 200 && !is_noted(&before) && before.header("content-disposition").contains("a-d.tar"));
    shelf.objects.payloads.lock().unwrap().remove(&owner::id_of(b"lost"));
    let after = shelf.get("tar/d");
    let text = after.text();
    assert!(is_noted(&after) && text.contains("d/lost: 4 bytes of it are lost") && text.contains("whole"), "{text}");
}
