//! What a session lets through, call by call.

mod common;

use borg::rpc::{ClientData, Method};
use borg::{Id, KeyType};
use common::owner::{ARCHIVE, REPOSITORY, TIMESTAMP};
use common::puppet::*;
use model::{Cause, Failure};
use proxy::session::{Ending, Event};
use proxy::table::{Call, Permission, State, permitted};
use std::time::Duration;
use wire::session::{Verdict, Violation, kind};

#[test]
fn a_whole_backup() {
    for kind in [KeyType::None, KeyType::Authenticated, KeyType::AuthenticatedBlake2] {
        let mut puppet = Puppet::with_key(common::key(kind, 1));
        puppet.do_open();
        assert_eq!(puppet.connected_to.as_deref(), Some("4773d12e2371bb935b9a0f5439b4a1c3ad3f2414b86980f8418d1cfabdfadfef"));
        let open = puppet.owner.open.clone().unwrap();
        assert_eq!((open.token.as_str(), open.client_version.as_str()), (TOKEN.strip_prefix("/./").unwrap(), "1.2.4"));
        let blob = puppet.owner.opened.key_blob.clone();
        assert_eq!(raw(&puppet.ok(Method::LoadKey)), blob.as_bytes());
        assert_eq!(raw(&puppet.ok(Method::LoadKey)), blob.as_bytes());
        let manifest = puppet.ok(Method::Get { id: Id::MANIFEST });
        let payload = puppet.key.open(raw(&manifest)).unwrap().into_owned();
        assert_eq!(*borg::compress::decompress(&payload, 1 << 20).unwrap(), puppet.owner.opened.manifest);
        assert_eq!(puppet.ok(Method::GetFreeNonce), borg::msgpack::OwnedValue::Nil);
        puppet.ok(Method::CommitNonceReservation { next_unreserved: 1 << 40, start_nonce: None });

        let content = puppet.chunk(&[b'x'; 100_000]);
        let id = puppet.backup(ARCHIVE, &[directory("d"), file("d/f", &[content, content]), file("d/empty", &[]), link("l", "d/f")]);
        assert_eq!(puppet.owner.commits, 1);
        let (proposal, references, items) = puppet.owner.proposals[0].clone();
        assert_eq!((references.len(), items.len()), (2, 1));
        assert_eq!(references[0].csize, content.csize);
        assert_eq!(proposal.statistics.nfiles, 2);
        let stream = &puppet.owner.put[&items[0]];
        assert_eq!(proposal.statistics.original_size, 200_000);
        assert_eq!(proposal.statistics.compressed_size, 2 * u64::from(content.csize));
        assert!(!proposal.checkpoint && proposal.chunker_named);
        assert_eq!(proposal.counters.item_stream_put_bytes, u64::from(stream.0));
        assert!(!puppet.owner.put.contains_key(&id.0), "archive metadata never reaches the owner");
        assert!(proposal.claims.contains(&"hostname=host".to_owned()));

        // After the commit the client sees its own manifest and may look at its own archive.
        let seen = puppet.ok(Method::Get { id: Id::MANIFEST });
        assert_ne!(seen, manifest);
        let archive = puppet.ok(Method::Get { id });
        assert_eq!(puppet.key.id_hash(&borg::compress::decompress(puppet.key.open(raw(&archive)).unwrap().as_ref(), 1 << 20).unwrap()), id);
        puppet.event(Event::ClientClosed);
        assert_eq!((puppet.quit, puppet.session.ending()), (Some(0), Some(&Ending::Closed)));
        assert!(puppet.owner.end.unwrap().failure.is_none());
    }
}

#[test]
fn open_answers_the_repository_id() {
    let mut puppet = Puppet::new();
    puppet.ok(negotiate());
    assert_eq!(raw(&puppet.ok(open(TOKEN.as_bytes()))), REPOSITORY.0);
}

