//! The configuration as one text that can live in git: written, read, compared. See borgcube.toml(5).
//!
//! | module | |
//! |---|---|
//! | `kind`, `fields` | what there is: each kind of object, each field, once |
//! | `form` | how a field is written |
//! | `object` | a record as the file has it |
//! | `export` | configuration -> text |
//! | `parse` | text -> records, or all mistakes with their places |
//! | `plan` | what has to be done so that a server has what a file says |
//!
//! Nothing here knows a secret: passphrases and private keys are in no record, and the ids of triggers are left out.

mod export;
mod fields;
mod form;
mod kind;
mod object;
mod parse;
mod plan;
#[cfg(test)]
mod tests;

pub use export::{export, inline};
pub use fields::Field;
pub use form::Form;
pub use kind::{Kind, Record};
pub use object::Object;
pub use parse::{Document, Entry, Mistake, Place, parse};
pub use plan::{Change, Difference, Obstacle, Plan, Step, Verb, compare, plan};

use crate::{BackupConfig, CheckConfig, Client, Policy, Repository, Schedule, Settings, Trigger};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file's format; another one gets another number.
pub const FORMAT: u64 = 1;

/// Everything that people set up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Configuration {
    pub settings: Settings,
    pub repositories: Vec<Repository>,
    pub clients: Vec<Client>,
    pub configs: Vec<BackupConfig>,
    pub policies: Vec<Policy>,
    pub check_configs: Vec<CheckConfig>,
    pub schedules: Vec<Schedule>,
    pub triggers: Vec<Trigger>,
}

/// A record of the server, and what the file says of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    record: Record,
    object: Object,
}

impl Configuration {
    /// All records.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let settings = std::iter::once(Record::Settings(Box::new(self.settings.clone())));
        let repositories = self.repositories.iter().map(|repository| Record::Repository(Box::new(repository.clone())));
        let clients = self.clients.iter().map(|client| Record::Client(Box::new(client.clone())));
        let configs = self.configs.iter().map(|config| Record::Config(Box::new(config.clone())));
        let policies = self.policies.iter().map(|policy| Record::Policy(Box::new(policy.clone())));
        let check_configs = self.check_configs.iter().map(|config| Record::CheckConfig(Box::new(config.clone())));
        let schedules = self.schedules.iter().map(|schedule| Record::Schedule(Box::new(schedule.clone())));
        let triggers = self.triggers.iter().map(|trigger| Record::Trigger(Box::new(trigger.clone())));
        settings.chain(repositories).chain(clients).chain(configs).chain(policies).chain(check_configs).chain(schedules).chain(triggers)
    }

    /// Records with their objects, by kind and name.
    fn known(&self) -> BTreeMap<(Kind, String), Known> {
        let mut all: Vec<Known> = self.records().map(|record| Known { object: Object::of(&record), record }).collect();
        // Triggers that differ in nothing but whether they are enabled: those that are first, then as they were added.
        all.sort_by_key(|known| (known.object.get("enabled").is_some(), known.record.created()));
        numbered(all.into_iter(), |known| (known.object.kind, &known.object.name))
    }

    /// Its objects, in the order of kinds and names.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.known().into_values().map(|known| known.object).collect()
    }
}

/// By kind and name; what has the same name, as triggers may, is told apart by a number.
fn numbered<T>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> (Kind, &String)) -> BTreeMap<(Kind, String), T> {
    let mut all = BTreeMap::new();
    for item in items {
        let (kind, name) = key(&item);
        let mut number = 1;
        let mut numbered = (kind, name.clone());
        while all.contains_key(&numbered) {
            number += 1;
            numbered.1 = format!("{name} #{number}");
        }
        all.insert(numbered, item);
    }
    all
}
