//! What the client has at the paths of a restore test, as it says itself: its answers are bounded, and what makes no sense counts for nothing.

use super::super::client::Client;
use super::super::sandbox::Told;
use super::super::script;
use super::super::{Event, Stop, TICK, Worker};
use super::Limit;
use anyhow::Context;
use model::borg_report::ssh_failure;
use model::client::Connection;
use model::restore_test::Live;
use model::{Cause, Failure, Timestamp};
use std::fmt::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Instant;
use unix::pidfd::ExitStatus;
use wire::worker::ToWorker;

/// Lines of its shell's own (greetings, warnings) that a client may write besides its answers.
const BESIDE: usize = 200;

/// Asks the client about these files.
pub fn ask(worker: &mut Worker, connection: &Connection, files: &[Told], limit: Limit, events: &Sender<Event>) -> Result<Vec<Live>, Stop> {
    let paths: Vec<Vec<u8>> = files.iter().map(Told::path).collect::<Option<_>>().context("a path of the sample is none")?;
    let mut client = Client::start(connection, script::live(lines(&paths).as_bytes()), events, &worker.gate)?;
    let mut answers = Answers::new(files);
    let failed = listen(worker, &mut client, &mut answers, limit)?;
    let ended = client.wait()?;
    if let Some(failure) = failed {
        return Err(failure.into());
    }
    if !answers.is_complete {
        return Err(broken(ended, worker.report.text(), matches!(connection, Connection::Ssh(_))).into());
    }
    Ok(answers.live)
}

/// Until both streams have ended.
fn listen(worker: &mut Worker, client: &mut Client, answers: &mut Answers<'_>, limit: Limit) -> Result<Option<Failure>, Stop> {
    let (mut open_streams, mut failed, mut next_flush) = (2, None::<Failure>, Instant::now() + TICK);
    while open_streams > 0 {
        let event = match worker.waiting.pop_front() {
            Some(event) => Some(event),
            None => match worker.events.recv_timeout(next_flush.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            },
        };
        let mut stop = None;
        match event {
            Some(Event::Step(line)) => {
                worker.gate.leave(line.len());
                stop = answers.hear(&line).err();
                if !line.starts_with(b"borgcube ") {
                    worker.report.log(Timestamp::now(), "info", "client", &String::from_utf8_lossy(&line));
                }
            }
            Some(Event::Line(line)) => {
                worker.gate.leave(line.len());
                worker.report.line(&line, Timestamp::now());
            }
            Some(Event::Eof) => open_streams -= 1,
            Some(Event::Control(ToWorker::Cancel { by })) => {
                worker.cancelled = Some(by.clone());
                stop = Some(Failure::new(Cause::Cancelled { by: by.clone() }, format!("cancelled by {by}")));
            }
            Some(Event::ControlLost) => {
                client.kill();
                if !worker.outlives {
                    return Err(anyhow::anyhow!("borgcubed is gone").into());
                }
                worker.lost = true;
                stop = Some(Failure::new(Cause::BorgcubedRestart, "borgcubed was stopped"));
            }
            Some(other) => return Err(anyhow::anyhow!("{other:?} came out of turn").into()),
            None => {}
        }
        if stop.is_none() && limit.is_over(Instant::now()) {
            let message = format!("the client had not hashed its files when the test had taken {} seconds (total-seconds)", limit.seconds);
            stop = Some(Failure::new(Cause::TooSlow, message));
        }
        if let Some(failure) = stop {
            // It has nothing to tidy up.
            client.kill();
            failed = Some(failure);
            break;
        }
        if answers.is_complete {
            client.ask_to_stop();
        }
        if Instant::now() >= next_flush {
            worker.flush()?;
            next_flush = Instant::now() + TICK;
        }
    }
    Ok(failed)
}

fn broken(ended: ExitStatus, text: &str, over_ssh: bool) -> Failure {
    match ended {
        ExitStatus::Exited(255) if over_ssh => ssh_failure(text),
        status => {
            let last = text.lines().last().unwrap_or("no reason was given");
            Failure::new(Cause::ClientConnectionFailed, format!("the connection to the client {status} before it had answered: {last}"))
        }
    }
}

