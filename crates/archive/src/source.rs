//! Where an archive comes from: the owner's socket, and what the owner says first.

use crate::error::{Error, Result};
use borg::archive::Archive as Metadata;
use borg::key::KeyParts;
use borg::{Key, KeyType};
use model::Failure;
use model::web_user::Credential;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use wire::maintenance::{Maintain, Operation};
use wire::reading::{Readable, kind as reading};
use wire::session::{VERSION, kind, read_json, write_json};
use wire::{WireError, frame};

/// Connects to the owner, which starts it if need be.
pub type Connect = dyn Fn() -> unix::Result<UnixStream> + Send + Sync;

/// Gives a connection on which the archive was asked for, by what it is called here.
pub type Asked = dyn Fn(&str) -> Result<UnixStream> + Send + Sync;

/// An archive that can be read.
#[derive(Clone)]
pub struct Source {
    asked: Arc<Asked>,
    /// What the owner says about it.
    pub readable: Readable,
    /// Borg's metadata of the archive.
    pub metadata: Arc<Metadata>,
    /// Recomputes the ids of chunks, and nothing else.
    pub(crate) key: Arc<Key>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("readable", &self.readable).finish_non_exhaustive()
    }
}

impl Source {
    /// Asks for an archive by name, id, or the beginning of its id. The connection is the first of two or so; others are made as they are needed.
    pub fn open(connect: Arc<Connect>, archive: &str) -> Result<Source> {
        Source::from(Arc::new(move |archive| ask(connect().map_err(Error::Connect)?, archive)), archive)
    }

    /// For a process that must not choose what it reads: somebody else [`ask`]s for the archive with this id on each of its connections.
    pub fn of_asked(connect: Arc<Connect>, id: &str) -> Result<Source> {
        Source::from(Arc::new(move |_| connect().map_err(Error::Connect)), id)
    }

    /// For whoever asks in a way of its own, or may want to end this: an error of `asked` that is neither [`Error::Connect`] nor
    /// [`Error::Unreachable`] is not tried again.
    pub fn from(asked: Arc<Asked>, archive: &str) -> Result<Source> {
        let (_, readable, packed) = greet(&*asked, archive)?;
        let metadata = Arc::new(Metadata::parse(&packed)?);
        let key = Arc::new(id_key(&readable)?);
        Ok(Source { asked, readable, metadata, key })
    }

    /// A further connection, to exactly this archive.
    pub(crate) fn connect(&self) -> Result<UnixStream> {
        greet(&*self.asked, &self.readable.id).map(|(stream, ..)| stream)
    }
}

/// Asks the owner for an archive on a new connection, which is of use for nothing else from then on.
pub fn ask(mut stream: UnixStream, archive: &str) -> Result<UnixStream> {
    let request = Maintain { version: VERSION, operation: Operation::Read { archive: archive.to_owned() } };
    write_json(&mut stream, kind::MAINTAIN, &request).map_err(broken)?;
    Ok(stream)
}

/// The same on behalf of a person, for the status daemon, which may read nothing itself.
pub fn ask_for(mut stream: UnixStream, archive: &str, credential: &Credential) -> Result<UnixStream> {
    let operation = Operation::ReadFor { archive: archive.to_owned(), credential: credential.clone() };
    write_json(&mut stream, kind::MAINTAIN, &Maintain { version: VERSION, operation }).map_err(broken)?;
    Ok(stream)
}

/// The id of the archive that the owner gives when it is asked for this one: an archive can be called like another one's id. The connection is of
/// no more use.
pub fn identity(stream: UnixStream, archive: &str) -> Result<String> {
    let mut stream = ask(stream, archive)?;
    Ok(read_json::<Readable>(&expect(&mut stream, reading::READABLE)?)?.id)
}

/// Hears what the owner says of the archive.
fn greet(asked: &Asked, archive: &str) -> Result<(UnixStream, Readable, Vec<u8>)> {
    let mut stream = asked(archive)?;
    let readable = read_json(&expect(&mut stream, reading::READABLE)?)?;
    let metadata = expect(&mut stream, reading::METADATA)?;
    Ok((stream, readable, metadata))
}

fn expect(stream: &mut UnixStream, wanted: u8) -> Result<Vec<u8>> {
    let mut payload = vec![];
    match frame::read(stream, &mut payload).map_err(broken)? {
        found if found == wanted => Ok(payload),
        kind::FAILED => Err(Error::Owner(read_json::<Failure>(&payload)?)),
        other => Err(WireError::Malformed(format!("an answer of type {other}")).into()),
    }
}

fn broken(error: WireError) -> Error {
    match error {
        WireError::Closed | WireError::Io(_) => Error::Unreachable(format!("the repository's owner ended before it had answered: {error}")),
        other => Error::Wire(other),
    }
}

/// A key that can compute ids and open nothing.
fn id_key(readable: &Readable) -> Result<Key> {
    let nonsense = |what: &str| Error::Wire(WireError::Malformed(what.to_owned()));
    let kind = KeyType::from_byte(readable.key_type).ok_or_else(|| nonsense("a key of a type that nobody knows"))?;
    if kind == KeyType::None {
        return Ok(Key::none());
    }
    let id_key = unhex(&readable.id_key).ok_or_else(|| nonsense("a key of ids that is none"))?;
    let kind = if kind.uses_blake2() { KeyType::AuthenticatedBlake2 } else { KeyType::Authenticated };
    let nothing = vec![0; id_key.len()];
    let parts = KeyParts { enc_key: &[0; 32], enc_hmac_key: &nothing, id_key: &id_key, chunk_seed: 0, tam_required: false };
    Key::from_parts(kind, parts).map_err(|e| nonsense(&e.to_string()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}
