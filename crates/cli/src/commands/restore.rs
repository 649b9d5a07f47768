//! `borgcube restore`.

use super::{archive, client, confirm, damage, wait};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::output::lists::road;
use crate::output::{Details, bytes, count, shown};
use ::archive::items::Items;
use ::archive::{Selection, Source};
use clap::ValueHint;
use clap_complete::ArgValueCandidates;
use model::check::Damage;
use model::restore::{Restore, Target};
use model::{Archive, Client, ClientName, RepositoryName};
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use wire::control::{Call, JobNumber};

/// Options of `borgcube restore`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A stock borg on the client extracts the archive, through this server: it can read this archive and nothing else, and
write nothing. Paths and patterns are those in the archive; `borgcube archive files ARCHIVE` shows them. Files
are extracted on the server itself, without a client, by `borgcube archive extract`.

Examples:
  borgcube restore web1-etc-2026-11-01T02:00:00-17 --dry-run
  borgcube restore web1-etc-2026-11-01T02:00:00-17 etc/ssh etc/hosts --wait
  borgcube restore 5caa1e8b --to-client spare --into /srv/restored --wait
  borgcube restore 5caa1e8b --in-place --yes --wait"
)]
pub struct Args {
    /// Archive, by its name, its id or the beginning of its id (at least 8 digits)
    #[arg(value_name = "ARCHIVE", add = ArgValueCandidates::new(complete::archives))]
    archive: String,
    /// Restore these only, with everything below them (default: everything)
    #[arg(value_name = "PATH", value_hint = ValueHint::Other)]
    paths: Vec<String>,
    /// Restore what Borg's pattern includes (+PATTERN) and not what it excludes (-PATTERN); repeatable
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pattern: Vec<String>,
    /// Leave out what Borg's pattern matches; repeatable
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    exclude: Vec<String>,
    /// Look for the archive in this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Restore to this client instead of the one that was backed up
    #[arg(long, value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    to_client: Option<ClientName>,
    /// Restore into this directory of the client, which is new or empty (default: a new one in the home of its user)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::Other, conflicts_with = "in_place")]
    into: Option<String>,
    /// Restore to where the files were, over what is there now
    #[arg(long)]
    in_place: bool,
    /// Make holes of blocks of zeros
    #[arg(long)]
    sparse: bool,
    /// Begin even if the target has less room than the archive's files need
    #[arg(long)]
    ignore_space: bool,
    /// Tell what would be restored and where to, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Restore without asking
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Show progress until the job has ended; the exit code tells how
    #[arg(long, short, conflicts_with = "dry_run")]
    wait: bool,
}

/// What would be done, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    repository: &'a RepositoryName,
    client: &'a ClientName,
    /// The archive is another client's.
    to_another_client: bool,
    restore: &'a Restore,
    /// Files and bytes in the whole archive.
    archive_files: u64,
    archive_bytes: u64,
    /// When the archive was made.
    time: model::Timestamp,
    warnings: Vec<String>,
    dry_run: bool,
}

