//! Log lines to the journal with fields, to syslog, or on standard error.
//!
//! Log calls say what a message is about by key-value pairs, `log::info!(event = "job-done", job = 7, client = name; "...")`. Six
//! keys become fields of the journal: `job`, `client`, `repository`, `cause`, `schedule`, and `event`, whose `MESSAGE_ID` is in [`crate::events`].
//! The message itself is a whole sentence without them; other keys are appended to it.

use crate::events;
use crate::journal::{self, Entry, Journal};
use crate::paths::{ENV_JOURNAL, ENV_LOG, ENV_NOTIFY, ENV_STATE};
use log::kv::{self, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::env;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use syslog::{Facility, Formatter3164, LoggerBackend};

/// Where the journal listens, if there is one.
pub const JOURNAL: &str = journal::SOCKET;
/// Where syslog listens.
const SYSLOG: &str = "/dev/log";

/// The keys that are fields, and the fields.
const FIELDS: [(&str, &str); 5] = [
    ("job", "BORGCUBE_JOB"),
    ("client", "BORGCUBE_CLIENT"),
    ("repository", "BORGCUBE_REPOSITORY"),
    ("cause", "BORGCUBE_CAUSE"),
    ("schedule", "BORGCUBE_SCHEDULE"),
];

/// The key of an event's word.
const EVENT: &str = "event";

static FIELDED: AtomicBool = AtomicBool::new(false);

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `<4>message`: the priority as the journal reads it, which adds time and program itself.
    Journal,
    /// `program: warning: message`.
    Plain,
}

/// Who listens.
enum Listener {
    Journal(Journal),
    Syslog(Mutex<syslog::Logger<LoggerBackend, Formatter3164>>),
    Stderr,
}

struct Logger {
    program: &'static str,
    listener: Listener,
    /// Of lines on standard error, also when the listener has gone.
    style: Style,
    level: LevelFilter,
}

/// Sends everything that is logged to the journal if standard error is its stream, with fields; to syslog if this is an installed
/// server without a journal and nobody looks at standard error; otherwise to standard error. Each message is one line, control
/// characters escaped. The level is `BORGCUBE_LOG` (off, error, warn, info, debug, trace), by default info.
///
/// A second call changes nothing.
pub fn init(program: &'static str) {
    let wanted = env::var(ENV_LOG).ok().filter(|value| !value.is_empty());
    let parsed = wanted.as_deref().map(str::parse::<LevelFilter>);
    let level = match parsed {
        Some(Ok(level)) => level,
        _ => LevelFilter::Info,
    };
    let style = style(journal_is_stderr(), stderr().is_terminal(), env::var_os(ENV_NOTIFY).is_some());
    let listener = listener(program);
    let fielded = matches!(listener, Listener::Journal(_));
    if log::set_boxed_logger(Box::new(Logger { program, listener, style, level })).is_err() {
        return;
    }
    FIELDED.store(fielded, Ordering::Relaxed);
    log::set_max_level(level);
    if let Some(Err(_)) = parsed {
        log::warn!("{ENV_LOG} is \"{}\", which is not a log level; using info", wanted.unwrap_or_default());
    }
}

/// Whether log calls reach the journal with their fields. What would only fill standard error may be logged then.
pub fn has_fields() -> bool {
    FIELDED.load(Ordering::Relaxed)
}

fn listener(program: &'static str) -> Listener {
    if journal_is_stderr() {
        return Journal::connect(Path::new(journal::SOCKET)).map_or(Listener::Stderr, Listener::Journal);
    }
    let is_read = stderr().is_terminal() || is_file(stderr()) || env::var_os(ENV_NOTIFY).is_some();
    let is_there = std::fs::metadata(SYSLOG).is_ok_and(|meta| meta.file_type().is_socket());
    if wants_syslog(env::var_os(ENV_STATE).is_none(), is_read, is_there)
        && let Ok(logger) = syslog::unix_custom(formatter(program), SYSLOG)
    {
        return Listener::Syslog(Mutex::new(logger));
    }
    Listener::Stderr
}

