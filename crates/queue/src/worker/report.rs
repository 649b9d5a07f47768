//! Collects what a client writes: steps of the script, borg's messages, ssh's text.
//!
//! The client is not trusted. Lines are bounded, escaped and counted; what they say shapes progress and wording, never whether there is an archive.

use super::binary::Wanted;
use super::commands::Results;
use model::borg_report::{self, Complaint, Line, MAX_LINE};
use model::progress::{Progress, Statistics, Steps};
use model::{Cause, Failure, Job, Timestamp};
use std::collections::VecDeque;
use unix::logging::escape;
use wire::worker::LogLine;

/// Missing paths that are named, at most.
const MISSING: usize = 1000;

/// Bytes of text that is not borg's and may explain a failing ssh.
const TEXT_KEPT: usize = 8 * 1024;

/// Bytes of log lines that are passed on at once; far below what `borgcubed` accepts in one message.
const HEAVY: usize = 128 * 1024;

/// Seconds over which the rate is averaged.
const RATE_WINDOW: f64 = 10.0;

/// A step that the script reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It wants a Borg binary of this server.
    Binary(Wanted),
    /// It may put its chunks cache into place; the mark of the one that it has, if it has one as it was left.
    Cache(String),
    /// Cache and settings are in place.
    Prepared,
    /// borg starts.
    Started,
    /// borg ended with this code.
    Exit(i32),
    /// Temporary files are gone.
    Clean,
    /// The script gave up.
    Failed(Failure),
    /// A hook or dump began, said something or ended.
    Command,
}

/// What is known of the client so far.
#[derive(Debug, Default)]
pub struct Report {
    /// The client's borg.
    pub version: Option<String>,
    /// Paths of the config that do not exist.
    pub missing: Vec<String>,
    /// borg has begun.
    started: bool,
    /// borg's exit code.
    pub exit: Option<i32>,
    /// Where a restore writes, as the client calls it.
    pub target: Option<String>,
    /// What a restore's warnings come down to.
    pub troubles: Troubles,
    /// What became of hooks and dumps.
    pub commands: Results,
    /// Why the script gave up.
    pub script_failure: Option<Failure>,
    /// First warnings.
    pub warnings: Vec<String>,
    /// How many there were.
    pub warning_count: u64,
    /// Message id and text of borg's last error.
    pub error: Option<(String, String)>,
    /// What was said where borg was not yet at its own messages.
    pub complaint: Complaint,
    /// Newest progress, not yet passed on.
    pub progress: Option<Progress>,
    text: String,
    samples: VecDeque<(Timestamp, u64)>,
    lines: Vec<LogLine>,
    line_bytes: usize,
    expected: Option<Statistics>,
    /// Bytes that the client's lines may fill, and those that they have.
    log_bytes: Option<u64>,
    logged: u64,
}

/// What borg could not restore: the first message of a kind, and how many there were.
#[derive(Debug, Default)]
pub struct Troubles {
    /// For want of room.
    pub no_room: Option<(String, u64)>,
    /// For want of rights.
    pub denied: Option<(String, u64)>,
    /// Paths that are not in the archive.
    pub unmatched: u64,
}

/// About what a line costs in a log besides its message.
const LINE_COST: u64 = 100;

impl Report {
    /// A report of a job whose config's last archive held `expected`, and whose client may fill `log_bytes` of the log.
    pub fn new(expected: Option<Statistics>, log_bytes: u64) -> Report {
        Report { expected, log_bytes: Some(log_bytes), ..Report::default() }
    }

    /// The client begins anew: what its last script and borg ended with counts no more.
    pub fn again(&mut self) {
        (self.exit, self.error, self.script_failure) = (None, None, None);
        self.started = false;
        self.troubles = Troubles::default();
        self.complaint = Complaint::default();
    }

