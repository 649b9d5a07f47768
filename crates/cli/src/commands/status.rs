//! `borgcube status`.

use super::attention;
use super::doctor::finding::{self, Finding, Verdict};
use crate::context::Context;
use crate::error::{Kind, Result};
use crate::output::cards;
use model::Timestamp;
use serde::Serialize;
use std::thread::sleep;
use std::time::{Duration, Instant};
use wire::control::{Call, Status};

/// Options of `borgcube status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is damaged or overdue comes first, each with the command that says more; with --json it is the field \"attention\".

Examples:
  borgcube status
  borgcube --state ~/borgcube status --wait 30 && borgcube --state ~/borgcube run web1/etc"
)]
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
    let attention = attention::facts(&mut context.control()?).map(|facts| attention::judge(&facts, Timestamp::now()));
    let attention: Vec<Finding> = match attention {
        Ok(findings) => findings.into_iter().filter(|finding| finding.verdict >= Verdict::Warning).collect(),
        Err(error) => {
            vec![Finding::warning("damage", format!("whether anything is damaged or overdue could not be asked: {}", error.message()))]
        }
    };
    let text = finding::text(&attention) + &cards::status(&status);
    context.show(&Shown { status, attention }, &text)
}

/// With what cannot wait.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    status: Status,
    /// What is damaged or overdue, as the doctor says it.
    attention: Vec<Finding>,
}

fn ask(context: &Context) -> Result<Status> {
    context.control()?.call(Call::GetStatus {})
}
