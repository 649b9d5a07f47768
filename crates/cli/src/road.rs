//! The roads between this server and a client, tried out as a worker and the client's borg would take them.

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::tools::{Said, Tool};
use model::client::SshConnection;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use unix::paths::USER_DAEMON;

/// What a worker tells ssh, in front of everything of the client's own.
const OPTIONS: [&str; 6] = ["-oBatchMode=yes", "-oServerAliveInterval=30", "-oConnectTimeout=30", "-T", "-x", "-a"];
/// Connecting, asking names, starting a slow Python.
const PATIENCE: Duration = Duration::from_secs(90);
/// Reads the script from standard input: no quoting on the way.
const RUN: &str = "exec sh -c 's=$(cat); eval \"$s\"'";

/// Who connects to clients: the user of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// This very user.
    Me,
    /// `borgcube`, which only root can become.
    Daemon,
}

/// Who connects to clients on this server; an error if this person can not do it in their place.
pub fn caller(context: &Context) -> Result<Caller> {
    if context.state.is_some() {
        return Ok(Caller::Me);
    }
    let me = fs::metadata("/proc/self").map(|meta| meta.uid()).map_err(|e| Error::failed(format!("cannot tell who runs this: {e}")))?;
    match unix::socket::user_name(me)?.as_deref() {
        Some(USER_DAEMON) => Ok(Caller::Me),
        _ if me == 0 => Ok(Caller::Daemon),
        _ => Err(Error::new(Kind::Permission, format!("only root can connect to clients in the place of {USER_DAEMON}"))
            .hint("Run this command with sudo.")),
    }
}

/// A program, run as the caller.
#[must_use]
pub fn as_caller(program: &str, caller: Caller) -> Words {
    Words { words: vec![program.to_owned()], caller }
}

/// A command line that is not run yet.
#[derive(Debug, Clone)]
pub struct Words {
    words: Vec<String>,
    caller: Caller,
}

impl Words {
    /// More of them.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, words: impl IntoIterator<Item = A>) -> Words {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// The program.
    #[must_use]
    pub fn tool(&self) -> Tool {
        let tool = Tool::new(&self.words[0]).args(&self.words[1..]).patience(PATIENCE);
        match self.caller {
            Caller::Me => tool,
            Caller::Daemon => tool.as_user(USER_DAEMON),
        }
    }

    /// As a person would type it as root.
    #[must_use]
    pub fn shown(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| crate::context::shell_word(std::path::Path::new(word))).collect();
        prefix(self.caller) + &words.join(" ")
    }
}

/// ssh to the client, up to the host; what it is to run there comes behind.
#[must_use]
pub fn ssh(connection: &SshConnection, caller: Caller) -> Words {
    let mut program = connection.rsh.as_deref().unwrap_or("ssh").split_whitespace();
    let mut words = as_caller(program.next().unwrap_or("ssh"), caller).args(program).args(OPTIONS);
    if let Some(file) = &connection.ssh_identity_file {
        words = words.args(["-i", file, "-oIdentitiesOnly=yes"]);
    }
    words.args(connection.rsh_options.iter().cloned()).args(["--".to_owned(), connection.remote.clone()])
}

/// `ssh -G` for the client: what ssh makes of its settings.
#[must_use]
pub fn settings(connection: &SshConnection, caller: Caller) -> Words {
    let mut program = connection.rsh.as_deref().unwrap_or("ssh").split_whitespace();
    let words = as_caller(program.next().unwrap_or("ssh"), caller).args(program).args(["-G"]);
    words.args(connection.rsh_options.iter().cloned()).args(["--".to_owned(), connection.remote.clone()])
}

/// Runs a script of a shell on the client.
pub fn run_there(connection: &SshConnection, caller: Caller, script: &str) -> Result<Said> {
    ssh(connection, caller).args([RUN]).tool().input(script.as_bytes()).run()
}

/// The script that asks for the client's clock and borg.
#[must_use]
pub fn borg_script(connection: &SshConnection) -> String {
    let borg = connection.remote_borg.as_deref().unwrap_or("borg");
    format!("echo \"{CLOCK}$(date -u +%s)\"\nBORG_SELFTEST=disabled {} --version\n", quoted(borg))
}

const CLOCK: &str = "clock=";

/// The client's clock in what [`borg_script`] says, in seconds since 1970.
#[must_use]
pub fn clock_in(said: &Said) -> Option<i64> {
    said.out.lines().find_map(|line| line.strip_prefix(CLOCK)?.parse().ok())
}

/// The script that asks several borgs for their versions: lines of path, colon and version.
#[must_use]
pub fn borgs_script(places: &[&str]) -> String {
    let one = |place: &&str| format!("[ ! -x {0} ] || echo {0}: \"$(BORG_SELFTEST=disabled {0} --version 2>&1)\"\n", quoted(place));
    places.iter().map(one).collect::<String>() + "true\n"
}

/// The client did not take the server's key.
#[must_use]
pub fn refused_key(said: &Said) -> bool {
    said.err.contains("Permission denied")
}

