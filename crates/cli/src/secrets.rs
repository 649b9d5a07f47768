//! Passphrases and keys on their way into the credentials directory of a repository: from a file, a descriptor, a prompt or the kernel's
//! random bytes, never from the command line, where everybody could read them.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use unix::files::{read_small, write_private, write_private_for};
use unix::terminal::{is_terminal, read_passphrase};
use zeroize::Zeroizing;

/// systemd's limit for all credentials of a service.
const LARGEST: u64 = 1024 * 1024;

/// A passphrase or a key file's text.
pub type Secret = Zeroizing<Vec<u8>>;

/// Where a passphrase comes from.
#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
pub struct PassphraseArgs {
    /// Read the passphrase from this file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase from this open descriptor (0: standard input)
    #[arg(long, value_name = "NUMBER")]
    pub passphrase_fd: Option<u32>,
}

impl PassphraseArgs {
    /// Whether the options name one.
    pub fn is_given(&self) -> bool {
        self.passphrase_file.is_some() || self.passphrase_fd.is_some()
    }

    /// The passphrase that the options name, if they do.
    pub fn read(&self) -> Result<Option<Secret>> {
        match (&self.passphrase_file, self.passphrase_fd) {
            (Some(path), _) => read_passphrase_file(path).map(Some),
            (None, Some(number)) => read_passphrase_file(&PathBuf::from(format!("/proc/self/fd/{number}"))).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Line breaks at its end do not belong to a passphrase; Borg 1.x thinks so, too.
fn read_passphrase_file(path: &Path) -> Result<Secret> {
    let mut secret = read_secret(path)?;
    while secret.last() == Some(&b'\n') {
        secret.pop();
    }
    check_passphrase(&secret, &path.display().to_string())?;
    Ok(secret)
}

fn check_passphrase(secret: &[u8], from: &str) -> Result<()> {
    match std::str::from_utf8(secret) {
        _ if secret.is_empty() => Err(Error::usage(format!("the passphrase from {from} is empty"))),
        Ok(text) if text.contains('\0') => Err(Error::usage(format!("the passphrase from {from} has a NUL byte in it"))),
        Ok(_) => Ok(()),
        Err(_) => Err(Error::usage(format!("the passphrase from {from} is not valid UTF-8"))),
    }
}

/// The text of a Borg key file, as `borg key export` writes it.
pub fn read_key_file(path: &Path) -> Result<Secret> {
    let key = read_secret(path)?;
    if !key.starts_with(b"BORG_KEY ") {
        let hint = "borg key export REPOSITORY FILE writes one.";
        return Err(Error::usage(format!("{} is not a Borg key file: it does not begin with BORG_KEY", path.display())).hint(hint));
    }
    Ok(key)
}

fn read_secret(path: &Path) -> Result<Secret> {
    let failed = |e: std::io::Error| Error::usage(format!("cannot read {}: {e}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len().min(LARGEST);
    // One allocation of the right size leaves no half-grown copies behind.
    let mut secret = Zeroizing::new(Vec::with_capacity(size as usize + 4096));
    file.take(LARGEST + 1).read_to_end(&mut secret).map_err(failed)?;
    if secret.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{} is larger than 1 MiB", path.display())));
    }
    Ok(secret)
}

/// Whether there is somebody to ask.
pub fn can_ask() -> bool {
    File::open("/dev/tty").is_ok_and(is_terminal)
}

/// Asks for the passphrase that `name` has already.
pub fn ask(name: &str) -> Result<Secret> {
    let answer = read_passphrase(&format!("Passphrase of {name}: "))?;
    check_passphrase(answer.as_bytes(), "the terminal")?;
    Ok(Zeroizing::new(answer.as_bytes().to_vec()))
}

/// Asks twice for a new passphrase.
pub fn ask_new(name: &str) -> Result<Secret> {
    let first = read_passphrase(&format!("New passphrase for {name}: "))?;
    check_passphrase(first.as_bytes(), "the terminal")?;
    let second = read_passphrase("Once more: ")?;
    if *first != *second {
        return Err(Error::usage("the two passphrases are not the same"));
    }
    Ok(Zeroizing::new(first.as_bytes().to_vec()))
}

/// A new passphrase of 256 random bits.
pub fn generate() -> Result<Secret> {
    Ok(Zeroizing::new(unix::random::hex(32)?.into_bytes()))
}

/// Files in a credentials directory that vanish again unless they are kept.
#[derive(Debug)]
pub struct Written {
    directory: PathBuf,
    /// What was written, and what was there before.
    files: Vec<(PathBuf, Option<Secret>)>,
    keep: bool,
}

impl Written {
    /// Nothing yet, in a directory that exists.
    pub fn new(directory: &Path) -> Written {
        Written { directory: directory.to_owned(), files: vec![], keep: false }
    }

    /// Writes one secret, mode 0600; what it replaces comes back unless [`Written::keep`] is called.
    pub fn put(&mut self, name: &str, secret: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        let before = read_small(&path, LARGEST)?.map(Zeroizing::new);
        self.write(&path, secret)?;
        self.files.push((path, before));
        Ok(())
    }

    /// Whose the directory is, the file will be: root leaves secrets to the user of the owners.
    fn write(&self, path: &Path, secret: &[u8]) -> Result<()> {
        let meta = fs::symlink_metadata(&self.directory)
            .map_err(|e| Error::failed(format!("cannot look at {}: {e}", self.directory.display())))?;
        match unix::socket::own_uid() {
            0 if meta.uid() != 0 => write_private_for(path, secret, meta.uid(), meta.gid())?,
            _ => write_private(path, secret)?,
        }
        Ok(())
    }

    /// Another program may write this one, which is not there yet: it vanishes as well.
    pub fn expect(&mut self, name: &str) {
        self.files.push((self.directory.join(name), None));
    }

    /// It all stays.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        for (path, before) in std::mem::take(&mut self.files).into_iter().rev() {
            let undone = match before {
                Some(secret) => self.write(&path, &secret).map_err(|e| e.message().to_owned()),
                None => match fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.to_string()),
                    _ => Ok(()),
                },
            };
            if let Err(error) = undone {
                eprintln!("borgcube: could not take back {}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(directory: &tempfile::TempDir, content: &[u8]) -> PassphraseArgs {
        let path = directory.path().join("p");
        fs::write(&path, content).unwrap();
        PassphraseArgs { passphrase_file: Some(path), ..Default::default() }
    }

    #[test]
    fn passphrases_lose_their_line_breaks_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(**file(&directory, b" secret \n\n").read().unwrap().as_ref().unwrap(), b" secret "[..]);
        for bad in [&b""[..], b"\n", b"\xff", b"a\0b"] {
            assert_eq!(file(&directory, bad).read().unwrap_err().kind().code(), 2, "{bad:?}");
        }
        assert!(PassphraseArgs::default().read().unwrap().is_none());
    }

    #[test]
    fn key_files_are_recognised() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        fs::write(&path, "BORG_KEY 00\nabc\n").unwrap();
        assert!(read_key_file(&path).unwrap().ends_with(b"abc\n"));
        fs::write(&path, "ssh-rsa").unwrap();
        assert!(read_key_file(&path).is_err());
    }

    #[test]
    fn what_is_not_kept_is_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("passphrase");
        fs::write(&old, "old").unwrap();
        let mut written = Written::new(directory.path());
        written.put("passphrase", b"new").unwrap();
        written.put("key", b"k").unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"new");
        assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o600);
        drop(written);
        assert_eq!(fs::read(&old).unwrap(), b"old");
        assert!(!directory.path().join("key").exists());
        let mut written = Written::new(directory.path());
        written.put("key", b"k").unwrap();
        written.keep();
        drop(written);
        assert!(directory.path().join("key").exists());
    }

    #[test]
    fn generated_passphrases_differ() {
        assert_eq!(generate().unwrap().len(), 64);
        assert_ne!(*generate().unwrap(), *generate().unwrap());
    }
}
