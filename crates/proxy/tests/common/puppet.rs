//! A client that says what a test wants, over a session and an owner in the same thread.

use super::owner::{ARCHIVE, Owner, TIMESTAMP};
use borg::archive::{Archive, ChunkerParams};
use borg::compress::{Compression, compress};
use borg::item::{ChunkRef, Item};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::msgpack::{OwnedValue, Writer};
use borg::rpc::{ClientData, Method, RemoteException, ReplyDecoder, Request};
use borg::{Id, Key, KeyType};
use proxy::session::{Action, Event, Session};
use std::collections::VecDeque;
use std::time::Duration;

pub type Answer = Result<OwnedValue, RemoteException>;

pub const TOKEN: &str = "/./00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub struct Puppet {
    pub session: Session,
    pub owner: Owner,
    pub key: Key,
    pub now: Duration,
    pub notes: Vec<String>,
    pub connected_to: Option<String>,
    /// Who was told of a violation on a connection of its own, and what.
    pub accused: Option<(String, wire::session::Accusation)>,
    pub owner_closed: bool,
    pub quit: Option<u8>,
    /// The owner does not answer.
    pub owner_is_silent: bool,
    /// What the session is for: backup or restore.
    pub task: &'static str,
    msgid: u64,
    replies: ReplyDecoder,
    manifest: Manifest,
    from_owner: VecDeque<(u8, Vec<u8>)>,
}

impl Puppet {
    /// Nothing was said yet.
    pub fn new() -> Puppet {
        Puppet::with_key(super::key(KeyType::Authenticated, 1))
    }

    pub fn with_key(key: Key) -> Puppet {
        Puppet {
            session: Session::new([7; 16], Default::default()),
            owner: Owner::new(key.clone()),
            key,
            now: Duration::from_secs(1),
            notes: Vec::new(),
            connected_to: None,
            accused: None,
            owner_closed: false,
            quit: None,
            owner_is_silent: false,
            task: "backup",
            msgid: 0,
            replies: ReplyDecoder::new(32 << 20),
            manifest: Manifest::empty(TIMESTAMP),
            from_owner: VecDeque::new(),
        }
    }

    /// The repository is open.
    pub fn open() -> Puppet {
        let mut puppet = Puppet::new();
        puppet.do_open();
        puppet
    }

    pub fn do_open(&mut self) {
        self.ok(negotiate());
        self.ok(open(TOKEN.as_bytes()));
    }

    /// A call and its answer; None if there is none (yet).
    pub fn call(&mut self, method: Method<'_>) -> Option<Answer> {
        self.msgid += 1;
        let msgid = self.msgid;
        self.event(Event::Request(Request { msgid, method }));
        self.answer_to(msgid)
    }

    /// The answer to the last call, which has come meanwhile.
    pub fn answer(&mut self) -> Answer {
        self.answer_to(self.msgid).expect("an answer")
    }

    fn answer_to(&mut self, msgid: u64) -> Option<Answer> {
        let reply = self.replies.next_reply().unwrap()?;
        assert_eq!(reply.msgid, msgid, "every call gets one answer");
        Some(reply.outcome.map(|value| value.to_owned()))
    }

    /// A call that must be answered without an exception.
    pub fn ok(&mut self, method: Method<'_>) -> OwnedValue {
        let name = format!("{method:?}").chars().take(60).collect::<String>();
        self.call(method).unwrap_or_else(|| panic!("no answer to {name}")).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A call that must be refused: the class of the exception and its message.
    pub fn refused(&mut self, method: Method<'_>) -> (String, String) {
        let exception = self.call(method).expect("an answer").expect_err("an exception");
        assert_eq!(exception.short.len(), 1, "one clean line");
        (exception.class, exception.short[0].clone())
    }

    /// A call that must break a rule: its name. The owner must have heard the same, and the session must be over.
    pub fn breaks(&mut self, method: Method<'_>) -> String {
        let (class, line) = self.refused(method);
        assert_eq!(class, "PolicyViolation", "{line}");
        let violation = self.owner.violation.clone().expect("the owner hears of it");
        assert!(line.starts_with(&format!("BorgCube refused this {}: {}: ", self.task, violation.rule)), "{line}");
        assert!(self.owner_closed && self.owner.end.is_none());
        // What comes after that changes nothing, but the client may say that it rolls back.
        let proposals = self.owner.proposals.len();
        assert_eq!(self.refused(Method::Commit { save_space: false, compact: false, threshold: 0.1, cleanup_commits: false }).1, line);
        assert_eq!(self.owner.proposals.len(), proposals);
        self.ok(Method::Rollback);
        violation.rule
    }

    /// A call that must end the session without an accusation: the cause's word.
    pub fn fails(&mut self, method: Method<'_>) -> String {
        let (class, line) = self.refused(method);
        assert_ne!(class, "PolicyViolation", "{line}");
        assert!(self.owner.violation.is_none() && self.owner_closed);
        let failure = self.owner.end.clone().expect("the owner hears of it").failure.expect("a failure");
        self.ok(Method::Rollback);
        failure.cause.word().to_owned()
    }

    pub fn event(&mut self, event: Event<'_>) {
        let actions = self.session.handle(self.now, event);
        self.perform(actions);
    }

    pub fn perform(&mut self, actions: Vec<Action<'_>>) {
        for action in actions {
            match action {
                Action::Reply(bytes) => self.replies.push(&bytes),
                Action::Note(line) => self.notes.push(line),
                Action::Connect(link) => {
                    self.connected_to = Some(link);
                    self.event(Event::Connected);
                }
                Action::Accuse(link, payload) => self.accused = Some((link, wire::session::read_json(&payload).unwrap())),
                Action::Owner(kind, payload) => self.tell_owner(kind, &payload),
                Action::Read(id) => self.tell_owner(wire::session::kind::READ, &id),
                Action::Put { id, size, payload } => {
                    let frame = [&id[..], &size.to_le_bytes(), &payload].concat();
                    self.tell_owner(wire::session::kind::PUT, &frame);
                }
                Action::CloseOwner => self.owner_closed = true,
                Action::Quit(code) => self.quit = Some(code),
            }
        }
        // Not before everything was said: the owner answers in the order of what it is asked.
        if let Some((kind, payload)) = self.from_owner.pop_front() {
            self.hear_owner(kind, &payload);
        }
    }

    fn tell_owner(&mut self, kind: u8, payload: &[u8]) {
        assert!(!self.owner_closed, "nothing is said to an owner whose connection is closed");
        let answers = self.owner.frame(kind, payload);
        if self.owner_is_silent {
            return;
        }
        self.from_owner.extend(answers.into_iter().filter(|(kind, _)| *kind != wire::session::kind::CREDIT));
    }

    pub fn hear_owner(&mut self, kind: u8, payload: &[u8]) {
        let actions = self.session.owner_frame(self.now, kind, payload);
        self.perform(actions);
    }

    /// The envelope of a plaintext under the client key.
    pub fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        self.key.seal(&compress(Compression::Lz4, plaintext), 0)
    }

