//! Proposals: judged, and committed.

use crate::commit::{Candidate, Waiting};
use crate::failures::{ending, internal, of_repository, stale};
use crate::session::Session;
use crate::viewlist::{Staged, ViewList, find};
use crate::writer::Request;
use borg::Id;
use model::{Archive, Failure};
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
        let staged = self.stage(references, proposal.checkpoint);
        let (list, staged) = match staged {
            Ok(staged) => staged,
            Err(failure) => {
                self.job.fail(failure.clone());
                return Verdict::Failed(failure);
            }
        };
        self.accepted = Some(Candidate {
            job: Arc::clone(self.job),
            proposal,
            items,
            list,
            staged,
            deduplicated: self.deduplicated,
            fresh: self.fresh,
            losses,
        });
        Verdict::Accepted
    }

    pub fn commit(&mut self) -> Verdict {
        let Some(candidate) = self.accepted.take() else {
            return Verdict::Failed(internal("a commit without an accepted proposal"));
        };
        let checkpoint = candidate.proposal.checkpoint;
        match self.committed(candidate) {
            Ok(archive) => {
                let mut progress = self.job.progress();
                progress.counters = archive.counters;
                *(if checkpoint { &mut progress.checkpoint } else { &mut progress.archive }) = Some(archive);
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

    /// The list of what it refers to. That of a checkpoint also names what this session was the first to store and it does not refer to.
    fn stage(&self, references: Vec<Reference>, checkpoint: bool) -> Result<(ViewList, Staged), Failure> {
        let view = &self.job.view;
        let (mut new, mut exact, mut at) = (vec![], true, 0);
        loop {
            // In parts: the writer may have to ask what this session sent.
            let Some(part) = self.job.sent().part(at)? else { break };
            at += 1;
            for (id, sent) in part {
                let referred = find(&references, &id).is_some();
                if checkpoint && sent.new && !referred {
                    new.push(id);
                }
                // What the client has sent besides, its cache has as well: a file that it could not read to its end.
                exact &= referred || view.find(&id).is_some();
            }
        }
        new.sort_unstable();
        let list = ViewList { references, new };
        let staged = view.stage(self.owner, &list, exact && !checkpoint)?;
        Ok((list, staged))
    }

    /// Whether all of it is there. What another session has stored and no archive refers to would go with that session, unless it is
    /// this one's as well. References come sorted, so that where they are many, the index is read in its order and not searched.
    fn rely_on(&self, references: &[Reference]) -> Result<(), Failure> {
        let opening = &self.job.opening;
        let failed = |e: repository::Error| of_repository(&e);
        let mut sweep = opening.sweep(references.len())?;
        let mut seen = Vec::with_capacity(SLICE);
        for part in references.chunks(SLICE) {
            seen.clear();
            for reference in part {
                let id = Id(reference.id);
                seen.push(match &mut sweep {
                    Some(sweep) => Some(sweep.see(&id).map_err(failed)?),
                    None => opening.see(&id)?,
                });
            }
            let mut known = opening.known();
            for (reference, seen) in part.iter().zip(&seen) {
                let id = Id(reference.id);
                if !known.contains_seen(&id, *seen).map_err(failed)? {
                    return Err(stale(&id));
                }
                if known.rely(&id, self.job.claimant()) {
                    self.job.relied().insert(id);
                }
            }
        }
        Ok(())
    }
}
