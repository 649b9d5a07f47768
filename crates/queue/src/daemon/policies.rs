//! Retention: policies, holds, grace periods. What they decide is the model's business, that it is written in one step the store's.

use super::Daemon;
use super::errors::{from_store, refuse, refuse_in};
use model::archive::Hold;
use model::retention::{Confirmation, Policies as Deciding, Scope};
use model::schedule::Matcher;
use model::web_user;
use model::{Archive, ConfigName, Job, Policy, PolicyName, Timestamp, Work};
use store::retention::{Decision, Group};
use store::{ArchiveKey, Read, Result};
use wire::control::{
    ArchiveRef, Archives, Confirmed, ControlError, DueArchives, ErrorKind, Policies, Preview, PreviewedArchive, PreviewedGroup, Pruned,
    RefusedRepository, RetentionFilter, StoppedGroup, StoredPolicy,
};

use wire::worker::Pruning;

type Answered<T> = std::result::Result<T, ControlError>;

/// Archives of one page of a preview, at least; then the config at hand is finished.
const PAGE: usize = 2_000;

/// Archives that one call may name.
const MAX_NAMED: usize = 10_000;

/// Confirmations that a policy remembers. Later ones of a config take the place of earlier ones.
const MAX_CONFIRMED: usize = 1_000;

fn missing(name: &PolicyName) -> store::Error {
    refuse_in(ErrorKind::NotFound, format!("there is no policy {name}; `borgcube policy list` shows what there is"))
}

pub(super) fn check(policy: &Policy) -> Answered<()> {
    policy.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))
}

/// Configs that it names exist.
pub(super) fn check_references(r: &Read<'_>, policy: &Policy) -> Result<()> {
    for scope in &policy.applies {
        if let Scope::Config { config } = scope
            && !r.configs().exists(config)?
            && r.archives().page(&store::ArchiveFilter { config: Some(config.clone()), ..Default::default() }, 1)?.is_empty()
        {
            let message = format!("there is no config {config}, nor any archive of it; `borgcube config list` shows what there is");
            return Err(refuse_in(ErrorKind::NotFound, message));
        }
    }
    Ok(())
}

/// Configs that two policies claim from now on.
pub(super) fn conflicts(r: &Read<'_>) -> Result<Vec<String>> {
    let policies = r.policies().list()?;
    let deciding = Deciding::new(&policies).map_err(store::Error::caller)?;
    let mut warnings = vec![];
    for config in r.configs().list()? {
        if let Err(ambiguous) = deciding.deciding(&config.client, &config.label) {
            warnings.push(format!("{} is not pruned: {ambiguous}", config.name()));
        }
    }
    let more = warnings.len().saturating_sub(5);
    warnings.truncate(5);
    if more > 0 {
        warnings.push(format!("and {more} more configs are not pruned either"));
    }
    Ok(warnings)
}

/// What becomes of archives that were about to go by other rules of `policy`.
pub(super) fn stays(archives: usize, policy: &str) -> String {
    match archives {
        1 => format!("1 archive that {policy} was about to delete stays until it decides about it again"),
        _ => format!("{archives} archives that {policy} was about to delete stay until it decides about them again"),
    }
}

impl Daemon {
    pub(super) fn list_policies(&self) -> Answered<Policies> {
        self.store.read(|r| Ok(Policies { policies: r.policies().list()? })).map_err(from_store)
    }

    pub(super) fn add_policy(&mut self, mut policy: Policy, actor: &str) -> Answered<StoredPolicy> {
        check(&policy)?;
        policy.created = Timestamp::now();
        policy.confirmed = vec![];
        let written = self.store.write(&format!("add policy {}", policy.name), actor, |w| {
            if w.view().policies().exists(&policy.name)? {
                let message =
                    format!("there is a policy {} already; choose another name, or change it with `borgcube policy edit`", policy.name);
                return Err(refuse_in(ErrorKind::AlreadyExists, message));
            }
            check_references(&w.view(), &policy)?;
            w.policies().insert(&policy)?;
            conflicts(&w.view())
        });
        let (conflicts, _) = written.map_err(from_store)?;
        Ok(StoredPolicy { warnings: policy.warnings().into_iter().chain(conflicts).collect() })
    }

