//! Selected items one after the other, with their content, which is asked for ahead.

use crate::Complain;
use crate::channel::{Channel, Object};
use crate::error::Result;
use crate::items::Items;
use crate::kind::Kind;
use crate::links::{Body, Links};
use crate::selection::Selection;
use crate::source::Source;
use borg::item::{ChunkRef, Item};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of content that are on their way, as the items state them.
const WINDOW: u64 = 24 << 20;

/// Chunks of content that are on their way.
const MOST_CHUNKS: usize = 1500;

/// A chunk counts so much at least.
const LEAST: u64 = 4 << 10;

/// Items that wait for their turn, and what they may weigh together.
const MOST_ITEMS: usize = 1500;

/// See above.
const MOST_WEIGHT: usize = 32 << 20;

/// Items of a selection, in the order of the archive.
pub struct Feed<'a> {
    source: &'a Source,
    input: Input<'a>,
    links: Links,
    /// Made when the first content is asked for.
    content: Option<Channel>,
    /// Whether anybody wants content.
    with_content: bool,
    queue: VecDeque<Queued>,
    weight: usize,
    /// The one that was handed out.
    current: Option<Queued>,
    /// Chunks on their way, of `current` and of the queue, and what they count.
    pending: VecDeque<u64>,
    pending_bytes: u64,
    at_end: bool,
}

/// Where items come from.
enum Input<'a> {
    /// From the archive's list of files.
    List(Box<Items>, &'a mut Selection),
    /// From whoever has read that list before; each is wanted, under its own name.
    Given(VecDeque<Item>),
}

/// An item with a place in what comes out.
#[derive(Debug)]
pub struct Chosen {
    /// The item; its chunks are in the body.
    pub item: Item,
    /// Its path without what is stripped.
    pub name: Vec<u8>,
    /// What it consists of.
    pub body: Body,
}

#[derive(Debug)]
struct Queued {
    chosen: Option<Chosen>,
    body: Body,
    weight: usize,
    asked: usize,
    taken: usize,
}

impl Queued {
    fn left_to_ask(&self) -> &[ChunkRef] {
        match &self.body {
            Body::Chunks(chunks) => chunks.get(self.asked..).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl<'a> Feed<'a> {
    /// From the beginning of an archive.
    pub fn open(source: &'a Source, selection: &'a mut Selection, with_content: bool) -> Result<Feed<'a>> {
        Ok(Feed::new(source, Input::List(Box::new(Items::open(source)?), selection), with_content))
    }

    /// Of these items, with their content. None of them is a hard link to something else.
    #[must_use]
    pub fn of(source: &'a Source, items: Vec<Item>) -> Feed<'a> {
        Feed::new(source, Input::Given(items.into()), true)
    }

    fn new(source: &'a Source, input: Input<'a>, with_content: bool) -> Feed<'a> {
        Feed {
            source,
            input,
            links: Links::default(),
            content: None,
            with_content,
            queue: VecDeque::new(),
            weight: 0,
            current: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            at_end: false,
        }
    }

    /// The next item. What was not taken of the content of the one before is skipped.
    pub fn next(&mut self, complain: &mut Complain<'_>) -> Result<Option<Chosen>> {
        let next = self.next_listed(complain)?;
        if next.is_none() && self.links.forgotten > 0 {
            let count = std::mem::take(&mut self.links.forgotten);
            complain(None, &format!("there was no memory for {count} files outside of the selection; hard links to them may be missing"));
        }
        Ok(next)
    }

    /// The same for whom only complaints about the list of files are; the rest is in [`Feed::forgotten`].
    pub fn next_listed(&mut self, complain: &mut Complain<'_>) -> Result<Option<Chosen>> {
        self.skip()?;
        self.fill(complain)?;
        let Some(mut next) = self.queue.pop_front() else { return Ok(None) };
        self.weight -= next.weight;
        let chosen = next.chosen.take();
        self.current = Some(next);
        Ok(chosen)
    }

    /// Files outside of the selection for which there was no memory; hard links to them have no content.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.links.forgotten
    }

    /// With so many bytes for files outside of the selection to which there may be hard links.
    #[must_use]
    pub fn within(self, memory: usize) -> Feed<'a> {
        Feed { links: Links::within(memory), ..self }
    }

