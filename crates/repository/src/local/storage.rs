//! The files of a repository. Everything this crate reads or writes inside of one goes through here, so that they could be somewhere else.

use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use unix::machine::Space;

/// The directory of one repository.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    root: PathBuf,
    /// Borg 1.x: `segments_per_dir`.
    per_directory: u32,
}

/// Size and time of the last change of a segment: together they tell whether somebody rewrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    pub(crate) mtime_ns: i64,
}

impl Storage {
    pub(crate) fn new(root: &Path, per_directory: u32) -> Storage {
        Storage { root: root.to_owned(), per_directory }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The numbers of all segment files, sorted, with their stamps.
    pub(crate) fn segments(&self) -> Result<Vec<(u32, Stamp)>> {
        let data = self.root.join("data");
        let mut found = vec![];
        for directory in numbers(&data)? {
            let path = data.join(directory.to_string());
            if !path.is_dir() {
                continue;
            }
            for segment in numbers(&path)? {
                // Borg looks for it nowhere else.
                if segment / self.per_directory == directory
                    && let Some(stamp) = self.stamp(segment)?
                {
                    found.push((segment, stamp));
                }
            }
        }
        found.sort_unstable_by_key(|(segment, _)| *segment);
        Ok(found)
    }

    /// A segment's stamp; None if there is no such file.
    pub(crate) fn stamp(&self, segment: u32) -> Result<Option<Stamp>> {
        match fs::metadata(self.path(segment)) {
            Ok(meta) if !meta.is_file() => Ok(None),
            Ok(meta) => {
                Ok(Some(Stamp { size: meta.len(), mtime_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()) }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("cannot look at", &self.path(segment), &e)),
        }
    }

    /// A new, empty segment. Its name is durable after [`Storage::sync_directory`].
    pub(crate) fn create(&self, segment: u32) -> Result<File> {
        let path = self.path(segment);
        let directory = self.directory(segment);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => self.sync(&self.root.join("data"))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("cannot create", &directory, &e)),
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        file.map_err(|e| failed("cannot create", &path, &e))
    }

    /// A segment, for reading; None if there is none.
    pub(crate) fn open(&self, segment: u32) -> Result<Option<File>> {
        match File::open(self.path(segment)) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("cannot open", &self.path(segment), &e)),
        }
    }

    /// Removes a segment, and its directory if it was the last one. It may be gone already.
    pub(crate) fn remove(&self, segment: u32) -> Result<()> {
        let path = self.path(segment);
        if let Err(e) = fs::remove_file(&path) {
            match e.kind() {
                io::ErrorKind::NotFound => {}
                // A copy-on-write file system may need space for removing a name; without its content the file takes none.
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    let emptied = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(0));
                    emptied.and_then(|()| fs::remove_file(&path)).map_err(|e| failed("cannot remove", &path, &e))?;
                }
                _ => return Err(failed("cannot remove", &path, &e)),
            }
        }
        // Refused as long as something is in it.
        let _ = fs::remove_dir(self.directory(segment));
        Ok(())
    }

    /// Whether both are in the same directory.
    pub(crate) fn are_neighbours(&self, one: u32, other: u32) -> bool {
        self.directory(one) == self.directory(other)
    }

    /// Makes it durable that this segment exists, or that it does not.
    pub(crate) fn sync_directory(&self, segment: u32) -> Result<()> {
        let directory = self.directory(segment);
        if directory.exists() { self.sync(&directory) } else { self.sync(&self.root.join("data")) }
    }

    /// A small file; None if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("cannot read", &path, &e)),
        }
    }

    /// Writes a small file, which is afterwards as before or complete, and durable.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        unix::files::write_private(&path, bytes).map_err(|e| match e.io_kind() {
            Some(kind) if is_full(kind) => Error::NoSpace(e.to_string()),
            _ => Error::Io(e.to_string()),
        })
    }

    /// Adds a line to a small file.
    pub(crate) fn append(&self, name: &str, line: &str) -> Result<()> {
        let path = self.root.join(name);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|e| failed("cannot write", &path, &e))
    }

    /// Removes a small file, which may be gone already.
    pub(crate) fn remove_file(&self, name: &str) -> Result<()> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("cannot remove", &path, &e)),
            _ => Ok(()),
        }
    }

    /// Removes what a killed process left of a small file that it was writing.
    pub(crate) fn remove_leftovers(&self) -> Result<()> {
        let names = self.names()?;
        let left = |name: &&String| {
            let hint = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp"));
            hint.is_some_and(|hint| ["config.", "nonce.", "hints.", "integrity.", "lock.roster."].iter().any(|kind| hint.starts_with(kind)))
        };
        names.iter().filter(left).try_for_each(|name| self.remove_file(name))
    }

    /// Gives a small file another name, in place of what had it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let path = self.root.join(to);
        fs::rename(self.root.join(from), &path).map_err(|e| failed("cannot rename to", &path, &e))
    }

    /// The names beside the segments.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let failed = |e| failed("cannot list", &self.root, &e);
        let entries = fs::read_dir(&self.root).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Makes the names beside the segments durable.
    pub(crate) fn sync_root(&self) -> Result<()> {
        self.sync(&self.root)
    }

    /// What the file system has.
    pub(crate) fn space(&self) -> Result<Space> {
        unix::machine::space(&self.root).map_err(|e| failed("cannot look at", &self.root, &e))
    }

    fn directory(&self, segment: u32) -> PathBuf {
        self.root.join("data").join((segment / self.per_directory).to_string())
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.directory(segment).join(segment.to_string())
    }

    fn sync(&self, directory: &Path) -> Result<()> {
        unix::files::fsync_dir(directory).map_err(|e| Error::Io(e.to_string()))
    }
}

/// The entries of a directory whose names are numbers.
fn numbers(directory: &Path) -> Result<Vec<u32>> {
    let failed = |e| failed("cannot list", directory, &e);
    let mut numbers = vec![];
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if name.bytes().all(|b| b.is_ascii_digit())
            && let Ok(number) = name.parse()
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error of the file system.
pub(crate) fn failed(doing: &str, path: &Path, e: &io::Error) -> Error {
    let text = format!("{doing} {}: {e}", path.display());
    if is_full(e.kind()) { Error::NoSpace(text) } else { Error::Io(text) }
}
