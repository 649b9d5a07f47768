//! Objects out of the owner, in the order in which they are asked for: received, decompressed and verified beside whoever uses them.
//!
//! Memory is bounded whatever the objects are: what was received and not decompressed, and what was decompressed and not taken, has a limit each,
//! and the first one in the order always goes on.

use crate::error::{Error, Result};
use crate::source::Source;
use borg::compress::Decompressor;
use borg::{Id, MAX_PLAINTEXT};
use model::{Cause, Failure};
use std::collections::VecDeque;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::reading::{Lacking, MAX_FETCH, Reason, kind as reading};
use wire::session::{kind, read_json, split_id};
use wire::{WireError, frame};

/// Bytes that were received and not decompressed.
const PACKED: usize = 16 << 20;

/// Bytes that were decompressed and not taken, besides one object for each worker.
const PLAIN: usize = 32 << 20;

/// Small objects that one worker takes at a time: so many,
const MOST_TOGETHER: usize = 32;

/// and until they have so many bytes.
const TOGETHER: usize = 128 << 10;

/// What is read from the socket at once.
const BUFFER: usize = 256 << 10;

/// More threads than this do not read faster.
const MOST_WORKERS: usize = 8;

/// So long a new connection is tried for when one broke.
const RETURN: Duration = Duration::from_secs(60);

/// How often.
const AGAIN: Duration = Duration::from_millis(200);

/// An object that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Its id.
    pub id: Id,
    /// A sentence about it, fit to be printed.
    pub why: String,
}

/// An object's plaintext, or why there is none.
pub type Object = std::result::Result<Vec<u8>, Lack>;

/// A connection to the owner and the threads behind it.
#[derive(Debug)]
pub struct Channel {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
enum Slot {
    Asked(Id),
    Packed(Id, Vec<u8>),
    Working,
    Done(Object),
}

#[derive(Debug)]
struct State {
    /// What was asked for and not taken.
    slots: VecDeque<Slot>,
    /// Numbers count all objects that were ever asked for: that of the first slot,
    base: u64,
    /// of the next to be asked for,
    sent: u64,
    /// to be received,
    received: u64,
    /// to be decompressed.
    worked: u64,
    packed: usize,
    plain: usize,
    stream: Arc<UnixStream>,
    /// Changes with the stream.
    generation: u64,
    failure: Option<Broken>,
    closed: bool,
}

/// Why nothing more comes.
#[derive(Debug, Clone)]
enum Broken {
    Owner(Failure),
    Unreachable(String),
    Malformed(String),
}

#[derive(Debug)]
struct Shared {
    source: Source,
    state: Mutex<State>,
    /// There is something to ask for.
    to_send: Condvar,
    /// There is room for what comes.
    to_receive: Condvar,
    /// There is something to decompress, or room for it.
    to_work: Condvar,
    /// The first one is done.
    to_take: Condvar,
}

impl Channel {
    /// Connects.
    pub fn open(source: &Source) -> Result<Channel> {
        let stream = Arc::new(source.connect()?);
        let state = State {
            slots: VecDeque::new(),
            base: 0,
            sent: 0,
            received: 0,
            worked: 0,
            packed: 0,
            plain: 0,
            stream,
            generation: 0,
            failure: None,
            closed: false,
        };
        let shared = Arc::new(Shared {
            source: source.clone(),
            state: Mutex::new(state),
            to_send: Condvar::new(),
            to_receive: Condvar::new(),
            to_work: Condvar::new(),
            to_take: Condvar::new(),
        });
        let mut channel = Channel { shared, threads: vec![] };
        channel.start("sender", Shared::send)?;
        channel.start("receiver", Shared::receive)?;
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()).min(MOST_WORKERS) {
            channel.start("worker", Shared::work)?;
        }
        Ok(channel)
    }

    fn start(&mut self, name: &str, run: fn(&Shared)) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared));
        self.threads.push(thread.map_err(Error::System)?);
        Ok(())
    }

    /// Asks for further objects; bounding how many is the caller's affair.
    pub fn ask(&self, ids: impl IntoIterator<Item = Id>) {
        let mut state = self.shared.lock();
        state.slots.extend(ids.into_iter().map(Slot::Asked));
        self.shared.to_send.notify_one();
    }

    /// Whether the next one is here: taking it needs no waiting.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.shared.lock().slots.front(), Some(Slot::Done(_)))
    }

    /// The next object in the order of asking, or why there is none.
    ///
    /// # Errors
    /// When nothing more comes.
    pub fn take(&self) -> Result<Object> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            match state.slots.pop_front() {
                Some(Slot::Done(done)) => {
                    state.base += 1;
                    let was_full = state.plain >= PLAIN;
                    state.plain -= done.as_ref().map_or(0, Vec::len);
                    if was_full {
                        // The next one is the first now: it may go on whatever the memory is.
                        shared.to_work.notify_all();
                    }
                    return Ok(done);
                }
                Some(other) => state.slots.push_front(other),
                None => return Err(Error::Wire(WireError::Malformed("an object was awaited that nobody asked for".into()))),
            }
            if let Some(broken) = &state.failure {
                return Err(broken.into());
            }
            state = shared.to_take.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl From<&Broken> for Error {
    fn from(broken: &Broken) -> Error {
        match broken.clone() {
            Broken::Owner(failure) => Error::Owner(failure),
            Broken::Unreachable(why) => Error::Unreachable(why),
            Broken::Malformed(why) => Error::Wire(WireError::Malformed(why)),
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            if let Err(e) = state.stream.shutdown(Shutdown::Both) {
                log::debug!("the owner is gone already: {e}");
            }
        }
        let shared = &self.shared;
        [&shared.to_send, &shared.to_receive, &shared.to_work].into_iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread that reads has failed");
            }
        }
    }
}

