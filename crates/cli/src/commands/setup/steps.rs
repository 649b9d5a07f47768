//! The steps, in order. Each one looks first.

use super::answers::{self, Plan, Ssh, is_here, question_at_terminal};
use super::keys::{self, Pinned};
use crate::args::Args;
use crate::commands;
use crate::commands::doctor::clients;
use crate::commands::doctor::finding::Verdict;
use crate::context::{Context, shell_word};
use crate::error::{Error, Kind, Result};
use crate::road::{self, Caller};
use clap::Parser;
use model::client::{KeyUse, SshConnection};
use model::{Client, Connection};
use serde::Serialize;
use std::path::Path;
use wire::control::{ArchiveFilter, Archives, Call};

/// A step that is behind us.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// Which: a word that stays the same.
    pub step: &'static str,
    /// What there is now.
    pub what: String,
    /// It was there before.
    pub before: bool,
}

/// All steps and how far they are.
#[derive(Debug)]
pub struct Steps<'a> {
    context: &'a Context,
    plan: Plan,
    done: Vec<Done>,
}

impl<'a> Steps<'a> {
    /// None of them yet.
    pub fn new(context: &'a Context, plan: Plan) -> Steps<'a> {
        Steps { context, plan, done: vec![] }
    }

    /// What is done.
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    /// The command that goes on.
    pub fn again(&self) -> String {
        answers::command(&self.plan, self.context.state.as_deref())
    }

    /// From the repository to the first backup.
    pub fn all(&mut self) -> Result<()> {
        self.repository()?;
        if let Some(ssh) = self.plan.ssh.clone() {
            let caller = road::caller(self.context)?;
            let connection = self.connection(&ssh);
            self.key(&ssh, caller)?;
            self.host_key(&ssh, &connection, caller)?;
            self.there(&ssh, &connection, caller)?;
            self.client(&ssh)?;
            self.back(&connection, caller)?;
        } else {
            self.local_client()?;
        }
        self.config()?;
        if self.plan.backup { self.backup() } else { Ok(()) }
    }

    fn note(&mut self, step: &'static str, what: impl Into<String>, before: bool) -> Result<()> {
        let done = Done { step, what: what.into(), before };
        self.context.say(&format!("- {}{}", done.what, if before { " (was there)" } else { "" }))?;
        self.done.push(done);
        Ok(())
    }

    /// One of our own commands, as a person would type it.
    fn borgcube(&self, words: &[String]) -> Result<()> {
        let shown: Vec<_> = words.iter().map(|word| shell_word(Path::new(word))).collect();
        self.context.say(&format!("$ borgcube {}", shown.join(" ")))?;
        let all = std::iter::once("borgcube".to_owned()).chain(words.iter().cloned());
        let parsed = Args::try_parse_from(all).map_err(|e| Error::usage(e.to_string()))?;
        // In JSON there is one document, at the end.
        let quiet = self.context.quiet || self.context.json;
        let context = Context { layout: self.context.layout.clone(), state: self.context.state.clone(), json: false, quiet };
        commands::run(parsed.command, &context).map(drop)
    }

    fn repository(&mut self) -> Result<()> {
        let Plan { repository: name, url, encryption, passphrase_file, .. } = self.plan.clone();
        let known = commands::repository::all(&mut self.context.control()?)?.into_iter().find(|r| r.name == name);
        if let Some(known) = known {
            if known.url != url {
                return Err(Error::conflict(format!("there is a repository {name} already, at {}", known.url))
                    .hint("Choose another name with --repository, or take that one: leave --url out."));
            }
            return self.note("repository", format!("repository {name} at {url}"), true);
        }
        let mut words = ["repository", "add", name.as_str(), &url, "--encryption", encryption.as_str()].map(str::to_owned).to_vec();
        match passphrase_file {
            Some(file) if encryption.has_key() => words.extend(["--passphrase-file".to_owned(), file.display().to_string()]),
            None if encryption.has_key() => words.push("--generate-passphrase".into()),
            _ => {}
        }
        if let Some(parent) = Path::new(&url).parent().filter(|_| url.starts_with('/')) {
            std::fs::create_dir_all(parent).map_err(|e| Error::failed(format!("cannot make the directory {}: {e}", parent.display())))?;
        }
        self.borgcube(&words)?;
        self.note("repository", format!("repository {name} at {url}"), false)
    }

    fn connection(&self, ssh: &Ssh) -> SshConnection {
        SshConnection {
            remote: ssh.remote.clone(),
            server: ssh.server.clone(),
            rsh_options: ssh.options.clone(),
            ssh_identity_file: Some(ssh.identity.display().to_string()),
            client_rsh: ssh.client_rsh.clone(),
            key: if ssh.client_rsh.is_some() { KeyUse::Permanent } else { KeyUse::Job },
            ..Default::default()
        }
    }

    fn key(&mut self, ssh: &Ssh, caller: Caller) -> Result<()> {
        let made = keys::identity(&ssh.identity, caller)?;
        self.note("ssh-key", format!("SSH key {}", ssh.identity.display()), !made)
    }

    fn host_key(&mut self, ssh: &Ssh, connection: &SshConnection, caller: Caller) -> Result<()> {
        match keys::pin(ssh, connection, caller, !self.plan.yes && !self.context.json)? {
            Pinned::Before => self.note("host-key", format!("host key of {}", ssh.remote), true),
            Pinned::Now(prints) => self.note("host-key", format!("host key of {} ({prints})", ssh.remote), false),
        }
    }

    /// To the client; a person may let the key in meanwhile.
    fn there(&mut self, ssh: &Ssh, connection: &SshConnection, caller: Caller) -> Result<()> {
        let mut offered = false;
        loop {
            let said = road::run_there(connection, caller, &road::borg_script(connection))?;
            if said.success {
                let finding = commands::doctor::machine::borg(
                    &ssh.remote,
                    &said.out,
                    "Install a borg that fits, or name one later with --remote-borg.",
                );
                if finding.verdict == Verdict::Problem {
                    return Err(finding.mend.into_iter().fold(Error::failed(finding.message), Error::hint));
                }
                let version = said.out.trim().rsplit('\n').next().unwrap_or_default().trim().to_owned();
                return self.note("connection", format!("{} is reached; it has {version}", ssh.remote), false);
            }
            let public = road::public_key(&ssh.identity.display().to_string(), caller)?;
            let refused = road::refused_key(&said);
            if refused && !offered && self.let_in_here(ssh, &public)? {
                offered = true;
                continue;
            }
            let error = Error::failed(format!("{} cannot be reached: {}", ssh.remote, said.reason()));
            let mut hints = road::mend_there(&said, connection, caller);
            if refused {
                hints.insert(0, format!("This key must be let in there: {public}"));
                hints.insert(1, format!("From wherever you can log in there: {}", road::let_in(connection, &public)));
            }
            if self.plan.yes || self.context.json {
                return Err(hints.into_iter().fold(error, Error::hint));
            }
            self.context.say(&format!("{}\n  {}", error.message(), hints.join("\n  ")))?;
            match question_at_terminal("Press Enter to try again, or type q to stop here", "")?.as_str() {
                "q" | "quit" => return Err(Error::new(Kind::Interrupted, format!("{} cannot be reached yet", ssh.remote))),
                _ => {}
            }
        }
    }

    /// On this machine itself, root can let the key in: for connections of this machine, and without terminal or forwarding.
    fn let_in_here(&mut self, ssh: &Ssh, public: &str) -> Result<bool> {
        if self.context.state.is_some() || !is_here(&ssh.remote) || road::caller(self.context)? != Caller::Daemon {
            return Ok(false);
        }
        let user = ssh.remote.split('@').next().unwrap_or("root");
        if user == "borgcube-client" {
            let said = crate::tools::Tool::new("borgcube-client-setup").args(["--from", "127.0.0.1,::1", "--key", public]).run()?;
            if !said.success {
                return Err(Error::failed(format!("borgcube-client-setup: {}", said.reason())));
            }
        } else if user == "root" {
            let line = format!("restrict,from=\"127.0.0.1,::1\" {public}");
            let script = "umask 077; mkdir -p /root/.ssh && { grep -qxF \"$1\" /root/.ssh/authorized_keys 2>/dev/null || printf '%s\\n' \"$1\" >>/root/.ssh/authorized_keys; }";
            let said = crate::tools::Tool::new("sh").args(["-c", script, "sh", &line]).run()?;
            if !said.success {
                return Err(Error::failed(format!("/root/.ssh/authorized_keys: {}", said.reason())));
            }
        } else {
            return Ok(false);
        }
        self.note("let-in", format!("the key may log in here as {user}, from this machine only"), false)?;
        Ok(true)
    }

    fn client(&mut self, ssh: &Ssh) -> Result<()> {
        let name = self.plan.client.clone();
        if let Some(known) = self.known_client()? {
            let same = matches!(&known.connection, Connection::Ssh(c) if c.remote == ssh.remote && c.server == ssh.server);
            return if same { self.note("client", format!("client {name}"), true) } else { Err(self.other_client(&known)) };
        }
        let mut words = ["client", "add", name.as_str(), "--remote", &ssh.remote, "--server", &ssh.server].map(str::to_owned).to_vec();
        words.extend(["--ssh-identity-file".to_owned(), ssh.identity.display().to_string()]);
        words.extend(ssh.options.iter().map(|option| format!("--rsh-option={option}")));
        if let Some(rsh) = &ssh.client_rsh {
            words.extend([format!("--client-rsh={rsh}"), "--key=permanent".to_owned()]);
        }
        self.borgcube(&words)?;
        self.note("client", format!("client {name}"), false)
    }

    fn local_client(&mut self) -> Result<()> {
        let name = self.plan.client.clone();
        if let Some(known) = self.known_client()? {
            let same = matches!(known.connection, Connection::Local { .. });
            return if same { self.note("client", format!("client {name}"), true) } else { Err(self.other_client(&known)) };
        }
        self.borgcube(&["client", "add", name.as_str(), "--local"].map(str::to_owned))?;
        self.note("client", format!("client {name}, this machine itself"), false)
    }

    fn known_client(&self) -> Result<Option<Client>> {
        Ok(commands::client::all(&mut self.context.control()?)?.into_iter().find(|client| client.name == self.plan.client))
    }

    fn other_client(&self, known: &Client) -> Error {
        Error::conflict(format!("there is a client {} already, which is reached in another way", known.name))
            .hint("Choose another name with --client; borgcube client list shows what there is.")
    }

    fn back(&mut self, connection: &SshConnection, caller: Caller) -> Result<()> {
        let finding = clients::back(self.plan.client.as_str(), connection, caller, &self.context.layout);
        match finding.verdict {
            Verdict::Problem => Err(finding.mend.into_iter().fold(Error::failed(finding.message), Error::hint)),
            _ => self.note("way-back", finding.message, false),
        }
    }

    fn config(&mut self) -> Result<()> {
        let Plan { client, label, repository, paths, .. } = self.plan.clone();
        let name = format!("{client}/{label}");
        let configs = commands::config::all(&mut self.context.control()?)?;
        if let Some(known) = configs.into_iter().find(|c| c.client == client && c.label == label) {
            if known.repository != repository || known.paths != paths {
                return Err(Error::conflict(format!("there is a config {name} already, which backs up something else"))
                    .hint("Choose another one with --label; borgcube config list shows what there is."));
            }
            return self.note("config", format!("backup config {name}"), true);
        }
        let mut words =
            ["config", "add", label.as_str(), "--client", client.as_str(), "--repository", repository.as_str()].map(str::to_owned).to_vec();
        words.push("--one-file-system".into());
        words.extend(paths);
        self.borgcube(&words)?;
        self.note("config", format!("backup config {name}"), false)
    }

    /// Only the first one: started again, the wizard is done when there is an archive.
    fn backup(&mut self) -> Result<()> {
        let Plan { client, label, repository, .. } = self.plan.clone();
        let filter = ArchiveFilter {
            repository: Some(repository),
            client: Some(client.clone()),
            label: Some(label.clone()),
            limit: 1,
            ..Default::default()
        };
        let archives = |context: &Context| -> Result<Option<String>> {
            let found: Archives = context.control()?.call(Call::ListArchives { filter: filter.clone() })?;
            Ok(found.archives.first().map(|archive| archive.name.to_string()))
        };
        if let Some(archive) = archives(self.context)? {
            return self.note("backup", format!("archive {archive}"), true);
        }
        self.borgcube(&["run".to_owned(), format!("{client}/{label}"), "--wait".into()])?;
        match archives(self.context)? {
            Some(archive) => self.note("backup", format!("archive {archive}"), false),
            None => Err(Error::failed("the first backup ended without an archive")),
        }
    }

    /// What comes next.
    pub fn farewell(&self) -> String {
        let Plan { client, label, repository, encryption, .. } = &self.plan;
        let mut text = String::from("Set up. Next:\n");
        if encryption.has_key() {
            let where_ = if self.context.state.is_some() {
                self.context.layout.credentials(repository.as_str()).display().to_string()
            } else {
                "the credential store".into()
            };
            text.push_str(&format!("  keep a copy of passphrase and key of {repository} elsewhere (they are in {where_}): without them nobody reads the backups\n"));
        }
        text.push_str(&format!("  borgcube run {client}/{label} --wait    backs up again\n"));
        text.push_str(
            "  borgcube archive list             shows the archives\n  borgcube doctor                   looks whether all is well",
        );
        text
    }
}
