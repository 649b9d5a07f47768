//! Repositories.

use crate::names::RepositoryName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A Borg repository that this server owns. Its key and passphrase are never part of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its name here.
    pub name: RepositoryName,
    /// An absolute path, or `ssh://user@host[:port]/path`.
    pub url: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Borg's repository id, 64 hex digits; a repository that answers with another id is not used.
    pub repository_id: String,
    /// How its contents are encrypted.
    pub encryption: EncryptionMode,
    /// The borg program that serves it: on this machine, or on the far one for `ssh://`. None: the server's default.
    #[serde(default)]
    pub remote_borg: Option<String>,
    /// The SSH command for `ssh://` repositories, as Borg's BORG_RSH. None: `ssh`.
    #[serde(default)]
    pub rsh: Option<String>,
    /// When it was added.
    pub created: Timestamp,
}

/// Borg 1.x's encryption modes, by the names of `borg init --encryption`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionMode {
    /// No encryption, no authentication.
    None,
    /// AES-256-CTR and HMAC-SHA256, key in the repository.
    Repokey,
    /// The same, key outside the repository.
    Keyfile,
    /// AES-256-CTR and BLAKE2b, key in the repository.
    RepokeyBlake2,
    /// The same, key outside the repository.
    KeyfileBlake2,
    /// HMAC-SHA256 ids and authentication, no encryption.
    Authenticated,
    /// BLAKE2b ids and authentication, no encryption.
    AuthenticatedBlake2,
}

impl EncryptionMode {
    /// All of them, in the order of the manual.
    pub const ALL: [EncryptionMode; 7] = [
        EncryptionMode::None,
        EncryptionMode::Repokey,
        EncryptionMode::Keyfile,
        EncryptionMode::RepokeyBlake2,
        EncryptionMode::KeyfileBlake2,
        EncryptionMode::Authenticated,
        EncryptionMode::AuthenticatedBlake2,
    ];

    /// The name that `borg init --encryption` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            EncryptionMode::None => "none",
            EncryptionMode::Repokey => "repokey",
            EncryptionMode::Keyfile => "keyfile",
            EncryptionMode::RepokeyBlake2 => "repokey-blake2",
            EncryptionMode::KeyfileBlake2 => "keyfile-blake2",
            EncryptionMode::Authenticated => "authenticated",
            EncryptionMode::AuthenticatedBlake2 => "authenticated-blake2",
        }
    }

    /// Whether a passphrase belongs to it.
    pub fn has_key(self) -> bool {
        self != EncryptionMode::None
    }

    /// Whether the key lives outside the repository.
    pub fn is_keyfile(self) -> bool {
        matches!(self, EncryptionMode::Keyfile | EncryptionMode::KeyfileBlake2)
    }
}

impl fmt::Display for EncryptionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EncryptionMode {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|m| m.as_str() == s).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|m| m.as_str()).collect();
            format!("{s:?} is not an encryption mode of Borg 1.x; choose one of {}", all.join(", "))
        })
    }
}

/// Checks where a repository is said to be: an absolute path without `..`, or `ssh://[user@]host[:port]/path`.
pub fn check_url(url: &str) -> Result<(), String> {
    let printable = url.chars().all(|c| !c.is_control());
    if !printable || url.len() > 1000 {
        return Err("a repository URL has at most 1000 characters and no control characters".into());
    }
    if let Some(rest) = url.strip_prefix("ssh://") {
        let Some((host, path)) = rest.split_once('/') else {
            return Err(format!("{url:?} has no path; write ssh://user@host/path/to/repository"));
        };
        if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) || path.is_empty() {
            return Err(format!("{url:?} is not usable; write ssh://user@host/path/to/repository"));
        }
        return Ok(());
    }
    if !url.starts_with('/') {
        return Err(format!("{url:?} is neither an absolute path nor ssh://user@host/path"));
    }
    if url.split('/').any(|part| part == "..") || url.contains("::") {
        return Err(format!("{url:?} must contain neither '..' nor '::'"));
    }
    Ok(())
}

impl Repository {
    /// Whether it is reached over SSH.
    pub fn is_remote(&self) -> bool {
        self.url.starts_with("ssh://")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_reads_back() {
        for mode in EncryptionMode::ALL {
            assert_eq!(mode.as_str().parse::<EncryptionMode>().unwrap(), mode);
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
        assert!("aes".parse::<EncryptionMode>().unwrap_err().contains("repokey-blake2"));
    }

    #[test]
    fn urls() {
        for good in ["/srv/borg", "ssh://b@h:22/srv/x", "ssh://h/~/x", "ssh://h/./x"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in ["srv/borg", "", "ssh://h", "ssh:///x", "ssh://-oX/x", "/a/../b", "/a::b", "/a\nb"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
