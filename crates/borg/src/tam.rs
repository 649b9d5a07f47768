//! TAM: what proves that a manifest or an archive was written by somebody who has the key.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::msgpack::{self, Reader, Writer};
use crate::{Key, KeyType};

/// The only suite of Borg 1.x.
pub const SUITE: &[u8] = b"HKDF_HMAC_SHA512";

/// What is authenticated: a proof for one is none for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// The manifest.
    Manifest,
    /// Archive metadata.
    Archive,
}

impl Context {
    const fn name(self) -> &'static [u8] {
        match self {
            Context::Manifest => b"manifest",
            Context::Archive => b"archive",
        }
    }
}

/// The state of an object's TAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Present and right.
    Verified,
    /// There is none.
    Missing,
    /// Present, of a suite that Borg 1.x does not know; nothing was checked.
    UnknownSuite,
}

/// A TAM that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TamError {
    /// The proof is wrong.
    #[error("the metadata's authentication (TAM) is wrong: it was not written with this key")]
    Invalid,
    /// There must be a proof and there is none.
    #[error("the metadata is not authenticated (no TAM), and the key requires it")]
    Required,
    /// There must be a proof of the known suite.
    #[error("the metadata's authentication (TAM) is of an unknown kind, and the key requires a valid one")]
    UnsupportedSuite,
    /// The `tam` map is not as Borg writes it.
    #[error("the metadata's authentication (TAM) is malformed")]
    Malformed,
}

/// The `tam` map inside a packed manifest or archive.
#[derive(Debug, Clone, Copy)]
pub struct Tam<'a> {
    /// The suite's name.
    pub suite: &'a [u8],
    /// The proof, 64 bytes.
    pub hmac: &'a [u8],
    /// The salt, 64 bytes.
    pub salt: &'a [u8],
}

impl<'a> Tam<'a> {
    /// Reads the map that is the next value. Fields may be missing only for unknown suites.
    pub fn read(reader: &mut Reader<'a>) -> Result<Tam<'a>, msgpack::Error> {
        let mut tam = Tam { suite: b"", hmac: b"", salt: b"" };
        for _ in 0..reader.read_map_len()? {
            match reader.read_raw()? {
                b"type" => tam.suite = reader.read_raw()?,
                b"hmac" => tam.hmac = reader.read_raw()?,
                b"salt" => tam.salt = reader.read_raw()?,
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        Ok(tam)
    }
}

/// Appends a `tam` map with a proof of 64 zero bytes, to be filled by [`sign`]; returns where those bytes are.
pub(crate) fn write_blank(writer: &mut Writer, salt: &[u8; 64]) -> usize {
    writer.map(3);
    writer.raw(b"hmac");
    writer.raw_head(64);
    let position = writer.len();
    writer.bytes_of_raw(&[0; 64]);
    writer.raw(b"salt");
    writer.raw(salt);
    writer.raw(b"type");
    writer.raw(SUITE);
    position
}

/// Fills the 64 zero bytes at `position` of a packed map with the proof over the whole map.
pub(crate) fn sign_at(key: &Key, context: Context, packed: &mut [u8], position: usize, salt: &[u8; 64]) {
    let proof = sign(key, context, packed, salt);
    if let Some(place) = packed.get_mut(position..position + 64) {
        place.copy_from_slice(&proof);
    }
}

/// The proof over a packed map whose own proof is 64 zero bytes (Borg 1.x: HMAC-SHA512 under an HKDF-SHA512 key).
#[must_use]
pub fn sign(key: &Key, context: Context, packed_with_zeros: &[u8], salt: &[u8]) -> [u8; 64] {
    let mut mac = keyed(key, context, salt);
    mac.update(packed_with_zeros);
    mac.finalize().into_bytes().into()
}

/// Checks the proof of a packed map. `None` stands for a map without `tam`.
///
/// Like Borg this takes the first place where the proof's 64 bytes occur for the proof itself, so that no bytes exist
/// that pass here and fail there.
pub fn verify(key: &Key, context: Context, packed: &[u8], tam: Option<&Tam<'_>>) -> Result<Status, TamError> {
    let Some(tam) = tam else { return Ok(Status::Missing) };
    if tam.suite != SUITE {
        return Ok(Status::UnknownSuite);
    }
    if tam.hmac.len() != 64 || tam.salt.len() != 64 {
        return Err(TamError::Malformed);
    }
    let position = packed.windows(64).position(|window| window == tam.hmac).ok_or(TamError::Malformed)?;
    let (before, rest) = packed.split_at(position);
    let (_, after) = rest.split_at(64);
    let mut mac = keyed(key, context, tam.salt);
    mac.update(before);
    mac.update(&[0; 64]);
    mac.update(after);
    mac.verify_slice(tam.hmac).map_err(|_| TamError::Invalid)?;
    Ok(Status::Verified)
}

impl Status {
    /// Turns a status into an error where the key requires a proof.
    pub fn require(self, required: bool) -> Result<Status, TamError> {
        match self {
            Status::Missing if required => Err(TamError::Required),
            Status::UnknownSuite if required => Err(TamError::UnsupportedSuite),
            status => Ok(status),
        }
    }
}

fn keyed(key: &Key, context: Context, salt: &[u8]) -> Hmac<Sha512> {
    let derived = derive(key, context, salt);
    // A key of any length is fine for HMAC; the default below is never used.
    Hmac::<Sha512>::new_from_slice(&derived).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

fn derive(key: &Key, context: Context, salt: &[u8]) -> Zeroizing<Vec<u8>> {
    if key.key_type() == KeyType::None {
        return Zeroizing::new([salt, context.name()].concat());
    }
    let secrets = Zeroizing::new([key.id_key(), key.enc_key(), key.enc_hmac_key()].concat());
    let info = [b"borg-metadata-authentication-".as_slice(), context.name()].concat();
    let mut derived = Zeroizing::new(vec![0; 64]);
    // HKDF fails only beyond 255 blocks of output; this is one.
    let filled = Hkdf::<Sha512>::new(Some(salt), &secrets).expand(&info, &mut derived);
    debug_assert!(filled.is_ok());
    derived
}
