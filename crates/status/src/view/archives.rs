//! Archives: what is recorded of them. What is in them, [`super::files`] shows.

use super::jobs::Window;
use super::{ArchiveSizes, Context, Frame};
use crate::query::{Query, Unanswered};
use crate::text;
use askama::Template;
use model::web_user::Role;
use model::{Archive, ClientName, ConfigName, RepositoryName, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use store::{ArchiveFilter, ArchiveKey};

const PAGE: usize = 50;
const MAX_PAGE: usize = 500;

/// An archive in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ArchiveRow {
    /// Borg's archive id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The repository.
    pub repository: String,
    /// Whose data it holds.
    pub client: String,
    /// The config's label.
    pub label: String,
    /// The job that made it.
    pub job: u64,
    /// When that began to read.
    #[schemars(with = "i64")]
    pub start: Timestamp,
    /// When it was committed.
    #[schemars(with = "i64")]
    pub end: Timestamp,
    /// Between the two, in seconds.
    pub duration: f64,
    /// Totals.
    pub statistics: ArchiveSizes,
    /// A checkpoint of a broken job: no restore point.
    pub incomplete: bool,
    /// A person has to look before anything relies on it.
    pub suspicious: bool,
    /// Somebody wants it kept.
    pub held: bool,
    /// When it may be deleted, if it goes.
    #[schemars(with = "Option<i64>")]
    pub deleted_from: Option<Timestamp>,
}

impl ArchiveRow {
    /// Of a record.
    #[must_use]
    pub fn of(archive: &Archive) -> ArchiveRow {
        ArchiveRow {
            id: archive.id.clone(),
            name: archive.name.clone(),
            repository: archive.repository.to_string(),
            client: archive.client.to_string(),
            label: archive.label.to_string(),
            job: archive.job,
            start: archive.start,
            end: archive.end,
            duration: archive.end.seconds_since(archive.start),
            statistics: ArchiveSizes::from(&archive.statistics),
            incomplete: archive.incomplete,
            suspicious: archive.suspicious,
            held: archive.hold.is_some(),
            deleted_from: archive.pending_deletion.as_ref().map(|pending| pending.due),
        }
    }
}

/// A page of archives.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "archives.html")]
pub struct ArchivesPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// The newest first.
    pub archives: Vec<ArchiveRow>,
    /// The rest of the list.
    pub window: Window,
    /// As asked for: `client`.
    pub client: Option<String>,
    /// As asked for: `repository`.
    pub repository: Option<String>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) clients: Vec<String>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) repositories: Vec<String>,
}

/// A place in the list, as it travels in an address: `TIME.REPOSITORY.ID`.
pub(super) fn cursor(text: &str) -> Result<(Timestamp, ArchiveKey), Unanswered> {
    let wrong = || Unanswered::BadRequest("parameter before: take the address of the next page from the page before it".into());
    let (time, rest) = text.split_once('.').ok_or_else(wrong)?;
    // A repository's name may have dots in it, an id has none.
    let (repository, id) = rest.rsplit_once('.').ok_or_else(wrong)?;
    let key = ArchiveKey { repository: repository.parse().map_err(|_| wrong())?, id: id.to_owned() };
    Ok((Timestamp(time.parse().map_err(|_| wrong())?), key))
}

/// The place behind an archive, for [`cursor`].
pub(super) fn place(archive: &Archive) -> String {
    format!("{}.{}.{}", archive.start.0, archive.repository, archive.id)
}

impl ArchivesPage {
    /// By what the query asks for.
    pub fn new(c: &Context<'_>, query: &Query) -> Result<ArchivesPage, Unanswered> {
        let limit = query.limit(PAGE, MAX_PAGE)?;
        let filter = ArchiveFilter {
            repository: query.get::<RepositoryName>("repository")?,
            client: query.get::<ClientName>("client")?,
            config: query.get::<ConfigName>("config")?,
            before: query.text("before").map(cursor).transpose()?,
        };
        // One more shows whether there is another page.
        let mut archives = c.read.archives().page(&filter, limit + 1)?;
        let more = archives.len() > limit;
        archives.truncate(limit);
        let next = archives.last().filter(|_| more).map(place);
        Ok(ArchivesPage {
            frame: c.frame("archives"),
            archives: archives.iter().map(ArchiveRow::of).collect(),
            window: Window::of(query, "before", next),
            client: query.text("client").map(str::to_owned),
            repository: query.text("repository").map(str::to_owned),
            clients: c.read.clients().list()?.iter().map(|client| client.name.to_string()).collect(),
            repositories: c.read.repositories().list()?.iter().map(|repository| repository.name.to_string()).collect(),
        })
    }
}

/// One archive.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "archive.html")]
pub struct ArchivePage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// As in the list.
    pub archive: ArchiveRow,
    /// Free text.
    pub comment: String,
    /// What is odd about it.
    pub warnings: Vec<String>,
    /// What the client claimed and the server replaced.
    pub claims: Vec<String>,
    /// Who holds it, and what for.
    pub hold: Option<String>,
    /// Who decided that it goes.
    pub deletion: Option<String>,
    /// Whether whoever asks may look into it here.
    pub readable: bool,
}

impl ArchivePage {
    /// By repository and id.
    pub fn new(c: &Context<'_>, repository: RepositoryName, id: &str) -> Result<ArchivePage, Unanswered> {
        let missing = || Unanswered::NotFound(format!("there is no such archive in repository {repository}"));
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let key = ArchiveKey { repository: repository.clone(), id: id.to_ascii_lowercase() };
        let archive = c.read.archives().get(&key)?.ok_or_else(missing)?;
        let policy =
            |policy: &Option<model::PolicyName>| policy.as_ref().map_or_else(String::new, |policy| format!(", by policy {policy}"));
        let is_on = c.read.settings()?.is_some_and(|settings| settings.web.downloads);
        Ok(ArchivePage {
            readable: is_on && c.visit.viewer.as_ref().is_some_and(|viewer| viewer.role >= Role::Operator),
            frame: c.frame("archives"),
            archive: ArchiveRow::of(&archive),
            hold: archive.hold.as_ref().map(|hold| match hold.reason.as_str() {
                "" => format!("held by {}", hold.by),
                reason => format!("held by {}: {reason}", hold.by),
            }),
            deletion: archive.pending_deletion.as_ref().map(|pending| format!("decided by {}{}", pending.by, policy(&pending.policy))),
            comment: archive.comment,
            warnings: archive.warnings,
            claims: archive.claims,
        })
    }
}
