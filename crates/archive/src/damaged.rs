//! Which files cannot be restored whole, when some chunks of a repository are damaged.

use crate::Result;
use crate::feed::{Chosen, Feed};
use crate::items::Items;
use crate::links::Body;
use crate::selection::Selection;
use crate::source::{Connect, Source};
use borg::Id;
use model::check::{Damage, DamagedFiles};
use std::collections::HashSet;
use std::sync::Arc;

/// Archives that are looked into; for a list of more files than anybody reads.
const MOST_ARCHIVES: usize = 100;

/// Paths that are remembered in case of hard links to them.
const MOST_LINKS: usize = 100_000;

/// The damaged chunks, as a report of a check names them.
#[must_use]
pub fn ids(chunks: &[String]) -> HashSet<Id> {
    chunks.iter().filter_map(|text| Id::from_hex(text).ok()).collect()
}

/// Reads the lists of files of the archives that are concerned, and of those of which nobody knows whether they are; by the archives' ids. Those
/// that somebody has looked into since the same chunks of them were damaged are left out. `go_on` ends it by saying no.
pub fn look(connect: &Arc<Connect>, damage: &Damage, chunks: &[String], go_on: &mut dyn FnMut() -> bool) -> Vec<(String, DamagedFiles)> {
    let damaged = ids(chunks);
    let all_named = chunks.len() as u64 >= damage.chunks;
    let archives = damage.archives.iter().chain(&damage.unknown).filter(|archive| archive.files.is_none());
    let mut looked = vec![];
    for archive in archives.take(MOST_ARCHIVES) {
        let found = Source::open(Arc::clone(connect), &archive.id).and_then(|source| files(&source, &damaged, go_on));
        let mut found = match found {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(e) => DamagedFiles { incomplete: Some(unix::logging::escape(&e.to_string())), ..DamagedFiles::default() },
        };
        if !all_named {
            found.incomplete.get_or_insert_with(|| "more chunks are damaged than can be looked for".into());
        }
        looked.push((archive.id.clone(), found));
    }
    looked
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
            found.paths.push(unix::logging::escape(&String::from_utf8_lossy(&item.path)));
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
    let mut incomplete: Option<String> = None;
    let mut complain = |_: Option<&[u8]>, why: &str| {
        incomplete.get_or_insert_with(|| unix::logging::escape(why));
    };
    let mut found = Unreadable::default();
    let mut links: HashSet<Vec<u8>> = HashSet::new();
    let mut feed = Feed::open(source, selection, true)?;
    while let Some(Chosen { item, name, body }) = feed.next(&mut complain)? {
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
    found.incomplete = incomplete;
    Ok(Some(found))
}
