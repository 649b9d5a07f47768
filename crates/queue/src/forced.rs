//! The forced command of every key that comes back: the shim, and what it lets in.

use model::ClientName;
use std::path::Path;
use unix::paths::{Layout, sibling_program};

/// What a key is for.
#[derive(Debug, Clone, Copy)]
pub enum Holder<'a> {
    /// The bearer of the token with this SHA-256, in hexadecimal.
    Token(&'a str),
    /// Any job of this client.
    Client(&'a ClientName),
}

/// The command line for the shell that sshd starts.
pub fn command(layout: &Layout, holder: Holder<'_>) -> String {
    let proxy = sibling_program("borgcube-proxy");
    // An installed server's shim knows where its socket is.
    let socket = if layout.is_installed() { String::new() } else { format!(" --socket {}", word(&layout.session_socket())) };
    let holder = match holder {
        Holder::Token(hash) => format!("--token-hash {hash}"),
        Holder::Client(name) => format!("--client {name}"),
    };
    format!("{}{socket} {holder}", word(&proxy))
}

/// A path for a shell.
fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if plain { text.into_owned() } else { crate::worker::quote(&text) }
}
