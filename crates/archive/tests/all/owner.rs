//! An archive in memory, and a thread that answers for it as a repository's owner does.

use archive::{Selection, Source};
use borg::archive::Archive as Metadata;
use borg::compress::{Compression, compress};
use borg::item::{ChunkRef, Item};
use borg::msgpack::Writer;
use borg::{Id, Key};
use model::{Cause, Failure};
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use wire::frame;
use wire::maintenance::{Maintain, Operation};
use wire::reading::{Lacking, Readable, Reason, kind as reading};
use wire::session::{decode_ids, kind, read_json, write_json};

/// What a repository without encryption has.
#[derive(Default)]
pub struct Objects {
    /// Payloads by id, compressed.
    pub payloads: Mutex<HashMap<Id, Vec<u8>>>,
    /// Metadata of the archive.
    pub metadata: Vec<u8>,
    /// Objects that were asked for.
    pub asked: AtomicUsize,
    /// A connection breaks after so many answers; 0: never.
    pub breaks_after: usize,
    /// What the owner says when it has broken so often.
    pub connections: AtomicUsize,
}

/// Makes an archive item by item.
pub struct Builder {
    objects: HashMap<Id, Vec<u8>>,
    stream: Vec<u8>,
    /// Pieces of the list of files are so long.
    piece: usize,
    items: Vec<Id>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder { objects: HashMap::new(), stream: vec![], piece: 1000, items: vec![] }
    }
}

pub fn id_of(plain: &[u8]) -> Id {
    Key::none().id_hash(plain)
}

/// An item of this mode.
pub fn item(path: impl AsRef<[u8]>, mode: u32) -> Item {
    Item { path: path.as_ref().to_vec(), mode: Some(mode), mtime: 1_600_000_000_123_456_789, uid: Some(0), gid: Some(0), ..Item::default() }
}

pub fn directory(path: impl AsRef<[u8]>) -> Item {
    item(path, 0o040_755)
}

pub fn link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    Item { source: Some(target.as_ref().to_vec()), ..item(path, 0o120_777) }
}

pub fn hard_link(path: impl AsRef<[u8]>, master: impl AsRef<[u8]>) -> Item {
    Item { source: Some(master.as_ref().to_vec()), ..item(path, 0o100_644) }
}

impl Builder {
    /// Pieces of the list of files are so long.
    pub fn in_pieces(piece: usize) -> Builder {
        Builder { piece, ..Builder::default() }
    }

    /// Stores a chunk.
    pub fn chunk(&mut self, plain: &[u8]) -> ChunkRef {
        self.packed_chunk(plain, Compression::Lz4)
    }

    pub fn packed_chunk(&mut self, plain: &[u8], compression: Compression) -> ChunkRef {
        let id = id_of(plain);
        let payload = compress(compression, plain);
        let csize = payload.len() as u32 + 1;
        self.objects.insert(id, payload);
        ChunkRef { id, size: plain.len() as u32, csize }
    }

    /// A file with these chunks.
    pub fn file(&mut self, path: impl AsRef<[u8]>, chunks: &[&[u8]]) -> Item {
        let chunks: Vec<ChunkRef> = chunks.iter().map(|plain| self.chunk(plain)).collect();
        let size = chunks.iter().map(|chunk| u64::from(chunk.size)).sum();
        Item { chunks: Some(chunks), size: Some(size), hardlink_master: Some(false), ..item(path, 0o100_644) }
    }

    pub fn add(&mut self, item: &Item) -> &mut Builder {
        let packed = Writer::packed(|writer| item.write(writer));
        self.raw(&packed)
    }

    /// Bytes into the list of files.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Builder {
        self.stream.extend_from_slice(bytes);
        while self.stream.len() >= self.piece {
            let rest = self.stream.split_off(self.piece);
            let piece = std::mem::replace(&mut self.stream, rest);
            self.cut(&piece);
        }
        self
    }

    fn cut(&mut self, piece: &[u8]) {
        let id = self.chunk(piece).id;
        self.items.push(id);
    }

    /// The list of files so far is a piece.
    pub fn flush(&mut self) -> &mut Builder {
        let piece = std::mem::take(&mut self.stream);
        if !piece.is_empty() {
            self.cut(&piece);
        }
        self
    }

    pub fn finish(mut self) -> Objects {
        self.flush();
        let metadata =
            Metadata { name: b"a".to_vec(), time: "2026-01-02T03:04:05.000006".into(), items: self.items.clone(), ..Metadata::default() };
        Objects { payloads: Mutex::new(self.objects), metadata: metadata.pack(&Key::none(), [0; 64]), ..Objects::default() }
    }

    pub fn source(self) -> Source {
        self.finish().source()
    }
}

