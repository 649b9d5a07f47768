//! A client that speaks Borg's protocol and says whatever a test wants, over the real socket of the sessions or a real ssh.

use crate::world::Ticket;
use borg::archive::{Archive, ChunkerParams};
use borg::compress::{Compression, compress, decompress};
use borg::item::{ChunkRef, Item};
use borg::keyblob::LockedKey;
use borg::manifest::{ArchiveEntry, Manifest};
use borg::msgpack::{OwnedValue, Writer};
use borg::rpc::{RemoteException, ReplyDecoder, call};
use borg::{Id, Key, KeyType};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Nothing a session is asked may take longer to be answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// A time in Borg's form.
pub const TIMESTAMP: &str = "2026-01-02T03:04:05.000006";

/// What comes back for a call.
#[derive(Debug)]
pub enum Said {
    /// A result.
    Value(OwnedValue),
    /// An exception.
    Exception(RemoteException),
    /// The connection was closed.
    HungUp,
}

/// A connected client.
pub struct Hostile {
    calls: Option<Box<dyn Write + Send>>,
    replies: Box<dyn Read + Send>,
    /// What the session tells the shim; lives as long as the session.
    connection: Option<UnixStream>,
    child: Option<Child>,
    decoder: ReplyDecoder,
    msgid: u64,
    /// From `load_key`.
    pub key: Key,
    /// As the server showed it, with what was added since.
    pub manifest: Manifest,
    /// The job's archive.
    pub archive_name: String,
    /// Everything that was written to standard error.
    notes: Option<UnixStream>,
    /// Where [`Hostile::connect`] connected.
    socket: Option<PathBuf>,
    /// The end that answers come out of, once more.
    peek: Option<UnixStream>,
    /// What was opened.
    path: String,
}

impl Hostile {
    /// Does what the shim does, and keeps the other ends.
    pub fn connect(socket: &Path) -> Hostile {
        Hostile::connect_with(socket, b"!")
    }

    /// The same with what the shim says of its client: `!ADDRESS`, the hash of its key's token, its key's client, a line each.
    pub fn connect_with(socket: &Path, word: &[u8]) -> Hostile {
        let connection = unix::socket::connect(socket).expect("the session socket");
        let pair = || UnixStream::pair().expect("a pair of sockets");
        let ((calls, theirs), (replies, theirs_too), (notes, theirs_last)) = (pair(), pair(), pair());
        unix::fdpass::send_fds(&connection, &[theirs.as_fd(), theirs_too.as_fd(), theirs_last.as_fd()], word).expect("descriptors");
        replies.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        notes.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let peek = replies.try_clone().expect("a descriptor can be doubled");
        let mut client = Hostile::over(Box::new(calls), Box::new(replies));
        client.peek = Some(peek);
        (client.connection, client.notes) = (Some(connection), Some(notes));
        client.socket = Some(socket.to_owned());
        client
    }

    /// Through a command that leads to a session, such as ssh.
    pub fn through(command: &mut Command) -> Hostile {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command starts");
        let (calls, replies) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut client = Hostile::over(Box::new(calls), Box::new(replies));
        client.child = Some(child);
        client
    }

    fn over(calls: Box<dyn Write + Send>, replies: Box<dyn Read + Send>) -> Hostile {
        Hostile {
            calls: Some(calls),
            replies,
            connection: None,
            child: None,
            decoder: ReplyDecoder::new(64 << 20),
            msgid: 0,
            key: Key::none(),
            manifest: Manifest::empty(TIMESTAMP),
            archive_name: String::new(),
            notes: None,
            socket: None,
            peek: None,
            path: String::new(),
        }
    }

    /// One more connection to the same socket, on which nothing was said yet.
    pub fn again(&self) -> Hostile {
        self.again_with(b"!")
    }

    /// The same, with what the shim says of its client.
    pub fn again_with(&self, word: &[u8]) -> Hostile {
        let mut other = Hostile::connect_with(self.socket.as_deref().expect("a socket"), word);
        (other.path, other.archive_name) = (self.path.clone(), self.archive_name.clone());
        other
    }

