//! A repository behind a `borg serve` child: on another machine, or on this one for comparison.

mod connection;
mod diagnostics;

use crate::OpenOptions;
use crate::error::{Error, Result, from_exception};
use crate::location::Location;
use borg::msgpack::Writer;
use borg::rpc::{RemoteException, call};
use borg::{Id, RepositoryId};
use connection::{Answer, Connection, WORK};
use std::collections::HashSet;
use std::time::Duration;

/// Replies that may be outstanding; more would only delay the news of a full disk.
const IN_FLIGHT: usize = 256;

/// Ids in one page of a list.
const PAGE: u64 = 50_000;

/// What we call ourselves: behaves like a 1.2 client.
const VERSION: [i64; 4] = [1, 2, 8, -1];

/// An open repository. Dropping it ends the child; what was not committed is lost.
#[derive(Debug)]
pub struct Served {
    connection: Connection,
    location: Location,
    url: String,
    lock_wait: u64,
    id: RepositoryId,
    /// Calls whose replies nobody waits for yet.
    outstanding: HashSet<u64>,
    /// The first error among them: from then on nothing works any more.
    broken: Option<Error>,
    /// Something was put or deleted since the last commit.
    dirty: bool,
}

impl Served {
    /// Starts the child and opens the repository, or creates it.
    pub fn open(options: &OpenOptions) -> Result<Served> {
        let location = Location::parse(&options.url)?;
        let connection = Connection::start(&location.command(&options.borg, options.rsh.as_deref())?, options.host_id.as_deref())?;
        let mut this = Served {
            connection,
            location,
            url: options.url.clone(),
            lock_wait: options.lock_wait,
            id: RepositoryId([0; 32]),
            outstanding: HashSet::new(),
            broken: None,
            dirty: false,
        };
        match this.call(|n| call::negotiate(n, &VERSION))? {
            Answer::Version(version) if version.first() == Some(&1) && version.get(1) >= Some(&1) => {}
            _ => return Err(Error::Unreachable(format!("{} is served by no Borg of version 1.1 to 1.4", options.url))),
        }
        this.connection.allow(WORK + Duration::from_secs(options.lock_wait.min(WORK.as_secs())));
        let path = this.location.path().to_vec();
        let open = call::Open {
            path: &path,
            create: options.create,
            lock_wait: Some(options.lock_wait),
            lock: true,
            exclusive: options.exclusive || options.create,
            append_only: false,
            make_parent_dirs: false,
        };
        let id = this.call(|n| call::open(n, &open))?;
        this.id = match id {
            Answer::Raw(bytes) => RepositoryId::try_from(&bytes[..]).map_err(|e| Error::Unreachable(format!("{}: {e}", options.url)))?,
            _ => return Err(unexpected("open")),
        };
        match options.expected {
            Some(expected) if expected != this.id => Err(Error::IdMismatch { expected, found: this.id }),
            _ => Ok(this),
        }
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    /// The key blob in the repository's config; None if it has none.
    pub fn load_key(&mut self) -> Result<Option<Vec<u8>>> {
        match self.call(call::load_key)? {
            Answer::Raw(blob) => Ok(Some(blob).filter(|blob| !blob.is_empty())),
            Answer::Nothing => Ok(None),
            _ => Err(unexpected("load_key")),
        }
    }

    /// Puts a key blob into the repository's config.
    pub fn save_key(&mut self, blob: &[u8]) -> Result<()> {
        self.call(|n| call::save_key(n, blob)).map(drop)
    }

    /// An object's envelope. Sees what was put before, committed or not.
    pub fn get(&mut self, id: &Id) -> Result<Vec<u8>> {
        match self.call(|n| call::get(n, id))? {
            Answer::Raw(envelope) => Ok(envelope),
            _ => Err(unexpected("get")),
        }
    }

    /// Stores an envelope. An error of this or an earlier call may surface later, at [`Served::commit`] at the latest.
    pub fn put(&mut self, id: &Id, envelope: &[u8]) -> Result<()> {
        let number = self.connection.number();
        self.send_unawaited(number, &call::put_head(number, id, envelope.len()), envelope)
    }

    /// Deletes an object, with errors as for [`Served::put`].
    pub fn delete(&mut self, id: &Id) -> Result<()> {
        let number = self.connection.number();
        self.send_unawaited(number, &call::delete(number, id), &[])
    }

    /// Looks, without waiting, whether the child is alive and has refused nothing. For the time between calls.
    pub fn check_alive(&mut self) -> Result<()> {
        self.check()?;
        loop {
            let polled = self.connection.poll();
            match self.remember(polled)? {
                Some((msgid, outcome)) => self.settle(msgid, outcome)?,
                None => return Ok(()),
            }
        }
    }

    /// All ids, the manifest's among them.
    pub fn list_ids(&mut self) -> Result<Vec<Id>> {
        let mut ids: Vec<Id> = vec![];
        loop {
            let marker = ids.last().copied();
            match self.call(|n| call::list(n, PAGE, marker.as_ref()))? {
                Answer::Ids(page) if page.is_empty() => return Ok(ids),
                Answer::Ids(page) => ids.extend(page),
                _ => return Err(unexpected("list")),
            }
        }
    }

    /// How many objects there are, the manifest included.
    pub fn object_count(&mut self) -> Result<u64> {
        match self.call(call::len)? {
            Answer::Int(count) => Ok(count),
            _ => Err(unexpected("__len__")),
        }
    }

    /// Makes everything put and deleted so far durable, without compacting (Borg 1.1 compacts all the same).
    pub fn commit(&mut self) -> Result<()> {
        self.call(|n| call::commit(n, false, 0.1, false))?;
        self.dirty = false;
        Ok(())
    }

    /// Forgets everything since the last commit.
    pub fn rollback(&mut self) -> Result<()> {
        self.call(call::rollback).map(drop)
    }

    /// Forgets everything since the last commit and frees its space at once, also after an error. Otherwise a full file system would stay
    /// full until the next writing transaction, which may not even begin on it.
    pub fn discard(&mut self) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        while !self.outstanding.is_empty() {
            let (msgid, _) = self.connection.wait()?;
            self.outstanding.remove(&msgid);
        }
        self.broken = None;
        self.rollback()?;
        // Borg 1.x removes uncommitted segments when a transaction begins; deleting what does not exist begins one and changes nothing.
        let nothing = Id([0xff; 32]);
        let mut began = self.call(|n| call::delete(n, &nothing));
        if matches!(began, Err(Error::NoSpace(_))) {
            // Closing the segment that did not fit failed once more; it is closed all the same.
            began = self.call(|n| call::delete(n, &nothing));
        }
        match began {
            Ok(_) | Err(Error::ObjectNotFound(_)) => self.rollback()?,
            Err(e) => return Err(e),
        }
        self.dirty = false;
        Ok(())
    }

