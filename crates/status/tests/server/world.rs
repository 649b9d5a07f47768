//! A state directory, the server over it, a client for it, and somebody who speaks as borgcubed does.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::Store;
use tempfile::TempDir;
use unix::paths::Layout;
use wire::control::{ControlError, ErrorKind, Event, EventReply, JobDetail, JobLog, JobNumber, Ran, Reply};
use wire::json;
use wire::worker::LogLine;

/// Longest time that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// One server with its database.
pub struct World {
    directory: TempDir,
    /// The database, for writing.
    pub store: Store,
    /// The server's process, if it runs.
    server: Option<unix::spawn::Child>,
    listener: TcpListener,
}

impl World {
    /// An empty database and a server over it.
    pub fn new() -> World {
        World::filled(|_| ())
    }

    /// A database that `fill` has filled, and a server over it.
    pub fn filled(fill: impl FnOnce(&Store)) -> World {
        let directory = tempfile::Builder::new().prefix("bc-").tempdir().unwrap();
        let layout = Layout::new(directory.path());
        layout.create_directories().unwrap();
        let store = Store::open(layout.db()).unwrap();
        fill(&store);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut world = World { directory, store, server: None, listener };
        world.start(&[]);
        world
    }

    /// Starts the server with these arguments and the socket that stays.
    pub fn start(&mut self, arguments: &[&str]) {
        let spawn = unix::spawn::Spawn::new(env!("CARGO_BIN_EXE_borgcube-statusd"))
            .keep_env(unix::paths::ENV_KEPT)
            .env(unix::paths::ENV_STATE, self.directory.path())
            .args(arguments)
            .death_signal(unix::Signal::SIGKILL)
            .fd(self.listener.as_fd(), "http");
        self.server = Some(spawn.spawn().unwrap());
    }

