//! From an open repository and the credentials to its key and manifest.

use crate::credentials::Credentials;
use crate::failures::of_repository;
use borg::key::EnvelopeError;
use borg::keyblob::{KeyBlobError, LockedKey};
use borg::manifest::{Manifest, ManifestError};
use borg::{Id, Key, KeyType};
use model::{Cause, EncryptionMode, Failure};
use repository::{Error, Repository};

/// A repository that its key has opened.
pub struct Unlocked {
    /// The real key.
    pub key: Key,
    /// The real manifest, authenticated.
    pub manifest: Manifest,
    /// How it is encrypted.
    pub encryption: EncryptionMode,
    /// The first nonce above the manifest's own; None for types without encryption.
    pub nonce_above_manifest: Option<u64>,
}

/// Reads the manifest, which tells the key's type, finds the key, and checks one with the other.
pub fn unlock(repository: &mut Repository, credentials: &Credentials) -> Result<Unlocked, Failure> {
    let envelope = match repository.get(&Id::MANIFEST) {
        Err(Error::ObjectNotFound(_)) => {
            return Err(Failure::new(Cause::RepositoryInvalid, "the repository has no manifest; it was never completed, or it is damaged"));
        }
        other => other.map_err(|e| of_repository(&e))?,
    };
    let kind = envelope.first().copied().and_then(KeyType::from_byte);
    let Some(kind) = kind else {
        return Err(Failure::new(Cause::RepositoryInvalid, "the manifest's encryption is none of Borg 1.x"));
    };
    // Borg 1.x treats the old passphrase type as migrated to repokey.
    let kind = if kind == KeyType::Passphrase { KeyType::Repokey } else { kind };
    let key = find_key(repository, credentials, kind)?;
    let integrity = |what: String| Failure::new(Cause::RepositoryIntegrity, what);
    let payload = key.open(&envelope).map_err(|e: EnvelopeError| integrity(format!("the manifest: {e}")))?;
    let plain = borg::compress::decompress(&payload, borg::MAX_PLAINTEXT).map_err(|e| integrity(format!("the manifest: {e}")))?;
    let manifest = Manifest::parse(&plain, &key).map_err(|e| match e {
        ManifestError::Unsupported => Failure::new(Cause::RepositoryInvalid, e.to_string()),
        e => integrity(unix::logging::escape(&e.to_string())),
    })?;
    let features = manifest.mandatory_features("write");
    if !features.is_empty() {
        let names = unix::logging::escape(&features.join(", "));
        return Err(Failure::new(Cause::RepositoryInvalid, format!("the repository needs features that Borg 1.x does not have: {names}")));
    }
    let nonce = Key::envelope_nonce(&envelope).filter(|_| key.key_type().is_encrypted());
    let nonce_above_manifest = nonce.map(|nonce| nonce.saturating_add(key.nonce_blocks(payload.len())));
    Ok(Unlocked { encryption: mode(kind), key, manifest, nonce_above_manifest })
}

fn find_key(repository: &mut Repository, credentials: &Credentials, kind: KeyType) -> Result<Key, Failure> {
    let missing = |what: &str| Failure::new(Cause::KeyMissing, what);
    let text = match kind {
        KeyType::None => return Ok(Key::none()),
        kind if kind.is_keyfile() => match &credentials.key {
            Some(key) => key.to_string(),
            None => return Err(missing("the repository is encrypted with a keyfile, and no keyfile was given")),
        },
        _ => match repository.load_key().map_err(|e| of_repository(&e))? {
            Some(blob) => String::from_utf8(blob).map_err(|_| missing("the key in the repository's config is no text"))?,
            None => return Err(missing("the repository's config holds no key")),
        },
    };
    let locked = LockedKey::parse(&text).map_err(|e| missing(&e.to_string()))?;
    if locked.repository_id.is_some_and(|id| id != repository.id()) {
        return Err(missing("the keyfile belongs to another repository"));
    }
    let passphrase = credentials.passphrase.as_ref().map_or(&[][..], |p| p.as_slice());
    let unlocked = locked.unlock(passphrase, kind).map_err(|e| match e {
        KeyBlobError::WrongPassphrase if credentials.passphrase.is_none() => {
            Failure::new(Cause::PassphraseWrong, "the repository's key needs a passphrase, and none was given")
        }
        KeyBlobError::WrongPassphrase => Failure::new(Cause::PassphraseWrong, "the passphrase does not open the repository's key"),
        e => missing(&e.to_string()),
    })?;
    if unlocked.repository_id != repository.id() {
        return Err(missing("the key belongs to another repository"));
    }
    Ok(unlocked.key)
}

/// The mode of a key type.
pub fn mode(kind: KeyType) -> EncryptionMode {
    match kind {
        KeyType::None => EncryptionMode::None,
        KeyType::Repokey | KeyType::Passphrase => EncryptionMode::Repokey,
        KeyType::Keyfile => EncryptionMode::Keyfile,
        KeyType::RepokeyBlake2 => EncryptionMode::RepokeyBlake2,
        KeyType::KeyfileBlake2 => EncryptionMode::KeyfileBlake2,
        KeyType::Authenticated => EncryptionMode::Authenticated,
        KeyType::AuthenticatedBlake2 => EncryptionMode::AuthenticatedBlake2,
    }
}

/// The key type of a mode.
pub fn key_type(mode: EncryptionMode) -> KeyType {
    match mode {
        EncryptionMode::None => KeyType::None,
        EncryptionMode::Repokey => KeyType::Repokey,
        EncryptionMode::Keyfile => KeyType::Keyfile,
        EncryptionMode::RepokeyBlake2 => KeyType::RepokeyBlake2,
        EncryptionMode::KeyfileBlake2 => KeyType::KeyfileBlake2,
        EncryptionMode::Authenticated => KeyType::Authenticated,
        EncryptionMode::AuthenticatedBlake2 => KeyType::AuthenticatedBlake2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_types_agree() {
        for wanted in EncryptionMode::ALL {
            assert_eq!(mode(key_type(wanted)), wanted);
            assert_eq!(key_type(wanted).init_name(), wanted.as_str());
        }
    }
}
