//! Why jobs fail: a fixed list of words, each with what to do about it.

use crate::work::JobKind;
use serde::{Deserialize, Serialize};

/// A failure cause. The word is stable: scripts and alerts may compare it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum Cause {
    /// There is no repository at the recorded place.
    RepositoryDoesNotExist,
    /// What is there is no Borg 1.x repository.
    RepositoryInvalid,
    /// Borg asks for `borg check --repair`.
    RepositoryCheckNeeded,
    /// The repository's file system is full, or its quota used up.
    RepositoryEnospc,
    /// Somebody else holds the repository's lock.
    RepositoryLockTimeout,
    /// Another repository answers than the one recorded.
    RepositoryIdMismatch,
    /// The repository's borg could not be run or reached.
    RepositoryUnreachable,
    /// The repository answered with an error that has no word of its own.
    RepositoryError,
    /// The passphrase does not open the repository's key.
    PassphraseWrong,
    /// The repository's key is missing where it should be.
    KeyMissing,
    /// The manifest or an object does not bear the repository key's signature.
    RepositoryIntegrity,
    /// The database's file system is full.
    DatabaseEnospc,
    /// The owner process could not be reached or ended.
    OwnerLost,
    /// SSH to the client failed.
    ClientConnectionFailed,
    /// The client's host key is not the known one.
    HostKeyChanged,
    /// The client's borg is older than BorgCube supports.
    ClientBorgOutdated {
        /// What the client has.
        version: String,
    },
    /// There is no borg on the client.
    ClientBorgMissing,
    /// No Borg binary of this server can be used there.
    ClientBorgBinary,
    /// The client's cache directory can't be used.
    ClientCache,
    /// The client's disk is full.
    ClientEnospc,
    /// The client's borg could not connect back to this server.
    ClientCannotReachServer,
    /// The client's borg was killed.
    ClientBorgKilled {
        /// The signal's number.
        signal: i32,
    },
    /// The client's borg ended with an error that has no word of its own.
    ClientBorgFailed {
        /// Its exit code.
        code: i32,
        /// Borg's message id, if it gave one.
        msgid: String,
    },
    /// The client's borg does not take what the config says: a pattern, a compression, an option.
    ClientBorgRefused,
    /// A path of the config does not exist on the client, and nothing else was backed up.
    PathMissing,
    /// A hook of the config failed on the client.
    HookFailed {
        /// Its name.
        hook: String,
    },
    /// The command of a dump failed on the client, or its output did not get into the archive as a whole.
    DumpFailed {
        /// Its name.
        dump: String,
    },
    /// Paths of the config contradict each other.
    PathsOverlap,
    /// The repository has an archive of that name.
    ArchiveExists,
    /// The repository has no archive of that name and id, or nobody knows its chunks.
    ArchiveMissing,
    /// A restore reads the archive.
    ArchiveInUse,
    /// Nothing of what was to be restored is in the archive.
    PathNotInArchive,
    /// Something is in the directory that the archive was to be restored into.
    TargetNotEmpty,
    /// The client's user may not write where the archive was to be restored.
    ClientPermission,
    /// Files of a restore test could not be extracted whole.
    RestoreTestDamaged,
    /// A restore test found another content than was recorded or expected.
    RestoreTestDiffers,
    /// A restore test found another content on the client, in a file of the same size and time.
    RestoreTestLiveDiffers,
    /// There is no room on this server for what a restore test extracts.
    RestoreTestEnospc,
    /// The session ended before the archive was complete.
    SessionLost,
    /// The client refers to a chunk that is no longer there.
    ViewStale,
    /// The worker was gone when the queue daemon came back.
    BorgcubedRestart,
    /// The worker ended without a result.
    WorkerCrashed,
    /// The client did what a backup does not do.
    PolicyViolation {
        /// The rule's name.
        rule: String,
    },
    /// A limit of this server was reached.
    QuotaExceeded {
        /// The limit's name.
        limit: String,
    },
    /// The client was too slow.
    TooSlow,
    /// A person cancelled the job.
    Cancelled {
        /// Who.
        by: String,
    },
    /// The config, client or repository went away before the job began.
    ConfigMissing,
    /// Something that should not happen; the log has more.
    Internal,
}

/// A cause with the sentence that tells what happened this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The word.
    pub cause: Cause,
    /// One sentence, escaped for printing.
    pub message: String,
}

