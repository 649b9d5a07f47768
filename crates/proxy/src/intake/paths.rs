//! The tree that an archive's items make: which path is what, in little memory.

use crate::rules::Rule;
use crate::stop::{Stop, quoted};
use model::Cause;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// The longest path and link target in bytes. Linux has 4096 for one call, but trees can be deeper.
pub const MAX_PATH: usize = 32 * 1024;

/// Components of a path: each costs a hash, and an entry of its own.
pub const MAX_COMPONENTS: usize = 2048;

/// Paths of one archive. At up to 34 bytes each that is some 2 GiB.
pub const MAX_PATHS: usize = 60_000_000;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A character device.
    Character,
    /// A block device.
    Block,
}

const KINDS: [Kind; 6] = [Kind::Directory, Kind::File, Kind::Link, Kind::Fifo, Kind::Character, Kind::Block];

/// The path was an item, not only the parent of one.
const STATED: u8 = 0x40;
/// Later items may be hard links to it.
const MASTER: u8 = 0x80;

/// A path, as the first 120 bits of a salted SHA-256: with the value beside it an entry takes 16 bytes.
type Name = [u8; 15];

/// Takes eight bytes of a name as its hash: it is one already, and salted.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some((first, _)) = bytes.split_first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

/// The paths seen so far.
pub struct Paths {
    salt: [u8; 16],
    known: HashMap<Name, u8, BuildHasherDefault<Taken>>,
    /// The last parent found to be a directory: its children follow one another.
    parent: Vec<u8>,
}

impl Paths {
    /// None yet. The salt must be random: it keeps clients from preparing paths that collide.
    pub fn new(salt: [u8; 16]) -> Paths {
        Paths { salt, known: HashMap::default(), parent: Vec::new() }
    }

    /// Adds an item's path, which must be sane (see [`check_path`]).
    ///
    /// The same path twice as the same kind is fine: Borg stores overlapping PATHS twice. Two kinds, or a child of something
    /// that is no directory, is `paths-overlap`, which honest clients produce too when files change meanwhile.
    pub fn add(&mut self, path: &[u8], kind: Kind, master: bool) -> Result<(), Stop> {
        if path != b"." {
            self.add_parents(path)?;
        }
        let name = self.name(path);
        let known = self.known.entry(name).or_insert(kind as u8);
        if kind_of(*known) != kind {
            return Err(overlap(path, &format!("is both {} and {}", kind_of(*known).word(), kind.word())));
        }
        *known |= STATED | if master { MASTER } else { 0 };
        self.check_count()
    }

    /// Whether a hard link of this kind may refer to this path.
    pub fn is_master(&self, path: &[u8], kind: Kind) -> bool {
        self.known.get(&self.name(path)).is_some_and(|known| kind_of(*known) == kind && known & MASTER != 0)
    }

    fn add_parents(&mut self, path: &[u8]) -> Result<(), Stop> {
        let Some(end) = path.iter().rposition(|byte| *byte == b'/') else {
            return Ok(());
        };
        let parent = &path[..end];
        if parent == self.parent {
            return Ok(());
        }
        let ends = parent.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        // Every byte is hashed once: an ancestor's hash goes on where that of its parent stopped.
        let (mut hash, mut hashed) = (Sha256::new_with_prefix(self.salt), 0);
        for end in ends.chain([parent.len()]) {
            let ancestor = &parent[..end];
            hash.update(&parent[hashed..end]);
            hashed = end;
            let name = shortened(hash.clone());
            let known = self.known.entry(name).or_insert(Kind::Directory as u8);
            if kind_of(*known) != Kind::Directory {
                return Err(overlap(path, &format!("lies below {:?}, which is {}", quoted(ancestor), kind_of(*known).word())));
            }
        }
        self.parent.clear();
        self.parent.extend_from_slice(parent);
        self.check_count()
    }

    fn check_count(&self) -> Result<(), Stop> {
        if self.known.len() > MAX_PATHS {
            return Err(Stop::limit("paths", format!("The archive has more than {MAX_PATHS} paths")));
        }
        Ok(())
    }

    fn name(&self, path: &[u8]) -> Name {
        shortened(Sha256::new_with_prefix(self.salt).chain_update(path))
    }
}

fn shortened(hash: Sha256) -> Name {
    let digest: [u8; 32] = hash.finalize().into();
    let mut name = [0; 15];
    name.copy_from_slice(&digest[..15]);
    name
}

fn kind_of(known: u8) -> Kind {
    KINDS[usize::from(known & 0x0f) % KINDS.len()]
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Directory => "a directory",
            Kind::File => "a file",
            Kind::Link => "a symbolic link",
            Kind::Fifo => "a named pipe",
            Kind::Character => "a character device",
            Kind::Block => "a block device",
        }
    }
}

fn overlap(path: &[u8], what: &str) -> Stop {
    Stop::failed(Cause::PathsOverlap, format!("The path {} {}", crate::stop::shown(&quoted(path)), crate::stop::shown(what)))
}

