//! An owner that keeps everything in memory, and what must hold of everything a session does.
//!
//! The owner judges as the real one does (references, and what it reads back). Beyond that it believes nothing: each proposal and
//! each commit is compared with what the client has really put, found out anew with the plain parsers.

use crate::bytes::Bytes;
use crate::keys::{REPOSITORY, key};
use crate::metadata::is_name_of;
use borg::archive::Archive;
use borg::compress::{Compression, compress, decompress};
use borg::item::{Item, ItemLimits, ItemParser};
use borg::manifest::Manifest;
use borg::msgpack::{OwnedValue, Writer};
use borg::rpc::{Method, ReplyDecoder, Request, RequestError};
use borg::tam::Status;
use borg::{Id, Key, KeyType, keyblob};
use model::{Cause, Failure};
use proxy::session::{Action, Event, Session};
use proxy::stop::Stop;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use wire::session::{Limits, Opened, Proposal, Put, Reference, Verdict, Violation, decode_ids, kind, read_json, split_id};

/// The job's archive.
pub const ARCHIVE: &str = "job-1";
/// The token that the owner knows.
pub const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const TIME: &str = "2026-01-02T03:04:05.000006";
/// Stands in every chunk of others, and must never be in a reply.
const CANARY: &[u8] = b"CANARY of another client";

/// Where the archive that the client wants stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Open,
    /// The owner has accepted it.
    Staged {
        checkpoint: bool,
    },
    /// The owner was asked to commit it.
    Committing {
        checkpoint: bool,
    },
    Final,
}

/// Session, owner and model.
pub struct World {
    pub session: Session,
    pub key: Key,
    pub now: Duration,
    /// Answers wait until they are asked for.
    pub owner_is_slow: bool,
    pub quit: Option<u8>,
    /// Archives and checkpoints.
    pub commits: usize,
    /// Ids that the client has heard of.
    pub ids: Vec<Id>,
    /// Of item streams.
    pub streams: Vec<Id>,
    /// Of archive metadata.
    pub archives: Vec<(Vec<u8>, Id)>,
    /// The manifest that the client sees.
    pub shown: Manifest,
    first_manifest: Vec<u8>,
    limits: Limits,
    /// Chunks that the session may refer to: plaintext size and payload.
    put: HashMap<[u8; 32], (u32, Vec<u8>)>,
    view: HashMap<[u8; 32], (u32, Vec<u8>)>,
    /// Every envelope that the client has put, by the id it gave.
    sent: HashMap<Id, Vec<Vec<u8>>>,
    candidate: Option<Vec<u8>>,
    stage: Stage,
    references: Vec<Reference>,
    items: Vec<[u8; 32]>,
    from_owner: VecDeque<(u8, Vec<u8>)>,
    opened: bool,
    owner_closed: bool,
    owner_heard_end: bool,
    connecting: bool,
    msgid: u64,
    unanswered: Option<u64>,
    replies: ReplyDecoder,
}

impl World {
    /// Nothing was said yet. The view has a file's chunk and an item stream that refers to it; another client has chunks, too.
    pub fn new(bytes: &mut Bytes<'_>) -> World {
        let options = bytes.byte();
        let kind = [KeyType::Authenticated, KeyType::AuthenticatedBlake2, KeyType::None][usize::from(options) % 3];
        let key = key(kind, 1);
        let content = b"what an earlier archive has".to_vec();
        let id = key.id_hash(&content);
        let chunk = borg::item::ChunkRef { id, size: content.len() as u32, csize: 40 };
        let item = Item { path: b"old".to_vec(), mode: Some(0o100_644), chunks: Some(vec![chunk]), ..Item::default() };
        let stream = Writer::packed(|writer| item.write(writer));
        let view = [content, stream].map(|plain| (key.id_hash(&plain).0, (plain.len() as u32, compress(Compression::None, &plain))));
        let first_manifest = Manifest::empty(TIME).pack(&key, [3; 64]);
        let shown = Manifest::parse(&first_manifest, &key).expect("our own manifest");
        let limits = Limits {
            objects: 60,
            small_objects: 40,
            bytes: 60_000,
            checkpoints: 3,
            idle_seconds: 7200,
            total_seconds: 30_000,
            ..Limits::default()
        };
        World {
            session: Session::new([7; 16], Default::default()),
            now: Duration::from_secs(1),
            owner_is_slow: options & 0x80 != 0,
            quit: None,
            commits: 0,
            ids: view.iter().map(|(id, _)| Id(*id)).collect(),
            streams: vec![Id(view[1].0)],
            archives: Vec::new(),
            shown,
            first_manifest,
            limits,
            put: HashMap::new(),
            view: view.into_iter().collect(),
            sent: HashMap::new(),
            candidate: None,
            stage: Stage::Open,
            references: Vec::new(),
            items: Vec::new(),
            from_owner: VecDeque::new(),
            opened: false,
            owner_closed: false,
            owner_heard_end: false,
            connecting: false,
            msgid: 0,
            unanswered: None,
            replies: ReplyDecoder::new(32 << 20),
            key,
        }
    }

