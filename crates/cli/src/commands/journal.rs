//! A job's lines in the journal: those of its worker, of the queue daemon, of the owner.
//!
//! Anybody on the machine may write into the journal and say `BORGCUBE_JOB=7`. What counts is therefore the unit that an entry came from,
//! which the journal notes itself.

use crate::context::{Context, write_out};
use crate::control::{Next, Replies};
use crate::error::{Error, Kind, Result};
use crate::output::shown;
use model::Timestamp;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use unix::events;
use unix::poll::{Interest, poll};
use unix::spawn::{Child, Spawn, Stdio};
use wire::control::{Call, Event, EventReply};
use wire::worker::LogLine;

/// How long the journal may take to show the last entry of a job that has ended.
const GRACE: Duration = Duration::from_secs(2);

/// How long a daemon that went away may take to come back.
const RETURN: Duration = Duration::from_secs(60);

/// Between two tries to reach it.
const PAUSE: Duration = Duration::from_millis(500);

/// Our units, as systemd names them.
const UNITS: &str = "borgcube";

/// Longest entry of journalctl that is looked at.
const LONGEST: u64 = 4 * 1024 * 1024;

/// An entry.
#[derive(Debug, PartialEq)]
struct Entry {
    line: LogLine,
    cursor: String,
    /// The job has ended with it.
    is_last: bool,
}

/// Prints what the journal has of a job and goes on until the job has ended. False: there is no journal that could be read, or it has
/// nothing of this job.
pub fn follow(job: u64, context: &Context) -> Result<bool> {
    if !context.layout.is_installed() || !Path::new(unix::logging::JOURNAL).exists() {
        return Ok(false);
    }
    // Before anything is read, or the job could end unseen in between.
    let watch = Watch::begin(|| context.control()?.replies(Call::Watch { job: Some(job) }))?;
    let mut found = None;
    let mut each = |entry: Entry| {
        let last = entry.is_last;
        print(&entry, context)?;
        found = Some((last, entry.cursor));
        Ok(!last)
    };
    // No journalctl is no journal.
    let Some((child, output)) = journalctl(job, &[]) else { return Ok(false) };
    let read = entries(BufReader::new(File::from(output)), &mut each);
    end(&child);
    read?;
    let Some((last, cursor)) = found else { return Ok(false) };
    if last {
        return Ok(true);
    }
    let Some((child, output)) = journalctl(job, &["--follow", &format!("--after-cursor={cursor}")]) else {
        return Ok(true);
    };
    let whole = go_on(File::from(output), watch, |entry| print(&entry, context));
    end(&child);
    if !whole? {
        context.note(&format!("Job {job} has ended; the journal has no entry of that. Everything it wrote: borgcube job log {job}"));
    }
    Ok(true)
}

fn journalctl(job: u64, options: &[&str]) -> Option<(Child, OwnedFd)> {
    let spawned = Spawn::new("journalctl")
        .args(["--output=json", "--all", "--quiet", "--no-pager", "--lines=all"])
        .args(options)
        .arg(format!("BORGCUBE_JOB={job}"))
        .keep_env(unix::paths::ENV_KEPT)
        .same_group()
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Null)
        .spawn();
    let mut child = spawned.ok()?;
    let output = child.stdout.take()?;
    Some((child, OwnedFd::from(output)))
}

/// What the queue daemon says of the job meanwhile: entries of the journal may be lost, by its limits for one.
struct Watch<C> {
    connect: C,
    replies: Option<Replies<EventReply>>,
    /// Since when the daemon is away.
    gone: Option<Instant>,
    /// When the job's last entry must be there, now that it has ended.
    until: Option<Instant>,
}

impl<C: Fn() -> Result<Replies<EventReply>>> Watch<C> {
    /// A daemon that does not run may be about to come back.
    fn begin(connect: C) -> Result<Watch<C>> {
        let mut watch = Watch { connect, replies: None, gone: None, until: None };
        watch.again()?;
        Ok(watch)
    }

    fn again(&mut self) -> Result<()> {
        match (self.connect)() {
            Ok(replies) => {
                self.replies = Some(replies);
                Ok(())
            }
            Err(error) => self.away(error),
        }
    }

    fn away(&mut self, error: Error) -> Result<()> {
        self.replies = None;
        let gone = *self.gone.get_or_insert_with(Instant::now);
        if error.kind() == Kind::Unreachable && gone.elapsed() < RETURN { Ok(()) } else { Err(error) }
    }

