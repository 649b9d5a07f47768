//! Shim and session as they are built, with the owner of these tests behind them.

use super::owner::Owner;
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use unix::paths::{ENV_STATE, Layout};
use unix::spawn::Spawn;
use wire::WireError;

/// The token of the one session that is served.
pub const TOKEN: [u8; 32] = [0x42; 32];

/// Shim and session as they are built, with an owner in a thread of this process.
pub struct Server {
    pub state: tempfile::TempDir,
    pub owner: Arc<Mutex<Owner>>,
    threads: Vec<thread::JoinHandle<Result<()>>>,
}

impl Server {
    /// Serves one session.
    pub fn start(owner: Arc<Mutex<Owner>>) -> Result<Server> {
        let state = tempfile::tempdir()?;
        let layout = Layout::new(state.path());
        layout.create_directories()?;
        let sessions = unix::socket::listen(&layout.session_socket(), 0o600)?;
        let owners = unix::socket::listen(&layout.repository_socket("r"), 0o600)?;
        let name = borg::Id(Sha256::digest(TOKEN).into()).to_hex();
        std::os::unix::fs::symlink(layout.session_link_target("r"), layout.session_link(&name))?;
        let directory = state.path().to_owned();
        let accepting = thread::spawn(move || accept(&sessions, &directory));
        let owner_too = owner.clone();
        let owning = thread::spawn(move || serve_owner(&owners, &owner_too));
        Ok(Server { state, owner, threads: vec![accepting, owning] })
    }

    /// Waits until session and owner have ended.
    pub fn finish(self) -> Result<Arc<Mutex<Owner>>> {
        for thread in self.threads {
            thread.join().expect("no panic")?;
        }
        Ok(self.owner)
    }
}

pub fn accept(listener: &UnixListener, state: &Path) -> Result<()> {
    let (connection, _) = listener.accept()?;
    let session = Spawn::new(env!("CARGO_BIN_EXE_borgcube-session")).env(ENV_STATE, state).fd(connection.as_fd(), "connection").spawn()?;
    drop(connection);
    session.wait()?;
    Ok(())
}

fn serve_owner(listener: &UnixListener, owner: &Mutex<Owner>) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = Vec::new();
    loop {
        let kind = match wire::frame::read(&mut stream, &mut buffer) {
            Ok(kind) => kind,
            Err(WireError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let mut owner = owner.lock().expect("not poisoned");
        if owner.crash {
            if let Some(failure) = &owner.last_words {
                // Until the session has more to say than it may.
                thread::sleep(std::time::Duration::from_millis(500));
                wire::session::write_json(&mut stream, wire::session::kind::FAILED, failure)?;
            }
            return Ok(());
        }
        let answers = owner.frame(kind, &buffer);
        drop(owner);
        for (kind, payload) in answers {
            wire::frame::write(&mut stream, kind, &[&payload])?;
        }
    }
}
