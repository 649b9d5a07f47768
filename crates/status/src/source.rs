//! The database as this program sees it: opened when it is there, read in short transactions, never written.

use crate::figures::Figures;
use crate::query::Unanswered;
use model::Timestamp;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Options, Read, Store};

/// The database.
pub struct Source {
    directory: PathBuf,
    store: Mutex<Option<Store>>,
    figures: Mutex<Arc<Figures>>,
}

impl Source {
    /// The database in `directory`; it need not be there yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Source {
        Source { directory, store: Mutex::new(None), figures: Mutex::default() }
    }

    /// Runs `f` on one snapshot, together with the figures of that snapshot. Blocks.
    pub fn read<T>(&self, f: impl FnOnce(&Read<'_>, &Figures, Timestamp) -> Result<T, Unanswered>) -> Result<T, Unanswered> {
        let store = self.store()?;
        let now = Timestamp::now();
        // Before the snapshot is taken: one that is older than the figures would be of no use.
        let mut latest = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        // The store's transaction ends with an error of its own kind; ours is carried around it.
        let outcome = store.read(move |r| {
            if !latest.are_of(r)? {
                Arc::make_mut(&mut *latest).catch_up(r)?;
            }
            let figures = Arc::clone(&latest);
            // Others need not wait until the page is made.
            drop(latest);
            Ok(f(r, &figures, now))
        });
        outcome.map_err(Unanswered::from)?
    }

    /// The sizes of the database.
    pub fn stat(&self) -> Result<store::Stat, Unanswered> {
        Ok(self.store()?.stat()?)
    }

    fn store(&self) -> Result<Store, Unanswered> {
        let mut open = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*open {
            return Ok(store.clone());
        }
        let failed = |e: store::Error| Unanswered::Unavailable(format!("the database is not there (yet?): {e}"));
        let store = Options::new().read_only().open(&self.directory).map_err(failed)?;
        // borgcubed makes the tables. Those that came later than us are seen only by who opens it again.
        store.read(crate::figures::every_table).map_err(failed)?;
        Ok(open.insert(store).clone())
    }
}
