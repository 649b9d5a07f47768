//! Archives through the status pages of a whole system: what comes is what stock borg gives, to those who may have it, and to nobody else.

use model::web_user::Credential;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use testkit::borgs::Borg;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{PATIENCE, newest_archive, start, text, wait_for_end};
use unix::paths::Layout;
use wire::frame;
use wire::maintenance::{Maintain, Operation};
use wire::reading::{Readable, kind as reading};
use wire::session::{VERSION, kind, read_json, write_json};

const PASSPHRASE: &str = "read through the pages";
const EVIL: &str = "<img src=x onerror=alert(1)>";

struct Pages<'a> {
    system: &'a TestSystem,
    address: String,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Pages<'_> {
    fn of(system: &TestSystem) -> Pages<'_> {
        let url = retry_until(PATIENCE, || fs::read_to_string(system.state().join("run/status.url")).ok()).expect("it is written down");
        let address = url.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        Pages { system, address }
    }

    /// HTTP/1.0: until the connection is closed.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: {}\r\n{headers}{length}\r\n{body}", self.address).unwrap();
        let mut whole = vec![];
        stream.read_to_end(&mut whole).unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.system.log()));
        let end = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("{path}\n{}", self.system.log()));
        let head = String::from_utf8(whole[..end].to_vec()).unwrap();
        let pairs = head.lines().filter_map(|line| line.split_once(": "));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            headers: pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: whole[end + 4..].to_vec(),
        }
    }

    fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.ask("GET", path, &token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n")), "")
    }

    /// A page or its JSON, once the whole list of files was read.
    fn files(&self, path: &str, token: &str) -> Value {
        let whole = || Some(self.get(path, Some(token)).json()).filter(|page| page["complete"] == true);
        retry_until(PATIENCE, whole).expect("the list of files is read")
    }
}

fn add_user(system: &TestSystem, name: &str, role: &str) -> String {
    text(&system.cli_json(&["user", "add", name, "--role", role]), "token").to_owned()
}

