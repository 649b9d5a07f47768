use borg::archive::{Archive, ArchiveError, ChunkerParams};
use borg::manifest::{ArchiveEntry, Manifest, ManifestError};
use borg::msgpack::{Value, Writer};
use borg::tam::{Status, TamError};
use borg::{Id, Key, KeyType};
use proptest::prelude::*;

use crate::noise;

const TIME: &str = "2026-01-02T03:04:05.000006";

fn key(kind: KeyType) -> Key {
    Key::generate(kind, &mut noise(11))
}

fn archive() -> Archive {
    Archive {
        name: b"host-2026".to_vec(),
        comment: Some(Vec::new()),
        hostname: Some(b"host".to_vec()),
        username: Some(b"root".to_vec()),
        time: TIME.to_owned(),
        time_end: Some(TIME.to_owned()),
        cmdline: vec![b"borg".to_vec(), b"create".to_vec()],
        items: vec![Id([1; 32]), Id([2; 32])],
        chunker_params: Some(ChunkerParams { algorithm: Some(b"buzhash".to_vec()), numbers: vec![19, 23, 21, 4095] }),
        size: Some(1 << 40),
        ..Archive::default()
    }
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::empty(TIME);
    for n in 0..3u8 {
        manifest.archives.insert(vec![b'a' + n], ArchiveEntry { id: Id([n; 32]), time: TIME.to_owned() });
    }
    manifest
}

/// Packs a map again with one value changed, added or (with `None`) removed.
fn changed(packed: &[u8], field: &str, value: Option<Value<'_>>) -> Vec<u8> {
    let Ok(Value::Map(mut fields)) = Value::parse(packed) else { panic!("not a map") };
    fields.retain(|(name, _)| name.as_raw() != Some(field.as_bytes()));
    if let Some(value) = value {
        fields.push((Value::Raw(field.as_bytes()), value));
    }
    Writer::packed(|writer| Value::Map(fields).write(writer))
}

/// Packs a map again with one field there a second time.
fn doubled(packed: &[u8], field: &str) -> Vec<u8> {
    let Ok(Value::Map(mut fields)) = Value::parse(packed) else { panic!("not a map") };
    let again = fields.iter().find(|(name, _)| name.as_raw() == Some(field.as_bytes())).expect("the field").clone();
    fields.push(again);
    Writer::packed(|writer| Value::Map(fields).write(writer))
}

#[test]
fn an_empty_manifest_is_accepted_by_its_key() {
    for kind in KeyType::ALL {
        let key = key(kind);
        let packed = Manifest::empty(TIME).pack(&key, [9; 64]);
        let manifest = Manifest::parse(&packed, &key).expect("our own");
        assert!(manifest.archives.is_empty());
        assert_eq!(manifest.tam_required(), kind != KeyType::None);
        assert_eq!(manifest.timestamp_micros(), borg::time::parse(TIME).ok());
        assert_eq!(manifest.pack(&key, [9; 64]), packed);
        assert_ne!(manifest.pack(&key, [8; 64]), packed, "another salt, other bytes");
    }
}

#[test]
fn settings_survive() {
    let key = key(KeyType::Repokey);
    let mut manifest = manifest();
    let flags =
        Value::Map(vec![(Value::Raw(b"write"), Value::Map(vec![(Value::Raw(b"mandatory"), Value::Array(vec![Value::Raw(b"future")]))]))]);
    manifest.config.insert(b"feature_flags".to_vec(), Writer::packed(|writer| flags.write(writer)));
    let again = Manifest::parse(&manifest.pack(&key, [0; 64]), &key).expect("our own");
    assert_eq!(again.mandatory_features("write"), ["future"]);
    assert!(again.mandatory_features("read").is_empty());
    assert_eq!(again.archives, manifest.archives);
    assert_eq!(again.config.len(), 2);
}

#[test]
fn a_manifest_of_another_key_is_refused() {
    for kind in [KeyType::Repokey, KeyType::AuthenticatedBlake2] {
        let ours = key(kind);
        let packed = manifest().pack(&ours, [9; 64]);
        let theirs = ours.client_key(&mut noise(99));
        assert_eq!(Manifest::parse(&packed, &theirs), Err(ManifestError::Tam(TamError::Invalid)));
    }
}

