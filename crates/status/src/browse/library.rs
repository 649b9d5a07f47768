//! Indexes of archives that somebody looks at: each made once, beside whoever waits for it, and kept for a while.
//!
//! Who may look is asked of the owner each time, whether or not there is an index.

use super::index::Index;
use super::line::Line;
use super::{BUILDS, INDEX_MEMORY, KEPT_MEMORY};
use archive::Source;
use archive::items::Items;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Nobody waits for an index any more that nobody has asked for in this time.
const UNWANTED: Duration = Duration::from_secs(30);
/// A list of files takes no longer to read, or it is not read at all.
const LONGEST: Duration = Duration::from_secs(600);
/// An index that nobody looks at is kept for so long.
const KEPT: Duration = Duration::from_secs(600);
/// Items that are taken up in one go, and chunks of theirs.
const BATCH: usize = 500;
/// See above.
const BATCH_CHUNKS: usize = 20_000;

/// What an index is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The repository.
    pub repository: String,
    /// The archive's id.
    pub id: String,
    /// The one directory, if the whole has no room.
    pub directory: Option<Vec<Vec<u8>>>,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The list of files is being read.
    Reading,
    /// Everything is there, or as much as there is memory for.
    Whole,
    /// It has no room as a whole: each directory has an index of its own.
    TooLarge,
    /// It cannot be read.
    Failed(String),
}

/// An index, and its making.
#[derive(Debug)]
pub struct Book {
    index: RwLock<Index>,
    stage: watch::Sender<Stage>,
    line: Arc<Line>,
    since: Instant,
    used: Mutex<Instant>,
    /// Pieces of the list of files that were read, and all of them.
    progress: Mutex<(usize, usize)>,
}

impl Book {
    /// What is known so far.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    /// Per cent of the list of files that were read.
    pub fn percent(&self) -> u64 {
        let (read, all) = *locked(&self.progress);
        (read * 100 / all.max(1)) as u64
    }

    /// Waits until it is made, but not for ever.
    pub async fn wait(&self, patience: Duration) -> Stage {
        let mut stage = self.stage.subscribe();
        // Too slow: what is known so far is shown.
        let _ = tokio::time::timeout(patience, stage.wait_for(|stage| *stage != Stage::Reading)).await;
        self.stage()
    }

    fn is_reading(&self) -> bool {
        self.stage() == Stage::Reading
    }

    fn make(&self, source: &Source) {
        let ended = self.read(source);
        let stage = {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            match ended {
                // A part of a directory is better than nothing; a part of an archive is none of its directories.
                Ok(()) if !index.is_cut || index.is_of_one_directory() => {
                    index.finish();
                    Stage::Whole
                }
                Ok(()) => {
                    *index = Index::new(None, 0);
                    Stage::TooLarge
                }
                Err(e) => {
                    *index = Index::new(None, 0);
                    log::warn!("the list of files of archive {} is not read: {e}", unix::logging::escape(&source.readable.name));
                    Stage::Failed(e.to_string())
                }
            }
        };
        self.stage.send_replace(stage);
    }

    fn read(&self, source: &Source) -> archive::Result<()> {
        let mut items = Items::open(source)?;
        let mut wrong = vec![];
        let mut batch = vec![];
        loop {
            self.line.go_on()?;
            let mut chunks = 0;
            let mut is_end = false;
            while batch.len() < BATCH && chunks < BATCH_CHUNKS {
                let Some(item) = items.next(&mut |_, what| wrong.push(what.to_owned()))? else {
                    is_end = true;
                    break;
                };
                chunks += item.chunks.as_ref().map_or(0, Vec::len);
                batch.push(item);
                if !items.is_ready() {
                    break;
                }
            }
            *locked(&self.progress) = items.progress();
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            wrong.drain(..).for_each(|what| index.complain(&what));
            let added = batch.drain(..).try_for_each(|item| index.add(&item));
            if added.is_err() || is_end {
                return Ok(());
            }
        }
    }
}

/// All indexes.
#[derive(Debug)]
pub struct Library {
    books: Mutex<HashMap<Key, Arc<Book>>>,
    builds: Arc<Semaphore>,
}

impl Default for Library {
    fn default() -> Library {
        Library { books: Mutex::default(), builds: Arc::new(Semaphore::new(BUILDS)) }
    }
}

impl Library {
    fn books(&self) -> MutexGuard<'_, HashMap<Key, Arc<Book>>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of what `key` says. If there is none yet, it is read from `source`, whose connections `line` has. None: too many are being made.
    pub fn open(self: &Arc<Library>, key: &Key, source: Source, line: Arc<Line>) -> Option<Arc<Book>> {
        let mut books = self.books();
        if let Some(book) = books.get(key).filter(|book| !matches!(book.stage(), Stage::Failed(_))) {
            *locked(&book.used) = Instant::now();
            return Some(Arc::clone(book));
        }
        let place = Arc::clone(&self.builds).try_acquire_owned().ok()?;
        let now = Instant::now();
        let book = Arc::new(Book {
            index: RwLock::new(Index::new(key.directory.clone(), INDEX_MEMORY)),
            stage: watch::channel(Stage::Reading).0,
            line,
            since: now,
            used: Mutex::new(now),
            progress: Mutex::new((0, 0)),
        });
        self.start(&book, source, place)?;
        books.insert(key.clone(), Arc::clone(&book));
        Some(book)
    }

    fn start(self: &Arc<Library>, book: &Arc<Book>, source: Source, place: OwnedSemaphorePermit) -> Option<()> {
        let (making, library) = (Arc::clone(book), Arc::clone(self));
        let started = std::thread::Builder::new().name("index".into()).spawn(move || {
            making.make(&source);
            // Its connections are of no use any more.
            making.line.cancel("everything was read");
            library.tidy();
            drop(place);
        });
        started.map_err(|e| log::error!("no thread for a list of files: {e}")).ok().map(drop)
    }

    /// Ends what nobody waits for, and forgets what nobody looks at, or there is no room for.
    pub fn tidy(&self) {
        let mut books = self.books();
        books.retain(|_, book| {
            let unused = locked(&book.used).elapsed();
            if book.is_reading() {
                if unused > UNWANTED {
                    book.line.cancel("nobody looks at it any more");
                } else if book.since.elapsed() > LONGEST {
                    book.line.cancel("it takes too long; borgcube archive files on the server lists it");
                }
                return true;
            }
            unused < KEPT && !matches!(book.stage(), Stage::Failed(_))
        });
        let mut kept: Vec<(Instant, usize, Key)> = books
            .iter()
            .filter(|(_, book)| !book.is_reading())
            .map(|(key, book)| (*locked(&book.used), book.index().memory(), key.clone()))
            .collect();
        // The newest first: it is the one that somebody looks at.
        kept.sort_by_key(|(used, ..)| std::cmp::Reverse(*used));
        let mut sum = 0;
        for (at, (_, memory, key)) in kept.into_iter().enumerate() {
            sum += memory;
            if at > 0 && sum > KEPT_MEMORY {
                books.remove(&key);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
