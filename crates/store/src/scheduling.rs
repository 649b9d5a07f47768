//! The transactions of scheduling: what is due becomes jobs and history in one step, so that two schedulers at once, a timer that fires
//! twice or a process that is killed leave each occurrence with one run or one recorded skip.

use std::collections::{BTreeMap, BTreeSet};

use model::due::{self, Due, Skipped};
use model::occurrence::LeftOut;
use model::restore_test::RestoreTest;
use model::schedule::Matcher;
use model::trigger::{AccessContext, TriggerRefusal, TriggerTarget};
use model::{
    Action, Blackout, ClientName, ConfigName, Job, JobKind, JobState, Occurrence, Origin, Outcome, RepositoryName, Schedule, ScheduleName,
    SkipReason, Timestamp, Trigger, TriggerId, Work,
};

use crate::error::{Error, Result};
use crate::tables::ArchiveFilter;
use crate::txn::Write;

/// Entries of history that a schedule keeps.
const KEEP: usize = 5_000;

/// What a run has led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// The jobs that were created.
    pub jobs: Vec<u64>,
    /// What else was done, in sentences.
    pub done: Vec<String>,
    /// What was left out, and why.
    pub left_out: Vec<LeftOut>,
    /// Schedules that were enabled or disabled: their timers have to follow.
    pub changed: Vec<ScheduleName>,
}

impl Ran {
    /// Why nothing at all came of it, None if something did.
    #[must_use]
    pub fn skipped(&self) -> Option<SkipReason> {
        if !self.jobs.is_empty() || !self.done.is_empty() {
            return None;
        }
        Some(self.left_out.first().map_or(SkipReason::NothingToRun, |part| part.reason))
    }

    fn outcome(&self) -> Outcome {
        match self.skipped() {
            None => Outcome::Run { jobs: self.jobs.clone(), done: self.done.clone(), left_out: self.left_out.clone() },
            Some(reason) => Outcome::Skip { reason, left_out: self.left_out.clone() },
        }
    }
}

/// What a trigger has led to.
pub type Fired = std::result::Result<Ran, TriggerRefusal>;

/// Who asks for a run, and when.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    origin: Origin,
    actor: &'a str,
    now: Timestamp,
}

