//! Which objects the repository has, and which of them nobody refers to yet.
//!
//! All sessions of an opening share one transaction of the repository, so a commit also makes durable what other sessions have stored so
//! far. A fresh object is one that no committed archive refers to. It belongs to the sessions that sent it or proposed an archive that refers
//! to it. When the last of them has ended without a committed one, it is an orphan: still there, and whoever sends or proposes it next has
//! it as if it were stored then; until then no view and no cache may count on it.
//!
//! What is stored, the repository's index says, or for a served repository a set that follows it. Two windows lie between a decision and the
//! index: an object that waits in the writer's queue is fresh, and so it is there; one that the writer is about to delete is *going*, and so
//! it is not there, and whoever sends it again queues behind the deletion.
//!
//! Orphans go in small steps, when nobody waits for the writer: together with the transaction, if nobody else has anything in it, else one by
//! one. A served repository syncs the disk for every deletion of an object in the segment that is being written (Borg 1.x), so there they
//! wait until somebody's commit has closed that segment. What a commit makes durable although nobody refers to it is in the journal, see
//! [`crate::journal`].

use borg::Id;
use repository::{IdMap, IdSet, Reader, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Orphans that are deleted at a time: so many a request may have to wait for.
const BATCH_SERVED: usize = 200;

/// The same where a deletion is only a few bytes more.
const BATCH: usize = 2000;

#[derive(Debug)]
struct Fresh {
    /// Sessions that sent it or rely on it and have not ended.
    claims: u32,
    /// The writer has handed it to the repository.
    stored: bool,
    /// A commit of somebody else has made it durable.
    published: bool,
}

/// What the writer has to do next about orphans. To be followed by [`Known::done`].
#[derive(Debug, PartialEq, Eq)]
pub enum Tidying {
    /// Nothing for now.
    Nothing,
    /// Discard the transaction: nobody needs anything of it.
    Discard,
    /// Delete these.
    Delete(Vec<Id>),
    /// Commit what was deleted.
    Commit,
}

/// What the repository has.
#[derive(Debug)]
enum Stored {
    /// Follows what the writer does.
    Listed(IdSet),
    /// The index knows.
    Indexed(Reader),
}

impl Stored {
    fn contains(&self, id: &Id) -> Result<bool> {
        match self {
            Stored::Listed(ids) => Ok(ids.contains(id)),
            Stored::Indexed(reader) => reader.contains(id),
        }
    }
}

/// What the index said about an object, and when: valid as long as nothing was removed or committed meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    epoch: u64,
    there: bool,
}

/// The objects of one opening.
#[derive(Debug)]
pub struct Known {
    stored: Stored,
    fresh: IdMap<Fresh>,
    /// Orphans that would be gone if the transaction were discarded, and whether the repository has them already.
    passing: IdMap<bool>,
    /// Orphans that are durable.
    durable: BTreeSet<Id>,
    /// Durable orphans that this transaction deleted: if it is discarded, they are back.
    deleted: Vec<Id>,
    /// Handed to the repository since the last commit.
    unpublished: Vec<Id>,
    /// What the writer is deleting at this moment.
    going: IdSet,
    /// Counts what makes a [`Seen`] void.
    epoch: Arc<AtomicU64>,
    /// Counts removals of what archives or sessions may refer to.
    losses: u64,
}

impl Known {
    /// Everything that a served repository has when it is opened.
    pub fn listed(ids: Vec<Id>) -> Known {
        Known::of(Stored::Listed(ids.into_iter().collect()))
    }

    /// A repository with an index.
    pub fn indexed(reader: Reader) -> Known {
        Known::of(Stored::Indexed(reader))
    }

    fn of(stored: Stored) -> Known {
        Known {
            stored,
            fresh: IdMap::default(),
            passing: IdMap::default(),
            durable: BTreeSet::new(),
            deleted: vec![],
            unpublished: vec![],
            going: IdSet::default(),
            epoch: Arc::default(),
            losses: 0,
        }
    }

    /// The same sessions go on with a repository that was closed and opened again: everything they have was committed before.
    pub fn reopened(&mut self, stored: Known) {
        self.stored = stored.stored;
        self.lost();
    }

