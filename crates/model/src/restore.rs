//! Restores to a client: what of an archive, and where to.

use crate::borg_pattern::{check_exclude, check_pattern};
use crate::names::ClientName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest list of paths, patterns or excludes: together they have to fit into a command line on the client.
pub const MAX_WORDS: usize = 1000;

/// Bytes of all of them.
pub const MAX_BYTES: usize = 64 << 10;

/// What one `borg extract` on a client restores, and where to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Restore {
    /// The archive's name.
    pub archive: String,
    /// Its id in the repository, 64 hex digits.
    pub id: String,
    /// Whose archive it is.
    pub of: ClientName,
    /// Paths in the archive, with everything below them. None: all of it.
    #[serde(default)]
    pub paths: Vec<String>,
    /// `borg extract --pattern` lines.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// `borg extract --exclude` patterns.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// Where to, on the client.
    pub target: Target,
    /// Blocks of zeros become holes.
    #[serde(default)]
    pub sparse: bool,
    /// Begin even if the target has less room than all files need.
    #[serde(default)]
    pub ignore_space: bool,
}

/// Where a restore writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Into a new directory in the home of the client's user, which BorgCube names.
    #[default]
    New,
    /// Into this directory, which is new or empty.
    Directory(String),
    /// Where the files were, over what is there.
    InPlace,
}

impl Target {
    /// What a new directory is called, in the home of the client's user.
    #[must_use]
    pub fn new_directory(job: u64) -> String {
        format!("borgcube-restore-{job}")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::New => f.write_str("a new directory"),
            Target::Directory(path) => f.write_str(path),
            Target::InPlace => f.write_str("place"),
        }
    }
}

impl Restore {
    /// Whether everything in the archive is restored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.has_all_paths() && self.patterns.is_empty() && self.excludes.is_empty()
    }

    /// The same without these files of the archive, whatever else selects them.
    ///
    /// # Errors
    /// With what they are together, they do not fit into a command line.
    pub fn without(&self, files: &[Vec<u8>]) -> Result<Restore, String> {
        let mut less = self.clone();
        less.excludes.splice(0..0, files.iter().map(|path| exactly(path)));
        less.check()?;
        Ok(less)
    }

    /// The paths as patterns with their style; none: everything.
    #[must_use]
    pub fn path_patterns(&self) -> Vec<String> {
        if self.has_all_paths() { vec![] } else { self.paths.iter().map(|path| format!("pp:{}", inside(path))).collect() }
    }

    fn has_all_paths(&self) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|path| inside(path).is_empty())
    }

    /// Says what is wrong with it before a job is made of it.
    pub fn check(&self) -> Result<(), String> {
        crate::names::check_archive_name(&self.archive).map_err(|e| e.to_string())?;
        if self.id.len() != 64 || !self.id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("{:?} is no archive's id", self.id));
        }
        let words = [&self.paths, &self.patterns, &self.excludes];
        let (count, bytes) = words.iter().copied().flatten().fold((0, 0), |(count, bytes), word| (count + 1, bytes + word.len()));
        if count > MAX_WORDS || bytes > MAX_BYTES {
            return Err(format!(
                "{count} paths and patterns of {bytes} bytes are too many for one restore; at most {MAX_WORDS} of {MAX_BYTES} bytes fit into a command line"
            ));
        }
        for text in words.into_iter().flatten() {
            if text.is_empty() || text.chars().any(|c| c == '\0' || c == '\n') {
                return Err(format!("{text:?} must be neither empty nor contain a line break"));
            }
        }
        self.patterns.iter().try_for_each(|text| check_pattern(text))?;
        self.excludes.iter().try_for_each(|text| check_exclude(text))?;
        for path in &self.paths {
            if inside(path).split('/').any(|part| part == "..") {
                return Err(format!("the path {path:?} leads out of the archive: no path there has .. in it"));
            }
        }
        if let Target::Directory(path) = &self.target
            && (!path.starts_with('/') || path.chars().any(char::is_control))
        {
            return Err(format!("the directory {path:?} must be an absolute path on the client"));
        }
        Ok(())
    }

    /// The arguments of `borg`; the repository comes by BORG_REPO.
    #[must_use]
    pub fn borg_arguments(&self) -> Vec<String> {
        let mut args: Vec<String> = ["extract", "--log-json"].map(String::from).to_vec();
        // With it, borg reads the list of files twice (Borg 1.x: it adds up the sizes). Of a whole archive the server counts what was read.
        if !self.is_whole() {
            args.push("--progress".into());
        }
        if self.sparse {
            args.push("--sparse".into());
        }
        args.extend(self.excludes.iter().map(|e| format!("--exclude={e}")));
        args.extend(self.patterns.iter().map(|p| format!("--pattern={p}")));
        args.push("--".into());
        args.push(format!("::{}", self.archive));
        // Borg 1.x: what stands here is a path unless it begins with the name of a style.
        args.extend(self.path_patterns());
        args
    }
}

