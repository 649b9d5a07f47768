//! Clients: the hosts that are backed up, and how they are reached.

use crate::blackout::Blackout;
use crate::names::ClientName;
use crate::sshkey::ClientKey;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A host that is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its name here; archives carry it as their host name.
    pub name: ClientName,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// How this server reaches it, and it this server.
    pub connection: Connection,
    /// Its permanent SSH keys: with any of these it reaches a session here, and nothing else.
    #[serde(default)]
    pub keys: Vec<ClientKey>,
    /// When no scheduled backup of it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackouts: Vec<Blackout>,
    /// Whether its backups use a Borg binary of this server.
    #[serde(default)]
    pub borg_binary: BinaryUse,
    /// When it was added.
    pub created: Timestamp,
}

impl Client {
    /// The blackout that `moment` is in, if it is in one.
    #[must_use]
    pub fn blackout(&self, moment: Timestamp) -> Option<&Blackout> {
        self.blackouts.iter().find(|blackout| blackout.contains(moment))
    }

    /// Whether its backups use a Borg binary of this server; where a borg program is named for it, that one is meant.
    #[must_use]
    pub fn binary_use(&self) -> BinaryUse {
        if self.connection.remote_borg().is_some() { BinaryUse::Never } else { self.borg_binary }
    }

    /// Refuses what contradicts itself, and what ssh or a shell could take for something else.
    pub fn check(&self) -> Result<(), String> {
        self.connection.check()?;
        match self.connection.remote_borg() {
            Some(borg) if self.borg_binary == BinaryUse::Always => Err(format!(
                "{borg} is named as the client's borg, and it cannot always use a binary of this server as well: --clear remote-borg, or --borg-binary if-needed"
            )),
            _ => Ok(()),
        }
    }
}

/// When a client uses a Borg binary of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BinaryUse {
    /// Where it has no borg of its own, or one that is too old.
    #[default]
    IfNeeded,
    /// For each backup.
    Always,
    /// It has to have its own.
    Never,
}

impl BinaryUse {
    /// The word, as people and scripts write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            BinaryUse::IfNeeded => "if-needed",
            BinaryUse::Always => "always",
            BinaryUse::Never => "never",
        }
    }
}

/// The road on which the client's borg reaches this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Road {
    /// The client connects back by SSH.
    #[default]
    Back,
    /// The worker's own connections carry the stream: for clients that cannot reach this server.
    Carrier,
}

/// With which key the client connects back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUse {
    /// One that is made for each job and ends with it: nothing is kept on the client.
    #[default]
    Job,
    /// The client's own, which somebody has put there.
    Permanent,
}

/// The road to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Connection {
    /// This machine itself, without SSH.
    Local {
        /// The borg program. None: `borg`.
        #[serde(default)]
        remote_borg: Option<String>,
        /// Where the client's Borg cache lives. None: `~/.cache/borgcube/SERVER-ID`.
        #[serde(default)]
        remote_cache_dir: Option<String>,
    },
    /// Over SSH.
    Ssh(SshConnection),
}

/// An SSH connection in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SshConnection {
    /// `user@host` or a host alias of ssh_config.
    pub remote: String,
    /// The SSH program. None: `ssh`.
    #[serde(default)]
    pub rsh: Option<String>,
    /// Further arguments for it, before the host.
    #[serde(default)]
    pub rsh_options: Vec<String>,
    /// The private key file for it.
    #[serde(default)]
    pub ssh_identity_file: Option<String>,
    /// The borg program on the client. None: `borg`.
    #[serde(default)]
    pub remote_borg: Option<String>,
    /// Where the client's Borg cache lives. None: `~/.cache/borgcube/SERVER-ID`.
    #[serde(default)]
    pub remote_cache_dir: Option<String>,
    /// How the client reaches this server: `user@host[:port]` of the forced command's login. Empty on the road [`Road::Carrier`].
    #[serde(default)]
    pub server: String,
    /// Who carries the client's stream.
    #[serde(default)]
    pub road: Road,
    /// With which key the client comes.
    #[serde(default)]
    pub key: KeyUse,
    /// The client's SSH command for that road, as Borg's BORG_RSH. None: `ssh`.
    #[serde(default)]
    pub client_rsh: Option<String>,
}

/// Options of ssh (OpenSSH, ssh(1)) that take a value and neither start a program nor write a file of somebody's choice.
const WITH_VALUE: [&str; 7] = ["-p", "-l", "-i", "-b", "-c", "-m", "-J"];

