//! Errors of the store as replies for people.

use store::Error;
use wire::control::{ControlError, ErrorKind};

/// An error for the caller.
pub fn refuse(kind: ErrorKind, message: impl Into<String>) -> ControlError {
    ControlError::new(kind, message)
}

/// The same out of a transaction, which is thereby given up.
pub fn refuse_in(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error::caller(refuse(kind, message))
}

/// Whether the trouble is the disk's and trying again later makes sense.
pub fn is_disk_full(error: &Error) -> bool {
    match error {
        Error::DiskFull | Error::CannotGrow { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
        _ => false,
    }
}

/// Whether the same write cannot succeed later either.
pub fn is_final(error: &Error) -> bool {
    matches!(error, Error::State(_) | Error::NotFound(_) | Error::Damaged { .. } | Error::WrongKind { .. } | Error::Newer { .. })
}

/// What a person is told.
pub fn from_store(error: Error) -> ControlError {
    let kind = match &error {
        _ if is_disk_full(&error) => {
            let message = "database-enospc: the file system of the state directory is full; nothing was changed. Make room and try again.";
            return refuse(ErrorKind::Internal, message);
        }
        Error::NotFound(_) | Error::NoTransaction(_) => ErrorKind::NotFound,
        Error::Exists(_) => ErrorKind::AlreadyExists,
        Error::Conflict { .. } | Error::State(_) | Error::ChangedLater { .. } | Error::NotUndoable { .. } => ErrorKind::Conflict,
        Error::BadKey(..) | Error::Unstorable { .. } => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    };
    match error {
        Error::Caller(inner) => match inner.downcast::<ControlError>() {
            Ok(error) => *error,
            // The store's own rules speak in sentences.
            Err(other) if other.is::<store::Error>() => internal(&other),
            Err(other) => refuse(ErrorKind::Conflict, other.to_string()),
        },
        error if kind == ErrorKind::Internal => internal(&error),
        error => refuse(kind, error.to_string()),
    }
}

/// The daemon's own trouble: into the log as well.
pub fn internal(error: &dyn std::fmt::Display) -> ControlError {
    log::error!("{error}");
    refuse(ErrorKind::Internal, format!("the database cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_out_of_a_transaction_as_it_went_in() {
        let error = refuse(ErrorKind::Conflict, "client web1 has configs");
        assert_eq!(from_store(Error::caller(error.clone())), error);
    }

    #[test]
    fn a_full_disk_has_its_word() {
        let error = from_store(Error::DiskFull);
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(error.message.starts_with("database-enospc"));
        assert!(is_disk_full(&Error::DiskFull) && !is_final(&Error::DiskFull));
    }

    #[test]
    fn kinds() {
        assert_eq!(from_store(Error::NotFound("client x".into())).kind, ErrorKind::NotFound);
        assert_eq!(from_store(Error::Exists("client x".into())).kind, ErrorKind::AlreadyExists);
        assert_eq!(from_store(Error::ReadOnly).kind, ErrorKind::Internal);
    }
}
