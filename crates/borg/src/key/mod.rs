//! Keys: what they are made of and what they do to an object.

mod envelope;
mod kind;

pub use envelope::EnvelopeError;
pub use kind::KeyType;

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{Id, RepositoryId};

/// Key material that does not fit its key type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} of a {kind} key has {found} bytes, {expected} are needed")]
pub struct BadLength {
    /// Which part.
    pub field: &'static str,
    /// The key type.
    pub kind: KeyType,
    /// What was there.
    pub found: usize,
    /// What the type needs.
    pub expected: usize,
}

/// A repository key: type, secrets and the chunker seed. Wiped from memory when dropped; `Debug` prints no secret.
#[derive(Clone)]
pub struct Key {
    kind: KeyType,
    enc_key: Zeroizing<Vec<u8>>,
    enc_hmac_key: Zeroizing<Vec<u8>>,
    id_key: Zeroizing<Vec<u8>>,
    chunk_seed: i32,
    tam_required: bool,
}

/// The parts of a key, for [`Key::from_parts`].
pub struct KeyParts<'a> {
    /// 32 bytes, empty for type none.
    pub enc_key: &'a [u8],
    /// 32 bytes, 128 for BLAKE2 types, empty for type none.
    pub enc_hmac_key: &'a [u8],
    /// 32 bytes, 128 for BLAKE2 types, empty for type none.
    pub id_key: &'a [u8],
    /// Seed of the chunker's table.
    pub chunk_seed: i32,
    /// Whether the manifest must be authenticated.
    pub tam_required: bool,
}

/// BLAKE2b with 32 bytes of output, unkeyed: Borg puts the key in front of the data instead.
pub(crate) type Blake2b256 = blake2::Blake2b<blake2::digest::consts::U32>;

impl Key {
    /// Puts a key together; lengths are checked against the type.
    pub fn from_parts(kind: KeyType, parts: KeyParts<'_>) -> Result<Key, BadLength> {
        let check = |field, bytes: &[u8], expected| {
            if bytes.len() == expected { Ok(()) } else { Err(BadLength { field, kind, found: bytes.len(), expected }) }
        };
        check("enc_key", parts.enc_key, kind.enc_key_length())?;
        check("enc_hmac_key", parts.enc_hmac_key, kind.hash_key_length())?;
        check("id_key", parts.id_key, kind.hash_key_length())?;
        Ok(Key {
            kind,
            enc_key: Zeroizing::new(parts.enc_key.to_vec()),
            enc_hmac_key: Zeroizing::new(parts.enc_hmac_key.to_vec()),
            id_key: Zeroizing::new(parts.id_key.to_vec()),
            chunk_seed: parts.chunk_seed,
            tam_required: parts.tam_required,
        })
    }

    /// The key of an unencrypted repository: no secrets at all.
    #[must_use]
    pub fn none() -> Key {
        Key {
            kind: KeyType::None,
            enc_key: Zeroizing::default(),
            enc_hmac_key: Zeroizing::default(),
            id_key: Zeroizing::default(),
            chunk_seed: 0,
            tam_required: false,
        }
    }

    /// A new key with bytes from `random`, which must fill the whole slice from a source fit for keys.
    ///
    /// The legacy passphrase type cannot be generated; it gives a key of type repokey.
    #[must_use]
    pub fn generate(kind: KeyType, random: &mut dyn FnMut(&mut [u8])) -> Key {
        let kind = if kind == KeyType::Passphrase { KeyType::Repokey } else { kind };
        if kind == KeyType::None {
            return Key::none();
        }
        let mut seed = [0; 4];
        random(&mut seed);
        Key {
            kind,
            enc_key: random_bytes(kind.enc_key_length(), random),
            enc_hmac_key: random_hash_key(kind, random),
            id_key: random_hash_key(kind, random),
            chunk_seed: i32::from_be_bytes(seed),
            tam_required: true,
        }
    }

