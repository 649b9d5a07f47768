//! Which objects the repository has, and which of them nobody refers to yet.
//!
//! All sessions of an opening share one transaction of the repository, so a commit also makes durable what other sessions have stored so
//! far. A fresh object is one that no committed archive refers to. It belongs to the sessions that sent it or proposed an archive that refers
//! to it, and goes when the last of them has ended without a committed one; otherwise `borg check` would find orphans.

use borg::Id;
use std::collections::{HashMap, HashSet};

#[derive(Debug)]
struct Fresh {
    /// Sessions that sent it or rely on it and have not ended, and the commit that is going on.
    claims: u32,
    /// A commit of somebody else has made it durable.
    published: bool,
}

/// The objects of one opening.
#[derive(Debug, Default)]
pub struct Known {
    ids: HashSet<Id>,
    fresh: HashMap<Id, Fresh>,
}

impl Known {
    /// Everything that the repository has when it is opened.
    pub fn new(ids: Vec<Id>) -> Known {
        Known { ids: ids.into_iter().collect(), fresh: HashMap::new() }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Whether it is there, or on its way.
    pub fn contains(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    /// Whether it goes unless an archive that refers to it is committed.
    pub fn is_fresh(&self, id: &Id) -> bool {
        self.fresh.contains_key(id)
    }

    /// A session sent this object, or relies on it; false if it has to be stored. To be undone by [`Known::release`].
    pub fn claim(&mut self, id: &Id) -> bool {
        if let Some(fresh) = self.fresh.get_mut(id) {
            fresh.claims += 1;
        }
        self.ids.contains(id)
    }

    /// A session's object is about to be stored; [`Known::claim`] said false.
    pub fn add_fresh(&mut self, id: Id) {
        self.ids.insert(id);
        self.fresh.insert(id, Fresh { claims: 1, published: false });
    }

    /// The owner's own object was stored.
    pub fn add(&mut self, id: Id) {
        self.ids.insert(id);
    }

    /// An object was deleted.
    pub fn remove(&mut self, id: &Id) {
        self.ids.remove(id);
        self.fresh.remove(id);
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
        self.fresh.values_mut().for_each(|fresh| fresh.published = true);
    }

    /// A commit happened, of an archive that refers to these.
    pub fn committed<'a>(&mut self, references: impl IntoIterator<Item = &'a Id>) {
        for id in references {
            self.fresh.remove(id);
        }
    }

    /// A session that claimed these has ended. Says which ones to delete, and whether one of them is durable.
    pub fn release<'a>(&mut self, claimed: impl IntoIterator<Item = &'a Id>) -> (Vec<Id>, bool) {
        let (mut gone, mut durable) = (vec![], false);
        for id in claimed {
            let Some(fresh) = self.fresh.get_mut(id) else { continue };
            fresh.claims = fresh.claims.saturating_sub(1);
            if fresh.claims == 0 {
                durable |= fresh.published;
                gone.push(*id);
            }
        }
        gone.iter().for_each(|id| self.remove(id));
        (gone, durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id([1; 32]);
    const B: Id = Id([2; 32]);
    const OLD: Id = Id([3; 32]);

    #[test]
    fn the_first_write_wins_and_the_last_claim_decides() {
        let mut known = Known::new(vec![OLD]);
        assert!(known.claim(&OLD));
        assert!(!known.claim(&A));
        known.add_fresh(A);
        assert!(known.claim(&A));
        // The first of two ends: the other one may still need it.
        assert_eq!(known.release([&A, &OLD]), (vec![], false));
        assert!(known.contains(&A));
        assert_eq!(known.release([&A]), (vec![A], false));
        assert!(!known.contains(&A));
        assert!(known.contains(&OLD));
        assert_eq!(known.count(), 1);
    }

    #[test]
    fn what_an_archive_refers_to_stays() {
        let mut known = Known::default();
        for id in [A, B] {
            assert!(!known.claim(&id));
            known.add_fresh(id);
        }
        known.publish();
        known.committed([&A]);
        // B has become durable as a by-product, so its removal has to be committed as well.
        assert_eq!(known.release([&A, &B]), (vec![B], true));
        assert!(known.contains(&A));
        assert_eq!(known.release([&A, &B]), (vec![], false));
    }

    #[test]
    fn nothing_goes_under_a_commit() {
        let mut known = Known::default();
        assert!(!known.claim(&A));
        known.add_fresh(A);
        assert_eq!(known.hold([&A, &B].into_iter()), Err(B));
        assert_eq!(known.hold([&A].into_iter()), Ok(()));
        known.publish();
        // The one that sent it ends while the commit is under way.
        assert_eq!(known.release([&A]), (vec![], false));
        assert!(known.is_fresh(&A));
        known.committed([&A]);
        assert!(known.contains(&A) && !known.is_fresh(&A));
    }
}
