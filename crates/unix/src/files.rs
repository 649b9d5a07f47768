//! Files that have to be complete, durable and private.

use crate::{Error, Result, random};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file of mode 0600 that is afterwards either as before or complete, even after a power cut: written beside,
/// synced, renamed over, and the directory synced.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io(format!("cannot write {}", path.display()), e);
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!("\"{}\" names no file", path.display())));
    };
    let directory = parent(path);
    // The name is cut so that the random part fits behind the longest one.
    let hint: String = name.to_string_lossy().chars().take(32).collect();
    let temporary = directory.join(format!(".{hint}.{}.tmp", random::hex(8)?));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(failed(e));
    }
    fsync_dir(directory)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes creations, renames and deletions in a directory durable.
pub fn fsync_dir(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| Error::io(format!("cannot sync the directory {}", directory.display()), e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_new_file_replaces_the_old_one_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "old and longer").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let mut before = File::open(&path).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(names(directory.path()), ["key"]);
        // Replaced, not overwritten: who had it open still sees the whole old one.
        assert_eq!(io::read_to_string(&mut before).unwrap(), "old and longer");
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_private(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert_eq!(names(directory.path()), ["taken"]);
        let missing = write_private(&directory.path().join("no/file"), b"x").unwrap_err();
        assert_eq!(missing.io_kind(), Some(io::ErrorKind::NotFound));
        assert!(write_private(Path::new("/"), b"x").is_err());
    }

    #[test]
    fn the_longest_name_still_works() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n".repeat(255));
        write_private(&path, b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn only_what_exists_can_be_synced() {
        let directory = tempfile::tempdir().unwrap();
        fsync_dir(directory.path()).unwrap();
        assert!(fsync_dir(&directory.path().join("missing")).is_err());
    }
}
