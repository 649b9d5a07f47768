//! Downloads: one file, or a directory as a tar archive, as fast as whoever wants it takes it, and not in memory.

use super::line::Line;
use super::names;
use super::{LINKS_MEMORY, Sorry};
use crate::render::Body;
use crate::sessions::Session;
use archive::export::{self, Written};
use archive::feed::Feed;
use archive::tar::{Entry, Tar, Type};
use archive::{Error, Selection, Source};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;

/// What is sent at once.
const PART: usize = 256 << 10;
/// Parts that wait for the viewer.
const PARTS: usize = 2;
/// A viewer that takes nothing for so long is gone.
const STUCK: Duration = Duration::from_secs(60);
/// Nobody is waited for longer, in all,
const PATIENCE: Duration = Duration::from_secs(600);
/// who takes less in a second.
const SLOWEST: u64 = 4 << 10;
/// No download takes longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Complaints that are told with a tar archive.
const COMPLAINTS: usize = 1000;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One file.
    File(Vec<u8>),
    /// Everything, or a directory.
    Tar(Option<Vec<u8>>),
}

impl Wanted {
    /// For the log.
    pub fn shown(&self) -> String {
        match self {
            Wanted::File(path) => format!("the file {}", unix::logging::escape_bytes(path)),
            Wanted::Tar(Some(path)) => format!("{} as a tar archive", unix::logging::escape_bytes(path)),
            Wanted::Tar(None) => "all of it as a tar archive".to_owned(),
        }
    }
}

/// What is known before the first byte.
#[derive(Debug)]
pub struct Head {
    /// `Content-Disposition`
    pub disposition: String,
    /// Bytes.
    pub length: Option<u64>,
}

/// One download, by whom and of what.
pub struct Download {
    /// The archive.
    pub source: Source,
    /// Its connections.
    pub line: Arc<Line>,
    /// What of it.
    pub wanted: Wanted,
    /// The person.
    pub who: String,
    /// As long as the person may read.
    pub session: Session,
    /// Whether somebody only asks what it would be like.
    pub is_question: bool,
    /// Held as long as there is something to do.
    pub place: OwnedSemaphorePermit,
}

enum Part {
    Data(Bytes),
    End,
}

impl Download {
    /// Begins. What comes first says whether there is anything to come; the body ends the work when it is dropped.
    pub fn start(mut self) -> Result<(oneshot::Receiver<Result<Head, Sorry>>, Body), Sorry> {
        let (parts, received) = mpsc::channel(PARTS);
        let (head, told) = oneshot::channel();
        let (mut session, line) = (std::mem::take(&mut self.session), Arc::clone(&self.line));
        let is_void = Arc::new(AtomicBool::new(false));
        let void = Arc::clone(&is_void);
        // Whether or not anything is taken at that moment.
        let watch = tokio::spawn(async move {
            session.ended().await;
            void.store(true, Ordering::Relaxed);
            line.cancel("the person may not read any more");
        });
        let body = Stream { parts: received, line: Arc::clone(&self.line), watch: watch.abort_handle(), is_void, is_over: false };
        let out = Out {
            runtime: Handle::current(),
            parts,
            buffer: vec![],
            head: None,
            prepared: None,
            announced: String::new(),
            is_refused: false,
            sent: 0,
            waited: Duration::ZERO,
            began: Instant::now(),
        };
        let spawned = std::thread::Builder::new().name("download".into()).spawn(move || self.run(out, head));
        spawned.map_err(|e| Sorry::Busy(format!("no thread for a download: {e}")))?;
        Ok((told, body.boxed()))
    }

