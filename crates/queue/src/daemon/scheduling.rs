//! Schedules and triggers: what people may ask for. What is due, and that it happens once, is the store's business.

use super::errors::{from_store, refuse, refuse_in};
use super::rates::{BURST, Rate};
use super::{Daemon, Stop};
use model::trigger::{AccessContext, TriggerRefusal, TriggerTarget};
use model::{Action, JobState, Recurrence, Schedule, ScheduleName, Timestamp, Trigger, TriggerId};
use std::time::Instant;
use store::{Read, Result};
use wire::control::{
    AddedTrigger, ControlError, Due, ErrorKind, Event, History, ListedSchedule, OccurrenceFilter, Ran, Schedules, Triggers, Upcoming,
};

type Answered<T> = std::result::Result<T, ControlError>;

/// Most occurrences in one answer.
const MAX_OCCURRENCES: u32 = 1000;
/// Longest id of a trigger that the log tells of; whoever is anonymous may have written anything.
const MAX_SHOWN: usize = 40;

fn missing(what: &str, name: &dyn std::fmt::Display) -> store::Error {
    refuse_in(ErrorKind::NotFound, format!("there is no {what} {name}; `borgcube {what} list` shows what there is"))
}

fn limit(wanted: u32, default: u32) -> usize {
    let wanted = if wanted == 0 { default } else { wanted };
    usize::try_from(wanted.min(MAX_OCCURRENCES)).unwrap_or(usize::MAX)
}

/// What a new recurrence must be like. The caller may not be our own command line.
pub(super) fn check_recurrence(recurrence: &Recurrence, now: Timestamp) -> Answered<()> {
    let lines = recurrence.lines().join(" ");
    Recurrence::parse(&lines, recurrence.zone(), now).map(drop).map_err(|e| refuse(ErrorKind::InvalidArgument, e.to_string()))
}

pub(super) fn check(schedule: &Schedule) -> Answered<()> {
    schedule.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))
}

/// Names that actions refer to exist.
pub(super) fn check_references(r: &Read<'_>, schedule: &Schedule) -> Result<()> {
    for action in &schedule.actions {
        match action {
            Action::RunConfig { config } if !r.configs().exists(config)? => return Err(missing("config", config)),
            Action::EnableSchedule { schedule } | Action::DisableSchedule { schedule } if !r.schedules().exists(schedule)? => {
                return Err(missing("schedule", schedule));
            }
            Action::Prune { policy: Some(policy), .. } if !r.policies().exists(policy)? => return Err(missing("policy", policy)),
            Action::Prune { repository: Some(repository), .. } if !r.repositories().exists(repository)? => {
                return Err(missing("repository", repository));
            }
            Action::CheckBy { config } if !r.check_configs().exists(config)? => return Err(missing("check config", config)),
            Action::Check { repository, .. } | Action::Compact { repository } if !r.repositories().exists(repository)? => {
                return Err(missing("repository", repository));
            }
            _ => {}
        }
    }
    Ok(())
}

fn ran(ran: store::Ran) -> Ran {
    Ran { jobs: ran.jobs, done: ran.done, left_out: ran.left_out, warnings: vec![] }
}

impl Daemon {
    pub(super) fn list_schedules(&self) -> Answered<Schedules> {
        let now = Timestamp::now();
        let listed = self.store.read(|r| {
            let mut listed = vec![];
            for schedule in r.schedules().list()? {
                let next = if schedule.enabled { schedule.recurrence.next_after(now.max(schedule.handled)) } else { None };
                let last = r.occurrences().last(&schedule.name)?;
                listed.push(ListedSchedule { schedule, next, last });
            }
            Ok(listed)
        });
        Ok(Schedules { schedules: listed.map_err(from_store)? })
    }

    pub(super) fn add_schedule(&mut self, schedule: &Schedule, actor: &str) -> Answered<()> {
        let now = Timestamp::now();
        check(schedule)?;
        check_recurrence(&schedule.recurrence, now)?;
        let name = &schedule.name;
        let written = self.store.write_at(now, &format!("add schedule {name}"), actor, |w| {
            if w.view().schedules().exists(name)? {
                let message =
                    format!("there is a schedule {name} already; choose another name, or change it with `borgcube schedule edit`");
                return Err(refuse_in(ErrorKind::AlreadyExists, message));
            }
            check_references(&w.view(), schedule)?;
            w.add_schedule(schedule, now)
        });
        written.map_err(from_store)?;
        self.schedules_changed();
        Ok(())
    }

