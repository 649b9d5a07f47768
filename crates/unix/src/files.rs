//! Files that have to be complete, durable and private.

use crate::{Error, Result, random};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file of mode 0600 that is afterwards either as before or complete, even after a power cut: written beside,
/// synced, renamed over, and the directory synced.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io(format!("cannot write {}", path.display()), e);
    let Some(name) = path.file_name() else {
        return Err(Error::Invalid(format!("\"{}\" names no file", path.display())));
    };
    let directory = parent(path);
    // The name is cut so that the random part fits behind the longest one.
    let hint: String = name.to_string_lossy().chars().take(32).collect();
    let temporary = directory.join(format!(".{hint}.{}.tmp", random::hex(8)?));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = written {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(failed(e));
    }
    fsync_dir(directory)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes creations, renames and deletions in a directory durable.
pub fn fsync_dir(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| Error::io(format!("cannot sync the directory {}", directory.display()), e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
