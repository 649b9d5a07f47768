//! The client's cache, as far as a server writes it: the chunks index and the config.

mod config;
mod index;

pub use config::{CacheConfig, cache_config};
pub use index::{ChunksIndex, IndexEntry, IndexError, buckets_for, write_chunks_index, write_chunks_index_of};

/// Reference count that never changes: a client with such entries cannot delete chunks (Borg 1.x: MAX_VALUE).
pub const REFCOUNT_STICKY: u32 = 0xffff_fbff;
