//! What sshd is told of keys: the files of permanent keys follow the database, and those of jobs end with their jobs.

use super::Daemon;
use super::errors::refuse_in;
use crate::forced::{Holder, command};
use model::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use store::{Read, Result};
use unix::paths::Layout;
use wire::control::ErrorKind;

/// Largest file of a key.
const LARGEST: u64 = 16 * 1024;

impl Daemon {
    /// Makes the files of permanent keys what the database says. What goes wrong is told, and mended by the next change or start.
    pub(super) fn write_permanent_keys(&self) {
        let done = self.store.read(|r| r.clients().list()).map_err(|e| e.to_string()).and_then(|clients| {
            let wanted = permanent(&self.layout, &clients)?;
            replace(&self.layout.permanent_keys(), &wanted)
        });
        if let Err(e) = done {
            log::error!("the SSH keys of clients are not what they should be: {e}");
        }
    }

    /// Removes keys of jobs that run no more: their workers were killed.
    pub(super) fn sweep_job_keys(&self) {
        let live: BTreeSet<u64> = self.workers.keys().copied().collect();
        sweep(&self.layout.job_keys(), &live);
    }
}

/// A key that two clients have says nothing of who comes.
pub(super) fn refuse_shared(r: &Read<'_>, client: &Client) -> Result<()> {
    for other in r.clients().list()?.iter().filter(|other| other.name != client.name) {
        if let Some(shared) = client.keys.iter().find(|key| other.keys.iter().any(|known| known.key == key.key)) {
            let message =
                format!("the key {} belongs to client {} already; each client has keys of its own", shared.key.fingerprint(), other.name);
            return Err(refuse_in(ErrorKind::Conflict, message));
        }
    }
    Ok(())
}

/// Lines by file name.
fn permanent(layout: &Layout, clients: &[Client]) -> std::result::Result<BTreeMap<String, String>, String> {
    let mut wanted = BTreeMap::new();
    for client in clients {
        for key in &client.keys {
            // What is not a letter, a digit or '-' is none for a comment.
            let comment: String = client.name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let line = key.key.authorized_line(&command(layout, Holder::Client(&client.name)), key.from.as_ref(), &comment);
            wanted.insert(key.key.fingerprint_hex(), line.map_err(|e| e.to_string())?);
        }
    }
    Ok(wanted)
}

fn replace(directory: &Path, wanted: &BTreeMap<String, String>) -> std::result::Result<(), String> {
    for (name, path) in files(directory) {
        if !wanted.contains_key(&name) {
            fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    for (name, line) in wanted {
        let path = directory.join(name);
        if unix::files::read_small(&path, LARGEST).ok().flatten().as_deref() != Some(line.as_bytes()) {
            unix::files::write_with_mode(&path, line.as_bytes(), 0o640).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn sweep(directory: &Path, live: &BTreeSet<u64>) {
    for (_, path) in files(directory) {
        let line = unix::files::read_small(&path, LARGEST).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let job = line.as_deref().and_then(|line| line.trim_end().rsplit(" job-").next()?.parse::<u64>().ok());
        if job.is_some_and(|job| live.contains(&job)) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => log::info!("the key of a job that runs no more is removed"),
            // Its worker was faster.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => log::warn!("{} cannot be removed: {e}", path.display()),
        }
    }
}

/// The files of keys in a directory: names of 64 hex digits. Others may be in the making.
fn files(directory: &Path) -> Vec<(String, std::path::PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    named.filter(|(name, _)| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::sshkey::{ClientKey, job_key};
    use model::{Connection, Timestamp};

    fn client(name: &str, seeds: &[u8]) -> Client {
        let key = |seed: &u8| ClientKey { key: job_key(&[*seed; 32]).unwrap().0, from: None, added: Timestamp(0) };
        Client {
            name: name.parse().unwrap(),
            description: String::new(),
            connection: Connection::Local { remote_borg: None, remote_cache_dir: None },
            keys: seeds.iter().map(key).collect(),
            blackouts: vec![],
            borg_binary: Default::default(),
            created: Timestamp(0),
        }
    }

    #[test]
    fn files_of_permanent_keys_follow_the_records() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = Layout::new(temporary.path());
        layout.create_directories().unwrap();
        let directory = layout.permanent_keys();
        let write = |clients: &[Client]| replace(&directory, &permanent(&layout, clients).unwrap()).unwrap();
        let lines = || {
            let all = files(&directory).into_iter().map(|(_, path)| fs::read_to_string(path).unwrap());
            all.collect::<BTreeSet<String>>()
        };
        fs::write(directory.join("README"), "stays").unwrap();
        write(&[client("web.1", &[1, 2]), client("web2", &[3])]);
        assert_eq!(lines().len(), 3);
        assert!(
            lines().iter().filter(|l| l.contains(" --client web.1\" ssh-ed25519 ") && l.ends_with(" web-1\n")).count() == 2,
            "{:?}",
            lines()
        );
        write(&[client("web.1", &[2])]);
        assert_eq!(lines().len(), 1);
        write(&[]);
        assert!(lines().is_empty() && directory.join("README").exists());
    }

    #[test]
    fn keys_of_jobs_that_run_stay() {
        let directory = tempfile::tempdir().unwrap();
        let put = |seed: u8, comment: &str| {
            let (key, _) = job_key(&[seed; 32]).unwrap();
            let path = directory.path().join(key.fingerprint_hex());
            fs::write(&path, key.authorized_line("/p", None, comment).unwrap()).unwrap();
            path
        };
        let (running, over, odd) = (put(1, "job-7"), put(2, "job-6"), put(3, "job-x"));
        sweep(directory.path(), &BTreeSet::from([7]));
        assert!(running.exists() && !over.exists() && !odd.exists());
    }
}
