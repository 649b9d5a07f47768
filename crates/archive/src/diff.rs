//! What two archives have not in common.

use crate::Complain;
use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::items::Items;
use crate::kind::{Kind, hard_link};
use crate::selection::Selection;
use crate::source::Source;
use borg::archive::ChunkerParams;
use borg::item::{ChunkRef, Item};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Bytes for items that were found in one archive and not yet in the other, and for masters of hard links.
const MEMORY: usize = 1 << 30;

/// Chunks that are on their way while contents are compared, of each archive.
const AHEAD: usize = 8;

/// How something differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is in the second archive only.
    Added {
        /// Bytes of content.
        size: u64,
    },
    /// It is in the first archive only.
    Removed {
        /// Bytes of content.
        size: u64,
    },
    /// It is a file with other content.
    Content {
        /// Bytes of chunks that only the second one has, and that only the first one has. None: the archives' files were cut in different ways.
        bytes: Option<(u64, u64)>,
    },
    /// It is something else, or has other permissions.
    Mode {
        /// `st_mode`
        old: u32,
        /// The same.
        new: u32,
    },
    /// It belongs to somebody else: user and group, by name where there is one.
    Owner {
        /// In the first archive.
        old: (String, String),
        /// In the second one.
        new: (String, String),
    },
    /// It is a symbolic link and leads somewhere else.
    Link,
    /// It has other ACLs, extended attributes or flags.
    Attributes,
}

/// One path at which they differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path in the archives.
    pub path: Vec<u8>,
    /// What it is in the second archive, or was in the first.
    pub kind: Kind,
    /// How; never empty.
    pub changes: Vec<Change>,
}

/// An item, and its content.
struct Side {
    item: Item,
    chunks: Option<Arc<Vec<ChunkRef>>>,
}

/// Items of one archive that have no counterpart yet.
#[derive(Default)]
struct Waiting {
    items: HashMap<Vec<u8>, Side>,
    /// In the order of the archive.
    order: Vec<Vec<u8>>,
}

/// One archive.
struct Stream<'a> {
    source: &'a Source,
    items: Items,
    selection: Selection,
    masters: HashMap<Vec<u8>, Arc<Vec<ChunkRef>>>,
    waiting: Waiting,
    content: Option<Channel>,
}

/// Calls `found` for each path at which two archives differ: first those that are in both, then what was added, then what was removed.
pub fn diff(
    old: &Source,
    new: &Source,
    selections: [Selection; 2],
    found: &mut dyn FnMut(&Difference) -> Result<()>,
    complain: &mut Complain<'_>,
) -> Result<[Selection; 2]> {
    let by_id = old.readable.repository_id == new.readable.repository_id
        && same_cutting(&old.metadata.chunker_params, &new.metadata.chunker_params);
    let [first, second] = selections;
    let (mut old, mut new) = (Stream::open(old, first)?, Stream::open(new, second)?);
    let mut memory = MEMORY;
    loop {
        let (a, b) = (old.next(&mut memory, complain)?, new.next(&mut memory, complain)?);
        if a.is_none() && b.is_none() {
            break;
        }
        let pairs = match (a, b) {
            (Some(a), Some(b)) if a.item.path == b.item.path => vec![(a, b)],
            (a, b) => {
                let mut pairs = vec![];
                if let Some(a) = a {
                    match new.waiting.items.remove(&a.item.path) {
                        Some(b) => {
                            memory += b.weight();
                            pairs.push((a, b));
                        }
                        None => old.wait(a, &mut memory)?,
                    }
                }
                if let Some(b) = b {
                    match old.waiting.items.remove(&b.item.path) {
                        Some(a) => {
                            memory += a.weight();
                            pairs.push((a, b));
                        }
                        None => new.wait(b, &mut memory)?,
                    }
                }
                pairs
            }
        };
        for (a, b) in pairs {
            let changes = compare(&a, &b, by_id, &mut old, &mut new, complain)?;
            if !changes.is_empty() {
                found(&Difference { kind: Kind::of(&b.item), path: b.item.path, changes })?;
            }
        }
    }
    for (stream, is_new) in [(&mut new, true), (&mut old, false)] {
        let Waiting { mut items, order } = std::mem::take(&mut stream.waiting);
        for path in order {
            let Some(side) = items.remove(&path) else { continue };
            let size = side.size();
            let change = if is_new { Change::Added { size } } else { Change::Removed { size } };
            found(&Difference { kind: Kind::of(&side.item), path, changes: vec![change] })?;
        }
    }
    Ok([old.selection, new.selection])
}