    /// A line of the script's standard output.
    pub fn step(&mut self, line: &[u8], now: Timestamp) -> Option<Step> {
        let line = String::from_utf8_lossy(line);
        let Some(rest) = line.strip_prefix("borgcube ") else {
            self.log(now, "info", "client", &line);
            return None;
        };
        let (word, rest) = rest.trim_end().split_once(' ').unwrap_or((rest.trim_end(), ""));
        match word {
            "version" => {
                self.version = Some(bounded(rest, 100));
                None
            }
            "missing" => {
                // A config has no more paths, and the script says each once.
                if self.missing.len() < MISSING {
                    self.missing.push(bounded(rest, 500));
                }
                None
            }
            "binary" => Some(Step::Binary(Wanted::parse(&bounded(rest, 500)))),
            "cache" => Some(Step::Cache(bounded(rest, 100))),
            "target" => {
                self.target = Some(bounded(rest, 1000));
                None
            }
            "prepared" => Some(Step::Prepared),
            // Once each: what we note of it, no limit holds back.
            "started" => (!std::mem::replace(&mut self.started, true)).then_some(Step::Started),
            "exit" => {
                let code = rest.parse().unwrap_or(-1);
                self.exit.replace(code).is_none().then_some(Step::Exit(code))
            }
            "clean" => Some(Step::Clean),
            "failed" => {
                let (word, message) = rest.split_once(' ').unwrap_or((rest, ""));
                let message = bounded(message, 800);
                let failure = self.commands.failure(word, &message).unwrap_or_else(|| script_failure(word, &message));
                self.script_failure = Some(failure.clone());
                Some(Step::Failed(failure))
            }
            _ => {
                let (level, source, line) = self.commands.line(word, rest)?;
                match level {
                    // Ours, and bounded by what the config has.
                    "warning" => self.warn(bounded(&line, 500), now),
                    level => self.log(now, level, &source, &line),
                }
                Some(Step::Command)
            }
        }
    }

    /// A line of borg's or ssh's standard error.
    pub fn line(&mut self, line: &[u8], now: Timestamp) {
        if line.len() > MAX_LINE {
            self.log(now, "warning", "client", "a line of more than 64 KiB from the client was dropped");
            return;
        }
        match borg_report::parse_line(line) {
            Line::Progress { nfiles, original_size, compressed_size, deduplicated_size, path } => {
                let statistics = Statistics { nfiles, original_size, compressed_size, deduplicated_size };
                let rate = self.rate(now, original_size);
                self.progress =
                    Some(Progress { statistics, path: bounded(&path, 1000), rate, expected: self.expected, steps: None, time: now });
            }
            Line::Extracting { current, total, path } => {
                let statistics = Statistics { original_size: current, ..Statistics::default() };
                // What borg has added up is what was asked for; the archive as a whole may have more.
                let expected = Some(Statistics { original_size: total, ..self.expected.unwrap_or_default() });
                let rate = self.rate(now, current);
                self.progress = Some(Progress { statistics, path: bounded(&path, 1000), rate, expected, steps: None, time: now });
            }
            Line::Message { level, message, msgid } => self.message(&level, &message, &msgid, now),
            Line::FileStatus { status, path } => self.log(now, "file", "borg", &format!("{status} {path}")),
            Line::Text(text) => {
                if self.text.len() < TEXT_KEPT {
                    self.text.push_str(&bounded(&text, 2000));
                    self.text.push('\n');
                }
                self.complaint.line(&bounded(&text, 800));
                self.log(now, "info", "client", &text);
            }
            Line::Nothing => {}
        }
    }

    fn message(&mut self, level: &str, message: &str, msgid: &str, now: Timestamp) {
        let level = match level {
            "WARNING" => "warning",
            "ERROR" | "CRITICAL" => "error",
            "DEBUG" => "debug",
            _ => "info",
        };
        self.log(now, level, "borg", message);
        match level {
            "warning" => {
                self.warning_count += 1;
                self.troubles.warning(&bounded(message, 500));
                if self.warnings.len() < Job::MAX_WARNINGS {
                    self.warnings.push(bounded(message, 500));
                }
            }
            "error" => self.error = Some((bounded(msgid, 100), bounded(headline(message), 800))),
            _ => {}
        }
    }

    /// A warning of ours.
    pub fn warn(&mut self, message: String, now: Timestamp) {
        self.log(now, "warning", "borgcube", &message);
        self.warning_count += 1;
        self.warnings.insert(0, message);
        self.warnings.truncate(Job::MAX_WARNINGS);
    }

    /// How far the owner is.
    pub fn steps(&mut self, steps: Steps, now: Timestamp) {
        self.progress = Some(Progress { steps: Some(steps), time: now, ..Progress::default() });
    }

