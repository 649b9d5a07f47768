//! Real children: how they begin, what they inherit, how they end. Some tests start this very program again to play a
//! role; those roles are the ignored tests at the end.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use unix::pidfd::{ExitStatus, PidFd, kill_group};
use unix::poll::{Interest, poll};
use unix::spawn::{Spawn, Stdio};
use unix::{Error, Signal, activation, harden};

const LONG: Option<Duration> = Some(Duration::from_secs(20));
const DONE: &str = "the role was played";

fn shell(script: &str) -> Spawn<'static> {
    Spawn::new("/bin/sh").args(["-c", script]).env("PATH", "/usr/bin:/bin")
}

/// This program, playing `role`.
fn actor<'fd>(role: &str) -> Spawn<'fd> {
    Spawn::new(std::env::current_exe().unwrap()).args(role_arguments(role)).env("PATH", "/usr/bin:/bin").stderr(Stdio::Pipe)
}

fn role_arguments(role: &str) -> [&str; 5] {
    ["--exact", role, "--ignored", "--nocapture", "--test-threads=1"]
}

/// Runs it to its end and returns what it printed on a piped standard output and error.
fn run(spawn: &Spawn<'_>) -> (ExitStatus, String, String) {
    let mut child = spawn.spawn().unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut out).unwrap();
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut err).unwrap();
    }
    (child.wait().unwrap(), out, err)
}

fn assert_played(spawn: &Spawn<'_>) {
    let (status, _, err) = run(spawn);
    assert!(status.success() && err.contains(DONE), "{status}: {err}");
}

fn played() {
    eprintln!("{DONE}");
}

fn output(spawn: Spawn<'_>) -> String {
    let (status, out, _) = run(&spawn.stdout(Stdio::Pipe));
    assert!(status.success(), "{status}");
    out
}

fn ends(pidfd: &PidFd) -> bool {
    poll(&[(pidfd.as_fd(), Interest::Read)], LONG).unwrap()[0].readable
}

#[test]
fn a_confined_process_has_its_directory_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    assert_played(&actor("role_confined").env("CONFINED_TO", directory.path()));
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() == 2 && names.iter().all(|name| name == "file" || name == "large"), "{names:?}");
}

#[test]
fn a_process_confined_to_no_directory_sees_no_file() {
    let directory = tempfile::tempdir().unwrap();
    assert_played(&actor("role_confined_to_nothing").env("CONFINED_TO", directory.path()));
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["open"]);
}

#[test]
fn ways_to_end_are_told_apart() {
    assert_eq!(shell("exit 0").spawn().unwrap().wait().unwrap(), ExitStatus::Exited(0));
    let failed = shell("exit 107").spawn().unwrap().wait().unwrap();
    assert_eq!(failed, ExitStatus::Exited(107));
    assert_eq!(failed.to_string(), "exited with code 107");
    let killed = shell("kill -TERM $$").spawn().unwrap().wait().unwrap();
    assert_eq!(killed, ExitStatus::Signaled(Signal::SIGTERM));
    assert_eq!(killed.to_string(), "was killed by SIGTERM");
    assert_eq!(shell("kill -40 $$").spawn().unwrap().wait().unwrap(), ExitStatus::SignaledRaw(40));
}

#[test]
fn the_end_can_be_polled_and_is_waited_for_once() {
    let child = shell("exec sleep 1000").spawn().unwrap();
    assert_eq!(child.pidfd.try_wait().unwrap(), None);
    assert!(!poll(&[(child.pidfd.as_fd(), Interest::Read)], Some(Duration::ZERO)).unwrap()[0].readable);
    assert!(child.pidfd.signal(Signal::SIGKILL).unwrap());
    assert!(ends(&child.pidfd));
    assert_eq!(child.pidfd.try_wait().unwrap(), Some(ExitStatus::Signaled(Signal::SIGKILL)));
    assert!(!child.pidfd.signal(Signal::SIGKILL).unwrap());
    assert!(!child.kill_group(Signal::SIGKILL).unwrap());
    assert!(child.wait().is_err());
}

#[test]
fn only_pids_of_children_are_accepted() {
    for pid in [-5, -1, 0, 1] {
        // A signal that harms nobody, should the rule ever fail.
        assert!(matches!(kill_group(pid, Signal::SIGWINCH), Err(Error::Invalid(_))));
        assert!(matches!(PidFd::open(pid), Err(Error::Invalid(_))));
    }
    let child = shell("exit 0").spawn().unwrap();
    child.wait().unwrap();
    assert!(PidFd::open(child.pid).is_err());
}

