//! What the child says on its standard error: the last lines of it, for error messages.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

const LINES: usize = 10;
const LONGEST: usize = 300;

/// The last lines, shared with the thread that reads them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnostics {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Diagnostics {
    /// Reads until the end, on a thread of its own: an unread pipe would block the child.
    pub(crate) fn collect(&self, stderr: impl Read + Send + 'static) {
        let this = self.clone();
        let reading = std::thread::Builder::new().name("borg-stderr".into()).spawn(move || this.read(stderr));
        if let Err(e) = reading {
            log::error!("the messages of the repository's borg cannot be read: {e}");
        }
    }

    fn read(&self, stderr: impl Read) {
        let mut input = BufReader::new(stderr);
        let mut line = vec![];
        loop {
            line.clear();
            // A line longer than this comes in pieces, which is all right for people to read.
            match (&mut input).take(64 * 1024).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => self.note(&String::from_utf8_lossy(&line)),
            }
        }
    }

    fn note(&self, line: &str) {
        let Some(text) = message_of(line.trim()) else { return };
        let text: String = unix::logging::escape(&text).chars().take(LONGEST).collect();
        log::info!("repository: {text}");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }

    /// The last lines, joined; None if nothing was said.
    pub(crate) fn last_words(&self) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (!lines.is_empty()).then(|| lines.iter().map(String::as_str).collect::<Vec<_>>().join(" / "))
    }
}

/// Borg 1.x: lines of a server are `$LOG level logger text` before negotiation and JSON after it; progress is of no interest here.
fn message_of(line: &str) -> Option<String> {
    if line.is_empty() {
        return None;
    }
    if line.starts_with('{')
        && let Ok(serde_json::Value::Object(object)) = serde_json::from_str(line)
    {
        return object
            .get("message")
            .and_then(|m| m.as_str())
            .filter(|m| !m.is_empty() && object["type"] == "log_message")
            .map(str::to_owned);
    }
    let text = match line.strip_prefix("$LOG ") {
        Some(rest) => rest.splitn(3, ' ').last().unwrap_or(rest),
        None => line,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_are_kept_and_only_the_last() {
        let said = Diagnostics::default();
        let mut input = String::from("{\"type\":\"progress_percent\",\"message\":\"x\"}\n");
        (0..20).for_each(|n| input.push_str(&format!("{{\"type\":\"log_message\",\"message\":\"m{n}\"}}\n")));
        input.push_str("$LOG WARNING borg.repository Remote: slow\nssh: no route\n\n");
        said.read(input.as_bytes());
        let words = said.last_words().unwrap();
        assert!(words.starts_with("m12 / ") && words.ends_with("m19 / Remote: slow / ssh: no route"), "{words}");
        assert_eq!(Diagnostics::default().last_words(), None);
    }
}
