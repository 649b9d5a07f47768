//! A client that has a valid token and does what no stock borg does. Tests bear the numbers of the threat model.

mod common;

use borg::compress::{Compression, compress};
use borg::item::{ChunkRef, Item};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::msgpack::Writer;
use borg::rpc::{Method, ServerDecoder};
use borg::{Id, Key, KeyType};
use common::owner::{ARCHIVE, TIMESTAMP};
use common::puppet::*;
use proxy::rules::Rule;
use proxy::session::{Event, Session};

/// What makes an item odd.
type Change<'a> = &'a dyn Fn(&mut Item);

/// Hands raw bytes in as a client would send them; what the first call led to.
fn bytes(puppet: &mut Puppet, bytes: &[u8]) {
    let mut decoder = ServerDecoder::new(borg::rpc::MAX_MESSAGE);
    decoder.push(bytes);
    let event = match decoder.next_request() {
        Ok(Some(Ok(request))) => Event::Request(request),
        Ok(Some(Err(error))) => Event::BadRequest(error),
        Err(error) => Event::BadStream(error.to_string()),
        Ok(None) => panic!("not complete"),
    };
    puppet.event(event);
}

fn call(method: &str, arguments: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(3);
    writer.raw(b"i");
    writer.uint(9);
    writer.raw(b"m");
    writer.raw(method.as_bytes());
    writer.raw(b"a");
    writer.map(arguments.len());
    for (name, packed) in arguments {
        writer.raw(name.as_bytes());
        writer.bytes_of_raw(packed);
    }
    writer.into_bytes()
}

fn broken(puppet: &Puppet) -> Option<&str> {
    puppet.owner.violation.as_ref().map(|violation| violation.rule.as_str())
}

#[test]
fn a13_open_takes_a_token_and_nothing_else() {
    let upper = TOKEN.to_uppercase();
    let long = format!("/./{}", "a".repeat(1 << 20));
    let paths: [&[u8]; 14] = [
        b"",
        b"/",
        b"/./",
        b"/./..",
        b"/../etc",
        b"/srv/repository",
        b"~/x",
        b"/~/x",
        &TOKEN.as_bytes()[1..],
        upper.as_bytes(),
        long.as_bytes(),
        b"/./\0",
        b"/./\xff\xfe",
        &[TOKEN.as_bytes(), b"/"].concat(),
    ];
    for path in paths {
        let mut puppet = Puppet::new();
        puppet.ok(negotiate());
        let (class, line) = puppet.refused(open(path));
        assert_eq!(class, "SessionUnknown", "{line}");
        assert_eq!(puppet.connected_to, None, "no path is ever looked at");
        puppet.ok(Method::Rollback);
    }
}

#[test]
fn a01_a02_an_unknown_and_a_used_token_look_alike() {
    let mut puppet = Puppet::new();
    puppet.ok(negotiate());
    let request = borg::rpc::Request { msgid: 5, method: open(TOKEN.as_bytes()) };
    let actions = puppet.session.handle(puppet.now, Event::Request(request));
    assert!(matches!(&actions[..], [proxy::session::Action::Connect(_)]));
    puppet.event(Event::NoSuchOwner);
    assert!(puppet.owner.open.is_none());
    assert!(matches!(puppet.session.ending(), Some(proxy::session::Ending::Stopped(proxy::stop::Stop::Unknown))));
}

#[test]
fn a14_open_twice_and_calls_before_open() {
    assert_eq!(Puppet::open().breaks(open(TOKEN.as_bytes())), "method-order");
    assert_eq!(Puppet::open().breaks(negotiate()), "method-order");
    let mut puppet = Puppet::new();
    puppet.ok(negotiate());
    assert!(puppet.refused(Method::LoadKey).1.contains(": method-order: "));
    assert!(Puppet::new().refused(open(TOKEN.as_bytes())).1.contains(": method-order: "));
}

