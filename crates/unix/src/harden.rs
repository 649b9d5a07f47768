//! What a process gives up for good.

use crate::{Error, Result, activation, raw};
use nix::sys::prctl;

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
