//! `borgcube repository release`: lends a repository to another program, and takes it back when that has ended.

use super::repair::Repair;
use super::{confirm, repair, repository, wait as waiting};
use crate::complete;
use crate::context::{Context, shell_word};
use crate::error::{Error, Kind, Result};
use crate::installed::{self, Vault};
use crate::output::count;
use crate::owner_link::OwnerLink;
use crate::tools::Tool;
use clap_complete::ArgValueCandidates;
use model::{Repository, RepositoryName};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use unix::Signal;
use unix::paths::{CREDENTIAL_SSH_KEY, ENV_BORG_HOST_ID, USER_REPOSITORY};
use unix::pidfd::{ExitStatus, PidFd};
use unix::poll::{Interest, poll};
use unix::signals::Signals;
use wire::maintenance::{Granted, Operation};

/// Borg 1.x: each of them tells a passphrase, the first of them that is set wins.
const PASSPHRASES: [&str; 3] = ["BORG_PASSPHRASE", "BORG_PASSCOMMAND", "BORG_PASSPHRASE_FD"];
/// Borg 1.x: the key file of a keyfile repository.
const KEY_FILE: &str = "BORG_KEY_FILE";
/// What a person or a service manager sends; they are for the command, we end with it.
const FORWARDED: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
/// Hundreds of thousands of segments are looked at within it.
const GIVING_BACK: Duration = Duration::from_secs(600);
/// Shells say it this way.
const NOT_FOUND: u8 = 127;
/// Shells say it this way.
const NOT_STARTED: u8 = 126;

/// Options of `borgcube repository release`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command runs on this terminal with BORG_REPO and BORG_HOST_ID set, so that stock borg needs no REPOSITORY argument. Backups that run
wait at their next chunk until it has ended; so keep it short. Never run borg check --repair with a borg older than 1.4: it spoils archives
that are healthy. Whichever repairs, copy the repository first. On an installed server run it as root; what it has written is given to the
user borgcube-repo afterwards. The exit code is the command's (127: not found, 126: not started,
128 + N: killed by signal N).

Examples:
  borgcube repository release main -- borg list
  borgcube repository release main --with-passphrase -- borg check
  borgcube repository release main -- sh -c 'borg prune --glob-archives \"web1-etc-*\" --keep-daily 7 && borg compact'