fn percent(path: &[u8]) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    path.iter().map(|b| if plain(*b) { char::from(*b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What stock borg makes of it.
fn tar_of(world: &BorgWorld, repository: &Path, archive: &str, path: Option<&Path>) -> Vec<u8> {
    let mut command = Borg::judges().into_iter().next().expect("a borg to judge").command(world);
    command.arg("export-tar").arg(format!("{}::{archive}", repository.display())).arg("-").args(path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Asks the owner itself, as a status daemon would; gives the type of its answer.
fn ask_owner(system: &TestSystem, archive: &str, credential: Credential) -> (u8, Vec<u8>, UnixStream) {
    let mut stream = unix::socket::connect(&Layout::new(&system.state()).repository_socket("main")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let operation = Operation::ReadFor { archive: archive.to_owned(), credential };
    write_json(&mut stream, kind::MAINTAIN, &Maintain { version: VERSION, operation }).unwrap();
    let mut payload = vec![];
    let kind = frame::read(&mut stream, &mut payload).unwrap();
    (kind, payload, stream)
}

#[test]
fn operators_read_archives_and_get_what_stock_borg_gives() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    let odd = source.join("odd");
    fs::create_dir(&odd).unwrap();
    for name in [EVIL.as_bytes(), b"\xff\xfe.bin", b"a b%2f..;?#", b"new\nline", "\u{fc}.txt".as_bytes()] {
        fs::write(odd.join(OsStr::from_bytes(name)), [name, &[0; 5000]].concat()).unwrap();
    }
    fs::hard_link(odd.join(EVIL), odd.join("hard")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", odd.join("link")).unwrap();
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let archive = newest_archive(&system);
    let (id, name) = (text(&archive, "id"), text(&archive, "name"));
    let (viewer, operator) = (add_user(&system, "vera", "viewer"), add_user(&system, "otto", "operator"));
    let pages = Pages::of(&system);
    let base = format!("/archives/main/{id}");
    let files = format!("/api/v1{base}/files");

    // Nobody who may not.
    let token = |token: &str| Credential::Token { token: token.to_owned() };
    let off = pages.get(&files, Some(&operator));
    assert!(off.status == 403 && off.text().contains("--web-downloads on"), "{}", off.text());
    assert_eq!(ask_owner(&system, id, token(&operator)).0, kind::FAILED, "the owner looks at the setting itself");
    system.cli_ok(&["settings", "edit", "--web-downloads", "on"]);
    assert_eq!(pages.get(&files, None).status, 401);
    let sent_on = pages.get(&format!("{base}/files"), None);
    assert!(sent_on.status == 303 && sent_on.headers["location"].starts_with("/sign-in"), "{:?}", sent_on.headers);
    for path in ["files", "tar", "file/etc/passwd"] {
        assert_eq!(pages.get(&format!("{base}/{path}"), Some(&viewer)).status, 403, "{path}");
        assert_eq!(pages.get(&format!("{base}/{path}"), Some(&"0".repeat(64))).status, 401, "{path}");
    }
    let claims = [token(&viewer), token(""), token(&"0".repeat(64)), Credential::Peer { name: "otto".into() }];
    for claim in claims.into_iter().chain([Credential::Proxy { name: "otto".into() }]) {
        let (answer, said, _) = ask_owner(&system, id, claim);
        assert_eq!(answer, kind::FAILED, "{}", String::from_utf8_lossy(&said));
    }
    assert!(!pages.get(&base, Some(&viewer)).text().contains("Browse the files"));

    // A browser.
    let signed = pages.ask("POST", "/sign-in", "Content-Type: application/x-www-form-urlencoded\r\n", &format!("token={operator}"));
    let cookie = format!("Cookie: {}\r\n", signed.headers["set-cookie"].split(';').next().unwrap());
    assert!(pages.ask("GET", &base, &cookie, "").text().contains("Browse the files"));
    let inside = percent(odd.strip_prefix("/").unwrap().as_os_str().as_bytes());
    let listed = pages.files(&format!("{files}/{inside}"), &operator);
    let page = pages.ask("GET", &format!("{base}/files/{inside}"), &cookie, "").text();
    assert!(page.contains("&#60;img src=x") && !page.contains("<img src=x"), "{page}");
    assert!(page.contains(&format!("{base}/files/{}", percent(source.strip_prefix("/").unwrap().as_os_str().as_bytes()))), "{page}");

    // Directory by directory, down from the top.
    let mut at = String::new();
    for step in odd.strip_prefix("/").unwrap().iter() {
        let page = pages.files(&format!("{files}{at}"), &operator);
        let entries = page["entries"].as_array().unwrap();
        let row = entries.iter().find(|row| row["name"] == step.to_str().unwrap()).unwrap_or_else(|| panic!("{page}"));
        assert_eq!(row["kind"], "directory");
        at = format!("/{}", text(row, "path"));
    }
    assert_eq!(at, format!("/{inside}"));
    assert_eq!(listed["total"], 7, "{listed}");
    for row in listed["entries"].as_array().unwrap() {
        let path = text(row, "path");
        let download = pages.get(&format!("{base}/file/{path}"), Some(&operator));
        if row["kind"] == "link" {
            assert_eq!((text(row, "target"), download.status), ("/etc/passwd", 404));
            continue;
        }
        let last = path.rsplit('/').next().unwrap();
        let bytes: Vec<u8> = last.split('%').enumerate().fold(vec![], |mut name, (number, part)| {
            let rest = if number == 0 {
                part
            } else {
                name.push(u8::from_str_radix(&part[..2], 16).unwrap());
                &part[2..]
            };
            name.extend_from_slice(rest.as_bytes());
            name
        });
        let there = fs::read(odd.join(OsStr::from_bytes(&bytes))).unwrap();
        assert_eq!((download.status, &download.body), (200, &there), "{row}");
        assert_eq!(row["size"], there.len(), "{row}");
        assert!(text(row, "mode").starts_with("-rw"), "{row}");
        let header = |name: &str| download.headers[name].as_str();
        assert_eq!((header("content-type"), header("x-content-type-options")), ("application/octet-stream", "nosniff"));
        assert!(header("content-security-policy").starts_with("sandbox"));
        assert!(
            header("content-disposition").starts_with("attachment; filename=\"")
                && header("content-disposition").contains("filename*=UTF-8''")
        );
        let head = pages.ask("HEAD", &format!("{base}/file/{path}"), &cookie, "");
        assert_eq!((head.status, head.headers["content-length"].as_str(), head.body.len()), (200, there.len().to_string().as_str(), 0));
    }

    // What leads elsewhere is nowhere.
    for path in [
        "file/..%2f..%2fetc%2fpasswd",
        "file/../../etc/passwd",
        "file/%2e%2e/etc/passwd",
        "files/..",
        "files/%2e%2e",
        "files//nowhere",
        "tar/nowhere",
        "file",
        "file/a%00b",
        &format!("file/{inside}"),
        &format!("files/{inside}/hard"),
        &format!("tar/{inside}/.."),
    ] {
        assert_eq!(pages.get(&format!("{base}/{path}"), Some(&operator)).status, 404, "{path}");
    }

    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let part = pages.get(&format!("{base}/tar/{inside}"), Some(&operator));
    assert!(
        part.status == 200 && part.body == tar_of(&world, &repository, name, Some(odd.strip_prefix("/").unwrap())),
        "a part is another"
    );
    let whole = pages.ask("GET", &format!("{base}/tar"), &cookie, "");
    assert!(whole.status == 200 && whole.body == tar_of(&world, &repository, name, None), "the whole is another");
    assert!(whole.headers["content-disposition"].contains(&format!("{}.tar", name.replace(':', "_"))));
    let log = system.log();
    assert!(log.contains("web:otto downloads from archive") && log.contains("is being read by web:otto"), "{log}");
    assert!(!log.contains(&operator), "no log has a token");

    // Who may not any more gets nothing more on a connection that is open.
    let (answer, said, mut stream) = ask_owner(&system, id, token(&operator));
    assert_eq!(answer, reading::READABLE);
    let readable: Readable = read_json(&said).unwrap();
    assert_eq!(readable.id, id);
    let mut payload = vec![];
    assert_eq!(frame::read(&mut stream, &mut payload).unwrap(), reading::METADATA);
    system.cli_ok(&["user", "edit", "otto", "--disable"]);
    frame::write(&mut stream, reading::FETCH, &[&[7; 32]]).unwrap();
    assert_eq!(frame::read(&mut stream, &mut payload).unwrap(), kind::FAILED);
    assert_eq!(pages.get(&files, Some(&operator)).status, 401);
}

/// The next message of a WebSocket: type and payload. A server masks nothing.
fn message(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0] & 0xf0, head[1] & 0x80), (0x80, 0), "whole, unmasked frames");
    let length = match head[1] {
        126 => {
            let mut more = [0; 2];
            stream.read_exact(&mut more).unwrap();
            u64::from(u16::from_be_bytes(more))
        }
        127 => {
            let mut more = [0; 8];
            stream.read_exact(&mut more).unwrap();
            u64::from_be_bytes(more)
        }
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    (head[0] & 0xf, payload)
}

#[test]
fn a_job_is_watched_over_a_websocket() {
    let system = TestSystem::start();
    let pages = Pages::of(&system);
    assert!(retry_until(PATIENCE, || (pages.get("/healthz", None).status == 200).then_some(())).is_some(), "{}", system.log());
    system.add_repository("main", "none", None);
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    let mut stream = TcpStream::connect(&pages.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /api/v1/socket HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        pages.address
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let job = start(&system, "host/all");
    let mut phases = vec![];
    while phases.last().is_none_or(|phase| phase != "done") {
        let (kind, payload) = message(&mut reader);
        if kind != 1 {
            continue;
        }
        let told: Value = serde_json::from_slice(&payload).unwrap();
        if told["event"] == "job" && told["data"]["number"] == job {
            assert!(told["id"].is_string(), "{told}");
            phases.push(text(&told["data"], "phase").to_owned());
        }
    }
    phases.dedup();
    assert_eq!(phases, ["queued", "running", "done"]);
    wait_for_end(&system, job);
}