    /// The first nonce that nobody reserved; None if no reservation was ever made.
    pub fn free_nonce(&mut self) -> Result<Option<u64>> {
        match self.call(call::get_free_nonce)? {
            Answer::Int(nonce) => Ok(Some(nonce)),
            Answer::Nothing => Ok(None),
            _ => Err(unexpected("get_free_nonce")),
        }
    }

    /// Reserves all nonces below `next`; `start` is what [`Served::free_nonce`] answered. Durable at once, commit or not.
    pub fn reserve_nonce(&mut self, next: u64, start: Option<u64>) -> Result<()> {
        self.call(|n| call::commit_nonce_reservation(n, next, start)).map(drop)
    }

    /// Removes the whole repository: for one that was created a moment ago and cannot be completed.
    pub fn destroy(mut self) -> Result<()> {
        let message = |number| {
            let mut writer = Writer::new();
            writer.map(3);
            writer.raw(b"i");
            writer.uint(number);
            writer.raw(b"m");
            writer.raw(b"destroy");
            writer.raw(b"a");
            writer.map(0);
            writer.into_bytes()
        };
        self.call(message).map(drop)
    }

    /// Ends the child and waits until the lock is released.
    pub fn close(mut self) {
        self.connection.finish();
    }

    fn send_unawaited(&mut self, number: u64, head: &[u8], body: &[u8]) -> Result<()> {
        self.check()?;
        self.dirty = true;
        let sent = self.connection.send(head, body);
        self.remember(sent)?;
        self.outstanding.insert(number);
        self.check_alive()?;
        while self.outstanding.len() >= IN_FLIGHT {
            let waited = self.connection.wait();
            let (msgid, outcome) = self.remember(waited)?;
            self.settle(msgid, outcome)?;
        }
        Ok(())
    }

    /// Calls and waits for the answer, and so for all answers before it.
    fn call(&mut self, message: impl FnOnce(u64) -> Vec<u8>) -> Result<Answer> {
        self.check()?;
        let number = self.connection.number();
        let sent = self.connection.send(&message(number), &[]);
        self.remember(sent)?;
        loop {
            let waited = self.connection.wait();
            let (msgid, outcome) = self.remember(waited)?;
            if msgid != number {
                self.settle(msgid, outcome)?;
                continue;
            }
            // The child works in the order of the calls, but nobody promised the order of its replies.
            while !self.outstanding.is_empty() {
                let waited = self.connection.wait();
                let (msgid, outcome) = self.remember(waited)?;
                self.settle(msgid, outcome)?;
            }
            return outcome.map_err(|exception| self.explain(&exception));
        }
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn remember<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.broken.get_or_insert_with(|| error.clone());
        }
        result
    }

    /// The reply to a call that nobody waited for.
    fn settle(&mut self, msgid: u64, outcome: std::result::Result<Answer, RemoteException>) -> Result<()> {
        let result = match outcome {
            _ if !self.outstanding.remove(&msgid) => Err(Error::Unreachable(format!("{} answered a call that was never made", self.url))),
            Ok(_) => Ok(()),
            Err(exception) => Err(self.explain(&exception)),
        };
        self.remember(result)
    }

    fn explain(&self, exception: &RemoteException) -> Error {
        if !exception.full.is_empty() {
            log::debug!("the repository's borg: {}", exception.full.join(" "));
        }
        match from_exception(exception, &self.url, self.lock_wait) {
            Error::LockTimeout { location, waited, .. } => Error::LockTimeout { location, waited, holder: self.location.lock_holder() },
            error => error,
        }
    }
}

fn unexpected(method: &str) -> Error {
    Error::Unreachable(format!("the repository's borg answered {method} with something that Borg does not answer"))
}
