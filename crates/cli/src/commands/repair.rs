//! `borg check --repair` of a borg that is too old for it costs archives that are healthy: Borg 1.2.4 and older cuts the item stream of some
//! archives anew and leaves their authentication (TAM) as it was; newer ones then refuse or remove them. So such a command is looked at
//! before a repository is released to it.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command line is about to do to a repository's archives.
#[derive(Debug, PartialEq, Eq)]
pub enum Repair {
    /// It repairs nothing, as far as its words tell.
    None,
    /// It repairs, with a borg that is new enough.
    New,
    /// It repairs, with this one, which is too old.
    Old(String),
    /// It repairs, and which borg does so cannot be told.
    Unknown,
}

/// Looks at the words of a command, and asks the borgs among them for their versions.
pub fn of(command: &[OsString]) -> Repair {
    judge(command, &version)
}

fn judge(command: &[OsString], version: &dyn Fn(&str) -> Option<String>) -> Repair {
    // A shell's script is one word of ours.
    let text: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = text
        .iter()
        .flat_map(|word| word.split(|c: char| c.is_whitespace() || ";|&()'\"`{}".contains(c)))
        .filter(|w| !w.is_empty())
        .collect();
    // Borg 1.x takes an option also by its beginning, if no other one begins so.
    if !words.contains(&"check") || !words.iter().any(|word| word.len() >= 6 && "--repair".starts_with(word)) {
        return Repair::None;
    }
    if leaves_archives(&text) {
        return Repair::None;
    }
    let mut borgs: Vec<&str> = words.into_iter().filter(|word| is_borg(word)).collect();
    borgs.sort_unstable();
    borgs.dedup();
    let told: Vec<String> = borgs.into_iter().filter_map(version).collect();
    match told.iter().find(|version| !is_new(version)) {
        Some(old) => Repair::Old(old.clone()),
        None if told.is_empty() => Repair::Unknown,
        None => Repair::New,
    }
}

/// Only segment files are repaired, which any borg does: no archive is touched. A shell's script may have another command behind that one.
fn leaves_archives(words: &[String]) -> bool {
    let is_one_command = words.iter().all(|word| !word.contains(|c: char| c.is_whitespace() || ";|&()'\"`{}".contains(c)));
    is_one_command
        && words.iter().filter(|word| is_borg(word)).count() == 1
        && words.iter().any(|word| word.starts_with("--repos") && "--repository-only".starts_with(word.as_str()))
}

/// `borg`, `borg-1.4`, `borg-linux64` and the like. Anything else, such as a script, may do something when it is asked for a version.
fn is_borg(word: &str) -> bool {
    let name = Path::new(word).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let rest = name.strip_prefix("borg");
    rest.is_some_and(|rest| rest.starts_with("-linux") || rest.chars().all(|c| c.is_ascii_digit() || "-_.".contains(c)))
}

/// `borg --version` says `borg 1.4.0`.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let version = said.split_whitespace().nth(1)?;
    parts(version).map(|_| version.to_owned())
}

fn is_new(version: &str) -> bool {
    parts(version).is_some_and(|parts| parts >= (1, 4))
}

fn parts(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(command: &[&str]) -> Repair {
        let words: Vec<OsString> = command.iter().map(OsString::from).collect();
        judge(&words, &|program| match program {
            "borg" | "/usr/bin/borg" => Some("1.2.4".into()),
            "borg-1.4" => Some("1.4.0b1".into()),
            _ => None,
        })
    }

    #[test]
    fn repairs_by_old_borgs_are_seen() {
        let old = || Repair::Old("1.2.4".into());
        assert_eq!(judged(&["borg", "check", "--repair"]), old());
        assert_eq!(judged(&["sudo", "/usr/bin/borg", "-v", "check", "--repai"]), old());
        assert_eq!(judged(&["sh", "-c", "borg list;borg check --repair&&true"]), old());
        assert_eq!(judged(&["sh", "-c", "borg-1.4 check --repair; borg check"]), old());
        assert_eq!(judged(&["borg-1.4", "check", "--repair"]), Repair::New);
        assert_eq!(judged(&["sh", "-c", "cd /srv/borg && borg-1.4 check --repair"]), Repair::New);
        assert_eq!(judged(&["./mend-borg", "check", "--repair"]), Repair::Unknown);
        assert_eq!(judged(&["/opt/borg-wrapper.sh", "check", "--repair"]), Repair::Unknown);
        // What touches no archive spoils none; a script may have more in it than that.
        assert_eq!(judged(&["borg", "check", "--repair", "--repository-only"]), Repair::None);
        assert_eq!(judged(&["sh", "-c", "borg check --repair --repository-only; borg check --repair"]), old());
        assert_eq!(judged(&["borg", "check", "--repair", "--repo"]), old(), "another option begins so as well");
        for harmless in [&["borg", "check"][..], &["borg", "check", "--repository-only"], &["borg", "check", "--re"], &["borg", "list"]] {
            assert_eq!(judged(harmless), Repair::None, "{harmless:?}");
        }
    }

    #[test]
    fn versions() {
        for (version, new) in
            [("1.4.0", true), ("1.4.5", true), ("2.0.0b9", true), ("1.10", true), ("1.2.8", false), ("1.1.18", false), ("x", false)]
        {
            assert_eq!(is_new(version), new, "{version}");
        }
    }
}
