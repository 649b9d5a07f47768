//! Which files cannot be restored whole, when some chunks of a repository are damaged.

use crate::Result;
use crate::feed::{Chosen, Feed};
use crate::items::Items;
use crate::links::Body;
use crate::selection::Selection;
use crate::source::Source;
use borg::Id;
use model::check::{Damage, DamagedArchive, DamagedFiles};
use std::collections::HashSet;

/// Archives that are looked into; for a list of more files than anybody reads.
const MOST_ARCHIVES: usize = 100;

/// Paths that are remembered in case of hard links to them.
const MOST_LINKS: usize = 100_000;

/// The damaged chunks, as a report of a check names them.
#[must_use]
pub fn ids(chunks: &[String]) -> HashSet<Id> {
    chunks.iter().filter_map(|text| Id::from_hex(text).ok()).collect()
}

/// The archives whose lists of files are to be read: those that are concerned, and those of which nobody knows whether they are. Those that somebody
/// has looked into since the same chunks of them were damaged are left out.
pub fn concerned(damage: &Damage) -> impl Iterator<Item = &DamagedArchive> {
    damage.archives.iter().chain(&damage.unknown).filter(|archive| archive.files.is_none()).take(MOST_ARCHIVES)
}

/// What is to be recorded of one of them: as far as anything is known.
#[must_use]
pub fn concluded(found: std::result::Result<DamagedFiles, String>, damage: &Damage, chunks: &[String]) -> DamagedFiles {
    let mut found = found.unwrap_or_else(|why| DamagedFiles { incomplete: Some(why), ..DamagedFiles::default() });
    if (chunks.len() as u64) < damage.chunks {
        found.incomplete.get_or_insert_with(|| "more chunks are damaged than can be looked for".into());
    }
    bounded(found)
}

/// As much of it as is kept, whoever says so.
#[must_use]
pub fn bounded(mut files: DamagedFiles) -> DamagedFiles {
    files.more = files.more.saturating_add(files.paths.len().saturating_sub(DamagedFiles::MAX) as u64);
    files.paths.truncate(DamagedFiles::MAX);
    files.paths.iter_mut().for_each(|path| *path = unix::logging::bounded(path, DamagedFiles::LONGEST));
    files.incomplete = files.incomplete.map(|why| unix::logging::bounded(&why, DamagedFiles::SENTENCE));
    files
}

/// The files of one archive that have any of these chunks. None: `go_on` said no.
///
/// # Errors
/// When the owner has gone for good.
pub fn files(source: &Source, damaged: &HashSet<Id>, go_on: &mut dyn FnMut() -> bool) -> Result<Option<DamagedFiles>> {
    let mut items = Items::open(source)?;
    let mut found = DamagedFiles::default();
    let mut links: HashSet<Vec<u8>> = HashSet::new();
    let mut incomplete = None;
    let mut complain = |_: Option<&[u8]>, why: &str| {
        incomplete.get_or_insert_with(|| why.to_owned());
    };
    let mut count = 0_u64;
    while let Some(item) = items.next(&mut complain)? {
        count += 1;
        if count.is_multiple_of(1000) && !go_on() {
            return Ok(None);
        }
        let has = item.chunks.iter().flatten().any(|chunk| damaged.contains(&chunk.id));
        let is_link = item.chunks.is_none() && item.source.as_ref().is_some_and(|source| links.contains(source));
        if !has && !is_link {
            continue;
        }
        if has && item.hardlink_master == Some(true) && links.len() < MOST_LINKS {
            links.insert(item.path.clone());
        }
        if found.paths.len() < DamagedFiles::MAX {
            found.paths.push(shown(&item.path));
        } else {
            found.more += 1;
        }
    }
    found.incomplete = incomplete.map(|why| unix::logging::escape(&why));
    Ok(Some(found))
}

/// What reading everything of a selection has shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unreadable {
    /// Paths of what is not whole, with all its names; at most [`Unreadable::MAX`].
    pub paths: Vec<Vec<u8>>,
    /// More of them.
    pub more: u64,
    /// Items that are whole.
    pub whole: u64,
    /// What of the list of files could not be read.
    pub incomplete: Option<String>,
    /// Files outside of the selection for which there was no memory: hard links to them were not read.
    pub forgotten: u64,
}

impl Unreadable {
    /// Paths that are kept.
    pub const MAX: usize = 10_000;
}

/// Reads the content of everything that is selected. None: `go_on` said no.
///
/// # Errors
/// When the owner has gone for good.
pub fn unreadable(source: &Source, selection: &mut Selection, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Unreadable>> {
    unreadable_within(source, selection, crate::links::MEMORY, go_on)
}

/// The same with so many bytes for files outside of the selection to which there may be hard links.
///
/// # Errors
/// As there.
pub fn unreadable_within(
    source: &Source,
    selection: &mut Selection,
    memory: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Unreadable>> {
    let mut incomplete: Option<String> = None;
    let mut complain = |_: Option<&[u8]>, why: &str| {
        incomplete.get_or_insert_with(|| unix::logging::escape(why));
    };
    let mut found = Unreadable::default();
    let mut links: HashSet<Vec<u8>> = HashSet::new();
    let mut feed = Feed::open(source, selection, true)?.within(memory);
    while let Some(Chosen { item, name, body }) = feed.next_listed(&mut complain)? {
        let mut is_damaged = matches!(&body, Body::LinkTo(first) if links.contains(first));
        while let Some((_, chunk)) = feed.chunk(&mut complain)? {
            is_damaged |= chunk.is_err();
            if !go_on() {
                return Ok(None);
            }
        }
        if !go_on() {
            return Ok(None);
        }
        if !is_damaged {
            found.whole += 1;
            continue;
        }
        if links.len() < MOST_LINKS {
            links.insert(name);
        }
        if found.paths.len() < Unreadable::MAX {
            found.paths.push(item.path);
        } else {
            found.more += 1;
        }
    }
    found.forgotten = feed.forgotten();
    found.incomplete = incomplete;
    Ok(Some(found))
}

/// A path as it is recorded.
fn shown(path: &[u8]) -> String {
    // A character has four bytes at most.
    let cut = &path[..path.len().min(4 * DamagedFiles::LONGEST + 4)];
    unix::logging::bounded(&unix::logging::escape(&String::from_utf8_lossy(cut)), DamagedFiles::LONGEST)
}
