//! Between a repository's owner and those who use it: sessions (on behalf of a client) and workers.
//!
//! Chunks travel as binary frames, everything that happens once in a session as JSON inside a frame.
//! Every message's type byte is below; replies have the high bit set.
//!
//! ```text
//! session  Open ->                        <- Opened | Refused
//!          Put* ->                        <- Credit*          (no reply to a Put: nothing depends on what exists)
//!          Read* ->                       <- (Object | NotInView)*   (in the order of the Reads)
//!          Items*, Refs*, Propose ->      <- Verdict          (Refs and Items are collected; Propose judges)
//!          Commit ->                      <- Verdict
//!          Violation | End ->
//!          Accuse ->                      (in place of Open; the owner closes when it has dealt with it)
//!                                         <- Failed           (at any time: the owner takes nothing more, the session ends)
//! worker   Prepare ->                     <- Prepared | Failed
//!          Cache ->                       <- Cached, then one byte with the descriptor of the client's chunks cache | Failed
//!          Finish ->                      <- Outcome          (sent when the job's session has ended)
//! person   Maintain ->                    <- Progress*, then Report | Failed   (closing the connection ends the operation at its next step)
//!          Maintain(Release) ->           <- Progress*, Granted | Failed       (the repository is the person's until the connection closes)
//! ```
//!
//! The session of a restore sends nothing but Open, Read, Violation and End. What maintenance consists of is in [`crate::maintenance`].

use crate::WireError;
use crate::frame;
use model::progress::{SessionCounters, Statistics};
use model::{Archive, Failure, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::Write;

/// What the [`Put`]s that a session has on their way may be charged together, see [`charge`].
pub const CREDIT: usize = 16 * 1024 * 1024;

/// What the smallest [`Put`] is charged: about what it costs the owner besides its payload.
pub const PUT_CHARGE_MIN: usize = 512;

/// What a [`Put`] takes of the credit, and what the owner gives back for it, by the length of its payload.
#[must_use]
pub const fn charge(payload: usize) -> usize {
    if payload < PUT_CHARGE_MIN { PUT_CHARGE_MIN } else { payload }
}

/// References in one [`kind::REFS`] frame at most; keeps a frame below 1 MiB.
pub const REFS_BATCH: usize = 20_000;

/// The version of these messages; both sides come from one build, so a difference means a half-done upgrade.
pub const VERSION: u32 = 2;

/// Type bytes.
pub mod kind {
    /// Session: [`super::Open`].
    pub const OPEN: u8 = 1;
    /// Session: a verified chunk, see [`super::Put`].
    pub const PUT: u8 = 2;
    /// Session: 32 bytes of id; wants the object back.
    pub const READ: u8 = 3;
    /// Session: chunk references of items, see [`super::Reference`].
    pub const REFS: u8 = 4;
    /// Session: ids of the item stream, in order, 32 bytes each.
    pub const ITEMS: u8 = 5;
    /// Session: [`super::Proposal`]; judges what was collected and clears the collection.
    pub const PROPOSE: u8 = 6;
    /// Session: make the last accepted proposal durable.
    pub const COMMIT: u8 = 7;
    /// Session: [`super::Violation`]; nothing more will come.
    pub const VIOLATION: u8 = 8;
    /// Session: [`super::End`]; nothing more will come.
    pub const END: u8 = 9;
    /// Session: [`super::Accusation`], in place of [`super::Open`].
    pub const ACCUSE: u8 = 10;
    /// Worker: [`super::Prepare`].
    pub const PREPARE: u8 = 32;
    /// Worker: [`super::Finish`].
    pub const FINISH: u8 = 33;
    /// Worker: the client's chunks cache, of the job that this connection has prepared.
    pub const CACHE: u8 = 34;
    /// The worker wants to know how much the client of its restore has read so far; nothing is in it.
    pub const HOW_FAR: u8 = 35;
    /// Person: [`crate::maintenance::Maintain`].
    pub const MAINTAIN: u8 = 64;
    /// Owner: [`super::Opened`].
    pub const OPENED: u8 = 0x81;
    /// Owner: [`model::Failure`]: no session for that token.
    pub const REFUSED: u8 = 0x82;
    /// Owner: u32 what Puts that were taken had been charged, see [`super::charge`].
    pub const CREDIT: u8 = 0x83;
    /// Owner: 32 bytes of id, then the still compressed payload.
    pub const OBJECT: u8 = 0x84;
    /// Owner: 32 bytes of id that is neither of this session nor in the client's view.
    pub const NOT_IN_VIEW: u8 = 0x85;
    /// Owner: [`super::Verdict`].
    pub const VERDICT: u8 = 0x86;
    /// Owner: [`super::Prepared`].
    pub const PREPARED: u8 = 0xa0;
    /// Owner: [`model::Failure`], to a worker in place of an answer, to a session at any time: nothing more will be taken.
    pub const FAILED: u8 = 0xa1;
    /// Owner: [`super::Outcome`].
    pub const OUTCOME: u8 = 0xa2;
    /// Owner: [`super::Cached`]; one byte with a descriptor follows.
    pub const CACHED: u8 = 0xa3;
    /// [`super::Served`], so far.
    pub const SERVED: u8 = 0xa4;
    /// Owner: [`crate::maintenance::Progress`].
    pub const PROGRESS: u8 = 0xc0;
    /// Owner: [`crate::maintenance::Report`]; the operation is over.
    pub const REPORT: u8 = 0xc1;
    /// Owner: [`crate::maintenance::Granted`]; the repository is unlocked until the connection closes.
    pub const GRANTED: u8 = 0xc2;
}

/// A session begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// [`VERSION`].
    pub version: u32,
    /// 64 hex digits.
    pub token: String,
    /// The client's borg, from `negotiate`.
    pub client_version: String,
    /// Whose SSH key it came with, if that is a permanent key of a client.
    #[serde(default)]
    pub client: Option<model::ClientName>,
}

