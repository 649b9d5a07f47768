//! The drop-in of one timer: its text, and its file.

use crate::spool::Entry;
use anyhow::{Context, anyhow};
use model::{ScheduleName, Timestamp};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Sorts in front of what an administrator adds with `systemctl edit`.
const FILE: &str = "50-calendar.conf";
const FRONT: &str = "borgcube-schedule@";
const BACK: &str = ".timer.d";
const MAX_SIZE: u64 = 64 * 1024;

/// The unit of a schedule's timer.
pub fn unit(name: &ScheduleName) -> String {
    format!("{FRONT}{name}.timer")
}

/// The drop-in. The first, empty line takes away what the packaged unit has.
pub fn text(entry: &Entry) -> String {
    let mut text = String::from(
        "# By borgcube-timers, from what borgcube-scheduler wants; changes are overwritten.\n# `borgcube schedule edit` changes the schedule.\n\
         [Timer]\nOnCalendar=\n",
    );
    if let Some(calendar) = &entry.calendar {
        let _ = writeln!(text, "OnCalendar={calendar}");
    }
    for seconds in &entry.times {
        let moment = Timestamp(seconds.saturating_mul(1_000_000)).to_name().replace('T', " ");
        let _ = writeln!(text, "OnCalendar={moment} UTC");
    }
    if entry.jitter > 0 {
        let _ = writeln!(text, "RandomizedDelaySec={}\nFixedRandomDelay=yes", entry.jitter);
    }
    text
}

fn directory(units: &Path, name: &ScheduleName) -> PathBuf {
    units.join(format!("{FRONT}{name}{BACK}"))
}

/// The drop-ins that there are.
pub fn list(units: &Path) -> anyhow::Result<BTreeMap<ScheduleName, Option<String>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(units).with_context(|| format!("cannot read {}", units.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix(FRONT)?.strip_suffix(BACK));
        let Some(name) = name.and_then(|name| name.parse::<ScheduleName>().ok()) else { continue };
        let path = entry.path().join(FILE);
        let text = unix::files::read_small(&path, MAX_SIZE).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        // A directory without our file is somebody else's (`systemctl edit --runtime`).
        if text.is_some() || path.symlink_metadata().is_ok() {
            found.insert(name, text);
        }
    }
    Ok(found)
}

/// Writes the drop-in of one timer.
pub fn write(units: &Path, name: &ScheduleName, text: &str) -> anyhow::Result<()> {
    let directory = directory(units, name);
    match fs::create_dir(&directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(anyhow!("cannot create {}: {e}", directory.display())),
        _ => {}
    }
    Ok(unix::files::write_with_mode(&directory.join(FILE), text.as_bytes(), 0o644)?)
}

/// Removes the drop-in of one timer, and its directory if nobody else has something in it.
pub fn remove(units: &Path, name: &ScheduleName) -> anyhow::Result<()> {
    let directory = directory(units, name);
    let path = directory.join(FILE);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(anyhow!("cannot remove {}: {e}", path.display())),
        _ => {}
    }
    match fs::remove_dir(&directory) {
        Err(e) if !matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty) => {
            Err(anyhow!("cannot remove {}: {e}", directory.display()))
        }
        _ => Ok(()),
    }
}
