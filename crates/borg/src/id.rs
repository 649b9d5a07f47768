//! Names of things that are 32 bytes long.

use std::fmt;

/// Name of an object in a repository: the keyed hash of its plaintext (Borg 1.x: 32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 32]);

/// Name of a repository, random at its creation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryId(pub [u8; 32]);

/// Text or bytes that are not a 32-byte id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Hex text of the wrong length or with other characters.
    #[error("an id is written as 64 hexadecimal digits")]
    Hex,
    /// A byte string of another length.
    #[error("an id is 32 bytes long, this is {0}")]
    Length(usize),
}

fn from_hex(text: &str) -> Result<[u8; 32], IdError> {
    fn digit(byte: u8) -> Result<u8, IdError> {
        match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            b'A'..=b'F' => Ok(byte - b'A' + 10),
            _ => Err(IdError::Hex),
        }
    }
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return Err(IdError::Hex);
    }
    let mut id = [0; 32];
    for (target, pair) in id.iter_mut().zip(bytes.chunks_exact(2)) {
        *target = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(id)
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl Id {
    /// The manifest's id: 32 zero bytes.
    pub const MANIFEST: Id = Id([0; 32]);

    /// Reads 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Result<Id, IdError> {
        from_hex(text).map(Id)
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.to_string()
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl RepositoryId {
    /// Reads 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Result<RepositoryId, IdError> {
        from_hex(text).map(RepositoryId)
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.to_string()
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Id {
    type Error = IdError;
    fn try_from(bytes: &[u8]) -> Result<Id, IdError> {
        bytes.try_into().map(Id).map_err(|_| IdError::Length(bytes.len()))
    }
}

impl TryFrom<&[u8]> for RepositoryId {
    type Error = IdError;
    fn try_from(bytes: &[u8]) -> Result<RepositoryId, IdError> {
        bytes.try_into().map(RepositoryId).map_err(|_| IdError::Length(bytes.len()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl std::str::FromStr for Id {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Id, IdError> {
        Id::from_hex(text)
    }
}

impl std::str::FromStr for RepositoryId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<RepositoryId, IdError> {
        RepositoryId::from_hex(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let id = Id(std::array::from_fn(|i| i as u8 * 8));
        assert_eq!(Id::from_hex(&id.to_hex()), Ok(id));
        assert_eq!(Id::from_hex(&id.to_hex().to_uppercase()), Ok(id));
        assert_eq!(format!("{id:?}"), id.to_hex());
        assert_eq!(Id::MANIFEST.to_hex(), "0".repeat(64));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        assert_eq!(Id::from_hex("00"), Err(IdError::Hex));
        assert_eq!(Id::from_hex(&"g".repeat(64)), Err(IdError::Hex));
        assert_eq!(Id::from_hex(&"é".repeat(32)), Err(IdError::Hex));
        assert_eq!(Id::try_from(&[0u8; 31][..]), Err(IdError::Length(31)));
        assert!(RepositoryId::try_from(&[7u8; 32][..]).is_ok());
    }
}