    /// What `open` was given, or is to be given.
    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// What `open` is to be given.
    pub fn set_path(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }

    /// The end that calls are written to, for somebody who does not read answers.
    pub fn take_calls(&mut self) -> Box<dyn Write + Send> {
        self.calls.take().expect("not closed")
    }

    /// Whether nothing comes for so long.
    pub fn is_silent(&mut self, long: Duration) -> bool {
        let ends = [self.notes.as_ref(), self.peek.as_ref()];
        std::thread::sleep(long);
        ends.into_iter().flatten().all(|end| {
            end.set_nonblocking(true).expect("a socket");
            let mut end = end;
            let nothing = end.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
            end.set_nonblocking(false).expect("a socket");
            nothing
        })
    }

    /// Commits a checkpoint with this number.
    #[track_caller]
    pub fn checkpoint(&mut self, number: u32) {
        let name = format!("{}.checkpoint.{number}", self.archive_name);
        let stream = self.items(&[directory(&format!("d{number}"))]);
        let archive = self.archive(&name, vec![stream]);
        let id = self.put_archive(&archive);
        let manifest = self.manifest_with(&name, id);
        for said in [self.put_manifest(&manifest), self.commit()] {
            assert!(matches!(said, Said::Value(_)), "{said:?}");
        }
        self.manifest.archives.insert(name.into_bytes(), ArchiveEntry { id, time: TIMESTAMP.into() });
    }