    /// Ends it by SIGTERM; gives how long that took.
    pub fn stop(&mut self) -> Duration {
        let began = Instant::now();
        if let Some(server) = self.server.take() {
            server.pidfd.signal(unix::Signal::SIGTERM).unwrap();
            server.wait().unwrap();
        }
        began.elapsed()
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.directory.path())
    }

    /// The name that a browser would call it by.
    pub fn host(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request as it is, and reads until the server closes.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // What is refused early may be closed before it is read.
        let _ = stream.write_all(request);
        let mut bytes = vec![];
        let _ = stream.read_to_end(&mut bytes);
        Answer::parse(&bytes)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host()).as_bytes())
    }

    /// Sends a form with nothing in it.
    pub fn post(&self, path: &str) -> Answer {
        self.raw(format!("POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.host()).as_bytes())
    }

    /// Sends a body, with these headers beside the necessary ones.
    pub fn send(&self, path: &str, headers: &str, body: &str) -> Answer {
        let (host, length) = (self.host(), body.len());
        let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
        self.raw(format!("{head}{body}").as_bytes())
    }

    /// Looks, with these headers beside the necessary ones.
    pub fn look(&self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n", self.host()).as_bytes())
    }

    /// A page that is there.
    #[track_caller]
    pub fn page(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        answer.text()
    }

    /// An answer of the API.
    #[track_caller]
    pub fn api(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1{path}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Whatever is asked, until it is as it should be.
    #[track_caller]
    pub fn until(&self, what: &str, mut is: impl FnMut(&World) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(Instant::now() < end, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Looks at live events.
    pub fn events(&self, last_seen: Option<&str>) -> Events {
        let mut stream = self.connect();
        let last_seen = last_seen.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n{last_seen}\r\n", self.host()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        Events { reader, head: head.to_ascii_lowercase() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a server answered.
pub struct Answer {
    pub status: u16,
    headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Answer { status: 0, headers: HashMap::new(), body: bytes.to_vec() };
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> =
            lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            body = unchunked(&body);
        }
        Answer { status, headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = vec![];
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        whole.extend(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    whole
}

/// A viewer.
pub struct Events {
    reader: BufReader<TcpStream>,
    pub head: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub id: Option<String>,
    pub name: String,
    pub data: Value,
}

impl Events {
    /// The next event; comments and the sizes of chunks are passed over.
    pub fn next(&mut self) -> Option<Told> {
        let mut told = Told { id: None, name: String::new(), data: Value::Null };
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" if !told.name.is_empty() => return Some(told),
                line => match line.split_once(": ") {
                    Some(("id", id)) => told.id = Some(id.to_owned()),
                    Some(("event", name)) => told.name = name.to_owned(),
                    Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
                    _ => {}
                },
            }
        }
    }

    /// The next one of this name.
    #[track_caller]
    pub fn named(&mut self, name: &str) -> Told {
        loop {
            let told = self.next().unwrap_or_else(|| panic!("the stream ended before an event {name}"));
            if told.name == name {
                return told;
            }
        }
    }
}

/// The id of the only trigger there is.
pub const TRIGGER: &str = "0123456789abcdef0123456789abcdef";

/// Speaks as borgcubed does: one watcher, job details, logs. What whole systems say is tested with whole systems.
pub struct Control {
    path: PathBuf,
    pub events: Sender<Event>,
    /// What was asked for somebody.
    pub acts: Arc<Mutex<Vec<Value>>>,
    watches: Receiver<()>,
    stop: UnixStream,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Control {
    /// Listens, and answers every question about a job with this log.
    pub fn listen(world: &World, log: Vec<LogLine>) -> Control {
        let path = world.layout().control_socket();
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (events, happening) = channel::<Event>();
        let (watched, watches) = channel();
        let acts = Arc::new(Mutex::new(vec![]));
        let asked = Arc::clone(&acts);
        let (stop, stopped) = UnixStream::pair().unwrap();
        stopped.set_nonblocking(true).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let mut watcher: Option<UnixStream> = None;
            loop {
                // Ends when the other half is closed.
                if matches!((&stopped).read(&mut [0]), Ok(0)) {
                    return;
                }
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    if let Some(stream) = converse(stream, &log, &asked) {
                        watcher = Some(stream);
                        watched.send(()).unwrap();
                    }
                }
                if let Some(stream) = &mut watcher {
                    while let Ok(event) = happening.try_recv() {
                        stream.write_all(&json::encode(&Reply::continued(&EventReply { event })).unwrap()).unwrap();
                    }
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Control { path, events, acts, watches, stop, thread: Some(thread) }
    }

    /// Until the server watches.
    pub fn wait(&self) {
        self.watches.recv_timeout(PATIENCE).unwrap();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.take().unwrap().join().unwrap();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers what is asked on one connection; gives it back if it is a watcher.
fn converse(stream: UnixStream, log: &[LogLine], acts: &Mutex<Vec<Value>>) -> Option<UnixStream> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let asked: Value = json::read(&mut reader).ok()?;
        let reply = match asked["method"].as_str().unwrap().rsplit('.').next().unwrap() {
            "Watch" => return Some(stream),
            "GetJob" => {
                let number = asked["parameters"]["job"].as_u64().unwrap();
                let job = crate::records::job(number, "web1/etc");
                Reply::new(&JobDetail { job, progress: None, waits: Some("<i>for the lock</i>".into()), cancelled_by: None })
            }
            // A trigger is told from none by its id, and from where it is used.
            "FireTrigger" if asked["parameters"] == serde_json::json!({ "id": TRIGGER, "context": "anonymous-web" }) => {
                Reply::new(&Ran { jobs: vec![9, 10], ..Ran::default() })
            }
            "FireTrigger" => ControlError::new(ErrorKind::NotFound, "<b>nothing</b> of that name").to_reply(),
            "OnBehalf" => {
                acts.lock().unwrap().push(asked["parameters"].clone());
                match asked["parameters"]["call"]["parameters"]["config"].as_str() {
                    Some("web1/<i>") | None => ControlError::new(ErrorKind::PermissionDenied, "<i>it</i> may not").to_reply(),
                    Some(_) => Reply::new(&JobNumber { job: 9, warnings: vec!["<i>in a blackout</i>".into()] }),
                }
            }
            "GetJobLog" => Reply::new(&JobLog { lines: log.to_vec() }),
            _ => Reply::new(&serde_json::json!({})),
        };
        stream.write_all(&json::encode(&reply).unwrap()).unwrap();
    }
}

/// Runs the program until it ends; its exit code and what it said.
pub fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let child: Child = Command::new(env!("CARGO_BIN_EXE_borgcube-statusd"))
        .args(arguments)
        .env(unix::paths::ENV_STATE, "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}
