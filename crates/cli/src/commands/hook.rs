//! `borgcube hook`: commands around a backup on the client.

use super::config;
use super::edit::{put, something};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::{cards, lists};
use clap::{Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;
use model::hook::OnFailure;
use model::{BackupConfig, ConfigName, Hook, HookName};
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::control::Call;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a hook to a backup config
    Add(Box<Add>),
    /// List hooks in the order in which they run before a backup
    #[command(alias = "ls")]
    List(List),
    /// Show one hook with its commands
    Show(Name),
    /// Change a hook
    Edit(Box<Edit>),
    /// Remove a hook from its backup config
    Remove(Name),
}

/// Which hook.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Backup config
    #[arg(value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    config: ConfigName,
    /// Hook
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::hooks))]
    name: HookName,
}

/// Options of `borgcube hook list` and `borgcube dump list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Show those of this backup config only
    #[arg(value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    pub config: Option<ConfigName>,
}

/// What a hook is.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Run this on the client before anything is backed up, with its sh
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, conflicts_with = "before_file")]
    before: Option<String>,
    /// Read the command for before the backup from this file (-: standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    before_file: Option<PathBuf>,
    /// Run this on the client after the backup, whatever became of it
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true, conflicts_with = "after_file")]
    after: Option<String>,
    /// Read the command for after the backup from this file (-: standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    after_file: Option<PathBuf>,
    /// End each of the two after this time: 90, 90s, 10m, 2h (default: 10m)
    #[arg(long, value_name = "TIME", value_parser = limit)]
    time_limit: Option<u32>,
    /// Say what becomes of the backup when one of them fails (default: fail)
    #[arg(long, value_name = "POLICY")]
    on_failure: Option<Policy>,
    /// Put it at this place in the order of the hooks; the first one is 1
    #[arg(long, value_name = "NUMBER")]
    position: Option<usize>,
}

/// What `--on-failure` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// The job fails; before the backup nothing is backed up then
    Fail,
    /// The job has a warning
    Warn,
}

impl From<Policy> for OnFailure {
    fn from(policy: Policy) -> OnFailure {
        match policy {
            Policy::Fail => OnFailure::Fail,
            Policy::Warn => OnFailure::Warn,
        }
    }
}

/// Options of `borgcube hook add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Commands see BORGCUBE_JOB, BORGCUBE_CLIENT, BORGCUBE_CONFIG, BORGCUBE_ARCHIVE and BORGCUBE_HOOK, those after the
backup also BORGCUBE_RESULT: success, failed or stopped. docs/hooks.md has worked examples.

Examples:
  borgcube hook add db1/all stop-wiki --before 'systemctl stop wiki' --after 'systemctl start wiki'
  borgcube hook add db1/root lvm --before 'borgcube-snapshot lvm before vg0/root' --after 'borgcube-snapshot lvm after vg0/root'
  borgcube hook add db1/all check --before-file ./check.sh --time-limit 5m --on-failure warn")]
pub struct Add {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    options: Options,
}

/// Options of `borgcube hook edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube hook edit db1/all stop-wiki --time-limit 2m --position 1
  borgcube hook edit db1/all stop-wiki --clear after")]
pub struct Edit {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    options: Options,
    /// Forget this command; repeatable
    #[arg(long, value_name = "COMMAND")]
    clear: Vec<Clearable>,
}

/// What `--clear` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Before,
    After,
}