/// ssh did not take the client's host key.
#[must_use]
pub fn refused_host_key(said: &Said) -> bool {
    ["Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED"].iter().any(|words| said.err.contains(words))
}

/// The public half of a private key.
pub fn public_key(file: &str, caller: Caller) -> Result<String> {
    let said = as_caller("ssh-keygen", caller).args(["-y", "-f", file]).tool().run()?;
    if !said.success {
        return Err(Error::failed(format!("{file} is not a usable SSH key: {}", said.reason())));
    }
    Ok(said.out.trim().to_owned())
}

/// The command that lets a key in on a client: for whoever can log in there already, from any machine. A private key that systemd keeps has
/// no file with its public half, which is what ssh-copy-id would want.
#[must_use]
pub fn let_in(connection: &SshConnection, public: &str) -> String {
    if connection.remote.starts_with("borgcube-client@") {
        return format!("borgcube-client-setup --key {} (as root of that host, with --from and this server's address)", quoted(public));
    }
    let_in_line(&format!("restrict {public}"), connection.rsh.as_deref().unwrap_or("ssh"), &connection.rsh_options, &connection.remote)
}

/// The same with the whole line of authorized_keys.
#[must_use]
pub fn let_in_line(line: &str, rsh: &str, options: &[String], login: &str) -> String {
    let mut program = rsh.split_whitespace();
    let words = as_caller(program.next().unwrap_or("ssh"), Caller::Me).args(program);
    let words = words.args(options.iter().cloned()).args([login]);
    let there = "umask 077; mkdir -p .ssh && cat >>.ssh/authorized_keys";
    format!("echo {} | {} {}", quoted(line), words.shown(), quoted(there))
}

/// In front of a command that is to run as the caller: nothing, or words and a space.
#[must_use]
pub fn prefix(caller: Caller) -> String {
    match caller {
        Caller::Me => String::new(),
        Caller::Daemon => format!("runuser -u {USER_DAEMON} -- "),
    }
}

/// The script that goes back to this server as the client's borg would, with `ssh` and no key that fits: how that is refused tells
/// whether the road is open. Its last line is `server=EXITCODE`.
#[must_use]
pub fn back_script(connection: &SshConnection, host_keys: &[String]) -> String {
    let rsh = connection.client_rsh.as_deref().unwrap_or("ssh -F /dev/null -o IdentityFile=none -o IdentitiesOnly=yes");
    let (server, port) = split_port(&connection.server);
    let mut script = String::new();
    let mut pinned = String::new();
    if connection.client_rsh.is_none() {
        // As a job brings it along.
        script.push_str("known=$(mktemp) || exit 1\ntrap 'rm -f \"$known\"' EXIT\n");
        for key in host_keys {
            script.push_str(&format!("printf '%s\\n' {} >>\"$known\"\n", quoted(&format!("borgcube-server {key}"))));
        }
        pinned.push_str(" -o UserKnownHostsFile=\"$known\" -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=borgcube-server -o StrictHostKeyChecking=yes");
    }
    let port = port.map(|port| format!(" -p {port}")).unwrap_or_default();
    script.push_str(&format!(
        "{rsh}{pinned} -o BatchMode=yes -o ConnectTimeout=20 -T{port} -- {} borg serve </dev/null >&2\necho server=$?\n",
        quoted(server)
    ));
    script
}

/// `user@host:port`, taken apart; an IPv6 address stands in brackets.
#[must_use]
pub fn split_port(server: &str) -> (&str, Option<u16>) {
    match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (server, None),
        },
        _ => (server, None),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a try of the road back says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// sshd answered, with the right host key.
    Open {
        /// A key of the client's own was accepted, too.
        accepted: bool,
    },
    /// It did not, and why, with what to do.
    Shut {
        /// The reason.
        why: String,
        /// What to do.
        mend: String,
    },
}

/// Judges how the road back ended.
#[must_use]
pub fn judge_back(said: &Said, server: &str) -> Back {
    let shut = |why: &str, mend: String| Back::Shut { why: why.to_owned(), mend };
    let text = said.err.as_str();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let (host, port) = split_port(server);
    let host = host.split('@').next_back().unwrap_or(host);
    let port = port.unwrap_or(22);
    if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed"]) {
        let mend = format!(
            "Somebody else may be in between, or {host} is another machine than this server. Compare: ssh-keyscan -p {port} {host} on the client, and /etc/ssh/ssh_host_*_key.pub here"
        );
        return shut("the client sees another host key than this server has", mend);
    }
    if has(&["Could not resolve hostname", "Name or service not known"]) {
        return shut(
            &format!("the client does not know the name {host}"),
            "Add it to the client's DNS or /etc/hosts, or give its address with --server".to_owned(),
        );
    }
    if has(&["Connection refused"]) {
        return shut(&format!("nothing listens at {host} port {port}"), "systemctl status ssh here; is the port right?".to_owned());
    }
    if has(&["timed out", "No route to host", "Network is unreachable"]) {
        return shut(&format!("the client does not reach {host} port {port}"), "A firewall between them? If the client can never reach this server: borgcube client edit CLIENT --help tells of the road that needs no way back".to_owned());
    }
    if has(&["Permission denied"]) {
        return Back::Open { accepted: false };
    }
    if has(&["not found", "No such file"]) && said.out.contains("server=127") {
        return shut("there is no ssh on the client", "apt install openssh-client there".to_owned());
    }
    match said.out.lines().rev().find_map(|line| line.strip_prefix("server=")) {
        // Anything but ssh's own failure comes from behind sshd: the key was accepted.
        Some(code) if code != "255" => Back::Open { accepted: true },
        _ => shut(
            &format!("the client's ssh ended without a login: {}", said.reason()),
            "journalctl -u ssh on this server may tell more".to_owned(),
        ),
    }
}

