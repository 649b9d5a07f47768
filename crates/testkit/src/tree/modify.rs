//! Changing a tree between two backups.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Random;
use super::make::set_time;

/// What was done to a tree; paths relative to its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New files and directories, renamed ones under their new name among them.
    pub added: Vec<PathBuf>,
    /// Files with other content.
    pub changed: Vec<PathBuf>,
    /// Files with another mode or time, and the same content.
    pub touched: Vec<PathBuf>,
    /// Gone, renamed ones under their old name among them.
    pub removed: Vec<PathBuf>,
}

/// Changes a tree that [`make`](super::make) made, in every way that matters to a second backup. It may be called
/// again, with another seed.
///
/// # Panics
/// When the tree is not one of ours.
pub fn modify(root: &Path, seed: u64) -> Changes {
    let mut random = Random::new(seed ^ 0x6d6f_6469_6679);
    let mut changes = Changes::default();

    let big = Path::new("contents/incompressible");
    let file = OpenOptions::new().write(true).open(root.join(big)).expect("the tree has a big file");
    let length = file.metadata().expect("it can be looked at").len();
    file.write_all_at(&random.bytes(100), length / 2).expect("it can be written");
    changes.changed.push(big.into());

    let text = Path::new("contents/compressible.txt");
    let mut file = OpenOptions::new().append(true).open(root.join(text)).expect("the tree has a text");
    file.write_all(&random.text(5000)).expect("it can be appended to");
    changes.changed.push(text.into());

    let new = PathBuf::from(format!("contents/new {seed}"));
    fs::write(root.join(&new), random.bytes(50_000)).expect("a file can be added");
    changes.added.push(new);

    let removed = first_file(root, "many");
    fs::remove_file(root.join(&removed)).expect("a file can be removed");
    changes.removed.push(removed);

    let old = first_file(root, "many");
    let renamed = PathBuf::from(format!("contents/renamed {seed}"));
    fs::rename(root.join(&old), root.join(&renamed)).expect("a file can be renamed");
    changes.removed.push(old);
    changes.added.push(renamed);

    let mode = Path::new("modes/file 0644");
    let other = 0o600 | (random.below(0o100) as u32);
    fs::set_permissions(root.join(mode), fs::Permissions::from_mode(other)).expect("a mode can be changed");
    changes.touched.push(mode.into());

    let touched = Path::new("contents/deep/shifted");
    set_time(&root.join(touched), 1_700_000_000 + (seed % 1000) as i64, 5);
    changes.touched.push(touched.into());
    changes
}

/// The first file below `relative` in the order of names.
fn first_file(root: &Path, relative: &str) -> PathBuf {
    let mut directories: Vec<_> =
        fs::read_dir(root.join(relative)).expect("the tree has many files").flatten().map(|entry| entry.path()).collect();
    directories.sort();
    for directory in directories {
        let mut files: Vec<_> =
            fs::read_dir(&directory).expect("a directory of ours can be read").flatten().map(|entry| entry.path()).collect();
        files.sort();
        if let Some(first) = files.first() {
            let inside = first.strip_prefix(root).expect("it is below the root");
            return inside.to_owned();
        }
    }
    panic!("no file is left in {}: make the tree with more", root.join(relative).display());
}
