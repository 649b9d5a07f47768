//! One session; its connection to the shim is descriptor 3. Descriptor 4, if there is one, is closed when the client's token was good.

use anyhow::{Context, Result, bail};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use unix::paths::Layout;
use unix::{activation, harden, logging, signals};

fn main() -> ExitCode {
    // Before the log has its socket to the journal, which would be closed as well, and its number be somebody else's.
    if let Err(error) = harden::close_inherited() {
        eprintln!("borgcube-session: {error}");
        return ExitCode::FAILURE;
    }
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
    harden::no_new_privs()?;
    harden::undumpable()?;
    signals::ignore_sigpipe()?;
    let layout = Layout::from_env()?;
    let mut handed = activation::listen_fds()?.into_iter().map(|(fd, _)| fd);
    let (connection, opened) = match (handed.next(), handed.next(), handed.next()) {
        (Some(connection), opened, None) => (UnixStream::from(connection), opened),
        _ => bail!("this program is started for one connection, which it gets as descriptor 3; see borgcube-session@.service"),
    };
    let owner = |link: &str| layout.session_link(link);
    proxy::serve::serve_connection(&connection, layout.run(), opened, owner).context("the session did not begin")
}
