//! The eight key types.

use std::fmt;

/// How a repository encrypts and names its objects. The number is the first byte of every envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyType {
    /// `keyfile`: encrypted, key with the client.
    Keyfile = 0x00,
    /// Legacy: encrypted, key derived from a passphrase.
    Passphrase = 0x01,
    /// `none`: neither encrypted nor authenticated.
    None = 0x02,
    /// `repokey`: encrypted, key in the repository.
    Repokey = 0x03,
    /// `keyfile-blake2`.
    KeyfileBlake2 = 0x04,
    /// `repokey-blake2`.
    RepokeyBlake2 = 0x05,
    /// `authenticated-blake2`: not encrypted, key in the repository.
    AuthenticatedBlake2 = 0x06,
    /// `authenticated`: not encrypted, key in the repository.
    Authenticated = 0x07,
}

impl KeyType {
    /// Every type, by number.
    pub const ALL: [KeyType; 8] = [
        KeyType::Keyfile,
        KeyType::Passphrase,
        KeyType::None,
        KeyType::Repokey,
        KeyType::KeyfileBlake2,
        KeyType::RepokeyBlake2,
        KeyType::AuthenticatedBlake2,
        KeyType::Authenticated,
    ];

    /// The type for the first byte of an envelope.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<KeyType> {
        KeyType::ALL.get(usize::from(byte)).copied()
    }

    /// The first byte of envelopes; as a decimal number it is `key_type` in Borg's cache config.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// The word for `borg init --encryption`; `passphrase` cannot be created any more.
    #[must_use]
    pub const fn init_name(self) -> &'static str {
        match self {
            KeyType::Keyfile => "keyfile",
            KeyType::Passphrase => "passphrase",
            KeyType::None => "none",
            KeyType::Repokey => "repokey",
            KeyType::KeyfileBlake2 => "keyfile-blake2",
            KeyType::RepokeyBlake2 => "repokey-blake2",
            KeyType::AuthenticatedBlake2 => "authenticated-blake2",
            KeyType::Authenticated => "authenticated",
        }
    }

    /// The name Borg shows.
    #[must_use]
    pub const fn display_name(self) -> &'static str {
        match self {
            KeyType::Keyfile => "key file",
            KeyType::Passphrase => "passphrase",
            KeyType::None => "plaintext",
            KeyType::Repokey => "repokey",
            KeyType::KeyfileBlake2 => "key file BLAKE2b",
            KeyType::RepokeyBlake2 => "repokey BLAKE2b",
            KeyType::AuthenticatedBlake2 => "authenticated BLAKE2b",
            KeyType::Authenticated => "authenticated",
        }
    }

    /// The type for a word of `borg init --encryption`.
    #[must_use]
    pub fn from_init_name(name: &str) -> Option<KeyType> {
        KeyType::ALL.into_iter().find(|kind| *kind != KeyType::Passphrase && kind.init_name() == name)
    }

    /// Bytes an envelope adds to its payload: 41 encrypted, else 1.
    #[must_use]
    pub const fn overhead(self) -> usize {
        if self.is_encrypted() { 41 } else { 1 }
    }

    /// Whether ids and MACs are BLAKE2b instead of HMAC-SHA256.
    #[must_use]
    pub const fn uses_blake2(self) -> bool {
        matches!(self, KeyType::KeyfileBlake2 | KeyType::RepokeyBlake2 | KeyType::AuthenticatedBlake2)
    }

    /// Whether objects are encrypted (and carry a MAC).
    #[must_use]
    pub const fn is_encrypted(self) -> bool {
        !matches!(self, KeyType::None | KeyType::Authenticated | KeyType::AuthenticatedBlake2)
    }

    /// Whether the key lives in the repository's config (`load_key` answers it).
    #[must_use]
    pub const fn is_in_repository(self) -> bool {
        matches!(self, KeyType::Repokey | KeyType::RepokeyBlake2 | KeyType::AuthenticatedBlake2 | KeyType::Authenticated)
    }

    /// Whether the key lives in a file of the client.
    #[must_use]
    pub const fn is_keyfile(self) -> bool {
        matches!(self, KeyType::Keyfile | KeyType::KeyfileBlake2)
    }

    pub(crate) const fn enc_key_length(self) -> usize {
        if matches!(self, KeyType::None) { 0 } else { 32 }
    }

    pub(crate) const fn hash_key_length(self) -> usize {
        match self {
            KeyType::None => 0,
            kind if kind.uses_blake2() => 128,
            _ => 32,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.init_name())
    }
}
