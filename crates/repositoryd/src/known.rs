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

use crate::spoiled::Spoiled;
use crate::spool::Spool;
use borg::Id;
use model::Failure;
use repository::{IdMap, IdSet, Reader, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Orphans that are deleted at a time: so many a request may have to wait for.
const BATCH_SERVED: usize = 200;

/// The same where a deletion is only a few bytes more.
const BATCH: usize = 2000;

/// Who claims something: a job that has not ended. A claim is somebody's, not a number: whoever lets go of what it does not have takes
/// nothing from anybody, and whoever claims twice lets go once.
///
/// As bytes, because there may be millions of them: they need no place to align.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claimant([u8; 4]);

impl Claimant {
    const NOBODY: Claimant = Claimant([0xff; 4]);

    /// Of that number. Jobs that run at the same time are no four thousand millions apart.
    pub fn of(job: u64) -> Claimant {
        Claimant(((job % u64::from(u32::MAX)) as u32).to_le_bytes())
    }
}

#[derive(Debug, Clone, Copy)]
struct Fresh {
    /// A job that sent it or relies on it and has not ended.
    first: Claimant,
    /// Others do as well: they are in [`Known::shared`].
    shared: bool,
    /// The writer has handed it to the repository.
    stored: bool,
    /// A commit of somebody else has made it durable.
    published: bool,
    /// What was there before was damaged or missing, and archives may refer to it: it stays, even if nobody claims it any more.
    resent: bool,
    /// A damaged copy is below it, which is back if this one is discarded.
    covers: bool,
}

impl Fresh {
    /// Durable, or there before.
    fn of(first: Claimant) -> Fresh {
        Fresh { first, shared: false, stored: true, published: true, resent: false, covers: false }
    }

    fn is_claimed(&self) -> bool {
        self.first != Claimant::NOBODY || self.shared
    }
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
    /// Those that nobody claims are orphans that would be gone if the transaction were discarded.
    fresh: IdMap<Fresh>,
    /// How many of them somebody claims.
    claimed: usize,
    /// Who else claims what has a first claimant, or had one.
    shared: HashMap<Claimant, IdSet>,
    /// Orphans that are durable.
    durable: BTreeSet<Id>,
    /// Durable orphans that this transaction deleted: if it is discarded, they are back.
    deleted: Vec<Id>,
    /// Handed to the repository since the last commit.
    unpublished: Spool,
    /// What the writer is deleting at this moment, as it was.
    going: IdMap<Fresh>,
    /// Counts what makes a [`Seen`] void.
    epoch: Arc<AtomicU64>,
    /// Counts removals of what archives or sessions may refer to.
    losses: u64,
    /// Damaged: stored, and as good as absent.
    spoiled: Spoiled,
    /// Of those, what this transaction has stored, and nobody has any more.
    ruined: IdSet,
}

impl Known {
    /// Everything that a served repository has when it is opened. What does not belong into memory goes into files in `directory`.
    pub fn listed(ids: Vec<Id>, directory: &Path) -> Known {
        Known::of(Stored::Listed(ids.into_iter().collect()), directory)
    }

    /// A repository with an index.
    pub fn indexed(reader: Reader, directory: &Path) -> Known {
        Known::of(Stored::Indexed(reader), directory)
    }

    fn of(stored: Stored, directory: &Path) -> Known {
        Known {
            stored,
            fresh: IdMap::default(),
            claimed: 0,
            shared: HashMap::new(),
            durable: BTreeSet::new(),
            deleted: vec![],
            unpublished: Spool::new(directory),
            going: IdMap::default(),
            epoch: Arc::default(),
            losses: 0,
            spoiled: Spoiled::default(),
            ruined: IdSet::default(),
        }
    }

    /// With what checks have found to be damaged.
    pub fn without(self, spoiled: Spoiled) -> Known {
        Known { spoiled, ..self }
    }

    /// What checks have found to be damaged.
    pub fn spoiled(&self) -> &Spoiled {
        &self.spoiled
    }

    /// A check has found these to be damaged or missing, and no others: from now on they are absent. `before` is what was known to be when it
    /// looked. What was sent again and is not committed stays, whatever was read of it: only a commit makes it sound, because until then it
    /// may go again. To be followed by [`Opening::save_spoiled`].
    ///
    /// [`Opening::save_spoiled`]: crate::opening::Opening::save_spoiled
    pub fn spoil(&mut self, damaged: &[Id], missing: &[Id], before: &[Id]) {
        let mut ids: IdSet = self.spoiled.ids().into_iter().filter(|id| self.fresh.contains_key(id)).collect();
        for id in missing {
            if self.is_healed(id, before) {
                continue;
            }
            // Should somebody have sent it meanwhile: archives refer to it.
            self.durable.remove(id);
            if let Some(fresh) = self.fresh.get_mut(id) {
                fresh.resent = true;
            }
            ids.insert(*id);
        }
        for id in damaged {
            if self.is_healed(id, before) {
                continue;
            }
            // Whoever relies on it has nothing.
            if !self.spoiled.contains(id)
                && self.fresh.get(id).is_some_and(|fresh| fresh.stored)
                && let Some(fresh) = self.forget(id)
            {
                // It is still there, and to go.
                if fresh.published {
                    self.orphan(*id, fresh.resent);
                } else {
                    self.ruined.insert(*id);
                }
            }
            ids.insert(*id);
        }
        self.spoiled.replace(ids);
        self.lost();
    }

    /// It was damaged, and a commit has made it sound since.
    fn is_healed(&self, id: &Id, before: &[Id]) -> bool {
        before.binary_search(id).is_ok() && !self.spoiled.contains(id)
    }

    /// The same sessions go on with a repository that was closed and opened again: everything they have was committed before.
    pub fn reopened(&mut self, stored: Known) {
        self.stored = stored.stored;
        self.spoiled = stored.spoiled;
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

    /// The same, from who has read the whole index since it was that epoch.
    pub fn seen(epoch: u64, there: bool) -> Seen {
        Seen { epoch, there }
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
        if self.going.contains_key(id) || self.spoiled.contains(id) {
            return Ok(false);
        }
        match seen {
            Some(seen) if seen.epoch == self.epoch.load(Ordering::Acquire) => Ok(seen.there),
            _ => self.stored.contains(id),
        }
    }

    /// Whether the repository has it, damaged or not, so that it can be deleted.
    pub fn is_stored(&self, id: &Id) -> Result<bool> {
        Ok(self.contains(id)? || self.spoiled.contains(id) && !self.going.contains_key(id) && self.stored.contains(id)?)
    }

    /// Whether it goes unless an archive that refers to it is committed; orphans do. A damaged orphan is as good as gone.
    pub fn is_fresh(&self, id: &Id) -> bool {
        self.fresh.contains_key(id) || self.durable.contains(id) && !self.spoiled.contains(id)
    }

    /// Whether a session has it, or has left it in a transaction that is not committed.
    pub fn is_claimed(&self, id: &Id) -> bool {
        self.fresh.contains_key(id)
    }

    /// Whether it was damaged and has been sent again, so that only the writer can tell which copy there is.
    pub fn is_sent_again(&self, id: &Id) -> bool {
        self.spoiled.contains(id) && self.fresh.contains_key(id)
    }

    /// This job's session sent this object; false if it has to be stored. To be undone by [`Known::release`].
    pub fn claim(&mut self, id: &Id, job: Claimant, seen: Option<Seen>) -> Result<bool> {
        if self.is_fresh(id) {
            self.rely(id, job);
            return Ok(true);
        }
        self.contains_seen(id, seen)
    }

    /// This job relies on an object. If that is fresh and the job did not claim it before, it does now: then this is true, and to be undone
    /// by [`Known::release`].
    pub fn rely(&mut self, id: &Id, job: Claimant) -> bool {
        if !self.spoiled.contains(id) && self.durable.remove(id) {
            self.set(*id, Fresh::of(job));
            return true;
        }
        let Some(fresh) = self.fresh.get_mut(id) else { return false };
        let others = || self.shared.get(&job).is_some_and(|ids| ids.contains(id));
        if fresh.first == job || fresh.shared && others() {
            return false;
        }
        self.claimed += usize::from(!fresh.is_claimed());
        if fresh.first == Claimant::NOBODY {
            fresh.first = job;
        } else {
            fresh.shared = true;
            self.shared.entry(job).or_default().insert(*id);
        }
        true
    }

    /// A session's object is about to be stored; [`Known::claim`] said false.
    pub fn add_fresh(&mut self, id: Id, job: Claimant) -> Result<()> {
        let is_spoiled = self.spoiled.contains(&id);
        let is_ruined = self.ruined.contains(&id);
        let covers = is_spoiled && !is_ruined && !self.going.contains_key(&id) && self.stored.contains(&id)?;
        // An orphan that is damaged is nobody's as before.
        let resent = !self.durable.remove(&id) && !is_ruined && is_spoiled;
        self.set(id, Fresh { stored: false, published: false, resent, covers, ..Fresh::of(job) });
        Ok(())
    }

    /// No archive refers any more to what was damaged, and a session has sent it again: it goes with that session, and what it covers as well.
    /// The next commit notes it in the journal.
    pub fn abandon(&mut self, id: &Id) -> std::result::Result<(), Failure> {
        let Some(fresh) = self.fresh.get_mut(id).filter(|fresh| fresh.resent) else { return Ok(()) };
        fresh.resent = false;
        if fresh.covers && fresh.stored && !fresh.published {
            self.deleted.push(*id);
        }
        self.unpublished.push(*id)
    }

    /// An object that is stored and durable, and that no archive refers to any more, belongs to these jobs now. The next commit notes it in
    /// the journal.
    pub fn adopt(&mut self, id: Id, jobs: &[Claimant]) -> std::result::Result<(), Failure> {
        self.unpublished.push(id)?;
        // It may be an orphan already, and would go as one while they rely on it.
        self.durable.remove(&id);
        self.set(id, Fresh::of(Claimant::NOBODY));
        jobs.iter().for_each(|job| {
            self.rely(&id, *job);
        });
        Ok(())
    }

    fn set(&mut self, id: Id, fresh: Fresh) {
        self.forget(&id);
        self.claimed += usize::from(fresh.is_claimed());
        self.fresh.insert(id, fresh);
    }

    /// It is not fresh any more, and nobody's.
    fn forget(&mut self, id: &Id) -> Option<Fresh> {
        let fresh = self.fresh.remove(id)?;
        self.claimed -= usize::from(fresh.is_claimed());
        if fresh.shared {
            self.shared.values_mut().for_each(|ids| {
                ids.remove(id);
            });
        }
        if self.fresh.is_empty() {
            // There may have been millions.
            self.fresh = IdMap::default();
        }
        Some(fresh)
    }

    /// These are stored and durable, and nobody refers to them.
    pub fn add_orphans(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.durable.extend(ids);
    }

    /// The writer has come to an object that was added as fresh; false if nobody needs it any more, or it was stored meanwhile.
    pub fn store(&mut self, id: &Id) -> std::result::Result<bool, Failure> {
        match self.fresh.get_mut(id) {
            Some(fresh) if fresh.stored => Ok(false),
            Some(fresh) if fresh.is_claimed() => {
                fresh.stored = true;
                if fresh.covers && !fresh.resent {
                    self.deleted.push(*id);
                }
                self.ruined.remove(id);
                self.unpublished.push(*id)?;
                self.add(*id);
                Ok(true)
            }
            _ => {
                self.give_up(id);
                Ok(false)
            }
        }
    }

    /// It is not stored any more; what it would have covered is an orphan as before.
    fn give_up(&mut self, id: &Id) {
        if self.forget(id).is_some_and(|fresh| fresh.covers && !fresh.resent) {
            self.durable.insert(*id);
        }
    }

    /// An object was stored.
    pub fn add(&mut self, id: Id) {
        if let Stored::Listed(ids) = &mut self.stored {
            ids.insert(id);
        }
    }

    /// The writer is about to delete an object; from now on nobody finds it. Until [`Known::done`] nothing is stored.
    pub fn remove(&mut self, id: &Id) {
        let fresh = self.forget(id);
        self.durable.remove(id);
        self.ruined.remove(id);
        self.going.insert(*id, fresh.unwrap_or(Fresh::of(Claimant::NOBODY)));
        self.tick();
    }

    /// The writer has done what was decided.
    pub fn done(&mut self) {
        let going = std::mem::take(&mut self.going);
        if let Stored::Listed(ids) = &mut self.stored {
            going.keys().for_each(|id| {
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
    pub fn take_unpublished(&mut self) -> Spool {
        self.unpublished.take()
    }

    /// The repository is about to commit these: from now on nobody knows any more what is not durable.
    pub fn publish(&mut self, ids: &[Id]) {
        for id in ids {
            match self.fresh.get_mut(id) {
                Some(fresh) if fresh.is_claimed() => fresh.published = fresh.stored,
                Some(fresh) if fresh.stored => {
                    let resent = fresh.resent;
                    self.forget(id);
                    self.orphan(*id, resent);
                }
                None if self.ruined.remove(id) => self.orphan(*id, false),
                _ => {}
            }
        }
    }

    /// A commit happened, of an archive that refers to these.
    pub fn committed<'a>(&mut self, references: impl IntoIterator<Item = &'a Id>) {
        let mut healed = 0;
        for id in references {
            let sent = self.forget(id).is_some();
            self.durable.remove(id);
            // One that was found in this moment is not sound by being referred to.
            healed += usize::from(sent && self.spoiled.remove(id));
        }
        if healed > 0 {
            log::warn!("{healed} damaged chunks were sent again and are sound now; {} are left", self.spoiled.len());
        }
        self.deleted = vec![];
        self.tick();
    }

    /// A session has ended that may have claimed these. Says how many are orphans now.
    pub fn release<'a>(&mut self, job: Claimant, ids: impl IntoIterator<Item = &'a Id>) -> usize {
        let mut count = 0;
        for id in ids {
            let Some(fresh) = self.fresh.get_mut(id) else { continue };
            if fresh.first == job {
                fresh.first = Claimant::NOBODY;
            } else if !fresh.shared || !self.shared.get_mut(&job).is_some_and(|ids| ids.remove(id)) {
                // What it sent belonged to an archive then, and is somebody else's now.
                continue;
            }
            fresh.shared = fresh.shared && self.shared.values().any(|ids| ids.contains(id));
            if !fresh.is_claimed() {
                self.claimed -= 1;
                if fresh.published {
                    let resent = fresh.resent;
                    self.forget(id);
                    self.orphan(*id, resent);
                }
                count += 1;
            }
        }
        count
    }

    /// Durable, and nobody's. What was damaged before, others refer to: it stays, and the next check finds it sound.
    fn orphan(&mut self, id: Id, resent: bool) {
        if !resent {
            self.durable.insert(id);
        }
    }

    /// A job has let go of all that it claimed.
    pub fn forget_claimant(&mut self, job: Claimant) {
        self.shared.remove(&job);
    }

    /// What to do about orphans, not too much at a time. Only for when no request waits.
    pub fn tidy(&mut self) -> Tidying {
        let most = if self.is_listed() { BATCH_SERVED } else { BATCH };
        self.tidy_up_to(most)
    }

    /// The same with at most so many deletions.
    pub fn tidy_up_to(&mut self, most: usize) -> Tidying {
        if self.claimed == 0 && self.is_mixed() {
            self.discarded();
            return Tidying::Discard;
        }
        let mut batch: Vec<Id> = std::iter::from_fn(|| self.durable.pop_first()).take(most).collect();
        self.deleted.extend(&batch);
        if !self.is_listed() && self.fresh.len() > self.claimed {
            // They may be alone in nobody's transaction for a long time.
            let is_nobodys = |fresh: &Fresh| fresh.stored && !fresh.is_claimed();
            let stored: Vec<(Id, bool)> = self.fresh.iter().filter(|(_, f)| is_nobodys(f)).map(|(id, f)| (*id, f.resent)).collect();
            let (stay, go): (Vec<_>, Vec<_>) = stored.into_iter().partition(|(_, resent)| *resent);
            for (id, _) in &stay {
                self.forget(id);
            }
            batch.extend(go.into_iter().map(|(id, _)| id).take(most.saturating_sub(batch.len())));
        }
        if !batch.is_empty() {
            batch.iter().for_each(|id| self.remove(id));
            Tidying::Delete(batch)
        } else if self.claimed == 0 && !self.deleted.is_empty() {
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
        !self.fresh.is_empty() || !self.ruined.is_empty()
    }

    /// Whether everything there is belongs to archives, durably.
    pub fn is_clean(&self) -> bool {
        !self.is_mixed() && self.durable.is_empty() && self.deleted.is_empty()
    }

    /// All that is durable although no archive refers to it.
    pub fn published(&self) -> Vec<Id> {
        let fresh = self.fresh.iter().filter(|(_, fresh)| fresh.published || fresh.covers && !fresh.resent).map(|(id, _)| *id);
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
        (self.fresh, self.claimed) = (IdMap::default(), 0);
        self.shared.clear();
        self.durable.clear();
        self.deleted.clear();
        self.ruined.clear();
        self.tick();
    }

    /// Fresh objects that the repository does not have. They are forgotten.
    pub fn drop_vanished(&mut self) -> Result<Vec<Id>> {
        let mut vanished = vec![];
        let claimed = self.fresh.iter().filter(|(_, fresh)| fresh.is_claimed()).map(|(id, _)| id);
        for id in claimed.chain(&self.durable) {
            if !self.stored.contains(id)? {
                vanished.push(*id);
            }
        }
        for id in &vanished {
            self.forget(id);
            self.durable.remove(id);
        }
        Ok(vanished)
    }

    /// The transaction is about to be discarded: what it stored goes, what it deleted comes back.
    pub fn discarded(&mut self) {
        drop(self.unpublished.take());
        self.claimed = 0;
        self.shared.clear();
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|id, fresh| {
            if (fresh.published || fresh.covers) && !fresh.resent {
                self.durable.insert(*id);
            }
            // What it covers is there, as it was.
            !fresh.published && !fresh.covers
        });
        self.ruined.clear();
        if self.going.is_empty() {
            // There may be millions: no second table of them.
            self.going = fresh;
        } else {
            self.going.extend(fresh);
        }
        for id in std::mem::take(&mut self.deleted) {
            self.going.remove(&id);
            self.add(id);
            self.durable.insert(id);
        }
        self.tick();
    }
}

#[cfg(test)]
mod tests;
