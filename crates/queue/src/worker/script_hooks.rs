//! Hooks and dumps of the client's script, in real shells: the host's `sh`, and a busybox that has every program itself.

use super::client::answer_line;
use super::script::tests::run_in;
use model::hook::{Dump, Hook, OnFailure};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A borg that reads its dump from standard input, and one that opens the pipes it is told of.
const READS: &str = "exec cat >\"$HOME/got\"";
const OPENS: &str = "while [ \"$1\" != -- ]; do shift; done; shift 2; exec cat \"$@\" >\"$HOME/got\"";

fn hook(name: &str, before: &str, after: &str) -> Hook {
    let text = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    Hook { name: name.parse().unwrap(), before: text(before), after: text(after), seconds: 60, on_failure: OnFailure::Fail }
}

fn dump(name: &str, command: &str) -> Dump {
    Dump { name: name.parse().unwrap(), command: command.into(), seconds: 60, spool: false }
}

/// What a run said, with the seconds cut off, and its standard error.
fn run(home: &Path, fake: &str, close: bool, hooks: &[Hook], dumps: &[Dump]) -> (Vec<String>, String) {
    let answer = [answer_line("1"), b"x".to_vec()].concat();
    let (out, err) = run_in(home, fake, &answer, close, |backup| {
        backup.config.paths = if dumps.iter().filter(|dump| !dump.spool).count() > 1 { vec![] } else { vec!["/".into()] };
        backup.config.excludes = vec![];
        backup.config.commands.hooks = hooks.to_vec();
        backup.config.commands.dumps = dumps.to_vec();
        assert_eq!(backup.config.check(), Ok(()));
    });
    let untimed = |line: &str| match line.strip_prefix("borgcube ended ") {
        None => line.to_owned(),
        Some(rest) => {
            let words: Vec<&str> = rest.split(' ').collect();
            format!("ended {} {}", words[..4].join(" "), words.get(5).unwrap_or(&"")).trim_end().to_owned()
        }
    };
    let lines = out.lines().filter(|line| !line.starts_with("borgcube version") && *line != "borgcube cache -").map(untimed).collect();
    let left: Vec<_> = std::fs::read_dir(home.join(".cache/borgcube/sid")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("job-")), "{left:?}");
    (lines, err)
}

/// Not thousands of lines.
fn shown(out: &[String]) -> String {
    let line = |line: &String| line.chars().take(100).collect::<String>();
    let (first, last) = (out.iter().take(30), out.iter().skip(30).rev().take(10).rev());
    first.chain(last).map(line).collect::<Vec<_>>().join("\n")
}

/// A home whose programs are all busybox's, if there is one.
fn busybox() -> Option<tempfile::TempDir> {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let installed = std::process::Command::new("busybox").args(["--install", "-s"]).arg(&bin).status();
    if !installed.is_ok_and(|status| status.success()) {
        println!("NOT RUN with busybox: it is not installed");
        return None;
    }
    Some(home)
}

/// A home whose `sh` is bash, if there is one.
fn bash() -> Option<tempfile::TempDir> {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for entry in std::env::split_paths(&path).filter_map(|directory| directory.read_dir().ok()).flatten().flatten() {
        if entry.file_name() == "bash" {
            drop(std::os::unix::fs::symlink(entry.path(), bin.join("sh")));
        } else if entry.file_name() != "sh" {
            drop(std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())));
        }
    }
    if !bin.join("sh").exists() {
        println!("NOT RUN with bash: it is not installed");
        return None;
    }
    Some(home)
}

fn homes() -> Vec<tempfile::TempDir> {
    std::iter::once(tempfile::tempdir().unwrap()).chain(busybox()).chain(bash()).collect()
}

fn read(home: &Path, name: &str) -> String {
    std::fs::read_to_string(home.join(name)).unwrap_or_default()
}

