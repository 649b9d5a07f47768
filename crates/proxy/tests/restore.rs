//! What the session of a restore lets through, call by call.

mod common;

use borg::compress::{Compression, compress, decompress, obfuscate};
use borg::rpc::{Method, Request};
use borg::{Id, KeyType};
use common::owner::{ARCHIVE, Owner};
use common::puppet::*;
use model::Cause;
use proxy::session::{Action, Event};
use wire::session::{Reading, kind};

const CONTENT: &[u8] = b"what is to be restored, and nothing else";

/// A client that may restore an archive of one file; the file's chunk.
fn restoring() -> (Puppet, Id) {
    let mut puppet = Puppet::open();
    let chunk = puppet.chunk(CONTENT);
    puppet.backup(ARCHIVE, &[directory("d"), file("d/f", &[chunk])]);
    let mut owner = std::mem::replace(&mut puppet.owner, Owner::new(common::key(KeyType::Authenticated, 1)));
    owner.restore();
    let mut puppet = Puppet::new();
    (puppet.owner, puppet.task) = (owner, "restore");
    puppet.do_open();
    (puppet, chunk.id)
}

fn plaintext(puppet: &Puppet, envelope: &[u8]) -> Vec<u8> {
    decompress(&puppet.key.open(envelope).expect("an envelope of this key"), 1 << 20).expect("compressed data").into_owned()
}

fn archive_id(puppet: &mut Puppet) -> Id {
    let manifest = puppet.ok(Method::Get { id: Id::MANIFEST });
    let manifest = borg::manifest::Manifest::parse(&plaintext(puppet, raw(&manifest)), &puppet.key).expect("a manifest");
    assert_eq!(manifest.archives.len(), 1);
    manifest.archives[ARCHIVE.as_bytes()].id
}

#[test]
fn the_archive_and_its_chunks_can_be_read() {
    let (mut puppet, chunk) = restoring();
    let blob = puppet.owner.opened.key_blob.clone();
    assert_eq!(raw(&puppet.ok(Method::LoadKey)), blob.as_bytes());
    let id = archive_id(&mut puppet);
    let metadata = puppet.ok(Method::Get { id });
    let metadata = plaintext(&puppet, raw(&metadata));
    assert_eq!(puppet.key.id_hash(&metadata), id, "a client verifies what it gets");
    let archive = borg::archive::Archive::parse(&metadata).unwrap();
    let stream = puppet.ok(Method::Get { id: archive.items[0] });
    assert_eq!(puppet.key.id_hash(&plaintext(&puppet, raw(&stream))), archive.items[0]);
    let content = puppet.ok(Method::Get { id: chunk });
    assert_eq!(plaintext(&puppet, raw(&content)), CONTENT);
    puppet.ok(Method::Rollback);
    puppet.event(Event::ClientClosed);
    assert_eq!(puppet.quit, Some(0));
    assert!(puppet.owner.end.unwrap().failure.is_none());
}

#[test]
fn a86_another_chunk_is_none_of_this_archive() {
    let (mut puppet, _) = restoring();
    assert_eq!(puppet.breaks(Method::Get { id: Id([9; 32]) }), "restore-read");
}

#[test]
fn a86_nothing_can_be_written() {
    let (puppet, chunk) = restoring();
    let envelope = puppet.seal(b"new");
    let id = puppet.key.id_hash(b"new");
    let manifest = puppet.manifest("another", id);
    for method in [
        Method::Put { id, data: &envelope },
        Method::Put { id: chunk, data: &envelope },
        put_manifest(&manifest),
        Method::Delete { id: chunk },
        Method::Delete { id: Id::MANIFEST },
        commit(),
        Method::GetFreeNonce,
        Method::CommitNonceReservation { next_unreserved: 1 << 40, start_nonce: None },
    ] {
        let (mut puppet, _) = restoring();
        assert_eq!(puppet.breaks(method), "restore-write");
        assert!(puppet.owner.put.is_empty() && puppet.owner.proposals.is_empty() && puppet.owner.commits == 0);
    }
    for method in [Method::Len, Method::SaveKey { keydata: b"x" }, Method::Destroy, Method::BreakLock] {
        let (mut puppet, _) = restoring();
        assert_eq!(puppet.breaks(method), "method");
    }
}

