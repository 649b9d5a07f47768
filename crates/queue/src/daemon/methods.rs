//! The table of methods: who asks, what for, and which answer.

use super::Daemon;
use super::control::{LogStream, Stream, for_watchers, stranger};
use super::errors::{from_store, refuse};
use super::joblog::LogReader;
use super::request::{Asked, SERVICE, SERVICE_DESCRIPTION, Unusable, parse, service_error};
use super::workers::Worker;
use model::access::Rights;
use model::{Cause, ConfigName, Failure, Job, JobState, RepositoryName, Timestamp, Work};
use serde_json::json;
use std::time::Instant;
use store::TransactionNumber;
use wire::control::{
    Call, ControlError, DESCRIPTION, ErrorKind, Event, EventReply, INTERFACE, Info, JobDetail, JobLog, JobNumber, Reply, Undone,
};

/// What a call leads to.
pub(super) enum Answer {
    /// One reply.
    One(Reply),
    /// These replies, and then more.
    Many(Vec<Reply>, Stream),
}

type Answered = Result<Answer, ControlError>;

fn one(value: &impl serde::Serialize) -> Answered {
    Ok(Answer::One(Reply::new(value)))
}

fn nothing() -> Answered {
    one(&json!({}))
}

impl Daemon {
    /// Carries out one call of a connection and sends its answer.
    pub(super) fn call(&mut self, id: u64, document: &[u8]) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let asked = match parse(document) {
            Ok(asked) => asked,
            Err(Unusable::Garbage(why)) => {
                log::info!("{}: what came is no Varlink call: {}", connection.actor, unix::logging::escape(&why));
                return connection.close(now);
            }
            Err(Unusable::Answer { reply, oneway }) => {
                // A stranger learns nothing about what there is.
                let reply = if connection.rights > Rights::None { reply } else { stranger(&connection.actor) };
                if !oneway {
                    connection.reply(&reply, now);
                }
                return;
            }
        };
        let permitted = match connection.rights {
            Rights::Control => true,
            Rights::Watch => for_watchers(&asked.call),
            Rights::None => false,
        };
        if !permitted && !matches!(asked.call, Call::GetInfo {} | Call::GetInterfaceDescription { .. }) {
            connection.reply(&stranger(&connection.actor), now);
            let actor = connection.actor.clone();
            return self.complain(&format!("{actor} was refused"));
        }
        let actor = connection.actor.clone();
        let Asked { call, more, oneway } = asked;
        let answered = self.carry_out(call, more, &actor);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match answered {
            _ if oneway => {}
            Ok(Answer::One(reply)) => connection.reply(&reply, now),
            Ok(Answer::Many(replies, stream)) => {
                for reply in replies {
                    connection.reply(&reply, now);
                }
                connection.stream = Some(stream);
                connection.pump(now);
            }
            Err(error) => connection.reply(&error.to_reply(), now),
        }
    }

    fn carry_out(&mut self, call: Call, more: bool, actor: &str) -> Answered {
        match call {
            Call::GetInfo {} => one(&info()),
            Call::GetInterfaceDescription { interface } => Ok(Answer::One(description(&interface))),
            Call::GetStatus {} => one(&self.status()?),
            Call::ListRepositories {} => one(&self.list_repositories()?),
            Call::AddRepository { repository } => self.add_repository(repository, actor).and_then(|()| nothing()),
            Call::UpdateRepository { previous, repository } => {
                self.update_repository(&previous, repository, actor).and_then(|()| nothing())
            }
            Call::RemoveRepository { name } => self.remove_repository(&name, actor).and_then(|()| nothing()),
            Call::ListClients {} => one(&self.list_clients()?),
            Call::AddClient { client } => self.add_client(client, actor).and_then(|()| nothing()),
            Call::UpdateClient { previous, client } => self.update_client(&previous, client, actor).and_then(|()| nothing()),
            Call::RemoveClient { name } => self.remove_client(&name, actor).and_then(|()| nothing()),
            Call::ListConfigs {} => one(&self.list_configs()?),
            Call::AddConfig { config } => self.add_config(config, actor).and_then(|()| nothing()),
            Call::UpdateConfig { previous, config } => self.update_config(&previous, config, actor).and_then(|()| nothing()),
            Call::RemoveConfig { name } => self.remove_config(&name, actor).and_then(|()| nothing()),
            Call::RunConfig { config, archive_name, retry } => one(&self.run_config(&config, archive_name, retry, actor)?),
            Call::RunMaintenance { repository, work, retry } => one(&self.run_maintenance(&repository, work, retry, actor)?),
            Call::Restore { repository, client, restore } => one(&self.restore(&repository, &client, *restore, actor)?),
            Call::RunRestoreTest { client, repository, test, retry } => {
                one(&self.run_restore_test(&client, repository, *test, retry, actor)?)
            }
            Call::ListRestoreTests {} => one(&self.list_restore_tests()?),
            Call::ListJobs { filter } => one(&self.list_jobs(&filter)?),
            Call::GetJob { job } => {
                let job = self.job(job)?;
                one(&self.detail(job))
            }
            Call::CancelJob { job } => self.cancel_job(job, actor).and_then(|()| nothing()),
            Call::GetJobLog { job, follow } => self.job_log(job, follow, more),
            Call::Watch { job: None } => Ok(Answer::Many(vec![], Stream::Watch(None))),
            Call::Watch { job: Some(job) } => self.watch_job(job),
            Call::ListArchives { filter } => one(&self.list_archives(&filter)?),
            Call::GetLog { limit } => one(&self.transaction_log(limit)?),
            Call::Undo { transaction } => one(&Undone { transaction: self.undo(TransactionNumber(transaction), actor)?.0 }),
            Call::GetSettings {} => one(&json!({ "settings": self.settings })),
            Call::UpdateSettings { previous, settings } => self.update_settings(&previous, settings, actor).and_then(|()| nothing()),
            Call::ListSchedules {} => one(&self.list_schedules()?),
            Call::AddSchedule { schedule } => self.add_schedule(&schedule, actor).and_then(|()| nothing()),
            Call::UpdateSchedule { previous, schedule } => self.update_schedule(&previous, &schedule, actor).and_then(|()| nothing()),
            Call::RemoveSchedule { name } => self.remove_schedule(&name, actor).and_then(|()| nothing()),
            Call::RunSchedule { name } => one(&self.run_schedule(&name, actor)?),
            Call::NextOccurrences { name, count, from, until } => one(&self.next_occurrences(name.as_ref(), count, from, until)?),
            Call::ListOccurrences { filter } => one(&self.list_occurrences(&filter)?),
            Call::ListTriggers {} => one(&self.list_triggers()?),
            Call::AddTrigger { access, target, comment, enabled } => one(&self.add_trigger(access, target, comment, enabled, actor)?),
            Call::UpdateTrigger { previous, trigger } => self.update_trigger(&previous, &trigger, actor).and_then(|()| nothing()),
            Call::RemoveTrigger { id } => self.remove_trigger(&id, actor).and_then(|()| nothing()),
            Call::FireTrigger { id, context } => one(&self.fire_trigger(&id, context, actor)?),
            Call::ListPolicies {} => one(&self.list_policies()?),
            Call::AddPolicy { policy } => one(&self.add_policy(*policy, actor)?),
            Call::UpdatePolicy { previous, policy } => one(&self.update_policy(&previous, *policy, actor)?),
            Call::RemovePolicy { name } => self.remove_policy(&name, actor).and_then(|()| nothing()),
            Call::ConfirmPolicy { name, config } => one(&self.confirm_policy(&name, config, actor)?),
            Call::PreviewRetention { filter, after } => one(&self.preview_retention(&filter, after.as_ref())?),
            Call::PruneArchives { filter } => one(&self.prune_archives(&filter, actor)?),
            Call::HoldArchives { archives, reason } => one(&self.hold_archives(&archives, &reason, actor)?),
            Call::ReleaseArchives { archives } => one(&self.release_archives(&archives, actor)?),
            Call::DeleteArchives { archives, grace_hours } => one(&self.delete_archives(&archives, grace_hours, actor)?),
            Call::UndeleteArchives { archives, hold } => one(&self.undelete_archives(&archives, hold, actor)?),
            Call::GetConfiguration {} => one(&self.configuration()?),
            Call::ApplyConfiguration(changes) => one(&self.apply_configuration(*changes, actor)?),
            Call::ListCheckConfigs {} => one(&self.list_check_configs()?),
            Call::AddCheckConfig { config } => self.add_check_config(*config, actor).and_then(|()| nothing()),
            Call::UpdateCheckConfig { previous, config } => self.update_check_config(&previous, *config, actor).and_then(|()| nothing()),
            Call::RemoveCheckConfig { name } => self.remove_check_config(&name, actor).and_then(|()| nothing()),
            Call::ListHealth {} => one(&self.list_health()?),
            Call::GetSpace { name, after } => one(&self.repository_space(&name, after.as_ref())?),
            Call::ListWebUsers {} => one(&self.list_web_users()?),
            Call::AddWebUser { name, role, sign_in, expires, comment } => {
                one(&self.add_web_user(name, role, sign_in, expires, comment, actor)?)
            }
            Call::UpdateWebUser { previous, user } => self.update_web_user(&previous, *user, actor).and_then(|()| nothing()),
            Call::RenewWebToken { name } => one(&self.renew_web_token(&name, actor)?),
            Call::RemoveWebUser { name } => self.remove_web_user(&name, actor).and_then(|()| nothing()),
            Call::OnBehalf { credential, call } => {
                let user = self.may(&credential, &call, actor)?;
                self.carry_out(*call, false, &user)
            }
            Call::Wake {} => self.wake().and_then(|()| nothing()),
        }
    }

    pub(super) fn job(&self, number: u64) -> Result<Job, ControlError> {
        let job = self.store.read(|r| r.jobs().get(&number)).map_err(from_store)?;
        job.ok_or_else(|| refuse(ErrorKind::NotFound, format!("there is no job {number}; `borgcube job list` shows the jobs")))
    }

    /// The record with what only memory knows.
    pub(super) fn detail(&self, job: Job) -> JobDetail {
        let progress = self.workers.get(&job.number).and_then(|worker| worker.progress.clone());
        JobDetail { waits: self.waits(&job, &self.running()), progress, cancelled_by: self.cancelled_by(job.number), job }
    }

    /// Who is having a running job cancelled.
    pub(super) fn cancelled_by(&self, number: u64) -> Option<String> {
        self.workers.get(&number)?.cancelled_by.clone()
    }

    fn run_config(&mut self, name: &ConfigName, archive: Option<String>, retry: bool, actor: &str) -> Result<JobNumber, ControlError> {
        self.takes_jobs()?;
        if let Some(archive) = &archive {
            model::names::check_archive_name(archive).map_err(|e| refuse(ErrorKind::InvalidArgument, e.to_string()))?;
        }
        let now = Timestamp::now();
        let note = format!("run config {name}");
        let written = self.store.write_at(now, &note, actor, |w| {
            let (job, waited) = match super::records::bring_forward(w, name, archive.as_deref(), now)? {
                Some(waiting) => (waiting, true),
                None => (super::records::create_job(w, name, archive.as_deref(), actor, now)?, false),
            };
            // Whoever asks now decides whether it is tried again, also of a job that was there.
            w.jobs().update(&job.number, |job| {
                job.retry = retry;
                Ok((job.clone(), waited))
            })
        });
        let ((job, waited), _) = written.map_err(from_store)?;
        let number = job.number;
        let mut warnings: Vec<String> = waited.then(|| brought_forward(&job)).into_iter().collect();
        self.job_changed(job);
        warnings.extend(self.blackout_warnings(&[number], now)?);
        Ok(JobNumber { job: number, warnings })
    }

    fn run_maintenance(&mut self, name: &RepositoryName, work: Work, retry: bool, actor: &str) -> Result<JobNumber, ControlError> {
        self.takes_jobs()?;
        if work.client().is_some() {
            return Err(refuse(
                ErrorKind::InvalidArgument,
                "backups are started with RunConfig, restores with Restore, and tests of them with RunRestoreTest",
            ));
        }
        if let Work::Import { import } = &work {
            import.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
        }
        let now = Timestamp::now();
        let note = format!("{} repository {name}", work.kind());
        let written = self.store.write_at(now, &note, actor, |w| {
            let job = super::records::create_maintenance(w, name, work.clone(), actor, now)?;
            w.jobs().update(&job.number, |job| {
                job.retry = retry;
                Ok(job.clone())
            })
        });
        let (job, _) = written.map_err(from_store)?;
        let number = job.number;
        self.job_changed(job);
        Ok(JobNumber { job: number, warnings: vec![] })
    }

    fn cancel_job(&mut self, number: u64, actor: &str) -> Result<(), ControlError> {
        let job = self.job(number)?;
        if job.state.is_final() {
            return Err(refuse(ErrorKind::Conflict, format!("job {number} has ended already ({})", job.state)));
        }
        if self.unrecorded.contains_key(&number) {
            let message = format!("job {number} has ended; the database can't record that until there is room on its file system");
            return Err(refuse(ErrorKind::Conflict, message));
        }
        if let Some(worker) = self.workers.get_mut(&number) {
            log::info!(job = number; "job {number}: cancelled by {actor}");
            worker.cancel(actor, self.options.cancel, Instant::now());
            return Ok(());
        }
        let now = Timestamp::now();
        let failure = Failure::new(Cause::Cancelled { by: actor.to_owned() }, format!("cancelled by {actor} before it began"));
        let note = format!("cancel job {number}");
        let written = self.store.write_at(now, &note, actor, |w| w.jobs().force_state(number, JobState::Cancelled, failure.clone(), now));
        let (job, _) = written.map_err(from_store)?;
        self.job_changed(job);
        Ok(())
    }

    fn job_log(&self, number: u64, follow: bool, more: bool) -> Answered {
        let job = self.job(number)?;
        let mut reader = LogReader::new(self.layout.job_log(number));
        if more {
            let wait = follow && !job.state.is_final();
            return Ok(Answer::Many(vec![], Stream::Log(LogStream { job: number, reader, wait })));
        }
        let failed = |e| refuse(ErrorKind::Internal, format!("the log of job {number} cannot be read: {e}"));
        let lines = reader.next_chunk().map_err(failed)?;
        if !reader.next_chunk().map_err(failed)?.is_empty() {
            let message = json!({ "message": "the log does not fit into one reply: call it with \"more\": true" });
            return Ok(Answer::One(service_error("ExpectedMore", message)));
        }
        one(&JobLog { lines })
    }

    fn watch_job(&self, number: u64) -> Answered {
        let job = self.job(number)?;
        let over = job.state.is_final();
        let present = EventReply { event: Event::Job(Box::new(job)) };
        if over {
            return one(&present);
        }
        let mut replies = vec![Reply::continued(&present)];
        if let Some(progress) = self.workers.get(&number).and_then(|worker: &Worker| worker.progress.clone()) {
            replies.push(Reply::continued(&EventReply { event: Event::Progress { job: number, progress } }));
        }
        Ok(Answer::Many(replies, Stream::Watch(Some(number))))
    }
}

fn info() -> Info {
    Info {
        vendor: "BorgCube".into(),
        product: "borgcubed".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        url: String::new(),
        interfaces: vec![SERVICE.into(), INTERFACE.into()],
    }
}

fn description(interface: &str) -> Reply {
    let description = match interface {
        INTERFACE => DESCRIPTION,
        SERVICE => SERVICE_DESCRIPTION,
        _ => return service_error("InterfaceNotFound", json!({ "interface": interface })),
    };
    Reply::new(&json!({ "description": description }))
}

/// What became of a job that waited for its moment when somebody asked for one.
fn brought_forward(job: &Job) -> String {
    let attempt = if job.attempts > 0 { format!(", attempt {},", job.attempts + 1) } else { String::new() };
    let further = if job.retry { "" } else { ", and is not tried again by itself (--retry)" };
    format!("job {}{attempt} was waiting already; it runs now{further}", job.number)
}
