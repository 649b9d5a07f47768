//! The transactions of retention: what the policies say about the archives there are, holds, and the grace period before a deletion.
//!
//! A plan is made from one snapshot, and what it decides is written in the transaction that made it. Nothing here deletes an archive: the
//! repository's owner does, and takes the record out with it.

use std::collections::BTreeMap;

use model::archive::{Hold, PendingDeletion};
use model::check::Health;
use model::retention::{Ambiguous, Candidate, Fate, Jump, Policies, Situation, Stop, plan};
use model::schedule::Matcher;
use model::{Archive, ConfigName, Policy, PolicyName, RepositoryName, Timestamp};

use crate::error::{Error, Result};
use crate::tables::{ArchiveFilter, ArchiveKey, Deletion, JobFilter};
use crate::txn::{Read, Write};

/// Which archives are looked at.
#[derive(Debug, Clone, Default)]
pub struct RetentionFilter {
    /// Those that this policy decides about.
    pub policy: Option<PolicyName>,
    /// Those of matching configs.
    pub configs: Option<Matcher>,
    /// Those in this repository.
    pub repository: Option<RepositoryName>,
    /// As if this policy were stored in the place of the one with its name.
    pub instead: Option<Policy>,
}

/// The archives of one config in one repository, and what is decided about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The config; it may be gone.
    pub config: ConfigName,
    /// The repository.
    pub repository: RepositoryName,
    /// The archives, the newest first.
    pub archives: Vec<Archive>,
    /// What is decided.
    pub decision: Decision,
}

/// What is decided about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No policy is for it: everything stays.
    NoPolicy,
    /// Two policies are for it: everything stays.
    Ambiguous(Ambiguous),
    /// Something looks wrong: everything stays.
    Stopped {
        /// The policy.
        policy: PolicyName,
        /// What looks wrong.
        stop: Stop,
    },
    /// Each archive has its fate.
    Planned {
        /// The policy.
        policy: PolicyName,
        /// In the order of the archives.
        fates: Vec<Fate>,
    },
}

/// What pruning has decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Archives that go from now on, with the end of their grace period.
    pub marked: Vec<(ArchiveKey, Timestamp)>,
    /// Archives whose grace period is over, by repository: these may be deleted now.
    pub due: BTreeMap<RepositoryName, Vec<Archive>>,
    /// What was not pruned, and why.
    pub stopped: Vec<(ConfigName, RepositoryName, String)>,
    /// Archives that go as well, left to the next prune so that no transaction takes too long.
    pub left: usize,
    /// Archives whose grace period had begun before and is not over.
    pub pending: usize,
    /// Repositories of which nothing is pruned, because they are damaged, and the sentence that says so.
    pub refused: BTreeMap<RepositoryName, String>,
}

/// Archives that are marked, or said to be due, by one prune.
const MOST: usize = 10_000;

