//! Everything is read beside the backups, and nothing changed.

use super::{Stop, Work};
use model::{Cause, Failure};
use wire::maintenance::Report;

/// Checks.
pub fn check(work: &Work<'_>, _verify_data: bool) -> Result<Report, Stop> {
    work.attach()?;
    Err(Failure::new(Cause::RepositoryError, "the repository cannot be checked yet").into())
}
