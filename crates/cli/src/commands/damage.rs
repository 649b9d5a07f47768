//! `borgcube repository damage`, and what else checks have found.

use super::repository;
use crate::context::Context;
use crate::control::Control;
use crate::error::Result;
use crate::output::checks;
use model::check::Health;
use model::{Repository, RepositoryName};
use serde::Serialize;
use std::process::ExitCode;
use wire::control::{Call, Healths};

/// Exit code when something is damaged.
const DAMAGED: u8 = 1;

/// A repository with what checks have found.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// The record.
    #[serde(flatten)]
    pub repository: Repository,
    /// None: it was never checked.
    pub health: Option<Health>,
}

/// Puts both together.
pub fn checked(repositories: Vec<Repository>, control: &mut Control) -> Result<Vec<Checked>> {
    let mut health = all(control)?;
    let mut with_health = |repository: Repository| {
        let at = health.iter().position(|health| health.repository == repository.name);
        Checked { health: at.map(|at| health.swap_remove(at)), repository }
    };
    Ok(repositories.into_iter().map(&mut with_health).collect())
}

/// What is known of all repositories that were ever checked.
pub fn all(control: &mut Control) -> Result<Vec<Health>> {
    Ok(control.call::<Healths>(Call::ListHealth {})?.health)
}

/// Shows it; the exit code tells whether anything is damaged.
pub fn run(name: &RepositoryName, context: &Context) -> Result<ExitCode> {
    let mut control = context.control()?;
    repository::find(&mut control, name)?;
    let health = all(&mut control)?.into_iter().find(|health| health.repository == *name);
    let damage = health.as_ref().and_then(|health| Some((health, health.damage.as_ref()?)));
    if context.json {
        context.print_json(&damage.map(|(_, damage)| damage))?;
    } else {
        match (&damage, &health) {
            (Some((health, damage)), _) => context.show(damage, &checks::damage(health, damage))?,
            (None, Some(health)) => {
                context.say(&format!("Nothing is known to be damaged in repository {name}, checked at {}.", health.checked.to_local()))?;
            }
            (None, None) => context.say(&format!("Repository {name} was never checked: borgcube repository check {name}"))?,
        }
    }
    Ok(if damage.is_some() { ExitCode::from(DAMAGED) } else { ExitCode::SUCCESS })
}
