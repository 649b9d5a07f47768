//! Starting the other programs, each with what it needs and nothing else.

use crate::error::Result;
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use unix::Signal;
use unix::paths::{ENV_BORG, ENV_BORG_HOST_ID, ENV_CREDENTIALS, ENV_KEPT, ENV_LISTEN_PARENT, ENV_STATE, Layout, sibling_program};
use unix::spawn::{Child, Spawn};

/// What all children have in common.
#[derive(Debug)]
pub struct Programs {
    state: PathBuf,
    borg: PathBuf,
    host_id: Option<String>,
    /// Every other variable of ours; tests and people tune by them.
    tuning: Vec<(OsString, OsString)>,
}

impl Programs {
    /// For this state directory.
    pub fn new(state: &Path, borg: &Path, host_id: Option<String>) -> Programs {
        let ours = |name: &OsString| name.to_str().is_some_and(|n| n.starts_with("BORGCUBE_") && n != ENV_LISTEN_PARENT);
        let tuning = std::env::vars_os().filter(|(name, _)| ours(name)).collect();
        Programs { state: state.to_owned(), borg: borg.to_owned(), host_id, tuning }
    }

    /// A child dies with us even when we are killed: nobody is left who would start it again.
    fn program<'fd>(&self, name: &str) -> Spawn<'fd> {
        let mut spawn = Spawn::new(sibling_program(name)).keep_env(ENV_KEPT).keep_env(&["SSH_AUTH_SOCK"]).death_signal(Signal::SIGTERM);
        for (name, value) in &self.tuning {
            spawn = spawn.env(name, value);
        }
        spawn = spawn.env(ENV_STATE, &self.state).env(ENV_BORG, &self.borg);
        match &self.host_id {
            Some(id) => spawn.env(ENV_BORG_HOST_ID, id),
            None => spawn,
        }
    }

    /// The queue daemon with its control socket.
    pub fn borgcubed(&self, listener: &UnixListener) -> Result<Child> {
        Ok(self.program("borgcubed").fd(listener.as_fd(), "control").spawn()?)
    }

    /// The scheduler, which turns what is due into jobs.
    pub fn scheduler(&self) -> Result<Child> {
        Ok(self.program("borgcube-scheduler").args(["loop"]).spawn()?)
    }

    /// The status daemon with its sockets.
    pub fn status(&self, tcp: &TcpListener, unix: &UnixListener) -> Result<Child> {
        Ok(self.program("borgcube-statusd").fd(tcp.as_fd(), "http").fd(unix.as_fd(), "status").spawn()?)
    }

    /// A session with its connection; it closes `opened` when its client has shown a good token.
    pub fn session(&self, connection: &UnixStream, opened: &UnixStream) -> Result<Child> {
        let program = self.program("borgcube-session");
        Ok(program.fd(connection.as_fd(), "connection").fd(opened.as_fd(), "opened").spawn()?)
    }

    /// The owner of a repository with its listening socket.
    pub fn owner(&self, name: &str, listener: &UnixListener, layout: &Layout) -> Result<Child> {
        layout.create_repository_directories(name)?;
        let program = self.program("borgcube-repositoryd").args(["serve", name]);
        Ok(program.env(ENV_CREDENTIALS, layout.credentials(name)).fd(listener.as_fd(), "repository").spawn()?)
    }
}
