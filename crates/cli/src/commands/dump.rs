//! `borgcube dump`: what a command on the client writes, as a file of the archive.

use super::config;
use super::edit::{put, something};
use super::hook::{List, command_in, limit, update};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{cards, lists};
use clap::{Subcommand, ValueHint};
use clap_complete::ArgValueCandidates;
use model::{BackupConfig, ConfigName, Dump, DumpName};
use std::path::PathBuf;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a dump to a backup config
    Add(Add),
    /// List dumps in the order in which they are made
    #[command(alias = "ls")]
    List(List),
    /// Show one dump with its command
    Show(Name),
    /// Change a dump
    Edit(Edit),
    /// Remove a dump from its backup config; archives that have it keep it
    Remove(Name),
}

/// Which dump.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Backup config
    #[arg(value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    config: ConfigName,
    /// Name of the file in the archive, below borgcube-dumps
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::dumps))]
    name: DumpName,
}

/// Options that adding and changing have in common.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Back up what this writes to its standard output, run on the client with its sh
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, conflicts_with = "command_file")]
    command: Option<String>,
    /// Read the command from this file (-: standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    command_file: Option<PathBuf>,
    /// End it after this time: 90, 90s, 10m, 2h (default: 6h)
    #[arg(long, value_name = "TIME", value_parser = limit)]
    time_limit: Option<u32>,
    /// Write it to the client's disk first instead of streaming it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    spool: Option<bool>,
}

/// Options of `borgcube dump add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A command that fails, writes nothing or takes too long fails the job, and no archive is made. Do not compress or
encrypt in the command: Borg does that, and finds what has not changed only without. In 'a | b' the failure of a is not seen.

Next to paths one dump can be streamed; a config without paths streams any number. docs/hooks.md says why.

Examples:
  borgcube dump add db1/all wiki.sql --command 'borgcube-dump-postgresql wiki'
  borgcube dump add db1/all shop.sql --command 'borgcube-dump-mariadb shop' --spool --time-limit 1h")]
pub struct Add {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    options: Options,
}

/// Options of `borgcube dump edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube dump edit db1/all wiki.sql --time-limit 12h
  borgcube dump edit db1/all wiki.sql --command-file ./dump-wiki.sh --spool=false")]
pub struct Edit {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    options: Options,
}

/// A dump with the config that has it.
#[derive(Debug, serde::Serialize)]
pub struct Listed {
    /// The config.
    pub config: ConfigName,
    /// Its dump.
    #[serde(flatten)]
    pub dump: Dump,
    /// Its path in an archive.
    pub path: String,
}

impl Listed {
    fn of(config: &BackupConfig, dump: &Dump) -> Listed {
        Listed { config: config.name(), path: dump.path(), dump: dump.clone() }
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(Add { name: Name { config: of, name }, options }) => {
            let mut control = context.control()?;
            let previous = config::find(&mut control, &of)?;
            if previous.commands.dumps.iter().any(|other| other.name == name) {
                return Err(Error::conflict(format!("{of} has a dump {name} already")).hint("borgcube dump edit changes it."));
            }
            let dump = changed(Dump { name, command: String::new(), seconds: Dump::SECONDS, spool: false }, options)?;
            let mut config = previous.clone();
            config.commands.dumps.push(dump.clone());
            update(&mut control, previous, config)?;
            context.done(&dump, &format!("Added dump {} to {of}: archives have it as {}.", dump.name, dump.path()))
        }
        Command::List(args) => {
            let mut configs = config::all(&mut context.control()?)?;
            if let Some(name) = &args.config {
                configs.retain(|config| config.name() == *name);
                if configs.is_empty() {
                    return Err(config::missing(name));
                }
            }
            let of = |config: &BackupConfig| config.commands.dumps.iter().map(|dump| Listed::of(config, dump)).collect::<Vec<_>>();
            let dumps: Vec<Listed> = configs.iter().flat_map(of).collect();
            context.list(&dumps, lists::dumps(&dumps))
        }
        Command::Show(Name { config: of, name }) => {
            let config = config::find(&mut context.control()?, &of)?;
            let listed = Listed::of(&config, find(&config, &name)?);
            context.show(&listed, &cards::dump(&listed))
        }
        Command::Edit(Edit { name: Name { config: of, name }, options }) => {
            let mut control = context.control()?;
            let previous = config::find(&mut control, &of)?;
            let dump = changed(find(&previous, &name)?.clone(), options)?;
            let mut config = previous.clone();
            config.commands.dumps.iter_mut().filter(|other| other.name == name).for_each(|other| *other = dump.clone());
            something(&previous, &config, "dump edit")?;
            update(&mut control, previous, config)?;
            context.done(&dump, &format!("Changed dump {name} of {of}."))
        }
        Command::Remove(Name { config: of, name }) => {
            let mut control = context.control()?;
            let previous = config::find(&mut control, &of)?;
            let dump = find(&previous, &name)?.clone();
            let mut config = previous.clone();
            config.commands.dumps.retain(|other| other.name != name);
            update(&mut control, previous, config)?;
            context.done(&dump, &format!("Removed dump {name} from {of}. Archives that have it keep it."))
        }
    }
}

fn changed(mut dump: Dump, options: Options) -> Result<Dump> {
    let command = options.command.map(Ok).or(options.command_file.map(|file| command_in(&file))).transpose()?;
    put(&mut dump.command, command);
    put(&mut dump.seconds, options.time_limit);
    put(&mut dump.spool, options.spool);
    if dump.command.is_empty() {
        return Err(Error::usage(format!("dump {} has no command", dump.name)).hint("Give one with --command or --command-file."));
    }
    Ok(dump)
}

fn find<'a>(config: &'a BackupConfig, name: &DumpName) -> Result<&'a Dump> {
    let found = config.commands.dumps.iter().find(|dump| dump.name == *name);
    found.ok_or_else(|| {
        Error::not_found(format!("{} has no dump {name}", config.name())).hint(format!("borgcube dump list {} shows them.", config.name()))
    })
}
