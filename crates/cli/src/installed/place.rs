//! The directory of a repository on this machine, which has to belong to the owners' user.

use super::staging::owners;
use crate::context::shell_word;
use crate::error::{Error, Kind, Result};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use unix::paths::USER_REPOSITORY;

/// A directory that was made for a repository; it goes again unless the repository comes into being.
#[derive(Debug)]
pub struct MadeDirectory(Option<PathBuf>);

impl MadeDirectory {
    /// It stays.
    pub fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for MadeDirectory {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_dir(path)
        {
            eprintln!("borgcube: could not remove {}: {error}", path.display());
        }
    }
}

/// Makes the directory of a new repository, or looks whether an existing one is the owners'. What belongs to somebody else is never taken
/// away from them: the command that does it is named.
pub fn prepare(url: &str, create: bool) -> Result<MadeDirectory> {
    let path = Path::new(url);
    if !path.is_absolute() {
        return Ok(MadeDirectory(None));
    }
    let (uid, gid) = owners()?;
    let failed = |what: &str, e: std::io::Error| Error::failed(format!("cannot {what} {url}: {e}"));
    match fs::metadata(path) {
        Ok(meta) if meta.uid() == uid => Ok(MadeDirectory(None)),
        Ok(_) => Err(Error::new(
            Kind::Permission,
            format!("{url} does not belong to the user {USER_REPOSITORY}, which alone writes repositories"),
        )
        .hint(format!("Give it to that user: chown -R {USER_REPOSITORY}: {}", shell_word(path)))),
        Err(e) if e.kind() == ErrorKind::NotFound && create => {
            DirBuilder::new().mode(0o700).create(path).map_err(|e| match e.kind() {
                ErrorKind::NotFound => {
                    let parent = path.parent().unwrap_or(path);
                    let hint = format!("Is its disk mounted? If it only is not there yet: mkdir -p {}", shell_word(parent));
                    Error::new(Kind::NotFound, format!("there is no directory {}", parent.display())).hint(hint)
                }
                _ => failed("create", e),
            })?;
            let made = MadeDirectory(Some(path.to_owned()));
            unix::files::hand_over(path, &[], uid, gid)?;
            Ok(made)
        }
        // What is not there, the owner's program says in its own words.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(MadeDirectory(None)),
        Err(e) => Err(failed("look at", e)),
    }
}
