//! What needs a process of its own with one thread: signals, a terminal, the service manager, the log of a program. The
//! usual harness runs every test in a second thread, so this program has its own `main`, which either plays the role it
//! is told in its environment or runs the tests, starting itself for the roles.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Duration;
use unix::pidfd::ExitStatus;
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use unix::spawn::{Spawn, Stdio};
use unix::{Error, Signal, notify, terminal};

const DONE: &str = "the role was played";

const ROLE: &str = "UNIX_TEST_ROLE";

fn main() -> ExitCode {
    let roles: &[(&str, fn())] = &[
        ("role_collects_signals", role_collects_signals),
        ("role_asks", role_asks),
        ("role_has_no_terminal", role_has_no_terminal),
        ("role_is_a_service", role_is_a_service),
        ("role_logs", role_logs),
    ];
    if let Ok(wanted) = std::env::var(ROLE) {
        roles.iter().find(|(name, _)| *name == wanted).expect("a role").1();
        return ExitCode::SUCCESS;
    }
    let tests: &[(&str, fn())] = &[
        ("signals_are_collected", signals_are_collected),
        ("signals_that_cannot_be_collected_are_refused", signals_that_cannot_be_collected_are_refused),
        ("a_passphrase_is_read_without_echo", a_passphrase_is_read_without_echo),
        ("no_answer_and_no_text_are_errors", no_answer_and_no_text_are_errors),
        ("interrupting_restores_the_terminal_and_then_ends", interrupting_restores_the_terminal_and_then_ends),
        ("without_a_terminal_nobody_is_asked", without_a_terminal_nobody_is_asked),
        ("the_service_manager_is_told", the_service_manager_is_told),
        ("without_a_service_manager_nothing_is_told", without_a_service_manager_nothing_is_told),
        ("a_program_logs_as_its_environment_asks", a_program_logs_as_its_environment_asks),
        ("the_journal_is_recognised_by_its_stream", the_journal_is_recognised_by_its_stream),
    ];
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut failed = false;
    for (name, test) in tests {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            let passed = catch_unwind(test).is_ok();
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            failed |= !passed;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn actor<'fd>(role: &str) -> Spawn<'fd> {
    Spawn::new(std::env::current_exe().unwrap()).env(ROLE, role).env("PATH", "/usr/bin:/bin").stderr(Stdio::Pipe)
}

fn run(spawn: &Spawn<'_>) -> (ExitStatus, String) {
    let mut child = spawn.spawn().unwrap();
    let err = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    (child.wait().unwrap(), err)
}

fn assert_played(spawn: &Spawn<'_>) {
    let (status, err) = run(spawn);
    assert!(status.success() && err.contains(DONE), "{status}: {err}");
}

/// Reads until `text` has appeared.
fn expect(from: &File, text: &str) -> String {
    let mut seen = Vec::new();
    let mut reader = from;
    while !String::from_utf8_lossy(&seen).contains(text) {
        let ready = poll(&[(from.as_fd(), Interest::Read)], Some(Duration::from_secs(20))).unwrap();
        assert!(ready[0].any(), "no \"{text}\" in {:?}", String::from_utf8_lossy(&seen));
        let mut buffer = [0; 1024];
        let length = reader.read(&mut buffer).unwrap();
        assert_ne!(length, 0);
        seen.extend(&buffer[..length]);
    }
    String::from_utf8(seen).unwrap()
}

fn signals_are_collected() {
    assert_played(&actor("role_collects_signals"));
}

fn signals_that_cannot_be_collected_are_refused() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGSEGV] {
        assert!(matches!(Signals::new(&[signal]), Err(Error::Invalid(_))), "{signal}");
    }
}

/// A program with a terminal of its own that asks for a passphrase; returns what the person at it does and sees.
fn ask(answer: &[u8]) -> (ExitStatus, String, String) {
    let pty = openpty(None, None).unwrap();
    let (person, tty) = (File::from(pty.master), File::from(pty.slave));
    let exe = std::env::current_exe().unwrap();
    // `setsid -c` makes its standard input the controlling terminal; in our group it does so without a fork.
    let spawn = Spawn::new("setsid")
        .args(["-c"])
        .arg(exe)
        .env(ROLE, "role_asks")
        .env("PATH", "/usr/bin:/bin")
        .same_group()
        .stdin(Stdio::Fd(tty.as_fd()))
        .stderr(Stdio::Pipe);
    let mut child = spawn.spawn().unwrap();
    let mut seen = expect(&person, "Passphrase: ");
    assert!(!tcgetattr(&tty).unwrap().local_flags.contains(LocalFlags::ECHO));
    (&person).write_all(answer).unwrap();
    let err = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    let status = child.wait().unwrap();
    assert!(tcgetattr(&tty).unwrap().local_flags.contains(LocalFlags::ECHO));
    (&tty).write_all(b"END").unwrap();
    seen.push_str(&expect(&person, "END"));
    (status, err, seen)
}

fn a_passphrase_is_read_without_echo() {
    let (status, err, seen) = ask("pässword with space \n".as_bytes());
    assert!(status.success() && err.contains("got <pässword with space >"), "{status}: {err}");
    assert_eq!(seen, "Passphrase: \r\nEND");
    let (status, err, _) = ask(b"\n");
    assert!(status.success() && err.contains("got <>"), "{status}: {err}");
}

fn no_answer_and_no_text_are_errors() {
    let (_, err, _) = ask(b"\x04");
    assert!(err.contains("failed: no passphrase was given"), "{err}");
    let (_, err, _) = ask(b"\xff\n");
    assert!(err.contains("failed: the passphrase is not valid UTF-8"), "{err}");
}

