//! Check configs, and what checks have found.

use super::tables::Column::{Text, Whole};
use super::{Details, Table, count, duration, shown};
use model::check::{Damage, DamagedArchive, Health, Promise, days};
use model::{CheckConfig, Timestamp};

/// Check configs.
pub fn configs(records: &[CheckConfig]) -> Table {
    let columns = [Whole("NAME"), Text("REPOSITORIES"), Text("CHECKS"), Text("EVERY"), Text("AT MOST"), Text("DESCRIPTION")];
    Table::new(&columns, records, |config| {
        vec![
            config.name.to_string(),
            config.repositories.to_string(),
            config.plan.parts(),
            days(config.plan.promise_hours),
            limit(config),
            config.description.clone(),
        ]
    })
}

fn limit(config: &CheckConfig) -> String {
    config.plan.seconds.map_or_else(|| "until all is done".into(), |seconds| duration(seconds.into()))
}

/// One check config.
pub fn config(config: &CheckConfig) -> String {
    let plan = &config.plan;
    let skip =
        if plan.skip_hours == 0 { "nothing".to_owned() } else { format!("what was checked less than {} ago", days(plan.skip_hours)) };
    Details::new()
        .line("Check config", config.name.as_str())
        .maybe("Description", Some(&config.description))
        .line("Repositories", config.repositories.to_string())
        .line("Checks", plan.parts())
        .line("Promise", format!("100 % every {}", days(plan.promise_hours)))
        .line("Leaves out", skip)
        .line("At most", limit(config))
        .line("Added", config.created.to_local())
        .render()
}

/// A repository's health in a word or two, for a listing.
pub fn health_in_short(health: Option<&Health>) -> String {
    let Some(health) = health else { return "never".into() };
    if health.damage.is_some() {
        return "DAMAGED".into();
    }
    let coverage = health.data.as_ref().or(health.structure.as_ref());
    coverage.map_or_else(
        || health.checked.to_local(),
        |coverage| {
            let late = if matches!(coverage.promise, Promise::Broken | Promise::TooSlow) { ", too slow" } else { "" };
            format!("{} %{late}", coverage.per_cent())
        },
    )
}

/// A repository's health, as lines of a card.
pub fn health(details: Details, health: Option<&Health>) -> Details {
    let Some(health) = health else { return details.line("Checked", "never: borgcube repository check") };
    let when = |moment: Option<Timestamp>| moment.map_or_else(|| "never".to_owned(), Timestamp::to_local);
    let details = details
        .line("Checked", health.checked.to_local())
        .maybe("Structure", health.structure.as_ref().map(ToString::to_string))
        .maybe("Data", Some(health.data.as_ref().map_or_else(|| "never verified".to_owned(), ToString::to_string)))
        .line("Archives", format!("all sound at {}", when(health.archives)))
        .line("Index", format!("compared at {}", when(health.index)));
    match &health.damage {
        Some(damage) => details.line("DAMAGED", format!("{}: borgcube repository damage {}", damage.summary(), health.repository)),
        None => details,
    }
}

/// All that is known of a damage.
pub fn damage(health: &Health, damage: &Damage) -> String {
    let more = |number: u64, what: &str| (number > 0).then(|| format!("and {number} more {what}"));
    let errors = damage.errors.iter().map(|error| shown(error));
    let more_errors = more(damage.error_count.saturating_sub(damage.errors.len() as u64), "errors");
    let clients: Vec<&str> = damage.clients().into_iter().map(|client| client.as_str()).collect();
    let archives = damage.archives.iter().flat_map(archive).chain(more(damage.more_archives, "archives"));
    let unknown = damage.unknown.iter().map(|archive| shown(&archive.name)).chain(more(damage.more_unknown, "archives"));
    Details::new()
        .line("Repository", health.repository.as_str())
        .line("Damage", damage.summary())
        .line("Since", damage.since.to_local())
        .line("Found last", damage.found.to_local())
        .maybe("Clients", Some(clients.join(", ")))
        .many("Archives", archives)
        .many("Cannot tell", unknown)
        .many("Found", errors.chain(more_errors))
        .many("Still runs", ["backups: chunks that are damaged are asked of the clients again", "restores of what is sound", "not prunes"])
        .many(
            "What to do",
            [
                "see whether the disk or the memory is to blame, then copy the repository to another disk",
                "let the clients back up: what they still have heals older archives as well",
                "then docs/check.md: borgcube repository release, and a stock borg 1.4's borg check --repair",
            ],
        )
        .render()
}

fn archive(archive: &DamagedArchive) -> Vec<String> {
    let whose = match (&archive.client, &archive.label) {
        (Some(client), Some(label)) => format!(" ({client}/{label})"),
        _ => String::new(),
    };
    let error = archive.error.as_ref().map_or_else(String::new, |error| format!(", {}", shown(error)));
    let mut lines = vec![format!("{}{whose}: {}{error}", shown(&archive.name), count(archive.chunks, "damaged chunk"))];
    match &archive.files {
        None => lines.push("  which files: not looked for yet".into()),
        Some(files) => {
            lines.extend(files.paths.iter().map(|path| format!("  {}", shown(path))));
            if files.more > 0 {
                lines.push(format!("  and {} more files", files.more));
            }
            if let Some(why) = &files.incomplete {
                lines.push(format!("  there may be more: {}", shown(why)));
            }
        }
    }
    lines
}
