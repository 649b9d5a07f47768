//! `borgcube repository edit`: every change of where a repository is or what opens it is tried before it is stored.

use super::edit::{put, set};
use super::owner::{self, Place};
use super::repository::{absolute_url, find, let_in, own_key};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::installed::{self, Vault};
use crate::output::shown;
use crate::secrets::{self, PassphraseArgs, Written};
use clap::ValueEnum;
use clap_complete::ArgValueCandidates;
use model::{Repository, RepositoryName};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use wire::control::Call;
use wire::tool::Facts;

/// Options of `borgcube repository edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The change is tried first: the same repository must be there and open with the secrets.

Examples:
  borgcube repository edit main --url /mnt/new-disk/main
  borgcube repository edit main --passphrase-file new.passphrase
  borgcube repository edit main --url ssh://borg@storage/./main --no-check")]
pub struct Edit {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
    /// Look for it here: path, or ssh://USER@HOST[:PORT]/PATH
    #[arg(long, value_hint = clap::ValueHint::DirPath)]
    url: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Ask for the passphrase
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    passphrase_prompt: bool,
    /// Read the key of a keyfile repository from this file, as borg key export writes it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
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
    /// Forget this setting; repeatable
    #[arg(long, value_name = "SETTING")]
    clear: Vec<Clearable>,
    /// Store the change without opening the repository; not for secrets, which replace the only copy
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_fd", "passphrase_prompt", "key_file"])]
    no_check: bool,
}

/// What `--clear` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Description,
    RemoteBorg,
    Rsh,
}

/// Does it.
pub fn run(args: Edit, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, &args.name)?;
    let repository = edited(&previous, &args)?;
    let name = args.name.as_str();
    let asked_secrets = args.passphrase_prompt || args.key_file.is_some() || args.passphrase.is_given();
    // Said once more, it writes the drop-in of the owner anew.
    let anew = context.layout.is_installed() && args.url.is_some();
    // The rest is in the database alone.
    let moves = asked_secrets || anew || elsewhere(&previous, &repository);
    if !moves {
        if previous == repository {
            return Err(nothing());
        }
        control.tell(Call::UpdateRepository { previous, repository: repository.clone() })?;
        return context.done(&repository, &format!("Changed repository {name}."));
    }
    if context.layout.is_installed() {
        installed::need_root("change where a repository is or what opens it")?;
        installed::prepare(&repository.url, false)?;
    }
    // A secret that comes anew may be one that cannot be read any more.
    let given = [("passphrase", args.passphrase_prompt || args.passphrase.is_given()), ("key", args.key_file.is_some())];
    let vault = Vault::open_without(&args.name, &given.into_iter().filter_map(|(id, is)| is.then_some(id)).collect::<Vec<_>>(), context)?;
    let passphrase = match args.passphrase_prompt {
        true => Some(secrets::ask(name)?),
        false => args.passphrase.read()?,
    };
    let key = args.key_file.as_deref().map(secrets::read_key_file).transpose()?;
    let secrets: Vec<_> = [("passphrase", passphrase), ("key", key)].into_iter().filter_map(|(n, s)| Some((n, s?))).collect();
    let place = Place { url: &repository.url, remote_borg: repository.remote_borg.as_deref(), rsh: repository.rsh.as_deref() };
    // One that moves from another host to the next may be reached in a way of its own.
    let key = if previous.is_remote() && elsewhere(&previous, &repository) { None } else { own_key(&repository.name, &place, &vault)? };
    if !args.no_check {
        check(&repository, &secrets, vault.path(), context).map_err(|e| key.iter().fold(e, |e, public| let_in(e, &place, public)))?;
    }
    let mut written = Written::new(vault.path());
    for (name, secret) in &secrets {
        written.put(name, secret)?;
    }
    if let Vault::Copy(staging, _) = &vault {
        installed::keep(&repository, staging, context)?;
    }
    if previous != repository {
        // The check may have taken longer than the daemon lets a connection wait.
        context.control()?.tell(Call::UpdateRepository { previous, repository: repository.clone() })?;
    }
    written.keep();
    if context.layout.is_installed() {
        installed::renew(&args.name)?;
    }
    context.done(&repository, &format!("Changed repository {name}."))
}

