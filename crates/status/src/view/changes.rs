//! What a retention policy would do if it were stored as somebody has it in a form: beside what it does now.

use super::Context;
use super::policies::{PreviewGroup, group_of};
use crate::query::Unanswered;
use model::{ConfigName, Policy, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use store::retention::{Group, RetentionFilter};

/// Archives that are looked at, at least; then the config at hand is finished, and the rest is left out.
const MOST: usize = 1_000;
/// Archives of one config that are listed.
const LISTED: usize = 50;

/// The archives of one config in one repository, and what would become of them.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ChangedGroup {
    /// The config.
    pub config: String,
    /// The repository. Nothing: more configs follow, and are not shown.
    pub repository: String,
    /// Why nothing would be decided, if so.
    pub stopped: Option<String>,
    /// What is otherwise for all of them: who decides.
    pub note: Option<&'static str>,
    /// How many would be kept.
    pub kept: u64,
    /// How many would go.
    pub goes: u64,
    /// Those whose fate would be another, the newest first; at most 50.
    pub changed: Vec<ChangedRow>,
    /// How many more of these.
    pub more: u64,
}

/// What would become of one archive.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChangedRow {
    /// Borg's archive id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When its job began to read.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// Bytes of the files in it.
    pub original_size: u64,
    /// `kept` or `goes`.
    pub fate: Option<&'static str>,
    /// Why, in words.
    pub sentence: String,
    /// The fate that it has now.
    pub before: Option<&'static str>,
}

impl ChangedGroup {
    /// For the configs that the policy decides about, or would.
    pub fn all(c: &Context<'_>, before: Option<&Policy>, policy: &Policy) -> Result<Vec<ChangedGroup>, Unanswered> {
        let new = RetentionFilter { policy: Some(policy.name.clone()), instead: Some(policy.clone()), ..RetentionFilter::default() };
        let old = before.map(|before| RetentionFilter { policy: Some(before.name.clone()), ..RetentionFilter::default() });
        let mut groups = vec![];
        let (mut after, mut looked_at) = (None, 0);
        loop {
            let next = |filter: &RetentionFilter| c.read.retention(filter, after.as_ref(), 1, c.now);
            let (mut new, mut old) = (next(&new)?, old.as_ref().map(next).transpose()?.unwrap_or_default());
            let name = |groups: &[Group]| groups.first().map(|group| group.config.clone());
            let Some(config) = [name(&new), name(&old)].into_iter().flatten().min() else { break };
            if looked_at >= MOST {
                groups.push(ChangedGroup { config: config.to_string(), ..ChangedGroup::default() });
                break;
            }
            new.retain(|group| group.config == config);
            old.retain(|group| group.config == config);
            looked_at += new.iter().chain(&old).map(|group| group.archives.len()).sum::<usize>();
            groups.extend(together(&config, new, old));
            after = Some(config);
        }
        Ok(groups)
    }
}

/// Of one config, by repository.
fn together(config: &ConfigName, new: Vec<Group>, old: Vec<Group>) -> Vec<ChangedGroup> {
    let mut by_repository: BTreeMap<String, (Option<PreviewGroup>, Option<PreviewGroup>)> = BTreeMap::new();
    for group in new.into_iter().map(group_of) {
        let entry = by_repository.entry(group.repository.clone()).or_default();
        entry.0 = Some(group);
    }
    for group in old.into_iter().map(group_of) {
        let entry = by_repository.entry(group.repository.clone()).or_default();
        entry.1 = Some(group);
    }
    by_repository.into_iter().map(|(repository, (new, old))| changed(config, repository, new, old)).collect()
}

fn changed(config: &ConfigName, repository: String, new: Option<PreviewGroup>, old: Option<PreviewGroup>) -> ChangedGroup {
    let group = ChangedGroup { config: config.to_string(), repository, ..ChangedGroup::default() };
    let note = match (&new, &old) {
        (None, _) => Some("It would not decide about this config any more."),
        (_, None) => Some("It does not decide about this config yet."),
        _ => None,
    };
    let Some(new) = new else { return ChangedGroup { note, ..group } };
    let before: BTreeMap<String, Option<&'static str>> =
        old.into_iter().flat_map(|old| old.archives).map(|archive| (archive.id, archive.fate)).collect();
    let mut changed: Vec<ChangedRow> = new
        .archives
        .into_iter()
        .map(|archive| ChangedRow {
            before: before.get(&archive.id).copied().flatten(),
            id: archive.id,
            name: archive.name,
            time: archive.time,
            original_size: archive.original_size,
            fate: archive.fate,
            sentence: archive.sentence,
        })
        // What nobody decides about is kept.
        .filter(|row| row.fate.is_some_and(|fate| fate != row.before.unwrap_or("kept")))
        .collect();
    let more = changed.len().saturating_sub(LISTED) as u64;
    changed.truncate(LISTED);
    ChangedGroup { stopped: new.stopped, note, kept: new.kept, goes: new.goes, changed, more, ..group }
}
