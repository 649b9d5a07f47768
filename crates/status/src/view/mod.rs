//! The read model: one struct for each page. The page is rendered from it and the API answers with it, so no figure is computed twice.
//!
//! Moments are microseconds since 1970, sizes are bytes, as everywhere in BorgCube's JSON.

mod about;
mod archives;
mod changes;
mod chart;
mod clients;
mod dashboard;
mod jobs;
mod log;
mod policies;
mod repositories;
mod schedules;

pub use about::{About, Health};
pub use archives::{ArchivePage, ArchiveRow, ArchivesPage};
pub use changes::{ChangedGroup, ChangedRow};
pub use chart::{Bar, Chart};
pub use clients::{ClientPage, ClientRow, ClientsPage, ConfigRow};
pub use dashboard::{Dashboard, Totals, Upcoming};
pub use jobs::{FailureView, JobPage, JobRow, JobsPage, Line, ProgressView, StepView, Window};
pub use log::{LogPage, LogRow};
pub use policies::{PoliciesPage, PolicyPage, PolicyRow, PreviewGroup, PreviewRow};
pub use repositories::{CoverageView, DamageView, DamagedRow, RepositoriesPage, RepositoryPage, RepositoryRow};
pub use schedules::{Day, OccurrenceRow, ScheduleRow, SchedulesPage};

use crate::figures::{Figures, Sums};
use crate::hub::Live;
use model::Timestamp;
use model::progress::Statistics;
use schemars::JsonSchema;
use serde::Serialize;
use store::Read;

/// The navigation: section, address, name.
pub const NAVIGATION: &[(&str, &str, &str)] = &[
    ("dashboard", "/", "Dashboard"),
    ("clients", "/clients", "Clients"),
    ("jobs", "/jobs", "Jobs"),
    ("archives", "/archives", "Archives"),
    ("repositories", "/repositories", "Repositories"),
    ("schedules", "/schedules", "Schedules"),
    ("policies", "/policies", "Retention"),
    ("log", "/log", "Log"),
    ("about", "/about", "About"),
];

/// What pages are made of: one snapshot of the database, and what is known of the present.
pub struct Context<'a> {
    /// The snapshot.
    pub read: &'a Read<'a>,
    /// The figures of that snapshot.
    pub figures: &'a Figures,
    /// What runs.
    pub live: &'a Live,
    /// The present moment.
    pub now: Timestamp,
}

impl Context<'_> {
    /// What is around every page.
    #[must_use]
    pub fn frame(&self, section: &'static str) -> Frame {
        Frame { section, now: self.now, trouble: self.live.trouble.clone().filter(|_| !self.live.connected) }
    }
}

/// What is around every page.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Which entry of the navigation is here.
    pub section: &'static str,
    /// When the page was made.
    pub now: Timestamp,
    /// Why nothing is heard of borgcubed, if so.
    pub trouble: Option<String>,
}

/// Sizes of archives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Sizes {
    /// Archives that are restore points.
    pub archives: u64,
    /// Bytes of their files.
    pub original_size: u64,
    /// The same, compressed.
    pub compressed_size: u64,
    /// Bytes that were newly stored for them.
    pub deduplicated_size: u64,
}

impl From<Sums> for Sizes {
    fn from(sums: Sums) -> Sizes {
        Sizes {
            archives: sums.archives,
            original_size: sums.original,
            compressed_size: sums.compressed,
            deduplicated_size: sums.deduplicated,
        }
    }
}

/// Totals of one archive, in Borg's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ArchiveSizes {
    /// Regular files.
    pub nfiles: u64,
    /// Bytes before compression.
    pub original_size: u64,
    /// Bytes after compression.
    pub compressed_size: u64,
    /// Bytes newly stored.
    pub deduplicated_size: u64,
}

impl From<&Statistics> for ArchiveSizes {
    fn from(s: &Statistics) -> ArchiveSizes {
        ArchiveSizes {
            nfiles: s.nfiles,
            original_size: s.original_size,
            compressed_size: s.compressed_size,
            deduplicated_size: s.deduplicated_size,
        }
    }
}