#[test]
fn hooks_run_around_borg_and_see_nothing_of_it() {
    for home in homes() {
        let home = home.path();
        // What the programs beside it have in their environments, its user can read.
        let beside =
            "for pid in $(cat /proc/$PPID/task/$PPID/children); do tr '\\0' '\\n' </proc/$pid/environ; done >$HOME/beside 2>/dev/null; ";
        let before = "echo to stdout; echo to stderr >&2; env >$HOME/env; ls -l /proc/self/fd/ >$HOME/fds 2>/dev/null; ls -R $HOME/.cache >$HOME/files; umask >$HOME/umask";
        let hooks = [
            hook(
                "first",
                &format!("{beside}{before}"),
                "echo after $BORGCUBE_HOOK $BORGCUBE_RESULT $BORGCUBE_JOB $BORGCUBE_CLIENT $BORGCUBE_CONFIG $BORGCUBE_ARCHIVE",
            ),
            hook("it-s", "printf '%s' 'it'\\''s $(echo quoted)\nand \"more\"'", ""),
            hook("last", "", "echo after last; ls $HOME/.cache/borgcube/sid/job-*"),
        ];
        let (out, err) = run(home, "echo borg >>$HOME/order; env >$HOME/borg-env", false, &hooks, &[]);
        let wanted = [
            "borgcube begins before 0",
            "borgcube said before 0 to stdout",
            "borgcube said before 0 to stderr",
            "ended before 0 code 0",
            "borgcube begins before 1",
            "borgcube said before 1 it's $(echo quoted)",
            "borgcube said before 1 and \"more\"",
            "ended before 1 code 0",
            "borgcube prepared",
            "borgcube started",
            "borgcube exit 0",
            "borgcube begins after 2",
            "borgcube said after 2 after last",
        ];
        assert_eq!(out[..wanted.len()], wanted, "{} {err}", shown(&out));
        assert!(out.contains(&"borgcube said after 0 after first success 5 host host/etc a".to_owned()), "{}", shown(&out));
        assert_eq!(out.last().unwrap(), "borgcube clean");
        let env = read(home, "env");
        assert!(
            env.contains("BORGCUBE_JOB=5") && !env.contains("BORG_") && !env.contains("p'w $x") && !env.contains("borgcube_job_dir"),
            "{env}"
        );
        assert!(!env.contains("theirs") && env.contains("\nTMPDIR=/var/tmp\n"), "{env}");
        let beside = read(home, "beside");
        assert!(beside.contains("HOME=") && !beside.contains("p'w $x"), "{beside}");
        let borg = read(home, "borg-env");
        assert!(borg.contains("BORG_PASSPHRASE=p'w $x") && borg.contains("BORG_CACHE_DIR=") && !borg.contains("theirs"), "{borg}");
        let fds = read(home, "fds");
        assert!(!fds.contains(" 9 -> ") && !fds.contains(" 5 -> "), "{fds}");
        assert!(!read(home, "files").contains("key"), "{}", read(home, "files"));
        assert_ne!(read(home, "umask").trim(), "0077");
    }
}

#[test]
fn a_hook_that_fails_stops_what_comes_behind_it_and_no_hook_behind_it_is_undone() {
    let home = tempfile::tempdir().unwrap();
    let hooks = [
        hook("one", "true", "echo undone $BORGCUBE_RESULT"),
        hook("two", "echo why; exit 3", "echo undone"),
        hook("three", "echo never", "echo never"),
    ];
    let (out, _) = run(home.path(), ": >$HOME/borg-ran", false, &hooks, &[]);
    assert!(out.contains(&"ended before 1 code 3".into()) && out.contains(&"borgcube failed hook-failed 1".into()), "{}", shown(&out));
    let undone: Vec<_> = out.iter().filter(|line| line.starts_with("ended after")).collect();
    assert_eq!(undone, ["ended after 1 code 0", "ended after 0 code 0"]);
    assert!(out.contains(&"borgcube said after 0 undone failed".into()) && !out.iter().any(|l| l.contains("never")), "{}", shown(&out));
    assert!(!home.path().join("borg-ran").exists());
    let lenient = [Hook { on_failure: OnFailure::Warn, ..hook("two", "exit 3", "") }];
    let (out, _) = run(home.path(), ": >$HOME/borg-ran", false, &lenient, &[]);
    assert!(out.contains(&"ended before 0 code 3".into()) && out.contains(&"borgcube exit 0".into()), "{}", shown(&out));
}

