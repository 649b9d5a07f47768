//! The timers of systemd follow the schedules: `borgcube-scheduler sync` writes down what they should be, and this starts it.
//!
//! Only where there is a spool for that, which is an installed server. `borgcube-scheduler loop` hears of changes by watching.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use unix::paths::{Layout, sibling_program};

/// How often to see whether it has ended. It takes a fraction of a second.
const GLANCE: Duration = Duration::from_millis(200);

/// At most one of them runs; what changes meanwhile is seen by another one.
#[derive(Debug, Default)]
pub struct Timers {
    child: Option<Child>,
    again: bool,
}

impl Timers {
    /// Schedules have changed.
    pub fn wanted(&mut self, layout: &Layout) {
        if self.child.is_some() {
            self.again = true;
            return;
        }
        if !layout.timers().is_dir() {
            return;
        }
        let mut command = Command::new(sibling_program("borgcube-scheduler"));
        match command.arg("sync").stdin(Stdio::null()).spawn() {
            Ok(child) => self.child = Some(child),
            Err(e) => log::error!("the timers do not follow the schedules: borgcube-scheduler sync cannot be started: {e}"),
        }
    }

    /// When to look again.
    pub fn deadline(&self) -> Option<Instant> {
        self.child.as_ref().map(|_| Instant::now() + GLANCE)
    }

    /// Reaps it.
    pub fn look(&mut self, layout: &Layout) {
        let Some(child) = &mut self.child else { return };
        match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => log::error!("the timers do not follow the schedules: borgcube-scheduler sync: {status}"),
            Err(e) => log::error!("borgcube-scheduler sync: {e}"),
        }
        self.child = None;
        if std::mem::take(&mut self.again) {
            self.wanted(layout);
        }
    }
}
