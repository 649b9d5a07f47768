//! `borgcube prune`: policies decide, and what is due goes.

use super::wait;
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{bytes, count, shown};
use crate::owner_link::OwnerLink;
use clap_complete::ArgValueCandidates;
use model::{Cause, PolicyName, RepositoryName, Work};
use serde::Serialize;
use std::process::ExitCode;
use unix::signals::Signals;
use wire::control::{Call, DueArchives, Pruned, RefusedRepository, RetentionFilter, StoppedGroup};
use wire::maintenance::{Operation, Report};

/// Exit code when something stopped pruning.
const STOPPED: u8 = 1;

/// Options of `borgcube prune`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An archive that goes is deleted when its grace period is over: by the first prune behind it. borgcube policy preview says
beforehand what happens. Exit code 1: pruning of a config is stopped, see borgcube policy confirm --help, or a repository is damaged and
nothing of it is pruned, see borgcube repository damage.

Examples:
  borgcube prune --compact
  borgcube prune standard --client 'web[0-9]+'"
)]
pub struct Prune {
    /// Prune what this policy decides about only
    #[arg(value_name = "POLICY", add = ArgValueCandidates::new(complete::policies))]
    policy: Option<PolicyName>,
    /// Prune archives of clients whose whole name matches this regular expression only
    #[arg(long, short, value_name = "REGEX")]
    client: Option<String>,
    /// Prune archives of configs whose whole label matches this regular expression only
    #[arg(long, short, value_name = "REGEX")]
    label: Option<String>,
    /// Prune this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Give the space back as well, where something was deleted
    #[arg(long)]
    compact: bool,
}

/// What was deleted in one repository.
#[derive(Debug, Serialize)]
struct Deleted {
    repository: RepositoryName,
    archives: Vec<String>,
    /// Bytes that a compact can free.
    bytes: u64,
    kept_because: Option<String>,
    /// Bytes that a compact has freed. None: none was asked for.
    freed: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Done {
    marked: Vec<String>,
    /// Archives that waited for the end of their grace period before.
    pending: u64,
    deleted: Vec<Deleted>,
    stopped: Vec<StoppedGroup>,
    /// Repositories of which nothing was pruned.
    refused: Vec<RefusedRepository>,
}

/// Does it.
pub fn run(args: &Prune, context: &Context) -> Result<ExitCode> {
    let (policy, client, label, repository) = (args.policy.clone(), args.client.clone(), args.label.clone(), args.repository.clone());
    let filter = RetentionFilter { policy, client, label, repository, instead: None, going: false };
    let Pruned { marked, due, stopped, left, pending, refused } =
        context.control()?.call::<Pruned>(Call::PruneArchives { filter: Box::new(filter) })?;
    context.say(&decided(marked.len() as u64, pending))?;
    for RefusedRepository { why, .. } in &refused {
        context.note(&format!("borgcube: {}: {}", Cause::RepositoryCheckNeeded.word(), shown(why)));
    }
    for StoppedGroup { config, repository, why } in &stopped {
        context.note(&format!("borgcube: pruning of {config} in {repository} is stopped: {}", shown(why)));
    }
    if left > 0 {
        context.note(&format!("borgcube: {} more go and are left to the next prune", count(left, "archive")));
    }
    let mut interrupts = wait::interrupts()?;
    let mut deleted = vec![];
    for due in due {
        let done = delete(&due, args.compact, &mut interrupts, context)?;
        context.say(&sentence(&done))?;
        deleted.push(done);
    }
    let code = if stopped.is_empty() && refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(STOPPED) };
    if context.json {
        context.print_json(&Done { marked, pending, deleted, stopped, refused })?;
    }
    Ok(code)
}

fn delete(due: &DueArchives, compact: bool, interrupts: &mut Signals, context: &Context) -> Result<Deleted> {
    let DueArchives { repository, archives } = due;
    let operation = Operation::DeleteDue { archives: archives.clone(), compact: compact.then_some(Work::THRESHOLD) };
    let link = OwnerLink::ask(repository, operation, context)?;
    match link.report(&format!("prune of {repository}"), interrupts, context)? {
        Report::Pruned { archives, bytes, kept_because, freed, .. } => {
            Ok(Deleted { repository: repository.clone(), archives, bytes, kept_because, freed })
        }
        _ => Err(Error::failed("the repository's owner reports something else than what was asked for")),
    }
}

/// What is to go: from now on, and since an earlier prune or `archive delete`.
fn decided(marked: u64, pending: u64) -> String {
    let new = format!("{} will be deleted when the grace period is over", count(marked, "archive"));
    match pending {
        0 => format!("{new}."),
        1 => format!("{new}; 1 more was waiting for that already."),
        n => format!("{new}; {n} more were waiting for that already."),
    }
}

fn sentence(deleted: &Deleted) -> String {
    let Deleted { repository, archives, bytes: size, kept_because, freed } = deleted;
    let what = count(archives.len() as u64, "archive");
    let mut text = match freed {
        Some(freed) => format!("Deleted {what} from repository {repository}; {} are free again.", bytes(*freed)),
        None => format!("Deleted {what} from repository {repository}; a compact can free {}.", bytes(*size)),
    };
    if let Some(why) = kept_because {
        text.push_str(&format!(" Some chunks stay: {}.", shown(why).trim_end_matches('.')));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waiting_is_said_beside_what_is_new() {
        assert_eq!(decided(2, 0), "2 archives will be deleted when the grace period is over.");
        assert_eq!(decided(0, 1), "0 archives will be deleted when the grace period is over; 1 more was waiting for that already.");
        assert_eq!(decided(1, 3), "1 archive will be deleted when the grace period is over; 3 more were waiting for that already.");
    }
}