    /// Waits for the journal. False: nothing more of the job comes.
    fn wait(&mut self, journal: BorrowedFd<'_>) -> Result<bool> {
        loop {
            if let Some(until) = self.until {
                let ready = poll(&[(journal, Interest::Read)], Some(until.saturating_duration_since(Instant::now())))?;
                return Ok(ready[0].any());
            }
            let Some(replies) = &mut self.replies else {
                if poll(&[(journal, Interest::Read)], Some(PAUSE))?[0].any() {
                    return Ok(true);
                }
                self.again()?;
                continue;
            };
            match replies.next(Some(journal), None) {
                Ok(Next::Woken) => return Ok(true),
                Ok(Next::Item(EventReply { event: Event::Job(job) })) => {
                    self.gone = None;
                    self.until = job.state.is_final().then(|| Instant::now() + GRACE);
                }
                Ok(Next::Item(_) | Next::TimeOver) => {}
                Ok(Next::End) => self.until = Some(Instant::now() + GRACE),
                Err(error) => self.away(error)?,
            }
        }
    }
}

/// Hands over what is added to the journal until the job has ended. False: without its last entry.
fn go_on(
    mut output: File,
    mut watch: Watch<impl Fn() -> Result<Replies<EventReply>>>,
    mut each: impl FnMut(Entry) -> Result<()>,
) -> Result<bool> {
    let mut buffer = vec![];
    let mut piece = vec![0; 64 * 1024];
    while watch.wait(output.as_fd())? {
        let read = output.read(&mut piece).map_err(unreadable)?;
        if read == 0 {
            return Ok(false);
        }
        buffer.extend_from_slice(&piece[..read]);
        let mut from = 0;
        while let Some(length) = buffer[from..].iter().position(|byte| *byte == b'\n') {
            if let Some(entry) = decode(&buffer[from..from + length]) {
                let last = entry.is_last;
                each(entry)?;
                if last {
                    return Ok(true);
                }
            }
            from += length + 1;
        }
        buffer.drain(..from);
        if buffer.len() as u64 > LONGEST {
            // Its rest is no entry either.
            buffer.clear();
        }
    }
    Ok(false)
}

fn unreadable(error: std::io::Error) -> Error {
    Error::failed(format!("the journal cannot be read: {error}"))
}

/// Hands over our entries until `each` has enough.
fn entries(mut input: impl BufRead, mut each: impl FnMut(Entry) -> Result<bool>) -> Result<()> {
    loop {
        let mut line = vec![];
        if input.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(());
        }
        if let Some(entry) = decode(&line)
            && !each(entry)?
        {
            return Ok(());
        }
    }
}

fn decode(line: &[u8]) -> Option<Entry> {
    serde_json::from_slice(line).ok().and_then(|value| parse(&value))
}

/// It follows the journal for ever, or has ended by itself.
fn end(child: &Child) {
    if let Err(e) = child.pidfd.signal(unix::Signal::SIGTERM).and_then(|_| child.wait()) {
        log::debug!("journalctl: {e}");
    }
}

/// One of ours. journalctl gives bytes that are no plain text as an array of numbers.
fn parse(value: &Value) -> Option<Entry> {
    let text = |name: &str| match &value[name] {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> = bytes.iter().map(|b| u8::try_from(b.as_u64()?).ok()).collect();
            Some(unix::logging::escape_bytes(&bytes?))
        }
        _ => None,
    };
    if !text("_SYSTEMD_UNIT")?.starts_with(UNITS) {
        return None;
    }
    let micros: i64 = text("__REALTIME_TIMESTAMP")?.parse().ok()?;
    let level = match text("PRIORITY").as_deref() {
        Some("0" | "1" | "2" | "3") => "error",
        Some("4") => "warning",
        Some("7") => "debug",
        _ => "info",
    };
    let id = text("MESSAGE_ID");
    let is_last = ["job-done", "job-failed", "job-cancelled"].iter().any(|word| id.is_some() && id.as_deref() == events::id(word));
    let line = LogLine {
        time: Timestamp(micros),
        level: level.into(),
        source: text("SYSLOG_IDENTIFIER").unwrap_or_default(),
        message: text("MESSAGE").unwrap_or_default(),
    };
    Some(Entry { line, cursor: text("__CURSOR").unwrap_or_default(), is_last })
}

