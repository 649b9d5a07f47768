//! Why a repository does not do what it was asked for.

use borg::rpc::RemoteException;
use borg::{Id, RepositoryId};

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong; each kind asks for another action of a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing is there.
    #[error("there is no repository at {0}")]
    DoesNotExist(String),
    /// It was to be created, and something is there already.
    #[error("{0} exists already; nothing was created")]
    Exists(String),
    /// It was to be created below a directory that does not exist.
    #[error("the directory that should hold {0} does not exist; create it first")]
    ParentMissing(String),
    /// What is there is no Borg 1.x repository, or its config is broken.
    #[error("{0}")]
    Invalid(String),
    /// Nothing may be done with it before somebody looked: whatever goes on by itself could lose something.
    #[error("{0}")]
    CheckNeeded(String),
    /// An object, index or segment is damaged.
    #[error("the repository is damaged: {0}")]
    Damaged(String),
    /// Somebody else holds the lock.
    #[error("the lock of {location} was not free within {waited} seconds{}", holder.as_ref().map(|h| format!("; it is held by {h}")).unwrap_or_default())]
    LockTimeout {
        /// The repository.
        location: String,
        /// How long was waited.
        waited: u64,
        /// Host and process of the holder as Borg notes it, where it can be seen.
        holder: Option<String>,
    },
    /// The file system is full, or a quota used up.
    #[error("no space left for the repository: {0}")]
    NoSpace(String),
    /// There is no such object.
    #[error("object {0} is not in the repository")]
    ObjectNotFound(Id),
    /// Another repository than the expected one.
    #[error("the repository has the id {found}, expected was {expected}")]
    IdMismatch {
        /// What was expected.
        expected: RepositoryId,
        /// What answered.
        found: RepositoryId,
    },
    /// borg or ssh could not be started, did not answer as Borg does, or went away.
    #[error("{0}")]
    Unreachable(String),
    /// The URL is none.
    #[error("{0}")]
    BadUrl(String),
    /// Our own index of a repository cannot be read or written.
    #[error("the repository's index: {0}")]
    Index(String),
    /// Our own index of a repository is damaged. It answers nothing any more; the next opening builds it anew.
    #[error("the repository's index: {0}")]
    IndexDamaged(String),
    /// The file system does not do what it was asked for.
    #[error("{0}")]
    Io(String),
    /// This way to reach a repository cannot do that.
    #[error("{0}")]
    Unsupported(String),
    /// Any other exception of the serving side.
    #[error("the repository's borg failed with {class}: {message}")]
    Other {
        /// Python's class name.
        class: String,
        /// The message.
        message: String,
    },
}

/// ENOSPC and EDQUOT in the text of Python's OSError, which names no class of its own for them.
fn tells_no_space(message: &str) -> bool {
    ["[Errno 28]", "[Errno 122]", "No space left on device", "Disk quota exceeded"].iter().any(|text| message.contains(text))
}

/// Borg 1.x: the classes of `borg serve`, see fact 1.4. A lock timeout still lacks the holder, a missing object its id.
pub(crate) fn from_exception(exception: &RemoteException, location: &str, waited: u64) -> Error {
    let place = location.to_owned();
    let mut message = exception.short.join(" ").trim().to_owned();
    if message.is_empty() {
        message = exception.args.join(", ");
    }
    match exception.class.as_str() {
        "DoesNotExist" => Error::DoesNotExist(place),
        "AlreadyExists" | "PathAlreadyExists" => Error::Exists(place),
        "ParentPathDoesNotExist" => Error::ParentMissing(place),
        "CheckNeeded" => Error::CheckNeeded(format!("{place} needs a check before it can be used")),
        "AtticRepository" => Error::Invalid(format!("{place} is an Attic repository; `borg upgrade` converts it")),
        "InvalidRepository" | "InvalidRepositoryConfig" => Error::Invalid(format!("{place} is no valid Borg repository: {message}")),
        "IntegrityError" | "FileIntegrityError" => Error::Damaged(message),
        "LockTimeout" => Error::LockTimeout { location: place, waited, holder: None },
        "InsufficientFreeSpaceError" | "StorageQuotaExceeded" => Error::NoSpace(message),
        "ObjectNotFound" => match exception.args.first().and_then(|hex| Id::from_hex(hex).ok()) {
            Some(id) => Error::ObjectNotFound(id),
            None => Error::Other { class: exception.class.clone(), message },
        },
        _ if tells_no_space(&message) => Error::NoSpace(message),
        class => Error::Other { class: class.to_owned(), message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(class: &str, args: &[&str], short: &str) -> Error {
        let strings = |texts: &[&str]| texts.iter().map(|s| (*s).to_owned()).collect();
        let exception = RemoteException { class: class.into(), args: strings(args), short: strings(&[short]), full: vec![] };
        from_exception(&exception, "/r", 3)
    }

    #[test]
    fn classes_become_kinds() {
        assert_eq!(of("DoesNotExist", &["/r"], "Repository /r does not exist."), Error::DoesNotExist("/r".into()));
        assert_eq!(of("LockTimeout", &["/r/lock.exclusive"], "x"), Error::LockTimeout { location: "/r".into(), waited: 3, holder: None });
        assert!(matches!(of("InsufficientFreeSpaceError", &["1 GB", "2 kB"], "Insufficient free space"), Error::NoSpace(_)));
        assert!(matches!(of("OSError", &[], "OSError: [Errno 28] No space left on device\n"), Error::NoSpace(_)));
        assert!(matches!(of("OSError", &[], "OSError: [Errno 5] Input/output error"), Error::Other { .. }));
        assert!(matches!(of("ObjectNotFound", &[&"ab".repeat(32), "/r"], "x"), Error::ObjectNotFound(Id(b)) if b == [0xab; 32]));
        assert!(matches!(of("ObjectNotFound", &[], "x"), Error::Other { .. }));
    }

    #[test]
    fn a_lock_names_its_holder() {
        let error = Error::LockTimeout { location: "/r".into(), waited: 1, holder: Some("vm@1.77-0".into()) };
        assert_eq!(error.to_string(), "the lock of /r was not free within 1 seconds; it is held by vm@1.77-0");
    }
}
