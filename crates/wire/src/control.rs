//! The control socket: Varlink methods of the interface `org.borgcube.Control`.
//!
//! A request is `{"method": "org.borgcube.Control.RunConfig", "parameters": {..}, "more": true?}`, a reply
//! `{"parameters": {..}, "continues": true?}` or `{"error": "org.borgcube.Control.NotFound", "parameters": {"message": ".."}}`.

pub use crate::answers::{
    Archives, CheckConfigs, Clients, Configs, Healths, Info, JobDetail, JobLog, JobNumber, Jobs, ListedJob, ListedTests, LogEntries,
    LogEntry, Occupied, Repositories, RestoreTests, Status, Undone,
};
pub use crate::configuration::{Applied, Changes, Configured};
pub use crate::retention::{
    ArchiveRef, Confirmed, DueArchives, Policies, Preview, PreviewedArchive, PreviewedGroup, Pruned, RefusedRepository, RetentionFilter,
    StoppedGroup, StoredPolicy,
};
pub use crate::scheduling::{AddedTrigger, Due, History, ListedSchedule, OccurrenceFilter, Ran, Schedules, Triggers, Upcoming};
pub use crate::space::{ArchivePlace, ArchiveSums, RepositorySpace};
pub use crate::web::{IssuedUser, WebUsers};
use model::progress::Progress;
use model::restore::Restore;
use model::restore_test::RestoreTest;
use model::trigger::{AccessContext, TriggerTarget};
use model::web_user::{Credential, Role, SignInWay};
use model::{
    BackupConfig, CheckConfig, CheckName, Client, ClientName, ConfigName, Job, JobKind, JobState, Label, Repository, RepositoryName,
    Settings,
};
use model::{Policy, PolicyName, Schedule, ScheduleName, Timestamp, Trigger, TriggerId, UserName, WebUser, Work};
use serde::{Deserialize, Serialize};

/// The interface's name.
pub const INTERFACE: &str = "org.borgcube.Control";

/// The interface description that `org.varlink.service.GetInterfaceDescription` returns.
pub const DESCRIPTION: &str = include_str!("org.borgcube.Control.varlink");

/// A request as it arrives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The method and its parameters.
    #[serde(flatten)]
    pub call: Call,
    /// The caller accepts several replies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A reply as it is sent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The answer, or the error's details.
    #[serde(default)]
    pub parameters: serde_json::Value,
    /// Another reply will follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
    /// The error's qualified name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "parameters")]
