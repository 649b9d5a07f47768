//! An archive under examination: its item stream is read back from the owner chunk by chunk, every item judged and every chunk
//! reference passed on to the owner, who alone knows what this client may refer to.

use crate::intake::archive::Accepted;
use crate::intake::item;
use crate::intake::object::Verifier;
use crate::intake::paths::Paths;
use crate::rules::Rule;
use crate::stop::Stop;
use borg::Id;
use borg::item::{ItemError, ItemLimits, ItemParser};
use model::progress::{SessionCounters, Statistics};
use std::collections::{HashMap, HashSet, VecDeque};
use wire::session::{Proposal, REFS_BATCH, Reference, kind};

/// Reads on their way to the owner at most.
const READS: usize = 32;

/// Borg 1.x cuts the item stream into pieces of at most 512 KiB. Four times that, times [`READS`], bounds memory.
const MAX_ITEM_CHUNK: usize = 2 * 1024 * 1024;

/// Bytes of item stream in one archive; more items than [`crate::intake::paths::MAX_PATHS`].
const MAX_STREAM: u64 = 64 << 30;

/// How often one chunk may stand in an item stream. Honest streams hardly ever repeat one: each item has its path.
const MAX_REPEATS: u32 = 1000;

/// The item stream may be so many times what it took to make it: the bytes that this session put, and the stream's
/// different chunks. What repeats costs the client 32 bytes, but us the whole chunk.
const MAX_AMPLIFICATION: u64 = 200;

/// Room for one file of some four TiB in chunks of the default size.
const LIMITS: ItemLimits = ItemLimits { item: 96 << 20, chunks: 1 << 21, ..ItemLimits::STRICT };

/// A frame for the owner.
pub type Frame = (u8, Vec<u8>);

/// The state of an examination.
pub struct Examination {
    checkpoint: bool,
    accepted: Accepted,
    parser: ItemParser,
    paths: Paths,
    next: usize,
    waiting: VecDeque<Id>,
    references: Vec<u8>,
    statistics: Statistics,
    stream_bytes: u64,
    stream_put_bytes: u64,
    /// Of `stream_bytes`, those of chunks that had not come before.
    distinct_bytes: u64,
    distinct: HashSet<Id>,
    /// Put by the session, whatever for.
    put_bytes: u64,
}

impl Examination {
    /// Begins; `salt` must be random, `put_bytes` is what the session has put so far.
    pub fn new(checkpoint: bool, accepted: Accepted, salt: [u8; 16], put_bytes: u64) -> Result<Examination, Stop> {
        let mut counts: HashMap<&Id, u32> = HashMap::new();
        for id in &accepted.archive.items {
            let count = counts.entry(id).or_default();
            *count += 1;
            if *count > MAX_REPEATS {
                Rule::ItemLimits.breach(format!("the item stream has chunk {id} more than {MAX_REPEATS} times"))?;
            }
        }
        Ok(Examination {
            checkpoint,
            accepted,
            parser: ItemParser::new(LIMITS),
            paths: Paths::new(salt),
            next: 0,
            waiting: VecDeque::with_capacity(READS),
            references: Vec::new(),
            statistics: Statistics::default(),
            stream_bytes: 0,
            stream_put_bytes: 0,
            distinct_bytes: 0,
            distinct: HashSet::new(),
            put_bytes,
        })
    }