/// A hook with the config that has it.
#[derive(Debug, serde::Serialize)]
pub struct Listed {
    /// The config.
    pub config: ConfigName,
    /// Its hook.
    #[serde(flatten)]
    pub hook: Hook,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => {
            let Add { name: Name { config: of, name }, options } = *args;
            let hook = Hook { name, before: None, after: None, seconds: Hook::SECONDS, on_failure: OnFailure::default() };
            let mut control = context.control()?;
            let previous = config::find(&mut control, &of)?;
            if previous.commands.hooks.iter().any(|other| other.name == hook.name) {
                return Err(Error::conflict(format!("{of} has a hook {} already", hook.name)).hint("borgcube hook edit changes it."));
            }
            let mut config = previous.clone();
            let position = options.position;
            let hook = changed(hook, options)?;
            insert(&mut config.commands.hooks, hook.clone(), position);
            update(&mut control, previous, config)?;
            context.done(&hook, &format!("Added hook {} to {of}.", hook.name))
        }
        Command::List(args) => {
            let mut configs = config::all(&mut context.control()?)?;
            if let Some(name) = &args.config {
                configs.retain(|config| config.name() == *name);
                if configs.is_empty() {
                    return Err(config::missing(name));
                }
            }
            let of = |config: BackupConfig| {
                let name = config.name();
                config.commands.hooks.into_iter().map(move |hook| Listed { config: name.clone(), hook })
            };
            let hooks: Vec<Listed> = configs.into_iter().flat_map(of).collect();
            context.list(&hooks, lists::hooks(&hooks))
        }
        Command::Show(Name { config: of, name }) => {
            let config = config::find(&mut context.control()?, &of)?;
            let hook = find(&config, &name)?.clone();
            let listed = Listed { config: of, hook };
            context.show(&listed, &cards::hook(&listed))
        }
        Command::Edit(args) => {
            let Edit { name: Name { config: of, name }, options, clear } = *args;
            let mut control = context.control()?;
            let previous = config::find(&mut control, &of)?;
            let mut hook = find(&previous, &name)?.clone();
            for field in clear {
                match field {
                    Clearable::Before => hook.before = None,
                    Clearable::After => hook.after = None,
                }
            }
            let mut config = previous.clone();
            let position = options.position;
            let hook = changed(hook, options)?;
            let at = config.commands.hooks.iter().position(|other| other.name == name).unwrap_or_default();
            config.commands.hooks.remove(at);
            insert(&mut config.commands.hooks, hook.clone(), position.or(Some(at + 1)));
            something(&previous, &config, "hook edit")?;
            update(&mut control, previous, config)?;
            context.done(&hook, &format!("Changed hook {name} of {of}."))
        }
        Command::Remove(Name { config: of, name }) => {
            let mut control = context.control()?;
            let previous = config::find(&mut control, &of)?;
            let hook = find(&previous, &name)?.clone();
            let mut config = previous.clone();
            config.commands.hooks.retain(|other| other.name != name);
            update(&mut control, previous, config)?;
            context.done(&hook, &format!("Removed hook {name} from {of}."))
        }
    }
}

/// Writes a config whose commands have changed.
pub fn update(control: &mut Control, previous: BackupConfig, config: BackupConfig) -> Result<()> {
    config.check().map_err(Error::usage)?;
    control.tell(Call::UpdateConfig { previous, config })
}

fn insert(hooks: &mut Vec<Hook>, hook: Hook, position: Option<usize>) {
    let at = position.map_or(hooks.len(), |number| number.saturating_sub(1).min(hooks.len()));
    hooks.insert(at, hook);
}

fn changed(mut hook: Hook, options: Options) -> Result<Hook> {
    let given = |text: Option<String>, file: Option<PathBuf>| text.map(Ok).or(file.map(|file| command_in(&file))).transpose();
    put(&mut hook.before, given(options.before, options.before_file)?.map(Some));
    put(&mut hook.after, given(options.after, options.after_file)?.map(Some));
    put(&mut hook.seconds, options.time_limit);
    put(&mut hook.on_failure, options.on_failure.map(OnFailure::from));
    Ok(hook)
}

fn find<'a>(config: &'a BackupConfig, name: &HookName) -> Result<&'a Hook> {
    let found = config.commands.hooks.iter().find(|hook| hook.name == *name);
    found.ok_or_else(|| {
        Error::not_found(format!("{} has no hook {name}", config.name())).hint(format!("borgcube hook list {} shows them.", config.name()))
    })
}

/// A command that is longer than one likes to type.
pub fn command_in(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MOST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MOST).read_to_string(&mut text))
    };
    read.map_err(|e| Error::usage(format!("the command cannot be read from {}: {e}", file.display())))?;
    Ok(text.trim_end().to_owned())
}

/// More than a command may have; the check says so then.
const MOST: u64 = 1 << 20;

/// `90`, `90s`, `10m`, `10min`, `2h` in seconds.
pub fn limit(text: &str) -> std::result::Result<u32, String> {
    let (number, unit) = text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    let unit = match unit {
        "" | "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let wrong = || format!("{text:?} is not a time; write seconds, or 90s, 10min, 2h");
    number.parse::<u32>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(["90", "90s", "10m", "30min", "2h"].map(|t| limit(t).unwrap()), [90, 90, 600, 1800, 7200]);
        for bad in ["", "min", "ü", "h", "1d", "-1", "1.5h", "99999999h"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn places_in_the_order() {
        let hook = |name: &str| Hook {
            name: name.parse().unwrap(),
            before: Some("x".into()),
            after: None,
            seconds: 1,
            on_failure: OnFailure::Fail,
        };
        let mut hooks = vec![hook("a"), hook("b")];
        insert(&mut hooks, hook("c"), None);
        insert(&mut hooks, hook("d"), Some(1));
        insert(&mut hooks, hook("e"), Some(99));
        assert_eq!(hooks.iter().map(|h| h.name.as_str()).collect::<String>(), "dabce");
    }
}
