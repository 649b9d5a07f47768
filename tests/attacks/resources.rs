//! A23 to A32: how much. What is used up is the attacker's own, and bounded.

use crate::hostile::{Hostile, Said, directory, stream};
use crate::world::World;
use crate::{Deed, deed};
use borg::compress::{Compression, compress};
use borg::rpc::call;
use borg::{Id, MAX_OBJECT, MAX_PLAINTEXT};
use std::fs;
use std::time::{Duration, Instant};
use testkit::retry::retry_until;

/// What a session may ever need, whatever its client does.
const SESSION_MEMORY: u64 = 256 << 20;

pub const DEEDS: &[Deed] = &[
    Deed { rule: "object-compression", test: "a24", deed: |client| payload(client, &bomb(Compression::Zstd(3))) },
    Deed { rule: "object-size", test: "a24", deed: |client| client.put(&Id([1; 32]), &vec![7; MAX_OBJECT]) },
    Deed { rule: "archives-held", test: "a26", deed: hold_archives },
];

fn bomb(compression: Compression) -> Vec<u8> {
    compress(compression, &vec![0; MAX_PLAINTEXT + 1])
}

/// Puts a payload as it is, under the id that its plaintext would have if it were a megabyte of zeros.
fn payload(client: &mut Hostile, payload: &[u8]) -> Said {
    let id = client.key.id_hash(&vec![0; 1 << 20]);
    let envelope = client.key.seal(payload, 0);
    client.put(&id, &envelope)
}

/// Archive metadata that no manifest ever names.
fn hold_archives(client: &mut Hostile) -> Said {
    let mut said = Said::HungUp;
    for n in 0..9 {
        let archive = client.archive(&format!("{}{n}", client.archive_name), vec![]);
        let packed = archive.pack(&client.key, [4; 64]);
        let (id, envelope) = (client.key.id_hash(&packed), client.seal(&packed));
        said = client.put(&id, &envelope);
    }
    said
}

#[test]
fn a23_lengths_that_lie_cost_nothing() {
    let world = World::new();
    for bytes in [&b"\xdb\xff\xff\xff\xff"[..], b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", &[0x91; 100_000], &[0x81; 100_000]] {
        world.expect_rule("message", |client| {
            let session = world.session();
            client.send(bytes);
            // It is over before anything is reserved.
            assert!(world.peak(session) < 64 << 20, "{}", world.peak(session));
            if let said @ Said::Exception(_) = client.answer() {
                assert_eq!(said.broke(), "message");
            }
        });
    }
    // A message that is as long as it may be is announced, and does not come: only what comes is kept.
    world
        .attack(|client| {
            let session = world.session();
            client.send(&call::put_head(7, &Id([1; 32]), MAX_OBJECT - 1));
            client.send(&[0; 1000]);
            std::thread::sleep(Duration::from_millis(200));
            assert!(world.peak(session) < 64 << 20, "{}", world.peak(session));
        })
        .expect_cause("client-borg-failed", "");
    // Item streams: one listed a thousand times, and one that compresses to nothing.
    world.expect_rule("item-limits", |client| {
        let chunk = client.items(&[directory("d")]);
        let archive = client.archive(&client.archive_name, vec![chunk; 1001]);
        assert_eq!(client.propose_archive(&archive).broke(), "item-limits");
    });
    let verdict = world.attack(|client| {
        let session = world.session();
        let xattrs = (0..8).map(|n| (format!("user.{n}").into_bytes(), Some(vec![0; 60_000]))).collect();
        let chunk = client.items(&[borg::item::Item { xattrs: Some(xattrs), ..directory("d") }]);
        let archive = client.archive(&client.archive_name, vec![chunk; 900]);
        client.propose_archive(&archive).refused("QuotaExceeded");
        assert!(world.peak(session) < SESSION_MEMORY, "{}", world.peak(session));
    });
    verdict.expect_cause("quota-exceeded", "item-stream");
}

