//! Calls to `borg serve`. The caller counts message numbers: 1 for `negotiate`, then 2, 3, ...

use crate::Id;
use crate::msgpack::Writer;

/// Arguments of `open`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open<'a> {
    /// Path of the repository on the serving side.
    pub path: &'a [u8],
    /// Create the repository.
    pub create: bool,
    /// Seconds to wait for the lock; `None` waits for ever.
    pub lock_wait: Option<u64>,
    /// Take a lock at all.
    pub lock: bool,
    /// Take it exclusively: needed for writing.
    pub exclusive: bool,
    /// Make the new repository append-only.
    pub append_only: bool,
    /// Create missing parent directories with the repository.
    pub make_parent_dirs: bool,
}

fn start(msgid: u64, method: &str, arguments: usize) -> Writer {
    let mut writer = Writer::append_to(Vec::with_capacity(128));
    writer.map(3);
    writer.raw(b"i");
    writer.uint(msgid);
    writer.raw(b"m");
    writer.raw(method.as_bytes());
    writer.raw(b"a");
    writer.map(arguments);
    writer
}

fn plain(msgid: u64, method: &str) -> Vec<u8> {
    start(msgid, method, 0).into_bytes()
}

fn with_id(msgid: u64, method: &str, id: &Id) -> Vec<u8> {
    let mut writer = start(msgid, method, 1);
    writer.raw(b"id");
    writer.raw(&id.0);
    writer.into_bytes()
}

/// The first call; the answer's `server_version` should be looked at.
#[must_use]
pub fn negotiate(msgid: u64, version: &[i64]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(4);
    writer.uint(1);
    writer.uint(msgid);
    writer.raw(b"negotiate");
    writer.array(1);
    writer.map(1);
    writer.raw(b"client_version");
    writer.array(version.len());
    version.iter().for_each(|number| writer.int(*number));
    writer.into_bytes()
}

/// Opens the repository; answers its id. Arguments that are false are left out where servers may not know them.
#[must_use]
pub fn open(msgid: u64, open: &Open<'_>) -> Vec<u8> {
    let optional = usize::from(open.append_only) + usize::from(open.make_parent_dirs);
    let mut writer = start(msgid, "open", 5 + optional);
    writer.raw(b"path");
    writer.raw(open.path);
    writer.raw(b"create");
    writer.bool(open.create);
    writer.raw(b"lock_wait");
    match open.lock_wait {
        Some(seconds) => writer.uint(seconds),
        None => writer.nil(),
    }
    writer.raw(b"lock");
    writer.bool(open.lock);
    writer.raw(b"exclusive");
    writer.bool(open.exclusive);
    if open.append_only {
        writer.raw(b"append_only");
        writer.bool(true);
    }
    if open.make_parent_dirs {
        writer.raw(b"make_parent_dirs");
        writer.bool(true);
    }
    writer.into_bytes()
}

/// Answers the key blob, empty if there is none.
#[must_use]
pub fn load_key(msgid: u64) -> Vec<u8> {
    plain(msgid, "load_key")
}

/// Stores the key blob.
#[must_use]
pub fn save_key(msgid: u64, keydata: &[u8]) -> Vec<u8> {
    let mut writer = start(msgid, "save_key", 1);
    writer.raw(b"keydata");
    writer.raw(keydata);
    writer.into_bytes()
}

/// Answers the first nonce that is not reserved, or nil.
#[must_use]
pub fn get_free_nonce(msgid: u64) -> Vec<u8> {
    plain(msgid, "get_free_nonce")
}

/// Reserves nonces up to `next_unreserved`; `start_nonce` is what [`get_free_nonce`] answered.
#[must_use]
pub fn commit_nonce_reservation(msgid: u64, next_unreserved: u64, start_nonce: Option<u64>) -> Vec<u8> {
    let mut writer = start(msgid, "commit_nonce_reservation", 2);
    writer.raw(b"next_unreserved");
    writer.uint(next_unreserved);
    writer.raw(b"start_nonce");
    match start_nonce {
        Some(nonce) => writer.uint(nonce),
        None => writer.nil(),
    }
    writer.into_bytes()
}

/// Answers an object's envelope.
#[must_use]
pub fn get(msgid: u64, id: &Id) -> Vec<u8> {
    with_id(msgid, "get", id)
}

/// Stores an envelope under an id.
#[must_use]
pub fn put(msgid: u64, id: &Id, envelope: &[u8]) -> Vec<u8> {
    let mut out = put_head(msgid, id, envelope.len());
    out.extend_from_slice(envelope);
    out
}

/// The start of [`put`]; exactly `length` bytes must be sent right after it. Saves copying an object.
#[must_use]
pub fn put_head(msgid: u64, id: &Id, length: usize) -> Vec<u8> {
    let mut writer = start(msgid, "put", 2);
    writer.raw(b"id");
    writer.raw(&id.0);
    writer.raw(b"data");
    writer.raw_head(length);
    writer.into_bytes()
}

/// Deletes an object.
#[must_use]
pub fn delete(msgid: u64, id: &Id) -> Vec<u8> {
    with_id(msgid, "delete", id)
}

/// Commits. `compact` as understood by 1.2 and later; a 1.1 server ignores it and compacts always.
#[must_use]
pub fn commit(msgid: u64, compact: bool, threshold: f64, cleanup_commits: bool) -> Vec<u8> {
    let mut writer = start(msgid, "commit", 4);
    writer.raw(b"save_space");
    writer.bool(false);
    writer.raw(b"compact");
    writer.bool(compact);
    writer.raw(b"threshold");
    writer.float(threshold);
    writer.raw(b"cleanup_commits");
    writer.bool(cleanup_commits);
    writer.into_bytes()
}

/// Forgets what was not committed.
#[must_use]
pub fn rollback(msgid: u64) -> Vec<u8> {
    plain(msgid, "rollback")
}

/// Answers the number of objects, the manifest included.
#[must_use]
pub fn len(msgid: u64) -> Vec<u8> {
    plain(msgid, "__len__")
}

fn page(msgid: u64, method: &str, limit: u64, marker: Option<&Id>) -> Vec<u8> {
    let mut writer = start(msgid, method, 2);
    writer.raw(b"limit");
    writer.uint(limit);
    writer.raw(b"marker");
    match marker {
        Some(id) => writer.raw(&id.0),
        None => writer.nil(),
    }
    writer.into_bytes()
}

/// Answers the next `limit` ids after `marker`; an empty page is the end.
#[must_use]
pub fn list(msgid: u64, limit: u64, marker: Option<&Id>) -> Vec<u8> {
    page(msgid, "list", limit, marker)
}

/// Like [`list`], in the order on disk.
#[must_use]
pub fn scan(msgid: u64, limit: u64, marker: Option<&Id>) -> Vec<u8> {
    page(msgid, "scan", limit, marker)
}

/// Answers whether the repository is sound.
#[must_use]
pub fn check(msgid: u64, repair: bool) -> Vec<u8> {
    let mut writer = start(msgid, "check", 2);
    writer.raw(b"repair");
    writer.bool(repair);
    writer.raw(b"save_space");
    writer.bool(false);
    writer.into_bytes()
}

/// Removes all locks.
#[must_use]
pub fn break_lock(msgid: u64) -> Vec<u8> {
    plain(msgid, "break_lock")
}
