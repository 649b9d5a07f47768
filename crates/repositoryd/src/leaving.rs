//! The owner leaves, and another process of it goes on with its sessions: who is told, and what each thread leaves behind.
//!
//! Every thread stops between two frames. What it knows and what it has read beyond that goes into the [`Estate`]; see [`crate::succession`] for
//! what becomes of it.

use crate::legacy::Conversation;
use crate::owner::Owner;
use std::collections::HashMap;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard};
use wire::{WireError, frame};

/// What everybody who waits for something waits for as well.
#[derive(Debug)]
pub struct Leaving {
    is_so: AtomicBool,
    ears: UnixStream,
    bell: Mutex<Option<UnixStream>>,
}

impl Leaving {
    /// Not yet.
    pub fn new() -> io::Result<Leaving> {
        let (bell, ears) = UnixStream::pair()?;
        Ok(Leaving { is_so: AtomicBool::new(false), ears, bell: Mutex::new(Some(bell)) })
    }

    /// From now on every thread is to stop at its next frame.
    pub fn begin(&self) {
        self.is_so.store(true, Ordering::SeqCst);
        drop(self.bell.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether it has begun.
    pub fn is_so(&self) -> bool {
        self.is_so.load(Ordering::SeqCst)
    }
}

impl AsFd for Leaving {
    /// Readable when it has begun.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ears.as_fd()
    }
}

/// A worker's connection.
#[derive(Debug)]
pub struct WorkerEnd {
    /// Its socket.
    pub stream: UnixStream,
    /// Of the token of its job.
    pub token_hash: String,
    /// A frame that was read and not dealt with.
    pub said: Vec<u8>,
}

/// What the threads have left behind.
#[derive(Default)]
pub struct Estate {
    sessions: Mutex<HashMap<u64, (UnixStream, Conversation)>>,
    workers: Mutex<HashMap<u64, WorkerEnd>>,
    strangers: Mutex<Vec<(UnixStream, Vec<u8>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Estate {
    /// A session's part.
    pub fn leave_session(&self, job: u64, stream: UnixStream, conversation: Conversation) {
        lock(&self.sessions).insert(job, (stream, conversation));
    }

    /// A worker's part.
    pub fn leave_worker(&self, job: u64, end: WorkerEnd) {
        lock(&self.workers).insert(job, end);
    }

    /// Somebody who has not said yet what he wants, or has only just.
    pub fn leave_stranger(&self, stream: UnixStream, said: Vec<u8>) {
        lock(&self.strangers).push((stream, said));
    }

    /// See [`Estate::leave_session`].
    pub fn take_session(&self, job: u64) -> Option<(UnixStream, Conversation)> {
        lock(&self.sessions).remove(&job)
    }

    /// See [`Estate::leave_worker`].
    pub fn take_worker(&self, job: u64) -> Option<WorkerEnd> {
        lock(&self.workers).remove(&job)
    }

    /// See [`Estate::leave_stranger`].
    pub fn take_strangers(&self) -> Vec<(UnixStream, Vec<u8>)> {
        std::mem::take(&mut lock(&self.strangers))
    }
}

/// Whether somebody may go in.
pub enum Pass<'a> {
    /// As long as this lives, nobody lends the repository.
    Inside(RwLockReadGuard<'a, ()>),
    /// The bell was rung.
    Called,
    /// The process ends, and its successor is to do it.
    Leaving,
}

impl Owner {
    /// Goes through the gate, waiting while it is closed.
    pub fn pass(&self, bell: &UnixStream) -> Pass<'_> {
        if self.leaving.is_so() {
            return Pass::Leaving;
        }
        let inside = self.gate.pass(&[bell.as_fd(), self.leaving.as_fd()]);
        match inside {
            // Whoever had closed it may have been sent away.
            _ if self.leaving.is_so() => Pass::Leaving,
            Some(inside) => Pass::Inside(inside),
            None => Pass::Called,
        }
    }
}

/// A connection whose beginning was read by somebody else.
#[derive(Debug)]
pub struct Input {
    before: Vec<u8>,
    at: usize,
    stream: BufReader<UnixStream>,
}

impl Input {
    /// What was read, and what comes then.
    pub fn new(before: Vec<u8>, stream: UnixStream) -> Input {
        Input { before, at: 0, stream: BufReader::with_capacity(1 << 18, stream) }
    }

    /// Whether there is something that polling does not see.
    pub fn has_some(&self) -> bool {
        self.at < self.before.len() || !self.stream.buffer().is_empty()
    }

    /// What was read from the socket and not from here, behind a frame that was and is given back.
    pub fn rest(&self, given_back: Option<(u8, &[u8])>) -> Result<Vec<u8>, WireError> {
        let mut rest = vec![];
        if let Some((kind, payload)) = given_back {
            frame::write(&mut rest, kind, &[payload])?;
        }
        rest.extend_from_slice(&self.before[self.at..]);
        rest.extend_from_slice(self.stream.buffer());
        Ok(rest)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.before.len() {
            let count = (&self.before[self.at..]).read(buffer)?;
            self.at += count;
            return Ok(count);
        }
        self.before = vec![];
        self.at = 0;
        self.stream.read(buffer)
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;
    use unix::poll::{Interest, poll};

    #[test]
    fn nothing_of_what_was_read_is_lost() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        frame::write(&mut theirs, 2, &[b"two"]).unwrap();
        frame::write(&mut theirs, 3, &[b"three"]).unwrap();
        theirs.write_all(&[9, 0, 0]).unwrap();
        let mut before = vec![];
        frame::write(&mut before, 1, &[b"one"]).unwrap();
        let mut input = Input::new(before, ours.try_clone().unwrap());
        let mut payload = vec![];
        assert!(input.has_some());
        assert_eq!(frame::read(&mut input, &mut payload).unwrap(), 1);
        assert!(!input.has_some());
        assert_eq!(frame::read(&mut input, &mut payload).unwrap(), 2);
        // The second frame is given back, the third and a part of the fourth were not handed out.
        let rest = input.rest(Some((2, &payload))).unwrap();
        drop(input);
        let mut input = Input::new(rest, ours);
        assert_eq!(frame::read(&mut input, &mut payload).unwrap(), 2);
        assert_eq!(payload, b"two");
        assert_eq!(frame::read(&mut input, &mut payload).unwrap(), 3);
        theirs.write_all(&[0, 4]).unwrap();
        theirs.write_all(b"and four").unwrap();
        assert_eq!(frame::read(&mut input, &mut payload).unwrap(), 4);
        assert_eq!(payload, b"and four");
    }

    #[test]
    fn everybody_hears_it() {
        let leaving = Leaving::new().unwrap();
        let look = || poll(&[(leaving.as_fd(), Interest::Read)], Some(Duration::ZERO)).unwrap()[0].any();
        assert!(!look() && !leaving.is_so());
        leaving.begin();
        assert!(look() && look() && leaving.is_so());
    }
}
