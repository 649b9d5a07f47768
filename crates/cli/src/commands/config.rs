//! `borgcube config`.

use super::edit::{put, replace, set, something};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::{cards, lists};
use clap::{Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use model::hook::Commands;
use model::{BackupConfig, ClientName, ConfigName, Dump, Label, RepositoryName, Timestamp};
use wire::control::{Call, Configs};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a backup config to a client
    Add(Box<Add>),
    /// List the backup configs
    #[command(alias = "ls")]
    List(List),
    /// Show one backup config
    Show(Name),
    /// Change what is backed up, and how
    Edit(Box<Edit>),
    /// Remove a backup config; its archives stay
    Remove(Name),
}

/// A config's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Backup config
    #[arg(value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    name: ConfigName,
}

/// Options of `borgcube config list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Show those of this client only
    #[arg(long, add = ArgValueCandidates::new(complete::clients))]
    client: Option<ClientName>,
    /// Show those into this repository only
    #[arg(long, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
}

/// How to back up.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Leave out what matches this pattern of borg create; repeatable
    #[arg(long, short, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Include or leave out by this pattern line of borg create (for example '- /home/*/.cache'); repeatable
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pattern: Vec<String>,
    /// Stay on the file systems of the paths
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_file_system: Option<bool>,
    /// Compress as borg create does: none, lz4, zstd,3, auto,zstd and so on
    #[arg(long, value_name = "SPEC")]
    compression: Option<String>,
    /// Write a checkpoint each time this many seconds have passed
    #[arg(long, value_name = "SECONDS")]
    checkpoint_interval: Option<u32>,
    /// Read block devices and FIFOs as if they were files
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_special: Option<bool>,
    /// Recognise unchanged files without their inode number
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ignore_inode: Option<bool>,
    /// Complain when there is no good backup newer than this many hours (default: 26)
    #[arg(long, value_name = "HOURS")]
    target_age_hours: Option<u32>,
    /// Give borg create this option, too; repeatable
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    extra_option: Vec<String>,
}

/// Options of `borgcube config add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The config is called CLIENT/LABEL afterwards.

Examples:
  borgcube config add etc --client web1 --repository main /etc
  borgcube config add home --client web1 --repository main --exclude '*/.cache' --one-file-system --compression zstd,3 /home /root
  borgcube config add db --client web1 --repository main --dump 'wiki.sql=borgcube-dump-postgresql wiki' /etc")]
pub struct Add {
    /// Label, unique within the client
    #[arg(value_name = "LABEL")]
    label: Label,
    /// Back up this client
    #[arg(long, short, add = ArgValueCandidates::new(complete::clients))]
    client: ClientName,
    /// Back up into this repository
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: RepositoryName,
    #[command(flatten)]
    options: Options,
    /// Back up what this command on the client writes, as the file borgcube-dumps/NAME; repeatable; borgcube dump edit has more
    #[arg(long, value_name = "NAME=COMMAND", value_parser = dump)]
    dump: Vec<Dump>,
    /// Paths on the client, absolute
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<String>,
}

/// Options of `borgcube config edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Lists (paths, excludes, patterns, extra options) are replaced as a whole.

Examples:
  borgcube config edit web1/home --compression zstd,10 --one-file-system=false
  borgcube config edit web1/home --path /home --path /srv --clear excludes")]
pub struct Edit {
    /// Backup config
    #[arg(value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    name: ConfigName,
    /// Back up into this repository
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Back up this path on the client; repeatable
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    path: Vec<String>,
    #[command(flatten)]
    options: Options,
    /// Forget this setting; repeatable
    #[arg(long, value_name = "SETTING")]
    clear: Vec<Clearable>,
}

/// What `--clear` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Paths,
    Excludes,
    Patterns,
    Compression,
    CheckpointInterval,
    ExtraOptions,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => {
            let config = added(*args)?;
            context.control()?.tell(Call::AddConfig { config: config.clone() })?;
            let sentence = format!("Added backup config {0}. Run it with: borgcube run {0} --wait", config.name());
            context.done(&config, &sentence)
        }
        Command::List(args) => {
            let mut configs = all(&mut context.control()?)?;
            configs.retain(|c| args.client.as_ref().is_none_or(|n| c.client == *n));
            configs.retain(|c| args.repository.as_ref().is_none_or(|n| c.repository == *n));
            context.list(&configs, lists::configs(&configs))
        }
        Command::Show(Name { name }) => {
            let config = find(&mut context.control()?, &name)?;
            context.show(&config, &cards::config(&config))
        }
        Command::Edit(args) => {
            let mut control = context.control()?;
            let previous = find(&mut control, &args.name)?;
            let config = edited(&previous, *args)?;
            something(&previous, &config, "config edit")?;
            control.tell(Call::UpdateConfig { previous, config: config.clone() })?;
            context.done(&config, &format!("Changed backup config {}.", config.name()))
        }
        Command::Remove(Name { name }) => {
            let mut control = context.control()?;
            let config = find(&mut control, &name)?;
            control.tell(Call::RemoveConfig { name: name.clone() })?;
            context.done(&config, &format!("Removed backup config {name}. Its archives stay."))
        }
    }
}