impl Read<'_> {
    /// Groups behind the config `after`, whole configs, until `at_least` archives are among them or there are no more.
    pub fn retention(&self, filter: &RetentionFilter, after: Option<&ConfigName>, at_least: usize, now: Timestamp) -> Result<Vec<Group>> {
        let mut stored = self.policies().list()?;
        let mut forgets = None;
        if let Some(instead) = &filter.instead {
            let is_otherwise = stored.iter().any(|policy| policy.name == instead.name && policy.decides_otherwise(instead));
            forgets = is_otherwise.then_some(&instead.name);
            stored.retain(|policy| policy.name != instead.name);
            stored.push(instead.clone());
        }
        let policies = Policies::new(&stored).map_err(Error::caller)?;
        let jumps = self.jumps(now)?;
        let mut groups = vec![];
        let mut count = 0;
        let mut last = after.cloned();
        while count < at_least {
            let Some(config) = self.archives().config_behind(last.as_ref())? else { break };
            if filter.configs.as_ref().is_none_or(|matcher| matcher.matches(&config.client, &config.label)) {
                let decided = self.config_groups(filter, &policies, forgets, &config, &jumps, now)?;
                count += decided.iter().map(|group| group.archives.len().max(1)).sum::<usize>();
                groups.extend(decided);
            }
            last = Some(config);
        }
        Ok(groups)
    }

    /// The job up to which everything is right, if somebody says so now.
    pub fn confirmable(&self, now: Timestamp) -> Result<u64> {
        let newest = self.jobs().page(&JobFilter::default(), 1)?.first().map_or(0, |job| job.number);
        // A jump that no job has noticed yet is dated before the next one.
        Ok(self.jobs().clock_jump(now)?.map_or(newest, |jump| jump.job))
    }

    /// Where the clock jumped, the present moment included.
    fn jumps(&self, now: Timestamp) -> Result<Vec<Jump>> {
        let mut jumps = self.clock_jumps().list()?;
        jumps.extend(self.jobs().clock_jump(now)?);
        Ok(jumps)
    }

    fn config_groups(
        &self,
        filter: &RetentionFilter,
        policies: &Policies<'_>,
        forgets: Option<&PolicyName>,
        config: &ConfigName,
        jumps: &[Jump],
        now: Timestamp,
    ) -> Result<Vec<Group>> {
        let deciding = policies.deciding(&config.client, &config.label);
        if let Some(wanted) = &filter.policy {
            let is_it = match &deciding {
                Ok(policy) => policy.is_some_and(|policy| policy.name == *wanted),
                Err(Ambiguous { first, second }) => first == wanted || second == wanted,
            };
            if !is_it {
                return Ok(vec![]);
            }
        }
        let page = ArchiveFilter { config: Some(config.clone()), repository: filter.repository.clone(), ..Default::default() };
        let mut by_repository: BTreeMap<RepositoryName, Vec<Archive>> = BTreeMap::new();
        for archive in self.archives().page(&page, usize::MAX)? {
            by_repository.entry(archive.repository.clone()).or_default().push(archive);
        }
        let groups = by_repository.into_iter().map(|(repository, archives)| {
            let (archives, decision) = match &deciding {
                Ok(Some(policy)) => decide(archives, policy, forgets, config, jumps, now),
                Ok(None) => (archives, Decision::NoPolicy),
                Err(ambiguous) => (archives, Decision::Ambiguous(ambiguous.clone())),
            };
            Group { config: config.clone(), repository, archives, decision }
        });
        Ok(groups.collect())
    }
}

/// `forgets`: what this policy decided before does not count.
fn decide(
    archives: Vec<Archive>,
    policy: &Policy,
    forgets: Option<&PolicyName>,
    config: &ConfigName,
    jumps: &[Jump],
    now: Timestamp,
) -> (Vec<Archive>, Decision) {
    let is_forgotten = |archive: &Archive| {
        forgets.is_some() && archive.pending_deletion.as_ref().is_some_and(|pending| pending.policy.as_ref() == forgets)
    };
    let candidate = |archive| Candidate { going: Candidate::from(archive).going && !is_forgotten(archive), ..Candidate::from(archive) };
    let candidates: Vec<Candidate<'_>> = archives.iter().map(candidate).collect();
    let situation = Situation { now, jumps, confirmed: policy.confirmed_for(config) };
    let name = policy.name.clone();
    match plan(&candidates, policy, &situation) {
        Err(stop) => (archives, Decision::Stopped { policy: name, stop }),
        Ok(verdicts) => {
            let fates: BTreeMap<String, Fate> = verdicts.into_iter().map(|v| (v.archive.id.to_owned(), v.fate)).collect();
            // One fate for each: an id is there once in a repository.
            let fates = archives.iter().filter_map(|archive| fates.get(&archive.id).cloned()).collect();
            (archives, Decision::Planned { policy: name, fates })
        }
    }
}

