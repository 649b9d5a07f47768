//! Drop-ins: the lines that one instance of a unit has for itself.

use super::Kept;
use crate::error::{Error, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use unix::files::write_with_mode;

const HEAD: &str =
    "# Written by borgcube, and written anew when the repository is changed. Lines of your own belong into a file beside it.\n[Service]\n";

/// What the owner of a repository may write and read beside what all owners may.
pub fn repository(url: &str, kept: &[Kept]) -> Result<String> {
    let mut text = HEAD.to_owned();
    if url.starts_with("ssh://") {
        text += "PrivateNetwork=no\nIPAddressDeny=\nRestrictAddressFamilies=AF_INET AF_INET6\n";
    } else {
        if ["/home", "/root", "/run/user"].iter().any(|hidden| Path::new(url).starts_with(hidden)) {
            text += "ProtectHome=read-only\n";
        }
        // The minus: a disk that is not there is the repository's failure and not the owner's.
        text += &format!("ReadWritePaths={}\n", quoted(&format!("-{url}"))?);
    }
    for kept in kept {
        text += &kept.line();
        text.push('\n');
    }
    Ok(text)
}

/// Secrets alone.
pub fn credentials(kept: &[Kept]) -> String {
    kept.iter().fold(HEAD.to_owned(), |text, kept| text + &kept.line() + "\n")
}

/// A path as one word of a unit file. systemd knows no escapes in lists of paths, so a quote stands in quotes of the other kind.
fn quoted(path: &str) -> Result<String> {
    let quote = if path.contains('"') { '\'' } else { '"' };
    if path.contains(quote) || path.chars().any(char::is_control) {
        return Err(Error::usage(format!("{path:?} cannot be written into a unit of systemd"))
            .hint("Choose a path without quotation marks and control characters."));
    }
    Ok(format!("{quote}{}{quote}", path.replace('%', "%%")))
}

/// Writes a drop-in of `unit`.
pub fn write(units: &Path, unit: &str, name: &str, text: &str) -> Result<()> {
    let directory = directory(units, unit);
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&directory);
    made.map_err(|e| Error::failed(format!("cannot create {}: {e}", directory.display())))?;
    write_with_mode(&directory.join(name), text.as_bytes(), 0o644)?;
    Ok(())
}

/// Removes a drop-in, and its directory if nothing else is in it.
pub fn remove(units: &Path, unit: &str, name: &str) -> Result<()> {
    let directory = directory(units, unit);
    match fs::remove_file(directory.join(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::failed(format!("cannot remove {}: {e}", directory.join(name).display())));
        }
        _ => {}
    }
    // Not empty: somebody's own lines are in it.
    let _ = fs::remove_dir(&directory);
    Ok(())
}

fn directory(units: &Path, unit: &str) -> PathBuf {
    units.join(format!("{unit}.d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(encrypted: bool) -> Kept {
        Kept { id: "passphrase", path: "/etc/x/borgcube.repository.main.passphrase".into(), encrypted }
    }

    #[test]
    fn a_repository_here_gets_its_path_and_its_secrets() {
        let text = repository("/srv/borg/100% mine", &[kept(true)]).unwrap();
        assert_eq!(
            text.strip_prefix(HEAD).unwrap(),
            "ReadWritePaths=\"-/srv/borg/100%% mine\"\nLoadCredentialEncrypted=passphrase:/etc/x/borgcube.repository.main.passphrase\n"
        );
        assert!(repository("/srv/x", &[kept(false)]).unwrap().contains("\nLoadCredential=passphrase:/etc/x/"));
        assert!(!repository("/srv/x", &[]).unwrap().contains("Network"));
        assert!(repository("/home/me/x", &[]).unwrap().contains("\nProtectHome=read-only\n"));
        assert!(!repository("/homes/me/x", &[]).unwrap().contains("ProtectHome"));
    }

    #[test]
    fn one_on_another_host_gets_the_network() {
        let text = repository("ssh://borg@storage/./main", &[]).unwrap();
        assert!(text.contains("PrivateNetwork=no\n") && !text.contains("ReadWritePaths"), "{text}");
    }

    #[test]
    fn no_path_adds_a_line_or_a_word() {
        assert_eq!(quoted("/a\"b").unwrap(), "'/a\"b'");
        assert!(quoted("/a\"b'c").is_err() && quoted("/a\nExecStart=/x").is_err());
    }

    #[test]
    fn drop_ins_come_and_go() {
        let units = tempfile::tempdir().unwrap();
        write(units.path(), "a@b.service", "50.conf", "x").unwrap();
        assert_eq!(fs::read_to_string(units.path().join("a@b.service.d/50.conf")).unwrap(), "x");
        fs::write(units.path().join("a@b.service.d/own.conf"), "").unwrap();
        remove(units.path(), "a@b.service", "50.conf").unwrap();
        assert!(units.path().join("a@b.service.d/own.conf").exists());
        fs::remove_file(units.path().join("a@b.service.d/own.conf")).unwrap();
        remove(units.path(), "a@b.service", "50.conf").unwrap();
        assert!(!units.path().join("a@b.service.d").exists());
    }
}
