//! What a client runs: one small script, and the bytes that follow it on its standard input.
//!
//! The script's text is the argument of a shell and therefore no secret; settings (token, passphrase) and the chunks cache
//! travel over standard input.

use model::client::Connection;
use std::fmt::Write;
use wire::session::Prepared;
use wire::worker::Task;

const SCRIPT: &str = include_str!("client.sh");

/// The parts of a client's standard input, in order. The chunks cache follows them.
pub struct Input {
    /// The command line for the client's shell: reads the script and runs it.
    pub command: String,
    /// Script and settings.
    pub head: Vec<u8>,
}

/// Builds the client's side of a job. `shim` is the command by which a local client reaches the session socket.
pub fn build(task: &Task, prepared: &Prepared, borg_arguments: &[String], shim: &str) -> Input {
    let settings = settings(task, prepared, borg_arguments, shim);
    let mut script = String::new();
    let mut assign = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(script, "{name}={}", quote(&value));
    };
    assign("settings_size", settings.len().to_string());
    assign("chunks_size", prepared.chunks_cache_size.to_string());
    script.push_str(SCRIPT);
    // `dd` reads byte by byte: a shell that reads its script from a pipe may read too much.
    let command = format!("exec sh -c 's=$(dd bs=1 count={} 2>/dev/null); eval \"$s\"'", script.len());
    let mut head = script.into_bytes();
    head.extend_from_slice(settings.as_bytes());
    Input { command, head }
}

fn settings(task: &Task, prepared: &Prepared, borg_arguments: &[String], shim: &str) -> String {
    let connection = &task.client.connection;
    let (server, rsh) = match connection {
        Connection::Local { .. } => ("borgcube-ssh@localhost", shim),
        Connection::Ssh(ssh) => {
            (ssh.server.as_str(), ssh.client_rsh.as_deref().unwrap_or("ssh -o BatchMode=yes -o ServerAliveInterval=30"))
        }
    };
    let config = &task.config;
    let mut text = String::new();
    let mut assign = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}={}", quote(value));
    };
    assign("job", &task.job.number.to_string());
    assign("server_id", &task.server_id);
    assign("cache_dir", connection.remote_cache_dir().unwrap_or_default());
    assign("borg", connection.remote_borg().unwrap_or("borg"));
    assign("repository_id", &prepared.repository_id);
    assign("manifest_id", &prepared.manifest_id);
    assign("BORG_REPO", &format!("ssh://{server}/./{}", prepared.token));
    assign("BORG_RSH", rsh);
    assign("BORG_PASSPHRASE", &prepared.passphrase);
    assign("BORG_FILES_CACHE_SUFFIX", config.label.as_str());
    for yes in ["BORG_RELOCATED_REPO_ACCESS_IS_OK", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] {
        assign(yes, "yes");
    }
    assign("BORG_EXIT_CODES", "modern");
    assign("BORG_SELFTEST", "disabled");
    let mut literal = vec![];
    for (n, path) in config.paths.iter().enumerate() {
        assign(&format!("path_{n}"), path);
        literal.push(n.to_string());
    }
    assign("literal_paths", &literal.join(" "));
    // Roots in patterns are Borg's to judge.
    let roots = config.patterns.iter().filter(|p| p.starts_with('R')).count();
    assign("path_count", &(literal.len() + roots).to_string());
    text.push_str("export BORG_REPO BORG_RSH BORG_PASSPHRASE BORG_FILES_CACHE_SUFFIX BORG_RELOCATED_REPO_ACCESS_IS_OK BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK BORG_EXIT_CODES BORG_SELFTEST\n");
    text.push_str("unset BORG_PASSCOMMAND BORG_PASSPHRASE_FD BORG_KEY_FILE BORG_KEYS_DIR BORG_CONFIG_DIR BORG_REMOTE_PATH BORG_FILES_CACHE_TTL BORG_HOST_ID BORG_WORKAROUNDS BORG_LOGGING_CONF BORG_USE_CHUNKS_ARCHIVE BORG_HOSTNAME_IS_UNIQUE\n");
    text.push_str("set --");
    for argument in borg_arguments {
        text.push(' ');
        text.push_str(&quote(argument));
    }
    text.push('\n');
    text
}

/// Quotes for a POSIX shell: nothing inside single quotes has a meaning.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn quoting_survives_a_real_shell() {
        for text in ["", "a b", "it's", "$(reboot)", "`x`", "\\", "\n", "'", "''", "-n", "*", "ä\u{7f}\t", "a'b'c\"d"] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output().unwrap();
            assert_eq!(output.stdout, text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn the_script_is_good_shell() {
        let output = Command::new("sh").arg("-n").arg("-c").arg(SCRIPT).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
