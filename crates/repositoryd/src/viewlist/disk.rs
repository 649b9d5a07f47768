//! Which files stay: those of archives, and those that they build on.

use super::{Lists, file, remove};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

/// How old a file must be that nothing names.
const LEFT_BEHIND: Duration = Duration::from_secs(86_400);

/// A file of the directory.
struct Entry {
    path: PathBuf,
    base: Option<String>,
    old: bool,
}

impl Lists {
    /// The archives `gone` are no more: removes their files, and then those of earlier ones, unless something builds on them. `kept` are the
    /// archives whose files stay in any case: those with a record, and those that running jobs build on.
    pub fn forget(&self, gone: &[String], kept: &HashSet<String>) {
        let Some((entries, _)) = self.entries() else { return };
        let mut dependents: HashMap<&str, usize> = HashMap::new();
        for base in entries.values().filter_map(|entry| entry.base.as_deref()) {
            *dependents.entry(base).or_default() += 1;
        }
        let mut next: Vec<&str> = gone.iter().map(String::as_str).collect();
        let mut done = HashSet::new();
        while let Some(id) = next.pop() {
            let Some(entry) = entries.get(id) else { continue };
            if kept.contains(id) || dependents.get(id).is_some_and(|count| *count > 0) || !done.insert(id) {
                continue;
            }
            remove(&entry.path);
            if let Some(base) = &entry.base {
                if let Some(count) = dependents.get_mut(base.as_str()) {
                    *count -= 1;
                }
                next.push(base);
            }
        }
    }

    /// Removes files that no record names and no list needs, and half-written ones: an owner ended before its intent, or an earlier
    /// repository had the name.
    pub fn sweep(&self, kept: &HashSet<String>) {
        if self.has_only(kept) {
            return;
        }
        let Some((entries, half)) = self.entries() else { return };
        let mut needed: HashSet<&str> = HashSet::new();
        for (id, entry) in &entries {
            if !kept.contains(id) && entry.old {
                continue;
            }
            let mut next = Some(id.as_str());
            while let Some(id) = next
                && needed.insert(id)
            {
                next = entries.get(id).and_then(|entry| entry.base.as_deref());
            }
        }
        let nobodys = entries.iter().filter(|(id, entry)| entry.old && !needed.contains(id.as_str())).map(|(_, entry)| &entry.path);
        for path in nobodys.chain(&half) {
            log::info!("{} belongs to no archive; removing it", path.display());
            remove(path);
        }
    }

    /// Whether the directory has nothing but lists that are kept anyway: then nobody has to read their beginnings, of which there may be tens of
    /// thousands.
    fn has_only(&self, kept: &HashSet<String>) -> bool {
        let Ok(mut directory) = std::fs::read_dir(&self.directory) else { return false };
        directory.all(|entry| {
            entry.is_ok_and(|entry| match entry.file_name().to_str().map(|name| name.rsplit_once('.')) {
                Some(Some((id, "view"))) => kept.contains(id),
                Some(Some((_, "tmp"))) | None => false,
                Some(_) => true,
            })
        })
    }

    /// Whether another list builds on that of this archive, or nobody knows.
    pub(super) fn is_built_on(&self, id: &str) -> bool {
        self.entries().is_none_or(|(entries, _)| entries.values().any(|entry| entry.base.as_deref() == Some(id)))
    }

    /// The lists by archive, and old half-written files. None if the directory or a file's beginning cannot be read: then nobody knows what
    /// is needed.
    fn entries(&self) -> Option<(HashMap<String, Entry>, Vec<PathBuf>)> {
        let (mut entries, mut half) = (HashMap::new(), vec![]);
        let directory = std::fs::read_dir(&self.directory).inspect_err(|e| log::warn!("{} cannot be read: {e}", self.directory.display()));
        for entry in directory.ok()?.flatten() {
            let path = entry.path();
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFT_BEHIND));
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("view") => {
                    let Some(id) = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned) else { continue };
                    let head = match file::head(&path) {
                        Ok(head) => head,
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                        Err(e) => {
                            log::warn!("{} cannot be read: {e}; no view list is removed for now", path.display());
                            return None;
                        }
                    };
                    // What a damaged one builds on, it cannot use any more.
                    let base = head.and_then(|head| head.base).map(|base| base.id);
                    entries.insert(id, Entry { path, base, old });
                }
                Some("tmp") if old => half.push(path),
                _ => {}
            }
        }
        Some((entries, half))
    }
}