/// What a session needs to know; nothing in it opens the repository.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// The job.
    pub job: u64,
    /// The only archive that may be made.
    pub archive_name: String,
    /// 64 hex digits.
    pub repository_id: String,
    /// Type byte of the client key (0x02, 0x06 or 0x07).
    pub key_type: u8,
    /// The client key for `load_key`, as Borg's base64 text; empty for type none.
    pub key_blob: String,
    /// The passphrase of that blob.
    pub passphrase: String,
    /// The packed plaintext of the client's first manifest.
    #[serde(with = "hex_bytes")]
    pub manifest: Vec<u8>,
    /// Whether the client was told to obfuscate the sizes of its chunks; the padding of others is dropped.
    #[serde(default)]
    pub obfuscate: bool,
    /// It reads the archive that the manifest names, and writes nothing. None: a backup.
    #[serde(default)]
    pub restore: Option<Reading>,
    /// Limits for this session.
    pub limits: Limits,
}

/// What the client of a restore may read in all: generous for one that extracts everything, an end for one that reads on and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Objects.
    pub objects: u64,
    /// Bytes, compressed.
    pub bytes: u64,
}

/// A session's limits, as the settings say.
pub use model::settings::SessionLimits as Limits;

/// Bytes of plaintext from which an object is not small.
pub const SMALL_OBJECT: u32 = 64;

/// A reference of an item, or an entry of a view list: 40 bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The chunk.
    pub id: [u8; 32],
    /// Its plaintext size.
    pub size: u32,
    /// Its stored size as the client's archive states it.
    pub csize: u32,
}

impl Reference {
    /// Bytes of one reference.
    pub const SIZE: usize = 40;

    /// Appends the 40 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.csize.to_le_bytes());
    }

    /// Reads a concatenation of references.
    pub fn decode_all(bytes: &[u8]) -> Result<impl ExactSizeIterator<Item = Reference> + '_, WireError> {
        if !bytes.len().is_multiple_of(Self::SIZE) {
            return Err(WireError::Malformed("references have 40 bytes each".into()));
        }
        Ok(bytes.chunks_exact(Self::SIZE).map(|b| {
            let mut id = [0; 32];
            id.copy_from_slice(&b[..32]);
            let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
            Reference { id, size: u32_at(32), csize: u32_at(36) }
        }))
    }
}

/// A verified chunk: `id (32) | plaintext size (u32) | compressed payload with its header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put<'a> {
    /// Its id, recomputed by the session.
    pub id: [u8; 32],
    /// Its plaintext size.
    pub size: u32,
    /// What is stored, before encryption.
    pub payload: &'a [u8],
}

