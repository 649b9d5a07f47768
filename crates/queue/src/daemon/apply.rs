//! The configuration as a whole: read from one snapshot, changed in one transaction.
//!
//! Every change is judged by the rules of the single commands. Those that look at one record come first; those that look at what others
//! refer to are asked when everything is written, because only then the whole is what it shall be. One refusal, and nothing has happened.

use super::errors::{from_store, refuse, refuse_in};
use super::{Daemon, checks, keys, policies, records, scheduling};
use model::declarative::{Change, Configuration, Object, Record};
use model::{CheckConfig, Client, ConfigName, Policy, Repository, Settings, Timestamp, Trigger, TriggerId, validate};
use std::collections::BTreeMap;
use store::tables::{CheckConfigs, Clients, Configs, PolicyTable, Repositories, Schedules, SettingsTable, Triggers};
use store::{ArchiveFilter, Entry, JobFilter, Key, Read, Result, Table, TransactionNumber, Write};
use wire::control::{Applied, Changes, Configured, ControlError, ErrorKind, Event};

type Answered<T> = std::result::Result<T, ControlError>;

/// Changes in one call.
const MAX_CHANGES: usize = 100_000;

/// Transactions that may have happened since a plan was made; most are about jobs.
const MAX_SINCE: usize = 20_000;

fn invalid(why: String) -> ControlError {
    refuse(ErrorKind::InvalidArgument, why)
}

/// A refusal of something that is about this record.
fn about(record: &Record, error: ControlError) -> ControlError {
    let name = record.name();
    let title = if name.is_empty() { record.kind().to_string() } else { format!("{} {name}", record.kind()) };
    ControlError { message: format!("{title}: {}; nothing was changed", error.message), ..error }
}

fn about_in(record: &Record, error: store::Error) -> store::Error {
    store::Error::caller(about(record, from_store(error)))
}

impl Daemon {
    pub(super) fn configuration(&self) -> Answered<Configured> {
        self.store.read(read).map_err(from_store)
    }

    pub(super) fn apply_configuration(&mut self, wanted: Changes, actor: &str) -> Answered<Applied> {
        let Changes { base, mut changes, note } = wanted;
        if changes.len() > MAX_CHANGES {
            return Err(invalid(format!("{} changes are too many at once: at most {MAX_CHANGES}", changes.len())));
        }
        if note.len() > 200 || note.chars().any(char::is_control) {
            return Err(invalid("a note has at most 200 characters, and no line breaks".into()));
        }
        let now = Timestamp::now();
        // Nobody else writes these tables, so what is read here still holds below.
        let present = self.store.read(|r| {
            refuse_changed(r, TransactionNumber(base))?;
            changes.iter().map(|change| stored(r, record_of(change))).collect::<Result<Vec<Option<Record>>>>()
        });
        let present = present.map_err(from_store)?;
        let mut random_id = || {
            let mut bits = [0; 16];
            unix::random::fill(&mut bits).map_err(|e| refuse(ErrorKind::Internal, e.to_string()))?;
            Ok::<_, ControlError>(TriggerId::from_random(bits))
        };
        for (at, (change, old)) in (0_i64..).zip(changes.iter_mut().zip(&present)) {
            let Change::Put(record) = change else { continue };
            // Those of one moment keep their order.
            complete(record, old.as_ref(), Timestamp(now.0.saturating_add(at)), &mut random_id)?;
            self.judge(record, old.as_ref(), now, actor).map_err(|error| about(record, error))?;
        }
        let count = |verb: fn(&Change, &Option<Record>) -> bool| changes.iter().zip(&present).filter(|(c, old)| verb(c, old)).count();
        let added = count(|change, old| matches!(change, Change::Put(_)) && old.is_none());
        let changed = count(|change, old| matches!(change, Change::Put(_)) && old.is_some());
        let removed = count(|change, _| matches!(change, Change::Remove(_)));
        let what = format!("apply configuration ({added} added, {changed} changed, {removed} removed)");
        let note = if note.is_empty() { what } else { format!("{what}: {note}") };
        let installed = self.layout.is_installed();
        let written = self.store.write_at(now, &note, actor, |w| {
            let mut warnings = vec![];
            for (change, old) in changes.iter().zip(&present) {
                let record = record_of(change);
                let done = match change {
                    Change::Put(record) => put(w, record, old.as_ref(), now, actor, &mut warnings),
                    Change::Remove(record) => remove(w, record),
                };
                done.map_err(|error| about_in(record, error))?;
            }
            for (change, old) in changes.iter().zip(&present) {
                let record = record_of(change);
                let whole = match change {
                    Change::Put(record) => whole_with(w, record, old.as_ref(), installed),
                    Change::Remove(record) => whole_without(w, record),
                };
                whole.map_err(|error| about_in(record, error))?;
            }
            if changes.iter().any(|change| matches!(record_of(change), Record::Policy(_) | Record::Config(_))) {
                warnings.extend(policies::conflicts(&w.view())?);
            }
            Ok(warnings)
        });
        let (warnings, number) = written.map_err(from_store)?;
        log::info!("{actor}: {note}, transaction {number}");
        self.applied(&changes);
        Ok(Applied { transaction: number.0, warnings })
    }

