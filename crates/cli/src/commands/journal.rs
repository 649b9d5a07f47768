//! A job's lines in the journal: those of its worker, of the queue daemon, of the owner.
//!
//! Anybody on the machine may write into the journal and say `BORGCUBE_JOB=7`. What counts is therefore the unit that an entry came from,
//! which the journal notes itself.

use crate::context::{Context, write_out};
use crate::error::{Error, Result};
use crate::output::shown;
use model::Timestamp;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use unix::events;
use unix::spawn::{Child, Spawn, Stdio};
use wire::worker::LogLine;

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
    let past = read(job, &[], |entry| print(&entry, context))?;
    let Some((last, cursor)) = past else { return Ok(false) };
    if !last {
        read(job, &["--follow", &format!("--after-cursor={cursor}")], |entry| print(&entry, context))?;
    }
    Ok(true)
}

/// Hands over each entry up to the job's last one; the result is None if there was none, otherwise whether the last one was the job's,
/// and its cursor.
fn read(job: u64, options: &[&str], mut each: impl FnMut(Entry) -> Result<()>) -> Result<Option<(bool, String)>> {
    let spawned = Spawn::new("journalctl")
        .args(["--output=json", "--all", "--quiet", "--no-pager", "--lines=all"])
        .args(options)
        .arg(format!("BORGCUBE_JOB={job}"))
        .keep_env(unix::paths::ENV_KEPT)
        .same_group()
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Null)
        .spawn();
    // No journalctl is no journal.
    let Ok(mut child) = spawned else { return Ok(None) };
    let Some(output) = child.stdout.take() else { return Ok(None) };
    let mut found = None;
    let done = entries(BufReader::new(output), |entry| {
        found = Some((entry.is_last, entry.cursor.clone()));
        let last = entry.is_last;
        each(entry).map(|()| !last)
    });
    end(&child);
    done.map(|()| found)
}

/// Hands over our entries until `each` has enough.
fn entries(mut input: impl BufRead, mut each: impl FnMut(Entry) -> Result<bool>) -> Result<()> {
    loop {
        let mut line = vec![];
        let read = input.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        match read.map_err(|e| Error::failed(format!("the journal cannot be read: {e}")))? {
            0 => return Ok(()),
            _ => {
                if let Some(entry) = serde_json::from_slice(&line).ok().and_then(|value| parse(&value))
                    && !each(entry)?
                {
                    return Ok(());
                }
            }
        }
    }
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
