//! Whether objects are what an archive of other origin takes them for: there, written with the repository's key, and with the content that
//! their ids promise. As `check --verify-data` does it, and on all cores; afterwards a client may be told that it need not send them.

use super::read::{Answer, look_up};
use super::{Stop, Work};
use crate::failures::of_repository;
use crate::opening::Opening;
use borg::{Id, Key, MAX_PLAINTEXT};
use repository::{Error, Reader};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use wire::importing::Unusable;
use wire::maintenance::Report;
use wire::session::Reference;

/// The overhead of a client's envelopes: its key never encrypts. What a client's cache knows are sizes with it.
const CLIENT_OVERHEAD: usize = 1;

/// Objects that a thread takes at a time.
const SOME: usize = 64;

/// What cannot be relied on.
#[derive(Default)]
pub struct Findings {
    /// The first of it, by id.
    pub unusable: BTreeMap<Id, String>,
    /// How much there is.
    pub count: u64,
}

impl Findings {
    /// One more.
    pub fn add(&mut self, id: Id, why: &str) {
        self.count += 1;
        if self.unusable.len() < Report::MAX_UNUSABLE {
            self.unusable.insert(id, unix::logging::escape(why));
        }
    }

    /// As they are told.
    pub fn shown(self) -> Vec<Unusable> {
        self.unusable.into_iter().map(|(id, why)| Unusable { id: id.to_hex(), why }).collect()
    }
}

/// The sizes of an object: of its plaintext, and of its payload in a client's envelope.
type Sizes = Result<(u32, u32), String>;

/// Looks at these of the references and fills in their sizes. A size that is not zero must be the true one.
pub fn verify(
    work: &Work<'_>,
    opening: &Arc<Opening>,
    references: &mut [Reference],
    which: Vec<usize>,
    findings: &mut Findings,
) -> Result<(), Stop> {
    let total = which.len() as u64;
    let mut done = 0;
    let mut take = |references: &mut [Reference], at: usize, sizes: Sizes| -> Result<(), Stop> {
        done += 1;
        if let Some(reference) = references.get_mut(at) {
            match sizes {
                Ok((size, _)) if reference.size != 0 && reference.size != size => {
                    findings.add(Id(reference.id), &format!("it has {size} bytes, and the archive says {}", reference.size));
                }
                Ok((size, csize)) => (reference.size, reference.csize) = (size, csize),
                Err(why) => findings.add(Id(reference.id), &why),
            }
        }
        work.progress("objects", done, total)
    };
    let Some(reader) = opening.reader() else {
        // Only the writer can read it, one object after the other.
        for at in which {
            let Some(id) = references.get(at).map(|reference| Id(reference.id)) else { continue };
            let sizes = match look_up(work, opening, &id)? {
                Answer::Object(_, payload) => sizes(&opening.key, &id, &payload),
                Answer::Lacking(_, _, why) => Err(why),
            };
            take(references, at, sizes)?;
        }
        return Ok(());
    };
    let order = in_order_of_place(&reader, references, which)?;
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (sender, results) = channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, key, reader) = (sender.clone(), &opening.key, &reader);
            let (order, next, stop) = (&order, &next, &stop);
            scope.spawn(move || read_all(key, reader, order, next, stop, &sender));
        }
        drop(sender);
        let mut outcome = Ok(());
        for (at, result) in results {
            let taken = match result {
                Ok(sizes) => take(references, at, sizes),
                Err(e) => Err(of_repository(&e).into()),
            };
            if let Err(failed) = taken
                && outcome.is_ok()
            {
                stop.store(true, Ordering::Relaxed);
                outcome = Err(failed);
            }
        }
        outcome
    })
}

/// Those objects in the order in which they are on the disk.
fn in_order_of_place(reader: &Reader, references: &[Reference], which: Vec<usize>) -> Result<Vec<(usize, Id)>, Stop> {
    let mut placed = Vec::with_capacity(which.len());
    for at in which {
        let Some(id) = references.get(at).map(|reference| Id(reference.id)) else { continue };
        let entry = reader.entry(&id).map_err(|e| of_repository(&e))?;
        placed.push((entry.map_or((0, 0), |entry| (entry.segment, entry.offset)), at, id));
    }
    placed.sort_unstable_by_key(|(place, ..)| *place);
    Ok(placed.into_iter().map(|(_, at, id)| (at, id)).collect())
}

/// One thread. An error that is not about one object ends it.
fn read_all(
    key: &Key,
    reader: &Reader,
    order: &[(usize, Id)],
    next: &AtomicUsize,
    stop: &AtomicBool,
    results: &Sender<(usize, repository::Result<Sizes>)>,
) {
    loop {
        let from = next.fetch_add(SOME, Ordering::Relaxed);
        let Some(some) = order.get(from..order.len().min(from.saturating_add(SOME))).filter(|some| !some.is_empty()) else { return };
        for (at, id) in some {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let result = match reader.get(id) {
                Ok(Some(envelope)) => Ok(key.open(&envelope).map_err(|e| e.to_string()).and_then(|payload| sizes(key, id, &payload))),
                Ok(None) => Ok(Err("it is not in the repository".into())),
                Err(Error::Damaged(why)) => Ok(Err(why)),
                Err(Error::Io(e)) => Ok(Err(e.to_string())),
                Err(e) => Err(e),
            };
            if results.send((*at, result)).is_err() {
                return;
            }
        }
    }
}

fn sizes(key: &Key, id: &Id, payload: &[u8]) -> Sizes {
    let plain = borg::compress::decompress(payload, MAX_PLAINTEXT).map_err(|e| e.to_string())?;
    if key.id_hash(&plain) != *id {
        return Err("its content is not what its id promises".into());
    }
    let short = |length: usize| u32::try_from(length).map_err(|_| "it is larger than Borg allows".to_owned());
    Ok((short(plain.len())?, short(payload.len() + CLIENT_OVERHEAD)?))
}