/// An item's path: relative, without `.`, `..` and empty components, without NUL. (`.` by itself is the root of what was
/// backed up: Borg calls `/` so.)
pub fn check_path(path: &[u8]) -> Result<(), Stop> {
    let bad = |what: &str| Rule::ItemPath.breach(format!("the path {:?} {what}", quoted(path)));
    if path.len() > MAX_PATH {
        return bad("is too long");
    }
    if path.contains(&0) {
        return bad("contains NUL");
    }
    if path == b"." {
        return Ok(());
    }
    for (before, component) in path.split(|byte| *byte == b'/').enumerate() {
        if before == MAX_COMPONENTS {
            return bad("is too deep");
        }
        match component {
            b"" => return bad("is empty, absolute, or has an empty component"),
            b"." | b".." => return bad("has a component '.' or '..'"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(paths: &mut Paths, path: &str, kind: Kind) -> &'static str {
        match paths.add(path.as_bytes(), kind, false) {
            Ok(()) => "ok",
            Err(Stop::Failed(failure)) => failure.cause.word(),
            Err(_) => "violation",
        }
    }

    #[test]
    fn a57_paths() {
        for good in ["a", "a/b", ".", "..a/b..", "a/.b", "...", "ü\n/x", " "] {
            assert!(check_path(good.as_bytes()).is_ok(), "{good:?}");
        }
        assert!(check_path(b"\xff\xfe").is_ok());
        let long = "x".repeat(MAX_PATH + 1);
        for bad in ["", "/", "/etc", "a//b", "a/", "..", "../a", "a/../b", "a/..", "./a", "a/./b", "a/.", "a\0b", &long] {
            match check_path(bad.as_bytes()) {
                Err(Stop::Violation(v)) => assert_eq!(v.rule, "item-path"),
                other => panic!("{bad:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a23_deep_paths_are_bounded_and_cheap() {
        let deep = |n: usize, leaf: &str| format!("{}{leaf}", "d/".repeat(n - 1));
        assert!(check_path(deep(MAX_COMPONENTS, "f").as_bytes()).is_ok());
        assert!(check_path(deep(MAX_COMPONENTS + 1, "f").as_bytes()).is_err());
        // The last parent is remembered: two leaves of different lengths keep it from helping.
        let wide = |leaf: &str| format!("{}{leaf}/f", "dddddddddddddd/".repeat(2000));
        let mut paths = Paths::new([1; 16]);
        let began = std::time::Instant::now();
        for number in 0..200 {
            assert_eq!(add(&mut paths, &wide(&format!("x{}", number % 2)), Kind::File), "ok");
        }
        // Hashing every ancestor from its beginning would be 6 GB.
        assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
    }

    #[test]
    fn a57_one_path_is_one_thing() {
        let mut paths = Paths::new([1; 16]);
        for (path, kind, expected) in [
            (".", Kind::Directory, "ok"),
            ("a", Kind::Directory, "ok"),
            ("a/b", Kind::File, "ok"),
            ("a/b", Kind::File, "ok"),
            ("a", Kind::Directory, "ok"),
            ("a/l", Kind::Link, "ok"),
            ("a/l/x", Kind::File, "paths-overlap"),
            ("a/b", Kind::Link, "paths-overlap"),
            ("a/b/c/d", Kind::File, "paths-overlap"),
            // Only ever a parent: but a directory from then on.
            ("p/q/r", Kind::Fifo, "ok"),
            ("p", Kind::Directory, "ok"),
            ("p/q", Kind::File, "paths-overlap"),
            ("p/q/r/s", Kind::File, "paths-overlap"),
            ("a", Kind::Block, "paths-overlap"),
            ("pp", Kind::Character, "ok"),
            (".", Kind::Link, "paths-overlap"),
        ] {
            assert_eq!(add(&mut paths, path, kind), expected, "{path} {kind:?}");
        }
    }

    #[test]
    fn a_refused_parent_is_not_remembered() {
        let mut paths = Paths::new([1; 16]);
        assert_eq!(add(&mut paths, "a", Kind::Link), "ok");
        assert_eq!(add(&mut paths, "a/b", Kind::File), "paths-overlap");
        assert_eq!(add(&mut paths, "a/c", Kind::File), "paths-overlap");
    }

    #[test]
    fn a57_hard_links_name_a_master_of_their_kind() {
        let mut paths = Paths::new([1; 16]);
        paths.add(b"f", Kind::File, true).unwrap();
        paths.add(b"f", Kind::File, false).unwrap();
        paths.add(b"g", Kind::File, false).unwrap();
        assert!(paths.is_master(b"f", Kind::File), "a second item of the same path takes nothing away");
        assert!(!paths.is_master(b"f", Kind::Fifo));
        assert!(!paths.is_master(b"g", Kind::File));
        assert!(!paths.is_master(b"h", Kind::File));
    }

    #[test]
    fn an_entry_takes_16_bytes() {
        assert_eq!(size_of::<(Name, u8)>(), 16);
    }
}