#[test]
fn a_group_ends_as_a_whole() {
    let mut child = shell("sleep 1000 & echo $!; wait").stdout(Stdio::Pipe).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let grandchild = PidFd::open(line.trim().parse().unwrap()).unwrap();
    assert_eq!(nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(child.pid))).unwrap().as_raw(), child.pid);
    assert!(child.kill_group(Signal::SIGKILL).unwrap());
    assert!(ends(&grandchild));
    assert_eq!(child.wait().unwrap(), ExitStatus::Signaled(Signal::SIGKILL));
    let same = output(shell("ps -o pgid= -p $$ 2>/dev/null || cut -d' ' -f5 /proc/$$/stat").same_group());
    assert_eq!(same.trim(), nix::unistd::getpgrp().to_string());
}

#[test]
fn the_environment_is_what_was_listed() {
    let out = output(Spawn::new("/usr/bin/env").env("B", "2").env("A", "with space"));
    assert_eq!(out, "A=with space\nB=2\n");
    let out = output(Spawn::new("/usr/bin/env").keep_env(&["PATH", "NO_SUCH_VARIABLE"]));
    assert_eq!(out, format!("PATH={}\n", std::env::var("PATH").unwrap()));
    assert_eq!(output(Spawn::new("env").env("PATH", "/usr/bin")), "PATH=/usr/bin\n");
}

#[test]
fn streams_and_directory_are_what_was_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    assert_eq!(output(shell("pwd -P").current_dir(&path)).trim(), path.to_str().unwrap());
    let mut child = shell("cat; echo err >&2").stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in").unwrap();
    assert_eq!(io::read_to_string(child.stdout.take().unwrap()).unwrap(), "in");
    assert_eq!(io::read_to_string(child.stderr.take().unwrap()).unwrap(), "err\n");
    assert!(child.wait().unwrap().success());
    let file = File::create(path.join("out")).unwrap();
    let (status, _, _) = run(&shell("readlink /proc/self/fd/0; cat").stdout(Stdio::Fd(file.as_fd())));
    assert!(status.success());
    assert_eq!(fs::read_to_string(path.join("out")).unwrap(), "/dev/null\n");
}

#[test]
fn a_program_that_cannot_run_is_an_error_and_its_sockets_stay_silent() {
    let (left, mut right) = UnixStream::pair().unwrap();
    let failed = Spawn::new("/no/such/program").fd(left.as_fd(), "a").fd(left.as_fd(), "b").spawn().unwrap_err();
    assert_eq!(failed.io_kind(), Some(io::ErrorKind::NotFound));
    assert!(failed.to_string().contains("/no/such/program"), "{failed}");
    drop(left);
    let mut got = Vec::new();
    right.read_to_end(&mut got).unwrap();
    assert!(got.is_empty(), "{got:?}");
    let null = File::open("/dev/null").unwrap();
    for name in ["", "a:b", "a b", "a\n"] {
        assert!(matches!(shell("exit 0").fd(null.as_fd(), name).spawn(), Err(Error::Invalid(_))));
    }
}

#[test]
fn descriptors_arrive_at_their_numbers_and_nothing_else_does() {
    let pipes: Vec<_> = (0..3).map(|_| io::pipe().unwrap()).collect();
    // Open to every child, as a careless library would leave it.
    let leak = File::open("/dev/null").unwrap();
    let leak = rustix::io::fcntl_dupfd_cloexec(&leak, 20).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    // Reversed, so that at least one has to cross another's number.
    let numbers: Vec<String> = (0..=leak.as_raw_fd().max(9)).map(|number| number.to_string()).collect();
    let script = format!(
        "printf a >&3; printf b >&4; printf c >&5; for n in {}; do if [ -e /proc/$$/fd/$n ]; then echo $n; fi; done",
        numbers.join(" ")
    );
    let spawn = shell(&script).fd(pipes[2].1.as_fd(), "x").fd(pipes[1].1.as_fd(), "y").fd(pipes[0].1.as_fd(), "z");
    assert_eq!(output(spawn), "0\n1\n2\n3\n4\n5\n");
    let texts: Vec<String> = pipes
        .into_iter()
        .map(|(reader, writer)| {
            drop(writer);
            io::read_to_string(reader).unwrap()
        })
        .collect();
    assert_eq!(texts, ["c", "b", "a"]);
}

#[test]
fn descriptors_arrive_while_other_threads_open_and_close() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let opened: Vec<File> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
                    opened.into_iter().rev().for_each(drop);
                }
            });
        }
        let spawners: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..60 {
                        let (left, mut right) = UnixStream::pair().unwrap();
                        let mut spawn = if round % 3 == 0 {
                            Spawn::new("/no/such/program")
                        } else {
                            shell("for n in 3 4 5 6 7 8; do printf $n >&$n; done")
                        };
                        for _ in 0..6 {
                            spawn = spawn.fd(left.as_fd(), "s");
                        }
                        let expected = match spawn.spawn() {
                            Ok(child) => {
                                assert!(child.wait().unwrap().success());
                                assert_ne!(round % 3, 0);
                                "345678"
                            }
                            Err(e) => {
                                assert_eq!((round % 3, e.io_kind()), (0, Some(io::ErrorKind::NotFound)), "{e}");
                                ""
                            }
                        };
                        drop(spawn);
                        drop(left);
                        assert_eq!(io::read_to_string(&mut right).unwrap(), expected);
                    }
                })
            })
            .collect();
        let results: Vec<_> = spawners.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(results.iter().all(|result| result.is_ok()));
    });
}

