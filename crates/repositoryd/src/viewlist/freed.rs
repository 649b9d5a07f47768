//! What nobody refers to once some archives are gone.
//!
//! There may be millions of references in tens of thousands of lists. What goes with some lists of a tree is named by a difference between one
//! that goes and one that stays, or between those that go: no other file is looked at for it. What comes out is looked for in all other lists: each
//! file is read once, past a filter that lets hardly anything else through, by all processors.

use super::file::Verified;
use super::tree::{Event, Node, Tree, in_parallel, walk};
use super::{Lists, Named, ViewListError};
use borg::Id;

/// Bits of the filter for each id.
const BITS: usize = 16;

/// That a file has an id, or says that it has it no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    /// The id's place among those that are looked for.
    key: usize,
    node: usize,
    has: bool,
}

impl Lists {
    /// What only `gone` lists name, and none of the `others`; sorted. All of it may be deleted when the archives of `gone` are.
    ///
    /// # Errors
    /// When a list is lost: then nobody knows what its archive refers to, and everything has to stay.
    pub fn unreferenced(&self, gone: &[Named], others: &[Named]) -> Result<Vec<Id>, ViewListError> {
        let all: Vec<Named> = gone.iter().chain(others).cloned().collect();
        let trees = self.whole_forest(&all)?;
        let mut ids = vec![];
        for found in in_parallel(&trees, 1, |tree| own(tree, gone.len())) {
            ids.append(&mut found?);
        }
        for list in gone {
            ids.extend(self.others(list)?);
        }
        ids.sort_unstable();
        ids.dedup();
        strike(&mut ids, &trees, gone.len())?;
        Ok(ids)
    }

    /// Takes what these lists refer to out of `ids`, which are sorted.
    pub fn subtract(&self, ids: &mut Vec<Id>, lists: &[Named]) -> Result<(), ViewListError> {
        if ids.is_empty() || lists.is_empty() {
            return Ok(());
        }
        strike(ids, &self.whole_forest(lists)?, 0)
    }

    fn whole_forest(&self, lists: &[Named]) -> Result<Vec<Tree>, ViewListError> {
        let (trees, lost) = self.forest(lists);
        lost.into_iter().next().map_or(Ok(trees), Err)
    }
}

/// One of the first `gone` lists.
fn is_gone(node: &Node, gone: usize) -> bool {
    node.rank.is_some_and(|rank| rank < gone)
}

/// One of those behind them.
fn stays(node: &Node, gone: usize) -> bool {
    node.last.is_some_and(|rank| rank >= gone)
}

/// What lists of this tree have that are gone, and not all of its other lists: everything that only they have is among it.
fn own(tree: &[Node], gone: usize) -> Result<Vec<Id>, ViewListError> {
    let mut ids = vec![];
    if !tree.iter().any(|node| is_gone(node, gone)) {
        return Ok(ids);
    }
    if !tree.iter().any(|node| stays(node, gone)) {
        walk(tree, &mut |event| {
            if let Event::Reference(reference) = event {
                ids.push(Id(reference.id));
            }
        })?;
        return Ok(ids);
    }
    // On the way from a list that goes and has an id to one that stays and has not, there is a first list without it. It, or the one before it,
    // builds on the other; so its file names the id, and nothing before it stays.
    let may_stay = |at: usize| tree.get(at).is_some_and(|node| stays(node, gone));
    let tells = |at: usize, node: &Node| node.parent.is_some_and(|parent| !may_stay(at) || !may_stay(parent));
    let mut touched = vec![];
    for (_, Node { file, .. }) in tree.iter().enumerate().filter(|(at, node)| tells(*at, node)) {
        for mut stream in [file.references()?, file.removed()?] {
            while let Some(entry) = stream.next()? {
                touched.push(Id(entry.id));
            }
        }
    }
    touched.sort_unstable();
    touched.dedup();
    let mut counts = vec![false; tree.len()];
    for mut at in (0..tree.len()).filter(|at| tree.get(*at).is_some_and(|node| is_gone(node, gone))) {
        while let Some(parent) = counts.get_mut(at).filter(|counts| !**counts).and_then(|counts| {
            *counts = true;
            tree.get(at)?.parent
        }) {
            at = parent;
        }
    }
    let mut words = vec![];
    let wanted = Wanted::of(&touched);
    for (node, Node { file, .. }) in tree.iter().enumerate().filter(|(at, _)| counts.get(*at) == Some(&true)) {
        wanted.words_of(node, file, &mut words)?;
    }
    words.sort_unstable();
    let mut here = vec![];
    for words in words.chunk_by(|a, b| a.key == b.key) {
        if has(tree, words, &mut here, |node| is_gone(node, gone)) {
            ids.extend(words.first().and_then(|word| touched.get(word.key)));
        }
    }
    Ok(ids)
}

/// Whether one of these lists of a tree has an id, from all that its files say about it, in their order.
fn has(tree: &[Node], words: &[Word], here: &mut Vec<bool>, counts: impl Fn(&Node) -> bool) -> bool {
    here.clear();
    let mut words = words.iter().peekable();
    for (at, node) in tree.iter().enumerate() {
        let mut word = None;
        // One for each file, unless that is none that we would write: then what keeps an id counts.
        while let Some(next) = words.next_if(|word| word.node == at) {
            word = Some(next.has);
        }
        let has = word.unwrap_or_else(|| node.parent.and_then(|parent| here.get(parent).copied()).unwrap_or(false));
        if has && counts(node) {
            return true;
        }
        here.push(has);
    }
    false
}

