//! systemd's credential store. Encrypted with the machine's own key (its TPM's, if it has one) where systemd can do that, otherwise a file
//! for root alone.

use crate::error::{Error, Result};
use crate::secrets::Secret;
use crate::tools::Tool;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use unix::files::{read_small, write_private};
use unix::paths::CREDENTIAL_SSH_KEY;
use zeroize::Zeroizing;

/// systemd's limit for all credentials of a service.
const LARGEST: u64 = 1024 * 1024;

/// The secrets that BorgCube keeps.
const IDS: [&str; 3] = ["passphrase", "key", CREDENTIAL_SSH_KEY];

/// The two directories of the store.
#[derive(Debug)]
pub struct Store {
    encrypted: PathBuf,
    plain: PathBuf,
}

/// One secret as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The credential's name, as the service asks for it.
    pub id: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Only this machine can read it.
    pub encrypted: bool,
}

impl Store {
    /// This machine's.
    pub fn system() -> Store {
        Store { encrypted: "/etc/credstore.encrypted".into(), plain: "/etc/credstore".into() }
    }

    /// Keeps a secret of `owner`, instead of the one that there was.
    pub fn put(&self, owner: &str, id: &'static str, secret: &[u8]) -> Result<Kept> {
        let (content, encrypted) = match encrypt(id, secret) {
            Some(text) => (text.into_bytes().into(), true),
            None => (Zeroizing::new(secret.to_vec()), false),
        };
        let kept = self.file(owner, id, encrypted);
        if let Some(directory) = kept.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|e| Error::failed(format!("cannot create {}: {e}", directory.display())))?;
        }
        write_private(&kept.path, &content)?;
        let other = self.file(owner, id, !encrypted).path;
        match fs::remove_file(&other) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::failed(format!("cannot remove {}: {e}", other.display()))),
            _ => Ok(kept),
        }
    }

    /// What is kept for `owner`.
    pub fn all(&self, owner: &str) -> Result<Vec<Kept>> {
        let both = IDS.iter().flat_map(|id| [self.file(owner, id, true), self.file(owner, id, false)]);
        let mut found = vec![];
        for kept in both {
            match kept.path.try_exists() {
                Ok(true) => found.push(kept),
                Ok(false) => {}
                Err(e) => return Err(Error::failed(format!("cannot look at {}: {e}", kept.path.display()))),
            }
        }
        Ok(found)
    }

    fn file(&self, owner: &str, id: &'static str, encrypted: bool) -> Kept {
        let directory = if encrypted { &self.encrypted } else { &self.plain };
        // An id has no dot in it, so no two of these names are the same.
        Kept { id, path: directory.join(format!("borgcube.{owner}.{id}")), encrypted }
    }
}

impl Kept {
    /// The line of a unit's drop-in that hands it over.
    pub fn line(&self) -> String {
        let directive = if self.encrypted { "LoadCredentialEncrypted" } else { "LoadCredential" };
        format!("{directive}={}:{}", self.id, self.path.display())
    }

    /// The command that shows the secret to root.
    pub fn show(&self) -> String {
        match self.encrypted {
            true => format!("sudo systemd-creds --name={} decrypt {} -", self.id, self.path.display()),
            false => format!("sudo cat {}", self.path.display()),
        }
    }

    /// The secret itself.
    pub fn read(&self) -> Result<Secret> {
        if !self.encrypted {
            let gone = || Error::failed(format!("{} is gone", self.path.display()));
            return read_small(&self.path, LARGEST)?.map(Zeroizing::new).ok_or_else(gone);
        }
        let said = creds("decrypt", self.id).arg(&self.path).arg("-").run()?;
        if !said.success {
            return Err(Error::failed(format!("systemd-creds cannot decrypt {}: {}", self.path.display(), said.reason()))
                .hint("A credential can be decrypted only on the machine that encrypted it."));
        }
        Ok(Zeroizing::new(said.out.into_bytes()))
    }
}

fn creds(verb: &str, id: &str) -> Tool {
    Tool::new("systemd-creds").arg(format!("--name={id}")).arg(verb)
}

/// None where systemd cannot.
fn encrypt(id: &str, secret: &[u8]) -> Option<String> {
    let said = creds("encrypt", id).args(["-", "-"]).input(secret).run();
    match said {
        Ok(said) if said.success && !said.out.is_empty() => Some(said.out),
        Ok(said) => {
            log::debug!("systemd-creds: {}", said.reason());
            None
        }
        Err(e) => {
            log::debug!("{}", e.message());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { encrypted: directory.path().join("encrypted"), plain: directory.path().join("plain") };
        assert_eq!(store.all("repository.main").unwrap(), []);
        // Encrypted or not is up to this machine; what comes out is the same.
        let kept = store.put("repository.main", "passphrase", b"first").unwrap();
        let kept_again = store.put("repository.main", "passphrase", b"second").unwrap();
        assert_eq!(kept, kept_again);
        store.put("repository.other", "key", b"k").unwrap();
        assert_eq!(store.all("repository.main").unwrap(), std::slice::from_ref(&kept));
        assert_eq!(**kept.read().unwrap(), b"second"[..]);
        assert_eq!(kept.encrypted, !std::fs::read(&kept.path).unwrap().starts_with(b"second"));
    }

    #[test]
    fn the_other_form_of_a_secret_goes() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { encrypted: directory.path().join("encrypted"), plain: directory.path().join("plain") };
        for encrypted in [true, false] {
            let file = store.file("repository.main", "passphrase", encrypted);
            fs::create_dir_all(file.path.parent().unwrap()).unwrap();
            fs::write(&file.path, "old").unwrap();
        }
        let kept = store.put("repository.main", "passphrase", b"new").unwrap();
        assert_eq!(store.all("repository.main").unwrap(), [kept]);
    }
}
