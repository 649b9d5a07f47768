//! Messages to the service manager. All of them do nothing without `NOTIFY_SOCKET`.

use crate::logging::escape;
use crate::{Error, Result};
use sd_notify::NotifyState;
use std::time::Duration;

/// The service has started.
pub fn ready() -> Result<()> {
    send(&[NotifyState::Ready])
}

/// One line for `systemctl status`. Control characters are escaped: a line break would begin another message.
pub fn status(text: &str) -> Result<()> {
    send(&[NotifyState::Status(&escape(text))])
}

/// The service looks at its configuration again; [`ready`] says when it has.
pub fn reloading() -> Result<()> {
    let now = NotifyState::monotonic_usec_now().map_err(|e| Error::io("cannot read the clock", e))?;
    send(&[NotifyState::Reloading, now])
}

/// What is going on (a start, a stop) may take so long from now, whatever the unit says.
pub fn extend_timeout(by: Duration) -> Result<()> {
    send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))])
}

/// The service is ending.
pub fn stopping() -> Result<()> {
    send(&[NotifyState::Stopping])
}

/// The service is alive.
pub fn watchdog() -> Result<()> {
    send(&[NotifyState::Watchdog])
}

/// How long the service manager waits for [`watchdog`] before it kills us; None if it does not watch this process.
/// Report at half of it.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn send(state: &[NotifyState<'_>]) -> Result<()> {
    sd_notify::notify(state).map_err(|e| Error::io("cannot reach the service manager", e))
}
