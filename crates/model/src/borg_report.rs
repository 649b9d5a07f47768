//! What a client's borg says, and what it means.
//!
//! Borg 1.x with `--log-json` writes one JSON object a line to stderr. The client is not trusted: every line is bounded, typed or dropped,
//! and nothing in it decides more than the wording of a failure. Whether there is an archive, the owner knows.

use crate::cause::{Cause, Failure};
use serde::Deserialize;

/// Longest line that is looked at; longer ones are counted and dropped.
pub const MAX_LINE: usize = 64 * 1024;

/// A line of a client's borg that means something to us.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// Progress of `borg create`.
    Progress {
        /// Regular files so far.
        nfiles: u64,
        /// Bytes before compression.
        original_size: u64,
        /// Bytes after compression.
        compressed_size: u64,
        /// Bytes sent.
        deduplicated_size: u64,
        /// Current path.
        path: String,
    },
    /// Progress of `borg extract`.
    Extracting {
        /// Bytes so far.
        current: u64,
        /// Of so many.
        total: u64,
        /// Current path.
        path: String,
    },
    /// A message.
    Message {
        /// Python's name of the level: DEBUG, INFO, WARNING, ERROR, CRITICAL.
        level: String,
        /// The text.
        message: String,
        /// Borg's message id, or empty.
        msgid: String,
    },
    /// `--list`: a file's status letter and path.
    FileStatus {
        /// A, M, U, C, E, d, s, ...
        status: String,
        /// The path.
        path: String,
    },
    /// Known and without interest.
    Nothing,
    /// Not a line of borg's: text of ssh, the shell, or a broken borg.
    Text(String),
}

#[derive(Deserialize)]
struct Raw {
    r#type: String,
    #[serde(default)]
    nfiles: Option<u64>,
    #[serde(default)]
    original_size: Option<u64>,
    #[serde(default)]
    compressed_size: Option<u64>,
    #[serde(default)]
    deduplicated_size: Option<u64>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    levelname: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    msgid: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    finished: Option<bool>,
    #[serde(default)]
    current: Option<u64>,
    #[serde(default)]
    total: Option<u64>,
    #[serde(default)]
    info: Option<Vec<String>>,
}

/// Reads one line without its line break.
pub fn parse_line(line: &[u8]) -> Line {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if text.is_empty() {
        return Line::Nothing;
    }
    if !text.starts_with('{') {
        return Line::Text(text.to_owned());
    }
    // Borg writes names that are not UTF-8 as lone surrogates, which JSON readers refuse.
    let raw: Raw = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(_) => match serde_json::from_str(&replace_surrogates(text)) {
            Ok(raw) => raw,
            Err(_) => return Line::Text(text.to_owned()),
        },
    };
    match raw.r#type.as_str() {
        "archive_progress" if raw.finished != Some(true) => Line::Progress {
            nfiles: raw.nfiles.unwrap_or(0),
            original_size: raw.original_size.unwrap_or(0),
            compressed_size: raw.compressed_size.unwrap_or(0),
            deduplicated_size: raw.deduplicated_size.unwrap_or(0),
            path: raw.path.unwrap_or_default(),
        },
        // Without numbers it says that they are being found out.
        "progress_percent" if raw.msgid.as_deref() == Some("extract") && raw.finished != Some(true) && raw.current.is_some() => {
            let path = raw.info.and_then(|info| info.into_iter().next()).unwrap_or_default();
            Line::Extracting { current: raw.current.unwrap_or(0), total: raw.total.unwrap_or(0), path }
        }
        "log_message" => Line::Message {
            level: raw.levelname.unwrap_or_else(|| "INFO".into()),
            message: raw.message.unwrap_or_default(),
            msgid: raw.msgid.unwrap_or_default(),
        },
        "file_status" => Line::FileStatus { status: raw.status.unwrap_or_default(), path: raw.path.unwrap_or_default() },
        // Prompts have their answers in the environment; one without ends in an error of its own.
        _ => Line::Nothing,
    }
}