fn added(args: Add) -> Result<BackupConfig> {
    let options = args.options;
    checked(BackupConfig {
        client: args.client,
        label: args.label,
        repository: args.repository,
        paths: args.paths,
        excludes: options.exclude,
        patterns: options.pattern,
        one_file_system: options.one_file_system.unwrap_or(false),
        compression: options.compression,
        checkpoint_interval: options.checkpoint_interval,
        read_special: options.read_special.unwrap_or(false),
        ignore_inode: options.ignore_inode.unwrap_or(false),
        extra_options: options.extra_option,
        target_age_hours: options.target_age_hours.unwrap_or(BackupConfig::TARGET_AGE_HOURS),
        commands: Commands { hooks: vec![], dumps: args.dump },
        created: Timestamp::now(),
    })
}

fn dump(text: &str) -> std::result::Result<Dump, String> {
    let (name, command) = text.split_once('=').ok_or("write NAME=COMMAND")?;
    let name = name.parse().map_err(|e: model::names::NameError| e.to_string())?;
    Ok(Dump { name, command: command.to_owned(), seconds: Dump::SECONDS, spool: false })
}

/// The record after the edit.
fn edited(previous: &BackupConfig, args: Edit) -> Result<BackupConfig> {
    let mut config = previous.clone();
    for field in args.clear {
        match field {
            Clearable::Paths => config.paths.clear(),
            Clearable::Excludes => config.excludes.clear(),
            Clearable::Patterns => config.patterns.clear(),
            Clearable::Compression => config.compression = None,
            Clearable::CheckpointInterval => config.checkpoint_interval = None,
            Clearable::ExtraOptions => config.extra_options.clear(),
        }
    }
    let options = args.options;
    put(&mut config.repository, args.repository);
    replace(&mut config.paths, args.path);
    replace(&mut config.excludes, options.exclude);
    replace(&mut config.patterns, options.pattern);
    put(&mut config.one_file_system, options.one_file_system);
    set(&mut config.compression, options.compression);
    put(&mut config.checkpoint_interval, options.checkpoint_interval.map(Some));
    put(&mut config.read_special, options.read_special);
    put(&mut config.ignore_inode, options.ignore_inode);
    replace(&mut config.extra_options, options.extra_option);
    put(&mut config.target_age_hours, options.target_age_hours);
    checked(config)
}

/// A relative path means something else to the shell of the person who types it than to the client's borg.
fn checked(config: BackupConfig) -> Result<BackupConfig> {
    config.check().map_err(Error::usage)?;
    match config.paths.iter().find(|p| !p.starts_with('/')) {
        Some(path) => {
            Err(Error::usage(format!("{path:?} is not an absolute path")).hint("Write paths as the client sees them, from / on."))
        }
        None => Ok(config),
    }
}

/// All configs.
pub fn all(control: &mut Control) -> Result<Vec<BackupConfig>> {
    Ok(control.call::<Configs>(Call::ListConfigs {})?.configs)
}

/// The config of that name.
pub fn find(control: &mut Control, name: &ConfigName) -> Result<BackupConfig> {
    all(control)?.into_iter().find(|c| c.name() == *name).ok_or_else(|| missing(name))
}

/// There is none of that name.
pub fn missing(name: &ConfigName) -> Error {
    Error::not_found(format!("there is no backup config {name}")).hint("borgcube config list shows what there is.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn add_of(words: &[&str]) -> Result<BackupConfig> {
        let all = ["x", "add", "home", "--client", "web1", "--repository", "main"].iter().chain(words);
        match Cli::try_parse_from(all).map(|c| c.command) {
            Ok(Command::Add(add)) => added(*add),
            Ok(_) => panic!("not an add"),
            Err(e) => Err(Error::usage(e.to_string())),
        }
    }

    fn edit_of(words: &[&str]) -> Edit {
        match Cli::try_parse_from(["x", "edit", "web1/home"].iter().chain(words)).map(|c| c.command) {
            Ok(Command::Edit(edit)) => *edit,
            Ok(_) => panic!("not an edit"),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn flags_stand_alone_or_have_a_value() {
        let config =
            add_of(&["--one-file-system", "--read-special=false", "--pattern", "- *.o", "--extra-option=--list", "/home"]).unwrap();
        assert!(config.one_file_system && !config.read_special);
        assert_eq!(config.patterns, ["- *.o"]);
        assert_eq!(config.extra_options, ["--list"]);
        assert_eq!(config.paths, ["/home"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [&[][..], &["home"], &["--compression", "z;x", "/home"], &["--extra-option=--dry-run", "/home"]] {
            assert_eq!(add_of(bad).unwrap_err().kind().code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn lists_are_replaced_and_cleared() {
        let before = add_of(&["--exclude", "a", "--exclude", "b", "--compression", "lz4", "--checkpoint-interval", "60", "/home"]).unwrap();
        let after = edited(&before, edit_of(&["--path", "/srv", "--clear", "excludes", "--clear", "compression"])).unwrap();
        assert_eq!(after.paths, ["/srv"]);
        assert!(after.excludes.is_empty());
        assert_eq!(after.compression, None);
        assert_eq!(after.checkpoint_interval, Some(60));
        let again = edited(&after, edit_of(&["--exclude", "c", "--checkpoint-interval", "5"])).unwrap();
        assert_eq!((again.excludes.as_slice(), again.checkpoint_interval), (&["c".to_owned()][..], Some(5)));
        assert!(edited(&before, edit_of(&["--clear", "paths"])).is_err());
    }
}
