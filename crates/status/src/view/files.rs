//! What is in an archive, directory by directory.

use super::{Context, Frame};
use crate::browse::index::{Entry, Index, ROOT};
use crate::browse::library::{Book, Stage};
use crate::browse::names::segment;
use crate::query::{Query, Unanswered};
use crate::text;
use archive::Kind;
use archive::kind::mode_text;
use askama::Template;
use model::{Archive, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use unix::logging::escape_bytes;

const PAGE: usize = 500;
const MAX_PAGE: usize = 500;

/// An entry of a directory.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FileRow {
    /// Its name, fit to be printed: what is no UTF-8, or moves a cursor, is escaped.
    pub name: String,
    /// The path of the entry, as it is in addresses: each name percent-encoded, byte by byte.
    pub path: String,
    /// `directory`, `file`, `link` (symbolic), `fifo`, `character`, `block`, or `unknown`.
    pub kind: &'static str,
    /// Type and permissions as `ls` shows them; null: only known from what is in it.
    pub mode: Option<String>,
    /// Bytes of a file, or of all files in a directory; null: not known (yet).
    pub size: Option<u64>,
    /// When its content was changed last, to the second.
    #[schemars(with = "Option<i64>")]
    pub mtime: Option<Timestamp>,
    /// Where a symbolic link leads, fit to be printed.
    pub target: Option<String>,
    /// The file that it is another name of (a hard link), fit to be printed.
    pub same_as: Option<String>,
}

impl FileRow {
    fn of(entry: &Entry<'_>, above: &str) -> FileRow {
        let kind = Kind::of_mode(entry.mode);
        let target = entry.target.map(escape_bytes);
        let (same_as, target) = if entry.is_hard_link { (target, None) } else { (None, target) };
        FileRow {
            name: escape_bytes(entry.name),
            path: if above.is_empty() { segment(entry.name) } else { format!("{above}/{}", segment(entry.name)) },
            kind: match kind {
                Kind::Directory => "directory",
                Kind::File => "file",
                Kind::Link => "link",
                Kind::Fifo => "fifo",
                Kind::Character => "character",
                Kind::Block => "block",
                Kind::Unknown => "unknown",
            },
            mode: (entry.mode & 0o7777 != 0 || kind != Kind::Directory).then(|| mode_text(entry.mode)),
            size: entry.size,
            mtime: entry.mtime.map(|seconds| Timestamp(seconds.saturating_mul(1_000_000))),
            target,
            same_as,
        }
    }
}

/// A directory above.
#[derive(Debug, Clone)]
pub struct Crumb {
    /// Its name, fit to be printed.
    pub name: String,
    /// Its path, as it is in addresses.
    pub path: String,
}

/// A directory of an archive.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "files.html")]
pub struct FilesPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// The repository.
    pub repository: String,
    /// Borg's archive id.
    pub id: String,
    /// The archive's name.
    pub archive: String,
    /// The directory, as its path is in addresses; empty: the archive.
    pub path: String,
    /// Its entries: directories first, then by name.
    pub entries: Vec<FileRow>,
    /// How many it has, as far as is known.
    pub total: u64,
    /// The number of the first entry here, counted from 0.
    pub from: u64,
    /// Bytes of all files in it; null: not known (yet).
    pub size: Option<u64>,
    /// Whether the whole list of files was read: otherwise there may be more, and asking again tells.
    pub complete: bool,
    /// Per cent of the list of files that were read.
    pub percent: u64,
    /// What is wrong with the list of files.
    pub complaints: Vec<String>,
    /// Items of the whole archive that are not shown, because their paths lead out of it.
    pub strange: u64,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) crumbs: Vec<Crumb>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) previous: Option<String>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) next: Option<String>,
}

impl FilesPage {
    /// Of what is known of an archive.
    pub fn new(
        c: &Context<'_>,
        archive: &Archive,
        book: &Book,
        stage: &Stage,
        path: &[Vec<u8>],
        query: &Query,
    ) -> Result<FilesPage, Unanswered> {
        if let Stage::Failed(why) = stage {
            return Err(Unanswered::Unavailable(format!("its list of files cannot be read: {why}")));
        }
        let limit = query.limit(PAGE, MAX_PAGE)?;
        let from = query.number::<usize>("from")?.unwrap_or(0);
        let index: &Index = &book.index();
        let complete = index.is_whole();
        let directory = index.find_directory(path);
        let missing = || Unanswered::NotFound("the archive has no such directory".into());
        if complete && directory.is_none() && !path.is_empty() {
            return Err(missing());
        }
        let mut crumbs: Vec<Crumb> = vec![];
        for name in path {
            let above = crumbs.last().map_or_else(String::new, |crumb| format!("{}/", crumb.path));
            crumbs.push(Crumb { name: escape_bytes(name), path: format!("{above}{}", segment(name)) });
        }
        let own = crumbs.last().map_or_else(String::new, |crumb| crumb.path.clone());
        let (entries, total) = directory.map_or((vec![], 0), |at| index.entries(at, from, limit));
        if from > 0 && from >= total && complete {
            return Err(Unanswered::BadRequest(format!("parameter from: the directory has {total} entries")));
        }
        let page = |from: usize| query.with("from", &from.to_string());
        Ok(FilesPage {
            frame: c.frame("archives"),
            repository: archive.repository.to_string(),
            id: archive.id.clone(),
            archive: archive.name.clone(),
            entries: entries.iter().map(|entry| FileRow::of(entry, &own)).collect(),
            previous: (from > 0).then(|| page(from.saturating_sub(limit))),
            next: (complete && from + limit < total).then(|| page(from + limit)),
            path: own,
            total: total as u64,
            from: from as u64,
            size: index.itself(directory.unwrap_or(ROOT)).size.filter(|_| directory.is_some()),
            complete: complete && !index.is_cut,
            percent: if complete { 100 } else { book.percent() },
            complaints: index.complaints.clone(),
            strange: index.strange,
            crumbs,
        })
    }

    /// Whether a browser should ask again: more is being read.
    #[must_use]
    pub fn is_growing(&self) -> bool {
        self.percent < 100
    }

    /// The page's own part of the address.
    fn base(&self) -> String {
        format!("/archives/{}/{}", self.repository, self.id)
    }
}
