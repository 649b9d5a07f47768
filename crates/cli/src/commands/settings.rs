//! `borgcube settings`.

use super::edit::{put, something};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::cards;
use clap::Subcommand;
use model::Settings;
use serde::Deserialize;
use wire::control::Call;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the settings
    Show,
    /// Change the settings
    Edit(Edit),
}

/// Options of `borgcube settings edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  borgcube settings edit --per-client 1 --per-repository 4 --total 8")]
pub struct Edit {
    /// Run at most so many jobs on one client at once
    #[arg(long, value_name = "JOBS")]
    per_client: Option<u32>,
    /// Run at most so many jobs on one repository at once
    #[arg(long, value_name = "JOBS")]
    per_repository: Option<u32>,
    /// Run at most so many jobs in all at once
    #[arg(long, value_name = "JOBS")]
    total: Option<u32>,
}

/// The answer of [`Call::GetSettings`].
#[derive(Debug, Deserialize)]
struct Stored {
    settings: Settings,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let Stored { settings: previous } = control.call(Call::GetSettings {})?;
    let Command::Edit(args) = command else {
        return context.show(&previous, &cards::settings(&previous));
    };
    if [args.per_client, args.per_repository, args.total].contains(&Some(0)) {
        return Err(Error::usage("a limit is at least 1"));
    }
    let mut settings = previous.clone();
    put(&mut settings.limits.per_client, args.per_client);
    put(&mut settings.limits.per_repository, args.per_repository);
    put(&mut settings.limits.total, args.total);
    something(&previous, &settings, "settings edit")?;
    control.tell(Call::UpdateSettings { previous, settings: settings.clone() })?;
    context.done(&settings, "Changed the settings.")
}
