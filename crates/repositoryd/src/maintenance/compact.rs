//! Space is given back: first what crashes and broken sessions left behind is deleted, then segments are copied together.

use super::{Stop, Work};
use crate::garbage;
use crate::journal::Journal;
use crate::orphans;
use model::{Cause, Failure};
use wire::maintenance::Report;

/// Compacts segments of which at least `threshold` per cent can be freed.
pub fn compact(work: &Work<'_>, _threshold: u8) -> Result<Report, Stop> {
    let _orphans = sweep(work)?;
    Err(Failure::new(Cause::RepositoryError, "the repository cannot be compacted yet").into())
}

/// Deletes what the journal knows and nothing refers to.
fn sweep(work: &Work<'_>) -> Result<u64, Stop> {
    let attached = work.attach()?;
    let mut ids = Journal::peek(&work.owner.layout.views(work.owner.name.as_str()))?;
    let records = orphans::records(work.owner)?;
    if ids.is_empty() || garbage::has_unlisted(attached.archives.values(), &records) || !orphans::strike_all(work.owner, &records, &mut ids)
    {
        return Ok(0);
    }
    Ok(work.collect(&attached, &records, ids)?.deleted)
}
