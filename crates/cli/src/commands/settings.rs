//! `borgcube settings`.

use super::edit::{put, something};
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::cards;
use clap::Subcommand;
use model::Settings;
use serde::Deserialize;
use wire::control::Call;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the settings
    Show,
    /// Change the settings
    Edit(Box<Edit>),
}

/// Options of `borgcube settings edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The numbers of jobs count at once, also for jobs that wait already; what runs goes on. Two jobs of one client into one repository never run
at once, whatever is allowed: they would share the client's cache.

Examples:
  borgcube settings edit --per-client 1 --per-repository 4 --total 8
  borgcube settings edit --client-bytes 2000000000000 --idle-seconds 3600")]
pub struct Edit {
    /// Run at most so many jobs on one client at once (default 1)
    #[arg(long, value_name = "JOBS")]
    per_client: Option<u32>,
    /// Run at most so many jobs on one repository at once (default 8)
    #[arg(long, value_name = "JOBS")]
    per_repository: Option<u32>,
    /// Run at most so many jobs in all at once (default 16)
    #[arg(long, value_name = "JOBS")]
    total: Option<u32>,
    #[command(flatten)]
    sessions: Sessions,
    #[command(flatten)]
    web: Web,
}

/// Whose word counts on the status pages.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Signing in to the status pages without a token")]
struct Web {
    /// Believe the status daemon which Unix user is at its Unix socket: on or off (default off)
    #[arg(long, value_name = "SWITCH")]
    web_peer: Option<Switch>,
    /// Believe the status daemon whom a web server before it has signed in: on or off (default off)
    #[arg(long, value_name = "SWITCH")]
    web_proxy: Option<Switch>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What one client may do to the server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits of one backup (from the next one on)")]
struct Sessions {
    /// Let one backup send at most so many objects (default 50 million)
    #[arg(long, value_name = "COUNT")]
    objects: Option<u64>,
    /// Let at most so many of them be smaller than 64 bytes (default 1 million)
    #[arg(long, value_name = "COUNT")]
    small_objects: Option<u64>,
    /// Let one backup send at most so much, compressed (default 70368744177664 (70.37 TB))
    #[arg(long, value_name = "BYTES")]
    bytes: Option<u64>,
    /// Let one backup make at most so many checkpoints (default 100000)
    #[arg(long, value_name = "COUNT")]
    checkpoints: Option<u64>,
    /// Judge at most so many of them in a minute, beside the first 32 (default 60)
    #[arg(long, value_name = "COUNT")]
    proposals_per_minute: Option<u64>,
    /// End a backup whose borg has not begun after so long, or whose client goes on for so long after borg's end (default 3600, 1 hour)
    #[arg(long, value_name = "SECONDS")]
    start_seconds: Option<u64>,
    /// End a backup whose client was not heard for so long (default 14400, 4 hours)
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<u64>,
    /// End a backup that lasts longer (default 604800, 7 days)
    #[arg(long, value_name = "SECONDS")]
    total_seconds: Option<u64>,
    /// Give each message so long to arrive before its speed counts (default 300)
    #[arg(long, value_name = "SECONDS")]
    grace_seconds: Option<u64>,
    /// End a backup whose message comes more slowly than this after that time (default 1024)
    #[arg(long, value_name = "BYTES")]
    bytes_per_second: Option<u64>,
    /// Let one client have at most so many archives in a repository (default 20000)
    #[arg(long, value_name = "COUNT")]
    client_archives: Option<u64>,
    /// Let one client's archives in a repository hold at most so much, compressed, what it shares with others counted in full (default 1125899906842624 (1.13 PB))
    #[arg(long, value_name = "BYTES")]
    client_bytes: Option<u64>,
    /// Keep at most so much of what the client of one backup writes (default 67108864 (67.11 MB))
    #[arg(long, value_name = "BYTES")]
    log_bytes: Option<u64>,
}

/// The answer of [`Call::GetSettings`].
#[derive(Debug, Deserialize)]
struct Stored {
    settings: Settings,
}

/// As they are.
pub fn get(control: &mut Control) -> Result<Settings> {
    Ok(control.call::<Stored>(Call::GetSettings {})?.settings)
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = get(&mut control)?;
    let Command::Edit(args) = command else {
        return context.show(&previous, &cards::settings(&previous));
    };
    if [args.per_client, args.per_repository, args.total].contains(&Some(0)) {
        return Err(Error::usage("a limit is at least 1"));
    }
    let mut settings = previous.clone();
    put(&mut settings.limits.per_client, args.per_client);
    put(&mut settings.limits.per_repository, args.per_repository);
    put(&mut settings.limits.total, args.total);
    let (sessions, given) = (&mut settings.sessions, args.sessions);
    put(&mut sessions.objects, given.objects);
    put(&mut sessions.small_objects, given.small_objects);
    put(&mut sessions.bytes, given.bytes);
    put(&mut sessions.checkpoints, given.checkpoints);
    put(&mut sessions.proposals_per_minute, given.proposals_per_minute);
    put(&mut sessions.start_seconds, given.start_seconds);
    put(&mut sessions.idle_seconds, given.idle_seconds);
    put(&mut sessions.total_seconds, given.total_seconds);
    put(&mut sessions.grace_seconds, given.grace_seconds);
    put(&mut sessions.bytes_per_second, given.bytes_per_second);
    put(&mut sessions.client_archives, given.client_archives);
    put(&mut sessions.client_bytes, given.client_bytes);
    put(&mut sessions.log_bytes, given.log_bytes);
    put(&mut settings.web.peer, args.web.web_peer.map(|switch| switch == Switch::On));
    put(&mut settings.web.proxy, args.web.web_proxy.map(|switch| switch == Switch::On));
    something(&previous, &settings, "settings edit")?;
    control.tell(Call::UpdateSettings { previous, settings: settings.clone() })?;
    context.done(&settings, "Changed the settings.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::exactly;
    use clap::Args as _;
    use model::settings::SessionLimits;

    /// Help and `settings show` speak of the same numbers in the same way.
    #[test]
    fn the_help_tells_the_defaults() {
        let help = Sessions::augment_args(clap::Command::new("x")).render_help().to_string();
        let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let limits = SessionLimits::default();
        for size in [limits.bytes, limits.client_bytes, limits.log_bytes] {
            assert!(flat.contains(&format!("(default {})", exactly(size))), "{size}: {flat}");
        }
        for number in [
            limits.start_seconds,
            limits.idle_seconds,
            limits.total_seconds,
            limits.grace_seconds,
            limits.bytes_per_second,
            limits.client_archives,
        ] {
            assert!(flat.contains(&format!("(default {number}")), "{number}: {flat}");
        }
    }
}
