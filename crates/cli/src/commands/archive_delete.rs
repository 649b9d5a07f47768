//! `borgcube archive delete`.

use super::policy::grace;
use super::{archive, confirm, retention, wait};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{bytes, count, lists, shown};
use crate::owner_link::OwnerLink;
use clap_complete::ArgValueCandidates;
use model::{Archive, RepositoryName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use unix::signals::Signals;
use wire::control::{Archives, Call};
use wire::maintenance::{Operation, Report};

/// Options of `borgcube archive delete`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "An archive is deleted when its grace period is over: as long as the policy has it that decides about the archive, or a week. Until
then it is as good as any other, and borgcube archive undelete keeps it. With --now it is deleted at once, for good.
Archives that a stock borg made or rewrote are named in full, with --repository, and have no grace period.
Backups go on meanwhile. The space comes back with: borgcube repository compact REPOSITORY

Examples:
  borgcube archive delete web1-etc-2026-11-01T02:00:00-17 --dry-run
  borgcube archive delete 5caa1e8b 77e0d2c4 --yes
  borgcube archive delete 5caa1e8b --now
  borgcube archive list --client old --json | jq -r '.[].id' | xargs borgcube archive delete --yes"
)]
pub struct Delete {
    /// Archives, each by its name, its id or the beginning of its id (at least 8 digits)
    #[arg(value_name = "ARCHIVE", required = true, add = ArgValueCandidates::new(complete::archives))]
    archives: Vec<String>,
    /// Look in this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Tell what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete at once, for good, without a grace period
    #[arg(long, conflicts_with = "grace")]
    now: bool,
    /// Wait so long before deleting: 36H, 7d
    #[arg(long, value_name = "INTERVAL", value_parser = grace)]
    grace: Option<u32>,
    /// Delete without asking
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
}

/// What became of the archives of one repository, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Deleted {
    repository: RepositoryName,
    archives: Vec<String>,
    chunks: u64,
    bytes: u64,
    kept_because: Option<String>,
    dry_run: bool,
}

/// Deletes them, repository by repository; all are known to exist before the first goes.
pub fn run(args: Delete, context: &Context) -> Result<()> {
    let mut found: Vec<Archive> = vec![];
    let mut foreign: Vec<String> = vec![];
    for name in &args.archives {
        let archive = match (archive::find(context, name, args.repository.clone())?, &args.repository) {
            (Some(archive), _) => archive,
            (None, Some(_)) => {
                if !foreign.contains(name) {
                    foreign.push(name.clone());
                }
                continue;
            }
            (None, None) => {
                let error = archive::unknown(name);
                return Err(error.hint("Archives that a stock borg made or rewrote need --repository REPOSITORY and their full name."));
            }
        };
        if !found.iter().any(|a| (&a.repository, &a.id) == (&archive.repository, &archive.id)) {
            found.push(archive);
        }
    }
    if let (false, false, Some(first)) = (args.now, args.dry_run, foreign.first()) {
        return Err(Error::usage(format!("BorgCube has no record of archive {}, so it can have no grace period", shown(first)))
            .hint("--now deletes it at once, for good."));
    }
    let asks = !args.yes && !args.dry_run;
    if asks && !io::stdin().is_terminal() {
        return Err(Error::usage("there is no terminal to ask whether that is meant")
            .hint("--yes deletes without asking; --dry-run tells what would go."));
    }
    let mut by_repository: BTreeMap<RepositoryName, Vec<String>> = BTreeMap::new();
    for archive in &found {
        by_repository.entry(archive.repository.clone()).or_default().push(archive.name.clone());
    }
    if let Some(repository) = args.repository.filter(|_| !foreign.is_empty()) {
        // The owner knows what is in the manifest, whoever wrote it.
        by_repository.entry(repository).or_default().extend(foreign.iter().cloned());
    }
    let mut interrupts = wait::interrupts()?;
    if asks {
        ask(&found, &foreign, &by_repository, &mut interrupts, context)?;
    }
    if !args.now && !args.dry_run {
        return later(&found, args.grace, context);
    }
    let mut done = vec![];
    for (repository, names) in &by_repository {
        let deleted = delete(repository, names, args.dry_run, &mut interrupts, context)?;
        context.say(&sentence(&deleted))?;
        done.push(deleted);
    }
    if context.json { context.print_json(&done) } else { Ok(()) }
}

