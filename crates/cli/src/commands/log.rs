//! `borgcube log` and `borgcube undo`.

use crate::context::Context;
use crate::error::Result;
use crate::output::lists;
use wire::control::{Call, LogEntries, Undone};

/// Options of `borgcube log`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Each entry's hash covers the entry before it: nobody changes history without a trace.
The log of a job is something else: borgcube job log N

Examples:
  borgcube log -n 5
  borgcube undo 41")]
pub struct LogArgs {
    /// Show at most so many entries, newest first
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 30)]
    limit: u32,
}

/// Options of `borgcube undo`.
#[derive(Debug, clap::Args)]
pub struct UndoArgs {
    /// Number of the transaction, as borgcube log shows it
    #[arg(value_name = "TRANSACTION")]
    transaction: u64,
}

/// Shows the transaction log.
pub fn show(args: &LogArgs, context: &Context) -> Result<()> {
    let entries = context.control()?.call::<LogEntries>(Call::GetLog { limit: args.limit })?.entries;
    context.list(&entries, lists::log(&entries))
}

/// Reverts a transaction.
pub fn undo(args: &UndoArgs, context: &Context) -> Result<()> {
    let undone: Undone = context.control()?.call(Call::Undo { transaction: args.transaction })?;
    context.done(&undone, &format!("Reverted transaction {} by transaction {}.", args.transaction, undone.transaction))
}