/// Absolute paths in the form of printf's %b: a line each, whatever is in them.
fn lines(paths: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for path in paths {
        text.push('/');
        for byte in path {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => text.push(char::from(*byte)),
                // Writing to a String can't fail.
                byte => drop(write!(text, "\\0{byte:03o}")),
            }
        }
        text.push('\n');
    }
    text.push_str("end\n");
    text
}

/// What has come.
struct Answers<'a> {
    files: &'a [Told],
    live: Vec<Live>,
    beside: usize,
    is_complete: bool,
}

/// What a client's `stat` says.
#[derive(Debug, PartialEq)]
struct Looks {
    size: u64,
    mtime: i64,
    ctime: i64,
    /// Nanoseconds of the first one, if they are known.
    fraction: Option<i64>,
}

impl Looks {
    fn parse(text: &str) -> Option<Looks> {
        let mut fields = text.splitn(4, ' ');
        let mut number = || fields.next()?.parse().ok();
        let (size, mtime, ctime) = (u64::try_from(number()?).ok()?, number()?, number()?);
        let digits = fields.next().and_then(|rest| rest.split_once('.')).map(|(_, rest)| rest.split(' ').next().unwrap_or(""));
        let digits = digits.filter(|digits| digits.len() == 9 && digits.bytes().all(|b| b.is_ascii_digit()));
        Some(Looks { size, mtime, ctime, fraction: digits.and_then(|digits| digits.parse().ok()) })
    }

    /// Whether a backup would take the file for the one in the archive. A client that tells no fractions of seconds says 0.
    fn is(&self, file: &Told) -> bool {
        let fraction = file.mtime.rem_euclid(1_000_000_000);
        self.size == file.size
            && self.mtime == file.mtime.div_euclid(1_000_000_000)
            && self.fraction.is_none_or(|told| told == fraction || told == 0)
    }
}

impl<'a> Answers<'a> {
    fn new(files: &'a [Told]) -> Answers<'a> {
        Answers { files, live: vec![Live::Silent; files.len()], beside: 0, is_complete: false }
    }

    /// A line of the client's. What it was not asked for, much of it or a second time, is no mistake of its.
    fn hear(&mut self, line: &[u8]) -> Result<(), Failure> {
        let violation = |what: &str| {
            let cause = Cause::PolicyViolation { rule: "restore-test-answers".into() };
            Failure::new(cause, format!("the client {what}"))
        };
        let said = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("borgcube "));
        let Some(said) = said else {
            self.beside += 1;
            return if self.beside > BESIDE { Err(violation("says much more than it was asked")) } else { Ok(()) };
        };
        let (word, rest) = said.trim_end().split_once(' ').unwrap_or((said.trim_end(), ""));
        match word {
            "started" => return Ok(()),
            "end" => {
                self.is_complete = true;
                return Ok(());
            }
            "failed" => {
                let what: String = unix::logging::escape(rest).chars().take(500).collect();
                return Err(Failure::new(Cause::ClientConnectionFailed, what));
            }
            _ => {}
        }
        let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let at = number.parse().ok().filter(|at: &usize| *at < self.files.len() && matches!(word, "gone" | "file"));
        let Some(at) = at else { return Err(violation("answers what it was not asked")) };
        if self.live[at] != Live::Silent {
            return Err(violation("answers a question twice"));
        }
        self.live[at] = if word == "gone" { Live::Gone } else { judged(&self.files[at], rest).unwrap_or(Live::Silent) };
        Ok(())
    }
}