#[test]
fn a24_bombs() {
    let world = World::new();
    world.expect_deed(deed("object-compression", "a24"));
    world.expect_deed(deed("object-size", "a24"));
    let zeros = vec![0; 1 << 20];
    let wrap = |inner: &[u8]| [&[4, 0][..], &u32::try_from(inner.len()).unwrap().to_be_bytes(), inner].concat();
    let mut bombs: Vec<(&str, Vec<u8>)> = vec![
        ("lz4", bomb(Compression::Lz4)),
        ("zstd", bomb(Compression::Zstd(19))),
        ("zlib", bomb(Compression::Zlib(9))),
        ("lzma", bomb(Compression::Lzma(6))),
        ("a wrapper in a wrapper", wrap(&wrap(&compress(Compression::Lz4, &zeros)))),
        ("a wrapper that is longer than itself", [&[4, 0, 0xff, 0xff, 0xff, 0xff][..], &[0; 100]].concat()),
        ("a dictionary of 4 GiB", giant_dictionary(&zeros)),
    ];
    // A frame that announces 2^60 bytes, without any.
    bombs.push(("a giant frame", [&[3, 0][..], &[0x28, 0xb5, 0x2f, 0xfd, 0xe0], &(1u64 << 60).to_le_bytes(), &[1, 0, 0]].concat()));
    for (what, bomb) in bombs {
        let begin = Instant::now();
        world.expect_rule("object-compression", |client| {
            let session = world.session();
            assert_eq!(payload(client, &bomb).broke(), "object-compression", "{what}");
            assert!(world.peak(session) < SESSION_MEMORY, "{what}: {}", world.peak(session));
        });
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {:?}", begin.elapsed());
    }
    // The same in places that are read at once: a manifest, and an archive's metadata.
    world.expect_rule("object-compression", |client| {
        let envelope = client.key.seal(&self::bomb(Compression::Zstd(3)), 0);
        assert_eq!(client.put_manifest(&envelope).broke(), "object-compression");
    });
}

/// An xz stream whose header asks for a dictionary of 4 GiB: the size is one byte of the block's header, which has a CRC of its own.
fn giant_dictionary(plaintext: &[u8]) -> Vec<u8> {
    let mut bytes = compress(Compression::Lzma(0), plaintext);
    let block = bytes.windows(6).position(|w| w == b"\xfd7zXZ\0").expect("an xz stream") + 12;
    let length = (usize::from(bytes[block]) + 1) * 4;
    let filter = block + bytes[block..block + length].windows(2).position(|w| w == [0x21, 1]).expect("LZMA2");
    bytes[filter + 2] = 40;
    let crc = crc32fast::hash(&bytes[block..block + length - 4]).to_le_bytes();
    bytes[block + length - 4..block + length].copy_from_slice(&crc);
    bytes
}

#[test]
fn a25_what_decompresses_has_nothing_to_steal() {
    let world = World::new();
    world
        .attack(|_| {
            let session = world.session();
            let status = fs::read_to_string(format!("/proc/{session}/status")).unwrap();
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
            // Its memory is nobody's to read, and no core is written: the kernel gives such processes to root.
            let credentials = world.system.state().join("credentials");
            for fd in fs::read_dir(format!("/proc/{session}/fd")).unwrap().map(Result::unwrap) {
                let target = fs::read_link(fd.path()).unwrap_or_default();
                assert!(!target.starts_with(&credentials) && !target.starts_with(&world.repository), "{}", target.display());
            }
            let environment = String::from_utf8_lossy(&fs::read(format!("/proc/{session}/environ")).unwrap()).into_owned();
            assert!(!environment.contains(&credentials.display().to_string()), "{environment}");
        })
        .expect_cause("client-borg-failed", "");
    // Only the client key, which encrypts nothing: with it no object of the repository can be opened.
    let objects = crate::world::segments(&world.repository);
    let verdict = world.attack(|client| {
        assert!(objects.len() >= 2);
        assert!(objects.iter().all(|envelope| client.key.open(envelope).is_err()), "a client key opens an object");
    });
    verdict.expect_cause("client-borg-failed", "");
}

#[test]
fn a26_a_hundred_million_little_things() {
    let world = World::new();
    world.expect_deed(deed("archives-held", "a26"));
    world.system.cli_ok(&["settings", "edit", "--objects", "20", "--small-objects", "3"]);
    let put = |client: &mut Hostile, plaintext: &[u8]| {
        let (id, envelope) = (client.key.id_hash(plaintext), client.seal(plaintext));
        client.put(&id, &envelope)
    };
    let verdict = world.attack(|client| {
        for n in 0..3u8 {
            client.chunk(&[n]);
        }
        put(client, b"one more").refused("QuotaExceeded");
    });
    verdict.expect_cause("quota-exceeded", "small-objects");
    let verdict = world.attack(|client| {
        for n in 0..20u8 {
            client.chunk(&[n; 100]);
        }
        put(client, &[99; 100]).refused("QuotaExceeded");
    });
    verdict.expect_cause("quota-exceeded", "objects");
}

