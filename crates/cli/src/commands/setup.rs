//! `borgcube setup`: from an empty server to the first backup.
//!
//! Every step looks first whether it is done already, so the wizard may be started again with the same words after whatever went wrong.
//! What it does are this program's own commands, which it shows.

mod answers;
mod keys;
mod steps;

use crate::context::Context;
use crate::error::{Error, Result};
use clap::ArgGroup;
use model::{ClientName, EncryptionMode, Label, RepositoryName};
use std::path::PathBuf;
use steps::Steps;

/// Options of `borgcube setup`.
#[derive(Debug, Clone, clap::Args)]
#[command(group = ArgGroup::new("setup-road").args(["local", "remote"]), after_help = "\
Asks for what the options do not say; with --yes it asks nothing and takes the values in brackets. What is there already stays as it
is, so after a failure the same command goes on where it ended.

Examples:
  borgcube setup
  borgcube setup --yes --local /etc /root
  borgcube setup --yes --remote root@web1.example.net --server borgcube-ssh@backup.example.net --accept-host-key /etc /srv")]
pub struct Args {
    /// Ask nothing
    #[arg(long, short)]
    yes: bool,
    /// Name of the repository [main]
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<RepositoryName>,
    /// Where the repository is, or is to be made: a path, or ssh://USER@HOST/PATH
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Encrypt a new repository in this way [repokey-blake2]
    #[arg(long, value_name = "MODE")]
    encryption: Option<EncryptionMode>,
    /// Read the passphrase of a new repository from this file [one is made of 256 random bits]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    /// Name of the client [its host name]
    #[arg(long, value_name = "CLIENT")]
    client: Option<ClientName>,
    /// Back up this machine itself, without SSH
    #[arg(long)]
    local: bool,
    /// Back up the host that is reached by SSH as this login
    #[arg(long, value_name = "USER@HOST")]
    remote: Option<String>,
    /// Let the client reach this server as this login [borgcube-ssh@ this host's full name]
    #[arg(long, value_name = "USER@HOST[:PORT]", conflicts_with = "local")]
    server: Option<String>,
    /// Use this SSH key to the client; made if it is not there
    #[arg(long, value_name = "FILE", conflicts_with = "local", value_hint = clap::ValueHint::FilePath)]
    ssh_identity_file: Option<PathBuf>,
    /// Give the SSH program to the client this argument, too; repeatable
    #[arg(long, value_name = "ARGUMENT", conflicts_with = "local", allow_hyphen_values = true)]
    rsh_option: Vec<String>,
    /// Let the client's borg use this SSH command to this server, with a key of its own
    #[arg(long, value_name = "COMMAND", conflicts_with = "local", allow_hyphen_values = true)]
    client_rsh: Option<String>,
    /// Trust the client's host key if it has this fingerprint (SHA256:...)
    #[arg(long, value_name = "FINGERPRINT", conflicts_with_all = ["local", "accept_host_key"])]
    host_key: Option<String>,
    /// Trust whatever host key the client shows now
    #[arg(long, conflicts_with = "local")]
    accept_host_key: bool,
    /// Label of the backup config [files]
    #[arg(long, value_name = "LABEL")]
    label: Option<Label>,
    /// Run no backup
    #[arg(long)]
    no_backup: bool,
    /// What to back up on the client [/etc]
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<String>,
}

/// Asks, does, and tells what is done.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let status = context.control().and_then(|mut control| control.call::<wire::control::Status>(wire::control::Call::GetStatus {}))?;
    context.say(&format!("borgcubed {} answers.", status.version))?;
    let plan = answers::complete(&args, context)?;
    let mut steps = Steps::new(context, plan);
    let ended = steps.all();
    let done = steps.done();
    match ended {
        Ok(()) if context.json => context.print_json(&done),
        Ok(()) => context.say(&steps.farewell()),
        Err(error) => Err(resume(error, &steps)),
    }
}

/// What is done and how to go on.
fn resume(error: Error, steps: &Steps<'_>) -> Error {
    let done: Vec<_> = steps.done().iter().map(|step| step.what.clone()).collect();
    let told = if done.is_empty() { "Nothing was changed.".to_owned() } else { format!("Done so far: {}.", done.join("; ")) };
    error.hint(told).hint(format!("Then go on with: {}", steps.again()))
}
