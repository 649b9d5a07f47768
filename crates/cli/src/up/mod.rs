//! `borgcube up`: the embedded default. A supervisor in the foreground that does what systemd does on an installed server: it makes the
//! sockets, hands them over, and starts again what ended.

mod backoff;
mod borgcubed;
pub mod host_id;
mod news;
mod owner;
mod programs;
mod scheduler;
mod status;
mod supervisor;

use crate::context::{Context, absolute, shell_word, write_out};
use crate::error::{Error, Kind, Result};
use programs::Programs;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use supervisor::Supervisor;
use unix::paths::{Layout, borg_program};

/// Options of `borgcube up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Everything runs as the user who starts it, in the foreground; Ctrl-C or SIGTERM stops it in good order.

Examples:
  borgcube up --state ~/borgcube
  borgcube up --state /srv/borgcube --borg /usr/local/bin/borg")]
pub struct Args {
    /// Use this borg on the server
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::ExecutablePath)]
    borg: Option<PathBuf>,
    /// Show the status pages here: 127.0.0.1:PORT, or none (default: port 8420, or another one if that is taken)
    #[arg(long, value_name = "ADDRESS")]
    status: Option<status::Where>,
}

/// Runs until it is told to stop.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(state) = &context.state else {
        return Err(Error::usage("say where BorgCube is to keep everything").hint("For example: borgcube up --state ~/borgcube"));
    };
    unix::logging::init("borgcube");
    let layout = &context.layout;
    refuse_foreign(state)?;
    layout.create_directories()?;
    let _lock = lock(layout)?;
    let borg = match &args.borg {
        Some(path) if path.components().count() > 1 => absolute(path)?,
        Some(name) => name.clone(),
        None => borg_program(),
    };
    if !runs(&borg) {
        let sentence = format!("there is no borg at {}", borg.display());
        return Err(Error::failed(sentence).hint("Install it (apt install borgbackup), or name one with --borg PATH."));
    }
    if host_id::stored(layout).is_none() && !context.quiet {
        // That is two borgs, one after the other: on a busy machine half a minute of silence.
        write_out(&format!(
            "For once, {} is asked under which name it takes locks on this machine; that may take some seconds.\n",
            borg.display()
        ))?;
    }
    let host_id = host_id::ensure(layout, &borg);
    let supervisor = Supervisor::start(layout, Programs::new(state, &borg, host_id), args.status)?;
    if !context.quiet {
        write_out(&introduction(state, supervisor.status_url().as_deref()))?;
    }
    supervisor.run()
}

/// A home directory, say, is nothing to spread databases and sockets over.
fn refuse_foreign(state: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(state) else { return Ok(()) };
    // A new file system has the one, and whoever keeps our output here has made the other already.
    let harmless = |name: &std::ffi::OsString| name == "lost+found" || Path::new(name).extension().is_some_and(|e| e == "log");
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).filter(|name| !harmless(name)).collect();
    let ours = ["db", "credentials", "views", "log", "run"];
    if names.is_empty() || names.iter().any(|name| ours.iter().any(|known| name == known)) {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("{} is not empty, and nothing in it is BorgCube's", state.display()))
        .hint(format!("Choose a directory of its own, for example: borgcube up --state {}", shell_word(&state.join("borgcube")))))
}

/// Whether this is a program that can be started at all.
fn runs(borg: &Path) -> bool {
    use std::process::{Command, Stdio};
    let version = Command::new(borg).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Two supervisors would take each other's sockets.
fn lock(layout: &Layout) -> Result<File> {
    let path = layout.run().join("up.lock");
    let failed = |e: std::io::Error| Error::failed(format!("cannot lock {}: {e}", path.display()));
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(e)) => return Err(failed(e)),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut pid);
            let sentence = format!("borgcube up runs already in {} (process {})", layout.state().display(), pid.trim());
            return Err(Error::new(Kind::Conflict, sentence).hint("Stop that one first, or choose another --state."));
        }
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(file)
}

fn introduction(state: &Path, status: Option<&str>) -> String {
    let status = status.map_or_else(String::new, |url| format!("Status pages: {url}\n"));
    let dir = shell_word(state);
    // Beside the state: what is lost together with the only copy of its passphrase is lost.
    let repository = shell_word(&state.with_file_name("main"));
    format!(
        "BorgCube starts in {state}. Ctrl-C stops it.
{status}Everything runs under one user id: nothing is isolated from anything else. For hosts you do not trust, install the packages.
Next, in another terminal:
  export BORGCUBE_STATE={dir}
  borgcube repository add main {repository} --encryption repokey-blake2 --generate-passphrase
  borgcube client add this-host --local
  borgcube config add etc --client this-host --repository main /etc
  borgcube run this-host/etc --wait
",
        state = state.display()
    )
}
