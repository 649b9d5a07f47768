//! The command line.

use crate::{serve, tool};
use clap::{Parser, Subcommand};
use model::{EncryptionMode, RepositoryName};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "borgcube-repositoryd", version, about = "Owns a Borg repository. Started by BorgCube, not by people.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a repository and print what it is, as JSON.
    Create {
        #[command(flatten)]
        place: tool::Place,
        /// Borg's encryption mode.
        #[arg(long)]
        encryption: EncryptionMode,
    },
    /// Look at an existing repository and print what it is, as JSON.
    Inspect {
        #[command(flatten)]
        place: tool::Place,
    },
    /// Own the repository NAME: serve sessions and workers on the listening socket that was handed over.
    Serve {
        /// The repository's name.
        name: RepositoryName,
    },
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // Before the log has its socket to the journal, which would be closed as well, and its number be somebody else's.
    if let Err(e) = unix::harden::close_inherited() {
        eprintln!("borgcube-repositoryd: {e}");
        return ExitCode::FAILURE;
    }
    unix::logging::init("borgcube-repositoryd");
    let done = unix::harden::undumpable().map_err(anyhow::Error::from).and_then(|()| match Arguments::parse().command {
        Command::Create { place, encryption } => tool::print(&tool::create(&place, encryption)),
        Command::Inspect { place } => tool::print(&tool::inspect(&place)),
        Command::Serve { name } => serve::serve(&name),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
