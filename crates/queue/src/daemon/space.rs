//! What a repository takes up.

use super::Daemon;
use super::errors::from_store;
use super::records::missing;
use model::RepositoryName;
use store::{ArchiveFilter, ArchiveKey};
use wire::control::{ArchivePlace, ArchiveSums, ControlError, RepositorySpace};

/// Archives that are added up at once: nobody else is answered meanwhile.
const PAGE: usize = 2_000;

impl Daemon {
    pub(super) fn repository_space(&self, name: &RepositoryName, after: Option<&ArchivePlace>) -> Result<RepositorySpace, ControlError> {
        let before = after.map(|place| (place.start, ArchiveKey { repository: name.clone(), id: place.id.clone() }));
        let filter = ArchiveFilter { repository: Some(name.clone()), before, ..ArchiveFilter::default() };
        let read = self.store.read(|r| {
            if !r.repositories().exists(name)? {
                return Err(missing("repository", name));
            }
            let page = r.archives().page(&filter, PAGE)?;
            let sums = page.iter().filter(|archive| !archive.incomplete).fold(ArchiveSums::default(), |sums, archive| {
                let statistics = &archive.statistics;
                sums.plus(ArchiveSums {
                    count: 1,
                    original_size: statistics.original_size,
                    compressed_size: statistics.compressed_size,
                })
            });
            let last = page.last().filter(|_| page.len() == PAGE);
            let next = last.map(|last| ArchivePlace { start: last.start, id: last.id.clone() });
            Ok(RepositorySpace { space: r.space().newest(name)?, archives: sums, next })
        });
        read.map_err(from_store)
    }
}
