//! Prints the line of authorized_keys that belongs to a key: sshd's AuthorizedKeysCommand. Whatever goes wrong, it prints nothing.

use proxy::authorized_keys::{Question, answer};
use std::io::Write;
use std::process::ExitCode;
use unix::paths::Layout;

const HELP: &str = "borgcube-authorized-keys [USER] TYPE KEY

Prints the line of authorized_keys for this key, if BorgCube knows it: the key of a running job, or a permanent key of a client.
sshd calls it; see sshd_config(5), AuthorizedKeysCommand:

    AuthorizedKeysCommand /usr/libexec/borgcube/borgcube-authorized-keys %u %t %k
    AuthorizedKeysCommandUser borgcube-keys
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).take(4).map(|a| a.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let question = match words[..] {
        ["--version" | "-V"] => return print(format!("borgcube-authorized-keys {}\n", env!("CARGO_PKG_VERSION")).as_bytes()),
        ["--help" | "-h"] => return print(HELP.as_bytes()),
        [user, kind, base64] => Question { user: Some(user), kind, base64 },
        [kind, base64] => Question { user: None, kind, base64 },
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    let line = Layout::from_env().ok().and_then(|layout| answer(&layout, &question));
    // No line is no failure: sshd would complain of one with each key that a stranger tries.
    line.map_or(ExitCode::SUCCESS, |line| print(&line))
}

fn print(bytes: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
