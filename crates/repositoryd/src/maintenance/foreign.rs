//! Which archives are of other origin, with what their metadata say about them.
//!
//! The metadata were written with the repository's key, by somebody: what they say is quoted.

use super::read::{self, Genuine};
use super::{Stop, Work};
use crate::orphans;
use crate::upkeep::Attached;
use borg::Id;
use model::import::Foreign;
use std::collections::HashSet;
use wire::maintenance::Report;

/// Archives in one answer.
const PAGE: usize = 1000;

/// Longest text that is quoted, in characters.
const QUOTED: usize = 200;

/// Those behind the id `after`, in the order of their ids.
pub fn foreign(work: &Work<'_>, after: Option<&str>) -> Result<Report, Stop> {
    let Attached { opening, archives, .. } = work.attach()?;
    let known: HashSet<String> = orphans::records(work.owner)?.into_iter().map(|archive| archive.id).collect();
    let mut all: Vec<(&Id, &String)> = archives.iter().map(|(name, id)| (id, name)).collect();
    all.sort_unstable();
    let is_next = |id: &Id| {
        let hex = id.to_hex();
        after.is_none_or(|after| *hex > *after) && !known.contains(&hex)
    };
    let mut left = all.into_iter().filter(|(id, _)| is_next(id)).peekable();
    let mut page = vec![];
    while page.len() < PAGE
        && let Some((id, name)) = left.next()
    {
        work.progress("archives", page.len() as u64, 0)?;
        page.push(describe(name, id, read::metadata(work, &opening, id)?));
    }
    let next = page.last().filter(|_| left.peek().is_some()).map(|last: &Foreign| last.id.clone());
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
