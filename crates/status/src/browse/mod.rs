//! What is in archives, for those whom the operator lets read them: directories, files, tar archives.
//!
//! The owner of the repository is asked on behalf of a person, whose credential it looks at itself ([`wire::maintenance::Operation::ReadFor`]);
//! this program has no right of its own to read anything. What comes is parsed here, without keys, by crate `archive`.
//!
//! | module | |
//! |---|---|
//! | [`answer`] | who may, and what is answered |
//! | [`names`] | paths in addresses, names of downloads |
//! | [`line`] | connections that can be ended |
//! | [`index`], [`library`] | directories, from lists of files that are read once |
//! | [`download`] | files and tar archives |

pub mod answer;
pub mod download;
pub mod index;
pub mod library;
pub mod line;
pub mod names;

use crate::query::Unanswered;
use crate::sessions::Session;
use archive::Source;
use library::{Book, Key, Library, Stage};
use line::Line;
use model::RepositoryName;
use model::web_user::Credential;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use unix::paths::Layout;

/// Lists of files that are read at a time.
pub const BUILDS: usize = 2;
/// Memory for the index of one archive: some 1.5 million files. Of larger ones each directory has one.
pub const INDEX_MEMORY: usize = 128 << 20;
/// Memory for indexes that are kept, besides the newest one.
pub const KEPT_MEMORY: usize = 128 << 20;
/// Downloads at a time. Each has content on its way for some 100 MiB at most.
pub const DOWNLOADS: usize = 3;
/// Memory of a download for files that hard links may refer to.
pub const LINKS_MEMORY: usize = 32 << 20;
/// Questions to owners at a time.
const QUESTIONS: usize = 8;
/// An owner may have to be started, and to open its repository.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long a page waits for a list of files; then it shows what is known.
const PAGE_PATIENCE: Duration = Duration::from_millis(1500);
/// How often indexes are looked after.
const TIDY: Duration = Duration::from_secs(5);

/// Why there is nothing to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sorry {
    /// It is not there.
    Nothing(String),
    /// Others read already.
    Busy(String),
    /// The owner says so, or does not answer.
    Trouble(String),
}

impl Sorry {
    /// What ended the reading.
    #[must_use]
    pub fn of(error: &archive::Error) -> Sorry {
        Sorry::Trouble(error.to_string())
    }
}

impl From<Sorry> for Unanswered {
    fn from(sorry: Sorry) -> Unanswered {
        match sorry {
            Sorry::Nothing(why) => Unanswered::NotFound(why),
            Sorry::Busy(why) | Sorry::Trouble(why) => Unanswered::Unavailable(why),
        }
    }
}

/// Whoever reads, as the owner is told.
#[derive(Debug, Clone)]
pub struct Reader {
    /// For the log.
    pub name: String,
    /// What the owner looks at.
    pub credential: Credential,
}

/// Everything that is needed for reading.
#[derive(Debug)]
pub struct Reading {
    layout: Layout,
    library: Arc<Library>,
    questions: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

/// Ends what nobody waits for any more.
struct Wanted(Option<Arc<Line>>);

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            line.cancel("the viewer is gone");
        }
    }
}

impl Reading {
    /// Nothing is being read.
    #[must_use]
    pub fn new(layout: Layout) -> Reading {
        Reading {
            layout,
            library: Arc::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }

    /// Looks after indexes, for ever.
    pub async fn keep_tidy(self: Arc<Reading>) {
        let mut ticks = tokio::time::interval(TIDY);
        loop {
            ticks.tick().await;
            self.library.tidy();
        }
    }

    /// Asks the owner for an archive, on behalf of a person.
    async fn ask(&self, repository: &RepositoryName, id: &str, reader: &Reader) -> Result<(Source, Arc<Line>), Sorry> {
        let place = Arc::clone(&self.questions).try_acquire_owned();
        let place = place.map_err(|_| Sorry::Busy("too many people open archives at this moment; try again".into()))?;
        let line = Arc::new(Line::default());
        let mut wanted = Wanted(Some(Arc::clone(&line)));
        let (socket, credential, asking) =
            (self.layout.repository_socket(repository.as_str()), reader.credential.clone(), Arc::clone(&line));
        let asked = move |archive: &str| {
            asking.connect(|| {
                let stream = unix::socket::connect(&socket).map_err(archive::Error::Connect)?;
                archive::source::ask_for(stream, archive, &credential)
            })
        };
        let (send, receive) = oneshot::channel();
        let asked_for = id.to_owned();
        let started = std::thread::Builder::new().name("question".into()).spawn(move || {
            let opened = Source::from(Arc::new(asked), &asked_for);
            drop(place);
            // Nobody may wait for it any more.
            drop(send.send(opened));
        });
        started.map_err(|e| Sorry::Busy(format!("no thread for reading: {e}")))?;
        let opened = tokio::time::timeout(PATIENCE, receive).await;
        let opened = opened.map_err(|_| Sorry::Trouble("the repository's owner does not answer; its log may tell why".into()))?;
        let source = opened.map_err(|e| Sorry::Trouble(e.to_string()))?.map_err(|e| Sorry::of(&e))?;
        // An archive can be called like another one's id.
        if source.readable.id != id {
            return Err(Sorry::Trouble(
                "another archive has this archive's id for its name; borgcube archive files on the server reads it".into(),
            ));
        }
        wanted.0 = None;
        Ok((source, line))
    }

    /// The index in which a directory is; it may be being made still.
    pub async fn look(
        &self,
        repository: &RepositoryName,
        id: &str,
        path: &[Vec<u8>],
        reader: &Reader,
    ) -> Result<(Arc<Book>, Stage), Sorry> {
        let key = |directory| Key { repository: repository.to_string(), id: id.to_owned(), directory };
        let busy = || Sorry::Busy("the lists of files of other archives are being read; try again in a moment".into());
        let (source, line) = self.ask(repository, id, reader).await?;
        let book = self.library.open(&key(None), source.clone(), Arc::clone(&line)).ok_or_else(busy)?;
        let mut stage = book.wait(PAGE_PATIENCE).await;
        if stage != Stage::TooLarge {
            return Ok((book, stage));
        }
        // The connections of the question may have become those of the index.
        let (source, line) = self.ask(repository, id, reader).await?;
        let book = self.library.open(&key(Some(path.to_vec())), source, line).ok_or_else(busy)?;
        stage = book.wait(PAGE_PATIENCE).await;
        Ok((book, stage))
    }

    /// Begins a download, for as long as a session lasts. A question is about what it would be like, and nobody takes it.
    pub async fn download(
        &self,
        repository: &RepositoryName,
        id: &str,
        wanted: download::Wanted,
        reader: &Reader,
        (session, is_question): (Session, bool),
    ) -> Result<(download::Head, crate::render::Body), Sorry> {
        let place = Arc::clone(&self.downloads).try_acquire_owned();
        let place = place.map_err(|_| Sorry::Busy(format!("{DOWNLOADS} downloads are under way already; try again when one has ended")))?;
        let (source, line) = self.ask(repository, id, reader).await?;
        let (head, body) = download::Download { source, line, wanted, who: reader.name.clone(), session, is_question, place }.start()?;
        let head = head.await.map_err(|_| Sorry::Trouble("the download cannot be begun; the log tells why".into()))??;
        Ok((head, body))
    }
}
