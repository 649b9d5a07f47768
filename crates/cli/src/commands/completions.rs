//! `borgcube completions`.

use crate::context::write_out;
use crate::error::{Error, Result};
use clap::ValueEnum;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

/// Options of `borgcube completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Names of clients, configs, repositories, jobs and archives are asked for at the running server.

Examples:
  source <(borgcube completions bash)
  borgcube completions fish > ~/.config/fish/completions/borgcube.fish")]
pub struct Args {
    /// Shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script that makes the shell ask us.
pub fn run(args: &Args) -> Result<()> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = vec![];
    let written = shell.write_registration("COMPLETE", "borgcube", "borgcube", "borgcube", &mut script);
    written.map_err(|e| Error::failed(format!("cannot write the completion script: {e}")))?;
    write_out(&String::from_utf8_lossy(&script))
}
