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
    /// When it was added.
    pub created: Timestamp,
}

impl Client {
    /// The blackout that `moment` is in, if it is in one.
    #[must_use]
    pub fn blackout(&self, moment: Timestamp) -> Option<&Blackout> {
        self.blackouts.iter().find(|blackout| blackout.contains(moment))
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
            let bad = host.is_empty()
                || host.len() > 300
                || host.starts_with(['-', '@'])
                || host.contains("@-")
                || !host.chars().all(|c| c.is_ascii_alphanumeric() || "@.:_-[]%".contains(c));
            if bad {
                return Err(format!("{what} {host:?} is not usable: write user@host"));
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
        for good in ["root@web1.example.net", "web1", "root@[::1]", "u@h:2222"] {
            assert!(ssh(good, "borgcube-ssh@server").check().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn cache_directory_is_absolute() {
        let c = |dir: &str| Connection::Local { remote_borg: None, remote_cache_dir: Some(dir.into()) };
        assert!(c("/var/cache/x").check().is_ok());
        assert!(c("x").check().is_err());
    }
}
