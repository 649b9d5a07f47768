//! The heart of the proxy: which call is permitted in which state of a backup or a restore. Everything else in this crate only carries out
//! what this table lets through.

use borg::Id;
use borg::rpc::Method;

/// Where a session is when it listens to its client. (While it waits for the owner it does not listen.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was said yet.
    New,
    /// The client has told its version.
    Negotiated,
    /// The repository is open, nothing is proposed.
    Open,
    /// The owner has accepted an archive that is not committed yet.
    Staged,
    /// The complete archive is committed.
    Final,
    /// The repository is open for a restore.
    Restore,
}

/// What a client may ask for, as far as the table tells calls apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `negotiate`
    Negotiate,
    /// `open`
    Open,
    /// `load_key`
    LoadKey,
    /// `get_free_nonce`, `commit_nonce_reservation`: answered with nil, the client's nonces mean nothing to the repository.
    Nonce,
    /// `get` of the manifest
    GetManifest,
    /// `get` of anything else
    Get,
    /// `put` of anything but the manifest
    Put,
    /// `put` of the manifest: the request to add an archive
    PutManifest,
    /// `delete`
    Delete,
    /// `commit`
    Commit,
    /// `rollback`
    Rollback,
    /// `__len__`
    Len,
    /// Everything else: `list`, `scan`, `check`, `save_key`, `break_lock`, `destroy`, `inject_exception` and what no Borg knows.
    Other,
}

/// What the table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Go on.
    Yes,
    /// The client's task includes this, but not now.
    Order,
    /// No backup and no restore calls this.
    Never,
    /// A commit of nothing.
    Empty,
    /// A restore writes nothing.
    Writes,
    /// What a stock client calls whose cache is not the one it was given. It gets nothing, but is not accused.
    Cache,
}

use Permission::{Cache, Empty, Never, Order, Writes, Yes};

#[rustfmt::skip]
const TABLE: [(Call, [Permission; 6]); 13] = [
    //                      New    Negotiated Open   Staged Final  Restore
    (Call::Negotiate,      [Yes,   Order,     Order, Order, Order, Order ]),
    (Call::Open,           [Order, Yes,       Order, Order, Order, Order ]),
    (Call::LoadKey,        [Order, Order,     Yes,   Yes,   Yes,   Yes   ]),
    (Call::Nonce,          [Order, Order,     Yes,   Order, Order, Writes]),
    (Call::GetManifest,    [Order, Order,     Yes,   Order, Yes,   Yes   ]),
    (Call::Get,            [Order, Order,     Yes,   Order, Yes,   Yes   ]),
    (Call::Put,            [Order, Order,     Yes,   Order, Order, Writes]),
    (Call::PutManifest,    [Order, Order,     Yes,   Order, Order, Writes]),
    (Call::Delete,         [Order, Order,     Yes,   Order, Yes,   Writes]),
    (Call::Commit,         [Order, Order,     Empty, Yes,   Order, Writes]),
    (Call::Rollback,       [Order, Order,     Yes,   Yes,   Yes,   Yes   ]),
    (Call::Len,            [Order, Order,     Cache, Order, Order, Never ]),
    (Call::Other,          [Never, Never,     Never, Never, Never, Never ]),
];

/// Whether `call` is permitted in `state`.
pub fn permitted(state: State, call: Call) -> Permission {
    TABLE.iter().find(|(row, _)| *row == call).map_or(Never, |(_, columns)| columns[state as usize])
}

/// The row of a method.
pub fn call(method: &Method<'_>) -> Call {
    match method {
        Method::Negotiate { .. } => Call::Negotiate,
        Method::Open { .. } => Call::Open,
        Method::LoadKey => Call::LoadKey,
        Method::GetFreeNonce | Method::CommitNonceReservation { .. } => Call::Nonce,
        Method::Get { id } if *id == Id::MANIFEST => Call::GetManifest,
        Method::Get { .. } => Call::Get,
        Method::Put { id, .. } if *id == Id::MANIFEST => Call::PutManifest,
        Method::Put { .. } => Call::Put,
        Method::Delete { .. } => Call::Delete,
        Method::Commit { .. } => Call::Commit,
        Method::Rollback => Call::Rollback,
        Method::Len => Call::Len,
        Method::SaveKey { .. }
        | Method::List { .. }
        | Method::Scan { .. }
        | Method::Check { .. }
        | Method::BreakLock
        | Method::Destroy
        | Method::InjectException { .. }
        | Method::Unknown(_) => Call::Other,
    }
}

/// A method's name, for messages.
pub fn name(method: &Method<'_>) -> String {
    match method {
        Method::Negotiate { .. } => "negotiate",
        Method::Open { .. } => "open",
        Method::LoadKey => "load_key",
        Method::SaveKey { .. } => "save_key",
        Method::GetFreeNonce => "get_free_nonce",
        Method::CommitNonceReservation { .. } => "commit_nonce_reservation",
        Method::Get { .. } => "get",
        Method::Put { .. } => "put",
        Method::Delete { .. } => "delete",
        Method::Commit { .. } => "commit",
        Method::Rollback => "rollback",
        Method::Len => "__len__",
        Method::List { .. } => "list",
        Method::Scan { .. } => "scan",
        Method::Check { .. } => "check",
        Method::BreakLock => "break_lock",
        Method::Destroy => "destroy",
        Method::InjectException { .. } => "inject_exception",
        Method::Unknown(name) => return crate::stop::quoted(name),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_never_calls_is_never_permitted() {
        for state in [State::New, State::Negotiated, State::Open, State::Staged, State::Final, State::Restore] {
            assert_eq!(permitted(state, Call::Other), Never);
            assert_ne!(permitted(state, Call::Len), Yes);
        }
        for call in [Call::Put, Call::PutManifest, Call::Commit] {
            assert_eq!(permitted(State::Final, call), Order, "nothing changes after the complete archive");
            assert_eq!(permitted(State::Negotiated, call), Order);
        }
    }

    #[test]
    fn a_restore_reads_and_that_is_all() {
        for (call, columns) in TABLE {
            let reads = matches!(call, Call::LoadKey | Call::GetManifest | Call::Get | Call::Rollback);
            assert_eq!(columns[State::Restore as usize] == Yes, reads, "{call:?}");
        }
        for call in [Call::Nonce, Call::Put, Call::PutManifest, Call::Delete, Call::Commit] {
            assert_eq!(permitted(State::Restore, call), Writes);
        }
    }

    #[test]
    fn every_row_stands_once_and_permits_something_but_the_last_two() {
        for (row, columns) in TABLE {
            assert_eq!(TABLE.iter().filter(|(other, _)| *other == row).count(), 1);
            let useful = columns.contains(&Yes);
            assert_eq!(useful, !matches!(row, Call::Len | Call::Other), "{row:?}");
        }
    }
}
