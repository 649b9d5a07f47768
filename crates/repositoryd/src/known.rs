//! Which objects the repository has, and which of them nobody refers to yet.
//!
//! All sessions of an opening share one transaction of the repository, so a commit also makes durable what other sessions have stored so
//! far. A fresh object is one that no committed archive refers to. It belongs to the sessions that sent it or proposed an archive that refers
//! to it. When the last of them has ended without a committed one, it is an orphan: still there, and whoever sends or proposes it next has
//! it as if it were stored then; until then no view and no cache may count on it.
//!
//! Orphans go in small steps, when nobody waits for the writer. Borg 1.x syncs the disk for every deletion of an object in the segment
//! that is being written, so those that are not durable are never deleted one by one: they go together, with the transaction, as soon as
//! nobody else has anything in it. If somebody commits before, they are durable, their segment is closed, and they are deleted in batches.
//! Durable orphans that are left when the repository is closed stay: the next opening takes them for objects like all others, `borg check`
//! reports them as orphaned objects, and they cost space until a check repairs that or a job sends and commits them.

use borg::Id;
use std::collections::{BTreeSet, HashMap, HashSet};

#[derive(Debug)]
struct Fresh {
    /// Sessions that sent it or rely on it and have not ended, and the commit that is going on.
    claims: u32,
    /// The writer has handed it to the repository.
    stored: bool,
    /// A commit of somebody else has made it durable.
    published: bool,
}

/// What the writer has to do next about orphans. They are forgotten already: whoever sends one of them again queues behind it.
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

/// The objects of one opening.
#[derive(Debug, Default)]
pub struct Known {
    ids: HashSet<Id>,
    fresh: HashMap<Id, Fresh>,
    /// Orphans that would be gone if the transaction were discarded, and whether the repository has them already.
    passing: HashMap<Id, bool>,
    /// Orphans that are durable.
    durable: BTreeSet<Id>,
    /// Durable orphans that this transaction deleted: if it is discarded, they are back.
    deleted: Vec<Id>,
}

