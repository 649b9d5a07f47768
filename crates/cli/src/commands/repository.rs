//! `borgcube repository`.

use super::maintenance::{self, Check, Compact};
use super::owner::{self, Place};
use super::release::{self, Release};
use super::repository_edit::{self, Edit};
use super::{confirm, damage, repository_show, wait};
use crate::complete;
use crate::context::{Context, absolute, shell_word};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::installed::{self, Vault};
use crate::output::{count, lists};
use crate::secrets::{self, PassphraseArgs, Written};
use clap::{ArgGroup, Subcommand};
use clap_complete::ArgValueCandidates;
use model::repository::check_url;
use model::{Cause, EncryptionMode, Repository, RepositoryName, Timestamp};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};
use wire::control::{ArchiveFilter, Archives, Call, Repositories};
use wire::tool::Facts;

/// Archives that are counted before a repository is forgotten.
const COUNTED: u32 = 10_000;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a new Borg repository, or adopt an existing one
    Add(Box<Add>),
    /// List the repositories
    #[command(alias = "ls")]
    List,
    /// Show one repository
    Show(Name),
    /// Change where a repository is, or its passphrase or key
    Edit(Box<Edit>),
    /// Forget a repository; its data, passphrase and key stay
    Remove(Remove),
    /// Give back the space of what was deleted, while backups go on
    Compact(Compact),
    /// Read everything and tell whether it is whole, while backups go on
    Check(Check),
    /// Show what of a repository is damaged: chunks, archives, clients and files
    Damage(Name),
    /// Run a command, such as stock borg, on a repository that BorgCube leaves alone meanwhile
    Release(Release),
}

/// A repository's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
}

/// Options of `borgcube repository remove`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The repository itself, its passphrase and its key stay where they are, and borgcube repository add --adopt takes it over again. The records of
its archives go, and with them comments, holds and grace periods: stock borg lists and reads these archives, and borgcube archive import
makes records of them anew.

Examples:
  borgcube repository remove old
  borgcube repository remove old --yes")]