#[test]
fn the_proof_for_a_manifest_is_none_for_an_archive() {
    let key = key(KeyType::Repokey);
    let packed = manifest().pack(&key, [9; 64]);
    assert_eq!(Archive::verify_tam(&packed, &key), Err(ArchiveError::Tam(TamError::Invalid)));
}

#[test]
fn missing_and_unknown_proofs() {
    let secret = key(KeyType::Repokey);
    let packed = changed(&manifest().pack(&secret, [9; 64]), "tam", None);
    assert_eq!(Manifest::parse(&packed, &secret), Err(ManifestError::Tam(TamError::Required)));
    assert_eq!(Manifest::parse_with_status(&packed, &secret).map(|found| found.1), Ok(Status::Missing));
    assert!(Manifest::parse(&packed, &Key::none()).is_ok(), "type none does not require it");

    let other = Value::Map(vec![(Value::Raw(b"type"), Value::Raw(b"FUTURE"))]);
    let packed = changed(&packed, "tam", Some(other));
    assert_eq!(Manifest::parse(&packed, &secret), Err(ManifestError::Tam(TamError::UnsupportedSuite)));
    assert_eq!(Manifest::parse_with_status(&packed, &secret).map(|found| found.1), Ok(Status::UnknownSuite));

    let short = Value::Map(vec![
        (Value::Raw(b"type"), Value::Raw(borg::tam::SUITE)),
        (Value::Raw(b"hmac"), Value::Raw(&[1; 63])),
        (Value::Raw(b"salt"), Value::Raw(&[1; 64])),
    ]);
    let packed = changed(&packed, "tam", Some(short));
    assert_eq!(Manifest::parse(&packed, &secret), Err(ManifestError::Tam(TamError::Malformed)));
}

#[test]
fn manifests_with_wrong_content_are_refused() {
    let key = Key::none();
    let packed = changed(&manifest().pack(&key, [9; 64]), "tam", None);
    let parse = |packed: &[u8]| Manifest::parse(packed, &key).expect_err("refused");
    assert_eq!(parse(&[0xc1, 0xc1, 0xc1, 0xc1, 0]), ManifestError::Unsupported);
    assert_eq!(parse(&changed(&packed, "version", Some(Value::Int(3)))), ManifestError::Unsupported);
    assert_eq!(parse(&changed(&packed, "version", None)), ManifestError::Missing("version"));
    assert_eq!(parse(&changed(&packed, "archives", None)), ManifestError::Missing("archives"));
    for field in ["archives", "config", "item_keys", "timestamp", "version"] {
        assert!(matches!(parse(&doubled(&packed, field)), ManifestError::Duplicate(_)), "{field}");
        let wrong = changed(&packed, field, Some(Value::Bool(true)));
        assert!(matches!(parse(&wrong), ManifestError::Malformed(_)), "{field}");
    }
    let entry = |fields: &[(&'static [u8], Value<'static>)]| {
        let fields = fields.iter().map(|(name, value)| (Value::Raw(name), value.clone())).collect();
        Value::Map(vec![(Value::Raw(b"name"), Value::Map(fields))])
    };
    let (id, time): ((&[u8], _), (&[u8], _)) = ((b"id", Value::Raw(&[1; 32])), (b"time", Value::Raw(TIME.as_bytes())));
    for fields in [
        vec![id.clone()],
        vec![time.clone()],
        vec![id.clone(), time.clone(), time.clone()],
        vec![(b"id".as_slice(), Value::Raw(&[1; 31])), time.clone()],
        vec![id.clone(), (b"time".as_slice(), Value::Raw(&[0xff]))],
    ] {
        parse(&changed(&packed, "archives", Some(entry(&fields))));
    }
    assert!(Manifest::parse(&changed(&packed, "archives", Some(entry(&[id, time]))), &key).is_ok());
    let trailing = [packed.as_slice(), &[0]].concat();
    assert!(matches!(parse(&trailing), ManifestError::Malformed(_)));
}

#[test]
fn archives_go_both_ways() {
    for kind in KeyType::ALL {
        let key = key(kind);
        let packed = archive().pack(&key, [5; 64]);
        assert_eq!(Archive::parse_strict(&packed), Ok(archive()));
        assert_eq!(Archive::verify_tam(&packed, &key), Ok(Status::Verified));
    }
    // Borg 1.1 writes no algorithm and no totals.
    let old = Archive { chunker_params: Some(ChunkerParams { algorithm: None, numbers: vec![19, 23, 21, 4095] }), size: None, ..archive() };
    assert_eq!(Archive::parse_strict(&old.pack(&Key::none(), [5; 64])), Ok(old));
}

