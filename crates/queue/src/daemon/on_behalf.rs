//! What users of the status pages may do: one table, and what no role allows.
//!
//! The status daemon listens to the network. Whatever it hands on is done as the user whose credential it shows, is limited by that user's role,
//! and never is anything that makes a client or this server run a command: a stolen token must not become root everywhere.

use super::Daemon;
use super::errors::{from_store, refuse};
use super::rates::{BURST, Rate};
use model::web_user::{Credential, Role, SignInWay, identify};
use model::{BackupConfig, Client, Connection, Policy, Schedule, Timestamp, WebUser, Work};
use std::time::Instant;
use store::{Read, Result};
use wire::control::{Call, ControlError, ErrorKind};

/// Archives that go by order of somebody on the web can be brought back for at least so many hours.
pub const LEAST_GRACE_HOURS: u32 = 24;

/// What a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// This role, or one above it.
    Role(Role),
    /// It cannot be done on the web; the words say what cannot.
    Never(&'static str),
}

/// The table. A new call has to be put into it.
pub fn needs(call: &Call) -> Need {
    use Need::Never;
    const OPERATOR: Need = Need::Role(Role::Operator);
    const ADMINISTRATOR: Need = Need::Role(Role::Administrator);
    const READ: Need = Never("reading records; the status daemon does that by itself");
    match call {
        Call::RunConfig { .. } | Call::RunRestoreTest { .. } | Call::RunSchedule { .. } | Call::CancelJob { .. } => OPERATOR,
        Call::RunMaintenance { work: Work::Check { .. } | Work::Compact { .. }, .. } => OPERATOR,
        Call::RunMaintenance { work: Work::Prune { .. }, .. } => ADMINISTRATOR,
        Call::RunMaintenance { .. } => Never("importing archives"),
        Call::HoldArchives { .. } | Call::UndeleteArchives { .. } => OPERATOR,
        // These let archives go.
        Call::ReleaseArchives { .. } | Call::DeleteArchives { .. } | Call::PruneArchives { .. } | Call::ConfirmPolicy { .. } => {
            ADMINISTRATOR
        }
        Call::UpdateSchedule { previous, schedule } if only_switches(previous, schedule) => OPERATOR,
        Call::AddSchedule { .. } | Call::UpdateSchedule { .. } | Call::RemoveSchedule { .. } => ADMINISTRATOR,
        Call::AddClient { .. } | Call::UpdateClient { .. } | Call::RemoveClient { .. } => ADMINISTRATOR,
        Call::AddConfig { .. } | Call::UpdateConfig { .. } | Call::RemoveConfig { .. } => ADMINISTRATOR,
        Call::AddPolicy { .. } | Call::UpdatePolicy { .. } | Call::RemovePolicy { .. } => ADMINISTRATOR,
        Call::AddCheckConfig { .. } | Call::UpdateCheckConfig { .. } | Call::RemoveCheckConfig { .. } => ADMINISTRATOR,
        Call::Restore { .. } => Never("restoring to a client, which writes files there"),
        Call::AddRepository { .. } | Call::UpdateRepository { .. } | Call::RemoveRepository { .. } => Never("changing repositories"),
        Call::UpdateSettings { .. } => Never("changing the settings"),
        Call::Undo { .. } => Never("undo"),
        Call::ApplyConfiguration(_) => Never("applying a configuration"),
        Call::AddTrigger { .. } | Call::UpdateTrigger { .. } | Call::RemoveTrigger { .. } => Never("changing triggers"),
        Call::FireTrigger { .. } => Never("using a trigger for somebody; whoever knows its id uses it"),
        Call::AddWebUser { .. } | Call::UpdateWebUser { .. } | Call::RenewWebToken { .. } | Call::RemoveWebUser { .. } => {
            Never("changing users of the status pages")
        }
        Call::OnBehalf { .. } => Never("acting for somebody who acts for somebody"),
        Call::Wake {} => Never("waking borgcubed"),
        Call::GetInfo {} | Call::GetInterfaceDescription { .. } | Call::GetStatus {} | Call::GetSettings {} | Call::GetConfiguration {} => {
            READ
        }
        Call::ListRepositories {} | Call::ListClients {} | Call::ListConfigs {} | Call::ListSchedules {} | Call::ListTriggers {} => READ,
        Call::ListPolicies {} | Call::ListCheckConfigs {} | Call::ListHealth {} | Call::ListWebUsers {} | Call::ListRestoreTests {} => READ,
        Call::ListJobs { .. } | Call::GetJob { .. } | Call::GetJobLog { .. } | Call::Watch { .. } | Call::GetLog { .. } => READ,
        Call::ListArchives { .. } | Call::NextOccurrences { .. } | Call::ListOccurrences { .. } | Call::PreviewRetention { .. } => READ,
    }
}

/// The schedule is enabled or disabled, and nothing else.
fn only_switches(previous: &Schedule, schedule: &Schedule) -> bool {
    Schedule { enabled: previous.enabled, ..schedule.clone() } == *previous
}

