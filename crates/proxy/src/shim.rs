//! The shim: passes its standard streams to a session and waits for the end. It knows nothing, parses nothing and decides nothing;
//! what the client wanted to run (`SSH_ORIGINAL_COMMAND`, or arguments as ssh would get them) does not matter. Besides the
//! descriptors it passes on where sshd says that the client is, for who comes too often with wrong tokens, and what the forced command
//! of the client's key says that this key is for: [`Bound`].

use model::ClientName;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use unix::{fdpass, harden, socket};

/// What a key is for, as its forced command says. The session holds the client to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// The only token that may be shown: its SHA-256, as 64 hex digits.
    pub token_hash: Option<String>,
    /// The only client whose jobs may be opened.
    pub client: Option<ClientName>,
}

impl Bound {
    /// Behind the client's address; neither has a line break.
    fn write(&self, word: &mut Vec<u8>) {
        let client = self.client.as_ref().map(ClientName::as_str).unwrap_or_default();
        let token_hash = self.token_hash.as_deref().unwrap_or_default();
        word.extend(format!("\n{token_hash}\n{client}").bytes());
    }

    /// The client's address, and what its key is for. Only a shim writes such words; None is something else.
    pub fn read(word: &[u8]) -> Option<(&[u8], Bound)> {
        let mut parts = word.split(|byte| *byte == b'\n');
        let peer = parts.next()?;
        let mut text = || std::str::from_utf8(parts.next().unwrap_or_default());
        let (token_hash, client) = (text().ok()?, text().ok()?);
        let token_hash = (!token_hash.is_empty()).then(|| token_hash.to_owned());
        let client = if client.is_empty() { None } else { Some(client.parse().ok()?) };
        parts.next().is_none().then_some((peer, Bound { token_hash, client }))
    }
}

/// Runs to the end; the result is the exit code, or one sentence for the client.
pub fn run(path: &Path, bound: &Bound) -> Result<u8, String> {
    let unavailable = |_| "BorgCube cannot be reached on this server; is it running?".to_owned();
    let mut connection = socket::connect(path).map_err(unavailable)?;
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut word = vec![b'!'];
    word.extend(peer().as_bytes());
    bound.write(&mut word);
    fdpass::send_fds(&connection, &[input.as_fd(), output.as_fd(), errors.as_fd()], &word).map_err(unavailable)?;
    // With copies left here the client would wait for us to close them, and not hear that the session has.
    harden::let_go_of_standard_streams().map_err(|e| e.to_string())?;
    let mut code = [1];
    match connection.read(&mut code) {
        Ok(1) => Ok(code[0]),
        _ => Ok(1),
    }
}

/// The client's address as sshd knows it; empty for a client on this machine. (The forced command's environment is sshd's: nothing of
/// the client's comes into it.)
fn peer() -> String {
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    connection.split(' ').next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_is_for_arrives() {
        for (token_hash, client) in [(None, None), (Some("ab".repeat(32)), None), (None, Some("web1".parse().unwrap()))] {
            let bound = Bound { token_hash, client };
            let mut word = b"192.0.2.1".to_vec();
            bound.write(&mut word);
            assert_eq!(Bound::read(&word), Some((b"192.0.2.1".as_slice(), bound)));
        }
        assert_eq!(Bound::read(b""), Some((b"".as_slice(), Bound::default())));
        for bad in ["p\nh\nweb1\nmore", "p\nh\n-o", "p\nh\nweb 1"] {
            assert_eq!(Bound::read(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Bound::read(b"p\n\xff\n"), None);
    }
}
