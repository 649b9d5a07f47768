//! Log lines on standard error, in the form the journal understands when it listens.

use crate::paths::{ENV_JOURNAL, ENV_LOG, ENV_NOTIFY};
use log::kv::{self, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::env;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr};

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `<4>message`: the priority as the journal reads it, which adds time and program itself.
    Journal,
    /// `program: warning: message`.
    Plain,
}

struct Logger {
    program: &'static str,
    style: Style,
    level: LevelFilter,
}

/// Sends everything that is logged to standard error; each message is one line, control characters escaped, key-value
/// pairs at its end. The level is `BORGCUBE_LOG` (off, error, warn, info, debug, trace), by default info.
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
    if log::set_boxed_logger(Box::new(Logger { program, style, level })).is_err() {
        return;
    }
    log::set_max_level(level);
    if let Some(Err(_)) = parsed {
        log::warn!("{ENV_LOG} is \"{}\", which is not a log level; using info", wanted.unwrap_or_default());
    }
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
        if self.enabled(record.metadata()) {
            // One write, so that lines of several threads and processes do not mix. If standard error is gone there is
            // nowhere left to say so.
            let _ = stderr().write_all(line(self.program, self.style, record).as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(program: &str, style: Style, record: &Record<'_>) -> String {
    let mut line = match (style, record.level()) {
        (Style::Journal, level) => format!("<{}>", priority(level)),
        (Style::Plain, Level::Warn) => format!("{program}: warning: "),
        (Style::Plain, level) => format!("{program}: {}: ", level.as_str().to_ascii_lowercase()),
    };
    // Backslashes stay: text of clients in a message went through `escape` already.
    push_visible(&mut line, &record.args().to_string());
    if record.key_values().visit(&mut Pairs(&mut line)).is_err() {
        line.push_str(" (fields lost)");
    }
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

struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push(' ');
        push_visible(self.0, key.as_str());
        self.0.push('=');
        let value = value.to_string();
        if value.is_empty() || value.contains([' ', '"', '=']) {
            self.0.push('"');
            push_visible(self.0, &value.replace('\\', "\\\\").replace('"', "\\\""));
            self.0.push('"');
        } else {
            push_visible(self.0, &value);
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
            printed(Style::Plain, Level::Info, "done", &[("job", "7"), ("name", "a b"), ("empty", "")]),
            "prog: info: done job=7 name=\"a b\" empty=\"\"\n"
        );
        assert_eq!(printed(Style::Plain, Level::Info, "m", &[("f", "x\" g=y\n")]), "prog: info: m f=\"x\\\" g=y\\n\"\n");
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