/// Whether equal content makes equal chunks.
fn same_cutting(a: &Option<ChunkerParams>, b: &Option<ChunkerParams>) -> bool {
    let normal = |params: &ChunkerParams| (params.algorithm.clone().unwrap_or_else(|| b"buzhash".to_vec()), params.numbers.clone());
    match (a, b) {
        (Some(a), Some(b)) => normal(a) == normal(b),
        _ => false,
    }
}

impl Side {
    fn size(&self) -> u64 {
        self.chunks.iter().flat_map(|chunks| chunks.iter()).map(|chunk| u64::from(chunk.size)).sum()
    }

    fn weight(&self) -> usize {
        // A list that is shared with a master counts there.
        let chunks = self.chunks.as_ref().map_or(0, |chunks| chunks.len() * size_of::<ChunkRef>());
        let values = self.item.xattrs.iter().flatten().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        chunks + 3 * self.item.path.len() + values.sum::<usize>() + 600
    }
}

fn too_different() -> Error {
    Error::TooLarge("the archives are too different to be compared in memory; name some paths".into())
}

impl<'a> Stream<'a> {
    fn open(source: &'a Source, selection: Selection) -> Result<Stream<'a>> {
        Ok(Stream { source, items: Items::open(source)?, selection, masters: HashMap::new(), waiting: Waiting::default(), content: None })
    }

    /// The next selected item, with its content, be it its master's.
    fn next(&mut self, memory: &mut usize, complain: &mut Complain<'_>) -> Result<Option<Side>> {
        loop {
            let Some(mut item) = self.items.next(complain)? else { return Ok(None) };
            let mut chunks = item.chunks.take().map(Arc::new);
            match (hard_link(&item), &chunks) {
                (Some(master), _) => chunks = self.masters.get(master).cloned(),
                (None, Some(own)) if item.hardlink_master.unwrap_or(true) && Kind::of(&item).has_hard_links() => {
                    let size = item.path.len() + own.len() * size_of::<ChunkRef>() + 100;
                    *memory = memory.checked_sub(size).ok_or_else(too_different)?;
                    self.masters.insert(item.path.clone(), Arc::clone(own));
                }
                _ => {}
            }
            if self.selection.is_everything() || self.selection.choose(&item.path).is_some() {
                return Ok(Some(Side { item, chunks }));
            }
        }
    }

    fn wait(&mut self, side: Side, memory: &mut usize) -> Result<()> {
        *memory = memory.checked_sub(side.weight()).ok_or_else(too_different)?;
        let path = side.item.path.clone();
        // Of a path that is there twice the last one counts, as it does when it is extracted.
        if self.waiting.items.insert(path.clone(), side).is_none() {
            self.waiting.order.push(path);
        }
        Ok(())
    }

    fn content(&mut self) -> Result<&Channel> {
        if self.content.is_none() {
            self.content = Some(Channel::open(self.source)?);
        }
        self.content.as_ref().ok_or_else(|| Error::Unreachable("no connection".into()))
    }
}

fn compare(
    a: &Side,
    b: &Side,
    by_id: bool,
    old: &mut Stream<'_>,
    new: &mut Stream<'_>,
    complain: &mut Complain<'_>,
) -> Result<Vec<Change>> {
    let mut changes = vec![];
    let (kind, was) = (Kind::of(&b.item), Kind::of(&a.item));
    if kind == Kind::File && was == Kind::File {
        changes.extend(content(a, b, by_id, old, new, complain)?);
    }
    if kind == Kind::Link && was == Kind::Link && a.item.source != b.item.source {
        changes.push(Change::Link);
    }
    let (before, after) = (a.item.mode.unwrap_or(0), b.item.mode.unwrap_or(0));
    if before != after {
        changes.push(Change::Mode { old: before, new: after });
    }
    let (before, after) = (owner(&a.item), owner(&b.item));
    if before != after {
        changes.push(Change::Owner { old: before, new: after });
    }
    if attributes(&a.item) != attributes(&b.item) {
        changes.push(Change::Attributes);
    }
    Ok(changes)
}

/// As people know them, escaped for printing.
fn owner(item: &Item) -> (String, String) {
    let shown = |name: &Option<Option<Vec<u8>>>, id: Option<i64>| match name {
        Some(Some(name)) => unix::logging::escape_bytes(name),
        _ => id.map_or_else(String::new, |id| id.to_string()),
    };
    (shown(&item.user, item.uid), shown(&item.group, item.gid))
}

/// Extended attributes, ACLs, flags.
type Attributes<'a> = (Vec<(&'a [u8], &'a [u8])>, [&'a [u8]; 4], u64);