/// `\udcXX` (a byte that is no UTF-8, in Python's escape) becomes U+FFFD.
fn replace_surrogates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\u") {
        let after = at + 2;
        let hex = rest.get(after..after + 4).unwrap_or("");
        let lone = hex.len() == 4 && hex.to_ascii_lowercase().starts_with("dc");
        out.push_str(&rest[..at]);
        if lone {
            out.push_str("\\ufffd");
            rest = &rest[after + 4..];
        } else {
            out.push_str("\\u");
            rest = &rest[after..];
        }
    }
    out.push_str(rest);
    out
}

/// How the client's borg ended, as the script on the client reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Success, or (in Borg 1.x: 1, or 100 to 127 with modern codes) success with warnings.
    Good {
        /// Whether there were warnings.
        warnings: bool,
    },
    /// An error.
    Bad {
        /// The exit code.
        code: i32,
    },
    /// A signal.
    Killed {
        /// Its number.
        signal: i32,
    },
}

/// Reads a shell's `$?`.
pub fn ending(code: i32) -> Ending {
    match code {
        0 => Ending::Good { warnings: false },
        1 | 100..=127 => Ending::Good { warnings: true },
        129..=192 => Ending::Killed { signal: code - 128 },
        code => Ending::Bad { code },
    }
}

/// The cause behind an error message of a client's borg. `msgid` is the same in all 1.x versions, with or without the class prefix.
pub fn cause_of(code: i32, msgid: &str, message: &str) -> Failure {
    let short = msgid.rsplit('.').next().unwrap_or(msgid);
    let lower = message.to_lowercase();
    let cause = match short {
        "ConnectionClosedWithHint" | "ConnectionBrokenWithHint" => Cause::ClientCannotReachServer,
        "ConnectionClosed" => Cause::SessionLost,
        "CacheInitAbortedError"
        | "EncryptionMethodMismatch"
        | "RepositoryAccessAborted"
        | "RepositoryIDNotUnique"
        | "RepositoryReplay"
        | "FileIntegrityError" => Cause::ClientCache,
        "LockTimeout" | "LockFailed" | "LockError" | "LockErrorT" | "NotLocked" | "NotMyLock" => Cause::ClientCache,
        _ if lower.contains("no space left on device") || lower.contains("enospc") => Cause::ClientEnospc,
        _ => Cause::ClientBorgFailed { code, msgid: msgid.chars().take(80).collect() },
    };
    let message = if message.is_empty() { format!("borg on the client ended with code {code}") } else { message.to_owned() };
    Failure::new(cause, message)
}

/// What comes as plain text because borg was not yet at its own messages: Python's traceback, or what is said about arguments. Borg 1.1 and 1.2
/// end with 1 then, as with warnings; Borg 1.4 with 2.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Complaint {
    in_traceback: bool,
    said: Option<String>,
}

impl Complaint {
    /// How Python calls what is wrong with an argument: `re.error` since 3.5, `re.PatternError` since 3.13.
    const ARGUMENTS: [&str; 5] =
        ["re.error: ", "re.PatternError: ", "sre_constants.error: ", "argparse.ArgumentTypeError: ", "ValueError: Unknown pattern style: "];

    /// What Borg 1.4 says of a pattern without a traceback.
    const PATTERNS: [&str; 2] = ["A pattern/command must ", "Invalid pattern style: "];

    /// Takes a line of text; the last that tells something counts.
    pub fn line(&mut self, line: &str) {
        if line.starts_with("Traceback (most recent call last)") {
            self.in_traceback = true;
        } else if self.in_traceback && !line.is_empty() && !line.starts_with(' ') {
            // Borg describes the host behind it.
            self.in_traceback = false;
            self.said = Some(line.to_owned());
        } else if Complaint::usage(line).is_some() || Complaint::PATTERNS.iter().any(|start| line.starts_with(start)) {
            self.said = Some(line.to_owned());
        }
    }

    /// `borg create: error: argument -e/--exclude: ...`, below all that could be meant.
    fn usage(line: &str) -> Option<&str> {
        line.split_once(": error: ").filter(|(program, _)| program.starts_with("borg")).map(|(_, why)| why)
    }