impl<'a> Put<'a> {
    /// Writes the frame.
    pub fn write(&self, out: &mut impl Write) -> Result<(), WireError> {
        frame::write(out, kind::PUT, &[&self.id, &self.size.to_le_bytes(), self.payload])
    }

    /// Reads a frame's payload.
    pub fn decode(bytes: &'a [u8]) -> Result<Put<'a>, WireError> {
        let (id, rest) = split_id(bytes)?;
        let Some((size, payload)) = rest.split_first_chunk::<4>() else {
            return Err(WireError::Malformed("a put without a size".into()));
        };
        Ok(Put { id, size: u32::from_le_bytes(*size), payload })
    }
}

/// Splits a frame's payload after its leading id.
pub fn split_id(bytes: &[u8]) -> Result<([u8; 32], &[u8]), WireError> {
    match bytes.split_first_chunk::<32>() {
        Some((id, rest)) => Ok((*id, rest)),
        None => Err(WireError::Malformed("a frame without an id".into())),
    }
}

/// Reads a concatenation of ids.
pub fn decode_ids(bytes: &[u8]) -> Result<Vec<[u8; 32]>, WireError> {
    let (ids, rest) = bytes.as_chunks::<32>();
    if rest.is_empty() { Ok(ids.to_vec()) } else { Err(WireError::Malformed("ids have 32 bytes each".into())) }
}

/// What the session asks to be archived: everything else comes from the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// A checkpoint, or the complete archive.
    pub checkpoint: bool,
    /// Totals of the parsed items (`deduplicated_size` is the owner's to say).
    pub statistics: Statistics,
    /// The client's chunker parameters, validated: algorithm and numbers.
    pub chunker_params: (String, Vec<u32>),
    /// Whether the client wrote the algorithm's name (Borg 1.1 does not).
    pub chunker_named: bool,
    /// The client's working directory (Borg 1.4), if it stated one.
    pub cwd: Option<String>,
    /// Item stream and counters so far.
    pub counters: SessionCounters,
    /// What the client claimed about itself and the server replaces, escaped for printing.
    pub claims: Vec<String>,
}

/// The owner's answer to a proposal or a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As asked.
    Accepted,
    /// A rule forbids it: the session dooms itself.
    Violation(Violation),
    /// It can't be done, and the client is not to blame.
    Failed(Failure),
}

/// A client broke a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The rule's name.
    pub rule: String,
    /// What happened, escaped for printing.
    pub detail: String,
}

/// Whoever came with the SSH key of a job broke a rule before it showed the token of that job, so that no session of it can begin: the job is to hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accusation {
    /// [`VERSION`].
    pub version: u32,
    /// SHA-256 of the token that the key is for, 64 hex digits.
    pub token_hash: String,
    /// What was done.
    pub violation: Violation,
}

/// A session ends without a violation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Why it ended early, where the session knows; None: the client closed the connection.
    pub failure: Option<Failure>,
    /// What it counted.
    pub counters: SessionCounters,
}

/// A worker wants a session prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// [`VERSION`].
    pub version: u32,
    /// The job.
    pub job: u64,
    /// The archive's name.
    pub archive_name: String,
    /// The command line that the archive records.
    pub cmdline: Vec<String>,
    /// When the job began: the archive's start.
    pub start: Timestamp,
    /// What the session is for.
    #[serde(default)]
    pub purpose: Purpose,
}

/// What a session is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The client makes [`Prepare::archive_name`].
    #[default]
    Backup,
    /// The client reads [`Prepare::archive_name`], and nothing else.
    Restore {
        /// Its id in the repository, 64 hex digits.
        archive: String,
    },
}

