//! A13 to A22: what is said.

use crate::hostile::{Hostile, Said, directory, open, pack, packed};
use crate::world::World;
use crate::{Deed, deed};
use borg::Id;
use borg::msgpack::OwnedValue;
use borg::rpc::call;
use std::io::Write;
use std::time::{Duration, Instant};

pub const DEEDS: &[Deed] = &[
    Deed { rule: "method", test: "a16", deed: |client| client.call(|msgid| packed(msgid, "list", &[])) },
    Deed { rule: "method-order", test: "a14", deed: |client| client.call(|msgid| call::negotiate(msgid, &[1, 4, 5, -1])) },
    Deed { rule: "open-arguments", test: "a15", deed: |client| open_with(client, |open| open.create = true) },
    Deed { rule: "token-not-own", test: "a04", deed: with_the_key_of_another_job },
    Deed { rule: "message", test: "a18", deed: |client| client.named("get", &[("id", pack(|w| w.raw(&[1; 31])))]) },
    Deed { rule: "commit-nothing", test: "a20", deed: Hostile::commit },
];

/// A new connection by the SSH key of a job, with another job's token.
fn with_the_key_of_another_job(client: &mut Hostile) -> Said {
    let word = format!("!\n{}\n", "ab".repeat(32));
    open_on(client.again_with(word.as_bytes()), |_| {})
}