#[test]
fn an_archive_signed_again_has_another_id() {
    let real = key(KeyType::Repokey);
    let client = real.client_key(&mut noise(4));
    let from_client = archive().pack(&client, [1; 64]);
    let stored = Archive::parse_strict(&from_client).expect("our own").pack(&real, [2; 64]);
    assert_ne!(client.id_hash(&from_client), real.id_hash(&stored));
    assert_eq!(Archive::verify_tam(&stored, &real), Ok(Status::Verified));
    assert!(Archive::verify_tam(&stored, &client).is_err());
    assert!(Archive::verify_tam(&from_client, &real).is_err());
    let unsigned = changed(&stored, "tam", None);
    assert_eq!(Archive::verify_tam(&unsigned, &real), Ok(Status::Missing));
}

#[test]
fn unknown_fields_are_refused_from_clients_and_kept_from_repositories() {
    let key = Key::none();
    let packed = changed(&archive().pack(&key, [5; 64]), "zzz_future", Some(Value::Int(7)));
    assert_eq!(Archive::parse_strict(&packed), Err(ArchiveError::Unknown("zzz_future".to_owned())));
    let kept = Archive::parse(&packed).expect("tolerated");
    let again = Archive::parse(&kept.pack(&key, [6; 64])).expect("our own");
    assert_eq!(again, kept);
    assert_eq!(again.other[b"zzz_future".as_slice()], [7]);
}

#[test]
fn archives_with_wrong_content_are_refused() {
    let packed = archive().pack(&Key::none(), [5; 64]);
    let strict = |packed: &[u8]| Archive::parse_strict(packed).expect_err("refused");
    for field in ["version", "name", "items", "cmdline", "time"] {
        assert_eq!(strict(&changed(&packed, field, None)), ArchiveError::Missing(field));
    }
    for field in ["version", "name", "items", "cmdline", "time", "hostname", "tam", "size", "chunker_params"] {
        assert!(matches!(strict(&changed(&packed, field, Some(Value::Bool(true)))), ArchiveError::Malformed(_)));
        assert_eq!(strict(&doubled(&packed, field)), ArchiveError::Duplicate(field.to_owned()));
    }
    assert_eq!(strict(&changed(&packed, "version", Some(Value::Int(2)))), ArchiveError::Version(2));
    assert_eq!(strict(&changed(&packed, "name", Some(Value::Raw(b"")))), ArchiveError::Field("name"));
    assert_eq!(strict(&changed(&packed, "name", Some(Value::Raw(&[b'a'; 256])))), ArchiveError::Field("name"));
    for time in ["2026-01-02T03:04:05", "2026-01-02", "2026-02-30T03:04:05.000006", "0000-01-01T00:00:00.000000"] {
        let changed = changed(&packed, "time", Some(Value::Raw(time.as_bytes())));
        assert_eq!(strict(&changed), ArchiveError::Field("time"));
        assert!(Archive::parse(&changed).is_ok(), "old archives may have such times");
    }
    let short_id = Value::Array(vec![Value::Raw(&[1; 31])]);
    assert!(matches!(strict(&changed(&packed, "items", Some(short_id))), ArchiveError::Malformed(_)));
    assert!(matches!(strict(&changed(&packed, "size", Some(Value::Int(-1)))), ArchiveError::Malformed(_)));
}

proptest! {
    #[test]
    fn damaged_metadata_is_survived_and_never_verified(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let key = key(KeyType::Authenticated);
        for original in [manifest().pack(&key, [3; 64]), archive().pack(&key, [3; 64])] {
            let mut packed = original.clone();
            for (place, value) in &damage {
                let place = place.index(packed.len());
                packed[place] = *value;
            }
            let _ = Archive::parse(&packed).is_ok();
            let _ = Archive::parse_strict(&packed).is_ok();
            if packed != original {
                prop_assert!(Manifest::parse(&packed, &key).is_err());
                prop_assert!(Archive::verify_tam(&packed, &key) != Ok(Status::Verified));
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let key = Key::none();
        let _ = Manifest::parse(&bytes, &key).is_ok();
        let _ = Archive::parse(&bytes).is_ok();
        let _ = Archive::verify_tam(&bytes, &key).is_ok();
    }
}
