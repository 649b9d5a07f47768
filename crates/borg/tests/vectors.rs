//! Every statement of vectors.json (made with Borg itself) about what this crate implements.

use borg::archive::Archive;
use borg::cache::{ChunksIndex, REFCOUNT_STICKY};
use borg::compress::{self, Compression};
use borg::key::KeyParts;
use borg::keyblob::{self, LockedKey};
use borg::manifest::{self, Manifest};
use borg::tam::Status;
use borg::{Id, Key, KeyType, RepositoryId, integrity};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors.json")).expect("the vectors are JSON")
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    assert_eq!(text.len() % 2, 0);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn id(value: &Value) -> Id {
    Id::from_hex(value.as_str().expect("an id")).expect("an id")
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().expect("the right length")
}

fn repository(vectors: &Value) -> RepositoryId {
    RepositoryId(array(&vectors["repository_id"]))
}

fn passphrase(vectors: &Value) -> Vec<u8> {
    vectors["passphrase_utf8"].as_str().expect("a passphrase").as_bytes().to_vec()
}

fn kind(vector: &Value) -> KeyType {
    KeyType::from_byte(hex(&vector["type_byte"])[0]).expect("a key type")
}

/// The key as the vector's own parts say.
fn key(vector: &Value) -> Key {
    let parts = KeyParts {
        enc_key: &hex(&vector["enc_key"]),
        enc_hmac_key: &hex(&vector["enc_hmac_key"]),
        id_key: &hex(&vector["id_key"]),
        chunk_seed: i32::try_from(vector["chunk_seed"].as_i64().expect("a seed")).expect("a seed"),
        tam_required: vector["tam_required_default"].as_bool().expect("a flag"),
    };
    Key::from_parts(kind(vector), parts).expect("lengths fit the type")
}

/// Runs a check for each of the eight key types.
fn each(check: impl Fn(&Value, &Value, &Key)) {
    let vectors = vectors();
    let types = vectors["key_types"].as_object().expect("key types");
    assert_eq!(types.len(), 8);
    for (name, vector) in types {
        println!("key type {name}");
        check(&vectors, vector, &key(vector));
    }
}

fn same_key(a: &Key, b: &Key) {
    assert_eq!(a.key_type(), b.key_type());
    assert_eq!(a.enc_key(), b.enc_key());
    assert_eq!(a.enc_hmac_key(), b.enc_hmac_key());
    assert_eq!(a.id_key(), b.id_key());
    assert_eq!(a.chunk_seed(), b.chunk_seed());
    assert_eq!(a.tam_required(), b.tam_required());
}

#[test]
fn names_of_key_types() {
    each(|_, vector, key| {
        assert_eq!(key.key_type().display_name(), vector["name"].as_str().expect("a name"));
        if let Some(argument) = vector["init_arg"].as_str() {
            assert_eq!(KeyType::from_init_name(argument), Some(key.key_type()));
            assert_eq!(key.key_type().init_name(), argument);
        }
    });
}

#[test]
fn ids() {
    each(|vectors, vector, key| {
        assert_eq!(key.id_hash(&hex(&vectors["plaintext"])), id(&vector["id_of_plaintext"]));
        assert_eq!(key.id_hash(b""), id(&vector["id_of_empty"]));
    });
}

#[test]
fn passphrase_key() {
    let vectors = vectors();
    let vector = &vectors["key_types"]["passphrase"];
    same_key(&Key::from_passphrase(&passphrase(&vectors), repository(&vectors)), &key(vector));
}

#[test]
fn key_blobs_are_opened() {
    let mut opened = 0;
    let vectors = vectors();
    for (_, vector) in vectors["key_types"].as_object().expect("key types") {
        let Some(text) = vector["key_blob_base64_lines"].as_str() else { continue };
        let locked = LockedKey::parse(text).expect("a key blob");
        assert_eq!(Some(u64::from(locked.iterations)), vector["key_blob_outer"]["iterations"].as_u64());
        let unlocked = locked.unlock(&passphrase(&vectors), kind(vector)).expect("the right passphrase");
        same_key(&unlocked.key, &key(vector));
        assert_eq!(unlocked.repository_id, repository(&vectors));
        assert_eq!(unlocked.tam_required, vector["tam_required_default"].as_bool());
        assert_eq!(locked.repository_id, None);

        let error = locked.unlock(b"wrong", kind(vector)).expect_err("the wrong passphrase");
        assert_eq!(error, keyblob::KeyBlobError::WrongPassphrase);
        assert!(LockedKey::parse(&text.replace('\n', "")).is_ok(), "unwrapped base64");
        opened += 1;
    }
    assert_eq!(opened, 6);
}

#[test]
fn key_blobs_are_written_byte_for_byte() {
    let vectors = vectors();
    let mut keyfiles = 0;
    for (_, vector) in vectors["key_types"].as_object().expect("key types") {
        let Some(text) = vector["key_blob_base64_lines"].as_str() else { continue };
        let outer = &vector["key_blob_outer"];
        let iterations = u32::try_from(outer["iterations"].as_u64().expect("iterations")).expect("iterations");
        let salt = array(&outer["salt"]);
        let blob = keyblob::lock(&key(vector), repository(&vectors), &passphrase(&vectors), iterations, salt);
        assert_eq!(blob.trim_end(), text.trim_end());
        if let Some(keyfile) = vector["keyfile_text"].as_str() {
            assert_eq!(keyblob::keyfile_text(repository(&vectors), &blob).trim_end(), keyfile.trim_end());
            assert_eq!(LockedKey::parse(keyfile).expect("a keyfile").repository_id, Some(repository(&vectors)));
            keyfiles += 1;
        }
    }
    assert_eq!(keyfiles, 2);
}

