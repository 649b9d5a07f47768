//! What a repository takes up.

use super::Daemon;
use super::errors::from_store;
use super::records::missing;
use model::RepositoryName;
use store::{ArchiveFilter, ArchiveKey, Read};
use wire::control::{ArchivePlace, ArchiveSums, ControlError, RepositorySpace};

/// Archives that are added up at once: nobody else is answered meanwhile.
const PAGE: usize = 2_000;

impl Daemon {
    pub(super) fn repository_space(&self, name: &RepositoryName, after: Option<&ArchivePlace>) -> Result<RepositorySpace, ControlError> {
        self.store.read(|r| page(r, name, after, PAGE)).map_err(from_store)
    }
}

fn page(r: &Read<'_>, name: &RepositoryName, after: Option<&ArchivePlace>, size: usize) -> store::Result<RepositorySpace> {
    if !r.repositories().exists(name)? {
        return Err(missing("repository", name));
    }
    let before = after.map(|place| (place.start, ArchiveKey { repository: name.clone(), id: place.id.clone() }));
    let filter = ArchiveFilter { repository: Some(name.clone()), before, ..ArchiveFilter::default() };
    let page = r.archives().page(&filter, size)?;
    let restore_points = page.iter().filter(|archive| !archive.incomplete).map(|archive| archive.statistics);
    let sums = restore_points.fold(ArchiveSums::default(), |sums, statistics| {
        let one = ArchiveSums { count: 1, original_size: statistics.original_size, compressed_size: statistics.compressed_size };
        sums.plus(one)
    });
    let last = page.last().filter(|_| page.len() == size);
    let next = last.map(|last| ArchivePlace { start: last.start, id: last.id.clone() });
    Ok(RepositorySpace { space: r.space().newest(name)?, archives: sums, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::space::Space;
    use model::{Archive, Repository, Timestamp};
    use serde_json::json;
    use store::Store;

    #[test]
    fn archives_are_added_up_page_by_page() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let main: RepositoryName = "main".parse().unwrap();
        assert!(store.read(|r| page(r, &main, None, 2)).is_err());
        let repository = json!({"name": "main", "url": "/srv/main", "repository_id": "ab".repeat(32), "encryption": "none", "created": 0});
        let repository: Repository = serde_json::from_value(repository).unwrap();
        let archive = |n: u64| -> Archive {
            serde_json::from_value(json!({
                "id": format!("{n:064x}"), "name": format!("a{n}"), "repository": "main", "client": "web1", "label": "etc", "job": n, "comment": "",
                "statistics": {"nfiles": 1, "original_size": 10 * n, "compressed_size": n, "deduplicated_size": 0},
                "counters": {"puts": 0, "put_bytes": 0, "item_stream_bytes": 0, "item_stream_put_bytes": 0},
                "start": n / 2, "end": n, "incomplete": n == 3, "view_digest": "", "claims": [], "suspicious": false, "warnings": []
            }))
            .unwrap()
        };
        let space = Space { repository: main.clone(), time: Timestamp(5), segments: 900, freeable: 100, unique: 500, chunks: 7 };
        let written = store.write("add", "root", |w| {
            w.repositories().insert(&repository)?;
            w.space().note(&space)?;
            (1..=5).try_for_each(|n| w.archives().insert(&archive(n)))
        });
        written.unwrap();
        for size in [1, 2, 5, 6] {
            let (mut sums, mut after) = (ArchiveSums::default(), None);
            loop {
                let page = store.read(|r| page(r, &main, after.as_ref(), size)).unwrap();
                assert_eq!(page.space.as_ref(), Some(&space));
                sums = sums.plus(page.archives);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            // The third is no restore point.
            assert_eq!(sums, ArchiveSums { count: 4, original_size: 120, compressed_size: 12 }, "{size}");
        }
    }
}
