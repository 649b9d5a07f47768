//! Looking at running processes through /proc, and ending them so that nothing is left.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::retry_until;

/// The numbers of all processes there are.
pub fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        panic!("/proc cannot be read; the tests need it to find processes");
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The file name of the program a process runs; `None` when it is gone, a zombie, or somebody else's.
pub fn program(pid: i32) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = exe.file_name()?.to_string_lossy().into_owned();
    // The kernel says so when the program's file was replaced by a new build meanwhile.
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// The arguments a process was started with.
pub fn arguments(pid: i32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Was this process started with `name=value` in its environment?
pub fn has_environment(pid: i32, name: &str, value: &OsStr) -> bool {
    let raw = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = [name.as_bytes(), b"=", value.as_bytes()].concat();
    raw.split(|byte| *byte == 0).any(|word| word == wanted.as_slice())
}

/// The parent of a process, and whether it is a zombie.
fn parent(pid: i32) -> Option<(i32, bool)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses.
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let text = String::from_utf8_lossy(&stat[after + 1..]).into_owned();
    let mut words = text.split_whitespace();
    let state = words.next()?;
    Some((words.next()?.parse().ok()?, state == "Z"))
}

/// Is the process there and not merely waiting to be reaped?
pub fn is_alive(pid: i32) -> bool {
    parent(pid).is_some_and(|(_, zombie)| !zombie)
}

/// Children, their children and so on; not `pid` itself, and no zombies.
pub fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = all()
        .into_iter()
        .filter_map(|one| match parent(one)? {
            (above, false) => Some((one, above)),
            _ => None,
        })
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let above = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == above).map(|(one, _)| *one));
        next += 1;
    }
    found.split_off(1)
}

/// The processor time that a process and everything below it, ended or not, has used so far. What a process leaves
/// to init when it ends is not in it. Granularity: the kernel's clock tick of 10 ms.
pub fn processor_time(pid: i32) -> Duration {
    let mut pids = descendants(pid);
    pids.push(pid);
    let ticks: u64 = pids.into_iter().filter_map(ticks).sum();
    Duration::from_millis(ticks * 10)
}

/// User and system time of a process and of the children it has reaped.
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let text = String::from_utf8_lossy(&stat[after + 1..]).into_owned();
    // utime, stime, cutime and cstime are the fields 14 to 17, and `state` behind the name is field 3.
    Some(text.split_whitespace().skip(11).take(4).filter_map(|word| word.parse::<u64>().ok()).sum())
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    let _gone_is_fine = kill(Pid::from_raw(pid), signal);
}

/// Ends a child of ours and everything below it: asked nicely first, for `patience`, then killed.
pub fn end_tree(child: &mut Child, patience: Duration) {
    let Ok(pid) = i32::try_from(child.id()) else {
        return;
    };
    // Who is below must be known before the child dies: afterwards its children belong to init.
    let mut below = descendants(pid);
    signal(pid, Signal::SIGTERM);
    let ended = retry_until(patience, || match child.try_wait() {
        Ok(None) => {
            below.extend(descendants(pid));
            None
        }
        _ => Some(()),
    });
    if ended.is_none() {
        // A stopped process starts nothing new while we look.
        signal(pid, Signal::SIGSTOP);
        below.extend(descendants(pid));
        signal(pid, Signal::SIGKILL);
        let _reaped = child.wait();
    }
    below.sort_unstable();
    below.dedup();
    kill_all(&below);
}

/// Kills the given processes with all below them, and waits until they are gone.
pub fn kill_all(pids: &[i32]) {
    for pid in pids {
        for below in descendants(*pid) {
            signal(below, Signal::SIGKILL);
        }
        signal(*pid, Signal::SIGKILL);
    }
    let left = || pids.iter().copied().filter(|pid| is_alive(*pid)).collect::<Vec<_>>();
    if retry_until(Duration::from_secs(5), || left().is_empty().then_some(())).is_none() {
        eprintln!("testkit: still there after SIGKILL: {:?}", left());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn finds_and_ends_a_tree() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; sh -c 'sleep 61; :' & sleep 62; wait"])
            .env("TESTKIT_MARK", "here it is")
            .stdin(Stdio::null())
            .spawn()
            .expect("sh starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        let mark = OsStr::new("here it is");
        // A child that has been forked is there before it has become its program.
        let is_ready = |one: i32| arguments(one) == ["sleep", "61"] && program(one).is_some() && has_environment(one, "TESTKIT_MARK", mark);
        let below = retry_until(Duration::from_secs(5), || {
            let below = descendants(pid);
            (below.len() == 3 && below.iter().copied().any(is_ready)).then_some(below)
        })
        .expect("two sleeps and a shell");
        assert!(has_environment(pid, "TESTKIT_MARK", mark));
        assert!(!has_environment(pid, "TESTKIT_MARK", OsStr::new("here")));

        end_tree(&mut child, Duration::from_millis(200));
        assert!(!is_alive(pid));
        for one in below {
            assert!(!is_alive(one), "{one} is left: {:?}", arguments(one));
        }
    }
}