/// What would make a client or this server run something else than before, or make archives go at once, as a sentence; None: it does not.
fn forbidden(r: &Read<'_>, call: &Call) -> Result<Option<String>> {
    let by_hand = |what: &str| Some(format!("{what} cannot be set on the web; use the command borgcube on the server"));
    Ok(match call {
        Call::AddClient { client } => new_connection(client).and_then(by_hand),
        Call::UpdateClient { previous, client } => match changed_connection(previous, client) {
            Change::Refused(what) => by_hand(what),
            Change::Moved if r.configs().of_client(&client.name)?.iter().any(|config| !config.commands.is_empty()) => Some(format!(
                "client {} has hooks or dumps, which would run on another host then: use borgcube client edit on the server",
                client.name
            )),
            Change::Moved | Change::None => None,
        },
        Call::AddConfig { config } => {
            let nothing = BackupConfig { commands: Default::default(), extra_options: vec![], ..(*config).clone() };
            changed_commands(&nothing, config).and_then(by_hand)
        }
        Call::UpdateConfig { previous, config } => changed_commands(previous, config).and_then(by_hand),
        Call::AddPolicy { policy } => short_grace(policy, None),
        Call::UpdatePolicy { previous, policy } => short_grace(policy, Some(previous)),
        Call::DeleteArchives { grace_hours: Some(hours), .. } if *hours < LEAST_GRACE_HOURS => {
            Some(format!("on the web a grace period is at least {LEAST_GRACE_HOURS} hours"))
        }
        _ => None,
    })
}

fn new_connection(client: &Client) -> Option<&'static str> {
    match &client.connection {
        Connection::Local { .. } => Some("a client that is this machine itself"),
        Connection::Ssh(ssh) if ssh.rsh.is_some() || !ssh.rsh_options.is_empty() || ssh.client_rsh.is_some() => {
            Some("an SSH command or SSH options")
        }
        Connection::Ssh(ssh) if ssh.ssh_identity_file.is_some() || !client.keys.is_empty() => Some("an SSH key"),
        Connection::Ssh(ssh) if ssh.remote_borg.is_some() => Some("the borg program of a client"),
        Connection::Ssh(ssh) if ssh.remote_cache_dir.is_some() => Some("the cache directory of a client"),
        Connection::Ssh(_) => None,
    }
}

enum Change {
    None,
    /// It is reached elsewhere, or on another road.
    Moved,
    Refused(&'static str),
}

fn changed_connection(previous: &Client, client: &Client) -> Change {
    if previous.keys != client.keys {
        return Change::Refused("an SSH key");
    }
    match (&previous.connection, &client.connection) {
        (before, after) if before == after => Change::None,
        (Connection::Ssh(before), Connection::Ssh(after)) => {
            if (&before.rsh, &before.rsh_options, &before.client_rsh) != (&after.rsh, &after.rsh_options, &after.client_rsh) {
                Change::Refused("an SSH command or SSH options")
            } else if before.ssh_identity_file != after.ssh_identity_file {
                Change::Refused("an SSH key")
            } else if before.remote_borg != after.remote_borg {
                Change::Refused("the borg program of a client")
            } else if before.remote_cache_dir != after.remote_cache_dir {
                Change::Refused("the cache directory of a client")
            } else {
                Change::Moved
            }
        }
        _ => Change::Refused("whether a client is this machine itself"),
    }
}

fn changed_commands(previous: &BackupConfig, config: &BackupConfig) -> Option<&'static str> {
    if previous.commands != config.commands {
        Some("a hook or a dump")
    } else if previous.extra_options != config.extra_options {
        Some("a further option of borg create")
    } else {
        None
    }
}

/// A policy may keep the grace period that it has.
fn short_grace(policy: &Policy, previous: Option<&Policy>) -> Option<String> {
    let least = previous.map_or(LEAST_GRACE_HOURS, |previous| previous.grace_hours.min(LEAST_GRACE_HOURS));
    (policy.grace_hours < least).then(|| format!("on the web a grace period is at least {LEAST_GRACE_HOURS} hours"))
}

/// Whether `user` may have this done.
fn judge(user: &WebUser, call: &Call, r: &Read<'_>) -> Result<std::result::Result<(), ControlError>> {
    let denied = |why: String| Ok(Err(refuse(ErrorKind::PermissionDenied, why)));
    match needs(call) {
        Need::Never(what) => denied(format!("{what} is not done on the web; use the command borgcube on the server")),
        Need::Role(role) if user.role < role => denied(format!("{} is a {}; this takes the role {role}", user.name, user.role)),
        Need::Role(_) => match forbidden(r, call)? {
            Some(why) => denied(why),
            None => Ok(Ok(())),
        },
    }
}

impl Daemon {
    /// Who is behind a credential, if it may have `call` carried out: how the transaction log names that user. `carrier` handed it on.
    pub(super) fn may(&mut self, credential: &Credential, call: &Call, carrier: &str) -> std::result::Result<String, ControlError> {
        let now = Timestamp::now();
        let settings = self.settings.web;
        let users = self.store.read(|r| r.web_users().list()).map_err(from_store)?;
        let user = match identify(&users, settings, credential, now) {
            Ok(user) => user,
            Err(refusal) => {
                let way = way(credential);
                match self.rates.of_wrong_credential(Instant::now()) {
                    Rate::Within => log::warn!("web: a {way} from {carrier} was refused: {}", unix::logging::escape(&refusal.to_string())),
                    Rate::Told(untold) => {
                        log::warn!(
                            "web: credentials from {carrier} were refused more than {BURST} times in a minute; {untold} before have no line here"
                        );
                    }
                    Rate::Untold => {}
                }
                return Err(refuse(ErrorKind::Unauthenticated, refusal.to_string()));
            }
        };
        let judged = self.store.read(|r| judge(user, call, r)).map_err(from_store)?;
        let actor = user.actor();
        match judged {
            Ok(()) => Ok(actor),
            Err(error) => {
                self.complain(&format!("{actor} was refused: {}", unix::logging::escape(&error.message)));
                Err(error)
            }
        }
    }
}

fn way(credential: &Credential) -> SignInWay {
    match credential {
        Credential::Token { .. } => SignInWay::Token,
        Credential::Peer { .. } => SignInWay::Peer,
        Credential::Proxy { .. } => SignInWay::Proxy,
    }
}