#[test]
fn a27_more_than_its_share() {
    let world = World::new();
    world.system.cli_ok(&["settings", "edit", "--bytes", "2000000"]);
    let noise = testkit::tree::Random::new(27).bytes(1 << 20);
    let verdict = world.attack(|client| {
        client.chunk(&noise);
        // What the victim has already stored costs as much as what nobody has: quotas tell nothing of others.
        let (id, envelope) = (client.key.id_hash(&noise[1..]), client.seal(&noise[1..]));
        client.put(&id, &envelope).refused("QuotaExceeded");
    });
    verdict.expect_cause("quota-exceeded", "bytes");
    // What a client keeps counts for the next time, and is told before anything is sent.
    world.system.cli_ok(&["settings", "edit", "--bytes", "1000000000", "--client-bytes", "500000"]);
    let job = world.job("hostile");
    let mut client = job.open();
    client.backup_of(&noise[..400_000]);
    drop(client);
    assert_eq!(job.end(0).state, "done");
    let verdict = world.attack(|client| {
        let (id, envelope) = (client.key.id_hash(&noise[5..200_000]), client.seal(&noise[5..200_000]));
        client.put(&id, &envelope).refused("QuotaExceeded");
    });
    verdict.expect_cause("quota-exceeded", "bytes");
    world.system.cli_ok(&["settings", "edit", "--client-bytes", "300000"]);
    let before = world.fingerprint();
    let number = tests::start(&world.system, "hostile/all");
    let verdict = crate::world::Verdict::of(&tests::wait_for_end(&world.system, number));
    verdict.expect_cause("quota-exceeded", "client-bytes");
    world.assert_unchanged(&before);
}

#[test]
fn a28_what_is_dear_to_decompress_is_not_dear_to_store() {
    let world = World::new();
    let noise = testkit::tree::Random::new(28).bytes(4 << 20);
    for compression in [Compression::Lzma(6), Compression::Zstd(19), Compression::Zlib(9)] {
        let stored = compress(compression, &noise);
        world.attack(|client| {
            let session = world.session();
            let (id, before) = (client.key.id_hash(&noise), testkit::process::processor_time(session));
            let envelope = client.key.seal(&stored, 0);
            for _ in 0..8 {
                client.ok(|msgid| call::put(msgid, &id, &envelope));
            }
            let used = testkit::process::processor_time(session) - before;
            // 32 MiB. Compressing that as it was compressed would take a minute.
            assert!(used < Duration::from_secs(20), "{compression:?}: {used:?}");
            assert!(world.peak(session) < SESSION_MEMORY, "{compression:?}: {}", world.peak(session));
        });
    }
}

