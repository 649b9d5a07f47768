//! Which archives are of other origin, with what their metadata say about them.
//!
//! The metadata were written with the repository's key, by somebody: what they say is quoted.

use super::read::{self, Genuine};
use super::{Stop, Work};
use crate::failures::of_store;
use crate::upkeep::Attached;
use borg::Id;
use model::import::Foreign;
use store::ArchiveKey;
use wire::maintenance::Report;

/// Archives in one answer.
const PAGE: usize = 1000;

/// Longest text that is quoted, in characters.
const QUOTED: usize = 200;

/// Those behind the id `after`, in the order of their ids.
pub fn foreign(work: &Work<'_>, after: Option<&str>) -> Result<Report, Stop> {
    let Attached { opening, archives, .. } = work.attach()?;
    let mut all: Vec<(&Id, &String)> = archives.iter().map(|(name, id)| (id, name)).collect();
    all.sort_unstable();
    all.retain(|(id, _)| after.is_none_or(|after| *id.to_hex() > *after));
    // One more than fit tells that there are more.
    let found = work.owner.store.read(|r| {
        let mut found = vec![];
        for (id, name) in all {
            let key = ArchiveKey { repository: work.owner.name.clone(), id: id.to_hex() };
            if found.len() <= PAGE && !r.archives().exists(&key)? {
                found.push((id, name));
            }
        }
        Ok(found)
    });
    let found = found.map_err(|e| of_store(&e))?;
    let mut page = vec![];
    for (id, name) in found.iter().take(PAGE) {
        work.progress("archives", page.len() as u64, 0)?;
        page.push(describe(name, id, read::metadata(work, &opening, id)?));
    }
    let next = page.last().filter(|_| found.len() > PAGE).map(|last: &Foreign| last.id.clone());
    Ok(Report::Foreign { archives: page, next })
}

fn describe(name: &str, id: &Id, metadata: Result<Genuine, String>) -> Foreign {
    let mut foreign = Foreign {
        name: name.to_owned(),
        id: id.to_hex(),
        time: String::new(),
        hostname: String::new(),
        username: String::new(),
        comment: String::new(),
        signed: false,
        damage: None,
    };
    match metadata {
        Err(why) => foreign.damage = Some(unix::logging::escape(&why)),
        Ok(Genuine { metadata, is_signed, .. }) => {
            foreign.time = quoted(metadata.time.as_bytes());
            let text = |bytes: &Option<Vec<u8>>| quoted(bytes.as_deref().unwrap_or_default());
            (foreign.hostname, foreign.username) = (text(&metadata.hostname), text(&metadata.username));
            (foreign.comment, foreign.signed) = (text(&metadata.comment), is_signed);
        }
    }
    foreign
}

/// What somebody wrote, fit for printing and not too long.
pub fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let cut: String = text.chars().take(QUOTED).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    unix::logging::escape(&cut) + more
}
