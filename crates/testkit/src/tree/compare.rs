//! Are two trees the same, byte for byte and in everything a backup keeps?

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, relative to both roots; empty is the root itself.
    pub path: PathBuf,
    /// What, in words: `mode 0644 became 0600`.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.what)
    }
}

/// How many differences are worth reading.
const SHOWN: usize = 50;

/// The differences as text, one to a line, the first fifty of them.
pub fn listed(differences: &[Difference]) -> String {
    let mut lines: Vec<_> = differences.iter().take(SHOWN).map(|one| format!("  {one}")).collect();
    if differences.len() > SHOWN {
        lines.push(format!("  and {} more", differences.len() - SHOWN));
    }
    lines.join("\n")
}

/// Fails the test when the two trees are not the same in everything [`differences`] looks at.
///
/// # Panics
/// With a readable list of what differs.
#[track_caller]
pub fn assert_same(expected: &Path, actual: &Path) {
    let differences = differences(expected, actual);
    assert!(
        differences.is_empty(),
        "{} differs from {} in {} places:\n{}",
        actual.display(),
        expected.display(),
        differences.len(),
        listed(&differences)
    );
}

/// What differs between two trees, in the order of paths.
///
/// Looked at: which names there are, type, mode, owner and group, time of modification to the nanosecond, size and
/// every byte of files, targets of symlinks, device numbers, extended attributes (`user.*`, capabilities, ACLs),
/// and which names are hard links of one file. Not looked at: times of access and change, holes of sparse files
/// (Borg 1.x makes them only with `extract --sparse`), sizes of directories.
pub fn differences(expected: &Path, actual: &Path) -> Vec<Difference> {
    let (left, right) = (scan(expected), scan(actual));
    let mut found = Vec::new();
    let names: BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    let (left_links, right_links) = (link_groups(&left), link_groups(&right));
    for path in names {
        let mut report = |what: String| {
            found.push(Difference { path: path.clone(), what });
        };
        let (a, b) = match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => {
                report("is missing".into());
                continue;
            }
            _ => {
                report("is there, but should not be".into());
                continue;
            }
        };
        let (at_a, at_b) = (expected.join(path), actual.join(path));
        for what in compare_one(&at_a, a, &at_b, b) {
            report(what);
        }
        if left_links.get(path) != right_links.get(path) {
            report(format!("hard links {:?} became {:?}", left_links.get(path), right_links.get(path)));
        }
    }
    found
}

type Scan = BTreeMap<PathBuf, Metadata>;

fn scan(root: &Path) -> Scan {
    let mut found = Scan::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        // `root/` would follow a root that is a symlink.
        let path = match relative.as_os_str().is_empty() {
            true => root.to_owned(),
            false => root.join(&relative),
        };
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            let inside = fs::read_dir(&path).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
            pending.extend(inside.flatten().map(|entry| relative.join(entry.file_name())));
        }
        found.insert(relative, metadata);
    }
    found
}

/// For each name of a file that has several: all of its names in the tree.
fn link_groups(scan: &Scan) -> BTreeMap<&PathBuf, BTreeSet<&PathBuf>> {
    let mut groups: BTreeMap<(u64, u64), BTreeSet<&PathBuf>> = BTreeMap::new();
    for (path, metadata) in scan.iter().filter(|(_, metadata)| !metadata.is_dir()) {
        groups.entry((metadata.dev(), metadata.ino())).or_default().insert(path);
    }
    let mut by_name = BTreeMap::new();
    for group in groups.into_values().filter(|group| group.len() > 1) {
        for name in &group {
            by_name.insert(*name, group.clone());
        }
    }
    by_name
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_fifo() => "fifo",
        () if kind.is_char_device() => "character device",
        () if kind.is_block_device() => "block device",
        () if kind.is_socket() => "socket",
        () => "something unknown",
    }
}

fn compare_one(path_a: &Path, a: &Metadata, path_b: &Path, b: &Metadata) -> Vec<String> {
    let mut found = Vec::new();
    if kind(a) != kind(b) {
        return vec![format!("{} became {}", kind(a), kind(b))];
    }
    if a.mode() != b.mode() {
        let (a, b) = (a.mode() & 0o7777, b.mode() & 0o7777);
        found.push(format!("mode {a:04o} became {b:04o}"));
    }
    let (owner_a, owner_b) = ((a.uid(), a.gid()), (b.uid(), b.gid()));
    if owner_a != owner_b {
        found.push(format!("owner {owner_a:?} became {owner_b:?}"));
    }
    let (time_a, time_b) = ((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()));
    if time_a != time_b {
        found.push(format!("mtime {}.{:09} became {}.{:09}", time_a.0, time_a.1, time_b.0, time_b.1));
    }
    if a.file_type().is_symlink() {
        let (target_a, target_b) = (fs::read_link(path_a).ok(), fs::read_link(path_b).ok());
        if target_a != target_b {
            found.push(format!("target {target_a:?} became {target_b:?}"));
        }
    }
    let device = a.file_type().is_char_device() || a.file_type().is_block_device();
    if device && a.rdev() != b.rdev() {
        found.push(format!("device number {:#x} became {:#x}", a.rdev(), b.rdev()));
    }
    if a.is_file() {
        if a.size() != b.size() {
            found.push(format!("size {} became {}", a.size(), b.size()));
        } else if let Some(what) = compare_content(path_a, path_b) {
            found.push(what);
        }
    }
    let (attributes_a, attributes_b) = (attributes(path_a), attributes(path_b));
    if attributes_a != attributes_b {
        found.push(format!("attributes {attributes_a:?} became {attributes_b:?}"));
    }
    found
}

fn compare_content(a: &Path, b: &Path) -> Option<String> {
    let (mut left, mut right) = match (File::open(a), File::open(b)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(error), _) => return Some(format!("{}: {error}", a.display())),
        (_, Err(error)) => return Some(format!("{}: {error}", b.display())),
    };
    let (mut x, mut y) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut offset = 0;
    loop {
        let (n, m) = match (fill(&mut left, &mut x), fill(&mut right, &mut y)) {
            (Ok(n), Ok(m)) => (n, m),
            (Err(error), _) | (_, Err(error)) => return Some(format!("cannot be read: {error}")),
        };
        if let Some(at) = x[..n].iter().zip(&y[..m]).position(|(p, q)| p != q) {
            return Some(format!("content differs from byte {} on", offset + at));
        }
        if n != m {
            return Some(format!("content ends at byte {}", offset + n.min(m)));
        }
        if n == 0 {
            return None;
        }
        offset += n;
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

/// The extended attributes a backup keeps; those the system makes by itself (SELinux labels) are none of them.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 1 << 16];
    let Ok(length) = llistxattr(path, names.as_mut_slice()) else {
        return BTreeMap::new();
    };
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl") || *name == b"security.capability")
        .map(|name| {
            let mut value = vec![0u8; 1 << 16];
            let length = lgetxattr(path, OsStr::from_bytes(name), value.as_mut_slice())
                .unwrap_or_else(|e| panic!("attributes of {}: {e}", path.display()));
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests;