#[test]
fn a15_open_for_something_else() {
    for change in 0..4 {
        let mut puppet = Puppet::new();
        puppet.ok(negotiate());
        let method = Method::Open {
            path: TOKEN.as_bytes(),
            create: change == 0,
            lock_wait: Some(1e9),
            lock: change != 1,
            exclusive: Some(true),
            append_only: change == 2,
            make_parent_dirs: change == 3,
        };
        assert!(puppet.refused(method).1.contains(": open-arguments: "));
        assert_eq!(puppet.connected_to, None);
    }
}

#[test]
fn a16_methods_that_a_backup_never_calls() {
    let methods: [Method<'_>; 9] = [
        Method::List { limit: None, marker: None },
        Method::Scan { limit: Some(1), marker: None },
        Method::Check { repair: true, save_space: false, max_duration: 0.0 },
        Method::Destroy,
        Method::SaveKey { keydata: b"x" },
        Method::BreakLock,
        Method::InjectException { kind: b"divide" },
        Method::Unknown(b"__class__"),
        Method::Unknown(b"\x1b[2J"),
    ];
    for method in methods {
        assert_eq!(Puppet::open().breaks(method), "method");
    }
}

#[test]
fn a19_len_and_nonces_tell_nothing() {
    assert_eq!(Puppet::open().fails(Method::Len), "client-cache");
    let mut puppet = Puppet::open();
    assert_eq!(puppet.ok(Method::GetFreeNonce), borg::msgpack::OwnedValue::Nil);
    puppet.ok(Method::CommitNonceReservation { next_unreserved: u64::MAX, start_nonce: Some(0) });
    assert_eq!(puppet.ok(Method::GetFreeNonce), borg::msgpack::OwnedValue::Nil);
}

#[test]
fn a17_the_old_protocol() {
    let mut puppet = Puppet::new();
    // [1, 1, "open", ["/x"]]
    bytes(&mut puppet, b"\x94\x01\x01\xa4open\x91\xa2/x");
    assert!(matches!(
        puppet.session.ending(),
        Some(proxy::session::Ending::Stopped(proxy::stop::Stop::Failed(f))) if f.cause.word() == "client-borg-outdated"
    ));
}

#[test]
fn a18_a23_messages_that_are_no_calls() {
    let id: Vec<u8> = [&[0xda, 0, 32][..], &[1; 32]].concat();
    let short: Vec<u8> = [&[0xbf][..], &[1; 31]].concat();
    let cases: Vec<Vec<u8>> = vec![
        call("get", &[("id", &short)]),
        call("get", &[("id", &[0x01])]),
        call("get", &[("id", &id), ("id", &id)]),
        call("get", &[("id", &id), ("more", &[0xc0])]),
        call("get", &[]),
        call("put", &[("id", &id)]),
        call("put", &[("id", &id), ("data", &[0x81, 0xa1, b'x', 0x01])]),
        b"\x83\xa1i\x05\xa1m\xa3get\xa1m\xa3get".to_vec(),
        b"\x81\xa1i\x05".to_vec(),
        b"\x05".to_vec(),
        b"\xc1".to_vec(),
        // Ext types, lengths that lie, nesting.
        b"\xc7\x01\x00\x00".to_vec(),
        b"\xdb\xff\xff\xff\xff".to_vec(),
        b"\xdf\xff\xff\xff\xff".to_vec(),
        vec![0x91; 100_000],
    ];
    for case in cases {
        let mut puppet = Puppet::open();
        bytes(&mut puppet, &case);
        assert_eq!(broken(&puppet), Some("message"), "{:?}", &case[..case.len().min(40)]);
        assert!(puppet.owner_closed);
    }
}

