//! Starting children: a process group of their own, an environment that is listed, descriptors at fixed numbers,
//! default signal actions and an empty signal mask.

use crate::paths::{ENV_LISTEN_FDNAMES, ENV_LISTEN_FDS, ENV_LISTEN_PARENT};
use crate::pidfd::{ExitStatus, PidFd, kill_group};
use crate::raw::{self, ChildSetup, FIRST_FD, MOVED};
use crate::{Error, Result, Signal};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ChildStderr, ChildStdin, ChildStdout, Command};

/// How often to prepare again when another thread closed a descriptor at the wrong moment.
const ATTEMPTS: usize = 16;

/// What one of the standard streams of a child is.
#[derive(Debug, Clone, Copy, Default)]
pub enum Stdio<'fd> {
    /// `/dev/null`.
    #[default]
    Null,
    /// The same as ours.
    Inherit,
    /// A new pipe, whose other end is in [`Child`].
    Pipe,
    /// A copy of this descriptor.
    Fd(BorrowedFd<'fd>),
}

/// A child to be started. Standard input and output are `/dev/null`, standard error is ours, unless said otherwise.
#[derive(Debug)]
pub struct Spawn<'fd> {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    fds: Vec<(BorrowedFd<'fd>, String)>,
    stdin: Stdio<'fd>,
    stdout: Stdio<'fd>,
    stderr: Stdio<'fd>,
    own_group: bool,
    own_session: bool,
    death_signal: Option<Signal>,
}

/// A child that was started. Dropping it neither kills nor reaps it: call [`Child::wait`].
#[derive(Debug)]
pub struct Child {
    /// Its pid, which is also its process group unless [`Spawn::same_group`] was used.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: PidFd,
    /// Our end of its standard input, if that is a pipe.
    pub stdin: Option<ChildStdin>,
    /// Our end of its standard output, if that is a pipe.
    pub stdout: Option<ChildStdout>,
    /// Our end of its standard error, if that is a pipe.
    pub stderr: Option<ChildStderr>,
}

impl Child {
    /// Waits for the end and reaps. Close a piped stdin before, if the child reads until its end.
    pub fn wait(&self) -> Result<ExitStatus> {
        self.pidfd.wait()
    }

    /// Sends a signal to the child and everything in its process group. False if nobody is left.
    pub fn kill_group(&self, signal: Signal) -> Result<bool> {
        kill_group(self.pid, signal)
    }
}

