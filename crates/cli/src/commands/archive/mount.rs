//! `borgcube archive mount`.

use super::reading::{self, Complaints, Which};
use crate::commands::wait;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::shown;
use archive::mount::mount;
use archive::tree::Tree;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use unix::poll::{Interest, poll};

/// How often to look whether somebody has unmounted it.
const GLANCE: Duration = Duration::from_millis(200);

/// Options of `borgcube archive mount`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The archive is mounted read only, until Ctrl-C or umount DIR; backups and maintenance go on meanwhile. The list of files is read at once (some
250 MB of memory for a million files), content when it is wanted. Nothing runs with other rights, and no device works (nosuid, nodev). A file
that is damaged gives an input/output error where it is, and the reason is told here.

Examples:
  borgcube archive mount 5caa1e8b /mnt
  borgcube archive mount 5caa1e8b /mnt & ls /mnt; umount /mnt")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// Directory to mount it at
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    at: PathBuf,
    /// Give files to users and groups by number, whoever has the names in the archive here
    #[arg(long)]
    numeric_ids: bool,
    /// Let other users look into it, as far as permissions in the archive go
    #[arg(long)]
    allow_other: bool,
}

/// Mounts it, and waits for its end.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let meta = std::fs::metadata(&args.at).map_err(|e| Error::usage(format!("cannot mount at {}: {e}", args.at.display())))?;
    if !meta.is_dir() {
        return Err(Error::usage(format!("cannot mount at {}: it is no directory", args.at.display())));
    }
    let mut interrupts = wait::interrupts()?;
    let opened = reading::open(&args.which, context)?;
    let mut complaints = Complaints::new(context);
    let tree = Tree::read(&opened.source, args.numeric_ids, &mut |path, what| complaints.add(path, what));
    let tree = tree.map_err(|e| reading::error(e, &opened.repository))?;
    let complain = Box::new(|what: &str| {
        // When standard error is gone, too, whoever reads still gets an error.
        let _ = io::stderr().write_all(format!("{}\n", shown(what)).as_bytes());
    });
    let mounted = mount(&opened.source, tree, &args.at, args.allow_other, complain).map_err(|e| {
        Error::failed(format!("cannot mount at {}: {e}", args.at.display()))
            .hint("It needs /dev/fuse, and for others than root the program fusermount3 (package fuse3).")
    })?;
    context.say(&format!(
        "Archive {} is mounted at {}; Ctrl-C or umount ends it.",
        shown(&opened.source.readable.name),
        args.at.display()
    ))?;
    while !mounted.is_over() {
        let ready = poll(&[(interrupts.as_fd(), Interest::Read)], Some(GLANCE))?;
        if ready[0].any() && !interrupts.take().is_empty() {
            break;
        }
    }
    mounted
        .end()
        .map_err(|e| Error::failed(format!("{} is not unmounted: {e}", args.at.display())).hint("umount it when nobody uses it."))?;
    complaints.verdict("mounted")
}
