//! Asking a person whether that is meant.

use crate::error::{Error, Kind, Result};
use std::io::{self, Write};
use std::os::fd::AsFd;
use unix::poll::{Interest, poll};
use unix::signals::Signals;

/// Writes `question` to standard error and reads the answer. Ctrl-C is an error that says `untouched`.
pub fn ask(question: &str, untouched: &str, interrupts: &Signals) -> Result<bool> {
    let failed = |e: io::Error| Error::failed(format!("cannot ask: {e}"));
    let mut err = io::stderr();
    err.write_all(format!("{question} [y/N] ").as_bytes()).and_then(|()| err.flush()).map_err(failed)?;
    if poll(&[(io::stdin().as_fd(), Interest::Read), (interrupts.as_fd(), Interest::Read)], None)?[1].any() {
        return Err(Error::new(Kind::Interrupted, format!("interrupted; {untouched}")));
    }
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
