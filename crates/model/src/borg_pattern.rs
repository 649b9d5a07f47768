//! What `borg create --exclude` and `--pattern` take, as far as that is certain before a client's borg sees it.
//!
//! A pattern of style `re:` is a regular expression of Python, of whichever version the client has. A parser for other ones would refuse some
//! that Python takes (`[a[b]`, look-behind), so this looks at no more than what is wrong in every Python: what is never closed, what closes
//! nothing, a repetition of nothing or of a repetition, a backslash at the end. What it lets pass may still be wrong.

/// Borg's styles: of fnmatch, of shells, regular expressions, path prefixes, whole paths.
const STYLES: [&str; 5] = ["fm", "sh", "re", "pp", "pf"];

/// Says what is wrong with an `--exclude`.
///
/// # Errors
/// The sentence names the pattern.
pub fn check_exclude(text: &str) -> Result<(), String> {
    check_style(text).map_err(|why| format!("exclude {:?} is none that Borg takes: {why}", shortened(text)))
}

/// Says what is wrong with a `--pattern`.
///
/// # Errors
/// The sentence names the pattern.
pub fn check_pattern(text: &str) -> Result<(), String> {
    let wrong = |why: String| Err(format!("pattern {:?} is none that Borg takes: {why}", shortened(text)));
    let mut rest = text.chars();
    let Some(command @ ('-' | '!' | '+' | 'R' | 'r' | 'P' | 'p')) = rest.next() else {
        let commands =
            "it begins with '+ ' (take), '- ' (leave out), '! ' (leave out, and do not look inside), 'R ' (a path) or 'P ' (a style)";
        return wrong(commands.to_owned());
    };
    // As Python's str.lstrip().
    let value = rest.as_str().trim_start();
    match command {
        _ if value.is_empty() => wrong(format!("nothing is behind {command:?}")),
        'R' | 'r' => Ok(()),
        'P' | 'p' if STYLES.contains(&value) => Ok(()),
        'P' | 'p' => wrong(format!("there is no style {value:?}, only {}", STYLES.join(", "))),
        _ => check_style(value).or_else(wrong),
    }
}

fn check_style(text: &str) -> Result<(), String> {
    match text.split_at_checked(3) {
        Some(("re:", expression)) => check_expression(expression),
        Some((style, _))
            if style.ends_with(':') && style[..2].bytes().all(|b| b.is_ascii_alphanumeric()) && !STYLES.contains(&&style[..2]) =>
        {
            Err(format!(
                "there is no style {style}, only {}; for a path with a colon write fm: before it",
                STYLES.map(|s| format!("{s}:")).join(", ")
            ))
        }
        _ => Ok(()),
    }
}

/// What the next repetition would be of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// There is nothing.
    Nothing,
    /// Something, or something that this does not look at.
    Something,
    /// A repetition; `?` and `+` behind it say how.
    Repetition,
    /// A repetition of which is said how.
    Settled,
}

fn check_expression(text: &str) -> Result<(), String> {
    let chars: Vec<char> = text.chars().collect();
    if is_verbose(&chars) {
        return Ok(());
    }
    let (mut open, mut before, mut at) = (vec![], Before::Nothing, 0);
    while let Some(&c) = chars.get(at) {
        let start = at;
        at += 1;
        before = match c {
            '\\' if at == chars.len() => return Err("its regular expression ends with a backslash".into()),
            '\\' => {
                at += 1;
                Before::Something
            }
            '[' => {
                at =
                    set_end(&chars, at).ok_or_else(|| format!("its regular expression has a '[' (character {}) without ']'", start + 1))?;
                Before::Something
            }
            '(' => {
                let (end, is_group) = group_head(&chars, at)
                    .ok_or_else(|| format!("its regular expression has a '(' (character {}) without ')'", start + 1))?;
                at = end;
                if is_group {
                    open.push(start);
                    Before::Nothing
                } else {
                    Before::Something
                }
            }
            ')' => {
                open.pop().ok_or_else(|| format!("its regular expression has a ')' (character {}) without '('", start + 1))?;
                Before::Something
            }
            '|' => Before::Nothing,
            '*' | '+' | '?' => match (before, c) {
                (Before::Nothing, _) => return Err(format!("in its regular expression {c:?} (character {}) repeats nothing", start + 1)),
                (Before::Something, _) => Before::Repetition,
                (Before::Repetition, '?' | '+') => Before::Settled,
                _ => {
                    return Err(format!("in its regular expression {c:?} (character {}) repeats a repetition; put that in ( )", start + 1));
                }
            },
            // Also '{', which is a repetition only with numbers in it.
            _ => Before::Something,
        };
    }
    match open.pop() {
        Some(start) => Err(format!("its regular expression has a '(' (character {}) without ')'", start + 1)),
        None => Ok(()),
    }
}

