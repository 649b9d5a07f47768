//! What the repository takes up, for whoever looks at it: measured after what changes it, in microseconds, and kept by day.
//!
//! A repository that `borg serve` has tells nobody how large its files are: then nothing is measured.

use crate::failures::of_store;
use crate::opening::Opening;
use crate::owner::Owner;
use model::space::Space;
use model::{Failure, Timestamp};

/// As the last commit left it. None: nobody here knows.
pub fn measure(owner: &Owner, opening: &Opening) -> Option<Space> {
    let usage = opening.reader()?.usage();
    let usage = usage.inspect_err(|e| log::warn!("nobody knows what the repository takes up: {e}")).ok()?;
    Some(Space {
        repository: owner.name.clone(),
        time: Timestamp::now(),
        segments: usage.segments,
        freeable: usage.freeable,
        unique: usage.unique,
        chunks: usage.chunks,
    })
}

/// Keeps it, if it is news. That it cannot be kept is no reason to fail.
pub fn note(owner: &Owner, opening: &Opening) {
    if let Some(space) = measure(owner, opening)
        && let Err(failure) = keep(owner, &space)
    {
        log::warn!("what the repository takes up is not recorded: {}", failure.line());
    }
}

fn keep(owner: &Owner, space: &Space) -> Result<(), Failure> {
    let newest = owner.store.read(|r| r.space().newest(&owner.name)).map_err(|e| of_store(&e))?;
    if newest.is_some_and(|newest| newest.is_as(space) && newest.day() == space.day()) {
        return Ok(());
    }
    // This table is not in the log, and neither is the note.
    owner.store.write("measured", &owner.actor(), |w| w.space().note(space)).map(drop).map_err(|e| of_store(&e))
}