#[test]
fn a20_commits_without_and_after_an_archive() {
    assert_eq!(Puppet::open().breaks(commit()), "commit-nothing");
    let mut puppet = Puppet::open();
    puppet.backup(ARCHIVE, &[directory("d")]);
    assert_eq!(puppet.breaks(commit()), "method-order");
    let mut puppet = Puppet::open();
    puppet.backup(ARCHIVE, &[directory("d")]);
    let manifest = puppet.manifest("job-1.checkpoint", Id([1; 32]));
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "method-order");
    let mut puppet = Puppet::open();
    puppet.owner.opened.limits.checkpoints = 2;
    let mut puppet = {
        let mut limited = Puppet::new();
        limited.owner.opened.limits = puppet.owner.opened.limits;
        limited.do_open();
        limited
    };
    for n in 1..3 {
        puppet.backup(&format!("job-1.checkpoint.{n}"), &[directory(&format!("d{n}"))]);
    }
    let manifest = puppet.prepare("job-1.checkpoint.3", &[directory("d")]);
    assert_eq!(puppet.fails(put_manifest(&manifest)), "quota-exceeded");
}

#[test]
fn a24_a33_a45_objects_that_are_not_what_they_say() {
    let put = |envelope: Vec<u8>, id: Option<Id>| {
        let mut puppet = Puppet::open();
        let id = id.unwrap_or_else(|| puppet.key.id_hash(b"data"));
        let rule = puppet.breaks_after_put(&id, &envelope);
        assert!(puppet.owner.put.is_empty());
        rule
    };
    let stored = compress(Compression::None, b"data");
    assert_eq!(put([&[7][..], &stored].concat(), Some(Id([1; 32]))), "chunk-id");
    assert_eq!(put([&[3][..], &stored].concat(), None), "object-type");
    assert_eq!(put([&[2][..], &stored].concat(), None), "object-type");
    assert_eq!(put(vec![], None), "object-size");
    assert_eq!(put(vec![7; borg::MAX_OBJECT], None), "object-size");
    let bomb = compress(Compression::Zstd(3), &vec![0; borg::MAX_PLAINTEXT + 1]);
    assert_eq!(put([&[7][..], &bomb].concat(), None), "object-compression");
    assert_eq!(put(b"\x07\x01\x00\xff".to_vec(), None), "object-compression");
}

#[test]
fn a26_a27_limits_are_no_accusation() {
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.objects = 2;
    puppet.do_open();
    puppet.chunk(b"1");
    puppet.chunk(b"2");
    puppet.third("objects");
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.bytes = 20;
    puppet.do_open();
    puppet.chunk(b"0123456789");
    puppet.third("bytes");
}

#[test]
fn a26_small_objects_are_counted() {
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.small_objects = 2;
    puppet.do_open();
    for number in 0..100u8 {
        puppet.chunk(&[number; 64]);
    }
    puppet.chunk(b"1");
    puppet.chunk(&[b'2'; 63]);
    puppet.third("small-objects");
}

#[test]
fn a26_the_default_limits_bound_the_owners_memory() {
    let limits = wire::session::Limits::default();
    assert!(limits.objects <= 50_000_000 && limits.small_objects <= 1_000_000);
}

/// An archive whose item stream is this, with its manifest.
fn archive_of(puppet: &mut Puppet, items: Vec<Id>) -> Vec<u8> {
    let archive = puppet.archive(ARCHIVE, items);
    let id = puppet.put_archive(&archive);
    puppet.manifest(ARCHIVE, id)
}

#[test]
fn a23_an_item_stream_hardly_repeats_itself() {
    // What is listed often costs the client next to nothing, and the server the whole chunk.
    let mut puppet = Puppet::open();
    let chunk = puppet.items(&[directory("d")]);
    let manifest = archive_of(&mut puppet, vec![chunk; 1000]);
    puppet.ok(put_manifest(&manifest));

    let mut puppet = Puppet::open();
    let chunk = puppet.items(&[directory("d")]);
    let manifest = archive_of(&mut puppet, vec![chunk; 1001]);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "item-limits");
    assert!(puppet.owner.proposals.is_empty());
}

