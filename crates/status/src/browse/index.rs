//! What is in an archive, in little memory: names, sizes, times, by directory. Made of a client's list of files, nothing of which need be true.

use archive::Kind;
use archive::kind::hard_link;
use borg::item::Item;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// The archive itself.
pub const ROOT: u32 = 0;

/// Complaints that are kept, and the bytes of one.
const COMPLAINTS: usize = 20;
/// See above.
const COMPLAINT: usize = 300;

/// `st_mode` of a directory that is only known from what is in it.
const IMPLIED: u32 = 0o040_000;

/// One name.
#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
    /// Its name, and behind it where a link leads, in the names.
    text: u32,
    name: u32,
    target: u32,
    mode: u32,
    /// Bytes of a file; of a directory, of all files in it, when everything was read.
    size: u64,
    /// Seconds since 1970; [`i64::MIN`]: nobody knows.
    mtime: i64,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// `st_mode`; without permissions: nothing but its name is known.
    pub mode: u32,
    /// Bytes of a file, or of all files in a directory.
    pub size: Option<u64>,
    /// Seconds since 1970.
    pub mtime: Option<i64>,
    /// Where a symbolic link leads, or which file it is another name of.
    pub target: Option<&'a [u8]>,
    /// It is another name of a file.
    pub is_hard_link: bool,
}

/// The index of an archive, or of one of its directories.
#[derive(Debug)]
pub struct Index {
    nodes: Vec<Node>,
    texts: Vec<u8>,
    /// Directories by parent and name; two of one hash lie beside each other.
    directories: HashMap<u64, u32>,
    hasher: RandomState,
    /// Only what is right in this directory is kept.
    scope: Option<Vec<Vec<u8>>>,
    /// Memory that is left.
    left: usize,
    /// The directory of the item before this one: the next one is most likely in it as well.
    last: (Vec<u8>, u32),
    /// By directory, then as people want to see them; None as long as items come.
    order: Option<Vec<u32>>,
    /// Items that were seen.
    pub items: u64,
    /// Items that are not shown, because their paths lead out of the archive or make no sense.
    pub strange: u64,
    /// What is wrong with the list of files.
    pub complaints: Vec<String>,
    /// There was no memory for everything in it.
    pub is_cut: bool,
}