Never prune without --glob-archives: borg takes all archives of a repository for one series, and would leave
one archive a day of all clients together.")]
pub struct Release {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    name: RepositoryName,
    /// Wait up to this long for what is under way, such as a step of a compact or another release
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Let the command's borg read the passphrase (and key file) that BorgCube keeps
    #[arg(long)]
    with_passphrase: bool,
    /// Do not ask before a borg check --repair by a borg that is older than 1.4 or not known
    #[arg(long, short)]
    yes: bool,
    /// Command to run while BorgCube leaves the repository alone
    #[arg(value_name = "COMMAND", last = true, required = true, value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Runs the command; its exit code is ours.
pub fn run(args: Release, context: &Context) -> Result<ExitCode> {
    let repository = repository::find(&mut context.control()?, &args.name)?;
    confirm_repair(&args, context)?;
    // It lives until the command has ended.
    let vault = if args.with_passphrase && repository.encryption.has_key() { Some(vault(&repository, context)?) } else { None };
    let secrets = vault.as_ref().map_or_else(|| Ok(vec![]), |vault| secrets(&repository, vault))?;
    let mut signals = Signals::new(&FORWARDED)?;
    let mut link = OwnerLink::ask(&args.name, Operation::Release { wait_seconds: args.wait }, context)?;
    let granted = link.granted(&mut signals, context)?;
    if granted.sessions > 0 {
        context.note(&waiting_sessions(granted.sessions));
    }
    if asks_for_passphrase(&repository, args.with_passphrase) {
        context.note("Borg will ask for the passphrase. --with-passphrase lets it read the one that BorgCube keeps.");
    }
    let code = execute(&args.command, &granted, &secrets, &mut signals, &link, context);
    if context.layout.is_installed()
        && unix::socket::own_uid() == 0
        && granted.url.starts_with('/')
        && let Err(error) = give_back(&granted.url)
    {
        error.report(context.json);
    }
    drop(link);
    Ok(ExitCode::from(code?))
}

/// What a borg of root has written is root's, and the owner could not go on with it. Nothing but what is root's changes hands, and no link
/// is followed.
fn give_back(path: &str) -> Result<()> {
    let to = format!("{USER_REPOSITORY}:{USER_REPOSITORY}");
    let words = ["--recursive", "-P", "--no-dereference", "--from=root", &to, "--", path];
    let said = Tool::new("chown").args(words).patience(GIVING_BACK).run()?;
    if said.success {
        return Ok(());
    }
    let message = format!("what root wrote in {path} could not be given back to {USER_REPOSITORY}, so backups may fail: {}", said.reason());
    Err(Error::failed(message).hint(format!("Run: chown {}", words.map(|word| shell_word(Path::new(word))).join(" "))))
}

/// A repair that may spoil healthy archives needs a yes.
fn confirm_repair(args: &Release, context: &Context) -> Result<()> {
    let danger = match repair::of(&args.command) {
        Repair::None => return Ok(()),
        Repair::New => {
            context.note("A repair removes archives whose authentication (TAM) is wrong or missing. Is there a copy of the repository?");
            return Ok(());
        }
        Repair::Old(version) => format!("Borg {version} spoils healthy archives when it repairs: newer ones then refuse or remove them."),
        Repair::Unknown => "It cannot be told which borg would repair; one older than 1.4 spoils healthy archives.".to_owned(),
    };
    let better = "Copy the repository first, and repair only with a borg whose `borg --version` says 1.4 or newer.";
    // Also for those who want quiet: it is about their data.
    let warning = format!("WARNING: {danger}\n{better}");
    if args.yes {
        Error::failed(format!("WARNING: {danger}")).hint(better).report(context.json);
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::usage(danger).hint(better).hint("--yes runs it all the same. The repository was not released."));
    }
    let untouched = "the repository was not released";
    if confirm::ask(&format!("{warning}\nRun it all the same?"), untouched, &waiting::interrupts()?)? {
        return Ok(());
    }
    Err(Error::failed(untouched))
}

/// Borg 1.x: what no archive refers to is an orphan, and a repair deletes it.
fn waiting_sessions(sessions: u64) -> String {
    let (wait, end) = match sessions {
        1 => ("waits", "that backup"),
        _ => ("wait", "those backups"),
    };
    format!(
        "{} {wait} until the command has ended. Chunks sent so far look like orphans to `borg check`; `check --repair` would end {end}.",
        count(sessions, "session")
    )
}

fn asks_for_passphrase(repository: &Repository, given: bool) -> bool {
    repository.encryption.has_key() && !given && PASSPHRASES.iter().all(|name| std::env::var_os(name).is_none())
}

/// Variables by which Borg finds passphrase and key. The secrets themselves stay in their private files: the environment of a process
/// can be read by all of its user's processes, and is inherited.
fn secrets(repository: &Repository, vault: &Vault) -> Result<Vec<(&'static str, OsString)>> {
    let directory = vault.path();
    let passphrase = readable(&directory.join("passphrase"))?.ok_or_else(|| {
        let place = match vault {
            Vault::Directory(_) => directory.display().to_string(),
            Vault::Copy(..) => "the credential store of systemd".to_owned(),
        };
        Error::not_found(format!("BorgCube keeps no passphrase of repository {} in {place}", repository.name))
    })?;
    let mut variables = vec![("BORG_PASSCOMMAND", pass_command(&passphrase)?)];
    if let Some(key) = readable(&directory.join("key"))? {
        variables.push((KEY_FILE, key.into()));
    }
    Ok(variables)
}

/// Where the secrets are: a directory that is there anyway, or on an installed server a copy of what systemd keeps.
fn vault(repository: &Repository, context: &Context) -> Result<Vault> {
    if !context.layout.is_installed() {
        return Ok(Vault::Directory(context.layout.credentials(repository.name.as_str())));
    }
    installed::need_root("read the passphrase that systemd keeps")?;
    Vault::open_without(&repository.name, &[CREDENTIAL_SSH_KEY], context)
}

