//! Descriptors that the service manager keeps for the next process of the same service.
//!
//! systemd hands them back with those of its sockets, under their names, see [`crate::activation`]. It keeps them while the service is restarted, by hand or
//! after a crash, and drops them when it is stopped.

use crate::paths::{ENV_FDSTORE, ENV_NOTIFY};
use crate::poll::{Interest, poll};
use crate::{Error, Result};
use sd_notify::NotifyState;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// systemd: the longest name.
const LONGEST: usize = 255;

/// How many descriptors the service manager keeps; 0 if it keeps none. systemd says so from version 254 on; for older ones the unit sets the variable itself.
pub fn capacity() -> usize {
    if std::env::var_os(ENV_NOTIFY).is_none() {
        return 0;
    }
    std::env::var(ENV_FDSTORE).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Has a copy of `fd` kept under `name`. That it arrived, [`barrier`] tells; that there was room for it, nobody.
pub fn keep(name: &str, fd: BorrowedFd<'_>) -> Result<()> {
    check(name)?;
    // Otherwise systemd drops a socket by itself as soon as the other side has closed it: with what the other side had said before that.
    let state = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    sd_notify::notify_with_fds(&state, &[fd]).map_err(|e| Error::io("cannot give a descriptor to the service manager", e))
}

/// Nothing of that name is needed any more.
pub fn forget(name: &str) -> Result<()> {
    check(name)?;
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
        .map_err(|e| Error::io("cannot reach the service manager", e))
}

/// Waits until the service manager has read everything that was sent to it. False if it did not within `patience`.
pub fn barrier(patience: Duration) -> Result<bool> {
    if std::env::var_os(ENV_NOTIFY).is_none() {
        return Ok(true);
    }
    let (reader, writer) = io::pipe().map_err(|e| Error::io("cannot make a pipe", e))?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[writer.as_fd()])
        .map_err(|e| Error::io("cannot reach the service manager", e))?;
    drop(writer);
    let ready = poll(&[(reader.as_fd(), Interest::Read)], Some(patience))?;
    Ok(ready.iter().any(|ready| ready.any()))
}

fn check(name: &str) -> Result<()> {
    let good = !name.is_empty() && name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if good { Ok(()) } else { Err(Error::Invalid(format!("\"{}\" cannot name a descriptor", crate::logging::escape(name)))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_systemd_takes() {
        for bad in ["", "a:b", "a b", "a\n", "ü", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("job-17").is_ok());
    }
}
