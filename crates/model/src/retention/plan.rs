//! The plan: for each archive, which rule keeps it, or why it goes.

use super::doubt::{Situation, Stop, TOLERANCE, doubts};
use super::{Count, Period, Policy};
use crate::archive::Archive;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What an archive is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counts.
    Complete,
    /// A broken job's newest checkpoint: it counts for nothing, and other rules remove it.
    Incomplete,
    /// Something is odd about it. It stops pruning until somebody has looked; then it counts.
    Suspicious,
}

/// An archive to decide about; all of a plan's are of one config in one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Borg's archive id.
    pub id: &'a str,
    /// Its name. Only between archives of the same microsecond does it make a difference.
    pub name: &'a str,
    /// The job that made it.
    pub job: u64,
    /// When that job began to read, by the server's clock.
    pub time: Timestamp,
    /// What it is worth.
    pub standing: Standing,
    /// Somebody wants it kept.
    pub held: bool,
    /// It was decided before that it goes; for the rules it is gone.
    pub going: bool,
    /// Another borg made it, and says when.
    pub imported: bool,
}

impl<'a> From<&'a Archive> for Candidate<'a> {
    fn from(archive: &'a Archive) -> Candidate<'a> {
        let standing = match (archive.incomplete, archive.suspicious) {
            (true, _) => Standing::Incomplete,
            (_, true) => Standing::Suspicious,
            _ => Standing::Complete,
        };
        Candidate {
            id: &archive.id,
            name: &archive.name,
            job: archive.job,
            time: archive.start,
            standing,
            held: archive.hold.is_some(),
            going: archive.pending_deletion.is_some(),
            imported: archive.imported.is_some(),
        }
    }
}

/// What keeps an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", content = "period", rename_all = "kebab-case")]
pub enum Rule {
    /// It is younger than the policy's interval.
    Within,
    /// It is the newest one of its period.
    Newest(Period),
    /// There are fewer periods than wanted, and it is the oldest archive.
    Oldest(Period),
    /// It is among the newest, of which the policy keeps a number in any case.
    Minimum,
    /// Somebody holds it; no other rule keeps it.
    Hold,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Within => f.pad("within"),
            Rule::Newest(period) => f.pad(period.as_str()),
            // As Borg writes it.
            Rule::Oldest(period) => f.pad(&format!("{period}[oldest]")),
            Rule::Minimum => f.pad("minimum"),
            Rule::Hold => f.pad("hold"),
        }
    }
}

/// What happens to an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", rename_all = "kebab-case")]
pub enum Fate {
    /// It stays.
    Kept {
        /// By what.
        #[serde(flatten)]
        by: Rule,
        /// As the so manyth one of that rule.
        number: u32,
    },
    /// No rule keeps it.
    Goes {
        /// Periods of which a newer archive is the one that counts.
        older_in: Vec<Period>,
        /// Periods of which newer archives were enough.
        enough: Vec<Period>,
    },
    /// It is incomplete: it is no restore point, and goes with the config's next success or after 14 days.
    Incomplete {},
    /// It is newer than now; nobody can tell how old it is.
    Future {},
    /// It was decided before that it goes.
    Going {},
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |periods: &[Period]| periods.iter().map(|period| period.as_str()).collect::<Vec<_>>().join(", ");
        match self {
            Fate::Kept { by: by @ (Rule::Hold | Rule::Minimum), .. } => write!(f, "kept by {by}"),
            Fate::Kept { by, number } => write!(f, "kept by {by} #{number}"),
            Fate::Goes { older_in, enough } => {
                let newer = (!older_in.is_empty()).then(|| format!("newer archives are kept: {}", list(older_in)));
                let enough = (!enough.is_empty()).then(|| format!("enough are kept: {}", list(enough)));
                let why: Vec<String> = newer.into_iter().chain(enough).collect();
                if why.is_empty() { f.write_str("goes") } else { write!(f, "goes: {}", why.join("; ")) }
            }
            Fate::Incomplete {} => f.write_str("not counted: incomplete"),
            Fate::Future {} => f.write_str("not counted: newer than now"),
            Fate::Going {} => f.write_str("is going already"),
        }
    }
}

/// What happens to one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The archive.
    pub archive: Candidate<'a>,
    /// What happens to it.
    pub fate: Fate,
}

