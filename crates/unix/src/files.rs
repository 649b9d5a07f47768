//! Files that have to be complete, durable and private.

use crate::{Error, Result, random};
use nix::libc;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Writes a file of mode 0600 that is afterwards either as before or complete, even after a power cut: written beside,
/// synced, renamed over, and the directory synced.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with_mode(path, bytes, 0o600)
}

/// The same with another mode, whatever the umask is; the group is the directory's if that has the setgid bit.
pub fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_owned(path, bytes, mode, None)
}

fn write_owned(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let failed = |e| Error::io(format!("cannot write {}", path.display()), e);
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!("\"{}\" names no file", path.display())));
    };
    let directory = parent(path);
    // The name is cut so that the random part fits behind the longest one.
    let hint: String = name.to_string_lossy().chars().take(32).collect();
    let temporary = directory.join(format!(".{hint}.{}.tmp", random::hex(8)?));
    let written = write_new(&temporary, bytes, mode, owner).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(failed(e));
    }
    fsync_dir(directory)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if mode != 0o600 {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.sync_all()
}

/// The same for a directory of somebody else: the file is complete and theirs before it has its name.
pub fn write_private_for(path: &Path, bytes: &[u8], uid: u32, gid: u32) -> Result<()> {
    write_owned(path, bytes, 0o600, Some((uid, gid)))
}

/// Gives a directory of this user's, and the files of these names in it, to another user. Symbolic links are not followed, and what is
/// theirs already is left alone with all that is in it: from then on they decide what its names mean.
pub fn hand_over(directory: &Path, names: &[&str], uid: u32, gid: u32) -> Result<()> {
    let failed = |what: &Path| {
        let message = format!("cannot give {} to another user", what.display());
        move |e: io::Error| Error::io(message.clone(), e)
    };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags | libc::O_DIRECTORY).open(directory).map_err(failed(directory))?;
    let meta = opened.metadata().map_err(failed(directory))?;
    if meta.uid() == uid {
        return Ok(());
    }
    if meta.uid() != crate::socket::own_uid() {
        return Err(Error::Invalid(format!("{} belongs to neither of the two users", directory.display())));
    }
    for name in names {
        let path = directory.join(name);
        // Until the last line below nobody else can change what is in the directory.
        match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) if file.metadata().map_err(failed(&path))?.is_file() => fchown(&file, Some(uid), Some(gid)).map_err(failed(&path))?,
            Ok(_) => return Err(Error::Invalid(format!("{} is not a file", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&path)(e)),
        }
    }
    fchown(&opened, Some(uid), Some(gid)).map_err(failed(directory))
}

/// The content of a file of at most `most` bytes; None if there is none. Symbolic links, pipes and larger files are errors.
pub fn read_small(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let failed = |e| Error::io(format!("cannot read {}", path.display()), e);
    // Not blocking: opening a pipe would otherwise wait for a writer before we can refuse it.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || meta.len() > most {
        return Err(Error::Invalid(format!("{} is not a file of at most {most} bytes", path.display())));
    }
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

/// What whoever has no privileges may still make in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// Files, directories and so on. None: the file system does not count them.
    pub files: Option<u64>,
    /// Bytes of a block: the least that anything takes.
    pub block: u64,
}

/// How much room there is in the file system of `path`.
pub fn room(path: &Path) -> Result<Room> {
    let found = rustix::fs::statvfs(path).map_err(|e| Error::io(format!("cannot look how much room there is in {}", path.display()), e))?;
    let files = (found.f_files > 0).then_some(found.f_favail);
    Ok(Room { bytes: found.f_bavail.saturating_mul(found.f_frsize), files, block: found.f_frsize })
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

    #[test]
    fn a_mode_is_kept_and_only_small_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        assert_eq!(read_small(&path, 10).unwrap(), None);
        write_with_mode(&path, b"0123456789", 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(read_small(&path, 10).unwrap().unwrap(), b"0123456789");
        assert!(read_small(&path, 9).is_err());
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        assert!(read_small(&directory.path().join("link"), 10).is_err());
        assert!(read_small(directory.path(), 10).is_err());
    }

    #[test]
    fn what_is_handed_over_already_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (uid, gid) = (crate::socket::own_uid(), fs::metadata(directory.path()).unwrap().gid());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        hand_over(directory.path(), &["link"], uid, gid).unwrap();
        assert!(hand_over(&link, &[], uid, gid).is_err());
        write_private_for(&directory.path().join("key"), b"k", uid, gid).unwrap();
        // Only root can go on: to nobody, whose links are not followed either.
        if uid == 0 {
            assert!(hand_over(directory.path(), &["link", "key"], 65534, 65534).is_err());
            assert_eq!(fs::metadata(directory.path()).unwrap().uid(), 0);
            hand_over(directory.path(), &["key", "missing"], 65534, 65534).unwrap();
            assert_eq!(fs::metadata(directory.path().join("key")).unwrap().uid(), 65534);
            assert_eq!(fs::metadata(directory.path()).unwrap().uid(), 65534);
        }
    }

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