#[test]
fn a23_an_item_stream_is_no_bomb() {
    let large = |puppet: &mut Puppet| {
        // Compresses well: the session puts little.
        let xattrs = (0..8).map(|n| (format!("user.{n}").into_bytes(), Some(vec![0; 60_000]))).collect();
        puppet.items(&[borg::item::Item { xattrs: Some(xattrs), ..directory("d") }])
    };
    let mut puppet = Puppet::open();
    let chunk = large(&mut puppet);
    let manifest = archive_of(&mut puppet, vec![chunk; 200]);
    puppet.ok(put_manifest(&manifest));

    let mut puppet = Puppet::open();
    let chunk = large(&mut puppet);
    let manifest = archive_of(&mut puppet, vec![chunk; 900]);
    assert_eq!(puppet.fails(put_manifest(&manifest)), "quota-exceeded");
    let failure = puppet.owner.end.clone().unwrap().failure.unwrap();
    assert_eq!(failure.cause, model::Cause::QuotaExceeded { limit: "item-stream".into() });
}

#[test]
fn a23_proposals_are_counted() {
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.checkpoints = 2;
    puppet.do_open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    for _ in 0..18 {
        puppet.ok(put_manifest(&manifest));
        puppet.ok(Method::Rollback);
    }
    assert_eq!(puppet.fails(put_manifest(&manifest)), "quota-exceeded");
}

#[test]
fn a36_deletes() {
    for id in [Id::MANIFEST, Id([1; 32])] {
        assert_eq!(Puppet::open().breaks(Method::Delete { id }), "delete-not-own");
    }
    // An own chunk.
    let mut puppet = Puppet::open();
    let chunk = puppet.chunk(b"mine");
    assert_eq!(puppet.breaks(Method::Delete { id: chunk.id }), "delete-not-own");
    // A checkpoint that is not committed yet, and one twice.
    let mut puppet = Puppet::open();
    let archive = puppet.archive("job-1.checkpoint", vec![]);
    let id = puppet.put_archive(&archive);
    assert_eq!(puppet.breaks(Method::Delete { id }), "delete-not-own");
    let mut puppet = Puppet::open();
    let id = puppet.backup("job-1.checkpoint", &[directory("d")]);
    puppet.ok(Method::Delete { id });
    assert_eq!(puppet.breaks(Method::Delete { id }), "delete-not-own");
    // The complete archive.
    let mut puppet = Puppet::open();
    let id = puppet.backup(ARCHIVE, &[directory("d")]);
    assert_eq!(puppet.breaks(Method::Delete { id }), "delete-not-own");
}

#[test]
fn a37_a38_gets() {
    // A chunk of somebody else, one of an own earlier archive, one of this very session, a deleted checkpoint.
    assert_eq!(Puppet::open().breaks(Method::Get { id: Id([1; 32]) }), "get-not-own");
    let mut puppet = Puppet::open();
    puppet.owner.view.insert([1; 32], (1, 1, vec![]));
    assert_eq!(puppet.breaks(Method::Get { id: Id([1; 32]) }), "get-not-own");
    let mut puppet = Puppet::open();
    let chunk = puppet.chunk(b"mine");
    assert_eq!(puppet.breaks(Method::Get { id: chunk.id }), "get-not-own");
    let mut puppet = Puppet::open();
    let id = puppet.backup("job-1.checkpoint", &[directory("d")]);
    puppet.ok(Method::Get { id });
    puppet.ok(Method::Delete { id });
    assert_eq!(puppet.breaks(Method::Get { id }), "get-not-own");
}

#[test]
fn a39_a40_phantoms_and_claims_by_hash() {
    // A file's chunk is the owner's to judge; every reference reaches it.
    let phantom = ChunkRef { id: Id([9; 32]), size: 5, csize: 8 };
    assert_eq!(Puppet::items_break(&[file("f", &[phantom])]), "reference-not-own");
    // A chunk of the item stream itself.
    let mut puppet = Puppet::open();
    let archive = puppet.archive(ARCHIVE, vec![Id([9; 32])]);
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "reference-not-own");
    // Archive metadata is no chunk, not even the client's own.
    let mut puppet = Puppet::open();
    let archive = puppet.archive(ARCHIVE, vec![]);
    let id = puppet.put_archive(&archive);
    let reference = ChunkRef { id, size: 100, csize: 100 };
    let manifest = puppet.prepare("job-1.checkpoint", &[file("f", &[reference])]);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "reference-not-own");
}