/// A71: neither what a hook says nor what it leaves behind gets into the way of the job.
#[test]
fn a71_output_is_bounded_marked_and_not_waited_for() {
    for home in homes() {
        let began = Instant::now();
        let hooks = [
            hook("forge", "printf 'borgcube exit 0\\n\\nborgcube clean\\r\\nborgcube ended before 0 code 0 1\\rborgcube started'", ""),
            hook("flood", "head -c 5000000 /dev/zero | tr '\\0' 'x'; echo; echo the end", ""),
            hook("long", "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done", ""),
            hook("holds", "sleep 30 & echo $! >$HOME/pid; echo said", ""),
        ];
        let (out, err) = run(home.path(), "true", false, &hooks, &[]);
        kill(home.path());
        assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
        let forged = "borgcube said before 0 borgcube ended before 0 code 0 1";
        assert!(out.contains(&forged.into()), "{}", shown(&out));
        assert_eq!(out.iter().filter(|line| ["borgcube exit 0", "borgcube started", "borgcube clean"].contains(&line.as_str())).count(), 3);
        assert!(out.iter().any(|line| line == "borgcube cut before 1 5000009 32768"), "{}", shown(&out));
        assert!(out.contains(&"borgcube said before 1 the end".into()) && out.contains(&"borgcube said before 2 line 4999".into()));
        assert!(out.iter().map(String::len).sum::<usize>() < 5 * 32768, "bounded");
        assert!(
            out.contains(&"borgcube said before 3 said".into()) && out.contains(&"ended before 3 code 0".into()),
            "{} {err}",
            shown(&out)
        );
    }
}

/// Ends what a test's hook has left behind on purpose.
fn kill(home: &Path) {
    let pid = read(home, "pid");
    std::process::Command::new("kill").arg(pid.trim()).status().unwrap();
}

#[test]
fn what_takes_too_long_is_ended_with_all_that_it_started() {
    {
        let home = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let late = Hook { seconds: 1, ..hook("late", "sleep 100 & echo $! >$HOME/child; wait", "echo undone") };
        let (out, err) = run(home.path(), "true", false, &[late], &[]);
        assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
        assert!(out.contains(&"ended before 0 too-late 0".into()) && out.contains(&"ended after 0 code 0".into()), "{} {err}", shown(&out));
        let child = read(home.path(), "child");
        assert!(!Path::new("/proc").join(child.trim()).exists(), "{child}");
    }
}

#[test]
fn the_end_of_input_ends_a_hook_and_runs_those_after() {
    for home in homes() {
        let began = Instant::now();
        let hooks = [hook("slow", ": >$HOME/ready; sleep 100", "echo undone $BORGCUBE_RESULT"), hook("never", "true", "echo never")];
        let (out, err) = run(home.path(), ": >$HOME/borg-ran", true, &hooks, &[]);
        assert!(began.elapsed() < Duration::from_secs(80));
        assert!(out.contains(&"ended before 0 stopped 0".into()), "{} {err}", shown(&out));
        assert!(
            out.contains(&"borgcube said after 0 undone stopped".into()) && !out.iter().any(|l| l.contains("never")),
            "{}",
            shown(&out)
        );
        assert!(!home.path().join("borg-ran").exists());
        // And while borg runs.
        let hooks = [hook("snapshot", "true", "echo undone $BORGCUBE_RESULT")];
        std::fs::remove_file(home.path().join("ready")).unwrap();
        let (out, _) = run(home.path(), "trap 'exit 2' INT\n: >$HOME/ready\nwhile :; do sleep 0.1; done", true, &hooks, &[]);
        assert!(out.contains(&"borgcube exit 2".into()) && out.contains(&"borgcube said after 0 undone stopped".into()), "{}", shown(&out));
    }
}