impl Write<'_> {
    /// Adds a schedule. Its first occurrence is one behind `now`.
    pub fn add_schedule(&mut self, schedule: &Schedule, now: Timestamp) -> Result<()> {
        schedule.check().map_err(Error::caller)?;
        let schedule = Schedule { handled: now, ahead: None, created: now, ..schedule.clone() };
        self.schedules().insert(&schedule)
    }

    /// Puts `schedule` in the place of `previous`, if that is still what is stored (but for what the scheduler notes in it).
    ///
    /// What was due under another recurrence and not run is recorded as skipped. A disabled schedule that is enabled does not catch up.
    pub fn update_schedule(&mut self, previous: &Schedule, schedule: &Schedule, now: Timestamp, actor: &str) -> Result<()> {
        schedule.check().map_err(Error::caller)?;
        if schedule.name != previous.name {
            return Err(Error::caller("a schedule can't be renamed: its timer and its history bear its name; add another one"));
        }
        let stored = self.schedules().require(&schedule.name)?;
        if (Schedule { handled: previous.handled, ahead: previous.ahead, ..stored.clone() }) != *previous {
            let what = "somebody changed it in the meantime; look at it again";
            return Err(Error::Conflict { record: format!("schedule {}", schedule.name), what: what.to_owned() });
        }
        let (mut handled, mut ahead) = (stored.handled, stored.ahead);
        if stored.recurrence != schedule.recurrence || (schedule.enabled && !stored.enabled) {
            let settled = due::settle(&stored, now);
            self.record_skips(&stored, &settled, actor, now)?;
            (handled, ahead) = if stored.recurrence == schedule.recurrence {
                (settled.handled, settled.ahead)
            } else {
                // What was dealt with before its time, by a clock that was ahead, is not dealt with once more by another rule.
                (now.max(settled.handled), None)
            };
        }
        self.schedules().put(&Schedule { handled, ahead, created: stored.created, ..schedule.clone() })
    }

    /// Removes a schedule; its history stays. Refused while a trigger or another schedule names it.
    pub fn remove_schedule(&mut self, name: &ScheduleName) -> Result<Schedule> {
        self.refuse_named_schedule(name)?;
        self.schedules().remove(name)
    }

    /// Refused while a trigger or another schedule names it.
    pub fn refuse_named_schedule(&self, name: &ScheduleName) -> Result<()> {
        let target = TriggerTarget::Schedule { schedule: name.clone() };
        if let Some(trigger) = self.view().triggers().list()?.into_iter().find(|trigger| trigger.target == target) {
            return Err(Error::caller(format!("trigger {}… starts schedule {name}: remove the trigger first", trigger.id.short())));
        }
        let names = |action: &Action| matches!(action, Action::EnableSchedule { schedule } | Action::DisableSchedule { schedule } if schedule == name);
        if let Some(other) = self.view().schedules().list()?.into_iter().find(|other| other.actions.iter().any(names)) {
            return Err(Error::caller(format!("schedule {} enables or disables {name}: change that first", other.name)));
        }
        Ok(())
    }

    /// Deals with everything of a schedule that is due at `now`: at most one run, and the skips. What it gives is the run, or the newest skip that is now
    /// on record; None: nothing new.
    pub fn run_due(&mut self, name: &ScheduleName, now: Timestamp, actor: &str) -> Result<Option<Occurrence>> {
        let schedule = self.schedules().require(name)?;
        let due = due::due(&schedule, now);
        if due.is_empty() {
            return Ok(None);
        }
        let skipped = self.record_skips(&schedule, &due, actor, now)?;
        self.schedules().update(name, |schedule| {
            (schedule.handled, schedule.ahead) = (due.handled, due.ahead);
            Ok(())
        })?;
        // What was recorded before is nobody's news.
        let Some(time) = due.run else { return Ok(skipped) };
        if due.ahead.is_some() && !self.make_way(name, time)? {
            return Ok(skipped);
        }
        let asked = Asked { origin: Origin::Schedule, actor, now };
        let ran = self.run_actions(&schedule, asked)?;
        self.record(&schedule, time, asked, ran.outcome()).map(Some)
    }

    /// Runs the actions of a schedule now, whatever its recurrence says and whether it is enabled or not. It does not change what is due.
    pub fn run_by_hand(&mut self, name: &ScheduleName, now: Timestamp, actor: &str) -> Result<Ran> {
        let schedule = self.schedules().require(name)?;
        let asked = Asked { origin: Origin::Manual, actor, now };
        let ran = self.run_actions(&schedule, asked)?;
        self.record(&schedule, now, asked, ran.outcome())?;
        Ok(ran)
    }

    /// Adds a trigger. Its schedule or config must exist.
    pub fn add_trigger(&mut self, trigger: &Trigger) -> Result<()> {
        self.check_trigger(trigger)?;
        self.triggers().insert(trigger)
    }

    /// Changes a trigger. Its schedule or config must exist.
    pub fn update_trigger(&mut self, trigger: &Trigger) -> Result<()> {
        self.check_trigger(trigger)?;
        let stored = self.triggers().require(&trigger.id)?;
        self.triggers().put(&Trigger { created: stored.created, last_used: stored.last_used, ..trigger.clone() })
    }

    fn check_trigger(&mut self, trigger: &Trigger) -> Result<()> {
        trigger.check().map_err(Error::caller)?;
        match &trigger.target {
            TriggerTarget::Schedule { schedule } => self.schedules().require(schedule).map(drop),
            TriggerTarget::Config { config } => self.configs().require(config).map(drop),
        }
    }

    /// What a trigger starts, if it may be used from `context`. A refusal changes nothing, nor does a use of which nothing came: who knows
    /// an id can fill the queue and the history no further than its configs are many.
    pub fn fire_trigger(&mut self, id: &TriggerId, context: AccessContext, now: Timestamp) -> Result<Fired> {
        let Some(trigger) = self.triggers().get(id)? else { return Ok(Err(TriggerRefusal::Unknown)) };
        if let Err(refusal) = trigger.permit(context) {
            return Ok(Err(refusal));
        }
        let actor = format!("trigger:{}", id.short());
        let asked = Asked { origin: Origin::Trigger, actor: &actor, now };
        let ran = match &trigger.target {
            TriggerTarget::Schedule { schedule } => {
                let Some(schedule) = self.schedules().get(schedule)? else { return Ok(Err(TriggerRefusal::TargetMissing)) };
                if !schedule.enabled {
                    return Ok(Err(TriggerRefusal::ScheduleDisabled));
                }
                let ran = self.run_actions(&schedule, asked)?;
                if ran.skipped().is_none() {
                    self.record(&schedule, now, asked, ran.outcome())?;
                }
                ran
            }
            TriggerTarget::Config { config } => {
                if !self.view().configs().exists(config)? {
                    return Ok(Err(TriggerRefusal::TargetMissing));
                }
                let mut run = Run::new(self, None, asked)?;
                run.config(config)?;
                run.ran
            }
        };
        if ran.skipped().is_none() {
            self.triggers().put(&Trigger { last_used: Some(now), ..trigger })?;
        }
        Ok(Ok(ran))
    }

    fn run_actions(&mut self, schedule: &Schedule, asked: Asked<'_>) -> Result<Ran> {
        let mut run = Run::new(self, Some(&schedule.name), asked)?;
        for action in &schedule.actions {
            run.action(action)?;
        }
        Ok(run.ran)
    }

    /// Gives the newest of them.
    fn record_skips(&mut self, schedule: &Schedule, due: &Due, actor: &str, now: Timestamp) -> Result<Option<Occurrence>> {
        let mut newest = None;
        let asked = Asked { origin: Origin::Schedule, actor, now };
        for skip in &due.skipped {
            let new = match due.ahead {
                Some(_) if skip.count > 0 => self.without_entry(schedule, skip)?,
                _ => vec![skip.clone()],
            };
            for skip in new {
                let outcome = Outcome::Skip { reason: skip.reason, left_out: vec![] };
                newest = Some(self.add_entry(schedule, (skip.first, skip.last), skip.count, asked, outcome)?);
            }
        }
        Ok(newest)
    }

    /// Those of the occurrences that have no entry yet, from when the clock was ahead. What lies between two of the answer has one.
    fn without_entry(&self, schedule: &Schedule, skip: &Skipped) -> Result<Vec<Skipped>> {
        let entries = self.view().occurrences().of_the_rule(&schedule.name, skip.first)?;
        let (singles, groups): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.first == entry.time);
        let singles: BTreeSet<Timestamp> = singles.into_iter().map(|entry| entry.time).collect();
        let just_before = Timestamp(skip.first.0.saturating_sub(1));
        let mut found: Vec<Skipped> = vec![];
        let mut goes_on = false;
        for time in schedule.recurrence.between(just_before, skip.last, usize::MAX) {
            if groups.iter().any(|group| (group.first..=group.time).contains(&time)) {
                goes_on = false;
            } else if !singles.contains(&time) {
                match found.last_mut().filter(|_| goes_on) {
                    Some(last) => (last.last, last.count) = (time, last.count + 1),
                    None => found.push(Skipped { first: time, last: time, count: 1, reason: skip.reason }),
                }
                goes_on = true;
            }
        }
        Ok(found)
    }

    /// Takes away that the occurrence at `time` was skipped while the clock was ahead. False: it was run, and is not run again.
    fn make_way(&mut self, schedule: &ScheduleName, time: Timestamp) -> Result<bool> {
        let entries = self.view().occurrences().of_the_rule(schedule, time)?;
        if let Some(entry) = entries.iter().find(|entry| entry.first == time && entry.time == time) {
            if matches!(entry.outcome, Outcome::Run { .. }) {
                return Ok(false);
            }
            self.occurrences().remove(&entry.number)?;
        } else if let Some(group) = entries.into_iter().find(|entry| (entry.first..=entry.time).contains(&time)) {
            // What has an entry of its own does not count.
            match group.count {
                0 | 1 => drop(self.occurrences().remove(&group.number)?),
                count => self.occurrences().put(&Occurrence { count: count - 1, ..group })?,
            }
        }
        Ok(true)
    }

    fn record(&mut self, schedule: &Schedule, time: Timestamp, asked: Asked<'_>, outcome: Outcome) -> Result<Occurrence> {
        let count = u64::from(asked.origin == Origin::Schedule);
        self.add_entry(schedule, (time, time), count, asked, outcome)
    }

    fn add_entry(
        &mut self,
        schedule: &Schedule,
        (first, time): (Timestamp, Timestamp),
        count: u64,
        asked: Asked<'_>,
        outcome: Outcome,
    ) -> Result<Occurrence> {
        let entry = Occurrence {
            number: self.next_number::<crate::tables::Occurrences>()?,
            schedule: schedule.name.clone(),
            time,
            first,
            count,
            origin: asked.origin,
            outcome,
            recorded: asked.now,
            actor: asked.actor.to_owned(),
        };
        self.occurrences().insert(&entry)?;
        // Looking for what is too old takes a while, so not each time.
        let old = if entry.number.is_multiple_of(16) { self.view().occurrences().beyond(&schedule.name, KEEP, 100)? } else { vec![] };
        for number in old {
            // Runs ahead of the clock must not be forgotten before it has passed them.
            if self.occurrences().require(&number)?.time <= asked.now {
                self.occurrences().remove(&number)?;
            }
        }
        Ok(entry)
    }
}

