//! `borgcube archive`.

mod cat;
mod diff;
mod export;
mod extract;
mod files;
mod mount;
mod reading;

use super::archive_delete::{self, Delete};
use super::archive_import;
use super::repository;
use super::retention::{self, Hold, Named, Undelete};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{cards, lists};
use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use model::{Archive, ClientName, Label, RepositoryName};
use wire::control::{ArchiveFilter, Archives, Call};

/// Fewer digits of an id may mean anything.
const SHORTEST_ID: usize = 8;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List archives, newest first
    #[command(alias = "ls")]
    List(List),
    /// Show one archive
    Show(Show),
    /// List the files in an archive
    Files(files::Args),
    /// Write the content of files in an archive to standard output
    Cat(cat::Args),
    /// Write an archive, or some of its files, as a tar archive
    ExportTar(export::Args),
    /// Extract an archive, or some of its files, on this machine
    Extract(extract::Args),
    /// Show what differs between two archives
    Diff(diff::Args),
    /// Mount an archive as a read-only file system, until Ctrl-C
    Mount(mount::Args),
    /// Give archives that another borg made to a client
    Import(archive_import::Args),
    /// Delete archives; repository compact gives their space back
    #[command(alias = "rm")]
    Delete(Delete),
    /// Keep archives that were to be deleted
    Undelete(Undelete),
    /// Keep archives, whatever policies and people say
    Hold(Hold),
    /// Let policies and people decide about held archives again
    Release(Named),
}

/// Options of `borgcube archive list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube archive list --client web1 --label etc
  borgcube archive list --repository main --json | jq -r '.[0].name'")]
pub struct List {
    /// Show those in this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Show those of this client only
    #[arg(long, short, add = ArgValueCandidates::new(complete::clients))]
    client: Option<ClientName>,
    /// Show those of this config label only
    #[arg(long, short)]
    label: Option<Label>,
    /// Show at most so many
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 1000)]
    limit: u32,
    /// Show what is in the repository and has no record, as it says of itself; archive import gives it one
    #[arg(long, requires = "repository", conflicts_with_all = ["client", "label", "limit"])]
    foreign: bool,
}

/// Options of `borgcube archive show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Name, id, or the beginning of an id (at least 8 digits)
    #[arg(value_name = "ARCHIVE", add = ArgValueCandidates::new(complete::archives))]
    archive: String,
    /// Look in this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::List(List { repository: Some(repository), foreign: true, .. }) => {
            let archives = archive_import::foreign(&repository, context)?;
            context.list(&archives, archive_import::listing(&archives))
        }
        Command::List(args) => {
            let filter =
                ArchiveFilter { repository: args.repository, client: args.client, label: args.label, name: None, limit: args.limit };
            let archives = ask(context, filter)?;
            context.list(&archives, lists::archives(&archives))
        }
        Command::Show(args) => {
            let archive = find(context, &args.archive, args.repository)?.ok_or_else(|| unknown(&args.archive))?;
            context.show(&archive, &cards::archive(&archive))
        }
        Command::Files(args) => files::run(&args, context),
        Command::Cat(args) => cat::run(&args, context),
        Command::ExportTar(args) => export::run(&args, context),
        Command::Extract(args) => extract::run(&args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Mount(args) => mount::run(&args, context),
        Command::Import(args) => archive_import::run(args, context),
        Command::Delete(args) => archive_delete::run(args, context),
        Command::Undelete(args) => retention::undelete(&args, context),
        Command::Hold(args) => retention::hold(args, context),
        Command::Release(args) => retention::release(&args, context),
    }
}

/// The archive of this name, id or beginning of an id, if there is a record of one.
pub fn find(context: &Context, name: &str, repository: Option<RepositoryName>) -> Result<Option<Archive>> {
    let filter = ArchiveFilter { repository, name: Some(name.to_owned()), ..Default::default() };
    only(ask(context, filter)?, name)
}

fn ask(context: &Context, filter: ArchiveFilter) -> Result<Vec<Archive>> {
    let repository = filter.repository.clone();
    let archives = context.control()?.call::<Archives>(Call::ListArchives { filter })?.archives;
    if let Some(name) = repository.filter(|_| archives.is_empty()) {
        // Nothing is there: perhaps not even the repository.
        repository::find(&mut context.control()?, &name)?;
    }
    Ok(archives)
}

/// There is no such archive.
pub fn unknown(name: &str) -> Error {
    let error = Error::not_found(format!("there is no archive {name:?}"));
    let short = name.len() < SHORTEST_ID && name.bytes().all(|b| b.is_ascii_hexdigit());
    let error = if short { error.hint(format!("Of an id, give at least {SHORTEST_ID} digits.")) } else { error };
    error.hint("borgcube archive list shows what there is; with --json also the ids.")
}

fn only(mut archives: Vec<Archive>, name: &str) -> Result<Option<Archive>> {
    match archives.len() {
        0 | 1 => Ok(archives.pop()),
        n => Err(Error::conflict(format!("{name:?} means {n} archives")).hint("Say which by --repository, or by more digits of its id.")),
    }
}