#[test]
fn a41_sizes_that_lie() {
    let mut puppet = Puppet::open();
    let chunk = puppet.chunk(b"12345");
    let manifest = puppet.prepare(ARCHIVE, &[file("f", &[ChunkRef { size: 6, ..chunk }])]);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "reference-size");
    let mut puppet = Puppet::open();
    let chunk = puppet.chunk(b"12345");
    let manifest = puppet.prepare(ARCHIVE, &[Item { size: Some(1 << 62), ..file("f", &[chunk]) }]);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "item-size");
}

#[test]
fn a48_signed_archive_metadata_never_becomes_a_chunk() {
    let mut puppet = Puppet::open();
    let archive = puppet.archive(ARCHIVE, vec![]);
    puppet.put_archive(&archive);
    assert!(puppet.owner.put.is_empty());
    for n in 0..7 {
        let mut archive = puppet.archive(ARCHIVE, vec![]);
        archive.comment = Some(vec![n]);
        puppet.put_archive(&archive);
    }
    let mut ninth = puppet.archive(ARCHIVE, vec![]);
    ninth.comment = Some(b"ninth".to_vec());
    let packed = ninth.pack(&puppet.key, [4; 64]);
    let (id, envelope) = (puppet.key.id_hash(&packed), puppet.seal(&packed));
    assert_eq!(puppet.breaks_after_put(&id, &envelope), "archives-held");
    assert!(puppet.owner.put.is_empty());
}

#[test]
fn a49_a50_a54_names_and_numbers_of_archives() {
    for name in ["job-10", "job-", "job-1.checkpoint.x", "job-2.checkpoint", "job-1\nx", ""] {
        let mut puppet = Puppet::open();
        let manifest = puppet.prepare(name, &[directory("d")]);
        assert_eq!(puppet.breaks(put_manifest(&manifest)), "archive-name", "{name:?}");
    }
    // The manifest says one thing, the archive another.
    let mut puppet = Puppet::open();
    let archive = puppet.archive("job-2", vec![]);
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "archive-name");
    // Two at once, or none.
    let mut puppet = Puppet::open();
    let mut manifest = Manifest::empty(TIMESTAMP);
    for name in ["job-1", "job-1.checkpoint"] {
        manifest.archives.insert(name.into(), ArchiveEntry { id: Id([1; 32]), time: TIMESTAMP.into() });
    }
    let envelope = puppet.seal(&manifest.pack(&puppet.key, [5; 64]));
    assert_eq!(puppet.breaks(put_manifest(&envelope)), "manifest-entries");
    let mut puppet = Puppet::open();
    let envelope = puppet.seal(&Manifest::empty(TIMESTAMP).pack(&puppet.key, [5; 64]));
    assert_eq!(puppet.breaks(put_manifest(&envelope)), "manifest-entries");
}

#[test]
fn a51_a52_false_claims_are_notes() {
    let mut puppet = Puppet::open();
    let stream = puppet.items(&[directory("d")]);
    let mut archive = puppet.archive(ARCHIVE, vec![stream]);
    archive.time = "9999-01-02T03:04:05.000006".into();
    archive.hostname = Some(b"another\x1b[2J".to_vec());
    archive.comment = Some("ü".repeat(10_000).into_bytes());
    archive.cwd = Some(b"/\n".to_vec());
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    puppet.ok(put_manifest(&manifest));
    let proposal = &puppet.owner.proposals[0].0;
    assert!(proposal.claims.contains(&"hostname=another\\u{1b}[2J".to_owned()), "{:?}", proposal.claims);
    assert!(proposal.claims.contains(&"time=9999-01-02T03:04:05.000006".to_owned()));
    assert!(proposal.claims.iter().all(|claim| claim.len() < 400 && !claim.contains(char::is_control)));
    assert_eq!(proposal.cwd.as_deref(), Some("/\\n"));
}