#[test]
fn dumps_are_streamed_and_spooled() {
    for home in homes() {
        let home = home.path();
        let bytes = "i=0; while [ $i -lt 60000 ]; do echo $i; i=$((i+1)); done";
        let spooled = Dump { spool: true, ..dump("spooled", "echo from the disk; umask >&2") };
        let (out, err) = run(
            home,
            "cat borgcube-dumps/spooled >$HOME/disk; ls -l borgcube-dumps >$HOME/modes; exec cat >$HOME/got",
            false,
            &[],
            &[dump("numbers", bytes), spooled],
        );
        let all: String = (0..60_000).map(|i| format!("{i}\n")).collect();
        assert_eq!(read(home, "got").len(), all.len(), "{} {err}", shown(&out));
        assert!(read(home, "got") == all && read(home, "disk") == "from the disk\n");
        assert!(out.contains(&format!("ended dump 0 code 0 {}", all.len())), "{}", shown(&out));
        assert!(out.contains(&"ended dump 1 code 0 14".into()) && out.contains(&"borgcube said dump 1 0022".into()), "{}", shown(&out));
        let modes = read(home, "modes");
        assert!(modes.contains("-rw-------") && modes.contains("prw-------"), "{modes}");

        let (out, err) = run(home, OPENS, false, &[], &[dump("a", "echo a; sleep 0.2; echo b"), dump("b", "echo c"), dump("c", "echo d")]);
        assert_eq!(read(home, "got"), "a\nb\nc\nd\n", "{} {err}", shown(&out));
        assert_eq!(out.iter().filter(|line| line.starts_with("ended dump") && line.contains("code 0")).count(), 3);
    }
}

#[test]
fn a_dump_that_fails_ends_borg_before_its_end() {
    {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        for (command, ended) in
            [("echo a; exit 3", "code 3 2"), ("true", "empty 0 0"), ("echo a; kill -9 $$", "code 137 2"), ("/no/such", "code 127 0")]
        {
            for (fake, more) in [(READS, None), (OPENS, Some(dump("z", "echo z")))] {
                let dumps: Vec<_> = std::iter::once(dump("a", command)).chain(more).collect();
                let (out, err) = run(home, fake, false, &[hook("h", "", "echo after $BORGCUBE_RESULT")], &dumps);
                assert!(
                    out.iter().any(|line| line.starts_with(&format!("ended dump 0 {}", ended.rsplit_once(' ').unwrap().0))),
                    "{} {err}",
                    shown(&out)
                );
                // Borg was told to end.
                assert!(out.contains(&"borgcube exit 143".into()), "{command}: {}", shown(&out));
                assert!(out.contains(&"borgcube said after 0 after failed".into()), "{}", shown(&out));
                assert!(!read(home, "got").contains('z'));
            }
        }
        let spooled = Dump { spool: true, ..dump("a", "echo half; exit 1") };
        let (out, _) = run(home, ": >$HOME/borg-ran", false, &[], &[spooled]);
        assert!(out.contains(&"borgcube failed dump-failed 0".into()) && !home.join("borg-ran").exists(), "{}", shown(&out));
    }
}