/// Not where somebody has chosen another place: a terminal, a file, a service manager's own.
fn wants_syslog(installed: bool, is_read: bool, is_there: bool) -> bool {
    installed && !is_read && is_there
}

fn is_file(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile)
}

fn formatter(program: &'static str) -> Formatter3164 {
    Formatter3164 { facility: Facility::LOG_DAEMON, hostname: None, process: program.into(), pid: std::process::id() }
}

fn style(journal: bool, terminal: bool, service: bool) -> Style {
    if journal || (service && !terminal) { Style::Journal } else { Style::Plain }
}

/// Whether standard error is the stream the journal gave to this service. The variable alone does not tell: it is
/// inherited by programs whose standard error went elsewhere.
fn journal_is_stderr() -> bool {
    let Some(value) = env::var(ENV_JOURNAL).ok() else {
        return false;
    };
    let Some((device, inode)) = value.split_once(':') else {
        return false;
    };
    match (device.parse(), inode.parse(), crate::raw::identity(2)) {
        (Ok(device), Ok(inode), Some(actual)) => actual == (device, inode),
        _ => false,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let taken = match &self.listener {
            Listener::Journal(journal) => journal.send(&entry(self.program, record)).is_ok(),
            Listener::Syslog(logger) => to_syslog(logger, record),
            Listener::Stderr => false,
        };
        if !taken {
            // One write, so that lines of several threads and processes do not mix. If standard error is gone there is
            // nowhere left to say so.
            let _ = stderr().write_all(line(self.program, self.style, record).as_bytes());
        }
    }

    fn flush(&self) {}
}

fn to_syslog(logger: &Mutex<syslog::Logger<LoggerBackend, Formatter3164>>, record: &Record<'_>) -> bool {
    let text = Parts::of(record).text;
    let mut logger = logger.lock().unwrap_or_else(PoisonError::into_inner);
    let sent = match record.level() {
        Level::Error => logger.err(text),
        Level::Warn => logger.warning(text),
        Level::Info => logger.info(text),
        Level::Debug | Level::Trace => logger.debug(text),
    };
    sent.is_ok()
}

/// What the journal gets.
fn entry(program: &str, record: &Record<'_>) -> Entry {
    let parts = Parts::of(record);
    let mut entry = Entry::default();
    entry.field("MESSAGE", &parts.text);
    entry.field("PRIORITY", &priority(record.level()).to_string());
    entry.field("SYSLOG_IDENTIFIER", program);
    if let Some(id) = parts.event.as_deref().and_then(events::id) {
        entry.field("MESSAGE_ID", id);
    }
    for (name, value) in &parts.fields {
        entry.field(name, value);
    }
    entry
}

fn line(program: &str, style: Style, record: &Record<'_>) -> String {
    let mut line = match (style, record.level()) {
        (Style::Journal, level) => format!("<{}>", priority(level)),
        (Style::Plain, Level::Warn) => format!("{program}: warning: "),
        (Style::Plain, level) => format!("{program}: {}: ", level.as_str().to_ascii_lowercase()),
    };
    line.push_str(&Parts::of(record).text);
    line.push('\n');
    line
}