/// Those without a value.
const WITHOUT_VALUE: [&str; 11] = ["-4", "-6", "-C", "-a", "-k", "-q", "-T", "-v", "-vv", "-vvv", "-x"];

/// The same of ssh_config(5), for `-o`.
const KEYWORDS: [&str; 25] = [
    "addressfamily",
    "batchmode",
    "bindaddress",
    "checkhostip",
    "ciphers",
    "compression",
    "connectionattempts",
    "connecttimeout",
    "forwardagent",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityfile",
    "ipqos",
    "kexalgorithms",
    "loglevel",
    "macs",
    "port",
    "proxyjump",
    "serveralivecountmax",
    "serveraliveinterval",
    "stricthostkeychecking",
    "tcpkeepalive",
    "user",
];

impl SshConnection {
    /// Whether its SSH command may run programs of somebody's choice on this server: `rsh` itself, or options such as `ProxyCommand`, a
    /// configuration file, a file to write to. What is not known to be harmless counts.
    #[must_use]
    pub fn runs_programs(&self) -> bool {
        if self.rsh.as_deref().is_some_and(|rsh| rsh != "ssh") {
            return true;
        }
        let mut options = self.rsh_options.iter().map(String::as_str);
        while let Some(option) = options.next() {
            let harmless = if WITHOUT_VALUE.contains(&option) {
                true
            } else if let Some(setting) = option.strip_prefix("-o") {
                if setting.is_empty() { options.next().is_some_and(is_harmless) } else { is_harmless(setting) }
            } else {
                match option.split_at_checked(2) {
                    Some((name, "")) if WITH_VALUE.contains(&name) => options.next().is_some_and(is_plain),
                    Some((name, value)) => WITH_VALUE.contains(&name) && is_plain(value),
                    None => false,
                }
            };
            if !harmless {
                return true;
            }
        }
        false
    }
}

/// `Keyword=value` or `Keyword value`, as ssh takes it.
fn is_harmless(setting: &str) -> bool {
    let setting = setting.trim_start();
    let end = setting.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(setting.len());
    let (keyword, value) = setting.split_at(end);
    let value = value.trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    KEYWORDS.contains(&keyword.to_ascii_lowercase().as_str()) && is_plain(value)
}

/// ssh makes a shell's command of hosts to jump over, with the names of host and user in it.
fn is_plain(value: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "@.:_-[]%,/+*^".contains(c);
    !value.starts_with('-') && !value.contains("@-") && !value.contains(",-") && value.chars().all(harmless)
}

impl Connection {
    /// The borg program named for this client, if any.
    pub fn remote_borg(&self) -> Option<&str> {
        match self {
            Connection::Local { remote_borg, .. } => remote_borg.as_deref(),
            Connection::Ssh(ssh) => ssh.remote_borg.as_deref(),
        }
    }

    /// The cache directory named for this client, if any.
    pub fn remote_cache_dir(&self) -> Option<&str> {
        match self {
            Connection::Local { remote_cache_dir, .. } => remote_cache_dir.as_deref(),
            Connection::Ssh(ssh) => ssh.remote_cache_dir.as_deref(),
        }
    }

