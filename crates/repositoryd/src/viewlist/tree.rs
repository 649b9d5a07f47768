//! Reading lists: a whole list and the differences that build on it are one tree, and are read together, each file once.

use super::file::{Stream, Verified};
use super::{Lists, MAX_DEPTH, Named, Note, ViewList, ViewListError};
use borg::Id;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap};
use wire::session::Reference;

/// The union of several lists.
pub struct Union {
    /// Sorted by id, each id once. Where lists differ, the first one with a stored size counts.
    pub references: Vec<Reference>,
    /// Lists that count for nothing.
    pub lost: Vec<ViewListError>,
}

/// A file in a tree.
pub(super) struct Node {
    pub file: Verified,
    pub parent: Option<usize>,
    /// Where its archive stands among those that are asked for: first, and for the last time.
    pub rank: Option<usize>,
    pub last: Option<usize>,
}

/// A whole list and what builds on it; each behind the one that it builds on.
pub(super) type Tree = Vec<Node>;

/// Files that are opened one after the other by one thread, at least.
const WORTH_A_THREAD: usize = 64;

/// Does the same with all of them, on all processors; the results have their order.
pub(super) fn in_parallel<T: Sync, R: Send>(all: &[T], at_least: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(all.len() / at_least.max(1)).max(1);
    let work = &work;
    if threads == 1 {
        return all.iter().map(work).collect();
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            all.chunks(all.len().div_ceil(threads)).map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>())).collect();
        let ended = parts.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

impl Lists {
    /// Everything that one archive's list says.
    pub fn read(&self, list: &Named) -> Result<ViewList, ViewListError> {
        let union = self.union(std::slice::from_ref(list))?;
        if let Some(e) = union.lost.into_iter().next() {
            return Err(e);
        }
        Ok(ViewList { references: union.references, new: self.others(list)? })
    }

    /// What one archive's job was the first to store, as far as the archive does not refer to it (or all of it).
    pub fn others(&self, list: &Named) -> Result<Vec<Id>, ViewListError> {
        let mut stream = self.open(list)?.others()?;
        let mut ids = vec![];
        while let Some(entry) = stream.next()? {
            ids.push(Id(entry.id));
        }
        Ok(ids)
    }

    /// What one archive's list says about its client's chunks cache.
    pub fn note(&self, list: &Named) -> Result<Option<Note>, ViewListError> {
        Ok(Verified::open(&self.path(&list.id), &list.digest)?.head.note)
    }

    /// The union of the lists of several archives, the most important first.
    ///
    /// # Errors
    /// When the disk fails between two looks at a file that was good.
    pub fn union(&self, lists: &[Named]) -> Result<Union, ViewListError> {
        let mut view: Vec<Reference> = vec![];
        let mut first = true;
        let mut more: Vec<Reference> = vec![];
        let mut at = 0;
        let lost = self.scan(lists, &mut |event| {
            let reference = match event {
                Event::Tree { total } => {
                    if std::mem::take(&mut first) {
                        view.reserve_exact(usize::try_from(total).unwrap_or(0));
                    }
                    if !more.is_empty() {
                        view.append(&mut more);
                        // Two runs: merged, not sorted anew.
                        view.sort_by_key(|r| r.id);
                    }
                    at = 0;
                    return;
                }
                Event::Reference(reference) => reference,
            };
            while view.get(at).is_some_and(|known| known.id < reference.id) {
                at += 1;
            }
            match view.get_mut(at) {
                Some(known) if known.id == reference.id => {
                    if known.csize == 0 {
                        *known = reference;
                    }
                }
                Some(_) => more.push(reference),
                None if more.is_empty() => {
                    view.push(reference);
                    at += 1;
                }
                None => more.push(reference),
            }
        })?;
        view.append(&mut more);
        view.sort_by_key(|r| r.id);
        view.shrink_to_fit();
        Ok(Union { references: view, lost })
    }

    /// Calls `each` for every reference of every list, tree by tree: within a tree sorted, each id once. Says which lists are lost; then
    /// nobody knows what their archives refer to.
    pub fn scan(&self, lists: &[Named], each: &mut dyn FnMut(Event)) -> Result<Vec<ViewListError>, ViewListError> {
        let (trees, lost) = self.forest(lists);
        for tree in &trees {
            let newest = tree.iter().filter(|node| node.rank.is_some()).min_by_key(|node| node.rank);
            // Bases of lists that turned out to be lost.
            let Some(newest) = newest else { continue };
            each(Event::Tree { total: newest.file.head.total });
            walk(tree, each)?;
        }
        Ok(lost)
    }

    /// The lists with all that they build on, each file once; and which of them are lost.
    pub(super) fn forest(&self, lists: &[Named]) -> (Vec<Tree>, Vec<ViewListError>) {
        let open = |list: &Named| self.open(list);
        let mut opened: HashMap<&Named, Result<Verified, ViewListError>> =
            lists.iter().zip(in_parallel(lists, WORTH_A_THREAD, open)).collect();
        let mut take = |list: &Named| opened.remove(list).unwrap_or_else(|| open(list));
        let mut trees: Vec<Tree> = vec![];
        let mut places: HashMap<Named, (usize, usize)> = HashMap::new();
        let mut lost = vec![];
        for (rank, list) in lists.iter().enumerate() {
            if let Err(e) = self.plant(list, &mut take, &mut trees, &mut places) {
                lost.push(e);
                continue;
            }
            if let Some(node) = places.get(list).and_then(|(tree, node)| trees.get_mut(*tree)?.get_mut(*node)) {
                node.rank.get_or_insert(rank);
                node.last = Some(rank);
            }
        }
        (trees, lost)
    }

