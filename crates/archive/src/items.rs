//! An archive's list of files.
//!
//! A piece of it that is missing or damaged, or that makes no sense, takes what it describes with it and nothing else: reading goes on at the next
//! item that can be found behind it.

use crate::Complain;
use crate::channel::Channel;
use crate::error::Result;
use crate::source::Source;
use borg::Id;
use borg::item::{Item, ItemLimits, ItemParser};

/// Pieces of the list that are asked for ahead. Borg makes them about 128 KiB, and 512 KiB at most.
const AHEAD: usize = 16;

/// In a search for the next item: where one may begin is tried so often in each piece,
const TRIES: usize = 1000;

/// with so many bytes.
const LOOK: usize = 256 << 10;

/// The fields that Borg may write first into an item: they are sorted.
const FIRST_FIELDS: [&[u8]; 12] = [
    b"acl_access",
    b"acl_default",
    b"acl_extended",
    b"acl_nfs4",
    b"atime",
    b"birthtime",
    b"bsdflags",
    b"chunks",
    b"chunks_healthy",
    b"ctime",
    b"gid",
    b"group",
];

/// Items in the order of the archive.
#[derive(Debug)]
pub struct Items {
    channel: Channel,
    ids: Vec<Id>,
    asked: usize,
    taken: usize,
    parser: ItemParser,
    /// The pieces before the next one make no sense together with it: an item has to be found in it.
    is_lost: bool,
    /// Items that were handed out by earlier parsers.
    found: u64,
    /// The parser may have more.
    has_more: bool,
}

impl Items {
    /// From the beginning.
    pub fn open(source: &Source) -> Result<Items> {
        let channel = Channel::open(source)?;
        let parser = ItemParser::new(ItemLimits::TOLERANT);
        let mut items =
            Items { channel, ids: source.metadata.items.clone(), asked: 0, taken: 0, parser, is_lost: false, found: 0, has_more: false };
        items.ask();
        Ok(items)
    }

    /// Pieces of the list that were read, and how many there are.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.taken, self.ids.len())
    }

    /// Whether the next item can most likely be had without waiting for the owner.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.has_more || self.channel.is_ready()
    }

    fn ask(&mut self) {
        let end = self.ids.len().min(self.taken + AHEAD);
        if self.asked < end {
            self.channel.ask(self.ids[self.asked..end].iter().copied());
            self.asked = end;
        }
    }

    /// The next item; parts of files, which checkpoints leave in an archive, are none (Borg 1.x hides them as well).
    ///
    /// # Errors
    /// When the owner has gone for good.
    pub fn next(&mut self, complain: &mut Complain<'_>) -> Result<Option<Item>> {
        loop {
            match self.parser.next_item() {
                Ok(Some(item)) if item.part.is_some() => continue,
                Ok(Some(item)) => {
                    self.has_more = true;
                    return Ok(Some(item));
                }
                Ok(None) => self.has_more = false,
                Err(e) => {
                    complain(None, &format!("its list of files makes no sense behind item {}: {e}", self.count()));
                    self.lose();
                }
            }
            if self.taken == self.ids.len() {
                if !self.is_lost && self.parser.finish().is_err() {
                    complain(None, "its list of files ends in the middle of an item");
                    self.lose();
                }
                return Ok(None);
            }
            match self.channel.take()? {
                Ok(piece) if self.is_lost => self.search(&piece),
                Ok(piece) => self.parser.push(&piece),
                Err(lack) => {
                    complain(None, &format!("its list of files has a hole, what is described there is lost: {}", lack.why));
                    self.lose();
                }
            }
            self.taken += 1;
            self.ask();
        }
    }

    fn count(&self) -> u64 {
        self.found + self.parser.count()
    }

    fn lose(&mut self) {
        self.found = self.count();
        self.parser = ItemParser::new(ItemLimits::TOLERANT);
        self.is_lost = true;
    }

    /// Goes on at the first whole item of a piece, if there is one.
    fn search(&mut self, piece: &[u8]) {
        let begins = (0..piece.len()).filter(|at| may_begin(&piece[*at..])).take(TRIES);
        for at in begins {
            let mut parser = ItemParser::new(ItemLimits::TOLERANT);
            let rest = &piece[at..];
            parser.push(&rest[..rest.len().min(LOOK)]);
            if matches!(parser.next_item(), Ok(Some(item)) if !item.path.is_empty() && item.mode.is_some()) {
                self.parser = ItemParser::new(ItemLimits::TOLERANT);
                self.parser.push(rest);
                self.is_lost = false;
                return;
            }
        }
    }
}

/// Whether these bytes could be an item: a map with a field that comes first.
fn may_begin(bytes: &[u8]) -> bool {
    let fields = match bytes {
        [0x83..=0x8f, rest @ ..] | [0xde, 0, _, rest @ ..] => rest,
        _ => return false,
    };
    let Some((head, rest)) = fields.split_first() else { return false };
    // Borg 1.x: short byte strings.
    let length = usize::from(head & 0x1f);
    head & 0xe0 == 0xa0 && rest.get(..length).is_some_and(|name| FIRST_FIELDS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::msgpack::Writer;

    #[test]
    fn the_beginning_of_an_item_is_recognised() {
        let item = Item { path: b"a".to_vec(), mode: Some(0o100_644), gid: Some(0), mtime: 1, uid: Some(0), ..Item::default() };
        let packed = Writer::packed(|writer| item.write(writer));
        assert!(may_begin(&packed));
        assert!((1..packed.len()).all(|at| !may_begin(&packed[at..])));
        assert!(!may_begin(b""));
        assert!(!may_begin(&[0xde, 0]));
    }
}