impl Group {
    /// What stands in the way of pruning it, in a sentence; None also if it is none of a policy's business.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        match &self.decision {
            Decision::Ambiguous(ambiguous) => Some(ambiguous.to_string()),
            Decision::Stopped { stop, .. } => Some(stop.to_string()),
            Decision::NoPolicy | Decision::Planned { .. } => None,
        }
    }

    /// The archives that the plan takes.
    pub fn going(&self) -> impl Iterator<Item = &Archive> {
        let fates = match &self.decision {
            Decision::Planned { fates, .. } => fates.as_slice(),
            _ => &[],
        };
        self.archives.iter().zip(fates).filter(|(_, fate)| matches!(fate, Fate::Goes { .. })).map(|(archive, _)| archive)
    }

    /// How many archives' grace period has begun and is not over.
    fn pending(&self, now: Timestamp) -> usize {
        let is_pending =
            |archive: &&Archive| archive.hold.is_none() && archive.pending_deletion.as_ref().is_some_and(|pending| pending.due > now);
        self.archives.iter().filter(is_pending).count()
    }

    /// The archives whose grace period is over. What a person chose goes whatever the policies say; a policy's choice waits while
    /// something looks wrong.
    fn due(&self, now: Timestamp) -> impl Iterator<Item = &Archive> {
        let may_go = |by: &Option<PolicyName>| by.is_none() || matches!(self.decision, Decision::Planned { .. });
        self.archives.iter().filter(move |archive| {
            archive.hold.is_none() && archive.pending_deletion.as_ref().is_some_and(|pending| pending.due <= now && may_go(&pending.policy))
        })
    }
}

fn refusal(health: Health) -> Option<(RepositoryName, String)> {
    let why = health.damage?.refuses_prune(&health.repository);
    Some((health.repository, why))
}

