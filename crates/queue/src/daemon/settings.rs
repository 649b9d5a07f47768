//! What the environment says to the daemon, and the server's stored settings.

use model::Settings;
use model::queue::Limits;
use model::settings::SessionLimits;
use model::web_user::WebSettings;
use std::path::PathBuf;
use std::time::Duration;
use store::Store;

/// Patience and programs; the defaults are for real life, the environment for tests.
#[derive(Debug, Clone)]
pub struct Options {
    /// The worker's program.
    pub worker: PathBuf,
    /// How long a cancelled job may take to end in good order (`BORGCUBE_CANCEL_SECONDS`).
    pub cancel: Duration,
    /// How long running jobs may go on when the daemon is to stop (`BORGCUBE_STOP_SECONDS`).
    pub stop: Duration,
}

impl Options {
    /// From the environment.
    pub fn from_env() -> anyhow::Result<Options> {
        let worker = match std::env::var_os("BORGCUBE_WORKER") {
            Some(path) if !path.is_empty() => path.into(),
            _ => unix::paths::sibling_program("borgcube-worker"),
        };
        Ok(Options { worker, cancel: seconds("BORGCUBE_CANCEL_SECONDS", 90)?, stop: seconds("BORGCUBE_STOP_SECONDS", 30)? })
    }
}

fn seconds(name: &str, default: u64) -> anyhow::Result<Duration> {
    match std::env::var(name) {
        Err(_) => Ok(Duration::from_secs(default)),
        Ok(text) => match text.parse::<u32>() {
            Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
            Err(_) => anyhow::bail!("{name} is {text:?}, which is not a number of seconds"),
        },
    }
}

/// The server's settings; made at the very first start.
pub fn load(store: &Store) -> anyhow::Result<Settings> {
    if let Some(settings) = store.read(|r| r.settings())? {
        return Ok(settings);
    }
    let (limits, sessions, web) = (Limits::default(), SessionLimits::default(), WebSettings::default());
    let settings = Settings { server_id: unix::random::hex(8)?, limits, sessions, web };
    store.write("first start: make the server's settings", super::ACTOR, |w| w.set_settings(&settings))?;
    Ok(settings)
}
