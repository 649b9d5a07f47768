//! The secrets of one repository: files `passphrase` and `key` in `$CREDENTIALS_DIRECTORY`.

use model::{Cause, Failure};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Names of the files.
pub const PASSPHRASE: &str = "passphrase";
/// See [`PASSPHRASE`].
pub const KEY: &str = "key";

/// What was found.
#[derive(Default)]
pub struct Credentials {
    /// Without the line break that editors and `echo` leave.
    pub passphrase: Option<Zeroizing<Vec<u8>>>,
    /// The text of a keyfile.
    pub key: Option<Zeroizing<String>>,
}

impl Credentials {
    /// Tells whether they are still the same, without keeping them.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [self.passphrase.as_ref().map(|p| p.as_slice()), self.key.as_ref().map(|key| key.as_bytes())] {
            hash.update(part.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        hash.finalize().into()
    }

    /// Reads both, as far as they are there.
    pub fn read() -> Result<Credentials, Failure> {
        let read = |name| match unix::credentials::credential(name) {
            Ok(bytes) => Ok(bytes.map(Zeroizing::new)),
            Err(e) => Err(Failure::new(Cause::KeyMissing, e.to_string())),
        };
        let mut passphrase = read(PASSPHRASE)?;
        if let Some(bytes) = &mut passphrase
            && bytes.last() == Some(&b'\n')
        {
            bytes.pop();
        }
        let key = match read(KEY)? {
            None => None,
            Some(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => Some(Zeroizing::new(text.to_owned())),
                Err(_) => return Err(Failure::new(Cause::KeyMissing, "the credential \"key\" is no text, so it is no Borg keyfile")),
            },
        };
        Ok(Credentials { passphrase, key })
    }
}

/// Refuses passphrases that guessing would find; the key in the repository is only as safe as its passphrase.
pub fn check_strength(passphrase: &[u8]) -> Result<(), String> {
    let mut seen = passphrase.to_vec();
    seen.sort_unstable();
    seen.dedup();
    if passphrase.len() < 12 || seen.len() < 6 {
        return Err("the passphrase is too weak: use at least 12 characters, and at least 6 different ones".into());
    }
    if std::str::from_utf8(passphrase).is_err() || passphrase.iter().any(|b| b.is_ascii_control()) {
        return Err("the passphrase must be UTF-8 text of one line, or nobody could ever type it".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_shows() {
        let given = |passphrase: Option<&str>, key: Option<&str>| Credentials {
            passphrase: passphrase.map(|text| Zeroizing::new(text.into())),
            key: key.map(|text| Zeroizing::new(text.into())),
        };
        let all = [(None, None), (Some("a"), None), (None, Some("a")), (Some("a"), Some("a")), (Some(""), None), (Some("aa"), None)];
        let digests: std::collections::HashSet<_> = all.iter().map(|(p, k)| given(*p, *k).digest()).collect();
        assert_eq!(digests.len(), all.len());
        assert_eq!(given(Some("a"), None).digest(), given(Some("a"), None).digest());
    }

    #[test]
    fn weak_ones_are_refused() {
        for weak in ["", "secret", "aaaaaaaaaaaaaaaa", "abcabcabcabcabc", "line one\nline two"] {
            assert!(check_strength(weak.as_bytes()).is_err(), "{weak:?}");
        }
        assert!(check_strength(b"\xff\xfe345678901234").is_err());
        assert!(check_strength(b"correct horse battery staple").is_ok());
    }
}