    pub(super) fn update_policy(&mut self, previous: &Policy, mut policy: Policy, actor: &str) -> Answered<StoredPolicy> {
        if policy.name != previous.name {
            let message = format!("policy {} cannot be renamed to {}: remove it and add it under the new name", previous.name, policy.name);
            return Err(refuse(ErrorKind::InvalidArgument, message));
        }
        check(&policy)?;
        policy.created = previous.created;
        // Only `confirm` confirms.
        policy.confirmed.clone_from(&previous.confirmed);
        let written = self.store.write(&format!("change policy {}", policy.name), actor, |w| {
            let stored = w.view().policies().get(&policy.name)?.ok_or_else(|| missing(&policy.name))?;
            if stored != *previous {
                let message =
                    format!("policy {} was changed by somebody else meanwhile; look at it again and repeat your change", policy.name);
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            check_references(&w.view(), &policy)?;
            w.policies().put(&policy)?;
            let forgotten = if stored.decides_otherwise(&policy) { w.forget_decisions(&policy.name)? } else { 0 };
            Ok((forgotten, conflicts(&w.view())?))
        });
        let ((forgotten, conflicts), _) = written.map_err(from_store)?;
        let again = (forgotten > 0).then(|| stays(forgotten, "it"));
        Ok(StoredPolicy { warnings: policy.warnings().into_iter().chain(again).chain(conflicts).collect() })
    }

    pub(super) fn remove_policy(&mut self, name: &PolicyName, actor: &str) -> Answered<()> {
        let written = self.store.write(&format!("remove policy {name}"), actor, |w| {
            if !w.view().policies().exists(name)? {
                return Err(missing(name));
            }
            w.policies().remove(name)?;
            w.forget_decisions(name)
        });
        written.map(drop).map_err(from_store)
    }

    pub(super) fn confirm_policy(&mut self, name: &PolicyName, config: Option<ConfigName>, actor: &str) -> Answered<Confirmed> {
        let now = Timestamp::now();
        let what = config.as_ref().map_or_else(String::new, |config| format!(" for {config}"));
        let written = self.store.write_at(now, &format!("confirm policy {name}{what}"), actor, |w| {
            let job = w.view().confirmable(now)?;
            let confirmation = Confirmation { config: config.clone(), job, by: actor.to_owned(), at: now };
            if !w.view().policies().exists(name)? {
                return Err(missing(name));
            }
            w.policies().update(name, |policy| {
                policy.confirmed.retain(|known| known.config != confirmation.config);
                if policy.confirmed.len() >= MAX_CONFIRMED {
                    policy.confirmed.remove(0);
                }
                policy.confirmed.push(confirmation.clone());
                Ok(job)
            })
        });
        Ok(Confirmed { up_to_job: written.map_err(from_store)?.0 })
    }

    pub(super) fn preview_retention(&self, filter: &RetentionFilter, after: Option<&ConfigName>) -> Answered<Preview> {
        let chosen = chosen(filter)?;
        let now = Timestamp::now();
        let read = self.store.read(|r| {
            if let Some(name) = &filter.policy
                && !r.policies().exists(name)?
                && filter.instead.as_ref().is_none_or(|instead| instead.name != *name)
            {
                return Err(missing(name));
            }
            let groups = r.retention(&chosen, after, PAGE, now)?;
            let last = groups.last().map(|group| group.config.clone());
            let next = match last {
                Some(last) if r.archives().config_behind(Some(&last))?.is_some() => Some(last),
                _ => None,
            };
            Ok((groups, next))
        });
        let (groups, next) = read.map_err(from_store)?;
        let mut groups: Vec<PreviewedGroup> = groups.into_iter().map(previewed).collect();
        if filter.going {
            // Whoever asks for hundreds of configs is told of one archive in thirty, and need not hear of the others.
            groups.iter_mut().for_each(|group| group.archives.retain(PreviewedArchive::may_go));
        }
        Ok(Preview { groups, next })
    }

    pub(super) fn prune_archives(&mut self, filter: &RetentionFilter, actor: &str) -> Answered<Pruned> {
        if filter.instead.is_some() {
            return Err(refuse(ErrorKind::InvalidArgument, "only a stored policy prunes; `borgcube policy edit` changes it"));
        }
        let chosen = chosen(filter)?;
        let now = Timestamp::now();
        let written = self.store.write_at(now, "prune", actor, |w| {
            if let Some(name) = &filter.policy
                && !w.view().policies().exists(name)?
            {
                return Err(missing(name));
            }
            let pruned = w.prune(&chosen, now, actor)?;
            let name = |key: &ArchiveKey| Ok(w.view().archives().require(key)?.name);
            let marked = pruned.marked.iter().map(|(key, _)| name(key)).collect::<Result<Vec<String>>>()?;
            Ok((marked, pruned))
        });
        let ((marked, pruned), _) = written.map_err(from_store)?;
        let due = pruned
            .due
            .into_iter()
            .map(|(repository, archives)| DueArchives { repository, archives: archives.into_iter().map(|archive| archive.name).collect() });
        let stopped = pruned.stopped.into_iter().map(|(config, repository, why)| StoppedGroup { config, repository, why });
        let refused = pruned.refused.into_iter().map(|(repository, why)| RefusedRepository { repository, why });
        let (left, pending) = (pruned.left as u64, pruned.pending as u64);
        Ok(Pruned { marked, due: due.collect(), stopped: stopped.collect(), left, pending, refused: refused.collect() })
    }

    pub(super) fn hold_archives(&mut self, archives: &[ArchiveRef], reason: &str, actor: &str) -> Answered<Archives> {
        if reason.len() > 200 || reason.chars().any(char::is_control) {
            return Err(refuse(ErrorKind::InvalidArgument, "a reason has at most 200 characters, and no line breaks"));
        }
        let hold = Hold { since: Timestamp::now(), by: actor.to_owned(), reason: reason.to_owned() };
        self.change_archives("hold", archives, actor, |w, keys| w.hold(keys, &hold))
    }

    pub(super) fn release_archives(&mut self, archives: &[ArchiveRef], actor: &str) -> Answered<Archives> {
        self.change_archives("release", archives, actor, |w, keys| w.release_holds(keys))
    }

    pub(super) fn delete_archives(&mut self, archives: &[ArchiveRef], grace_hours: Option<u32>, actor: &str) -> Answered<Archives> {
        if grace_hours.is_some_and(|hours| hours > Policy::MAX_GRACE_HOURS) {
            return Err(refuse(ErrorKind::InvalidArgument, "the grace period is at most 366 days"));
        }
        let now = Timestamp::now();
        self.change_archives("delete", archives, actor, |w, keys| {
            let policies = w.view().policies().list()?;
            let deciding = Deciding::new(&policies).map_err(store::Error::caller)?;
            let mut marked = vec![];
            for key in keys {
                let archive = w.view().archives().require(key)?;
                let policy = deciding.deciding(&archive.client, &archive.label).ok().flatten();
                let hours = grace_hours.or(policy.map(|policy| policy.grace_hours)).unwrap_or(Policy::GRACE_HOURS);
                // Whatever a policy says that was made on the server: nothing goes at once by order of the web.
                let hours = if actor.starts_with(web_user::ACTOR) { hours.max(web_user::LEAST_GRACE_HOURS) } else { hours };
                let due = now.plus_seconds(i64::from(hours) * 3600);
                marked.extend(w.mark_for_deletion(std::slice::from_ref(key), due, now, actor)?);
            }
            Ok(marked)
        })
    }

    pub(super) fn undelete_archives(&mut self, archives: &[ArchiveRef], hold: bool, actor: &str) -> Answered<Archives> {
        let hold = hold.then(|| Hold { since: Timestamp::now(), by: actor.to_owned(), reason: "undeleted".into() });
        self.change_archives("undelete", archives, actor, |w, keys| w.undelete(keys, hold.as_ref()))
    }

    fn change_archives(
        &mut self,
        verb: &str,
        archives: &[ArchiveRef],
        actor: &str,
        change: impl Fn(&mut store::Write<'_>, &[ArchiveKey]) -> Result<Vec<Archive>>,
    ) -> Answered<Archives> {
        if archives.is_empty() || archives.len() > MAX_NAMED {
            return Err(refuse(ErrorKind::InvalidArgument, format!("name 1 to {MAX_NAMED} archives at once")));
        }
        let keys: Vec<ArchiveKey> =
            archives.iter().map(|archive| ArchiveKey { repository: archive.repository.clone(), id: archive.id.clone() }).collect();
        let note = match archives {
            [one] => format!("{verb} archive {} in repository {}", one.id, one.repository),
            many => format!("{verb} {} archives", many.len()),
        };
        let written = self.store.write(&note, actor, |w| change(w, &keys));
        Ok(Archives { archives: written.map_err(from_store)?.0 })
    }
}

/// What a prune has to do: the policies decide in the transaction that begins the job.
pub(super) fn decide(w: &mut store::Write<'_>, job: &Job, now: Timestamp) -> Result<Pruning> {
    let Work::Prune { policy, clients, labels, compact } = &job.work else { return Ok(Pruning::default()) };
    let configs = match Matcher::maybe(clients.as_deref(), labels.as_deref()) {
        Ok(configs) => configs,
        // It was checked at entry, perhaps by another version.
        Err(why) => return Ok(Pruning { stopped: vec![why], ..Pruning::default() }),
    };
    let filter = store::retention::RetentionFilter { policy: policy.clone(), configs, repository: job.repository.clone(), instead: None };
    let pruned = w.prune(&filter, now, &job.actor)?;
    let names = pruned.due.into_values().flatten().map(|archive| archive.name);
    let stopped = pruned.stopped.into_iter().map(|(config, _, why)| format!("pruning of {config} is stopped: {why}"));
    Ok(Pruning {
        archives: names.collect(),
        marked: pruned.marked.len() as u64,
        stopped: stopped.collect(),
        pending: pruned.pending as u64,
        // A job has one repository.
        refused: pruned.refused.into_values().next(),
        compact: *compact,
    })
}

/// The store's filter for what a caller wants.
fn chosen(filter: &RetentionFilter) -> Answered<store::retention::RetentionFilter> {
    let wrong = |why| refuse(ErrorKind::InvalidArgument, why);
    let configs = Matcher::maybe(filter.client.as_deref(), filter.label.as_deref()).map_err(wrong)?;
    filter.instead.as_ref().map_or(Ok(()), check)?;
    Ok(store::retention::RetentionFilter {
        policy: filter.policy.clone(),
        configs,
        repository: filter.repository.clone(),
        instead: filter.instead.clone(),
    })
}

fn previewed(group: Group) -> PreviewedGroup {
    let stopped = group.stopped();
    let (policy, fates) = match group.decision {
        Decision::Planned { policy, fates } => (Some(policy), fates),
        Decision::Stopped { policy, .. } => (Some(policy), vec![]),
        Decision::NoPolicy | Decision::Ambiguous(_) => (None, vec![]),
    };
    let fates = fates.into_iter().map(Some).chain(std::iter::repeat(None));
    let archives = group.archives.into_iter().zip(fates).map(|(archive, verdict)| PreviewedArchive {
        id: archive.id,
        name: archive.name,
        time: archive.start,
        original_size: archive.statistics.original_size,
        sentence: verdict.as_ref().map(ToString::to_string).unwrap_or_default(),
        verdict,
        hold: archive.hold,
        pending_deletion: archive.pending_deletion,
    });
    PreviewedGroup { config: group.config, repository: group.repository, policy, stopped, archives: archives.collect() }
}