    /// Whether the next item is there already: whoever writes somewhere slow may do that now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.queue.is_empty() || self.has_ready_input()
    }

    fn has_ready_input(&self) -> bool {
        match &self.input {
            Input::List(items, _) => items.is_ready(),
            Input::Given(_) => true,
        }
    }

    /// The next chunk of the content of the item that was handed out last, with the size that the item states; None at its end.
    pub fn chunk(&mut self, complain: &mut Complain<'_>) -> Result<Option<(u32, Object)>> {
        let stated = match &self.current {
            Some(Queued { body: Body::Chunks(chunks), taken, .. }) => chunks.get(*taken).map(stated),
            _ => None,
        };
        let Some(stated) = stated else { return Ok(None) };
        self.fill(complain)?;
        let Some(content) = &self.content else { return Ok(None) };
        let chunk = content.take()?;
        self.took();
        Ok(Some((stated, chunk)))
    }

    fn took(&mut self) {
        self.pending_bytes -= self.pending.pop_front().unwrap_or(0);
        if let Some(current) = &mut self.current {
            current.taken += 1;
        }
    }

    /// Leaves the rest of the content of an item; what is on its way already comes.
    fn skip(&mut self) -> Result<()> {
        let left = self.current.as_ref().map_or(0, |current| current.asked - current.taken);
        for _ in 0..left {
            if let Some(content) = &self.content {
                // Nobody wants it, so nobody wants to know what is wrong with it.
                drop(content.take()?);
            }
            self.took();
        }
        self.current = None;
        Ok(())
    }

    /// Looks ahead, as far as memory and window allow.
    fn fill(&mut self, complain: &mut Complain<'_>) -> Result<()> {
        loop {
            if self.with_content {
                self.ask()?;
            }
            let is_full = self.queue.len() >= MOST_ITEMS || self.weight >= MOST_WEIGHT || self.is_window_full();
            // With something in hand nobody waits for the owner.
            let has_some = !self.queue.is_empty() || self.current.is_some();
            if self.at_end || (is_full && has_some) || (has_some && !self.has_ready_input() && self.is_busy()) {
                return Ok(());
            }
            self.pull(complain)?;
        }
    }

    /// Whether there is enough to do without a further item.
    fn is_busy(&self) -> bool {
        !self.with_content || !self.pending.is_empty() || !self.queue.is_empty()
    }

    fn is_window_full(&self) -> bool {
        self.pending_bytes >= WINDOW || self.pending.len() >= MOST_CHUNKS
    }

    /// One more item into the queue, or past it.
    fn pull(&mut self, complain: &mut Complain<'_>) -> Result<()> {
        let (items, selection) = match &mut self.input {
            Input::List(items, selection) => (items, selection),
            Input::Given(items) => {
                match items.pop_front() {
                    Some(mut item) => {
                        let body = item.chunks.take().map_or(Body::Itself, |chunks| Body::Chunks(Arc::new(chunks)));
                        self.enqueue(item.path.clone(), item, body);
                    }
                    None => self.at_end = true,
                }
                return Ok(());
            }
        };
        let Some(mut item) = items.next(complain)? else {
            self.at_end = true;
            return Ok(());
        };
        let name = if selection.is_everything() { Some(item.path.clone()) } else { selection.choose(&item.path) };
        let Some(name) = name else {
            self.links.pass_by(item);
            return Ok(());
        };
        let body = match Kind::of(&item) {
            Kind::Directory | Kind::Link | Kind::Unknown => Body::Itself,
            _ => self.links.body(&mut item, &name, |path| selection.stripped(path)),
        };
        self.enqueue(name, item, body);
        Ok(())
    }

    fn enqueue(&mut self, name: Vec<u8>, item: Item, body: Body) {
        let weight = weight(&item, &body);
        self.weight += weight;
        let asks = if self.with_content { body.clone() } else { Body::Itself };
        let chosen = Chosen { item, name, body };
        self.queue.push_back(Queued { chosen: Some(chosen), body: asks, weight, asked: 0, taken: 0 });
    }

    /// Asks for content, in the order of the items.
    fn ask(&mut self) -> Result<()> {
        let mut ids = vec![];
        for queued in self.current.iter_mut().chain(&mut self.queue) {
            while let Some(chunk) = queued.left_to_ask().first() {
                if self.pending_bytes >= WINDOW || self.pending.len() >= MOST_CHUNKS {
                    break;
                }
                let counts = u64::from(stated(chunk)).max(LEAST);
                ids.push(chunk.id);
                self.pending.push_back(counts);
                self.pending_bytes += counts;
                queued.asked += 1;
            }
            if !queued.left_to_ask().is_empty() {
                break;
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        if self.content.is_none() {
            self.content = Some(Channel::open(self.source)?);
        }
        if let Some(content) = &self.content {
            content.ask(ids);
        }
        Ok(())
    }
}

/// The size that an item states for a chunk, but no more than a chunk can have: zeros may have to take its place.
pub(crate) fn stated(chunk: &ChunkRef) -> u32 {
    chunk.size.min(borg::MAX_PLAINTEXT as u32)
}

/// About what an item takes in memory.
pub(crate) fn weight(item: &Item, body: &Body) -> usize {
    let chunks = match body {
        Body::Chunks(chunks) => chunks.len() * size_of::<ChunkRef>(),
        Body::LinkTo(path) => path.len(),
        Body::Itself => 0,
    };
    let xattrs: usize = item.xattrs.iter().flatten().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 64).sum();
    let texts = [&item.source, &item.acl_access, &item.acl_default, &item.acl_extended, &item.acl_nfs4];
    chunks + xattrs + 2 * item.path.len() + texts.into_iter().flatten().map(Vec::len).sum::<usize>() + 500
}
