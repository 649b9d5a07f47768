//! What the wizard has to know: from the options, from a person, or from what is usual.

use super::Args;
use crate::context::{Context, shell_word};
use crate::error::{Error, Kind, Result};
use model::{ClientName, EncryptionMode, Label, RepositoryName};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Everything that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The repository's name.
    pub repository: RepositoryName,
    /// Where it is.
    pub url: String,
    /// How a new one is encrypted.
    pub encryption: EncryptionMode,
    /// Its passphrase; None: made.
    pub passphrase_file: Option<PathBuf>,
    /// The client's name.
    pub client: ClientName,
    /// How it is reached; None: it is this machine.
    pub ssh: Option<Ssh>,
    /// The config's label.
    pub label: Label,
    /// What is backed up.
    pub paths: Vec<String>,
    /// The first backup is run.
    pub backup: bool,
    /// Nobody is asked.
    pub yes: bool,
}

/// How a client behind SSH is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// `user@host`.
    pub remote: String,
    /// This server, seen from there.
    pub server: String,
    /// The key to it.
    pub identity: PathBuf,
    /// Further arguments for ssh.
    pub options: Vec<String>,
    /// The client's own ssh command back.
    pub client_rsh: Option<String>,
    /// How its host key is trusted.
    pub trust: Trust,
}

/// How the host key of a client is trusted if it is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// A person is asked.
    Ask,
    /// If it has this fingerprint.
    Fingerprint(String),
    /// As it is.
    AsItIs,
}

/// The plan: options first, then questions, then what is usual.
pub fn complete(args: &Args, context: &Context) -> Result<Plan> {
    let asks = !args.yes && !context.json;
    if asks && !io::stdin().is_terminal() {
        return Err(Error::usage("there is no terminal to ask questions at")
            .hint("With --yes nothing is asked; borgcube setup --help tells what is taken then."));
    }
    let mut ask = |question: &str, usual: &str| if asks { question_at_terminal(question, usual) } else { Ok(usual.to_owned()) };
    plan(args, &Usual::new(context)?, &mut ask)
}

/// What is taken where nobody says anything.
#[derive(Debug, Clone)]
pub struct Usual {
    /// Where repositories are made.
    pub repositories: PathBuf,
    /// The key to the clients.
    pub identity: PathBuf,
    /// This host's name.
    pub host: String,
    /// This server's login for clients.
    pub login: String,
    /// An installed server: this machine is reached by SSH as well, because BorgCube itself may read nothing of it. With this login.
    pub here: Option<String>,
}

impl Usual {
    fn new(context: &Context) -> Result<Usual> {
        let host = unix::machine::hostname()?;
        let full = crate::tools::Tool::new("hostname").arg("-f").run().ok().filter(|said| said.success);
        let full = full.map(|said| said.out.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
        let short = host.split('.').next().unwrap_or("this-host").to_lowercase();
        Ok(match &context.state {
            Some(state) => {
                let me = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "root".into());
                let login = format!("{me}@{full}");
                Usual { repositories: state.clone(), identity: state.join("ssh/id_ed25519"), host: short, login, here: None }
            }
            None => {
                // The package borgcube-client has a login that may read everything and write nothing.
                let restricted = super::super::doctor::gather::accounts().user("borgcube-client").is_some();
                let here = if restricted { "borgcube-client@localhost" } else { "root@localhost" };
                Usual {
                    repositories: "/srv/borgcube".into(),
                    identity: unix::paths::SYSTEM_SSH_KEY.into(),
                    host: short,
                    login: format!("{}@{full}", unix::paths::USER_SSH),
                    here: Some(here.into()),
                }
            }
        })
    }
}

