//! Retention policies, and what they would do now.

use super::jobs::Window;
use super::{Context, Frame};
use crate::query::{Query, Unanswered};
use crate::text;
use askama::Template;
use model::retention::{Fate, Scope};
use model::{ConfigName, Policy, PolicyName, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use store::retention::{Decision, Group, RetentionFilter};

/// Archives of one page of a preview, at least; then the config at hand is finished.
const PAGE: usize = 300;

/// A policy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PolicyRow {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Its rules, in words: `within 7d`, `daily 7`.
    pub rules: Vec<String>,
    /// At least so many of a config's newest archives are kept.
    pub minimum: u32,
    /// Hours between the decision that an archive goes and its deletion.
    pub grace_hours: u32,
    /// What it is for, in words.
    pub applies: Vec<String>,
}

impl PolicyRow {
    fn of(policy: &Policy) -> PolicyRow {
        let within = policy.within.iter().map(|within| format!("within {within}"));
        let scope = |scope: &Scope| match scope {
            Scope::Config { config } => config.to_string(),
            Scope::Configs { client, label } => format!("clients /{client}/ with labels /{label}/"),
        };
        PolicyRow {
            name: policy.name.to_string(),
            description: policy.description.clone(),
            rules: within.chain(policy.keep.iter().map(|(period, count)| format!("{period} {count}"))).collect(),
            minimum: policy.minimum,
            grace_hours: policy.grace_hours,
            applies: policy.applies.iter().map(scope).collect(),
        }
    }
}

/// Policies.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "policies.html")]
pub struct PoliciesPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// By name.
    pub policies: Vec<PolicyRow>,
}

impl PoliciesPage {
    /// All of them.
    pub fn new(c: &Context<'_>) -> Result<PoliciesPage, Unanswered> {
        Ok(PoliciesPage { frame: c.frame("policies"), policies: c.read.policies().list()?.iter().map(PolicyRow::of).collect() })
    }
}

/// The archives of one config in one repository, and what would happen to them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PreviewGroup {
    /// The config.
    pub config: String,
    /// The repository.
    pub repository: String,
    /// Why nothing is decided, if so.
    pub stopped: Option<String>,
    /// How many would be kept.
    pub kept: u64,
    /// How many would go.
    pub goes: u64,
    /// The newest first.
    pub archives: Vec<PreviewRow>,
}

/// What would happen to one archive.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PreviewRow {
    /// Borg's archive id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When its job began to read.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// Bytes of the files in it.
    pub original_size: u64,
    /// `kept`, `goes`, or nothing if nothing is decided.
    pub fate: Option<&'static str>,
    /// In words: which rule keeps it, or why it goes.
    pub sentence: String,
}

/// One policy with its preview.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "policy.html")]
pub struct PolicyPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// As in the list.
    pub policy: PolicyRow,
    /// What it would do now, whole configs by name.
    pub groups: Vec<PreviewGroup>,
    /// The rest of the preview.
    pub window: Window,
}

impl PolicyPage {
    /// By name.
    pub fn new(c: &Context<'_>, name: &PolicyName, query: &Query) -> Result<PolicyPage, Unanswered> {
        let policy = c.read.policies().get(name)?.ok_or_else(|| Unanswered::NotFound(format!("there is no policy {name}")))?;
        let after = query.get::<ConfigName>("after")?;
        let filter = RetentionFilter { policy: Some(name.clone()), ..RetentionFilter::default() };
        let groups = c.read.retention(&filter, after.as_ref(), PAGE, c.now)?;
        let last = groups.last().map(|group| group.config.clone());
        let more = match &last {
            Some(last) => c.read.archives().config_behind(Some(last))?.is_some(),
            None => false,
        };
        let next = last.filter(|_| more).map(|last| last.to_string());
        Ok(PolicyPage {
            frame: c.frame("policies"),
            policy: PolicyRow::of(&policy),
            groups: groups.into_iter().map(group_of).collect(),
            window: Window::of(query, "after", next),
        })
    }
}

pub(super) fn group_of(group: Group) -> PreviewGroup {
    let stopped = group.stopped();
    let fates = match group.decision {
        Decision::Planned { fates, .. } => fates,
        Decision::Stopped { .. } | Decision::NoPolicy | Decision::Ambiguous(_) => vec![],
    };
    let fates = fates.into_iter().map(Some).chain(std::iter::repeat(None));
    let word = |fate: &Fate| match fate {
        Fate::Goes { .. } | Fate::Going {} => "goes",
        Fate::Kept { .. } | Fate::Incomplete {} | Fate::Future {} => "kept",
    };
    let archives: Vec<PreviewRow> = group
        .archives
        .into_iter()
        .zip(fates)
        .map(|(archive, fate)| PreviewRow {
            id: archive.id,
            name: archive.name,
            time: archive.start,
            original_size: archive.statistics.original_size,
            fate: fate.as_ref().map(word),
            sentence: fate.as_ref().map(ToString::to_string).unwrap_or_default(),
        })
        .collect();
    let count = |word| archives.iter().filter(|archive| archive.fate == Some(word)).count() as u64;
    PreviewGroup {
        config: group.config.to_string(),
        repository: group.repository.to_string(),
        stopped,
        kept: count("kept"),
        goes: count("goes"),
        archives,
    }
}
