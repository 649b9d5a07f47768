//! Repositories: what is in them, when they were checked, and how they grew.

use super::chart::Chart;
use super::jobs::JobRow;
use super::{Context, Frame, Sizes};
use crate::query::Unanswered;
use crate::text;
use askama::Template;
use model::check::{Coverage, Damage, DamagedArchive, Health, Promise};
use model::space::Space;
use model::{JobState, Repository, RepositoryName, Timestamp, Yield};
use schemars::JsonSchema;
use serde::Serialize;
use store::JobFilter;

/// Jobs on a repository's page.
const JOBS: usize = 10;

/// A repository in the list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RepositoryRow {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Where it is.
    pub url: String,
    /// Borg's encryption mode.
    pub encryption: String,
    /// Borg's repository id.
    pub repository_id: String,
    /// Its restore points.
    pub sizes: Sizes,
    /// What it takes up. None: that is not known, for its owner has not measured it yet, or it is on another host.
    pub space: Option<SpaceView>,
    /// Checkpoints of broken jobs.
    pub incomplete: u64,
    /// When the newest check ended, by schedule or by hand, of all or of a part.
    #[schemars(with = "Option<i64>")]
    pub last_check: Option<Timestamp>,
    /// Whether that check found nothing wrong.
    pub last_check_good: Option<bool>,
    /// That check's job, if it was one.
    pub last_check_job: Option<u64>,
    /// How much of the segment files was checked lately, as the last check left it. None: they never were.
    pub structure: Option<CoverageView>,
    /// The same of the content of all objects.
    pub data: Option<CoverageView>,
    /// When all archives were last found sound.
    #[schemars(with = "Option<i64>")]
    pub archives_sound: Option<Timestamp>,
    /// When the index was last compared with all segments.
    #[schemars(with = "Option<i64>")]
    pub index_compared: Option<Timestamp>,
    /// What is damaged, in one sentence. None: nothing is known to be.
    pub damage: Option<String>,
}

/// What a repository takes up, or took up at the end of a day (UTC).
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SpaceView {
    /// When its owner measured it.
    #[schemars(with = "i64")]
    pub at: Timestamp,
    /// Bytes of all segment files,
    pub segment_bytes: u64,
    /// of them that a compaction can free.
    pub freeable_bytes: u64,
    /// Bytes of all chunks, compressed and encrypted, each counted once.
    pub unique_bytes: u64,
    /// How many chunks these are.
    pub chunks: u64,
}

impl From<&Space> for SpaceView {
    fn from(space: &Space) -> SpaceView {
        SpaceView {
            at: space.time,
            segment_bytes: space.segments,
            freeable_bytes: space.freeable,
            unique_bytes: space.unique,
            chunks: space.chunks,
        }
    }
}

/// How much of a repository was found sound, and how long ago.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CoverageView {
    /// When this was so.
    #[schemars(with = "i64")]
    pub at: Timestamp,
    /// Bytes there were,
    pub bytes: u64,
    /// of them checked within the promised time,
    pub checked: u64,
    /// of them never checked.
    pub never: u64,
    /// The same in hundredths, rounded down.
    pub per_cent: u64,
    /// Everything is to be checked once in so many hours.
    pub promise_hours: u32,
    /// Whether it is: `unknown`, `holds`, `too-slow` or `broken`.
    pub promise: &'static str,
    /// All of it in a sentence.
    pub text: String,
}

impl CoverageView {
    fn of(coverage: &Coverage) -> CoverageView {
        CoverageView {
            at: coverage.at,
            bytes: coverage.bytes,
            checked: coverage.checked,
            never: coverage.never,
            per_cent: coverage.per_cent(),
            promise_hours: coverage.promise_hours,
            promise: match coverage.promise {
                Promise::Unknown => "unknown",
                Promise::Holds => "holds",
                Promise::TooSlow => "too-slow",
                Promise::Broken => "broken",
            },
            text: coverage.to_string(),
        }
    }

