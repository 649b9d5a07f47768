//! Proposals: judged, and committed.

use crate::commit::{Candidate, Waiting};
use crate::failures::{ending, internal, of_repository, stale};
use crate::session::Session;
use crate::viewlist::ViewList;
use crate::writer::Request;
use borg::Id;
use model::{Archive, Failure};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use wire::session::{Proposal, Reference, Verdict};

/// References that are looked at under the lock at a time.
const SLICE: usize = 4096;

impl Session<'_> {
    /// Judges what was collected, and starts a new collection.
    pub fn judge(&mut self, proposal: Proposal) -> Verdict {
        self.accepted = None;
        if self.job.progress().archive.is_some() {
            self.collected.note("archive-complete", "another archive was proposed behind the complete one".into());
        }
        let (items, references) = match std::mem::take(&mut self.collected).finish() {
            Ok(collected) => collected,
            Err(violation) => {
                self.doom(&violation);
                return Verdict::Violation(violation);
            }
        };
        let losses = self.job.opening.known().losses();
        if let Err(failure) = self.rely_on(&references) {
            self.job.fail(failure.clone());
            return Verdict::Failed(failure);
        }
        let mut new: HashSet<Id> = if proposal.checkpoint { self.carried.iter().copied().collect() } else { HashSet::new() };
        {
            let sent = self.job.sent();
            new.extend(references.iter().map(|r| Id(r.id)).filter(|id| sent.get(id).is_some_and(|sent| sent.new)));
        }
        let mut new: Vec<Id> = new.into_iter().collect();
        new.sort_unstable();
        let list = ViewList { references, new };
        let staged = {
            let sent = self.job.sent();
            self.job.view.stage(self.owner, &list, (!proposal.checkpoint).then(|| sent.keys()))
        };
        let staged = match staged {
            Ok(staged) => staged,
            Err(failure) => {
                self.job.fail(failure.clone());
                return Verdict::Failed(failure);
            }
        };
        self.accepted =
            Some(Candidate { job: Arc::clone(self.job), proposal, items, list, staged, deduplicated: self.deduplicated, losses });
        Verdict::Accepted
    }

    pub fn commit(&mut self) -> Verdict {
        let Some(candidate) = self.accepted.take() else {
            return Verdict::Failed(internal("a commit without an accepted proposal"));
        };
        let checkpoint = candidate.proposal.checkpoint;
        let carried = if checkpoint { candidate.list.new.clone() } else { vec![] };
        match self.committed(candidate) {
            Ok(archive) => {
                let mut progress = self.job.progress();
                progress.counters = archive.counters;
                *(if checkpoint { &mut progress.checkpoint } else { &mut progress.archive }) = Some(archive);
                self.carried = carried;
                Verdict::Accepted
            }
            Err(failure) => {
                self.job.fail(failure.clone());
                Verdict::Failed(failure)
            }
        }
    }

    fn committed(&self, candidate: Candidate) -> Result<Archive, Failure> {
        let (reply, answer) = sync_channel(1);
        self.owner.committing.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting { candidate: Box::new(candidate), reply };
        self.owner.writer.send(Request::Commit(waiting)).map_err(|_| ending())?;
        answer.recv().map_err(|_| ending())?
    }

    /// Whether all of it is there. What another session has stored and no archive refers to would go with that session, unless it is
    /// this one's as well.
    fn rely_on(&self, references: &[Reference]) -> Result<(), Failure> {
        let opening = &self.job.opening;
        for part in references.chunks(SLICE) {
            let mut seen = Vec::with_capacity(part.len());
            for reference in part {
                seen.push(opening.see(&Id(reference.id))?);
            }
            let mut known = opening.known();
            let (sent, mut relied) = (self.job.sent(), self.job.relied());
            for (reference, seen) in part.iter().zip(seen) {
                let id = Id(reference.id);
                if !known.contains_seen(&id, seen).map_err(|e| of_repository(&e))? {
                    return Err(stale(&id));
                }
                if known.is_fresh(&id) && !sent.contains_key(&id) && relied.insert(id) {
                    known.claim(&id, seen).map_err(|e| of_repository(&e))?;
                }
            }
        }
        Ok(())
    }
}
