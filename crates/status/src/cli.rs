//! The command line of `borgcube-statusd`.

use crate::access::Access;
use crate::address::{Address, Listener, check_exposure};
use crate::guard::Hosts;
use crate::serve::{Limits, serve};
use anyhow::bail;
use clap::{CommandFactory, Parser};
use hyper::header::HeaderName;
use std::process::ExitCode;
use unix::paths::Layout;

#[derive(Parser)]
#[command(
    name = "borgcube-statusd",
    version,
    about = "Shows what BorgCube does: pages, a JSON API, metrics and live events over HTTP. What its users may change is decided by borgcubed.",
    after_help = "Started by systemd with its sockets (borgcube-statusd.socket), or by `borgcube up`. Only this machine is answered unless \
                  --expose and --host say otherwise."
)]
struct Arguments {
    /// Listen here: 127.0.0.1:PORT, [::1]:PORT or unix:PATH; repeatable. Without it: on the sockets that were handed over
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Address>,
    /// Answer requests to this name as well (the Host header, without its port); repeatable
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Listen where other machines can connect; takes --host as well
    #[arg(long)]
    expose: bool,
    /// Show nothing to who has not signed in; --expose implies it
    #[arg(long)]
    require_sign_in: bool,
    /// Believe this header of a web server on this machine, which has signed the user in that it names; takes `borgcube settings edit --web-proxy on`
    #[arg(long, value_name = "NAME", conflicts_with = "expose")]
    user_header: Option<HeaderName>,
    /// Viewers of live events at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 4000)]
    max_viewers: usize,
}

/// The command line's definition, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    unix::logging::init("borgcube-statusd");
    match program(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::error!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn program(arguments: &Arguments) -> anyhow::Result<()> {
    let handed = unix::activation::listen_fds()?;
    let layout = Layout::from_env()?;
    let mut listeners = handed.into_iter().map(|(fd, _)| Listener::from_fd(fd)).collect::<anyhow::Result<Vec<_>>>()?;
    for address in &arguments.listen {
        listeners.push(Listener::bind(address)?);
    }
    if listeners.is_empty() {
        bail!("no socket was handed over; say where to listen, for example --listen 127.0.0.1:8420");
    }
    check_exposure(&listeners, arguments.expose, &arguments.host)?;
    let hosts = Hosts::new(&arguments.host)?;
    let limits = Limits { viewers: arguments.max_viewers, ..Limits::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(limits.readers).build()?;
    let access = Access::new(arguments.require_sign_in || arguments.expose, arguments.user_header.clone())?;
    runtime.block_on(serve(&layout, listeners, hosts, access, limits))?;
    // A read that hangs must not keep us.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(())
}