#[test]
fn many_reads_are_under_way_and_come_back_in_order() {
    let (mut puppet, chunk) = restoring();
    puppet.owner_is_silent = true;
    let mut asked = vec![];
    let mut msgid = 1000;
    while puppet.session.wants_client() {
        msgid += 1;
        let actions = puppet.session.handle(puppet.now, Event::Request(Request { msgid, method: Method::Get { id: chunk } }));
        assert_eq!(actions, [Action::Read(chunk.0)]);
        asked.push(msgid);
        assert!(asked.len() < 1000, "the client may ask for ever");
    }
    assert!(asked.len() > 10);
    let payload = compress(Compression::Lz4, CONTENT);
    let answer = [&chunk.0[..], &payload].concat();
    for msgid in asked {
        let actions = puppet.session.owner_frame(puppet.now, kind::OBJECT, &answer);
        let [Action::Reply(bytes)] = actions.as_slice() else { panic!("{actions:?}") };
        let mut replies = borg::rpc::ReplyDecoder::new(1 << 20);
        replies.push(bytes);
        let reply = replies.next_reply().unwrap().unwrap();
        assert_eq!(reply.msgid, msgid);
        assert!(puppet.session.wants_client());
    }
    // What nobody asked for is a mistake of the owner's.
    let actions = puppet.session.owner_frame(puppet.now, kind::OBJECT, &answer);
    assert!(actions.contains(&Action::CloseOwner), "{actions:?}");
}

#[test]
fn every_call_that_waits_hears_of_the_end() {
    for end in ["owner", "rule"] {
        let (mut puppet, chunk) = restoring();
        puppet.owner_is_silent = true;
        for (msgid, id) in [(7, chunk), (8, Id([9; 32])), (9, chunk)] {
            puppet.session.handle(puppet.now, Event::Request(Request { msgid, method: Method::Get { id } }));
        }
        let (actions, first) = if end == "owner" {
            (puppet.session.handle(puppet.now, Event::OwnerLost), 7)
        } else {
            let payload = compress(Compression::Lz4, CONTENT);
            puppet.session.owner_frame(puppet.now, kind::OBJECT, &[&chunk.0[..], &payload].concat());
            (puppet.session.owner_frame(puppet.now, kind::NOT_IN_VIEW, &[9; 32]), 8)
        };
        let mut replies = borg::rpc::ReplyDecoder::new(1 << 20);
        for action in &actions {
            if let Action::Reply(bytes) = action {
                replies.push(bytes);
            }
        }
        for msgid in first..=9 {
            let reply = replies.next_reply().unwrap().unwrap();
            assert_eq!(reply.msgid, msgid);
            assert!(reply.outcome.is_err());
        }
        assert!(replies.next_reply().unwrap().is_none());
    }
}

#[test]
fn padding_stays_here() {
    let (mut puppet, chunk) = restoring();
    let padded = obfuscate(&compress(Compression::Lz4, CONTENT), 5000);
    puppet.owner.view.insert(chunk.0, (CONTENT.len() as u32, 0, padded));
    let content = puppet.ok(Method::Get { id: chunk });
    assert!(raw(&content).len() < 100);
    assert_eq!(plaintext(&puppet, raw(&content)), CONTENT);
}

#[test]
fn reading_has_an_end() {
    let limit = |puppet: &Puppet| match puppet.owner.end.clone().unwrap().failure.unwrap().cause {
        Cause::QuotaExceeded { limit } => limit,
        other => panic!("{other:?}"),
    };
    for (reading, expected) in [(Reading { objects: 3, bytes: 1 << 20 }, "objects"), (Reading { objects: 99, bytes: 100 }, "bytes")] {
        let (puppet, chunk) = restoring();
        let mut other = Puppet::new();
        (other.owner, other.task) = (puppet.owner, "restore");
        other.owner.opened.restore = Some(reading);
        other.do_open();
        let mut reads = 0;
        while !matches!(other.call(Method::Get { id: chunk }), Some(Err(_))) {
            reads += 1;
            assert!(reads < 10);
        }
        assert!(reads > 1);
        assert_eq!(limit(&other), expected);
    }
}