#[test]
fn a_child_finds_its_descriptors_by_name() {
    let (left, right) = UnixStream::pair().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    assert_played(&actor("role_takes_descriptors").fd(left.as_fd(), "session").fd(writer.as_fd(), "log"));
    drop((left, writer));
    assert_eq!(io::read_to_string(right).unwrap(), "to session");
    assert_eq!(io::read_to_string(reader).unwrap(), "to log");
}

#[test]
fn a_grandchild_does_not_take_what_was_not_for_it() {
    let null = File::open("/dev/null").unwrap();
    let exe = std::env::current_exe().unwrap();
    // No exec: the shell stays between us and the program.
    let script = format!("'{}' {}; exit $?", exe.display(), role_arguments("role_finds_nothing").join(" "));
    assert_played(&shell(&script).fd(null.as_fd(), "x").stderr(Stdio::Pipe));
}

#[test]
fn announced_descriptors_that_are_not_open_are_an_error() {
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=2 exec '{}' {} 3</dev/null 4<&-",
        exe.display(),
        role_arguments("role_misses_a_descriptor").join(" ")
    );
    assert_played(&shell(&script).stderr(Stdio::Pipe));
}

#[test]
fn inherited_descriptors_are_closed_and_announced_ones_kept() {
    let exe = std::env::current_exe().unwrap();
    let arguments = role_arguments("role_closes_what_it_inherited").join(" ");
    let script = format!("exec 7</dev/null 9</dev/null; exec '{}' {arguments}", exe.display());
    let null = File::open("/dev/null").unwrap();
    assert_played(&shell(&script).fd(null.as_fd(), "kept").env("ANNOUNCED", "1").stderr(Stdio::Pipe));
    assert_played(&shell(&script).env("ANNOUNCED", "0").stderr(Stdio::Pipe));
}

#[test]
fn signals_begin_with_their_default_action_and_unblocked() {
    let exe = std::env::current_exe().unwrap();
    let arguments = role_arguments("role_starts_a_child_from_odd_signals").join(" ");
    let script = format!("trap '' USR1 TERM HUP; exec '{}' {arguments}", exe.display());
    assert_played(&shell(&script).stderr(Stdio::Pipe));
}

#[test]
fn a_child_with_a_death_signal_ends_with_its_parent() {
    let (status, _, err) = run(&actor("role_leaves_two_children"));
    assert!(status.success() && err.contains(DONE), "{status}: {err}");
    let pid = |name: &str| -> i32 {
        let line = err.lines().find_map(|line| line.strip_prefix(name)).expect("a pid");
        line.parse().unwrap()
    };
    let free = PidFd::open(pid("free=")).unwrap();
    let gone = || !fs::exists(format!("/proc/{}", pid("bound="))).unwrap() || is_zombie(pid("bound="));
    let started = Instant::now();
    while !gone() && started.elapsed() < LONG.unwrap() {
        thread::sleep(Duration::from_millis(5));
    }
    // Nothing is left running, whatever the judgement: both are orphans that nobody else would end.
    let ended = gone();
    if !ended {
        kill_group(pid("bound="), Signal::SIGKILL).unwrap();
    }
    // The other one shows that it was the signal.
    let free_lived = !is_zombie(pid("free=")) && free.signal(Signal::SIGKILL).unwrap();
    assert!(ends(&free));
    assert!(ended && free_lived);
}

/// Orphans are reaped by whoever adopts them, if anybody does.
fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn privileges_are_given_up_for_good() {
    assert_played(&actor("role_hardens_itself"));
}

