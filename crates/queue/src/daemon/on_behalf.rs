//! What users of the status pages may do: one table, and what no role allows.
//!
//! The status daemon listens to the network. Whatever it hands on is done as the user whose credential it shows, is limited by that user's role,
//! and never is anything that makes a client or this server run a command: a stolen token must not become root everywhere.

use super::Daemon;
use super::errors::{from_store, refuse};
use super::rates::{BURST, Rate};
use model::client::{KeyUse, Road};
use model::schedule::Action;
use model::web_user::{Credential, LEAST_GRACE_HOURS, Role, SignInWay, identify};
use model::{BackupConfig, Client, Connection, Policy, Schedule, Timestamp, WebUser, Work};
use std::time::Instant;
use store::{Read, Result};
use wire::control::{Call, ControlError, ErrorKind};

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
        Call::GetSpace { .. } => READ,
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
            } else if before.key == KeyUse::Job && after.key == KeyUse::Permanent {
                // Job keys come with the server's host key; otherwise the client's own configuration says whom it trusts.
                Change::Refused("that a client comes with a permanent key")
            } else if before.server != after.server && after.key == KeyUse::Permanent && after.road == Road::Back {
                Change::Refused("where a client with a permanent key sends its backups")
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

/// A policy whose decisions stay may keep the shorter grace period that it was given on the server; with other rules, archives would go at once.
fn short_grace(policy: &Policy, previous: Option<&Policy>) -> Option<String> {
    let decides_anew = previous.is_none_or(|previous| previous.decides_otherwise(policy));
    (decides_anew && policy.grace_hours < LEAST_GRACE_HOURS)
        .then(|| format!("on the web a grace period is at least {LEAST_GRACE_HOURS} hours"))
}

/// Whether `user` may have this done.
fn judge(user: &WebUser, call: &Call, r: &Read<'_>) -> Result<std::result::Result<(), ControlError>> {
    let denied = |why: String| Ok(Err(refuse(ErrorKind::PermissionDenied, why)));
    match needs(call) {
        Need::Never(what) => denied(format!("{what} is not done on the web; use the command borgcube on the server")),
        Need::Role(role) if user.role < role => {
            denied(format!("{} is {}; this takes the role {role}", user.name, user.role.with_article()))
        }
        Need::Role(_) if user.role < Role::Administrator && prunes(r, call)? => denied(format!(
            "{} is {}; the schedule prunes, and that takes the role {}",
            user.name,
            user.role.with_article(),
            Role::Administrator
        )),
        Need::Role(_) => match forbidden(r, call)? {
            Some(why) => denied(why),
            None => Ok(Ok(())),
        },
    }
}

/// Whether a schedule is run or switched that lets archives go.
fn prunes(r: &Read<'_>, call: &Call) -> Result<bool> {
    let schedule = match call {
        Call::RunSchedule { name } => r.schedules().get(name)?,
        Call::UpdateSchedule { schedule, .. } => Some((**schedule).clone()),
        _ => None,
    };
    Ok(schedule.is_some_and(|schedule| schedule.actions.iter().any(|action| matches!(action, Action::Prune { .. }))))
}

/// On an installed server clients come with job keys, unless somebody at the server wants it otherwise.
fn is_unpinned(call: &Call) -> bool {
    let Call::AddClient { client } = call else { return false };
    matches!(&client.connection, Connection::Ssh(ssh) if ssh.key == KeyUse::Permanent && ssh.road == Road::Back)
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
        let mut judged = self.store.read(|r| judge(user, call, r)).map_err(from_store)?;
        if judged.is_ok() && self.layout.is_installed() && is_unpinned(call) {
            let why = "a client that comes with a permanent key cannot be added on the web; use the command borgcube on the server";
            judged = Err(refuse(ErrorKind::PermissionDenied, why));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use model::web_user::{SignIn, TokenHash};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use store::Store;
    use wire::control::{DESCRIPTION, INTERFACE};

    fn call(method: &str, parameters: Value) -> Call {
        let method = if method.contains('.') { method.to_owned() } else { format!("{INTERFACE}.{method}") };
        serde_json::from_value(json!({ "method": method, "parameters": parameters })).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    fn client() -> Value {
        json!({ "name": "web1", "created": 0, "connection": { "kind": "ssh", "remote": "root@web1", "server": "borgcube-ssh@backup" } })
    }

    fn config() -> Value {
        json!({ "client": "web1", "label": "etc", "repository": "main", "paths": ["/etc"], "created": 0 })
    }

    fn policy(grace: u32) -> Value {
        json!({ "name": "p", "minimum": 3, "zone": "UTC", "most_per_day": 48, "grace_hours": grace, "applies": [], "created": 0, "within": "7d" })
    }

    fn schedule(enabled: bool, actions: &Value) -> Value {
        let now = Timestamp(1_795_287_991_055_717);
        let recurrence = model::Recurrence::parse("DTSTART;TZID=UTC:20261101T023000 RRULE:FREQ=DAILY", "UTC", now).unwrap();
        json!({ "name": "nightly", "recurrence": recurrence, "enabled": enabled, "actions": actions, "handled": 0, "created": 0 })
    }

    fn web_user(role: Role) -> WebUser {
        let sign_in = SignIn::Token { hash: TokenHash::of(&model::token::Token::from_random([1; 32])) };
        WebUser {
            name: "alice".parse().unwrap(),
            role,
            sign_in,
            enabled: true,
            created: Timestamp(0),
            expires: None,
            comment: String::new(),
        }
    }

    /// Every call, in the way that it is permitted to most people.
    fn calls() -> Vec<(Call, &'static str)> {
        let (run, both) =
            (json!([{ "kind": "run-config", "config": "web1/etc" }]), |what: &str, value: Value| json!({ "previous": value, what: value }));
        let check = json!({
            "name": "c", "repositories": { "named": "main" }, "created": 0, "structure": true, "archives": true, "data": false, "promise_hours": 336
        });
        let restore = json!({ "archive": "a", "id": "00".repeat(32), "of": "web1", "target": "new" });
        let settings = json!({ "server_id": "a", "limits": { "per_client": 1, "per_repository": 4, "total": 16 } });
        let repository = json!({ "name": "main", "url": "/srv", "repository_id": "ab".repeat(32), "encryption": "none", "created": 0 });
        let trigger = json!({ "id": "a5".repeat(16), "access": "local-cli", "enabled": true, "created": 0, "target": { "kind": "config", "config": "web1/etc" } });
        let user = serde_json::to_value(web_user(Role::Viewer)).unwrap();
        let archives = json!([{ "repository": "main", "id": "00".repeat(32) }]);
        let all = [
            ("org.varlink.service.GetInfo", json!({}), "never"),
            ("org.varlink.service.GetInterfaceDescription", json!({ "interface": "x" }), "never"),
            ("GetStatus", json!({}), "never"),
            ("ListRepositories", json!({}), "never"),
            ("AddRepository", json!({ "repository": repository }), "never"),
            ("UpdateRepository", both("repository", repository), "never"),
            ("RemoveRepository", json!({ "name": "main" }), "never"),
            ("ListClients", json!({}), "never"),
            ("AddClient", json!({ "client": client() }), "administrator"),
            ("UpdateClient", both("client", client()), "administrator"),
            ("RemoveClient", json!({ "name": "web1" }), "administrator"),
            ("ListConfigs", json!({}), "never"),
            ("AddConfig", json!({ "config": config() }), "administrator"),
            ("UpdateConfig", both("config", config()), "administrator"),
            ("RemoveConfig", json!({ "name": "web1/etc" }), "administrator"),
            ("RunConfig", json!({ "config": "web1/etc" }), "operator"),
            ("RunMaintenance", json!({ "repository": "main", "work": { "kind": "compact", "threshold": 10 } }), "operator"),
            ("RunMaintenance", json!({ "repository": "main", "work": { "kind": "check", "verify_data": true } }), "operator"),
            ("RunMaintenance", json!({ "repository": "main", "work": { "kind": "prune", "compact": true } }), "administrator"),
            (
                "RunMaintenance",
                json!({ "repository": "main", "work": { "kind": "import", "import": { "which": "all", "attribution": "by-name" } } }),
                "never",
            ),
            ("RunMaintenance", json!({ "repository": "main", "work": { "kind": "backup", "client": "web1", "label": "etc" } }), "never"),
            ("Restore", json!({ "repository": "main", "client": "web1", "restore": restore }), "never"),
            ("RunRestoreTest", json!({ "client": "web1", "test": { "bytes": 1 } }), "operator"),
            ("ListRestoreTests", json!({}), "never"),
            ("ListJobs", json!({ "filter": {} }), "never"),
            ("GetJob", json!({ "job": 1 }), "never"),
            ("CancelJob", json!({ "job": 1 }), "operator"),
            ("GetJobLog", json!({ "job": 1 }), "never"),
            ("Watch", json!({}), "never"),
            ("ListArchives", json!({ "filter": {} }), "never"),
            ("GetLog", json!({ "limit": 1 }), "never"),
            ("Undo", json!({ "transaction": 1 }), "never"),
            ("GetSettings", json!({}), "never"),
            ("UpdateSettings", both("settings", settings), "never"),
            ("ListSchedules", json!({}), "never"),
            ("AddSchedule", json!({ "schedule": schedule(true, &run) }), "administrator"),
            ("UpdateSchedule", json!({ "previous": schedule(true, &run), "schedule": schedule(false, &run) }), "operator"),
            ("UpdateSchedule", json!({ "previous": schedule(true, &run), "schedule": schedule(false, &json!([])) }), "administrator"),
            ("RemoveSchedule", json!({ "name": "nightly" }), "administrator"),
            ("RunSchedule", json!({ "name": "nightly" }), "operator"),
            ("NextOccurrences", json!({}), "never"),
            ("ListOccurrences", json!({ "filter": {} }), "never"),
            ("ListTriggers", json!({}), "never"),
            ("AddTrigger", json!({ "access": "local-cli", "target": trigger["target"], "enabled": true }), "never"),
            ("UpdateTrigger", both("trigger", trigger), "never"),
            ("RemoveTrigger", json!({ "id": "a5".repeat(16) }), "never"),
            ("FireTrigger", json!({ "id": "x", "context": "anonymous-web" }), "never"),
            ("ListPolicies", json!({}), "never"),
            ("AddPolicy", json!({ "policy": policy(168) }), "administrator"),
            ("UpdatePolicy", both("policy", policy(168)), "administrator"),
            ("RemovePolicy", json!({ "name": "p" }), "administrator"),
            ("ConfirmPolicy", json!({ "name": "p" }), "administrator"),
            ("PreviewRetention", json!({ "filter": {} }), "never"),
            ("PruneArchives", json!({ "filter": {} }), "administrator"),
            ("HoldArchives", json!({ "archives": archives }), "operator"),
            ("ReleaseArchives", json!({ "archives": archives }), "administrator"),
            ("DeleteArchives", json!({ "archives": archives }), "administrator"),
            ("UndeleteArchives", json!({ "archives": archives, "hold": true }), "operator"),
            ("GetConfiguration", json!({}), "never"),
            ("ApplyConfiguration", json!({ "base": 0, "changes": [], "note": "" }), "never"),
            ("ListCheckConfigs", json!({}), "never"),
            ("AddCheckConfig", json!({ "config": check }), "administrator"),
            ("UpdateCheckConfig", both("config", check), "administrator"),
            ("RemoveCheckConfig", json!({ "name": "c" }), "administrator"),
            ("ListHealth", json!({}), "never"),
            ("GetSpace", json!({ "name": "main" }), "never"),
            ("ListWebUsers", json!({}), "never"),
            ("AddWebUser", json!({ "name": "eve", "role": "administrator", "sign_in": "token" }), "never"),
            ("UpdateWebUser", both("user", user), "never"),
            ("RenewWebToken", json!({ "name": "alice" }), "never"),
            ("RemoveWebUser", json!({ "name": "alice" }), "never"),
            (
                "OnBehalf",
                json!({ "credential": { "kind": "token", "token": "x" }, "call": { "method": format!("{INTERFACE}.CancelJob"), "parameters": { "job": 1 } } }),
                "never",
            ),
            ("Wake", json!({}), "never"),
        ];
        let described: BTreeSet<&str> = DESCRIPTION
            .lines()
            .filter_map(|line| line.strip_prefix("method ")?.split('(').next())
            .chain(["GetInfo", "GetInterfaceDescription"])
            .collect();
        let listed: BTreeSet<&str> = all.iter().filter_map(|(method, ..)| method.rsplit('.').next()).collect();
        assert_eq!(listed, described, "a call is missing in this test");
        all.into_iter().map(|(method, parameters, takes)| (call(method, parameters), takes)).collect()
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("db")).unwrap();
        (directory, store)
    }

    #[test]
    fn each_call_takes_its_role_and_most_are_for_nobody() {
        let (_directory, store) = store();
        for (call, takes) in calls() {
            let least = match needs(&call) {
                Need::Never(_) => "never",
                Need::Role(role) => role.as_str(),
            };
            assert_eq!(least, takes, "{call:?}");
            for role in Role::ALL {
                let judged = store.read(|r| judge(&web_user(role), &call, r)).unwrap();
                let may = takes != "never" && role >= takes.parse().unwrap();
                assert_eq!(judged.is_ok(), may, "{role} {call:?}: {judged:?}");
                assert!(judged.err().is_none_or(|e| e.kind == ErrorKind::PermissionDenied));
            }
        }
    }

    #[test]
    fn what_runs_commands_is_not_changed_on_the_web() {
        let (_directory, store) = store();
        let refused = |method: &str, parameters: Value| {
            let call = call(method, parameters);
            let judged = store.read(|r| judge(&web_user(Role::Administrator), &call, r)).unwrap();
            judged.expect_err(method).message
        };
        let with = |value: Value, pointer: &str, to: Value| {
            let mut value = value;
            let (place, name) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(place).unwrap()[name] = to;
            value
        };
        let dangerous = [
            ("/connection/rsh", json!("sh -c id")),
            ("/connection/rsh_options", json!(["-oProxyCommand=id"])),
            ("/connection/client_rsh", json!("sh -c id")),
            ("/connection/remote_borg", json!("/tmp/x")),
            ("/connection/remote_cache_dir", json!("/root/.ssh")),
            ("/connection/ssh_identity_file", json!("/root/.ssh/id_ed25519")),
            ("/connection", json!({ "kind": "local" })),
        ];
        for (pointer, to) in dangerous {
            let changed = with(client(), pointer, to);
            assert!(refused("AddClient", json!({ "client": changed })).contains("cannot be set on the web"), "{pointer}");
            // Neither put in nor taken out.
            refused("UpdateClient", json!({ "previous": client(), "client": changed }));
            refused("UpdateClient", json!({ "previous": changed, "client": client() }));
        }
        let hooks = json!([{ "name": "h", "before": "id", "seconds": 1 }]);
        let dumps = json!([{ "name": "d", "command": "id", "seconds": 1 }]);
        let dangerous = [("/extra_options", json!(["--content-from-comm"])), ("/hooks", hooks.clone()), ("/dumps", dumps)];
        for (pointer, to) in dangerous {
            let changed = with(config(), pointer, to);
            refused("AddConfig", json!({ "config": changed }));
            refused("UpdateConfig", json!({ "previous": config(), "config": changed }));
            refused("UpdateConfig", json!({ "previous": changed, "config": config() }));
        }
        // Where backups go is pinned by job keys, and stays so.
        let permanent = with(client(), "/connection/key", json!("permanent"));
        refused("UpdateClient", json!({ "previous": client(), "client": permanent }));
        refused(
            "UpdateClient",
            json!({ "previous": permanent, "client": with(permanent.clone(), "/connection/server", json!("mallory@elsewhere")) }),
        );
        assert!(
            is_unpinned(&call("AddClient", json!({ "client": permanent })))
                && !is_unpinned(&call("AddClient", json!({ "client": client() })))
        );
        // What is there already stays, and the rest can be changed.
        let old = with(with(config(), "/hooks", hooks), "/extra_options", json!(["--noatime"]));
        let edited = with(old.clone(), "/paths", json!(["/etc", "/srv"]));
        let edit = call("UpdateConfig", json!({ "previous": old, "config": edited }));
        assert!(store.read(|r| judge(&web_user(Role::Administrator), &edit, r)).unwrap().is_ok());
        // A client moves, unless that would have its hooks run elsewhere.
        let moved =
            call("UpdateClient", json!({ "previous": client(), "client": with(client(), "/connection/remote", json!("root@other")) }));
        assert!(store.read(|r| judge(&web_user(Role::Administrator), &moved, r)).unwrap().is_ok());
        let hooked: BackupConfig = serde_json::from_value(old).unwrap();
        store.write("config", "root", |w| w.configs().insert(&hooked)).unwrap();
        let judged = store.read(|r| judge(&web_user(Role::Administrator), &moved, r)).unwrap();
        assert!(judged.unwrap_err().message.contains("would run on another host"));
    }

    #[test]
    fn operators_start_no_schedule_that_prunes() {
        let (_directory, store) = store();
        let prune = json!([{ "kind": "prune" }]);
        let schedule: Schedule = serde_json::from_value(schedule(true, &prune)).unwrap();
        store.write("schedule", "root", |w| w.schedules().insert(&schedule)).unwrap();
        let disabled = Schedule { enabled: false, ..schedule.clone() };
        let calls = [
            call("RunSchedule", json!({ "name": "nightly" })),
            call("UpdateSchedule", json!({ "previous": schedule, "schedule": disabled })),
        ];
        for call in calls {
            let judged = |role| store.read(|r| judge(&web_user(role), &call, r)).unwrap();
            assert!(judged(Role::Operator).unwrap_err().message.contains("the schedule prunes"));
            assert!(judged(Role::Administrator).is_ok());
        }
    }

    #[test]
    fn archives_do_not_go_at_once() {
        let (_directory, store) = store();
        let judged = |call: &Call| store.read(|r| judge(&web_user(Role::Administrator), call, r)).unwrap().is_ok();
        let delete = |hours: u32| call("DeleteArchives", json!({ "archives": [], "grace_hours": hours }));
        assert!(!judged(&delete(0)) && !judged(&delete(23)) && judged(&delete(24)));
        let update = |before: u32, after: u32| call("UpdatePolicy", json!({ "previous": policy(before), "policy": policy(after) }));
        assert!(!judged(&update(168, 0)) && !judged(&update(12, 6)));
        assert!(judged(&update(168, 24)) && judged(&update(12, 12)) && judged(&update(0, 48)));
        // With a shorter one, its rules stay as they are.
        let mut wider = policy(12);
        wider["minimum"] = json!(1);
        assert!(!judged(&call("UpdatePolicy", json!({ "previous": policy(12), "policy": wider }))));
        assert!(!judged(&call("AddPolicy", json!({ "policy": policy(1) }))));
    }
}
