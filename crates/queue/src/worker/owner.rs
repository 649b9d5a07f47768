//! The worker's connection to the repository's owner: prepares the session, learns how it ended.

use model::{Cause, Failure};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use unix::paths::Layout;
use unix::poll::{Interest, poll};
use wire::frame;
use wire::session::{Cached, Finish, Outcome, Prepare, Prepared, Served, kind, read_json, write_json};

/// A connection to the owner. As long as it is open, the job's session may live.
pub struct Owner {
    stream: UnixStream,
    /// It was asked how far the client is and has not answered yet.
    asked: bool,
}

fn lost(e: impl std::fmt::Display) -> Failure {
    Failure::new(Cause::OwnerLost, format!("the repository's owner process can't be reached: {e}"))
}

impl Owner {
    /// Connects; the socket starts the owner where it does not run yet.
    pub fn connect(layout: &Layout, repository: &str) -> Result<Owner, Failure> {
        let stream = unix::socket::connect(&layout.repository_socket(repository)).map_err(lost)?;
        Ok(Owner { stream, asked: false })
    }

    /// Has a session prepared: what the client needs.
    pub fn prepare(&mut self, prepare: &Prepare) -> Result<Prepared, Failure> {
        write_json(&mut self.stream, kind::PREPARE, prepare).map_err(lost)?;
        let mut buffer = vec![];
        match frame::read(&mut self.stream, &mut buffer).map_err(lost)? {
            kind::PREPARED => read_json(&buffer).map_err(lost),
            kind::FAILED => Err(read_json(&buffer).map_err(lost)?),
            other => Err(lost(format!("it answered with a frame of type {other}"))),
        }
    }

    /// The client's chunks cache, and its size. Makes the owner build it, so it is asked for only when the client has none that fits.
    pub fn cache(&mut self) -> Result<(File, u64), Failure> {
        frame::write(&mut self.stream, kind::CACHE, &[]).map_err(lost)?;
        let mut buffer = vec![];
        match frame::read(&mut self.stream, &mut buffer).map_err(lost)? {
            kind::CACHED => {
                let cached: Cached = read_json(&buffer).map_err(lost)?;
                let (mut fds, _) = unix::fdpass::recv_fds(&self.stream, 1).map_err(lost)?;
                let fd = fds.pop().ok_or_else(|| lost("it sent no chunks cache"))?;
                Ok((File::from(fd), cached.size))
            }
            kind::FAILED => Err(read_json(&buffer).map_err(lost)?),
            other => Err(lost(format!("it answered with a frame of type {other}"))),
        }
    }

    /// Asks what the client of a restore has read by now, and gives the answer to the last such question, if it is there. An owner that is being
    /// restarted answers when it is back; one that is lost, when the job is finished.
    pub fn how_far(&mut self) -> Option<Served> {
        let mut served = None;
        if self.asked {
            let ready = poll(&[(self.stream.as_fd(), Interest::Read)], Some(Duration::ZERO)).ok()?;
            if !ready[0].any() {
                return None;
            }
            let mut buffer = vec![];
            match frame::read(&mut self.stream, &mut buffer) {
                Ok(kind::SERVED) => served = read_json(&buffer).ok(),
                // Whatever it is, it comes up again at the end.
                _ => return None,
            }
        }
        self.asked = frame::write(&mut self.stream, kind::HOW_FAR, &[]).is_ok();
        served
    }

    /// How the job's session ended. Waits for its end, at most about half a minute.
    pub fn finish(&mut self, job: u64) -> Result<Outcome, Failure> {
        write_json(&mut self.stream, kind::FINISH, &Finish { job }).map_err(lost)?;
        let mut buffer = vec![];
        let mut answer = frame::read(&mut self.stream, &mut buffer).map_err(lost)?;
        if answer == kind::SERVED && std::mem::take(&mut self.asked) {
            answer = frame::read(&mut self.stream, &mut buffer).map_err(lost)?;
        }
        match answer {
            kind::OUTCOME => read_json(&buffer).map_err(lost),
            kind::FAILED => Err(read_json(&buffer).map_err(lost)?),
            other => Err(lost(format!("it answered with a frame of type {other}"))),
        }
    }
}