impl<'fd> Spawn<'fd> {
    /// Starts `program`; a name without a slash is looked up in the `PATH` given to the child.
    pub fn new(program: impl AsRef<Path>) -> Spawn<'fd> {
        Spawn {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            directory: None,
            fds: Vec::new(),
            stdin: Stdio::Null,
            stdout: Stdio::Null,
            stderr: Stdio::Inherit,
            own_group: true,
            own_session: false,
            death_signal: None,
        }
    }

    /// One more argument. Never a secret: everybody on the machine can read it.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Several arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// One variable of the child's environment, which begins empty.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Passes these variables on, as far as we have them ourselves; usually [`crate::paths::ENV_KEPT`].
    pub fn keep_env(mut self, names: &[&str]) -> Self {
        for name in names {
            if let Some(value) = std::env::var_os(name) {
                self.env.insert(name.into(), value);
            }
        }
        self
    }

    /// Where the child begins; ours if not said.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Hands over a descriptor: the first becomes 3, the next 4, and so on. The child finds them with
    /// [`crate::activation::listen_fds`], under this name (which has no colon).
    pub fn fd(mut self, fd: BorrowedFd<'fd>, name: &str) -> Self {
        self.fds.push((fd, name.to_owned()));
        self
    }

    /// The child's standard input.
    pub fn stdin(mut self, stdin: Stdio<'fd>) -> Self {
        self.stdin = stdin;
        self
    }

    /// The child's standard output.
    pub fn stdout(mut self, stdout: Stdio<'fd>) -> Self {
        self.stdout = stdout;
        self
    }

    /// The child's standard error.
    pub fn stderr(mut self, stderr: Stdio<'fd>) -> Self {
        self.stderr = stderr;
        self
    }

    /// Leaves the child in our process group, so that Ctrl-C on the terminal reaches it as well.
    pub fn same_group(mut self) -> Self {
        self.own_group = false;
        self
    }

    /// Starts the child in a session of its own, without the terminal of ours: a program of another user must not type into it.
    pub fn own_session(mut self) -> Self {
        self.own_session = true;
        self
    }

    /// Sends the child this signal when the *thread* that starts it ends (so Linux understands "parent"): only for a
    /// thread that lives as long as the process, and never for children that have to outlive us.
    pub fn death_signal(mut self, signal: Signal) -> Self {
        self.death_signal = Some(signal);
        self
    }

    /// Starts it. An error means that it does not run; also if the program does not exist.
    pub fn spawn(&self) -> Result<Child> {
        let failed = |e| Error::io(format!("cannot start {}", self.program.display()), e);
        if let Some((_, name)) = self.fds.iter().find(|(_, name)| !is_fd_name(name)) {
            return Err(Error::Invalid(format!("\"{name}\" cannot name a descriptor")));
        }
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match self.attempt() {
                Err(e) if e.raw_os_error() == Some(MOVED) && left > 0 => {}
                Err(e) => return Err(failed(e)),
                Ok(mut child) => {
                    let pid = child.id() as i32;
                    return match PidFd::open(pid) {
                        Ok(pidfd) => {
                            Ok(Child { pid, pidfd, stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() })
                        }
                        Err(e) => {
                            // Nobody could wait for it: better none than one that nobody holds.
                            child.kill().and_then(|()| child.wait()).map_err(failed)?;
                            Err(e)
                        }
                    };
                }
            }
        }
    }

    fn attempt(&self) -> io::Result<process::Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).env_clear().envs(&self.env);
        command.stdin(stdio(self.stdin)?);
        command.stdout(stdio(self.stdout)?);
        command.stderr(stdio(self.stderr)?);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        // Who leads a group cannot begin a session, which brings a group along.
        if self.own_group && !self.own_session {
            command.process_group(0);
        }
        if !self.fds.is_empty() {
            let names: Vec<&str> = self.fds.iter().map(|(_, name)| name.as_str()).collect();
            command.env(ENV_LISTEN_FDS, self.fds.len().to_string());
            command.env(ENV_LISTEN_FDNAMES, names.join(":"));
            let first = self.fds.first().and_then(|(fd, _)| raw::identity(fd.as_raw_fd()));
            command.env(ENV_LISTEN_PARENT, crate::activation::from_parent(process::id(), first));
        }
        let end = FIRST_FD + self.fds.len() as RawFd;
        // Held until the child runs, so that nothing new is opened in the range.
        let _held = occupy(end)?;
        let sources = self.fds.iter().map(|(fd, _)| copy_above(*fd, end)).collect::<io::Result<_>>()?;
        let setup = ChildSetup {
            sources,
            before: (FIRST_FD..end).map(raw::identity).collect(),
            parent: process::id() as i32,
            death_signal: self.death_signal,
            own_session: self.own_session,
        };
        raw::before_exec(&mut command, setup);
        command.spawn()
    }
}

fn is_fd_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

fn stdio(choice: Stdio<'_>) -> io::Result<process::Stdio> {
    Ok(match choice {
        Stdio::Null => process::Stdio::null(),
        Stdio::Inherit => process::Stdio::inherit(),
        Stdio::Pipe => process::Stdio::piped(),
        Stdio::Fd(fd) => fd.try_clone_to_owned()?.into(),
    })
}

/// Fills every free number below `end`.
fn occupy(end: RawFd) -> io::Result<Vec<OwnedFd>> {
    let mut held = vec![OwnedFd::from(File::open("/dev/null")?)];
    while held[held.len() - 1].as_raw_fd() < end {
        let next = copy_above(held[0].as_fd(), FIRST_FD)?;
        held.push(next);
    }
    Ok(held)
}

/// A copy with a number of at least `lowest`, close-on-exec.
fn copy_above(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, lowest)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_session_of_its_own() {
        for (spawn, own) in [(Spawn::new("cat"), false), (Spawn::new("cat").own_session(), true)] {
            let mut child = spawn.arg("/proc/self/stat").keep_env(&["PATH"]).stdout(Stdio::Pipe).spawn().unwrap();
            let mut said = String::new();
            child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(child.wait().unwrap().success());
            let session = said.split(' ').nth(5).unwrap();
            assert_eq!(session == child.pid.to_string(), own, "{said}");
        }
    }
}