/// What is done for a repository once at a time: each kind, and each prune and each check config by itself.
type Upkeep = (JobKind, Option<Work>, RepositoryName);

fn upkeep(work: &Work, repository: &RepositoryName) -> Upkeep {
    let by_itself = |work: &Work| work.kind() == JobKind::Prune || matches!(work, Work::Check { config: Some(_), .. });
    let itself = Some(work.clone()).filter(by_itself);
    (work.kind(), itself, repository.clone())
}

/// The config of which a job tests a restore.
fn tested(work: &Work) -> Option<ConfigName> {
    match work {
        Work::RestoreTest { client, test } => Some(ConfigName { client: client.clone(), label: test.label.clone()? }),
        _ => None,
    }
}

/// One run of a schedule's actions.
struct Run<'w, 't, 'a> {
    write: &'w mut Write<'t>,
    schedule: Option<&'a ScheduleName>,
    asked: Asked<'a>,
    /// What is queued or running, with its job.
    busy: BTreeMap<ConfigName, u64>,
    maintained: BTreeMap<Upkeep, u64>,
    blackouts: BTreeMap<ClientName, Vec<Blackout>>,
    /// What this run has dealt with: two actions may name the same config.
    seen: BTreeSet<ConfigName>,
    /// The same of restore tests.
    tests: BTreeMap<ConfigName, u64>,
    tested: BTreeSet<ConfigName>,
    ran: Ran,
}

