//! The shim: passes its standard streams to a session and waits for the end. It knows nothing, parses nothing and decides nothing;
//! what the client wanted to run (`SSH_ORIGINAL_COMMAND`, or arguments as ssh would get them) does not matter. Besides the
//! descriptors it passes on where sshd says that the client is, for who comes too often with wrong tokens.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use unix::{fdpass, harden, socket};

/// Runs to the end; the result is the exit code, or one sentence for the client.
pub fn run(path: &Path) -> Result<u8, String> {
    let unavailable = |_| "BorgCube cannot be reached on this server; is it running?".to_owned();
    let mut connection = socket::connect(path).map_err(unavailable)?;
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut word = vec![b'!'];
    word.extend(peer().as_bytes());
    fdpass::send_fds(&connection, &[input.as_fd(), output.as_fd(), errors.as_fd()], &word).map_err(unavailable)?;
    // With copies left here the client would wait for us to close them, and not hear that the session has.
    harden::let_go_of_standard_streams().map_err(|e| e.to_string())?;
    let mut code = [1];
    match connection.read(&mut code) {
        Ok(1) => Ok(code[0]),
        _ => Ok(1),
    }
}

/// The client's address as sshd knows it; empty for a client on this machine. (The forced command's environment is sshd's: nothing of
/// the client's comes into it.)
fn peer() -> String {
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    connection.split(' ').next().unwrap_or_default().chars().take(100).collect()
}