/// A new connection opens in some odd way.
fn open_with(client: &mut Hostile, change: fn(&mut call::Open<'_>)) -> Said {
    open_on(client.again(), change)
}

fn open_on(mut other: Hostile, change: fn(&mut call::Open<'_>)) -> Said {
    other.negotiate();
    let path = other.path();
    let mut open = call::Open {
        path: path.as_bytes(),
        create: false,
        lock_wait: Some(1_000_000_000),
        lock: true,
        exclusive: true,
        append_only: false,
        make_parent_dirs: false,
    };
    change(&mut open);
    other.call(|msgid| call::open(msgid, &open))
}

#[test]
fn a13_a_path_is_a_token_or_nothing() {
    let world = World::new();
    let before = world.fingerprint();
    let job = world.job("hostile");
    let token = job.ticket.path.clone();
    let long = format!("/./{}", "a".repeat(1 << 20));
    let paths: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"/".to_vec(),
        b"/./..".to_vec(),
        b"/./../../etc/passwd".to_vec(),
        b"~/x".to_vec(),
        b"/~root/x".to_vec(),
        world.repository.display().to_string().into_bytes(),
        token.to_uppercase().into_bytes(),
        [token.as_bytes(), b"/"].concat(),
        [token.as_bytes(), b"\0"].concat(),
        token.as_bytes()[3..].to_vec(),
        token.replace("/./", "/././").into_bytes(),
        long.into_bytes(),
        b"/./\xff\xfe".to_vec(),
    ];
    for path in paths {
        let mut stranger = world.stranger();
        stranger.negotiate();
        let line = stranger.call(|msgid| open(msgid, &path)).refused("SessionUnknown");
        assert!(line.len() < 200, "{line}");
    }
    // The session itself: no path was ever looked up, so the token still works.
    drop(job.open());
    job.end(2).expect_cause("client-borg-failed", "");
    world.assert_unchanged(&before);
}

#[test]
fn a14_calls_out_of_order() {
    let world = World::new();
    world.expect_deed(deed("method-order", "a14"));
    // Open twice, and another repository.
    world.expect_rule("method-order", |client| {
        let path = client.path();
        assert_eq!(client.call(|msgid| open(msgid, path.as_bytes())).broke(), "method-order");
    });
    world.expect_rule("method-order", |client| {
        assert_eq!(client.call(|msgid| open(msgid, b"/srv/other")).broke(), "method-order");
    });
    // Before open, by nobody in particular: no job is accused.
    for first in [call::load_key as fn(u64) -> Vec<u8>, call::rollback, call::len, call::break_lock, call::get_free_nonce] {
        let mut stranger = world.stranger();
        stranger.negotiate();
        assert!(["method-order", "method"].contains(&stranger.call(first).broke().as_str()));
        assert!(!world.stranger().call(first).broke().is_empty());
    }
    // After the end of the backup.
    let job = world.job("hostile");
    let mut client = job.open();
    client.backup_of(b"all there is to say, and it is long enough to be no small chunk at all");
    let more = client.seal(b"more");
    let id = client.key.id_hash(b"more");
    assert_eq!(client.put(&id, &more).broke(), "method-order");
    drop(client);
    let verdict = job.end(0);
    assert_eq!((verdict.word.as_str(), verdict.name.as_str()), ("policy-violation", "method-order"), "{verdict:?}");
}

#[test]
fn a15_open_for_something_else() {
    let world = World::new();
    let before = world.fingerprint();
    let job = world.job("hostile");
    let mut client = job.connect();
    let changes: [fn(&mut call::Open<'_>); 4] =
        [|o| o.create = true, |o| o.lock = false, |o| o.append_only = true, |o| o.make_parent_dirs = true];
    for change in changes {
        assert_eq!(open_with(&mut client, change).broke(), "open-arguments");
    }
    // Not exclusive, and a wait of thirty years: that is the server's to decide, and is not asked.
    let said = open_with(&mut client, |open| open.exclusive = false);
    assert!(matches!(said, Said::Value(_)), "{said:?}");
    drop(client);
    job.end(2);
    world.assert_unchanged(&before);
}

#[test]
fn a16_methods_that_a_backup_never_calls() {
    let world = World::new();
    world.expect_deed(deed("method", "a16"));
    for method in ["scan", "check", "destroy", "break_lock", "__class__", "__init__", "close", "\u{1b}[2J"] {
        world.expect_rule("method", |client| assert_eq!(client.named(method, &[]).broke(), "method"));
    }
    let bytes = |text: &[u8]| pack(|w| w.raw(text));
    for (method, argument) in [("save_key", "keydata"), ("inject_exception", "kind")] {
        world.expect_rule("method", |client| assert_eq!(client.named(method, &[(argument, bytes(b"divide"))]).broke(), "method"));
    }
}

#[test]
fn a17_old_protocols_and_false_versions() {
    let world = World::new();
    // The positional form of Borg 1.0, at the beginning and later.
    let old = b"\x94\x01\x05\xa4open\x91\xa2/x";
    let mut stranger = world.stranger();
    stranger.send(old);
    stranger.answer().refused("ClientBorgOutdated");
    let verdict = world.attack(|client| {
        client.send(old);
        client.answer().refused("ClientBorgOutdated");
    });
    verdict.expect_cause("client-borg-outdated", "");
    for version in [&[1, 0, 13, -1][..], &[0, 29, 0], &[1], &[1, 1], &[1, 1, 0, -5], &[-1, i64::MIN, 3], &[i64::MAX; 8]] {
        let said = world.stranger().call(|msgid| call::negotiate(msgid, version));
        let Said::Exception(exception) = &said else { panic!("{version:?}: {said:?}") };
        assert!(["ClientBorgOutdated", "ClientBorgFailed"].contains(&exception.class.as_str()), "{version:?}: {exception:?}");
    }
    for version in [&[][..], &[1; 9]] {
        assert_eq!(world.stranger().call(|msgid| call::negotiate(msgid, version)).broke(), "message");
    }
    // Not a version at all.
    let text = packed(1, "negotiate", &[("client_data", pack(|w| w.raw(b"1.4.5")))]);
    assert_eq!(world.stranger().call(|_| text.clone()).broke(), "message");
}

#[test]
fn a18_a23_messages_that_are_no_calls() {
    let world = World::new();
    world.expect_deed(deed("message", "a18"));
    let id = || pack(|w| w.raw(&[1; 32]));
    let number = || pack(|w| w.uint(1));
    type Arguments = Vec<(&'static str, Vec<u8>)>;
    let calls: [(&str, Arguments); 6] = [
        ("get", vec![("id", number())]),
        ("get", vec![("id", id()), ("id", id())]),
        ("get", vec![("id", id()), ("more", number())]),
        ("get", vec![]),
        ("put", vec![("id", id())]),
        ("put", vec![("id", id()), ("data", pack(|w| w.map(0)))]),
    ];
    for (method, arguments) in calls {
        world.expect_rule("message", |client| assert_eq!(client.named(method, &arguments).broke(), "message"));
    }
    // What has no number gets no answer, only the end and a line on standard error; so has what is no message.
    let raw: [&[u8]; 8] = [
        b"\x05",
        b"\xc1",
        b"\x81\xa1i\x05",
        b"\xc7\x01\x00\x00",
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x00",
        &[0x91; 100_000],
    ];
    for bytes in raw {
        let begin = Instant::now();
        world.expect_rule("message", |client| {
            client.send(bytes);
            match client.answer() {
                Said::HungUp => assert!(client.notes().starts_with("BorgCube refused this backup: message: ")),
                said => assert_eq!(said.broke(), "message"),
            }
        });
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", &bytes[..bytes.len().min(8)]);
    }
}

#[test]
fn a19_what_there_is_cannot_be_asked() {
    let world = World::new();
    // The count of objects would tell how much others have.
    let verdict = world.attack(|client| drop(client.call(call::len).refused("ClientCache")));
    verdict.expect_cause("client-cache", "");
    // Key and nonces are the client's own, and mean nothing to the repository.
    let nonce = || std::fs::read(world.repository.join("nonce")).ok();
    let before = nonce();
    world
        .attack(|client| {
            assert!(!client.key.key_type().is_encrypted());
            assert!(client.manifest.archives.is_empty(), "no archive of anybody");
            for start in [None, Some(0), Some(u64::MAX)] {
                assert_eq!(client.ok(|msgid| call::commit_nonce_reservation(msgid, u64::MAX, start)), OwnedValue::Nil);
                assert_eq!(client.ok(call::get_free_nonce), OwnedValue::Nil);
            }
        })
        .expect_cause("client-borg-failed", "");
    assert_eq!(nonce(), before);
}

#[test]
fn a20_commits_and_rollbacks() {
    let world = World::new();
    world.expect_deed(deed("commit-nothing", "a20"));
    // Half-finished things of one session are nobody else's: a rollback takes back no more than they.
    let victim = world.job("victim");
    let mut honest = victim.open();
    let chunk = honest.chunk(b"put before somebody else rolls back, and of a fair length at that, as chunks are");
    let verdict = world.attempt(|client| {
        let name = client.archive_name.clone();
        assert!(matches!(client.propose(&name, &[directory("d")]), Said::Value(_)));
        client.ok(call::rollback);
        client.ok(call::rollback);
        assert_eq!(client.commit().broke(), "commit-nothing");
    });
    verdict.expect_rule("commit-nothing");
    let name = honest.archive_name.clone();
    for said in [honest.propose(&name, &[directory("d"), crate::hostile::file("d/f", &[chunk])]), honest.commit()] {
        assert!(matches!(said, Said::Value(_)), "{said:?}");
    }
    drop(honest);
    assert_eq!(victim.end(0).state, "done");
    // Proposals cost the server work: so many in a minute and no more.
    let verdict = world.attack(|client| {
        let name = client.archive_name.clone();
        for _ in 0..33 {
            match client.propose(&name, &[directory("d")]) {
                Said::Value(_) => drop(client.ok(call::rollback)),
                refused => return drop(refused.refused("QuotaExceeded")),
            }
        }
        panic!("nobody counted");
    });
    verdict.expect_cause("quota-exceeded", "proposals-per-minute");
    // And so many checkpoints in all.
    world.system.cli_ok(&["settings", "edit", "--checkpoints", "2"]);
    let verdict = world.attempt(|client| {
        for n in 1..=2 {
            client.checkpoint(n);
        }
        let name = format!("{}.checkpoint.3", client.archive_name);
        client.propose(&name, &[directory("d3")]).refused("QuotaExceeded");
    });
    verdict.expect_cause("quota-exceeded", "checkpoints");
}

#[test]
fn a21_calls_without_reading_the_answers() {
    let world = World::new();
    world.system.cli_ok(&["settings", "edit", "--idle-seconds", "3"]);
    let before = world.fingerprint();
    let job = world.job("hostile");
    let mut client = job.open();
    let session = world.session();
    let (id, envelope) = (client.key.id_hash(b"the same again"), client.seal(b"the same again"));
    let calls: Vec<u8> = (0..1000).flat_map(|n| call::put(1000 + n, &id, &envelope)).collect();
    // Until the session takes no more, and then until it ends.
    let mut sent = 0;
    let mut writer = client.take_calls();
    while writer.write_all(&calls).is_ok() {
        sent += calls.len();
        assert!(sent < 1 << 30, "it takes everything");
        assert!(world.peak(session) < 64 << 20, "after {sent} bytes it has {} bytes", world.peak(session));
    }
    drop((writer, client));
    let verdict = job.end(2);
    verdict.expect_cause("too-slow", "");
    world.assert_unchanged(&before);
}

#[test]
fn a22_answers_and_lines_are_apart() {
    let world = World::new();
    let evil = "\u{1b}]0;x\u{7}\n{\"type\": \"log_message\"}\u{202e}\r\n";
    world.expect_rule("method", |client| {
        let line = client.named(evil, &[]).refused("PolicyViolation");
        assert!(!line.contains('\u{202e}') && !line.contains('\u{1b}'), "{line:?}");
        // Nothing but answers on the one, nothing at all on the other.
        client.ok(call::rollback);
        client.close();
        assert!(matches!(client.answer(), Said::HungUp));
        assert_eq!(client.notes(), "");
    });
    world.expect_rule("message", |client| {
        client.send(&[b"\x82\xa1m\xa3get\xa1z".as_slice(), &[0xd9, 200], &[0x1b; 200]].concat());
        assert!(matches!(client.answer(), Said::HungUp), "no answer to nobody's call");
        let notes = client.notes();
        assert_eq!(notes.lines().count(), 1, "{notes:?}");
        assert!(notes.trim_end().chars().all(|c| !c.is_control()) && !notes.starts_with('{'), "{notes:?}");
    });
    assert!(!world.system.log().contains('\u{1b}'), "not even in the daemons' log");
    let nobody = Id([9; 32]);
    world.expect_rule("get-not-own", |client| assert_eq!(client.call(|msgid| call::get(msgid, &nobody)).broke(), "get-not-own"));
}
