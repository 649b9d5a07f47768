//! The token that names a session: 256 random bits, as 64 hex digits in the path of the client's `open` call.

use std::fmt;

/// A session's token. Whoever has it may open the session it was made for, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// From random bytes of a good source.
    pub fn from_random(bytes: [u8; 32]) -> Token {
        Token(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Reads the path of a client's `open`: exactly `/./TOKEN`, nothing else. The path never touches a file system.
    pub fn from_open_path(path: &[u8]) -> Option<Token> {
        Token::from_hex(path.strip_prefix(b"/./")?)
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(hex: &[u8]) -> Option<Token> {
        if hex.len() != 64 {
            return None;
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Token(bytes))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_pattern_is_a_token() {
        let token = Token::from_random([0xab; 32]);
        let path = format!("/./{}", token.to_hex());
        assert_eq!(Token::from_open_path(path.as_bytes()), Some(token.clone()));
        let upper = path.to_uppercase();
        for bad in ["", "/./", "/", "/../etc", "/srv/repo", &path[1..], &format!("{path}/"), &format!("{path}0"), &upper, "/./\0"] {
            assert_eq!(Token::from_open_path(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
