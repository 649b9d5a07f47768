//! Objects as they are stored: type byte, and for encrypted types MAC, nonce and ciphertext.

use std::borrow::Cow;

use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::Mac;
use subtle::ConstantTimeEq;

use super::{Key, KeyType};

type Aes256Ctr = ctr::Ctr128BE<Aes256>;

/// Type byte, MAC and nonce.
const ENCRYPTED_OVERHEAD: usize = 41;

/// An object that this key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not even a type byte, or no room for MAC and nonce.
    #[error("the object is only {0} bytes long, too short for its envelope")]
    TooShort(usize),
    /// The type byte (which no MAC covers) is not this key's.
    #[error("the object carries key type {found:#04x}, the key is of type {expected}")]
    WrongType {
        /// The key's type.
        expected: KeyType,
        /// The object's first byte.
        found: u8,
    },
    /// Somebody changed the object, or it belongs to another key.
    #[error("the object's authentication code is wrong: it was damaged or sealed with another key")]
    BadMac,
}

impl Key {
    /// How many AES blocks of nonce space a payload of this length uses up (Borg 1.x: ceil(length / 16)); 0 for types
    /// without encryption.
    #[must_use]
    pub fn nonce_blocks(&self, payload_length: usize) -> u64 {
        if self.key_type().is_encrypted() { payload_length.div_ceil(16) as u64 } else { 0 }
    }

    /// Wraps a compressed payload. `nonce` is the first AES block number; no range of blocks may ever be used twice under
    /// one key. Types without encryption ignore it.
    #[must_use]
    pub fn seal(&self, payload: &[u8], nonce: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + self.key_type().overhead());
        self.seal_into(payload, nonce, &mut out);
        out
    }

    /// Like [`Key::seal`], appending to `out`.
    pub fn seal_into(&self, payload: &[u8], nonce: u64, out: &mut Vec<u8>) {
        out.reserve(payload.len() + self.key_type().overhead());
        out.push(self.key_type().byte());
        if !self.key_type().is_encrypted() {
            out.extend_from_slice(payload);
            return;
        }
        let mac_at = out.len();
        out.extend_from_slice(&[0; 32]);
        out.extend_from_slice(&nonce.to_be_bytes());
        out.extend_from_slice(payload);
        let (mac, authenticated) = out[mac_at..].split_at_mut(32);
        self.keystream(nonce.to_be_bytes(), &mut authenticated[8..]);
        mac.copy_from_slice(&self.keyed_hash(self.enc_hmac_key(), &[authenticated]));
    }

    /// Unwraps an object to its compressed payload: checks the type byte, and MAC in constant time.
    pub fn open<'a>(&self, envelope: &'a [u8]) -> Result<Cow<'a, [u8]>, EnvelopeError> {
        if !self.key_type().is_encrypted() {
            return self.check_type(envelope).map(Cow::Borrowed);
        }
        let mut out = Vec::new();
        self.open_into(envelope, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// Like [`Key::open`], appending the payload to `out`, which is untouched on errors.
    pub fn open_into(&self, envelope: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let body = self.check_type(envelope)?;
        if !self.key_type().is_encrypted() {
            out.extend_from_slice(body);
            return Ok(());
        }
        let too_short = EnvelopeError::TooShort(envelope.len());
        let (mac, authenticated) = body.split_first_chunk::<32>().ok_or(too_short)?;
        let (nonce, ciphertext) = authenticated.split_first_chunk::<8>().ok_or(too_short)?;
        let genuine = if self.key_type().uses_blake2() {
            bool::from(self.keyed_hash(self.enc_hmac_key(), &[authenticated]).ct_eq(mac))
        } else {
            self.hmac(self.enc_hmac_key(), &[authenticated]).verify_slice(mac).is_ok()
        };
        if !genuine {
            return Err(EnvelopeError::BadMac);
        }
        let start = out.len();
        out.extend_from_slice(ciphertext);
        self.keystream(*nonce, &mut out[start..]);
        Ok(())
    }

    /// The nonce an encrypted object was sealed with; `None` for types without encryption. Nothing is authenticated.
    #[must_use]
    pub fn envelope_nonce(envelope: &[u8]) -> Option<u64> {
        let kind = KeyType::from_byte(*envelope.first()?)?;
        if !kind.is_encrypted() {
            return None;
        }
        let nonce = envelope.get(33..ENCRYPTED_OVERHEAD)?.try_into().ok()?;
        Some(u64::from_be_bytes(nonce))
    }

    fn check_type<'a>(&self, envelope: &'a [u8]) -> Result<&'a [u8], EnvelopeError> {
        let (&found, body) = envelope.split_first().ok_or(EnvelopeError::TooShort(0))?;
        let expected = self.key_type();
        // Repositories that were migrated from passphrase to repokey still hold objects of the old type.
        let migrated = expected == KeyType::Repokey && found == KeyType::Passphrase.byte();
        if found == expected.byte() || migrated { Ok(body) } else { Err(EnvelopeError::WrongType { expected, found }) }
    }

    fn keystream(&self, nonce: [u8; 8], data: &mut [u8]) {
        let mut counter = [0; 16];
        counter[8..].copy_from_slice(&nonce);
        // Encrypted types have 32-byte keys by construction, so this cannot fail.
        if let Ok(mut cipher) = Aes256Ctr::new_from_slices(self.enc_key(), &counter) {
            cipher.apply_keystream(data);
        }
    }
}