/// Decides about the archives of one config in one repository. The newest comes first.
///
/// Borg 1.2 and 1.4, `helpers.misc.prune_within` and `prune_split`: the rules go from fine to coarse; each takes the newest archive of as
/// many periods as it is given, leaving out those that a rule before it keeps; and a rule that finds fewer periods takes the oldest archive.
///
/// What another borg says about the time of archives that were imported takes nothing from those that were made here: of these, also those
/// stay that the rules would keep if nothing had been imported.
pub fn plan<'a>(candidates: &[Candidate<'a>], policy: &Policy, situation: &Situation<'_>) -> Result<Vec<Verdict<'a>>, Stop> {
    doubts(candidates, policy, situation)?;
    let mut verdicts = ruled(candidates.to_vec(), policy, situation);
    if candidates.iter().any(|archive| archive.imported) {
        let own: Vec<Candidate<'a>> = candidates.iter().filter(|archive| !archive.imported).copied().collect();
        let own: BTreeMap<&str, Fate> = ruled(own, policy, situation).into_iter().map(|v| (v.archive.id, v.fate)).collect();
        for verdict in verdicts.iter_mut().filter(|verdict| matches!(verdict.fate, Fate::Goes { .. })) {
            if let Some(fate @ Fate::Kept { .. }) = own.get(verdict.archive.id) {
                verdict.fate = fate.clone();
            }
        }
    }
    Ok(verdicts)
}

fn ruled<'a>(mut archives: Vec<Candidate<'a>>, policy: &Policy, situation: &Situation<'_>) -> Vec<Verdict<'a>> {
    // Borg takes archives of one time in the reverse order of their names.
    archives.sort_by(|a, b| (b.time, b.name, b.id).cmp(&(a.time, a.name, a.id)));
    let now = situation.now;
    let mut verdicts: Vec<Verdict<'a>> = vec![];
    let mut counted = vec![];
    for archive in archives {
        let fate = aside(&archive, now);
        if fate.is_none() {
            counted.push(verdicts.len());
        }
        verdicts.push(Verdict { archive, fate: fate.unwrap_or(Fate::Goes { older_in: vec![], enough: vec![] }) });
    }
    if let Some(within) = policy.within {
        let target = now.plus_seconds(-within.seconds());
        let young = counted.iter().filter(|at| verdicts[**at].archive.time > target).copied().collect::<Vec<_>>();
        for (number, at) in (1..).zip(young) {
            verdicts[at].fate = Fate::Kept { by: Rule::Within, number };
        }
    }
    let local: Vec<_> = counted.iter().map(|at| policy.zone.local(verdicts[*at].archive.time)).collect();
    for (period, count) in &policy.keep {
        let periods = local.iter().map(|local| period.of(*local));
        split(&mut verdicts, counted.iter().copied().zip(periods), *period, *count);
    }
    keep_minimum(&mut verdicts, &counted, policy.minimum);
    for verdict in &mut verdicts {
        if verdict.archive.held && matches!(verdict.fate, Fate::Goes { .. }) {
            verdict.fate = Fate::Kept { by: Rule::Hold, number: 1 };
        }
    }
    verdicts
}

/// What the rules do not look at.
fn aside(archive: &Candidate<'_>, now: Timestamp) -> Option<Fate> {
    match archive.standing {
        Standing::Incomplete => Some(Fate::Incomplete {}),
        Standing::Complete | Standing::Suspicious if archive.going => Some(Fate::Going {}),
        Standing::Complete | Standing::Suspicious => (archive.time > now.plus_seconds(TOLERANCE)).then_some(Fate::Future {}),
    }
}

/// One rule. `archives` are places in `verdicts` with their periods, the newest first.
fn split(verdicts: &mut [Verdict<'_>], archives: impl Iterator<Item = (usize, i64)>, period: Period, count: Count) {
    if count == Count::Number(0) {
        return;
    }
    let (mut kept, mut last, mut oldest) = (0, None, None);
    for (at, this) in archives {
        let is_enough = count == Count::Number(kept);
        let is_newest = last != Some(this);
        if !is_enough {
            (last, oldest) = (Some(this), Some(at));
        }
        match &mut verdicts[at].fate {
            Fate::Goes { enough, .. } if is_enough => enough.push(period),
            Fate::Goes { older_in, .. } if !is_newest => older_in.push(period),
            fate @ Fate::Goes { .. } => {
                kept += 1;
                *fate = Fate::Kept { by: Rule::Newest(period), number: kept };
            }
            _ => {}
        }
    }
    if let (Count::Number(wanted), Some(at)) = (count, oldest)
        && kept < wanted
        && matches!(verdicts[at].fate, Fate::Goes { .. })
    {
        verdicts[at].fate = Fate::Kept { by: Rule::Oldest(period), number: kept + 1 };
    }
}

/// Fills up what is kept with the newest of the others.
fn keep_minimum(verdicts: &mut [Verdict<'_>], counted: &[usize], minimum: u32) {
    let kept = counted.iter().filter(|at| matches!(verdicts[**at].fate, Fate::Kept { .. })).count();
    let missing = (minimum as usize).saturating_sub(kept);
    let goes = counted.iter().filter(|at| matches!(verdicts[**at].fate, Fate::Goes { .. })).take(missing);
    for (number, at) in (1..).zip(goes.copied().collect::<Vec<_>>()) {
        verdicts[at].fate = Fate::Kept { by: Rule::Minimum, number };
    }
}