/// Whether blanks and comments may mean nothing in it (flag x): then this understands nothing of it.
fn is_verbose(chars: &[char]) -> bool {
    chars.windows(2).enumerate().any(|(at, pair)| {
        pair == ['(', '?'] && chars[at + 2..].iter().take_while(|c| c.is_ascii_alphabetic() || **c == '-').any(|c| *c == 'x')
    })
}

/// Behind the `]` of a set whose `[` is before `at`. A `]` at its beginning is one of its characters.
fn set_end(chars: &[char], mut at: usize) -> Option<usize> {
    if chars.get(at) == Some(&'^') {
        at += 1;
    }
    let first = at;
    loop {
        match chars.get(at)? {
            ']' if at > first => return Some(at + 1),
            '\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the `)` of a comment; a backslash hides one.
fn comment_end(chars: &[char], mut at: usize) -> Option<usize> {
    loop {
        match chars.get(at)? {
            ')' => return Some(at + 1),
            '\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind what follows a `(`, and whether a `)` has to come; None: the head itself is never closed.
fn group_head(chars: &[char], at: usize) -> Option<(usize, bool)> {
    if chars.get(at) != Some(&'?') {
        return Some((at, true));
    }
    let behind = |end: char| chars[at..].iter().position(|c| *c == end).map(|found| at + found + 1);
    match (chars.get(at + 1)?, chars.get(at + 2)) {
        // A comment.
        ('#', _) => Some((comment_end(chars, at + 2)?, false)),
        // A name, as it is given and as it is used.
        ('P', Some('<')) => Some((behind('>').unwrap_or(at), true)),
        ('P', _) => Some((behind(')')?, false)),
        // What a condition asks for.
        ('(', _) => Some((behind(')')?, true)),
        ('<', _) => Some((at + 3, true)),
        (':' | '=' | '!' | '>', _) => Some((at + 2, true)),
        // Flags: of all of it, or of a group.
        _ => {
            let end = at + 1 + chars[at + 1..].iter().take_while(|c| c.is_ascii_alphabetic() || **c == '-').count();
            match chars.get(end)? {
                ')' => Some((end + 1, false)),
                _ => Some((end + 1, true)),
            }
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_borg_refuses() {
        for (bad, why) in [
            ("re:(", "without ')'"),
            ("re:a(?:b", "without ')'"),
            ("re:(?P<n>a", "without ')'"),
            ("re:(?#never closed", "without ')'"),
            ("re:(?#\\)", "without ')'"),
            ("re:a)", "without '('"),
            ("re:[a", "without ']'"),
            ("re:[]a", "without ']'"),
            ("re:[^]", "without ']'"),
            ("re:[a\\]", "without ']'"),
            ("re:*a", "repeats nothing"),
            ("re:a|*b", "repeats nothing"),
            ("re:(+a)", "repeats nothing"),
            ("re:a**", "repeats a repetition"),
            ("re:a+?*", "repeats a repetition"),
            ("re:a\\", "ends with a backslash"),
            ("zz:x", "there is no style zz:"),
        ] {
            let error = check_exclude(bad).unwrap_err();
            assert!(error.contains(why) && error.starts_with("exclude "), "{bad}: {error}");
            assert!(check_pattern(&format!("- {bad}")).unwrap_err().contains(why));
        }
        for bad in ["", "x", "? foo", "#comment", " - x", "-", "+  ", "R", "P zz", "P"] {
            assert!(check_pattern(bad).unwrap_err().contains("is none that Borg takes"), "{bad}");
        }
    }

    #[test]
    fn what_some_borg_takes() {
        for good in [
            "re:",
            "re:a*",
            "re:a*?b+?c??",
            "re:a*+",
            "re:[]a]",
            "re:[^]a]",
            "re:[a[b]",
            "re:[[:alpha:]",
            "re:\\(",
            "re:[\\]]",
            "re:(?i)a",
            "re:(?x) a # (",
            "re:(?s-i:a)",
            "re:(?P<n>a)(?P=n)*",
            "re:(?<=a)b",
            "re:(?<!a)b",
            "re:(?=a)(?!b)",
            "re:(?#c)a",
            "re:(?#a\\)b)c",
            "re:(a)(?(1)b|c)",
            "re:a{2}",
            "re:a{",
            "re:{",
            "re:a{,3}?",
            "re:()*",
            "re:x{a*}",
            "re:a|b|",
            "re:ä(ö)?$",
            "sh:[a",
            "fm:[",
            "*.tmp",
            "a:b",
            "re",
            "/re:(",
            "pp:/x",
            "pf:/x",
            "ää:x",
            "a b:x",
        ] {
            assert_eq!(check_exclude(good), Ok(()), "{good}");
        }
        for good in ["+/x", "-/x", "- re:\\.o$", "! sh:**/x", "R /", "r/", "P re", "p sh", "+\tre:a"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
    }
}