    /// A key for a client that is not trusted with this one: the same object ids and chunk borders, everything else new.
    /// Its type stores without encryption (authenticated), so that the client spends nothing on it; type none stays none.
    #[must_use]
    pub fn client_key(&self, random: &mut dyn FnMut(&mut [u8])) -> Key {
        let kind = match self.kind {
            KeyType::None => return Key::none(),
            kind if kind.uses_blake2() => KeyType::AuthenticatedBlake2,
            _ => KeyType::Authenticated,
        };
        Key {
            kind,
            enc_key: random_bytes(kind.enc_key_length(), random),
            enc_hmac_key: random_hash_key(kind, random),
            id_key: self.id_key.clone(),
            chunk_seed: self.chunk_seed,
            tam_required: true,
        }
    }

    /// The key of a repository with legacy passphrase encryption (Borg 1.x: type byte 0x01, 100 000 iterations).
    #[must_use]
    pub fn from_passphrase(passphrase: &[u8], repository: RepositoryId) -> Key {
        let mut derived = Zeroizing::new([0; 100]);
        pbkdf2::pbkdf2_hmac::<Sha256>(passphrase, &repository.0, 100_000, derived.as_mut_slice());
        let seed = [derived[96], derived[97], derived[98], derived[99]];
        Key {
            kind: KeyType::Passphrase,
            enc_key: Zeroizing::new(derived[..32].to_vec()),
            enc_hmac_key: Zeroizing::new(derived[32..64].to_vec()),
            id_key: Zeroizing::new(derived[64..96].to_vec()),
            chunk_seed: i32::from_be_bytes(seed),
            tam_required: false,
        }
    }

    /// The type.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.kind
    }

    /// Secret for encryption and TAM.
    #[must_use]
    pub fn enc_key(&self) -> &[u8] {
        &self.enc_key
    }

    /// Secret for the MAC of envelopes and for TAM.
    #[must_use]
    pub fn enc_hmac_key(&self) -> &[u8] {
        &self.enc_hmac_key
    }

    /// Secret for object ids.
    #[must_use]
    pub fn id_key(&self) -> &[u8] {
        &self.id_key
    }

    /// Seed of the chunker's table; signed (Borg 1.x: XORed as u32).
    #[must_use]
    pub fn chunk_seed(&self) -> i32 {
        self.chunk_seed
    }

    /// Whether a manifest without TAM must be refused.
    #[must_use]
    pub fn tam_required(&self) -> bool {
        self.tam_required
    }

    /// Id of an object: the keyed hash of its plaintext (Borg 1.x: HMAC-SHA256; BLAKE2b with the key as prefix; plain SHA-256 for type none).
    #[must_use]
    pub fn id_hash(&self, plaintext: &[u8]) -> Id {
        if self.kind == KeyType::None {
            return Id(Sha256::digest(plaintext).into());
        }
        Id(self.keyed_hash(&self.id_key, &[plaintext]))
    }

    /// The MAC construction of this key type over the concatenation of `parts`.
    fn keyed_hash(&self, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        if self.kind.uses_blake2() {
            let mut hash = Blake2b256::new_with_prefix(key);
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().into()
        } else {
            self.hmac(key, parts).finalize().into_bytes().into()
        }
    }

    fn hmac(&self, key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
        // A key of any length is fine for HMAC; the default below is never used.
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

fn random_bytes(length: usize, random: &mut dyn FnMut(&mut [u8])) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    random(&mut bytes);
    bytes
}

/// BLAKE2 types have 64 random bytes followed by 64 zero bytes (Borg 1.x), the others 32 random ones.
fn random_hash_key(kind: KeyType, random: &mut dyn FnMut(&mut [u8])) -> Zeroizing<Vec<u8>> {
    let length = kind.hash_key_length();
    let mut bytes = Zeroizing::new(vec![0; length]);
    let secret = if kind.uses_blake2() { length / 2 } else { length };
    if let Some(part) = bytes.get_mut(..secret) {
        random(part);
    }
    bytes
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kind", &self.kind).field("tam_required", &self.tam_required).finish_non_exhaustive()
    }
}