/// Takes out of `ids`, which are sorted, what the lists behind the first `gone` refer to.
fn strike(ids: &mut Vec<Id>, trees: &[Tree], gone: usize) -> Result<(), ViewListError> {
    if ids.is_empty() {
        return Ok(());
    }
    let wanted = Wanted::of(ids);
    let mut needed = vec![false; ids.len()];
    for found in in_parallel(trees, 1, |tree| referred(&wanted, tree, gone)) {
        found?.into_iter().filter_map(|at| needed.get_mut(at).map(|needed| *needed = true)).for_each(drop);
    }
    let mut needed = needed.into_iter();
    ids.retain(|_| !needed.next().unwrap_or(false));
    Ok(())
}

/// The places among what is wanted of what the lists behind the first `gone` of a tree refer to.
fn referred(wanted: &Wanted<'_>, tree: &[Node], gone: usize) -> Result<Vec<usize>, ViewListError> {
    if !tree.iter().any(|node| stays(node, gone)) {
        return Ok(vec![]);
    }
    let mut words = vec![];
    for (node, Node { file, .. }) in tree.iter().enumerate() {
        wanted.words_of(node, file, &mut words)?;
    }
    words.sort_unstable();
    let mut here = vec![];
    let mut found = vec![];
    for words in words.chunk_by(|a, b| a.key == b.key) {
        if has(tree, words, &mut here, |node| stays(node, gone)) {
            found.extend(words.first().map(|word| word.key));
        }
    }
    Ok(found)
}

/// Ids that are looked for. Ids are as good as random: where one is among the others, its beginning nearly tells.
struct Wanted<'a> {
    /// Sorted.
    ids: &'a [Id],
    filter: Filter,
    /// For each beginning, the place of the first id that begins so or with more; and the number of all.
    starts: Vec<usize>,
    /// Bits of an id's first 64 that are not its beginning.
    rest: u32,
}

impl<'a> Wanted<'a> {
    /// Of ids that are sorted.
    fn of(ids: &'a [Id]) -> Wanted<'a> {
        let bits = ids.len().max(2).ilog2();
        let rest = u64::BITS - bits;
        let mut start = 0;
        let starts = (0..1_u64 << bits).map(|beginning| {
            start += ids.iter().skip(start).take_while(|id| first_64(id) >> rest < beginning).count();
            start
        });
        Wanted { ids, filter: Filter::of(ids), starts: starts.chain([ids.len()]).collect(), rest }
    }

    fn place(&self, id: &Id) -> Option<usize> {
        if !self.filter.may_have(id) {
            return None;
        }
        let beginning = usize::try_from(first_64(id) >> self.rest).ok()?;
        let [from, to] = *self.starts.get(beginning..)?.first_chunk()?;
        self.ids.get(from..to)?.binary_search(id).ok().map(|at| from + at)
    }

    /// Everything that a file says about them.
    fn words_of(&self, node: usize, file: &Verified, words: &mut Vec<Word>) -> Result<(), ViewListError> {
        let mut say = |id: &Id, has| words.extend(self.place(id).map(|key| Word { key, node, has }));
        file.each_reference(&mut |id| say(id, true))?;
        file.each_removed(&mut |id| say(id, false))
    }
}

fn first_64(id: &Id) -> u64 {
    id.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Says of most ids that they are not among some others. A part of an id is its hash.
struct Filter {
    bits: Vec<u64>,
    mask: u64,
}

impl Filter {
    fn of(ids: &[Id]) -> Filter {
        let words = (ids.len().saturating_mul(BITS) / 64).max(64).next_power_of_two();
        let mut filter = Filter { bits: vec![0; words], mask: words as u64 * 64 - 1 };
        for id in ids {
            for (word, bit) in filter.places(id) {
                if let Some(word) = filter.bits.get_mut(word) {
                    *word |= bit;
                }
            }
        }
        filter
    }

    fn places(&self, id: &Id) -> [(usize, u64); 2] {
        let part = |at: usize| id.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        [part(0), part(8)].map(|number| (((number & self.mask) / 64) as usize, 1 << (number % 64)))
    }

    fn may_have(&self, id: &Id) -> bool {
        self.places(id).iter().all(|(word, bit)| self.bits.get(*word).is_some_and(|word| word & bit != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_wherever_it_is() {
        let id = |number: u64| {
            let mut id = Id([0; 32]);
            id.0[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            id.0[31] = (number % 3) as u8;
            id
        };
        for count in [0, 1, 2, 3, 7, 1000] {
            let mut ids: Vec<Id> = (0..count).map(id).collect();
            // Beginnings that are no better than those of a person who chooses them.
            ids.extend((0..count).map(|number| Id([u8::MAX - (number % 5) as u8; 32])));
            ids.extend([Id([0; 32]), Id([u8::MAX; 32])]);
            ids.sort_unstable();
            ids.dedup();
            let wanted = Wanted::of(&ids);
            for (at, id) in ids.iter().enumerate() {
                assert_eq!(wanted.place(id), Some(at));
            }
            for number in count..count + 1000 {
                assert_eq!(wanted.place(&id(number)), ids.binary_search(&id(number)).ok());
            }
        }
    }
}