/// syslog's numbers.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A record taken apart; everything is fit to be printed.
#[derive(Default)]
struct Parts {
    text: String,
    fields: Vec<(&'static str, String)>,
    event: Option<String>,
}

impl Parts {
    fn of(record: &Record<'_>) -> Parts {
        let mut parts = Parts::default();
        // Backslashes stay: text of clients in a message went through `escape` already.
        push_visible(&mut parts.text, &record.args().to_string());
        if record.key_values().visit(&mut parts).is_err() {
            parts.text.push_str(" (fields lost)");
        }
        parts
    }
}

impl<'kvs> VisitSource<'kvs> for Parts {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let value = value.to_string();
        if key.as_str() == EVENT {
            self.event = Some(value);
            return Ok(());
        }
        if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == key.as_str()) {
            let mut visible = String::new();
            push_visible(&mut visible, &value);
            self.fields.push((field, visible));
            return Ok(());
        }
        self.text.push(' ');
        push_visible(&mut self.text, key.as_str());
        self.text.push('=');
        if value.is_empty() || value.contains([' ', '"', '=']) {
            self.text.push('"');
            push_visible(&mut self.text, &value.replace('\\', "\\\\").replace('"', "\\\""));
            self.text.push('"');
        } else {
            push_visible(&mut self.text, &value);
        }
        Ok(())
    }
}

/// Text that came from somebody we do not trust, fit to be printed: what would move a cursor, begin a line, recolour a
/// terminal or turn the reading direction becomes `\n`, `\u{1b}` and so on, and a backslash becomes two, so that
/// nobody can forge an escape.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, part) in text.split('\\').enumerate() {
        if at > 0 {
            out.push_str("\\\\");
        }
        push_visible(&mut out, part);
    }
    out
}

/// Text that was escaped already, as somebody says who need not be believed: what nobody may print is escaped now, backslashes stay, and what is
/// longer than `most` characters is cut, with a mark.
pub fn bounded(text: &str, most: usize) -> String {
    let mut out = String::new();
    // What is escaped grows: whoever says something endless costs no more than something long.
    push_visible(&mut out, text.char_indices().nth(most).map_or(text, |(at, _)| &text[..at]));
    match out.char_indices().nth(most) {
        Some((at, _)) => out.truncate(at),
        None if text.chars().nth(most).is_none() => return out,
        None => {}
    }
    out.push('…');
    out
}

/// Like [`escape`] for bytes that ought to be UTF-8 but need not be: what is not becomes `\xNN`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            push(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

