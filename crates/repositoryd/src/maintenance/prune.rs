//! What policies and people have chosen goes, and its space comes back.

use super::{Stop, Work, compact, damage, delete};
use crate::failures::internal;
use model::{Cause, Failure};
use wire::maintenance::Report;

/// Deletes those of the archives whose grace period is over, then compacts with this threshold.
pub fn prune(work: &Work<'_>, names: &[String], threshold: Option<u8>) -> Result<Report, Stop> {
    // What is old may be all that is sound.
    if let Some(damage) = damage::health(work.owner)?.and_then(|health| health.damage) {
        return Err(Failure::new(Cause::RepositoryCheckNeeded, damage.refuses_prune(&work.owner.name)).into());
    }
    let Report::Deleted { archives, chunks, bytes, kept_because } = delete::delete_due(work, names)? else {
        return Err(internal("a deletion reports something else").into());
    };
    let mut freed = None;
    if let Some(threshold) = threshold.filter(|_| !archives.is_empty())
        && let Report::Compacted { freed: given_back, .. } = compact::compact(work, threshold)?
    {
        freed = Some(given_back);
    }
    Ok(Report::Pruned { archives, chunks, bytes, kept_because, freed })
}