/// Begins their grace period.
fn later(archives: &[Archive], grace_hours: Option<u32>, context: &Context) -> Result<()> {
    let call = Call::DeleteArchives { archives: retention::refs(archives), grace_hours };
    let going = context.control()?.call::<Archives>(call)?.archives;
    let due = going.iter().filter_map(|archive| archive.pending_deletion.as_ref()).map(|pending| pending.due).min();
    let from = due.map_or_else(String::new, |due| format!(" from {} on", due.to_local()));
    context.done(&going, &format!("Deleting {}{from}; until then borgcube archive undelete keeps what you name.", retention::named(&going)))
}

/// Shows what would go and asks a person.
fn ask(
    found: &[Archive],
    foreign: &[String],
    by_repository: &BTreeMap<RepositoryName, Vec<String>>,
    interrupts: &mut Signals,
    context: &Context,
) -> Result<()> {
    let mut text = if found.is_empty() { String::new() } else { lists::archives(found).render(true) };
    for name in foreign {
        text.push_str(&format!("{}: BorgCube has no record of it\n", shown(name)));
    }
    for (repository, names) in by_repository {
        text.push_str(&sentence(&delete(repository, names, true, interrupts, context)?));
        text.push('\n');
    }
    text.push_str(&format!("Delete {}?", if found.len() + foreign.len() == 1 { "it" } else { "them" }));
    let untouched = "nothing was deleted";
    if confirm::ask(&text, untouched, interrupts)? { Ok(()) } else { Err(Error::failed(untouched)) }
}

fn delete(repository: &RepositoryName, names: &[String], dry_run: bool, interrupts: &mut Signals, context: &Context) -> Result<Deleted> {
    let operation = Operation::Delete { archives: names.to_vec(), dry_run };
    let link = OwnerLink::ask(repository, operation, context)?;
    match link.report(&format!("delete in {repository}"), interrupts, context)? {
        Report::Deleted { archives, chunks, bytes, kept_because } => {
            Ok(Deleted { repository: repository.clone(), archives, chunks, bytes, kept_because, dry_run })
        }
        other => {
            log::debug!("{other:?}");
            Err(Error::failed("the repository's owner reports something else than what was asked for"))
        }
    }
}

fn sentence(deleted: &Deleted) -> String {
    let Deleted { repository, archives, chunks, bytes: size, kept_because, dry_run } = deleted;
    let what = match archives.as_slice() {
        [one] => format!("archive {}", shown(one)),
        many => count(many.len() as u64, "archive"),
    };
    let chunks = count(*chunks, "chunk");
    let mut text = match dry_run {
        true => format!("Would delete {what} from repository {repository}; a compact could then free {} in {chunks}.", bytes(*size)),
        false => format!("Deleted {what} from repository {repository}; a compact can free {} in {chunks}.", bytes(*size)),
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
    fn what_goes_and_what_it_frees() {
        let mut deleted = Deleted {
            repository: "main".parse().unwrap(),
            archives: vec!["a\u{1b}".into()],
            chunks: 1,
            bytes: 2_000_000,
            kept_because: None,
            dry_run: true,
        };
        let would = "Would delete archive a\\u{1b} from repository main; a compact could then free 2.00 MB in 1 chunk.";
        assert_eq!(sentence(&deleted), would);
        deleted.archives.push("b".into());
        deleted.dry_run = false;
        deleted.kept_because = Some("a foreign archive may need them.".into());
        let done = "Deleted 2 archives from repository main; a compact can free 2.00 MB in 1 chunk. Some chunks stay: a foreign archive may need them.";
        assert_eq!(sentence(&deleted), done);
    }
}