/// A path as it stands in archives. (Borg 1.x: without the slash at its beginning; everything is below the empty path.)
fn inside(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The pattern of Borg's that matches this path and no other. (Borg 1.x looks for `pf:` before all other patterns.) It is a text without line breaks,
/// as words of a command line are here.
fn exactly(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(|c| c == '\n' || c == '\0') => format!("pf:{text}"),
        _ => {
            let mut pattern = "re:\\A".to_owned();
            for chunk in path.utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        '\n' => pattern.push_str("\\n"),
                        '\0' => pattern.push_str("\\x00"),
                        c if c.is_ascii_alphanumeric() || !c.is_ascii() => pattern.push(c),
                        c => pattern.extend(['\\', c]),
                    }
                }
                // Python's surrogateescape: each is one character.
                pattern.extend(chunk.invalid().iter().map(|byte| format!("\\udc{byte:02x}")));
            }
            pattern + "\\Z"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restore() -> Restore {
        Restore {
            archive: "web1-etc-1".into(),
            id: "0f".repeat(32),
            of: "web1".parse().unwrap(),
            paths: vec![],
            patterns: vec![],
            excludes: vec![],
            target: Target::New,
            sparse: false,
            ignore_space: false,
        }
    }

    #[test]
    fn what_borg_is_told() {
        let all = restore();
        assert!(all.is_whole() && all.check().is_ok());
        assert_eq!(Restore { paths: vec!["/".into(), "etc".into()], ..restore() }.borg_arguments(), all.borg_arguments());
        assert_eq!(all.borg_arguments(), ["extract", "--log-json", "--", "::web1-etc-1"]);
        let some = Restore {
            paths: vec!["/etc/ssh".into(), "re:x".into(), "--help".into()],
            patterns: vec!["- *.o".into()],
            excludes: vec!["-n".into()],
            sparse: true,
            ..restore()
        };
        assert!(!some.is_whole() && some.check().is_ok());
        let expected = "extract --log-json --progress --sparse --exclude=-n --pattern=- *.o -- ::web1-etc-1 pp:etc/ssh pp:re:x pp:--help";
        assert_eq!(some.borg_arguments().join(" "), expected);
    }

    #[test]
    fn files_are_left_out_before_anything_selects_them() {
        let some = Restore { paths: vec!["/etc".into()], excludes: vec!["*.o".into()], patterns: vec!["+ x".into()], ..restore() };
        let less = some.without(&[b"etc/it's *".to_vec(), b"etc/a.\xff\n-b\xc3\xa4".to_vec()]).unwrap();
        assert_eq!(less.excludes, ["pf:etc/it's *", "re:\\Aetc\\/a\\.\\udcff\\n\\-b\u{e4}\\Z", "*.o"]);
        assert_eq!((&less.paths, less.path_patterns()), (&some.paths, vec!["pp:etc".to_owned()]));
        assert!(restore().without(&vec![b"x".to_vec(); MAX_WORDS + 1]).unwrap_err().contains("too many"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = |change: fn(&mut Restore)| {
            let mut restore = restore();
            change(&mut restore);
            restore.check().unwrap_err()
        };
        assert!(wrong(|r| r.id = "x".into()).contains("no archive's id"));
        assert!(wrong(|r| r.paths = vec![String::new()]).contains("empty"));
        assert!(wrong(|r| r.patterns = vec!["a\nb".into()]).contains("line break"));
        assert!(wrong(|r| r.paths = vec!["etc/../../x".into()]).contains(".."));
        assert!(wrong(|r| r.paths = vec!["x".into(); MAX_WORDS + 1]).contains("too many"));
        assert!(wrong(|r| r.target = Target::Directory("relative".into())).contains("absolute"));
        assert!(wrong(|r| r.target = Target::Directory("/a\nb".into())).contains("absolute"));
    }
}
