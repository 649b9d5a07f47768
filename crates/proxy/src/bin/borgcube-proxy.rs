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
    /// Let in nobody but the bearer of the token with this SHA-256: the forced command of a job's key
    #[arg(long, value_name = "HEX", value_parser = hash)]
    token_hash: Option<String>,
    /// Let in nobody but this client: the forced command of a permanent key
    #[arg(long, value_name = "CLIENT")]
    client: Option<model::ClientName>,
    /// Ignored: what ssh would be told when this stands in for it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    ignored: Vec<std::ffi::OsString>,
}

fn hash(text: &str) -> Result<String, &'static str> {
    let hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if hex { Ok(text.to_owned()) } else { Err("a hash has 64 lower-case hex digits") }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let socket = match arguments.socket {
        Some(socket) => Ok(socket),
        None => Layout::from_env().map(|layout| layout.session_socket()).map_err(|e| e.to_string()),
    };
    let bound = proxy::shim::Bound { token_hash: arguments.token_hash, client: arguments.client };
    match socket.and_then(|socket| proxy::shim::run(&socket, &bound)) {
        Ok(code) => ExitCode::from(code),
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::from(1)
        }
    }
}
