//! Who comes with tokens that nobody knows is not listened to for a while.
//!
//! Tokens have 256 random bits; nobody guesses one. What this bounds is the noise: each miss is in the log once, and a host that goes
//! on is refused without looking. What is remembered are times, in one small file for each peer.

use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// So many misses within [`WINDOW`] are the last that are looked up.
pub const MISSES: usize = 5;

/// How long a miss counts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Files of peers that were not heard of for so long go with the next miss of anybody.
const FORGET: Duration = Duration::from_secs(3600);

/// The times are written as milliseconds, 8 bytes each.
const TIME: usize = 8;

/// What is remembered of one peer.
pub struct Stranger {
    directory: PathBuf,
    file: PathBuf,
}

impl Stranger {
    /// `peer` is what sshd says of it; the files are below `run`.
    pub fn new(run: &Path, peer: &[u8]) -> Stranger {
        let directory = run.join("misses");
        let digest: [u8; 32] = Sha256::digest(peer).into();
        let file = directory.join(borg::Id(digest).to_hex());
        Stranger { directory, file }
    }

    /// Whether it has had its chances.
    pub fn is_refused(&self, now: SystemTime) -> bool {
        let now = millis(now);
        let since = now.saturating_sub(WINDOW.as_millis() as u64);
        // A clock that was put back, or who wrote there, must not shut anybody out for longer than the window.
        self.misses().iter().filter(|time| (since + 1..=now).contains(*time)).count() >= MISSES
    }

    /// It came with a token that nobody knows.
    pub fn missed(&self, now: SystemTime) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        self.forget_others(now);
        let mut times = self.misses();
        times.retain(|time| *time <= millis(now));
        times.push(millis(now));
        let kept = &times[times.len().saturating_sub(MISSES)..];
        let bytes: Vec<u8> = kept.iter().flat_map(|time| time.to_le_bytes()).collect();
        // Two at once may lose one miss, which is no harm. For the group, because on an installed server each session is a user of its own.
        unix::files::write_with_mode(&self.file, &bytes, 0o660).map_err(std::io::Error::other)
    }

    fn misses(&self) -> Vec<u64> {
        // Other sessions can write there: neither a pipe nor a link is waited for or followed, and both count as nothing.
        let bytes = match unix::files::read_small(&self.file, (MISSES * TIME) as u64) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(e) => {
                log::info!("{e}");
                vec![]
            }
        };
        bytes.as_chunks::<TIME>().0.iter().take(MISSES).map(|time| u64::from_le_bytes(*time)).collect()
    }

    fn forget_others(&self, now: SystemTime) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > FORGET));
            if old && let Err(e) = fs::remove_file(entry.path()) {
                log::debug!("{}: {e}", entry.path().display());
            }
        }
    }
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a01_five_misses_a_minute() {
        let run = tempfile::tempdir().unwrap();
        let (one, other) = (Stranger::new(run.path(), b"192.0.2.1"), Stranger::new(run.path(), b"192.0.2.2"));
        let begin = SystemTime::now();
        for n in 0..5 {
            assert!(!one.is_refused(begin + Duration::from_secs(n)));
            one.missed(begin + Duration::from_secs(n)).unwrap();
        }
        assert!(one.is_refused(begin + Duration::from_secs(5)) && !other.is_refused(begin + Duration::from_secs(5)));
        assert!(one.is_refused(begin + Duration::from_secs(59)));
        assert!(!one.is_refused(begin + Duration::from_secs(61)), "the first counts no longer");
        other.missed(begin + FORGET * 2).unwrap();
        assert!(!one.file.exists() && other.file.exists());
    }

    #[test]
    fn a01_what_lies_in_the_way_is_not_waited_for() {
        let run = tempfile::tempdir().unwrap();
        let (one, begin) = (Stranger::new(run.path(), b"192.0.2.1"), SystemTime::now());
        fs::create_dir(&one.directory).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&one.file).status().unwrap().success());
        assert!(!one.is_refused(begin));
        one.missed(begin).unwrap();
        assert_eq!(fs::read(&one.file).unwrap().len(), TIME, "a file is there instead");
        for _ in 0..5 {
            one.missed(begin + FORGET).unwrap();
        }
        assert!(one.is_refused(begin + FORGET) && !one.is_refused(begin), "these are in the future");
        one.missed(begin).unwrap();
        assert_eq!(fs::read(&one.file).unwrap().len(), TIME);
    }
}
