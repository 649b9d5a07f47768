//! A33 to A48: objects and what may be known of those of others.

use crate::afterwards::{borg_world, envelope, envelopes, honest_backups_are_fine, stock_borgs_are_content};
use crate::hostile::{Hostile, Said, directory, file, pack};
use crate::world::{SECRET, World, objects};
use crate::{Deed, deed};
use borg::cache::ChunksIndex;
use borg::compress::{Compression, compress};
use borg::item::ChunkRef;
use borg::keyblob::LockedKey;
use borg::manifest::Manifest;
use borg::msgpack::OwnedValue;
use borg::rpc::call;
use borg::{Id, Key, KeyType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use testkit::borgs::Borg;
use tests::{newest_archive, text};

pub const DEEDS: &[Deed] = &[
    Deed { rule: "chunk-id", test: "a33", deed: |client| put_as(client, &Id([1; 32]), b"something else") },
    Deed { rule: "delete-not-own", test: "a36", deed: |client| delete(client, &Id([1; 32])) },
    Deed { rule: "get-not-own", test: "a37", deed: |client| get(client, &Id([1; 32])) },
    Deed { rule: "unknown-chunk", test: "a39", deed: |client| refer(client, phantom()) },
    Deed { rule: "reference-not-own", test: "a39", deed: |client| claim_stream(client, phantom().id) },
    Deed { rule: "unknown-chunk", test: "a40", deed: |client| refer(client, secret(client)) },
    Deed { rule: "reference-not-own", test: "a40", deed: |client| claim_stream(client, secret(client).id) },
    Deed { rule: "chunk-size", test: "a41", deed: wrong_size },
    Deed { rule: "object-type", test: "a45", deed: |client| typed(client, 3) },
    Deed { rule: "archives-held", test: "a48", deed: nine_archives },
];

/// Content long enough not to be small.
const CONTENT: &[u8] = b"the hostile client's own content, which is long enough not to be a small object";

fn put_as(client: &mut Hostile, id: &Id, plaintext: &[u8]) -> Said {
    let envelope = client.seal(plaintext);
    client.put(id, &envelope)
}

fn get(client: &mut Hostile, id: &Id) -> Said {
    client.call(|msgid| call::get(msgid, id))
}

fn delete(client: &mut Hostile, id: &Id) -> Said {
    client.call(|msgid| call::delete(msgid, id))
}

/// An archive of one file that consists of this chunk.
fn refer(client: &mut Hostile, chunk: ChunkRef) -> Said {
    let name = client.archive_name.clone();
    client.propose(&name, &[file("f", &[chunk])])
}

/// An archive whose item stream is this chunk.
fn claim_stream(client: &mut Hostile, id: Id) -> Said {
    let archive = client.archive(&client.archive_name, vec![id]);
    client.propose_archive(&archive)
}

fn wrong_size(client: &mut Hostile) -> Said {
    let chunk = client.chunk(CONTENT);
    refer(client, ChunkRef { size: chunk.size + 1, ..chunk })
}

/// A chunk that exists nowhere.
fn phantom() -> ChunkRef {
    ChunkRef { id: Id([9; 32]), size: 5, csize: 8 }
}

/// The victim's chunk: whoever knows the content and has a client key can tell its id.
fn secret(client: &Hostile) -> ChunkRef {
    ChunkRef { id: client.key.id_hash(SECRET), size: SECRET.len() as u32, csize: SECRET.len() as u32 + 3 }
}

/// A right object but for its type byte.
fn typed(client: &mut Hostile, kind: u8) -> Said {
    let mut envelope = client.seal(CONTENT);
    envelope[0] = kind;
    let id = client.key.id_hash(CONTENT);
    client.put(&id, &envelope)
}

/// More archives than anybody needs at a time, none of which a manifest names.
fn nine_archives(client: &mut Hostile) -> Said {
    let mut archive = client.archive("x", vec![]);
    for number in 0..8 {
        archive.comment = Some(vec![number]);
        client.put_archive(&archive);
    }
    archive.comment = Some(b"ninth".to_vec());
    let packed = archive.pack(&client.key, [4; 64]);
    let id = client.key.id_hash(&packed);
    put_as(client, &id, &packed)
}

/// Where the victim's archive is in the repository.
fn foreign_archive(world: &World) -> Id {
    Id::from_hex(text(&newest_archive(&world.system), "id")).unwrap()
}

/// An honest backup by the hostile client.
#[track_caller]
fn honest_job(world: &World, content: &[u8]) {
    let job = world.job("hostile");
    job.open().backup_of(content);
    let verdict = job.end(0);
    assert_eq!(verdict.state, "done", "{verdict:?}");
}

#[test]
fn a33_wrong_chunk_id() {
    let world = World::new();
    world.expect_deed(deed("chunk-id", "a33"));
    // Under the id of a chunk that others rely on.
    world.expect_rule("chunk-id", |client| {
        let id = client.key.id_hash(SECRET);
        assert_eq!(put_as(client, &id, b"not what the victim stored").broke(), "chunk-id");
    });
    // The id under another key: what stands in a foreign repository is of no use here.
    world.expect_rule("chunk-id", |client| {
        let id = Key::generate(KeyType::Authenticated, &mut |bytes| bytes.fill(5)).id_hash(CONTENT);
        assert_eq!(put_as(client, &id, CONTENT).broke(), "chunk-id");
    });
}

#[test]
fn a34_the_first_write_wins() {
    let world = World::new();
    let before = objects(&world.repository);
    let id = {
        let job = world.job("hostile");
        let mut client = job.open();
        let chunk = secret(&client);
        let plain = client.key.seal(&compress(Compression::None, SECRET), 0);
        let other = client.key.seal(&compress(Compression::Zlib(9), SECRET), 0);
        // Three times, in three forms; the answers are those to something new.
        let new = client.key.id_hash(CONTENT);
        let wanted = format!("{:?}", put_as(&mut client, &new, CONTENT));
        for envelope in [client.seal(SECRET), plain, other] {
            assert_eq!(format!("{:?}", client.put(&chunk.id, &envelope)), wanted);
        }
        assert!(matches!(refer(&mut client, chunk), Said::Value(_)));
        assert!(matches!(client.commit(), Said::Value(_)));
        drop(client);
        assert_eq!(job.end(0).state, "done");
        chunk.id
    };
    // It was proved by sending it, so it may be referred to; what is stored is what the victim's session made of it.
    let after = objects(&world.repository);
    assert_eq!(after.get(&id.0), before.get(&id.0));
    assert_eq!(envelopes(&world.repository).iter().filter(|(found, _)| *found == id).count(), 1, "it was written again");
    assert!(before.iter().all(|(id, object)| *id == Id::MANIFEST.0 || after.get(id) == Some(object)));
}

#[test]
fn a35_the_manifest_is_nobodys_object() {
    let world = World::new();
    // Id 0 with anything but a manifest, with another type byte, with what is stored there now.
    world.expect_rule("manifest", |client| assert_eq!(put_as(client, &Id::MANIFEST, CONTENT).broke(), "manifest"));
    let stored = envelope(&world.repository, &Id::MANIFEST).unwrap();
    world.expect_rule("object-type", |client| assert_eq!(client.put(&Id::MANIFEST, &stored).broke(), "object-type"));
    world.expect_rule("delete-not-own", |client| assert_eq!(delete(client, &Id::MANIFEST).broke(), "delete-not-own"));
    // As content and as item stream: it is an object like any other that the client did not send.
    let zero = ChunkRef { id: Id::MANIFEST, size: 5, csize: 5 };
    world.expect_rule("unknown-chunk", |client| assert_eq!(refer(client, zero).broke(), "unknown-chunk"));
    world.expect_rule("reference-not-own", |client| assert_eq!(claim_stream(client, Id::MANIFEST).broke(), "reference-not-own"));
    // What the client reads there is its own: no archive of anybody is in it.
    let job = world.job("hostile");
    assert!(job.open().manifest.archives.is_empty());
    job.end(2);
}

#[test]
fn a36_deletes_of_what_is_not_ones_own() {
    let world = World::new();
    let archive = foreign_archive(&world);
    world.expect_deed(deed("delete-not-own", "a36"));
    world.expect_rule("delete-not-own", |client| {
        let id = secret(client).id;
        assert_eq!(delete(client, &id).broke(), "delete-not-own");
    });
    world.expect_rule("delete-not-own", |client| assert_eq!(delete(client, &archive).broke(), "delete-not-own"));
    // The checkpoint is the client's to delete, its chunks are not, not even those that only it has sent. The checkpoint is committed, so
    // it stays; nothing of anybody else is touched.
    let before = objects(&world.repository);
    let verdict = world.attempt(|client| {
        let chunk = client.chunk(CONTENT);
        let name = format!("{}.checkpoint", client.archive_name);
        assert!(matches!(client.propose(&name, &[file("f", &[chunk])]), Said::Value(_)));
        assert!(matches!(client.commit(), Said::Value(_)));
        assert_eq!(delete(client, &chunk.id).broke(), "delete-not-own");
    });
    verdict.expect_rule("delete-not-own");
    let after = objects(&world.repository);
    assert!(before.iter().all(|(id, object)| *id == Id::MANIFEST.0 || after.get(id) == Some(object)));
    assert!(after.contains_key(&archive.0));
    // What was said about a checkpoint means nothing until the next manifest: the session ends, it is still there.
    let names = || -> Vec<bool> {
        world.system.cli_json(&["archive", "list"]).as_array().unwrap().iter().map(|a| a["incomplete"].as_bool().unwrap()).collect()
    };
    assert_eq!(names(), [true, false]);
    world.attempt(|client| {
        let name = format!("{}.checkpoint", client.archive_name);
        let stream = client.items(&[directory("d")]);
        let archive = client.archive(&name, vec![stream]);
        let id = client.put_archive(&archive);
        let manifest = client.manifest_with(&name, id);
        for said in [client.put_manifest(&manifest), client.commit(), delete(client, &id)] {
            assert!(matches!(said, Said::Value(_)), "{said:?}");
        }
    });
    assert_eq!(names(), [true, true, false]);
    stock_borgs_are_content(&world);
}

#[test]
fn a37_reading_foreign_chunks() {
    let world = World::new();
    let archive = foreign_archive(&world);
    world.expect_deed(deed("get-not-own", "a37"));
    world.expect_rule("get-not-own", |client| {
        let id = secret(client).id;
        let said = get(client, &id);
        assert!(!format!("{said:?}").contains("nobody but the victim"));
        assert_eq!(said.broke(), "get-not-own");
    });
    world.expect_rule("get-not-own", |client| assert_eq!(get(client, &archive).broke(), "get-not-own"));
    // Not even after it was sent, and proposed: then the client has it already.
    world.expect_rule("get-not-own", |client| {
        let id = client.chunk(SECRET).id;
        assert_eq!(get(client, &id).broke(), "get-not-own");
    });
}

#[test]
fn a38_reading_own_older_backups() {
    let world = World::new();
    honest_job(&world, CONTENT);
    let archive = foreign_archive(&world);
    world.expect_rule("get-not-own", |client| {
        let id = client.key.id_hash(CONTENT);
        assert_eq!(get(client, &id).broke(), "get-not-own");
    });
    // Under the id that the server gave it.
    world.expect_rule("get-not-own", |client| assert_eq!(get(client, &archive).broke(), "get-not-own"));
    // Nor is it in the manifest.
    let job = world.job("hostile");
    assert!(job.open().manifest.archives.is_empty());
    job.end(2);
}

#[test]
fn a39_phantoms() {
    let world = World::new();
    world.expect_deed(deed("unknown-chunk", "a39"));
    world.expect_deed(deed("reference-not-own", "a39"));
    // The phantom has the id of what the victim will back up tomorrow. As a checkpoint, and beside a chunk that is really there.
    let tomorrow = b"what the victim will have tomorrow, and what somebody announces today without sending it";
    world.expect_rule("unknown-chunk", |client| {
        let real = client.chunk(CONTENT);
        let phantom = ChunkRef { id: client.key.id_hash(tomorrow), size: tomorrow.len() as u32, csize: 90 };
        let name = format!("{}.checkpoint", client.archive_name);
        assert_eq!(client.propose(&name, &[file("f", &[real]), file("g", &[real, phantom])]).broke(), "unknown-chunk");
    });
    // What a session sent that came to nothing is a phantom for the next one.
    world.attack(|client| {
        client.chunk(tomorrow);
    });
    world.expect_rule("unknown-chunk", |client| {
        let phantom = ChunkRef { id: client.key.id_hash(tomorrow), size: tomorrow.len() as u32, csize: 90 };
        assert_eq!(refer(client, phantom).broke(), "unknown-chunk");
    });
    // The victim is not told that it is there, sends it, and has it.
    let job = world.job("victim");
    let mut client = job.open();
    let id = client.key.id_hash(tomorrow);
    assert!(!in_cache(&job.ticket.cache, &id));
    client.backup_of(tomorrow);
    drop(client);
    assert_eq!(job.end(0).state, "done");
    assert!(objects(&world.repository).contains_key(&id.0));
    stock_borgs_are_content(&world);
}

/// Whether the chunks cache that a client was given has this id.
fn in_cache(cache: &std::path::Path, id: &Id) -> bool {
    let mut stack = vec![cache.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                stack.push(entry.path());
            } else if entry.file_name() == "chunks" {
                let bytes = fs::read(entry.path()).unwrap();
                return ChunksIndex::parse(&bytes).unwrap().get(id).is_some();
            }
        }
    }
    panic!("no chunks cache below {}", cache.display());
}

