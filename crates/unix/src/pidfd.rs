//! Processes held by a descriptor, so that a reused pid is never waited for or killed by mistake.

use crate::poll::{Interest, poll};
use crate::{Error, Result, Signal};
use nix::errno::Errno;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(Signal),
    /// By a signal that has no name, such as a real-time one.
    SignaledRaw(i32),
}

impl ExitStatus {
    /// Whether the code was 0.
    pub fn success(self) -> bool {
        self == ExitStatus::Exited(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Exited(code) => write!(f, "exited with code {code}"),
            ExitStatus::Signaled(signal) => write!(f, "was killed by {signal}"),
            ExitStatus::SignaledRaw(number) => write!(f, "was killed by signal {number}"),
        }
    }
}

/// One process, ours or not.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

impl PidFd {
    /// Takes hold of `pid`. Certain to be the process that is meant only for a child that was not waited for yet.
    pub fn open(pid: i32) -> Result<PidFd> {
        let failed = |e| Error::io(format!("cannot take hold of process {pid}"), e);
        let named = positive(pid)?;
        let fd = rustix::process::pidfd_open(named, PidfdFlags::empty()).map_err(failed)?;
        Ok(PidFd { fd })
    }

    /// A pidfd that came from elsewhere, such as the fd store of the service manager.
    pub fn from_fd(fd: OwnedFd) -> PidFd {
        PidFd { fd }
    }

    /// The number of the process, as the kernel says. An error if it has ended and was reaped.
    pub fn pid(&self) -> Result<i32> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(format!("cannot read {path}"), e))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        pid.filter(|pid| *pid > 1).ok_or_else(|| Error::Invalid("the process has ended, or this is no pidfd".into()))
    }

    /// Whether the process has ended; also for those that are no children of ours.
    pub fn has_ended(&self) -> Result<bool> {
        let ready = poll(&[(self.fd.as_fd(), Interest::Read)], Some(Duration::ZERO))?;
        Ok(ready.iter().any(|ready| ready.any()))
    }

    /// Waits until the process has ended and reaps it. For children of this process only, and once.
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.waitid(WaitIdOptions::EXITED)? {
                return Ok(status);
            }
        }
    }

    /// Like [`PidFd::wait`], but None if the process is still running.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.waitid(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn waitid(&self, options: WaitIdOptions) -> Result<Option<ExitStatus>> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::io("cannot wait for a child", e)),
                Ok(status) => return Ok(status.as_ref().and_then(exit_status)),
            }
        }
    }

    /// Sends a signal. False if the process has ended already.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        let raw =
            rustix::process::Signal::from_named_raw(signal as i32).ok_or_else(|| Error::Invalid(format!("{signal} cannot be sent")))?;
        match rustix::process::pidfd_send_signal(&self.fd, raw) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(Error::io(format!("cannot send {signal}"), e)),
        }
    }
}

impl AsFd for PidFd {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> OwnedFd {
        pidfd.fd
    }
}

fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    if let Some(code) = status.exit_status() {
        return Some(ExitStatus::Exited(code));
    }
    let number = status.terminating_signal()?;
    Some(match Signal::try_from(number) {
        Ok(signal) => ExitStatus::Signaled(signal),
        Err(_) => ExitStatus::SignaledRaw(number),
    })
}

/// Sends a signal to every process of the group that `pid` leads. False if nobody is left in it.
///
/// Safe from reuse of the number only while the leader is not reaped or a member lives: signal first, then wait.
pub fn kill_group(pid: i32, signal: Signal) -> Result<bool> {
    positive(pid)?;
    match nix::sys::signal::killpg(Pid::from_raw(pid), signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(e) => Err(Error::io(format!("cannot send {signal} to the process group {pid}"), e)),
    }
}

/// 0 and below mean "my own group" and "everybody" to the kernel, and 1 is init: nobody ever means those.
fn positive(pid: i32) -> Result<rustix::process::Pid> {
    Some(pid)
        .filter(|pid| *pid > 1)
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| Error::Invalid(format!("{pid} is not the pid of a child")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_knows_its_process_and_its_end() {
        let child = crate::spawn::Spawn::new("/bin/sleep").arg("60").spawn().unwrap();
        assert_eq!(child.pidfd.pid().unwrap(), child.pid);
        assert!(!child.pidfd.has_ended().unwrap());
        assert!(child.kill_group(Signal::SIGKILL).unwrap());
        child.wait().unwrap();
        assert!(child.pidfd.has_ended().unwrap());
        assert!(child.pidfd.pid().is_err());
        assert!(PidFd::from_fd(std::fs::File::open("/dev/null").unwrap().into()).pid().is_err());
    }
}