impl Objects {
    pub fn source(self) -> Source {
        open(&Arc::new(self))
    }
}

pub fn open(objects: &Arc<Objects>) -> Source {
    let objects = Arc::clone(objects);
    let connect = move || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let objects = Arc::clone(&objects);
        std::thread::spawn(move || serve(&objects, theirs));
        Ok(ours)
    };
    Source::open(Arc::new(connect), "a").unwrap()
}

/// Answers on one connection, to people and to those who read on behalf of them.
pub fn serve(objects: &Objects, mut stream: UnixStream) {
    objects.connections.fetch_add(1, Ordering::SeqCst);
    let mut payload = vec![];
    let Ok(kind::MAINTAIN) = frame::read(&mut stream, &mut payload) else { return };
    let Maintain { operation, .. } = read_json(&payload).unwrap();
    let (Operation::Read { archive } | Operation::ReadFor { archive, .. }) = operation else { panic!("it is asked for a read") };
    let id = id_of(&objects.metadata).to_hex();
    if archive != "a" && archive != id {
        let failure = Failure::new(Cause::RepositoryError, "the repository has no archive of that name");
        write_json(&mut stream, kind::FAILED, &failure).unwrap();
        return;
    }
    let readable = Readable { name: "a".into(), id, repository_id: "00".repeat(32), is_signed: true, key_type: 2, id_key: String::new() };
    if write_json(&mut stream, reading::READABLE, &readable).is_err()
        || frame::write(&mut stream, reading::METADATA, &[&objects.metadata]).is_err()
    {
        return;
    }
    let mut answers = 0;
    while let Ok(reading::FETCH) = frame::read(&mut stream, &mut payload) {
        for id in decode_ids(&payload).unwrap().into_iter().map(Id) {
            if objects.breaks_after > 0 && answers == objects.breaks_after {
                return;
            }
            answers += 1;
            objects.asked.fetch_add(1, Ordering::SeqCst);
            let found = objects.payloads.lock().unwrap().get(&id).cloned();
            let sent = match found {
                Some(payload) => frame::write(&mut stream, kind::OBJECT, &[&id.0, &payload]),
                None => frame::write(&mut stream, reading::LACKING, &[&Lacking { id: id.0, reason: Reason::Missing, sentence: "" }.head()]),
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// Complaints, with the path that each is about.
#[derive(Debug, Default)]
pub struct Complaints(pub Vec<(String, String)>);

impl Complaints {
    pub fn add(&mut self, path: Option<&[u8]>, what: &str) {
        self.0.push((path.map(|path| String::from_utf8_lossy(path).into_owned()).unwrap_or_default(), what.to_owned()));
    }

    /// Asserts that there is one about this path that says this.
    #[track_caller]
    pub fn assert(&self, path: &str, what: &str) {
        assert!(self.0.iter().any(|(p, w)| p == path && w.contains(what)), "{path}: {what}: {:#?}", self.0);
    }
}

pub fn everything() -> Selection {
    Selection::default()
}

/// Extracts everything, with all privileges; gives what was complained of.
pub fn extract(source: &Source, target: &Path) -> Complaints {
    let mut complaints = Complaints::default();
    let options =
        archive::extract::Options { attributes: archive::attributes::Options { numeric_ids: true, privileged: true }, overwrite: true };
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    archive::extract::extract(source, &mut everything(), target, options, &mut |_| {}, complain).unwrap();
    complaints
}

/// The names that a listing gives.
pub fn names(source: &Source) -> (Vec<String>, Complaints) {
    let mut complaints = Complaints::default();
    let mut selection = everything();
    let mut feed = archive::feed::Feed::open(source, &mut selection, false).unwrap();
    let mut names = vec![];
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    while let Some(chosen) = feed.next(complain).unwrap() {
        names.push(String::from_utf8_lossy(&chosen.item.path).into_owned());
    }
    (names, complaints)
}
