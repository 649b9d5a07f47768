//! The identity under which this host's borg takes locks. Every borg that BorgCube starts here gets it as `BORG_HOST_ID`, so that an
//! administrator's borg and ours recognise each other's locks. Only Borg itself knows how it computes the value, so it is asked, once.

use crate::error::{Error, Result};
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use unix::Signal;
use unix::paths::{ENV_BORG_HOST_ID, ENV_KEPT, Layout};
use unix::poll::{Interest, poll};
use unix::spawn::{Spawn, Stdio};

/// A borg that needs longer for an empty repository does not work.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stored value, if there is one.
pub fn stored(layout: &Layout) -> Option<String> {
    let text = fs::read_to_string(layout.host_id_file()).ok()?;
    Some(text.trim().to_owned()).filter(|id| is_host_id(id))
}

/// The stored value; asks borg and stores it when there is none. Without an answer there is none, and the log says so.
pub fn ensure(layout: &Layout, borg: &Path) -> Option<String> {
    if let Some(id) = stored(layout) {
        return Some(id);
    }
    let asked = ask(layout, borg).and_then(|id| Ok(unix::files::write_private(&layout.host_id_file(), id.as_bytes()).map(|()| id)?));
    match asked {
        Ok(id) => Some(id),
        Err(error) => {
            log::warn!(
                "{} does not tell this host's lock identity: {}. Until it does, do not run other borgs on BorgCube's repositories while backups run",
                borg.display(),
                error.message()
            );
            None
        }
    }
}

/// Borg 1.x writes `[host, pid, thread]` of who holds an exclusive lock into `lock.roster`.
fn ask(layout: &Layout, borg: &Path) -> Result<String> {
    let scratch = Scratch::new(layout)?;
    let repository = scratch.0.join("repository");
    let roster = repository.join("lock.roster");
    run(borg, &["init".as_ref(), "--encryption=none".as_ref(), repository.as_ref()], &scratch.0)?;
    let text = run(borg, &["with-lock".as_ref(), repository.as_ref(), "cat".as_ref(), roster.as_ref()], &scratch.0)?;
    from_roster(&text).ok_or_else(|| Error::failed("it takes locks in a way that is not understood"))
}

fn from_roster(text: &str) -> Option<String> {
    let roster: serde_json::Value = serde_json::from_str(text).ok()?;
    let id = roster["exclusive"].get(0)?.get(0)?.as_str()?;
    is_host_id(id).then(|| id.to_owned())
}

/// It becomes part of file names and of an environment variable.
fn is_host_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 200 && id.chars().all(|c| c.is_ascii_graphic() && c != '/')
}

fn run(borg: &Path, arguments: &[&Path], base: &Path) -> Result<String> {
    let mut child = Spawn::new(borg)
        .args(arguments)
        .keep_env(ENV_KEPT)
        // Where the user has fixed it, borg answers with that.
        .keep_env(&[ENV_BORG_HOST_ID])
        .env("BORG_BASE_DIR", base)
        .env("BORG_SELFTEST", "disabled")
        .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
        .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Pipe)
        .spawn()?;
    if !poll(&[(child.pidfd.as_fd(), Interest::Read)], Some(PATIENCE))?[0].any() {
        child.kill_group(Signal::SIGKILL)?;
        child.wait()?;
        return Err(Error::failed(format!("it did not end within {} seconds", PATIENCE.as_secs())));
    }
    let status = child.wait()?;
    let output = text(child.stdout.take());
    if status.success() {
        return Ok(output);
    }
    let said = text(child.stderr.take());
    let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no message");
    Err(Error::failed(format!("it {status}: {}", unix::logging::escape(last.trim()))))
}

/// What the ended child left in a pipe.
fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = vec![];
    if let Some(pipe) = pipe {
        // What cannot be read is not there; the caller looks at what is.
        let _ = pipe.take(64 * 1024).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(layout: &Layout) -> Result<Scratch> {
        let path = layout.run().join(format!("host-id-{}", unix::random::hex(8)?));
        fs::create_dir(&path).map_err(|e| Error::failed(format!("cannot create {}: {e}", path.display())))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            log::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosters_of_borg() {
        assert_eq!(from_roster(r#"{"exclusive": [["vm@3281355014145", 17553, 0]]}"#).as_deref(), Some("vm@3281355014145"));
        for bad in ["", "{}", r#"{"exclusive": []}"#, r#"{"exclusive": [["a/b", 1, 0]]}"#, r#"{"exclusive": [[5, 1, 0]]}"#] {
            assert_eq!(from_roster(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_missing_borg_is_told_and_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let layout = Layout::new(state.path());
        layout.create_directories().unwrap();
        assert!(ask(&layout, Path::new("/nonexistent/borg")).is_err());
        assert_eq!(ensure(&layout, Path::new("/nonexistent/borg")), None);
        assert!(!layout.host_id_file().exists());
        let left: Vec<_> = fs::read_dir(layout.run()).unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok()).collect();
        assert!(!left.iter().any(|name| name.starts_with("host-id")), "{left:?}");
    }
}
