//! A directory in memory in which the owner's program finds the secrets of a repository that is being added or changed, and leaves a new
//! keyfile. It belongs to the owners' user, lives as long as the command, and never reaches a disk.

use super::Kept;
use crate::error::{Error, Result};
use crate::secrets::Secret;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use unix::files::{self, read_small, write_private};
use unix::paths::{CREDENTIAL_SSH_KEY, Layout, USER_REPOSITORY};
use unix::socket::{group_id, user_id};
use zeroize::Zeroizing;

/// systemd's limit for all credentials of a service.
const LARGEST: u64 = 1024 * 1024;

/// What an owner asks for.
const IDS: [&str; 3] = ["passphrase", "key", CREDENTIAL_SSH_KEY];

/// The directory.
#[derive(Debug)]
pub struct Staging(PathBuf);

impl Staging {
    /// A new one, empty.
    pub fn new(layout: &Layout) -> Result<Staging> {
        let path = layout.run().join(format!("add-{}", unix::random::hex(8)?));
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| {
            Error::failed(format!("cannot create {}: {e}", path.display()))
                .hint("Is BorgCube running? Try: systemctl start borgcube.target")
        })?;
        Ok(Staging(path))
    }

    /// A new one, with what is kept already.
    pub fn with(layout: &Layout, kept: &[Kept]) -> Result<Staging> {
        let staging = Staging::new(layout)?;
        for kept in kept {
            write_private(&staging.0.join(kept.id), &kept.read()?)?;
        }
        Ok(staging)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The secrets that lie in it now.
    pub fn secrets(&self) -> Result<Vec<(&'static str, Secret)>> {
        let mut secrets = vec![];
        for id in IDS {
            if let Some(secret) = read_small(&self.0.join(id), LARGEST)? {
                secrets.push((id, Zeroizing::new(secret)));
            }
        }
        Ok(secrets)
    }
}

/// Gives a directory of secrets, and what is in it, to the user of the owners; nothing happens if it is theirs already.
pub fn hand_over(directory: &Path) -> Result<()> {
    let (uid, gid) = owners()?;
    Ok(files::hand_over(directory, &IDS, uid, gid)?)
}

/// User and group of the owners.
pub fn owners() -> Result<(u32, u32)> {
    match (user_id(USER_REPOSITORY)?, group_id(USER_REPOSITORY)?) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(Error::failed(format!("there is no user {USER_REPOSITORY} on this machine"))
            .hint("BorgCube's packages make it; systemd-sysusers makes it anew. For a server without them see: borgcube up --help")),
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("borgcube: could not remove {}: {error}", self.0.display());
        }
    }
}
