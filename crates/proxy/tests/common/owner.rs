//! An owner in memory: takes frames, gives frames. It judges references as the real one does, and stores nothing.

use borg::archive::Archive;
use borg::compress::{Compression, compress};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::{Id, Key, KeyType, RepositoryId, keyblob};
use model::{Cause, Failure};
use std::collections::HashMap;
use wire::session::{
    End, Limits, Open, Opened, Proposal, Put, Reading, Reference, VERSION, Verdict, Violation, charge, decode_ids, kind, read_json,
    split_id,
};

pub const TIMESTAMP: &str = "2026-01-02T03:04:05.000006";
pub const PASSPHRASE: &str = "a passphrase";
pub const ARCHIVE: &str = "job-1";
pub const REPOSITORY: RepositoryId = RepositoryId([0x5a; 32]);

/// A stored chunk: plaintext size and payload.
pub type Stored = (u32, Vec<u8>);

pub struct Owner {
    pub key: Key,
    pub opened: Opened,
    /// What earlier archives of this client refer to: plaintext size, stored size, payload.
    pub view: HashMap<[u8; 32], (u32, u32, Vec<u8>)>,
    /// What this session has put.
    pub put: HashMap<[u8; 32], Stored>,
    pub open: Option<Open>,
    pub references: Vec<Reference>,
    pub items: Vec<[u8; 32]>,
    /// Every proposal with its references and the ids of its item stream.
    pub proposals: Vec<(Proposal, Vec<Reference>, Vec<[u8; 32]>)>,
    pub commits: usize,
    pub violation: Option<Violation>,
    pub end: Option<End>,
    /// Answer to the next proposal or commit, in place of an honest judgement.
    pub next_verdict: Option<Verdict>,
    /// Refuse the next open.
    pub refuse: Option<Failure>,
    /// Close the connection at the next frame.
    pub crash: bool,
    /// What it says before that.
    pub last_words: Option<Failure>,
}

impl Owner {
    pub fn new(key: Key) -> Owner {
        let manifest = Manifest::empty(TIMESTAMP).pack(&key, [3; 64]);
        let key_blob = match key.key_type() {
            KeyType::None => String::new(),
            _ => keyblob::lock(&key, REPOSITORY, PASSPHRASE.as_bytes(), 1, [9; 32]),
        };
        let opened = Opened {
            job: 1,
            archive_name: ARCHIVE.into(),
            repository_id: REPOSITORY.to_hex(),
            key_type: key.key_type().byte(),
            key_blob,
            passphrase: PASSPHRASE.into(),
            manifest,
            obfuscate: false,
            restore: None,
            limits: Limits::default(),
        };
        Owner {
            key,
            opened,
            view: HashMap::new(),
            put: HashMap::new(),
            open: None,
            references: Vec::new(),
            items: Vec::new(),
            proposals: Vec::new(),
            commits: 0,
            violation: None,
            end: None,
            next_verdict: None,
            refuse: None,
            crash: false,
            last_words: None,
        }
    }

