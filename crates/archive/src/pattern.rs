//! Borg's patterns: `fm:`, `sh:`, `re:`, `pp:` and `pf:` (`borg help patterns`).
//!
//! Paths are bytes. They are matched as text in which every byte that is no UTF-8 is one character, as Borg has it.

use crate::error::{Error, Result};
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::fmt::Write;

/// Memory for one compiled pattern.
const LARGEST: usize = 16 << 20;

/// What bytes that are no UTF-8 are turned into: characters at the end of a plane for private use.
const FOREIGN: u32 = 0x10_fe00;

/// One pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: Matcher,
    /// As it was given.
    pub text: String,
}

#[derive(Debug, Clone)]
enum Matcher {
    /// `pp:`: the path, or a directory that it is below of. Ends with a slash; only that: everything.
    Prefix(Vec<u8>),
    /// `pf:`
    Full(Vec<u8>),
    /// Against the path with a slash behind it.
    Shell(Regex),
    /// Against the path.
    Regex(Regex),
}

/// How a pattern without a style is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `pp:`
    Prefix,
    /// `pf:`
    Full,
    /// `fm:`
    Fnmatch,
    /// `sh:`
    Shell,
    /// `re:`
    Regex,
}

impl Style {
    fn of(prefix: &[u8]) -> Option<Style> {
        Some(match prefix {
            b"pp:" => Style::Prefix,
            b"pf:" => Style::Full,
            b"fm:" => Style::Fnmatch,
            b"sh:" => Style::Shell,
            b"re:" => Style::Regex,
            _ => return None,
        })
    }
}

impl Pattern {
    /// From what a person typed.
    pub fn parse(typed: &[u8], style: Style) -> Result<Pattern> {
        let text = unix::logging::escape_bytes(typed);
        let bad = |why: String| Error::Pattern(text.clone(), why);
        let (style, rest) = match typed.get(..3).filter(|p| p[2] == b':' && p[..2].iter().all(u8::is_ascii_alphanumeric)) {
            Some(prefix) => (Style::of(prefix).ok_or_else(|| bad("its style is none of fm, sh, re, pp, pf".into()))?, &typed[3..]),
            None => (style, typed),
        };
        let compile = |expression: &str| {
            let built = RegexBuilder::new(expression).size_limit(LARGEST).build();
            built.map_err(|e| bad(e.to_string().lines().last().unwrap_or_default().trim().to_owned()))
        };
        let matcher = match style {
            Style::Prefix => {
                let mut prefix = normal(rest);
                prefix.push(b'/');
                Matcher::Prefix(without_slashes(prefix))
            }
            Style::Full => Matcher::Full(without_slashes(normal(rest))),
            Style::Fnmatch => {
                let whole = without_slashes(below(rest, b"*"));
                Matcher::Shell(compile(&translate(&text_of(&whole), false))?)
            }
            Style::Shell => {
                let whole = without_slashes(below(rest, b"**/*"));
                Matcher::Shell(compile(&translate(&text_of(&whole), true))?)
            }
            Style::Regex => Matcher::Regex(compile(&text_of(rest))?),
        };
        Ok(Pattern { matcher, text })
    }

    /// Whether it matches a path as it is in an archive.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let first = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
        let path = &path[first..];
        match &self.matcher {
            Matcher::Prefix(prefix) => {
                let name = &prefix[..prefix.len().saturating_sub(1)];
                path == name || path.starts_with(prefix)
            }
            Matcher::Full(full) => path == full,
            Matcher::Shell(regex) => regex.is_match(&(text_of(path).into_owned() + "/")),
            Matcher::Regex(regex) => regex.is_match(&text_of(path)),
        }
    }
}

/// Without a style, and with nothing that would be taken for more than a path.
fn without_slashes(mut path: Vec<u8>) -> Vec<u8> {
    let first = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    path.drain(..first);
    path
}

/// A trailing slash means what is in the directory, and not the directory.
fn below(pattern: &[u8], all: &[u8]) -> Vec<u8> {
    let mut whole = normal(pattern);
    whole.push(b'/');
    whole.extend_from_slice(all);
    if pattern.ends_with(b"/") {
        whole.push(b'/');
    }
    whole
}

/// As Python's `os.path.normpath`, without trailing slashes: no empty components, no `.`, and `..` takes what is before it.
fn normal(path: &[u8]) -> Vec<u8> {
    let is_absolute = path.first() == Some(&b'/');
    let mut names: Vec<&[u8]> = vec![];
    for name in path.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." if names.last().is_some_and(|last| *last != b"..") => {
                names.pop();
            }
            b".." if is_absolute => {}
            name => names.push(name),
        }
    }
    let joined = names.join(&b'/');
    match (is_absolute, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// A path as text.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(FOREIGN + u32::from(*byte))));
    }
    Cow::Owned(text)
}

