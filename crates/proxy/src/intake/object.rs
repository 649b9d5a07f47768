//! One object that a client puts.

use crate::rules::Rule;
use crate::stop::Stop;
use borg::archive::Archive;
use borg::compress::{Compressor, DecompressError, Decompressor, is_plain, obfuscate, unwrap_obfuscated};
use borg::tam::Status;
use borg::{Id, Key, MAX_OBJECT, MAX_PLAINTEXT};
use std::borrow::Cow;
use subtle::ConstantTimeEq;

/// The largest payload: the owner's envelope adds 41 bytes (Borg 1.x, encrypted types), and the result must fit.
pub const MAX_PAYLOAD: usize = MAX_OBJECT - 41;

/// An object that was found right.
#[derive(Debug, PartialEq, Eq)]
pub struct Examined<'a> {
    /// Bytes of its plaintext.
    pub size: u32,
    /// It is archive metadata signed with the client key, which never becomes a chunk; the payload is the client's.
    pub is_archive: bool,
    /// What may be stored: either a form that every decoder reads alike, or what our own encoder made of the plaintext.
    pub payload: Cow<'a, [u8]>,
}

/// Verifies objects against the client key, with memory that is kept from one object to the next.
pub struct Verifier {
    key: Key,
    decompressor: Decompressor,
    compressor: Compressor,
    obfuscates: bool,
}

impl Verifier {
    /// None if objects of this key are encrypted: a client key never is, so that this process has nothing to decrypt.
    pub fn new(key: Key) -> Option<Verifier> {
        let (decompressor, compressor) = (Decompressor::new(), Compressor::new());
        if key.key_type().is_encrypted() { None } else { Some(Verifier { key, decompressor, compressor, obfuscates: false }) }
    }

    /// Whether obfuscation is kept; without it only what was obfuscated is. (Borg 1.1 cannot read it, and it makes chunks
    /// larger that clients share.)
    pub fn obfuscating(self, obfuscates: bool) -> Verifier {
        Verifier { obfuscates, ..self }
    }

    /// The client key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The client key alone.
    pub fn into_key(self) -> Key {
        self.key
    }

    /// The payload inside an envelope.
    pub fn payload<'a>(&self, envelope: &'a [u8]) -> Result<&'a [u8], Stop> {
        let expected = self.key.key_type().byte();
        let Some((&found, payload)) = envelope.split_first() else {
            return Err(Rule::ObjectSize.broken("an object of no bytes"));
        };
        if found != expected {
            Rule::ObjectType.breach(format!("type {found:#04x} instead of {expected:#04x}"))?;
        }
        if payload.len() > MAX_PAYLOAD {
            Rule::ObjectSize.breach(format!("an object of {} bytes", envelope.len()))?;
        }
        Ok(payload)
    }

    /// The plaintext of a payload.
    pub fn plaintext<'a>(&'a mut self, payload: &'a [u8], what: &str) -> Result<&'a [u8], Stop> {
        self.decompressor.decompress(payload, MAX_PLAINTEXT).map_err(|error| match error {
            DecompressError::TooLarge { .. } => Rule::ObjectCompression.broken(format!("{what} is larger than 20 MiB")),
            error => Rule::ObjectCompression.broken(format!("{what}: {error}")),
        })
    }

    /// The plaintext of a payload whose id must be `id`.
    pub fn verified<'a>(&'a mut self, id: &Id, payload: &'a [u8]) -> Result<&'a [u8], Stop> {
        verified(&self.key, &mut self.decompressor, id, payload)
    }

    /// Like [`Verifier::verified`], for an object that is put.
    pub fn examine<'a>(&mut self, id: &Id, payload: &'a [u8]) -> Result<Examined<'a>, Stop> {
        let plaintext = verified(&self.key, &mut self.decompressor, id, payload)?;
        let size = u32::try_from(plaintext.len()).map_err(|_| Rule::ObjectSize.broken("an object beyond 4 GiB"))?;
        // Cheap for nearly everything else: a map begins with one of few bytes, and the first unknown thing ends the look.
        if matches!(plaintext.first(), Some(0x80..=0x8f | 0xde | 0xdf))
            && matches!(Archive::verify_tam(plaintext, &self.key), Ok(Status::Verified))
        {
            return Ok(Examined { size, is_archive: true, payload: Cow::Borrowed(payload) });
        }
        let (inner, obfuscated) = unwrap_obfuscated(payload).map_err(|error| undecodable(id, &error))?;
        // Another decoder may read something else from a frame that a stranger made, or nothing: ours is stored.
        let inner = if is_plain(inner) { Cow::Borrowed(inner) } else { Cow::Owned(self.compressor.compress(plaintext)) };
        let payload = if obfuscated && self.obfuscates { Cow::Owned(obfuscate(&inner, payload.len())) } else { inner };
        if payload.len() > MAX_PAYLOAD {
            Rule::ObjectSize.breach(format!("object {id} has {} bytes when compressed anew", payload.len()))?;
        }
        Ok(Examined { size, is_archive: false, payload })
    }
}

