//! Reading beside the writer.

use super::shared::Shared;
use crate::entry::Entry;
use crate::error::{Error, Result};
use borg::Id;
use std::sync::{Arc, Weak};

/// Reads a repository on this machine, from any thread, while another one writes. It sees what was put, committed or not.
///
/// It does not keep the repository open: when that is closed, it answers no more, because anybody may change the repository then.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) shared: Weak<Shared>,
}

impl Reader {
    /// Whether the object is there.
    pub fn contains(&self, id: &Id) -> Result<bool> {
        Ok(self.entry(id)?.is_some())
    }

    /// Where the object is; None if there is none.
    pub fn entry(&self, id: &Id) -> Result<Option<Entry>> {
        let shared = self.shared()?;
        let _inside = shared.enter();
        shared.index.get(id)
    }

    /// The object's envelope, its checksum verified; None if there is none.
    pub fn get(&self, id: &Id) -> Result<Option<Vec<u8>>> {
        self.shared()?.get(id)
    }

    /// How many objects there are, the manifest included; none in a closed repository.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shared().map_or(0, |shared| shared.index.len())
    }

    /// All objects of this moment, sorted by id.
    pub fn ids(&self) -> Result<impl Iterator<Item = Result<(Id, Entry)>> + use<>> {
        let shared = self.shared()?;
        let _inside = shared.enter();
        shared.index.iter()
    }

    pub(super) fn shared(&self) -> Result<Arc<Shared>> {
        self.shared.upgrade().ok_or_else(|| Error::Unsupported("the repository was closed".into()))
    }
}

#[cfg(test)]
mod tests {
    use crate::{OpenOptions, Repository, Reserve};
    use borg::Id;
    use std::time::Duration;

    #[test]
    fn a_reader_that_is_not_done_yet_does_not_keep_the_next_opening_out() {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("repo").to_str().unwrap().to_owned();
        let options = OpenOptions {
            exclusive: true,
            create: true,
            index: Some(dir.path().join("index")),
            reserve: Reserve::NONE,
            ..OpenOptions::at(url)
        };
        let mut repository = Repository::open(&options).unwrap();
        repository.put(&Id([1; 32]), b"x", 0).unwrap();
        repository.commit().unwrap();
        let reading = repository.reader().unwrap().shared().unwrap();
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(reading);
        });
        repository.close();
        let mut again = Repository::open(&OpenOptions { create: false, ..options }).unwrap();
        assert_eq!(again.get(&Id([1; 32])).unwrap(), b"x");
        reading.join().unwrap();
    }
}
