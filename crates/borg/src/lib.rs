//! What the bytes of Borg 1.x mean: object ids, the old msgpack dialect, keys and envelopes, key blobs,
//! compression headers, manifest, archive and item, metadata authentication (TAM), the client's chunks cache
//! and the RPC messages.
//!
//! It is deliberately *not* anything that acts: no files, no sockets, no clock, no randomness of its own (callers
//! hand in a callback), no policy. It knows nothing of BorgCube and could be published by itself.
//!
//! Anybody may use it. What is parsed here may come from an enemy: every reader bounds sizes before it allocates,
//! bounds nesting, and returns an error instead of panicking. Readers accept no more than stock Borg accepts, so
//! that what passed here can be read back by every Borg 1.x.

pub mod archive;
pub mod cache;
pub mod compress;
pub mod config;
pub mod hints;
pub mod id;
pub mod integrity;
pub mod item;
pub mod key;
pub mod keyblob;
pub mod manifest;
pub mod msgpack;
pub mod paperkey;
pub mod roster;
pub mod rpc;
pub mod segment;
pub mod tam;
pub mod time;

pub use id::{Id, RepositoryId};
pub use key::{Key, KeyType};

/// Largest payload one stored object may have, in bytes (Borg 1.x: `MAX_DATA_SIZE`).
pub const MAX_OBJECT: usize = 20_971_479;

/// Largest plaintext one object may decompress to, in bytes: 20 MiB.
pub const MAX_PLAINTEXT: usize = 20 * 1024 * 1024;