/// There is no memory for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Index {
    /// Of everything, or of what is right in one directory, in so many bytes.
    #[must_use]
    pub fn new(scope: Option<Vec<Vec<u8>>>, memory: usize) -> Index {
        let root = Node { parent: ROOT, text: 0, name: 0, target: 0, mode: IMPLIED, size: 0, mtime: i64::MIN };
        Index {
            nodes: vec![root],
            texts: vec![],
            directories: HashMap::new(),
            hasher: RandomState::new(),
            scope,
            left: memory.min(u32::MAX as usize),
            last: (vec![], ROOT),
            order: None,
            items: 0,
            strange: 0,
            complaints: vec![],
            is_cut: false,
        }
    }

    /// Takes up an item. Of one that does not fit nothing but its directories may be there.
    pub fn add(&mut self, item: &Item) -> Result<(), Full> {
        self.items += 1;
        let Some(names) = names(&item.path) else {
            self.strange += 1;
            return Ok(());
        };
        let Some((name, above)) = names.split_last() else {
            // The directory that the archive was made of.
            if Kind::of(item) == Kind::Directory {
                self.fill(ROOT, item);
            }
            return Ok(());
        };
        if let Some(scope) = &self.scope {
            let shared = names.iter().zip(scope).take_while(|(name, wanted)| **name == wanted.as_slice()).count();
            if shared < scope.len() {
                // The way to it, and nothing beside.
                if shared == names.len() && Kind::of(item) == Kind::Directory {
                    let at = self.directory(&names)?;
                    self.fill(at, item);
                }
                return Ok(());
            }
            if names.len() > scope.len() + 1 {
                let child = names[..=scope.len()].to_vec();
                self.directory(&child)?;
                return Ok(());
            }
        }
        let path = item.path.strip_suffix(*name).and_then(|path| path.strip_suffix(b"/"));
        let parent = match path {
            Some(path) if path == self.last.0 => self.last.1,
            Some(path) => {
                let at = self.directory(above)?;
                self.last = (path.to_vec(), at);
                at
            }
            None => self.directory(above)?,
        };
        if Kind::of(item) == Kind::Directory {
            let at = self.step(parent, name)?;
            self.fill(at, item);
        } else {
            let target = match Kind::of(item) {
                Kind::Link => item.source.as_deref(),
                _ => hard_link(item),
            };
            let at = self.make(parent, name, target.unwrap_or_default())?;
            self.fill(at, item);
        }
        Ok(())
    }

    /// Keeps what is wrong with the list of files.
    pub fn complain(&mut self, what: &str) {
        if self.complaints.len() < COMPLAINTS {
            self.complaints.push(unix::logging::bounded(what, COMPLAINT));
        }
    }

    /// Everything has come: directories get their sizes, and entries their order.
    pub fn finish(&mut self) {
        if self.scope.is_none() {
            // What is in a directory has a larger number than it.
            for at in (1..self.nodes.len()).rev() {
                let Node { parent, size, .. } = self.nodes[at];
                if let Some(parent) = self.nodes.get_mut(parent as usize) {
                    parent.size = parent.size.saturating_add(size);
                }
            }
        }
        let mut order: Vec<u32> = (1..self.nodes.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.compare(*a, *b));
        self.order = Some(order);
        self.nodes.shrink_to_fit();
        self.texts.shrink_to_fit();
    }

    /// Whether the rest of the archive is left out.
    #[must_use]
    pub fn is_of_one_directory(&self) -> bool {
        self.scope.is_some()
    }

    /// Whether everything has come.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.order.is_some()
    }

    /// Bytes of memory, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let order = self.order.as_ref().map_or(0, Vec::capacity);
        self.nodes.capacity() * size_of::<Node>() + self.texts.capacity() + order * size_of::<u32>() + self.directories.capacity() * 18
    }

    /// The directory with this path.
    #[must_use]
    pub fn find_directory(&self, path: &[Vec<u8>]) -> Option<u32> {
        path.iter().try_fold(ROOT, |at, name| self.known(at, name).ok())
    }

    /// `count` entries of a directory from the one with this number on, and how many there are.
    #[must_use]
    pub fn entries(&self, directory: u32, from: usize, count: usize) -> (Vec<Entry<'_>>, usize) {
        if let Some(order) = &self.order {
            let parent = |at: &u32| self.nodes[*at as usize].parent;
            let first = order.partition_point(|at| parent(at) < directory);
            let end = order.partition_point(|at| parent(at) <= directory);
            let shown = order[first..end].iter().skip(from).take(count);
            return (shown.map(|at| self.entry(*at)).collect(), end - first);
        }
        let within = (1..self.nodes.len() as u32).filter(|at| self.nodes[*at as usize].parent == directory);
        let mut some: Vec<u32> = vec![];
        let mut total = 0;
        for at in within {
            total += 1;
            if some.len() < count {
                some.push(at);
            }
        }
        some.sort_unstable_by(|a, b| self.compare(*a, *b));
        (some.into_iter().map(|at| self.entry(at)).collect(), total)
    }

    /// The directory itself.
    #[must_use]
    pub fn itself(&self, directory: u32) -> Entry<'_> {
        self.entry(directory)
    }

    fn entry(&self, at: u32) -> Entry<'_> {
        let Some(node) = self.nodes.get(at as usize) else {
            return Entry { name: b"", mode: 0, size: None, mtime: None, target: None, is_hard_link: false };
        };
        let kind = Kind::of_mode(node.mode);
        let target = self.target(node);
        let is_hard_link = target.is_some() && kind != Kind::Link;
        let size = match kind {
            Kind::Directory => (self.is_whole() && self.scope.is_none()).then_some(node.size),
            Kind::File if is_hard_link => target.and_then(|path| self.size_of(path)),
            Kind::File => Some(node.size),
            _ => None,
        };
        let mtime = (node.mtime != i64::MIN).then_some(node.mtime);
        Entry { name: self.name(node), mode: node.mode, size, mtime, target, is_hard_link }
    }

    /// The size of a file, by its path.
    fn size_of(&self, path: &[u8]) -> Option<u64> {
        let node = self.leaf(&names(path)?)?;
        (Kind::of_mode(node.mode) == Kind::File && node.target == 0).then_some(node.size)
    }

    /// What is at a path, other than a directory; None: nothing, or not everything has come.
    #[must_use]
    pub fn kind_of(&self, path: &[Vec<u8>]) -> Option<Kind> {
        let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        self.leaf(&names).map(|node| Kind::of_mode(node.mode))
    }

    /// What is at a path, other than a directory.
    fn leaf(&self, names: &[&[u8]]) -> Option<&Node> {
        let order = self.order.as_ref()?;
        let (name, above) = names.split_last()?;
        let parent = above.iter().try_fold(ROOT, |at, name| self.known(at, name).ok())?;
        let key = |at: u32| {
            let node = &self.nodes[at as usize];
            (node.parent, is_file(node), self.name(node))
        };
        let at = order.binary_search_by(|at| key(*at).cmp(&(parent, true, *name))).ok()?;
        self.nodes.get(order[at] as usize)
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (&self.nodes[a as usize], &self.nodes[b as usize]);
        (a.parent, is_file(a), self.name(a)).cmp(&(b.parent, is_file(b), self.name(b)))
    }

    fn name(&self, node: &Node) -> &[u8] {
        let first = node.text as usize;
        self.texts.get(first..first + node.name as usize).unwrap_or_default()
    }

    fn target(&self, node: &Node) -> Option<&[u8]> {
        let first = node.text as usize + node.name as usize;
        self.texts.get(first..first + node.target as usize).filter(|target| !target.is_empty())
    }

    fn fill(&mut self, at: u32, item: &Item) {
        let size = match Kind::of(item) {
            Kind::File => {
                let chunks = item.chunks.iter().flatten();
                chunks.fold(0, |sum: u64, chunk| sum.saturating_add(chunk.size.into()))
            }
            _ => 0,
        };
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.mode = item.mode.unwrap_or(0);
            node.size = size;
            node.mtime = i64::try_from(item.mtime.div_euclid(1_000_000_000)).unwrap_or(i64::MIN);
        }
    }

    /// The directory with this path, made if nobody has named it yet.
    fn directory(&mut self, names: &[&[u8]]) -> Result<u32, Full> {
        names.iter().try_fold(ROOT, |at, name| self.step(at, name))
    }

    fn step(&mut self, parent: u32, name: &[u8]) -> Result<u32, Full> {
        match self.known(parent, name) {
            Ok(at) => Ok(at),
            Err(free) => {
                self.take(32)?;
                let at = self.make(parent, name, b"")?;
                if let Some(node) = self.nodes.get_mut(at as usize) {
                    node.mode = IMPLIED;
                }
                self.directories.insert(free, at);
                Ok(at)
            }
        }
    }

    /// A directory that is known, or the place for it.
    fn known(&self, parent: u32, name: &[u8]) -> Result<u32, u64> {
        let mut place = self.hasher.hash_one((parent, name));
        loop {
            match self.directories.get(&place) {
                None => return Err(place),
                Some(at) => {
                    let is_it = self.nodes.get(*at as usize).is_some_and(|node| node.parent == parent && self.name(node) == name);
                    if is_it {
                        return Ok(*at);
                    }
                    place = place.wrapping_add(1);
                }
            }
        }
    }

    fn make(&mut self, parent: u32, name: &[u8], target: &[u8]) -> Result<u32, Full> {
        // With its place in the order.
        self.take(size_of::<Node>() + size_of::<u32>() + name.len() + target.len())?;
        let at = self.nodes.len() as u32;
        let text = self.texts.len() as u32;
        self.texts.extend_from_slice(name);
        self.texts.extend_from_slice(target);
        let (name, target) = (name.len() as u32, target.len() as u32);
        self.nodes.push(Node { parent, text, name, target, mode: 0, size: 0, mtime: i64::MIN });
        Ok(at)
    }

    fn take(&mut self, bytes: usize) -> Result<(), Full> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.is_cut = true;
                Err(Full)
            }
        }
    }
}