#[test]
fn a40_claims_by_hash() {
    let world = World::new();
    world.expect_deed(deed("unknown-chunk", "a40"));
    world.expect_deed(deed("reference-not-own", "a40"));
    // Wherever a reference may stand: in a part of a file, behind a thousand of ones own.
    world.expect_rule("unknown-chunk", |client| {
        let (own, foreign) = (client.chunk(CONTENT), secret(client));
        let part = borg::item::Item { part: Some(1), ..file("f.borg_part_1", &[foreign]) };
        let name = client.archive_name.clone();
        let mut chunks = vec![own; 1000];
        chunks.push(foreign);
        assert_eq!(client.propose(&name, &[part, file("f", &chunks)]).broke(), "unknown-chunk");
    });
    // Nothing of that has made it known to this client: an unchanged run gets nothing that it could be read back with.
    honest_job(&world, CONTENT);
    let job = world.job("hostile");
    let mut client = job.open();
    let chunk = secret(&client);
    assert!(!in_cache(&job.ticket.cache, &chunk.id));
    // What it has proved it may refer to without sending it.
    let own = ChunkRef { id: client.key.id_hash(CONTENT), size: CONTENT.len() as u32, csize: 90 };
    assert!(matches!(refer(&mut client, own), Said::Value(_)));
    assert!(matches!(client.call(call::rollback), Said::Value(_)));
    assert_eq!(refer(&mut client, chunk).broke(), "unknown-chunk");
    drop(client);
    job.end(2).expect_rule("unknown-chunk");
}