    /// The rules that need no more than the record and the one before.
    fn judge(&self, record: &Record, old: Option<&Record>, now: Timestamp, actor: &str) -> Answered<()> {
        match (record, old) {
            (Record::Settings(settings), _) => validate::settings(&self.settings, settings).map_err(invalid),
            (Record::Repository(repository), Some(Record::Repository(old))) => self.judge_repository(Some(old), repository, actor),
            (Record::Repository(repository), _) => {
                let name = &repository.name;
                Err(refuse(ErrorKind::Conflict, format!("its passphrase is needed: add it with borgcube repository add {name}")))
            }
            (Record::Client(client), old) => {
                let old = old.and_then(|old| if let Record::Client(old) = old { Some(&**old) } else { None });
                self.judge_client(old, client, actor)
            }
            (Record::Config(config), _) => validate::config(config).map_err(invalid),
            (Record::Policy(policy), _) => policies::check(policy),
            (Record::CheckConfig(config), _) => checks::check(config),
            (Record::Schedule(schedule), old) => {
                scheduling::check(schedule)?;
                match old {
                    Some(Record::Schedule(old)) if old.recurrence == schedule.recurrence => Ok(()),
                    _ => scheduling::check_recurrence(&schedule.recurrence, now),
                }
            }
            (Record::Trigger(trigger), _) => trigger.check().map_err(invalid),
        }
    }

    /// Everybody concerned hears of it.
    fn applied(&mut self, changes: &[Change]) {
        let mut schedules = false;
        for change in changes {
            match (change, record_of(change)) {
                (_, Record::Settings(settings)) => self.settings = (**settings).clone(),
                (Change::Put(_), Record::Repository(repository)) => self.broadcast(&Event::Repository(repository.clone())),
                (_, Record::Schedule(_)) => schedules = true,
                _ => {}
            }
        }
        if changes.iter().any(|change| matches!(record_of(change), Record::Client(_))) {
            self.write_permanent_keys();
        }
        if schedules {
            self.schedules_changed();
        }
        self.queue_changed = true;
    }
}

fn record_of(change: &Change) -> &Record {
    match change {
        Change::Put(record) | Change::Remove(record) => record,
    }
}

fn read(r: &Read<'_>) -> Result<Configured> {
    let missing = || store::Error::caller(refuse(ErrorKind::Internal, "the server has no settings"));
    let configuration = Configuration {
        settings: r.settings()?.ok_or_else(missing)?,
        repositories: r.repositories().list()?,
        clients: r.clients().list()?,
        configs: r.configs().list()?,
        policies: r.policies().list()?,
        check_configs: r.check_configs().list()?,
        schedules: r.schedules().list()?,
        triggers: r.triggers().list()?,
    };
    let mut archived: Vec<ConfigName> = vec![];
    while let Some(config) = r.archives().config_behind(archived.last())? {
        archived.push(config);
    }
    let transaction = r.log().last()?.map_or(0, |entry| entry.number.0);
    Ok(Configured { transaction, configuration, archived })
}

