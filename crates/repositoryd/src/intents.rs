//! Intents: what was about to be committed when an owner or its repository ended.

use crate::failures::of_store;
use crate::owner::Owner;
use crate::{view, viewlist};
use borg::Id;
use borg::manifest::Manifest;
use model::space::Space;
use model::{Archive, Failure};
use store::{Intent, IntentKey};

/// Compares all intents with the manifest: an archive that is in it is registered, another one is dropped with its view list.
pub fn resolve(owner: &Owner, manifest: &Manifest) -> Result<(), Failure> {
    let intents = owner.store.read(|r| r.intents().of_repository(&owner.name)).map_err(|e| of_store(&e))?;
    for intent in intents {
        if is_committed(&intent.archive, manifest) {
            log::warn!("archive {} was committed and not registered; registering it now", intent.archive.name);
            register(owner, &[&intent], None)?;
        } else {
            log::warn!("archive {} was about to be committed and is not; dropping it", intent.archive.name);
            drop_intent(owner, &intent)?;
        }
    }
    Ok(())
}

fn is_committed(archive: &Archive, manifest: &Manifest) -> bool {
    let entry = manifest.archives.get(archive.name.as_bytes());
    entry.is_some_and(|entry| Id::from_hex(&archive.id) == Ok(entry.id))
}

/// Notes what is about to be committed, all in one transaction.
pub fn declare(owner: &Owner, intents: &[&Intent]) -> Result<(), Failure> {
    let note = format!("{}: about to commit {}", jobs(intents), archives(intents));
    let declared = owner.store.write(&note, &owner.actor(), |w| intents.iter().try_for_each(|intent| w.intents().put(intent)));
    declared.map_err(|e| of_store(&e))?;
    Ok(())
}

/// The commit happened: the archives' records appear, those of removed ones go, with their view lists. `space` is what the repository takes up since.
pub fn register(owner: &Owner, intents: &[&Intent], space: Option<&Space>) -> Result<(), Failure> {
    let are = if intents.len() == 1 { "is" } else { "are" };
    let note = format!("{}: {} {are} in repository {}", jobs(intents), archives(intents), owner.name);
    let registered = owner.store.write(&note, &owner.actor(), |w| {
        for intent in intents {
            w.intents().register(&IntentKey { repository: owner.name.clone(), job: intent.archive.job })?;
        }
        space.map_or(Ok(()), |space| w.space().note(space))
    });
    registered.map_err(|e| of_store(&e))?;
    let gone: Vec<String> = intents.iter().flat_map(|intent| &intent.removes).cloned().collect();
    view::forget(owner, &gone);
    Ok(())
}

fn jobs(intents: &[&Intent]) -> String {
    let numbers: Vec<String> = intents.iter().map(|intent| intent.archive.job.to_string()).collect();
    format!("{} {}", if numbers.len() == 1 { "job" } else { "jobs" }, numbers.join(", "))
}

fn archives(intents: &[&Intent]) -> String {
    let names: Vec<&str> = intents.iter().map(|intent| intent.archive.name.as_str()).collect();
    format!("{} {}", if names.len() == 1 { "archive" } else { "archives" }, names.join(", "))
}

/// The commit did not happen.
pub fn drop_intent(owner: &Owner, intent: &Intent) -> Result<(), Failure> {
    let key = IntentKey { repository: owner.name.clone(), job: intent.archive.job };
    let note = format!("job {}: archive {} was not committed", intent.archive.job, intent.archive.name);
    owner.store.write(&note, &owner.actor(), |w| w.intents().remove(&key)).map_err(|e| of_store(&e))?;
    viewlist::remove(&owner.layout.view(owner.name.as_str(), &intent.archive.id));
    Ok(())
}
