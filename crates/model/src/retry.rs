//! Whether and when a failed job is tried again without anybody asking.
//!
//! | cause                                                                             | tried again | first after | at most |
//! |-----------------------------------------------------------------------------------|-------------|-------------|---------|
//! | `session-lost`, `worker-crashed`, `borgcubed-restart`, `owner-lost`               | 3 times     | 1 min       | 15 min  |
//! | `client-connection-failed`, `client-cannot-reach-server`, `repository-unreachable`| 5 times     | 2 min       | 1 h     |
//! | `repository-lock-timeout`                                                         | 5 times     | 5 min       | 1 h     |
//! | `client-borg-killed`, `too-slow`                                                  | 2 times     | 10 min      | 1 h     |
//! | `view-stale`                                                                      | once        | at once     |         |
//! | anything else                                                                     | never       |             |         |
//!
//! Each wait is twice the one before, up to the last column, and then a random part of up to a quarter more, so that what failed together
//! does not come back together.

use crate::cause::Cause;
use crate::time::Timestamp;

struct Plan {
    attempts: u32,
    first: u64,
    longest: u64,
}

/// What a cause deserves. Spelled out for every cause: a new one has to be thought about.
fn plan(cause: &Cause) -> Option<Plan> {
    use Cause::*;
    let (attempts, first, longest) = match cause {
        SessionLost | WorkerCrashed | BorgcubedRestart | OwnerLost => (3, 60, 900),
        ClientConnectionFailed | ClientCannotReachServer | RepositoryUnreachable => (5, 120, 3600),
        RepositoryLockTimeout => (5, 300, 3600),
        ClientBorgKilled { .. } | TooSlow => (2, 600, 3600),
        ViewStale => (1, 0, 0),
        // Nothing of this is better in a while, and some of it is worse when it is tried again.
        RepositoryDoesNotExist
        | RepositoryInvalid
        | RepositoryCheckNeeded
        | RepositoryEnospc
        | RepositoryIdMismatch
        | RepositoryError
        | PassphraseWrong
        | KeyMissing
        | RepositoryIntegrity
        | DatabaseEnospc
        | HostKeyChanged
        | ClientBorgOutdated { .. }
        | ClientBorgMissing
        | ClientBorgBinary
        | ClientCache
        | ClientEnospc
        | ClientBorgFailed { .. }
        | ClientBorgRefused
        | PathMissing
        | PathsOverlap
        | ArchiveExists
        | ArchiveMissing
        | ArchiveInUse
        | PathNotInArchive
        | TargetNotEmpty
        | RestoreTestDamaged
        | RestoreTestDiffers
        | RestoreTestLiveDiffers
        | RestoreTestEnospc
        | ClientPermission
        | PolicyViolation { .. }
        | QuotaExceeded { .. }
        | Cancelled { .. }
        | ConfigMissing
        | HookFailed { .. }
        | DumpFailed { .. }
        | Internal => return None,
    };
    Some(Plan { attempts, first, longest })
}

/// How often a job that failed with `cause` is tried again at most.
#[must_use]
pub fn attempts(cause: &Cause) -> u32 {
    plan(cause).map_or(0, |plan| plan.attempts)
}

/// When a job that failed with `cause` is tried again, None: not without a person.
///
/// `attempts`: how often it was tried again already, 0 for the first failure. `seed`: anything that differs between jobs, such as the job's
/// number; the same arguments give the same answer.
#[must_use]
pub fn next_attempt(cause: &Cause, attempts: u32, now: Timestamp, seed: u64) -> Option<Timestamp> {
    let plan = plan(cause)?;
    if attempts >= plan.attempts {
        return None;
    }
    let wait = plan.first.saturating_mul(1_u64.checked_shl(attempts).unwrap_or(u64::MAX)).min(plan.longest);
    let spread = mix(seed ^ u64::from(attempts).rotate_left(32)) % (wait / 4 + 1);
    Some(now.plus_seconds(i64::try_from(wait + spread).unwrap_or(i64::MAX)))
}

/// Spreads the bits of a number over all of it (the finalizer of SplitMix64, which is in the public domain).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_300_000_000_000);

    fn waits(cause: &Cause, seed: u64) -> Vec<i64> {
        let mut waits = vec![];
        while let Some(at) = next_attempt(cause, waits.len() as u32, NOW, seed) {
            waits.push((at.0 - NOW.0) / 1_000_000);
        }
        waits
    }

    #[test]
    fn waits_double_up_to_their_limit_and_end() {
        for seed in 0..500 {
            let found = waits(&Cause::ClientConnectionFailed, seed);
            assert_eq!(found.len(), 5);
            for (wait, base) in found.iter().zip([120, 240, 480, 960, 1920]) {
                assert!((base..=base + base / 4).contains(wait), "seed {seed}: {wait} for {base}");
            }
            let found = waits(&Cause::RepositoryLockTimeout, seed);
            assert!((3600..=4500).contains(&found[4]), "{found:?}");
        }
        assert_eq!(waits(&Cause::ViewStale, 7), [0]);
        assert_eq!(waits(&Cause::SessionLost, 7).len(), 3);
    }

    #[test]
    fn what_failed_together_does_not_come_back_together() {
        let mut first: Vec<_> = (0..100).map(|seed| waits(&Cause::RepositoryLockTimeout, seed)[1]).collect();
        first.sort_unstable();
        first.dedup();
        assert!(first.len() > 40, "{first:?}");
        assert_eq!(waits(&Cause::SessionLost, 9), waits(&Cause::SessionLost, 9));
    }

    #[test]
    fn what_a_person_must_look_at_is_never_tried_again() {
        for cause in [
            Cause::PolicyViolation { rule: "x".into() },
            Cause::PassphraseWrong,
            Cause::HostKeyChanged,
            Cause::RepositoryCheckNeeded,
            Cause::RepositoryIntegrity,
            Cause::RepositoryEnospc,
            Cause::Cancelled { by: "root".into() },
            Cause::PathMissing,
            Cause::QuotaExceeded { limit: "bytes".into() },
        ] {
            assert_eq!(next_attempt(&cause, 0, NOW, 1), None, "{}", cause.word());
        }
        assert_eq!(next_attempt(&Cause::SessionLost, u32::MAX, NOW, 1), None);
    }
}
