//! What people look at every morning.

use super::clients::ConfigRow;
use super::jobs::JobRow;
use super::repositories::RepositoryRow;
use super::{Context, Frame};
use crate::query::Unanswered;
use crate::text;
use askama::Template;
use model::{JobState, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use store::JobFilter;

/// Jobs of a list here; the lists of jobs have all.
const SHOWN: usize = 20;
/// What comes next, at most.
const UPCOMING: usize = 8;

/// The dashboard.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "dashboard.html")]
pub struct Dashboard {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// When this was true.
    #[schemars(with = "i64")]
    pub now: Timestamp,
    /// Sums.
    pub totals: Totals,
    /// Configs without a good backup for longer than their target, the oldest first.
    pub overdue: Vec<ConfigRow>,
    /// Configs whose newest backup job failed, although the target is still kept.
    pub failing: Vec<ConfigRow>,
    /// Repositories that are damaged, or not checked as often as promised.
    pub unsound: Vec<RepositoryRow>,
    /// What runs.
    pub running: Vec<JobRow>,
    /// What waits, the first in the queue first; at most 20.
    pub queued: Vec<JobRow>,
    /// What failed last, the newest first; at most 20, of the last 7 days.
    pub failed: Vec<JobRow>,
    /// What is due next.
    pub upcoming: Vec<Upcoming>,
}

/// Sums over everything.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Totals {
    /// Restore points.
    pub archives: u64,
    /// Bytes of the files in them.
    pub total_data: u64,
    /// Bytes that were stored for them.
    pub stored: u64,
    /// Backups that ended today, by the server's calendar.
    pub backups_today: u64,
    /// Clients.
    pub clients: u64,
    /// Backup configs.
    pub configs: u64,
    /// Of these, configs that were never backed up and are not overdue yet.
    pub never: u64,
    /// Repositories.
    pub repositories: u64,
    /// Jobs in the queue.
    pub queued: u64,
    /// Jobs that run.
    pub running: u64,
}

/// Something that is due.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Upcoming {
    /// When.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// The schedule.
    pub schedule: String,
    /// What it does.
    pub actions: Vec<String>,
}

impl Dashboard {
    /// Of the present moment.
    pub fn new(c: &Context<'_>) -> Result<Dashboard, Unanswered> {
        let configs = ConfigRow::all(c)?;
        let running = c.read.jobs().running()?;
        let queue = c.read.jobs().in_state(JobState::JobCreated)?;
        let week = c.now.plus_seconds(-7 * 86_400);
        let mut failed = c.read.jobs().page(&JobFilter { states: vec![JobState::Failed], ..JobFilter::default() }, SHOWN)?;
        failed.retain(|job| job.ended().is_some_and(|ended| ended > week));
        let totals = Totals {
            archives: c.figures.all.archives,
            total_data: c.figures.all.original,
            stored: c.figures.all.deduplicated,
            backups_today: c.figures.on_day(c.now).archives,
            clients: c.read.clients().count()?,
            configs: configs.len() as u64,
            never: configs.iter().filter(|config| config.last_good.is_none() && !config.overdue).count() as u64,
            repositories: c.read.repositories().count()?,
            queued: queue.len() as u64,
            running: running.len() as u64,
        };
        let (mut overdue, rest): (Vec<_>, Vec<_>) = configs.into_iter().partition(|config| config.overdue);
        overdue.sort_by_key(|config| (config.last_good, config.name.clone()));
        Ok(Dashboard {
            frame: c.frame("dashboard"),
            now: c.now,
            totals,
            overdue,
            failing: rest.into_iter().filter(|config| config.last_phase == Some("failed")).collect(),
            unsound: RepositoryRow::all(c)?.into_iter().filter(RepositoryRow::needs_attention).collect(),
            running: c.rows(&running),
            queued: c.rows(queue.iter().take(SHOWN)),
            failed: c.rows(&failed),
            upcoming: upcoming(c)?,
        })
    }

    /// Nothing asks for attention.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.overdue.is_empty() && self.failing.is_empty() && self.unsound.is_empty()
    }
}

fn upcoming(c: &Context<'_>) -> Result<Vec<Upcoming>, Unanswered> {
    let mut upcoming: Vec<Upcoming> = vec![];
    for schedule in c.read.schedules().list()?.iter().filter(|schedule| schedule.enabled) {
        if let Some(time) = schedule.recurrence.next_after(c.now.max(schedule.handled)) {
            let actions = schedule.actions.iter().map(ToString::to_string).collect();
            upcoming.push(Upcoming { time, schedule: schedule.name.to_string(), actions });
        }
    }
    upcoming.sort_by_key(|due| due.time);
    upcoming.truncate(UPCOMING);
    Ok(upcoming)
}