    /// Adds a line to the job's log.
    pub fn log(&mut self, time: Timestamp, level: &str, source: &str, message: &str) {
        // Ours always get through. Dropped here, so that a flood is this worker's work and not that of the daemon all jobs share.
        if let Some(most) = self.log_bytes.filter(|_| source != "borgcube") {
            if self.logged > most {
                return;
            }
            self.logged += LINE_COST + message.len().min(4000) as u64;
            if self.logged > most {
                return self.log(
                    time,
                    "warning",
                    "borgcube",
                    &format!("the log has reached its limit of {most} bytes: what follows of the client's is dropped"),
                );
            }
        }
        let message = bounded(message.trim_end(), 4000);
        self.line_bytes += message.len();
        self.lines.push(LogLine { time, level: level.into(), source: source.into(), message });
    }

    /// Lines that were not yet passed on.
    pub fn take_lines(&mut self) -> Vec<LogLine> {
        self.line_bytes = 0;
        std::mem::take(&mut self.lines)
    }

    /// Whether enough has come together to be passed on before its time.
    pub fn is_heavy(&self) -> bool {
        self.lines.len() >= 200 || self.line_bytes >= HEAVY
    }

    /// What ssh wrote, as far as it is not borg's.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn rate(&mut self, now: Timestamp, size: u64) -> u64 {
        self.samples.push_back((now, size));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(t, _)| now.seconds_since(*t) > RATE_WINDOW) {
            self.samples.pop_front();
        }
        let Some((then, before)) = self.samples.front() else { return 0 };
        let seconds = now.seconds_since(*then);
        if seconds < 0.1 { 0 } else { (size.saturating_sub(*before) as f64 / seconds) as u64 }
    }
}

/// Escaped, and short also after that.
fn bounded(text: &str, limit: usize) -> String {
    let cut: String = text.chars().take(limit).collect();
    let mut escaped = escape(&cut).to_string();
    if escaped.len() > limit {
        let end = (0..=limit).rev().find(|at| escaped.is_char_boundary(*at)).unwrap_or(0);
        escaped.truncate(end);
        escaped.push('…');
    }
    escaped
}

fn script_failure(word: &str, message: &str) -> Failure {
    let full = message.contains("No space left on device") || message.contains("Disk quota exceeded");
    match word {
        "client-cache" if full => Failure::new(Cause::ClientEnospc, format!("the client's cache could not be written: {message}")),
        "client-cache" => Failure::new(Cause::ClientCache, format!("the client's cache can't be used: {message}")),
        "client-borg-missing" => Failure::new(Cause::ClientBorgMissing, message.to_owned()),
        "client-borg-binary" => Failure::new(Cause::ClientBorgBinary, message.to_owned()),
        "client-borg-outdated" => Failure::new(
            Cause::ClientBorgOutdated { version: message.to_owned() },
            format!("the client has {message}; BorgCube needs 1.1.10 or newer, below 2"),
        ),
        "path-missing" => Failure::new(Cause::PathMissing, message.to_owned()),
        "target-not-empty" => Failure::new(Cause::TargetNotEmpty, message.to_owned()),
        "client-enospc" => Failure::new(Cause::ClientEnospc, message.to_owned()),
        "client-permission" if full => Failure::new(Cause::ClientEnospc, message.to_owned()),
        "client-permission" => Failure::new(Cause::ClientPermission, format!("the client's user cannot write there: {message}")),
        _ => Failure::new(Cause::Internal, format!("the client's script failed: {word} {message}")),
    }
}