    /// Refuses what ssh or a shell could take for something else.
    pub fn check(&self) -> Result<(), String> {
        let path = |what: &str, value: Option<&str>| match value {
            Some(v) if v.is_empty() || v.chars().any(char::is_control) || v.starts_with('-') => {
                Err(format!("{what} {v:?} is not usable: give a path or a program name"))
            }
            _ => Ok(()),
        };
        path("remote_borg", self.remote_borg())?;
        if let Some(dir) = self.remote_cache_dir()
            && !dir.starts_with('/')
        {
            return Err(format!("remote_cache_dir {dir:?} must be an absolute path on the client"));
        }
        path("remote_cache_dir", self.remote_cache_dir())?;
        let Connection::Ssh(ssh) = self else {
            return Ok(());
        };
        // The carrier leads to no host at all.
        let server = (ssh.road == Road::Back || !ssh.server.is_empty()).then_some(("server", &ssh.server));
        for (what, host) in [("remote", &ssh.remote)].into_iter().chain(server) {
            let bad = host.len() > 300
                || host.starts_with(['-', '@'])
                || host.contains("@-")
                || !host.chars().all(|c| c.is_ascii_alphanumeric() || "@.:_-[]%".contains(c));
            if host.is_empty() {
                return Err(match what {
                    "server" => "a client needs `server`: how it reaches this server, USER@HOST. With `road = \"carrier\"` it needs none, nor with `local = true`".into(),
                    _ => "a client needs `remote`: how this server reaches it, USER@HOST. Or it is this machine itself: `local = true`".to_owned(),
                });
            }
            if bad {
                return Err(format!("{what} {host:?} is not usable: write user@host"));
            }
            // The address of this server may have a port, that of a client is ssh's argument.
            let port =
                host.rsplit_once(':').filter(|(name, port)| !name.contains(':') && !name.contains('[') && port.parse::<u16>().is_ok());
            if let Some((name, port)) = port.filter(|_| what == "remote") {
                return Err(format!("remote {host:?} has a port in it: write {name} and the option --rsh-option=-p{port}"));
            }
        }
        path("ssh_identity_file", ssh.ssh_identity_file.as_deref())?;
        path("rsh", ssh.rsh.as_deref())?;
        if ssh.rsh_options.iter().any(|o| o.chars().any(char::is_control))
            || ssh.client_rsh.as_deref().is_some_and(|o| o.chars().any(char::is_control))
        {
            return Err("SSH options must not contain control characters".into());
        }
        if ssh.road == Road::Back && ssh.key == KeyUse::Job && ssh.client_rsh.is_some() {
            return Err(
                "a client with an SSH command of its own to this server cannot use job keys: use --key permanent, or --clear client-rsh"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(remote: &str, server: &str) -> Connection {
        Connection::Ssh(SshConnection { remote: remote.into(), server: server.into(), ..Default::default() })
    }

    #[test]
    fn option_injection_by_host_is_refused() {
        for bad in ["", "-oProxyCommand=x", "root@-oX", "a b", "h\n", "$(x)", "a;b", "@h"] {
            assert!(ssh(bad, "b@h").check().is_err(), "{bad:?}");
            assert!(ssh("root@h", bad).check().is_err(), "{bad:?}");
        }
        for good in ["root@web1.example.net", "web1", "root@[::1]", "fe80::1"] {
            assert!(ssh(good, "borgcube-ssh@server:2222").check().is_ok(), "{good:?}");
        }
        let said = ssh("u@h:2222", "b@h").check().unwrap_err();
        assert!(said.contains("write u@h and the option --rsh-option=-p2222"), "{said}");
    }

    #[test]
    fn what_runs_programs_on_the_server_is_told_apart() {
        let runs = |words: &str| {
            let rsh_options = words.split('|').filter(|word| !word.is_empty()).map(str::to_owned).collect();
            SshConnection { rsh_options, ..Default::default() }.runs_programs()
        };
        for harmless in [
            "",
            "-p|2222",
            "-p2222",
            "-4|-C",
            "-o|Port=22",
            "-oConnectTimeout=10",
            "-o|ServerAliveInterval 30",
            "-o|StrictHostKeyChecking = accept-new",
            "-J|root@gate.example.net:22,10.0.0.1",
            "-oProxyJump=gate",
            "-i|/var/lib/borgcube/.ssh/other",
        ] {
            assert!(!runs(harmless), "{harmless}");
        }
        for dangerous in [
            "-oProxyCommand=sh -c x",
            "-o|proxycommand x",
            "-o|  LocalCommand=x",
            "-oPermitLocalCommand=yes",
            "-oKnownHostsCommand=x",
            "-oUserKnownHostsFile=/var/lib/borgcube/keys/x",
            "-oInclude=/tmp/x",
            "-oMatch=exec x",
            "-oPKCS11Provider=/tmp/x.so",
            "-oControlPath=/x",
            "-F|/tmp/config",
            "-F/tmp/config",
            "-E|/tmp/log",
            "-I/tmp/x.so",
            "-S|/x",
            "-4C",
            "-o",
            "-p",
            "-p|-oProxyCommand=x",
            "-J|-oProxyCommand=x",
            "-oHostName=x';touch x;'",
            "-l|$(x)",
            "-J|a;b",
            "-J|$(x)",
            "-oProxyJump=`x`",
            "-oProxyJump=a,-oX",
            "-W|a:1",
            "--",
            "x",
            "-",
            "-ü",
        ] {
            assert!(runs(dangerous), "{dangerous}");
        }
        assert!(SshConnection { rsh: Some("/tmp/x".into()), ..Default::default() }.runs_programs());
        assert!(!SshConnection { rsh: Some("ssh".into()), ..Default::default() }.runs_programs());
    }

    #[test]
    fn cache_directory_is_absolute() {
        let c = |dir: &str| Connection::Local { remote_borg: None, remote_cache_dir: Some(dir.into()) };
        assert!(c("/var/cache/x").check().is_ok());
        assert!(c("x").check().is_err());
    }
}
