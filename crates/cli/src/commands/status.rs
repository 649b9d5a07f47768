//! `borgcube status`.

use crate::context::Context;
use crate::error::{Kind, Result};
use crate::output::cards;
use std::thread::sleep;
use std::time::{Duration, Instant};
use wire::control::{Call, Status};

/// Options of `borgcube status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube status
  borgcube --state ~/borgcube status --wait 30 && borgcube --state ~/borgcube run web1/etc")]
pub struct Args {
    /// Wait up to this long until the server answers
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,
}

/// Shows what the server is doing.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(args.wait.unwrap_or(0).into());
    let status = loop {
        match ask(context) {
            Err(error) if error.kind() == Kind::Unreachable && Instant::now() < deadline => sleep(Duration::from_millis(100)),
            other => break other?,
        }
    };
    context.show(&status, &cards::status(&status))
}

fn ask(context: &Context) -> Result<Status> {
    context.control()?.call(Call::GetStatus {})
}
