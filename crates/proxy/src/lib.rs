//! What stands between a client's borg and a repository: what sshd asks for keys, the shim that it starts, and the session behind it.
//!
//! *Is*: the parser of everything a hostile client can send during a backup. The heart is one table, [`table`]: which call is
//! permitted in which state; [`rules`] lists what a client can break, [`session`] is a backup as a pure state machine, [`intake`]
//! judges objects, manifests, archives and items, [`serve`] connects all that with descriptors.
//! *Is not*: a holder of repository keys, a reader of the database, or a judge of what a client may refer to: that is the owner.
//! *May be used by*: its own three programs, `borgcube-authorized-keys`, `borgcube-proxy` and `borgcube-session`, and tests.

pub mod authorized_keys;
pub mod intake;
pub mod link;
pub mod rules;
pub mod serve;
pub mod session;
pub mod shim;
pub mod stop;
pub mod strangers;
pub mod table;
