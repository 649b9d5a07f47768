//! `borgcube repository compact` and `check`.

use super::{check_config, repository, run, wait};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::output::{bytes, count, shown};
use crate::owner_link::OwnerLink;
use clap_complete::ArgValueCandidates;
use model::check::{CheckPlan, Coverage, Damage};
use model::{CheckName, RepositoryName, Timestamp, Work};
use serde::Serialize;
use unix::signals::Signals;
use wire::control::Call;
use wire::maintenance::{Operation, Report};

/// Options of `borgcube repository compact`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Backups go on meanwhile. Ctrl-C ends it after the step it is at; what it freed by then is free.

Examples:
  borgcube repository compact main
  borgcube repository compact main --threshold 50
  borgcube repository compact main --job --wait")]
pub struct Compact {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
    /// Leave segment files alone of which less than this can be freed
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=99))]
    threshold: u8,
    #[command(flatten)]
    queue: Queue,
}

/// As a job.
#[derive(Debug, clap::Args)]
pub struct Queue {
    /// Put it into the queue as a job, which goes on when this command ends; `borgcube job` shows it
    #[arg(long)]
    job: bool,
    /// With --job: show progress until the job has ended; the exit code tells how
    #[arg(long, short, requires = "job")]
    wait: bool,
}

/// Options of `borgcube repository check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing is changed, and backups go on meanwhile. Damage that is found is listed and stays recorded, and the exit code is 1:
borgcube repository damage tells which archives and clients are concerned, and which files once a job has looked (--job): it reads
what clients wrote in confined processes.

Examples:
  borgcube repository check main
  borgcube repository check --config nightly
  borgcube repository check main --verify-data --json | jq -r '.errors[]'"
)]
pub struct Check {
    /// Repository; with --config one of those that it is for, or else all of them
    #[arg(value_name = "REPOSITORY", required_unless_present = "config", add = ArgValueCandidates::new(complete::repositories))]
    name: Option<RepositoryName>,
    /// Also decrypt and decompress every object and recompute its id: slower, and finds whatever there is
    #[arg(long)]
    verify_data: bool,
    /// Check what this check config says, as far as it is due
    #[arg(long, value_name = "CONFIG", conflicts_with = "verify_data", add = ArgValueCandidates::new(complete::check_configs))]
    config: Option<CheckName>,
    #[command(flatten)]
    queue: Queue,
}

/// What compact prints with `--json`.
#[derive(Debug, Serialize)]
struct Compacted<'a> {
    repository: &'a RepositoryName,
    segments: u64,
    freed: u64,
    orphans: u64,
    skipped: u64,
}

/// What check prints with `--json`.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    repository: &'a RepositoryName,
    objects: u64,
    bytes: u64,
    errors: &'a [String],
    error_count: u64,
    /// What to do about them.
    advice: &'a [String],
    /// Whether all that was due was checked.
    complete: bool,
    structure: &'a Option<Coverage>,
    data: &'a Option<Coverage>,
    /// What is known to be damaged, by this check or one before.
    damage: &'a Option<Damage>,
    /// Nothing was due, so nothing was looked at: when anything was looked at last.
    not_due_since: Option<Timestamp>,
}

/// Has it done as a job.
fn queue(name: &RepositoryName, work: Work, how: &Queue, context: &Context) -> Result<()> {
    let call = Call::RunMaintenance { repository: name.clone(), work, retry: !how.wait };
    run::queued(call, how.wait, context)
}

/// Gives space back.
pub fn compact(args: &Compact, context: &Context) -> Result<()> {
    let name = &args.name;
    if args.queue.job {
        return queue(name, Work::Compact { threshold: args.threshold }, &args.queue, context);
    }
    let mut interrupts = wait::interrupts()?;
    let link = OwnerLink::ask(name, Operation::Compact { threshold: args.threshold }, context)?;
    match link.report(&format!("compact of {name}"), &mut interrupts, context)? {
        Report::Compacted { segments, freed, orphans, skipped } => {
            context.done(&Compacted { repository: name, segments, freed, orphans, skipped }, &compacted(name, segments, freed, orphans))?;
            if skipped > 0 {
                context.note(&damaged(name, skipped));
            }
            Ok(())
        }
        other => Err(senseless(&other)),
    }
}

fn compacted(name: &RepositoryName, segments: u64, freed: u64, orphans: u64) -> String {
    if segments == 0 && orphans == 0 {
        return format!("Compacted repository {name}: there was nothing to free.");
    }
    let mut sentence = format!("Compacted repository {name}: {} freed, {} gone", bytes(freed), count(segments, "segment file"));
    if orphans > 0 {
        sentence.push_str(&format!(", {} that no archive needs deleted", count(orphans, "object")));
    }
    sentence + "."
}

/// What a compact has found without looking for it.
fn damaged(name: &RepositoryName, skipped: u64) -> String {
    format!(
        "WARNING: {} damaged and left alone. What is wrong, this says: borgcube repository check {name}",
        count(skipped, "segment file")
    )
}