#[test]
fn a53_signatures() {
    let foreign = common::key(KeyType::Authenticated, 99);
    // The manifest.
    let mut puppet = Puppet::open();
    let envelope = puppet.seal(&Manifest::empty(TIMESTAMP).pack(&foreign, [5; 64]));
    assert_eq!(puppet.breaks(put_manifest(&envelope)), "manifest");
    // The archive: unsigned or foreign, it is a chunk like any other, and not what a manifest may name.
    for key in [&Key::none(), &foreign] {
        let mut puppet = Puppet::open();
        let packed = puppet.archive(ARCHIVE, vec![]).pack(key, [4; 64]);
        let id = puppet.chunk(&packed).id;
        assert!(puppet.owner.put.contains_key(&id.0));
        let manifest = puppet.manifest(ARCHIVE, id);
        assert_eq!(puppet.breaks(put_manifest(&manifest)), "archive-not-put");
    }
    let mut puppet = Puppet::open();
    let manifest = puppet.manifest(ARCHIVE, Id([1; 32]));
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "archive-not-put");
}

#[test]
fn a55_features_and_future() {
    let mut puppet = Puppet::open();
    let mut manifest = Manifest::empty("9999-12-31T23:59:59.999999");
    manifest.archives.insert(ARCHIVE.into(), ArchiveEntry { id: Id([1; 32]), time: TIMESTAMP.into() });
    manifest.config.insert(b"feature_flags".to_vec(), b"\x81\xa4read\x81\xa9mandatory\x91\xa1x".to_vec());
    let envelope = puppet.seal(&manifest.pack(&puppet.key, [5; 64]));
    assert_eq!(puppet.breaks(put_manifest(&envelope)), "manifest-features");
    let mut puppet = Puppet::open();
    let envelope = puppet.seal(b"\xc1\xc1\xc1\xc1future");
    assert_eq!(puppet.breaks(put_manifest(&envelope)), "manifest");
    // An object's own rules hold for the manifest as well.
    assert_eq!(Puppet::open().breaks(put_manifest(b"\x03\0\0x")), "object-type");
}

#[test]
fn a56_streams_that_are_none() {
    for stream in [&b"\x05"[..], b"\xc1", b"\x81\xa4path\xa1x", b"\x81\xa4path", &vec![0x91; 1000]] {
        let mut puppet = Puppet::open();
        let id = puppet.chunk(stream).id;
        let archive = puppet.archive(ARCHIVE, vec![id]);
        let id = puppet.put_archive(&archive);
        let manifest = puppet.manifest(ARCHIVE, id);
        assert_eq!(puppet.breaks(put_manifest(&manifest)), "item-stream", "{stream:?}");
    }
    // A chunk larger than Borg cuts.
    let mut puppet = Puppet::open();
    let many: Vec<Item> = (0..30_000).map(|n| directory(&format!("d{n}{}", "x".repeat(100)))).collect();
    let manifest = puppet.prepare(ARCHIVE, &many);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "item-chunk-size");
    // Items that straddle chunks are what Borg makes.
    let mut puppet = Puppet::open();
    let whole = stream(&[directory("a"), directory("b")]);
    let ids = whole.chunks(7).map(|piece| puppet.chunk(piece).id).collect();
    let archive = puppet.archive(ARCHIVE, ids);
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    puppet.ok(put_manifest(&manifest));
}