    /// The failure that it amounts to, when borg ended with `code` and did nothing.
    #[must_use]
    pub fn failure(&self, code: i32) -> Option<Failure> {
        let said = self.said.as_deref()?;
        let of_arguments = Complaint::usage(said)
            .or_else(|| Complaint::ARGUMENTS.iter().any(|start| said.starts_with(start)).then_some(said))
            .or_else(|| Complaint::PATTERNS.iter().any(|start| said.starts_with(start)).then_some(said));
        Some(match of_arguments {
            Some(why) => Failure::new(Cause::ClientBorgRefused, format!("borg on the client does not take what it is called with: {why}")),
            None => Failure::new(Cause::ClientBorgFailed { code, msgid: String::new() }, format!("borg on the client broke off: {said}")),
        })
    }
}

/// The cause behind a failing `ssh` to the client: exit code 255 and what it wrote.
pub fn ssh_failure(output: &str) -> Failure {
    let changed = output.contains("REMOTE HOST IDENTIFICATION HAS CHANGED");
    let line = output.lines().map(str::trim).rfind(|l| !l.is_empty() && !l.starts_with('@')).unwrap_or("ssh gave no reason");
    if changed {
        Failure::new(Cause::HostKeyChanged, format!("the client's host key is not the known one: {line}"))
    } else if output.contains("Host key verification failed") {
        let message = "the client's host key is not known here yet: connect once by ssh as the user that runs BorgCube, and accept it";
        Failure::new(Cause::ClientConnectionFailed, message)
    } else {
        Failure::new(Cause::ClientConnectionFailed, format!("ssh to the client failed: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_borg() {
        let p = parse_line(br#"{"original_size": 10, "compressed_size": 5, "deduplicated_size": 4, "nfiles": 2, "path": "etc/x", "time": 1.5, "type": "archive_progress"}"#);
        assert_eq!(p, Line::Progress { nfiles: 2, original_size: 10, compressed_size: 5, deduplicated_size: 4, path: "etc/x".into() });
        let m = parse_line(br#"{"type":"log_message","levelname":"ERROR","name":"borg","message":"no","msgid":"Archive.AlreadyExists"}"#);
        assert_eq!(m, Line::Message { level: "ERROR".into(), message: "no".into(), msgid: "Archive.AlreadyExists".into() });
        let s = parse_line(br#"{"type":"file_status","status":"U","path":"a"}"#);
        assert_eq!(s, Line::FileStatus { status: "U".into(), path: "a".into() });
        let e = parse_line(br#"{"message": " 50.0% Extracting: etc/x", "current": 5, "total": 10, "info": ["etc/x"], "operation": 1, "msgid": "extract", "type": "progress_percent", "finished": false, "time": 1.5}"#);
        assert_eq!(e, Line::Extracting { current: 5, total: 10, path: "etc/x".into() });
        let begin = br#"{"message": "Calculating total archive size", "operation": 1, "msgid": "extract", "type": "progress_percent", "finished": false, "time": 1.5}"#;
        assert_eq!(parse_line(begin), Line::Nothing);
        assert_eq!(parse_line(b"ssh: no route"), Line::Text("ssh: no route".into()));
        assert_eq!(parse_line(br#"{"type":"progress_percent","finished":true}"#), Line::Nothing);
    }

    #[test]
    fn names_that_are_not_utf8_do_not_lose_the_line() {
        let line = parse_line(br#"{"type":"file_status","status":"A","path":"x\udcffy\u00e4"}"#);
        assert_eq!(line, Line::FileStatus { status: "A".into(), path: "x\u{fffd}y\u{e4}".into() });
    }

    #[test]
    fn hostile_lines_are_only_text() {
        for line in [
            &b"{"[..],
            br#"{"type":5}"#,
            b"{\"type\":\"log_message\",\"levelname\":[]}",
            b"\xff\xfe",
            br#"{"type":"archive_progress","nfiles":-1}"#,
            b"{\"a\":\"\\u",
            b"{\"a\":\"\\udc",
        ] {
            assert!(matches!(parse_line(line), Line::Text(_)), "{line:?}");
        }
    }

    #[test]
    fn endings() {
        assert_eq!(ending(0), Ending::Good { warnings: false });
        assert_eq!(ending(1), Ending::Good { warnings: true });
        assert_eq!(ending(107), Ending::Good { warnings: true });
        assert_eq!(ending(2), Ending::Bad { code: 2 });
        assert_eq!(ending(80), Ending::Bad { code: 80 });
        assert_eq!(ending(137), Ending::Killed { signal: 9 });
    }

    #[test]
    fn causes_from_message_ids_with_and_without_prefix() {
        for (msgid, word) in [
            ("ConnectionClosedWithHint", "client-cannot-reach-server"),
            ("ConnectionClosed", "session-lost"),
            ("Cache.RepositoryReplay", "client-cache"),
            ("LockTimeout", "client-cache"),
            ("CommandError", "client-borg-failed"),
        ] {
            assert_eq!(cause_of(2, msgid, "x").cause.word(), word, "{msgid}");
        }
        assert_eq!(cause_of(2, "", "[Errno 28] No space left on device").cause.word(), "client-enospc");
    }

    #[test]
    fn complaints_before_borg_is_at_its_own_messages() {
        let of = |text: &str| {
            let mut complaint = Complaint::default();
            text.lines().for_each(|line| complaint.line(line));
            complaint.failure(1).map(|failure| (failure.cause.word(), failure.message))
        };
        // As Borg 1.1.18 and 1.2.4 have it (exit code 1), and Borg 1.4.5 with more around it (2).
        let traceback = "Traceback (most recent call last):\n  File \"x.py\", line 1, in y\n    raise source.error(\nre.error: nothing to repeat at position 0";
        let longer =
            format!("Local Exception\n{traceback}\n\nPlatform: Linux vm\nBorg: 1.4.5  Python: CPython 3.11.2\nsys.argv: ['borg']\n");
        for text in [traceback, &longer] {
            let (word, message) = of(text).unwrap();
            assert_eq!(word, "client-borg-refused");
            assert!(message.ends_with("called with: re.error: nothing to repeat at position 0"), "{message}");
        }
        for (text, word, end) in [
            ("Traceback (most recent call last):\n  x\nValueError: Unknown pattern style: zz", "client-borg-refused", "style: zz"),
            ("Traceback (most recent call last):\n  x\nre.PatternError: bad", "client-borg-refused", "bad"),
            ("Traceback (most recent call last):\n  x\nMemoryError", "client-borg-failed", "broke off: MemoryError"),
            (
                "Traceback (most recent call last):\n  x\nKeyError: 1\n\nDuring handling\n\nTraceback (most recent call last):\n  y\nre.error: z",
                "client-borg-refused",
                "z",
            ),
            ("A pattern/command must start with any of: -, !, +, R, r, P, p", "client-borg-refused", "R, r, P, p"),
            ("Invalid pattern style: zz", "client-borg-refused", "zz"),
            (
                "usage: borg create [-h]\nborg create: error: argument -C/--compression: invalid CompressionSpec value: 'foo'",
                "client-borg-refused",
                "'foo'",
            ),
            ("usage: borg\nborg: error: unrecognized arguments: --bogus", "client-borg-refused", "--bogus"),
        ] {
            let (found, message) = of(text).unwrap();
            assert!(found == word && message.ends_with(end), "{text}: {found} {message}");
        }
        assert_eq!((of("ssh: connection refused"), of("Welcome to web1"), of("error: x")), (None, None, None));
    }

    #[test]
    fn ssh_failures() {
        let changed = "@@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n";
        assert_eq!(ssh_failure(changed).cause, Cause::HostKeyChanged);
        let unknown =
            ssh_failure("No ED25519 host key is known for x and you have requested strict checking.\nHost key verification failed.\n");
        assert_eq!(unknown.cause, Cause::ClientConnectionFailed);
        assert!(unknown.message.contains("not known here yet"));
        let refused = ssh_failure("ssh: connect to host x port 22: Connection refused\n");
        assert_eq!(refused.cause, Cause::ClientConnectionFailed);
        assert!(refused.message.contains("Connection refused"));
    }
}
