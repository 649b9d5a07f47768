//! Orphans go while nobody waits for the writer, and before the repository is closed.

use crate::failures::of_repository;
use crate::known::Tidying;
use crate::open::Open;
use borg::Id;
use model::Failure;
use std::sync::Arc;

/// Orphans that are deleted before closing, where that is cheap; what is left is in the journal.
const LAST: usize = 200_000;

/// One step; false if there is none to take.
pub fn step(open: &mut Open) -> bool {
    if open.opening.failure().is_some() {
        return false;
    }
    let step = open.opening.known().tidy();
    let done = match &step {
        Tidying::Nothing => return false,
        Tidying::Discard => open.repository.discard().map_err(|e| of_repository(&e)),
        Tidying::Delete(ids) => delete(open, ids),
        Tidying::Commit => commit_deletions(open),
    };
    open.opening.known().done();
    match done {
        Ok(()) => {
            open.empty_journal();
            true
        }
        Err(failure) => {
            open.opening.fail(failure);
            false
        }
    }
}

/// Deletes what is going already.
pub fn delete(open: &mut Open, ids: &[Id]) -> Result<(), Failure> {
    ids.iter().try_for_each(|id| open.repository.delete(id)).map_err(|e| of_repository(&e))
}

fn commit_deletions(open: &mut Open) -> Result<(), Failure> {
    open.commit(&|_| false)?;
    open.opening.known().committed([]);
    open.empty_journal();
    Ok(())
}

/// Ends a repository after a failure. If it still answers, what was not committed is removed: the disk may be full of it.
pub fn give_up(open: Option<Open>) {
    let Some(mut open) = open else { return };
    match open.repository.discard() {
        Ok(()) => open.repository.close(),
        Err(e) => log::warn!("{}", given_up(&e)),
    }
}

/// What somebody has to know who finds a repository in that state.
fn given_up(error: &repository::Error) -> String {
    format!(
        "what was sent since the last commit could not be taken back: {error}. Archives that are done are not touched. The next backup opens \
         the repository, undoes the rest and removes what nobody refers to; if that does not succeed either, look at the disk and run \
         `borgcube repository check`"
    )
}

/// Closes in an orderly way, so that any borg may use the repository.
pub fn close(open: Option<Open>) {
    close_unless(open, &mut || false);
}

/// The same, without what takes long and only serves another borg, as soon as `somebody_waits`.
pub fn close_unless(open: Option<Open>, somebody_waits: &mut dyn FnMut() -> bool) {
    let Some(mut open) = open else { return };
    if let Err(failure) = leave_tidy(&mut open) {
        log::warn!("objects that nobody needs stay in the repository until it is opened again: {}", failure.line());
    }
    open.repository.close_unless(somebody_waits);
    log::info!("the repository is closed");
}

/// Leaves as little as possible that nobody refers to, without letting anybody wait for more than a batch.
fn leave_tidy(open: &mut Open) -> Result<(), Failure> {
    let opening = Arc::clone(&open.opening);
    let discard = |open: &mut Open| open.repository.discard().map_err(|e| of_repository(&e));
    let mixed = opening.known().is_mixed();
    if mixed {
        opening.known().discarded();
        discard(open)?;
        opening.known().done();
    }
    let step = {
        let mut known = opening.known();
        if known.is_listed() { known.tidy() } else { known.tidy_up_to(LAST) }
    };
    if let Tidying::Delete(ids) = &step {
        delete(open, ids)?;
    }
    opening.known().done();
    let (deleted, left) = {
        let known = opening.known();
        (known.has_deleted(), known.leftover())
    };
    if left > 0 {
        log::warn!("{left} chunks that no archive refers to stay in the repository until it is opened again");
    }
    if deleted { commit_deletions(open) } else { discard(open) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_says_what_and_what_to_do() {
        let text = given_up(&repository::Error::Damaged("segment 7 is gone".into()));
        for part in ["since the last commit", "segment 7 is gone", "Archives that are done are not touched", "borgcube repository check"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