#[test]
fn a57_paths() {
    for path in ["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\0"] {
        assert_eq!(Puppet::items_break(&[directory(path)]), "item-path", "{path:?}");
    }
    // Through a link, into a file, two things at once: not an accusation.
    for items in [
        vec![link("l", "/etc"), file("l/passwd", &[])],
        vec![file("f", &[]), directory("f/d")],
        vec![file("d/f", &[]), link("d", "/etc")],
        vec![directory("x"), link("x", "y")],
        vec![link("x", "y"), directory("z"), directory("x")],
    ] {
        let mut puppet = Puppet::open();
        let manifest = puppet.prepare(ARCHIVE, &items);
        assert_eq!(puppet.fails(put_manifest(&manifest)), "paths-overlap");
    }
}

#[test]
fn a57_hard_links() {
    let slave = |source: &str| Item { mode: Some(0o100_644), source: Some(source.into()), ..directory("h") };
    for source in ["/etc/shadow", "../x", "later", "", "d", "plain", "l"] {
        let items = [directory("d"), file("plain", &[]), link("l", "d"), slave(source), file("later", &[])];
        assert_eq!(Puppet::items_break(&items), "item-hard-link", "{source:?}");
    }
    // Of another type.
    let fifo = Item { mode: Some(0o010_644), hardlink_master: Some(true), ..directory("p") };
    assert_eq!(Puppet::items_break(&[fifo, slave("p")]), "item-hard-link");
}

#[test]
fn a58_types_and_limits() {
    let changed = |change: Change<'_>| {
        let mut item = file("f", &[]);
        change(&mut item);
        Puppet::items_break(&[item])
    };
    let cases: [(&str, Change<'_>); 26] = [
        ("item-type", &|i| i.uid = None),
        ("item-type", &|i| i.gid = None),
        ("item-type", &|i| i.user = None),
        ("item-type", &|i| i.group = None),
        ("item-type", &|i| i.mode = Some(0o140_644)),
        ("item-type", &|i| i.mode = Some(0o644)),
        ("item-type", &|i| i.mode = Some(0x8000_0000 | 0o100_644)),
        ("item-type", &|i| i.chunks = None),
        ("item-type", &|i| i.mode = Some(0o040_755)),
        ("item-type", &|i| i.source = Some(b"x".to_vec())),
        ("item-type", &|i| i.rdev = Some(1)),
        ("item-type", &|i| *i = Item { path: b".".to_vec(), ..i.clone() }),
        ("item-type", &|i| *i = Item { source: Some(b"x".to_vec()), ..directory("f") }),
        ("item-type", &|i| *i = Item { hardlink_master: Some(true), ..directory("f") }),
        ("item-type", &|i| *i = Item { hardlink_master: Some(true), ..link("f", "x") }),
        ("item-type", &|i| *i = Item { source: None, ..link("f", "x") }),
        ("item-type", &|i| *i = Item { mode: Some(0o060_600), ..directory("f") }),
        ("item-type", &|i| *i = Item { mode: Some(0o010_600), rdev: Some(1), ..directory("f") }),
        ("item-limits", &|i| *i = link("f", "")),
        ("item-limits", &|i| *i = link("f", "a\0b")),
        ("item-limits", &|i| i.uid = Some(1 << 32)),
        ("item-limits", &|i| i.gid = Some(-2)),
        ("item-limits", &|i| i.mtime = 1 << 80),
        ("item-limits", &|i| i.user = Some(Some(vec![b'x'; 5000]))),
        ("item-limits", &|i| i.xattrs = Some(vec![(vec![b'x'; 300], None)])),
        ("item-limits", &|i| i.acl_access = Some(vec![b'x'; (1 << 20) + 1])),
    ];
    for (number, (rule, change)) in cases.into_iter().enumerate() {
        assert_eq!(changed(change), rule, "case {number}");
    }
    assert_eq!(changed(&|i| *i = Item { size: Some(1 << 60), ..directory("f") }), "item-size");
    assert_eq!(changed(&|i| i.size = Some(5)), "item-size");
    // Set-uid bits, devices and unusual owners are data.
    let mut puppet = Puppet::open();
    let odd = [
        Item { mode: Some(0o104_755), ..file("suid", &[]) },
        Item { mode: Some(0o060_660), rdev: Some(0x0800), ..directory("sda") },
        Item { uid: Some(u32::MAX.into()), gid: Some(-1), ..file("nobody", &[]) },
        Item { mtime: -1, ..file("before", &[]) },
    ];
    puppet.backup(ARCHIVE, &odd);
}