/// Directories come first.
fn is_file(node: &Node) -> bool {
    Kind::of_mode(node.mode) != Kind::Directory
}

/// The names in a path; None if it leads out, or makes no sense.
fn names(path: &[u8]) -> Option<Vec<&[u8]>> {
    if path.first() == Some(&b'/') || path.contains(&0) {
        return None;
    }
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    (!names.contains(&b"..".as_slice())).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::Id;
    use borg::item::ChunkRef;

    fn item(path: &str, mode: u32, size: u32) -> Item {
        let chunks = (size > 0).then(|| vec![ChunkRef { id: Id([1; 32]), size, csize: size }]);
        Item { path: path.into(), mode: Some(mode), mtime: 5_000_000_001, chunks, ..Item::default() }
    }

    fn link(path: &str, mode: u32, source: &str) -> Item {
        Item { source: Some(source.into()), ..item(path, mode, 0) }
    }

    fn items() -> Vec<Item> {
        vec![
            item("etc", 0o040_755, 0),
            item("etc/z", 0o100_644, 10),
            item("etc/a", 0o100_600, 5),
            link("etc/l", 0o120_777, "../x"),
            item("etc/d", 0o040_700, 0),
            item("etc/d/b", 0o100_644, 100),
            link("home/h", 0o100_644, "etc/d/b"),
            item("../outside", 0o100_644, 1),
            item("/absolute", 0o100_644, 1),
        ]
    }

    fn path(text: &str) -> Vec<Vec<u8>> {
        text.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect()
    }

    fn names_in(index: &Index, directory: &str) -> Vec<String> {
        let at = index.find_directory(&path(directory)).unwrap();
        index.entries(at, 0, 100).0.iter().map(|entry| String::from_utf8_lossy(entry.name).into_owned()).collect()
    }

    #[test]
    fn directories_come_first_and_have_the_size_of_what_is_in_them() {
        let mut index = Index::new(None, 1 << 20);
        items().iter().for_each(|item| index.add(item).unwrap());
        assert_eq!(names_in(&index, ""), ["etc", "home"], "what is known so far");
        assert!(!index.is_whole());
        index.finish();
        assert_eq!(names_in(&index, "etc"), ["d", "a", "l", "z"]);
        assert_eq!((index.items, index.strange), (9, 2));
        let (entries, total) = index.entries(index.find_directory(&path("etc")).unwrap(), 1, 2);
        assert_eq!(total, 4);
        assert_eq!((entries[0].size, entries[0].mtime), (Some(5), Some(5)));
        assert_eq!((entries[1].target, entries[1].is_hard_link, entries[1].size), (Some(b"../x".as_slice()), false, None));
        assert_eq!(index.itself(ROOT).size, Some(115));
        let home = index.find_directory(&path("home")).unwrap();
        let hard = index.entries(home, 0, 9).0[0];
        assert_eq!((hard.is_hard_link, hard.size), (true, Some(100)));
        assert_eq!(index.itself(home).mtime, None, "only known from what is in it");
        for (leaf, kind) in [("etc/a", Some(Kind::File)), ("etc/l", Some(Kind::Link)), ("etc/d", None), ("etc/x", None), ("", None)] {
            assert_eq!(index.kind_of(&path(leaf)), kind, "{leaf}");
        }
        for none in ["etc/a", "nowhere", "..", "etc/.."] {
            assert_eq!(index.find_directory(&path(none)), None, "{none}");
        }
    }

    #[test]
    fn one_directory_alone() {
        let mut index = Index::new(Some(path("etc")), 1 << 20);
        items().iter().for_each(|item| index.add(item).unwrap());
        index.finish();
        assert_eq!(names_in(&index, "etc"), ["d", "a", "l", "z"]);
        assert_eq!(names_in(&index, ""), ["etc"]);
        assert!(names_in(&index, "etc/d").is_empty());
        let mut root = Index::new(Some(vec![]), 1 << 20);
        items().iter().for_each(|item| root.add(item).unwrap());
        assert_eq!(names_in(&root, ""), ["etc", "home"]);
    }

    #[test]
    fn memory_ends() {
        let mut index = Index::new(None, 4096);
        let fitting = (0..1000).take_while(|n| index.add(&item(&format!("directory {n}/file"), 0o100_644, 1)).is_ok()).count();
        assert!((10..60).contains(&fitting), "{fitting}");
        assert!(index.is_cut && index.memory() < 3 * 4096);
        // What an enemy nests.
        let deep = "d/".repeat(30_000) + "file";
        assert_eq!(Index::new(None, 1 << 20).add(&item(&deep, 0o100_644, 1)), Err(Full));
    }

    #[test]
    fn a_million_files() {
        let mut index = Index::new(None, super::super::INDEX_MEMORY);
        for number in 0..1_000_000_u32 {
            index.add(&item(&format!("srv/data/{:04}/{number:08}.txt", number / 500), 0o100_644, 7)).unwrap();
        }
        index.finish();
        assert_eq!(index.itself(ROOT).size, Some(7_000_000));
        assert_eq!(index.entries(index.find_directory(&path("srv/data")).unwrap(), 1990, 100), {
            let at = index.find_directory(&path("srv/data")).unwrap();
            let (all, total) = index.entries(at, 0, usize::MAX);
            (all[1990..].to_vec(), total)
        });
        assert!(index.memory() < 120 << 20, "{}", index.memory());
    }
}
