//! Retention policies, and what they would do.

use super::tables::Column::{Number, Text, Whole};
use super::{Details, Table, bytes};
use model::Policy;
use model::retention::Interval;
use wire::control::{PreviewedArchive, PreviewedGroup};

/// Policies.
pub fn list(records: &[Policy]) -> Table {
    Table::new(&[Whole("NAME"), Text("KEEPS"), Text("FOR"), Text("DESCRIPTION")], records, |policy| {
        let applies: Vec<String> = policy.applies.iter().map(ToString::to_string).collect();
        vec![policy.name.to_string(), rules(policy).join(", "), applies.join("; "), policy.description.clone()]
    })
}

fn rules(policy: &Policy) -> Vec<String> {
    let within = policy.within.iter().map(|within: &Interval| format!("within {within}"));
    let keep = policy.keep.iter().map(|(period, count)| format!("{period} {count}"));
    let minimum = (policy.minimum > 0).then(|| format!("minimum {}", policy.minimum));
    within.chain(keep).chain(minimum).collect()
}

/// One policy.
pub fn card(policy: &Policy) -> String {
    let confirmed = policy.confirmed.iter().map(|confirmation| {
        let what = confirmation.config.as_ref().map_or_else(|| "everything".to_owned(), ToString::to_string);
        format!("{what} up to job {} by {} at {}", confirmation.job, confirmation.by, confirmation.at.to_local())
    });
    Details::new()
        .line("Policy", policy.name.as_str())
        .maybe("Description", Some(&policy.description))
        .many("Keeps", rules(policy))
        .line("Zone", policy.zone.to_string())
        .line("Grace period", hours(policy.grace_hours))
        .line("Burst", format!("more than {} archives in 24 hours", policy.most_per_day))
        .many("For", policy.applies.iter().map(ToString::to_string))
        .many("Confirmed", confirmed)
        .line("Added", policy.created.to_local())
        .render()
}

fn hours(hours: u32) -> String {
    match (hours / 24, hours % 24) {
        (0, 0) => "none".into(),
        (days, 0) => super::count(days.into(), "day"),
        (0, hours) => super::count(hours.into(), "hour"),
        (days, hours) => format!("{} {}", super::count(days.into(), "day"), super::count(hours.into(), "hour")),
    }
}

/// What would happen to each archive.
pub fn preview(groups: &[PreviewedGroup]) -> Table {
    let rows: Vec<(&PreviewedGroup, &PreviewedArchive)> =
        groups.iter().flat_map(|group| group.archives.iter().map(move |archive| (group, archive))).collect();
    let columns = [Whole("ARCHIVE"), Whole("REPOSITORY"), Whole("TIME"), Number("SIZE"), Whole("POLICY"), Text("VERDICT")];
    Table::new(&columns, &rows, |(group, archive)| {
        vec![
            archive.name.clone(),
            group.repository.to_string(),
            archive.time.to_local(),
            bytes(archive.original_size),
            group.policy.as_ref().map(ToString::to_string).unwrap_or_default(),
            verdict(group, archive),
        ]
    })
}

fn verdict(group: &PreviewedGroup, archive: &PreviewedArchive) -> String {
    let mut text = match (&archive.verdict, &group.stopped) {
        (Some(_), _) => archive.sentence.clone(),
        (None, Some(_)) => "stays: pruning is stopped".into(),
        (None, None) => "stays: no policy is for it".into(),
    };
    if let Some(pending) = &archive.pending_deletion {
        text = format!(
            "goes at {} ({})",
            pending.due.to_local(),
            pending.policy.as_ref().map_or(pending.by.as_str(), |policy| policy.as_str())
        );
    }
    if let Some(hold) = &archive.hold {
        let reason = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
        text.push_str(&format!(" (held by {}{reason})", hold.by));
    }
    text
}