    pub(super) fn update_schedule(&mut self, previous: &Schedule, schedule: &Schedule, actor: &str) -> Answered<()> {
        let now = Timestamp::now();
        let name = &schedule.name;
        check(schedule)?;
        // One that has come to its end can still be disabled, described and so on.
        if previous.recurrence != schedule.recurrence {
            check_recurrence(&schedule.recurrence, now)?;
        }
        let verb = match (previous.enabled, schedule.enabled) {
            (false, true) => "enable",
            (true, false) => "disable",
            _ => "change",
        };
        let written = self.store.write_at(now, &format!("{verb} schedule {name}"), actor, |w| {
            if !w.view().schedules().exists(&previous.name)? {
                return Err(missing("schedule", &previous.name));
            }
            // What was removed since it was named must not stand in the way of switching a schedule off.
            if previous.actions != schedule.actions {
                check_references(&w.view(), schedule)?;
            }
            w.update_schedule(previous, schedule, now, actor)
        });
        written.map_err(from_store)?;
        self.schedules_changed();
        Ok(())
    }

    pub(super) fn remove_schedule(&mut self, name: &ScheduleName, actor: &str) -> Answered<()> {
        let written = self.store.write(&format!("remove schedule {name}"), actor, |w| {
            if !w.view().schedules().exists(name)? {
                return Err(missing("schedule", name));
            }
            w.remove_schedule(name)
        });
        written.map_err(from_store)?;
        self.schedules_changed();
        Ok(())
    }

    /// Everything a schedule does, because a person wants it now.
    pub(super) fn run_schedule(&mut self, name: &ScheduleName, actor: &str) -> Answered<Ran> {
        self.takes_jobs()?;
        let now = Timestamp::now();
        let written = self.store.write_at(now, &format!("run schedule {name}"), actor, |w| {
            if !w.view().schedules().exists(name)? {
                return Err(missing("schedule", name));
            }
            w.run_by_hand(name, now, actor)
        });
        let (done, _) = written.map_err(from_store)?;
        log::info!("schedule {name}: run by {actor}, {} jobs", done.jobs.len());
        self.has_run(&done);
        let warnings = self.blackout_warnings(&done.jobs, now)?;
        Ok(Ran { warnings, ..ran(done) })
    }

    /// Watchers hear of new jobs, the timers of schedules that were enabled or disabled.
    fn has_run(&mut self, ran: &store::Ran) {
        if !ran.changed.is_empty() {
            self.schedules_changed();
        }
        for number in &ran.jobs {
            match self.job(*number) {
                Ok(job) => self.job_changed(job),
                Err(e) => log::error!("job {number}: {e}"),
            }
        }
    }

    /// What a person should know whose jobs run although their clients are in a blackout.
    pub(super) fn blackout_warnings(&self, jobs: &[u64], now: Timestamp) -> Answered<Vec<String>> {
        let warnings = self.store.read(|r| {
            let mut warnings = vec![];
            for number in jobs {
                let Some(job) = r.jobs().get(number)? else { continue };
                let Some(client) = job.client().map(|name| r.clients().get(name)).transpose()?.flatten() else { continue };
                if let Some(blackout) = client.blackout(now) {
                    let name = &client.name;
                    warnings.push(format!(
                        "client {name} is in its blackout {blackout}; job {number} runs all the same, because you asked for it"
                    ));
                }
            }
            Ok(warnings)
        });
        warnings.map_err(from_store)
    }

    /// A stopping daemon takes no new jobs.
    pub(super) fn takes_jobs(&self) -> Answered<()> {
        if self.stop == Stop::No {
            return Ok(());
        }
        Err(refuse(ErrorKind::Stopping, "borgcubed is stopping and takes no new jobs; try again when it is back"))
    }