    /// Not everything is checked as often as promised.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self.promise, "too-slow" | "broken")
    }
}

/// An archive with damage.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DamagedRow {
    /// Its name, escaped for printing.
    pub name: String,
    /// Its id.
    pub id: String,
    /// `CLIENT/LABEL`. None: BorgCube did not make it.
    pub config: Option<String>,
    /// Chunks of it that are damaged or missing.
    pub chunks: u64,
    /// What else is wrong with it.
    pub error: Option<String>,
    /// Files that cannot be restored whole, escaped for printing. None: nobody has looked yet.
    pub files: Option<Vec<String>>,
    /// Files that are not named here.
    pub more_files: u64,
    /// Why there may be more.
    pub incomplete: Option<String>,
}

impl DamagedRow {
    fn of(archive: &DamagedArchive) -> DamagedRow {
        let files = archive.files.as_ref();
        DamagedRow {
            name: archive.name.clone(),
            id: archive.id.clone(),
            config: archive.client.as_ref().zip(archive.label.as_ref()).map(|(client, label)| format!("{client}/{label}")),
            chunks: archive.chunks,
            error: archive.error.clone(),
            files: files.map(|files| files.paths.clone()),
            more_files: files.map_or(0, |files| files.more),
            incomplete: files.and_then(|files| files.incomplete.clone()),
        }
    }
}

/// What is damaged: it stays until a complete check finds everything sound.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DamageView {
    /// In one sentence.
    pub summary: String,
    /// When it was found first.
    #[schemars(with = "i64")]
    pub since: Timestamp,
    /// When it was found last.
    #[schemars(with = "i64")]
    pub found: Timestamp,
    /// The clients concerned.
    pub clients: Vec<String>,
    /// Chunks that are damaged or missing.
    pub chunks: u64,
    /// What was found, in sentences; not all of it.
    pub errors: Vec<String>,
    /// How much was found.
    pub error_count: u64,
    /// Archives concerned; not all of them.
    pub archives: Vec<DamagedRow>,
    /// Those that are not named.
    pub more_archives: u64,
    /// Archives of other origin, of which nobody can tell; not all of them.
    pub unknown: Vec<String>,
    /// Those that are not named.
    pub more_unknown: u64,
}

impl DamageView {
    fn of(damage: &Damage) -> DamageView {
        DamageView {
            summary: damage.summary(),
            since: damage.since,
            found: damage.found,
            clients: damage.clients().into_iter().map(ToString::to_string).collect(),
            chunks: damage.chunks,
            errors: damage.errors.clone(),
            error_count: damage.error_count,
            archives: damage.archives.iter().map(DamagedRow::of).collect(),
            more_archives: damage.more_archives,
            unknown: damage.unknown.iter().map(|archive| archive.name.clone()).collect(),
            more_unknown: damage.more_unknown,
        }
    }
}

impl RepositoryRow {
    fn of(c: &Context<'_>, repository: &Repository, health: Option<&Health>, space: Option<&Space>) -> RepositoryRow {
        let figures = c.figures.repositories.get(&repository.name);
        let check = figures.and_then(|figures| figures.last_check.as_ref());
        let good = |job: &model::Job| job.state == JobState::Done && matches!(job.yielded, Some(Yield::Checked { error_count: 0, .. }));
        // A check that somebody ran by hand is no job; what it found is known all the same.
        let by_hand = health.filter(|health| check.and_then(model::Job::ended).is_none_or(|ended| ended < health.checked));
        RepositoryRow {
            name: repository.name.to_string(),
            description: repository.description.clone(),
            url: repository.url.clone(),
            encryption: repository.encryption.to_string(),
            repository_id: repository.repository_id.clone(),
            sizes: figures.map(|figures| figures.sums).unwrap_or_default().into(),
            // What was measured before it moved to another host says nothing of what it is now.
            space: space.filter(|_| !repository.is_remote()).map(SpaceView::from),
            incomplete: figures.map_or(0, |figures| figures.incomplete),
            last_check: by_hand.map(|health| health.checked).or(check.and_then(model::Job::ended)),
            last_check_good: by_hand.map(|health| health.damage.is_none()).or(check.map(good)),
            last_check_job: check.filter(|_| by_hand.is_none()).map(|job| job.number),
            structure: health.and_then(|health| health.structure.as_ref()).map(CoverageView::of),
            data: health.and_then(|health| health.data.as_ref()).map(CoverageView::of),
            archives_sound: health.and_then(|health| health.archives),
            index_compared: health.and_then(|health| health.index),
            damage: health.and_then(|health| health.damage.as_ref()).map(Damage::summary),
        }
    }