/// What the server has under the name of a record. A trigger's name is its id.
fn stored(r: &Read<'_>, record: &Record) -> Result<Option<Record>> {
    Ok(match record {
        Record::Settings(_) => r.settings()?.map(|found| Record::Settings(Box::new(found))),
        Record::Repository(repository) => r.repositories().get(&repository.name)?.map(|found| Record::Repository(Box::new(found))),
        Record::Client(client) => r.clients().get(&client.name)?.map(|found| Record::Client(Box::new(found))),
        Record::Config(config) => r.configs().get(&config.name())?.map(|found| Record::Config(Box::new(found))),
        Record::Policy(policy) => r.policies().get(&policy.name)?.map(|found| Record::Policy(Box::new(found))),
        Record::CheckConfig(config) => r.check_configs().get(&config.name)?.map(|found| Record::CheckConfig(Box::new(found))),
        Record::Schedule(schedule) => r.schedules().get(&schedule.name)?.map(|found| Record::Schedule(Box::new(found))),
        Record::Trigger(trigger) => r.triggers().get(&trigger.id)?.map(|found| Record::Trigger(Box::new(found))),
    })
}

/// Fills in what only the server knows.
fn complete(
    record: &mut Record,
    old: Option<&Record>,
    now: Timestamp,
    random_id: &mut impl FnMut() -> Answered<TriggerId>,
) -> Answered<()> {
    match (record, old) {
        (Record::Settings(new), Some(Record::Settings(old))) => new.server_id.clone_from(&old.server_id),
        (Record::Repository(new), Some(Record::Repository(old))) => new.created = old.created,
        (Record::Client(new), old) => {
            let old = old.and_then(|old| if let Record::Client(old) = old { Some(old) } else { None });
            new.created = old.map_or(now, |old| old.created);
            for key in &mut new.keys {
                let known = old.and_then(|old| old.keys.iter().find(|known| known.key == key.key));
                key.added = known.map_or(now, |known| known.added);
            }
        }
        (Record::Config(new), Some(Record::Config(old))) => new.created = old.created,
        (Record::Config(new), _) => new.created = now,
        (Record::Policy(new), Some(Record::Policy(old))) => {
            new.created = old.created;
            // Only `confirm` confirms.
            new.confirmed.clone_from(&old.confirmed);
        }
        (Record::Policy(new), _) => (new.created, new.confirmed) = (now, vec![]),
        (Record::CheckConfig(new), Some(Record::CheckConfig(old))) => new.created = old.created,
        (Record::CheckConfig(new), _) => new.created = now,
        (Record::Trigger(new), Some(Record::Trigger(old))) => (new.created, new.last_used) = (old.created, old.last_used),
        (Record::Trigger(new), _) => {
            // Nobody chooses an id.
            (new.id, new.created, new.last_used) = (random_id()?, now, None);
        }
        // The store knows what belongs into a schedule.
        _ => {}
    }
    Ok(())
}

