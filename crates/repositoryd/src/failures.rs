//! Errors of the crates below, as the causes that people read.

use borg::Id;
use model::{Cause, Failure};
use repository::Error;

/// A repository error.
pub fn of_repository(error: &Error) -> Failure {
    let cause = match error {
        Error::DoesNotExist(_) | Error::ParentMissing(_) => Cause::RepositoryDoesNotExist,
        Error::Exists(_) | Error::Invalid(_) => Cause::RepositoryInvalid,
        Error::CheckNeeded(_) => Cause::RepositoryCheckNeeded,
        Error::Damaged(_) | Error::ObjectNotFound(_) => Cause::RepositoryIntegrity,
        Error::LockTimeout { .. } => Cause::RepositoryLockTimeout,
        Error::NoSpace(_) => Cause::RepositoryEnospc,
        Error::IdMismatch { .. } => Cause::RepositoryIdMismatch,
        Error::Unreachable(_) | Error::BadUrl(_) => Cause::RepositoryUnreachable,
        Error::Unsupported(_) | Error::Other { .. } | Error::Index(_) | Error::IndexDamaged(_) | Error::Io(_) => Cause::RepositoryError,
    };
    Failure::new(cause, sentence(error))
}

/// A database error.
pub fn of_store(error: &store::Error) -> Failure {
    let cause = match error {
        store::Error::DiskFull => Cause::DatabaseEnospc,
        store::Error::Io { source, .. } if is_full(source.kind()) => Cause::DatabaseEnospc,
        store::Error::CannotGrow { .. } => Cause::DatabaseEnospc,
        _ => Cause::Internal,
    };
    Failure::new(cause, sentence(error))
}

/// An error while working on the state directory.
pub fn of_state(error: &unix::Error) -> Failure {
    let cause = if error.io_kind().is_some_and(is_full) { Cause::DatabaseEnospc } else { Cause::Internal };
    Failure::new(cause, sentence(error))
}

/// A chunk that the client took for stored is gone.
pub fn stale(id: &Id) -> Failure {
    Failure::new(Cause::ViewStale, format!("chunk {id} is no longer in the repository"))
}

/// Nobody answers any more.
pub fn ending() -> Failure {
    Failure::new(Cause::OwnerLost, "the owner is ending")
}

/// Something that cannot happen unless there is a mistake in BorgCube.
pub fn internal(message: impl Into<String>) -> Failure {
    Failure::new(Cause::Internal, message)
}

fn is_full(kind: std::io::ErrorKind) -> bool {
    matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn sentence(error: &dyn std::error::Error) -> String {
    unix::logging::escape(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        assert_eq!(of_repository(&Error::NoSpace("x".into())).cause, Cause::RepositoryEnospc);
        assert_eq!(of_store(&store::Error::DiskFull).cause, Cause::DatabaseEnospc);
        let full = |kind: std::io::ErrorKind| of_state(&unix::Error::Io { doing: "cannot write".into(), cause: kind.into() }).cause;
        assert_eq!(full(std::io::ErrorKind::StorageFull), Cause::DatabaseEnospc);
        assert_eq!(full(std::io::ErrorKind::PermissionDenied), Cause::Internal);
    }

    #[test]
    fn a_sentence_is_fit_to_print() {
        let failure = of_repository(&Error::Unreachable("it said \u{1b}[31m".into()));
        assert_eq!(failure.message, "it said \\u{1b}[31m");
        assert_eq!(failure.cause, Cause::RepositoryUnreachable);
    }
}