/// Reads what is due; damage is an error.
pub fn check(args: &Check, context: &Context) -> Result<()> {
    let (names, plan) = chosen(args, context)?;
    if args.queue.job {
        let work = Work::Check { verify_data: args.verify_data, config: args.config.clone() };
        return names.iter().try_for_each(|name| queue(name, work.clone(), &args.queue, context));
    }
    let mut interrupts = wait::interrupts()?;
    let operation = match plan {
        Some(plan) => Operation::CheckBy { plan },
        None => Operation::Check { verify_data: args.verify_data },
    };
    // One that is damaged keeps no other from being checked.
    let mut damaged = Ok(());
    for name in &names {
        match check_one(name, operation.clone(), &mut interrupts, context) {
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => damaged = damaged.and(Err(error)),
            Ok(()) => {}
        }
    }
    damaged
}

/// Which repositories, and by which plan.
fn chosen(args: &Check, context: &Context) -> Result<(Vec<RepositoryName>, Option<CheckPlan>)> {
    let Some(config) = &args.config else { return Ok((args.name.iter().cloned().collect(), None)) };
    let mut control = context.control()?;
    let found = check_config::find(&mut control, config)?;
    let all: Vec<RepositoryName> = repository::all(&mut control)?.into_iter().map(|repository| repository.name).collect();
    let mut meant = found.repositories.choose(all).map_err(Error::usage)?;
    if let Some(name) = &args.name {
        repository::find(&mut control, name)?;
        meant.retain(|one| one == name);
    }
    if meant.is_empty() {
        let what = args.name.as_ref().map_or_else(|| "no repository that there is".to_owned(), |name| format!("not for repository {name}"));
        return Err(Error::usage(format!("check config {config} is for {}: {what}", found.repositories)));
    }
    Ok((meant, Some(found.plan)))
}

fn check_one(name: &RepositoryName, operation: Operation, interrupts: &mut Signals, context: &Context) -> Result<()> {
    let is_partial = matches!(operation, Operation::CheckBy { .. });
    let link = OwnerLink::ask(name, operation, context)?;
    match link.report(&format!("check of {name}"), interrupts, context)? {
        Report::Checked { objects, bytes: read, errors, error_count, complete, structure, data, damage, not_due_since, .. } => {
            let damage = damage.map(|damage| *damage);
            let error_count = error_count.max(errors.len() as u64);
            let advice = if error_count > 0 { advice(name, &errors) } else { vec![] };
            if context.json {
                let checked = Checked {
                    repository: name,
                    objects,
                    bytes: read,
                    errors: &errors,
                    error_count,
                    advice: &advice,
                    complete,
                    structure: &structure,
                    data: &data,
                    damage: &damage,
                    not_due_since,
                };
                context.print_json(&checked)?;
            }
            if error_count > 0 {
                let error = Error::failed(format!("repository {name} is damaged: {}", count(error_count, "error")));
                // As JSON, the record has said the rest.
                return Err(if context.json { error } else { in_detail(error, &errors, error_count, concerned(name, &damage, advice)) });
            }
            let read = format!("{}, {} read", count(objects, "object"), bytes(read));
            context.say(&outcome(name, is_partial, complete, not_due_since, damage.as_ref(), &read))?;
            if damage.is_some() {
                context.note(&format!("What is known, and what to do: borgcube repository damage {name}"));
                unnamed(name, damage.as_ref()).into_iter().for_each(|line| context.note(&line));
            }
            for (part, coverage) in [("structure", structure), ("data", data)] {
                if let Some(coverage) = coverage {
                    context.note(&format!("{part}: {coverage}"));
                }
            }
            Ok(())
        }
        other => Err(senseless(&other)),
    }
}

/// What a check has come to that has found nothing. `is_partial`: it was to look at what is due by a check config, and at nothing else.
fn outcome(
    name: &RepositoryName,
    is_partial: bool,
    complete: bool,
    not_due_since: Option<Timestamp>,
    damage: Option<&Damage>,
    read: &str,
) -> String {
    let looked = match (not_due_since, complete, damage) {
        (Some(last), ..) => format!("nothing was due, so nothing was checked. The last check was at {}", last.to_local()),
        (None, true, None) if is_partial => return format!("Repository {name}: what was due is sound: {read}."),
        (None, true, None) => return format!("Repository {name} is whole: {read}."),
        (None, false, None) => return format!("Repository {name}: no damage found until the time was over: {read}."),
        (None, true, Some(_)) => format!("nothing was found wrong in what was looked at: {read}"),
        (None, false, Some(_)) => format!("nothing was found wrong until the time was over: {read}"),
    };
    match damage {
        None => format!("Repository {name}: {looked}; no damage is known."),
        Some(damage) => format!("Repository {name}: {looked}. It still counts as DAMAGED: {}.", damage.summary()),
    }
}

