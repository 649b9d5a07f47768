use std::sync::OnceLock;

use borg::key::{EnvelopeError, KeyParts};
use borg::keyblob::{KeyBlobError, LockedKey, keyfile_text, lock};
use borg::{Key, KeyType, RepositoryId};
use proptest::prelude::*;

use crate::noise;

fn generated(kind: KeyType, seed: u64) -> Key {
    Key::generate(kind, &mut noise(seed))
}

/// A passphrase key cannot be generated, and takes its time to derive: once for all.
fn any_key(kind: KeyType) -> Key {
    static PASSPHRASE: OnceLock<Key> = OnceLock::new();
    match kind {
        KeyType::Passphrase => PASSPHRASE.get_or_init(|| Key::from_passphrase(b"secret", RepositoryId([3; 32]))).clone(),
        kind => generated(kind, 5),
    }
}

#[test]
fn generated_keys_have_the_right_shape() {
    for kind in KeyType::ALL {
        let key = generated(kind, 1);
        if kind == KeyType::None {
            assert!(key.id_key().is_empty() && key.enc_key().is_empty() && !key.tam_required());
            assert_eq!(key.chunk_seed(), 0);
            continue;
        }
        assert!(key.tam_required());
        assert_eq!(key.enc_key().len(), 32);
        for secret in [key.id_key(), key.enc_hmac_key()] {
            let (random, zeros) = secret.split_at(if kind.uses_blake2() { 64 } else { 32 });
            assert!(zeros.iter().all(|byte| *byte == 0));
            assert_eq!(zeros.len(), if kind.uses_blake2() { 64 } else { 0 });
            assert!(random.iter().any(|byte| *byte != 0));
        }
        assert_ne!(key.id_key(), key.enc_hmac_key());
    }
}

