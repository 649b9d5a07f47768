//! The command line of `borgcube-scheduler`.

use crate::{By, foreground, run, sync};
use clap::{CommandFactory, Parser, Subcommand};
use model::{ScheduleName, Timestamp};
use std::process::ExitCode;
use store::Store;
use unix::paths::Layout;

/// systemd: the unit whose elapsing started this service.
const ENV_TRIGGER_UNIT: &str = "TRIGGER_UNIT";
/// systemd: set for every process that belongs to a service.
const ENV_INVOCATION: &str = "INVOCATION_ID";

#[derive(Parser)]
#[command(
    name = "borgcube-scheduler",
    version,
    about = "Turns what is due into jobs. Started by timers; people use `borgcube schedule`.",
    after_help = "The database decides what is due. To be started once too often, too early or twice at the same time does no harm."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create the jobs of what is due in the schedule NAME; started by hand, without a timer: run its actions now.
    Run {
        /// The schedule's name.
        name: ScheduleName,
    },
    /// Start what is due in all schedules, and write down which timers there should be.
    Sync,
    /// Stay in the foreground and start what is due at its time, for machines without systemd.
    Loop,
}

/// The command line's definition, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    unix::logging::init("borgcube-scheduler");
    match program(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn program(command: Command) -> anyhow::Result<()> {
    let layout = Layout::from_env()?;
    let store = Store::open(layout.db())?;
    match command {
        Command::Run { name } => run(&store, &layout, &name, &by(), Timestamp::now()),
        Command::Sync => sync(&store, &layout, Timestamp::now()),
        Command::Loop => foreground(&store, &layout),
    }
}

/// A timer names itself; without one it was `systemctl start`, or a shell.
fn by() -> By {
    if std::env::var_os(ENV_TRIGGER_UNIT).is_some_and(|unit| !unit.is_empty()) {
        return By::Timer;
    }
    let uid = unix::socket::own_uid();
    let user = unix::socket::user_name(uid).ok().flatten().unwrap_or_else(|| uid.to_string());
    By::Hand(if std::env::var_os(ENV_INVOCATION).is_some() { "systemctl".to_owned() } else { format!("user:{user}") })
}
