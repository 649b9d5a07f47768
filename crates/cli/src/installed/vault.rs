//! Where a command finds and leaves the secrets of a repository: the directory of the embedded default, or on an installed server a copy in
//! memory of what systemd keeps.

use super::{Kept, Staging, earlier_secrets};
use crate::context::Context;
use crate::error::Result;
use model::RepositoryName;
use std::path::{Path, PathBuf};
use unix::paths::CREDENTIAL_SSH_KEY;

/// The secrets of one repository.
#[derive(Debug)]
pub enum Vault {
    /// They are kept here.
    Directory(PathBuf),
    /// They are kept by systemd; this is a copy, for as long as the command runs.
    Copy(Staging, Vec<Kept>),
}

impl Vault {
    /// Opens it; on an installed server only root can.
    pub fn open(name: &RepositoryName, context: &Context) -> Result<Vault> {
        Vault::open_without(name, &[], context)
    }

    /// The same; what systemd keeps under these names is not read.
    pub fn open_without(name: &RepositoryName, ids: &[&str], context: &Context) -> Result<Vault> {
        if !context.layout.is_installed() {
            context.layout.create_repository_directories(name.as_str())?;
            return Ok(Vault::Directory(context.layout.credentials(name.as_str())));
        }
        let kept = earlier_secrets(name)?;
        let wanted: Vec<Kept> = kept.iter().filter(|kept| !ids.contains(&kept.id)).cloned().collect();
        let staging = Staging::with(&context.layout, &wanted)?;
        Ok(Vault::Copy(staging, kept))
    }

    /// Takes back the directories that opening it has made, of a repository that was not added after all. What has something in it stays.
    pub fn discard_empty(&self, name: &RepositoryName, context: &Context) {
        let Vault::Directory(path) = self else { return };
        let (views, index) = (context.layout.views(name.as_str()), context.layout.index(name.as_str()));
        for directory in [path, &views, &index] {
            if let Err(error) = std::fs::remove_dir(directory) {
                log::debug!("{} stays: {error}", directory.display());
            }
        }
    }

    /// The directory with the secrets as files.
    pub fn path(&self) -> &Path {
        match self {
            Vault::Directory(path) => path,
            Vault::Copy(staging, _) => staging.path(),
        }
    }

    /// The files with what opens the repository that are there already.
    pub fn earlier(&self) -> Vec<PathBuf> {
        match self {
            Vault::Directory(path) => ["passphrase", "key"].map(|id| path.join(id)).into_iter().filter(|path| path.exists()).collect(),
            Vault::Copy(_, kept) => kept.iter().filter(|kept| kept.id != CREDENTIAL_SSH_KEY).map(|kept| kept.path.clone()).collect(),
        }
    }
}