/// The whole plan; `ask` gets a question and the usual answer, and gives the answer.
pub fn plan(args: &Args, usual: &Usual, ask: &mut dyn FnMut(&str, &str) -> Result<String>) -> Result<Plan> {
    let repository: RepositoryName = match &args.repository {
        Some(name) => name.clone(),
        None => parsed(&ask("Name of the repository", "main")?)?,
    };
    let url = match &args.url {
        Some(url) => url.clone(),
        None => {
            let usual = usual.repositories.join(repository.as_str()).display().to_string();
            ask("Where is the repository to be made (a directory with plenty of space)", &usual)?
        }
    };
    let url = crate::commands::repository::absolute_url(&url)?;
    let encryption = match args.encryption {
        Some(mode) => mode,
        None => parsed(&ask("Encryption, as borg init --encryption", EncryptionMode::RepokeyBlake2.as_str())?)?,
    };
    let remote = match (&args.remote, args.local) {
        (Some(remote), _) => Some(remote.clone()),
        // An installed server's units see nothing of this machine; they come by SSH.
        (None, true) => usual.here.clone(),
        (None, false) => Some(ask("Which host is to be backed up first: USER@HOST, or this for this machine itself", "this")?),
    };
    let remote = match (remote.as_deref(), &usual.here) {
        (Some("this" | "localhost"), Some(here)) => Some(here.clone()),
        (Some("this" | "localhost"), None) => None,
        _ => remote,
    };
    let ssh = match &remote {
        Some(remote) => Some(ssh(args, remote, usual, ask)?),
        None => None,
    };
    let client = match (&args.client, &remote) {
        (Some(name), _) => name.clone(),
        (None, Some(remote)) if !is_here(remote) => parsed(&ask("Name of this client", &short_name(remote))?)?,
        (None, _) => parsed(&ask("Name of this client", &usual.host)?)?,
    };
    let paths = if args.paths.is_empty() {
        let answer = ask("What is to be backed up there (paths, separated by spaces)", "/etc")?;
        answer.split_whitespace().map(str::to_owned).collect()
    } else {
        args.paths.clone()
    };
    let label = args.label.clone().map_or_else(|| parsed("files"), Ok)?;
    let passphrase_file = args.passphrase_file.clone();
    Ok(Plan { repository, url, encryption, passphrase_file, client, ssh, label, paths, backup: !args.no_backup, yes: args.yes })
}

fn ssh(args: &Args, remote: &str, usual: &Usual, ask: &mut dyn FnMut(&str, &str) -> Result<String>) -> Result<Ssh> {
    let server = match &args.server {
        Some(server) => server.clone(),
        None if is_here(remote) => format!("{}@localhost", usual.login.split('@').next().unwrap_or(unix::paths::USER_SSH)),
        None => ask("By which name does that host reach this server", &usual.login)?,
    };
    let trust = match (&args.host_key, args.accept_host_key || (args.yes && is_here(remote))) {
        (Some(fingerprint), _) => Trust::Fingerprint(fingerprint.clone()),
        // Nobody stands between this machine and itself.
        (None, true) => Trust::AsItIs,
        (None, false) => Trust::Ask,
    };
    let identity = args.ssh_identity_file.clone().unwrap_or_else(|| usual.identity.clone());
    let identity = crate::context::absolute(&identity)?;
    Ok(Ssh { remote: remote.to_owned(), server, identity, options: args.rsh_option.clone(), client_rsh: args.client_rsh.clone(), trust })
}

/// This very machine.
#[must_use]
pub fn is_here(remote: &str) -> bool {
    matches!(remote.rsplit('@').next(), Some("localhost" | "127.0.0.1" | "::1"))
}

/// `root@web1.example.net` -> `web1`.
fn short_name(remote: &str) -> String {
    let host = remote.rsplit('@').next().unwrap_or(remote);
    if host.chars().all(|c| c.is_ascii_digit() || ".:[]".contains(c)) {
        return host.trim_matches(['[', ']']).replace(':', "-");
    }
    host.split('.').next().unwrap_or(host).to_lowercase()
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| Error::usage(format!("{text:?} is not usable: {e}")))
}

/// One question; an empty answer takes the usual one.
pub fn question_at_terminal(question: &str, usual: &str) -> Result<String> {
    let failed = |e: io::Error| Error::failed(format!("cannot ask: {e}"));
    let mut err = io::stderr();
    let suffix = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
    err.write_all(format!("{question}{suffix}: ").as_bytes()).and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer).map_err(failed)? == 0 {
        return Err(Error::new(Kind::Interrupted, "there is no more input; nothing further was done"));
    }
    let answer = answer.trim();
    Ok(if answer.is_empty() { usual.to_owned() } else { answer.to_owned() })
}