#[test]
fn envelopes() {
    each(|vectors, vector, key| {
        let nonce = vector["aes_ctr_nonce_u64"].as_u64();
        assert_eq!(nonce.is_some(), key.key_type().is_encrypted());
        let envelopes = vector["envelopes"].as_object().expect("envelopes");
        assert_eq!(envelopes.len(), 6);
        for (codec, pair) in envelopes {
            println!("  {codec}");
            let (payload, envelope) = (hex(&pair["payload"]), hex(&pair["envelope"]));
            assert_eq!(key.seal(&payload, nonce.unwrap_or_default()), envelope);
            assert_eq!(envelope.len(), payload.len() + key.key_type().overhead());
            assert_eq!(key.open(&envelope).expect("an envelope of this key"), payload);
            assert_eq!(Key::envelope_nonce(&envelope), nonce);
            let plain = hex(&vectors["plaintext"]);
            assert_eq!(compress::decompress(&payload, plain.len()).expect("compressed"), plain);
            assert!(compress::decompress(&payload, plain.len() - 1).is_err(), "the limit holds");
        }
    });
}

#[test]
fn every_envelope_is_refused_by_every_other_key() {
    let vectors = vectors();
    let types = vectors["key_types"].as_object().expect("key types");
    for (owner, vector) in types {
        let envelope = hex(&vector["envelopes"]["lz4"]["envelope"]);
        for (other, vector) in types {
            // A repokey opens what a passphrase key sealed only if its secrets are the same, and here they are not.
            assert_eq!(key(vector).open(&envelope).is_ok(), owner == other, "{owner} opened with {other}");
        }
    }
}

#[test]
fn obfuscated() {
    let vectors = vectors();
    let payload = hex(&vectors["obfuscate_payload"]["payload"]);
    let plain = hex(&vectors["plaintext"]);
    assert_eq!(compress::decompress(&payload, plain.len()).expect("an obfuscated payload"), plain);
    assert_eq!(compress::detect(&payload).expect("a codec").0, compress::Codec::Obfuscate);
}

#[test]
fn archives() {
    each(|_, vector, key| {
        let sample = &vector["archive_item"];
        let packed = hex(&sample["packed"]);
        assert_eq!(key.id_hash(&packed), id(&sample["id"]));
        assert_eq!(Archive::verify_tam(&packed, key).expect("a genuine archive"), Status::Verified);
        let archive = Archive::parse_strict(&packed).expect("archive metadata");
        assert_eq!(archive.name, b"arch-1");
        assert_eq!(archive.items.len(), 1);
        assert_eq!(archive.size, Some(180));
        assert_eq!(archive, Archive::parse(&packed).expect("archive metadata"));
        assert_eq!(archive.pack(key, array(&sample["tam_salt"])), packed, "the same bytes again");

        let mut forged = packed.clone();
        let name = forged.windows(6).position(|window| window == b"arch-1").expect("the name");
        forged[name] ^= 1;
        assert!(Archive::verify_tam(&forged, key).is_err());
    });
}

#[test]
fn manifests() {
    each(|_, vector, key| {
        let sample = &vector["manifest"];
        let packed = hex(&sample["packed"]);
        assert_eq!(manifest::manifest_id(&packed, key), id(&sample["manifest_id_for_cache_config"]));
        let (manifest, status) = Manifest::parse_with_status(&packed, key).expect("a genuine manifest");
        assert_eq!(status, Status::Verified);
        assert_eq!(Manifest::parse(&packed, key).as_ref(), Ok(&manifest));
        let entry = &manifest.archives[b"arch-1".as_slice()];
        assert_eq!(entry.id, id(&vector["archive_item"]["id"]));
        assert_eq!(entry.time, "2026-01-02T03:04:05.000006");
        let keys: Vec<&[u8]> = manifest.item_keys.iter().map(Vec::as_slice).collect();
        assert_eq!(keys, manifest::ITEM_KEYS.map(str::as_bytes));
        let salt = array(&vector["archive_item"]["tam_salt"]);
        assert_eq!(manifest.pack(key, salt), packed, "the same bytes again");
        let mut forged = packed.clone();
        *forged.last_mut().expect("a version") = 2;
        assert!(Manifest::parse(&forged, key).is_err());
    });
}

#[test]
fn chunks_index() {
    let vectors = vectors();
    let sample = &vectors["chunks_hashindex"];
    let file = hex(&sample["file"]);
    let index = ChunksIndex::parse(&file).expect("a chunks index");
    assert_eq!(index.buckets(), 3);
    let entries: Vec<_> = index.iter().map(|entry| (entry.id.0[31], entry.refcount, entry.size, entry.csize)).collect();
    assert_eq!(entries, [(0, 1, 1000, 500), (0xee, REFCOUNT_STICKY, 2000, 41)]);
    for entry in index.iter() {
        assert_eq!(index.get(&entry.id), Some(entry));
    }
    assert_eq!(index.get(&Id([9; 32])), None);
    let digests = sample["integrity_value_for_name_chunks"].as_str().expect("text");
    assert_eq!(integrity::of_index("chunks", &file), digests);
}

#[test]
fn integrity_of_other_files() {
    let vectors = vectors();
    let sample = &vectors["integrity_headerless"];
    let name = sample["name"].as_str().expect("a name");
    assert_eq!(integrity::of_file(name, &hex(&sample["content_hex"])), sample["value"].as_str().expect("text"));
}

#[test]
fn own_compression_is_readable() {
    let vectors = vectors();
    let plain = hex(&vectors["plaintext"]);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(3), Compression::Zlib(6), Compression::Lzma(6)] {
        let payload = compress::compress(compression, &plain);
        assert_eq!(compress::decompress(&payload, plain.len()).expect("our own"), plain, "{compression:?}");
    }
}
