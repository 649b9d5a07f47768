//! Asking a person.

use crate::poll::{Interest, poll};
use crate::{Error, Result, Signal};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use zeroize::Zeroizing;

/// A terminal hands over lines no longer than this.
const LONGEST_LINE: usize = 4096;

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    fd.as_fd().is_terminal()
}

/// Whether our process group is the one that this terminal's keys, such as Ctrl-C, reach.
pub fn is_foreground(tty: impl AsFd) -> bool {
    nix::unistd::tcgetpgrp(tty).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Asks for a passphrase on the controlling terminal, without echo; the line break at its end is removed.
///
/// Fails without a terminal. Ctrl-C and other fatal signals restore the terminal first and then do what they usually
/// do; if the process survives that, the answer is [`Error::Interrupted`]. For programs that have one thread.
pub fn read_passphrase(prompt: &str) -> Result<Zeroizing<String>> {
    let tty = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|e| Error::io("cannot ask for a passphrase without a terminal", e))?;
    read_passphrase_from(&tty, prompt)
}

fn read_passphrase_from(tty: &File, prompt: &str) -> Result<Zeroizing<String>> {
    // Dropped in reverse order: first the echo comes back, then waiting signals are let through.
    let blocked = Blocked::new(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTSTP])?;
    let silent = Silent::new(tty)?;
    let mut writer = tty;
    writer.write_all(prompt.as_bytes()).map_err(failed)?;
    let ready = poll(&[(blocked.pending.as_fd(), Interest::Read), (tty.as_fd(), Interest::Read)], None)?;
    let answer = if ready[0].any() { Err(Error::Interrupted) } else { line(tty) };
    silent.restore()?;
    answer
}

fn failed(e: io::Error) -> Error {
    Error::io("cannot ask for a passphrase", e)
}

fn line(tty: &File) -> Result<Zeroizing<String>> {
    // In its usual mode a terminal gives one line for one read.
    let mut buffer = Zeroizing::new(vec![0; LONGEST_LINE]);
    let mut reader = tty;
    let length = reader.read(&mut buffer).map_err(failed)?;
    let text = &buffer[..length];
    if text.is_empty() {
        return Err(Error::Invalid("no passphrase was given".into()));
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    std::str::from_utf8(text)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| Error::Invalid("the passphrase is not valid UTF-8".into()))
}

/// Signals held back until it is dropped.
struct Blocked {
    before: SigSet,
    pending: SignalFd,
}

impl Blocked {
    fn new(signals: &[Signal]) -> Result<Blocked> {
        let set: SigSet = signals.iter().copied().collect();
        let failed = |e: nix::Error| failed(e.into());
        let pending = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
        Ok(Blocked { before, pending })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Setting a mask that was in force before cannot fail.
        let _ = self.before.thread_set_mask();
    }
}

/// A terminal without echo until it is dropped.
struct Silent<'tty> {
    tty: &'tty File,
    before: Termios,
}

impl<'tty> Silent<'tty> {
    fn new(tty: &'tty File) -> Result<Silent<'tty>> {
        let failed = |e: nix::Error| failed(e.into());
        let before = termios::tcgetattr(tty).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        // The line break is shown, so that the next output begins a line.
        silent.local_flags.insert(LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        // What was typed ahead was visible: throw it away.
        termios::tcsetattr(tty, SetArg::TCSAFLUSH, &silent).map_err(failed)?;
        Ok(Silent { tty, before })
    }

    fn restore(&self) -> Result<()> {
        termios::tcsetattr(self.tty, SetArg::TCSADRAIN, &self.before).map_err(|e| failed(e.into()))
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // For the ways out by an error, which is then the one to tell.
        let _ = self.restore();
    }
}
