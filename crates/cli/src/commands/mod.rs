//! The commands: one file per noun, with its options and what they do.

pub mod archive;
pub mod archive_delete;
pub mod archive_import;
pub mod attention;
pub mod binary;
pub mod check_config;
pub mod client;
pub mod client_key;
pub mod completions;
pub mod config;
pub mod configuration;
pub mod confirm;
pub mod damage;
pub mod doctor;
pub mod dump;
pub mod edit;
pub mod hook;
pub mod job;
pub mod journal;
pub mod keys;
pub mod log;
pub mod maintenance;
pub mod owner;
pub mod policy;
pub mod policy_preview;
pub mod prune;
pub mod release;
pub mod repair;
pub mod repository;
pub mod repository_edit;
pub mod repository_show;
pub mod restore;
pub mod restore_test;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod schedule_next;
pub mod schedule_run;
pub mod settings;
pub mod setup;
pub mod status;
pub mod trigger;
pub mod user;
pub mod wait;

use crate::args::Command;
use crate::context::Context;
use crate::error::Result;
use std::process::ExitCode;

/// Does what the command says.
pub fn run(command: Command, context: &Context) -> Result<ExitCode> {
    let done = match command {
        Command::Up(args) => crate::up::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Repository(command) => return repository::run(command, context),
        Command::Client(command) => client::run(command, context),
        Command::Binary(command) => return binary::run(command, context),
        Command::Config(command) => config::run(command, context),
        Command::Hook(command) => hook::run(command, context),
        Command::Dump(command) => dump::run(command, context),
        Command::Run(args) => run::run(args, context),
        Command::Restore(args) => restore::run(args, context),
        Command::RestoreTest(command) => restore_test::run(command, context),
        Command::Job(command) => job::run(command, context),
        Command::Archive(command) => archive::run(command, context),
        Command::Policy(command) => policy::run(command, context),
        Command::CheckConfig(command) => check_config::run(command, context),
        Command::Prune(args) => return prune::run(&args, context),
        Command::Schedule(command) => schedule::run(command, context),
        Command::Trigger(command) => trigger::run(command, context),
        Command::User(command) => user::run(command, context),
        Command::Export(args) => configuration::export(&args, context),
        Command::Diff(args) => return configuration::diff(&args, context),
        Command::Apply(args) => configuration::apply(&args, context),
        Command::Keys(command) => keys::run(command, context),
        Command::Log(args) => log::show(&args, context),
        Command::Undo(args) => log::undo(&args, context),
        Command::Settings(command) => settings::run(command, context),
        Command::Setup(args) => setup::run(*args, context),
        Command::Doctor(args) => return doctor::run(&args, context),
        Command::Completions(args) => completions::run(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}
