//! What a worker and its confined process say to each other. What the process says is bounded here, and only then believed as far as it goes.

use anyhow::{Result, bail};
use archive::trial::TriedFile;
use archive::uses;
use model::check::DamagedFiles;
use model::{Cause, Failure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use unix::confine::Confined;
use unix::logging::bounded;
use wire::importing::Counted;

/// Characters of a sentence.
pub const SENTENCE: usize = 1000;

/// Characters of what is counted.
pub const UNIT: usize = 50;

/// Sentences about an archive's list of files.
const COMPLAINTS: usize = 20;

/// What it is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The archive's id.
    pub archive: String,
    /// Seconds at most, of processor time as well.
    pub seconds: u64,
    /// What to do with it.
    pub what: What,
}

/// Everything that it can be ordered to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// Draw a sample, extract it, hash it.
    Extract(Box<Extract>),
    /// Write down what it refers to, into one of two scratch files: see [`archive::uses`].
    Uses {
        /// Different chunks at most.
        most: u64,
    },
    /// Name the files that have any of these chunks.
    Files {
        /// Ids, 64 hex digits each.
        chunks: Vec<String>,
    },
}

/// A restore test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Extract {
    /// The test's own directory.
    pub directory: PathBuf,
    /// Files at most.
    pub files: u32,
    /// Bytes at most.
    pub bytes: u64,
    /// Everything that is taken has to fit.
    pub is_whole: bool,
    /// Patterns.
    pub take: Vec<String>,
    /// What the sample is drawn with.
    pub seed: u32,
    /// Recorded files: hash of the path, hash of the item.
    pub known: BTreeMap<String, String>,
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// The first one, and only that: what it has given up.
    Ready(Ready),
    /// It wants a connection to the owner.
    Connect,
    /// How far it is.
    Progress { unit: String, done: u64, total: u64 },
    /// One file of a sample.
    File(Box<Told>),
    /// The last one: what came of it.
    Done(Done),
    /// The last one.
    Failed(Failure),
    /// It said something else, or ended without a last word.
    #[serde(skip)]
    Lost(String),
}

/// What is in force, see [`Confined`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ready {
    calls: bool,
    files: bool,
    limits: bool,
}

/// What came of an order.
#[derive(Debug, Serialize, Deserialize)]
pub enum Done {
    /// Of a sample, besides the files.
    Tried(Summary),
    /// What the archive refers to is in this file.
    Uses { file: usize, uses: u64, counted: Counted },
    /// Of the other origin that it is, it cannot be used.
    Refused { why: String, is_damage: bool },
    /// Files.
    Files(DamagedFiles),
}

/// A file, fit for JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// In hex digits.
    pub path: String,
    pub path_hash: String,
    pub item_hash: String,
    pub content: String,
    pub mode: u32,
    pub uid: i64,
    pub gid: i64,
    pub size: u64,
    /// Nanoseconds; what does not fit is the nearest that does.
    pub mtime: i64,
    pub ctime: Option<i64>,
    pub damage: Option<String>,
    pub note: Option<String>,
}

/// What there is to say about all files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    pub bytes: u64,
    pub seen: u64,
    pub seen_bytes: u64,
    pub too_large: u64,
    pub unmatched: Vec<String>,
    pub complaints: Vec<String>,
    pub not_compared: Vec<String>,
}

impl From<Confined> for Ready {
    fn from(Confined { calls, files, limits }: Confined) -> Ready {
        Ready { calls, files, limits }
    }
}

impl Ready {
    /// A sentence about what the system did not let it give up.
    #[must_use]
    pub fn lacking(self) -> Option<String> {
        let Ready { calls, files, limits } = self;
        let lacking = Confined { calls, files, limits }.lacking();
        (!lacking.is_empty()).then(|| format!("this system does not confine the process that reads archives by {}", lacking.join(", ")))
    }
}

impl From<TriedFile> for Told {
    fn from(file: TriedFile) -> Told {
        let nanoseconds = |time: i128| time.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Told {
            path: file.path.iter().map(|b| format!("{b:02x}")).collect(),
            path_hash: file.path_hash,
            item_hash: file.item_hash,
            content: file.content,
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            size: file.size,
            mtime: nanoseconds(file.mtime),
            ctime: file.ctime.map(nanoseconds),
            damage: file.damage,
            note: file.note,
        }
    }
}

impl Told {
    /// The path's bytes.
    pub fn path(&self) -> Option<Vec<u8>> {
        let (pairs, rest) = self.path.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
    }
}

impl Done {
    /// The same, if it is an answer to that order, with nothing in it that is longer than it may be.
    pub fn checked(self, what: &What) -> Result<Done> {
        Ok(match (self, what) {
            (Done::Tried(mut summary), What::Extract(extract)) => {
                // Of what was asked for.
                summary.unmatched.retain(|pattern| extract.take.contains(pattern));
                summary.unmatched.sort();
                summary.unmatched.dedup();
                for sentences in [&mut summary.complaints, &mut summary.not_compared] {
                    sentences.truncate(COMPLAINTS);
                    sentences.iter_mut().for_each(|what| *what = bounded(what, SENTENCE));
                }
                Done::Tried(summary)
            }
            (Done::Uses { file, uses, counted }, What::Uses { most }) if file < 2 && uses <= *most => Done::Uses { file, uses, counted },
            (Done::Refused { why, is_damage }, What::Uses { .. }) => Done::Refused { why: bounded(&why, SENTENCE), is_damage },
            (Done::Files(files), What::Files { .. }) => Done::Files(archive::damaged::bounded(files)),
            _ => bail!("it said something else than it was asked"),
        })
    }
}

impl From<uses::Uses> for Done {
    fn from(uses::Uses { file, uses, counted }: uses::Uses) -> Done {
        Done::Uses { file, uses, counted }
    }
}

/// Why it fails, as it says: of the repository, its owner, this server or the archive. It accuses nobody, and has not seen what people did.
pub fn checked(failure: Failure) -> Failure {
    use Cause::*;
    let cause = match failure.cause {
        cause @ (RepositoryDoesNotExist
        | RepositoryInvalid
        | RepositoryCheckNeeded
        | RepositoryEnospc
        | RepositoryLockTimeout
        | RepositoryIdMismatch
        | RepositoryUnreachable
        | RepositoryError
        | PassphraseWrong
        | KeyMissing
        | RepositoryIntegrity
        | DatabaseEnospc
        | OwnerLost
        | ArchiveMissing
        | RestoreTestDamaged
        | RestoreTestEnospc) => cause,
        QuotaExceeded { limit } if limit == "restore-test" => QuotaExceeded { limit },
        _ => Internal,
    };
    Failure::new(cause, bounded(&failure.message, SENTENCE))
}
