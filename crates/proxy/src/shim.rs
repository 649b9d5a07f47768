//! The shim: passes its standard streams to a session and waits for the end. It knows nothing and parses nothing;
//! what the client wanted to run (`SSH_ORIGINAL_COMMAND`, or arguments as ssh would get them) does not matter. Besides the
//! descriptors it passes on where sshd says that the client is, for who comes too often with wrong tokens, and what the forced command
//! of the client's key says that this key is for: [`Bound`].
//!
//! All clients share the places for sessions, so each key has a few of them at a time. That is counted here, where a connection too many
//! has not cost one of those places yet; the client has no way to what this process holds.

use model::ClientName;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use unix::paths::Layout;
use unix::slots::{Slot, Slots};
use unix::{fdpass, harden, logging, socket};

/// Connections at a time with the key of one job: its token is good for one.
const OF_A_TOKEN: u16 = 4;

/// Those with a client's permanent key: it may have jobs in several repositories.
const OF_A_CLIENT: u16 = 16;

/// Those from one address, where the key is for nobody in particular.
const OF_AN_ADDRESS: u16 = 64;

/// At most so often the log tells of one key that it is refused.
const COMPLAIN: Duration = Duration::from_secs(10);

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

    /// What connections are counted by, how many there may be at a time, and how the log calls them. None: they are not counted, because
    /// this is a process of our own user on this machine.
    fn share(&self, peer: &str) -> Option<(u64, u16, String)> {
        let (most, who) = match (&self.token_hash, &self.client) {
            (Some(hash), _) => {
                (OF_A_TOKEN, format!("the key of the job whose token has the SHA-256 {}..", hash.get(..8).unwrap_or_default()))
            }
            (None, Some(client)) => (OF_A_CLIENT, format!("the key of client {client}")),
            (None, None) if peer.is_empty() => return None,
            (None, None) => (OF_AN_ADDRESS, format!("the address {peer}")),
        };
        let exact = self.token_hash.as_deref().unwrap_or(&who);
        let digest: [u8; 32] = Sha256::digest(exact).into();
        let (family, _) = digest.split_first_chunk()?;
        Some((u64::from_le_bytes(*family), most, who))
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
    let peer = peer();
    let _held = match bound.share(&peer) {
        None => None,
        Some((family, most, who)) => match place(path, family, most)? {
            Some(slot) => Some(slot),
            None => return refuse(path, family, most, &who),
        },
    };
    let mut connection = socket::connect(path).map_err(unavailable)?;
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut word = vec![b'!'];
    word.extend(peer.as_bytes());
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

/// Held to the end of this process, and so of the session.
fn place(socket: &Path, family: u64, most: u16) -> Result<Option<Slot>, String> {
    let path = Layout::connections(socket);
    let made = "(on an installed server systemd-tmpfiles --create borgcube.conf makes it)";
    Slots::at(&path).take(family, 0..most).map_err(|e| format!("BorgCube cannot be reached on this server: {e} {made}"))
}

/// One connection too many. Of a flood, the log has a line now and then: whoever wrote one waits before the next may.
fn refuse(socket: &Path, family: u64, most: u16, who: &str) -> Result<u8, String> {
    let sentence = format!(
        "BorgCube: {who} has {most} connections to this server, which is as many as it may have; try again when one of them has ended"
    );
    let path = Layout::connections(socket);
    let Ok(Some(_teller)) = Slots::at(&path).take(family, most..most + 1) else { return Err(sentence) };
    logging::init("borgcube-proxy");
    log::warn!(event = "session-refused"; "{who} has {most} connections: more are refused until one of them has ended");
    eprintln!("{sentence}");
    harden::let_go_of_standard_streams().map_err(|e| e.to_string())?;
    std::thread::sleep(COMPLAIN);
    Ok(1)
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
    fn a10_who_is_counted_together() {
        let token = |byte: &str| Bound { token_hash: Some(byte.repeat(32)), client: None };
        let client = |name: &str| Bound { token_hash: None, client: Some(name.parse().unwrap()) };
        let share = |bound: &Bound, peer: &str| bound.share(peer).map(|(family, most, _)| (family, most));
        // Wherever it comes from: addresses cost a client nothing.
        assert_eq!(share(&token("ab"), "192.0.2.1"), share(&token("ab"), ""));
        assert_eq!(share(&client("web1"), "192.0.2.1"), share(&client("web1"), "2001:db8::1"));
        let all = [share(&token("ab"), ""), share(&token("ac"), ""), share(&client("web1"), ""), share(&client("web2"), "")];
        let all = all.into_iter().chain(["192.0.2.1", "192.0.2.2"].map(|peer| share(&Bound::default(), peer)));
        let families: std::collections::BTreeSet<u64> = all.map(|shared| shared.unwrap().0 >> 17).collect();
        assert_eq!(families.len(), 6);
        assert_eq!(Bound::default().share(""), None);
        assert!(token("ab").share("").unwrap().2.ends_with("SHA-256 abababab.."));
    }

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
