//! How fast one session takes in chunks, and how fast it examines an archive: `cargo run --release -p proxy --example throughput`.
//!
//! A client thread writes puts into a pipe, the session serves in its own thread, an owner thread takes the chunks and throws
//! them away. Printed are plaintext bytes by the clock, and by the processor time that the session's thread used: the second
//! says what one session can do on a machine that has a processor for each of the three.

use anyhow::{Context, Result, anyhow, ensure};
use borg::archive::{Archive, ChunkerParams};
use borg::compress::{Compression, compress};
use borg::item::{ChunkRef, Item};
use borg::manifest::Manifest;
use borg::msgpack::Writer;
use borg::rpc::{MAX_MESSAGE, ReplyDecoder, call};
use borg::{Id, Key, KeyType, RepositoryId, keyblob};
use model::progress::SessionCounters;
use proxy::intake::archive;
use proxy::intake::object::Verifier;
use proxy::intake::stream::Examination;
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Instant;
use wire::WireError;
use wire::session::{CREDIT, Limits, Opened, Put, charge, kind};

const CHUNK: usize = 2 << 20;
const DISTINCT: usize = 8;

fn main() -> Result<()> {
    for kind in [KeyType::Authenticated, KeyType::AuthenticatedBlake2, KeyType::None] {
        for (name, compression, half) in
            [("stored", Compression::None, false), ("lz4 2:1", Compression::Lz4, true), ("zstd 2:1", Compression::Zstd(3), true)]
        {
            let (clock, processor) = run(kind, compression, half, 512)?;
            println!("{:21} {name:9} {clock:6.0} MB/s by the clock, {processor:6.0} MB/s of session processor time", kind.to_string());
        }
    }
    for files in [100_000, 1_000_000] {
        let (seconds, bytes) = examine(files)?;
        println!("archive of {files} files: item stream of {} MB examined in {seconds:.2} s of processor time", bytes / 1_000_000);
    }
    Ok(())
}

/// Processor time for examining an archive of so many files of one chunk, and the length of its item stream.
fn examine(files: u64) -> Result<(f64, usize)> {
    let key = Key::generate(KeyType::Authenticated, &mut |bytes| bytes.fill(7));
    let mut writer = Writer::new();
    for number in 0..files {
        let id = key.id_hash(&number.to_le_bytes());
        let item = Item {
            path: format!("srv/data/department-{}/project-{}/file-{number}.dat", number / 10_000, number / 100).into_bytes(),
            mode: Some(0o100_644),
            uid: Some(1000),
            gid: Some(1000),
            user: Some(Some(b"someone".to_vec())),
            group: Some(Some(b"someone".to_vec())),
            mtime: 1_700_000_000_000_000_000,
            ctime: Some(1_700_000_000_000_000_000),
            size: Some(5000),
            chunks: Some(vec![ChunkRef { id, size: 5000, csize: 2500 }]),
            ..Item::default()
        };
        item.write(&mut writer);
    }
    let pieces: Vec<(Id, Vec<u8>)> =
        writer.bytes().chunks(128 << 10).map(|piece| (key.id_hash(piece), compress(Compression::Lz4, piece))).collect();
    let archive = Archive {
        name: b"a".to_vec(),
        time: "2026-01-02T03:04:05.000006".into(),
        items: pieces.iter().map(|(id, _)| *id).collect(),
        chunker_params: Some(ChunkerParams { algorithm: None, numbers: vec![19, 23, 21, 4095] }),
        ..Archive::default()
    };
    let accepted = archive::accept(&archive.pack(&key, [1; 64]), b"a").map_err(|stop| anyhow!("{stop:?}"))?;
    let mut verifier = Verifier::new(key).context("an encrypting key")?;
    let mut examination = Examination::new(false, accepted, [1; 16], 0).map_err(|stop| anyhow!("{stop:?}"))?;
    let before = processor_time().context("no processor time")?;
    let mut references = 0;
    let mut next = 0;
    while !examination.is_complete() {
        for (kind, payload) in examination.frames() {
            references += if kind == kind::REFS { payload.len() } else { 0 };
        }
        while let Some((id, payload)) = pieces.get(next).filter(|(id, _)| examination.waits_for(&id.0)) {
            examination.object(id.0, payload, true, &mut verifier).context("not asked for")?.map_err(|stop| anyhow!("{stop:?}"))?;
            next += 1;
        }
    }
    let rest = examination.finish(&mut SessionCounters::default()).map_err(|stop| anyhow!("{stop:?}"))?;
    references += rest.iter().filter(|(kind, _)| *kind == kind::REFS).map(|(_, payload)| payload.len()).sum::<usize>();
    ensure!(references as u64 == files * 40, "{references}");
    Ok((processor_time().context("no processor time")? - before, writer.len()))
}