impl<'w, 't, 'a> Run<'w, 't, 'a> {
    fn new(write: &'w mut Write<'t>, schedule: Option<&'a ScheduleName>, asked: Asked<'a>) -> Result<Self> {
        let view = write.view();
        let jobs = [view.jobs().in_state(JobState::JobCreated)?, view.jobs().running()?].concat();
        let busy = jobs.iter().filter_map(|job| Some((job.config()?, job.number))).collect();
        let of_repository = |job: &Job| Some((upkeep(&job.work, job.repository.as_ref()?), job.number));
        let maintained = jobs.iter().filter(|job| job.client().is_none()).filter_map(of_repository).collect();
        let tests = jobs.iter().filter_map(|job| Some((tested(&job.work)?, job.number))).collect();
        let clients = view.clients().list()?.into_iter();
        let blackouts = clients.map(|client| (client.name, client.blackouts)).collect();
        Ok(Run {
            write,
            schedule,
            asked,
            busy,
            maintained,
            blackouts,
            seen: BTreeSet::new(),
            tests,
            tested: BTreeSet::new(),
            ran: Ran::default(),
        })
    }

    fn action(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::RunConfig { config } => self.config(config),
            Action::RunConfigs { client, label } => self.configs(client, label, action),
            Action::EnableSchedule { schedule } => self.switch(schedule, true, action),
            Action::DisableSchedule { schedule } => self.switch(schedule, false, action),
            Action::Check { repository, verify_data } => {
                self.maintain(repository, Work::Check { verify_data: *verify_data, config: None }, action)
            }
            Action::CheckBy { config } => {
                let chosen = match self.write.view().check_configs().get(config)? {
                    Some(config) => {
                        let all = self.write.view().repositories().list()?.into_iter().map(|repository| repository.name);
                        // It was checked at entry, perhaps by another version.
                        config.repositories.choose(all).unwrap_or_default()
                    }
                    None => vec![],
                };
                if chosen.is_empty() {
                    self.leave_out(action.to_string(), SkipReason::NothingToRun, None);
                }
                let work = Work::Check { verify_data: false, config: Some(config.clone()) };
                chosen.iter().try_for_each(|repository| self.maintain(repository, work.clone(), action))
            }
            Action::Compact { repository } => self.maintain(repository, Work::Compact { threshold: Work::THRESHOLD }, action),
            Action::RestoreTest { client, label, live } => self.restore_tests(client, label, *live, action),
            Action::Prune { repository, policy, clients, labels } => {
                let (policy, clients, labels) = (policy.clone(), clients.clone(), labels.clone());
                let work = Work::Prune { policy, clients, labels, compact: true };
                let all = || Ok(self.write.view().repositories().list()?.into_iter().map(|repository| repository.name).collect());
                let repositories: Vec<RepositoryName> = repository.clone().map_or_else(all, |one| Ok::<_, Error>(vec![one]))?;
                if repositories.is_empty() {
                    self.leave_out(action.to_string(), SkipReason::NothingToRun, None);
                }
                repositories.iter().try_for_each(|repository| self.maintain(repository, work.clone(), action))
            }
        }
    }

    fn configs(&mut self, client: &str, label: &str, action: &Action) -> Result<()> {
        self.matching(client, label, action)?.iter().try_for_each(|config| self.config(config))
    }

    fn matching(&mut self, client: &str, label: &str, action: &Action) -> Result<Vec<ConfigName>> {
        let matching: Vec<ConfigName> = match Matcher::new(client, label) {
            Ok(matcher) => {
                let all = self.write.view().configs().list()?.into_iter();
                all.filter(|config| matcher.matches(&config.client, &config.label)).map(|config| config.name()).collect()
            }
            // It was checked at entry, perhaps by another version.
            Err(_) => vec![],
        };
        if matching.is_empty() {
            self.leave_out(action.to_string(), SkipReason::NothingToRun, None);
        }
        Ok(matching)
    }

    fn restore_tests(&mut self, client: &str, label: &str, live: bool, action: &Action) -> Result<()> {
        for name in self.matching(client, label, action)? {
            let Some(config) = self.write.configs().get(&name)? else { continue };
            if !self.tested.insert(name.clone()) {
                continue;
            }
            let what = format!("restore test of {name}");
            if let Some(job) = self.tests.get(&name).copied() {
                self.leave_out(what, SkipReason::StillRunning, Some(job));
                continue;
            }
            // A client that has no archive yet is no failure of a test.
            let filter = ArchiveFilter { config: Some(name.clone()), repository: Some(config.repository.clone()), ..Default::default() };
            if self.write.view().archives().newest_whole(&filter)?.is_none() {
                self.leave_out(what, SkipReason::NothingToRun, None);
                continue;
            }
            let test = RestoreTest { label: Some(name.label), live, ..RestoreTest::new() };
            self.create(Work::RestoreTest { client: name.client, test: Box::new(test) }, config.repository)?;
        }
        Ok(())
    }

    fn config(&mut self, name: &ConfigName) -> Result<()> {
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(config) = self.write.configs().get(name)? else {
            self.leave_out(name.to_string(), SkipReason::NothingToRun, None);
            return Ok(());
        };
        if let Some(job) = self.busy.get(name).copied() {
            self.leave_out(name.to_string(), SkipReason::StillRunning, Some(job));
            return Ok(());
        }
        let blackouts = self.blackouts.get(&name.client).map(Vec::as_slice).unwrap_or_default();
        // A person who asks for a run now means now.
        if self.asked.origin != Origin::Manual && blackouts.iter().any(|blackout| blackout.contains(self.asked.now)) {
            self.leave_out(name.to_string(), SkipReason::Blackout, None);
            return Ok(());
        }
        let number = self.create(Work::backup(name), config.repository)?;
        self.busy.insert(name.clone(), number);
        Ok(())
    }

    fn maintain(&mut self, repository: &RepositoryName, work: Work, action: &Action) -> Result<()> {
        if !self.write.view().repositories().exists(repository)? {
            self.leave_out(action.to_string(), SkipReason::NothingToRun, None);
            return Ok(());
        }
        let key = upkeep(&work, repository);
        if let Some(job) = self.maintained.get(&key).copied() {
            // What this run itself has queued is not left over from one before.
            if !self.ran.jobs.contains(&job) {
                self.leave_out(action.to_string(), SkipReason::StillRunning, Some(job));
            }
            return Ok(());
        }
        let number = self.create(work, repository.clone())?;
        self.maintained.insert(key, number);
        Ok(())
    }

    fn create(&mut self, work: Work, repository: RepositoryName) -> Result<u64> {
        let Asked { origin, actor, now } = self.asked;
        let schedule = self.schedule.cloned();
        let job = self.write.jobs().create(|number| Job {
            origin,
            schedule,
            retry: origin != Origin::Manual,
            ..Job::new(number, work, repository, actor, now)
        })?;
        self.ran.jobs.push(job.number);
        Ok(job.number)
    }

    fn switch(&mut self, name: &ScheduleName, enable: bool, action: &Action) -> Result<()> {
        let Some(stored) = self.write.schedules().get(name)? else {
            self.leave_out(action.to_string(), SkipReason::NothingToRun, None);
            return Ok(());
        };
        let word = if enable { "enabled" } else { "disabled" };
        if stored.enabled == enable {
            self.ran.done.push(format!("schedule {name} was {word} already"));
            return Ok(());
        }
        let changed = Schedule { enabled: enable, ..stored.clone() };
        self.write.update_schedule(&stored, &changed, self.asked.now, self.asked.actor)?;
        self.ran.done.push(format!("schedule {name} {word}"));
        self.ran.changed.push(name.clone());
        Ok(())
    }

    fn leave_out(&mut self, what: String, reason: SkipReason, job: Option<u64>) {
        self.ran.left_out.push(LeftOut { what, reason, job });
    }
}