#[test]
fn a41_sizes_that_lie() {
    let world = World::new();
    world.expect_deed(deed("chunk-size", "a41"));
    // Of what the view knows from an earlier archive.
    honest_job(&world, CONTENT);
    world.expect_rule("chunk-size", |client| {
        let chunk = ChunkRef { id: client.key.id_hash(CONTENT), size: CONTENT.len() as u32 - 1, csize: 80 };
        assert_eq!(refer(client, chunk).broke(), "chunk-size");
    });
    // A stored size is the client's own word: it changes its statistics, and nothing that is stored or known of others.
    let job = world.job("hostile");
    let mut client = job.open();
    let chunk = client.chunk(SECRET);
    assert!(matches!(refer(&mut client, ChunkRef { csize: u32::MAX, ..chunk }), Said::Value(_)));
    assert!(matches!(client.commit(), Said::Value(_)));
    drop(client);
    assert_eq!(job.end(0).state, "done");
    let shown = newest_archive(&world.system);
    assert_eq!(shown["statistics"]["original_size"], SECRET.len());
    assert_eq!(shown["statistics"]["compressed_size"], u32::MAX);
    assert!(shown["statistics"]["deduplicated_size"].as_u64().unwrap() < 1000);
    stock_borgs_are_content(&world);
}

