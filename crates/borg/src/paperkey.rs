//! Keys on paper: what `borg key export --paper` prints and `borg key import --paper` reads, line by line with checksums.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use std::fmt::Write;

use crate::RepositoryId;
use crate::keyblob::{KeyBlobError, LockedKey};

/// Bytes of the key on one line.
const LINE: usize = 18;

/// Hex digits of the repository's id in the first line.
const ID_DIGITS: usize = 18;

/// A key blob (base64, wrapped or not, without a keyfile's first line) as Borg 1.x prints it: 2 hex digits of checksum for each line, 12 for
/// all of it. Still protected by its passphrase.
pub fn paper(blob: &str, repository_id: RepositoryId) -> Result<String, KeyBlobError> {
    LockedKey::parse(blob)?;
    let encoded: Vec<u8> = blob.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let binary = BASE64.decode(encoded).map_err(|_| KeyBlobError::NotAKey)?;
    let lines = binary.len().div_ceil(LINE);
    let id: String = repository_id.to_string().chars().take(ID_DIGITS).collect();
    let whole = checksum(&[&binary], 12);
    let first = checksum(&[format!("{lines}/{id}/{whole}").as_bytes()], 2);
    let mut text = String::from("BORG PAPER KEY v1\n");
    // Writing to a string never fails.
    let _ = writeln!(text, "id: {lines} / {} / {} - {first}", grouped(&id), grouped(&whole));
    for (number, line) in (1_u16..).zip(binary.chunks(LINE)) {
        let _ = writeln!(text, "{number:2}: {} - {}", grouped(&hex(line)), checksum(&[&number.to_be_bytes(), line], 2));
    }
    Ok(text)
}

fn checksum(parts: &[&[u8]], digits: usize) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hex(&hash.finalize()).chars().take(digits).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn grouped(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(6).map(String::from_iter).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, KeyType, keyblob};

    #[test]
    fn lines_have_their_checksums() {
        let id = RepositoryId([0xab; 32]);
        let key = Key::generate(KeyType::Repokey, &mut |bytes| bytes.fill(7));
        let blob = keyblob::lock(&key, id, b"secret", 1, [9; 32]);
        let text = paper(&blob, id).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "BORG PAPER KEY v1");
        assert!(lines[1].starts_with(&format!("id: {} / ababab ababab ababab / ", lines.len() - 2)), "{text}");
        let mut binary = vec![];
        for (number, line) in (1_u16..).zip(&lines[2..]) {
            let (head, rest) = line.split_once(": ").unwrap();
            assert_eq!(head.trim().parse(), Ok(number));
            let (data, sum) = rest.split_once(" - ").unwrap();
            let digits: String = data.split(' ').collect();
            let part: Vec<u8> = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
            assert_eq!(sum, checksum(&[&number.to_be_bytes(), &part], 2));
            binary.extend(part);
        }
        let again = LockedKey::parse(&BASE64.encode(&binary)).unwrap();
        assert_eq!(again, LockedKey::parse(&blob).unwrap());
        assert!(again.unlock(b"secret", KeyType::Repokey).is_ok());
        assert!(paper("no key", id).is_err());
    }
}