#[test]
fn a29_slower_than_anybody() {
    let world = World::new();
    let too_slow = |deed: &mut dyn FnMut(&mut Hostile)| {
        let begin = Instant::now();
        world.attack(deed).expect_cause("too-slow", "");
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    };
    // Says nothing.
    world.system.cli_ok(&["settings", "edit", "--idle-seconds", "1"]);
    too_slow(&mut |client| assert!(client.note().contains("took too long")));
    // Says little, for ever.
    world.system.cli_ok(&["settings", "edit", "--idle-seconds", "60", "--total-seconds", "2"]);
    too_slow(&mut |client| {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) && matches!(client.call(call::load_key), Said::Value(_)) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    // Says one thing, byte by byte.
    world.system.cli_ok(&["settings", "edit", "--total-seconds", "60", "--grace-seconds", "1", "--bytes-per-second", "1000"]);
    too_slow(&mut |client| {
        let message = call::put(9, &Id([1; 32]), &[7; 5000]);
        let begin = Instant::now();
        for byte in message {
            if begin.elapsed() > Duration::from_secs(10) || !client.send(&[byte]) || !client.is_silent(Duration::from_millis(20)) {
                break;
            }
        }
    });
    // Whoever is fast enough is not affected, even with messages that come in pieces.
    let job = world.job("hostile");
    let mut client = job.open();
    let (id, envelope) = (client.key.id_hash(&[5; 3000]), client.key.seal(&compress(Compression::None, &[5; 3000]), 0));
    for piece in call::put(77, &id, &envelope).chunks(1000) {
        client.send(piece);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(matches!(client.answer(), Said::Value(_)));
    drop(client);
    job.end(2).expect_cause("client-borg-failed", "");
}

#[test]
fn a30_a_flood_of_lines() {
    let world = World::new();
    world.system.cli_ok(&["settings", "edit", "--log-bytes", "200000"]);
    let job = world.job("hostile");
    let client = job.open();
    let [worker] = world.system.pids("borgcube-worker")[..] else { panic!("one worker") };
    // Lines, a line of 30 MB, and what looks like progress.
    job.tell(
        "yes 'a line of no use to anybody' | head -c 3000000 >&2; head -c 20000000 /dev/zero | tr '\\0' x >&2; \
         yes '{\"type\": \"archive_progress\", \"original_size\": 1}' | head -c 1000000 >&2; touch flooded",
    );
    let flooded = world.relay_directory("hostile").join("flooded");
    let done = retry_until(tests::PATIENCE, || flooded.exists().then_some(()));
    assert!(done.is_some(), "the client cannot get rid of its lines");
    assert!(world.peak(worker) < 64 << 20, "{}", world.peak(worker));
    drop(client);
    let number = job.number;
    job.end(2).expect_cause("client-borg-failed", "");
    let path = unix::paths::Layout::new(&world.system.state()).job_log(number);
    let (size, text) = (path.metadata().unwrap().len(), fs::read_to_string(&path).unwrap());
    assert!(size < 220_000, "{size}");
    assert_eq!(text.matches("the log has reached its limit").count(), 1);
    // What is ours to say comes behind.
    assert!(text.lines().last().unwrap().contains("client-borg-failed") || text.contains("ended with code 2"), "{:?}", text.lines().last());
}

#[test]
fn a31_an_archive_list_that_grows_for_ever() {
    let world = World::new();
    world.system.cli_ok(&["settings", "edit", "--client-archives", "1"]);
    let job = world.job("hostile");
    let mut client = job.open();
    client.backup_of(b"the only archive that this client may have, of a length that is above that of small chunks");
    drop(client);
    assert_eq!(job.end(0).state, "done");
    let before = world.fingerprint();
    let number = tests::start(&world.system, "hostile/all");
    let verdict = crate::world::Verdict::of(&tests::wait_for_end(&world.system, number));
    verdict.expect_cause("quota-exceeded", "client-archives");
    world.assert_unchanged(&before);
    world.system.cli_ok(&["settings", "edit", "--client-archives", "20000"]);
    // A job adds one archive, whatever its manifest says (A54), and its name is the server's: nobody makes long ones.
    world.expect_rule_of("victim", "manifest-entries", |client| {
        let id = client.put_archive(&client.archive(&client.archive_name, vec![]));
        let mut manifest = client.manifest.clone();
        for n in 0..1000 {
            let entry = borg::manifest::ArchiveEntry { id, time: crate::hostile::TIMESTAMP.into() };
            manifest.archives.insert(format!("{}-{n}", client.archive_name).into_bytes(), entry);
        }
        let envelope = client.seal_manifest(&manifest);
        assert_eq!(client.put_manifest(&envelope).broke(), "manifest-entries");
    });
}

#[test]
fn a32_sessions_have_no_database() {
    let world = World::new();
    world
        .attack(|client| {
            client.chunk(&stream(&[directory("something that is said")]));
            let session = world.session();
            let maps = fs::read_to_string(format!("/proc/{session}/maps")).unwrap();
            assert!(!maps.contains(".mdb"), "{maps}");
            let mut seen = 0;
            for fd in fs::read_dir(format!("/proc/{session}/fd")).unwrap().map(Result::unwrap) {
                let target = fs::read_link(fd.path()).unwrap_or_default();
                assert!(!target.starts_with(world.system.state().join("db")), "{}", target.display());
                seen += 1;
            }
            // Three of the client, the shim, the owner, and what it came with.
            assert!((4..16).contains(&seen), "{seen} descriptors");
        })
        .expect_cause("client-borg-failed", "");
}