    /// A chunk that the repository has and this client has never seen.
    pub fn foreign(&self) -> Id {
        self.key.id_hash(CANARY)
    }

    /// The item stream of the view.
    pub fn view_stream(&self) -> Id {
        self.streams[0]
    }

    /// The plaintext size of a chunk that this client may refer to.
    pub fn size_of(&self, id: &Id) -> Option<u32> {
        self.put.get(&id.0).or(self.view.get(&id.0)).map(|(size, _)| *size)
    }

    /// The client must wait.
    pub fn waits_for_owner(&self) -> bool {
        !self.session.wants_client()
    }

    /// A call. It is answered exactly once, now or when the owner has said its part.
    pub fn call(&mut self, method: Method<'_>) {
        assert_eq!(self.unanswered, None, "the session listens before it has answered");
        self.msgid += 1;
        let msgid = self.msgid;
        self.unanswered = Some(msgid);
        if let Method::Put { id, data } = &method {
            self.sent.entry(*id).or_default().push(data.to_vec());
            if *id == Id::MANIFEST {
                self.candidate = Some(data.to_vec());
            }
        }
        if matches!(method, Method::Rollback) && matches!(self.stage, Stage::Staged { .. }) && self.session.ending().is_none() {
            self.stage = Stage::Open;
        }
        self.event(Event::Request(Request { msgid, method }));
    }

    /// Something that is no call. Where it has a number, that is answered.
    pub fn bad_request(&mut self, error: RequestError) {
        self.unanswered = error.msgid;
        self.event(Event::BadRequest(error));
    }

    /// Something happens.
    pub fn event(&mut self, event: Event<'_>) {
        let actions = self.session.handle(self.now, event);
        self.perform(actions);
    }

    /// The owner's process ends.
    pub fn lose_owner(&mut self) {
        if !self.owner_closed && (self.opened || self.connecting) {
            self.from_owner.clear();
            self.event(Event::OwnerLost);
            self.owner_closed = true;
        }
    }

    /// The owner says what nobody asked for: that must end the session, and nothing else.
    pub fn nonsense(&mut self, kind: u8, payload: &[u8]) {
        if self.owner_closed || !self.opened || self.session.ending().is_some() {
            return;
        }
        let actions = self.session.owner_frame(self.now, kind, payload);
        self.perform(actions);
        assert!(self.session.ending().is_some(), "a frame of type {kind:#x} that nobody waited for is ignored");
    }

