//! What a process gives up for good.

use crate::{Error, Result, activation, raw};
use nix::sys::prctl;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::OpenOptions;

/// Neither this process nor anything it starts can gain privileges by exec (no setuid, no file capabilities).
/// Linux keeps this for each thread: call it before there is a second one.
pub fn no_new_privs() -> Result<()> {
    prctl::set_no_new_privs().map_err(|e| Error::io("cannot give up new privileges", e))
}

/// No core dumps, and no other process of the same user reads our memory: for those that hold keys.
pub fn undumpable() -> Result<()> {
    prctl::set_dumpable(false).map_err(|e| Error::io("cannot protect the memory of this process", e))
}

/// Closes every descriptor that whoever started us left open, except the three standard streams and what was
/// announced to us ([`activation::listen_fds`]).
///
/// The very first thing a program does, before it opens anything: it closes without asking who owns what. Needs
/// Linux 5.9.
pub fn close_inherited() -> Result<()> {
    raw::close_from(activation::first_unannounced()?, false).map_err(|e| Error::io("cannot close inherited descriptors", e))
}

/// Replaces the three standard streams by the null device: whoever waits for them to be closed hears it, and the numbers
/// stay taken, so that nothing opened later becomes a standard stream by accident.
pub fn let_go_of_standard_streams() -> Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|e| Error::io("cannot open /dev/null", e))?;
    let replaced = dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null));
    replaced.map_err(|e| Error::io("cannot let go of the standard streams", e))
}
