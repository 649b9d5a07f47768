//! `borgcube archive files`.

use super::reading::{self, Complaints, Files, Path, Which};
use crate::context::Context;
use crate::error::{Error, Result};
use archive::feed::{Chosen, Feed};
use archive::kind::{Kind, hard_link, mode_text};
use archive::links::Body;
use model::Timestamp;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// Options of `borgcube archive files`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One line for each file, in the order of the archive, as they are read: mode, user, group, size, time, path. What is no text in a path is
printed as \\xNN. With --json, one object on each line (JSON lines).

Examples:
  borgcube archive files web1-etc-2026-11-01T02:00:00-17
  borgcube archive files 5caa1e8b home/anna 'sh:**/*.odt'
  borgcube archive files 5caa1e8b --json | jq -r 'select(.size > 1000000000) | .path'")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    files: Files,
}

/// One file, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    path: Path,
    /// `file`, `directory`, `link`, `fifo`, `character-device`, `block-device`, `unknown`
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    user: Option<String>,
    group: Option<String>,
    uid: Option<i64>,
    gid: Option<i64>,
    size: u64,
    mtime: String,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The first name of the same file.
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_to: Option<String>,
    /// Not, if zeros are in place of what was lost.
    healthy: bool,
}

/// Prints them.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let opened = reading::open(&args.which, context)?;
    let mut selection = args.files.selection(0)?;
    let mut complaints = Complaints::new(context);
    let listed = list(&opened.source, &mut selection, &mut complaints, context.json);
    listed.map_err(|e| reading::error(e, &opened.repository))?;
    complaints.unmatched(&selection);
    if context.json {
        for complaint in &complaints.errors {
            Error::failed(complaint.message.clone()).report(true);
        }
    }
    complaints.verdict("listed")
}

fn list(source: &archive::Source, selection: &mut archive::Selection, complaints: &mut Complaints, json: bool) -> archive::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let failed = archive::Error::Output;
    let mut feed = Feed::open(source, selection, false)?;
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    while let Some(chosen) = feed.next(complain)? {
        if json {
            serde_json::to_writer(&mut out, &line(&chosen)).map_err(|e| failed(e.into()))?;
            out.write_all(b"\n").map_err(failed)?;
        } else {
            out.write_all(text(&chosen).as_bytes()).map_err(failed)?;
        }
        if !feed.is_ready() {
            // Whoever reads sees what there is while we wait for more.
            out.flush().map_err(failed)?;
        }
    }
    out.flush().map_err(failed)
}

/// A hard link has the size of what it is one of, where that is known without looking for it.
fn size(chosen: &Chosen) -> u64 {
    match &chosen.body {
        Body::Chunks(chunks) => chunks.iter().map(|chunk| u64::from(chunk.size)).sum(),
        Body::Itself | Body::LinkTo(_) => chosen.item.size.unwrap_or(0),
    }
}

/// As text; what is no text is escaped.
fn name(name: &Option<Option<Vec<u8>>>) -> Option<String> {
    name.as_ref()?.as_deref().map(unix::logging::escape_bytes)
}

fn text(chosen: &Chosen) -> String {
    let item = &chosen.item;
    let who = |text: &Option<Option<Vec<u8>>>, id: Option<i64>| name(text).or(id.map(|id| id.to_string())).unwrap_or_default();
    let time = i64::try_from(item.mtime.div_euclid(1000)).map_or_else(|_| "?".to_owned(), |micros| Timestamp(micros).to_local());
    let path = unix::logging::escape_bytes(&item.path);
    let source = item.source.as_deref().map(unix::logging::escape_bytes);
    let behind = match (source, hard_link(item)) {
        (None, _) => String::new(),
        (Some(target), None) => format!(" -> {target}"),
        (Some(master), Some(_)) => format!(" link to {master}"),
    };
    let behind = match item.chunks_healthy {
        None => behind,
        Some(_) => behind + "  DAMAGED: zeros in place of what was lost",
    };
    let (user, group) = (who(&item.user, item.uid), who(&item.group, item.gid));
    format!("{} {user:<8} {group:<8} {:>12} {time} {path}{behind}\n", mode_text(item.mode.unwrap_or(0)), size(chosen))
}

fn line(chosen: &Chosen) -> Line {
    let item = &chosen.item;
    let kind = match Kind::of(item) {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Fifo => "fifo",
        Kind::Character => "character-device",
        Kind::Block => "block-device",
        Kind::Unknown => "unknown",
    };
    // JSON escapes what it has to.
    let source =
        item.source.as_deref().map(|bytes| str::from_utf8(bytes).map_or_else(|_| unix::logging::escape_bytes(bytes), str::to_owned));
    let is_hard = hard_link(item).is_some();
    let time = i64::try_from(item.mtime).ok().and_then(|nanos| jiff::Timestamp::from_nanosecond(nanos.into()).ok());
    Line {
        path: Path::new(&item.path),
        kind,
        mode: mode_text(item.mode.unwrap_or(0)),
        user: name(&item.user),
        group: name(&item.group),
        uid: item.uid,
        gid: item.gid,
        size: size(chosen),
        mtime: time.map_or_else(|| format!("@{}ns", item.mtime), |time| time.to_string()),
        target: source.clone().filter(|_| !is_hard),
        hard_link_to: source.filter(|_| is_hard),
        healthy: item.chunks_healthy.is_none(),
    }
}