/// Before the general advice: whose files.
fn concerned(name: &RepositoryName, damage: &Option<Damage>, advice: Vec<String>) -> Vec<String> {
    let Some(damage) = damage else { return advice };
    let summary = format!("{}. Which, says: borgcube repository damage {name}", damage.summary());
    std::iter::once(summary).chain(unnamed(name, Some(damage))).chain(advice).collect()
}

/// That nobody has looked yet which files damage concerns, and who does. Lists of files are what clients wrote: a job reads them, in confined processes, and
/// whoever calls this, who may be root, does not.
fn unnamed(name: &RepositoryName, damage: Option<&Damage>) -> Option<String> {
    damage
        .is_some_and(Damage::is_unnamed)
        .then(|| format!("Which files are concerned, a job finds out: borgcube repository check {name} --job --wait"))
}

/// What to do about damage. Borg 1.x: a repair by 1.2.4 and older cuts the item stream of archives anew and leaves their TAM as it was,
/// which newer ones then take for a forgery; a repair by newer ones removes archives whose TAM is wrong or missing.
fn advice(name: &RepositoryName, errors: &[String]) -> Vec<String> {
    let mut advice = vec![
        "Nothing was changed. See first whether the disk or the memory is to blame.".to_owned(),
        "Before anything else, copy the repository to another disk; what is tried next, try on the copy.".to_owned(),
    ];
    if errors.iter().any(|error| error.contains("(TAM)")) {
        advice.push(
            "Archives are not authentic (TAM): do NOT repair. A repair by Borg 1.4 removes such archives; Borg 1.2.4 and older does not look at it and still reads them."
                .to_owned(),
        );
        advice
            .push(format!("Extract what you need of them: borgcube repository release {name} --with-passphrase -- borg extract ::ARCHIVE"));
        advice.push("Ask who wrote them: an old borg's repair may have, or somebody without the key.".to_owned());
    } else {
        advice.push(
            "Never repair with an old borg: `borg --version` must say 1.4 or newer. Older ones spoil archives that are healthy.".to_owned(),
        );
        advice.push(
            "With such a borg, `borg check` through `borgcube repository release` tells more; its repair is for the copy first.".to_owned(),
        );
    }
    advice
}

fn in_detail(mut error: Error, errors: &[String], error_count: u64, advice: Vec<String>) -> Error {
    for line in errors {
        error = error.hint(format!("- {}", shown(line)));
    }
    let more = error_count.saturating_sub(errors.len() as u64);
    if more > 0 {
        error = error.hint(format!("- and {more} more"));
    }
    advice.into_iter().fold(error, Error::hint)
}

fn senseless(report: &Report) -> Error {
    log::debug!("{report:?}");
    Error::failed("the repository's owner reports something else than what was asked for")
        .hint("Are all programs of BorgCube of the same version?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compact_did() {
        let name = "main".parse().unwrap();
        assert_eq!(compacted(&name, 0, 0, 0), "Compacted repository main: there was nothing to free.");
        assert_eq!(compacted(&name, 1, 1_500_000, 0), "Compacted repository main: 1.50 MB freed, 1 segment file gone.");
        let orphans = "Compacted repository main: 9 B freed, 2 segment files gone, 3 objects that no archive needs deleted.";
        assert_eq!(compacted(&name, 2, 9, 3), orphans);
        assert!(damaged(&name, 1).starts_with("WARNING: 1 segment file damaged and left alone."));
    }

    #[test]
    fn a_part_that_is_sound_is_not_the_whole() {
        let name = "main".parse().unwrap();
        let by = |is_partial, complete| outcome(&name, is_partial, complete, None, None, "28 objects, 1 MB read");
        assert_eq!(by(false, true), "Repository main is whole: 28 objects, 1 MB read.");
        assert_eq!(by(true, true), "Repository main: what was due is sound: 28 objects, 1 MB read.");
        assert_eq!(by(true, false), "Repository main: no damage found until the time was over: 28 objects, 1 MB read.");
    }

    #[test]
    fn damage_is_listed_with_what_to_do() {
        let errors = ["segment 5:\u{1b}[2J wrong checksum".to_owned()];
        let error = in_detail(Error::failed("x"), &errors, 7, advice(&"main".parse().unwrap(), &errors));
        assert_eq!(error.hints()[..2], ["- segment 5:\\u{1b}[2J wrong checksum", "- and 6 more"]);
        assert!(error.hints()[3].contains("copy the repository"));
        assert!(error.hints()[4].contains("`borg --version` must say 1.4 or newer"));
    }

    /// Whoever types what this says must not lose an archive by it.
    #[test]
    fn the_advice_about_damage_destroys_nothing() {
        let name: RepositoryName = "main".parse().unwrap();
        let tam = borg::tam::TamError::Invalid.to_string();
        let forged = advice(&name, &[format!("archive a: {tam}")]).join(" ");
        assert!(forged.contains("do NOT repair") && forged.contains("borg extract"), "{forged}");
        for text in [forged, advice(&name, &["object 00: wrong checksum".into()]).join(" ")] {
            assert!(text.contains("copy the repository") && !text.contains("--repair"), "{text}");
        }
    }
}