pub enum Call {
    /// What this service is (Varlink's own).
    #[serde(rename = "org.varlink.service.GetInfo")]
    GetInfo {},
    /// What it can do (Varlink's own).
    #[serde(rename = "org.varlink.service.GetInterfaceDescription")]
    GetInterfaceDescription {
        /// The interface.
        interface: String,
    },
    /// -> [`Status`]
    #[serde(rename = "org.borgcube.Control.GetStatus")]
    GetStatus {},
    /// -> [`Repositories`]
    #[serde(rename = "org.borgcube.Control.ListRepositories")]
    ListRepositories {},
    /// -> {}
    #[serde(rename = "org.borgcube.Control.AddRepository")]
    AddRepository {
        /// The new record.
        repository: Repository,
    },
    /// -> {}; refused when the stored record is not `previous` any more.
    #[serde(rename = "org.borgcube.Control.UpdateRepository")]
    UpdateRepository {
        /// As the caller read it.
        previous: Repository,
        /// As it shall be.
        repository: Repository,
    },
    /// -> {}; removes the record (and those of its archives), never data.
    #[serde(rename = "org.borgcube.Control.RemoveRepository")]
    RemoveRepository {
        /// Its name.
        name: RepositoryName,
    },
    /// -> [`Clients`]
    #[serde(rename = "org.borgcube.Control.ListClients")]
    ListClients {},
    /// -> {}
    #[serde(rename = "org.borgcube.Control.AddClient")]
    AddClient {
        /// The new record.
        client: Client,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.UpdateClient")]
    UpdateClient {
        /// As the caller read it.
        previous: Client,
        /// As it shall be.
        client: Client,
    },
    /// -> {}; refused while it has configs.
    #[serde(rename = "org.borgcube.Control.RemoveClient")]
    RemoveClient {
        /// Its name.
        name: ClientName,
    },
    /// -> [`Configs`]
    #[serde(rename = "org.borgcube.Control.ListConfigs")]
    ListConfigs {},
    /// -> {}
    #[serde(rename = "org.borgcube.Control.AddConfig")]
    AddConfig {
        /// The new record.
        config: BackupConfig,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.UpdateConfig")]
    UpdateConfig {
        /// As the caller read it.
        previous: BackupConfig,
        /// As it shall be.
        config: BackupConfig,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.RemoveConfig")]
    RemoveConfig {
        /// Its name.
        name: ConfigName,
    },
    /// -> [`JobNumber`]
    #[serde(rename = "org.borgcube.Control.RunConfig")]
    RunConfig {
        /// Which.
        config: ConfigName,
        /// The archive's name, where the caller wants a certain one.
        #[serde(default)]
        archive_name: Option<String>,
        /// Try it again later when it fails for a cause that deserves it.
        #[serde(default)]
        retry: bool,
    },
    /// -> [`JobNumber`]
    #[serde(rename = "org.borgcube.Control.RunMaintenance")]
    RunMaintenance {
        /// On which repository.
        repository: RepositoryName,
        /// What: a check or a compact.
        work: Work,
        /// Try it again later when it fails for a cause that deserves it.
        #[serde(default)]
        retry: bool,
    },
    /// -> [`JobNumber`]: a client extracts an archive
    #[serde(rename = "org.borgcube.Control.Restore")]
    Restore {
        /// Where the archive is.
        repository: RepositoryName,
        /// The client that is restored to.
        client: ClientName,
        /// What, and where to.
        restore: Box<Restore>,
    },
    /// -> [`JobNumber`]: a sample of an archive is extracted on the server, and compared
    #[serde(rename = "org.borgcube.Control.RunRestoreTest")]
    RunRestoreTest {
        /// Whose archive.
        client: ClientName,
        /// Where the archive is. None: where the config's archives go, or where the client's newest one is.
        #[serde(default)]
        repository: Option<RepositoryName>,
        /// What, and with what it is compared.
        test: Box<RestoreTest>,
        /// Try it again later when it fails for a cause that deserves it.
        #[serde(default)]
        retry: bool,
    },
    /// -> [`RestoreTests`]
    #[serde(rename = "org.borgcube.Control.ListRestoreTests")]
    ListRestoreTests {},
    /// -> [`Jobs`], newest first
    #[serde(rename = "org.borgcube.Control.ListJobs")]
    ListJobs {
        /// Which.
        filter: JobFilter,
    },
    /// -> [`JobDetail`]
    #[serde(rename = "org.borgcube.Control.GetJob")]
    GetJob {
        /// Its number.
        job: u64,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.CancelJob")]
    CancelJob {
        /// Its number.
        job: u64,
    },
    /// -> [`JobLog`], with `more` and `follow` until the job has ended
    #[serde(rename = "org.borgcube.Control.GetJobLog")]
    GetJobLog {
        /// Its number.
        job: u64,
        /// Go on until the job has ended.
        #[serde(default)]
        follow: bool,
    },
    /// -> [`EventReply`], with `more`: what happens from now on. The first reply of a watched job is its present state.
    #[serde(rename = "org.borgcube.Control.Watch")]
    Watch {
        /// Only this job's events; ends with the job.
        #[serde(default)]
        job: Option<u64>,
    },
    /// -> [`Archives`], newest first
    #[serde(rename = "org.borgcube.Control.ListArchives")]
    ListArchives {
        /// Which.
        filter: ArchiveFilter,
    },
    /// -> [`LogEntries`], newest first
    #[serde(rename = "org.borgcube.Control.GetLog")]
    GetLog {
        /// At most so many.
        limit: u32,
    },
    /// -> [`Undone`]
    #[serde(rename = "org.borgcube.Control.Undo")]
    Undo {
        /// The transaction to revert.
        transaction: u64,
    },
    /// -> [`Settings`]
    #[serde(rename = "org.borgcube.Control.GetSettings")]
    GetSettings {},
    /// -> {}
    #[serde(rename = "org.borgcube.Control.UpdateSettings")]
    UpdateSettings {
        /// As the caller read them.
        previous: Settings,
        /// As they shall be.
        settings: Settings,
    },
    /// -> [`Schedules`]
    #[serde(rename = "org.borgcube.Control.ListSchedules")]
    ListSchedules {},
    /// -> {}
    #[serde(rename = "org.borgcube.Control.AddSchedule")]
    AddSchedule {
        /// The new record.
        schedule: Schedule,
    },
    /// -> {}; how far its occurrences are dealt with is the server's own business and not compared.
    #[serde(rename = "org.borgcube.Control.UpdateSchedule")]
    UpdateSchedule {
        /// As the caller read it.
        previous: Box<Schedule>,
        /// As it shall be.
        schedule: Box<Schedule>,
    },
    /// -> {}; refused while a trigger or another schedule names it.
    #[serde(rename = "org.borgcube.Control.RemoveSchedule")]
    RemoveSchedule {
        /// Its name.
        name: ScheduleName,
    },
    /// -> [`Ran`]: all of its actions, now, whatever its recurrence says.
    #[serde(rename = "org.borgcube.Control.RunSchedule")]
    RunSchedule {
        /// Its name.
        name: ScheduleName,
    },
    /// -> [`Upcoming`], the earliest first
    #[serde(rename = "org.borgcube.Control.NextOccurrences")]
    NextOccurrences {
        /// Of this schedule, also if it is disabled. None: of all that are enabled.
        #[serde(default)]
        name: Option<ScheduleName>,
        /// At most so many; 0: 10.
        #[serde(default)]
        count: u32,
        /// Behind this moment. None: from now on.
        #[serde(default)]
        from: Option<Timestamp>,
        /// Up to this moment.
        #[serde(default)]
        until: Option<Timestamp>,
    },
    /// -> [`History`], newest first
    #[serde(rename = "org.borgcube.Control.ListOccurrences")]
    ListOccurrences {
        /// Which.
        filter: OccurrenceFilter,
    },
    /// -> [`Triggers`]
    #[serde(rename = "org.borgcube.Control.ListTriggers")]
    ListTriggers {},
    /// -> [`AddedTrigger`], with the id that was made for it
    #[serde(rename = "org.borgcube.Control.AddTrigger")]
    AddTrigger {
        /// From where it may be used.
        access: AccessContext,
        /// What it starts.
        target: TriggerTarget,
        /// Who got it, what for.
        #[serde(default)]
        comment: String,
        /// Whether it may be used.
        enabled: bool,
    },
    /// -> {}; when it was used last is not compared.
    #[serde(rename = "org.borgcube.Control.UpdateTrigger")]
    UpdateTrigger {
        /// As the caller read it.
        previous: Trigger,
        /// As it shall be.
        trigger: Trigger,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.RemoveTrigger")]
    RemoveTrigger {
        /// Its id.
        id: TriggerId,
    },
    /// -> [`Ran`]. Somebody anonymous gets one and the same error whatever the reason; the daemon's log has it.
    #[serde(rename = "org.borgcube.Control.FireTrigger")]
    FireTrigger {
        /// As it was given.
        id: String,
        /// From where.
        context: AccessContext,
    },
    /// -> [`Policies`]
    #[serde(rename = "org.borgcube.Control.ListPolicies")]
    ListPolicies {},
    /// -> [`StoredPolicy`]
    #[serde(rename = "org.borgcube.Control.AddPolicy")]
    AddPolicy {
        /// The new record.
        policy: Box<Policy>,
    },
    /// -> [`StoredPolicy`]. With other rules, what it has decided before is decided again: grace periods begin anew.
    #[serde(rename = "org.borgcube.Control.UpdatePolicy")]
    UpdatePolicy {
        /// As the caller read it.
        previous: Box<Policy>,
        /// As it shall be.
        policy: Box<Policy>,
    },
    /// -> {}; archives in a grace period that it began stay.
    #[serde(rename = "org.borgcube.Control.RemovePolicy")]
    RemovePolicy {
        /// Its name.
        name: PolicyName,
    },
    /// -> [`Confirmed`]: somebody has looked at what stopped pruning, and it goes on.
    #[serde(rename = "org.borgcube.Control.ConfirmPolicy")]
    ConfirmPolicy {
        /// Its name.
        name: PolicyName,
        /// For this config only.
        #[serde(default)]
        config: Option<ConfigName>,
    },
    /// -> [`Preview`], page by page
    #[serde(rename = "org.borgcube.Control.PreviewRetention")]
    PreviewRetention {
        /// Which archives.
        filter: Box<RetentionFilter>,
        /// Behind this config: the next page.
        #[serde(default)]
        after: Option<ConfigName>,
    },
    /// -> [`Pruned`]: the grace periods of what goes begin.
    #[serde(rename = "org.borgcube.Control.PruneArchives")]
    PruneArchives {
        /// Which archives.
        filter: Box<RetentionFilter>,
    },
    /// -> [`Archives`], as they are then. Held archives are deleted by nothing and nobody.
    #[serde(rename = "org.borgcube.Control.HoldArchives")]
    HoldArchives {
        /// Which.
        archives: Vec<ArchiveRef>,
        /// What for.
        #[serde(default)]
        reason: String,
    },
    /// -> [`Archives`]: policies decide about them again.
    #[serde(rename = "org.borgcube.Control.ReleaseArchives")]
    ReleaseArchives {
        /// Which.
        archives: Vec<ArchiveRef>,
    },
    /// -> [`Archives`]: they are deleted when their grace period is over.
    #[serde(rename = "org.borgcube.Control.DeleteArchives")]
    DeleteArchives {
        /// Which.
        archives: Vec<ArchiveRef>,
        /// Its length. None: as the policy has it that decides about an archive, or a week.
        #[serde(default)]
        grace_hours: Option<u32>,
    },
    /// -> [`Archives`]: they stay.
    #[serde(rename = "org.borgcube.Control.UndeleteArchives")]
    UndeleteArchives {
        /// Which.
        archives: Vec<ArchiveRef>,
        /// Hold them as well, so that no policy takes them again.
        hold: bool,
    },
    /// -> [`Configured`]
    #[serde(rename = "org.borgcube.Control.GetConfiguration")]
    GetConfiguration {},
    /// -> [`Applied`]: all of the changes in one transaction, or none.
    #[serde(rename = "org.borgcube.Control.ApplyConfiguration")]
    ApplyConfiguration(Box<Changes>),
    /// -> [`CheckConfigs`]
    #[serde(rename = "org.borgcube.Control.ListCheckConfigs")]
    ListCheckConfigs {},
    /// -> {}
    #[serde(rename = "org.borgcube.Control.AddCheckConfig")]
    AddCheckConfig {
        /// The new record.
        config: Box<CheckConfig>,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.UpdateCheckConfig")]
    UpdateCheckConfig {
        /// As the caller read it.
        previous: Box<CheckConfig>,
        /// As it shall be.
        config: Box<CheckConfig>,
    },
    /// -> {}; refused while a schedule names it.
    #[serde(rename = "org.borgcube.Control.RemoveCheckConfig")]
    RemoveCheckConfig {
        /// Its name.
        name: CheckName,
    },
    /// -> [`Healths`]: what checks have found, of repositories that were checked.
    #[serde(rename = "org.borgcube.Control.ListHealth")]
    ListHealth {},
    /// -> [`RepositorySpace`]: what a repository takes up, and sums over a page of its archives.
    #[serde(rename = "org.borgcube.Control.GetSpace")]
    GetSpace {
        /// Its name.
        name: RepositoryName,
        /// [`RepositorySpace::next`] of the page before.
        #[serde(default)]
        after: Option<ArchivePlace>,
    },
    /// -> [`WebUsers`]
    #[serde(rename = "org.borgcube.Control.ListWebUsers")]
    ListWebUsers {},
    /// -> [`IssuedUser`], with the token that was made for it
    #[serde(rename = "org.borgcube.Control.AddWebUser")]
    AddWebUser {
        /// The name.
        name: UserName,
        /// What it may do.
        role: Role,
        /// How it proves who it is.
        sign_in: SignInWay,
        /// From when on it may not sign in.
        #[serde(default)]
        expires: Option<Timestamp>,
        /// Who it is, what for.
        #[serde(default)]
        comment: String,
    },
    /// -> {}; a token stays as it is.
    #[serde(rename = "org.borgcube.Control.UpdateWebUser")]
    UpdateWebUser {
        /// As the caller read it.
        previous: Box<WebUser>,
        /// As it shall be.
        user: Box<WebUser>,
    },
    /// -> [`IssuedUser`]: the token of before is void.
    #[serde(rename = "org.borgcube.Control.RenewWebToken")]
    RenewWebToken {
        /// Whose.
        name: UserName,
    },
    /// -> {}
    #[serde(rename = "org.borgcube.Control.RemoveWebUser")]
    RemoveWebUser {
        /// The name.
        name: UserName,
    },
    /// -> as `call`: what a user of the status pages may do by its role, and nothing else.
    #[serde(rename = "org.borgcube.Control.OnBehalf")]
    OnBehalf {
        /// Who.
        credential: Credential,
        /// What: `{"method": .., "parameters": {..}}`.
        call: Box<Call>,
    },
    /// -> {}: somebody else committed jobs, and they are not to wait until something else happens.
    #[serde(rename = "org.borgcube.Control.Wake")]
    Wake {},
}

/// Which jobs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this kind.
    pub kind: Option<JobKind>,
    /// Of this client.
    pub client: Option<ClientName>,
    /// Of this config label.
    pub label: Option<Label>,
    /// Of this repository.
    pub repository: Option<RepositoryName>,
    /// Only numbers below this one: the next page.
    pub before: Option<u64>,
    /// At most so many; 0: 100.
    pub limit: u32,
}

/// Which archives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveFilter {
    /// In this repository.
    pub repository: Option<RepositoryName>,
    /// Of this client.
    pub client: Option<ClientName>,
    /// Of this config label.
    pub label: Option<Label>,
    /// With this name or id (or the beginning of an id, at least 8 digits).
    pub name: Option<String>,
    /// At most so many; 0: 1000.
    pub limit: u32,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A job was created or changed its state.
    Job(Box<Job>),
    /// A job got on.
    Progress {
        /// The job.
        job: u64,
        /// How far.
        progress: Progress,
    },
    /// A repository was added or changed.
    Repository(Box<Repository>),
    /// A repository was removed.
    RepositoryRemoved(RepositoryName),
    /// Schedules were added, changed or removed: what is due next may be something else now.
    SchedulesChanged,
    /// Users of the status pages, or the settings about them, were added, changed or removed: who may look may be others now.
    UsersChanged,
}

/// A reply of [`Call::Watch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventReply {
    /// What happened.
    pub event: Event,
}

/// Kinds of errors; the Varlink error is `org.borgcube.Control.KIND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// There is no such thing.
    NotFound,
    /// There is such a thing already.
    AlreadyExists,
    /// What was asked makes no sense; the message says why.
    InvalidArgument,
    /// Something else stands in the way; the message says what.
    Conflict,
    /// The caller may not do this.
    PermissionDenied,
    /// Nobody knows on whose behalf this is to be done: the credential is wrong, disabled or expired.
    Unauthenticated,
    /// The daemon stops.
    Stopping,
    /// The daemon's own trouble; its log has more.
    Internal,
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// What kind.
    pub kind: ErrorKind,
    /// One sentence that says what to do.
    pub message: String,
}

impl ControlError {
    /// An error.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ControlError {
        ControlError { kind, message: message.into() }
    }

    /// As a Varlink reply.
    pub fn to_reply(&self) -> Reply {
        Reply {
            parameters: serde_json::json!({ "message": self.message }),
            continues: false,
            error: Some(format!("{INTERFACE}.{:?}", self.kind)),
        }
    }

    /// From a Varlink reply that has an error.
    pub fn from_reply(reply: &Reply) -> Option<ControlError> {
        let name = reply.error.as_deref()?;
        let kind = name.strip_prefix(INTERFACE).and_then(|n| n.strip_prefix('.'));
        let kind = kind.and_then(|k| serde_json::from_value(serde_json::Value::String(k.into())).ok());
        let message = reply.parameters.get("message").and_then(|m| m.as_str()).unwrap_or(name).to_owned();
        Some(ControlError { kind: kind.unwrap_or(ErrorKind::Internal), message })
    }
}

impl Reply {
    /// A single answer.
    pub fn new(parameters: &impl Serialize) -> Reply {
        Reply { parameters: serde_json::to_value(parameters).unwrap_or_default(), continues: false, error: None }
    }