#[test]
#[ignore = "a role"]
fn role_confined() {
    let directory = std::path::PathBuf::from(std::env::var_os("CONFINED_TO").unwrap());
    let limits = unix::confine::Limits { file_bytes: 1000, memory: 4 << 30, cpu_seconds: 60, files: 100 };
    let listener = std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
    let confined = unix::confine::confine(Some(&directory), limits).unwrap();
    assert!(confined.limits, "{confined:?}");
    // What it has already, it keeps; what is below its directory, it may use.
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"x").unwrap();
    theirs.read_exact(&mut [0]).unwrap();
    fs::write(directory.join("file"), "y").unwrap();
    let mut large = File::create(directory.join("large")).unwrap();
    assert!(large.write_all(&[0; 5000]).is_err());
    if confined.calls {
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err() && std::net::UdpSocket::bind("127.0.0.1:0").is_err());
        assert!(UnixStream::connect(directory.join("socket")).is_err());
        assert!(std::process::Command::new("/bin/true").status().is_err());
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert!(kill_group(parent, Signal::SIGTERM).is_err());
        let file = directory.join("file");
        assert!(fs::set_permissions(&file, fs::Permissions::from_mode(0o777)).is_err());
        assert!(std::os::unix::fs::chown(&file, Some(0), Some(0)).is_err());
        assert!(nix::unistd::truncate(&file, 0).is_err());
        assert!(thread::spawn(|| std::net::TcpListener::bind("127.0.0.1:0").is_err()).join().unwrap());
    } else {
        eprintln!("NOT RUN: {:?}", confined.lacking());
    }
    if confined.files {
        assert!(fs::read("/etc/passwd").is_err() && fs::read_dir("/").is_err() && File::create("/tmp/made-outside").is_err());
    } else {
        eprintln!("NOT RUN: {:?}", confined.lacking());
    }
    drop(listener);
    fs::remove_file(directory.join("socket")).unwrap();
    played();
}

#[test]
#[ignore = "a role"]
fn role_confined_to_nothing() {
    let directory = std::path::PathBuf::from(std::env::var_os("CONFINED_TO").unwrap());
    let mut open = File::create_new(directory.join("open")).unwrap();
    let limits = unix::confine::Limits { file_bytes: 1000, memory: 4 << 30, cpu_seconds: 60, files: 100 };
    let confined = unix::confine::confine(None, limits).unwrap();
    open.write_all(b"what was open stays so").unwrap();
    assert!(open.write_all(&[0; 5000]).is_err());
    if confined.files {
        let (file, temporary) = (directory.join("open"), std::env::temp_dir());
        assert!(fs::read(&file).is_err() && File::create(directory.join("made")).is_err() && fs::read_dir(&temporary).is_err());
        assert!(fs::remove_file(&file).is_err() && File::create(temporary.join("made-outside")).is_err());
    } else {
        eprintln!("NOT RUN: {:?}", confined.lacking());
    }
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_takes_descriptors() {
    let fds = activation::listen_fds().unwrap();
    let names: Vec<&str> = fds.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["session", "log"]);
    assert_eq!(fds.iter().map(|(fd, _)| fd.as_raw_fd()).collect::<Vec<_>>(), [3, 4]);
    assert!(activation::listen_fds().unwrap().is_empty());
    for (fd, name) in fds {
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        write!(File::from(fd), "to {name}").unwrap();
    }
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_finds_nothing() {
    assert!(std::env::var("LISTEN_FDS").is_ok());
    assert!(activation::listen_fds().unwrap().is_empty());
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_misses_a_descriptor() {
    let error = activation::listen_fds().unwrap_err();
    assert!(error.to_string().contains("descriptor 4"), "{error}");
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_closes_what_it_inherited() {
    let is_open = |number| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    let announced = std::env::var("ANNOUNCED").unwrap() == "1";
    assert!(is_open(7) && is_open(9) && is_open(3) == announced);
    harden::close_inherited().unwrap();
    assert!(!is_open(7) && !is_open(9) && is_open(2));
    assert_eq!(activation::listen_fds().unwrap().len(), usize::from(announced));
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_starts_a_child_from_odd_signals() {
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    unix::signals::ignore_sigpipe().unwrap();
    let child = output(Spawn::new("/bin/cat").arg("/proc/self/status"));
    let set = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status");
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_ne!(set(&ours, "SigIgn:") & (1 << (Signal::SIGUSR1 as u64 - 1)), 0);
    // 32 and 33 belong to the C library, which lets nobody touch them.
    assert_eq!(set(&child, "SigIgn:") & !(0b11 << 31), 0);
    assert_eq!(set(&child, "SigBlk:"), 0);
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_leaves_two_children() {
    let sleep = || Spawn::new("/bin/sleep").arg("1000").stderr(Stdio::Null);
    eprintln!("\nbound={}", sleep().death_signal(Signal::SIGKILL).spawn().unwrap().pid);
    eprintln!("free={}", sleep().spawn().unwrap().pid);
    played();
}

#[test]
#[ignore = "a role played by a child"]
fn role_hardens_itself() {
    let value = |name: &str| {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status").trim().to_owned()
    };
    assert!(nix::sys::prctl::get_dumpable().unwrap());
    harden::no_new_privs().unwrap();
    harden::undumpable().unwrap();
    assert_eq!(value("NoNewPrivs:"), "1");
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
    let child = output(Spawn::new("/bin/cat").arg("/proc/self/status"));
    assert!(child.contains("NoNewPrivs:\t1"));
    played();
}
