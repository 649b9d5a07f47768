//! Public SSH keys, and the one line of authorized_keys that each becomes.
//!
//! What people paste is parsed into a key and written anew from it; no byte of theirs but the key itself gets into a line that sshd
//! reads (attack A09). So a comment, an option or a second line has no way through.

use serde::{Deserialize, Serialize};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding};
use std::fmt;
use std::str::FromStr;

/// No key that we know is longer as text: RSA of 16384 bits has 2700 characters.
const LONGEST: usize = 4000;

/// RSA keys with fewer bits are refused by OpenSSH's own judgement of today.
const RSA_BITS: usize = 2048;

/// Why a text is no key for us, in a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not usable as a public key: {0}")]
pub struct KeyError(&'static str);

/// A public key of a known type, without a comment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(KeyData);

impl PublicKey {
    /// From its two parts, as sshd hands them to an AuthorizedKeysCommand (`%t %k`).
    pub fn from_parts(kind: &str, base64: &str) -> Result<PublicKey, KeyError> {
        format!("{kind} {base64}").parse()
    }

    /// SHA-256 of the key as 64 hex digits: fit for a file name.
    pub fn fingerprint_hex(&self) -> String {
        let digest = self.0.fingerprint(HashAlg::Sha256);
        digest.as_bytes().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The fingerprint as `ssh-keygen -l` and sshd's log show it: `SHA256:...`.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The type's name: `ssh-ed25519` and so on.
    pub fn kind(&self) -> String {
        self.0.algorithm().as_str().to_owned()
    }

    /// A line of authorized_keys, with its line break: this key may run `command` and nothing else, from `sources` only if there are
    /// any. `comment` is ours and consists of letters, digits and `-`.
    ///
    /// Refuses a command that sshd could read in another way.
    pub fn authorized_line(&self, command: &str, sources: Option<&Sources>, comment: &str) -> Result<String, KeyError> {
        if !command.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
            return Err(KeyError("its forced command has characters that sshd could take for something else"));
        }
        if !comment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(KeyError("its comment has other characters than letters, digits and '-'"));
        }
        let from = sources.map(|s| format!(",from=\"{s}\"")).unwrap_or_default();
        Ok(format!("restrict,command=\"{command}\"{from} {self} {comment}\n"))
    }

    /// A line of known_hosts, with its line break, for the host that ssh is told to look for (`HostKeyAlias`).
    pub fn known_hosts_line(&self, alias: &str) -> String {
        format!("{alias} {self}\n")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        let text = text.trim_matches([' ', '\n', '\r']);
        if text.is_empty() {
            return Err(KeyError("it is empty; give the line of a file such as ~/.ssh/id_ed25519.pub"));
        }
        if text.contains(['\n', '\r']) {
            return Err(KeyError("it has more than one line; give one key at a time"));
        }
        if text.starts_with("-----") {
            return Err(KeyError("this looks like a private key, which never leaves its host; give the file with .pub at its end"));
        }
        // A comment may be in any language; what is in it gets no further.
        let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
        let (Some(kind), Some(base64)) = (words.next(), words.next()) else {
            return Err(KeyError("it has the form TYPE BASE64, as in a file with .pub at its end"));
        };
        if kind.len() + base64.len() > LONGEST {
            return Err(KeyError("it is too long"));
        }
        let algorithm = match kind {
            "ssh-ed25519" => Algorithm::Ed25519,
            "ssh-rsa" => Algorithm::Rsa { hash: None },
            "ecdsa-sha2-nistp256" => Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
            "ecdsa-sha2-nistp384" => Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
            "ecdsa-sha2-nistp521" => Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
            _ if kind.starts_with("sk-") => {
                return Err(KeyError("a key on a security token needs somebody to touch it; backups run unattended"));
            }
            "ssh-dss" => return Err(KeyError("DSA keys are not accepted any more; make one with ssh-keygen -t ed25519")),
            _ => return Err(KeyError("it must begin with its type: ssh-ed25519, ecdsa-sha2-nistp256, -nistp384, -nistp521 or ssh-rsa")),
        };
        let parsed = ssh_key::PublicKey::from_openssh(&format!("{kind} {base64}"));
        let data = parsed.map_err(|_| KeyError("its second word is damaged; copy the line again, in one piece"))?.key_data().clone();
        if data.algorithm() != algorithm {
            return Err(KeyError("its type is not what it says"));
        }
        if let Some(rsa) = data.rsa()
            && rsa.n.as_positive_bytes().is_none_or(|n| n.len() * 8 < RSA_BITS)
        {
            return Err(KeyError("an RSA key needs at least 2048 bits; make one with ssh-keygen -t ed25519"));
        }
        let key = PublicKey(data);
        // What we write is what sshd compares: it must be the very same key.
        if key.to_string() != format!("{kind} {base64}") {
            return Err(KeyError("its second word is not written as ssh-keygen writes it; copy the line again"));
        }
        Ok(key)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<PublicKey, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    /// `TYPE BASE64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = ssh_key::PublicKey::new(self.0.clone(), "");
        let text = key.to_openssh().map_err(|_| fmt::Error)?;
        f.write_str(text.trim_end())
    }
}