/// Everything else that is compared; no flags are no flag set.
fn attributes(item: &Item) -> Attributes<'_> {
    let mut own: Vec<(&[u8], &[u8])> =
        item.xattrs.iter().flatten().map(|(name, value)| (name.as_slice(), value.as_deref().unwrap_or_default())).collect();
    own.sort_unstable();
    let acls = [&item.acl_access, &item.acl_default, &item.acl_extended, &item.acl_nfs4].map(|acl| acl.as_deref().unwrap_or_default());
    (own, acls, item.bsdflags.unwrap_or(0))
}

fn content(
    a: &Side,
    b: &Side,
    by_id: bool,
    old: &mut Stream<'_>,
    new: &mut Stream<'_>,
    complain: &mut Complain<'_>,
) -> Result<Option<Change>> {
    let (Some(before), Some(after)) = (&a.chunks, &b.chunks) else {
        // A link whose master is missing is the same if it is a link to the same.
        return Ok((a.chunks.is_some() != b.chunks.is_some() || a.item.source != b.item.source).then_some(Change::Content { bytes: None }));
    };
    if by_id {
        if before.iter().map(|c| c.id).eq(after.iter().map(|c| c.id)) {
            return Ok(None);
        }
        let only = |these: &[ChunkRef], others: &[ChunkRef]| {
            let known: HashSet<_> = others.iter().map(|chunk| chunk.id).collect();
            these.iter().filter(|chunk| !known.contains(&chunk.id)).map(|chunk| u64::from(chunk.size)).sum::<u64>()
        };
        return Ok(Some(Change::Content { bytes: Some((only(after, before), only(before, after))) }));
    }
    if a.size() != b.size() {
        return Ok(Some(Change::Content { bytes: None }));
    }
    match same_bytes(old.content()?, before, new.content()?, after)? {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some(Change::Content { bytes: None })),
        Err(why) => {
            complain(Some(&b.item.path), &format!("it cannot be compared: {why}"));
            Ok(None)
        }
    }
}

/// A file's content, chunk by chunk.
struct Content<'a> {
    channel: &'a Channel,
    chunks: &'a [ChunkRef],
    asked: usize,
    taken: usize,
    plain: Vec<u8>,
    at: usize,
}

impl<'a> Content<'a> {
    fn new(channel: &'a Channel, chunks: &'a [ChunkRef]) -> Content<'a> {
        Content { channel, chunks, asked: 0, taken: 0, plain: vec![], at: 0 }
    }

    /// What is there of the current chunk, of the next one if there is nothing; nothing at the end.
    fn bytes(&mut self) -> Result<std::result::Result<&[u8], String>> {
        while self.at == self.plain.len() && self.taken < self.chunks.len() {
            let end = self.chunks.len().min(self.taken + AHEAD);
            self.channel.ask(self.chunks[self.asked..end].iter().map(|chunk| chunk.id));
            self.asked = end;
            self.taken += 1;
            match self.channel.take()? {
                Ok(plain) => (self.plain, self.at) = (plain, 0),
                Err(lack) => return Ok(Err(lack.why)),
            }
        }
        Ok(Ok(&self.plain[self.at..]))
    }

    /// Takes what is on its way and not wanted any more.
    fn end(self) -> Result<()> {
        (self.taken..self.asked).try_for_each(|_| self.channel.take().map(drop))
    }
}

fn same_bytes(old: &Channel, before: &[ChunkRef], new: &Channel, after: &[ChunkRef]) -> Result<std::result::Result<bool, String>> {
    let (mut a, mut b) = (Content::new(old, before), Content::new(new, after));
    let same = loop {
        let (x, y) = match (a.bytes()?, b.bytes()?) {
            (Ok(x), Ok(y)) => (x, y),
            (Err(why), _) | (_, Err(why)) => break Err(why),
        };
        let both = x.len().min(y.len());
        if both == 0 {
            break Ok(x.len() == y.len());
        }
        if x[..both] != y[..both] {
            break Ok(false);
        }
        a.at += both;
        b.at += both;
    };
    a.end()?;
    b.end()?;
    Ok(same)
}
