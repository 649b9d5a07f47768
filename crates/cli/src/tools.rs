//! Other people's programs (`ssh`, `sshd -T`, `systemctl`, `borg --version`), run with a limit of time and of output.

use crate::error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use unix::Signal;
use unix::paths::ENV_KEPT;
use unix::poll::{Interest, poll};
use unix::spawn::{Spawn, Stdio};

/// More than any of them has to say.
const LARGEST: u64 = 1024 * 1024;

/// What setpriv is told at the end of its options, so that the program it starts gets no privilege again.
pub const NO_WAY_BACK: [&str; 4] = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"];

/// A program to be run.
#[derive(Debug, Clone)]
pub struct Tool {
    words: Vec<OsString>,
    input: Vec<u8>,
    patience: Duration,
    apart: bool,
}

/// How it ended and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// It ended with exit code 0.
    pub success: bool,
    /// How it ended, as words.
    pub ending: String,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The last line that says something, of standard error before standard output: the reason, as a rule.
    #[must_use]
    pub fn reason(&self) -> String {
        let last = |text: &str| text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        let line = last(&self.err).or_else(|| last(&self.out)).unwrap_or_else(|| self.ending.clone());
        crate::output::shown(&line)
    }
}

impl Tool {
    /// A program, by path or by its name in `PATH` or the directories of the system's administration.
    pub fn new(program: impl AsRef<OsStr>) -> Tool {
        Tool { words: vec![administration(program.as_ref())], input: vec![], patience: Duration::from_secs(20), apart: false }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Tool {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = A>) -> Tool {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// What it reads; nothing otherwise.
    #[must_use]
    pub fn input(mut self, bytes: &[u8]) -> Tool {
        self.input = bytes.to_vec();
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Tool {
        self.patience = patience;
        self
    }

    /// Runs as this user with this user's groups, without a terminal and without a way back; only root can do that.
    #[must_use]
    pub fn as_user(mut self, user: &str) -> Tool {
        let before = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--reset-env"].into_iter().chain(NO_WAY_BACK);
        self.words.splice(0..0, before.map(OsString::from));
        self.apart = true;
        self
    }

    /// Runs it to its end. That it ends badly is no error here; that it cannot be started or does not end is one.
    pub fn run(&self) -> Result<Said> {
        let name = Path::new(&self.words[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |e: std::io::Error| Error::failed(format!("cannot talk to {name}: {e}"));
        let mut spawn =
            Spawn::new(&self.words[0]).args(&self.words[1..]).keep_env(ENV_KEPT).keep_env(&["SSH_AUTH_SOCK"]).env("LC_ALL", "C");
        spawn = spawn.stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
        if self.apart {
            spawn = spawn.own_session();
        }
        let mut child = spawn.spawn()?;
        let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever does not want to read it says so by how it ends.
            let _ = stdin.write_all(&self.input);
        }
        if !poll(&[(child.pidfd.as_fd(), Interest::Read)], Some(self.patience)).map(|ready| ready[0].any())? {
            child.kill_group(Signal::SIGKILL)?;
            child.wait()?;
            return Err(Error::failed(format!("{name} did not end within {} seconds", self.patience.as_secs())));
        }
        let status = child.wait()?;
        // What it left behind may keep the pipes open.
        child.kill_group(Signal::SIGKILL)?;
        let text = |reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| match reader.join() {
            Ok(read) => read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(failed),
            Err(_) => Err(Error::failed(format!("cannot read what {name} says"))),
        };
        Ok(Said { success: status.success(), ending: status.to_string(), out: text(out)?, err: text(err)? })
    }
}

fn reader(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<std::io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = vec![];
        match stream {
            Some(stream) => stream.take(LARGEST).read_to_end(&mut bytes).map(|_| bytes),
            None => Ok(bytes),
        }
    })
}

/// `sshd` and friends are not in everybody's `PATH`.
fn administration(program: &OsStr) -> OsString {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return program.to_owned();
    }
    let everywhere = std::env::var_os("PATH").unwrap_or_default();
    let known = std::env::split_paths(&everywhere).any(|directory| directory.join(path).is_file());
    let candidates = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(|directory| Path::new(directory).join(path));
    match candidates.into_iter().find(|candidate| !known && candidate.is_file()) {
        Some(found) => found.into_os_string(),
        None => program.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_and_how_it_ends() {
        let said = Tool::new("sh").args(["-c", "cat; echo complaint >&2; exit 3"]).input(b"hello\n").run().unwrap();
        assert_eq!((said.success, said.out.as_str(), said.err.as_str()), (false, "hello\n", "complaint\n"));
        assert_eq!(said.reason(), "complaint");
        let quiet = Tool::new("false").run().unwrap();
        assert!(!quiet.reason().is_empty() && !quiet.success);
    }

    #[test]
    fn a_program_that_hangs_or_is_missing_is_an_error() {
        let error = Tool::new("sleep").arg("60").patience(Duration::from_millis(50)).run().unwrap_err();
        assert!(error.message().contains("sleep did not end"), "{}", error.message());
        assert!(Tool::new("/no/such/program").run().is_err());
    }

    #[test]
    fn who_leaves_children_behind_is_not_waited_for() {
        let said = Tool::new("sh").args(["-c", "sleep 60 & echo done"]).run().unwrap();
        assert_eq!(said.out, "done\n");
    }

    #[test]
    fn terminals_are_safe_from_what_programs_say() {
        let said = Tool::new("printf").arg("\\033[2Jx").run().unwrap();
        assert_eq!(said.reason(), "\\u{1b}[2Jx");
    }
}
