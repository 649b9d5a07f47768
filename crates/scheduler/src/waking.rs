//! Telling the queue daemon that there are new jobs.

use std::io::{BufReader, Write};
use std::path::Path;
use std::time::Duration;
use wire::control::{Call, ControlError, Reply, Request};
use wire::json;

/// The daemon may just be started by our call.
const PATIENCE: Duration = Duration::from_secs(30);

/// Wakes the queue daemon. That it cannot be reached is no failure: the jobs are in the database, and it looks there when it starts.
pub fn wake(socket: &Path) {
    if let Err(e) = call(socket) {
        log::warn!("the new jobs wait in the database until borgcubed runs: {e:#}");
    }
}

fn call(socket: &Path) -> anyhow::Result<()> {
    let mut stream = unix::socket::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&json::encode(&Request { call: Call::Wake {}, more: false })?)?;
    let reply: Reply = json::read(&mut BufReader::new(stream))?;
    match ControlError::from_reply(&reply) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
