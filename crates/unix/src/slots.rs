//! Places of which there are few, each held by one process at most: locked bytes of a file in which nothing is ever written.
//!
//! The kernel gives a place back when its process ends, however that happens, and there are no files to tidy up.

use crate::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bits of an offset that number the places of one family.
const BITS: u32 = 16;

/// A place is held until this is dropped.
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

/// The file with all places.
#[derive(Debug)]
pub struct Slots<'a> {
    path: &'a Path,
}

impl Slots<'_> {
    /// That of this file, which is made if it is not there: mode 0600, no symbolic link.
    pub fn at(path: &Path) -> Slots<'_> {
        Slots { path }
    }

    /// Takes one of the places `which` of a family, whose number is to be the hash of what it is for (47 bits of it count). None: others
    /// have them all.
    pub fn take(&self, family: u64, which: std::ops::Range<u16>) -> Result<Option<Slot>> {
        let failed = |e: std::io::Error| Error::io(format!("cannot use {}", self.path.display()), e);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.path)
            .map_err(failed)?;
        // So that the last offset is still one.
        let base = (family >> (BITS + 1) << BITS) as libc::off_t;
        for number in which {
            let lock = libc::flock {
                l_type: libc::F_WRLCK as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: base | libc::off_t::from(number),
                l_len: 1,
                l_pid: 0,
            };
            // Of the open file, not of the process: nothing else of it can give the place back by accident.
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
                Ok(_) => return Ok(Some(Slot { _file: file })),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(e) => return Err(failed(e.into())),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_places_and_gets_them_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("places");
        let slots = Slots::at(&path);
        for family in [0, u64::MAX, 1 << 17, 0x0123_4567_89ab_cdef] {
            let held: Vec<_> = (0..3).map(|_| slots.take(family, 0..3).unwrap().unwrap()).collect();
            assert!(slots.take(family, 0..3).unwrap().is_none());
            // Others are no matter of theirs.
            assert!(slots.take(family, 3..4).unwrap().is_some());
            assert!(slots.take(!family, 0..3).unwrap().is_some());
            drop(held);
            assert!(slots.take(family, 0..1).unwrap().is_some());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn no_child_keeps_a_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("places");
        let slots = Slots::at(&path);
        let held = slots.take(7, 0..1).unwrap().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(held);
        assert!(slots.take(7, 0..1).unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [directory.path(), &link, Path::new("/no/such/place")] {
            assert!(Slots::at(path).take(1, 0..1).is_err(), "{}", path.display());
        }
    }
}
