//! Versions and health.

use super::{Context, Frame};
use crate::text;
use askama::Template;
use model::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use store::Stat;

/// Whether this server does what it should.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// Everything below is well.
    pub healthy: bool,
    /// The database can be read.
    pub database: bool,
    /// borgcubed tells what happens.
    pub borgcubed: bool,
    /// What is wrong, in sentences.
    pub trouble: Vec<String>,
}

/// About this server.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "about.html")]
pub struct About {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// BorgCube's version.
    pub version: &'static str,
    /// Since when this program runs.
    #[schemars(with = "i64")]
    pub started: Timestamp,
    /// Who looks at live events at present.
    pub viewers: u64,
    /// Whether everything is well.
    pub health: Health,
    /// Since when borgcubed is, or is not, heard of.
    #[schemars(with = "i64")]
    pub borgcubed_since: Timestamp,
    /// What the database takes on disk, in bytes.
    pub database_size: u64,
    /// What of it is used.
    pub database_used: u64,
    /// Entries of the transaction log.
    pub transactions: u64,
    /// Jobs on record.
    pub jobs: u64,
    /// Archives on record.
    pub archives: u64,
}

impl About {
    /// Of the present moment.
    #[must_use]
    pub fn new(c: &Context<'_>, stat: &Stat, started: Timestamp, viewers: usize) -> About {
        let entries = |name: &str| stat.tables.iter().find(|table| table.name == name).map_or(0, |table| table.entries);
        About {
            frame: c.frame("about"),
            version: env!("CARGO_PKG_VERSION"),
            started,
            viewers: viewers as u64,
            health: Health {
                healthy: c.live.connected,
                database: true,
                borgcubed: c.live.connected,
                trouble: c.live.trouble.iter().cloned().collect(),
            },
            borgcubed_since: c.live.since,
            database_size: stat.file_size,
            database_used: stat.used_size,
            transactions: entries("log"),
            jobs: entries("jobs"),
            archives: entries("archives"),
        }
    }
}