    /// Takes one frame; the answers are frames.
    pub fn frame(&mut self, kind: u8, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let json = |kind: u8, value: &dyn Fn() -> serde_json::Result<Vec<u8>>| vec![(kind, value().unwrap())];
        match kind {
            kind::OPEN => {
                let open: Open = read_json(payload).unwrap();
                assert_eq!(open.version, VERSION);
                self.open = Some(open);
                match self.refuse.take() {
                    Some(failure) => json(kind::REFUSED, &|| serde_json::to_vec(&failure)),
                    None => json(kind::OPENED, &|| serde_json::to_vec(&self.opened)),
                }
            }
            kind::PUT => {
                let put = Put::decode(payload).unwrap();
                self.put.entry(put.id).or_insert((put.size, put.payload.to_vec()));
                vec![(kind::CREDIT, (charge(put.payload.len()) as u32).to_le_bytes().to_vec())]
            }
            kind::READ => {
                let (id, _) = split_id(payload).unwrap();
                let stored = self.put.get(&id).map(|(_, payload)| payload).or_else(|| self.view.get(&id).map(|(_, _, payload)| payload));
                match stored {
                    Some(payload) => vec![(kind::OBJECT, [&id[..], payload].concat())],
                    None => vec![(kind::NOT_IN_VIEW, id.to_vec())],
                }
            }
            kind::REFS => {
                self.references.extend(Reference::decode_all(payload).unwrap());
                vec![]
            }
            kind::ITEMS => {
                self.items.extend(decode_ids(payload).unwrap());
                vec![]
            }
            kind::PROPOSE => {
                let verdict = self.next_verdict.take().unwrap_or_else(|| self.judge());
                let proposal = read_json(payload).unwrap();
                self.proposals.push((proposal, std::mem::take(&mut self.references), std::mem::take(&mut self.items)));
                json(kind::VERDICT, &|| serde_json::to_vec(&verdict))
            }
            kind::COMMIT => {
                let verdict = self.next_verdict.take().unwrap_or(Verdict::Accepted);
                self.commits += usize::from(verdict == Verdict::Accepted);
                json(kind::VERDICT, &|| serde_json::to_vec(&verdict))
            }
            kind::VIOLATION => {
                self.violation = Some(read_json(payload).unwrap());
                vec![]
            }
            kind::END => {
                self.end = Some(read_json(payload).unwrap());
                vec![]
            }
            other => panic!("a frame of type {other:#x}"),
        }
    }

    fn judge(&self) -> Verdict {
        for reference in &self.references {
            let size = self.put.get(&reference.id).map(|(size, _)| *size).or(self.view.get(&reference.id).map(|(size, ..)| *size));
            match size {
                Some(size) if size == reference.size => {}
                Some(_) => return Verdict::Violation(Violation { rule: "reference-size".into(), detail: "size".into() }),
                None => return Verdict::Violation(Violation { rule: "reference-not-own".into(), detail: "id".into() }),
            }
        }
        if self.items.iter().all(|id| self.put.contains_key(id) || self.view.contains_key(id)) {
            Verdict::Accepted
        } else {
            Verdict::Failed(Failure::new(Cause::Internal, "an item chunk that was read is not there"))
        }
    }

    /// What the next job's client is to restore: the last committed archive, under the name that it has here.
    pub fn restore(&mut self) {
        let (_, _, items) = self.proposals.last().unwrap().clone();
        self.next_job();
        let archive = Archive {
            name: ARCHIVE.into(),
            time: TIMESTAMP.into(),
            cmdline: vec![b"borg".to_vec()],
            items: items.into_iter().map(Id).collect(),
            ..Archive::default()
        };
        let packed = archive.pack(&self.key, [4; 64]);
        let id = self.key.id_hash(&packed);
        self.view.insert(id.0, (packed.len() as u32, 0, compress(Compression::Lz4, &packed)));
        let mut manifest = Manifest::empty(TIMESTAMP);
        manifest.archives.insert(ARCHIVE.into(), ArchiveEntry { id, time: TIMESTAMP.into() });
        self.opened.manifest = manifest.pack(&self.key, [3; 64]);
        self.opened.restore = Some(Reading { objects: 1 << 20, bytes: 1 << 30 });
    }

    /// What the last committed archive refers to becomes the client's view, as the next job will get it.
    pub fn next_job(&mut self) {
        let (_, references, items) = self.proposals.last().unwrap();
        let mut view = HashMap::new();
        let find = |id: &[u8; 32]| -> Stored {
            let old = self.view.get(id).map(|(size, _, payload)| (*size, payload.clone()));
            self.put.get(id).cloned().or(old).unwrap()
        };
        for reference in references {
            view.insert(reference.id, (reference.size, reference.csize, find(&reference.id).1));
        }
        for id in items {
            let (size, payload) = find(id);
            view.insert(*id, (size, payload.len() as u32 + 1, payload));
        }
        let key = self.key.clone();
        *self = Owner { view, ..Owner::new(key) };
    }
}