/// Shows the plan, and puts a job into the queue.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let found = archive::find(context, &args.archive, args.repository.clone())?;
    let archive = found.ok_or_else(|| unknown(&args.archive))?;
    let target = match (args.in_place, &args.into) {
        (true, _) => Target::InPlace,
        (false, Some(directory)) => Target::Directory(directory.clone()),
        (false, None) => Target::New,
    };
    let restore = Restore {
        archive: archive.name.clone(),
        id: archive.id.clone(),
        of: archive.client.clone(),
        paths: args.paths,
        patterns: args.pattern,
        excludes: args.exclude,
        target,
        sparse: args.sparse,
        ignore_space: args.ignore_space,
    };
    restore.check().map_err(Error::usage)?;
    let name = args.to_client.as_ref().unwrap_or(&archive.client);
    let client = client::find(&mut context.control()?, name).map_err(|error| match (error.kind(), &args.to_client) {
        (Kind::NotFound, None) => error.hint("The archive's client is gone; --to-client names another one."),
        _ => error,
    })?;
    let mut warnings = warnings(&archive, &client, &restore);
    let health = damage::all(&mut context.control()?)?.into_iter().find(|health| health.repository == archive.repository);
    warnings.extend(health.and_then(|health| health.damage).and_then(|damage| damaged(&damage, &archive)));
    let mut plan = Plan {
        repository: &archive.repository,
        client: &client.name,
        to_another_client: client.name != archive.client,
        restore: &restore,
        archive_files: archive.statistics.nfiles,
        archive_bytes: archive.statistics.original_size,
        time: archive.start,
        warnings,
        dry_run: args.dry_run,
    };
    if args.dry_run {
        plan.warnings.extend(look(&archive, &restore.paths, context)?);
    }
    let text = card(&plan, &archive, &client);
    if args.dry_run {
        return context.show(&plan, &format!("{text}Nothing was restored.\n"));
    }
    let asks = matches!(restore.target, Target::InPlace) && !args.yes;
    if asks && !io::stdin().is_terminal() {
        return Err(Error::usage("a restore in place writes over what is there, and there is no terminal to ask whether that is meant")
            .hint("--yes does it without asking; --dry-run shows the plan."));
    }
    // Before the job exists: a Ctrl-C right behind it must not be lost.
    let interrupts = if args.wait || asks { Some(wait::interrupts()?) } else { None };
    if let Some(interrupts) = interrupts.as_ref().filter(|_| asks) {
        let untouched = "nothing was restored";
        if !confirm::ask(&format!("{text}Write over these files on {}?", client.name), untouched, interrupts)? {
            return Err(Error::failed(untouched));
        }
    } else {
        context.note(text.trim_end());
    }
    let call = Call::Restore { repository: archive.repository.clone(), client: client.name.clone(), restore: Box::new(restore.clone()) };
    let number: JobNumber = context.control()?.call(call)?;
    for warning in &number.warnings {
        context.note(&format!("Warning: {}", shown(warning)));
    }
    match interrupts.filter(|_| args.wait) {
        Some(interrupts) => {
            context.note(&format!("Job {} is in the queue{}.", number.job, into(&restore, number.job, &client.name)));
            wait::until_end(number.job, &interrupts, context)
        }
        None => {
            let into = into(&restore, number.job, &client.name);
            let sentence = format!("Job {0} is in the queue{into}. Follow it with: borgcube job wait {0}", number.job);
            context.done(&number, &sentence)
        }
    }
}

fn unknown(name: &str) -> Error {
    archive::unknown(name)
        .hint("Archives that a stock borg made or rewrote are read on the server: borgcube archive extract --repository REPOSITORY ARCHIVE")
}

/// What the new directory is called, which only the job's number says.
fn into(restore: &Restore, job: u64, client: &ClientName) -> String {
    match restore.target {
        Target::New => format!("; it restores into ~/{} on {client}", Target::new_directory(job)),
        Target::Directory(_) | Target::InPlace => String::new(),
    }
}

fn warnings(archive: &Archive, client: &Client, restore: &Restore) -> Vec<String> {
    let mut warnings = vec![];
    if client.name != archive.client {
        warnings.push(format!(
            "{} is another client than the one that was backed up, {}: whoever is root there will read its files",
            client.name, archive.client
        ));
    }
    if archive.incomplete {
        warnings.push("this is no whole archive: it holds what a backup that broke off had by then".into());
    }
    if archive.suspicious {
        warnings.push(format!("the archive is suspicious; see borgcube archive show {}", archive.name));
    }
    if matches!(restore.target, Target::InPlace) {
        warnings.push("files that are there now are written over; what is not in the archive stays".into());
    }
    warnings
}

/// What checks have found of this archive.
fn damaged(damage: &Damage, archive: &Archive) -> Option<String> {
    if !damage.concerns(&archive.id) {
        return None;
    }
    let files = damage.archives.iter().find(|found| found.id == archive.id).and_then(|found| found.files.as_ref());
    let named = match files {
        Some(files) if !files.paths.is_empty() => {
            let more = files.paths.len().saturating_sub(5) as u64 + files.more;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!(": {}{more}", files.paths.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", "))
        }
        _ => String::new(),
    };
    Some(format!(
        "a check has found that the archive is damaged{named}. Everything is read first; damaged files are left out and named, everything else is restored"
    ))
}