/// The path, if there is such a file and it can be read.
fn readable(path: &Path) -> Result<Option<PathBuf>> {
    match File::open(path) {
        Ok(_) => Ok(Some(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::new(Kind::Permission, format!("cannot read {}: {e}", path.display()))
                .hint("Root and the owner's user may; without --with-passphrase Borg asks for it."))
        }
        Err(e) => Err(Error::failed(format!("cannot read {}: {e}", path.display()))),
    }
}

/// Borg 1.x splits this as a shell does, and takes what the command prints, without its last line break.
fn pass_command(path: &Path) -> Result<OsString> {
    let text = path.to_str().ok_or_else(|| Error::failed(format!("{} is not valid UTF-8", path.display())))?;
    Ok(format!("cat '{}'", text.replace('\'', r#"'"'"'"#)).into())
}

fn execute(
    words: &[OsString],
    granted: &Granted,
    secrets: &[(&'static str, OsString)],
    signals: &mut Signals,
    link: &OwnerLink,
    context: &Context,
) -> Result<u8> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::usage("say which command to run"));
    };
    // Everything else is as the person has it: the terminal, the environment, open descriptors.
    let mut command = Command::new(program);
    command.args(arguments).env("BORG_REPO", &granted.url);
    if let Some(host_id) = &granted.host_id {
        command.env(ENV_BORG_HOST_ID, host_id);
    }
    if !secrets.is_empty() {
        for name in PASSPHRASES {
            command.env_remove(name);
        }
        command.envs(secrets.iter().map(|(name, value)| (name, value)));
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(e) => {
            let error = Error::failed(format!("cannot start {}: {e}", crate::output::shown(&program.to_string_lossy())));
            error.report(context.json);
            return Ok(if e.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED });
        }
    };
    let pidfd = PidFd::open(i32::try_from(child.id()).map_err(|_| Error::failed("a process number is out of range"))?)?;
    wait(&pidfd, signals, link, context)
}

/// Until the command has ended, whatever happens.
fn wait(child: &PidFd, signals: &mut Signals, link: &OwnerLink, context: &Context) -> Result<u8> {
    let mut held = true;
    loop {
        let mut fds = vec![(child.as_fd(), Interest::Read), (signals.as_fd(), Interest::Read)];
        if held {
            fds.push((link.as_fd(), Interest::Read));
        }
        let ready = poll(&fds, None)?;
        if ready[1].any() {
            for signal in signals.take() {
                // A key on the terminal reached the command, too, which is in our process group.
                if !(matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && in_foreground()) {
                    child.signal(signal)?;
                }
            }
        }
        if ready.get(2).is_some_and(|r| r.any()) {
            held = false;
            context.note("The repository's owner went away; only Borg's own lock keeps the repository for the command now.");
        }
        if ready[0].any()
            && let Some(status) = child.try_wait()?
        {
            return Ok(exit_code(status));
        }
    }
}

/// Whether keys such as Ctrl-C reach this process group.
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(unix::terminal::is_foreground)
}

fn exit_code(status: ExitStatus) -> u8 {
    let by = |signal: i32| u8::try_from(128 + signal).unwrap_or(u8::MAX);
    match status {
        ExitStatus::Exited(code) => u8::try_from(code).unwrap_or(u8::MAX),
        ExitStatus::Signaled(signal) => by(signal as i32),
        ExitStatus::SignaledRaw(number) => by(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_releases_learns_what_sessions_wait_for() {
        let one = waiting_sessions(1);
        assert!(one.starts_with("1 session waits until") && one.contains("look like orphans"), "{one}");
        assert!(one.ends_with("`check --repair` would end that backup."), "{one}");
        assert!(waiting_sessions(2).contains("those backups"));
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(exit_code(ExitStatus::Exited(0)), 0);
        assert_eq!(exit_code(ExitStatus::Exited(2)), 2);
        assert_eq!(exit_code(ExitStatus::Signaled(Signal::SIGTERM)), 143);
        assert_eq!(exit_code(ExitStatus::SignaledRaw(40)), 168);
    }

    #[test]
    fn the_pass_command_survives_any_path() {
        assert_eq!(pass_command(Path::new("/a b/c")).unwrap(), "cat '/a b/c'");
        assert_eq!(pass_command(Path::new("/it's")).unwrap(), r#"cat '/it'"'"'s'"#);
    }
}
