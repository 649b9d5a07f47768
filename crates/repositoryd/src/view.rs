//! What a client may refer to without sending it: the union of the view lists of its archives, as it was when a job was prepared.

use crate::failures::{internal, of_store};
use crate::owner::Owner;
use crate::tool::Random;
use crate::viewlist::{Lists, Named, Note, Staged, ViewList, find, hex};
use borg::Id;
use model::{Archive, ClientName, Failure, JobState, Label};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use store::ArchiveFilter;
use wire::session::Reference;

/// Digest over the ids of archives, in the order of the ids.
pub type Generation = [u8; 32];

/// Views in use, so that jobs of one client share one.
#[derive(Default)]
pub struct Views(Mutex<HashMap<Generation, Weak<Vec<Reference>>>>);

/// The view of one job. It is pinned as long as the job is among the owner's.
pub struct View {
    /// Sorted by id, each id once.
    pub references: Arc<Vec<Reference>>,
    /// The archives that it is made of.
    pub members: Vec<String>,
    /// Of the members.
    pub generation: Generation,
    /// What the next list of the job's config builds on.
    pub base: Option<Named>,
    /// Names the cache that this job leaves on the client.
    pub mark: [u8; 16],
    /// The mark of the client's last job, if what it left is still exactly this view.
    pub kept: Option<[u8; 16]>,
}

impl View {
    /// Puts it together from the files.
    pub fn load(owner: &Owner, client: &ClientName, label: &Label) -> Result<View, Failure> {
        let archives = members(owner, client)?;
        let mut mark = [0; 16];
        let mut random = Random::default();
        random.fill(&mut mark);
        random.check()?;
        let ids: Vec<String> = archives.iter().map(|archive| archive.id.clone()).collect();
        let generation = generation(&ids);
        let (references, is_whole) = match owner.views.shared(&generation) {
            Some(references) => (references, true),
            None => {
                let named: Vec<Named> = archives.iter().map(Named::of).collect();
                let union = lists(owner).union(&named).map_err(|e| internal(e.to_string()))?;
                union.lost.iter().for_each(|e| log::warn!("{e}; its archive does not count for the client's view"));
                let references = Arc::new(union.references);
                if union.lost.is_empty() {
                    owner.views.share(generation, &references);
                }
                (references, union.lost.is_empty())
            }
        };
        let newest = |archives: &[Archive], of: &dyn Fn(&Archive) -> bool| {
            archives
                .iter()
                .filter(|archive| !archive.incomplete && of(archive))
                .max_by_key(|archive| (archive.end, archive.job))
                .map(Named::of)
        };
        let base = newest(&archives, &|archive| archive.label == *label);
        let kept = if is_whole { kept(owner, &archives)? } else { None };
        Ok(View { references, members: ids, generation, base, mark, kept })
    }

    /// Whether the client's archives are still the same.
    pub fn is_current(&self, owner: &Owner, client: &ClientName) -> Result<bool, Failure> {
        Ok(members(owner, client)?.iter().map(|archive| &archive.id).eq(&self.members))
    }

    /// The entry of `id`.
    pub fn find(&self, id: &Id) -> Option<&Reference> {
        find(&self.references, id)
    }

    /// Writes the list of an archive of this job. `exact`: it is complete, and the client has sent nothing but what is in it or in this view.
    pub fn stage(&self, owner: &Owner, list: &ViewList, exact: bool) -> Result<Staged, Failure> {
        let note = exact.then_some(Note { mark: self.mark, generation: self.generation });
        lists(owner).stage(list, self.base.as_ref(), note)
    }
}

impl Views {
    fn shared(&self, generation: &Generation) -> Option<Arc<Vec<Reference>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(generation)?.upgrade()
    }

    fn share(&self, generation: Generation, references: &Arc<Vec<Reference>>) {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|_, view| view.strong_count() > 0);
        views.insert(generation, Arc::downgrade(references));
    }
}

/// The view lists of this repository.
pub fn lists(owner: &Owner) -> Lists {
    Lists::new(owner.layout.views(owner.name.as_str()))
}

/// The client's archives, but for those that are about to go with a commit.
fn members(owner: &Owner, client: &ClientName) -> Result<Vec<Archive>, Failure> {
    let filter = ArchiveFilter { repository: Some(owner.name.clone()), client: Some(client.clone()), ..ArchiveFilter::default() };
    let read = owner.store.read(|r| Ok((r.archives().page(&filter, usize::MAX)?, r.intents().of_repository(&owner.name)?)));
    let (mut archives, intents) = read.map_err(|e| of_store(&e))?;
    let going: HashSet<&String> = intents.iter().flat_map(|intent| &intent.removes).collect();
    archives.retain(|archive| !going.contains(&archive.id));
    Ok(archives)
}

fn generation<'a>(ids: impl IntoIterator<Item = &'a String>) -> Generation {
    let mut ids: Vec<&String> = ids.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha256::new();
    ids.iter().for_each(|id| hash.update(id.as_bytes()));
    hash.finalize().into()
}

/// The client's cache is what its last job left, if that began with the archives that are there now but for its own.
fn kept(owner: &Owner, archives: &[Archive]) -> Result<Option<[u8; 16]>, Failure> {
    let Some(last) = archives.iter().max_by_key(|archive| (archive.end, archive.job)).filter(|last| !last.incomplete) else {
        return Ok(None);
    };
    let note = lists(owner).note(&Named::of(last)).map_err(|e| internal(e.to_string()))?;
    let before = generation(archives.iter().map(|archive| &archive.id).filter(|id| **id != last.id));
    let Some(note) = note.filter(|note| note.generation == before) else { return Ok(None) };
    let job = owner.store.read(|r| r.jobs().get(&last.job)).map_err(|e| of_store(&e))?;
    Ok(job.is_some_and(|job| job.state == JobState::Done).then_some(note.mark))
}

/// Removes the lists of archives that are no more, except for those that others, or those of running jobs, build on.
pub fn forget(owner: &Owner, gone: &[String]) {
    if gone.is_empty() {
        return;
    }
    match kept_files(owner) {
        Ok(kept) => lists(owner).forget(gone, &kept),
        Err(failure) => log::warn!("{}; the view lists of {} archives stay behind", failure.line(), gone.len()),
    }
}

/// Archives whose lists stay: those with a record, and those that running jobs build on.
pub fn kept_files(owner: &Owner) -> Result<HashSet<String>, Failure> {
    // Jobs first: one that is prepared in between finds its base among the records.
    let mut kept: HashSet<String> = owner.jobs.all().iter().filter_map(|job| job.view.base.as_ref().map(|base| base.id.clone())).collect();
    let filter = ArchiveFilter { repository: Some(owner.name.clone()), ..ArchiveFilter::default() };
    let all = owner.store.read(|r| r.archives().page(&filter, usize::MAX)).map_err(|e| of_store(&e))?;
    kept.extend(all.into_iter().map(|archive| archive.id));
    Ok(kept)
}

/// A mark as it is left on a client.
pub fn shown(mark: &[u8; 16]) -> String {
    hex(mark)
}