    pub(super) fn next_occurrences(
        &self,
        name: Option<&ScheduleName>,
        count: u32,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Answered<Upcoming> {
        let (count, from) = (limit(count, 10), from.unwrap_or_else(Timestamp::now));
        let until = until.unwrap_or(Timestamp(i64::MAX));
        let schedules = self.store.read(|r| match name {
            Some(name) => Ok(vec![r.schedules().get(name)?.ok_or_else(|| missing("schedule", name))?]),
            None => Ok(r.schedules().list()?.into_iter().filter(|schedule| schedule.enabled).collect()),
        });
        let mut occurrences: Vec<Due> = vec![];
        for schedule in schedules.map_err(from_store)? {
            let times = schedule.recurrence.between(from, until, count);
            occurrences.extend(times.into_iter().map(|time| Due { time, schedule: schedule.name.clone() }));
        }
        occurrences.sort_by(|a, b| (a.time, &a.schedule).cmp(&(b.time, &b.schedule)));
        occurrences.truncate(count);
        Ok(Upcoming { occurrences })
    }

    pub(super) fn list_occurrences(&self, filter: &OccurrenceFilter) -> Answered<History> {
        let wanted = store::OccurrenceFilter { schedule: filter.schedule.clone(), from: filter.from, before: filter.before };
        let page = self.store.read(|r| r.occurrences().page(&wanted, limit(filter.limit, 100)));
        Ok(History { occurrences: page.map_err(from_store)? })
    }

    pub(super) fn list_triggers(&self) -> Answered<Triggers> {
        let mut triggers = self.store.read(|r| r.triggers().list()).map_err(from_store)?;
        triggers.sort_by_key(|trigger| trigger.created);
        Ok(Triggers { triggers })
    }

    pub(super) fn add_trigger(
        &mut self,
        access: AccessContext,
        target: TriggerTarget,
        comment: String,
        enabled: bool,
        actor: &str,
    ) -> Answered<AddedTrigger> {
        let mut bits = [0; 16];
        unix::random::fill(&mut bits).map_err(|e| refuse(ErrorKind::Internal, e.to_string()))?;
        let created = Timestamp::now();
        let trigger = Trigger { id: TriggerId::from_random(bits), access, enabled, comment, target, created, last_used: None };
        trigger.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
        let note = format!("add trigger {}… for {}", trigger.id.short(), trigger.target);
        let written = self.store.write_at(created, &note, actor, |w| {
            check_target(&w.view(), &trigger.target)?;
            w.add_trigger(&trigger)
        });
        written.map_err(from_store)?;
        Ok(AddedTrigger { trigger })
    }

    pub(super) fn update_trigger(&mut self, previous: &Trigger, trigger: &Trigger, actor: &str) -> Answered<()> {
        if previous.id != trigger.id {
            return Err(refuse(ErrorKind::InvalidArgument, "a trigger's id cannot be changed: add another one"));
        }
        trigger.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
        let short = trigger.id.short();
        let verb = match (previous.enabled, trigger.enabled) {
            (false, true) => "enable",
            (true, false) => "disable",
            _ => "change",
        };
        let written = self.store.write(&format!("{verb} trigger {short}…"), actor, |w| {
            let stored = w.view().triggers().get(&trigger.id)?.ok_or_else(no_trigger)?;
            if (Trigger { last_used: previous.last_used, ..stored.clone() }) != *previous {
                let message = format!("trigger {short}… was changed by somebody else meanwhile; look at it again and repeat your change");
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            if stored.target == trigger.target {
                // What it starts may be gone; it can be switched off all the same.
                return w.triggers().put(&Trigger { created: stored.created, last_used: stored.last_used, ..trigger.clone() });
            }
            check_target(&w.view(), &trigger.target)?;
            w.update_trigger(trigger)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn remove_trigger(&mut self, id: &TriggerId, actor: &str) -> Answered<()> {
        let written = self.store.write(&format!("remove trigger {}…", id.short()), actor, |w| {
            if !w.view().triggers().exists(id)? {
                return Err(no_trigger());
            }
            w.triggers().remove(id).map(drop)
        });
        written.map(drop).map_err(from_store)
    }

    /// What a trigger starts. Every refusal is in the log with its reason.
    pub(super) fn fire_trigger(&mut self, id: &str, context: AccessContext, actor: &str) -> Answered<Ran> {
        self.takes_jobs()?;
        let now = Timestamp::now();
        let (fired, rate) = match self.known_trigger(id)? {
            None => (Err(TriggerRefusal::Unknown), self.rates.of_unknown(Instant::now())),
            Some(id) => match self.rates.of(&id, Instant::now()) {
                Rate::Within => {
                    let note = format!("trigger {}… used from {context}", id.short());
                    let written = self.store.write_at(now, &note, actor, |w| w.fire_trigger(&id, context, now));
                    (written.map_err(from_store)?.0, Rate::Within)
                }
                rate => (Err(TriggerRefusal::TooOften), rate),
            },
        };
        match fired {
            Ok(done) => {
                log::info!("trigger {}: used by {actor} from {context}, {} jobs", short(id), done.jobs.len());
                for part in &done.left_out {
                    log::info!("trigger {}: {} left out: {}", short(id), part.what, part.reason);
                }
                self.has_run(&done);
                // To somebody anonymous names of clients are none of his business.
                let told = match context {
                    AccessContext::LocalCli => ran(done),
                    AccessContext::AnonymousWeb => Ran { jobs: done.jobs, ..Ran::default() },
                };
                Ok(told)
            }
            Err(refusal) => {
                match rate {
                    Rate::Within => log::warn!("trigger {} refused to {actor} from {context}: {refusal}", short(id)),
                    Rate::Told(untold) => log::warn!(
                        "trigger {} refused to {actor} from {context}: {refusal}, more than {BURST} times in a minute; {untold} before it have no line here",
                        short(id)
                    ),
                    Rate::Untold => {}
                }
                Err(refused(refusal, context))
            }
        }
    }

    fn known_trigger(&self, id: &str) -> Answered<Option<TriggerId>> {
        let Ok(id) = id.parse::<TriggerId>() else { return Ok(None) };
        let known = self.store.read(|r| r.triggers().exists(&id)).map_err(from_store)?;
        Ok(known.then_some(id))
    }

    /// Somebody else has committed jobs.
    pub(super) fn wake(&mut self) -> Answered<()> {
        self.queue_changed = true;
        let queued = self.store.read(|r| r.jobs().in_state(JobState::JobCreated)).map_err(from_store)?;
        // Not by their numbers: ours and theirs are committed in whatever order.
        let new: Vec<_> = queued.into_iter().filter(|job| !self.announced.contains(&job.number)).collect();
        log::debug!("woken; {} new jobs, {:?}", new.len(), self.stop);
        for job in new {
            self.job_changed(job);
        }
        Ok(())
    }

    /// The timers have to follow, and whoever watches.
    pub(super) fn schedules_changed(&mut self) {
        self.broadcast(&Event::SchedulesChanged);
        self.timers.wanted(&self.layout);
    }
}

fn no_trigger() -> store::Error {
    refuse_in(ErrorKind::NotFound, "there is no such trigger; `borgcube trigger list` shows what there is")
}

pub(super) fn check_target(r: &Read<'_>, target: &TriggerTarget) -> Result<()> {
    match target {
        TriggerTarget::Schedule { schedule } if !r.schedules().exists(schedule)? => Err(missing("schedule", schedule)),
        TriggerTarget::Config { config } if !r.configs().exists(config)? => Err(missing("config", config)),
        _ => Ok(()),
    }
}

/// The answer to a refusal. Who is anonymous learns nothing from it, not even whether there is such an id.
fn refused(refusal: TriggerRefusal, context: AccessContext) -> ControlError {
    if context == AccessContext::AnonymousWeb {
        return refuse(ErrorKind::NotFound, "there is no such trigger, or it cannot be used from here");
    }
    let (kind, hint) = match refusal {
        TriggerRefusal::Unknown => (ErrorKind::NotFound, "`borgcube trigger list` shows the ids"),
        TriggerRefusal::Disabled => (ErrorKind::PermissionDenied, "`borgcube trigger enable` changes that"),
        TriggerRefusal::Context { .. } => (ErrorKind::PermissionDenied, "add another one for here"),
        TriggerRefusal::ScheduleDisabled => (ErrorKind::Conflict, "`borgcube schedule enable` changes that"),
        TriggerRefusal::TargetMissing => (ErrorKind::NotFound, "remove the trigger with `borgcube trigger remove`"),
        TriggerRefusal::TooOften => (ErrorKind::Conflict, "try it again in a minute"),
    };
    refuse(kind, format!("{refusal}; {hint}"))
}

/// Enough of an id to find it in the log, and of anything else what it looked like.
fn short(id: &str) -> String {
    match id.parse::<TriggerId>() {
        Ok(id) => format!("{}…", id.short()),
        Err(_) => format!("{:?}", unix::logging::escape(&id.chars().take(MAX_SHOWN).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_anonymous_cannot_tell_the_reasons_apart() {
        use AccessContext::{AnonymousWeb, LocalCli};
        let refusals = [
            TriggerRefusal::Unknown,
            TriggerRefusal::Disabled,
            TriggerRefusal::Context { allowed: LocalCli, used: AnonymousWeb },
            TriggerRefusal::ScheduleDisabled,
            TriggerRefusal::TargetMissing,
            TriggerRefusal::TooOften,
        ];
        let told: Vec<ControlError> = refusals.iter().map(|refusal| refused(*refusal, AnonymousWeb)).collect();
        assert!(told.iter().all(|error| *error == told[0]), "{told:?}");
        let mut at_home: Vec<String> = refusals.iter().map(|refusal| refused(*refusal, LocalCli).message).collect();
        at_home.dedup();
        assert_eq!(at_home.len(), refusals.len());
    }

    #[test]
    fn the_log_does_not_tell_a_whole_id() {
        let id = "a5".repeat(16);
        assert_eq!(short(&id), "a5a5a5a5…");
        let odd = short(&format!("\u{1b}[2J{}", "x".repeat(500)));
        assert!(odd.len() < 80 && !odd.contains('\u{1b}'), "{odd}");
    }
}
