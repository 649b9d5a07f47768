//! `borgcube archive cat`.

use super::reading::{self, Complaints, Which};
use crate::context::Context;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

/// Options of `borgcube archive cat`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Paths are those in the archive, as borgcube archive files shows them; a leading slash does not matter. A file that is not whole in the
repository ends at what is missing, and the exit code is 1.

Examples:
  borgcube archive cat 5caa1e8b etc/fstab
  borgcube archive cat 5caa1e8b /var/backups/db.sql | psql restored")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Files
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
}

/// Writes their content, one after the other.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let opened = reading::open(&args.which, context)?;
    // Standard output is the files' here.
    let mut complaints = Complaints::default();
    let mut out = io::stdout().lock();
    for path in &args.paths {
        let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
        let whole = archive::export::cat(&opened.source, path.as_bytes(), &mut out, complain);
        if !whole.map_err(|e| reading::error(e, &opened.repository))? {
            let path = unix::logging::escape_bytes(path.as_bytes());
            return Err(Error::failed(format!("{path} was not written, or not all of it")));
        }
    }
    out.flush().map_err(|e| reading::error(archive::Error::Output(e), &opened.repository))?;
    complaints.verdict("written")
}
