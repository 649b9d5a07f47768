//! What the database and the state directory still say of archives that are no longer in the repository.

use crate::failures::of_store;
use crate::owner::Owner;
use crate::viewlist;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use store::{ArchiveFilter, ArchiveKey};

/// Names in the note of one transaction.
const NAMED: usize = 100;

/// How old a file must be that nothing names.
const LEFT_BEHIND: Duration = Duration::from_secs(86_400);

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
    let last = here.iter().chain(&gone).map(|archive| archive.end.0).max().unwrap_or(i64::MIN);
    if manifest.timestamp_micros().is_none_or(|time| time < last) && !gone.is_empty() {
        log::warn!("the manifest is older than what was committed; the records of {} archives that it does not have stay", gone.len());
        kept.extend(gone.into_iter().map(|archive| archive.id));
    } else if !gone.is_empty() {
        forget(owner, &gone)?;
    }
    sweep(&owner.layout.views(owner.name.as_str()), &kept);
    Ok(())
}

fn forget(owner: &Owner, gone: &[Archive]) -> Result<(), Failure> {
    let mut names: Vec<&str> = gone.iter().map(|archive| archive.name.as_str()).take(NAMED).collect();
    let more = format!("{} more", gone.len().saturating_sub(NAMED));
    if gone.len() > NAMED {
        names.push(&more);
    }
    let note = format!("no longer in repository {}: {}", owner.name, names.join(", "));
    log::warn!("{note}; their records are removed");
    let removed = owner.store.write(&note, "repositoryd", |w| {
        for archive in gone {
            w.archives().remove(&ArchiveKey::of(archive))?;
        }
        Ok(())
    });
    removed.map_err(|e| of_store(&e))?;
    for archive in gone {
        viewlist::remove(&owner.layout.view(owner.name.as_str(), &archive.id));
    }
    Ok(())
}

/// Removes view lists that no record names, and half-written files: an owner ended before its intent, or an earlier repository had the name.
fn sweep(views: &Path, kept: &HashSet<String>) {
    let entries = match std::fs::read_dir(views) {
        Ok(entries) => entries,
        Err(e) => return log::warn!("{} cannot be read: {e}", views.display()),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let nobodys = match path.extension().and_then(|extension| extension.to_str()) {
            Some("view") => path.file_stem().and_then(|stem| stem.to_str()).is_none_or(|stem| !kept.contains(stem)),
            Some("tmp") => true,
            _ => false,
        };
        let modified = entry.metadata().and_then(|meta| meta.modified());
        if nobodys && modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFT_BEHIND)) {
            log::info!("{} belongs to no archive; removing it", path.display());
            viewlist::remove(&path);
        }
    }
}