/// Random content; the second half of each kilobyte zero if `half`.
fn content(seed: u64, half: bool) -> Vec<u8> {
    let mut x = seed.wrapping_add(1);
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = if half && bytes.len() % 1024 >= 512 { 0 } else { (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) };
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn run(kind: KeyType, compression: Compression, half: bool, chunks: usize) -> Result<(f64, f64)> {
    let mut n = 0u8;
    let key = Key::generate(kind, &mut |bytes| {
        for byte in bytes {
            n = n.wrapping_mul(29).wrapping_add(3);
            *byte = n;
        }
    });
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("owner.sock");
    let listener = UnixListener::bind(&socket)?;
    let opened = opened(&key);
    let owner = thread::spawn(move || own(&listener, &opened));

    let (calls_in, mut calls) = pipe()?;
    let (mut replies, replies_out) = pipe()?;
    let notes = File::create("/dev/null")?;
    let client = proxy::serve::Client::from([OwnedFd::from(calls_in), OwnedFd::from(replies_out), OwnedFd::from(notes)]);
    let session = thread::spawn(move || {
        let before = processor_time();
        let code = proxy::serve::serve(client, [1; 16], Default::default(), |_| socket.clone(), None, None, |_| {});
        (code, processor_time().zip(before).map(|(after, before)| after - before))
    });
    let reading = thread::spawn(move || -> Result<usize> {
        let mut decoder = ReplyDecoder::new(MAX_MESSAGE);
        let mut count = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = replies.read(&mut buffer)?;
            if n == 0 {
                return Ok(count);
            }
            decoder.push(&buffer[..n]);
            while let Some(reply) = decoder.next_reply()? {
                reply.outcome?;
                count += 1;
            }
        }
    });

    let distinct: Vec<(Id, Vec<u8>)> = (0..DISTINCT as u64)
        .map(|seed| {
            let plain = content(seed, half);
            (key.id_hash(&plain), key.seal(&compress(compression, &plain), 0))
        })
        .collect();
    calls.write_all(&call::negotiate(1, &[1, 4, 5, -1]))?;
    let token = "00".repeat(32);
    let open = call::Open {
        path: format!("/./{token}").leak().as_bytes(),
        create: false,
        lock_wait: Some(1),
        lock: true,
        exclusive: true,
        append_only: false,
        make_parent_dirs: false,
    };
    calls.write_all(&call::open(2, &open))?;
    let began = Instant::now();
    for number in 0..chunks {
        let (id, envelope) = &distinct[number % DISTINCT];
        calls.write_all(&call::put_head(3 + number as u64, id, envelope.len()))?;
        calls.write_all(envelope)?;
    }
    drop(calls);
    let (code, processor) = session.join().expect("no panic");
    let elapsed = began.elapsed().as_secs_f64();
    let taken = owner.join().expect("no panic")?;
    let answers = reading.join().expect("no panic")?;
    ensure!(code == 0 && taken == chunks && answers == chunks + 2, "code {code}, {taken} chunks, {answers} answers");
    let megabytes = (chunks * CHUNK) as f64 / 1e6;
    let processor = processor.context("/proc does not tell processor times")?;
    Ok((megabytes / elapsed, megabytes / processor))
}

fn opened(key: &Key) -> Opened {
    let blob = match key.key_type() {
        KeyType::None => String::new(),
        _ => keyblob::lock(key, RepositoryId([1; 32]), b"x", 1, [2; 32]),
    };
    Opened {
        job: 1,
        archive_name: "a".into(),
        repository_id: RepositoryId([1; 32]).to_hex(),
        key_type: key.key_type().byte(),
        key_blob: blob,
        passphrase: "x".into(),
        manifest: Manifest::empty("2026-01-02T03:04:05.000006").pack(key, [3; 64]),
        obfuscate: false,
        restore: None,
        limits: Limits::default(),
    }
}

/// Takes chunks; the number of them.
fn own(listener: &UnixListener, opened: &Opened) -> Result<usize> {
    let (mut stream, _) = listener.accept()?;
    let (mut buffer, mut count, mut credit) = (Vec::new(), 0, 0);
    loop {
        match wire::frame::read(&mut stream, &mut buffer) {
            Ok(kind::OPEN) => wire::session::write_json(&mut stream, kind::OPENED, opened)?,
            Ok(kind::PUT) => {
                count += 1;
                credit += charge(Put::decode(&buffer)?.payload.len());
                if credit >= CREDIT / 8 {
                    wire::frame::write(&mut stream, kind::CREDIT, &[&(credit as u32).to_le_bytes()])?;
                    credit = 0;
                }
            }
            Ok(_) => {}
            Err(WireError::Closed) => return Ok(count),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Seconds of processor time of this thread.
fn processor_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
}