    fn run(self, mut out: Out, head: oneshot::Sender<Result<Head, Sorry>>) {
        let what = self.wanted.shown();
        let archive = unix::logging::escape(&self.source.readable.name);
        let who = unix::logging::escape(&self.who);
        if !self.is_question {
            // When there is something to come.
            out.announced = format!("{who} downloads from archive {archive}: {what}");
        }
        out.head = Some(head);
        let ended = match &self.wanted {
            Wanted::File(path) => self.file(path, &mut out),
            Wanted::Tar(path) => self.tar(path.as_deref(), &mut out),
        };
        let sent = out.sent;
        let told = if out.is_told() { log::Level::Info } else { log::Level::Debug };
        match (ended, self.line.go_on()) {
            _ if self.is_question => log::debug!("{who} has asked for archive {archive}: {what}"),
            (Ok(()), _) => log::info!("{who} has got {sent} bytes from archive {archive}: {what}"),
            // Nobody waits for the rest, or for anything.
            (Err(_), Err(why)) => log::log!(told, "{who} has got {sent} bytes from archive {archive} and no more, because {why}: {what}"),
            (Err(e), Ok(())) if told == log::Level::Debug => log::info!("{who} gets nothing from archive {archive}, {what}: {e}"),
            (Err(e), Ok(())) => log::warn!("{who} does not get all of what was to be downloaded from archive {archive}, {what}: {e}"),
        }
        self.line.cancel("the download is over");
        drop(self.place);
    }

    fn file(&self, path: &[u8], out: &mut Out) -> Result<(), Error> {
        let complain = &mut self.complaining();
        let mut selection = export::file_selection(path)?;
        let found = Feed::open(&self.source, &mut selection, true)
            .map(|feed| feed.within(LINKS_MEMORY))
            .and_then(|mut feed| export::file(&mut feed, complain).map(|found| (feed, found)));
        let (mut feed, item, length) = match found {
            Ok((feed, Ok((item, length)))) => (feed, item, length),
            Ok((_, Err(why))) => {
                out.refuse(Sorry::Nothing(why.to_owned()));
                return Err(Error::Incomplete(why.to_owned()));
            }
            Err(e) => {
                out.refuse(Sorry::of(&e));
                return Err(e);
            }
        };
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        out.begin(Head { disposition: names::attachment(&String::from_utf8_lossy(name)), length: Some(length) });
        if !export::pour(&mut feed, &item, out, complain)? && out.sent + (out.buffer.len() as u64) < length {
            return Err(Error::Incomplete("it is not whole in the repository".to_owned()));
        }
        out.end().map_err(Error::Output)
    }

    fn tar(&self, path: Option<&[u8]>, out: &mut Out) -> Result<(), Error> {
        let nothing: [&[u8]; 0] = [];
        let take: Vec<Vec<u8>> = path.iter().map(|path| [b"pp:", *path].concat()).collect();
        let mut selection = Selection::new(&take, &nothing, 0)?;
        let mut wrong: Vec<String> = vec![];
        let mut complaints = self.complaining();
        let mut complain = |path: Option<&[u8]>, what: &str| {
            complaints(path, what);
            if wrong.len() < COMPLAINTS {
                wrong.push(said(path, what));
            }
        };
        let readable = &self.source.readable;
        let last = path.and_then(|path| path.rsplit(|b| *b == b'/').next()).map(String::from_utf8_lossy);
        let name = last.map_or_else(|| readable.name.clone(), |last| format!("{}-{last}", readable.name));
        // It begins with the first item.
        out.ready(Head { disposition: names::attachment(&format!("{name}.tar")), length: None });
        let written = Feed::open(&self.source, &mut selection, true).map(|feed| feed.within(LINKS_MEMORY)).and_then(|mut feed| {
            let mut tar = Tar::new(&mut *out);
            export::entries(&mut feed, &mut tar, &mut complain).map(|written| (written, tar))
        });
        let (written, mut tar): (Written, _) = match written {
            Ok((written, _)) if written.items == 0 && path.is_some() => {
                out.refuse(Sorry::Nothing("the archive has nothing of that name".to_owned()));
                return Err(Error::Incomplete("there is nothing of that name".to_owned()));
            }
            Ok(done) => done,
            Err(e) => {
                out.refuse(Sorry::of(&e));
                return Err(e);
            }
        };
        if !wrong.is_empty() {
            note(&mut tar, &wrong).map_err(Error::Output)?;
        }
        log::debug!("{} items", written.items);
        tar.finish().map_err(Error::Output)?;
        out.end().map_err(Error::Output)
    }

    fn complaining(&self) -> impl FnMut(Option<&[u8]>, &str) + use<> {
        let archive = unix::logging::escape(&self.source.readable.name);
        let mut told = 0;
        move |path: Option<&[u8]>, what: &str| {
            told += 1;
            if told <= COMPLAINTS {
                log::warn!("archive {archive}: {}", said(path, what));
            }
        }
    }
}

