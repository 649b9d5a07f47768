//! Key blobs: the passphrase-protected form of a key, as it stands in a repository's config, in keyfiles, and as
//! `load_key` answers it.

use aes::Aes256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ctr::cipher::{KeyIvInit, StreamCipher};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::key::{BadLength, KeyParts};
use crate::msgpack::{self, Limits, Reader, Writer};
use crate::{Key, KeyType, RepositoryId};

/// Most PBKDF2 rounds this reader performs (some ten seconds); Borg writes 100 000.
pub const MAX_ITERATIONS: u32 = 100_000_000;

const LIMITS: Limits = Limits { depth: 4, elements: 10, raw: 4000, values: 64, old_spec_only: false };

/// A key blob that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyBlobError {
    /// Neither base64 nor keyfile text.
    #[error("this is not the text of a Borg key")]
    NotAKey,
    /// msgpack that is not understood.
    #[error("the key's data is malformed: {0}")]
    Malformed(#[from] msgpack::Error),
    /// A field is missing, twice there, or unknown in version or algorithm.
    #[error("the key's field {0:?} is missing or not supported")]
    Field(&'static str),
    /// PBKDF2 rounds of 0 or beyond [`MAX_ITERATIONS`].
    #[error("the key asks for {0} rounds of key derivation")]
    Iterations(u64),
    /// The passphrase does not open this key.
    #[error("the passphrase is wrong (or the key is damaged)")]
    WrongPassphrase,
    /// Key material of the wrong length for the key type given.
    #[error(transparent)]
    Length(#[from] BadLength),
}

/// A key blob as read, still protected by its passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedKey {
    /// The repository named in the first line of a keyfile.
    pub repository_id: Option<RepositoryId>,
    /// PBKDF2 rounds.
    pub iterations: u32,
    salt: Vec<u8>,
    data: Vec<u8>,
    hash: [u8; 32],
}

/// What a key blob holds.
#[derive(Debug, Clone)]
pub struct UnlockedKey {
    /// The key; `tam_required` is false if the blob does not say.
    pub key: Key,
    /// The repository the key belongs to; the caller compares.
    pub repository_id: RepositoryId,
    /// What the blob says about TAM; old ones say nothing.
    pub tam_required: Option<bool>,
}

impl LockedKey {
    /// Reads keyfile text (`BORG_KEY <id>` and base64 lines) or the bare base64 of a repokey, wrapped or not.
    pub fn parse(text: &str) -> Result<LockedKey, KeyBlobError> {
        let text = text.trim();
        let (repository_id, encoded) = match text.strip_prefix("BORG_KEY ") {
            Some(rest) => {
                let (id, encoded) = rest.split_once('\n').ok_or(KeyBlobError::NotAKey)?;
                (Some(RepositoryId::from_hex(id.trim()).map_err(|_| KeyBlobError::NotAKey)?), encoded)
            }
            None => (None, text),
        };
        let encoded: Vec<u8> = encoded.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let packed = BASE64.decode(encoded).map_err(|_| KeyBlobError::NotAKey)?;
        let mut locked = LockedKey::unpack(&packed)?;
        locked.repository_id = repository_id;
        Ok(locked)
    }

    fn unpack(packed: &[u8]) -> Result<LockedKey, KeyBlobError> {
        let mut reader = Reader::with_limits(packed, LIMITS);
        let (mut version, mut algorithm, mut iterations) = (None, None, None);
        let (mut salt, mut data, mut hash) = (None, None, None);
        for _ in 0..reader.read_map_len()? {
            match reader.read_raw()? {
                b"version" => version = Some(reader.read_uint()?),
                b"algorithm" => algorithm = Some(reader.read_raw()?),
                b"iterations" => iterations = Some(reader.read_uint()?),
                b"salt" => salt = Some(reader.read_raw()?),
                b"data" => data = Some(reader.read_raw()?),
                b"hash" => hash = Some(reader.read_array_of::<32>()?),
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        reader.finish()?;
        if version != Some(1) {
            return Err(KeyBlobError::Field("version"));
        }
        if algorithm != Some(b"sha256".as_slice()) {
            return Err(KeyBlobError::Field("algorithm"));
        }
        let rounds = iterations.ok_or(KeyBlobError::Field("iterations"))?;
        let iterations =
            u32::try_from(rounds).ok().filter(|rounds| (1..=MAX_ITERATIONS).contains(rounds)).ok_or(KeyBlobError::Iterations(rounds))?;
        Ok(LockedKey {
            repository_id: None,
            iterations,
            salt: salt.ok_or(KeyBlobError::Field("salt"))?.to_vec(),
            data: data.ok_or(KeyBlobError::Field("data"))?.to_vec(),
            hash: hash.ok_or(KeyBlobError::Field("hash"))?,
        })
    }

    /// Opens the blob. The key type is not part of it: the first byte of the manifest's envelope tells it.
    pub fn unlock(&self, passphrase: &[u8], kind: KeyType) -> Result<UnlockedKey, KeyBlobError> {
        let kek = derive(passphrase, &self.salt, self.iterations);
        let mut inner = Zeroizing::new(self.data.clone());
        keystream(&kek, &mut inner);
        mac(&kek, &inner).verify_slice(&self.hash).map_err(|_| KeyBlobError::WrongPassphrase)?;
        unpack_inner(&inner, kind)
    }
}

fn unpack_inner(packed: &[u8], kind: KeyType) -> Result<UnlockedKey, KeyBlobError> {
    let mut reader = Reader::with_limits(packed, LIMITS);
    let (mut version, mut repository_id, mut chunk_seed, mut tam_required) = (None, None, None, None);
    let (mut enc_key, mut enc_hmac_key, mut id_key) = (None, None, None);
    for _ in 0..reader.read_map_len()? {
        match reader.read_raw()? {
            b"version" => version = Some(reader.read_uint()?),
            b"repository_id" => repository_id = Some(RepositoryId(reader.read_array_of()?)),
            b"enc_key" => enc_key = Some(reader.read_raw()?),
            b"enc_hmac_key" => enc_hmac_key = Some(reader.read_raw()?),
            b"id_key" => id_key = Some(reader.read_raw()?),
            b"chunk_seed" => chunk_seed = Some(reader.read_int()?),
            b"tam_required" => tam_required = Some(reader.read_bool()?),
            _ => {
                reader.skip_value()?;
            }
        }
    }
    reader.finish()?;
    if version != Some(1) {
        return Err(KeyBlobError::Field("version"));
    }
    let seed = chunk_seed.ok_or(KeyBlobError::Field("chunk_seed"))?;
    let parts = KeyParts {
        enc_key: enc_key.ok_or(KeyBlobError::Field("enc_key"))?,
        enc_hmac_key: enc_hmac_key.ok_or(KeyBlobError::Field("enc_hmac_key"))?,
        id_key: id_key.ok_or(KeyBlobError::Field("id_key"))?,
        chunk_seed: i32::try_from(seed).map_err(|_| KeyBlobError::Field("chunk_seed"))?,
        tam_required: tam_required.unwrap_or(false),
    };
    Ok(UnlockedKey {
        key: Key::from_parts(kind, parts)?,
        repository_id: repository_id.ok_or(KeyBlobError::Field("repository_id"))?,
        tam_required,
    })
}

/// Protects a key with a passphrase: base64 wrapped at 70 columns with a newline after each line, as Borg stores it.
/// `salt` must be fresh random bytes. One iteration is enough for a random passphrase of full strength.
#[must_use]
pub fn lock(key: &Key, repository_id: RepositoryId, passphrase: &[u8], iterations: u32, salt: [u8; 32]) -> String {
    let iterations = iterations.max(1);
    let mut inner = Zeroizing::new(pack_inner(key, repository_id));
    let kek = derive(passphrase, &salt, iterations);
    let hash: [u8; 32] = mac(&kek, &inner).finalize().into_bytes().into();
    keystream(&kek, &mut inner);
    let mut writer = Writer::new();
    writer.map(6);
    writer.raw(b"algorithm");
    writer.raw(b"sha256");
    writer.raw(b"data");
    writer.raw(&inner);
    writer.raw(b"hash");
    writer.raw(&hash);
    writer.raw(b"iterations");
    writer.uint(u64::from(iterations));
    writer.raw(b"salt");
    writer.raw(&salt);
    writer.raw(b"version");
    writer.uint(1);
    let encoded = BASE64.encode(writer.bytes());
    let mut text = String::with_capacity(encoded.len() + encoded.len() / 70 + 1);
    for (position, letter) in encoded.chars().enumerate() {
        if position > 0 && position % 70 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push('\n');
    text
}

/// The text of a keyfile around a blob made by [`lock`].
#[must_use]
pub fn keyfile_text(repository_id: RepositoryId, blob: &str) -> String {
    format!("BORG_KEY {repository_id}\n{blob}")
}

fn pack_inner(key: &Key, repository_id: RepositoryId) -> Vec<u8> {
    // Reserved generously, so that no half-written copy of the secrets is left behind by a reallocation.
    let mut writer = Writer::append_to(Vec::with_capacity(512));
    writer.map(7);
    writer.raw(b"chunk_seed");
    writer.int(i64::from(key.chunk_seed()));
    writer.raw(b"enc_hmac_key");
    writer.raw(key.enc_hmac_key());
    writer.raw(b"enc_key");
    writer.raw(key.enc_key());
    writer.raw(b"id_key");
    writer.raw(key.id_key());
    writer.raw(b"repository_id");
    writer.raw(&repository_id.0);
    writer.raw(b"tam_required");
    writer.bool(key.tam_required());
    writer.raw(b"version");
    writer.uint(1);
    writer.into_bytes()
}

fn derive(passphrase: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    let mut kek = Zeroizing::new([0; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(passphrase, salt, iterations, kek.as_mut_slice());
    kek
}

fn keystream(kek: &[u8; 32], data: &mut [u8]) {
    ctr::Ctr128BE::<Aes256>::new(kek.into(), &[0; 16].into()).apply_keystream(data);
}

fn mac(kek: &[u8; 32], inner: &[u8]) -> Hmac<Sha256> {
    // A key of any length is fine for HMAC; the default below is never used.
    let mut mac = Hmac::<Sha256>::new_from_slice(kek).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(inner);
    mac
}
