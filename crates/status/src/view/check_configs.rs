//! Check configs: what of which repositories is checked how often.

use super::{Context, Frame};
use crate::query::Unanswered;
use crate::text;
use askama::Template;
use model::CheckConfig;
use model::check::days;
use schemars::JsonSchema;
use serde::Serialize;

/// A check config.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckConfigRow {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Which repositories: a name, or a regular expression between slashes.
    pub repositories: String,
    /// What is checked: `structure, archives, data`.
    pub parts: String,
    /// Everything is checked once in so many hours.
    pub promise_hours: u32,
    /// What was checked less than so many hours ago is left out.
    pub skip_hours: u32,
    /// A check ends after so many seconds.
    pub seconds: Option<u32>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) every: String,
}

impl CheckConfigRow {
    fn of(config: &CheckConfig) -> CheckConfigRow {
        CheckConfigRow {
            name: config.name.to_string(),
            description: config.description.clone(),
            repositories: config.repositories.to_string(),
            parts: config.plan.parts(),
            promise_hours: config.plan.promise_hours,
            skip_hours: config.plan.skip_hours,
            seconds: config.plan.seconds,
            every: days(config.plan.promise_hours),
        }
    }
}

/// Check configs.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "check-configs.html")]
pub struct CheckConfigsPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// By name.
    pub check_configs: Vec<CheckConfigRow>,
}

impl CheckConfigsPage {
    /// All of them.
    pub fn new(c: &Context<'_>) -> Result<CheckConfigsPage, Unanswered> {
        let check_configs = c.read.check_configs().list()?.iter().map(CheckConfigRow::of).collect();
        Ok(CheckConfigsPage { frame: c.frame("schedules"), check_configs })
    }
}
