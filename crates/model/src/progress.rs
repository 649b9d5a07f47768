//! What is known of a running job's progress. Lives in memory and on sockets, never in the database.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Totals of an archive, in Borg's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Regular files in the archive.
    pub nfiles: u64,
    /// Bytes before compression.
    pub original_size: u64,
    /// Bytes after compression, as the client stores them.
    pub compressed_size: u64,
    /// Bytes newly stored in the repository for this archive: by how much its `unique_csize` grew, as `borg info` (1.1, 1.2) says of an archive that shares
    /// nothing with others. The list of files and the archive's own object are among them.
    pub deduplicated_size: u64,
}

/// What a session counted: how much of a backup had to cross the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionCounters {
    /// Objects that the client sent, the manifest not counted.
    pub puts: u64,
    /// Their bytes.
    pub put_bytes: u64,
    /// Bytes of the archive's item stream, uncompressed.
    pub item_stream_bytes: u64,
    /// Plaintext bytes of item stream chunks that the client sent in this session.
    pub item_stream_put_bytes: u64,
}

/// How far an operation on a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// A word or two: `segments`, `objects`.
    pub unit: String,
    /// So many are done.
    pub done: u64,
    /// Of so many; 0: unknown.
    pub total: u64,
}

/// A moment of a running job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Totals so far, as the client's borg reports them.
    pub statistics: Statistics,
    /// The path the client works on, escaped for printing.
    pub path: String,
    /// Bytes of original data per second, averaged over the last seconds.
    pub rate: u64,
    /// What the config's last archive contained: the bar's length.
    pub expected: Option<Statistics>,
    /// Of what runs on a repository and on no client, instead of the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// When this was seen.
    pub time: Timestamp,
}
