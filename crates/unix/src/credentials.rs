//! Secrets handed to a service as files.

use crate::paths::ENV_CREDENTIALS;
use crate::{Error, Result};
use nix::libc;
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// systemd's limit for all credentials of a service.
const LARGEST: u64 = 1024 * 1024;

/// The content of `$CREDENTIALS_DIRECTORY/name`, byte for byte (a line break at the end is still there). None if there
/// is no such directory or no such credential. An unreadable one is an error, and so is one that everybody may read.
pub fn credential(name: &str) -> Result<Option<Vec<u8>>> {
    match env::var_os(ENV_CREDENTIALS) {
        Some(directory) if !directory.is_empty() => credential_in(Path::new(&directory), name),
        _ => Ok(None),
    }
}

/// Like [`credential`], from a given directory.
pub fn credential_in(directory: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Error::Invalid(format!("\"{}\" cannot name a credential", crate::logging::escape(name))));
    }
    let path = directory.join(name);
    let failed = |e| Error::io(format!("cannot read the credential {}", path.display()), e);
    let unsafe_because = |why| Error::Credential { path: path.clone(), why };
    // Not blocking: opening a pipe would otherwise wait for a writer before we can refuse it.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&path);
    let file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(unsafe_because("it is not a file"));
    }
    // Not the group's bits: systemd grants access by an ACL, which shows up there.
    if meta.mode() & 0o007 != 0 {
        return Err(unsafe_because("everybody may read or change it; use mode 0600"));
    }
    if meta.len() > LARGEST {
        return Err(unsafe_because("it is larger than 1 MiB"));
    }
    // One allocation of the right size leaves no half-grown copies of the secret behind.
    let mut content = Vec::with_capacity(meta.len() as usize + 1);
    file.take(LARGEST).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn store(directory: &Path, content: &[u8], mode: u32) {
        let path = directory.join("passphrase");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_content_is_returned_byte_for_byte() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(credential_in(directory.path(), "passphrase").unwrap(), None);
        for mode in [0o600, 0o400, 0o440] {
            store(directory.path(), b"\xffsecret\n", mode);
            assert_eq!(credential_in(directory.path(), "passphrase").unwrap().unwrap(), b"\xffsecret\n");
            fs::remove_file(directory.path().join("passphrase")).unwrap();
        }
        store(directory.path(), b"", 0o600);
        assert_eq!(credential_in(directory.path(), "passphrase").unwrap().unwrap(), b"");
    }

    #[test]
    fn what_others_may_read_or_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o604, 0o602, 0o644, 0o606] {
            store(directory.path(), b"secret", mode);
            let error = credential_in(directory.path(), "passphrase").unwrap_err();
            assert!(matches!(error, Error::Credential { .. }), "{error}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn what_is_not_a_small_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        store(directory.path(), &vec![b'x'; 1024 * 1024 + 1], 0o600);
        assert!(matches!(credential_in(directory.path(), "passphrase"), Err(Error::Credential { .. })));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(matches!(credential_in(directory.path(), "pipe"), Err(Error::Credential { .. })));
        fs::create_dir(directory.path().join("directory")).unwrap();
        assert!(matches!(credential_in(directory.path(), "directory"), Err(Error::Credential { .. })));
    }

    #[test]
    fn a_name_is_a_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", "/etc/passwd", ".hidden", "a\0b"] {
            assert!(matches!(credential_in(directory.path(), name), Err(Error::Invalid(_))), "{name:?}");
        }
    }
}