fn print(entry: &Entry, context: &Context) -> Result<()> {
    let line = &entry.line;
    if context.json {
        let text = serde_json::to_string(line).map_err(|e| Error::failed(format!("cannot print JSON: {e}")))?;
        return write_out(&(text + "\n"));
    }
    let level = if line.level == "info" { String::new() } else { format!("{}: ", line.level) };
    write_out(&format!("{} {}: {level}{}\n", line.time.to_local(), shown(&line.source), shown(&line.message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;
    use model::JobState;
    use serde_json::json;

    fn entry(unit: &str, message: Value, id: Option<&str>) -> Value {
        json!({
            "_SYSTEMD_UNIT": unit, "__REALTIME_TIMESTAMP": "1700000000123456", "__CURSOR": "s=1", "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "borgcube-worker", "MESSAGE": message, "MESSAGE_ID": id,
        })
    }

    #[test]
    fn a75_what_the_journal_shows_moves_no_cursor() {
        let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}\r";
        let plain = parse(&entry("borgcubed.service", json!(hostile), None)).unwrap();
        let bytes = parse(&entry("borgcubed.service", json!(hostile.as_bytes()), None)).unwrap();
        for entry in [plain, bytes] {
            assert!(!shown(&entry.line.message).chars().any(char::is_control), "{entry:?}");
            assert_eq!((entry.line.level.as_str(), entry.line.time), ("warning", Timestamp(1_700_000_000_123_456)));
        }
    }

    #[test]
    fn a74_only_our_units_speak_of_a_job() {
        let done = events::id("job-done");
        for unit in ["user@1000.service", "ssh.service", "", "session-3.scope"] {
            assert_eq!(parse(&entry(unit, json!("forged"), done)), None, "{unit}");
        }
        let mut nobody = entry("x", json!("forged"), done);
        nobody.as_object_mut().unwrap().remove("_SYSTEMD_UNIT");
        assert_eq!(parse(&nobody), None);
        assert!(parse(&entry("borgcubed.service", json!("done"), done)).unwrap().is_last);
        assert!(!parse(&entry("borgcubed.service", json!("x"), events::id("job-line"))).unwrap().is_last);
    }

    /// A daemon that says these states of job 7 and then nothing more, and a connection to it.
    fn daemon(directory: &Path, states: &'static [JobState]) -> std::path::PathBuf {
        let socket = directory.join("control.sock");
        let listener = unix::socket::listen(&socket, 0o600).unwrap();
        std::thread::spawn(move || {
            let mut open = vec![];
            while let Ok((mut stream, _)) = listener.accept() {
                for state in states {
                    let mut job = model::Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
                    job.state = *state;
                    let event = wire::control::Reply::continued(&EventReply { event: Event::Job(Box::new(job)) });
                    std::io::Write::write_all(&mut stream, &wire::json::encode(&event).unwrap()).unwrap();
                }
                open.push(stream);
            }
        });
        socket
    }

    fn watch(socket: &Path) -> Watch<impl Fn() -> Result<Replies<EventReply>> + '_> {
        Watch::begin(|| Control::connect(socket)?.replies(Call::Watch { job: Some(7) })).unwrap()
    }

    #[test]
    fn a_job_whose_last_entry_is_lost_ends_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let socket = daemon(directory.path(), &[JobState::ClientInProgress, JobState::Failed]);
        let line = entry("borgcubed.service", json!("one"), None).to_string();
        // Its other end stays open, as that of a journalctl that follows.
        let (output, mut input) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut input, format!("{line}\nno json\n").as_bytes()).unwrap();
        let mut seen = 0;
        let whole = go_on(File::from(OwnedFd::from(output)), watch(&socket), |_| {
            seen += 1;
            Ok(())
        });
        assert_eq!((whole.unwrap(), seen), (false, 1));
        drop(input);
    }

    #[test]
    fn the_last_entry_ends_it_whatever_the_daemon_says() {
        let directory = tempfile::tempdir().unwrap();
        let socket = daemon(directory.path(), &[JobState::ClientInProgress]);
        let (output, mut input) = std::io::pipe().unwrap();
        let lines = [entry("borgcubed.service", json!("one"), None), entry("borgcubed.service", json!("two"), events::id("job-done"))];
        let text = lines.map(|line| format!("{line}\n")).concat();
        // In pieces, as they may come.
        let writing = std::thread::spawn(move || {
            for piece in text.as_bytes().chunks(100) {
                std::io::Write::write_all(&mut input, piece).unwrap();
            }
            input
        });
        let mut seen = vec![];
        let whole = go_on(File::from(OwnedFd::from(output)), watch(&socket), |entry| {
            seen.push(entry.line.message);
            Ok(())
        });
        assert!(whole.unwrap());
        assert_eq!(seen, ["one", "two"]);
        drop(writing.join().unwrap());
    }

    #[test]
    fn entries_end_with_the_job() {
        let ours = |message: &str, id| entry("borgcube-repositoryd@main.service", json!(message), id).to_string();
        let text = [ours("one", None), "no json".into(), ours("two", events::id("job-failed")), ours("three", None)].join("\n");
        let mut seen = vec![];
        entries(text.as_bytes(), |entry| {
            seen.push(entry.line.message.clone());
            Ok(!entry.is_last)
        })
        .unwrap();
        assert_eq!(seen, ["one", "two"]);
    }
}