pub struct Remove {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Options of `borgcube repository add`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("origin").args(["encryption", "adopt"]), after_help = "\
Whoever loses passphrase or key loses the backups. Keep copies of both elsewhere.

On an installed server only root can add a repository: its directory is given to the user borgcube-repo, its secrets are kept as
credentials of systemd, and borgcube-repositoryd@REPOSITORY gets a drop-in with both.

Examples:
  borgcube repository add main /srv/borg/main --encryption repokey-blake2
  borgcube repository add main /srv/borg/main --encryption repokey-blake2 --generate-passphrase
  borgcube repository add old ssh://borg@storage/./old --adopt --passphrase-file old.passphrase
  borgcube repository add keyed /srv/borg/keyed --adopt --passphrase-fd 3 --key-file keyed.key 3<passphrase")]
pub struct Add {
    /// Name of the repository on this server
    #[arg(value_name = "REPOSITORY")]
    name: RepositoryName,
    /// Path, or ssh://USER@HOST[:PORT]/PATH
    #[arg(value_name = "URL", value_hint = clap::ValueHint::DirPath)]
    url: String,
    /// Create a new repository, encrypted in this way (as borg init --encryption)
    #[arg(long, short, value_name = "MODE", add = ArgValueCandidates::new(complete::encryption_modes))]
    encryption: Option<EncryptionMode>,
    /// Take over an existing repository with all it holds
    #[arg(long)]
    adopt: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Make a passphrase of 256 random bits
    #[arg(long, requires = "encryption", conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    generate_passphrase: bool,
    /// Read the key of a keyfile repository from this file, as borg key export writes it
    #[arg(long, value_name = "FILE", requires = "adopt", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Serve the repository with this borg, here or on the host of an ssh:// URL
    #[arg(long, value_name = "PROGRAM")]
    remote_borg: Option<String>,
    /// Reach an ssh:// repository with this SSH command
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    rsh: Option<String>,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<ExitCode> {
    let done = match command {
        Command::Add(args) => add(*args, context),
        Command::List => {
            let mut control = context.control()?;
            let repositories = damage::checked(all(&mut control)?, &mut control)?;
            context.list(&repositories, lists::repositories(&repositories))
        }
        Command::Show(Name { name }) => repository_show::run(&name, context),
        Command::Damage(Name { name }) => return damage::run(&name, context),
        Command::Edit(args) => repository_edit::run(*args, context),
        Command::Remove(args) => remove(&args, context),
        Command::Compact(args) => maintenance::compact(&args, context),
        Command::Check(args) => maintenance::check(&args, context),
        // The exit code is that of the command it runs.
        Command::Release(args) => return release::run(args, context),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Secrets first, then the repository, then the record: whatever fails, no record without a usable repository.
fn add(args: Add, context: &Context) -> Result<()> {
    if args.encryption.is_none() && !args.adopt {
        return Err(Error::usage("say whether the repository is to be created or exists already")
            .hint("--encryption MODE creates a new one (repokey-blake2 is a good choice); --adopt takes over an existing one."));
    }
    let url = absolute_url(&args.url)?;
    if context.layout.is_installed() {
        installed::need_root("add a repository: its secrets become credentials of systemd")?;
        installed::keep_host_id(&context.layout)?;
    }
    if all(&mut context.control()?)?.iter().any(|r| r.name == args.name) {
        return Err(
            Error::conflict(format!("there is a repository {} already", args.name)).hint("borgcube repository list shows what there is.")
        );
    }
    let (name, vault) = (args.name.clone(), Vault::open(&args.name, context)?);
    let added = add_with(args, url, &vault, context);
    if added.is_err() {
        vault.discard_empty(&name, context);
    }
    added
}

fn add_with(args: Add, url: String, vault: &Vault, context: &Context) -> Result<()> {
    let mut made = match vault {
        Vault::Directory(_) => None,
        Vault::Copy(..) => Some(installed::prepare(&url, args.encryption.is_some())?),
    };
    let mut written = Written::new(vault.path());
    let place = Place { url: &url, remote_borg: args.remote_borg.as_deref(), rsh: args.rsh.as_deref() };
    let key = own_key(&args.name, &place, vault)?;
    let facts = match args.encryption {
        Some(mode) => create(&args, mode, &place, vault, &mut written, context),
        None => adopt(&args, &place, vault.path(), &mut written, context),
    };
    let facts = facts.map_err(|e| key.iter().fold(e, |e, public| let_in(e, &place, public)))?;
    if let Some(made) = &mut made {
        made.keep();
    }
    let repository = Repository {
        name: args.name,
        url: url.clone(),
        description: args.description.unwrap_or_default(),
        repository_id: facts.repository_id,
        encryption: facts.encryption,
        remote_borg: args.remote_borg,
        rsh: args.rsh,
        created: Timestamp::now(),
    };
    if let Vault::Copy(staging, _) = vault {
        installed::keep(&repository, staging, context).map_err(|e| match args.encryption {
            Some(_) => e.hint(format!("The new repository at {url} is empty, and nobody has its secrets: remove it, then try again.")),
            None => e,
        })?;
    }
    // A connection of its own: a person may have been asked for a passphrase for a long time.
    let stored = context.control().and_then(|mut c| c.tell(Call::AddRepository { repository: repository.clone() }));
    if let (Err(error), true) = (&stored, args.encryption.is_some()) {
        // Its key may lie nowhere else: nothing of a new repository is ever taken away.
        let left = format!("The new repository at {url} and its secrets are complete.");
        let again = format!("Finish with: borgcube repository add {} {url} --adopt", repository.name);
        return Err(error.clone().hint(left).hint(again));
    }
    stored?;
    written.keep();
    match vault {
        Vault::Directory(_) => wait_for_owner(&repository, context),
        Vault::Copy(..) => installed::enable(&repository.name)?,
    }
    context.done(&repository, &sentence(&repository, args.adopt.then_some(facts.archives)))?;
    if repository.encryption.has_key() {
        context.note(&secrets_note(&repository.name, vault)?);
    }
    Ok(())
}

/// On an installed server the owner of a repository on another host has a key of its own to it, unless an SSH command says otherwise.
pub fn own_key(name: &RepositoryName, place: &Place<'_>, vault: &Vault) -> Result<Option<String>> {
    match vault {
        Vault::Copy(staging, _) if place.url.starts_with("ssh://") && place.rsh.is_none() => {
            installed::ensure_repository_key(name, staging).map(Some)
        }
        _ => Ok(None),
    }
}

/// What another host has to be told, or we of it, when it is not reached.
pub fn let_in(error: Error, place: &Place<'_>, public: &str) -> Error {
    let Some((login, port)) = place.url.strip_prefix("ssh://").and_then(|rest| rest.split('/').next()).map(crate::road::split_port) else {
        return error;
    };
    let host = login.rsplit('@').next().unwrap_or(login).trim_matches(['[', ']']);
    let host = shell_word(Path::new(host));
    if error.message().contains("Permission denied") {
        let borg = place.remote_borg.unwrap_or("borg");
        let option = port.map_or_else(Vec::new, |port| vec!["-p".to_owned(), port.to_string()]);
        let line = format!("restrict,command=\"{borg} serve\" {public}");
        let command = crate::road::let_in_line(&line, "ssh", &option, &login.replace(['[', ']'], ""));
        return error.hint(format!("From wherever you can log in there, let the key in: {command}"));
    }
    if error.message().contains("Host key verification failed") {
        let port = port.unwrap_or(22);
        return error
            .hint(format!(
                "Its host key is not known here: compare what ssh-keyscan -p {port} {host} | ssh-keygen -lf - shows with its own."
            ))
            .hint(format!("If it is the same: ssh-keyscan -p {port} {host} >>/etc/ssh/ssh_known_hosts"));
    }
    error
}

fn secrets_note(name: &RepositoryName, vault: &Vault) -> Result<String> {
    Ok(match vault {
        Vault::Directory(path) => {
            format!("Its secrets are in {}. Keep copies of them elsewhere: without them nobody reads the backups.", path.display())
        }
        Vault::Copy(..) => {
            let show = installed::earlier_secrets(name)?.iter().map(|kept| format!("\n  {}", kept.show())).collect::<String>();
            format!("Its secrets are kept by systemd on this machine. Keep copies elsewhere; to see them:{show}")
        }
    })
}

fn sentence(repository: &Repository, adopted: Option<u64>) -> String {
    let Repository { name, url, encryption, .. } = repository;
    match adopted {
        Some(archives) => format!("Adopted repository {name} ({encryption}) at {url}, which holds {}.", count(archives, "archive")),
        None => format!("Created repository {name} ({encryption}) at {url}."),
    }
}

fn create(args: &Add, mode: EncryptionMode, place: &Place<'_>, vault: &Vault, written: &mut Written, context: &Context) -> Result<Facts> {
    if let Some(old) = vault.earlier().first() {
        return Err(Error::conflict(format!("{} belongs to an earlier repository of this name", old.display()))
            .hint("Move it to a safe place first; it may be the only copy."));
    }
    if mode.has_key() {
        let secret = match (args.passphrase.read()?, args.generate_passphrase) {
            (Some(secret), _) => secret,
            (None, true) => secrets::generate()?,
            (None, false) if secrets::can_ask() => secrets::ask_new(args.name.as_str())?,
            (None, false) => return Err(no_passphrase().hint("--generate-passphrase makes one.")),
        };
        written.put("passphrase", &secret)?;
    } else if args.passphrase.read()?.is_some() || args.generate_passphrase {
        return Err(Error::usage("a repository without encryption has no passphrase"));
    }
    written.expect("key");
    let made = owner::create(place, mode, vault.path(), context).map_err(|error| match error.kind() {
        Kind::Interrupted if place.url.starts_with('/') => error.hint(format!(
            "What was begun at {0} holds no archive: remove it (rm -r {0}), then repeat the command.",
            shell_word(Path::new(place.url))
        )),
        _ => error,
    })?;
    let facts = made.map_err(|failure| match failure.cause {
        Cause::PassphraseWrong => {
            Error::usage(format!("repository {}: {}", args.name, failure.message)).hint("--generate-passphrase makes a good one.")
        }
        Cause::RepositoryInvalid => owner::error(&failure, args.name.as_str())
            .hint("A Borg repository that exists already is taken over by --adopt, without --encryption; one that an interrupted add has left behind holds no archive, and can be removed."),
        _ => owner::error(&failure, args.name.as_str()),
    })?;
    written.keep();
    Ok(facts)
}

/// Secrets that lie there already, from before the record was removed, are good until others are given.
fn adopt(args: &Add, place: &Place<'_>, directory: &Path, written: &mut Written, context: &Context) -> Result<Facts> {
    let passphrase = args.passphrase.read()?;
    let given = passphrase.is_some();
    if let Some(secret) = passphrase {
        written.put("passphrase", &secret)?;
    }
    if let Some(path) = &args.key_file {
        written.put("key", &secrets::read_key_file(path)?)?;
    }
    let name = args.name.as_str();
    let failure = match owner::inspect(place, directory, context)? {
        Ok(facts) => return Ok(facts),
        Err(failure) => failure,
    };
    if failure.cause != Cause::PassphraseWrong || given || !secrets::can_ask() {
        return Err(owner::error(&failure, name));
    }
    written.put("passphrase", &secrets::ask(name)?)?;
    owner::inspect(place, directory, context)?.map_err(|failure| owner::error(&failure, name))
}

fn no_passphrase() -> Error {
    Error::usage("there is no terminal to ask for a passphrase").hint("Give it with --passphrase-file FILE or --passphrase-fd NUMBER.")
}

/// A path becomes absolute, as the shell of the person who typed it means it.
pub fn absolute_url(url: &str) -> Result<String> {
    // What Borg and scp take for a host, and a path only if somebody means it.
    if !url.starts_with(['/', '.']) && url.split('/').next().is_some_and(|first| first.contains(':')) && !url.contains("://") {
        return Err(Error::usage(format!("{url} is not usable: write ssh://user@host/path for another host, or ./{url} for a path here")));
    }
    let url = if url.contains("://") || url.is_empty() {
        url.to_owned()
    } else {
        let path = absolute(Path::new(url))?;
        path.to_str().map(str::to_owned).ok_or_else(|| Error::usage(format!("{} is not valid UTF-8", path.display())))?
    };
    check_url(&url).map_err(Error::usage)?;
    Ok(url)
}

/// `borgcube up` learns of the new repository from the same event as everybody; a run right behind this command should find its owner.
fn wait_for_owner(repository: &Repository, context: &Context) {
    let socket = context.layout.repository_socket(repository.name.as_str());
    let deadline = Instant::now() + Duration::from_secs(5);
    while context.state.is_some() && !socket.exists() {
        if Instant::now() > deadline {
            context.note("borgcube up does not listen for the new repository yet; see its log.");
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

fn remove(args: &Remove, context: &Context) -> Result<()> {
    let name = &args.name;
    let mut control = context.control()?;
    let repository = find(&mut control, name)?;
    let filter = ArchiveFilter { repository: Some(name.clone()), limit: COUNTED, ..Default::default() };
    let archives = control.call::<Archives>(Call::ListArchives { filter })?.archives.len() as u64;
    drop(control);
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Error::usage(format!("there is no terminal to ask whether repository {name} is to be forgotten"))
                .hint("--yes does it without asking."));
        }
        let interrupts = wait::interrupts()?;
        context.note(&farewell(&repository, archives));
        if !confirm::ask(&format!("Forget repository {name}?"), "nothing was changed", &interrupts)? {
            return Err(Error::failed("nothing was changed"));
        }
    }
    // A person may have been asked for a long time.
    context.control()?.tell(Call::RemoveRepository { name: name.clone() })?;
    context.done(&repository, &format!("Forgot repository {name}. Its data stays in {}.", repository.url))?;
    if context.layout.is_installed() {
        if unix::socket::own_uid() == 0 {
            installed::disable(name)?;
            let kept = installed::earlier_secrets(name)?;
            if !kept.is_empty() {
                let files: Vec<String> = kept.iter().map(|kept| kept.path.display().to_string()).collect();
                context.note(&format!("Its secrets stay in {}; they may be the only copies.", files.join(", ")));
            }
        } else {
            context.note(&format!("Its owner still listens. To end it: {}", installed::disable_command(name)));
        }
        return Ok(());
    }
    let directory = context.layout.credentials(name.as_str());
    if directory.join("passphrase").exists() || directory.join("key").exists() {
        context.note(&format!("Its passphrase and key stay in {}; they may be the only copies.", directory.display()));
    }
    Ok(())
}

/// What goes and what stays.
fn farewell(repository: &Repository, archives: u64) -> String {
    let Repository { name, url, .. } = repository;
    let records = match archives {
        0 => "There is no record of an archive in it.".to_owned(),
        n if n >= u64::from(COUNTED) => format!("Records of {n} archives or more go, with comments and holds."),
        n => format!("The {} of {} go, with comments and holds.", if n == 1 { "record" } else { "records" }, count(n, "archive")),
    };
    format!(
        "{records} The repository at {url} stays, and so do its passphrase and key: borgcube repository add {name} {url} --adopt takes it over again."
    )
}

/// All repositories.
pub fn all(control: &mut Control) -> Result<Vec<Repository>> {
    Ok(control.call::<Repositories>(Call::ListRepositories {})?.repositories)
}

/// One repository.
pub fn find(control: &mut Control, name: &RepositoryName) -> Result<Repository> {
    let found = all(control)?.into_iter().find(|r| r.name == *name);
    let hint = "borgcube repository list shows what there is.";
    found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no repository {name}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_a_repository_is_said_and_what_stays() {
        let repository = Repository {
            name: "old".parse().unwrap(),
            url: "/srv/old".into(),
            description: String::new(),
            repository_id: "aa".into(),
            encryption: EncryptionMode::Repokey,
            remote_borg: None,
            rsh: None,
            created: Timestamp(0),
        };
        assert!(farewell(&repository, 0).starts_with("There is no record"));
        let text = farewell(&repository, 2);
        assert!(
            text.contains("records of 2 archives go") && text.contains("at /srv/old stays") && text.contains("passphrase and key"),
            "{text}"
        );
        assert!(text.contains("borgcube repository add old /srv/old --adopt"), "{text}");
        assert!(farewell(&repository, 10_000).contains("10000 archives or more"));
    }

    #[test]
    fn paths_become_absolute_and_urls_stay() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute_url("x/y").unwrap(), here.join("x/y").display().to_string());
        for scp in ["user@host:repo", "host:dir/repo"] {
            assert!(absolute_url(scp).unwrap_err().message().contains("ssh://user@host/path"), "{scp}");
        }
        assert_eq!(absolute_url("./a:b").unwrap(), here.join("a:b").display().to_string());
        assert_eq!(absolute_url("/srv/x/").unwrap(), "/srv/x/");
        assert_eq!(absolute_url("ssh://b@h/./x").unwrap(), "ssh://b@h/./x");
        for bad in ["", "/a::b", "../x", "ssh://h", "http://h/x"] {
            assert_eq!(absolute_url(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}
