//! The program `borgcube`: what people type.
//!
//! *Is*: commands, tables, JSON and every sentence that people read; and `borgcube up`, the supervisor of the embedded default, which starts
//! the other programs the way systemd would.
//! *Is not*: a user of the store or of Borg's formats. Everything is asked for at the control socket of `borgcubed`, so what a person may do
//! here any other Varlink client may do as well; only maintenance of a repository is asked for at its owner's own socket.
//! *May be used by*: nobody.
//!
//! | module | |
//! |---|---|
//! | [`args`] | the global options and the tree of commands |
//! | [`commands`] | one file per noun: its options and what they do |
//! | [`context`] | what every command has at hand: layout, connection, output |
//! | [`control`] | the control socket, seen from the caller |
//! | [`owner_link`] | the socket of a repository's owner: delete, compact, check, release |
//! | [`road`], [`tools`] | other people's programs: ssh to a client and back, systemctl, sshd |
//! | [`installed`] | what only root does on an installed server: credentials, drop-ins, sockets of owners |
//! | [`output`] | records as tables, details and JSON; pure functions |
//! | [`error`] | every way to fail: sentence, hint, exit code |
//! | [`complete`] | names for the shell's completion, from the running server |
//! | [`secrets`] | passphrases and keys on their way into the credentials directory |
//! | [`up`] | the supervisor |

pub mod args;
pub mod commands;
pub mod complete;
pub mod context;
pub mod control;
pub mod error;
pub mod installed;
pub mod output;
pub mod owner_link;
pub mod road;
pub mod secrets;
pub mod tools;
pub mod up;

use args::Args;
use clap::{CommandFactory, FromArgMatches};
use context::Context;
use error::Error;
use std::process::ExitCode;

/// The whole program: completion requests, arguments, the command, its error.
pub fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(Args::command).complete();
    let json = wants_json();
    let ended = parse(json).and_then(|args| match args {
        Some(args) => run(args),
        None => Ok(ExitCode::SUCCESS),
    });
    ended.unwrap_or_else(|error| error.report(json))
}

/// The arguments; None when clap has printed help or the version.
fn parse(json: bool) -> error::Result<Option<Args>> {
    let parsed = Args::command().try_get_matches().and_then(|mut matches| Args::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(args) => Ok(Some(args)),
        Err(said) if !said.use_stderr() => {
            context::print(&said.render().ansi().to_string(), &said.render().to_string())?;
            Ok(None)
        }
        Err(said) if json => Err(Error::usage(one_line(&said.render().to_string()))),
        Err(said) => said.exit(),
    }
}

/// Also holds for arguments that clap refuses.
fn wants_json() -> bool {
    std::env::args_os().take_while(|a| a != "--").any(|a| a == "--json")
}

fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn run(args: Args) -> error::Result<ExitCode> {
    let context = Context::new(&args.global)?;
    commands::run(args.command, &context)
}