/// What to tell of a message that may have many lines. A traceback of Python says last what it is about, and Borg describes the host behind it.
fn headline(message: &str) -> &str {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or("");
    if !first.starts_with("Traceback (") {
        return first;
    }
    lines.find(|line| !line.is_empty() && !line.starts_with(' ')).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        let mut report = Report::default();
        assert_eq!(report.step(b"borgcube target /root/borgcube-restore-7", Timestamp(0)), None);
        assert_eq!(report.target.as_deref(), Some("/root/borgcube-restore-7"));
        let Some(Step::Failed(f)) = report.step(b"borgcube failed target-not-empty /x on the client is not empty", Timestamp(0)) else {
            panic!()
        };
        assert_eq!(f.cause, Cause::TargetNotEmpty);
        assert_eq!(report.step(b"borgcube version borg 1.2.4", Timestamp(0)), None);
        assert_eq!(report.version.as_deref(), Some("borg 1.2.4"));
        assert_eq!(report.step(b"borgcube prepared", Timestamp(0)), Some(Step::Prepared));
        assert_eq!(report.step(b"borgcube exit 137", Timestamp(0)), Some(Step::Exit(137)));
        assert_eq!((report.step(b"borgcube exit", Timestamp(0)), report.exit), (None, Some(-1)));
        let Some(Step::Failed(f)) = report.step(b"borgcube failed client-cache mkdir: No space left on device", Timestamp(0)) else {
            panic!()
        };
        assert_eq!(f.cause, Cause::ClientEnospc);
        assert_eq!(report.step(b"motd of the host", Timestamp(0)), None);
        assert_eq!(report.take_lines()[0].message, "motd of the host");
    }

    #[test]
    fn hostile_text_is_escaped_and_bounded() {
        let mut report = Report::default();
        report.line(format!("\x1b[2J{}", "x".repeat(10_000)).as_bytes(), Timestamp(0));
        report.line(&vec![b'y'; MAX_LINE + 1], Timestamp(0));
        let lines = report.take_lines();
        assert!(!lines[0].message.contains('\x1b') && lines[0].message.len() < 4100);
        assert!(lines[1].message.contains("dropped"));
        for _ in 0..100 {
            report.line(br#"{"type":"log_message","levelname":"WARNING","message":"w"}"#, Timestamp(0));
        }
        assert_eq!((report.warnings.len(), report.warning_count), (Job::MAX_WARNINGS, 100));
    }

    #[test]
    fn no_text_of_a_client_makes_a_message_too_large() {
        let mut report = Report::default();
        let mut largest = 0;
        for _ in 0..1000 {
            report.line(&[0x1b; 60_000], Timestamp(0));
            if report.is_heavy() {
                let message = wire::json::encode(&wire::worker::FromWorker::Log(report.take_lines())).unwrap();
                largest = largest.max(message.len());
            }
        }
        assert!(largest > HEAVY && largest < 512 * 1024, "{largest}");
    }

    #[test]
    fn a_flood_ends_with_a_line_that_says_so() {
        let mut report = Report::new(None, 1000);
        for _ in 0..1000 {
            report.line(b"of no use to anybody", Timestamp(0));
        }
        report.log(Timestamp(0), "info", "borgcube", "ours");
        let lines = report.take_lines();
        assert!((7..12).contains(&lines.len()), "{}", lines.len());
        assert!(lines[lines.len() - 2].message.starts_with("the log has reached its limit of 1000 bytes"), "{lines:?}");
        assert_eq!(lines[lines.len() - 1].message, "ours");
    }

    #[test]
    fn what_a_client_repeats_is_no_way_around_the_limit() {
        let mut report = Report::new(None, 1000);
        let said: Vec<_> = ["started", "exit 0", "started", "exit 1", "exit 2"]
            .iter()
            .filter_map(|step| report.step(format!("borgcube {step}").as_bytes(), Timestamp(0)))
            .collect();
        assert_eq!((said, report.exit), (vec![Step::Started, Step::Exit(0)], Some(2)));
        (0..1000).for_each(|_| report.line(&vec![b'y'; MAX_LINE + 1], Timestamp(0)));
        assert!(report.take_lines().len() < 12);
        report.again();
        assert_eq!(report.step(b"borgcube exit 0", Timestamp(0)), Some(Step::Exit(0)));
    }

    #[test]
    fn the_rate_is_of_the_last_seconds() {
        let mut report = Report::default();
        let mut at = |second: i64, size: u64| {
            report.line(
                format!(r#"{{"type":"archive_progress","original_size":{size},"path":"p"}}"#).as_bytes(),
                Timestamp(0).plus_seconds(second),
            );
            report.progress.as_ref().unwrap().rate
        };
        assert_eq!(at(0, 0), 0);
        assert_eq!(at(5, 5_000_000), 1_000_000);
        assert_eq!(at(20, 5_000_000), 0);
    }

    #[test]
    fn a_traceback_is_told_by_its_exception() {
        let traceback = "Traceback (most recent call last):\n  File \"cache.py\", line 1, in x\n    raise\nValueError: what is wrong\n\nPlatform: Linux\n";
        assert_eq!(headline(traceback), "ValueError: what is wrong");
        assert_eq!(headline("Traceback (most recent call last):"), "Traceback (most recent call last):");
        assert_eq!(headline("one\ntwo"), "one");
        assert_eq!(headline(""), "");
    }
}