/// Looks whether the paths are in the archive; warnings about those that are not. That none is there is an error.
fn look(archive: &Archive, paths: &[String], context: &Context) -> Result<Vec<String>> {
    if paths.is_empty() {
        return Ok(vec![]);
    }
    let nothing: [&[u8]; 0] = [];
    let open = paths.iter().map(|path| Ok((path.as_str(), Selection::new(&[path.as_bytes()], &nothing, 0)?)));
    let mut open = match open.collect::<::archive::Result<Vec<_>>>() {
        Ok(open) => open,
        // Borg has patterns that are not understood here.
        Err(error) => return Ok(vec![format!("whether the paths are in the archive was not looked at: {error}")]),
    };
    let socket = context.layout.repository_socket(archive.repository.as_str());
    let read = Source::open(Arc::new(move || unix::socket::connect(&socket)), &archive.id).and_then(|source| {
        let mut items = Items::open(&source)?;
        while !open.is_empty()
            && let Some(item) = items.next(&mut |_, _| {})?
        {
            // Each by itself: one may be inside of another.
            open.retain_mut(|(_, selection)| selection.choose(&item.path).is_none());
        }
        Ok(())
    });
    if let Err(error) = read {
        return Ok(vec![format!("whether the paths are in the archive could not be looked at: {error}")]);
    }
    let unmatched: Vec<&str> = open.into_iter().map(|(path, _)| path).collect();
    missing(&archive.name, &unmatched, paths.len())
}

fn missing(archive: &str, unmatched: &[&str], of: usize) -> Result<Vec<String>> {
    if unmatched.len() == of {
        let what = unmatched.iter().take(5).map(|path| shown(path)).collect::<Vec<_>>().join(", ");
        let more = if of > 5 { format!(" and {} more", of - 5) } else { String::new() };
        return Err(Error::not_found(format!("nothing in archive {} matches {what}{more}", shown(archive)))
            .hint("borgcube archive files ARCHIVE shows what is in it."));
    }
    Ok(unmatched.iter().map(|path| format!("nothing in the archive matches {path}")).collect())
}

fn card(plan: &Plan<'_>, archive: &Archive, client: &Client) -> String {
    let Restore { paths, patterns, excludes, target, .. } = plan.restore;
    let whole = format!("{}, {}", count(plan.archive_files, "file"), bytes(plan.archive_bytes));
    let what = if plan.restore.is_whole() { format!("everything: {whole}") } else { format!("a part; the whole archive has {whole}") };
    let into = match target {
        Target::New => "a new directory in the home of the client's user, which nobody else can look into".to_owned(),
        Target::Directory(path) => format!("{}, which must be new or empty", shown(path)),
        Target::InPlace => "where the files were, over what is there".to_owned(),
    };
    let mut text = Details::new()
        .line("Restore", &archive.name)
        .line("Of", format!("client {}, {}", archive.client, archive.start.to_local()))
        .line("What", what)
        .many("Paths", paths.iter().map(|path| shown(path)))
        .many("Patterns", patterns.iter().map(|pattern| shown(pattern)))
        .many("Without", excludes.iter().map(|pattern| shown(pattern)))
        .line("To", format!("client {} ({})", client.name, road(&client.connection)))
        .line("Into", into)
        .render();
    for warning in &plan.warnings {
        text.push_str(&format!("Note: {}.\n", shown(warning)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_not_there_are_a_warning_and_none_at_all_an_error() {
        assert_eq!(missing("a", &[], 2).unwrap(), Vec::<String>::new());
        assert_eq!(missing("a", &["etc/x"], 2).unwrap(), ["nothing in the archive matches etc/x"]);
        let error = missing("a", &["etc/x", "etc/y"], 2).unwrap_err();
        assert_eq!((error.kind().code(), error.message()), (3, "nothing in archive a matches etc/x, etc/y"));
        assert!(missing("a", &["x"; 9], 9).unwrap_err().message().ends_with("x and 4 more"));
    }
}