    /// How many.
    pub fn count(&self) -> u64 {
        match &self.stored {
            Stored::Listed(ids) => ids.len() as u64,
            Stored::Indexed(reader) => reader.count(),
        }
    }

    /// The clock of [`Known::see`].
    pub fn epoch(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.epoch)
    }

    /// Asks the index without keeping anybody from anything.
    pub fn see(epoch: &AtomicU64, reader: &Reader, id: &Id) -> Result<Seen> {
        let epoch = epoch.load(Ordering::Acquire);
        Ok(Seen { epoch, there: reader.contains(id)? })
    }

    /// Whether it is there, or on its way.
    pub fn contains(&self, id: &Id) -> Result<bool> {
        self.contains_seen(id, None)
    }

    /// The same, with what the index said a moment ago.
    pub fn contains_seen(&self, id: &Id, seen: Option<Seen>) -> Result<bool> {
        if self.is_fresh(id) {
            return Ok(true);
        }
        if self.going.contains(id) {
            return Ok(false);
        }
        match seen {
            Some(seen) if seen.epoch == self.epoch.load(Ordering::Acquire) => Ok(seen.there),
            _ => self.stored.contains(id),
        }
    }

    /// Whether it goes unless an archive that refers to it is committed; orphans do.
    pub fn is_fresh(&self, id: &Id) -> bool {
        self.fresh.contains_key(id) || self.passing.contains_key(id) || self.durable.contains(id)
    }

    /// Whether a session has it, or has left it in a transaction that is not committed.
    pub fn is_claimed(&self, id: &Id) -> bool {
        self.fresh.contains_key(id) || self.passing.contains_key(id)
    }

    /// A session sent this object, or relies on it; false if it has to be stored. To be undone by [`Known::release`].
    pub fn claim(&mut self, id: &Id, seen: Option<Seen>) -> Result<bool> {
        if let Some(fresh) = self.fresh.get_mut(id) {
            fresh.claims += 1;
        } else if let Some(stored) = self.passing.remove(id) {
            self.fresh.insert(*id, Fresh { claims: 1, stored, published: false });
        } else if self.durable.remove(id) {
            self.fresh.insert(*id, Fresh { claims: 1, stored: true, published: true });
        } else {
            return self.contains_seen(id, seen);
        }
        Ok(true)
    }

    /// A session's object is about to be stored; [`Known::claim`] said false.
    pub fn add_fresh(&mut self, id: Id) {
        self.fresh.insert(id, Fresh { claims: 1, stored: false, published: false });
    }

    /// An object that is stored and durable, and that no archive refers to any more, belongs to so many sessions now. The next commit
    /// notes it in the journal.
    pub fn adopt(&mut self, id: Id, claims: u32) {
        self.unpublished.push(id);
        self.fresh.insert(id, Fresh { claims, stored: true, published: true });
    }

    /// These are stored and durable, and nobody refers to them.
    pub fn add_orphans(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.durable.extend(ids);
    }

    /// The writer has come to an object that was added as fresh; false if nobody needs it any more, or it was stored meanwhile.
    pub fn store(&mut self, id: &Id) -> bool {
        let first = match self.fresh.get_mut(id) {
            Some(fresh) => !std::mem::replace(&mut fresh.stored, true),
            None => {
                if self.passing.get(id) == Some(&false) {
                    self.passing.remove(id);
                }
                false
            }
        };
        if first {
            self.unpublished.push(*id);
            self.add(*id);
        }
        first
    }

    /// An object was stored.
    pub fn add(&mut self, id: Id) {
        if let Stored::Listed(ids) = &mut self.stored {
            ids.insert(id);
        }
    }

    /// The writer is about to delete an object; from now on nobody finds it. Until [`Known::done`] nothing is stored.
    pub fn remove(&mut self, id: &Id) {
        self.fresh.remove(id);
        self.passing.remove(id);
        self.durable.remove(id);
        self.going.insert(*id);
        self.tick();
    }

    /// The writer has done what was decided.
    pub fn done(&mut self) {
        let going = std::mem::take(&mut self.going);
        if let Stored::Listed(ids) = &mut self.stored {
            going.iter().for_each(|id| {
                ids.remove(id);
            });
        }
        self.tick();
    }

    /// Something went that archives or sessions may refer to.
    pub fn lost(&mut self) {
        self.losses += 1;
        self.tick();
    }

    /// Grows with every [`Known::lost`]: what was seen before may be gone.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    fn tick(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// What the next commit makes durable for the first time, to be given to [`Known::publish`] before it.
    pub fn take_unpublished(&mut self) -> Vec<Id> {
        std::mem::take(&mut self.unpublished)
    }

    /// The repository is about to commit these: from now on nobody knows any more what is not durable.
    pub fn publish(&mut self, ids: &[Id]) {
        for id in ids {
            if let Some(fresh) = self.fresh.get_mut(id) {
                fresh.published = fresh.stored;
            } else if self.passing.get(id) == Some(&true) {
                self.passing.remove(id);
                self.durable.insert(*id);
            }
        }
    }

    /// A commit happened, of an archive that refers to these.
    pub fn committed<'a>(&mut self, references: impl IntoIterator<Item = &'a Id>) {
        for id in references {
            self.fresh.remove(id);
            self.passing.remove(id);
            self.durable.remove(id);
        }
        self.deleted = vec![];
        self.tick();
    }

    /// A session that claimed these has ended. Says how many are orphans now.
    pub fn release<'a>(&mut self, claimed: impl IntoIterator<Item = &'a Id>) -> usize {
        let mut count = 0;
        for id in claimed {
            let Some(fresh) = self.fresh.get_mut(id) else { continue };
            fresh.claims = fresh.claims.saturating_sub(1);
            if fresh.claims == 0 {
                let (stored, published) = (fresh.stored, fresh.published);
                self.fresh.remove(id);
                if published {
                    self.durable.insert(*id);
                } else {
                    self.passing.insert(*id, stored);
                }
                count += 1;
            }
        }
        count
    }

    /// What to do about orphans, not too much at a time. Only for when no request waits.
    pub fn tidy(&mut self) -> Tidying {
        let most = if self.is_listed() { BATCH_SERVED } else { BATCH };
        self.tidy_up_to(most)
    }

    /// The same with at most so many deletions.
    pub fn tidy_up_to(&mut self, most: usize) -> Tidying {
        if self.fresh.is_empty() && !self.passing.is_empty() {
            self.discarded();
            return Tidying::Discard;
        }
        let mut batch: Vec<Id> = std::iter::from_fn(|| self.durable.pop_first()).take(most).collect();
        self.deleted.extend(&batch);
        if !self.is_listed() {
            // They may be alone in nobody's transaction for a long time.
            let stored = self.passing.iter().filter(|(_, stored)| **stored).map(|(id, _)| *id);
            batch.extend(stored.take(most.saturating_sub(batch.len())));
        }
        if !batch.is_empty() {
            batch.iter().for_each(|id| self.remove(id));
            Tidying::Delete(batch)
        } else if self.fresh.is_empty() && !self.deleted.is_empty() {
            Tidying::Commit
        } else {
            Tidying::Nothing
        }
    }

    /// Whether it follows the repository by a list of its own.
    pub fn is_listed(&self) -> bool {
        matches!(self.stored, Stored::Listed(_))
    }

    /// Whether the transaction has anything that no archive refers to.
    pub fn is_mixed(&self) -> bool {
        !self.fresh.is_empty() || !self.passing.is_empty()
    }

    /// Whether everything there is belongs to archives, durably.
    pub fn is_clean(&self) -> bool {
        !self.is_mixed() && self.durable.is_empty() && self.deleted.is_empty()
    }

    /// All that is durable although no archive refers to it.
    pub fn published(&self) -> Vec<Id> {
        let fresh = self.fresh.iter().filter(|(_, fresh)| fresh.published).map(|(id, _)| *id);
        fresh.chain(self.durable.iter().copied()).chain(self.deleted.iter().copied()).collect()
    }

    /// Whether the transaction has deletions of orphans.
    pub fn has_deleted(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// A deletion that a discard would undo, of something that nobody refers to.
    pub fn note_deleted(&mut self, ids: &[Id]) {
        self.deleted.extend(ids);
    }

    /// How many orphans would stay if the repository were closed now.
    pub fn leftover(&self) -> usize {
        self.durable.len()
    }

    /// Nobody may say any more that nothing refers to these: all that is stored counts as referred to.
    pub fn trust_all(&mut self) {
        self.fresh.clear();
        self.passing.clear();
        self.durable.clear();
        self.deleted.clear();
        self.tick();
    }

    /// Fresh objects that the repository does not have. They are forgotten.
    pub fn drop_vanished(&mut self) -> Result<Vec<Id>> {
        let mut vanished = vec![];
        for id in self.fresh.keys().chain(&self.durable) {
            if !self.stored.contains(id)? {
                vanished.push(*id);
            }
        }
        for id in &vanished {
            self.fresh.remove(id);
            self.durable.remove(id);
        }
        Ok(vanished)
    }

    /// The transaction is about to be discarded: what it stored goes, what it deleted comes back.
    pub fn discarded(&mut self) {
        self.unpublished = vec![];
        for (id, fresh) in std::mem::take(&mut self.fresh) {
            if fresh.published {
                self.durable.insert(id);
            } else {
                self.going.insert(id);
            }
        }
        self.going.extend(std::mem::take(&mut self.passing).into_keys());
        for id in std::mem::take(&mut self.deleted) {
            self.going.remove(&id);
            self.add(id);
            self.durable.insert(id);
        }
        self.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id([1; 32]);
    const B: Id = Id([2; 32]);
    const OLD: Id = Id([3; 32]);

    /// Decided and done.
    fn step(known: &mut Known, most: usize) -> Tidying {
        let step = known.tidy_up_to(most);
        known.done();
        step
    }

    fn publish(known: &mut Known) -> Vec<Id> {
        let ids = known.take_unpublished();
        known.publish(&ids);
        ids
    }

    fn stored(ids: &[Id]) -> Known {
        let mut known = Known::listed(vec![OLD]);
        for id in ids {
            assert!(!known.claim(id, None).unwrap());
            known.add_fresh(*id);
            assert!(known.store(id));
        }
        known
    }

    #[test]
    fn the_first_write_wins_and_the_last_claim_decides() {
        let mut known = stored(&[A]);
        assert!(known.claim(&OLD, None).unwrap() && known.claim(&A, None).unwrap());
        assert!(!known.store(&A));
        // The first of two ends: the other one may still need it.
        assert_eq!(known.release([&A, &OLD]), 0);
        assert_eq!(step(&mut known, 9), Tidying::Nothing);
        assert_eq!(known.release([&A]), 1);
        assert!(known.contains(&A).unwrap() && known.is_fresh(&A));
        assert_eq!(step(&mut known, 9), Tidying::Discard);
        assert!(!known.contains(&A).unwrap() && known.contains(&OLD).unwrap());
        assert_eq!((step(&mut known, 9), known.count()), (Tidying::Nothing, 1));
    }

    #[test]
    fn what_an_archive_refers_to_stays() {
        let mut known = stored(&[A, B]);
        publish(&mut known);
        known.committed([&A]);
        // B has become durable as a by-product, so its removal has to be committed as well.
        assert_eq!(known.release([&A, &B]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![B]));
        assert!(known.contains(&A).unwrap() && !known.contains(&B).unwrap());
        assert_eq!(step(&mut known, 9), Tidying::Commit);
        known.committed([]);
        assert_eq!((step(&mut known, 9), known.release([&A, &B])), (Tidying::Nothing, 0));
    }

    #[test]
    fn what_goes_is_absent_before_it_is_gone() {
        let mut known = stored(&[A]);
        publish(&mut known);
        known.committed([&A]);
        let epoch = known.epoch();
        let seen = Some(Seen { epoch: epoch.load(Ordering::Acquire), there: true });
        assert!(known.claim(&A, seen).unwrap());
        known.remove(&A);
        // What was seen before the decision counts no more, and whoever sends it now queues behind the deletion.
        assert!(!known.claim(&A, seen).unwrap());
        known.add_fresh(A);
        assert!(known.contains(&A).unwrap());
        known.done();
        assert!(known.store(&A) && known.contains(&A).unwrap());
        assert_eq!(known.release([&A]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Discard);
        assert!(!known.contains(&A).unwrap());
    }

    #[test]
    fn what_was_seen_before_a_commit_is_looked_up_again() {
        let mut known = stored(&[]);
        let seen = Some(Seen { epoch: known.epoch().load(Ordering::Acquire), there: false });
        assert!(!known.claim(&A, None).unwrap());
        known.add_fresh(A);
        assert!(known.store(&A));
        publish(&mut known);
        known.committed([&A]);
        // Otherwise it would be stored a second time, and deleted as an orphan of the one who sent it.
        assert!(known.claim(&A, seen).unwrap());
    }

    #[test]
    fn everything_is_published_once() {
        let mut known = stored(&[A, B]);
        assert_eq!(publish(&mut known), [A, B]);
        known.committed([&A]);
        assert_eq!(publish(&mut known), []);
        assert!(!known.is_clean());
        assert_eq!(known.release([&B]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![B]));
        assert!(!known.is_clean());
        known.committed([]);
        assert!(known.is_clean());
        // Adopted from an archive that is gone.
        known.adopt(OLD, 2);
        assert_eq!((known.release([&OLD]), known.release([&OLD])), (0, 1));
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
    }

    #[test]
    fn an_orphan_is_there_for_whoever_claims_it() {
        let mut known = stored(&[A, B]);
        assert_eq!(known.release([&A]), 1);
        // Not durable, and somebody else is in the transaction: nothing to be done.
        assert_eq!(step(&mut known, 9), Tidying::Nothing);
        assert!(known.claim(&A, None).unwrap());
        assert_eq!(known.release([&B]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Nothing);
        publish(&mut known);
        known.committed([&B]);
        assert_eq!(step(&mut known, 9), Tidying::Nothing);
        assert_eq!(known.release([&A]), 1);
        assert!(known.claim(&A, None).unwrap());
        known.committed([&A]);
        assert!(known.contains(&A).unwrap() && known.contains(&B).unwrap() && !known.is_fresh(&A) && !known.is_fresh(&B));
        assert_eq!(step(&mut known, 9), Tidying::Nothing);
    }

    #[test]
    fn what_is_still_queued_is_not_stored_for_nobody() {
        let mut known = stored(&[B]);
        known.add_fresh(A);
        assert_eq!(known.release([&A]), 1);
        // Another one's commit comes first, and does not make durable what is not there yet.
        publish(&mut known);
        known.committed([&B]);
        assert!(!known.store(&A));
        assert!(!known.contains(&A).unwrap());
        assert_eq!(step(&mut known, 9), Tidying::Nothing);
        // Claimed again in time, it is stored once.
        known.add_fresh(A);
        assert_eq!(known.release([&A]), 1);
        assert!(known.claim(&A, None).unwrap());
        assert!(known.store(&A) && !known.store(&A));
    }

    #[test]
    fn deletions_come_in_batches_and_come_back_with_a_discard() {
        let ids: Vec<Id> = (10..20).map(|n| Id([n; 32])).collect();
        let mut known = stored(&ids);
        publish(&mut known);
        known.committed([]);
        assert_eq!(known.release(&ids), 10);
        assert_eq!(step(&mut known, 4), Tidying::Delete(ids[..4].to_vec()));
        // Stored again, and again for nothing.
        assert!(!known.claim(&ids[0], None).unwrap());
        known.add_fresh(ids[0]);
        assert!(known.store(&ids[0]));
        assert_eq!(step(&mut known, 4), Tidying::Delete(ids[4..8].to_vec()));
        assert_eq!(step(&mut known, 4), Tidying::Delete(ids[8..].to_vec()));
        assert_eq!(step(&mut known, 4), Tidying::Nothing);
        assert_eq!(known.release([&ids[0]]), 1);
        assert_eq!(step(&mut known, 4), Tidying::Discard);
        assert!(ids.iter().all(|id| known.contains(id).unwrap() && known.is_fresh(id)));
        assert_eq!(step(&mut known, 99), Tidying::Delete(ids));
        assert_eq!(step(&mut known, 99), Tidying::Commit);
    }
}
