//! `borgcube run`.

use super::wait;
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::shown;
use clap_complete::ArgValueCandidates;
use model::ConfigName;
use model::names::check_archive_name;
use wire::control::{Call, JobNumber};

/// Options of `borgcube run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube run web1/etc
  borgcube run web1/etc --wait
  borgcube run web1/etc --name web1-before-upgrade --wait --quiet")]
pub struct Args {
    /// Backup config
    #[arg(value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    config: ConfigName,
    /// Give the archive this name instead of CLIENT-LABEL-TIME-JOB
    #[arg(long, value_name = "ARCHIVE")]
    name: Option<String>,
    /// Show progress until the job has ended; the exit code tells how
    #[arg(long, short)]
    wait: bool,
    /// Try it again later if it fails for a cause that deserves it; without --wait that is a matter of course
    #[arg(long)]
    retry: bool,
}

/// Puts a job into the queue.
pub fn run(args: Args, context: &Context) -> Result<()> {
    if let Some(name) = &args.name {
        check_archive_name(name).map_err(|e| Error::usage(e.to_string()))?;
    }
    let call = Call::RunConfig { config: args.config.clone(), archive_name: args.name, retry: args.retry || !args.wait };
    queued(call, args.wait, context)
}

/// Asks for a job with a call that is answered with its number, and waits for its end if that is wanted.
pub fn queued(call: Call, wait: bool, context: &Context) -> Result<()> {
    // Before the job exists: a Ctrl-C right behind it must not be lost.
    let interrupts = wait.then(wait::interrupts).transpose()?;
    let number: JobNumber = context.control()?.call(call)?;
    for warning in &number.warnings {
        context.note(&format!("Warning: {}", shown(warning)));
    }
    match interrupts {
        Some(interrupts) => {
            context.note(&format!("Job {} is in the queue.", number.job));
            wait::until_end(number.job, &interrupts, context)
        }
        None => {
            let sentence = format!("Job {0} is in the queue. Follow it with: borgcube job wait {0}", number.job);
            context.done(&number, &sentence)
        }
    }
}