#[test]
fn a_dump_that_hangs_is_not_read_or_is_held_open_ends_well() {
    {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let began = Instant::now();
        let hangs = Dump { seconds: 1, ..dump("a", "echo a; sleep 100") };
        let (out, err) = run(home, READS, false, &[], &[hangs]);
        assert!(
            out.iter().any(|l| l.starts_with("ended dump 0 too-late")) && out.contains(&"borgcube exit 143".into()),
            "{} {err}",
            shown(&out)
        );
        let held = Dump { seconds: 2, ..dump("a", "echo a; sleep 30 & echo $! >$HOME/pid") };
        let (out, err) = run(home, READS, false, &[], &[held]);
        kill(home);
        assert!(
            out.iter().any(|l| l.starts_with("ended dump 0 held-open")) && out.contains(&"borgcube exit 143".into()),
            "{} {err}",
            shown(&out)
        );
        // Nobody opens them; and one that is read in part.
        let (out, err) = run(home, "exit 1", false, &[], &[dump("a", "echo a"), dump("b", "echo b")]);
        assert!(!out.iter().any(|l| l.starts_with("ended")) && out.contains(&"borgcube clean".into()), "{} {err}", shown(&out));
        let (out, err) = run(home, "head -c 10 >/dev/null; exit 0", false, &[], &[dump("a", "while :; do echo more; done")]);
        assert!(
            out.iter().any(|l| l.starts_with("ended dump 0 unread") || l.starts_with("ended dump 0 code 141")),
            "{} {err}",
            shown(&out)
        );
        assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
    }
}

#[test]
fn a_job_that_is_to_end_waits_for_no_dump() {
    for home in homes() {
        let began = Instant::now();
        let dumps = [dump("a", ": >$HOME/ready; echo a; sleep 100")];
        let (out, err) = run(home.path(), READS, true, &[hook("h", "", "echo after $BORGCUBE_RESULT")], &dumps);
        assert!(out.iter().any(|l| l.starts_with("ended dump 0 stopped")), "{} {err}", shown(&out));
        assert!(out.contains(&"borgcube said after 0 after stopped".into()), "{}", shown(&out));
        assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
    }
}

/// What is behind a command of a spooled dump and still writes belongs to the dump; and what never ends is no dump.
#[test]
fn a_spooled_dump_is_whole_or_none() {
    for home in homes() {
        let home = home.path();
        let spooled = |command: &str| [Dump { spool: true, seconds: 3, ..dump("a", command) }];
        let (out, err) = run(home, "cat borgcube-dumps/a >$HOME/disk", false, &[], &spooled("{ sleep 1; echo late; } & echo early"));
        assert_eq!(read(home, "disk"), "early\nlate\n", "{} {err}", shown(&out));
        assert!(out.contains(&"ended dump 0 code 0 11".to_owned()), "{}", shown(&out));
    }
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let held = Dump { spool: true, seconds: 2, ..dump("a", "echo a; sleep 30 & echo $! >$HOME/pid") };
    let (out, err) = run(home, ": >$HOME/borg-ran", false, &[], &[held]);
    kill(home);
    assert!(out.iter().any(|l| l.starts_with("ended dump 0 held-open")), "{} {err}", shown(&out));
    assert!(out.contains(&"borgcube failed dump-failed 0".into()) && !home.join("borg-ran").exists(), "{}", shown(&out));
}

/// Ends what stands between a command and whoever reads what it writes: the programs of these names that the script has started beside it.
const KILL_BESIDE: &str = "for pid in $(cat /proc/$PPID/task/$PPID/children); do read -r name </proc/$pid/comm; case $name in tee | cat) kill -9 $pid;; esac; done";

/// The end of who passes a dump on is not the dump's end.
#[test]
fn a_dump_whose_feeder_was_killed_is_none() {
    for home in homes() {
        let home = home.path();
        let (out, err) = run(home, READS, false, &[], &[dump("a", &format!("echo half; {KILL_BESIDE}; exit 0"))]);
        assert!(out.iter().any(|l| l.starts_with("ended dump 0 unread")), "{} {err}", shown(&out));
        assert!(out.contains(&"borgcube exit 143".into()), "{} {err}", shown(&out));
        let spooled = Dump { spool: true, ..dump("a", &format!("echo half; {KILL_BESIDE}; exit 0")) };
        let (out, err) = run(home, ": >$HOME/borg-ran", false, &[], &[spooled]);
        assert!(out.iter().any(|l| l.starts_with("borgcube failed client-cache what copies dump a was killed")), "{} {err}", shown(&out));
        assert!(!home.join("borg-ran").exists());
        // Whoever sees to the dumps as a whole: nobody says of it that it ended well, and without that no archive counts.
        let (out, err) = run(home, READS, false, &[], &[dump("a", "echo half; kill -9 $PPID; exit 0")]);
        assert!(!out.iter().any(|l| l.starts_with("ended dump")) && out.contains(&"borgcube clean".into()), "{} {err}", shown(&out));
    }
}

