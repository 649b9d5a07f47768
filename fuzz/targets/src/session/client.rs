//! Calls that a client makes up, mostly nearly right.

use super::world::{ARCHIVE, TOKEN, World};
use crate::bytes::Bytes;
use crate::keys::key;
use borg::archive::{Archive, ChunkerParams};
use borg::compress::{Compression, compress, obfuscate};
use borg::item::{ChunkRef, Item};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::msgpack::Writer;
use borg::rpc::{ClientData, Method};
use borg::{Id, KeyType};

const TIME: &str = "2026-01-02T03:04:05.000006";

/// A call with the bytes that it borrows.
pub enum Call {
    /// Without any.
    Plain(Method<'static>),
    /// `put`
    Put(Id, Vec<u8>),
    /// `open`
    Open(Vec<u8>, u8),
}

impl Call {
    /// As the session takes it.
    pub fn method(&self) -> Method<'_> {
        match self {
            Call::Plain(method) => method.clone(),
            Call::Put(id, data) => Method::Put { id: *id, data },
            Call::Open(path, flags) => Method::Open {
                path,
                create: flags & 1 != 0,
                lock_wait: Some(1.0),
                lock: flags & 2 == 0,
                exclusive: Some(flags & 4 == 0),
                append_only: flags & 8 != 0,
                make_parent_dirs: flags & 16 != 0,
            },
        }
    }
}

/// Makes a call from bytes.
pub fn call(world: &mut World, choice: u8, bytes: &mut Bytes<'_>) -> Call {
    let id = |world: &World, bytes: &mut Bytes<'_>| known(world, bytes);
    match choice >> 3 {
        0 => Call::Plain(Method::Negotiate { client: version(choice & 7) }),
        1 => {
            let path = if bytes.rarely(8) { bytes.some().to_vec() } else { format!("/./{TOKEN}").into_bytes() };
            Call::Open(path, if choice & 7 == 7 { bytes.byte() } else { 0 })
        }
        2 => Call::Plain(Method::LoadKey),
        3 if choice & 1 == 0 => Call::Plain(Method::GetFreeNonce),
        3 => Call::Plain(Method::CommitNonceReservation { next_unreserved: u64::from(bytes.byte()) << 40, start_nonce: None }),
        4 => Call::Plain(Method::Get { id: Id::MANIFEST }),
        5 => Call::Plain(Method::Get { id: id(world, bytes) }),
        6..=8 => chunk(world, choice, bytes),
        9..=12 => stream(world, choice, bytes),
        13..=16 => archive(world, choice, bytes),
        17..=20 => manifest(world, choice, bytes),
        21 => Call::Plain(Method::Delete { id: id(world, bytes) }),
        22 => Call::Plain(Method::Commit { save_space: choice & 1 != 0, compact: choice & 2 != 0, threshold: 0.1, cleanup_commits: false }),
        23 => Call::Plain(Method::Rollback),
        _ => Call::Plain(match choice & 7 {
            0 => Method::Len,
            1 => Method::List { limit: None, marker: None },
            2 => Method::Scan { limit: None, marker: None },
            3 => Method::Check { repair: true, save_space: false, max_duration: 0.0 },
            4 => Method::BreakLock,
            5 => Method::Destroy,
            6 => Method::InjectException { kind: b"divide" },
            _ => Method::Unknown(b"nonsense"),
        }),
    }
}

fn version(choice: u8) -> ClientData {
    match choice {
        0..=3 => ClientData::Version(vec![1, 4, 5, -1]),
        4 => ClientData::Version(vec![1, 1, 0, -3, 1]),
        5 => ClientData::Version(vec![2, 0, 0, -1]),
        6 => ClientData::Version(vec![]),
        _ => ClientData::Legacy(2),
    }
}

/// An id that means something, mostly.
fn known(world: &World, bytes: &mut Bytes<'_>) -> Id {
    let ids = &world.ids;
    match bytes.byte() {
        0xff => Id([0xee; 32]),
        0xfe => world.foreign(),
        n => ids.get(usize::from(n) % ids.len().max(1)).copied().unwrap_or(Id([n; 32])),
    }
}

