//! `borgcube archive extract`.

use super::reading::{self, Complaints, Files, Which};
use crate::context::Context;
use crate::error::Result;
use crate::output::live::Live;
use crate::output::{bytes, count, shown};
use archive::attributes::{self, LeftOut};
use archive::extract::{Extracted, Options, dry_run, extract};
use serde::Serialize;
use std::path::PathBuf;
use wire::maintenance::Progress;

/// Options of `borgcube archive extract`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are made on this machine, below DIR and nowhere else, whatever the archive says: no path with .. or a leading slash, no symbolic link
and no hard link leads out. As root, files get their owners, by name unless --numeric-ids is given; other users own what they extract.
Left out unless --privileged is given, because an archive is what a client wrote: set-uid and set-gid bits of files, devices, capabilities
and other attributes and flags that only root may set. What is left out is told.

A file whose content is not whole in the repository has zeros in place of what is missing; its name is told, everything else is extracted,
and the exit code is 1.

Examples:
  borgcube archive extract 5caa1e8b --to /srv/restored
  borgcube archive extract 5caa1e8b --to /tmp/anna home/anna --exclude '*.iso' --strip-components 2
  borgcube archive extract 5caa1e8b --dry-run")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    files: Files,
    /// Extract into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// Read and verify everything that would be extracted, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Give files to users and groups by number, whoever has the names in the archive here
    #[arg(long)]
    numeric_ids: bool,
    /// Leave out so many leading directories of each path
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    strip_components: usize,
    /// Extract into a directory that is not empty, and replace what has the same names
    #[arg(long)]
    overwrite: bool,
    /// Also make what can do harm on this machine: set-uid files, devices, capabilities, immutable files
    #[arg(long)]
    privileged: bool,
}

/// What was extracted, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Done<'a> {
    archive: &'a str,
    id: &'a str,
    dry_run: bool,
    items: u64,
    content: u64,
    left_out: Left,
    #[serde(flatten)]
    complaints: &'a Complaints,
}

/// What was left out on purpose.
#[derive(Debug, Serialize)]
struct Left {
    set_ids: u64,
    attributes: u64,
    devices: u64,
    owners: u64,
}

/// Extracts.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut selection = args.files.selection(args.strip_components)?;
    let opened = reading::open(&args.which, context)?;
    let mut complaints = Complaints::new(context);
    let mut live = Live::new(context.quiet || context.json);
    let what = if args.dry_run { "reading" } else { "extracting" };
    live.begin(what);
    // What a selection will have is not known before.
    let total = opened.files.filter(|_| selection.is_everything()).unwrap_or(0);
    let mut progress = |done: &Extracted| {
        if done.items.is_multiple_of(100) || done.items <= total {
            let total = if total == 0 { 0 } else { total.max(done.items) };
            live.step(what, &Progress { unit: "items".into(), done: done.items, total });
        }
    };
    let extracted = {
        let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
        match &args.to {
            Some(target) if !args.dry_run => {
                let attributes = attributes::Options { numeric_ids: args.numeric_ids, privileged: args.privileged };
                let options = Options { attributes, overwrite: args.overwrite };
                extract(&opened.source, &mut selection, target, options, &mut progress, complain)
            }
            _ => dry_run(&opened.source, &mut selection, &mut progress, complain),
        }
    };
    live.end();
    let extracted = extracted.map_err(|e| reading::error(e, &opened.repository))?;
    complaints.unmatched(&selection);
    let readable = &opened.source.readable;
    let LeftOut { set_ids, attributes, devices, owners } = extracted.left_out;
    let done = Done {
        archive: &readable.name,
        id: &readable.id,
        dry_run: args.dry_run,
        items: extracted.items,
        content: extracted.content,
        left_out: Left { set_ids, attributes, devices, owners },
        complaints: &complaints,
    };
    let verb = if args.dry_run { "Would extract" } else { "Extracted" };
    let (items, size) = (count(extracted.items, "item"), bytes(extracted.content));
    context.done(&done, &format!("{verb} {items} with {size} of content from archive {}.", shown(&readable.name)))?;
    for sentence in left_out(&extracted.left_out) {
        context.note(&sentence);
    }
    complaints.verdict(if args.dry_run { "read" } else { "extracted" })
}

fn left_out(left: &LeftOut) -> Vec<String> {
    let mut parts = vec![];
    for (number, what) in
        [(left.set_ids, "set-uid or set-gid file"), (left.devices, "device"), (left.attributes, "attribute or flag of root")]
    {
        if number > 0 {
            parts.push(count(number, what));
        }
    }
    let mut sentences = vec![];
    if !parts.is_empty() {
        sentences.push(format!("Left out, because an archive is what a client wrote: {} (see --privileged).", parts.join(", ")));
    }
    if left.owners > 0 {
        sentences.push(format!("{} would belong to somebody else; only root can give files away.", count(left.owners, "item")));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told() {
        assert!(left_out(&LeftOut::default()).is_empty());
        let told = left_out(&LeftOut { set_ids: 2, devices: 1, owners: 1, attributes: 0 });
        assert_eq!(
            told[0],
            "Left out, because an archive is what a client wrote: 2 set-uid or set-gid files, 1 device (see --privileged)."
        );
        assert_eq!(told[1], "1 item would belong to somebody else; only root can give files away.");
    }
}
