//! Why a session ends before the client ends it, and how the client is told.

use borg::rpc::reply::Exception;
use model::{Cause, Failure};
use wire::session::Violation;

/// The end of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// The client broke a rule.
    Violation(Violation),
    /// It can't go on, and that is no accusation.
    Failed(Failure),
    /// The client named no session that is known here.
    Unknown,
}

impl Stop {
    /// A failure that is not the client's doing.
    pub fn failed(cause: Cause, message: impl Into<String>) -> Stop {
        Stop::Failed(Failure::new(cause, message))
    }

    /// A limit of this session was reached.
    pub fn limit(limit: &str, message: impl Into<String>) -> Stop {
        Stop::failed(Cause::QuotaExceeded { limit: limit.to_owned() }, message)
    }

    /// What the client's borg gets: a class of its own and one line, which every Borg 1.x prints as it is. `task` is what was refused:
    /// backup, restore, connection.
    pub fn exception(&self, task: &str) -> Exception {
        match self {
            Stop::Violation(v) => Exception::refusal("PolicyViolation", &format!("BorgCube refused this {task}: {}: {}", v.rule, v.detail)),
            Stop::Failed(failure) => failed(failure),
            Stop::Unknown => Exception::refusal(
                "SessionUnknown",
                "BorgCube knows no such session: it was used already, it expired, or the address is wrong",
            ),
        }
    }
}

fn failed(failure: &Failure) -> Exception {
    let line = format!("BorgCube: {}", failure.message);
    // Borg 1.x: 1.4 makes these two errors itself, from two arguments and one, and has exit codes for them.
    let (class, args): (String, Vec<Vec<u8>>) = match failure.cause {
        Cause::RepositoryEnospc => ("InsufficientFreeSpaceError".into(), vec![b"more".into(), b"too little".into()]),
        Cause::RepositoryLockTimeout => ("LockTimeout".into(), vec![b"of the repository behind BorgCube".into()]),
        _ => (class_name(failure.cause.word()), Vec::new()),
    };
    Exception { class, args, short: vec![line] }
}

/// `view-stale` becomes `ViewStale`.
fn class_name(word: &str) -> String {
    word.split('-')
        .map(|part| {
            let mut letters = part.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
        })
        .collect()
}

/// Something a client said, fit for one line: escaped and short.
pub(crate) fn shown(text: &str) -> String {
    let mut text = unix::logging::escape(text);
    if text.len() > 300 {
        let end = (0..=300).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Like [`shown`], for bytes; not escaped yet, because [`crate::rules::Rule::broken`] does that.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..400).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_named_by_the_word() {
        let exception = Stop::failed(Cause::ViewStale, "a chunk\nis gone").exception("backup");
        assert_eq!((exception.class.as_str(), exception.short), ("ViewStale", vec!["BorgCube: a chunk is gone".to_owned()]));
        let exception = Stop::limit("objects", "too many").exception("backup");
        assert_eq!(exception.class, "QuotaExceeded");
        assert_eq!(Stop::failed(Cause::RepositoryEnospc, "full").exception("backup").args.len(), 2);
        let violation = crate::rules::Rule::GetNotOwn.broken("a\nb\u{1b}[2J").exception("backup");
        assert_eq!(violation.class, "PolicyViolation");
        let line = "get-not-own: A backup reads the manifest and its own archive metadata, nothing else (this client: a\\nb\\u{1b}[2J)";
        assert_eq!(violation.short, [format!("BorgCube refused this backup: {line}")]);
    }

    #[test]
    fn what_a_client_says_stays_short() {
        assert!(shown(&"ü".repeat(1000)).len() < 310);
        assert_eq!(quoted(&[b'a', 0xff]), "a\u{fffd}");
    }
}
