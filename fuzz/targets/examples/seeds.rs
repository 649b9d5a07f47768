//! Writes the seeds: `cargo run -p fuzz-targets --example seeds`. They are made from the test vectors of `crates/borg`, from what our
//! own writers write, and from a few texts. Files that are there already stay: findings are seeds, too.

use borg::archive::{Archive, ChunkerParams};
use borg::compress::{Compression, compress, obfuscate};
use borg::item::{ChunkRef, Item};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::msgpack::Writer;
use borg::rpc::call;
use borg::{Id, KeyType, keyblob};
use fuzz_targets::keys::{REPOSITORY, key};
use serde_json::{Value, json};
use std::path::Path;
use wire::session::{End, Opened, Proposal, Reference, Verdict, Violation, kind};

const TIME: &str = "2026-01-02T03:04:05.000006";

fn seed(target: &str, name: &str, content: &[u8]) {
    assert!(fuzz_targets::find(target).is_some(), "there is no target {target}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    std::fs::create_dir_all(&directory).expect("a directory for seeds");
    let file = directory.join(name);
    if !file.exists() {
        std::fs::write(&file, content).expect("a seed");
    }
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn main() {
    vectors();
    codecs();
    metadata();
    items();
    rpc();
    messages();
    texts();
    sessions();
}

fn vectors() {
    let vectors: Value = serde_json::from_str(include_str!("../../../crates/borg/tests/vectors.json")).expect("vectors");
    for (number, (name, kind)) in vectors["key_types"].as_object().expect("types").iter().enumerate() {
        let name = name.replace(' ', "-");
        for (codec, sealed) in kind["envelopes"].as_object().expect("envelopes") {
            let codec = codec.replace(',', "-");
            if number == 0 {
                let payload = hex(&sealed["payload"]);
                seed("object", &codec, &payload);
                let target = match &payload[..2] {
                    [1, 0] => "lz4",
                    [2, 0] => "lzma",
                    [3, 0] => "zstd",
                    [0, 0] => "compress",
                    _ => "zlib",
                };
                seed(target, &format!("borg-{codec}"), if target == "zlib" { &payload } else { &payload[2..] });
            }
            if codec == "lz4" {
                seed("envelope", &name, &[&[number as u8, 0, 0, 0][..], &hex(&sealed["envelope"])].concat());
            }
        }
        seed("archive", &format!("borg-{name}"), &[&[0][..], &hex(&kind["archive_item"]["packed"])].concat());
        seed("manifest", &format!("borg-{name}"), &[&[0][..], &hex(&kind["manifest"]["packed"])].concat());
        seed("msgpack", &format!("manifest-{name}"), &[&[0][..], &hex(&kind["manifest"]["packed"])].concat());
        if let Some(text) = kind["key_blob_base64_lines"].as_str() {
            seed("keyblob", &format!("borg-{name}"), format!("\0\0{text}").as_bytes());
        }
        if let Some(text) = kind["keyfile_text"].as_str() {
            seed("keyblob", &format!("borg-{name}-file"), format!("\0\0{text}").as_bytes());
        }
    }
    seed("chunks-index", "borg", &hex(&vectors["chunks_hashindex"]["file"]));
    let entries = &vectors["segment_entries"];
    for name in ["put", "delete"] {
        seed("segment", name, &hex(&entries[name]["entry"]));
    }
    let all = [hex(&entries["put"]["entry"]), hex(&entries["delete"]["entry"]), hex(&entries["commit"])].concat();
    seed("segment", "all", &all);
    let config = borg::config::Config::new(borg::RepositoryId([0x5a; 32])).text();
    seed("repository-config", "new", config.as_bytes());
    let more = "; a comment\n[DEFAULT]\n[repository]\nVersion: 1\nkey = abc\n\tdef\n\n  ghi\nstorage_quota = 1.5G\n[other]\nid = 5\n";
    seed("repository-config", "more", more.as_bytes());
    seed("roster", "both", br#"{"exclusive": [["host@123456", 77, 0]], "shared": [["other@1", 4000000000, 18446744073709551615]]}"#);
    seed("roster", "name", b"host.example.org@123456.77-1f");
    view_lists();
    seed("obfuscate", "borg", &[&[40][..], &hex(&vectors["obfuscate_payload"]["payload"])[6..]].concat());
}

fn codecs() {
    let text: Vec<u8> = (0..3000u32).map(|n| b"abcdefgh "[(n * n / 7 % 9) as usize]).collect();
    let noise: Vec<u8> = (0..600u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, plain) in [("text", &text), ("noise", &noise), ("zeros", &vec![0; 70_000]), ("empty", &Vec::new())] {
        for (target, compression) in
            [("lz4", Compression::Lz4), ("zstd", Compression::Zstd(3)), ("zlib", Compression::Zlib(6)), ("lzma", Compression::Lzma(1))]
        {
            let payload = compress(compression, plain);
            if payload.starts_with(&[0, 0]) {
                continue;
            }
            seed(target, name, if target == "zlib" { &payload } else { &payload[2..] });
            seed("object", &format!("{target}-{name}"), &payload);
            seed("obfuscate", &format!("{target}-{name}"), &[&[31][..], &payload].concat());
            seed("object", &format!("obfuscated-{target}-{name}"), &obfuscate(&payload, payload.len() + 30));
        }
        if plain.len() < 4000 {
            seed("compress", name, &[&[0][..], plain].concat());
            seed("envelope", name, &[&[3, 1, 7, 50][..], plain].concat());
        }
    }
}

fn metadata() {
    let key = key(KeyType::Authenticated, 1);
    for (name, entries) in [("empty", &[][..]), ("final", &["job-1"]), ("checkpoint", &["job-1.checkpoint.3"]), ("two", &["job-1", "x"])] {
        let mut manifest = Manifest::empty(TIME);
        manifest.archives = entries.iter().map(|n| (n.as_bytes().to_vec(), ArchiveEntry { id: Id([7; 32]), time: TIME.into() })).collect();
        seed("manifest", name, &[&[0][..], &manifest.pack(&key, [1; 64])].concat());
    }
    let archive = Archive {
        name: b"job-1".to_vec(),
        comment: Some(Vec::new()),
        hostname: Some(b"host".to_vec()),
        username: Some(b"root".to_vec()),
        time: TIME.into(),
        time_end: Some(TIME.into()),
        cmdline: vec![b"borg".to_vec(), b"create".to_vec()],
        items: vec![Id([1; 32]), Id([2; 32])],
        chunker_params: Some(ChunkerParams { algorithm: Some(b"buzhash".to_vec()), numbers: vec![19, 23, 21, 4095] }),
        cwd: Some(b"/root".to_vec()),
        size: Some(1 << 40),
        nfiles: Some(3),
        ..Archive::default()
    };
    seed("archive", "full", &[&[0][..], &archive.pack(&key, [1; 64])].concat());
    let short = Archive { name: b"job-1".to_vec(), time: TIME.into(), ..Archive::default() };
    seed("archive", "short", &[&[0][..], &short.pack(&key, [1; 64])].concat());
    seed("keyblob", "lock", &[2, 3, 9, b'w', b'o', b'r', b'd']);
    let blob = keyblob::lock(&key, REPOSITORY, b"a passphrase", 1, [9; 32]);
    seed("keyblob", "opens", format!("\x01\0{blob}").as_bytes());
    // What is inside the base64, without the text.
    let mut inner = Writer::new();
    inner.map(6);
    for (name, value) in [(&b"algorithm"[..], &b"sha256"[..]), (b"data", &[5; 222]), (b"hash", &[6; 32]), (b"salt", &[7; 32])] {
        inner.raw(name);
        inner.raw(value);
    }
    inner.raw(b"iterations");
    inner.uint(100_000);
    inner.raw(b"version");
    inner.uint(1);
    seed("keyblob", "inner", &[&[0, 0][..], inner.bytes()].concat());
}

fn items() {
    let chunk = |n: u8| ChunkRef { id: Id([n; 32]), size: 1000 * u32::from(n), csize: 500 };
    let directory = |path: &str| Item {
        path: path.into(),
        mode: Some(0o040_755),
        uid: Some(0),
        gid: Some(0),
        user: Some(None),
        group: Some(None),
        mtime: 1_700_000_000_000_000_000,
        ..Item::default()
    };
    let file = |path: &str, chunks: Vec<ChunkRef>| Item {
        mode: Some(0o100_644),
        size: Some(chunks.iter().map(|chunk| u64::from(chunk.size)).sum()),
        chunks: Some(chunks),
        user: Some(Some(b"root".to_vec())),
        ctime: Some(5),
        atime: Some(6),
        ..directory(path)
    };
    let stream = |items: &[Item]| Writer::packed(|writer| items.iter().for_each(|item| item.write(writer)));
    let link = Item { mode: Some(0o120_777), source: Some(b"../target".to_vec()), ..directory("d/link") };
    let master = Item { hardlink_master: Some(true), ..file("d/m", vec![chunk(3)]) };
    let slave = Item { mode: Some(0o100_644), source: Some(b"d/m".to_vec()), ..directory("d/s") };
    let part = Item { part: Some(1), ..file("d/f.borg_part_1", vec![chunk(1)]) };
    let device = Item { mode: Some(0o020_600), rdev: Some(261), bsdflags: Some(4), ..directory("tty") };
    let rich = Item {
        xattrs: Some(vec![(b"user.a".to_vec(), Some(vec![1, 2])), (b"user.b".to_vec(), None)]),
        acl_access: Some(b"user::rwx".to_vec()),
        ..file("d/x", vec![])
    };
    let healthy = Item { chunks_healthy: Some(vec![chunk(2)]), ..file("h", vec![chunk(1)]) };
    let all = [directory("d"), file("d/f", vec![chunk(1), chunk(2)]), link, master, slave, part, device, rich];
    seed("items", "all", &stream(&all));
    for (number, item) in all.iter().enumerate() {
        seed("items", &format!("one-{number}"), &stream(std::slice::from_ref(item)));
    }
    seed("items", "healthy", &stream(&[healthy]));
    seed("items", "many", &stream(&(0..40).map(|n| file(&format!("d/{n}"), vec![chunk(n)])).collect::<Vec<_>>()));
    seed("items", "late", &stream(&[Item { atime: Some(1 << 70), ..file("d/f", vec![chunk(1)]) }]));
    for (name, path) in [("parent", "../"), ("dots", "a/../"), ("absolute", "/et")] {
        seed("items", &format!("hostile-{name}"), &stream(&[file(path, vec![chunk(1), chunk(2)])]));
    }
    seed("items", "hostile-size", &stream(&[Item { size: Some(3001), ..file("d/f", vec![chunk(1), chunk(2)]) }]));
    seed("items", "empty", b"");
    seed("msgpack", "items", &[&[1][..], &stream(&all)].concat());
    let values = b"\x98\xc0\xc2\xc3\x7f\xff\xcb\x40\x09\x21\xfb\x54\x44\x2d\x18\xda\x00\x03abc\x82\xa1a\x91\x90\xa1b\xcf\xff\xff\xff\xff\xff\xff\xff\xff";
    seed("msgpack", "values", &[&[3][..], values].concat());
    seed("msgpack", "small-limits", &[&[2][..], values].concat());
    seed("msgpack", "new-strings", b"\x03\x93\xd9\x03abc\xc4\x01x\xc5\x00\x01y");
}

fn rpc() {
    let id = Id([7; 32]);
    let open = call::Open {
        path: b"/./repo",
        create: false,
        lock_wait: Some(1),
        lock: true,
        exclusive: true,
        append_only: true,
        make_parent_dirs: true,
    };
    let calls = [
        ("negotiate", call::negotiate(1, &[1, 4, 5, -1])),
        ("open", call::open(2, &open)),
        ("keys", [call::load_key(3), call::save_key(4, b"key")].concat()),
        ("nonces", [call::get_free_nonce(5), call::commit_nonce_reservation(6, 1 << 40, Some(7))].concat()),
        ("objects", [call::get(7, &id), call::put(8, &id, b"\x07\0\0data"), call::delete(9, &id)].concat()),
        ("commit", [call::commit(10, false, 0.1, true), call::rollback(11), call::len(12)].concat()),
        ("lists", [call::list(13, 100, Some(&id)), call::scan(14, 5, None)].concat()),
        ("others", [call::check(15, true), call::break_lock(16)].concat()),
        ("old", b"\x94\x01\x02\xa4open\x91\xa1x".to_vec()),
        ("unknown", b"\x83\xa1i\x01\xa1m\xa4what\xa1a\x81\xa1x\x01".to_vec()),
    ];
    for (name, bytes) in &calls {
        seed("rpc-call", name, bytes);
    }
    seed("rpc-call", "all", &calls.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>());
    use borg::rpc::reply;
    seed("rpc-reply", "negotiated", &reply::negotiated(1, &[1, 2, 8, -1]));
    seed("rpc-reply", "values", &[reply::nil(2), reply::raw(3, b"data"), reply::int(4, 1 << 40), reply::bool(5, true)].concat());
    seed("rpc-reply", "ids", &reply::ids(6, &[id, Id([1; 32])]));
    seed("rpc-reply", "exception", &reply::exception(7, &reply::Exception::object_not_found(&id, "repo")));
    seed("rpc-reply", "positional", b"\x94\x01\x01\xa5Error\xc0\x94\x01\x02\xc0\xa1x");
}

fn messages() {
    let text = |value: &dyn erased::Text| value.text();
    let statistics = model::progress::Statistics::default();
    let counters = model::progress::SessionCounters::default();
    let proposal = Proposal {
        checkpoint: false,
        statistics,
        chunker_params: ("buzhash".into(), vec![19, 23, 21, 4095]),
        chunker_named: true,
        cwd: Some("/".into()),
        counters,
        claims: vec!["hostname=x".into()],
    };
    let failure = model::Failure::new(model::Cause::RepositoryEnospc, "the disk is full");
    let opened = Opened {
        job: 1,
        archive_name: "job-1".into(),
        repository_id: "5a".repeat(32),
        key_type: 7,
        key_blob: "x".into(),
        passphrase: "p".into(),
        manifest: vec![0x80],
        obfuscate: false,
        restore: None,
        limits: wire::session::Limits::default(),
    };
    let mut references = Vec::new();
    for n in 0..3 {
        Reference { id: [n; 32], size: 5, csize: 6 }.encode(&mut references);
    }
    let messages = [
        ("open", kind::OPEN, br#"{"version":1,"token":"00","client_version":"1.4.5"}"#.to_vec()),
        ("put", kind::PUT, [&[7; 32][..], &5u32.to_le_bytes(), b"\0\0hello"].concat()),
        ("read", kind::READ, vec![7; 32]),
        ("refs", kind::REFS, references),
        ("items", kind::ITEMS, vec![1; 64]),
        ("propose", kind::PROPOSE, text(&proposal)),
        ("commit", kind::COMMIT, Vec::new()),
        ("violation", kind::VIOLATION, text(&Violation { rule: "method".into(), detail: "list".into() })),
        ("end", kind::END, text(&End { failure: Some(failure.clone()), counters })),
        (
            "prepare",
            kind::PREPARE,
            br#"{"version":1,"job":1,"archive_name":"a","cmdline":["borg"],"start":"2026-01-02T03:04:05Z"}"#.to_vec(),
        ),
        ("finish", kind::FINISH, br#"{"job":1}"#.to_vec()),
        ("opened", kind::OPENED, text(&opened)),
        ("failed", kind::FAILED, text(&failure)),
        ("accepted", kind::VERDICT, text(&Verdict::Accepted)),
        ("refused", kind::VERDICT, text(&Verdict::Failed(failure))),
        (
            "outcome",
            kind::OUTCOME,
            text(&wire::session::Outcome { opened: true, archive: None, checkpoint: None, failure: None, counters, served: None }),
        ),
        ("maintain", kind::MAINTAIN, br#"{"version":1,"operation":{"compact":{"threshold":10}}}"#.to_vec()),
        ("progress", kind::PROGRESS, br#"{"unit":"segments","done":1,"total":2}"#.to_vec()),
        ("report", kind::REPORT, br#"{"compacted":{"segments":1,"freed":2,"orphans":3}}"#.to_vec()),
        ("granted", kind::GRANTED, br#"{"url":"/r","host_id":null,"sessions":0}"#.to_vec()),
        ("to-worker", 0x10, br#"{"cancel":{"by":"root"}}"#.to_vec()),
        (
            "from-worker",
            0x11,
            br#"{"finished":{"failure":null,"statistics":null,"archive":null,"warnings":[],"warning_count":0,"client_borg":"1.4.5"}}"#
                .to_vec(),
        ),
        ("tool", 0x12, br#"{"repository":{"repository_id":"5a","encryption":"repokey","archives":1,"objects":2}}"#.to_vec()),
    ];
    let mut all = Vec::new();
    for (name, kind, payload) in &messages {
        seed("owner-message", name, &[&[*kind], &payload[..]].concat());
        wire::frame::write(&mut all, *kind, &[payload]).expect("memory");
    }
    seed("frame", "all", &all);
    let mut one = Vec::new();
    wire::frame::write(&mut one, kind::COMMIT, &[]).expect("memory");
    seed("frame", "commit", &one);
    seed("frame", "huge", &[0xff, 0xff, 0xff, 0x7f, 2, 1, 2, 3]);
}

/// What can be written as JSON, without a type.
mod erased {
    pub trait Text {
        fn text(&self) -> Vec<u8>;
    }
    impl<T: serde::Serialize> Text for T {
        fn text(&self) -> Vec<u8> {
            serde_json::to_vec(self).expect("text")
        }
    }
}

fn texts() {
    let config = json!({"client": "web1", "label": "etc", "repository": "main", "paths": ["/etc", "--x"], "excludes": ["*.tmp"], "patterns": ["R /x"],
        "one_file_system": true, "compression": "zstd,3", "checkpoint_interval": 60, "read_special": false, "ignore_inode": true,
        "extra_options": ["--list", "--exclude-caches"], "created": "2026-01-02T03:04:05Z"});
    seed("config", "full", config.to_string().as_bytes());
    seed("config", "name", b"web1/etc");
    seed("config", "archive-name", b"web1-etc-2026-01-02T03:04:05");
    let call = |method: &str, parameters: Value, more: bool| json!({"method": format!("org.borgcube.Control.{method}"), "parameters": parameters, "more": more});
    let calls = [
        call("GetStatus", json!({}), false),
        call("AddConfig", json!({ "config": config }), false),
        call("UpdateConfig", json!({ "previous": config, "config": config }), false),
        call("RunConfig", json!({"config": "web1/etc", "archive_name": "x"}), false),
        call("ListJobs", json!({"filter": {"state": "done", "client": "web1", "limit": 3}}), false),
        call("Watch", json!({"job": 3}), true),
        call("GetJobLog", json!({"job": 3, "follow": true}), true),
        call("ListArchives", json!({"filter": {"name": "abcdef01"}}), false),
        call("RemoveClient", json!({"name": "web1"}), false),
        call("AddClient", json!({"client": {"name": "web1", "created": "2026-01-02T03:04:05Z"}}), false),
        call("UpdateSettings", json!({"previous": {}, "settings": {}}), false),
        call("Undo", json!({"transaction": 5}), false),
        call("Nonsense", json!(null), false),
        json!({"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "org.borgcube.Control"}}),
        json!({"method": "org.varlink.service.GetInfo", "oneway": true}),
        call(
            "OnBehalf",
            json!({"credential": {"kind": "token", "token": "ab".repeat(32)}, "call": call("CancelJob", json!({"job": 3}), false)}),
            false,
        ),
        call("AddWebUser", json!({"name": "a@example.net", "role": "operator", "sign_in": "proxy", "expires": 5, "comment": "x"}), false),
    ];
    let mut all = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        let text = call.to_string();
        seed("control", &format!("call-{number}"), format!("{text}\0").as_bytes());
        all.extend_from_slice(text.as_bytes());
        all.push(0);
    }
    seed("control", "all", &all);
    let log = concat!(
        "{\"original_size\": 10, \"compressed_size\": 5, \"deduplicated_size\": 4, \"nfiles\": 2, \"path\": \"etc/x\", \"time\": 1.5, \"type\": \"archive_progress\"}\n",
        "{\"type\":\"log_message\",\"levelname\":\"ERROR\",\"name\":\"borg\",\"message\":\"no\",\"msgid\":\"Archive.AlreadyExists\"}\n",
        "{\"type\":\"log_message\",\"levelname\":\"WARNING\",\"message\":\"w\\u001b[2J\"}\n",
        "{\"type\":\"file_status\",\"status\":\"A\",\"path\":\"x\\udcffy\\u00e4\"}\n",
        "ssh: connect to host x port 22: Connection refused\n",
        "borgcube version borg 1.2.4\nborgcube prepared\nborgcube exit 137\nborgcube failed client-cache No space left on device\nborgcube missing /x\n"
    );
    seed("borg-log", "all", log.as_bytes());
    for (number, line) in log.lines().enumerate() {
        seed("borg-log", &format!("line-{number}"), line.as_bytes());
    }
    seed("token", "path", format!("/./{}", "0123456789abcdef".repeat(4)).as_bytes());
    seed("token", "hex", "fedcba9876543210".repeat(4).as_bytes());
    seed("token", "short", b"/./0123");
}

/// Sequences of calls, in the bytes that the session's target reads: see `session::client::call`.
fn sessions() {
    let start = [0u8, 0, 8, 1];
    let chunk = [48, 5, b'h', b'e', b'l', b'l', b'o', 3];
    // One item: a file `d/f` of one chunk (the newest), nothing special; stored.
    let stream = [72, 0, 1, 0, 1, 2, 1, 0, 0, 2];
    // The job's archive with the newest stream.
    let salted = |name: u8, salt: u8| [104, name, 1, 1, 0, 0, salt, 2];
    let archive = |name: u8| salted(name, 4);
    let manifest = [136, 0, 0, 0, 0, 5];
    let commit = [176];
    let whole = [&start[..], &[16, 24, 32], &chunk, &stream, &archive(0), &manifest, &commit, &[32, 168, 0, 184]].concat();
    seed("session", "backup", &whole);
    let checkpoint = |salt| [&chunk[..], &stream, &salted(8, salt), &manifest, &commit].concat();
    seed(
        "session",
        "checkpoints",
        &[&start[..], &checkpoint(5), &checkpoint(6), &chunk, &stream, &archive(0), &manifest, &commit].concat(),
    );
    seed("session", "rollback", &[&start[..], &chunk, &stream, &archive(0), &manifest, &[184], &manifest, &commit].concat());
    seed("session", "after-the-end", &[&whole[..], &chunk, &manifest, &commit, &[40, 2]].concat());
    let slow = [&[0x80, 0, 8, 1, 6, 0][..], &chunk, &stream, &archive(0), &manifest, &[6, 0, 6, 0], &commit, &[6, 0]].concat();
    seed("session", "slow-owner", &slow);
    seed("session", "blake2", &[&[1][..], &whole[1..]].concat());
    seed("session", "unencrypted", &[&[2][..], &whole[1..]].concat());
    let raw: Vec<u8> = [call::negotiate(1, &[1, 4, 5, -1]), call::load_key(2)].concat();
    seed("session", "raw", &[&[0, 0xd0, raw.len() as u8][..], &raw].concat());
    for (name, calls) in [
        ("features", [&chunk[..], &stream, &archive(0), &[136, 0, 0, 0xff, 0, 5], &commit].concat()),
        ("two-archives", [&chunk[..], &stream, &archive(0), &[136, 7, 0, 0xff, 15, 0, 0, 0, 5], &commit].concat()),
        ("foreign-stream", [&chunk[..], &[104, 0, 1, 0xff, 0, 0, 4, 2], &manifest, &commit].concat()),
        ("foreign-manifest", [&chunk[..], &stream, &archive(0), &[136, 0, 0, 0, 31, 5], &commit].concat()),
        ("commit", commit.to_vec()),
        ("delete", [&chunk[..], &[168, 0]].concat()),
        ("get", [&chunk[..], &[40, 0]].concat()),
    ] {
        seed("session", &format!("hostile-{name}"), &[&start[..], &calls].concat());
    }
    for choice in 192..200u8 {
        seed("session", &format!("forbidden-{choice}"), &[&start[..], &[choice]].concat());
    }
}

/// A whole list, a difference, and one of the first version.
fn view_lists() {
    let id = |n: u8| [n; 32];
    let reference = |n: u8| [&id(n)[..], &[n, 0, 0, 0], &[n, 1, 0, 0]].concat();
    let file = |depth: u32, counts: [u64; 5], names: u8, parts: &[Vec<u8>]| {
        let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        let named = [[names; 64].to_vec(), vec![5; 16], vec![6; 32]].concat();
        [b"BCVIEW2\n".to_vec(), depth.to_le_bytes().to_vec(), vec![0; 4], counts, named, parts.concat()].concat()
    };
    let parts = [reference(1), reference(2), id(7).to_vec()];
    seed("view-list", "whole", &file(0, [2, 0, 1, 2, 0], 0, &parts));
    seed("view-list", "difference", &file(3, [2, 1, 2, 90, 400], 9, &[&parts[..], &[id(3).to_vec(), id(4).to_vec()]].concat()));
    seed("view-list", "empty", &file(0, [0; 5], 0, &[]));
    let first = [b"BCVIEW1\n".to_vec(), 2_u64.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec(), parts.concat(), vec![0; 32]].concat();
    seed("view-list", "first", &first);
}
