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
    /// Where it is mounted.
    pub root: PathBuf,
    /// apt keeps what it has downloaded there, too.
    pub packages: bool,
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
    let Volume { what, path, root, packages, bytes: (total, free), inodes: (all, left) } = volume;
    let at = path.display();
    let finding = |mut finding: Finding| {
        finding = finding
            .mend(format!("Make room on that file system. What takes it: du -xh --max-depth=3 {0} | sort -h | tail -n 30", root.display()));
        if *packages {
            finding = finding.mend("Packages that apt has downloaded and nobody needs:").run("apt-get clean");
        }
        finding.mend("For a repository: borgcube archive delete, then borgcube repository compact; both need some space themselves")
    };
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
    /// The kernel's word (by adjtimex, as `timedatectl` shows it), or why it is not known.
    pub synchronised: Result<Synchronised, String>,
    /// Now, for people.
    pub now: String,
    /// Seconds by which the newest entry of the transaction log lies in the future.
    pub ahead: i64,
    /// This is a container, which shows the clock of its host and cannot set it.
    pub container: bool,
}

/// Whether the clock follows others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronised {
    /// It does.
    Yes,
    /// A program that would see to it runs, and has reached nobody.
    Tries,
    /// Such a program is there, and does not run.
    Off,
    /// There is none.
    Cannot,
}

/// Schedules, retention and archives' names live by the server's clock.
#[must_use]
pub fn clock(clock: &Clock) -> Vec<Finding> {
    let mut findings = vec![];
    if clock.ahead > 60 {
        let sentence = format!("the clock went back: the newest entry of the transaction log is {} seconds in the future", clock.ahead);
        findings.push(
            Finding::problem("clock", sentence)
                .mend(format!(
                    "Now it shows {}. If that is right, it was wrong before: schedules go on, and this passes by itself. If it is wrong:",
                    clock.now
                ))
                .run("date -s 'YYYY-MM-DD HH:MM:SS'"),
        );
    }
    let unsynchronised = || Finding::warning("clock", "the clock is not synchronised: schedules and archives get whatever time it shows");
    match &clock.synchronised {
        Ok(Synchronised::Yes) => {}
        Ok(_) if clock.container => {
            if findings.is_empty() {
                return vec![Finding::ok("clock", "this is a container: its host sees to the clock")];
            }
        }
        Ok(Synchronised::Tries) => findings
            .push(unsynchronised().mend("No time server is reached yet; timedatectl timesync-status (or chronyc sources) tells more")),
        Ok(Synchronised::Off) => findings.push(unsynchronised().run("timedatectl set-ntp true")),
        Ok(Synchronised::Cannot) => findings.push(unsynchronised().run("apt-get install -y systemd-timesyncd && timedatectl set-ntp true")),
        Err(why) => findings.push(Finding::skipped("clock", format!("whether it is synchronised is not known: {why}"))),
    }
    or_ok("clock", findings, "synchronised")
}

/// The output of `timedatectl show`.
pub fn synchronised(text: &str) -> Result<Synchronised, String> {
    let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
    match (value("NTPSynchronized"), value("NTP"), value("CanNTP")) {
        (Some("yes"), ..) => Ok(Synchronised::Yes),
        (Some("no"), Some("yes"), _) => Ok(Synchronised::Tries),
        (Some("no"), _, Some("no")) => Ok(Synchronised::Cannot),
        (Some("no"), ..) => Ok(Synchronised::Off),
        _ => Err("timedatectl gives no answer".into()),
    }
}

/// Clocks of this server and of a client: `before` and `after` are ours around its answer, all in seconds.
#[must_use]
pub fn clocks_apart(client: &str, theirs: i64, before: i64, after: i64) -> Option<Finding> {
    const ALLOWED: i64 = 60;
    let apart = if theirs < before { theirs - before } else { (theirs - after).max(0) };
    if apart.abs() <= ALLOWED {
        return None;
    }
    let word = if apart < 0 { "behind" } else { "ahead of" };
    let sentence = format!("the clock of client {client} is {} seconds {word} this server's", apart.abs());
    Some(Finding::warning("clock", sentence).mend("date -u on both tells which is wrong; schedules and archives go by this server's"))
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
        Volume {
            what: "repository main".into(),
            path: "/srv/main".into(),
            root: "/srv".into(),
            packages: false,
            bytes: (total, free),
            inodes,
        }
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
        let verdict = |synchronised, ahead, container| {
            let found = super::clock(&Clock { synchronised, now: "now".into(), ahead, container });
            found.iter().map(|f| f.verdict).max()
        };
        assert_eq!(verdict(Ok(Synchronised::Yes), 0, false), Some(Verdict::Ok));
        for off in [Synchronised::Tries, Synchronised::Off, Synchronised::Cannot] {
            assert_eq!(verdict(Ok(off), -5, false), Some(Verdict::Warning));
            assert_eq!(verdict(Ok(off), -5, true), Some(Verdict::Ok));
        }
        assert_eq!(verdict(Ok(Synchronised::Yes), 3600, true), Some(Verdict::Problem));
        assert_eq!(verdict(Err("no bus".into()), 0, false), Some(Verdict::Skipped));
        assert_eq!(synchronised("CanNTP=yes\nNTP=yes\nNTPSynchronized=yes\n"), Ok(Synchronised::Yes));
        assert_eq!(synchronised("CanNTP=yes\nNTP=yes\nNTPSynchronized=no\n"), Ok(Synchronised::Tries));
        assert_eq!(synchronised("CanNTP=yes\nNTP=no\nNTPSynchronized=no\n"), Ok(Synchronised::Off));
        assert_eq!(synchronised("CanNTP=no\nNTP=no\nNTPSynchronized=no\n"), Ok(Synchronised::Cannot));
        assert!(synchronised("").is_err() && synchronised("Failed to connect to bus").is_err());
    }

    #[test]
    fn two_clocks() {
        let apart = |theirs| clocks_apart("web1", theirs, 1000, 1010).map(|finding| finding.message);
        assert_eq!([apart(940), apart(1005), apart(1070)], [None, None, None]);
        assert!(apart(939).unwrap().contains("61 seconds behind"));
        assert!(apart(4610).unwrap().contains("3600 seconds ahead of"));
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
