//! Questions about this machine: its name, its processes, its file systems.

use crate::{Error, Result};
use std::fs::File;
use std::io;
use std::path::Path;

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// That a user without privileges may still take.
    pub available: u64,
}

/// The space of the file system that `path` is on.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Space { total: stat.f_blocks.saturating_mul(stat.f_frsize), available: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

/// The inodes of the file system that `path` is on: in all, and still to be had. (0, 0) where they are not counted, as on Btrfs.
pub fn inodes(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_files, stat.f_favail))
}

/// Whether there is a process of that number. One that belongs to somebody else counts, too.
#[must_use]
pub fn process_exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// This machine's name as it calls itself.
pub fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().map_err(|e| Error::io("cannot ask for the host's name", io::Error::from(e)))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Asks the system to read the whole file ahead.
pub fn read_ahead(file: &File) -> io::Result<()> {
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED;
    nix::fcntl::posix_fadvise(file, 0, 0, advice).map_err(io::Error::from)
}

/// The same for `bytes` from `offset` on.
pub fn read_ahead_of(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let [offset, bytes] = [offset, bytes].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED;
    nix::fcntl::posix_fadvise(file, offset, bytes, advice).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is() {
        assert!(process_exists(std::process::id()));
        // Above any limit that Linux has.
        assert!(!process_exists(i32::MAX as u32) && !process_exists(u32::MAX) && !process_exists(0));
        let space = space(Path::new("/")).unwrap();
        assert!(space.total >= space.available && space.total > 0);
        assert!(super::space(Path::new("/no such place")).is_err());
        assert!(!hostname().unwrap().is_empty());
        read_ahead(&File::open("/proc/self/exe").unwrap()).unwrap();
        read_ahead_of(&File::open("/proc/self/exe").unwrap(), 4096, 1 << 20).unwrap();
    }
}
