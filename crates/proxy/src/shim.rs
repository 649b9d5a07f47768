//! The shim: passes its standard streams to a session and waits for the end. It knows nothing, parses nothing and decides nothing;
//! what the client wanted to run (`SSH_ORIGINAL_COMMAND`, or arguments as ssh would get them) does not matter.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use unix::{fdpass, harden, socket};

/// Runs to the end; the result is the exit code, or one sentence for the client.
pub fn run(path: &Path) -> Result<u8, String> {
    let unavailable = |_| "BorgCube cannot be reached on this server; is it running?".to_owned();
    let mut connection = socket::connect(path).map_err(unavailable)?;
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    fdpass::send_fds(&connection, &[input.as_fd(), output.as_fd(), errors.as_fd()], b"!").map_err(unavailable)?;
    // With copies left here the client would wait for us to close them, and not hear that the session has.
    harden::let_go_of_standard_streams().map_err(|e| e.to_string())?;
    let mut code = [1];
    match connection.read(&mut code) {
        Ok(1) => Ok(code[0]),
        _ => Ok(1),
    }
}
