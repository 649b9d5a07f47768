//! `borgcube archive export-tar`.

use super::reading::{self, Complaints, Files, Opened, Which};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{bytes, count, shown};
use archive::export::{Written, tar};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Options of `borgcube archive export-tar`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The tar archive is in GNU's form, as borg export-tar writes it: with owners, permissions, times to the second and hard links; ACLs, extended
attributes and file flags are not in it. A file whose content is not whole in the repository has zeros in place of what is missing; its name is
told, and the exit code is 1. Whoever unpacks a tar archive as root trusts who wrote its files; extract does not.

Examples:
  borgcube archive export-tar 5caa1e8b web1.tar
  borgcube archive export-tar 5caa1e8b - home/anna --strip-components 1 | zstd > anna.tar.zst
  borgcube archive export-tar 5caa1e8b - | ssh web2 tar -xpC /srv/restored")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// New file, or - for standard output
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    files: Files,
    /// Leave out so many leading directories of each path
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    strip_components: usize,
    /// Replace FILE if it exists
    #[arg(long)]
    overwrite: bool,
}

/// What was written, as `--json` shows it; on standard error where standard output is the tar archive.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    archive: &'a str,
    id: &'a str,
    items: u64,
    content: u64,
    bytes: u64,
    #[serde(flatten)]
    complaints: &'a Complaints,
}

/// Writes it.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let mut selection = args.files.selection(args.strip_components)?;
    let is_stdout = args.file.as_os_str() == "-";
    let opened = reading::open(&args.which, context)?;
    let mut complaints = Complaints::new(context);
    let written = {
        let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
        if is_stdout {
            tar(&opened.source, &mut selection, BufWriter::with_capacity(1 << 18, io::stdout().lock()), complain)
        } else {
            let (file, is_new) = create(&args.file, args.overwrite)?;
            let written = tar(&opened.source, &mut selection, BufWriter::with_capacity(1 << 18, file), complain);
            if written.is_err() && is_new {
                // Half of an archive looks like a whole one.
                let _ = fs::remove_file(&args.file);
            }
            written
        }
    };
    let written = written.map_err(|e| reading::error(e, &opened.repository))?;
    complaints.unmatched(&selection);
    report(&written, &opened, &complaints, is_stdout, context)?;
    complaints.verdict("exported")
}

fn report(written: &Written, opened: &Opened, complaints: &Complaints, is_stdout: bool, context: &Context) -> Result<()> {
    let Written { items, content, bytes: size } = *written;
    let readable = &opened.source.readable;
    let exported = Exported { archive: &readable.name, id: &readable.id, items, content, bytes: size, complaints };
    let sentence = format!("Exported {} with {} of content from archive {}.", count(items, "item"), bytes(content), shown(&readable.name));
    if !is_stdout {
        return context.done(&exported, &sentence);
    }
    if context.json {
        let text = crate::output::json(&exported)?;
        return io::stderr().write_all(text.as_bytes()).map_err(|e| Error::failed(format!("cannot write to standard error: {e}")));
    }
    context.note(&sentence);
    Ok(())
}

/// A file that only this user can read, and whether it is new. Pipes and devices are written to.
fn create(path: &Path, overwrite: bool) -> Result<(File, bool)> {
    let failed = |e: io::Error| Error::failed(format!("cannot write {}: {e}", path.display()));
    let special = fs::metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_block_device()
    });
    if special {
        return Ok((OpenOptions::new().write(true).open(path).map_err(failed)?, false));
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match options.create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && overwrite => {
            Ok((options.create_new(false).truncate(true).open(path).map_err(failed)?, false))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::conflict(format!("{} exists already", path.display())).hint("Name a new file, or say --overwrite."))
        }
        Err(e) => Err(failed(e)),
    }
}