/// What the worker carries to the client.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// 64 hex digits, for BORG_REPO's path `/./TOKEN`.
    pub token: String,
    /// For BORG_PASSPHRASE; empty for type none.
    pub passphrase: String,
    /// 64 hex digits.
    pub repository_id: String,
    /// Type byte of the client key.
    pub key_type: u8,
    /// `manifest =` of the cache's config: the id of the client's first manifest, 64 hex digits.
    pub manifest_id: String,
    /// That manifest's timestamp, in Borg's form.
    pub manifest_timestamp: String,
    /// Chunks in the client's view.
    pub view_chunks: u64,
    /// What the worker leaves beside the client's chunks cache when the job has ended well, 32 hex digits.
    pub mark: String,
    /// The mark of the client's last job, if the cache that this job left on the client is still exactly the client's view: then it needs no
    /// other one.
    pub kept: Option<String>,
    /// What a person should know, whatever becomes of this backup.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The client's chunks cache, made when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// Chunks in it: those of the view that are there.
    pub chunks: u64,
    /// Bytes of the file behind the descriptor.
    pub size: u64,
}

/// A worker asks how its job's session ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    /// The job.
    pub job: u64,
}

/// What the owner knows of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the client ever connected.
    pub opened: bool,
    /// The complete archive, if it was committed.
    pub archive: Option<Archive>,
    /// The newest checkpoint, if there is no complete archive.
    pub checkpoint: Option<Archive>,
    /// Why the session ended early, if it did.
    pub failure: Option<Failure>,
    /// What it counted.
    pub counters: SessionCounters,
    /// What the client of a restore has read.
    #[serde(default)]
    pub served: Option<Served>,
}

/// What the client of a restore has read. Where it lies about its success, this does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Different chunks of the archive.
    pub chunks: u64,
    /// Of so many that the archive refers to, its item stream included.
    pub of: u64,
    /// Bytes, compressed; what was read twice counts twice.
    pub bytes: u64,
}

/// Writes `message` as JSON in a frame of type `kind`.
pub fn write_json(out: &mut impl Write, kind: u8, message: &impl Serialize) -> Result<(), WireError> {
    let bytes = serde_json::to_vec(message).map_err(|e| WireError::Malformed(e.to_string()))?;
    frame::write(out, kind, &[&bytes])
}

/// Reads a frame's JSON payload.
pub fn read_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(payload).map_err(|e| WireError::Malformed(e.to_string()))
}

// Secrets of one job, but secrets: never in a log by way of {:?}.
impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("job", &self.job).field("archive_name", &self.archive_name).finish_non_exhaustive()
    }
}
impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("view_chunks", &self.view_chunks).finish_non_exhaustive()
    }
}

mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|p| std::str::from_utf8(p).ok().filter(|p| p.len() == 2).and_then(|p| u8::from_str_radix(p, 16).ok()))
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| D::Error::custom("not hex"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_and_references_round_trip() {
        let put = Put { id: [7; 32], size: 5, payload: b"\0\0hello" };
        let mut wire = vec![];
        put.write(&mut wire).unwrap();
        let mut buffer = vec![];
        assert_eq!(frame::read(&mut &wire[..], &mut buffer).unwrap(), kind::PUT);
        assert_eq!(Put::decode(&buffer).unwrap(), put);
        assert!(Put::decode(&buffer[..35]).is_err());

        let refs = [Reference { id: [1; 32], size: 2, csize: 3 }, Reference { id: [9; 32], size: u32::MAX, csize: 0 }];
        let mut bytes = vec![];
        refs.iter().for_each(|r| r.encode(&mut bytes));
        assert_eq!(Reference::decode_all(&bytes).unwrap().collect::<Vec<_>>(), refs);
        assert!(Reference::decode_all(&bytes[1..]).is_err());
        const { assert!(REFS_BATCH * Reference::SIZE < 1 << 20) };
    }

    #[test]
    fn small_puts_are_charged_too() {
        assert_eq!([0, 1, 511, 512, 513, 1 << 20].map(charge), [512, 512, 512, 512, 513, 1 << 20]);
    }

    #[test]
    fn secrets_do_not_print() {
        let opened = Opened {
            job: 1,
            archive_name: "a".into(),
            repository_id: "00".into(),
            key_type: 7,
            key_blob: "BLOB".into(),
            passphrase: "PASS".into(),
            manifest: vec![1, 255],
            obfuscate: true,
            restore: Some(Reading { objects: 1, bytes: 2 }),
            limits: Limits::default(),
        };
        let text = format!("{opened:?}");
        assert!(!text.contains("BLOB") && !text.contains("PASS"));
        let back: Opened = read_json(&serde_json::to_vec(&opened).unwrap()).unwrap();
        assert!(back == opened);
    }
}