    /// Sends bytes as they are. False: nobody takes them any more.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let calls = self.calls.as_mut().expect("not closed");
        calls.write_all(bytes).and_then(|()| calls.flush()).is_ok()
    }

    /// Closes our side.
    pub fn close(&mut self) {
        self.calls = None;
    }

    /// The number of the next call.
    pub fn next(&mut self) -> u64 {
        self.msgid += 1;
        self.msgid
    }

    /// The next answer.
    pub fn answer(&mut self) -> Said {
        loop {
            match self.decoder.next_reply().expect("the server speaks the protocol") {
                Some(reply) => return reply.outcome.map_or_else(Said::Exception, |value| Said::Value(value.to_owned())),
                None => match self.replies.read(self.decoder.space(1 << 16)) {
                    Ok(0) => return Said::HungUp,
                    Ok(count) => self.decoder.advance(count),
                    Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Said::HungUp,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => panic!("no answer: {e}"),
                },
            }
        }
    }

    /// A call, made by one of [`borg::rpc::call`] or by hand, and its answer.
    pub fn call(&mut self, make: impl FnOnce(u64) -> Vec<u8>) -> Said {
        let msgid = self.next();
        let bytes = make(msgid);
        self.send(&bytes);
        self.answer()
    }

    /// A call by name, with arguments that are packed already.
    pub fn named(&mut self, method: &str, arguments: &[(&str, Vec<u8>)]) -> Said {
        self.call(|msgid| packed(msgid, method, arguments))
    }

    /// A call that must be answered.
    #[track_caller]
    pub fn ok(&mut self, make: impl FnOnce(u64) -> Vec<u8>) -> OwnedValue {
        match self.call(make) {
            Said::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }

    /// Negotiates and opens, which must work, and takes key and manifest.
    #[track_caller]
    pub fn open(&mut self, ticket: &Ticket) {
        self.negotiate();
        let path = ticket.path.clone();
        self.path.clone_from(&path);
        self.ok(|msgid| open(msgid, path.as_bytes()));
        let OwnedValue::Raw(blob) = self.ok(call::load_key) else { panic!("a key is bytes") };
        let OwnedValue::Raw(envelope) = self.ok(|msgid| call::get(msgid, &Id::MANIFEST)) else { panic!("a manifest is bytes") };
        let kind = KeyType::from_byte(envelope[0]).expect("a known key type");
        let locked = LockedKey::parse(std::str::from_utf8(&blob).expect("text")).expect("a key");
        self.key = locked.unlock(ticket.passphrase.as_bytes(), kind).expect("our passphrase").key;
        let plain = decompress(&envelope[1..], 1 << 24).expect("a payload").into_owned();
        self.manifest = Manifest::parse(&plain, &self.key).expect("a manifest");
    }

    /// The first call.
    #[track_caller]
    pub fn negotiate(&mut self) {
        self.ok(|msgid| call::negotiate(msgid, &[1, 4, 5, -1]));
    }

    /// The envelope of a plaintext under the client key.
    pub fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        self.key.seal(&compress(Compression::Lz4, plaintext), 0)
    }

    /// A put as it is.
    pub fn put(&mut self, id: &Id, envelope: &[u8]) -> Said {
        self.call(|msgid| call::put(msgid, id, envelope))
    }

    /// Puts a chunk, rightly; its reference.
    #[track_caller]
    pub fn chunk(&mut self, plaintext: &[u8]) -> ChunkRef {
        let (id, envelope) = (self.key.id_hash(plaintext), self.seal(plaintext));
        self.ok(|msgid| call::put(msgid, &id, &envelope));
        ChunkRef { id, size: plaintext.len() as u32, csize: envelope.len() as u32 }
    }

    /// Puts an item stream of one chunk; its id.
    #[track_caller]
    pub fn items(&mut self, items: &[Item]) -> Id {
        self.chunk(&stream(items)).id
    }

    /// Archive metadata as this client's borg would write it.
    pub fn archive(&self, name: &str, items: Vec<Id>) -> Archive {
        Archive {
            name: name.as_bytes().to_vec(),
            comment: Some(Vec::new()),
            hostname: Some(b"host".to_vec()),
            username: Some(b"root".to_vec()),
            time: TIMESTAMP.into(),
            time_end: Some(TIMESTAMP.into()),
            cmdline: vec![b"borg".to_vec()],
            items,
            chunker_params: Some(ChunkerParams { algorithm: Some(b"buzhash".to_vec()), numbers: vec![19, 23, 21, 4095] }),
            ..Archive::default()
        }
    }

    /// Puts archive metadata, rightly signed; its id.
    #[track_caller]
    pub fn put_archive(&mut self, archive: &Archive) -> Id {
        let packed = archive.pack(&self.key, [4; 64]);
        self.chunk(&packed).id
    }

    /// The envelope of a manifest that adds this archive to what the client knows.
    pub fn manifest_with(&self, name: &str, id: Id) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        manifest.archives.insert(name.as_bytes().to_vec(), ArchiveEntry { id, time: TIMESTAMP.into() });
        self.seal_manifest(&manifest)
    }

    /// The envelope of any manifest, signed with the client key.
    pub fn seal_manifest(&self, manifest: &Manifest) -> Vec<u8> {
        self.seal(&manifest.pack(&self.key, [5; 64]))
    }

    /// Puts a manifest.
    pub fn put_manifest(&mut self, envelope: &[u8]) -> Said {
        self.put(&Id::MANIFEST, envelope)
    }

    /// Commits.
    pub fn commit(&mut self) -> Said {
        self.call(|msgid| call::commit(msgid, false, 0.1, false))
    }

    /// Commits, where it may be that nobody listens any more.
    pub fn commit_if_heard(&mut self) {
        let soon = Some(Duration::from_secs(2));
        self.peek.as_ref().expect("over the socket").set_read_timeout(soon).expect("a timeout");
        let msgid = self.next();
        self.send(&call::commit(msgid, false, 0.1, false));
        // Whatever it says, if anything.
        while matches!(self.replies.read(&mut [0; 64]), Ok(64)) {}
    }

    /// Puts an archive of these items, and asks for it.
    pub fn propose(&mut self, name: &str, items: &[Item]) -> Said {
        let stream = self.items(items);
        let archive = self.archive(name, vec![stream]);
        self.propose_archive(&archive)
    }

    /// Puts this archive and asks for it, under the name that it has itself.
    pub fn propose_archive(&mut self, archive: &Archive) -> Said {
        let id = self.put_archive(archive);
        let manifest = self.manifest_with(&String::from_utf8_lossy(&archive.name), id);
        self.put_manifest(&manifest)
    }

    /// A whole honest backup of one file.
    #[track_caller]
    pub fn backup_of(&mut self, content: &[u8]) {
        let chunk = self.chunk(content);
        let name = self.archive_name.clone();
        for said in [self.propose(&name, &[directory("d"), file("d/f", &[chunk])]), self.commit()] {
            assert!(matches!(said, Said::Value(_)), "{said:?}");
        }
    }

    /// What the session wrote to standard error until it closed it, or until now when ours was the last word.
    pub fn notes(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(notes) = &mut self.notes {
            drop(notes.read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The next line on standard error.
    pub fn note(&mut self) -> String {
        let mut line = Vec::new();
        let notes = self.notes.as_mut().expect("over the socket");
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            if notes.read(&mut byte).expect("a line in time") == 0 {
                break;
            }
            line.extend(byte);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Waits for the session's end; its exit code, if it gave one.
    pub fn wait(&mut self) -> Option<u8> {
        self.close();
        let mut code = [0];
        let connection = self.connection.as_mut()?;
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        (connection.read(&mut code).ok()? == 1).then_some(code[0])
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.close();
        if let Some(connection) = &self.connection {
            drop(connection.shutdown(Shutdown::Write));
        }
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Said {
    /// Asserts that it is this exception, in one line that does no harm to a terminal, and gives the line.
    #[track_caller]
    pub fn refused(self, class: &str) -> String {
        match self {
            Said::Exception(exception) => {
                assert_eq!(exception.class, class, "{exception:?}");
                let [line] = exception.short.as_slice() else { panic!("not one line: {exception:?}") };
                assert!(!line.contains(char::is_control), "{line:?}");
                line.clone()
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Asserts that a rule was broken; which.
    #[track_caller]
    pub fn broke(self) -> String {
        let line = self.refused("PolicyViolation");
        let rest = line.strip_prefix("BorgCube refused this backup: ").or_else(|| line.strip_prefix("BorgCube refused this restore: "));
        let rest = rest.expect("our words");
        rest.split(':').next().unwrap_or_default().to_owned()
    }
}

/// A call of any name with packed arguments.
pub fn packed(msgid: u64, method: &str, arguments: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(3);
    writer.raw(b"i");
    writer.uint(msgid);
    writer.raw(b"m");
    writer.raw(method.as_bytes());
    writer.raw(b"a");
    writer.map(arguments.len());
    for (name, value) in arguments {
        writer.raw(name.as_bytes());
        writer.bytes_of_raw(value);
    }
    writer.into_bytes()
}

/// One packed value.
pub fn pack(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    Writer::packed(write)
}

/// The `open` of an honest backup.
pub fn open(msgid: u64, path: &[u8]) -> Vec<u8> {
    let open =
        call::Open { path, create: false, lock_wait: Some(1), lock: true, exclusive: true, append_only: false, make_parent_dirs: false };
    call::open(msgid, &open)
}

/// Items as they stand in an item stream.
pub fn stream(items: &[Item]) -> Vec<u8> {
    let mut writer = Writer::new();
    items.iter().for_each(|item| item.write(&mut writer));
    writer.into_bytes()
}

/// A directory; other types by changing `mode`.
pub fn directory(path: &str) -> Item {
    Item {
        path: path.into(),
        mode: Some(0o040_755),
        uid: Some(0),
        gid: Some(0),
        user: Some(None),
        group: Some(None),
        mtime: 1_700_000_000_000_000_000,
        ..Item::default()
    }
}

/// A regular file.
pub fn file(path: &str, chunks: &[ChunkRef]) -> Item {
    let size = chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
    Item { mode: Some(0o100_644), chunks: Some(chunks.to_vec()), size: Some(size), ..directory(path) }
}

/// A symbolic link.
pub fn link(path: &str, target: &str) -> Item {
    Item { mode: Some(0o120_777), source: Some(target.into()), ..directory(path) }
}
