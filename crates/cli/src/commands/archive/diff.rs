//! `borgcube archive diff`.

use super::reading::{self, Complaints, Files, Path, Which};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::bytes;
use archive::diff::{Change, Difference, diff};
use archive::kind::{Kind, mode_text};
use clap_complete::ArgValueCandidates;
use model::RepositoryName;
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};

/// Options of `borgcube archive diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Compared are content, type and permissions, owners, where symbolic links lead, ACLs, extended attributes and flags; not times. Archives of one
repository that were cut in the same way are compared by their chunks, without reading content; others byte by byte. With --json, one object on
each line (JSON lines).

Examples:
  borgcube archive diff 5caa1e8b 77e0d2c4
  borgcube archive diff 5caa1e8b 77e0d2c4 etc --json | jq -r .path")]
pub struct Args {
    #[command(flatten)]
    which: Which,
    /// The other archive: name, id, or the beginning of an id
    #[arg(value_name = "OTHER", add = ArgValueCandidates::new(complete::archives))]
    other: String,
    /// Look for the other archive in this repository (default: where the first one is, if --repository is given)
    #[arg(long, value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    other_repository: Option<RepositoryName>,
    #[command(flatten)]
    files: Files,
}

/// Prints what differs.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let selections = [args.files.selection(0)?, args.files.selection(0)?];
    let other_repository = args.other_repository.or_else(|| args.which.repository.clone());
    let old = reading::open(&args.which, context)?;
    let new = reading::open(&Which { archive: args.other, repository: other_repository }, context)?;
    let mut complaints = Complaints::new(context);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print = |difference: &Difference| {
        let line = if context.json { record(difference).to_string() } else { text(difference) };
        writeln!(out, "{line}").map_err(archive::Error::Output)
    };
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    let compared = diff(&old.source, &new.source, selections, &mut print, complain);
    let [first, second] = compared.map_err(|e| reading::error(e, &old.repository))?;
    out.flush().map_err(|e| reading::error(archive::Error::Output(e), &old.repository))?;
    // What is in one of them is enough.
    let missing: Vec<&str> = second.unmatched().collect();
    let nowhere: Vec<String> = first.unmatched().filter(|name| missing.contains(name)).map(str::to_owned).collect();
    for name in nowhere {
        complaints.add(None, &format!("nothing in either of them matches {name}"));
    }
    if context.json {
        for complaint in &complaints.errors {
            Error::failed(complaint.message.clone()).report(true);
        }
    }
    complaints.verdict("compared")
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Fifo => "pipe",
        Kind::Character | Kind::Block => "device",
        Kind::Unknown => "something",
    }
}

fn text(difference: &Difference) -> String {
    let kind = difference.kind;
    let with_size = |verb: &str, size: u64| match kind {
        Kind::File => format!("{verb} {}", bytes(size)),
        other => format!("{verb} {}", noun(other)),
    };
    let changes: Vec<String> = difference
        .changes
        .iter()
        .map(|change| match change {
            Change::Added { size } => with_size("added", *size),
            Change::Removed { size } => with_size("removed", *size),
            Change::Content { bytes: Some((added, removed)) } => format!("+{} -{}", bytes(*added), bytes(*removed)),
            Change::Content { bytes: None } => "modified".to_owned(),
            Change::Mode { old, new } => format!("[{} -> {}]", mode_text(*old), mode_text(*new)),
            Change::Owner { old, new } => format!("[{}:{} -> {}:{}]", old.0, old.1, new.0, new.1),
            Change::Link => "changed link".to_owned(),
            Change::Attributes => "changed attributes".to_owned(),
        })
        .collect();
    format!("{:<24} {}", changes.join(" "), unix::logging::escape_bytes(&difference.path))
}

fn record(difference: &Difference) -> Value {
    let changes: Vec<Value> = difference
        .changes
        .iter()
        .map(|change| match change {
            Change::Added { size } => json!({"type": "added", "size": size}),
            Change::Removed { size } => json!({"type": "removed", "size": size}),
            Change::Content { bytes: Some((added, removed)) } => json!({"type": "modified", "added": added, "removed": removed}),
            Change::Content { bytes: None } => json!({"type": "modified"}),
            Change::Mode { old, new } => json!({"type": "mode", "old": mode_text(*old), "new": mode_text(*new)}),
            Change::Owner { old, new } => {
                let who = |(user, group): &(String, String)| json!({"user": user, "group": group});
                json!({"type": "owner", "old": who(old), "new": who(new)})
            }
            Change::Link => json!({"type": "link"}),
            Change::Attributes => json!({"type": "attributes"}),
        })
        .collect();
    let mut record = serde_json::to_value(Path::new(&difference.path)).unwrap_or_default();
    record["kind"] = noun(difference.kind).into();
    record["changes"] = changes.into();
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_as_people_and_programs_see_them() {
        let changes = vec![
            Change::Content { bytes: Some((1500, 20)) },
            Change::Mode { old: 0o100_644, new: 0o100_600 },
            Change::Owner { old: ("root".into(), "root".into()), new: ("1000".into(), "users".into()) },
        ];
        let difference = Difference { path: b"caf\xe9".to_vec(), kind: Kind::File, changes };
        assert_eq!(text(&difference), "+1.50 kB -20 B [-rw-r--r-- -> -rw-------] [root:root -> 1000:users] caf\\xe9");
        let record = record(&difference);
        assert_eq!((&record["path"], &record["path_hex"]), (&json!("caf\\xe9"), &json!("636166e9")));
        assert_eq!(record["changes"][0], json!({"type": "modified", "added": 1500, "removed": 20}));
        let gone = Difference { path: b"d".to_vec(), kind: Kind::Directory, changes: vec![Change::Removed { size: 0 }] };
        assert_eq!(text(&gone), "removed directory        d");
    }
}