/// Also when nobody sees to its time limit any more.
#[test]
fn hooks_after_the_backup_do_not_wait_for_ever() {
    let home = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let guard = "for pid in $(cat /proc/$PPID/task/$PPID/children); do [ $pid -le $$ ] || kill -9 $pid; done";
    let stubborn = format!("trap '' TERM; {guard}; kill -TERM $PPID; while :; do sleep 1; done");
    let (out, err) = run(home.path(), "true", false, &[hook("h", &stubborn, "echo undone")], &[]);
    assert!(out.contains(&"borgcube said after 0 undone".into()), "{} {err}", shown(&out));
    assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
}

/// A shell may write here-documents to the disk: what is secret goes to its file at once, and without a program that is needed for it.
#[test]
fn what_is_put_into_a_file_is_in_no_other() {
    let put = include_str!("begin.sh").split_once("\nput() {").and_then(|(_, rest)| rest.split_once("\n}\n")).unwrap().0;
    for shell in [&["dash"][..], &["bash"], &["busybox", "sh"]] {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        let script = format!("put() {{{put}\n}}\nPATH=/nowhere; put \"$0\" \"it's \\$x\"");
        let command = std::process::Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(script).arg(&file).output();
        match command {
            Ok(output) => assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), "it's $x\n", "{shell:?} {output:?}"),
            Err(e) => println!("NOT RUN with {}: {e}", shell[0]),
        }
    }
}

/// Where a borg of this server unpacks itself is no place for the administrator's files.
#[test]
fn a_borg_that_was_sent_changes_nothing_for_hooks() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let borg = "#!/bin/sh\n[ \"$1\" != --version ] || { echo borg 1.2.4; exit; }\necho \"$TMPDIR\" >$HOME/borg-tmpdir\n";
    std::fs::write(home.join("sent"), borg).unwrap();
    let sum = std::process::Command::new("sha256sum").arg(home.join("sent")).output().unwrap().stdout;
    let size = answer_line(&borg.len().to_string());
    let answer = [&size, &sum[..64], b"\n", borg.as_bytes(), &answer_line("1"), b"x"].concat();
    let (out, err) = run_in(home, "", &answer, false, |backup| {
        backup.client.connection = model::Connection::Local { remote_borg: None, remote_cache_dir: None };
        backup.client.borg_binary = model::client::BinaryUse::Always;
        backup.config.commands.hooks = vec![hook("h", "echo $TMPDIR >$HOME/before", "echo $TMPDIR >$HOME/after")];
    });
    assert!(out.contains("borgcube exit 0"), "{out} {err}");
    assert!(read(home, "borg-tmpdir").contains("/unpacked-"), "{}", read(home, "borg-tmpdir"));
    assert_eq!((read(home, "before").as_str(), read(home, "after").as_str()), ("/var/tmp\n", "/var/tmp\n"));
}

/// Nobody on the host can read the commands among the arguments of processes.
#[test]
fn commands_are_no_arguments() {
    let home = tempfile::tempdir().unwrap();
    let command = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >$HOME/all; : hushhush";
    run(home.path(), "true", false, &[hook("h", command, "")], &[]);
    let all = std::fs::read(home.path().join("all")).unwrap();
    let all = String::from_utf8_lossy(&all);
    assert!(all.contains("run/command") || all.contains("/command"), "{all}");
    assert!(!all.contains("hush".repeat(2).as_str()));
    assert_eq!(std::fs::metadata(home.path().join("all")).unwrap().permissions().mode() & 0o777, 0o644);
}