fn push_visible(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_dangerous(c) => push(out, format_args!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// Control characters, line separators, and what is invisible or changes the direction of the text around it.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(style: Style, level: Level, message: &str, fields: &[(&str, &str)]) -> String {
        line("prog", style, &Record::builder().level(level).args(format_args!("{message}")).key_values(&fields).build())
    }

    #[test]
    fn what_was_escaped_is_cut_and_not_escaped_twice() {
        assert_eq!(bounded("a\\\\b \\n", 20), "a\\\\b \\n");
        assert_eq!(bounded("a\nb\u{1b}", 20), "a\\nb\\u{1b}");
        assert_eq!(bounded("äöü", 3), "äöü");
        assert_eq!(bounded("äöüß", 3), "äöü…");
        assert_eq!(bounded(&"\u{1b}".repeat(1000), 10), "\\u{1b}\\u{1…");
    }

    #[test]
    fn each_listener_gets_its_form() {
        assert_eq!(printed(Style::Plain, Level::Warn, "low", &[]), "prog: warning: low\n");
        assert_eq!(printed(Style::Plain, Level::Error, "no", &[]), "prog: error: no\n");
        let numbers = [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6), (Level::Debug, 7), (Level::Trace, 7)];
        for (level, number) in numbers {
            assert_eq!(printed(Style::Journal, level, "m", &[]), format!("<{number}>m\n"));
        }
        assert_eq!(style(true, true, false), Style::Journal);
        assert_eq!(style(false, false, true), Style::Journal);
        assert_eq!(style(false, true, true), Style::Plain);
        assert_eq!(style(false, false, false), Style::Plain);
    }

    #[test]
    fn fields_follow_and_cannot_be_forged() {
        assert_eq!(
            printed(Style::Plain, Level::Info, "done", &[("job", "7"), ("n", "7"), ("name", "a b"), ("empty", "")]),
            "prog: info: done n=7 name=\"a b\" empty=\"\"\n"
        );
        assert_eq!(printed(Style::Plain, Level::Info, "m", &[("f", "x\" g=y\n")]), "prog: info: m f=\"x\\\" g=y\\n\"\n");
    }

    #[test]
    fn a74_the_journal_gets_fields_that_nobody_forges() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let logger = Logger {
            program: "borgcubed",
            listener: Listener::Journal(Journal::connect(&path).unwrap()),
            style: Style::Plain,
            level: LevelFilter::Info,
        };
        let hostile = "x\nMESSAGE_ID=00000000000000000000000000000000\nBORGCUBE_JOB=1\nPRIORITY=0";
        let pairs = [("job", "7"), ("client", hostile), ("event", "job-failed"), ("BORGCUBE_JOB", "1"), ("size", "3")];
        logger.log(&Record::builder().level(Level::Warn).args(format_args!("{hostile}")).key_values(&pairs.as_slice()).build());
        let mut buffer = vec![0; 1 << 16];
        let size = journald.recv(&mut buffer).unwrap();
        let fields = crate::journal::tests::parse(&buffer[..size]);
        let of = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(of("BORGCUBE_JOB"), ["7"]);
        assert_eq!(of("PRIORITY"), ["4"]);
        assert_eq!(of("SYSLOG_IDENTIFIER"), ["borgcubed"]);
        assert_eq!(of("MESSAGE_ID"), [events::id("job-failed").unwrap()]);
        assert_eq!(of("BORGCUBE_CLIENT"), [hostile.replace('\n', "\\n")]);
        assert!(of("MESSAGE")[0].ends_with(" BORGCUBE_JOB=1 size=3"), "{:?}", of("MESSAGE"));
        assert_eq!(fields.len(), 6);
    }

    #[test]
    fn syslog_where_there_is_no_journal_and_nobody_looks() {
        assert!(wants_syslog(true, false, true));
        assert!(!wants_syslog(false, false, true) && !wants_syslog(true, true, true) && !wants_syslog(true, false, false));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let syslogd = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let logger = Mutex::new(syslog::unix_custom(formatter("borgcubed"), &path).unwrap());
        let record = |level| to_syslog(&logger, &Record::builder().level(level).args(format_args!("a\nb")).build());
        // Facility daemon (3) times 8, and the level.
        for (level, number) in [(Level::Error, 27), (Level::Warn, 28), (Level::Info, 30), (Level::Debug, 31)] {
            assert!(record(level));
            let mut buffer = [0; 1000];
            let size = syslogd.recv(&mut buffer).unwrap();
            let line = String::from_utf8_lossy(&buffer[..size]).into_owned();
            assert!(line.starts_with(&format!("<{number}>")) && line.contains("borgcubed[") && line.contains("a\\nb"), "{line:?}");
        }
    }

    #[test]
    fn one_message_is_one_line_without_control_characters() {
        let hostile = "a\n<0>forged\r\x1b[2J\u{9b}31m\u{202e}\u{2028}\0\x7f";
        for style in [Style::Plain, Style::Journal] {
            let line = printed(style, Level::Info, hostile, &[(hostile, hostile)]);
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.chars().any(is_dangerous), "{body:?}");
            assert!(body.contains("a\\n<0>forged\\r\\u{1b}[2J"), "{body}");
        }
        // What is escaped already does not become unreadable.
        assert_eq!(printed(Style::Journal, Level::Info, &escape("a\nb"), &[]), "<6>a\\nb\n");
    }

    #[test]
    fn different_texts_never_look_the_same() {
        assert_eq!(escape("plain, grüße 漢字"), "plain, grüße 漢字");
        assert_eq!(escape("\n"), "\\n");
        assert_eq!(escape("\\n"), "\\\\n");
        assert_eq!(escape("\\"), "\\\\");
        assert_eq!(escape_bytes(b"ok\xff\n\\xff"), "ok\\xff\\n\\\\xff");
        assert_eq!(escape_bytes("ü\u{1b}".as_bytes()), "ü\\u{1b}");
        assert_eq!(escape_bytes(b""), "");
    }
}