    /// An answer with more to come.
    pub fn continued(parameters: &impl Serialize) -> Reply {
        Reply { continues: true, ..Reply::new(parameters) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_varlinks_form() {
        let request = Request { call: Call::CancelJob { job: 5 }, more: false };
        let json = serde_json::to_value(&request).unwrap();
        assert_eq!(json, serde_json::json!({"method": "org.borgcube.Control.CancelJob", "parameters": {"job": 5}}));
        assert_eq!(serde_json::from_value::<Request>(json).unwrap(), request);
        let text = r#"{"method":"org.borgcube.Control.Watch","parameters":{},"more":true}"#;
        let watch: Request = serde_json::from_str(text).unwrap();
        assert_eq!(watch, Request { call: Call::Watch { job: None }, more: true });
    }

    #[test]
    fn unknown_methods_and_parameters_of_wrong_type_are_errors() {
        assert!(serde_json::from_str::<Request>(r#"{"method":"org.borgcube.Control.Nonsense","parameters":{}}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"method":"org.borgcube.Control.CancelJob","parameters":{"job":"x"}}"#).is_err());
    }

    #[test]
    fn errors_travel() {
        let error = ControlError::new(ErrorKind::NotFound, "there is no client x");
        let reply = error.to_reply();
        assert_eq!(reply.error.as_deref(), Some("org.borgcube.Control.NotFound"));
        assert_eq!(ControlError::from_reply(&reply), Some(error));
        assert_eq!(ControlError::from_reply(&Reply::new(&JobNumber { job: 1, warnings: vec![] })), None);
    }

    #[test]
    fn the_description_names_every_method() {
        let calls = [
            "GetStatus",
            "ListRepositories",
            "AddRepository",
            "UpdateRepository",
            "RemoveRepository",
            "ListClients",
            "AddClient",
            "UpdateClient",
            "RemoveClient",
            "ListConfigs",
            "AddConfig",
            "UpdateConfig",
            "RemoveConfig",
            "RunConfig",
            "RunMaintenance",
            "Restore",
            "RunRestoreTest",
            "ListRestoreTests",
            "ListJobs",
            "GetJob",
            "CancelJob",
            "GetJobLog",
            "Watch",
            "ListArchives",
            "GetLog",
            "Undo",
            "GetSettings",
            "UpdateSettings",
            "ListSchedules",
            "AddSchedule",
            "UpdateSchedule",
            "RemoveSchedule",
            "RunSchedule",
            "NextOccurrences",
            "ListOccurrences",
            "ListTriggers",
            "AddTrigger",
            "UpdateTrigger",
            "RemoveTrigger",
            "FireTrigger",
            "ListPolicies",
            "AddPolicy",
            "UpdatePolicy",
            "RemovePolicy",
            "ConfirmPolicy",
            "PreviewRetention",
            "PruneArchives",
            "HoldArchives",
            "ReleaseArchives",
            "DeleteArchives",
            "UndeleteArchives",
            "GetConfiguration",
            "ApplyConfiguration",
            "ListCheckConfigs",
            "AddCheckConfig",
            "UpdateCheckConfig",
            "RemoveCheckConfig",
            "ListHealth",
            "GetSpace",
            "ListWebUsers",
            "AddWebUser",
            "UpdateWebUser",
            "RenewWebToken",
            "RemoveWebUser",
            "OnBehalf",
            "Wake",
        ];
        for call in calls {
            assert!(DESCRIPTION.contains(&format!("method {call}(")), "{call}");
        }
        assert_eq!(DESCRIPTION.matches("\nmethod ").count(), calls.len());
    }
}