#[test]
fn a_client_key_shares_ids_and_nothing_else() {
    for kind in KeyType::ALL {
        let key = any_key(kind);
        let client = key.client_key(&mut noise(77));
        assert_eq!(client.id_hash(b"data"), key.id_hash(b"data"));
        assert_eq!(client.chunk_seed(), key.chunk_seed());
        let expected = match kind {
            KeyType::None => KeyType::None,
            KeyType::KeyfileBlake2 | KeyType::RepokeyBlake2 | KeyType::AuthenticatedBlake2 => KeyType::AuthenticatedBlake2,
            _ => KeyType::Authenticated,
        };
        assert_eq!(client.key_type(), expected);
        assert!(!client.key_type().is_encrypted());
        if kind != KeyType::None {
            assert_ne!(client.enc_key(), key.enc_key());
            assert_ne!(client.enc_hmac_key(), key.enc_hmac_key());
            assert!(client.tam_required());
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let parts =
        KeyParts { enc_key: &[0x5a; 32], enc_hmac_key: &[0x5a; 32], id_key: &[0x5a; 32], chunk_seed: 0x5a5a_5a5a, tam_required: true };
    let key = Key::from_parts(KeyType::Repokey, parts).expect("a key");
    let shown = format!("{key:?}");
    assert_eq!(shown, "Key { kind: Repokey, tam_required: true, .. }");
}

#[test]
fn lengths_are_checked() {
    for kind in KeyType::ALL {
        let parts = KeyParts { enc_key: &[1; 32], enc_hmac_key: &[1; 33], id_key: &[1; 32], chunk_seed: 0, tam_required: true };
        assert!(Key::from_parts(kind, parts).is_err());
    }
}

#[test]
fn every_changed_byte_of_an_encrypted_envelope_is_noticed() {
    for kind in KeyType::ALL {
        let key = any_key(kind);
        let envelope = key.seal(b"some payload, longer than a block", 99);
        for at in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[at] ^= 0x40;
            match key.open(&changed) {
                Err(EnvelopeError::WrongType { .. }) => assert_eq!(at, 0),
                Err(EnvelopeError::BadMac) => assert!(kind.is_encrypted() && at > 0),
                Err(other) => panic!("{other}"),
                Ok(_) => assert!(!kind.is_encrypted()),
            }
        }
    }
}

#[test]
fn short_envelopes_are_refused() {
    for kind in KeyType::ALL {
        let key = any_key(kind);
        let envelope = key.seal(b"", 0);
        assert_eq!(envelope.len(), kind.overhead());
        assert_eq!(key.open(&envelope).as_deref(), Ok(&[][..]));
        for length in 0..envelope.len() {
            assert_eq!(key.open(&envelope[..length]), Err(EnvelopeError::TooShort(length)));
        }
    }
}

#[test]
fn a_migrated_repokey_opens_old_objects_but_no_other_type_does() {
    let old = Key::from_passphrase(b"secret", RepositoryId([3; 32]));
    let envelope = old.seal(b"payload", 7);
    assert_eq!(envelope[0], 1);
    for kind in [KeyType::Repokey, KeyType::Keyfile] {
        let parts = KeyParts {
            enc_key: old.enc_key(),
            enc_hmac_key: old.enc_hmac_key(),
            id_key: old.id_key(),
            chunk_seed: old.chunk_seed(),
            tam_required: false,
        };
        let key = Key::from_parts(kind, parts).expect("a key");
        assert_eq!(key.open(&envelope).is_ok(), kind == KeyType::Repokey);
    }
}

#[test]
fn nonces_are_counted_in_blocks() {
    let key = generated(KeyType::Repokey, 2);
    for (length, blocks) in [(0, 0), (1, 1), (16, 1), (17, 2), (20_971_479, 1_310_718)] {
        assert_eq!(key.nonce_blocks(length), blocks);
    }
    assert_eq!(generated(KeyType::Authenticated, 2).nonce_blocks(1000), 0);
}

#[test]
fn the_counter_carries_on_from_the_nonce() {
    // The second block sealed at nonce 5 is the first one sealed at nonce 6: the unit of nonces is one block.
    let key = generated(KeyType::Repokey, 9);
    let two = key.seal(&[0; 32], 5);
    let one = key.seal(&[0; 16], 6);
    assert_eq!(two[41 + 16..], one[41..]);
    let high = key.seal(&[1; 64], u64::MAX - 1);
    assert_eq!(key.open(&high).as_deref(), Ok(&[1; 64][..]), "the carry goes into the upper half");
}

#[test]
fn blobs_go_both_ways_for_every_type() {
    let repository = RepositoryId([8; 32]);
    for kind in KeyType::ALL {
        if matches!(kind, KeyType::None | KeyType::Passphrase) {
            continue;
        }
        let key = generated(kind, 3);
        let blob = lock(&key, repository, "Grüße".as_bytes(), 1, [4; 32]);
        assert!(blob.lines().all(|line| line.len() <= 70) && blob.ends_with('\n'));
        let locked = LockedKey::parse(&keyfile_text(repository, &blob)).expect("our own");
        assert_eq!(locked.iterations, 1);
        assert_eq!(locked.repository_id, Some(repository));
        let unlocked = locked.unlock("Grüße".as_bytes(), kind).expect("the right passphrase");
        assert_eq!(unlocked.key.seal(b"x", 1), key.seal(b"x", 1));
        assert_eq!(unlocked.key.id_key(), key.id_key());
        assert_eq!(unlocked.repository_id, repository);
        assert_eq!(locked.unlock(b"", kind).expect_err("wrong"), KeyBlobError::WrongPassphrase);
        let other = if kind.uses_blake2() { KeyType::Repokey } else { KeyType::RepokeyBlake2 };
        assert!(matches!(locked.unlock("Grüße".as_bytes(), other), Err(KeyBlobError::Length(_))));
    }
}

#[test]
fn texts_that_are_no_keys_are_refused() {
    for text in ["", "BORG_KEY", "BORG_KEY \n", "BORG_KEY zz\nAAAA", "hello", "AAAA", "====", "\u{e9}", "BORG_KEY 00"] {
        assert!(LockedKey::parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn sealing_and_opening(payload in proptest::collection::vec(any::<u8>(), 0..300), nonce: u64, kind in 0usize..8) {
        let key = any_key(KeyType::ALL[kind]);
        let envelope = key.seal(&payload, nonce);
        prop_assert_eq!(envelope.len(), payload.len() + key.key_type().overhead());
        let opened = key.open(&envelope);
        prop_assert_eq!(opened.as_deref(), Ok(payload.as_slice()));
        let mut out = b"before".to_vec();
        key.seal_into(&payload, nonce, &mut out);
        prop_assert_eq!(&out[6..], envelope.as_slice());
        let mut out = b"before".to_vec();
        key.open_into(&envelope, &mut out).expect("our own");
        prop_assert_eq!(&out[6..], payload.as_slice());
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "\\PC*") {
        for kind in KeyType::ALL {
            let _ = any_key(kind).open(&bytes).is_ok();
        }
        let _ = Key::envelope_nonce(&bytes);
        let _ = LockedKey::parse(&text).is_ok();
    }
}
