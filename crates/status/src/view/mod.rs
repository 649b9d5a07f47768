//! The read model: one struct for each page. The page is rendered from it and the API answers with it, so no figure is computed twice.
//!
//! Moments are microseconds since 1970, sizes are bytes, as everywhere in BorgCube's JSON.

mod about;
mod archives;
mod changes;
mod chart;
mod check_configs;
mod clients;
mod dashboard;
mod files;
mod jobs;
mod log;
mod policies;
mod repositories;
mod schedules;

pub use about::{About, Health};
pub use archives::{ArchivePage, ArchiveRow, ArchivesPage};
pub use changes::{ChangedGroup, ChangedRow};
pub use chart::{Bar, Chart};
pub use check_configs::{CheckConfigRow, CheckConfigsPage};
pub use clients::{ClientPage, ClientRow, ClientsPage, ConfigRow};
pub use dashboard::{Dashboard, Totals, Upcoming};
pub use files::{Crumb, FileRow, FilesPage};
pub use jobs::{FailureView, JobPage, JobRow, JobsPage, Line, ProgressView, StepView, Window};
pub use log::{LogPage, LogRow};
pub use policies::{PoliciesPage, PolicyPage, PolicyRow, PreviewGroup, PreviewRow};
pub use repositories::{CoverageView, DamageView, DamagedRow, RepositoriesPage, RepositoryPage, RepositoryRow};
pub use schedules::{Day, OccurrenceRow, ScheduleRow, SchedulesPage};

use crate::access::Viewer;
use crate::acts::{self, Outcome};
use crate::figures::{Figures, Sums};
use crate::guard;
use crate::hub::Live;
use model::Timestamp;
use model::progress::Statistics;
use model::web_user::Role;
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
    /// For whom.
    pub visit: &'a Visit,
}

/// For whom a page is, and what it is to tell them beside what it shows.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    /// Who has signed in.
    pub viewer: Option<Viewer>,
    /// The page's address.
    pub here: String,
    /// What came of what was just done.
    pub outcome: Option<Outcome>,
}

impl Context<'_> {
    /// What is around every page.
    #[must_use]
    pub fn frame(&self, section: &'static str) -> Frame {
        Frame { section, now: self.now, trouble: self.live.trouble.clone().filter(|_| !self.live.connected), visit: self.visit.clone() }
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
    /// For whom it is.
    pub visit: Visit,
}

impl Frame {
    /// Whether the viewer gets to see the buttons of this act.
    #[must_use]
    pub fn may(&self, act: &str) -> bool {
        let act = acts::named(act);
        self.visit.viewer.as_ref().is_some_and(|viewer| act.is_some_and(|act| viewer.role >= act.role))
    }

    /// Whether the viewer gets to see the ways to forms.
    #[must_use]
    pub fn administers(&self) -> bool {
        self.visit.viewer.as_ref().is_some_and(|viewer| viewer.role >= Role::Administrator)
    }

    /// Where somebody signs in who then comes back.
    #[must_use]
    pub fn sign_in(&self) -> String {
        guard::sign_in(&self.visit.here)
    }

    /// What the viewer's forms carry.
    #[must_use]
    pub fn csrf(&self) -> &str {
        self.visit.viewer.as_ref().map_or("", |viewer| &viewer.csrf)
    }
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
