//! Keys: envelopes and the blobs that keys are kept in.

use crate::bytes::Bytes;
use borg::keyblob::{self, LockedKey};
use borg::{Key, KeyType, RepositoryId};

/// The repository of all tests here.
pub const REPOSITORY: RepositoryId = RepositoryId([0x5a; 32]);

/// A key made of predictable bytes.
#[must_use]
pub fn key(kind: KeyType, seed: u8) -> Key {
    let mut n = seed;
    Key::generate(kind, &mut |bytes| {
        for byte in bytes {
            n = n.wrapping_mul(31).wrapping_add(7);
            *byte = n;
        }
    })
}

/// An object: any bytes under any key are refused or opened, and nobody opens what another key has sealed.
pub fn envelope(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let kind = KeyType::ALL[bytes.below(8)];
    let (ours, theirs) = (key(kind, 1), key(kind, 2));
    let nonce = u64::from(bytes.byte()) << (bytes.below(8) * 8);
    let mut flip = bytes.below(256);
    let input = bytes.rest();
    let _ = Key::envelope_nonce(input);
    let mut out = b"before".to_vec();
    match (ours.open(input), ours.open_into(input, &mut out)) {
        (Ok(payload), Ok(())) => {
            assert_eq!(out[6..], *payload);
            assert!(!ours.key_type().is_encrypted(), "nobody guesses an authentication code");
        }
        (Err(one), Err(other)) => {
            assert_eq!(one, other);
            assert_eq!(out, b"before", "a failed open leaves nothing behind");
        }
        other => panic!("two ways to open differ: {other:?}"),
    }
    let sealed = ours.seal(input, nonce);
    assert_eq!(sealed.len(), input.len() + ours.key_type().overhead());
    assert_eq!(ours.open(&sealed).as_deref(), Ok(input));
    if ours.key_type().is_encrypted() {
        assert_eq!(Key::envelope_nonce(&sealed), Some(nonce));
        assert!(theirs.open(&sealed).is_err(), "another key opens it");
        flip %= sealed.len();
        let mut damaged = sealed.clone();
        damaged[flip] ^= 1 << (input.len() % 8);
        // The type byte alone is not authenticated (Borg 1.x), and has one other value that a repokey still reads.
        assert!(ours.open(&damaged).is_err() || flip == 0, "damage at {flip} goes unnoticed");
    }
}

/// The text of a key. The first byte says whether the rest is that text, or the parts of a key to lock and unlock.
pub fn keyblob(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let kind = [KeyType::Repokey, KeyType::AuthenticatedBlake2, KeyType::None][bytes.below(3)];
    if bytes.rarely(4) {
        let key = key(kind, bytes.byte());
        let passphrase = bytes.rest();
        let blob = keyblob::lock(&key, REPOSITORY, passphrase, 1, [9; 32]);
        for text in [blob.clone(), blob.replace('\n', ""), keyblob::keyfile_text(REPOSITORY, &blob)] {
            let unlocked = LockedKey::parse(&text).and_then(|locked| locked.unlock(passphrase, kind)).expect("our own blob opens");
            assert_eq!((unlocked.repository_id, unlocked.key.id_key()), (REPOSITORY, key.id_key()));
            assert_eq!((unlocked.key.chunk_seed(), unlocked.tam_required), (key.chunk_seed(), Some(key.tam_required())));
        }
        return;
    }
    // Of the two forms, text as it is stored and what is inside its base64, the second is where there is something to find.
    let input = bytes.rest();
    unlock(&String::from_utf8_lossy(input), kind);
    unlock(&base64(input), kind);
}

fn unlock(text: &str, kind: KeyType) {
    if let Ok(mut locked) = LockedKey::parse(text) {
        assert!((1..=keyblob::MAX_ITERATIONS).contains(&locked.iterations));
        locked.iterations = 1;
        if let Ok(unlocked) = locked.unlock(b"a passphrase", kind) {
            assert_eq!(unlocked.key.key_type(), kind);
        }
    }
}

/// Base64 as keys are written in.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