#[test]
fn checkpoints_come_and_go() {
    let mut puppet = Puppet::open();
    let one = puppet.chunk(b"one");
    let part = |n: u64, chunk| borg::item::Item { part: Some(n), ..file(&format!("f.borg_part_{n}"), &[chunk]) };
    let first = puppet.backup(&format!("{ARCHIVE}.checkpoint"), &[part(1, one)]);
    assert!(puppet.owner.proposals[0].0.checkpoint);
    assert_eq!(puppet.owner.proposals[0].0.statistics.nfiles, 0, "a part is no file");
    puppet.ok(Method::Delete { id: first });
    puppet.forget(&format!("{ARCHIVE}.checkpoint"));
    let two = puppet.chunk(b"two");
    let second = puppet.backup(&format!("{ARCHIVE}.checkpoint"), &[part(1, one), part(2, two)]);
    puppet.ok(Method::Delete { id: second });
    puppet.forget(&format!("{ARCHIVE}.checkpoint"));
    puppet.backup(ARCHIVE, &[part(1, one), part(2, two), file("f", &[one, two])]);
    assert_eq!(puppet.owner.commits, 3);
    let (proposal, references, _) = &puppet.owner.proposals[2];
    assert_eq!((proposal.statistics.nfiles, references.len()), (1, 4), "parts hold references, but are no files");
    puppet.ok(Method::Rollback);
}

#[test]
fn hard_links_and_overlapping_paths_as_borg_stores_them() {
    let mut puppet = Puppet::open();
    let chunk = puppet.chunk(b"content");
    let master = borg::item::Item { hardlink_master: Some(true), ..file("d/f", &[chunk]) };
    let slave = |path: &str| borg::item::Item { mode: Some(0o100_644), source: Some(b"d/f".to_vec()), ..directory(path) };
    let fifo = borg::item::Item { mode: Some(0o010_644), hardlink_master: Some(true), ..directory("p") };
    let fifo_again = borg::item::Item { mode: Some(0o010_644), source: Some(b"p".to_vec()), ..directory("q") };
    let device = borg::item::Item { mode: Some(0o020_644), rdev: Some(261), ..directory("tty") };
    let items = [
        directory("."),
        directory("d"),
        master.clone(),
        slave("d/g"),
        directory("d"),
        slave("d/f"),
        slave("e/h"),
        fifo,
        fifo_again,
        device,
        link("out", "/etc/shadow"),
    ];
    puppet.backup(ARCHIVE, &items);
    assert_eq!(puppet.owner.proposals[0].0.statistics.nfiles, 1, "hard links are counted once");
}

#[test]
fn rollback_drops_what_was_proposed() {
    let mut puppet = Puppet::open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    puppet.ok(put_manifest(&manifest));
    puppet.ok(Method::Rollback);
    assert_eq!(puppet.breaks(commit()), "commit-nothing");
    assert_eq!(puppet.owner.commits, 0);
}