/// Apart from [`Verifier`], so that the key can be used while the plaintext is borrowed.
fn verified<'a>(key: &Key, decompressor: &'a mut Decompressor, id: &Id, payload: &'a [u8]) -> Result<&'a [u8], Stop> {
    let plaintext = match decompressor.decompress(payload, MAX_PLAINTEXT) {
        Ok(plaintext) => plaintext,
        Err(error) => return Err(undecodable(id, &error)),
    };
    if !bool::from(key.id_hash(plaintext).0.ct_eq(&id.0)) {
        Rule::ChunkId.breach(format!("object {id} has the id of something else"))?;
    }
    Ok(plaintext)
}

fn undecodable(id: &Id, error: &DecompressError) -> Stop {
    Rule::ObjectCompression.broken(format!("object {id}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::KeyType;
    use borg::compress::{Compression, compress};

    fn key(kind: KeyType) -> Key {
        let mut n = 0u8;
        Key::generate(kind, &mut |bytes| {
            for byte in bytes {
                n = n.wrapping_add(37);
                *byte = n;
            }
        })
    }

    fn rule<T>(result: Result<T, Stop>) -> String {
        match result {
            Err(Stop::Violation(violation)) => violation.rule,
            _ => "accepted".into(),
        }
    }

    #[test]
    fn a_right_object_passes_in_every_compression() {
        for kind in [KeyType::None, KeyType::Authenticated, KeyType::AuthenticatedBlake2] {
            let mut verifier = Verifier::new(key(kind)).unwrap();
            for compression in [Compression::None, Compression::Lz4, Compression::Zstd(3), Compression::Zlib(6), Compression::Lzma(0)] {
                let plain = vec![b'x'; 100_000];
                let envelope = verifier.key().seal(&compress(compression, &plain), 0);
                let id = verifier.key().id_hash(&plain);
                let payload = verifier.payload(&envelope).unwrap();
                assert_eq!(verifier.verified(&id, payload).unwrap(), plain);
            }
        }
        assert!(Verifier::new(key(KeyType::Repokey)).is_none());
    }

    #[test]
    fn a24_a33_a45_wrong_objects_are_named() {
        let mut verifier = Verifier::new(key(KeyType::Authenticated)).unwrap();
        let plain = b"hello".to_vec();
        let id = verifier.key().id_hash(&plain);
        assert_eq!(rule(verifier.payload(b"\x03\0\0hello")), "object-type");
        assert_eq!(rule(verifier.payload(b"")), "object-size");
        assert_eq!(rule(verifier.payload(&vec![7; MAX_PAYLOAD + 2])), "object-size");
        assert_eq!(rule(verifier.verified(&id, b"\0\0hellp")), "chunk-id");
        assert_eq!(rule(verifier.verified(&Id::MANIFEST, b"\0\0hello")), "chunk-id");
        assert_eq!(rule(verifier.verified(&id, b"")), "object-compression");
        assert_eq!(rule(verifier.verified(&id, b"\x09\x09hello")), "object-compression");
        for compression in [Compression::Zstd(3), Compression::Zlib(9), Compression::Lz4] {
            let bomb = compress(compression, &vec![0; MAX_PLAINTEXT + 1]);
            assert!(bomb.len() < MAX_PLAINTEXT / 100);
            assert_eq!(rule(verifier.verified(&id, &bomb)), "object-compression");
            let wrapped = [&[4, 0][..], &(bomb.len() as u32).to_be_bytes(), &bomb].concat();
            assert_eq!(rule(verifier.verified(&id, &wrapped)), "object-compression");
        }
        let nested = [4, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0];
        assert_eq!(rule(verifier.verified(&id, &nested)), "object-compression");
    }
}