    /// Adds a list and what it builds on, parents first.
    fn plant(
        &self,
        list: &Named,
        open: &mut impl FnMut(&Named) -> Result<Verified, ViewListError>,
        trees: &mut Vec<Tree>,
        places: &mut HashMap<Named, (usize, usize)>,
    ) -> Result<(), ViewListError> {
        let mut path: Vec<(Named, Verified)> = vec![];
        let mut next = Some(list.clone());
        let mut place = None;
        while let Some(list) = next {
            place = places.get(&list).copied();
            if place.is_some() {
                break;
            }
            let file = open(&list)?;
            if path.len() as u32 > MAX_DEPTH {
                return Err(ViewListError::Damaged(self.path(&list.id).display().to_string()));
            }
            next = file.head.base.clone();
            path.push((list, file));
        }
        let tree = match place {
            Some((tree, _)) => tree,
            None => {
                trees.push(vec![]);
                trees.len() - 1
            }
        };
        let mut parent = place.map(|(_, node)| node);
        for (list, file) in path.into_iter().rev() {
            let nodes = &mut trees[tree];
            nodes.push(Node { file, parent, rank: None, last: None });
            parent = Some(nodes.len() - 1);
            places.insert(list, (tree, nodes.len() - 1));
        }
        Ok(())
    }
}

/// What [`Lists::scan`] comes across.
pub enum Event {
    /// A tree begins; its most important list has so many references.
    Tree {
        /// References.
        total: u64,
    },
    /// A reference.
    Reference(Reference),
}

/// What a file says about an id.
#[derive(Clone, Copy)]
enum Word {
    Nothing,
    Has(u32, u32),
    HasNot,
}

/// The streams' next entries. The smallest id is on top; of one id, the files in their order.
type Heap = BinaryHeap<Reverse<([u8; 32], usize)>>;

struct Source {
    node: usize,
    removes: bool,
    stream: Stream,
    next: Reference,
}

pub(super) fn walk(tree: &[Node], each: &mut dyn FnMut(Event)) -> Result<(), ViewListError> {
    let mut sources = vec![];
    let mut heap: Heap = BinaryHeap::new();
    for (node, Node { file, .. }) in tree.iter().enumerate() {
        for (removes, mut stream) in [(false, file.references()?), (true, file.removed()?)] {
            if let Some(next) = stream.next()? {
                heap.push(Reverse((next.id, sources.len())));
                sources.push(Source { node, removes, stream, next });
            }
        }
    }
    let root_alone = tree.iter().any(|node| node.rank.is_some());
    let mut words = vec![Word::Nothing; tree.len()];
    let mut touched: Vec<usize> = vec![];
    while let Some(Reverse((id, _))) = heap.peek().copied() {
        while let Some(mut top) = heap.peek_mut() {
            let Reverse((next, at)) = *top;
            if next != id {
                break;
            }
            let source = &mut sources[at];
            words[source.node] = if source.removes { Word::HasNot } else { Word::Has(source.next.size, source.next.csize) };
            touched.push(source.node);
            match source.stream.next()? {
                Some(entry) => {
                    source.next = entry;
                    *top = Reverse((entry.id, at));
                }
                None => drop(PeekMut::pop(top)),
            }
        }
        let chosen = match (touched.as_slice(), words.first()) {
            // Only the whole list has a word: all that build on it agree.
            ([0], Some(Word::Has(size, csize))) => root_alone.then_some((*size, *csize)),
            _ => choose(tree, &words),
        };
        if let Some((size, csize)) = chosen {
            each(Event::Reference(Reference { id, size, csize }));
        }
        touched.drain(..).for_each(|node| words[node] = Word::Nothing);
    }
    Ok(())
}

/// What the lists that are asked for have about an id, the most important one with a stored size first.
fn choose(tree: &[Node], words: &[Word]) -> Option<(u32, u32)> {
    let mut here: Vec<Option<(u32, u32)>> = Vec::with_capacity(tree.len());
    let mut best: Option<(bool, usize, (u32, u32))> = None;
    for (node, word) in tree.iter().zip(words) {
        let value = match word {
            Word::Has(size, csize) => Some((*size, *csize)),
            Word::HasNot => None,
            Word::Nothing => node.parent.and_then(|parent| here.get(parent).copied().flatten()),
        };
        here.push(value);
        if let (Some(rank), Some(value)) = (node.rank, value) {
            let candidate = (value.1 == 0, rank, value);
            if best.is_none_or(|best| (candidate.0, candidate.1) < (best.0, best.1)) {
                best = Some(candidate);
            }
        }
    }
    best.map(|(_, _, value)| value)
}