#[test]
fn a42_a_view_that_is_no_longer_true() {
    let world = World::new();
    honest_job(&world, CONTENT);
    let first = text(&newest_archive(&world.system), "name").to_owned();
    // Between prepare and commit the archive is deleted that the view comes from: what a running job may rely on stays.
    let job = world.job("hostile");
    let mut client = job.open();
    world.system.cli_ok(&["archive", "delete", "--now", "--yes", &first]);
    let chunk = ChunkRef { id: client.key.id_hash(CONTENT), size: CONTENT.len() as u32, csize: 90 };
    assert!(matches!(refer(&mut client, chunk), Said::Value(_)));
    assert!(matches!(client.commit(), Said::Value(_)));
    drop(client);
    assert_eq!(job.end(0).state, "done");
    assert!(objects(&world.repository).contains_key(&chunk.id.0));
    // Somebody with a stock borg keeps to no such rule. The chunk is gone: that is nobody's fault, and never a hole.
    let second = text(&newest_archive(&world.system), "name").to_owned();
    let job = world.job("hostile");
    let mut client = job.open();
    let delete = format!("::{second}");
    world.system.cli_ok(&["repository", "release", "main", "--with-passphrase", "--", "borg", "delete", &delete]);
    refer(&mut client, chunk).refused("ViewStale");
    drop(client);
    let number = job.number;
    job.end(2).expect_cause("view-stale", "");
    // Once more by itself, with a view of what is there now: the client sends the chunk again.
    let again = world.awaited("hostile", number + 1);
    let mut client = again.open();
    assert!(!in_cache(&again.ticket.cache, &chunk.id));
    client.backup_of(CONTENT);
    drop(client);
    assert_eq!(again.end(0).state, "done");
    stock_borgs_are_content(&world);
}