    /// Frames to send now. References go out in bulk only while no answer is due: an owner that is busy answering must never
    /// wait for us while we wait for it.
    pub fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut full = self.references.len() >= REFS_BATCH * Reference::SIZE;
        if full && self.waiting.is_empty() {
            frames = self.take_references();
            // The next reads go with them: no answer is due that could set them off later.
            full = false;
        }
        while !full && self.waiting.len() < READS {
            let Some(id) = self.accepted.archive.items.get(self.next) else { break };
            self.next += 1;
            self.waiting.push_back(*id);
            frames.push((kind::READ, id.0.to_vec()));
        }
        frames
    }

    /// Whether the owner has nothing more to send.
    pub fn is_complete(&self) -> bool {
        self.waiting.is_empty() && self.next == self.accepted.archive.items.len()
    }

    /// Whether this id is the oldest that the owner has not answered.
    pub fn waits_for(&self, id: &[u8; 32]) -> bool {
        self.waiting.front().is_some_and(|asked| asked.0 == *id)
    }

    /// The owner has answered the oldest read: this id is not this client's.
    pub fn not_in_view(&self, id: [u8; 32]) -> Stop {
        Rule::ReferenceNotOwn.broken(format!("the item stream refers to chunk {}, which this client has not stored", Id(id)))
    }

    /// The owner has answered the oldest read. None: that was not asked for.
    pub fn object(&mut self, id: [u8; 32], payload: &[u8], put_now: bool, verifier: &mut Verifier) -> Option<Result<(), Stop>> {
        if !self.waits_for(&id) {
            return None;
        }
        let id = self.waiting.pop_front()?;
        Some(self.piece(&id, payload, put_now, verifier))
    }

    fn piece(&mut self, id: &Id, payload: &[u8], put_now: bool, verifier: &mut Verifier) -> Result<(), Stop> {
        let plaintext = verifier.verified(id, payload)?;
        if plaintext.len() > MAX_ITEM_CHUNK {
            Rule::ItemChunkSize.breach(format!("chunk {id} has {} bytes", plaintext.len()))?;
        }
        let bytes = plaintext.len() as u64;
        self.stream_bytes += bytes;
        if self.stream_bytes > MAX_STREAM {
            return Err(Stop::limit("item-stream", format!("The archive's item stream is longer than {} GiB", MAX_STREAM >> 30)));
        }
        if self.distinct.insert(*id) {
            self.distinct_bytes += bytes;
        }
        let most = self.put_bytes.saturating_add(self.distinct_bytes).saturating_mul(MAX_AMPLIFICATION);
        if self.stream_bytes > most {
            let message = format!("The archive's item stream is more than {MAX_AMPLIFICATION} times what was put for it");
            return Err(Stop::limit("item-stream", message));
        }
        if put_now {
            self.stream_put_bytes += bytes;
        }
        self.parser.push(plaintext);
        while let Some(item) = self.parser.next_item().map_err(stream_error)? {
            item::check(&item, &mut self.paths)?;
            if item::is_counted(&item) {
                self.statistics.nfiles += 1;
            }
            for chunk in item.chunks.iter().flatten() {
                // Borg 1.x: an archive's totals are those of its files; neither parts nor the item stream are in them.
                if item.part.is_none() {
                    self.statistics.original_size = self.statistics.original_size.saturating_add(chunk.size.into());
                    self.statistics.compressed_size = self.statistics.compressed_size.saturating_add(chunk.csize.into());
                }
                Reference { id: chunk.id.0, size: chunk.size, csize: chunk.csize }.encode(&mut self.references);
            }
        }
        Ok(())
    }

    /// The end of a complete stream: the frames that propose the archive. `counters` are the session's; those of the item
    /// stream are replaced by what was read.
    pub fn finish(mut self, counters: &mut SessionCounters) -> Result<Vec<Frame>, Stop> {
        self.parser.finish().map_err(stream_error)?;
        let mut frames = self.take_references();
        for ids in self.accepted.archive.items.chunks(REFS_BATCH) {
            frames.push((kind::ITEMS, ids.iter().flat_map(|id| id.0).collect()));
        }
        counters.item_stream_bytes = self.stream_bytes;
        counters.item_stream_put_bytes = self.stream_put_bytes;
        let proposal = Proposal {
            checkpoint: self.checkpoint,
            statistics: self.statistics,
            chunker_params: self.accepted.chunker_params,
            chunker_named: self.accepted.chunker_named,
            cwd: self.accepted.cwd,
            counters: *counters,
            claims: self.accepted.claims,
        };
        let json = serde_json::to_vec(&proposal).map_err(|e| Stop::failed(model::Cause::Internal, e.to_string()))?;
        frames.push((kind::PROPOSE, json));
        Ok(frames)
    }

    fn take_references(&mut self) -> Vec<Frame> {
        let references = std::mem::take(&mut self.references);
        references.chunks(REFS_BATCH * Reference::SIZE).map(|batch| (kind::REFS, batch.to_vec())).collect()
    }
}

fn stream_error(error: ItemError) -> Stop {
    match &error {
        ItemError::Unknown { field, .. } if field == "chunks_healthy" => Rule::ItemHealthy.broken(error.to_string()),
        _ => Rule::ItemStream.broken(error.to_string()),
    }
}