/// A shell pattern as a regular expression. With `levels`, `*` and `?` stop at slashes and `**/` goes over them; without, both match everything.
fn translate(pattern: &str, levels: bool) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let (any, many) = if levels { ("[^/]", "[^/]*") } else { (".", ".*") };
    let mut out = String::from("(?s)^");
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        at += 1;
        match c {
            '*' if levels && chars.get(at) == Some(&'*') && chars.get(at + 1) == Some(&'/') => {
                out.push_str("(?:[^/]*/)*");
                at += 2;
            }
            '*' => out.push_str(many),
            '?' => out.push_str(any),
            '[' => match set(&chars[at..]) {
                Some((set, length)) => {
                    out.push_str(&set);
                    at += length;
                }
                None => out.push_str("\\["),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    out
}

/// `[a-z]` and `[!x]`, behind the opening bracket; None if there is no closing one. How long it is, too.
fn set(chars: &[char]) -> Option<(String, usize)> {
    let is_negated = chars.first() == Some(&'!');
    let start = usize::from(is_negated);
    // The first one may be a closing bracket.
    let end = start + 1 + chars.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let mut out = String::from(if is_negated { "[^" } else { "[" });
    let mut members = chars[start..end].iter().copied().peekable();
    let push = |out: &mut String, c: char| {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\x{{{:x}}}", u32::from(c));
    };
    let mut is_empty = true;
    while let Some(first) = members.next() {
        let mut ahead = members.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) => {
                members = ahead;
                // An empty range has no members.
                if first <= last {
                    push(&mut out, first);
                    out.push('-');
                    push(&mut out, last);
                    is_empty = false;
                }
            }
            _ => {
                push(&mut out, first);
                is_empty = false;
            }
        }
    }
    out.push(']');
    let nothing = || if is_negated { "(?s:.)".to_owned() } else { "[^\\x{0}-\\x{10ffff}]".to_owned() };
    Some((if is_empty { nothing() } else { out }, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern.as_bytes(), Style::Prefix).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn prefixes_are_whole_names() {
        for (pattern, path, is) in [
            ("home/user", "home/user", true),
            ("home/user/", "home/user", true),
            ("/home/user", "home/user/a", true),
            ("home/./x/../user", "home/user/a", true),
            ("home/user", "home/username", false),
            ("home/user", "home", false),
            ("/", "anything", true),
            (".", "anything", false),
            (".", ".", true),
            ("pf:home/user", "home/user", true),
            ("pf:/home/user", "home/user/a", false),
        ] {
            assert_eq!(matches(pattern, path), is, "{pattern} {path}");
        }
    }

    #[test]
    fn shell_patterns_are_those_of_borg() {
        for (pattern, path, is) in [
            ("sh:*.txt", "a.txt", true),
            ("sh:*.txt", "d/a.txt", false),
            ("sh:**/*.txt", "d/e/a.txt", true),
            ("sh:**/*.txt", "a.txt", true),
            ("sh:home/*/x", "home/u/x", true),
            ("sh:home/*/x", "home/u/x/below", true),
            ("sh:home/*/x", "home/u/v/x", false),
            ("sh:home/u/", "home/u", false),
            ("sh:home/u/", "home/u/a/b", true),
            ("sh:a?c", "a/c", false),
            ("sh:a?c", "a\u{e9}c", true),
            ("sh:a[b-d]", "ac", true),
            ("sh:a[!b-d]", "ac", false),
            ("sh:a[]]", "a]", true),
            ("sh:a[&&]", "a&", true),
            ("sh:a[", "a[", true),
            ("fm:*.txt", "d/a.txt", true),
            ("fm:home/*/x", "home/u/v/x", true),
            ("fm:home", "home/below", true),
            ("fm:home/", "home", false),
            ("fm:a[z-b]", "az", false),
            ("re:\\.txt$", "d/a.txt", true),
            ("re:^a", "ba", false),
        ] {
            assert_eq!(matches(pattern, path), is, "{pattern} {path}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_one_character_each() {
        let is = |pattern: &[u8], path: &[u8]| Pattern::parse(pattern, Style::Prefix).unwrap().matches(path);
        assert!(is(b"sh:caf?", b"caf\xe9"));
        assert!(is(b"sh:caf\xe9", b"caf\xe9"));
        assert!(!is(b"sh:caf\xe9", b"caf\xe8"));
        assert!(is(b"caf\xe9", b"caf\xe9/below"));
        assert!(is(b"re:^.{3}$", b"\xff\xfe\x80"));
    }

    #[test]
    fn nonsense_is_told() {
        for pattern in ["xx:a", "re:(", "re:a{100000}{100000}", "re:(?=a)"] {
            let error = Pattern::parse(pattern.as_bytes(), Style::Prefix).unwrap_err().to_string();
            assert!(error.contains("is not usable"), "{error}");
        }
    }
}
