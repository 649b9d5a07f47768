//! Descriptors that whoever started this process handed over, from 3 on.
//!
//! systemd announces them by `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID`. [`crate::spawn::Spawn::fd`] is the giving
//! side for our own children. `LISTEN_PID` has to be the pid of the child, which only the child knows, and setting an
//! environment variable between fork and exec is not async-signal-safe. So our parents set `BORGCUBE_LISTEN_PARENT` to
//! their own pid instead, and the child compares it with its parent. The parent may have been restarted meanwhile: it also says
//! which file the first descriptor is (`PID:DEVICE:INODE`). Either serves the same purpose: a grandchild that
//! inherits the environment by accident does not take descriptors that are not for it.

use crate::paths::{ENV_LISTEN_FDNAMES, ENV_LISTEN_FDS, ENV_LISTEN_PARENT, ENV_LISTEN_PID};
use crate::raw::{self, FIRST_FD};
use crate::{Error, Result};
use std::env;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// More than this many descriptors are a mistake.
const MAX_FDS: usize = 1 << 16;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// What the environment says, read in one place so that it can be tested without one.
struct Announced {
    fds: Option<String>,
    pid: Option<String>,
    parent: Option<String>,
    names: Option<String>,
}

/// The descriptors handed to this process with their names (`unknown` if it has none), all close-on-exec.
///
/// Empty if nothing was handed over or if it was meant for another process. Call it once, at the beginning of the
/// program before anything is opened: every later call returns nothing, because the first one owns them.
pub fn listen_fds() -> Result<Vec<(OwnedFd, String)>> {
    let names = announced()?;
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // Adopt all before judging any, so that an error closes what was open.
    let adopted: Vec<_> = (FIRST_FD..).zip(names).map(|(number, name)| (number, name, raw::adopt(number))).collect();
    adopted
        .into_iter()
        .map(|(number, name, fd)| match fd {
            Ok(fd) => Ok((fd, name)),
            Err(e) => Err(Error::io(format!("{ENV_LISTEN_FDS} announces descriptor {number}, which cannot be used"), e)),
        })
        .collect()
}

/// The first descriptor number that was *not* handed to this process.
pub(crate) fn first_unannounced() -> Result<RawFd> {
    Ok(FIRST_FD + announced()?.len() as RawFd)
}

fn announced() -> Result<Vec<String>> {
    names(
        &Announced {
            fds: env::var(ENV_LISTEN_FDS).ok(),
            pid: env::var(ENV_LISTEN_PID).ok(),
            parent: env::var(ENV_LISTEN_PARENT).ok(),
            names: env::var(ENV_LISTEN_FDNAMES).ok(),
        },
        nix::unistd::getpid().as_raw(),
        nix::unistd::getppid().as_raw(),
        raw::identity(FIRST_FD),
        is_gone,
    )
}

/// Whether this process has ended; one that nobody has reaped yet has.
fn is_gone(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name in parentheses before the state may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

/// What a parent says of itself and of the first descriptor it hands over.
pub(crate) fn from_parent(pid: u32, first: Option<(u64, u64)>) -> String {
    match first {
        Some((device, inode)) => format!("{pid}:{device}:{inode}"),
        None => pid.to_string(),
    }
}

fn names(announced: &Announced, pid: i32, parent: i32, first: Option<(u64, u64)>, is_gone: impl Fn(i32) -> bool) -> Result<Vec<String>> {
    let Some(fds) = &announced.fds else {
        return Ok(Vec::new());
    };
    let for_us = match (&announced.pid, &announced.parent) {
        (Some(value), _) => number(ENV_LISTEN_PID, value)? == pid,
        (None, Some(value)) => {
            let (who, what) = value.split_once(':').map_or((value.as_str(), None), |(who, what)| (who, Some(what)));
            let same = first.is_some_and(|(device, inode)| what == Some(format!("{device}:{inode}").as_str()));
            let who = number(ENV_LISTEN_PARENT, who)?;
            // As long as it is there, somebody stands between it and us.
            who == parent || (same && is_gone(who))
        }
        (None, None) => false,
    };
    if !for_us {
        return Ok(Vec::new());
    }
    let count = usize::try_from(number(ENV_LISTEN_FDS, fds)?)
        .ok()
        .filter(|count| *count <= MAX_FDS)
        .ok_or_else(|| Error::Environment { name: ENV_LISTEN_FDS, why: format!("{fds} is not a number of descriptors") })?;
    let mut names: Vec<String> = match &announced.names {
        Some(names) => names.split(':').map(str::to_owned).collect(),
        None => Vec::new(),
    };
    // systemd's own word for a descriptor without a name.
    names.resize(count, "unknown".to_owned());
    Ok(names)
}

fn number(name: &'static str, value: &str) -> Result<i32> {
    value.parse().map_err(|_| Error::Environment { name, why: format!("\"{}\" is not a number", crate::logging::escape(value)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(fds: &str, pid: Option<&str>, parent: Option<&str>, list: Option<&str>) -> Result<Vec<String>> {
        let own = |value: Option<&str>| value.map(str::to_owned);
        names(&Announced { fds: Some(fds.into()), pid: own(pid), parent: own(parent), names: own(list) }, 10, 9, Some((3, 77)), |pid| {
            pid != 7
        })
    }

    #[test]
    fn descriptors_are_ours_only_if_meant_for_us() {
        assert_eq!(ask("2", Some("10"), None, Some("a:b")).unwrap(), ["a", "b"]);
        assert_eq!(ask("2", None, Some("9"), Some("a:b")).unwrap(), ["a", "b"]);
        assert!(ask("2", Some("11"), None, None).unwrap().is_empty());
        assert!(ask("2", None, Some("8"), None).unwrap().is_empty());
        // The parent is gone, but this is what it handed over.
        assert_eq!(ask("1", None, Some("8:3:77"), Some("a")).unwrap(), ["a"]);
        assert!(ask("1", None, Some("8:3:78"), None).unwrap().is_empty());
        // It is there, but it is not our parent.
        assert!(ask("1", None, Some("7:3:77"), Some("a")).unwrap().is_empty());
        assert_eq!(ask("1", None, Some(&from_parent(9, Some((1, 2)))), Some("a")).unwrap(), ["a"]);
        assert!(ask("1", None, Some("x:3:77"), None).is_err());
        assert!(ask("2", None, None, None).unwrap().is_empty());
        // systemd's word counts where both are present.
        assert!(ask("2", Some("11"), Some("9"), None).unwrap().is_empty());
    }

    #[test]
    fn missing_names_are_filled_and_surplus_ones_dropped() {
        assert_eq!(ask("2", Some("10"), None, None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(ask("2", Some("10"), None, Some("a")).unwrap(), ["a", "unknown"]);
        assert_eq!(ask("1", Some("10"), None, Some("a:b")).unwrap(), ["a"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for fds in ["-1", "x", "", "65537", "99999999999"] {
            assert!(ask(fds, Some("10"), None, None).is_err(), "{fds}");
        }
        assert!(ask("1", Some("me"), None, None).is_err());
    }
}