/// `HASH SIZE MTIME CTIME TEXT / SIZE MTIME CTIME TEXT`: before it was read, and after.
fn judged(file: &Told, said: &str) -> Option<Live> {
    let (content, looks) = said.split_once(' ')?;
    let (before, after) = looks.split_once(" / ")?;
    let (before, after) = (Looks::parse(before)?, Looks::parse(after)?);
    if before != after || !before.is(file) {
        return Some(Live::Changed);
    }
    let is_hash = content.len() == 64 && content.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    let touched = file.ctime.map(|ctime| before.ctime > ctime.div_euclid(1_000_000_000));
    is_hash.then(|| Live::Same { content: content.to_owned(), touched })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn told(path: &str, size: u64, mtime: i64) -> Told {
        Told {
            path: path.bytes().map(|b| format!("{b:02x}")).collect(),
            path_hash: String::new(),
            item_hash: String::new(),
            content: String::new(),
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            size,
            mtime,
            ctime: Some(7_000_000_000),
            damage: None,
            note: None,
        }
    }

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_a_client_says_is_weighed() {
        let file = told("a", 5, 3_000_000_007);
        let live = |said: &str| judged(&file, said);
        let same = |touched| Some(Live::Same { content: HASH.into(), touched: Some(touched) });
        let text = "1970-01-01 00:00:03.000000007 +0000";
        assert_eq!(live(&format!("{HASH} 5 3 7 {text} / 5 3 7 {text}")), same(false));
        assert_eq!(live(&format!("{HASH} 5 3 8 {text} / 5 3 8 {text}")), same(true));
        // No fraction, or none that is told.
        assert_eq!(live(&format!("{HASH} 5 3 7 - / 5 3 7 -")), same(false));
        let whole = text.replace("007", "000");
        assert_eq!(live(&format!("{HASH} 5 3 7 {whole} / 5 3 7 {whole}")), same(false));
        let other = text.replace("007", "008");
        for changed in [
            format!("{HASH} 6 3 7 {text} / 6 3 7 {text}"),
            format!("{HASH} 5 4 7 {text} / 5 4 7 {text}"),
            format!("{HASH} 5 3 7 {text} / 5 3 8 {text}"),
            format!("{HASH} 5 3 7 {other} / 5 3 7 {other}"),
        ] {
            assert_eq!(live(&changed), Some(Live::Changed), "{changed}");
        }
        for nonsense in [
            "",
            "-",
            HASH,
            "x 5 3 7 - / 5 3 7 -",
            &format!("{HASH} 5 3 / 5"),
            &format!("{HASH} - / -"),
            &format!("{HASH} -5 3 7 - / -5 3 7 -"),
        ] {
            assert_eq!(live(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_client_that_says_too_much_is_stopped() {
        let files = [told("a", 5, 0), told("b", 5, 0)];
        let mut answers = Answers::new(&files);
        answers.hear(b"borgcube started").unwrap();
        answers.hear(b"borgcube gone 1").unwrap();
        for too_much in ["borgcube gone 1", "borgcube gone 2", "borgcube gone -1", "borgcube gone", "borgcube file 1 x", "borgcube other 0"]
        {
            let failure = answers.hear(too_much.as_bytes()).unwrap_err();
            assert_eq!(failure.cause.word(), "policy-violation", "{too_much}");
        }
        (0..BESIDE).for_each(|_| answers.hear(b"\xff welcome").unwrap());
        assert!(answers.hear(b"welcome").is_err());
        assert!(answers.hear(b"borgcube failed no\x1b program").unwrap_err().message.contains("no\\u{1b} program"));
        assert!(!answers.is_complete && answers.live == [Live::Silent, Live::Gone]);
    }

    /// The script itself, with names that are none of a shell's friends.
    #[test]
    fn the_script_reads_any_name() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["plain", "with space", "-n", "new\nline\n", "back\\slash\\0101", "quo'te\"$(touch x)`y`", "%s%b", "ümläut", "end"];
        let mut paths = vec![];
        for name in names {
            std::fs::write(directory.path().join(name), name).unwrap();
            paths.push(format!("{}/{name}", directory.path().display()).as_bytes()[1..].to_vec());
        }
        std::os::unix::fs::symlink("plain", directory.path().join("link")).unwrap();
        paths.push(format!("{}/link", directory.path().display()).as_bytes()[1..].to_vec());
        paths.push(b"nowhere/at/all".to_vec());
        let input = script::live(lines(&paths).as_bytes());
        let mut child = Command::new("sh").args(["-c", &input.command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &input.head).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        for (at, name) in names.iter().enumerate() {
            use sha2::Digest;
            let hash: String = sha2::Sha256::digest(name.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            assert!(said.contains(&format!("borgcube file {at} {hash} {} ", name.len())), "{name:?}: {said}");
        }
        assert!(said.contains("borgcube gone 9\nborgcube gone 10\nborgcube end\n"), "{said}");
        assert!(!directory.path().join("x").exists() && !std::path::Path::new("x").exists());
    }
}
