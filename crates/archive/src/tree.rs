//! An archive as a tree in memory: what a file system needs to answer at once. Content stays in the repository.

use crate::Complain;
use crate::attributes::{Attributes, Options};
use crate::error::{Error, Result};
use crate::export::REPAIRED;
use crate::items::Items;
use crate::kind::{Kind, hard_link};
use crate::source::Source;
use borg::Id;
use borg::item::{ChunkRef, Item, Xattr};
use std::collections::HashMap;

/// Bytes for the whole tree. A million files take some 250 MiB.
const MEMORY: usize = 4 << 30;

/// The root's number.
pub const ROOT: u32 = 0;

/// A piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub at: u64,
    /// Its size.
    pub size: u32,
    /// The chunk.
    pub id: Id,
}

/// A file, directory, link or device.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// `st_mode`
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub links: u32,
    /// Of devices.
    pub device: u32,
    /// Bytes of content.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i128,
    /// The same.
    pub atime: i128,
    /// First and last of its pieces.
    pieces: (usize, usize),
    /// What few have.
    pub more: Option<Box<More>>,
    /// Entries of a directory, in the order of the archive.
    pub entries: Vec<(Box<[u8]>, u32)>,
    /// The directory that it is in; of the root, itself.
    pub parent: u32,
}

/// What few have.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    names: HashMap<(u32, Box<[u8]>), u32>,
    pieces: Vec<Piece>,
    memory: usize,
}

impl Tree {
    /// Reads the whole list of files.
    pub fn read(source: &Source, numeric_ids: bool, complain: &mut Complain<'_>) -> Result<Tree> {
        let root = Node { mode: 0o040_755, links: 1, ..Node::default() };
        let mut tree = Tree { nodes: vec![root], names: HashMap::new(), pieces: vec![], memory: MEMORY };
        let mut attributes = Attributes::new(Options { numeric_ids, privileged: false });
        let mut items = Items::open(source)?;
        while let Some(item) = items.next(complain)? {
            let path = item.path.clone();
            // Whoever reads it later hears of nothing: what is there is whole.
            if item.chunks_healthy.is_some() {
                complain(Some(&path), REPAIRED);
            }
            if let Err(why) = tree.add(item, &mut attributes)? {
                complain(Some(&path), why);
            }
        }
        Ok(tree)
    }

    /// A node by its number.
    #[must_use]
    pub fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)
    }

    /// An entry of a directory.
    #[must_use]
    pub fn entry(&self, parent: u32, name: &[u8]) -> Option<u32> {
        self.names.get(&(parent, name.into())).copied()
    }

    /// The pieces of a file, from the one with the byte `at` on.
    #[must_use]
    pub fn pieces(&self, node: &Node, at: u64) -> &[Piece] {
        let all = self.pieces.get(node.pieces.0..node.pieces.1).unwrap_or_default();
        let first = all.partition_point(|piece| piece.at + u64::from(piece.size) <= at);
        all.get(first..).unwrap_or_default()
    }

    fn add(&mut self, mut item: Item, attributes: &mut Attributes) -> Result<std::result::Result<(), &'static str>> {
        let path = std::mem::take(&mut item.path);
        let Some(names) = names(&path) else { return Ok(Err("its path leads out of the archive, and it is not shown")) };
        if Kind::of(&item) == Kind::Unknown {
            return Ok(Err("it is nothing that can be shown: neither file, directory, link, pipe nor device"));
        }
        let Some((name, parents)) = names.split_last() else {
            self.fill(ROOT, item, attributes)?;
            return Ok(Ok(()));
        };
        let mut parent = ROOT;
        for name in parents {
            let known = self.entry(parent, name);
            parent = match known {
                Some(number) => number,
                None => self.make(parent, name, Node { mode: 0o040_755, ..Node::default() })?,
            };
            if self.node(parent).is_none_or(|node| Kind::of_mode(node.mode) != Kind::Directory) {
                return Ok(Err("it is below something that is no directory, and is not shown"));
            }
        }
        if let Some(master) = hard_link(&item) {
            let Some(number) = self.find(master).filter(|number| *number != ROOT) else {
                return Ok(Err("what it is a hard link to is not in the archive, and it is not shown"));
            };
            if self.entry(parent, name).is_none() {
                self.name(parent, name, number)?;
                if let Some(node) = self.nodes.get_mut(number as usize) {
                    node.links = node.links.saturating_add(1);
                }
            }
            return Ok(Ok(()));
        }
        let number = match self.entry(parent, name) {
            Some(number) => number,
            None => self.make(parent, name, Node::default())?,
        };
        let is_directory = Kind::of(&item) == Kind::Directory;
        if self.node(number).is_some_and(|node| !node.entries.is_empty()) && !is_directory {
            return Ok(Err("it has the name of a directory, and is not shown"));
        }
        self.fill(number, item, attributes)?;
        Ok(Ok(()))
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        names(path)?.iter().try_fold(ROOT, |at, name| self.entry(at, name))
    }

    fn make(&mut self, parent: u32, name: &[u8], node: Node) -> Result<u32> {
        self.take(size_of::<Node>())?;
        let number = u32::try_from(self.nodes.len()).map_err(|_| too_large())?;
        self.nodes.push(Node { links: 1, parent, ..node });
        self.name(parent, name, number)?;
        Ok(number)
    }

    fn name(&mut self, parent: u32, name: &[u8], number: u32) -> Result<()> {
        self.take(2 * name.len() + 100)?;
        self.names.insert((parent, name.into()), number);
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            node.entries.push((name.into(), number));
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<()> {
        self.memory = self.memory.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    fn fill(&mut self, number: u32, item: Item, attributes: &mut Attributes) -> Result<()> {
        let (uid, gid) = attributes.owner_numbers(&item);
        let chunks = item.chunks.unwrap_or_default();
        self.take(chunks.len() * size_of::<Piece>())?;
        let first = self.pieces.len();
        let mut at = 0;
        self.pieces.extend(chunks.into_iter().map(|ChunkRef { id, size, .. }| {
            let piece = Piece { at, size, id };
            at += u64::from(size);
            piece
        }));
        let pieces = (first, self.pieces.len());
        let more = (item.source.is_some() || item.xattrs.is_some())
            .then(|| Box::new(More { target: item.source.unwrap_or_default(), xattrs: item.xattrs.unwrap_or_default() }));
        let weight = more.as_ref().map_or(0, |more| {
            more.target.len() + more.xattrs.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 100).sum::<usize>()
        });
        self.take(weight)?;
        if let Some(node) = self.nodes.get_mut(number as usize) {
            node.mode = item.mode.unwrap_or(0);
            (node.uid, node.gid) = (uid, gid);
            // Linux: the kernel's form of device numbers in this protocol has 32 bits.
            node.device = u32::try_from(item.rdev.unwrap_or(0)).unwrap_or(0);
            node.size = at;
            (node.mtime, node.atime) = (item.mtime, item.atime.unwrap_or(item.mtime));
            node.pieces = pieces;
            node.more = more;
        }
        Ok(())
    }
}

fn too_large() -> Error {
    Error::TooLarge("the archive has more files than fit into memory; extract a part of it".into())
}

/// The names in a path; None if it leads out.
fn names(path: &[u8]) -> Option<Vec<&[u8]>> {
    if path.first() == Some(&b'/') || path.contains(&0) {
        return None;
    }
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    (!names.contains(&b"..".as_slice())).then_some(names)
}