/// A put of this plaintext, right but in one of many cases.
fn put(world: &mut World, plaintext: &[u8], choice: u8, bytes: &mut Bytes<'_>) -> Call {
    let compression = match bytes.below(8) {
        0 => Compression::Zstd(1),
        1 => Compression::Zlib(6),
        2..=4 => Compression::None,
        _ => Compression::Lz4,
    };
    let (mut id, mut payload) = (world.key.id_hash(plaintext), compress(compression, plaintext));
    let mut key = world.key.clone();
    if choice & 7 == 7 {
        match bytes.below(6) {
            0 => id = known(world, bytes),
            1 => payload = obfuscate(&payload, payload.len() + bytes.below(200)),
            2 => payload = bytes.some().to_vec(),
            3 => key = crate::keys::key(KeyType::Repokey, 1),
            4 => payload.truncate(bytes.below(payload.len() + 1)),
            _ => {}
        }
    }
    world.ids.push(id);
    Call::Put(id, key.seal(&payload, 7))
}

fn chunk(world: &mut World, choice: u8, bytes: &mut Bytes<'_>) -> Call {
    let plaintext = bytes.some();
    put(world, plaintext, choice, bytes)
}

/// A chunk of an item stream.
fn stream(world: &mut World, choice: u8, bytes: &mut Bytes<'_>) -> Call {
    let mut writer = Writer::new();
    for number in 0..1 + bytes.below(3) {
        item(world, number, bytes).write(&mut writer);
    }
    let mut stream = writer.into_bytes();
    if bytes.rarely(16) {
        stream.truncate(bytes.below(stream.len()));
    }
    let call = put(world, &stream, choice, bytes);
    if let Call::Put(id, _) = call {
        world.streams.push(id);
    }
    call
}

fn item(world: &World, number: usize, bytes: &mut Bytes<'_>) -> Item {
    let paths: [&[u8]; 12] = [b"d", b"d/f", b"d/g", b"e", b"f", b".", b"../x", b"/etc", b"a//b", b"x\0y", b"d/./f", b"f.borg_part_1"];
    let path = match bytes.below(16) {
        n @ 0..=11 => paths[n].to_vec(),
        12 => bytes.some().to_vec(),
        n => format!("d{n}/{number}").into_bytes(),
    };
    let mode = [0o100_644, 0o100_644, 0o100_600, 0o040_755, 0o120_777, 0o010_600, 0o020_600, 0o140_600][bytes.below(8)];
    let mut item = Item {
        path,
        mode: Some(mode),
        uid: Some(0),
        gid: Some(0),
        user: Some(None),
        group: Some(None),
        mtime: 1_700_000_000_000_000_000,
        ..Item::default()
    };
    if mode & 0o170_000 == 0o100_000 {
        let chunks: Vec<ChunkRef> = (0..bytes.below(3)).map(|_| reference(world, bytes)).collect();
        item.size = Some(chunks.iter().map(|chunk| u64::from(chunk.size)).sum());
        item.chunks = Some(chunks);
    }
    if mode & 0o170_000 == 0o120_000 {
        item.source = Some(b"../../etc/shadow".to_vec());
    }
    match bytes.byte() {
        0xff => item.size = Some(u64::MAX),
        0xfe => item.part = Some(u64::from(bytes.byte())),
        0xfd => item.hardlink_master = Some(true),
        0xfc => item.source = Some(b"d/f".to_vec()),
        0xfb => item.chunks_healthy = Some(Vec::new()),
        0xfa => item.rdev = Some(261),
        0xf9 => item.uid = Some(i64::MIN),
        0xf8 => item.mtime = i128::MAX,
        0xf7 => item.chunks = None,
        0xf6 => item.xattrs = Some(vec![(bytes.some().to_vec(), None)]),
        0xf5 => item.user = Some(Some(bytes.some().to_vec())),
        _ => {}
    }
    item
}