/// Writes a record, with what has to happen when the one before was another.
fn put(w: &mut Write<'_>, record: &Record, old: Option<&Record>, now: Timestamp, actor: &str, warnings: &mut Vec<String>) -> Result<()> {
    match (record, old) {
        (Record::Settings(settings), _) => w.set_settings(settings),
        (Record::Repository(repository), Some(Record::Repository(old))) => {
            records::refuse_other(old, repository)?;
            if !records::same_place(old, repository) {
                let message = format!("its place is tried before it is changed: borgcube repository edit {}", repository.name);
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            w.repositories().put(repository)
        }
        (Record::Repository(_), _) => Err(refuse_in(ErrorKind::Conflict, "its passphrase is needed: add it with borgcube repository add")),
        (Record::Client(client), _) => w.clients().put(client),
        (Record::Config(config), old) => {
            if let Some(Record::Config(old)) = old
                && old.repository != config.repository
            {
                refuse_live_config(w, &config.name())?;
            }
            w.configs().put(config)
        }
        (Record::Policy(policy), old) => {
            w.policies().put(policy)?;
            if let Some(Record::Policy(old)) = old
                && old.decides_otherwise(policy)
            {
                let forgotten = w.forget_decisions(&policy.name)?;
                if forgotten > 0 {
                    warnings.push(super::policies::stays(forgotten, &format!("policy {}", policy.name)));
                }
            }
            warnings.extend(policy.warnings().into_iter().map(|warning| format!("policy {}: {warning}", policy.name)));
            Ok(())
        }
        (Record::CheckConfig(config), _) => w.check_configs().put(config),
        (Record::Schedule(schedule), Some(Record::Schedule(old))) => {
            let next = model::Schedule { handled: old.handled, ahead: old.ahead, created: old.created, ..(**schedule).clone() };
            w.update_schedule(old, &next, now, actor)
        }
        (Record::Schedule(schedule), _) => w.add_schedule(schedule, now),
        (Record::Trigger(trigger), _) => w.triggers().put(trigger),
    }
}

fn refuse_live_config(w: &Write<'_>, name: &ConfigName) -> Result<()> {
    let filter = JobFilter { config: Some(name.clone()), ..Default::default() };
    records::refuse_live_jobs(&w.view(), filter, &format!("config {name}"))
}

fn remove(w: &mut Write<'_>, record: &Record) -> Result<()> {
    match record {
        Record::Settings(_) => Err(refuse_in(ErrorKind::InvalidArgument, "the server cannot be without settings")),
        Record::Repository(repository) => {
            let message = format!("it is removed with borgcube repository remove {} only", repository.name);
            Err(refuse_in(ErrorKind::Conflict, message))
        }
        Record::Client(client) => {
            let name = &client.name;
            let filter = ArchiveFilter { client: Some(name.clone()), ..Default::default() };
            if !w.view().archives().page(&filter, 1)?.is_empty() {
                let message = format!("it has archives: keep it, or type borgcube client remove {name}");
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            let filter = JobFilter { client: Some(name.clone()), ..Default::default() };
            records::refuse_live_jobs(&w.view(), filter, &format!("client {name}"))?;
            w.clients().remove(name).map(drop)
        }
        Record::Config(config) => {
            refuse_live_config(w, &config.name())?;
            w.configs().remove(&config.name()).map(drop)
        }
        Record::Policy(policy) => {
            w.policies().remove(&policy.name)?;
            w.forget_decisions(&policy.name).map(drop)
        }
        // Whether others name it is asked behind all changes.
        Record::CheckConfig(config) => w.check_configs().remove(&config.name).map(drop),
        Record::Schedule(schedule) => w.schedules().remove(&schedule.name).map(drop),
        Record::Trigger(trigger) => w.triggers().remove(&trigger.id).map(drop),
    }
}

/// Everything that a record refers to is there, and nobody else is what it is.
fn whole_with(w: &Write<'_>, record: &Record, old: Option<&Record>, installed: bool) -> Result<()> {
    let r = w.view();
    match (record, old) {
        (Record::Settings(_) | Record::Repository(_), _) => Ok(()),
        (Record::Client(client), _) => keys::refuse_shared(&r, client),
        (Record::Config(config), old) => {
            records::check_references(&r, config)?;
            let previous = old.and_then(|old| if let Record::Config(previous) = old { Some(&**previous) } else { None });
            records::refuse_commands(&r, previous, config, installed)
        }
        (Record::Policy(policy), _) => policies::check_references(&r, policy),
        (Record::CheckConfig(config), _) => checks::check_references(&r, config),
        // What was removed since it was named must not stand in the way of switching a schedule off.
        (Record::Schedule(schedule), Some(Record::Schedule(old))) if old.actions == schedule.actions => Ok(()),
        (Record::Schedule(schedule), _) => scheduling::check_references(&r, schedule),
        (Record::Trigger(trigger), Some(Record::Trigger(old))) if old.target == trigger.target => Ok(()),
        (Record::Trigger(trigger), _) => scheduling::check_target(&r, &trigger.target),
    }
}

/// Nothing is left that cannot be without it.
fn whole_without(w: &Write<'_>, record: &Record) -> Result<()> {
    match record {
        Record::Client(client) => records::refuse_used_client(&w.view(), &client.name),
        Record::CheckConfig(config) => checks::refuse_named(&w.view(), &config.name),
        Record::Schedule(schedule) => w.refuse_named_schedule(&schedule.name),
        _ => Ok(()),
    }
}

/// A record that transactions have touched.
struct Touched<'e> {
    /// What it was before the first of them.
    before: Option<&'e [u8]>,
    last: &'e Entry,
}

/// A plan is made from what the server was like; what people changed since, in whatever way, makes it another plan.
fn refuse_changed(r: &Read<'_>, base: TransactionNumber) -> Result<()> {
    let conflict = |message: String| refuse_in(ErrorKind::Conflict, message);
    if r.log().last()?.map(|entry| entry.number).unwrap_or_default() < base {
        return Err(conflict(format!(
            "the plan was made from transaction {base}, which this database does not have; look again with borgcube diff"
        )));
    }
    let mut since: Vec<Entry> = vec![];
    let mut below = TransactionNumber(u64::MAX);
    loop {
        let page = r.log().newest_before(below, 100)?;
        let Some(oldest) = page.last().map(|entry| entry.number) else { break };
        since.extend(page.into_iter().filter(|entry| entry.number > base));
        if oldest <= base {
            break;
        }
        if since.len() > MAX_SINCE {
            return Err(conflict("too much has happened since the plan was made; look again with borgcube diff".into()));
        }
        below = oldest;
    }
    let mut touched: BTreeMap<(&str, &[u8]), Touched<'_>> = BTreeMap::new();
    for entry in &since {
        for change in entry.changes.iter().filter(|change| is_configuration(&change.table)) {
            let before = change.before.as_deref();
            touched.entry((&change.table, &change.key)).or_insert(Touched { before, last: entry }).before = before;
        }
    }
    for ((table, key), Touched { before, last }) in touched {
        let before = before.map(|bytes| decode(table, bytes)).transpose()?.flatten();
        let now = present(r, table, key)?;
        if before.as_ref().map(Object::of) != now.as_ref().map(Object::of) {
            let Entry { number, actor, note, .. } = last;
            return Err(conflict(format!(
                "the configuration was changed since the plan was made, by transaction {number} ({actor}: {note}); nothing was applied. Look \
                 again with borgcube diff"
            )));
        }
    }
    Ok(())
}

fn is_configuration(table: &str) -> bool {
    let tables = [
        SettingsTable::NAME,
        Repositories::NAME,
        Clients::NAME,
        Configs::NAME,
        PolicyTable::NAME,
        CheckConfigs::NAME,
        Schedules::NAME,
        Triggers::NAME,
    ];
    tables.contains(&table)
}

fn decode(table: &str, bytes: &[u8]) -> Result<Option<Record>> {
    fn body<R: store::Record>(bytes: &[u8]) -> Result<Box<R>> {
        Ok(Box::new(store::record::decode::<R>("a record in the log", bytes)?.record))
    }
    Ok(Some(match table {
        SettingsTable::NAME => Record::Settings(body::<Settings>(bytes)?),
        Repositories::NAME => Record::Repository(body::<Repository>(bytes)?),
        Clients::NAME => Record::Client(body::<Client>(bytes)?),
        Configs::NAME => Record::Config(body(bytes)?),
        PolicyTable::NAME => Record::Policy(body::<Policy>(bytes)?),
        CheckConfigs::NAME => Record::CheckConfig(body::<CheckConfig>(bytes)?),
        Schedules::NAME => Record::Schedule(body(bytes)?),
        Triggers::NAME => Record::Trigger(body::<Trigger>(bytes)?),
        _ => return Ok(None),
    }))
}

fn present(r: &Read<'_>, table: &str, key: &[u8]) -> Result<Option<Record>> {
    Ok(match table {
        SettingsTable::NAME => r.settings()?.map(|found| Record::Settings(Box::new(found))),
        Repositories::NAME => r.repositories().get(&Key::decode(key)?)?.map(|found| Record::Repository(Box::new(found))),
        Clients::NAME => r.clients().get(&Key::decode(key)?)?.map(|found| Record::Client(Box::new(found))),
        Configs::NAME => r.configs().get(&Key::decode(key)?)?.map(|found| Record::Config(Box::new(found))),
        PolicyTable::NAME => r.policies().get(&Key::decode(key)?)?.map(|found| Record::Policy(Box::new(found))),
        CheckConfigs::NAME => r.check_configs().get(&Key::decode(key)?)?.map(|found| Record::CheckConfig(Box::new(found))),
        Schedules::NAME => r.schedules().get(&Key::decode(key)?)?.map(|found| Record::Schedule(Box::new(found))),
        Triggers::NAME => r.triggers().get(&Key::decode(key)?)?.map(|found| Record::Trigger(Box::new(found))),
        _ => None,
    })
}