fn nothing() -> Error {
    Error::usage("nothing to change: everything is as it was asked for").hint("borgcube repository edit --help lists what can be changed.")
}

/// The record after the edit.
fn edited(previous: &Repository, args: &Edit) -> Result<Repository> {
    let mut repository = previous.clone();
    for field in &args.clear {
        match field {
            Clearable::Description => repository.description.clear(),
            Clearable::RemoteBorg => repository.remote_borg = None,
            Clearable::Rsh => repository.rsh = None,
        }
    }
    put(&mut repository.url, args.url.as_deref().map(absolute_url).transpose()?);
    put(&mut repository.description, args.description.clone());
    set(&mut repository.remote_borg, args.remote_borg.clone());
    set(&mut repository.rsh, args.rsh.clone());
    Ok(repository)
}

fn elsewhere(a: &Repository, b: &Repository) -> bool {
    (&a.url, &a.remote_borg, &a.rsh) != (&b.url, &b.remote_borg, &b.rsh)
}

/// Opens the repository as it is to be, with the secrets as they are to be, in a directory beside the real one: the owner may be using that.
fn check(repository: &Repository, secrets: &[(&str, secrets::Secret)], directory: &Path, context: &Context) -> Result<()> {
    // On an installed server beside the vault: what the owners' user can change must not be where root still writes and reads.
    let staging = Staging::new(if context.layout.is_installed() { context.layout.run() } else { directory })?;
    for name in ["passphrase", "key", unix::paths::CREDENTIAL_SSH_KEY] {
        let given = secrets.iter().find(|(n, _)| *n == name).map(|(_, secret)| secret.clone());
        let secret = match given {
            Some(secret) => Some(secret),
            None => unix::credentials::credential_in(directory, name)?.map(Into::into),
        };
        if let Some(secret) = secret {
            unix::files::write_private(&staging.0.join(name), &secret)?;
        }
    }
    let place = Place { url: &repository.url, remote_borg: repository.remote_borg.as_deref(), rsh: repository.rsh.as_deref() };
    let name = repository.name.as_str();
    let facts = owner::inspect(&place, &staging.0, context)?.map_err(|failure| match failure.cause {
        model::Cause::RepositoryLockTimeout => {
            owner::error(&failure, name).hint("BorgCube itself keeps a repository for up to a minute after a job: try again then.")
        }
        _ if !secrets.is_empty() => owner::error(&failure, name).hint("Nothing was changed: the secrets are as they were."),
        _ => owner::error(&failure, name).hint("--no-check stores the change all the same."),
    })?;
    same(repository, &facts)
}

fn same(repository: &Repository, facts: &Facts) -> Result<()> {
    if repository.repository_id == facts.repository_id {
        return Ok(());
    }
    let found = shown(&facts.repository_id);
    Err(Error::conflict(format!("another repository is at {}: its id is {found}, not {}", repository.url, repository.repository_id))
        .hint("To use that one, add it under a name of its own."))
}

struct Staging(PathBuf);

impl Staging {
    fn new(directory: &Path) -> Result<Staging> {
        let path = directory.join(format!(".check-{}", unix::random::hex(8)?));
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| Error::failed(format!("cannot create {}: {e}", path.display())))?;
        Ok(Staging(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("borgcube: could not remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{EncryptionMode, Timestamp};

    #[test]
    fn another_repository_is_refused() {
        let repository = Repository {
            name: "main".parse().unwrap(),
            url: "/srv/x".into(),
            description: String::new(),
            repository_id: "aa".into(),
            encryption: EncryptionMode::Repokey,
            remote_borg: None,
            rsh: None,
            created: Timestamp(0),
        };
        let facts = |id: &str| Facts { repository_id: id.into(), encryption: EncryptionMode::Repokey, archives: 0, objects: 0 };
        assert!(same(&repository, &facts("aa")).is_ok());
        assert_eq!(same(&repository, &facts("bb")).unwrap_err().kind().code(), 4);
    }
}