/// A reference to a chunk that is there, mostly with its size.
fn reference(world: &World, bytes: &mut Bytes<'_>) -> ChunkRef {
    let id = known(world, bytes);
    let size = world.size_of(&id).unwrap_or(5);
    ChunkRef { id, size: if bytes.rarely(16) { size ^ 1 } else { size }, csize: 50 }
}

fn archive(world: &mut World, choice: u8, bytes: &mut Bytes<'_>) -> Call {
    let name = name(bytes);
    let streams = &world.streams;
    let items = (0..bytes.below(4)).map(|_| match bytes.byte() {
        0xff => world.foreign(),
        0xfe => Id([0xee; 32]),
        n => streams.get(usize::from(n) % streams.len().max(1)).copied().unwrap_or(world.view_stream()),
    });
    let mut archive = Archive {
        name: name.clone(),
        hostname: Some(b"host".to_vec()),
        username: Some(b"root".to_vec()),
        time: TIME.into(),
        cmdline: vec![b"borg".to_vec()],
        items: items.collect(),
        chunker_params: Some(ChunkerParams { algorithm: Some(b"buzhash".to_vec()), numbers: vec![19, 23, 21, 4095] }),
        ..Archive::default()
    };
    match bytes.byte() {
        0xff => archive.chunker_params = None,
        0xfe => drop(archive.other.insert(b"item_ptrs".to_vec(), vec![0x90])),
        0xfd => archive.recreate_cmdline = Some(Vec::new()),
        0xfc => archive.time = "now".into(),
        0xfb => archive.cwd = Some(bytes.some().to_vec()),
        _ => {}
    }
    let signer = if bytes.rarely(32) { key(KeyType::Authenticated, 3) } else { world.key.clone() };
    let packed = archive.pack(&signer, [bytes.byte(); 64]);
    let call = put(world, &packed, choice, bytes);
    if let Call::Put(id, _) = call {
        world.archives.push((name, id));
    }
    call
}

fn name(bytes: &mut Bytes<'_>) -> Vec<u8> {
    match bytes.below(16) {
        0..=7 => ARCHIVE.as_bytes().to_vec(),
        8..=11 => format!("{ARCHIVE}.checkpoint").into_bytes(),
        12 => format!("{ARCHIVE}.checkpoint.{}", bytes.byte()).into_bytes(),
        13 => format!("{ARCHIVE}{}", bytes.byte()).into_bytes(),
        14 => bytes.some().to_vec(),
        _ => b"another".to_vec(),
    }
}

/// A manifest over the one the client was shown last.
fn manifest(world: &mut World, choice: u8, bytes: &mut Bytes<'_>) -> Call {
    let mut manifest = world.shown.clone();
    for _ in 0..1 + usize::from(bytes.rarely(8)) {
        let (name, id) = match bytes.byte() {
            0xff => (name(bytes), known(world, bytes)),
            0xfe => (ARCHIVE.as_bytes().to_vec(), world.view_stream()),
            n => {
                let newest = world.archives.len().saturating_sub(1 + usize::from(n) / 64);
                world.archives.get(newest).cloned().unwrap_or((b"another".to_vec(), Id([n; 32])))
            }
        };
        manifest.archives.insert(name, ArchiveEntry { id, time: TIME.into() });
    }
    match bytes.byte() {
        0xff => drop(manifest.config.insert(b"feature_flags".to_vec(), vec![0x80])),
        0xfe => manifest.version = 2,
        0xfd => manifest = Manifest::empty(TIME),
        0xfc => manifest.timestamp = None,
        0xc0..=0xdf => manifest.archives.retain(|name, _| !name.ends_with(b".checkpoint")),
        _ => {}
    }
    let signer = if bytes.rarely(32) { key(KeyType::Authenticated, 3) } else { world.key.clone() };
    let mut payload = compress(Compression::Lz4, &manifest.pack(&signer, [bytes.byte(); 64]));
    if choice & 7 == 7 && bytes.rarely(2) {
        payload.truncate(bytes.below(payload.len()));
    }
    Call::Put(Id::MANIFEST, world.key.seal(&payload, 0))
}
