//! Taking a transaction back: the store knows how, here it is decided whether.

use super::errors::{from_store, refuse, refuse_in};
use super::records::{programs, same_place};
use super::{Daemon, settings};
use model::{BackupConfig, Client, ClientName, ConfigName, Job, Repository, RepositoryName, Timestamp, UserName, WebUser};
use std::collections::BTreeSet;
use store::tables::{Archives, Clients, Configs, Jobs, Repositories, Schedules, WebUsers};
use store::{Change, Entry, Key, Read, Result, Table, TransactionNumber};
use wire::control::{ControlError, ErrorKind, Event};

impl Daemon {
    /// Reverts a transaction.
    pub(super) fn undo(&mut self, number: TransactionNumber, actor: &str) -> std::result::Result<TransactionNumber, ControlError> {
        // Nobody else writes these tables, so what is checked here still holds below.
        let entry = self.store.read(|r| {
            let entry = r.log().get(number)?;
            check(r, &entry)?;
            Ok(entry)
        });
        let entry = entry.map_err(from_store)?;
        self.may_bring_back(&entry, actor)?;
        let undone = self.store.undo(number, Timestamp::now(), actor).map_err(|error| self.undone_already(number, error))?;
        log::info!(event = "undone"; "{actor} undid transaction {number} ({})", entry.note);
        self.tell(&entry);
        Ok(undone)
    }

    /// An undo must not bring back what only root may write.
    fn may_bring_back(&self, entry: &Entry, actor: &str) -> std::result::Result<(), ControlError> {
        match self.store.read(|r| chooses_programs(r, entry)).map_err(from_store)? {
            true => self.need_root(&format!("undo transaction {} ({})", entry.number, entry.note), actor),
            false => Ok(()),
        }
    }

    /// The most frequent reason why something cannot be undone deserves words of its own.
    fn undone_already(&self, number: TransactionNumber, error: store::Error) -> ControlError {
        if let store::Error::ChangedLater { later, .. } = &error
            && self.store.read(|r| r.log().get(*later)).is_ok_and(|entry| entry.undoes == Some(number))
        {
            let message = format!("transaction {number} is undone already, by transaction {later}; `borgcube undo {later}` brings it back");
            return refuse(ErrorKind::Conflict, message);
        }
        from_store(error)
    }

    fn tell(&mut self, entry: &Entry) {
        match settings::load(&self.store) {
            Ok(settings) => self.settings = settings,
            Err(e) => log::error!("{e:#}"),
        }
        self.queue_changed = true;
        self.write_permanent_keys();
        if entry.changes.iter().any(|change| change.table == Schedules::NAME) {
            self.schedules_changed();
        }
        if entry.changes.iter().any(|change| change.table == WebUsers::NAME || change.table == store::tables::SettingsTable::NAME) {
            self.users_changed();
        }
        for change in entry.changes.iter().filter(|change| change.table == Repositories::NAME) {
            let found = RepositoryName::decode(&change.key).and_then(|name| {
                let repository = self.store.read(|r| r.repositories().get(&name))?;
                Ok((name, repository))
            });
            match found {
                Ok((_, Some(repository))) => self.broadcast(&Event::Repository(Box::new(repository))),
                Ok((name, None)) => self.broadcast(&Event::RepositoryRemoved(name)),
                Err(e) => log::error!("{e}"),
            }
        }
    }
}

/// What an undo would do to names that others refer to.
#[derive(Default)]
struct Effect {
    clients_gone: BTreeSet<ClientName>,
    clients_back: BTreeSet<ClientName>,
    repositories_gone: BTreeSet<RepositoryName>,
    repositories_back: Vec<Repository>,
    configs_gone: BTreeSet<ConfigName>,
    configs_back: Vec<BackupConfig>,
}

