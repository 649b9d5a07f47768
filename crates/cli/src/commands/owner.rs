//! Asking the owner's program to make or to look at a repository. Only that program ever sees a key.

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::installed;
use crate::output::shown;
use crate::up::host_id;
use model::{Cause, EncryptionMode, Failure};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use unix::paths::{ENV_BORG_HOST_ID, ENV_CREDENTIALS, ENV_KEPT, ENV_STATE, sibling_program};
use unix::poll::{Interest, poll};
use unix::spawn::{Spawn, Stdio};
use unix::{Signal, signals::Signals};
use wire::tool::{Answer, Facts};

/// A repository as the owner's program needs to know it.
#[derive(Debug)]
pub struct Place<'a> {
    /// Where it is.
    pub url: &'a str,
    /// The borg program that serves it.
    pub remote_borg: Option<&'a str>,
    /// The SSH command to it.
    pub rsh: Option<&'a str>,
}

/// Makes a new repository. The key of a keyfile mode is written into `credentials`.
pub fn create(
    place: &Place<'_>,
    mode: EncryptionMode,
    credentials: &Path,
    context: &Context,
) -> Result<std::result::Result<Facts, Failure>> {
    ask(&["create", "--encryption", mode.as_str()], place, credentials, context)
}

/// Opens an existing repository with the secrets in `credentials`, and changes nothing.
pub fn inspect(place: &Place<'_>, credentials: &Path, context: &Context) -> Result<std::result::Result<Facts, Failure>> {
    ask(&["inspect"], place, credentials, context)
}

fn ask(action: &[&str], place: &Place<'_>, credentials: &Path, context: &Context) -> Result<std::result::Result<Facts, Failure>> {
    // A Ctrl-C ends the program below, which leaves nothing half done; we stay, to take back what we wrote.
    let mut interrupts = Signals::new(&[Signal::SIGINT, Signal::SIGTERM])?;
    let program = sibling_program("borgcube-repositoryd");
    let mut spawn = match context.layout.is_installed() {
        false => Spawn::new(program).keep_env(ENV_KEPT),
        true => installed::as_owner(&program, credentials)?,
    };
    spawn = spawn.args(action).same_group().stdout(Stdio::Pipe);
    spawn = spawn.keep_env(&["SSH_AUTH_SOCK", "BORGCUBE_LOCK_WAIT"]).env(ENV_CREDENTIALS, credentials);
    if let Some(state) = &context.state {
        spawn = spawn.env(ENV_STATE, state);
    }
    if let Some(host_id) = host_id::stored(&context.layout) {
        spawn = spawn.env(ENV_BORG_HOST_ID, host_id);
    }
    for (option, value) in [("--url", Some(place.url)), ("--borg", place.remote_borg), ("--rsh", place.rsh)] {
        if let Some(value) = value {
            spawn = spawn.arg(format!("{option}={value}"));
        }
    }
    let mut child = spawn.spawn()?;
    let mut said = vec![];
    let mut interrupted = false;
    let out = child.stdout.take();
    let read = match out {
        Some(out) => {
            let mut out = out.take(1024 * 1024);
            loop {
                let ready = poll(&[(out.get_ref().as_fd(), Interest::Read), (interrupts.as_fd(), Interest::Read)], None)?;
                for signal in interrupts.take() {
                    interrupted = true;
                    // In a session of its own the terminal does not tell it; in our group there is no group of its number.
                    child.kill_group(signal)?;
                }
                if ready[0].any() {
                    let mut part = [0; 4096];
                    match out.read(&mut part) {
                        Ok(0) => break Ok(()),
                        Ok(length) => said.extend_from_slice(&part[..length]),
                        Err(e) => break Err(e),
                    }
                }
            }
        }
        None => Ok(()),
    };
    let status = child.wait()?;
    if interrupted || !interrupts.take().is_empty() {
        return Err(Error::new(Kind::Interrupted, "interrupted"));
    }
    read.map_err(|e| Error::failed(format!("cannot read the answer of borgcube-repositoryd: {e}")))?;
    match serde_json::from_slice::<Answer>(&said) {
        Ok(Answer::Repository(facts)) => Ok(Ok(facts)),
        Ok(Answer::Failed(failure)) => Ok(Err(failure)),
        Err(_) => {
            Err(Error::failed(format!("borgcube-repositoryd {status} without a usable answer")).hint("What it wrote above may say why."))
        }
    }
}

/// A failure of a repository as an error of this program.
pub fn error(failure: &Failure, name: &str) -> Error {
    let kind = match failure.cause {
        Cause::RepositoryDoesNotExist | Cause::ArchiveMissing => Kind::NotFound,
        Cause::RepositoryLockTimeout | Cause::RepositoryIdMismatch => Kind::Conflict,
        _ => Kind::Failed,
    };
    let hint = match failure.cause {
        Cause::PassphraseWrong => "--passphrase-file FILE of repository add and repository edit takes the right one.",
        Cause::KeyMissing => {
            "--key-file FILE of repository add and repository edit takes the key; borg key export REPOSITORY FILE writes one."
        }
        // Other sentences of the causes are about backups.
        Cause::RepositoryEnospc => "Make room on its file system by other means; then delete archives and compact.",
        Cause::ArchiveMissing => "borgcube archive list shows what has a record, and with --foreign what has none.",
        Cause::RepositoryError => "The log of the repository's owner may have more.",
        Cause::OwnerLost => "The repository's owner process ended; it starts again by itself. Try again.",
        _ => failure.cause.advice(),
    };
    Error::new(kind, format!("repository {name}: {}", shown(&failure.line()))).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_its_exit_code() {
        let error = error(&Failure::new(Cause::ArchiveMissing, "repository main has no archive named \"x\"; nothing was deleted"), "main");
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.hints()[0].contains("borgcube archive list"), "{error:?}");
    }
}
