//! sshd's AuthorizedKeysCommand: prints the one line that belongs to a key, or nothing.
//!
//! It holds no rights but to read two directories: keys of running jobs, and permanent keys of clients. Their files were rendered by the
//! queue daemon and its workers; nothing a client wrote is in them but the key itself.

use model::sshkey::PublicKey;
use std::path::PathBuf;
use unix::paths::{Layout, USER_SSH};

/// Longest line: a key of 4 kB, its options.
const LONGEST: u64 = 16 * 1024;

/// What sshd asks: `%t %k` or `%u %t %k`.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who wants to log in, if sshd was told to say that.
    pub user: Option<&'a str>,
    /// The key's type.
    pub kind: &'a str,
    /// The key itself.
    pub base64: &'a str,
}

/// The line for this key; None if there is none. What is wrong with the question or with a file is no line either: sshd goes on to
/// refuse the key, and says so in its log.
pub fn answer(layout: &Layout, question: &Question<'_>) -> Option<Vec<u8>> {
    // Should the command ever be set for all users, it lets nobody in as another one.
    if layout.is_installed() && question.user.is_some_and(|user| user != USER_SSH) {
        return None;
    }
    let key = PublicKey::from_parts(question.kind, question.base64).ok()?;
    let name = key.fingerprint_hex();
    let places: [PathBuf; 2] = [layout.job_keys(), layout.permanent_keys()];
    let found = places.iter().find_map(|place| unix::files::read_small(&place.join(&name), LONGEST).ok().flatten());
    found.filter(|line| fits(line, &key))
}

/// Whether a file is one whole line, as we write them, and for this very key.
fn fits(line: &[u8], key: &PublicKey) -> bool {
    let Some(text) = std::str::from_utf8(line).ok().and_then(|text| text.strip_suffix('\n')) else {
        return false;
    };
    text.starts_with("restrict,command=\"") && text.bytes().all(|b| matches!(b, b' '..=b'~')) && text.contains(&format!("\" {key} "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::sshkey::job_key;

    #[test]
    fn it_prints_the_file_that_fits_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = Layout::new(temporary.path());
        layout.create_directories().unwrap();
        let (job, _) = job_key(&[1; 32]).unwrap();
        let (own, _) = job_key(&[2; 32]).unwrap();
        let (other, _) = job_key(&[3; 32]).unwrap();
        let line = |key: &PublicKey| key.authorized_line("/p --client web1", None, "web1").unwrap();
        std::fs::write(layout.job_keys().join(job.fingerprint_hex()), line(&job)).unwrap();
        std::fs::write(layout.permanent_keys().join(own.fingerprint_hex()), line(&own)).unwrap();
        let ask = |key: &PublicKey| {
            let text = key.to_string();
            let (kind, base64) = text.split_once(' ').unwrap();
            answer(&layout, &Question { user: Some("borgcube-ssh"), kind, base64 })
        };
        assert_eq!(ask(&job), Some(line(&job).into_bytes()));
        assert_eq!(ask(&own), Some(line(&own).into_bytes()));
        assert_eq!(ask(&other), None);
        // A file under a name that is not its key's, of two lines, without our options, or what is no file.
        let path = layout.job_keys().join(other.fingerprint_hex());
        for content in [line(&own), line(&other).repeat(2), format!("{other} x\n"), line(&other).trim_end().into(), "x".repeat(20_000)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(ask(&other), None);
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(layout.job_keys().join(job.fingerprint_hex()), &path).unwrap();
        assert_eq!(ask(&other), None);
        for (kind, base64) in [("", ""), ("ssh-ed25519", "../../etc/passwd"), ("ssh-rsa", "AAAA"), ("x\ny", "z")] {
            assert_eq!(answer(&layout, &Question { user: None, kind, base64 }), None);
        }
    }

    #[test]
    fn nobody_gets_in_as_somebody_else() {
        let (kind, base64) = ("ssh-ed25519", "x");
        assert_eq!(answer(&Layout::system(), &Question { user: Some("root"), kind, base64 }), None);
    }
}
