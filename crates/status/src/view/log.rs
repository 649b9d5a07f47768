//! The transaction log: who changed what.

use super::jobs::Window;
use super::{Context, Frame};
use crate::query::{Query, Unanswered};
use crate::text;
use askama::Template;
use model::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use store::{Entry, TransactionNumber};

const PAGE: usize = 50;
const MAX_PAGE: usize = 500;
/// Records that are named of one transaction.
const NAMED: usize = 20;

/// One transaction.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LogRow {
    /// Its number.
    pub transaction: u64,
    /// When.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// What for.
    pub note: String,
    /// The transaction that it reverted.
    pub undoes: Option<u64>,
    /// What it changed, in words: `changed client web1`; at most 20.
    pub changes: Vec<String>,
    /// Changes that are not named.
    pub more_changes: u64,
    /// The entry's hash; it covers the entry before it.
    pub hash: String,
}

impl LogRow {
    fn of(entry: &Entry) -> LogRow {
        LogRow {
            transaction: entry.number.0,
            time: entry.time,
            actor: entry.actor.clone(),
            note: entry.note.clone(),
            undoes: entry.undoes.map(|number| number.0),
            changes: entry.changes.iter().take(NAMED).map(|change| format!("{} {}", change.verb(), change.record)).collect(),
            more_changes: entry.changes.len().saturating_sub(NAMED) as u64,
            hash: entry.hash.clone(),
        }
    }
}

/// A page of the log.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "log.html")]
pub struct LogPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// The newest first.
    pub entries: Vec<LogRow>,
    /// The rest of the list.
    pub window: Window,
}

impl LogPage {
    /// By what the query asks for.
    pub fn new(c: &Context<'_>, query: &Query) -> Result<LogPage, Unanswered> {
        let limit = query.limit(PAGE, MAX_PAGE)?;
        let before = query.number::<u64>("before")?;
        let entries = c.read.log().newest_before(TransactionNumber(before.unwrap_or(u64::MAX)), limit)?;
        let last = entries.last().map(|entry| entry.number.0).filter(|last| *last > 1);
        Ok(LogPage {
            frame: c.frame("log"),
            entries: entries.iter().map(LogRow::of).collect(),
            window: Window::of(query, "before", last.map(|last| last.to_string())),
        })
    }
}