/// Nobody's CPU while this lives.
struct Frozen(Vec<i32>);

impl Frozen {
    fn new(pids: Vec<i32>) -> Frozen {
        assert!(!pids.is_empty());
        pids.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap());
        Frozen(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            // It may be gone when the test has failed.
            if let Err(e) = kill(Pid::from_raw(*pid), Signal::SIGCONT) {
                eprintln!("process {pid} cannot go on: {e}");
            }
        }
    }
}

#[test]
fn a43_no_answer_tells_what_exists() {
    let world = World::new();
    let job = world.job("hostile");
    let mut client = job.open();
    {
        // Who knows what exists cannot even run: the answers to what exists and what does not come all the same, and are the same.
        let _frozen = Frozen::new(world.system.pids("borgcube-repositoryd"));
        let mut answers = Vec::new();
        for number in 0..50u8 {
            let new = [CONTENT, &[number]].concat();
            let (there, absent) = (client.key.id_hash(SECRET), client.key.id_hash(&new));
            answers.push(format!("{:?}", put_as(&mut client, &there, SECRET)));
            answers.push(format!("{:?}", put_as(&mut client, &absent, &new)));
        }
        answers.dedup();
        assert_eq!(answers, [format!("{:?}", Said::Value(OwnedValue::Nil))]);
    }
    // The number of objects is no answer either.
    let said = client.call(call::len).refused("ClientCache");
    assert!(!said.contains(char::is_numeric), "{said}");
    drop(client);
    job.end(2).expect_cause("client-cache", "");
    // Two archives, one of what exists and one of what does not: same calls, same answers, nothing on standard error.
    let mut seen = Vec::new();
    for content in [SECRET, b"what nobody had before, and as long as what the victim had: not a small object!!"] {
        assert_eq!(content.len(), SECRET.len());
        let job = world.job("hostile");
        let mut client = job.open();
        let mut said = vec![];
        let id = client.key.id_hash(content);
        said.push(put_as(&mut client, &id, content));
        said.push(refer(&mut client, ChunkRef { id, size: content.len() as u32, csize: 80 }));
        said.push(client.commit());
        said.push(client.call(call::rollback));
        client.close();
        seen.push(format!("{said:?} {:?}", client.notes()));
        drop(client);
        assert_eq!(job.end(0).state, "done");
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a44_ids_of_guessed_content() {
    let world = World::new();
    // The id of what the victim has and of what nobody has: whatever is asked, the answers differ in the id alone.
    let mut lines: Vec<[String; 3]> = Vec::new();
    for guess in [SECRET, CONTENT] {
        let mut asked = Vec::new();
        let questions: [fn(&mut Hostile, &Id) -> Said; 3] = [get, delete, |client, id| claim_stream(client, *id)];
        for question in questions {
            world.attack(|client| {
                let id = client.key.id_hash(guess);
                let line = question(client, &id).refused("PolicyViolation");
                asked.push(line.replace(&id.to_hex(), "ID"));
            });
        }
        lines.push(asked.try_into().unwrap());
    }
    assert_eq!(lines[0], lines[1]);
}

#[test]
fn a45_envelopes_of_another_type() {
    let world = World::new();
    let stored = envelopes(&world.repository);
    world.expect_deed(deed("object-type", "a45"));
    // No key at all, the other authenticated type, none that exists.
    for kind in [0x02, 0x06, 0xff] {
        world.expect_rule("object-type", |client| assert_eq!(typed(client, kind).broke(), "object-type"));
    }
    // What is really stored, under its own id: encrypted with the key that no client has.
    let (id, envelope) = stored.iter().find(|(id, _)| *id != Id::MANIFEST).unwrap();
    world.expect_rule("object-type", |client| assert_eq!(client.put(id, envelope).broke(), "object-type"));
    // The right type and nothing behind it, or less than nothing.
    world.expect_rule("object-compression", |client| assert_eq!(client.put(&Id([1; 32]), &[7]).broke(), "object-compression"));
    world.expect_rule("object-size", |client| assert_eq!(client.put(&Id([1; 32]), &[]).broke(), "object-size"));
}

#[test]
fn a46_counters_of_clients_mean_nothing() {
    let world = World::new();
    let nonce = || fs::read_to_string(world.repository.join("nonce")).unwrap();
    let job = world.job("hostile");
    let mut client = job.open();
    let before = nonce();
    for next in [u64::MAX, 1 << 63, 0] {
        assert!(matches!(client.call(call::get_free_nonce), Said::Value(OwnedValue::Nil)));
        for start in [None, Some(0), Some(u64::MAX)] {
            assert!(matches!(client.call(|msgid| call::commit_nonce_reservation(msgid, next, start)), Said::Value(OwnedValue::Nil)));
        }
    }
    assert_eq!(nonce(), before, "a client moved the repository's counter");
    client.backup_of(CONTENT);
    drop(client);
    assert_eq!(job.end(0).state, "done");
    honest_job(&world, b"one more");
    // No two of all objects that were ever sealed share a block of the key stream, and the nonce file is above them all.
    world.system.settle();
    let mut blocks: Vec<(u64, u64)> = envelopes(&world.repository)
        .iter()
        .map(|(_, envelope)| (Key::envelope_nonce(envelope).unwrap(), (envelope.len() as u64 - 41).div_ceil(16)))
        .collect();
    blocks.sort_unstable();
    assert!(blocks.len() > 7 && blocks.is_sorted_by(|a, b| a.0 + a.1 <= b.0), "{blocks:?}");
    let (last, length) = blocks.last().unwrap();
    assert!(u64::from_str_radix(nonce().trim(), 16).unwrap() >= last + length);
}

#[test]
fn a47_the_key_of_an_earlier_job() {
    let world = World::new();
    let (old, passphrase, path) = {
        let job = world.job("hostile");
        let mut client = job.open();
        client.backup_of(CONTENT);
        let old = (client.key.clone(), job.ticket.passphrase.clone(), job.ticket.path.clone());
        drop(client);
        assert_eq!(job.end(0).state, "done");
        old
    };
    // What it signs is a manifest of nobody, and an archive that no manifest may name.
    let (key, again) = (old.clone(), old);
    world.expect_rule("manifest", move |client| {
        let envelope = client.seal(&Manifest::empty(crate::hostile::TIMESTAMP).pack(&key, [5; 64]));
        assert_eq!(client.put_manifest(&envelope).broke(), "manifest");
    });
    world.expect_rule("archive-not-put", move |client| {
        let name = client.archive_name.clone();
        let packed = client.archive(&name, vec![]).pack(&again, [4; 64]);
        let id = client.chunk(&packed).id;
        let manifest = client.manifest_with(&name, id);
        assert_eq!(client.put_manifest(&manifest).broke(), "archive-not-put");
    });
    // The old passphrase opens nothing new, and the old token no session.
    let job = world.job("hostile");
    let mut client = job.connect();
    client.negotiate();
    client.call(|msgid| crate::hostile::open(msgid, path.as_bytes())).refused("SessionUnknown");
    let mut client = job.open();
    let OwnedValue::Raw(blob) = client.ok(call::load_key) else { panic!("a key is bytes") };
    let locked = LockedKey::parse(std::str::from_utf8(&blob).unwrap()).unwrap();
    assert!(locked.unlock(passphrase.as_bytes(), KeyType::Authenticated).is_err());
    drop(client);
    job.end(2);
}

/// An archive as it was before archives were signed.
fn unsigned_archive(name: &str, items: &[Id]) -> Vec<u8> {
    pack(|w| {
        w.map(7);
        w.raw(b"cmdline");
        w.array(0);
        w.raw(b"hostname");
        w.raw(b"victim");
        w.raw(b"items");
        w.array(items.len());
        items.iter().for_each(|id| w.raw(&id.0));
        w.raw(b"name");
        w.raw(name.as_bytes());
        w.raw(b"time");
        w.raw(crate::hostile::TIMESTAMP.as_bytes());
        w.raw(b"username");
        w.raw(b"root");
        w.raw(b"version");
        w.uint(1);
    })
}

#[test]
fn a48_content_that_is_an_archive() {
    let world = World::new();
    world.expect_deed(deed("archives-held", "a48"));
    // Files whose content is an archive: unsigned, signed with no key, with a foreign one that has the id key, with another job's.
    let verdict = world.attempt(|client| {
        let stream = client.items(&[directory("forged")]);
        let forged = client.archive("forged-signed", vec![stream]);
        let mut random = 1u8;
        let relative = client.key.client_key(&mut |bytes| {
            for byte in bytes {
                random = random.wrapping_mul(5).wrapping_add(3);
                *byte = random;
            }
        });
        let contents = [
            unsigned_archive("forged-unsigned", &[stream]),
            forged.pack(&Key::none(), [4; 64]),
            forged.pack(&relative, [4; 64]),
            client.manifest.pack(&relative, [4; 64]),
            client.manifest.pack(&client.key, [4; 64]),
        ];
        let chunks: Vec<ChunkRef> = contents.iter().map(|content| client.chunk(content)).collect();
        // Signed with the client key it is an archive, and stays with the session: as content it does not exist.
        let own = client.put_archive(&forged);
        let files: Vec<_> = chunks.iter().enumerate().map(|(n, chunk)| file(&format!("f{n}"), &[*chunk])).collect();
        let name = client.archive_name.clone();
        assert!(matches!(client.propose(&name, &files), Said::Value(_)));
        assert!(matches!(client.commit(), Said::Value(_)));
        assert!(!objects(&world.repository).contains_key(&own.0));
        assert!(chunks.iter().all(|chunk| objects(&world.repository).contains_key(&chunk.id.0)));
    });
    assert_eq!(verdict.word, "", "{verdict:?}");
    world.expect_rule("unknown-chunk", |client| {
        let forged = client.archive("forged-signed", vec![]);
        let id = client.put_archive(&forged);
        assert_eq!(refer(client, ChunkRef { id, size: 100, csize: 100 }).broke(), "unknown-chunk");
    });
    stock_borgs_are_content(&world);
    // Should the manifest be lost and made anew from what looks like an archive, those that nobody signed are not among them. (Borg before
    // 1.2.6 does not look at signatures there; docs/threat-model.md says so.)
    let borg = Borg::v1_4_5().expect("borg 1.4.5 is needed");
    let (place, copy) = (borg_world(), world.system.join("copy"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&world.repository).arg(&copy).status().unwrap();
    assert!(copied.success());
    let honest = borg.archives(&place, &copy).unwrap();
    borg.run(&place, ["debug", "delete-obj", copy.to_str().unwrap(), &Id::MANIFEST.to_hex()]).unwrap();
    let mut repair = borg.command(&place);
    let output = repair.args(["check", "--repair"]).arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code < 2), "{said}");
    let mut found = borg.archives(&place, &copy).unwrap();
    found.sort();
    let mut wanted = honest;
    wanted.sort();
    assert_eq!(found, wanted, "{said}");
}

#[test]
fn after_attacks_on_objects_an_honest_backup_is_fine() {
    let world = World::new();
    let before = world.fingerprint();
    for deed in DEEDS {
        let verdict = world.attempt(|client| assert_eq!((deed.deed)(client).broke(), deed.rule));
        verdict.expect_rule(deed.rule);
    }
    world.assert_unchanged(&before);
    honest_backups_are_fine(&world);
}
