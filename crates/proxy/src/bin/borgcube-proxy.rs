//! The forced command of `borgcube-ssh`, and the BORG_RSH of clients on the server itself.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use unix::paths::Layout;

/// Connects a client's borg with a session of BorgCube.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The socket of the sessions
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Ignored: what ssh would be told when this stands in for it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    ignored: Vec<std::ffi::OsString>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let socket = match arguments.socket {
        Some(socket) => Ok(socket),
        None => Layout::from_env().map(|layout| layout.session_socket()).map_err(|e| e.to_string()),
    };
    match socket.and_then(|socket| proxy::shim::run(&socket)) {
        Ok(code) => ExitCode::from(code),
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::from(1)
        }
    }
}
