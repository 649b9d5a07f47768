//! What only root does on an installed server: secrets into systemd's credential store, a drop-in for the owner of each repository, its
//! socket switched on. Adding a repository touches no other repository's owner.

mod credstore;
mod dropin;
mod place;
mod staging;
mod vault;

pub use credstore::{Kept, Store};
pub use place::{MadeDirectory, prepare};
pub use staging::Staging;
use staging::hand_over;
pub use vault::Vault;

use crate::context::{Context, shell_word};
use crate::error::{Error, Kind, Result};
use crate::tools::{NO_WAY_BACK, Tool};
use crate::up::host_id;
use model::{Repository, RepositoryName};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use unix::paths::{CREDENTIAL_SSH_KEY, ENV_KEPT, Layout, SYSTEM_STATE, USER_REPOSITORY};
use unix::spawn::Spawn;
use zeroize::Zeroizing;

/// Where administrators and programs in their name keep units.
const UNITS: &str = "/etc/systemd/system";
/// systemd starts and stops at most so long: a little more than `TimeoutStopSec=` of the owners.
const PATIENCE: Duration = Duration::from_secs(190);

/// Refuses everybody but root, and says what to type instead.
pub fn need_root(what: &str) -> Result<()> {
    if unix::socket::own_uid() == 0 {
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).map(|word| shell_word(Path::new(&word))).collect();
    Err(Error::new(Kind::Permission, format!("only root can {what}")).hint(format!("Run: sudo borgcube {}", words.join(" "))))
}

/// How an owner finds its repository: the drop-in of its unit, with the secrets that are kept for it.
pub fn write_drop_in(name: &RepositoryName, url: &str) -> Result<()> {
    let kept = Store::system().all(&owner_of(name))?;
    let text = dropin::repository(url, &kept)?;
    dropin::write(Path::new(UNITS), &service(name), "50-repository.conf", &text)
}

/// Keeps the secrets that lie in `staging` for the owner of a repository; true if all of them are encrypted.
pub fn keep_secrets(name: &RepositoryName, staging: &Staging) -> Result<bool> {
    let store = Store::system();
    let mut all_encrypted = true;
    for (id, secret) in staging.secrets()? {
        all_encrypted &= store.put(&owner_of(name), id, &secret)?.encrypted;
    }
    Ok(all_encrypted)
}

/// Where the store has secrets of an earlier repository of that name.
pub fn earlier_secrets(name: &RepositoryName) -> Result<Vec<Kept>> {
    Store::system().all(&owner_of(name))
}

/// Sees to it that this server has a private key with which its workers log in to clients: a credential of the queue daemon, which passes
/// it on. As a file it is [`unix::paths::SYSTEM_SSH_KEY`]. True if it was made now.
pub fn ensure_ssh_key(comment: &str) -> Result<bool> {
    need_root("make the server's SSH key")?;
    if !Store::system().all("server")?.is_empty() {
        systemctl(&["start", "borgcubed.service"])?;
        return Ok(false);
    }
    let staging = Staging::new(&Layout::system())?;
    let path = staging.path().join(CREDENTIAL_SSH_KEY);
    let said = Tool::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(&path).run()?;
    if !said.success {
        return Err(Error::failed(format!("the SSH key cannot be made: {}", said.reason())));
    }
    let key = fs::read(&path).map_err(|e| Error::failed(format!("cannot read {}: {e}", path.display())))?;
    keep_ssh_key(&Zeroizing::new(key))?;
    Ok(true)
}

/// Keeps that key.
fn keep_ssh_key(key: &[u8]) -> Result<()> {
    let kept = Store::system().put("server", CREDENTIAL_SSH_KEY, key)?;
    dropin::write(Path::new(UNITS), "borgcubed.service", "50-ssh-key.conf", &dropin::credentials(&[kept]))?;
    systemctl(&["daemon-reload"])?;
    // Running jobs go on.
    systemctl(&["restart", "borgcubed.service"])
}

/// The owner of a new repository listens from now on.
pub fn enable(name: &RepositoryName) -> Result<()> {
    systemctl(&["daemon-reload"])?;
    // A socket that failed before would stay so; that there is nothing to reset is the rule.
    if let Err(e) = systemctl(&["reset-failed", &socket(name), &service(name)]) {
        log::debug!("{}", e.message());
    }
    systemctl(&["enable", "--now", "--quiet", &socket(name)])
}

/// An owner that runs takes over a changed drop-in; sessions go on.
pub fn renew(name: &RepositoryName) -> Result<()> {
    systemctl(&["daemon-reload"])?;
    systemctl(&["try-restart", &service(name)])
}

/// The owner of a repository that was forgotten ends, and its drop-in goes. Its secrets stay.
pub fn disable(name: &RepositoryName) -> Result<()> {
    systemctl(&["disable", "--now", "--quiet", &socket(name)])?;
    systemctl(&["stop", &service(name)])?;
    dropin::remove(Path::new(UNITS), &service(name), "50-repository.conf")?;
    systemctl(&["daemon-reload"])
}

/// What [`disable`] does, for a person who may.
pub fn disable_command(name: &RepositoryName) -> String {
    format!("sudo systemctl disable --now {} {}", socket(name), service(name))
}

/// This host's identity in Borg's locks, asked once. Owners read it in a sandbox, in which nobody could find it out.
pub fn keep_host_id(layout: &Layout) -> Result<()> {
    if host_id::ensure(layout, &unix::paths::borg_program()).is_some() {
        let path = layout.host_id_file();
        fs::set_permissions(&path, Permissions::from_mode(0o644))
            .map_err(|e| Error::failed(format!("cannot let {USER_REPOSITORY} read {}: {e}", path.display())))?;
    }
    Ok(())
}

/// The installed server's part of adding a repository whose secrets lie in `staging`. The record is made after it.
pub fn keep(repository: &Repository, staging: &Staging, context: &Context) -> Result<()> {
    let encrypted = keep_secrets(&repository.name, staging)?;
    write_drop_in(&repository.name, &repository.url)?;
    if !encrypted {
        context.note("This machine cannot encrypt credentials (systemd-creds): the secrets lie in /etc/credstore, for root alone.");
    }
    Ok(())
}

/// The owner's program as its unit would start it, with the secrets that lie in `credentials`: what it makes belongs to the right user, and
/// what it cannot reach its owner could not reach either.
pub fn as_owner(program: &Path, credentials: &Path) -> Result<Spawn<'static>> {
    hand_over(credentials)?;
    let user = ["--reuid", USER_REPOSITORY, "--regid", USER_REPOSITORY, "--init-groups"];
    let spawn = Spawn::new("setpriv").args(user).args(NO_WAY_BACK).arg(program).keep_env(ENV_KEPT).own_session();
    Ok(spawn.env("HOME", Path::new(SYSTEM_STATE).join("owners")).current_dir("/"))
}

fn owner_of(name: &RepositoryName) -> String {
    format!("repository.{name}")
}

fn service(name: &RepositoryName) -> String {
    format!("borgcube-repositoryd@{name}.service")
}

fn socket(name: &RepositoryName) -> String {
    format!("borgcube-repositoryd@{name}.socket")
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let said = Tool::new("systemctl").args(arguments).patience(PATIENCE).run()?;
    if said.success {
        return Ok(());
    }
    let command = format!("systemctl {}", arguments.join(" "));
    Err(Error::failed(format!("{command}: {}", said.reason())).hint(format!("When that is mended, run: sudo {command}")))
}