impl Known {
    /// Everything that the repository has when it is opened.
    pub fn new(ids: Vec<Id>) -> Known {
        Known { ids: ids.into_iter().collect(), ..Known::default() }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether it is there, or on its way.
    pub fn contains(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    /// Whether it goes unless an archive that refers to it is committed; orphans do.
    pub fn is_fresh(&self, id: &Id) -> bool {
        self.fresh.contains_key(id) || self.passing.contains_key(id) || self.durable.contains(id)
    }

    /// A session sent this object, or relies on it; false if it has to be stored. To be undone by [`Known::release`].
    pub fn claim(&mut self, id: &Id) -> bool {
        if let Some(fresh) = self.fresh.get_mut(id) {
            fresh.claims += 1;
        } else if let Some(stored) = self.passing.remove(id) {
            self.fresh.insert(*id, Fresh { claims: 1, stored, published: false });
        } else if self.durable.remove(id) {
            self.fresh.insert(*id, Fresh { claims: 1, stored: true, published: true });
        }
        self.ids.contains(id)
    }

    /// A session's object is about to be stored; [`Known::claim`] said false.
    pub fn add_fresh(&mut self, id: Id) {
        self.ids.insert(id);
        self.fresh.insert(id, Fresh { claims: 1, stored: false, published: false });
    }

    /// The writer has come to an object that was added as fresh; false if nobody needs it any more, or it was stored meanwhile.
    pub fn store(&mut self, id: &Id) -> bool {
        if let Some(fresh) = self.fresh.get_mut(id) {
            return !std::mem::replace(&mut fresh.stored, true);
        }
        if self.passing.get(id) == Some(&false) {
            self.remove(id);
        }
        false
    }

    /// The owner's own object was stored.
    pub fn add(&mut self, id: Id) {
        self.ids.insert(id);
    }

    /// An object was deleted.
    pub fn remove(&mut self, id: &Id) {
        self.ids.remove(id);
        self.fresh.remove(id);
        self.passing.remove(id);
        self.durable.remove(id);
    }

    /// A commit of an archive that refers to these begins: none of them goes before it has ended. Otherwise says which one is missing.
    pub fn hold<'a>(&mut self, references: impl Iterator<Item = &'a Id> + Clone) -> Result<(), Id> {
        if let Some(lost) = references.clone().find(|id| !self.ids.contains(id)) {
            return Err(*lost);
        }
        for id in references {
            self.claim(id);
        }
        Ok(())
    }

    /// The repository is about to commit: from now on nobody knows any more what is not durable.
    pub fn publish(&mut self) {
        self.fresh.values_mut().filter(|fresh| fresh.stored).for_each(|fresh| fresh.published = true);
        let durable = &mut self.durable;
        self.passing.retain(|id, stored| {
            if *stored {
                durable.insert(*id);
            }
            !*stored
        });
    }

    /// A commit happened, of an archive that refers to these.
    pub fn committed<'a>(&mut self, references: impl IntoIterator<Item = &'a Id>) {
        for id in references {
            self.fresh.remove(id);
        }
        self.deleted = vec![];
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

    /// What to do about orphans, `most` deletions at a time. Only for when no request waits.
    pub fn tidy(&mut self, most: usize) -> Tidying {
        if self.fresh.is_empty() && !self.passing.is_empty() {
            self.discarded();
            return Tidying::Discard;
        }
        let batch: Vec<Id> = std::iter::from_fn(|| self.durable.pop_first()).take(most).collect();
        if !batch.is_empty() {
            batch.iter().for_each(|id| self.remove(id));
            self.deleted.extend(&batch);
            Tidying::Delete(batch)
        } else if self.fresh.is_empty() && !self.deleted.is_empty() {
            Tidying::Commit
        } else {
            Tidying::Nothing
        }
    }

    /// Whether the transaction has anything that no archive refers to.
    pub fn is_mixed(&self) -> bool {
        !self.fresh.is_empty() || !self.passing.is_empty()
    }

    /// Whether the transaction has deletions of orphans.
    pub fn has_deleted(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// How many orphans would stay if the repository were closed now.
    pub fn leftover(&self) -> usize {
        self.durable.len()
    }

    /// The transaction is discarded: what it stored is gone, what it deleted is back.
    pub fn discarded(&mut self) {
        for (id, fresh) in std::mem::take(&mut self.fresh) {
            if fresh.published {
                self.durable.insert(id);
            } else {
                self.ids.remove(&id);
            }
        }
        for id in std::mem::take(&mut self.passing).into_keys() {
            self.ids.remove(&id);
        }
        for id in std::mem::take(&mut self.deleted) {
            self.ids.insert(id);
            self.durable.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id([1; 32]);
    const B: Id = Id([2; 32]);
    const OLD: Id = Id([3; 32]);

    fn stored(ids: &[Id]) -> Known {
        let mut known = Known::new(vec![OLD]);
        for id in ids {
            assert!(!known.claim(id));
            known.add_fresh(*id);
            assert!(known.store(id));
        }
        known
    }

    #[test]
    fn the_first_write_wins_and_the_last_claim_decides() {
        let mut known = stored(&[A]);
        assert!(known.claim(&OLD) && known.claim(&A));
        assert!(!known.store(&A));
        // The first of two ends: the other one may still need it.
        assert_eq!(known.release([&A, &OLD]), 0);
        assert_eq!(known.tidy(9), Tidying::Nothing);
        assert_eq!(known.release([&A]), 1);
        assert!(known.contains(&A) && known.is_fresh(&A));
        assert_eq!(known.tidy(9), Tidying::Discard);
        assert!(!known.contains(&A) && known.contains(&OLD));
        assert_eq!((known.tidy(9), known.count()), (Tidying::Nothing, 1));
    }

    #[test]
    fn what_an_archive_refers_to_stays() {
        let mut known = stored(&[A, B]);
        known.publish();
        known.committed([&A]);
        // B has become durable as a by-product, so its removal has to be committed as well.
        assert_eq!(known.release([&A, &B]), 1);
        assert_eq!(known.tidy(9), Tidying::Delete(vec![B]));
        assert!(known.contains(&A) && !known.contains(&B));
        assert_eq!(known.tidy(9), Tidying::Commit);
        known.committed([]);
        assert_eq!((known.tidy(9), known.release([&A, &B])), (Tidying::Nothing, 0));
    }

    #[test]
    fn nothing_goes_under_a_commit() {
        let mut known = stored(&[A]);
        assert_eq!(known.hold([&A, &B].into_iter()), Err(B));
        assert_eq!(known.hold([&A].into_iter()), Ok(()));
        known.publish();
        // The one that sent it ends while the commit is under way.
        assert_eq!(known.release([&A]), 0);
        assert!(known.is_fresh(&A));
        known.committed([&A]);
        assert!(known.contains(&A) && !known.is_fresh(&A));
    }

    #[test]
    fn an_orphan_is_there_for_whoever_claims_it() {
        let mut known = stored(&[A, B]);
        assert_eq!(known.release([&A]), 1);
        // Not durable, and somebody else is in the transaction: nothing to be done.
        assert_eq!(known.tidy(9), Tidying::Nothing);
        assert!(known.claim(&A));
        assert_eq!(known.release([&B]), 1);
        assert_eq!(known.tidy(9), Tidying::Nothing);
        known.publish();
        assert_eq!(known.hold([&B].into_iter()), Ok(()));
        known.committed([&B]);
        assert_eq!(known.tidy(9), Tidying::Nothing);
        assert_eq!(known.release([&A]), 1);
        assert!(known.claim(&A));
        known.committed([&A]);
        assert!(known.contains(&A) && known.contains(&B) && !known.is_fresh(&A) && !known.is_fresh(&B));
        assert_eq!(known.tidy(9), Tidying::Nothing);
    }

    #[test]
    fn what_is_still_queued_is_not_stored_for_nobody() {
        let mut known = stored(&[B]);
        known.add_fresh(A);
        assert_eq!(known.release([&A]), 1);
        // Another one's commit comes first, and does not make durable what is not there yet.
        known.publish();
        known.committed([&B]);
        assert!(!known.store(&A));
        assert!(!known.contains(&A));
        assert_eq!(known.tidy(9), Tidying::Nothing);
        // Claimed again in time, it is stored once.
        known.add_fresh(A);
        assert_eq!(known.release([&A]), 1);
        assert!(known.claim(&A));
        assert!(known.store(&A) && !known.store(&A));
    }

    #[test]
    fn deletions_come_in_batches_and_come_back_with_a_discard() {
        let ids: Vec<Id> = (10..20).map(|n| Id([n; 32])).collect();
        let mut known = stored(&ids);
        known.publish();
        known.committed([]);
        assert_eq!(known.release(&ids), 10);
        assert_eq!(known.tidy(4), Tidying::Delete(ids[..4].to_vec()));
        // Stored again, and again for nothing.
        assert!(!known.claim(&ids[0]));
        known.add_fresh(ids[0]);
        assert!(known.store(&ids[0]));
        assert_eq!(known.tidy(4), Tidying::Delete(ids[4..8].to_vec()));
        assert_eq!(known.tidy(4), Tidying::Delete(ids[8..].to_vec()));
        assert_eq!(known.tidy(4), Tidying::Nothing);
        assert_eq!(known.release([&ids[0]]), 1);
        assert_eq!(known.tidy(4), Tidying::Discard);
        assert!(ids.iter().all(|id| known.contains(id) && known.is_fresh(id)));
        assert_eq!(known.tidy(99), Tidying::Delete(ids));
        assert_eq!(known.tidy(99), Tidying::Commit);
    }
}
