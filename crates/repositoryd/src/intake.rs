//! Chunks in, and chunks back.

use crate::failures::{ending, of_repository, stale};
use crate::restore;
use crate::sent::Sent;
use crate::session::{Next, Session};
use crate::writer::Request;
use borg::Id;
use model::Failure;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use wire::session::{Put, kind};
use wire::{WireError, frame};

/// The overhead of the client's envelopes: its key never encrypts.
const CLIENT_OVERHEAD: u32 = 1;

impl Session<'_> {
    /// Takes a verified chunk: dropped if it is there, else encrypted here and handed to the writer.
    pub fn put(&mut self, put: &Put<'_>) -> Result<(), Failure> {
        let id = Id(put.id);
        let size = u32::try_from(put.payload.len()).unwrap_or(u32::MAX);
        let record = Sent { size: put.size, csize: size.saturating_add(CLIENT_OVERHEAD), new: false };
        // Before asking what is known: who deletes garbage looks here.
        if !self.job.sent().add(id, record)? {
            return Ok(());
        }
        let (opening, claimant) = (Arc::clone(&self.job.opening), self.job.claimant());
        let seen = opening.see(&id)?;
        if opening.known().claim(&id, claimant, seen).map_err(|e| of_repository(&e))? {
            return Ok(());
        }
        let nonce = self.nonce(opening.key.nonce_blocks(put.payload.len()))?;
        let envelope = opening.key.seal(put.payload, nonce);
        let stored = envelope.len() as u64;
        let permit = self.owner.budget.take(envelope.len());
        {
            // Known and queued in one step: who finds it known may commit right away, and that has to come behind it.
            let mut known = opening.known();
            if known.claim(&id, claimant, seen).map_err(|e| of_repository(&e))? {
                return Ok(());
            }
            known.add_fresh(id, claimant).map_err(|e| of_repository(&e))?;
            let request = Request::Put { opening: Arc::clone(&opening), id, envelope, size: put.size, permit };
            self.owner.writer.send(request).map_err(|_| ending())?;
        }
        self.job.sent().set_new(&id)?;
        self.deduplicated += stored;
        self.fresh += u64::from(put.size);
        Ok(())
    }

    fn nonce(&self, blocks: u64) -> Result<u64, Failure> {
        if blocks == 0 {
            return Ok(0);
        }
        loop {
            if let Some(nonce) = self.job.opening.nonces.take(blocks) {
                return Ok(nonce);
            }
            let (reply, answer) = sync_channel(1);
            let request = Request::Reserve { opening: Arc::clone(&self.job.opening), blocks, reply };
            self.owner.writer.send(request).map_err(|_| ending())?;
            answer.recv().map_err(|_| ending())??;
        }
    }

    /// Has a chunk sent back that this session sent, or that is in its client's view.
    pub fn read(&mut self, id: Id) -> Result<Next, WireError> {
        match self.fetch_own(id) {
            Ok(Some(payload)) => {
                self.fetched = Some((id, payload));
                Ok(Next::More)
            }
            Ok(None) => {
                frame::write(&mut self.output, kind::NOT_IN_VIEW, &[&id.0])?;
                Ok(Next::More)
            }
            Err(failure) => {
                self.job.fail(failure);
                Ok(Next::Fail)
            }
        }
    }

    fn fetch_own(&self, id: Id) -> Result<Option<Vec<u8>>, Failure> {
        let job = self.job;
        let Some(source) = &job.source else {
            let is_own = job.entry(&id)?.is_some();
            return if is_own { restore::fetch(self.owner, &job.opening, &id)?.ok_or_else(|| stale(&id)).map(Some) } else { Ok(None) };
        };
        if id == source.metadata.0 {
            return Ok(Some(source.metadata.1.clone()));
        }
        let Ok(at) = job.view.references.binary_search_by(|reference| reference.id.cmp(&id.0)) else { return Ok(None) };
        let payload = restore::fetch(self.owner, &job.opening, &id)?.ok_or_else(|| restore::lost(self.owner, job, &id))?;
        source.note(at, payload.len());
        Ok(Some(payload))
    }
}
