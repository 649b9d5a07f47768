//! `borgcube-timers`: from the spool to timers of systemd. Root, because systemd asks for that; so it reads little, believes nothing, and
//! formats every line itself.

mod dropin;
mod plan;
mod systemctl;

use crate::spool::{self, Entry};
use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use model::ScheduleName;
use plan::{Plan, Present};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use systemctl::Systemctl;
use unix::paths::{Layout, SYSTEM_STATE};

/// Units that exist until the next boot.
const RUNTIME_UNITS: &str = "/run/systemd/system";
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// Schedules that are looked at; who can fill the spool shall not fill more than that.
const MAX_ENTRIES: usize = 10_000;

#[derive(Parser)]
#[command(
    name = "borgcube-timers",
    version,
    about = "Makes the timers of systemd follow the schedules. Started by systemd as root, not by people."
)]
struct Arguments {
    /// The spool that borgcube-scheduler writes.
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Where drop-ins of units are written.
    #[arg(long, value_name = "DIR", default_value = RUNTIME_UNITS)]
    units: PathBuf,
    /// The program that talks to systemd.
    #[arg(long, value_name = "PATH", default_value = SYSTEMCTL)]
    systemctl: PathBuf,
}

/// The command line's definition, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    unix::logging::init("borgcube-timers");
    let arguments = Arguments::parse();
    let spool = arguments.spool.unwrap_or_else(|| Layout::new(Path::new(SYSTEM_STATE)).timers());
    match follow(&spool, &arguments.units, &arguments.systemctl) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the timers below `units` follow the files in `spool`.
pub fn follow(spool: &Path, units: &Path, systemctl: &Path) -> anyhow::Result<()> {
    if !units.is_dir() {
        bail!("{} does not exist, so systemd does not run here; without it `borgcube-scheduler loop` starts what is due", units.display());
    }
    let (wanted, refused) = read_spool(spool)?;
    let systemctl = Systemctl::new(systemctl);
    let present = dropin::list(units)?;
    let states = systemctl.states(wanted.keys())?;
    let present = Present { dropins: present, elapsed_or_stopped: states };
    let plan = Plan::of(&wanted, &refused, &present);
    for (name, text) in &plan.write {
        dropin::write(units, name, text)?;
    }
    systemctl.stop(&plan.remove)?;
    for name in &plan.remove {
        dropin::remove(units, name)?;
    }
    if plan.reload() {
        systemctl.reload()?;
    }
    systemctl.restart(&plan.restart)?;
    log::info!(
        "{} timers: {} new or changed, {} removed, {} started",
        wanted.len(),
        plan.write.len(),
        plan.remove.len(),
        plan.restart.len()
    );
    if let Some(name) = refused.first() {
        bail!("the file of schedule {name} in {} is not what borgcube-scheduler writes; its timer is as before", spool.display());
    }
    Ok(())
}

/// The files that make sense, and the schedules of those that do not.
fn read_spool(spool: &Path) -> anyhow::Result<(BTreeMap<ScheduleName, Entry>, Vec<ScheduleName>)> {
    let (mut wanted, mut refused) = (BTreeMap::new(), vec![]);
    let files = std::fs::read_dir(spool).with_context(|| format!("cannot read the spool {}", spool.display()))?;
    for file in files {
        let file = file?;
        // Temporary files of a write that is under way, and whatever else is none of ours.
        let Some(name) = file.file_name().to_str().and_then(spool::schedule_of) else { continue };
        if wanted.len() + refused.len() >= MAX_ENTRIES {
            bail!("there are more than {MAX_ENTRIES} files in {}", spool.display());
        }
        let bytes = unix::files::read_small(&file.path(), spool::MAX_SIZE).map_err(|e| e.to_string());
        let entry = bytes.and_then(|bytes| match bytes {
            Some(bytes) => Entry::parse(&name, &bytes).map(Some),
            // Removed since it was listed.
            None => Ok(None),
        });
        match entry {
            Ok(Some(entry)) => drop(wanted.insert(name, entry)),
            Ok(None) => {}
            Err(why) => {
                log::error!("{}: {}", file.path().display(), unix::logging::escape(&why));
                refused.push(name);
            }
        }
    }
    Ok((wanted, refused))
}
