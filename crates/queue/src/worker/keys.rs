//! The SSH key of one job: made here, known to sshd as long as the job runs, and to the client by its standard input only.

use super::script::quote;
use crate::forced::{Holder, command};
use model::sshkey::{PublicKey, job_key};
use model::{Cause, Failure};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use unix::paths::Layout;
use zeroize::Zeroizing;

/// How the client's ssh calls this server, whatever the server's name and port are: it looks for that name in its known_hosts.
const ALIAS: &str = "borgcube";

/// Largest public host key file.
const HOST_KEY: u64 = 16 * 1024;

/// A job's key. sshd knows it until this is dropped.
pub struct JobKey {
    file: PathBuf,
    /// The private half, as ssh reads it from a file.
    pub private: Zeroizing<String>,
    /// The host keys that this server has, as lines of known_hosts.
    pub known_hosts: String,
}

impl JobKey {
    /// Makes one that opens the session of `token` (64 hex digits) and nothing else.
    pub fn make(layout: &Layout, job: u64, token: &str) -> Result<JobKey, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(Cause::Internal, format!("no SSH key could be made for this job: {e}"));
        let known_hosts = known_hosts(layout)?;
        let mut seed = Zeroizing::new([0; 32]);
        unix::random::fill(seed.as_mut_slice()).map_err(|e| failed(&e))?;
        let (public, private) = job_key(&seed).map_err(|e| failed(&e))?;
        let private = Zeroizing::new(private);
        let hash = token_hash(token).ok_or_else(|| failed(&"the owner gave no token"))?;
        let line = public.authorized_line(&command(layout, Holder::Token(&hash)), None, &format!("job-{job}")).map_err(|e| failed(&e))?;
        let file = layout.job_keys().join(public.fingerprint_hex());
        unix::files::write_with_mode(&file, line.as_bytes(), 0o640).map_err(|e| failed(&e))?;
        Ok(JobKey { file, private, known_hosts })
    }

    /// The client's SSH command: this key, this server, nothing of the user's own. The key's directory is where the script has put it.
    pub fn rsh() -> String {
        let ssh = format!(
            "cd \"$borgcube_job_dir\" && unset SSH_AUTH_SOCK && exec ssh -F none -a -x -T -i key -o IdentitiesOnly=yes -o BatchMode=yes \
             -o UserKnownHostsFile=known_hosts -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias={ALIAS} -o CheckHostIP=no \
             -o StrictHostKeyChecking=yes -o ServerAliveInterval=30 -o ServerAliveCountMax=4 -o ConnectTimeout=60 \"$@\""
        );
        format!("sh -c {} ssh", quote(&ssh))
    }
}

#[cfg(test)]
impl JobKey {
    /// One that opens nothing.
    pub fn sample(file: PathBuf, private: &str, known_hosts: &str) -> JobKey {
        JobKey { file, private: Zeroizing::new(private.to_owned()), known_hosts: known_hosts.to_owned() }
    }
}

impl Drop for JobKey {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.file) {
            // The daemon looks for what was left behind.
            log::warn!("{} stays behind: {e}", self.file.display());
        }
    }
}

/// SHA-256 of a token that is given as hex digits.
pub fn token_hash(token: &str) -> Option<String> {
    let token = model::token::Token::from_hex(token.as_bytes())?;
    let digest = Sha256::digest(token.bytes());
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn known_hosts(layout: &Layout) -> Result<String, Failure> {
    let directories = layout.host_key_directories();
    let found = directories.iter().map(|directory| host_keys(directory)).find(|keys| !keys.is_empty());
    let keys = found.ok_or_else(|| {
        let [own, ssh] = directories;
        let message = format!(
            "there is no public SSH host key of this server that its clients could expect: neither in {} nor in {} is a usable file *.pub",
            own.display(),
            ssh.display()
        );
        Failure::new(Cause::ClientCannotReachServer, message)
    })?;
    Ok(keys.iter().map(|key| key.known_hosts_line(ALIAS)).collect())
}

/// Every key of a type that we know; what else lies there is none of ours.
fn host_keys(directory: &Path) -> Vec<PublicKey> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "pub")).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let bytes = unix::files::read_small(path, HOST_KEY).ok().flatten()?;
        String::from_utf8(bytes).ok()?.parse().ok()
    };
    paths.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_job_key_is_known_as_long_as_it_lives() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = Layout::new(temporary.path());
        layout.create_directories().unwrap();
        let own = &layout.host_key_directories()[0];
        std::fs::create_dir(own).unwrap();
        let (host, _) = job_key(&[9; 32]).unwrap();
        std::fs::write(own.join("a.pub"), format!("{host} root@server\n")).unwrap();
        std::fs::write(own.join("b.pub"), "nonsense").unwrap();
        let token = "0f".repeat(32);
        let key = JobKey::make(&layout, 7, &token).unwrap();
        assert_eq!(key.known_hosts, format!("borgcube {host}\n"));
        assert!(key.private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        let line = std::fs::read_to_string(&key.file).unwrap();
        let (hash, socket) = (token_hash(&token).unwrap(), layout.session_socket());
        assert!(line.starts_with("restrict,command=\"") && line.ends_with(" job-7\n"), "{line}");
        assert!(line.contains(&format!("--socket {} --token-hash {hash}\" ssh-ed25519 ", socket.display())), "{line}");
        assert_eq!(std::fs::metadata(&key.file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(layout.job_keys()).unwrap().count(), 1);
        drop(key);
        assert_eq!(std::fs::read_dir(layout.job_keys()).unwrap().count(), 0);
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        // sha256sum of 32 zero bytes.
        let expected = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        assert_eq!(token_hash(&"0".repeat(64)).as_deref(), Some(expected));
        assert_eq!(token_hash("x"), None);
    }
}