/// Whether the owner only says that it ends: the next connection starts another one.
fn is_restart(failure: &Failure) -> bool {
    failure.cause == Cause::OwnerLost
}

impl State {
    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let at = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(at)
    }

    /// The next objects to decompress, and their bytes.
    fn batch(&mut self) -> (Vec<(u64, Id, Vec<u8>)>, usize) {
        let (mut batch, mut bytes) = (vec![], 0);
        while self.worked < self.received && batch.len() < MOST_TOGETHER && bytes < TOGETHER {
            let number = self.worked;
            self.worked += 1;
            let Some(slot) = self.slot(number) else { continue };
            match std::mem::replace(slot, Slot::Working) {
                Slot::Packed(id, payload) => {
                    bytes += payload.len();
                    batch.push((number, id, payload));
                }
                // There is nothing to do.
                other => *slot = other,
            }
        }
        (batch, bytes)
    }

    /// The number behind the last slot.
    fn end(&self) -> u64 {
        self.base + self.slots.len() as u64
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        condition.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, broken: Broken) {
        let mut state = self.lock();
        state.failure.get_or_insert(broken);
        state.closed = true;
        drop(state);
        [&self.to_send, &self.to_receive, &self.to_work, &self.to_take].into_iter().for_each(Condvar::notify_all);
    }

    /// Passes on what is asked for.
    fn send(&self) {
        let mut state = self.lock();
        loop {
            if state.closed {
                return;
            }
            let (first, end) = (state.sent, state.end().min(state.sent + MAX_FETCH as u64));
            let mut ids = Vec::with_capacity((end - first) as usize * 32);
            for number in first..end {
                if let Some(Slot::Asked(id)) = state.slot(number) {
                    ids.extend_from_slice(&id.0);
                }
            }
            if ids.is_empty() {
                state = self.wait(&self.to_send, state);
                continue;
            }
            state.sent = end;
            let (stream, generation) = (Arc::clone(&state.stream), state.generation);
            drop(state);
            let sent = frame::write(&mut &*stream, reading::FETCH, &[&ids]);
            state = self.lock();
            // The receiver hears of a broken connection as well, and makes another one.
            while sent.is_err() && state.generation == generation && !state.closed {
                state = self.wait(&self.to_send, state);
            }
        }
    }

    /// Takes what comes.
    fn receive(&self) {
        let mut payload = vec![];
        let mut input: Option<(u64, BufReader<UnixStream>)> = None;
        loop {
            let (stream, generation) = {
                let mut state = self.lock();
                while state.packed >= PACKED && !state.closed {
                    state = self.wait(&self.to_receive, state);
                }
                if state.closed {
                    return;
                }
                (Arc::clone(&state.stream), state.generation)
            };
            let reader = match &mut input {
                Some((of, reader)) if *of == generation => reader,
                _ => match stream.try_clone() {
                    Ok(clone) => &mut input.insert((generation, BufReader::with_capacity(BUFFER, clone))).1,
                    Err(e) => return self.fail(Broken::Unreachable(e.to_string())),
                },
            };
            let answer = frame::read(reader, &mut payload).map(|kind| self.arrived(kind, &mut payload));
            let is_lost = match answer {
                Ok(Ok(())) => false,
                Ok(Err(Broken::Owner(failure))) if is_restart(&failure) => true,
                Ok(Err(broken)) => return self.fail(broken),
                Err(WireError::Closed | WireError::Io(_)) => true,
                Err(e) => return self.fail(Broken::Malformed(e.to_string())),
            };
            if is_lost && let Err(broken) = self.reconnect() {
                return self.fail(broken);
            }
        }
    }

    fn arrived(&self, kind: u8, payload: &mut Vec<u8>) -> std::result::Result<(), Broken> {
        let malformed = |e: WireError| Broken::Malformed(e.to_string());
        let (id, slot) = match kind {
            kind::OBJECT => {
                let id = Id(split_id(payload).map_err(malformed)?.0);
                payload.drain(..32);
                (id, Slot::Packed(id, std::mem::take(payload)))
            }
            reading::LACKING => {
                let lacking = Lacking::decode(payload).map_err(malformed)?;
                let id = Id(lacking.id);
                let said = match (lacking.reason, lacking.sentence) {
                    (Reason::Missing, "") => format!("object {id} is not in the repository"),
                    (Reason::Damaged, "") => format!("object {id} is damaged"),
                    (Reason::Foreign, "") => format!("object {id} does not belong to this archive"),
                    (_, sentence) => sentence.to_owned(),
                };
                (id, Slot::Done(Err(Lack { id, why: said })))
            }
            kind::FAILED => return Err(Broken::Owner(read_json(payload).map_err(malformed)?)),
            other => return Err(Broken::Malformed(format!("an answer of type {other}"))),
        };
        let is_packed = matches!(slot, Slot::Packed(..));
        let mut state = self.lock();
        let number = state.received;
        if let Slot::Packed(_, payload) = &slot {
            state.packed += payload.len();
        }
        let place = state.slot(number).filter(|place| matches!(place, Slot::Asked(asked) if *asked == id));
        *place.ok_or_else(|| Broken::Malformed(format!("object {id} came, and nobody asked for it")))? = slot;
        state.received += 1;
        drop(state);
        // What is lacking is done.
        if is_packed {
            self.to_work.notify_one()
        } else {
            self.to_take.notify_one()
        }
        Ok(())
    }

    /// The owner was restarted, or ended: it answers again in a moment, and goes on with what was asked for.
    fn reconnect(&self) -> std::result::Result<(), Broken> {
        let deadline = Instant::now() + RETURN;
        loop {
            if self.lock().closed {
                return Ok(());
            }
            let why = match self.source.connect() {
                Ok(stream) => {
                    let mut state = self.lock();
                    if !state.closed {
                        state.stream = Arc::new(stream);
                        state.generation += 1;
                        state.sent = state.received;
                        self.to_send.notify_one();
                    }
                    return Ok(());
                }
                Err(Error::Unreachable(why)) => Broken::Unreachable(why),
                Err(Error::Connect(why)) => Broken::Unreachable(why.to_string()),
                Err(Error::Owner(failure)) if is_restart(&failure) => Broken::Owner(failure),
                Err(Error::Owner(failure)) => return Err(Broken::Owner(failure)),
                Err(other) => return Err(Broken::Malformed(other.to_string())),
            };
            if Instant::now() >= deadline {
                return Err(why);
            }
            log::debug!("once more: {why:?}");
            std::thread::sleep(AGAIN);
        }
    }

    /// Decompresses and verifies, small objects several at a time.
    fn work(&self) {
        let mut decompressor = Decompressor::new();
        let mut state = self.lock();
        loop {
            if state.closed {
                return;
            }
            // Others than objects may have been taken already.
            let has_room = state.worked <= state.base || state.plain < PLAIN;
            if state.worked >= state.received || !has_room {
                state = self.wait(&self.to_work, state);
                continue;
            }
            let (batch, length) = state.batch();
            if state.worked < state.received {
                self.to_work.notify_one();
            }
            if batch.is_empty() {
                continue;
            }
            drop(state);
            let (mut done, mut plain) = (vec![], 0);
            for (number, id, payload) in batch {
                if plain >= BUFFER {
                    // Small objects may decompress to large ones.
                    state = self.lock();
                    self.publish(&mut state, std::mem::take(&mut done));
                    while number > state.base && state.plain >= PLAIN && !state.closed {
                        state = self.wait(&self.to_work, state);
                    }
                    drop(state);
                    plain = 0;
                }
                let object = self.verified(id, &payload, &mut decompressor);
                plain += object.as_ref().map_or(0, Vec::len);
                done.push((number, object));
            }
            state = self.lock();
            state.packed -= length;
            self.publish(&mut state, done);
            self.to_receive.notify_one();
        }
    }

    fn publish(&self, state: &mut State, done: Vec<(u64, Object)>) {
        for (number, done) in done {
            state.plain += done.as_ref().map_or(0, Vec::len);
            if number == state.base {
                self.to_take.notify_one();
            }
            if let Some(slot) = state.slot(number) {
                *slot = Slot::Done(done);
            }
        }
    }

    fn verified(&self, id: Id, payload: &[u8], decompressor: &mut Decompressor) -> Object {
        let lack = |why: String| Lack { id, why: format!("object {id}: {why}") };
        let plain = decompressor.decompress(payload, MAX_PLAINTEXT).map_err(|e| lack(e.to_string()))?;
        if self.source.key.id_hash(plain) != id {
            return Err(lack("its content is not what its id promises".into()));
        }
        Ok(plain.to_vec())
    }
}
