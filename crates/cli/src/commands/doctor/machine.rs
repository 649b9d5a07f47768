//! Clock, space and borg.

use super::finding::{Finding, or_ok};
use crate::output::bytes;
use std::path::PathBuf;

/// What compaction and deletion need to begin at all: two segments of Borg (500 MiB each by default).
pub const RESERVE: u64 = 1024 * 1024 * 1024;
/// The oldest Borg that clients may have.
const OLDEST: (u32, u32, u32) = (1, 1, 10);

/// A file system that BorgCube writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What lies there, for people.
    pub what: String,
    /// A path on it.
    pub path: PathBuf,
    /// Bytes in all and still to be had.
    pub bytes: (u64, u64),
    /// Inodes in all and still to be had; (0, 0) where they are not counted.
    pub inodes: (u64, u64),
}

/// Space against the reserve.
#[must_use]
pub fn space(volumes: &[Volume]) -> Vec<Finding> {
    let findings = volumes.iter().flat_map(judge).collect();
    let well: Vec<_> = volumes.iter().map(|v| format!("{} free for {}", bytes(v.bytes.1), v.what)).collect();
    or_ok("space", findings, well.join(", "))
}

fn judge(volume: &Volume) -> Vec<Finding> {
    let Volume { what, path, bytes: (total, free), inodes: (all, left) } = volume;
    let at = path.display();
    let mend = [
        format!("Make room on that file system: df -h {at}"),
        "For a repository: borgcube archive delete, then borgcube repository compact; both need some space themselves".to_owned(),
    ];
    let finding = |finding: Finding| mend.iter().fold(finding, |finding, line| finding.mend(line.clone()));
    let mut findings = vec![];
    if *free < RESERVE {
        let sentence =
            format!("only {} are free for {what} at {at}; below {} even deleting and compacting may fail", bytes(*free), bytes(RESERVE));
        findings.push(finding(Finding::problem("space", sentence)));
    } else if *total > 0 && free.saturating_mul(20) < *total {
        let sentence = format!("{} of {} are free for {what} at {at}: less than 5 %", bytes(*free), bytes(*total));
        findings.push(finding(Finding::warning("space", sentence)));
    }
    if *all > 0 && left.saturating_mul(50) < *all {
        let sentence = format!("only {left} of {all} inodes are free for {what} at {at}");
        findings.push(Finding::warning("space", sentence).mend(format!("df -i {at}; remove small files that nobody needs")));
    }
    findings
}

/// What is known of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// The kernel's word (by adjtimex, as `timedatectl` shows it); None with why it is not known.
    pub synchronised: Result<bool, String>,
    /// Seconds by which the newest entry of the transaction log lies in the future.
    pub ahead: i64,
}

/// Schedules, retention and archives' names live by the server's clock.
#[must_use]
pub fn clock(clock: &Clock) -> Vec<Finding> {
    let mut findings = vec![];
    if clock.ahead > 60 {
        let sentence = format!("the clock went back: the newest entry of the transaction log is {} seconds in the future", clock.ahead);
        findings.push(
            Finding::problem("clock", sentence).mend("Set the clock (timedatectl); until then schedules and archives have wrong times"),
        );
    }
    match &clock.synchronised {
        Ok(true) => {}
        Ok(false) => findings.push(
            Finding::warning("clock", "the clock is not synchronised: schedules and archives get whatever time it shows")
                .mend("apt install systemd-timesyncd (or chrony), then: timedatectl set-ntp true")
                .mend("timedatectl timesync-status tells whether a server is reached"),
        ),
        Err(why) => findings.push(Finding::skipped("clock", format!("whether it is synchronised is not known: {why}"))),
    }
    or_ok("clock", findings, "synchronised")
}

/// The property of `timedatectl show --property=NTPSynchronized`.
pub fn synchronised(text: &str) -> Result<bool, String> {
    match text.trim().strip_prefix("NTPSynchronized=") {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        _ => Err("timedatectl gives no answer".into()),
    }
}

/// `borg --version` of the server or a client. `mend` names where to install it.
#[must_use]
pub fn borg(who: &str, said: &str, mend: &str) -> Finding {
    let version = said.lines().find_map(|line| line.trim().strip_prefix("borg "));
    let Some(version) = version else {
        return Finding::problem("borg", format!("{who} has no usable borg: {}", said.lines().last().unwrap_or("no answer"))).mend(mend);
    };
    let mut numbers = version.split('.').map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>());
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::problem("borg", format!("{who} has a borg of unknown version: {version}")).mend(mend);
    };
    let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
    if major != 1 {
        return Finding::problem("borg", format!("{who} has borg {version}; BorgCube needs Borg 1.1.10 to 1.4")).mend(mend);
    }
    if (major, minor, patch) < OLDEST {
        return Finding::problem("borg", format!("{who} has borg {version}, which is too old; BorgCube needs 1.1.10 or newer")).mend(mend);
    }
    Finding::ok("borg", format!("{who} has borg {version}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn volume(total: u64, free: u64, inodes: (u64, u64)) -> Volume {
        Volume { what: "repository main".into(), path: "/srv/main".into(), bytes: (total, free), inodes }
    }

    #[test]
    fn space_against_the_reserve() {
        let gib = RESERVE;
        let verdict = |v: Volume| space(&[v]).iter().map(|f| f.verdict).max();
        assert_eq!(verdict(volume(100 * gib, 50 * gib, (0, 0))), Some(Verdict::Ok));
        assert_eq!(verdict(volume(100 * gib, 4 * gib, (0, 0))), Some(Verdict::Warning));
        assert_eq!(verdict(volume(100 * gib, gib - 1, (0, 0))), Some(Verdict::Problem));
        assert_eq!(verdict(volume(100 * gib, 50 * gib, (1000, 10))), Some(Verdict::Warning));
        assert_eq!(verdict(volume(0, 0, (0, 0))), Some(Verdict::Problem));
        assert_eq!(verdict(volume(u64::MAX, u64::MAX, (u64::MAX, u64::MAX))), Some(Verdict::Ok));
    }

    #[test]
    fn clocks() {
        let verdict = |c: Clock| super::clock(&c).iter().map(|f| f.verdict).max();
        assert_eq!(verdict(Clock { synchronised: Ok(true), ahead: 0 }), Some(Verdict::Ok));
        assert_eq!(verdict(Clock { synchronised: Ok(false), ahead: -5 }), Some(Verdict::Warning));
        assert_eq!(verdict(Clock { synchronised: Ok(true), ahead: 3600 }), Some(Verdict::Problem));
        assert_eq!(verdict(Clock { synchronised: Err("no bus".into()), ahead: 0 }), Some(Verdict::Skipped));
        assert_eq!(synchronised("NTPSynchronized=yes\n"), Ok(true));
        assert_eq!(synchronised("NTPSynchronized=no\n"), Ok(false));
        assert!(synchronised("").is_err() && synchronised("Failed to connect to bus").is_err());
    }

    #[test]
    fn borgs_that_fit_and_those_that_do_not() {
        for good in ["borg 1.2.4\n", "borg 1.1.10", "borg 1.4.0rc1", "banner\nborg 1.4.5\n"] {
            assert_eq!(borg("web1", good, "x").verdict, Verdict::Ok, "{good:?}");
        }
        for bad in ["borg 1.1.9", "borg 2.0.0b14", "borg 1.0.13", "borg", "borg x.y", "", "sh: borg: not found"] {
            let finding = borg("web1", bad, "apt install borgbackup");
            assert_eq!((finding.verdict, finding.mend.len()), (Verdict::Problem, 1), "{bad:?}");
        }
    }
}