#[test]
fn an_answer_to_a_put_stands_before_the_chunk_goes_out() {
    let mut puppet = Puppet::open();
    let envelope = puppet.seal(b"data");
    let id = puppet.key.id_hash(b"data");
    let request = borg::rpc::Request { msgid: 77, method: Method::Put { id, data: &envelope } };
    let actions = puppet.session.handle(puppet.now, Event::Request(request));
    assert!(matches!(actions[0], proxy::session::Action::Reply(_)));
    match &actions[1] {
        proxy::session::Action::Put { payload, size, .. } => {
            assert_eq!(*size, 4);
            assert_eq!(payload.as_ptr(), envelope[1..].as_ptr(), "nothing is copied");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn while_the_owner_is_asked_nobody_listens_to_the_client() {
    let mut puppet = Puppet::open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    puppet.owner_is_silent = true;
    assert!(puppet.session.wants_client());
    assert!(puppet.call(put_manifest(&manifest)).is_none());
    assert!(!puppet.session.wants_client() && puppet.session.minds_hangup());
    puppet.event(Event::ClientClosed);
    assert_eq!(puppet.quit, Some(0));

    let mut puppet = Puppet::open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    puppet.ok(put_manifest(&manifest));
    puppet.owner_is_silent = true;
    assert!(puppet.call(commit()).is_none());
    assert!(!puppet.session.minds_hangup(), "a commit can't be called back");
}

#[test]
fn reads_are_pipelined_but_bounded() {
    let mut puppet = Puppet::open();
    let items: Vec<Id> = (0..100).map(|n| puppet.items(&[directory(&format!("d{n}"))])).collect();
    let archive = puppet.archive(ARCHIVE, items);
    let id = puppet.put_archive(&archive);
    let manifest = puppet.manifest(ARCHIVE, id);
    let request = borg::rpc::Request { msgid: 777, method: put_manifest(&manifest) };
    let actions = puppet.session.handle(puppet.now, Event::Request(request));
    let reads = actions.iter().filter(|action| matches!(action, proxy::session::Action::Owner(kind::READ, _))).count();
    assert_eq!(reads, 32);
    puppet.perform(actions);
    assert_eq!(puppet.owner.proposals[0].2.len(), 100);
}

#[test]
fn versions() {
    let ok = [vec![1, 1, 0, -1], vec![1, 1, 18, -1], vec![1, 2, 9, -1], vec![1, 4, 5, -1], vec![1, 4, 0, -3, 1], vec![1, 5, 0, -9, 2]];
    for version in ok {
        Puppet::new().ok(Method::Negotiate { client: ClientData::Version(version) });
    }
    let old = [vec![1, 0, 13, -1], vec![0, 29, 0, -1], vec![1, 1, 0, -3, 1], vec![1], vec![1, 1], vec![-1, 9, 9]];
    for version in old {
        let (class, line) = Puppet::new().refused(Method::Negotiate { client: ClientData::Version(version.clone()) });
        assert_eq!(class, "ClientBorgOutdated", "{version:?}");
        assert!(line.contains("too old"), "{line}");
    }
    let (_, line) = Puppet::new().refused(Method::Negotiate { client: ClientData::Version(vec![2, 0, 0, -1]) });
    assert!(line.contains("too new"), "{line}");
    let (class, _) = Puppet::new().refused(Method::Negotiate { client: ClientData::Legacy(2) });
    assert_eq!(class, "ClientBorgOutdated");
}

#[test]
fn a_refused_open_says_why() {
    let mut puppet = Puppet::new();
    puppet.owner.refuse = Some(Failure::new(Cause::RepositoryLockTimeout, "the repository is locked by somebody else"));
    puppet.ok(negotiate());
    let (class, line) = puppet.refused(open(TOKEN.as_bytes()));
    assert_eq!((class.as_str(), line.as_str()), ("LockTimeout", "BorgCube: the repository is locked by somebody else"));
}

#[test]
fn failures_of_the_owner_are_told_and_accuse_nobody() {
    for (verdict, class) in [
        (Failure::new(Cause::RepositoryEnospc, "the disk is full"), "InsufficientFreeSpaceError"),
        (Failure::new(Cause::ViewStale, "a chunk is gone"), "ViewStale"),
        (Failure::new(Cause::RepositoryCheckNeeded, "x"), "RepositoryCheckNeeded"),
    ] {
        let mut puppet = Puppet::open();
        let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
        puppet.owner.next_verdict = Some(Verdict::Failed(verdict.clone()));
        let (got, line) = puppet.refused(put_manifest(&manifest));
        assert_eq!((got.as_str(), line), (class, format!("BorgCube: {}", verdict.message)));
        assert_eq!(puppet.owner.end.clone().unwrap().failure, Some(verdict));
    }
    // At the commit, too.
    let mut puppet = Puppet::open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    puppet.ok(put_manifest(&manifest));
    puppet.owner.next_verdict = Some(Verdict::Failed(Failure::new(Cause::RepositoryEnospc, "the disk is full")));
    assert_eq!(puppet.fails(commit()), "repository-enospc");
}

#[test]
fn an_owner_that_fails_in_between_says_why() {
    let mut puppet = Puppet::open();
    let failure = Failure::new(Cause::RepositoryEnospc, "the disk is full");
    puppet.hear_owner(kind::FAILED, &serde_json::to_vec(&failure).unwrap());
    assert_eq!(puppet.notes, ["BorgCube: the disk is full"]);
    assert_eq!(puppet.refused(Method::LoadKey).0, "InsufficientFreeSpaceError");
}

#[test]
fn rules_of_the_owner_are_rules() {
    let mut puppet = Puppet::open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    puppet.owner.next_verdict = Some(Verdict::Violation(Violation { rule: "reference-size".into(), detail: "chunk".into() }));
    assert_eq!(puppet.breaks(put_manifest(&manifest)), "reference-size");
}

#[test]
fn a_lost_owner_is_one_clean_line() {
    let mut puppet = Puppet::open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    puppet.owner_is_silent = true;
    assert!(puppet.call(put_manifest(&manifest)).is_none());
    puppet.event(Event::OwnerLost);
    assert!(puppet.notes.is_empty(), "the waiting call gets the answer");
    let exception = puppet.answer().unwrap_err();
    assert_eq!((exception.class.as_str(), exception.short[0].as_str()), ("OwnerLost", "BorgCube: the repository's owner process ended"));
    assert_eq!(puppet.refused(commit()).0, "OwnerLost");

    let mut puppet = Puppet::open();
    puppet.event(Event::OwnerLost);
    assert_eq!(puppet.notes, ["BorgCube: the repository's owner process ended"]);
    assert!(matches!(puppet.session.ending(), Some(Ending::Stopped(_))));
}

#[test]
fn an_owner_that_talks_nonsense_ends_the_session() {
    for (kind, payload) in [
        (kind::OBJECT, vec![0; 40]),
        (kind::VERDICT, br#""accepted""#.to_vec()),
        (kind::VERDICT, b"{".to_vec()),
        (kind::OPENED, b"{}".to_vec()),
        (77, vec![]),
    ] {
        let mut puppet = Puppet::open();
        puppet.owner_is_silent = true;
        puppet.hear_owner(kind, &payload);
        assert!(matches!(puppet.session.ending(), Some(Ending::Stopped(proxy::stop::Stop::Failed(_)))), "{kind}");
    }
}

#[test]
fn deadlines() {
    // Before open.
    let mut puppet = Puppet::new();
    puppet.ok(negotiate());
    assert_eq!(puppet.session.deadline(), Duration::from_secs(10));
    puppet.now = Duration::from_secs(10);
    puppet.event(Event::Tick);
    assert_eq!(puppet.notes.len(), 1);
    assert!(puppet.session.deadline() <= Duration::from_secs(13), "a stranger is not waited for");
    // Idle.
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.idle_seconds = 100;
    puppet.owner.opened.limits.total_seconds = 250;
    puppet.do_open();
    puppet.now = Duration::from_secs(90);
    puppet.chunk(b"x");
    assert_eq!(puppet.session.deadline(), Duration::from_secs(190));
    puppet.now = Duration::from_secs(180);
    puppet.chunk(b"y");
    assert_eq!(puppet.session.deadline(), Duration::from_secs(250), "in all");
    puppet.now = Duration::from_secs(250);
    puppet.event(Event::Tick);
    assert_eq!(puppet.owner.end.clone().unwrap().failure.unwrap().cause, Cause::TooSlow);
    assert_eq!(puppet.quit, None);
    // A client that never closes after the end is left alone soon.
    puppet.now = puppet.session.deadline();
    puppet.event(Event::Tick);
    assert_eq!(puppet.quit, Some(1));
}

#[test]
fn a29_a_message_has_to_come_to_its_end() {
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.grace_seconds = 10;
    puppet.owner.opened.limits.bytes_per_second = 100;
    puppet.do_open();
    let seconds = Duration::from_secs;
    puppet.session.partial(seconds(20), 5);
    assert_eq!(puppet.session.deadline(), seconds(30));
    // What comes buys time, and only as much as it is worth.
    puppet.session.partial(seconds(25), 1000);
    assert_eq!(puppet.session.deadline(), seconds(40));
    // Complete.
    puppet.now = seconds(28);
    puppet.chunk(b"x");
    assert!(puppet.session.deadline() > seconds(1000));
    puppet.session.partial(seconds(50), 5);
    puppet.session.partial(seconds(51), 0);
    assert!(puppet.session.deadline() > seconds(1000), "nothing is under way");
    puppet.session.partial(seconds(60), 5);
    puppet.now = seconds(70);
    puppet.event(Event::Tick);
    assert_eq!(puppet.owner.end.clone().unwrap().failure.unwrap().cause, Cause::TooSlow);
}

#[test]
fn a20_proposals_have_a_rate() {
    let mut puppet = Puppet::new();
    puppet.owner.opened.limits.proposals_per_minute = 6;
    puppet.do_open();
    let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
    for n in 0..40 {
        puppet.now = Duration::from_secs(10 * n);
        puppet.ok(put_manifest(&manifest));
        puppet.ok(Method::Rollback);
    }
    // 71 by now.
    for _ in 40..71 {
        puppet.ok(put_manifest(&manifest));
        puppet.ok(Method::Rollback);
    }
    assert_eq!(puppet.fails(put_manifest(&manifest)), "quota-exceeded");
}

/// Every cell of the table, tried out: a permitted call gets an answer, any other ends the session.
#[test]
fn every_row_of_the_table() {
    let calls = [
        (Call::Negotiate, negotiate()),
        (Call::Open, open(TOKEN.as_bytes())),
        (Call::LoadKey, Method::LoadKey),
        (Call::Nonce, Method::GetFreeNonce),
        (Call::GetManifest, Method::Get { id: Id::MANIFEST }),
        (Call::Get, Method::Get { id: Id([1; 32]) }),
        (Call::Put, Method::Put { id: Id([1; 32]), data: b"\x07" }),
        (Call::PutManifest, put_manifest(b"\x07")),
        (Call::Delete, Method::Delete { id: Id([1; 32]) }),
        (Call::Commit, commit()),
        (Call::Rollback, Method::Rollback),
        (Call::Len, Method::Len),
    ];
    for state in [State::New, State::Negotiated, State::Open, State::Staged, State::Final] {
        for (call, method) in &calls {
            let mut puppet = Puppet::new();
            if state != State::New {
                puppet.ok(negotiate());
            }
            if !matches!(state, State::New | State::Negotiated) {
                puppet.ok(open(TOKEN.as_bytes()));
            }
            if state == State::Staged {
                let manifest = puppet.prepare(ARCHIVE, &[directory("d")]);
                puppet.ok(put_manifest(&manifest));
            }
            if state == State::Final {
                puppet.backup(ARCHIVE, &[directory("d")]);
            }
            let answer = puppet.call(method.clone()).unwrap();
            let rule = puppet.owner.violation.as_ref().map(|violation| violation.rule.as_str());
            match (permitted(state, *call), call) {
                // Permitted as such; what it asks for is looked at next.
                (Permission::Yes, Call::Get) => assert_eq!(rule, Some("get-not-own")),
                (Permission::Yes, Call::Put) => assert_eq!(rule, Some("object-compression")),
                (Permission::Yes, Call::PutManifest) => assert_eq!(rule, Some("object-compression")),
                (Permission::Yes, Call::Delete) => assert_eq!(rule, Some("delete-not-own")),
                (Permission::Yes, _) => assert!(answer.is_ok(), "{state:?} {call:?}: {answer:?}"),
                (Permission::Empty, _) => assert_eq!(rule, Some("commit-nothing")),
                (Permission::Cache, _) => assert_eq!(answer.unwrap_err().class, "ClientCache"),
                _ => {
                    assert!(answer.unwrap_err().short[0].contains(": method-order: "), "{state:?} {call:?}");
                    let open = !matches!(state, State::New | State::Negotiated);
                    assert_eq!(rule, open.then_some("method-order"), "{state:?} {call:?}");
                }
            }
        }
    }
}

#[test]
fn the_manifest_is_dated_as_the_owner_dated_it() {
    let mut puppet = Puppet::open();
    let manifest = puppet.ok(Method::Get { id: Id::MANIFEST });
    let payload = puppet.key.open(raw(&manifest)).unwrap().into_owned();
    let manifest = borg::manifest::Manifest::parse(&payload[2..], &puppet.key).unwrap();
    assert_eq!(manifest.timestamp.as_deref(), Some(TIMESTAMP));
}