/// From where a key may come: what sshd's `from=` takes, addresses, networks and host patterns separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sources(String);

impl FromStr for Sources {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Sources, KeyError> {
        let fits = |part: &str| {
            !part.is_empty()
                && part != "!"
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".:/*?-_!".contains(&b))
                && !part[1..].contains('!')
        };
        if text.len() > 1000 || !text.split(',').all(fits) {
            return Err(KeyError(
                "its sources are addresses, networks or host patterns separated by commas, such as 192.0.2.7,2001:db8::/64",
            ));
        }
        // sshd ignores a pattern of nothing but exclusions, and refuses the key from everywhere.
        if text.split(',').all(|part| part.starts_with('!')) {
            return Err(KeyError("its sources only exclude; add what they allow, such as *"));
        }
        Ok(Sources(text.to_owned()))
    }
}

impl TryFrom<String> for Sources {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Sources, KeyError> {
        text.parse()
    }
}

impl From<Sources> for String {
    fn from(sources: Sources) -> String {
        sources.0
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A permanent key of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientKey {
    /// The key.
    pub key: PublicKey,
    /// From where it may come. None: from everywhere.
    #[serde(default)]
    pub from: Option<Sources>,
    /// When it was added.
    pub added: crate::Timestamp,
}

/// A key pair for one job: the public half, and the private half as ssh reads it from a file.
///
/// `seed` consists of random bytes of a good source; everything follows from it.
pub fn job_key(seed: &[u8; 32]) -> Result<(PublicKey, String), KeyError> {
    let pair = Ed25519Keypair::from_seed(seed);
    let public = PublicKey(KeyData::Ed25519(pair.public));
    let private = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), "").map_err(|_| KeyError("the seed makes no key"))?;
    let text = private.to_openssh(LineEnding::LF).map_err(|_| KeyError("the seed makes no key"))?;
    Ok((public, text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAnmQmN4lK8duDoJxm9IH8aVZbT1qzXDA6Uqf4aXDRSj";

    fn good() -> PublicKey {
        job_key(&[7; 32]).unwrap().0
    }

    /// A line that sshd takes for exactly one key with exactly our options.
    fn assert_harmless(line: &str, key: &PublicKey) {
        assert_eq!(line, format!("restrict,command=\"/p --client web1\",from=\"192.0.2.1\" {key} web1\n"));
        assert_eq!(line.lines().count(), 1);
        assert!(line.trim_end().bytes().all(|b| matches!(b, b' '..=b'~')), "{line:?}");
        assert_eq!(line.matches('"').count(), 4, "{line:?}");
        let key = key.to_string();
        assert!(key.split(' ').count() == 2 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b" -+/=@.".contains(&b)), "{key:?}");
    }

    fn line(key: &PublicKey) -> String {
        key.authorized_line("/p --client web1", Some(&"192.0.2.1".parse().unwrap()), "web1").unwrap()
    }

    #[test]
    fn a09_no_line_injection_by_a_key() {
        let good = good().to_string();
        let body = good.split(' ').nth(1).unwrap().to_owned();
        let evil = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let corpus = [
            format!("{good} x\n{evil}"),
            format!("{good}\r{evil}"),
            format!("{good}\n\n{evil} y\n"),
            format!("{good}\u{2028}{evil}"),
            format!("{good}\u{85}{evil}"),
            format!("{good}\0{evil}"),
            format!("command=\"/bin/sh\" {good}"),
            format!("command=\"/bin/sh\",pty {good}"),
            format!("restrict,pty {good} a"),
            format!("environment=\"LD_PRELOAD=/x\" {good}"),
            format!("cert-authority {good}"),
            format!("@cert-authority * {good}"),
            format!("#{good}"),
            format!("ssh-ed25519\n{body}"),
            format!("ssh-ed25519 {body}\",command=\"/bin/sh"),
            format!("ssh-ed25519 {}\n{}", &body[..20], &body[20..]),
            format!("ssh-ed25519 {} {}", &body[..20], &body[20..]),
            format!("ssh-ed25519 {body}AAAA"),
            format!("ssh-ed25519 {body}===="),
            format!("ssh-ed25519 {}", &body[..body.len() - 4]),
            format!("ssh-rsa {body}"),
            format!("ssh-ed25519-cert-v01@openssh.com {body}"),
            format!("sk-ssh-ed25519@openssh.com {body}"),
            format!("SSH-ED25519 {body}"),
            format!("ssh-ed25519,{body}"),
            format!("ssh-dss {body}"),
            "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQM=".into(),
            "-----BEGIN OPENSSH PRIVATE KEY-----".into(),
            String::new(),
            " ".into(),
            "ssh-ed25519".into(),
            "x".repeat(1_000_000),
            format!("ssh-ed25519 {}", "A".repeat(100_000)),
        ];
        for text in &corpus {
            // Refused, or exactly the one good key and nothing of what is around it.
            if let Ok(key) = text.parse::<PublicKey>() {
                assert_eq!(key.to_string(), good, "{text:?}");
                assert_harmless(&line(&key), &key);
            }
        }
        let refused = corpus.iter().filter(|text| text.parse::<PublicKey>().is_err()).count();
        assert!(refused >= corpus.len() - 4, "{refused} of {}", corpus.len());
        // A comment may say what it likes, on its line: nothing of it is kept.
        for comment in ["x", "\"quoted\"", "command=\"/bin/sh\"", "grüße \u{202e}", "a b c", "ssh-rsa AAAA"] {
            let key: PublicKey = format!("{good} {comment}").parse().unwrap();
            assert_harmless(&line(&key), &key);
        }
    }

    #[test]
    fn a09_no_line_injection_by_what_is_around_the_key() {
        let key = good();
        for command in ["a\"b", "a\nb", "a\\b", "a\tb", "\u{e4}", "a\0"] {
            assert!(key.authorized_line(command, None, "").is_err(), "{command:?}");
        }
        for comment in ["a b", "a\n", "\"", "ä", "a,b"] {
            assert!(key.authorized_line("/p", None, comment).is_err(), "{comment:?}");
        }
        for sources in ["", "a b", "a\"", "a,,b", "a\nb", "!", "!a", "a!b", "$(x)", "a;b", "ä", ","] {
            assert!(sources.parse::<Sources>().is_err(), "{sources:?}");
        }
        for sources in ["192.0.2.1", "192.0.2.0/24,2001:db8::/64", "*.example.net,!bad.example.net"] {
            assert!(sources.parse::<Sources>().is_ok(), "{sources:?}");
        }
    }

    #[test]
    fn known_types_are_read_and_written_as_they_are() {
        let key: PublicKey = format!("  {GOOD}  root@web1\n").parse().unwrap();
        assert_eq!(key.to_string(), GOOD);
        assert_eq!(key.kind(), "ssh-ed25519");
        assert_eq!(key.fingerprint_hex().len(), 64);
        assert!(key.fingerprint().starts_with("SHA256:"));
        let (kind, base64) = GOOD.split_once(' ').unwrap();
        assert_eq!(PublicKey::from_parts(kind, base64).unwrap(), key);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<PublicKey>("\"ssh-ed25519 x\\ny\"").is_err());
    }

    #[test]
    fn a_job_key_is_a_pair() {
        let (public, private) = job_key(&[7; 32]).unwrap();
        let read = ssh_key::PrivateKey::from_openssh(&private).unwrap();
        assert_eq!(read.public_key().key_data(), &public.0);
        assert!(private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n") && private.ends_with("-----END OPENSSH PRIVATE KEY-----\n"));
        assert_ne!(job_key(&[8; 32]).unwrap().0, public);
    }

    proptest! {
        /// Whatever is cut, doubled or changed in a key, and whatever stands around it: no second line, no option, no other key.
        #[test]
        fn a09_random_changes(at in 0usize..90, with in "[\\PC\n\r\t\0\"' ,=]{0,12}", cut in 0usize..20) {
            let good = good().to_string();
            let at = at.min(good.len());
            let end = (at + cut).min(good.len());
            let text = format!("{}{with}{}", &good[..at], &good[end..]);
            if let Ok(key) = text.parse::<PublicKey>() {
                assert_harmless(&line(&key), &key);
            }
        }

        #[test]
        fn a09_random_text(text in "\\PC{0,200}") {
            if let Ok(key) = text.parse::<PublicKey>() {
                assert_harmless(&line(&key), &key);
            }
        }
    }
}