    /// The owner's next answers arrive.
    pub fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((kind, payload)) = self.from_owner.pop_front() else { return };
            if self.owner_closed || self.quit.is_some() {
                continue;
            }
            self.opened |= kind == kind::OPENED;
            if kind == kind::VERDICT && self.session.ending().is_none() && payload == br#""accepted""# {
                self.accepted();
            }
            let actions = self.session.owner_frame(self.now, kind, &payload);
            self.perform(actions);
        }
    }

    fn accepted(&mut self) {
        if let Stage::Committing { checkpoint } = self.stage {
            self.commits += 1;
            self.stage = if checkpoint { Stage::Open } else { Stage::Final };
            let envelope = self.candidate.clone().expect("a manifest was put");
            self.shown = self.manifest_in(&envelope).expect("what is committed is a manifest");
        }
    }

    fn perform(&mut self, actions: Vec<Action<'_>>) {
        for action in actions {
            assert_eq!(self.quit, None, "something happens after the end");
            match action {
                Action::Reply(bytes) => self.reply(&bytes),
                Action::Note(line) => assert_line(&line),
                Action::Connect(link) => {
                    assert!(!self.connecting && link.len() == 64 && link.bytes().all(|b| b.is_ascii_hexdigit()), "{link}");
                    self.connecting = true;
                    let known = link == borg::Id(sha(TOKEN)).to_hex();
                    self.event(if known { Event::Connected } else { Event::NoSuchOwner });
                }
                Action::Owner(kind, payload) => self.hear(kind, &payload),
                Action::Read(id) => self.hear(kind::READ, &id),
                Action::Put { id, size, payload } => self.take(Put { id, size, payload: &payload }),
                // The shim told of no key here, so there is no other token that it could be for.
                Action::Accuse(token_hash, _) => panic!("{token_hash} is accused, and nobody said whose key it is"),
                Action::CloseOwner => self.owner_closed = true,
                Action::Quit(code) => self.quit = Some(code),
            }
        }
        if !self.owner_is_slow {
            self.deliver(usize::MAX);
        }
    }

    fn reply(&mut self, bytes: &[u8]) {
        assert!(!has_canary(bytes), "a client sees the data of another");
        self.replies.push(bytes);
        let reply = self.replies.next_reply().expect("replies are well-formed").expect("replies are whole");
        assert_eq!(Some(reply.msgid), self.unanswered.take(), "each call gets one answer");
        match reply.outcome.map(|value| value.to_owned()) {
            Err(exception) => {
                assert!(self.session.ending().is_some(), "an exception ends the session");
                assert_eq!(exception.short.len(), 1);
                exception.short.iter().for_each(|line| assert_line(line));
            }
            // Whatever object comes back was this client's, or the first manifest.
            Ok(OwnedValue::Raw(object)) if object.first() == Some(&self.key.key_type().byte()) && object.len() > 40 => {
                let own = self.sent.values().flatten().any(|envelope| *envelope == object);
                let first = self.key.open(&object).is_ok_and(|payload| payload[2..] == self.first_manifest[..]);
                assert!(own || first, "an object comes back that the client has not put");
            }
            Ok(_) => {}
        }
        assert_eq!(self.replies.buffered(), 0);
    }

    /// A chunk for the repository.
    fn take(&mut self, put: Put<'_>) {
        self.assert_owner_listens();
        assert_eq!(self.stage, Stage::Open, "a chunk after the archive was proposed");
        let plain = decompress(put.payload, 1 << 20).expect("a chunk decompresses").into_owned();
        assert_eq!(self.key.id_hash(&plain).0, put.id, "a chunk has the id of something else");
        assert_eq!(plain.len(), put.size as usize);
        assert!(!matches!(Archive::verify_tam(&plain, &self.key), Ok(Status::Verified)), "signed metadata becomes a chunk");
        assert!(self.sent.contains_key(&Id(put.id)), "nobody has put this");
        assert!(put.payload.first() != Some(&4), "padding is stored that nobody asked for");
        self.put.entry(put.id).or_insert((put.size, put.payload.to_vec()));
        assert!(self.put.len() as u64 <= self.limits.objects);
    }

    fn assert_owner_listens(&self) {
        assert!(self.opened && !self.owner_closed && !self.owner_heard_end, "nothing is said to an owner that has heard the end");
    }

    fn hear(&mut self, kind: u8, payload: &[u8]) {
        if kind == kind::OPEN {
            let open: wire::session::Open = read_json(payload).expect("an open");
            assert!(self.connecting && !self.opened && open.token == TOKEN);
            let opened = serde_json::to_vec(&self.opening()).expect("text");
            return self.from_owner.push_back((kind::OPENED, opened));
        }
        self.assert_owner_listens();
        match kind {
            kind::READ => {
                let (id, _) = split_id(payload).expect("an id");
                let answer = match self.put.get(&id).or(self.view.get(&id)) {
                    Some((_, payload)) => (kind::OBJECT, [&id[..], payload].concat()),
                    None => (kind::NOT_IN_VIEW, id.to_vec()),
                };
                self.from_owner.push_back(answer);
            }
            kind::REFS => self.references.extend(Reference::decode_all(payload).expect("references")),
            kind::ITEMS => self.items.extend(decode_ids(payload).expect("ids")),
            kind::PROPOSE => self.propose(&read_json(payload).expect("a proposal")),
            kind::COMMIT => {
                let Stage::Staged { checkpoint } = self.stage else { panic!("a commit of nothing, in {:?}", self.stage) };
                self.stage = Stage::Committing { checkpoint };
                self.verdict(&Verdict::Accepted);
            }
            kind::VIOLATION => {
                let violation: Violation = read_json(payload).expect("a violation");
                assert_line(&violation.detail);
                self.owner_heard_end = true;
            }
            kind::END => self.owner_heard_end = true,
            other => panic!("a frame of type {other:#x}"),
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        self.from_owner.push_back((kind::VERDICT, serde_json::to_vec(verdict).expect("text")));
    }

    /// Everything about a proposal is known already from what the client has put.
    fn propose(&mut self, proposal: &Proposal) {
        assert_eq!(self.stage, Stage::Open, "a proposal comes in its time");
        let envelope = self.candidate.clone().expect("a proposal without a manifest");
        let manifest = self.manifest_in(&envelope).expect("a proposal from what is no signed manifest");
        let is_new = |name: &[u8], id: Id| self.shown.archives.get(name).is_none_or(|entry| entry.id != id);
        let new: Vec<_> = manifest.archives.iter().filter(|(name, entry)| is_new(name, entry.id)).collect();
        let [(name, entry)] = new[..] else { panic!("a proposal of {} archives", new.len()) };
        assert!(is_name_of(name, ARCHIVE, proposal.checkpoint), "{:?} is proposed", String::from_utf8_lossy(name));
        assert!(!manifest.config.contains_key(&b"feature_flags"[..]) && manifest.version == 1);
        let archive = self.sent.get(&entry.id).into_iter().flatten().find_map(|envelope| {
            let plain = self.plaintext(envelope)?;
            let signed = matches!(Archive::verify_tam(&plain, &self.key), Ok(Status::Verified));
            (signed && self.key.id_hash(&plain) == entry.id).then(|| Archive::parse_strict(&plain).expect("strict metadata"))
        });
        let archive = archive.expect("an archive is proposed that was never put");
        assert_eq!(&archive.name, name);
        let items: Vec<_> = std::mem::take(&mut self.items);
        assert_eq!(items, archive.items.iter().map(|id| id.0).collect::<Vec<_>>(), "another item stream than the client's");
        let references = std::mem::take(&mut self.references);
        let expected = self.parsed(&items);
        assert_eq!(references, expected, "other references than those of the items");
        let sum: u64 = expected.iter().map(|reference| u64::from(reference.size)).sum();
        assert!(proposal.statistics.original_size <= sum);
        assert!(proposal.claims.iter().all(|claim| !claim.chars().any(char::is_control)), "{:?}", proposal.claims);

        let unknown = references.iter().find(|reference| self.size_of(&Id(reference.id)) != Some(reference.size));
        let verdict = match unknown {
            Some(_) => Verdict::Violation(Violation { rule: "reference-not-own".into(), detail: "a chunk".into() }),
            None if references.len() % 7 == 6 => Verdict::Failed(Failure::new(Cause::RepositoryEnospc, "the disk is full")),
            None => Verdict::Accepted,
        };
        if verdict == Verdict::Accepted {
            self.stage = Stage::Staged { checkpoint: proposal.checkpoint };
        }
        self.verdict(&verdict);
    }

    /// The references of an item stream, by the plain parser.
    fn parsed(&self, items: &[[u8; 32]]) -> Vec<Reference> {
        let (mut parser, mut references) = (ItemParser::new(ItemLimits::STRICT), Vec::new());
        for id in items {
            let (_, payload) = self.put.get(id).or(self.view.get(id)).expect("an item chunk that is not this client's");
            parser.push(&decompress(payload, 1 << 20).expect("a stored payload"));
            while let Some(item) = parser.next_item().expect("a proposed stream is well-formed") {
                crate::items::assert_sane(&item);
                let chunks = item.chunks.iter().flatten();
                references.extend(chunks.map(|chunk| Reference { id: chunk.id.0, size: chunk.size, csize: chunk.csize }));
            }
        }
        parser.finish().expect("a proposed stream is whole");
        references
    }

    fn plaintext(&self, envelope: &[u8]) -> Option<Vec<u8>> {
        let payload = self.key.open(envelope).ok()?;
        decompress(&payload, 1 << 20).ok().map(|plain| plain.into_owned())
    }

    fn manifest_in(&self, envelope: &[u8]) -> Option<Manifest> {
        Manifest::parse(&self.plaintext(envelope)?, &self.key).ok()
    }

    fn opening(&self) -> Opened {
        let kind = self.key.key_type();
        Opened {
            job: 1,
            archive_name: ARCHIVE.into(),
            repository_id: REPOSITORY.to_hex(),
            key_type: kind.byte(),
            key_blob: if kind == KeyType::None { String::new() } else { keyblob::lock(&self.key, REPOSITORY, b"word", 1, [9; 32]) },
            passphrase: "word".into(),
            manifest: self.first_manifest.clone(),
            obfuscate: false,
            restore: None,
            limits: self.limits,
        }
    }

    /// After the last event.
    pub fn assert_end(&self) {
        assert!(self.quit.is_some(), "a session whose client is gone does not end");
        assert!(self.session.ending().is_some());
        assert!(!self.opened || self.owner_closed, "the owner is not let go");
        if let Some(proxy::session::Ending::Stopped(Stop::Violation(violation))) = self.session.ending() {
            assert!(!violation.rule.is_empty());
        }
    }
}

/// Looks at the first byte before it compares: a comparison costs a call, and under a sanitizer a dear one.
fn has_canary(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(at, byte)| *byte == CANARY[0] && bytes[at..].starts_with(CANARY))
}

/// What people see is one printable line.
fn assert_line(line: &str) {
    assert!(!line.is_empty() && line.len() < 1000 && !line.chars().any(char::is_control), "{line:?}");
}

fn sha(token: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let bytes: Vec<u8> = (0..token.len()).step_by(2).filter_map(|at| u8::from_str_radix(&token[at..at + 2], 16).ok()).collect();
    Sha256::digest(bytes).into()
}
