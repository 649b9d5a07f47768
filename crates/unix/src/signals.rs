//! Signals as something a poll loop can wait for.

use crate::{Error, Result, Signal, raw};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Collects signals behind a pollable descriptor.
///
/// A signal once collected never gets its default action back in this process, not even after this value is dropped:
/// it is then lost. So a daemon makes one at its start and keeps it. Children started by [`crate::spawn`] do not
/// inherit it.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// From now on these signals arrive here only. Fails for SIGKILL, SIGSTOP and the signals of crashes.
    pub fn new(signals: &[Signal]) -> Result<Signals> {
        let failed = |e| Error::io("cannot collect signals", e);
        if let Some(bad) = signals.iter().find(|signal| signal_hook::consts::FORBIDDEN.contains(&(**signal as i32))) {
            return Err(Error::Invalid(format!("{bad} cannot be collected")));
        }
        let (read, write) = UnixStream::pair().map_err(failed)?;
        let numbers = signals.iter().map(|signal| *signal as i32);
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, numbers).map_err(failed)?;
        Ok(Signals { delivery })
    }

    /// What arrived since the last call, each signal at most once; empty if nothing did. Does not block.
    pub fn take(&mut self) -> Vec<Signal> {
        self.delivery.pending().filter_map(|number| Signal::try_from(number).ok()).collect()
    }
}

impl AsFd for Signals {
    /// Readable when [`Signals::take`] has something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Makes writing to a closed pipe or socket an error instead of the end of the process. Rust programs begin this way;
/// this is for those that want to be sure. Children started by [`crate::spawn`] get the default back.
pub fn ignore_sigpipe() -> Result<()> {
    raw::ignore_sigpipe().map_err(|e| Error::io("cannot ignore SIGPIPE", e))
}
