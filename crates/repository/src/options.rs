//! How to open a repository.

use borg::RepositoryId;
use std::path::PathBuf;

/// How to open a repository.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// An absolute path, or `ssh://user@host[:port]/path`.
    pub url: String,
    /// The borg program that serves it, here or on the far side.
    pub borg: String,
    /// The ssh command for `ssh://`, as Borg's BORG_RSH.
    pub rsh: Option<String>,
    /// Seconds to wait for the lock.
    pub lock_wait: u64,
    /// Alone; needed for writing.
    pub exclusive: bool,
    /// Make it, where nothing is yet.
    pub create: bool,
    /// The identity under which this host takes locks, as Borg's BORG_HOST_ID.
    pub host_id: Option<String>,
    /// Refuse any other repository.
    pub expected: Option<RepositoryId>,
    /// Where our own index of a repository on this machine is kept, outside of the repository. None: it is built for this opening only.
    pub index: Option<PathBuf>,
    /// What writing leaves free in a repository on this machine.
    pub reserve: Reserve,
    /// Use `borg serve` on this machine, too.
    pub served: bool,
}

impl OpenOptions {
    /// Shared, any id, nothing created, ten seconds for the lock, no index kept.
    #[must_use]
    pub fn at(url: impl Into<String>) -> OpenOptions {
        OpenOptions {
            url: url.into(),
            borg: "borg".to_owned(),
            rsh: None,
            lock_wait: 10,
            exclusive: false,
            create: false,
            host_id: None,
            expected: None,
            index: None,
            reserve: Reserve::default(),
            served: false,
        }
    }
}

/// Free space that new objects must leave in the file system; deletions and commits may use it.
///
/// It is the larger one of `percent` of the file system and of `bytes`, the latter being no more than `at_most_percent` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// Hundredths of the file system.
    pub percent: u8,
    /// Bytes.
    pub bytes: u64,
    /// What `bytes` may be on a small file system, in hundredths of it.
    pub at_most_percent: u8,
}

impl Reserve {
    /// Nothing is kept free.
    pub const NONE: Reserve = Reserve { percent: 0, bytes: 0, at_most_percent: 0 };

    /// Bytes to leave free in a file system of `total` bytes.
    #[must_use]
    pub fn of(&self, total: u64) -> u64 {
        let share = |percent: u8| total / 100 * u64::from(percent);
        share(self.percent).max(self.bytes.min(share(self.at_most_percent)))
    }
}

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve { percent: 2, bytes: 1 << 30, at_most_percent: 10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_fits_its_file_system() {
        const GIB: u64 = 1 << 30;
        assert_eq!(Reserve::default().of(5 * GIB), 5 * GIB / 100 * 10);
        assert_eq!(Reserve::default().of(20 * GIB), GIB);
        assert_eq!(Reserve::default().of(100 * GIB), 100 * GIB / 100 * 2);
        assert_eq!(Reserve::NONE.of(100 * GIB), 0);
    }
}