impl Failure {
    /// A failure; line breaks in `message` become spaces: it is one sentence.
    pub fn new(cause: Cause, message: impl Into<String>) -> Failure {
        let mut message = message.into().replace(['\n', '\r'], " ");
        if message.len() > 1000 {
            let end = (0..=1000).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Failure { cause, message }
    }

    /// `word: sentence`.
    pub fn line(&self) -> String {
        format!("{}: {}", self.cause.word(), self.message)
    }
}

impl Cause {
    /// The stable word.
    pub fn word(&self) -> &'static str {
        use Cause::*;
        match self {
            RepositoryDoesNotExist => "repository-does-not-exist",
            RepositoryInvalid => "repository-invalid",
            RepositoryCheckNeeded => "repository-check-needed",
            RepositoryEnospc => "repository-enospc",
            RepositoryLockTimeout => "repository-lock-timeout",
            RepositoryIdMismatch => "repository-id-mismatch",
            RepositoryUnreachable => "repository-unreachable",
            RepositoryError => "repository-error",
            PassphraseWrong => "passphrase-wrong",
            KeyMissing => "key-missing",
            RepositoryIntegrity => "repository-integrity",
            DatabaseEnospc => "database-enospc",
            OwnerLost => "owner-lost",
            ClientConnectionFailed => "client-connection-failed",
            HostKeyChanged => "host-key-changed",
            ClientBorgOutdated { .. } => "client-borg-outdated",
            ClientBorgMissing => "client-borg-missing",
            ClientBorgBinary => "client-borg-binary",
            ClientCache => "client-cache",
            ClientEnospc => "client-enospc",
            ClientCannotReachServer => "client-cannot-reach-server",
            ClientBorgKilled { .. } => "client-borg-killed",
            ClientBorgFailed { .. } => "client-borg-failed",
            ClientBorgRefused => "client-borg-refused",
            PathMissing => "path-missing",
            HookFailed { .. } => "hook-failed",
            DumpFailed { .. } => "dump-failed",
            PathsOverlap => "paths-overlap",
            ArchiveExists => "archive-exists",
            ArchiveMissing => "archive-missing",
            ArchiveInUse => "archive-in-use",
            PathNotInArchive => "path-not-in-archive",
            TargetNotEmpty => "target-not-empty",
            ClientPermission => "client-permission",
            RestoreTestDamaged => "restore-test-damaged",
            RestoreTestDiffers => "restore-test-differs",
            RestoreTestLiveDiffers => "restore-test-live-differs",
            RestoreTestEnospc => "restore-test-enospc",
            SessionLost => "session-lost",
            ViewStale => "view-stale",
            BorgcubedRestart => "borgcubed-restart",
            WorkerCrashed => "worker-crashed",
            PolicyViolation { .. } => "policy-violation",
            QuotaExceeded { .. } => "quota-exceeded",
            TooSlow => "too-slow",
            Cancelled { .. } => "cancelled",
            ConfigMissing => "config-missing",
            Internal => "internal",
        }
    }

    /// Whether it says of an archive that it cannot be relied upon. All others say something of the job, of whoever asked for it, or of the machines.
    #[must_use]
    pub fn is_about_archive(&self) -> bool {
        use Cause::*;
        matches!(
            self,
            RestoreTestDamaged | RestoreTestDiffers | RestoreTestLiveDiffers | ArchiveMissing | RepositoryIntegrity | RepositoryCheckNeeded
        )
    }

