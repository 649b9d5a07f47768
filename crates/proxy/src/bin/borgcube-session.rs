//! One session; its connection to the shim is descriptor 3.

use anyhow::{Context, Result, bail};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use unix::paths::Layout;
use unix::{activation, harden, logging, signals};

fn main() -> ExitCode {
    logging::init("borgcube-session");
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u8> {
    harden::close_inherited()?;
    harden::no_new_privs()?;
    harden::undumpable()?;
    signals::ignore_sigpipe()?;
    let layout = Layout::from_env()?;
    let mut handed = activation::listen_fds()?;
    let connection = match handed.pop() {
        Some((connection, _)) if handed.is_empty() => UnixStream::from(connection),
        _ => bail!("this program is started for one connection, which it gets as descriptor 3; see borgcube-session@.service"),
    };
    let code = proxy::serve::serve_connection(&connection, |link| layout.session_link(link)).context("the session did not begin")?;
    Ok(code)
}
