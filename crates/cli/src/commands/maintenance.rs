//! `borgcube repository compact` and `check`.

use super::wait;
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{bytes, count, shown};
use crate::owner_link::OwnerLink;
use clap_complete::ArgValueCandidates;
use model::RepositoryName;
use serde::Serialize;
use wire::maintenance::{Operation, Report};

/// Options of `borgcube repository compact`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Backups go on meanwhile. Ctrl-C ends it after the step it is at; what it freed by then is free.

Examples:
  borgcube repository compact main
  borgcube repository compact main --threshold 50")]
pub struct Compact {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
    /// Leave segment files alone of which less than this can be freed
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=99))]
    threshold: u8,
}

/// Options of `borgcube repository check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is changed, and backups go on meanwhile. Damage that is found is listed, and the exit code is 1.

Examples:
  borgcube repository check main
  borgcube repository check main --verify-data --json | jq -r '.errors[]'")]
pub struct Check {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
    /// Also decrypt and decompress every object and recompute its id: slower, and finds whatever there is
    #[arg(long)]
    verify_data: bool,
}

/// What compact prints with `--json`.
#[derive(Debug, Serialize)]
struct Compacted<'a> {
    repository: &'a RepositoryName,
    segments: u64,
    freed: u64,
    orphans: u64,
}

/// What check prints with `--json`.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    repository: &'a RepositoryName,
    objects: u64,
    bytes: u64,
    errors: &'a [String],
    error_count: u64,
}

/// Gives space back.
pub fn compact(args: &Compact, context: &Context) -> Result<()> {
    let name = &args.name;
    let mut interrupts = wait::interrupts()?;
    let link = OwnerLink::ask(name, Operation::Compact { threshold: args.threshold }, context)?;
    match link.report(&format!("compact of {name}"), &mut interrupts, context)? {
        Report::Compacted { segments, freed, orphans } => {
            context.done(&Compacted { repository: name, segments, freed, orphans }, &compacted(name, segments, freed, orphans))
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
        sentence.push_str(&format!(", {} of broken sessions deleted", count(orphans, "object")));
    }
    sentence + "."
}

/// Reads everything; damage is an error.
pub fn check(args: &Check, context: &Context) -> Result<()> {
    let name = &args.name;
    let mut interrupts = wait::interrupts()?;
    let link = OwnerLink::ask(name, Operation::Check { verify_data: args.verify_data }, context)?;
    match link.report(&format!("check of {name}"), &mut interrupts, context)? {
        Report::Checked { objects, bytes: read, errors, error_count } => {
            let record = Checked { repository: name, objects, bytes: read, errors: &errors, error_count };
            if context.json {
                context.print_json(&record)?;
            }
            if error_count > 0 || !errors.is_empty() {
                return Err(damage(name, &errors, error_count.max(errors.len() as u64)));
            }
            context.say(&format!("Repository {name} is whole: {}, {} read.", count(objects, "object"), bytes(read)))
        }
        other => Err(senseless(&other)),
    }
}

fn damage(name: &RepositoryName, errors: &[String], error_count: u64) -> Error {
    let mut error = Error::failed(format!("repository {name} is damaged: {}", count(error_count, "error")));
    for line in errors {
        error = error.hint(format!("- {}", shown(line)));
    }
    let more = error_count.saturating_sub(errors.len() as u64);
    if more > 0 {
        error = error.hint(format!("- and {more} more"));
    }
    error.hint("Nothing was changed. See first whether the disk or the memory is to blame, and make a copy of the repository.").hint(
        format!("Then let Borg repair what can be repaired: borgcube repository release {name} --with-passphrase -- borg check --repair"),
    )
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
        let orphans = "Compacted repository main: 9 B freed, 2 segment files gone, 3 objects of broken sessions deleted.";
        assert_eq!(compacted(&name, 2, 9, 3), orphans);
    }

    #[test]
    fn damage_is_listed_with_what_to_do() {
        let error = damage(&"main".parse().unwrap(), &["segment 5:\u{1b}[2J wrong checksum".into()], 7);
        assert_eq!((error.kind().code(), error.message()), (1, "repository main is damaged: 7 errors"));
        assert_eq!(error.hints()[..2], ["- segment 5:\\u{1b}[2J wrong checksum", "- and 6 more"]);
        assert!(error.hints()[3].contains("borg check --repair"));
    }
}
