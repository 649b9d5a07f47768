//! Check configs, and what checks have found.

use super::Daemon;
use super::errors::{from_store, refuse, refuse_in};
use model::check::{CheckPlan, Repositories};
use model::{Action, CheckConfig, CheckName, Job, Timestamp};
use store::{Read, Result};
use wire::control::{CheckConfigs, ControlError, ErrorKind, Healths};

type Answered<T> = std::result::Result<T, ControlError>;

fn missing(name: &CheckName) -> store::Error {
    refuse_in(ErrorKind::NotFound, format!("there is no check config {name}; `borgcube check-config list` shows what there is"))
}

pub(super) fn check(config: &CheckConfig) -> Answered<()> {
    config.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))
}

/// A repository that it names exists.
pub(super) fn check_references(r: &Read<'_>, config: &CheckConfig) -> Result<()> {
    match &config.repositories {
        Repositories::Named(name) if !r.repositories().exists(name)? => {
            let message = format!("there is no repository {name}; `borgcube repository list` shows what there is");
            Err(refuse_in(ErrorKind::NotFound, message))
        }
        _ => Ok(()),
    }
}

/// No schedule checks by it.
pub(super) fn refuse_named(r: &Read<'_>, name: &CheckName) -> Result<()> {
    let names = |action: &Action| matches!(action, Action::CheckBy { config } if config == name);
    let schedules = r.schedules().list()?;
    match schedules.iter().find(|schedule| schedule.actions.iter().any(names)) {
        Some(schedule) => {
            let message = format!("schedule {} checks by config {name}; change or remove that schedule first", schedule.name);
            Err(refuse_in(ErrorKind::Conflict, message))
        }
        None => Ok(()),
    }
}

impl Daemon {
    pub(super) fn list_check_configs(&self) -> Answered<CheckConfigs> {
        self.store.read(|r| Ok(CheckConfigs { configs: r.check_configs().list()? })).map_err(from_store)
    }

    pub(super) fn add_check_config(&mut self, mut config: CheckConfig, actor: &str) -> Answered<()> {
        check(&config)?;
        config.created = Timestamp::now();
        let written = self.store.write(&format!("add check config {}", config.name), actor, |w| {
            if w.view().check_configs().exists(&config.name)? {
                let message = format!(
                    "there is a check config {} already; choose another name, or change it with `borgcube check-config edit`",
                    config.name
                );
                return Err(refuse_in(ErrorKind::AlreadyExists, message));
            }
            check_references(&w.view(), &config)?;
            w.check_configs().insert(&config)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn update_check_config(&mut self, previous: &CheckConfig, mut config: CheckConfig, actor: &str) -> Answered<()> {
        if config.name != previous.name {
            let message =
                format!("check config {} cannot be renamed to {}: remove it and add it under the new name", previous.name, config.name);
            return Err(refuse(ErrorKind::InvalidArgument, message));
        }
        check(&config)?;
        config.created = previous.created;
        let written = self.store.write(&format!("change check config {}", config.name), actor, |w| {
            let stored = w.view().check_configs().get(&config.name)?.ok_or_else(|| missing(&config.name))?;
            if stored != *previous {
                let message =
                    format!("check config {} was changed by somebody else meanwhile; look at it again and repeat your change", config.name);
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            check_references(&w.view(), &config)?;
            w.check_configs().put(&config)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn remove_check_config(&mut self, name: &CheckName, actor: &str) -> Answered<()> {
        let written = self.store.write(&format!("remove check config {name}"), actor, |w| {
            if !w.view().check_configs().exists(name)? {
                return Err(missing(name));
            }
            refuse_named(&w.view(), name)?;
            w.check_configs().remove(name).map(drop)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn list_health(&self) -> Answered<Healths> {
        self.store.read(|r| Ok(Healths { health: r.health().list()? })).map_err(from_store)
    }
}

/// What a check has to look at, as its config is when the job begins; or the sentence that says what is missing. A check that begins again
/// because its owner was restarted goes on where it was.
pub(super) fn plan(
    r: &Read<'_>,
    job: &Job,
    verify_data: bool,
    config: Option<&CheckName>,
) -> Result<std::result::Result<CheckPlan, String>> {
    let since = Some(Timestamp::now());
    let Some(name) = config else { return Ok(Ok(CheckPlan { since, ..CheckPlan::everything(verify_data) })) };
    let Some(config) = r.check_configs().get(name)? else { return Ok(Err(format!("check config {name} was removed"))) };
    let is_meant = config.repositories.choose(job.repository.clone());
    Ok(match is_meant {
        Ok(chosen) if chosen.is_empty() => Err(format!("check config {name} is not for the repository of {} any more", job.subject())),
        Ok(_) => Ok(CheckPlan { since, ..config.plan }),
        Err(why) => Err(why),
    })
}