    /// What to do next, when it has ended a job of this kind.
    #[must_use]
    pub fn advice_for(&self, kind: JobKind) -> &'static str {
        use Cause::*;
        match (self, kind) {
            (_, JobKind::Backup) => self.advice(),
            (QuotaExceeded { .. }, JobKind::RestoreTest) => {
                "Name fewer paths, let --files draw some of the files, or raise --bytes; beyond that are limits of the server, which `borgcube settings edit` raises."
            }
            (QuotaExceeded { .. }, _) => "`borgcube settings show` has the limits of this server, and `settings edit` raises them.",
            (RepositoryEnospc, _) => {
                "Free space on the repository's file system by other means; then `archive delete` and `repository compact` can free more."
            }
            (SessionLost, _) => "The connection or its process ended early; run it again.",
            (OwnerLost, _) => "The repository's owner process ended; it starts again by itself. Run it again.",
            (BorgcubedRestart | WorkerCrashed, JobKind::Import) => "Run it again: what was imported by then stays, and is left alone then.",
            (BorgcubedRestart | WorkerCrashed, _) => "Run it again.",
            (Cancelled { .. }, _) => "Run it again when you want it.",
            (ClientBorgRefused, _) => {
                "The client's borg does not take a pattern or option of this job: say it otherwise, and run it again."
            }
            (ClientEnospc, JobKind::Restore) => "Make room on the client's file system that is restored to.",
            (ClientBorgKilled { .. }, _) => "Look for the out-of-memory killer or a shutdown in the client's log, then run it again.",
            _ => self.advice(),
        }
    }

    /// What to do next, when it has ended a backup.
    pub fn advice(&self) -> &'static str {
        use Cause::*;
        match self {
            RepositoryDoesNotExist => "See whether the repository's disk is mounted; `borgcube repository show` names the path.",
            RepositoryInvalid => "The path holds something else than a Borg 1.x repository; `borgcube repository edit --url` changes it.",
            RepositoryCheckNeeded => {
                "`borgcube repository check NAME`, then `borgcube repository damage NAME` say what is damaged and what to do. Copy the repository before you repair anything, and never repair with a borg older than 1.4."
            }
            RepositoryEnospc => {
                "Free space on the repository's file system by other means; then `archive delete` and `repository compact` can free more. Of this backup, what its last checkpoint holds is kept."
            }
            RepositoryLockTimeout => {
                "Another borg uses it: wait until it has ended. Only if that borg crashed and none runs any more, `borg break-lock` helps."
            }
            RepositoryIdMismatch => "Another repository is at the recorded place. If that is meant, remove and add the repository.",
            RepositoryUnreachable => "Try the repository's borg by hand: `borg info` with the recorded URL.",
            RepositoryError => "`borgcube job log` has what the repository's borg said.",
            PassphraseWrong => "Set the right one with `borgcube repository edit NAME --passphrase-file FILE`.",
            KeyMissing => "Give the key with `borgcube repository edit NAME --key-file FILE`.",
            RepositoryIntegrity => {
                "The repository is damaged, or somebody without the key wrote to it: `borgcube repository check NAME`, then `borgcube repository damage NAME` say what is concerned and what to do. Copy it before anything else. Do not repair it: that may remove archives."
            }
            DatabaseEnospc => "Make room on the file system of the state directory.",
            OwnerLost => "The repository's owner process ended; it starts again by itself. Run the config again.",
            ClientConnectionFailed => "Try `ssh` to the client by hand as the user that runs BorgCube.",
            HostKeyChanged => "If the client was reinstalled, replace its key in known_hosts; otherwise somebody may be in between.",
            ClientBorgOutdated { .. } => {
                "Install Borg 1.1.10 or newer on the client, name another one with `client edit --remote-borg`, or give this server one for such clients with `borgcube binary add`."
            }
            ClientBorgMissing => {
                "Install Borg on the client, name its path with `client edit --remote-borg`, or give this server one for such clients with `borgcube binary add`."
            }
            ClientBorgBinary => {
                "`borgcube binary list` shows what this server has, and `binary add` adds one. Programs must be allowed to run in the client's cache directory; `client edit --remote-cache-dir` changes it."
            }
            ClientCache => "See whether the client's cache directory can be written; `client edit --remote-cache-dir` changes it.",
            ClientEnospc => "Make room on the client's file system of the cache directory.",
            ClientCannotReachServer => {
                "Try on the client: `ssh` to the address of `client show`, with its key for the forced command; silence until Ctrl-C means it works."
            }
            ClientBorgKilled { .. } => "Look for the out-of-memory killer or a shutdown in the client's log. The next run resumes.",
            ClientBorgFailed { .. } => "`borgcube job log` has what the client's borg said.",
            ClientBorgRefused => {
                "Mend the config with `borgcube config edit`: its excludes, patterns, compression or further options. The message is what the client's borg says of them."
            }
            PathMissing => "Mend the config's paths with `borgcube config edit`.",
            HookFailed { .. } => {
                "`borgcube job log` has what the hook said. Try its command on the client, as the user that the server comes as; `borgcube hook edit` changes it."
            }
            DumpFailed { .. } => {
                "`borgcube job log` has what the command said. Try it on the client, as the user that the server comes as; `borgcube dump edit` changes it."
            }
            PathsOverlap => "Paths of the config disagree about what a name is; remove one of them with `borgcube config edit`.",
            ArchiveExists => "Choose another name, or none: BorgCube then makes one.",
            ArchiveMissing => {
                "`borgcube archive list` shows what there is; archives of other origin are read on the server with `archive extract`."
            }
            ArchiveInUse => "`borgcube job list` shows the restore; wait for its end, or cancel it.",
            PathNotInArchive => "`borgcube archive files ARCHIVE` shows the paths; they have no slash at the beginning.",
            TargetNotEmpty => "Name a directory that is new or empty with --into, or none: BorgCube then makes one.",
            ClientPermission => {
                "Name a directory with --into that the client's user may write, or restore as another user by way of --to-client."
            }
            RestoreTestDamaged => {
                "`borgcube job log` names the files; `borgcube repository check NAME --verify-data` says what else is damaged. Older archives may have the files whole: test one with --archive."
            }
            RestoreTestDiffers => {
                "`borgcube job log` names the files. If you brought the hashes, see whether they are of that very archive; if an earlier test had recorded them, check the repository with --verify-data, and this server's memory."
            }
            RestoreTestLiveDiffers => {
                "Look at the file on the client: somebody changed it and set its time back, its disk is failing, or the backup does not hold what it should. By default a backup reads a file again when its ctime, size or inode has changed: what somebody changed gets into the next one, what a failing disk changes does not."
            }
            RestoreTestEnospc => "Free space on the file system of the state directory, or test less at a time with --bytes.",
            SessionLost => "The connection or its process ended early; run the config again, it resumes from the last checkpoint.",
            ViewStale => "BorgCube runs it again by itself once, with a fresh view; run the config again only if that failed, too.",
            BorgcubedRestart | WorkerCrashed => "Run the config again; it resumes from the last checkpoint.",
            PolicyViolation { .. } => "The client sent what no stock Borg sends. Look at that host before you trust it again.",
            QuotaExceeded { .. } => "Raise the limit, or back up less.",
            TooSlow => "Look at the client's network.",
            Cancelled { .. } => "Run the config again when you want it.",
            ConfigMissing => "`borgcube config list` shows what there is.",
            Internal => "`borgcube job log` has more; please report it.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_json_is_the_word() {
        for cause in [
            Cause::RepositoryDoesNotExist,
            Cause::PolicyViolation { rule: "x".into() },
            Cause::ClientBorgKilled { signal: 9 },
            Cause::BorgcubedRestart,
            Cause::RepositoryEnospc,
            Cause::Cancelled { by: "root".into() },
        ] {
            let json = serde_json::to_value(&cause).unwrap();
            assert_eq!(json["word"], cause.word());
            assert_eq!(serde_json::from_value::<Cause>(json).unwrap(), cause);
            assert!(cause.advice().ends_with('.'));
        }
    }

    /// Data were lost, or would have been, by what these sentences once said.
    #[test]
    fn advice_that_must_not_come_back() {
        assert!(Cause::RepositoryCheckNeeded.advice().contains("never repair with a borg older than 1.4"));
        assert!(Cause::RepositoryIntegrity.advice().contains("Do not repair it"));
        assert!(Cause::RepositoryIntegrity.advice().contains("`borgcube repository damage NAME`"));
        let differs = Cause::RestoreTestLiveDiffers.advice();
        assert!(differs.contains("ctime, size or inode") && !differs.contains("do not notice"), "{differs}");
        assert!(Cause::RepositoryEnospc.advice().contains("by other means"));
        assert!(Cause::RepositoryEnospc.advice().contains("what its last checkpoint holds is kept"));
        assert!(Cause::ViewStale.advice().contains("by itself once"));
    }

    #[test]
    fn a_failure_is_one_bounded_line() {
        let f = Failure::new(Cause::Internal, format!("a\nb{}", "ü".repeat(1000)));
        assert!(!f.message.contains('\n'));
        assert!(f.message.len() <= 1004);
    }

    #[test]
    fn what_to_do_is_meant_for_the_job() {
        let limit = Cause::QuotaExceeded { limit: "restore-test".into() };
        assert!(limit.advice_for(JobKind::Backup).contains("back up less"));
        for kind in [JobKind::Check, JobKind::Compact, JobKind::Prune, JobKind::Restore, JobKind::Import, JobKind::RestoreTest] {
            for cause in [
                limit.clone(),
                Cause::RepositoryEnospc,
                Cause::SessionLost,
                Cause::OwnerLost,
                Cause::BorgcubedRestart,
                Cause::WorkerCrashed,
                Cause::Cancelled { by: "root".into() },
                Cause::ClientBorgKilled { signal: 9 },
            ] {
                let advice = cause.advice_for(kind);
                let is_of_backups = ["back up", "backup", "checkpoint", "config again", "resumes"].iter().any(|word| advice.contains(word));
                assert!(advice.ends_with('.') && !is_of_backups, "{kind:?} {}: {advice}", cause.word());
            }
        }
        assert!(limit.advice_for(JobKind::RestoreTest).contains("--bytes"));
    }

    #[test]
    fn few_causes_say_something_of_an_archive() {
        assert!(Cause::RestoreTestDiffers.is_about_archive() && Cause::ArchiveMissing.is_about_archive());
        for job in [Cause::PathNotInArchive, Cause::TooSlow, Cause::WorkerCrashed, Cause::QuotaExceeded { limit: "restore-test".into() }] {
            assert!(!job.is_about_archive(), "{}", job.word());
        }
    }
}