    /// Puts a chunk; its reference.
    pub fn chunk(&mut self, plaintext: &[u8]) -> ChunkRef {
        let (id, envelope) = (self.key.id_hash(plaintext), self.seal(plaintext));
        self.ok(Method::Put { id, data: &envelope });
        ChunkRef { id, size: plaintext.len() as u32, csize: envelope.len() as u32 }
    }

    /// Puts an item stream of one chunk; its id.
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

    /// Puts archive metadata; its id.
    pub fn put_archive(&mut self, archive: &Archive) -> Id {
        let packed = archive.pack(&self.key, [4; 64]);
        self.chunk(&packed).id
    }

    /// The envelope of a manifest that adds this archive to what the client knows.
    pub fn manifest(&self, name: &str, id: Id) -> Vec<u8> {
        let mut manifest = self.manifest.clone();
        manifest.archives.insert(name.as_bytes().to_vec(), ArchiveEntry { id, time: TIMESTAMP.into() });
        self.seal(&manifest.pack(&self.key, [5; 64]))
    }

    /// Puts an archive of these items, up to the manifest, whose envelope it is.
    pub fn prepare(&mut self, name: &str, items: &[Item]) -> Vec<u8> {
        let stream = self.items(items);
        let archive = self.archive(name, vec![stream]);
        let id = self.put_archive(&archive);
        self.manifest(name, id)
    }

    /// The rule that an archive of these items breaks.
    pub fn items_break(items: &[Item]) -> String {
        let mut puppet = Puppet::open();
        let manifest = puppet.prepare(ARCHIVE, items);
        puppet.breaks(put_manifest(&manifest))
    }

    /// A whole archive, committed; the id of its metadata.
    pub fn backup(&mut self, name: &str, items: &[Item]) -> Id {
        let stream = self.items(items);
        let archive = self.archive(name, vec![stream]);
        let id = self.put_archive(&archive);
        let manifest = self.manifest(name, id);
        self.ok(put_manifest(&manifest));
        self.ok(commit());
        self.manifest.archives.insert(name.as_bytes().to_vec(), ArchiveEntry { id, time: TIMESTAMP.into() });
        id
    }

    /// The client forgets an entry of its manifest, as borg does with a checkpoint.
    pub fn forget(&mut self, name: &str) {
        self.manifest.archives.remove(name.as_bytes());
    }
}

pub fn negotiate() -> Method<'static> {
    Method::Negotiate { client: ClientData::Version(vec![1, 2, 4, -1]) }
}

pub fn open(path: &[u8]) -> Method<'_> {
    Method::Open {
        path,
        create: false,
        lock_wait: Some(1.0),
        lock: true,
        exclusive: Some(true),
        append_only: false,
        make_parent_dirs: false,
    }
}

pub fn put_manifest(envelope: &[u8]) -> Method<'_> {
    Method::Put { id: Id::MANIFEST, data: envelope }
}

pub fn commit() -> Method<'static> {
    Method::Commit { save_space: false, compact: false, threshold: 0.1, cleanup_commits: false }
}

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

pub fn file(path: &str, chunks: &[ChunkRef]) -> Item {
    let size = chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
    Item { mode: Some(0o100_644), chunks: Some(chunks.to_vec()), size: Some(size), ..directory(path) }
}

pub fn link(path: &str, target: &str) -> Item {
    Item { mode: Some(0o120_777), source: Some(target.into()), ..directory(path) }
}

pub fn raw(value: &OwnedValue) -> &[u8] {
    match value {
        OwnedValue::Raw(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

impl Puppet {
    /// A put of an object that breaks a rule.
    pub fn breaks_after_put(&mut self, id: &Id, envelope: &[u8]) -> String {
        self.breaks(Method::Put { id: *id, data: envelope })
    }

    /// One chunk more is too many.
    pub fn third(&mut self, limit: &str) {
        let (id, envelope) = (self.key.id_hash(b"one too many"), self.seal(b"one too many"));
        assert_eq!(self.fails(Method::Put { id, data: &envelope }), "quota-exceeded");
        let failure = self.owner.end.clone().unwrap().failure.unwrap();
        assert_eq!(failure.cause, model::Cause::QuotaExceeded { limit: limit.into() });
    }
}