fn interrupting_restores_the_terminal_and_then_ends() {
    let (status, err, seen) = ask(b"half a secr\x03");
    assert_eq!(status, ExitStatus::Signaled(Signal::SIGINT), "{err}");
    assert!(!seen.contains("secr"), "{seen}");
}

fn without_a_terminal_nobody_is_asked() {
    assert_played(
        &Spawn::new("setsid")
            .arg("-w")
            .arg(std::env::current_exe().unwrap())
            .env(ROLE, "role_has_no_terminal")
            .env("PATH", "/usr/bin:/bin")
            .stderr(Stdio::Pipe),
    );
    let pty = openpty(None, None).unwrap();
    assert!(terminal::is_terminal(&pty.slave));
    assert!(!terminal::is_terminal(File::open("/dev/null").unwrap()));
}

fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    assert_played(&actor("role_is_a_service").env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000000"));
    manager.set_nonblocking(true).unwrap();
    let mut messages = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = manager.recv(&mut buffer) {
        messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap().trim_end().to_owned());
    }
    assert_eq!(messages, ["READY=1", "STATUS=2 jobs\\nMAINPID=1", "WATCHDOG=1", "STOPPING=1"]);
}

fn without_a_service_manager_nothing_is_told() {
    assert!(std::env::var_os("NOTIFY_SOCKET").is_none());
    notify::ready().unwrap();
    notify::status("x").unwrap();
    notify::watchdog().unwrap();
    notify::stopping().unwrap();
    assert_eq!(notify::watchdog_interval(), None);
}

fn a_program_logs_as_its_environment_asks() {
    let plain = run(&actor("role_logs")).1;
    assert!(plain.contains("prog: warning: careful\\n\n"), "{plain}");
    assert!(plain.contains("prog: info: note\n") && !plain.contains("detail"), "{plain}");
    let debug = run(&actor("role_logs").env("BORGCUBE_LOG", "debug")).1;
    assert!(debug.contains("prog: debug: detail\n"), "{debug}");
    let quiet = run(&actor("role_logs").env("BORGCUBE_LOG", "error")).1;
    assert!(!quiet.contains("careful") && quiet.contains(DONE), "{quiet}");
    let wrong = run(&actor("role_logs").env("BORGCUBE_LOG", "loud")).1;
    assert!(wrong.contains("prog: warning: BORGCUBE_LOG is \"loud\"") && wrong.contains("note"), "{wrong}");
    let service = run(&actor("role_logs").env("NOTIFY_SOCKET", "/nowhere")).1;
    assert!(service.contains("<4>careful\\n\n") && !service.contains("prog:"), "{service}");
}

fn the_journal_is_recognised_by_its_stream() {
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        println!("NOT RUN: the_journal_is_recognised_by_its_stream: this machine has a journal, which would get the lines");
        return;
    }
    let (reader, writer) = io::pipe().unwrap();
    let stat = rustix::fs::fstat(&writer).unwrap();
    let log = |stream: String| {
        let spawn = actor("role_logs").env("JOURNAL_STREAM", stream).stderr(Stdio::Fd(writer.as_fd()));
        assert!(spawn.spawn().unwrap().wait().unwrap().success());
    };
    log(format!("{}:{}", stat.st_dev, stat.st_ino));
    log(format!("{}:{}", stat.st_dev, stat.st_ino + 1));
    drop(writer);
    let text = io::read_to_string(reader).unwrap();
    assert_eq!(text.matches("<6>note\n").count(), 1, "{text}");
    assert_eq!(text.matches("prog: info: note\n").count(), 1, "{text}");
}

fn role_collects_signals() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let open_before = open();
    let mut signals = Signals::new(&[Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGTERM]).unwrap();
    let readable = |signals: &Signals| poll(&[(signals.as_fd(), Interest::Read)], Some(Duration::ZERO)).unwrap()[0].readable;
    assert!(!readable(&signals));
    assert!(signals.take().is_empty());
    nix::sys::signal::raise(Signal::SIGTERM).unwrap();
    nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
    nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
    assert!(readable(&signals));
    let mut taken = signals.take();
    taken.sort_unstable();
    assert_eq!(taken, [Signal::SIGUSR1, Signal::SIGTERM]);
    assert!(!readable(&signals) && signals.take().is_empty());
    nix::sys::signal::raise(Signal::SIGTERM).unwrap();
    assert_eq!(signals.take(), [Signal::SIGTERM]);
    drop(signals);
    assert_eq!(open(), open_before);
    // Documented: collected once, never deadly again.
    nix::sys::signal::raise(Signal::SIGTERM).unwrap();
    eprintln!("{DONE}");
}

fn role_asks() {
    match terminal::read_passphrase("Passphrase: ") {
        Ok(answer) => eprintln!("got <{}>", answer.as_str()),
        Err(e) => eprintln!("failed: {e}"),
    }
}

fn role_has_no_terminal() {
    let error = terminal::read_passphrase("Passphrase: ").unwrap_err();
    assert!(error.to_string().contains("without a terminal"), "{error}");
    eprintln!("{DONE}");
}

fn role_is_a_service() {
    notify::ready().unwrap();
    notify::status("2 jobs\nMAINPID=1").unwrap();
    notify::watchdog().unwrap();
    notify::stopping().unwrap();
    assert_eq!(notify::watchdog_interval(), Some(Duration::from_secs(20)));
    eprintln!("{DONE}");
}

fn role_logs() {
    unix::logging::init("prog");
    unix::logging::init("other");
    eprintln!();
    log::warn!(job = 7; "careful\n");
    log::info!("note");
    log::debug!("detail");
    eprintln!("{DONE}");
}