/// What to do when the road to a client fails.
#[must_use]
pub fn mend_there(said: &Said, connection: &SshConnection, caller: Caller) -> Vec<String> {
    let text = said.err.as_str();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let remote = &connection.remote;
    let mut lines = vec![];
    if refused_key(said) {
        lines.push("With the package borgcube-client there: borgcube-client-setup, as its man page says".to_owned());
    } else if refused_host_key(said) {
        lines.push("borgcube doctor --client NAME tells how to pin the client's host key".to_owned());
    } else if has(&["Could not resolve", "refused", "timed out", "No route", "unreachable"]) {
        lines.push(format!("Is {remote} right, is the client up, and does its sshd listen?"));
    } else if has(&["not found", "No such file"]) {
        lines.push("Install borg there: apt install borgbackup, or name it with --remote-borg".to_owned());
    }
    lines.push(format!("Try by hand: {}", ssh(connection, caller).args(["borg --version"]).shown()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(out: &str, err: &str) -> Said {
        Said { success: true, ending: String::new(), out: out.into(), err: err.into() }
    }

    #[test]
    fn servers_with_and_without_port() {
        assert_eq!(split_port("b@h"), ("b@h", None));
        assert_eq!(split_port("b@h:2222"), ("b@h", Some(2222)));
        assert_eq!(split_port("b@[::1]:2222"), ("b@[::1]", Some(2222)));
        assert_eq!(split_port("b@::1"), ("b@::1", None));
        assert_eq!(split_port("b@h:many"), ("b@h:many", None));
    }

    #[test]
    fn a_refusal_by_sshd_is_an_open_road() {
        let judge = |out: &str, err: &str| judge_back(&said(out, err), "borgcube-ssh@backup:2222");
        assert_eq!(judge("server=255", "borgcube-ssh@backup: Permission denied (publickey)."), Back::Open { accepted: false });
        assert_eq!(judge("server=1", ""), Back::Open { accepted: true });
        for (out, err, word) in [
            ("server=255", "ssh: connect to host backup port 2222: Connection refused", "nothing listens at backup port 2222"),
            ("server=255", "ssh: Could not resolve hostname backup: Name or service not known", "does not know the name backup"),
            ("server=255", "ssh: connect to host backup port 2222: Connection timed out", "does not reach"),
            ("server=255", "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "another host key"),
            ("server=127", "sh: 1: ssh: not found", "no ssh"),
            ("", "killed", "killed"),
        ] {
            let Back::Shut { why, mend } = judge(out, err) else { panic!("{err}") };
            assert!(why.contains(word) && !mend.is_empty(), "{why}");
        }
    }

    #[test]
    fn nothing_of_a_connection_reaches_the_client_s_shell_unquoted() {
        let connection = SshConnection { remote_borg: Some("borg's".into()), server: "b@h:22".into(), ..Default::default() };
        assert!(borg_script(&connection).contains(r"'borg'\''s' --version"));
        assert_eq!(clock_in(&said("clock=1700000000\nborg 1.4.0\n", "")), Some(1_700_000_000));
        assert!(back_script(&connection, &[]).contains("-p 22 -- 'b@h' borg serve"));
    }

    #[test]
    fn a_key_is_let_in_by_a_command() {
        let connection = SshConnection { remote: "root@web1".into(), rsh_options: vec!["-p".into(), "2222".into()], ..Default::default() };
        assert_eq!(
            let_in(&connection, "ssh-ed25519 AAAA borgcube@s"),
            "echo 'restrict ssh-ed25519 AAAA borgcube@s' | ssh -p 2222 root@web1 'umask 077; mkdir -p .ssh && cat >>.ssh/authorized_keys'"
        );
        let restricted = SshConnection { remote: "borgcube-client@web1".into(), ..Default::default() };
        assert!(let_in(&restricted, "K").starts_with("borgcube-client-setup --key 'K'"));
    }

    #[test]
    fn the_worker_s_ssh() {
        let connection = SshConnection {
            remote: "root@web1".into(),
            rsh: Some("ssh -4".into()),
            rsh_options: vec!["-p".into(), "2222".into()],
            ssh_identity_file: Some("/k".into()),
            ..Default::default()
        };
        let shown = ssh(&connection, Caller::Daemon).shown();
        assert!(shown.starts_with("runuser -u borgcube -- ssh -4 -oBatchMode=yes"), "{shown}");
        assert!(shown.ends_with("-i /k -oIdentitiesOnly=yes -p 2222 -- root@web1"), "{shown}");
    }
}