fn check(r: &Read<'_>, entry: &Entry) -> Result<()> {
    let number = entry.number;
    let refuse = |why: String| refuse_in(ErrorKind::Conflict, format!("transaction {number} cannot be undone: {why}"));
    // Records go and come back with their repository; what was made or deleted in one is made or deleted.
    let whole_repository = entry.changes.iter().any(|change| change.table == Repositories::NAME);
    for change in &entry.changes {
        if change.table == Archives::NAME && !whole_repository && (change.before.is_none() || change.after.is_none()) {
            return Err(refuse(format!("it is about {}, and what was made or deleted in a repository stays so", change.record)));
        }
        if change.table == Jobs::NAME {
            return Err(refuse(format!(
                "it is about {}, and what a job did stays done (a queued or running one can be cancelled)",
                change.record
            )));
        }
        if change.table == store::tables::SettingsTable::NAME && change.before.is_none() {
            return Err(refuse("the server cannot be without settings".into()));
        }
    }
    if let Some(name) = old_token(r, entry)? {
        return Err(refuse(format!(
            "a token of user {name} that was replaced does not come back; `borgcube user token {name}` makes another"
        )));
    }
    if let Some((job, what)) = busy(r, entry)? {
        return Err(refuse(format!("job {} uses {what} and has not ended; wait, or cancel it", job.number)));
    }
    let effect = effect(entry)?;
    for config in r.configs().list()? {
        let name = config.name();
        if effect.configs_gone.contains(&name) || effect.configs_back.iter().any(|back| back.name() == name) {
            continue;
        }
        if effect.clients_gone.contains(&config.client) || effect.repositories_gone.contains(&config.repository) {
            return Err(refuse(format!("config {name} would be left without its client or repository; remove it first")));
        }
    }
    for gone in &effect.repositories_gone {
        let filter = store::ArchiveFilter { repository: Some(gone.clone()), ..store::ArchiveFilter::default() };
        if !r.archives().page(&filter, 1)?.is_empty() {
            return Err(refuse(format!(
                "repository {gone} has archives by now; `borgcube repository remove {gone}` takes their records along"
            )));
        }
    }
    let repositories = r.repositories().list()?;
    for back in &effect.repositories_back {
        if let Some(twin) = repositories.iter().find(|other| other.name != back.name && other.repository_id == back.repository_id) {
            return Err(refuse(format!("the repository {} is known as {} now", back.name, twin.name)));
        }
    }
    for config in &effect.configs_back {
        let client = !effect.clients_gone.contains(&config.client)
            && (effect.clients_back.contains(&config.client) || r.clients().exists(&config.client)?);
        let repository = !effect.repositories_gone.contains(&config.repository)
            && (effect.repositories_back.iter().any(|back| back.name == config.repository)
                || r.repositories().exists(&config.repository)?);
        if !client || !repository {
            let name = config.name();
            return Err(refuse(format!(
                "config {name} would come back without its client {} or its repository {}",
                config.client, config.repository
            )));
        }
    }
    Ok(())
}

/// The user of the status pages whose token would become an older one: it may be in wrong hands.
fn old_token(r: &Read<'_>, entry: &Entry) -> Result<Option<UserName>> {
    for change in entry.changes.iter().filter(|change| change.table == WebUsers::NAME) {
        let Some(back) = before::<WebUser>(change, change.before.as_deref())? else { continue };
        if r.web_users().get(&back.name)?.is_some_and(|now| now.sign_in != back.sign_in) {
            return Ok(Some(back.name));
        }
    }
    Ok(None)
}

/// A job that has not ended and whose client, repository or config the undo would touch.
fn busy(r: &Read<'_>, entry: &Entry) -> Result<Option<(Job, String)>> {
    let mut live = r.jobs().in_state(model::JobState::JobCreated)?;
    live.extend(r.jobs().running()?);
    for job in live {
        for change in &entry.changes {
            let concerned = match change.table.as_str() {
                Clients::NAME => Some(&ClientName::decode(&change.key)?) == job.client(),
                Configs::NAME => Some(ConfigName::decode(&change.key)?) == job.config(),
                Repositories::NAME => Some(RepositoryName::decode(&change.key)?) == job.repository,
                Archives::NAME => Some(store::ArchiveKey::decode(&change.key)?.repository) == job.repository,
                _ => false,
            };
            if concerned {
                return Ok(Some((job, change.record.clone())));
            }
        }
    }
    Ok(None)
}

fn effect(entry: &Entry) -> Result<Effect> {
    let mut effect = Effect::default();
    for change in &entry.changes {
        let back = change.before.as_deref();
        match change.table.as_str() {
            Clients::NAME => {
                let name = ClientName::decode(&change.key)?;
                let set = if before::<Client>(change, back)?.is_some() { &mut effect.clients_back } else { &mut effect.clients_gone };
                set.insert(name);
            }
            Repositories::NAME => {
                let name = RepositoryName::decode(&change.key)?;
                match before::<Repository>(change, back)? {
                    Some(repository) => effect.repositories_back.push(repository),
                    None => {
                        effect.repositories_gone.insert(name);
                    }
                }
            }
            Configs::NAME => match before::<BackupConfig>(change, back)? {
                Some(config) => effect.configs_back.push(config),
                None => {
                    effect.configs_gone.insert(ConfigName::decode(&change.key)?);
                }
            },
            _ => {}
        }
    }
    Ok(effect)
}

/// Whether an undo changes which programs run here, or which place a repository's owner opens.
fn chooses_programs(r: &Read<'_>, entry: &Entry) -> Result<bool> {
    for change in &entry.changes {
        let back = change.before.as_deref();
        let chooses = match change.table.as_str() {
            Repositories::NAME => match before::<Repository>(change, back)? {
                Some(back) => r.repositories().get(&back.name)?.is_none_or(|now| !same_place(&now, &back)),
                None => false,
            },
            Clients::NAME => match before::<Client>(change, back)? {
                Some(back) => match programs(&back) {
                    Some(chosen) => r.clients().get(&back.name)?.as_ref().and_then(programs) != Some(chosen),
                    None => false,
                },
                None => false,
            },
            _ => false,
        };
        if chooses {
            return Ok(true);
        }
    }
    Ok(false)
}

fn before<R: store::Record>(change: &Change, bytes: Option<&[u8]>) -> Result<Option<R>> {
    bytes.map(|bytes| Ok(store::record::decode::<R>(&change.record, bytes)?.record)).transpose()
}