    /// Of all repositories, by name.
    pub fn all(c: &Context<'_>) -> Result<Vec<RepositoryRow>, Unanswered> {
        let of = |repository: &Repository| {
            let health = c.read.health().get(&repository.name)?;
            let space = c.read.space().newest(&repository.name)?;
            Ok(RepositoryRow::of(c, repository, health.as_ref(), space.as_ref()))
        };
        c.read.repositories().list()?.iter().map(of).collect()
    }

    /// How much smaller than the archives' files what is unique is: `98.7 %`. None: nobody knows.
    #[must_use]
    pub fn saved(&self) -> Option<String> {
        text::saved(&self.sizes.original_size, &self.space.as_ref()?.unique_bytes)
    }

    /// Something of it is damaged, or not checked as often as promised.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.damage.is_some() || [&self.structure, &self.data].into_iter().flatten().any(CoverageView::is_late)
    }
}

/// All repositories.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "repositories.html")]
pub struct RepositoriesPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// By name.
    pub repositories: Vec<RepositoryRow>,
}

impl RepositoriesPage {
    /// All of them.
    pub fn new(c: &Context<'_>) -> Result<RepositoriesPage, Unanswered> {
        Ok(RepositoriesPage { frame: c.frame("repositories"), repositories: RepositoryRow::all(c)? })
    }
}

/// One repository.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "repository.html")]
pub struct RepositoryPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// As in the list.
    pub repository: RepositoryRow,
    /// What is damaged.
    pub damage: Option<DamageView>,
    /// Configs that write into it.
    pub configs: Vec<String>,
    /// What it took up at the end of each day on which that was measured, the oldest first.
    pub space_history: Vec<SpaceView>,
    /// Its newest jobs, at most 10.
    pub jobs: Vec<JobRow>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) charts: Vec<Chart>,
}

impl RepositoryPage {
    /// By name.
    pub fn new(c: &Context<'_>, name: &RepositoryName) -> Result<RepositoryPage, Unanswered> {
        let repository = c.read.repositories().get(name)?;
        let repository = repository.ok_or_else(|| Unanswered::NotFound(format!("there is no repository {name}")))?;
        let health = c.read.health().get(name)?;
        let mut history = c.read.space().history(name)?;
        history.retain(|_| !repository.is_remote());
        let figures = c.figures.repositories.get(name);
        // Until there are two days of it, what archives have added is all that is known of earlier days.
        let estimated = || figures.map(Chart::stored).unwrap_or_default();
        let charts = Some(Chart::space(&history)).filter(|charts| !charts.is_empty()).unwrap_or_else(estimated);
        let jobs = c.read.jobs().page(&JobFilter { repository: Some(name.clone()), ..JobFilter::default() }, JOBS)?;
        Ok(RepositoryPage {
            frame: c.frame("repositories"),
            repository: RepositoryRow::of(c, &repository, health.as_ref(), history.last()),
            damage: health.as_ref().and_then(|health| health.damage.as_ref()).map(DamageView::of),
            configs: c.read.configs().of_repository(name)?.iter().map(|config| config.name().to_string()).collect(),
            jobs: c.rows(&jobs),
            space_history: history.iter().map(SpaceView::from).collect(),
            charts,
        })
    }
}
