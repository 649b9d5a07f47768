//! The kinds of objects. A new kind gets a variant here, its fields in `fields`, and is then exported, compared and documented.

use super::fields::{self, Field};
use crate::check::{CheckPlan, Repositories};
use crate::names::{CheckName, ClientName, ConfigName, PolicyName, RepositoryName, ScheduleName};
use crate::queue::Limits;
use crate::retention::Scope;
use crate::schedule::Action;
use crate::settings::SessionLimits;
use crate::trigger::{TriggerId, TriggerTarget};
use crate::web_user::WebSettings;
use crate::{BackupConfig, CheckConfig, Client, Policy, Repository, Schedule, Settings, Timestamp, Trigger, validate};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// What there is, in the order in which it is written and applied: nothing refers to what comes behind it, but schedules to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What holds for the whole server.
    Settings,
    /// Repositories.
    Repository,
    /// Clients.
    Client,
    /// Backup configs.
    Config,
    /// Retention policies.
    Policy,
    /// Check configs.
    CheckConfig,
    /// Schedules.
    Schedule,
    /// Triggers.
    Trigger,
}

/// A record of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "record", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Record {
    Settings(Box<Settings>),
    Repository(Box<Repository>),
    Client(Box<Client>),
    Config(Box<BackupConfig>),
    Policy(Box<Policy>),
    CheckConfig(Box<CheckConfig>),
    Schedule(Box<Schedule>),
    Trigger(Box<Trigger>),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] =
        [Kind::Settings, Kind::Repository, Kind::Client, Kind::Config, Kind::Policy, Kind::CheckConfig, Kind::Schedule, Kind::Trigger];

    /// As the file and the commands call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Settings => "settings",
            Kind::Repository => "repository",
            Kind::Client => "client",
            Kind::Config => "config",
            Kind::Policy => "policy",
            Kind::CheckConfig => "check-config",
            Kind::Schedule => "schedule",
            Kind::Trigger => "trigger",
        }
    }

    /// How its tables begin, for the manual.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Kind::Settings => "[settings]",
            Kind::Repository => "[repository.NAME]",
            Kind::Client => "[client.NAME]",
            Kind::Config => "[config.\"CLIENT/LABEL\"]",
            Kind::Policy => "[policy.NAME]",
            Kind::CheckConfig => "[check-config.NAME]",
            Kind::Schedule => "[schedule.NAME]",
            Kind::Trigger => "[[trigger]]",
        }
    }

    /// What it is, for the manual.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Kind::Settings => "What holds for the whole server; see borgcube-settings-edit(1) for what happens beyond a limit.",
            Kind::Repository => {
                "A repository. It is added and removed with borgcube repository add and remove, because its passphrase and its key are not \
                 here; what can be changed without them is."
            }
            Kind::Client => "A host that is backed up. A name with a dot in it is written in quotes: [client.\"web1.example.net\"].",
            Kind::Config => "What one backup of a client has in it.",
            Kind::Policy => "A retention policy: which archives are kept. What borgcube policy confirm said stays on the server.",
            Kind::CheckConfig => {
                "What of which repositories is checked, and how often. A schedule checks by it with the action \
                 { kind = \"check-by\", config = \"NAME\" }."
            }
            Kind::Schedule => "When something is done, and what.",
            Kind::Trigger => {
                "An id that lets others start a schedule or a config. The id is a secret, made by the server and shown by borgcube trigger \
                 list; a trigger is known by its target, its access and its comment, so what has other ones is another trigger."
            }
        }
    }

    /// Its fields, in the order in which they are written.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        match self {
            Kind::Settings => fields::SETTINGS,
            Kind::Repository => fields::REPOSITORY,
            Kind::Client => fields::CLIENT,
            Kind::Config => fields::CONFIG,
            Kind::Policy => fields::POLICY,
            Kind::CheckConfig => fields::CHECK_CONFIG,
            Kind::Schedule => fields::SCHEDULE,
            Kind::Trigger => fields::TRIGGER,
        }
    }

    /// Other fields that say the same thing of a record in another way: an object has one of them.
    pub fn alternatives(self, field: &Field) -> impl Iterator<Item = &'static Field> {
        self.fields().iter().filter(move |other| other.path == field.path && other.name != field.name)
    }

    /// A record with nothing in it but its name: what fields have that the file does not mention. The error says what is wrong with the name.
    pub(super) fn blank(self, name: &str) -> Result<Value, String> {
        let sentence = |e: crate::names::NameError| e.to_string();
        Ok(match self {
            Kind::Settings => {
                let (limits, sessions, web) = (Limits::default(), SessionLimits::default(), WebSettings::default());
                json!({"server_id": "", "limits": limits, "sessions": sessions, "web": web})
            }
            Kind::Repository => {
                let name: RepositoryName = name.parse().map_err(sentence)?;
                json!({"name": name, "url": "", "repository_id": "", "encryption": "none", "created": 0})
            }
            Kind::Client => {
                let name: ClientName = name.parse().map_err(sentence)?;
                json!({"name": name, "connection": {"kind": "ssh", "remote": ""}, "created": 0})
            }
            Kind::Config => {
                let name: ConfigName = name.parse().map_err(sentence)?;
                json!({"client": name.client, "label": name.label, "repository": "x", "paths": [],
                       "target_age_hours": BackupConfig::TARGET_AGE_HOURS, "created": 0})
            }
            Kind::Policy => {
                let name: PolicyName = name.parse().map_err(sentence)?;
                json!({"name": name, "minimum": Policy::MINIMUM, "zone": "UTC", "most_per_day": Policy::MOST_PER_DAY,
                       "grace_hours": Policy::GRACE_HOURS, "applies": [], "created": 0})
            }
            Kind::CheckConfig => {
                let name: CheckName = name.parse().map_err(sentence)?;
                let plan = CheckPlan::everything(false);
                let blank = CheckConfig {
                    name,
                    description: String::new(),
                    repositories: Repositories::Matching(String::new()),
                    plan,
                    created: Timestamp::default(),
                };
                serde_json::to_value(blank).map_err(|e| e.to_string())?
            }
            Kind::Schedule => {
                let name: ScheduleName = name.parse().map_err(sentence)?;
                let never = json!({"text": "daily 00:00 UTC", "lines": ["DTSTART:20260101T120000Z", "RRULE:FREQ=DAILY"]});
                json!({"name": name, "recurrence": never, "enabled": true, "actions": [], "handled": 0, "created": 0})
            }
            Kind::Trigger => {
                let target = json!({"kind": "schedule", "schedule": "x"});
                json!({"id": TriggerId::from_random([0; 16]), "access": "local-cli", "enabled": true, "target": target, "created": 0})
            }
        })
    }

    /// Reads a record.
    pub(super) fn record(self, value: Value) -> Result<Record, String> {
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<Box<T>, String> {
            serde_json::from_value(value).map(Box::new).map_err(|e| e.to_string())
        }
        Ok(match self {
            Kind::Settings => Record::Settings(read(value)?),
            Kind::Repository => Record::Repository(read(value)?),
            Kind::Client => Record::Client(read(value)?),
            Kind::Config => Record::Config(read(value)?),
            Kind::Policy => Record::Policy(read(value)?),
            Kind::CheckConfig => Record::CheckConfig(read(value)?),
            Kind::Schedule => Record::Schedule(read(value)?),
            Kind::Trigger => Record::Trigger(read(value)?),
        })
    }
}