#[test]
fn a59_fields_that_create_does_not_write() {
    let part = |path: &str, n| Item { part: Some(n), ..file(path, &[]) };
    for item in [part("f", 1), part("f.borg_part_2", 1), part("f.borg_part_0", 0), part(".borg_part_1", 1), part("d/.borg_part_1", 1)] {
        assert_eq!(Puppet::items_break(&[item]), "item-part");
    }
    let healthy = Item { chunks_healthy: Some(vec![]), ..file("f", &[]) };
    assert_eq!(Puppet::items_break(&[healthy]), "item-healthy");
    let mut puppet = Puppet::open();
    let mut archive = puppet.archive(ARCHIVE, vec![]);
    archive.recreate_cmdline = Some(vec![]);
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "archive-format");
    let mut puppet = Puppet::open();
    let mut archive = puppet.archive(ARCHIVE, vec![]);
    archive.chunker_params.as_mut().unwrap().numbers[0] = 99;
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "archive-chunker");
}

/// A rule without a test that breaks it would be a rule that may be gone tomorrow.
#[test]
fn every_rule_is_broken_by_a_test() {
    let tests = concat!(include_str!("attacks.rs"), include_str!("restore.rs"));
    for rule in Rule::all() {
        let named = format!("\"{}\"", rule.name());
        let within = format!(": {}: ", rule.name());
        assert!(tests.contains(&named) || tests.contains(&within), "no test breaks the rule {}", rule.name());
    }
}

/// No input makes a session panic, and whatever is broken has a name that the table of rules knows.
#[test]
fn random_bytes_end_in_a_rule_or_in_nothing() {
    let names: Vec<_> = Rule::all().map(Rule::name).collect();
    let mut random = 1u64;
    for _ in 0..2000 {
        let mut puppet = Puppet::open();
        let noise: Vec<u8> = (0..200)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 56) as u8
            })
            .collect();
        let mut decoder = ServerDecoder::new(1 << 20);
        decoder.push(&noise);
        let event = match decoder.next_request() {
            Ok(Some(Ok(request))) => Event::Request(request),
            Ok(Some(Err(error))) => Event::BadRequest(error),
            Err(error) => Event::BadStream(error.to_string()),
            Ok(None) => continue,
        };
        puppet.event(event);
        assert!(broken(&puppet).is_none_or(|rule| names.contains(&rule)));
        assert_eq!(puppet.owner.commits, 0);
    }
    drop(Session::new([0; 16], Default::default()));
}

#[test]
fn a04_the_key_of_one_job_with_the_token_of_another() {
    let bound = |hash: &str| {
        let mut puppet = Puppet::new();
        puppet.session = proxy::session::Session::new([7; 16], proxy::shim::Bound { token_hash: Some(hash.into()), client: None });
        puppet.ok(negotiate());
        puppet
    };
    let mut other = bound(&"ab".repeat(32));
    assert!(other.refused(open(TOKEN.as_bytes())).1.contains(": token-not-own: "));
    // Nobody was asked, so that the other job keeps its token; the one whose key it was hears of it.
    assert_eq!(other.connected_to, None);
    let (link, accusation) = other.accused.take().unwrap();
    assert_eq!((link.as_str(), accusation.violation.rule.as_str()), ("ab".repeat(32).as_str(), "token-not-own"));
    assert_eq!(accusation.token_hash, link);
    let mut plain = Puppet::open();
    let hash = plain.connected_to.take().unwrap();
    let mut own = bound(&hash);
    own.ok(open(TOKEN.as_bytes()));
    assert_eq!(own.connected_to, Some(hash));
}
