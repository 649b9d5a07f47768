//! Intents: what was about to be committed when an owner or its repository ended.

use crate::failures::of_store;
use crate::owner::Owner;
use crate::viewlist;
use borg::Id;
use borg::manifest::Manifest;
use model::{Archive, Failure};
use store::{Intent, IntentKey};

/// Compares all intents with the manifest: an archive that is in it is registered, another one is dropped with its view list.
pub fn resolve(owner: &Owner, manifest: &Manifest) -> Result<(), Failure> {
    let intents = owner.store.read(|r| r.intents().of_repository(&owner.name)).map_err(|e| of_store(&e))?;
    for intent in intents {
        if is_committed(&intent.archive, manifest) {
            log::warn!("archive {} was committed and not registered; registering it now", intent.archive.name);
            register(owner, &intent)?;
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

/// Notes what is about to be committed.
pub fn declare(owner: &Owner, intent: &Intent) -> Result<(), Failure> {
    let note = format!("job {}: about to commit archive {}", intent.archive.job, intent.archive.name);
    owner.store.write(&note, &owner.actor(), |w| w.intents().put(intent)).map_err(|e| of_store(&e))?;
    Ok(())
}

/// The commit happened: the archive's record appears, those of removed ones go, with their view lists.
pub fn register(owner: &Owner, intent: &Intent) -> Result<(), Failure> {
    let key = IntentKey { repository: owner.name.clone(), job: intent.archive.job };
    let note = format!("job {}: archive {} is in repository {}", intent.archive.job, intent.archive.name, owner.name);
    owner.store.write(&note, &owner.actor(), |w| w.intents().register(&key)).map_err(|e| of_store(&e))?;
    for id in &intent.removes {
        viewlist::remove(&owner.layout.view(owner.name.as_str(), id));
    }
    Ok(())
}

/// The commit did not happen.
pub fn drop_intent(owner: &Owner, intent: &Intent) -> Result<(), Failure> {
    let key = IntentKey { repository: owner.name.clone(), job: intent.archive.job };
    let note = format!("job {}: archive {} was not committed", intent.archive.job, intent.archive.name);
    owner.store.write(&note, &owner.actor(), |w| w.intents().remove(&key)).map_err(|e| of_store(&e))?;
    viewlist::remove(&owner.layout.view(owner.name.as_str(), &intent.archive.id));
    Ok(())
}
