//! The global options and the tree of commands. Each command's own options are in its file under [`crate::commands`].

use crate::commands::{
    archive, binary, check_config, client, completions, config, configuration, doctor, dump, hook, job, keys, log, policy, prune,
    repository, restore, restore_test, run, schedule, settings, setup, status, trigger, user,
};
use crate::error::EXIT_CODES;
use crate::up;
use clap::{Parser, Subcommand, ValueHint};
use std::path::PathBuf;

/// Pull-based backups with stock Borg, from hosts that are not trusted
#[derive(Debug, Parser)]
#[command(name = "borgcube", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Args {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Use the server that borgcube up runs in this state directory (default: the installed server)
    #[arg(long, global = true, value_name = "DIR", env = unix::paths::ENV_STATE, value_hint = ValueHint::DirPath, hide_env_values = true)]
    pub state: Option<PathBuf>,
    /// Print records and errors as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but what was asked for
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole server in the foreground: no root, no systemd, no sshd
    Up(up::Args),
    /// Show what the server is doing
    Status(status::Args),
    /// Add, create, list, show, edit and remove repositories
    #[command(subcommand, alias = "repo")]
    Repository(repository::Command),
    /// Add, list, show, edit and remove clients: the hosts to back up
    #[command(subcommand)]
    Client(client::Command),
    /// Keep Borg binaries for clients that have no borg: add, list, remove and verify them
    #[command(subcommand)]
    Binary(binary::Command),
    /// Add, list, show, edit and remove backup configs: what to back up on a client
    #[command(subcommand)]
    Config(config::Command),
    /// Have clients run commands around their backups: add, list, show, edit and remove hooks
    #[command(subcommand)]
    Hook(hook::Command),
    /// Back up what commands write, databases for example: add, list, show, edit and remove dumps
    #[command(subcommand)]
    Dump(dump::Command),
    /// Run a backup config now
    Run(run::Args),
    /// Restore an archive, or a part of it, to a client
    Restore(restore::Args),
    /// Test restores: extract a sample of an archive and compare it; see when that went well last
    #[command(subcommand)]
    RestoreTest(restore_test::Command),
    /// List, show, follow and cancel jobs
    #[command(subcommand)]
    Job(job::Command),
    /// Say when which backups run: add, list, show, edit and run schedules
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Let others start a schedule or a backup by an id
    #[command(subcommand)]
    Trigger(trigger::Command),
    /// Say who may do what on the status pages: add, list, show, edit and remove users
    #[command(subcommand)]
    User(user::Command),
    /// List and show archives
    #[command(subcommand)]
    Archive(archive::Command),
    /// Say which archives are kept: add, list, show, edit and preview retention policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Say what of which repositories is checked how often: add, list, show, edit and remove check configs
    #[command(subcommand)]
    CheckConfig(check_config::Command),
    /// Let policies decide: what goes is marked, and what is due is deleted
    Prune(prune::Prune),
    /// Write the whole configuration as one file, without secrets
    Export(configuration::Export),
    /// Show what applying a file would do
    Diff(configuration::Diff),
    /// Make the configuration what a file says: all of it or nothing, after showing the plan
    Apply(configuration::Apply),
    /// Print repository keys for a safe place
    #[command(subcommand)]
    Keys(keys::Command),
    /// Show who changed what: the transaction log
    Log(log::LogArgs),
    /// Revert one transaction of the log
    Undo(log::UndoArgs),
    /// Show and edit what holds for the whole server
    #[command(subcommand)]
    Settings(settings::Command),
    /// Set up the first repository and the first client, test the connection, and run the first backup
    Setup(Box<setup::Args>),
    /// Find what is wrong with this installation, and how to mend it
    Doctor(doctor::Args),
    /// Print the shell's completion script
    Completions(completions::Args),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Args::command().debug_assert();
    }

    /// clap does not mind, and panics later.
    #[test]
    fn no_option_hides_a_global_one() {
        fn walk(command: &clap::Command, globals: &[String]) {
            for argument in command.get_arguments() {
                assert!(!globals.iter().any(|g| argument.get_id() == g.as_str()), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(|c| walk(c, globals));
        }
        let command = Args::command();
        let globals: Vec<String> = command.get_arguments().filter(|a| a.is_global_set()).map(|a| a.get_id().to_string()).collect();
        assert_eq!(globals.len(), 3);
        command.get_subcommands().for_each(|c| walk(c, &globals));
    }

    #[test]
    fn help_is_imperative_without_full_stop_and_never_missing() {
        fn walk(command: &clap::Command) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.ends_with('.'), "{}: {about:?}", command.get_name());
            for argument in command.get_arguments().filter(|a| !a.is_global_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.ends_with('.'), "{} {}: {help:?}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().filter(|c| c.get_name() != "help").for_each(walk);
        }
        walk(&Args::command());
    }
}
