//! Repositories: what is in them, when they were checked, and how they grew.

use super::chart::Chart;
use super::jobs::JobRow;
use super::{Context, Frame, Sizes};
use crate::query::Unanswered;
use crate::text;
use askama::Template;
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
    /// Checkpoints of broken jobs.
    pub incomplete: u64,
    /// When the newest check ended.
    #[schemars(with = "Option<i64>")]
    pub last_check: Option<Timestamp>,
    /// Whether that check found nothing wrong.
    pub last_check_good: Option<bool>,
    /// That check's job.
    pub last_check_job: Option<u64>,
}

impl RepositoryRow {
    fn of(c: &Context<'_>, repository: &Repository) -> RepositoryRow {
        let figures = c.figures.repositories.get(&repository.name);
        let check = figures.and_then(|figures| figures.last_check.as_ref());
        let good = |job: &model::Job| job.state == JobState::Done && matches!(job.yielded, Some(Yield::Checked { error_count: 0, .. }));
        RepositoryRow {
            name: repository.name.to_string(),
            description: repository.description.clone(),
            url: repository.url.clone(),
            encryption: repository.encryption.to_string(),
            repository_id: repository.repository_id.clone(),
            sizes: figures.map(|figures| figures.sums).unwrap_or_default().into(),
            incomplete: figures.map_or(0, |figures| figures.incomplete),
            last_check: check.and_then(model::Job::ended),
            last_check_good: check.map(good),
            last_check_job: check.map(|job| job.number),
        }
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
        let rows = c.read.repositories().list()?;
        let rows = rows.iter().map(|repository| RepositoryRow::of(c, repository)).collect();
        Ok(RepositoriesPage { frame: c.frame("repositories"), repositories: rows })
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
    /// Configs that write into it.
    pub configs: Vec<String>,
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
        let jobs = c.read.jobs().page(&JobFilter { repository: Some(name.clone()), ..JobFilter::default() }, JOBS)?;
        Ok(RepositoryPage {
            frame: c.frame("repositories"),
            repository: RepositoryRow::of(c, &repository),
            configs: c.read.configs().of_repository(name)?.iter().map(|config| config.name().to_string()).collect(),
            jobs: c.rows(&jobs),
            charts: c.figures.repositories.get(name).map(Chart::space).unwrap_or_default(),
        })
    }
}
