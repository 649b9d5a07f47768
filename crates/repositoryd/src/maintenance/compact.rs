//! Space is given back: first what crashes and broken sessions left behind is deleted, then segments are copied together.

use super::{Stop, Work};
use crate::garbage;
use crate::journal::Journal;
use crate::orphans;
use crate::space;
use crate::upkeep::{Attached, Upkeep};
use wire::maintenance::Report;

/// Compacts segments of which at least `threshold` per cent can be freed.
pub fn compact(work: &Work<'_>, threshold: u8) -> Result<Report, Stop> {
    let orphans = sweep(work)?;
    let opening = work.attach()?.opening;
    let mut compaction = work.ask(|reply| Upkeep::Plan { opening: opening.clone(), threshold, reply })?;
    let total = compaction.victims() as u64;
    loop {
        let (now, done) = work.ask(|reply| Upkeep::Compact { opening: opening.clone(), compaction, reply })?;
        if done {
            for (segment, error) in now.skipped() {
                log::warn!("segment {segment} stays as it is: {error}");
            }
            let skipped = now.skipped().len() as u64;
            space::note(work.owner, &opening);
            return Ok(Report::Compacted { segments: now.segments(), freed: now.freed(), orphans, skipped });
        }
        work.progress("segments", now.segments(), total.max(now.segments()))?;
        compaction = now;
    }
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
    // That is all there is in the journal.
    let attached = Attached { is_noted: false, ..attached };
    Ok(work.collect(&attached, &records, ids)?.deleted)
}
