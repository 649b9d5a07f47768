//! `borgcube archive hold|release|undelete`: what people say about single archives.

use super::archive;
use crate::complete;
use crate::context::Context;
use crate::error::Result;
use crate::output::{count, shown};
use clap_complete::ArgValueCandidates;
use model::{Archive, RepositoryName};
use wire::control::{ArchiveRef, Archives, Call};

/// Which archives.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Archives, each by its name, its id or the beginning of its id (at least 8 digits)
    #[arg(value_name = "ARCHIVE", required = true, add = ArgValueCandidates::new(complete::archives))]
    archives: Vec<String>,
    /// Look in this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
}

/// Options of `borgcube archive hold`.
#[derive(Debug, clap::Args)]
#[command(after_help = "What is held is deleted by no policy and by no borgcube archive delete, and a grace period that runs ends.

Example:
  borgcube archive hold web1-etc-2026-11-01T02:00:00-17 --reason 'before the migration'")]
pub struct Hold {
    #[command(flatten)]
    named: Named,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Options of `borgcube archive undelete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "An archive that was undeleted is held, so that no policy takes it again.

Example:
  borgcube archive undelete web1-etc-2026-11-01T02:00:00-17")]
pub struct Undelete {
    #[command(flatten)]
    named: Named,
    /// Let policies decide about it again, instead of holding it
    #[arg(long)]
    no_hold: bool,
}

/// The archives that were named, each once; all are there.
pub fn find(names: &[String], repository: Option<&RepositoryName>, context: &Context) -> Result<Vec<Archive>> {
    let mut found: Vec<Archive> = vec![];
    for name in names {
        let archive = archive::find(context, name, repository.cloned())?.ok_or_else(|| archive::unknown(name))?;
        if !found.iter().any(|a| (&a.repository, &a.id) == (&archive.repository, &archive.id)) {
            found.push(archive);
        }
    }
    Ok(found)
}

/// How the server knows them.
pub fn refs(archives: &[Archive]) -> Vec<ArchiveRef> {
    archives.iter().map(|archive| ArchiveRef { repository: archive.repository.clone(), id: archive.id.clone() }).collect()
}

/// `archive NAME`, or how many.
pub fn named(archives: &[Archive]) -> String {
    match archives {
        [one] => format!("archive {}", shown(&one.name)),
        many => count(many.len() as u64, "archive"),
    }
}

/// Holds them.
pub fn hold(args: Hold, context: &Context) -> Result<()> {
    let archives = find(&args.named.archives, args.named.repository.as_ref(), context)?;
    let call = Call::HoldArchives { archives: refs(&archives), reason: args.reason };
    let held = context.control()?.call::<Archives>(call)?.archives;
    context.done(&held, &format!("Holding {}: nothing deletes it before borgcube archive release.", named(&held)))
}

/// Lets policies decide again.
pub fn release(args: &Named, context: &Context) -> Result<()> {
    let archives = find(&args.archives, args.repository.as_ref(), context)?;
    let released = context.control()?.call::<Archives>(Call::ReleaseArchives { archives: refs(&archives) })?.archives;
    context.done(&released, &format!("Released {}: policies decide again.", named(&released)))
}

/// Ends grace periods.
pub fn undelete(args: &Undelete, context: &Context) -> Result<()> {
    let archives = find(&args.named.archives, args.named.repository.as_ref(), context)?;
    let call = Call::UndeleteArchives { archives: refs(&archives), hold: !args.no_hold };
    let stay = context.control()?.call::<Archives>(call)?.archives;
    let then = if args.no_hold { "policies decide again" } else { "it is held until borgcube archive release" };
    context.done(&stay, &format!("Undeleted {}: {then}.", named(&stay)))
}
