//! What the database and the state directory still say of archives that are no longer in the repository.

use crate::failures::of_store;
use crate::owner::Owner;
use crate::view;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use std::collections::HashSet;
use store::{ArchiveFilter, ArchiveKey};

/// Names in the note of one transaction.
const NAMED: usize = 100;

/// Forgets archives that somebody removed with another borg: their names are free, and nobody's view has their chunks. The manifest must
/// be authenticated, and intents settled.
pub fn reconcile(owner: &Owner, manifest: &Manifest) -> Result<(), Failure> {
    let filter = ArchiveFilter { repository: Some(owner.name.clone()), ..ArchiveFilter::default() };
    let all = owner.store.read(|r| r.archives().page(&filter, usize::MAX)).map_err(|e| of_store(&e))?;
    let (here, gone): (Vec<Archive>, Vec<Archive>) = all.into_iter().partition(|archive| {
        let entry = manifest.archives.get(archive.name.as_bytes());
        entry.is_some_and(|entry| Id::from_hex(&archive.id) == Ok(entry.id))
    });
    let mut kept: HashSet<String> = here.iter().map(|archive| archive.id.clone()).collect();
    // Borg 1.x: a manifest's timestamp only goes forward, so behind our last commit comes no smaller one.
    // Times of imported archives are somebody else's.
    let made = here.iter().chain(&gone).filter(|archive| archive.imported.is_none());
    let last = made.map(|archive| archive.end.0).max().unwrap_or(i64::MIN);
    if manifest.timestamp_micros().is_none_or(|time| time < last) && !gone.is_empty() {
        log::warn!("the manifest is older than what was committed; the records of {} archives that it does not have stay", gone.len());
        kept.extend(gone.into_iter().map(|archive| archive.id));
    } else if !gone.is_empty() {
        let (rewritten, removed): (Vec<Archive>, Vec<Archive>) =
            gone.into_iter().partition(|archive| manifest.archives.contains_key(archive.name.as_bytes()));
        forget(owner, &removed, "removed from repository")?;
        // `borg check --repair` and `borg recreate` do that. What they made has no view list, so it is an archive of other origin.
        forget(owner, &rewritten, "rewritten by another borg in repository")?;
    }
    // Of a deletion that came to an end it does not know: what is there stays, what is not was forgotten above.
    if owner.store.read(|r| r.deletions().exists(&owner.name)).map_err(|e| of_store(&e))? {
        let note = format!("a deletion from repository {} was broken off", owner.name);
        owner.store.write(&note, "repositoryd", |w| w.deletions().remove(&owner.name)).map_err(|e| of_store(&e))?;
    }
    kept.extend(view::kept_files(owner)?);
    view::lists(owner).sweep(&kept);
    Ok(())
}

fn forget(owner: &Owner, gone: &[Archive], what: &str) -> Result<(), Failure> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = gone.iter().map(|archive| archive.name.as_str()).take(NAMED).collect();
    let more = format!("{} more", gone.len().saturating_sub(NAMED));
    if gone.len() > NAMED {
        names.push(&more);
    }
    let note = format!("{what} {}: {}", owner.name, names.join(", "));
    log::warn!("{note}; BorgCube's records of them go");
    let removed = owner.store.write(&note, "repositoryd", |w| {
        for archive in gone {
            w.archives().remove(&ArchiveKey::of(archive))?;
        }
        Ok(())
    });
    removed.map_err(|e| of_store(&e))?;
    view::forget(owner, &gone.iter().map(|archive| archive.id.clone()).collect::<Vec<_>>());
    Ok(())
}
