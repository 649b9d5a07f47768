//! Adding, changing and removing records. Each verb is one transaction that checks what stands in its way.

use super::errors::{from_store, refuse, refuse_in};
use super::{Daemon, control, keys};
use model::import::Attribution;
use model::{
    BackupConfig, Client, ClientName, ConfigName, Connection, Job, JobKind, JobState, Origin, Repository, RepositoryName, Settings,
    Timestamp, Work, validate,
};
use store::{ArchiveFilter, ArchiveKey, IntentKey, JobFilter, Read, Result, Write};
use wire::control::{ControlError, ErrorKind, Event};

type Done = std::result::Result<(), ControlError>;

fn invalid(reason: String) -> ControlError {
    refuse(ErrorKind::InvalidArgument, reason)
}

pub(super) fn missing(what: &str, name: &dyn std::fmt::Display) -> store::Error {
    refuse_in(ErrorKind::NotFound, format!("there is no {what} {name}; `borgcube {what} list` shows what there is"))
}

fn exists(what: &str, name: &dyn std::fmt::Display) -> store::Error {
    refuse_in(
        ErrorKind::AlreadyExists,
        format!("there is a {what} {name} already; choose another name, or change it with `borgcube {what} edit`"),
    )
}

fn in_the_way(message: String) -> store::Error {
    refuse_in(ErrorKind::Conflict, message)
}

/// `previous` is what the caller saw; somebody may have been faster.
fn compare<T: PartialEq>(stored: &T, previous: &T, what: &str, name: &dyn std::fmt::Display) -> Result<()> {
    if stored == previous {
        return Ok(());
    }
    Err(in_the_way(format!("{what} {name} was changed by somebody else meanwhile; look at it again and repeat your change")))
}

/// Jobs that are queued or run and that `filter` lets through.
fn live_jobs(r: &Read<'_>, filter: JobFilter) -> Result<Vec<Job>> {
    let states = JobState::ALL.into_iter().filter(|state| !state.is_final()).collect();
    r.jobs().page(&JobFilter { states, ..filter }, 5)
}

pub(super) fn refuse_live_jobs(r: &Read<'_>, filter: JobFilter, what: &str) -> Result<()> {
    match live_jobs(r, filter)?.first() {
        None => Ok(()),
        Some(job) => {
            let number = job.number;
            Err(in_the_way(format!(
                "{what} is used by job {number}, which has not ended; wait, or cancel it with `borgcube job cancel {number}`"
            )))
        }
    }
}