impl Record {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Record::Settings(_) => Kind::Settings,
            Record::Repository(_) => Kind::Repository,
            Record::Client(_) => Kind::Client,
            Record::Config(_) => Kind::Config,
            Record::Policy(_) => Kind::Policy,
            Record::CheckConfig(_) => Kind::CheckConfig,
            Record::Schedule(_) => Kind::Schedule,
            Record::Trigger(_) => Kind::Trigger,
        }
    }

    /// Its name. Of a trigger, what tells it apart without its id.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Record::Settings(_) => String::new(),
            Record::Repository(repository) => repository.name.to_string(),
            Record::Client(client) => client.name.to_string(),
            Record::Config(config) => config.name().to_string(),
            Record::Policy(policy) => policy.name.to_string(),
            Record::CheckConfig(config) => config.name.to_string(),
            Record::Schedule(schedule) => schedule.name.to_string(),
            Record::Trigger(trigger) => {
                let comment = if trigger.comment.is_empty() { String::new() } else { format!(" ({})", trigger.comment) };
                format!("of {} for {}{comment}", trigger.target, trigger.access)
            }
        }
    }

    /// As it is stored.
    pub(super) fn json(&self) -> Value {
        let json = match self {
            Record::Settings(settings) => {
                let mut json = serde_json::to_value(settings).unwrap_or_default();
                // Not stored while they are the defaults.
                json["sessions"] = serde_json::to_value(settings.sessions).unwrap_or_default();
                json["web"] = serde_json::to_value(settings.web).unwrap_or_default();
                return json;
            }
            Record::Repository(repository) => serde_json::to_value(repository),
            Record::Client(client) => serde_json::to_value(client),
            Record::Config(config) => serde_json::to_value(config),
            Record::Policy(policy) => serde_json::to_value(policy),
            Record::CheckConfig(config) => serde_json::to_value(config),
            Record::Schedule(schedule) => serde_json::to_value(schedule),
            Record::Trigger(trigger) => serde_json::to_value(trigger),
        };
        json.unwrap_or_default()
    }

    /// Says what is wrong with it, as the single commands do.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Record::Settings(settings) => validate::settings(settings, settings),
            Record::Repository(repository) => validate::repository(repository),
            Record::Client(client) => validate::client(client),
            Record::Config(config) => validate::config(config),
            Record::Policy(policy) => policy.check(),
            Record::CheckConfig(config) => config.check(),
            Record::Schedule(schedule) => schedule.check(),
            Record::Trigger(trigger) => trigger.check(),
        }
    }

    /// What has to be there for it: the field that says so (empty: the name), kind and name.
    pub(super) fn references(&self) -> Vec<(&'static str, Kind, String)> {
        match self {
            Record::Settings(_) | Record::Repository(_) | Record::Client(_) => vec![],
            Record::Config(config) => {
                vec![("", Kind::Client, config.client.to_string()), ("repository", Kind::Repository, config.repository.to_string())]
            }
            Record::Policy(policy) => {
                let named = policy.applies.iter().filter_map(|scope| match scope {
                    Scope::Config { config } => Some(("applies", Kind::Config, config.to_string())),
                    Scope::Configs { .. } => None,
                });
                named.collect()
            }
            Record::CheckConfig(config) => match &config.repositories {
                Repositories::Named(name) => vec![("repository", Kind::Repository, name.to_string())],
                Repositories::Matching(_) => vec![],
            },
            Record::Schedule(schedule) => schedule.actions.iter().flat_map(action).map(|(kind, name)| ("actions", kind, name)).collect(),
            Record::Trigger(trigger) => match &trigger.target {
                TriggerTarget::Schedule { schedule } => vec![("target", Kind::Schedule, schedule.to_string())],
                TriggerTarget::Config { config } => vec![("target", Kind::Config, config.to_string())],
            },
        }
    }

    /// The moment at which it was added.
    #[must_use]
    pub(super) fn created(&self) -> Timestamp {
        match self {
            Record::Trigger(trigger) => trigger.created,
            _ => Timestamp::default(),
        }
    }
}

/// What an action names.
fn action(action: &Action) -> Vec<(Kind, String)> {
    match action {
        Action::RunConfig { config } => vec![(Kind::Config, config.to_string())],
        Action::RunConfigs { .. } | Action::RestoreTest { .. } => vec![],
        Action::CheckBy { config } => vec![(Kind::CheckConfig, config.to_string())],
        Action::Check { repository, .. } | Action::Compact { repository } => vec![(Kind::Repository, repository.to_string())],
        Action::Prune { repository, policy, .. } => {
            let repository = repository.iter().map(|name| (Kind::Repository, name.to_string()));
            repository.chain(policy.iter().map(|name| (Kind::Policy, name.to_string()))).collect()
        }
        Action::EnableSchedule { schedule } | Action::DisableSchedule { schedule } => vec![(Kind::Schedule, schedule.to_string())],
    }
}