fn said(path: Option<&[u8]>, what: &str) -> String {
    path.map_or_else(|| what.to_owned(), |path| format!("{}: {what}", unix::logging::escape_bytes(path)))
}

/// Whoever unpacks the archive is told what it has not: nobody reads our log then.
fn note(tar: &mut Tar<&mut Out>, wrong: &[String]) -> io::Result<()> {
    let text = format!("What is missing in this tar archive, or is not as it was:\n\n{}\n", wrong.join("\n"));
    tar.entry(&Entry {
        name: b"BORGCUBE-WHAT-IS-MISSING.txt",
        kind: Type::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: text.len() as u64,
        mtime: model::Timestamp::now().0 / 1_000_000,
        target: b"",
        user: b"",
        group: b"",
        device: (0, 0),
    })?;
    tar.write_all(text.as_bytes())?;
    tar.pad()
}

/// Where it is written to, by the thread that reads; waits for whoever takes it.
struct Out {
    runtime: Handle,
    parts: mpsc::Sender<Part>,
    buffer: Vec<u8>,
    head: Option<oneshot::Sender<Result<Head, Sorry>>>,
    /// To be told with the first part.
    prepared: Option<Head>,
    /// What the journal is told then.
    announced: String,
    is_refused: bool,
    sent: u64,
    waited: Duration,
    began: Instant,
}

impl Out {
    fn ready(&mut self, head: Head) {
        self.prepared = Some(head);
    }

    fn begin(&mut self, head: Head) {
        self.prepared = Some(head);
        self.tell();
    }

    fn tell(&mut self) {
        let (Some(head), Some(prepared)) = (self.head.take(), self.prepared.take()) else { return };
        if !self.announced.is_empty() {
            log::info!("{}", self.announced);
        }
        if head.send(Ok(prepared)).is_err() {
            log::debug!("nobody waits for it any more");
        }
    }

    /// Whether somebody was told that there is something to come.
    fn is_told(&self) -> bool {
        self.head.is_none() && self.prepared.is_none() && !self.is_refused
    }

    /// If nothing was sent yet.
    fn refuse(&mut self, why: Sorry) {
        if let Some(head) = self.head.take() {
            self.is_refused = true;
            if head.send(Err(why)).is_err() {
                log::debug!("nobody waits for it any more");
            }
        }
    }

    fn put(&mut self, part: Part) -> io::Result<()> {
        let size = if let Part::Data(bytes) = &part { bytes.len() as u64 } else { 0 };
        let began = Instant::now();
        let sending = async { tokio::time::timeout(STUCK, self.parts.send(part)).await };
        let failed = |why: &str| io::Error::new(io::ErrorKind::BrokenPipe, why.to_owned());
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(failed("the viewer is gone")),
            Err(_) => return Err(failed("the viewer takes nothing any more")),
        }
        self.sent += size;
        self.waited += began.elapsed();
        if self.waited > PATIENCE && self.sent / self.waited.as_secs().max(1) < SLOWEST {
            return Err(failed("the viewer is too slow"));
        }
        if self.began.elapsed() > LONGEST {
            return Err(failed("it takes longer than a day"));
        }
        Ok(())
    }

    /// Everything was written.
    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.tell();
        self.put(Part::End)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.tell();
        let part = std::mem::take(&mut self.buffer);
        self.put(Part::Data(part.into()))
    }
}

/// What the viewer's connection takes from.
struct Stream {
    parts: mpsc::Receiver<Part>,
    line: Arc<Line>,
    /// Ends the work when the person may not read any more.
    watch: AbortHandle,
    /// Whether that is so.
    is_void: Arc<AtomicBool>,
    is_over: bool,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.is_void.load(Ordering::Relaxed) {
            // Not even what is here already.
            self.is_over = true;
            return Poll::Ready(Some(Err(io::Error::other("the person may not read any more"))));
        }
        self.parts.poll_recv(context).map(|part| match part {
            Some(Part::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Part::End) => {
                self.is_over = true;
                None
            }
            // A browser must not take a part for the whole: the connection is broken off.
            None => Some(Err(io::Error::other("the download breaks off"))),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.watch.abort();
        self.line.cancel("the viewer is gone");
    }
}
