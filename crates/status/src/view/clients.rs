//! Clients, their configs, and how old their last good backups are.

use super::archives::ArchiveRow;
use super::chart::Chart;
use super::jobs::JobRow;
use super::{Context, Frame, Sizes};
use crate::figures::Sums;
use crate::query::Unanswered;
use crate::text;
use askama::Template;
use model::{BackupConfig, Client, ClientName, Connection, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use store::{ArchiveFilter, JobFilter};

/// Archives in a client's history.
const HISTORY: usize = 60;
/// Jobs on a client's page.
const JOBS: usize = 10;

/// A backup config, and how it fares.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ConfigRow {
    /// `CLIENT/LABEL`.
    pub name: String,
    /// The client.
    pub client: String,
    /// The label.
    pub label: String,
    /// Where its archives go.
    pub repository: String,
    /// What it backs up.
    pub paths: Vec<String>,
    /// Hours after which the last good backup is too old.
    pub target_age_hours: u32,
    /// When the newest good backup ended: complete, and not suspicious.
    #[schemars(with = "Option<i64>")]
    pub last_good: Option<Timestamp>,
    /// How long ago that was, in seconds.
    pub age: Option<f64>,
    /// It is too long ago; or there was none since the config was added, and that is too long ago.
    pub overdue: bool,
    /// The newest job that has ended.
    pub last_job: Option<u64>,
    /// How it ended: `done`, `failed` or `cancelled`.
    pub last_phase: Option<&'static str>,
    /// Why it failed, and what to do, in sentences.
    pub last_failure: Option<String>,
    /// Its archives.
    pub sizes: Sizes,
}

impl ConfigRow {
    /// Of a record.
    #[must_use]
    pub fn of(c: &Context<'_>, config: &BackupConfig) -> ConfigRow {
        let name = config.name();
        let last_good = c.figures.last_good(&name).map(|archive| archive.end);
        let age = last_good.map(|last| c.now.seconds_since(last));
        // Of a new config nothing can be expected yet.
        let since = last_good.unwrap_or(config.created);
        let overdue = c.now.seconds_since(since) > f64::from(config.target_age_hours) * 3600.0;
        let last = c.figures.last_ended(&name);
        ConfigRow {
            name: name.to_string(),
            client: config.client.to_string(),
            label: config.label.to_string(),
            repository: config.repository.to_string(),
            paths: config.paths.clone(),
            target_age_hours: config.target_age_hours,
            last_good,
            age,
            overdue,
            last_job: last.map(|job| job.number),
            last_phase: last.map(|job| super::jobs::phase(job.state)),
            last_failure: last.and_then(|job| job.failure.as_ref()).map(model::Failure::line),
            sizes: c.figures.sums(&name).into(),
        }
    }

    /// Of all configs, by name.
    pub fn all(c: &Context<'_>) -> Result<Vec<ConfigRow>, Unanswered> {
        Ok(c.read.configs().list()?.iter().map(|config| ConfigRow::of(c, config)).collect())
    }
}

/// A client in the list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ClientRow {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// How it is reached: `local`, or `user@host`.
    pub connection: String,
    /// How many configs it has.
    pub configs: u64,
    /// The oldest of its configs' newest good backups. None: one of them has none, or there is no config.
    #[schemars(with = "Option<i64>")]
    pub last_good: Option<Timestamp>,
    /// How many of its configs are overdue.
    pub overdue: u64,
    /// Its archives, also those of configs that are gone.
    pub sizes: Sizes,
}

impl ClientRow {
    fn of(client: &Client, configs: &[ConfigRow], sizes: Option<&Sums>) -> ClientRow {
        let connection = match &client.connection {
            Connection::Local { .. } => "local".to_owned(),
            Connection::Ssh(ssh) => ssh.remote.clone(),
        };
        ClientRow {
            name: client.name.to_string(),
            description: client.description.clone(),
            connection,
            configs: configs.len() as u64,
            last_good: configs.iter().map(|config| config.last_good).min().flatten(),
            overdue: configs.iter().filter(|config| config.overdue).count() as u64,
            sizes: sizes.copied().unwrap_or_default().into(),
        }
    }
}

/// All clients.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "clients.html")]
pub struct ClientsPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// By name.
    pub clients: Vec<ClientRow>,
}

impl ClientsPage {
    /// All of them.
    pub fn new(c: &Context<'_>) -> Result<ClientsPage, Unanswered> {
        let mut configs: BTreeMap<String, Vec<ConfigRow>> = BTreeMap::new();
        for config in ConfigRow::all(c)? {
            configs.entry(config.client.clone()).or_default().push(config);
        }
        let sizes = c.figures.clients();
        let of =
            |client: &Client| ClientRow::of(client, configs.get(client.name.as_str()).map_or(&[], Vec::as_slice), sizes.get(&client.name));
        Ok(ClientsPage { frame: c.frame("clients"), clients: c.read.clients().list()?.iter().map(of).collect() })
    }
}

/// One client.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "client.html")]
pub struct ClientPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// As in the list.
    pub client: ClientRow,
    /// Its configs.
    pub configs: Vec<ConfigRow>,
    /// Its newest archives, at most 60.
    pub archives: Vec<ArchiveRow>,
    /// Its newest jobs, at most 10.
    pub jobs: Vec<JobRow>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) charts: Vec<Chart>,
}

impl ClientPage {
    /// By name.
    pub fn new(c: &Context<'_>, name: &ClientName) -> Result<ClientPage, Unanswered> {
        let client = c.read.clients().get(name)?.ok_or_else(|| Unanswered::NotFound(format!("there is no client {name}")))?;
        let configs: Vec<ConfigRow> = c.read.configs().of_client(name)?.iter().map(|config| ConfigRow::of(c, config)).collect();
        let filter = ArchiveFilter { client: Some(name.clone()), ..ArchiveFilter::default() };
        let archives: Vec<ArchiveRow> = c.read.archives().page(&filter, HISTORY)?.iter().map(ArchiveRow::of).collect();
        let jobs = c.read.jobs().page(&JobFilter { client: Some(name.clone()), ..JobFilter::default() }, JOBS)?;
        Ok(ClientPage {
            frame: c.frame("clients"),
            client: ClientRow::of(&client, &configs, c.figures.clients().get(name)),
            charts: Chart::history(&archives),
            configs,
            archives,
            jobs: c.rows(&jobs),
        })
    }
}