fn listed<T: ToString>(names: impl Iterator<Item = T>) -> String {
    names.map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

impl Daemon {
    pub(super) fn add_repository(&mut self, mut repository: Repository, actor: &str) -> Done {
        self.judge_repository(None, &repository, actor)?;
        repository.created = Timestamp::now();
        let note = format!("add repository {}", repository.name);
        let written = self.store.write(&note, actor, |w| {
            if w.view().repositories().exists(&repository.name)? {
                return Err(exists("repository", &repository.name));
            }
            refuse_twin(&w.view(), &repository)?;
            // Of an earlier one with this name. It stays until now, because a removal can be undone.
            w.space().forget(&repository.name)?;
            w.repositories().insert(&repository)
        });
        written.map_err(from_store)?;
        self.broadcast(&Event::Repository(Box::new(repository)));
        Ok(())
    }

    pub(super) fn update_repository(&mut self, previous: &Repository, mut repository: Repository, actor: &str) -> Done {
        same_name("repository", &previous.name, &repository.name)?;
        repository.created = previous.created;
        self.judge_repository(Some(previous), &repository, actor)?;
        let note = format!("change repository {}", repository.name);
        let written = self.store.write(&note, actor, |w| {
            let stored = w.view().repositories().get(&repository.name)?.ok_or_else(|| missing("repository", &repository.name))?;
            compare(&stored, previous, "repository", &repository.name)?;
            refuse_other(&stored, &repository)?;
            refuse_move(&w.view(), &stored, &repository)?;
            w.repositories().put(&repository)
        });
        written.map_err(from_store)?;
        self.broadcast(&Event::Repository(Box::new(repository)));
        Ok(())
    }

    /// On an installed server these records name programs that run here, and places that a unit opens: operators may not choose them.
    pub(super) fn need_root(&self, what: &str, actor: &str) -> Done {
        only_root(what, actor, self.layout.is_installed())
    }

    /// What needs no look at the other records.
    pub(super) fn judge_repository(&self, previous: Option<&Repository>, repository: &Repository, actor: &str) -> Done {
        validate::repository(repository).map_err(invalid)?;
        match previous {
            // Otherwise removing and adding would be a way to change it.
            None => self.need_root(&format!("add repository {}", repository.name), actor),
            Some(previous) if same_place(previous, repository) => Ok(()),
            Some(_) => self.need_root(&format!("change url, rsh or remote_borg of repository {}", repository.name), actor),
        }
    }

    /// What needs no look at the other records.
    pub(super) fn judge_client(&self, previous: Option<&Client>, client: &Client, actor: &str) -> Done {
        validate::client(client).map_err(invalid)?;
        // One that is there already may be changed all the same.
        if !previous.is_some_and(|previous| matches!(previous.connection, Connection::Local { .. })) {
            has_road(client, self.layout.is_installed())?;
        }
        match programs(client).filter(|chosen| previous.and_then(programs).as_ref() != Some(chosen)) {
            None => Ok(()),
            Some(chosen) if previous.is_none() => self.need_root(&format!("add client {} with {}", client.name, chosen.what), actor),
            Some(chosen) => self.need_root(&format!("change client {} to {}", client.name, chosen.what), actor),
        }
    }

    pub(super) fn remove_repository(&mut self, name: &RepositoryName, actor: &str) -> Done {
        let note = format!("remove repository {name}");
        let written = self.store.write(&note, actor, |w| {
            let r = w.view();
            if !r.repositories().exists(name)? {
                return Err(missing("repository", name));
            }
            let configs = r.configs().of_repository(name)?;
            if !configs.is_empty() {
                let configs = listed(configs.iter().take(10).map(BackupConfig::name));
                return Err(in_the_way(format!("repository {name} is used by these configs: {configs}; remove them first")));
            }
            refuse_live_jobs(&r, JobFilter { repository: Some(name.clone()), ..Default::default() }, &format!("repository {name}"))?;
            remove_contents(w, name)?;
            w.repositories().remove(name).map(drop)
        });
        written.map_err(from_store)?;
        self.broadcast(&Event::RepositoryRemoved(name.clone()));
        Ok(())
    }

    pub(super) fn add_client(&mut self, mut client: Client, actor: &str) -> Done {
        self.judge_client(None, &client, actor)?;
        client.created = Timestamp::now();
        let note = format!("add client {}", client.name);
        let written = self.store.write(&note, actor, |w| {
            if w.view().clients().exists(&client.name)? {
                return Err(exists("client", &client.name));
            }
            keys::refuse_shared(&w.view(), &client)?;
            w.clients().insert(&client)
        });
        written.map_err(from_store)?;
        self.write_permanent_keys();
        Ok(())
    }

    pub(super) fn update_client(&mut self, previous: &Client, mut client: Client, actor: &str) -> Done {
        same_name("client", &previous.name, &client.name)?;
        self.judge_client(Some(previous), &client, actor)?;
        client.created = previous.created;
        let note = format!("change client {}", client.name);
        let written = self.store.write(&note, actor, |w| {
            let stored = w.view().clients().get(&client.name)?.ok_or_else(|| missing("client", &client.name))?;
            compare(&stored, previous, "client", &client.name)?;
            keys::refuse_shared(&w.view(), &client)?;
            w.clients().put(&client)
        });
        written.map_err(from_store)?;
        self.write_permanent_keys();
        Ok(())
    }

    pub(super) fn remove_client(&mut self, name: &ClientName, actor: &str) -> Done {
        let note = format!("remove client {name}");
        let written = self.store.write(&note, actor, |w| {
            let r = w.view();
            if !r.clients().exists(name)? {
                return Err(missing("client", name));
            }
            refuse_used_client(&r, name)?;
            refuse_live_jobs(&r, JobFilter { client: Some(name.clone()), ..Default::default() }, &format!("client {name}"))?;
            w.clients().remove(name).map(drop)
        });
        written.map_err(from_store)?;
        self.write_permanent_keys();
        Ok(())
    }

    pub(super) fn add_config(&mut self, mut config: BackupConfig, actor: &str) -> Done {
        validate::config(&config).map_err(invalid)?;
        config.created = Timestamp::now();
        let note = format!("add config {}", config.name());
        let installed = self.layout.is_installed();
        let written = self.store.write(&note, actor, |w| {
            if w.view().configs().exists(&config.name())? {
                return Err(exists("config", &config.name()));
            }
            check_references(&w.view(), &config)?;
            refuse_commands(&w.view(), None, &config, installed)?;
            w.configs().insert(&config)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn update_config(&mut self, previous: &BackupConfig, mut config: BackupConfig, actor: &str) -> Done {
        same_name("config", &previous.name(), &config.name())?;
        validate::config(&config).map_err(invalid)?;
        config.created = previous.created;
        let name = config.name();
        let note = format!("change config {name}");
        let installed = self.layout.is_installed();
        let written = self.store.write(&note, actor, |w| {
            let stored = w.view().configs().get(&name)?.ok_or_else(|| missing("config", &name))?;
            compare(&stored, previous, "config", &name)?;
            check_references(&w.view(), &config)?;
            refuse_commands(&w.view(), Some(&stored), &config, installed)?;
            if stored.repository != config.repository {
                refuse_live_jobs(&w.view(), JobFilter { config: Some(name.clone()), ..Default::default() }, &format!("config {name}"))?;
            }
            w.configs().put(&config)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn remove_config(&mut self, name: &ConfigName, actor: &str) -> Done {
        let note = format!("remove config {name}");
        let written = self.store.write(&note, actor, |w| {
            if !w.view().configs().exists(name)? {
                return Err(missing("config", name));
            }
            refuse_live_jobs(&w.view(), JobFilter { config: Some(name.clone()), ..Default::default() }, &format!("config {name}"))?;
            w.configs().remove(name).map(drop)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn update_settings(&mut self, previous: &Settings, settings: Settings, actor: &str) -> Done {
        validate::settings(&self.settings, &settings).map_err(invalid)?;
        let written = self.store.write("change the settings", actor, |w| {
            if w.view().settings()?.as_ref() != Some(previous) {
                return Err(in_the_way(
                    "the settings were changed by somebody else meanwhile; look at them again and repeat your change".into(),
                ));
            }
            w.set_settings(&settings)
        });
        written.map_err(from_store)?;
        self.settings = settings;
        self.queue_changed = true;
        self.users_changed();
        Ok(())
    }
}

/// Whether both are at one place, behind the same programs.
pub(super) fn same_place(a: &Repository, b: &Repository) -> bool {
    (&a.url, &a.rsh, &a.remote_borg) == (&b.url, &b.rsh, &b.remote_borg)
}

fn only_root(what: &str, actor: &str, installed: bool) -> Done {
    if actor == control::ROOT || !installed {
        return Ok(());
    }
    let message = format!("{actor} may not {what}: on an installed server only root may say which programs run here; use sudo");
    Err(refuse(ErrorKind::PermissionDenied, message))
}

/// An installed server's units see next to nothing of this machine, and so would a backup of it that they made themselves.
fn has_road(client: &Client, installed: bool) -> Done {
    if !installed || !matches!(client.connection, Connection::Local { .. }) {
        return Ok(());
    }
    let name = &client.name;
    let message = format!(
        "client {name} cannot be --local: on an installed server borgcubed's sandbox shows it next to nothing of this machine. Let it come by SSH as \
         any other host: borgcube client add {name} --remote root@localhost --server {}@localhost",
        unix::paths::USER_SSH
    );
    Err(refuse(ErrorKind::InvalidArgument, message))
}

/// Commands of a config whose client is this machine would run as `borgcubed`'s user, and operators may write them. Also those that an older version
/// or another kind of installation has left in the database: nobody has decided then that they may run here.
pub(super) fn runs_here(config: &BackupConfig, client: &Client, installed: bool) -> Option<String> {
    if !installed || config.commands.is_empty() || !matches!(client.connection, Connection::Local { .. }) {
        return None;
    }
    let name = &client.name;
    Some(format!(
        "hooks and dumps of {} do not run: its client is --local, so on an installed server they would run as the user of borgcubed. Let it come by SSH \
         as any other host, which only root sets up: borgcube client edit {name} --remote root@localhost --server {}@localhost; or remove them with \
         borgcube hook remove and borgcube dump remove",
        config.name(),
        unix::paths::USER_SSH
    ))
}

/// A config may keep such commands, and lose some; it gets no other ones.
pub(super) fn refuse_commands(r: &Read<'_>, previous: Option<&BackupConfig>, config: &BackupConfig, installed: bool) -> Result<()> {
    let is_less = previous.is_some_and(|previous| {
        let kept = config.commands.hooks.iter().all(|hook| previous.commands.hooks.contains(hook));
        kept && config.commands.dumps.iter().all(|dump| previous.commands.dumps.contains(dump))
    });
    let client = r.clients().get(&config.client)?;
    match client.and_then(|client| runs_here(config, &client, installed)).filter(|_| !is_less) {
        Some(why) => Err(refuse_in(ErrorKind::InvalidArgument, why)),
        None => Ok(()),
    }
}

/// Programs that a worker runs on this machine for a client.
#[derive(Debug, PartialEq)]
pub(super) struct Programs<'a> {
    /// For people.
    what: &'static str,
    program: Option<&'a str>,
    options: &'a [String],
}

/// Those that the record names, if it names any.
pub(super) fn programs(client: &Client) -> Option<Programs<'_>> {
    match &client.connection {
        Connection::Local { remote_borg, .. } => remote_borg.as_deref().map(|borg| Programs {
            what: "a borg program of its own on this server",
            program: Some(borg),
            options: &[],
        }),
        // Where it logs in, with which of its keys, over which port and jump hosts, is the operators' affair.
        Connection::Ssh(ssh) if ssh.runs_programs() => {
            let what = "an SSH command or SSH options that may start programs on this server";
            Some(Programs { what, program: ssh.rsh.as_deref(), options: &ssh.rsh_options })
        }
        Connection::Ssh(_) => None,
    }
}

fn same_name<N: PartialEq + std::fmt::Display>(what: &str, previous: &N, next: &N) -> Done {
    if previous == next {
        return Ok(());
    }
    Err(refuse(
        ErrorKind::InvalidArgument,
        format!("{what} {previous} cannot be renamed to {next}: remove it and add it under the new name"),
    ))
}

/// Its configs go first.
pub(super) fn refuse_used_client(r: &Read<'_>, name: &ClientName) -> Result<()> {
    let configs = r.configs().of_client(name)?;
    if configs.is_empty() {
        return Ok(());
    }
    let configs = listed(configs.iter().take(10).map(BackupConfig::name));
    Err(in_the_way(format!("client {name} has these configs: {configs}; remove them first")))
}

/// Id and encryption are made with a repository, and stay.
pub(super) fn refuse_other(stored: &Repository, next: &Repository) -> Result<()> {
    if stored.repository_id != next.repository_id {
        let message = "another repository id means another repository: remove this one and add the other";
        return Err(refuse_in(ErrorKind::InvalidArgument, message));
    }
    if stored.encryption != next.encryption {
        let message = format!("repository {} is encrypted with {}, and that cannot be changed", stored.name, stored.encryption);
        return Err(refuse_in(ErrorKind::InvalidArgument, message));
    }
    Ok(())
}

/// Nobody moves a repository away under a running job.
fn refuse_move(r: &Read<'_>, stored: &Repository, next: &Repository) -> Result<()> {
    let same = Repository { description: next.description.clone(), ..stored.clone() } == *next;
    let running = if same { vec![] } else { r.jobs().running()? };
    match running.iter().find(|job| job.repository.as_ref() == Some(&stored.name)) {
        None => Ok(()),
        Some(job) => {
            let message =
                format!("job {} runs on repository {}; only its description can be changed until that ends", job.number, stored.name);
            Err(in_the_way(message))
        }
    }
}

/// Two records of one repository would be two writers.
fn refuse_twin(r: &Read<'_>, repository: &Repository) -> Result<()> {
    let all = r.repositories().list()?;
    match all.iter().find(|other| other.name != repository.name && other.repository_id == repository.repository_id) {
        None => Ok(()),
        Some(twin) => {
            let message = format!("the repository at {} is known already, as {}", repository.url, twin.name);
            Err(refuse_in(ErrorKind::AlreadyExists, message))
        }
    }
}

pub(super) fn check_references(r: &Read<'_>, config: &BackupConfig) -> Result<()> {
    if !r.clients().exists(&config.client)? {
        return Err(missing("client", &config.client));
    }
    if !r.repositories().exists(&config.repository)? {
        return Err(missing("repository", &config.repository));
    }
    Ok(())
}

/// The records of a repository's archives, and intents that nobody will resolve any more.
fn remove_contents(w: &mut Write<'_>, name: &RepositoryName) -> Result<()> {
    let filter = ArchiveFilter { repository: Some(name.clone()), ..Default::default() };
    for archive in w.view().archives().page(&filter, usize::MAX)? {
        w.archives().remove(&ArchiveKey::of(&archive))?;
    }
    for intent in w.view().intents().of_repository(name)? {
        w.intents().remove(&IntentKey { repository: name.clone(), job: intent.archive.job })?;
    }
    if w.view().health().exists(name)? {
        w.health().remove(name)?;
    }
    Ok(())
}

/// A try that waits for its moment in the queue starts now, because a person wants the config to run now.
pub(super) fn bring_forward(w: &mut Write<'_>, name: &ConfigName, archive: Option<&str>, now: Timestamp) -> Result<Option<Job>> {
    let filter = JobFilter { states: vec![JobState::JobCreated], config: Some(name.clone()), ..Default::default() };
    let queued = w.view().jobs().page(&filter, 1)?.pop();
    let Some(job) = queued.filter(|_| archive.is_none()) else { return Ok(None) };
    let in_blackout = || Ok::<_, store::Error>(w.view().clients().get(&name.client)?.is_some_and(|client| client.blackout(now).is_some()));
    let waits = job.not_before.is_some_and(|at| at > now) || (job.origin != Origin::Manual && in_blackout()?);
    if !waits {
        return Ok(None);
    }
    w.jobs().update(&job.number, |job| {
        job.not_before = None;
        // What a person asked for waits for no blackout.
        job.origin = Origin::Manual;
        Ok(Some(job.clone()))
    })
}

/// A job for a repository in the queue. Each repository has at most one of a kind there.
pub(super) fn create_maintenance(w: &mut Write<'_>, repository: &RepositoryName, work: Work, actor: &str, now: Timestamp) -> Result<Job> {
    let r = w.view();
    if !r.repositories().exists(repository)? {
        return Err(missing("repository", repository));
    }
    let queued = r.jobs().in_state(JobState::JobCreated)?;
    if let Work::Import { import } = &work
        && let Attribution::Config(config) = &import.attribution
        && !r.clients().exists(&config.client)?
    {
        return Err(missing("client", &config.client));
    }
    if let Work::Prune { policy: Some(policy), .. } = &work
        && !r.policies().exists(policy)?
    {
        return Err(missing("policy", policy));
    }
    // Imports of different archives are different jobs.
    let is_same = |job: &Job| if work.kind() == JobKind::Import { job.work == work } else { job.kind() == work.kind() };
    let same = |job: &&Job| is_same(job) && job.repository.as_ref() == Some(repository);
    if let Some(job) = queued.iter().find(same) {
        let (kind, number) = (work.kind(), job.number);
        return Err(in_the_way(format!(
            "a {kind} of repository {repository} is in the queue already as job {number}; `borgcube job show {number}` says what it waits for"
        )));
    }
    w.jobs().create(|number| Job::new(number, work, repository.clone(), actor, now))
}

/// A job in the queue. Each config has at most one there.
pub(super) fn create_job(w: &mut Write<'_>, name: &ConfigName, archive: Option<&str>, actor: &str, now: Timestamp) -> Result<Job> {
    let r = w.view();
    let config = r.configs().get(name)?.ok_or_else(|| missing("config", name))?;
    let filter = JobFilter { states: vec![JobState::JobCreated], config: Some(name.clone()), ..Default::default() };
    if let Some(queued) = r.jobs().page(&filter, 1)?.first() {
        let number = queued.number;
        return Err(in_the_way(format!(
            "config {name} is in the queue already as job {number}; `borgcube job show {number}` says what it waits for"
        )));
    }
    if let Some(archive) = archive
        && let Some(there) = r.archives().named(&config.repository, archive)?
    {
        let message =
            format!("repository {} has an archive {archive} already, of job {}; choose another name", config.repository, there.job);
        return Err(refuse_in(ErrorKind::AlreadyExists, message));
    }
    w.jobs().create(|number| {
        let mut job = Job::backup(number, name, config.repository.clone(), actor, now);
        job.archive_name = archive.map(str::to_owned);
        job
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::client::SshConnection;

    fn client(connection: Connection) -> Client {
        Client {
            name: "web1".parse().unwrap(),
            description: String::new(),
            connection,
            keys: vec![],
            blackouts: vec![],
            borg_binary: Default::default(),
            created: Timestamp(0),
        }
    }

    fn ssh(rsh: Option<&str>, options: &[&str]) -> Client {
        let rsh_options = options.iter().map(|option| (*option).to_owned()).collect();
        let remote = "root@web1".to_owned();
        client(Connection::Ssh(SshConnection { remote, rsh: rsh.map(str::to_owned), rsh_options, ..Default::default() }))
    }

    fn local(remote_borg: Option<&str>) -> Client {
        client(Connection::Local { remote_borg: remote_borg.map(str::to_owned), remote_cache_dir: None })
    }

    #[test]
    fn commands_of_a_client_that_is_this_machine_do_not_run_on_an_installed_server() {
        let (_, mut backup) = crate::worker::test_task(local(None).connection);
        let hook = |name: &str| model::hook::Hook {
            name: name.parse().unwrap(),
            before: Some("id".into()),
            after: None,
            seconds: 5,
            on_failure: Default::default(),
        };
        assert_eq!(runs_here(&backup.config, &backup.client, true), None, "nothing runs");
        backup.config.commands.hooks = vec![hook("stop")];
        let why = runs_here(&backup.config, &backup.client, true).unwrap();
        assert!(why.contains("host/etc do not run") && why.contains("borgcube client edit host --remote"), "{why}");
        assert_eq!(runs_here(&backup.config, &backup.client, false), None);
        assert_eq!(runs_here(&backup.config, &ssh(None, &[]), true), None);
    }

    #[test]
    fn what_runs_programs_here_is_for_root() {
        for harmless in [ssh(None, &[]), ssh(None, &["-p", "2222", "-J", "gate"]), local(None)] {
            assert_eq!(programs(&harmless), None, "{harmless:?}");
        }
        let chosen = [ssh(Some("/tmp/x"), &[]), ssh(None, &["-oProxyCommand=x"]), ssh(None, &["-oProxyCommand=y"]), local(Some("/tmp/x"))];
        for (at, one) in chosen.iter().enumerate() {
            assert!(programs(one).is_some(), "{one:?}");
            // Another choice is another one.
            assert!(chosen[..at].iter().all(|other| programs(other) != programs(one)));
        }
        let refused = only_root("change client web1", "user:ada", true).unwrap_err();
        assert!(refused.message.contains("user:ada may not change client web1") && refused.message.contains("sudo"), "{}", refused.message);
        assert!(only_root("x", control::ROOT, true).is_ok() && only_root("x", "user:ada", false).is_ok());
    }

    #[test]
    fn an_installed_server_backs_up_itself_by_ssh() {
        let refused = has_road(&local(None), true).unwrap_err();
        assert!(refused.message.contains("--remote root@localhost --server borgcube-ssh@localhost"), "{}", refused.message);
        assert!(has_road(&local(None), false).is_ok() && has_road(&ssh(None, &[]), true).is_ok());
    }
}
