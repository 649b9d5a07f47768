//! What a worker leaves behind in its process group when it ends early: the script of a local client, ssh.
//!
//! They see the end of their input and tidy up by themselves, which may take a borg's checkpoint. Only after that they are killed.
//! While one of them lives the group's number cannot belong to anybody else, so each is held by a pidfd.

use model::queue::Brief;
use std::time::{Duration, Instant};
use unix::Signal;
use unix::pidfd::{PidFd, kill_group};

/// A client's script gives its borg 60 seconds for a checkpoint.
const PATIENCE: Duration = Duration::from_secs(75);

/// The rest of one worker's process group.
#[derive(Debug)]
pub struct Leftovers {
    /// The job, which still stands in the way of its like.
    pub brief: Brief,
    group: i32,
    members: Vec<PidFd>,
    kill_at: Option<Instant>,
}

impl Leftovers {
    /// Looks for the others in the group of a worker that has ended and is not reaped yet.
    pub fn of(brief: &Brief, leader: i32, now: Instant) -> Option<Leftovers> {
        // A worker that was reaped while no daemon was there is not known any more; group 0 would be the kernel's.
        if leader <= 1 {
            return None;
        }
        let members: Vec<PidFd> = members(leader).into_iter().filter_map(|pid| PidFd::open(pid).ok()).collect();
        if members.is_empty() {
            return None;
        }
        log::info!("job {}: its worker left {} processes behind; they have {PATIENCE:?} to end", brief.number, members.len());
        Some(Leftovers { brief: brief.clone(), group: leader, members, kill_at: Some(now + PATIENCE) })
    }

    /// Each is readable when it has ended.
    pub fn pidfds(&self) -> impl Iterator<Item = &PidFd> {
        self.members.iter()
    }

    /// When [`Leftovers::press`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Forgets those that have ended; `ended` says so of each, in order.
    pub fn forget(&mut self, ended: &[bool]) {
        let mut ended = ended.iter();
        self.members.retain(|_| !ended.next().copied().unwrap_or(false));
    }

    /// Nobody is left.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Kills what had its time. The caller has just forgotten those that ended.
    pub fn press(&mut self, now: Instant) {
        if self.kill_at.is_none_or(|at| now < at) || self.is_empty() {
            return;
        }
        self.kill_at = None;
        log::warn!("job {}: killing what its worker left behind", self.brief.number);
        if let Err(e) = kill_group(self.group, Signal::SIGKILL) {
            log::error!("job {}: {e}", self.brief.number);
        }
    }
}

/// The processes of a group but its leader.
fn members(group: i32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != group && group_of(*pid) == Some(group)).collect()
}

fn group_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    group_in(&stat)
}

/// The fifth field of /proc/PID/stat of what is not a zombie; the second one is a name that may contain anything.
fn group_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_behind_any_name() {
        assert_eq!(group_in("12 (a) b) S 1 77 77 0 -1"), Some(77));
        assert_eq!(group_in("12 (x) Z 1 77 77 0 -1"), None);
        assert_eq!(group_in("nonsense"), None);
    }
}
