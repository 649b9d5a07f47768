//! `loop`: in the foreground, for machines without systemd and for `borgcube up`.

mod watching;

use crate::dealing::Jitter;
use crate::sync::start_due;
use crate::waking;
use model::Timestamp;
use model::due::{delay, due};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use store::Store;
use unix::Signal;
use unix::paths::Layout;
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use watching::Watching;

/// The longest sleep: so late at most it is noticed that the wall clock was set, or that the machine was asleep.
const GLANCE: Duration = Duration::from_secs(20);
/// The wall clock and the one that only runs forward may differ by so much over a sleep, in seconds.
const SLEW: f64 = 2.0;
/// How long to wait after the database could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// So often everything is looked at anew, whatever anybody said.
const ANEW: Duration = Duration::from_secs(3600);

/// Starts what is due at its time, until SIGTERM or SIGINT.
pub fn foreground(store: &Store, layout: &Layout) -> anyhow::Result<()> {
    let mut signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT])?;
    unix::signals::ignore_sigpipe()?;
    let mut watching = Watching::new(&layout.control_socket());
    log::info!("the schedules are watched");
    loop {
        watching.connect();
        let now = Timestamp::now();
        let mut failed = None;
        if start_due(store, now, Jitter::Own, &mut failed)? {
            waking::wake(&layout.control_socket());
        }
        let next = next(store, Timestamp::now())?;
        let latest = Instant::now() + if failed.is_some() { RETRY } else { ANEW };
        if sleep(&mut signals, &mut watching, next, latest)? == Woken::ToStop {
            log::info!("stopped");
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// Something may be due.
    ToLook,
    ToStop,
}

/// Until `next`, until schedules or the clock were changed, until somebody wants us to end, or until `latest`.
fn sleep(signals: &mut Signals, watching: &mut Watching, next: Option<Timestamp>, latest: Instant) -> anyhow::Result<Woken> {
    loop {
        let (wall, steady) = (Timestamp::now(), Instant::now());
        if next.is_some_and(|next| next <= wall) || steady >= latest {
            return Ok(Woken::ToLook);
        }
        let until_next = next.map_or(GLANCE, |next| Duration::from_micros(next.0.saturating_sub(wall.0).max(0).cast_unsigned()));
        let timeout = until_next.min(GLANCE).min(latest - steady).min(watching.timeout());
        let mut fds: Vec<(BorrowedFd<'_>, Interest)> = vec![(signals.as_fd(), Interest::Read)];
        fds.extend(watching.as_fd().map(|fd| (fd, Interest::Read)));
        let ready = poll(&fds, Some(timeout))?;
        if ready.first().is_some_and(|signals| signals.any()) && !signals.take().is_empty() {
            return Ok(Woken::ToStop);
        }
        let heard = ready.get(1).is_some_and(|stream| stream.any()) && watching.hear();
        if heard || watching.connect() {
            return Ok(Woken::ToLook);
        }
        let strange = Timestamp::now().seconds_since(wall) - steady.elapsed().as_secs_f64();
        if strange.abs() > SLEW {
            log::info!("the clock was set by {strange:+.0} seconds, or the machine was asleep");
            return Ok(Woken::ToLook);
        }
    }
}

/// When the next run of all schedules begins.
fn next(store: &Store, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
    let schedules = store.read(|r| r.schedules().list())?;
    let moments = schedules.iter().filter(|schedule| schedule.enabled).filter_map(|schedule| {
        // What is due but within its jitter comes first.
        let occurrence = due(schedule, now).run.or_else(|| schedule.recurrence.next_after(now.max(schedule.handled)))?;
        Some(occurrence.plus_seconds(delay(schedule, occurrence)))
    });
    Ok(moments.min())
}