impl Write<'_> {
    /// Decides about the archives that `filter` lets through: marks what goes, and says what is due.
    pub fn prune(&mut self, filter: &RetentionFilter, now: Timestamp, actor: &str) -> Result<Pruned> {
        let groups = self.view().retention(filter, None, usize::MAX, now)?;
        let grace: BTreeMap<PolicyName, u32> =
            self.view().policies().list()?.into_iter().map(|policy| (policy.name, policy.grace_hours)).collect();
        let damaged: BTreeMap<RepositoryName, String> = self.view().health().list()?.into_iter().filter_map(refusal).collect();
        let mut pruned = Pruned::default();
        for group in groups {
            if let Some(why) = damaged.get(&group.repository) {
                if group.decision != Decision::NoPolicy || group.due(now).next().is_some() {
                    pruned.refused.insert(group.repository.clone(), why.clone());
                }
                continue;
            }
            pruned.pending += group.pending(now);
            if let Decision::Planned { policy, .. } = &group.decision {
                let hours = grace.get(policy).copied().unwrap_or(Policy::GRACE_HOURS);
                let due = now.plus_seconds(i64::from(hours) * 3600);
                let pending = PendingDeletion { since: now, due, by: actor.to_owned(), policy: Some(policy.clone()) };
                for archive in group.going() {
                    if pruned.marked.len() >= MOST {
                        pruned.left += 1;
                        continue;
                    }
                    let key = ArchiveKey::of(archive);
                    self.mark(&key, &pending)?;
                    pruned.marked.push((key, due));
                    if due <= now {
                        pruned.due.entry(group.repository.clone()).or_default().push(archive.clone());
                    }
                }
            }
            pruned.stopped.extend(group.stopped().map(|why| (group.config.clone(), group.repository.clone(), why)));
            let room = MOST.saturating_sub(pruned.due.values().map(Vec::len).sum());
            let due: Vec<Archive> = group.due(now).take(room).cloned().collect();
            if !due.is_empty() {
                pruned.due.entry(group.repository.clone()).or_default().extend(due);
            }
        }
        Ok(pruned)
    }

    fn mark(&mut self, key: &ArchiveKey, pending: &PendingDeletion) -> Result<()> {
        self.archives().update(key, |archive| {
            archive.pending_deletion = Some(pending.clone());
            Ok(())
        })
    }

    /// Begins the grace period of archives that a person chose. Refused as a whole if one of them is held. What is going already keeps
    /// its time, unless the new one is earlier.
    pub fn mark_for_deletion(&mut self, keys: &[ArchiveKey], due: Timestamp, now: Timestamp, actor: &str) -> Result<Vec<Archive>> {
        let mut marked = vec![];
        for key in keys {
            let archive = self.archives().require(key)?;
            if let Some(hold) = &archive.hold {
                return Err(Error::caller(is_held(&archive, hold)));
            }
            if archive.pending_deletion.as_ref().is_none_or(|pending| pending.policy.is_some() || due < pending.due) {
                let due = archive.pending_deletion.as_ref().map_or(due, |pending| pending.due.min(due));
                self.mark(key, &PendingDeletion { since: now, due, by: actor.to_owned(), policy: None })?;
            }
            marked.push(self.archives().require(key)?);
        }
        Ok(marked)
    }

    /// Ends the grace period of archives, which stay. With a `hold` they are kept from then on; otherwise the next prune may take
    /// them again.
    pub fn undelete(&mut self, keys: &[ArchiveKey], hold: Option<&Hold>) -> Result<Vec<Archive>> {
        self.refuse_going(keys)?;
        self.each(keys, |archive| {
            if archive.pending_deletion.take().is_none() {
                return Err(Error::caller(format!("archive {} is not going to be deleted; nothing was changed", archive.name)));
            }
            if archive.hold.is_none() {
                archive.hold = hold.cloned();
            }
            Ok(())
        })
    }

    /// Holds archives: nothing deletes them before they are released. What is going stays.
    pub fn hold(&mut self, keys: &[ArchiveKey], hold: &Hold) -> Result<Vec<Archive>> {
        self.refuse_going(keys)?;
        self.each(keys, |archive| {
            if archive.incomplete {
                let message = format!("archive {} is incomplete and no restore point; it can't be held", archive.name);
                return Err(Error::caller(message));
            }
            archive.pending_deletion = None;
            archive.hold = Some(hold.clone());
            Ok(())
        })
    }

    /// Releases archives: policies decide about them again.
    pub fn release_holds(&mut self, keys: &[ArchiveKey]) -> Result<Vec<Archive>> {
        self.each(keys, |archive| match archive.hold.take() {
            Some(_) => Ok(()),
            None => Err(Error::caller(format!("archive {} is not held; nothing was changed", archive.name))),
        })
    }

    /// Ends the grace periods that a policy began: it is gone, or decides otherwise now. Returns how many.
    pub fn forget_decisions(&mut self, policy: &PolicyName) -> Result<usize> {
        let is_its = |archive: &Archive| archive.pending_deletion.as_ref().is_some_and(|pending| pending.policy.as_ref() == Some(policy));
        let archives: Vec<Archive> = self.view().archives().list()?.into_iter().filter(is_its).collect();
        for archive in &archives {
            self.archives().put(&Archive { pending_deletion: None, ..archive.clone() })?;
        }
        Ok(archives.len())
    }

    /// What its owner takes out of the repository at this moment nobody can keep any more. An owner that was killed at that moment leaves the answer to the
    /// next opening of the repository.
    fn refuse_going(&self, keys: &[ArchiveKey]) -> Result<()> {
        for key in keys {
            let deletion = self.view().deletions().get(&key.repository)?;
            if let Some(Deletion { time, .. }) = deletion.filter(|deletion| deletion.archives.contains(&key.id)) {
                let name = self.view().archives().get(key)?.map_or_else(|| key.id.clone(), |archive| archive.name);
                let (repository, since) = (&key.repository, time.to_local());
                let message = format!(
                    "archive {name} is being deleted from repository {repository} (since {since}); nothing was changed. If that was broken off, the repository \
                     has to be opened to see whether the archive is still there: `borgcube repository check {repository}` does that, or says why it \
                     cannot be opened. Then try again"
                );
                return Err(Error::caller(message));
            }
        }
        Ok(())
    }

    fn each(&mut self, keys: &[ArchiveKey], change: impl Fn(&mut Archive) -> Result<()>) -> Result<Vec<Archive>> {
        let mut changed = vec![];
        for key in keys {
            changed.push(self.archives().update(key, |archive| {
                change(archive)?;
                Ok(archive.clone())
            })?);
        }
        Ok(changed)
    }
}

fn is_held(archive: &Archive, hold: &Hold) -> String {
    let reason = if hold.reason.is_empty() { String::new() } else { format!(" ({})", hold.reason) };
    format!(
        "archive {} is held by {}{reason}; nothing was deleted. To delete it, release it first with `borgcube archive release`",
        archive.name, hold.by
    )
}