/// The command that goes on, with nothing left to ask.
#[must_use]
pub fn command(plan: &Plan, state: Option<&Path>) -> String {
    let word = |text: &str| shell_word(Path::new(text));
    let mut words = vec!["borgcube".to_owned()];
    if let Some(state) = state {
        words.extend(["--state".to_owned(), shell_word(state)]);
    }
    words.push("setup".into());
    if plan.yes {
        words.push("--yes".into());
    }
    words.extend(["--repository".to_owned(), plan.repository.to_string(), "--url".to_owned(), word(&plan.url)]);
    words.extend(["--encryption".to_owned(), plan.encryption.to_string()]);
    if let Some(file) = &plan.passphrase_file {
        words.extend(["--passphrase-file".to_owned(), shell_word(file)]);
    }
    words.extend(["--client".to_owned(), plan.client.to_string()]);
    match &plan.ssh {
        None => words.push("--local".into()),
        Some(ssh) => {
            words.extend(["--remote".to_owned(), word(&ssh.remote), "--server".to_owned(), word(&ssh.server)]);
            words.extend(["--ssh-identity-file".to_owned(), shell_word(&ssh.identity)]);
            words.extend(ssh.options.iter().map(|option| word(&format!("--rsh-option={option}"))));
            words.extend(ssh.client_rsh.iter().map(|rsh| word(&format!("--client-rsh={rsh}"))));
            match &ssh.trust {
                Trust::Ask => {}
                Trust::Fingerprint(fingerprint) => words.extend(["--host-key".to_owned(), word(fingerprint)]),
                Trust::AsItIs => words.push("--accept-host-key".into()),
            }
        }
    }
    words.extend(["--label".to_owned(), plan.label.to_string()]);
    if !plan.backup {
        words.push("--no-backup".into());
    }
    words.extend(plan.paths.iter().map(|path| word(path)));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        Cli::try_parse_from(format!("setup {words}").split_whitespace()).map(|cli| cli.args).unwrap_or_else(|e| panic!("{e}"))
    }

    fn usual(here: Option<&str>) -> Usual {
        Usual {
            repositories: "/srv/borgcube".into(),
            identity: "/state/ssh/id".into(),
            host: "backup".into(),
            login: "borgcube-ssh@backup.example.net".into(),
            here: here.map(str::to_owned),
        }
    }

    fn silent(words: &str, here: Option<&str>) -> Plan {
        plan(&args(words), &usual(here), &mut |_, usual| Ok(usual.to_owned())).unwrap()
    }

    #[test]
    fn without_questions_this_machine_is_backed_up() {
        let embedded = silent("--yes", None);
        assert_eq!((embedded.url.as_str(), embedded.ssh.is_none(), embedded.client.as_str()), ("/srv/borgcube/main", true, "backup"));
        let installed = silent("--yes", Some("root@localhost"));
        let ssh = installed.ssh.clone().unwrap();
        assert_eq!((ssh.remote.as_str(), ssh.server.as_str(), &ssh.trust), ("root@localhost", "borgcube-ssh@localhost", &Trust::AsItIs));
        assert_eq!(installed.client.as_str(), "backup");
        assert_eq!(silent("--yes --local", Some("root@localhost")), installed);
    }

    #[test]
    fn a_host_of_the_network_gets_its_own_name_and_is_not_trusted_blindly() {
        let plan = silent("--yes --remote root@Web1.example.net /srv", None);
        let ssh = plan.ssh.clone().unwrap();
        assert_eq!((plan.client.as_str(), ssh.server.as_str(), &ssh.trust), ("web1", "borgcube-ssh@backup.example.net", &Trust::Ask));
        assert_eq!(plan.paths, ["/srv"]);
    }

    #[test]
    fn questions_are_asked_only_for_what_is_not_said() {
        let mut asked = vec![];
        let answers = |question: &str, usual: &str| {
            asked.push(question.to_owned());
            Ok(if question.contains("Which host") { "root@10.0.0.7".to_owned() } else { usual.to_owned() })
        };
        let plan = plan(&args("--repository big --encryption repokey /etc /srv"), &usual(None), &mut { answers }).unwrap();
        assert_eq!(plan.client.as_str(), "10.0.0.7");
        assert_eq!(asked.len(), 4, "{asked:?}");
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_made() {
        for (question, bad) in
            [("Name of the repository", "a b"), ("Encryption", "rot13"), ("Where", "host:dir"), ("Name of this client", "../x")]
        {
            let refused = plan(&args(""), &usual(None), &mut |q, usual| Ok(if q.starts_with(question) { bad } else { usual }.to_owned()));
            assert!(refused.is_err(), "{question} {bad}");
        }
    }

    #[test]
    fn the_command_that_goes_on_means_the_same_plan() {
        for words in [
            "--yes",
            "--remote root@web1 --server b@s:22 --rsh-option=-p --rsh-option=22 --host-key SHA256:abc --no-backup /etc",
            "--local --label home /home",
        ] {
            let before = silent(words, Some("root@localhost"));
            let command = command(&before, None);
            let again = silent(command.strip_prefix("borgcube setup").unwrap(), Some("root@localhost"));
            assert_eq!(again, before, "{command}");
        }
    }
}
