//! Repositories on this machine: do their files belong to the user who writes them? After a `borg` that somebody ran as root they do not.

use super::finding::Finding;
use crate::context::shell_word;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const CHECK: &str = "repositories";

/// More files than this are not looked at: they hold half a petabyte.
const MOST: usize = 1_000_000;

/// Looks at a repository until something in it belongs to somebody else. One that is not there is not this check's affair.
pub fn check(name: &str, path: &Path, user: &str, uid: u32) -> Option<Finding> {
    match stranger(path, uid) {
        Ok(None) => Some(Finding::ok(CHECK, format!("repository {name}: its files belong to {user}"))),
        Ok(Some((path_of, owner))) => {
            let owner = unix::socket::user_name(owner).ok().flatten().unwrap_or_else(|| owner.to_string());
            let sentence = format!("repository {name}: {} belongs to {owner}, and {user} writes repositories", path_of.display());
            let finding = Finding::problem(CHECK, sentence).run(format!("chown -R {user}: {}", shell_word(path)));
            Some(finding.mend("A borg that is run by hand on it has to run as that user: borgcube repository release --help"))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Finding::skipped(CHECK, format!("repository {name}: {} cannot be looked at: {error}", path.display()))),
    }
}

/// The first path that does not belong to `uid`, and to whom it belongs. Links are not followed; what goes meanwhile is not missed.
fn stranger(root: &Path, uid: u32) -> io::Result<Option<(PathBuf, u32)>> {
    let mut waiting = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(path) = waiting.pop() {
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && path != root => continue,
            meta => meta?,
        };
        seen += 1;
        if meta.uid() != uid || seen > MOST {
            return Ok((meta.uid() != uid).then(|| (path, meta.uid())));
        }
        if meta.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => waiting.extend(entries.flatten().map(|entry| entry.path())),
                Err(error) if error.kind() == ErrorKind::NotFound && path != root => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn files_of_somebody_else_are_found_at_any_depth() {
        let repository = tempfile::tempdir().unwrap();
        fs::create_dir_all(repository.path().join("data/0")).unwrap();
        fs::write(repository.path().join("data/0/1"), "x").unwrap();
        let me = fs::metadata(repository.path()).unwrap().uid();
        assert_eq!(check("main", repository.path(), "me", me).unwrap().verdict, Verdict::Ok);
        let wrong = check("main", repository.path(), "borgcube-repo", me + 1).unwrap();
        assert_eq!(wrong.verdict, Verdict::Problem);
        assert_eq!(wrong.run, [format!("chown -R borgcube-repo: {}", repository.path().display())]);
        assert_eq!(check("main", &repository.path().join("gone"), "me", me), None);
        if me == 0 {
            std::os::unix::fs::chown(repository.path().join("data/0/1"), Some(7), None).unwrap();
            let found = check("main", repository.path(), "root", 0).unwrap();
            assert!(found.message.contains("data/0/1"), "{found:?}");
        }
    }
}
