//! What the commands that read an archive share: finding it, opening it, and telling what is wrong with single files.

use crate::commands::{archive as archives, owner, repository};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::output::count;
use archive::{Selection, Source};
use clap_complete::ArgValueCandidates;
use model::RepositoryName;
use serde::Serialize;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Complaints that are named; more are counted.
const NAMED: usize = 1000;

/// Which archive.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Name, id, or the beginning of an id (at least 8 digits)
    #[arg(value_name = "ARCHIVE", add = ArgValueCandidates::new(complete::archives))]
    pub archive: String,
    /// Look in this repository; needed for archives that BorgCube did not make
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    pub repository: Option<RepositoryName>,
}

/// Which files of it.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// Take these paths only, with all that is below them; or patterns of borg help patterns (sh:, fm:, re:, pf:, pp:)
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Leave out what matches this pattern (fm: if it has no style)
    #[arg(long, short, value_name = "PATTERN")]
    pub exclude: Vec<OsString>,
}

impl Files {
    /// The selection, without so many leading directories.
    pub fn selection(&self, strip: usize) -> Result<Selection> {
        let bytes = |words: &[OsString]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        Selection::new(&bytes(&self.paths), &bytes(&self.exclude), strip).map_err(|e| Error::usage(e.to_string()))
    }
}

/// An open archive.
pub struct Opened {
    /// Where it comes from.
    pub source: Source,
    /// The repository.
    pub repository: RepositoryName,
    /// How many files there are, if BorgCube has a record of it.
    pub files: Option<u64>,
}

/// Finds an archive, by its record or in the manifest, and connects to the owner.
pub fn open(which: &Which, context: &Context) -> Result<Opened> {
    let (repository, wanted, files) = match (archives::find(context, &which.archive, which.repository.clone())?, &which.repository) {
        (Some(record), _) => (record.repository, record.id, Some(record.statistics.nfiles)),
        (None, Some(repository)) => (repository.clone(), which.archive.clone(), None),
        (None, None) => {
            let error = archives::unknown(&which.archive);
            return Err(error.hint("Archives that BorgCube did not make need --repository REPOSITORY."));
        }
    };
    repository::find(&mut context.control()?, &repository)?;
    let socket = context.layout.repository_socket(repository.as_str());
    let connect = move || unix::socket::connect(&socket);
    let source = Source::open(Arc::new(connect), &wanted).map_err(|e| error(e, &repository))?;
    if !source.readable.is_signed {
        log::info!("the archive's metadata is not signed: it was made by a borg before 1.0.9, or changed by one before 1.2.5");
    }
    Ok(Opened { source, repository, files })
}

/// An error of reading as one of this program.
pub fn error(error: archive::Error, repository: &RepositoryName) -> Error {
    match error {
        archive::Error::Owner(failure) => {
            let known = failure.message.contains("has no archive");
            match known {
                true => Error::not_found(failure.message).hint("borgcube archive list shows what there is; borg list, what others made."),
                false => owner::error(&failure, repository.as_str()),
            }
        }
        archive::Error::Connect(error) => match error.io_kind() {
            Some(io::ErrorKind::PermissionDenied) => Error::new(Kind::Permission, error.to_string())
                .hint("Root, the user who runs BorgCube and members of the group borgcube may read archives."),
            _ => Error::new(Kind::Unreachable, format!("nobody listens for repository {repository}: {error}")),
        },
        archive::Error::Unreachable(why) => Error::new(Kind::Unreachable, why).hint("The log of the repository's owner tells why."),
        archive::Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => Error::new(Kind::BrokenPipe, "nobody reads the output"),
        archive::Error::Pattern(..) => Error::usage(error.to_string()),
        archive::Error::Wire(_) => Error::failed(error.to_string()).hint("Are all programs of BorgCube of the same version?"),
        other => Error::failed(other.to_string()),
    }
}

/// What was wrong with single files.
#[derive(Debug, Default, Serialize)]
pub struct Complaints {
    /// The first of them.
    pub errors: Vec<Complaint>,
    /// How many there were.
    pub error_count: u64,
    #[serde(skip)]
    is_silent: bool,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct Complaint {
    /// The file's path, if it is about one.
    #[serde(flatten)]
    pub path: Option<Path>,
    /// What is wrong.
    pub message: String,
}

/// A path in an archive, in JSON.
#[derive(Debug, Serialize)]
pub struct Path {
    /// As text: what is no text, and what would move a cursor, is escaped, and a backslash is two.
    path: String,
    /// Its bytes in hex digits, if they differ from that text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl Path {
    /// Of the bytes in an archive.
    pub fn new(bytes: &[u8]) -> Path {
        match std::str::from_utf8(bytes) {
            // JSON escapes what it has to.
            Ok(text) => Path { path: text.to_owned(), path_hex: None },
            Err(_) => {
                Path { path: unix::logging::escape_bytes(bytes), path_hex: Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()) }
            }
        }
    }
}

impl Complaints {
    /// They are printed as they come, unless the result is wanted as JSON.
    pub fn new(context: &Context) -> Complaints {
        Complaints { is_silent: context.json, ..Complaints::default() }
    }

    /// One more.
    pub fn add(&mut self, path: Option<&[u8]>, message: &str) {
        self.error_count += 1;
        if let Some(line) = self.line(path, message) {
            // When standard error is gone, too, the exit code still tells.
            let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        }
        if self.errors.len() < NAMED {
            self.errors.push(Complaint { path: path.map(Path::new), message: message.to_owned() });
        }
    }

    /// What is printed of the one that was counted last.
    fn line(&self, path: Option<&[u8]>, message: &str) -> Option<String> {
        let name = || path.map_or_else(|| "the archive".to_owned(), unix::logging::escape_bytes);
        match self.error_count {
            _ if self.is_silent => None,
            n if n <= NAMED as u64 => Some(format!("{}: {message}\n", name())),
            n if n == NAMED as u64 + 1 => Some("There are more; they are counted, and not named.\n".to_owned()),
            _ => None,
        }
    }

    /// What was asked for and is not there.
    pub fn unmatched(&mut self, selection: &Selection) {
        let names: Vec<String> = selection.unmatched().map(str::to_owned).collect();
        for name in names {
            self.add(None, &format!("nothing in it matches {name}"));
        }
    }

    /// An error, if there was anything.
    pub fn verdict(&self, what: &str) -> Result<()> {
        match self.error_count {
            0 => Ok(()),
            n => Err(Error::failed(format!("{what}, but not everything: there was trouble with {}", count(n, "file")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_is_all_damaged_fills_no_screen() {
        let at = |error_count| Complaints { error_count, ..Complaints::default() }.line(Some(b"a\x1b"), "zeros");
        assert_eq!(at(1).unwrap(), "a\\u{1b}: zeros\n");
        assert!(at(1000).unwrap().starts_with("a"));
        assert!(at(1001).unwrap().contains("counted, and not named"));
        assert_eq!(at(1002), None);
        assert_eq!(Complaints { error_count: 1, is_silent: true, ..Complaints::default() }.line(None, "x"), None);
    }
}
