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
    let details = details.line("Checked", checked(health));
    let Some(damage) = &health.damage else {
        return coverage(details, health)
            .line("Archives", format!("all sound at {}", when(health.archives)))
            .line("Index", format!("compared at {}", when(health.index)));
    };
    let details = details
        .line("DAMAGED", format!("since {}: {}", damage.since.to_local(), damage.summary()))
        .line("What to do", format!("borgcube repository damage {}", health.repository));
    // What was known of one that could be opened is no news of one that cannot be.
    if damage.unopenable.is_some() {
        return details;
    }
    coverage(details, health)
        .line("Archives", format!("all sound {}", since(health.archives, damage)))
        .line("Index", format!("compared {}", since(health.index, damage)))
}

fn coverage(details: Details, health: &Health) -> Details {
    details
        .maybe("Structure", health.structure.as_ref().map(ToString::to_string))
        .maybe("Data", Some(health.data.as_ref().map_or_else(|| "never verified".to_owned(), ToString::to_string)))
}

/// When a check has looked at anything last.
fn checked(health: &Health) -> String {
    let unopenable = health.damage.as_ref().is_some_and(|damage| damage.unopenable.is_some());
    match (&health.structure, unopenable) {
        (None, true) => "never".to_owned(),
        (_, true) => format!("{}, when it could still be opened", health.checked.to_local()),
        _ => health.checked.to_local(),
    }
}

/// What was once sound says something of a damage only if that was after it.
fn since(moment: Option<Timestamp>, damage: &Damage) -> String {
    match moment {
        None => "never".to_owned(),
        Some(moment) if moment > damage.found => format!("at {}, after the damage was found", moment.to_local()),
        // What was looked at then was not what is damaged, or not closely enough.
        Some(moment) if moment >= damage.since => {
            format!("at {}, after the damage was found first and before it was found last", moment.to_local())
        }
        Some(moment) => format!("last at {}, before the damage was found", moment.to_local()),
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
    let healed = match damage.healed {
        0 => None,
        1 => Some("1 chunk that was damaged is sound again, or belongs to no archive any more".to_owned()),
        n => Some(format!("{n} chunks that were damaged are sound again, or belong to no archive any more")),
    };
    Details::new()
        .line("Repository", health.repository.as_str())
        .line("Damage", damage.summary())
        .line("Since", damage.since.to_local())
        .line("Found last", damage.found.to_local())
        .line("Checked last", checked(health))
        .maybe("Healed", healed)
        .maybe("Clients", Some(clients.join(", ")))
        .many("Archives", archives)
        .many("Cannot tell", unknown)
        .many("Found", errors.chain(more_errors))
        .many("Still runs", still_runs(damage))
        .many("What to do", what_to_do(health, damage).into_iter().chain(unnamed(health, damage)))
        .render()
}

fn still_runs(damage: &Damage) -> &'static [&'static str] {
    if damage.unopenable.is_some() {
        return &["nothing until it can be opened: no backup, no restore, no prune"];
    }
    &["backups: chunks that are damaged are asked of the clients again", "restores of what is sound", "not prunes"]
}

/// The next steps, in their order. docs/check.md has the whole road.
fn what_to_do(health: &Health, damage: &Damage) -> Vec<String> {
    let name = &health.repository;
    let check = format!("borgcube repository check {name}{}", if damage.needs_data { " --verify-data" } else { "" });
    let disk = "see whether the disk or the memory is to blame, then copy the repository to another disk".to_owned();
    let repair = |options: &str| format!("borgcube repository release {name} --with-passphrase -- borg check --repair{options}");
    if damage.unopenable.is_some() {
        return vec![
            disk,
            format!("if its disk was not there, or is whole again: {check}"),
            format!("else the repair of docs/check.md, with a stock borg of 1.4 or newer: {}", repair("")),
        ];
    }
    if damage.chunks > 0 {
        return vec![
            disk,
            "let the clients back up: what they still have heals older archives as well".to_owned(),
            format!("see what is left: borgcube repository check {name} --verify-data"),
            format!("what no client has any more, docs/check.md, with a stock borg of 1.4 or newer: {}", repair("")),
        ];
    }
    if damage.archive_count() > 0 {
        return vec![
            disk,
            "an archive whose own metadata is lost can only be given up: borgcube archive delete ARCHIVE --now".to_owned(),
            format!("then {check}"),
        ];
    }
    // The last check has found nothing of it, and was no look at everything.
    if damage.error_count == 0 || health.checked > damage.found {
        return vec![format!("it is over when everything was looked at and sound: {check}")];
    }
    vec![
        disk,
        format!("no archive needs what is bad there; this takes it out of the files (docs/check.md): {}", repair(" --repository-only")),
        format!("then {check}"),
    ]
}

/// Only a job reads what clients wrote.
fn unnamed(health: &Health, damage: &Damage) -> Option<String> {
    let can_look = damage.unopenable.is_none() && damage.is_unnamed();
    can_look.then(|| format!("which files are concerned, a job finds out: borgcube repository check {} --job --wait", health.repository))
}

fn archive(archive: &DamagedArchive) -> Vec<String> {
    let whose = match (&archive.client, &archive.label) {
        (Some(client), Some(label)) => format!(" ({client}/{label})"),
        _ => String::new(),
    };
    // Of what BorgCube did not make it knows the files at most: which chunks it refers to stands in no record.
    let files = archive.files.as_ref().map_or(0, |files| files.paths.len() as u64 + files.more);
    let known = match (archive.chunks, files) {
        (0, 0) => None,
        (0, files) => Some(count(files, "damaged file")),
        (chunks, _) => Some(count(chunks, "damaged chunk")),
    };
    let error = archive.error.as_ref().map(|error| shown(error));
    let what: Vec<String> = known.into_iter().chain(error).collect();
    let what = if what.is_empty() { "damaged, and nobody knows how much of it".to_owned() } else { what.join(", ") };
    let mut lines = vec![format!("{}{whose}: {what}", shown(&archive.name))];
    match &archive.files {
        None => lines.push("  which files: not looked for yet, see below".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn known(damage: Option<Damage>) -> Health {
        Health {
            repository: "main".parse().unwrap(),
            checked: Timestamp(2_000_000),
            structure: Some(model::check::Coverage { at: Timestamp(2_000_000), ..Default::default() }),
            data: None,
            archives: Some(Timestamp(1_000_000)),
            index: Some(Timestamp(3_000_000)),
            damage,
        }
    }

    fn damaged(chunks: u64) -> Damage {
        Damage { chunks, errors: vec!["segment 5: x".into()], error_count: 1, ..Damage::unopened(None, "", Timestamp(2_000_000)).opened(0) }
    }

    fn show(health: &Health) -> String {
        super::health(Details::new(), Some(health)).render()
    }

    #[test]
    fn what_was_sound_before_is_no_word_about_damage() {
        let text = show(&known(None));
        assert!(text.contains("Archives:  all sound at ") && !text.contains("DAMAGED"), "{text}");
        let text = show(&known(Some(damaged(2))));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("DAMAGED:") && lines[1].contains("2 chunks damaged"), "{text}");
        assert!(lines[2].contains("borgcube repository damage main"), "{text}");
        let archives = lines.iter().find(|line| line.starts_with("Archives:")).unwrap();
        assert!(archives.ends_with(", before the damage was found"), "{text}");
        assert!(lines.iter().any(|line| line.starts_with("Index:") && line.ends_with("after the damage was found")), "{text}");
        // A look between the first and the last sight of the damage was not before it.
        let seen_again = Damage { since: Timestamp(500_000), ..damaged(2) };
        let text = show(&known(Some(seen_again)));
        let archives = text.lines().find(|line| line.starts_with("Archives:")).unwrap();
        assert!(archives.ends_with(", after the damage was found first and before it was found last"), "{text}");
        // Nothing is told of one that cannot be opened but that.
        let closed = known(Some(Damage::unopened(None, "no index", Timestamp(9_000_000))));
        let text = show(&closed);
        assert!(text.contains("it cannot be opened") && text.contains("when it could still be opened"), "{text}");
        assert!(!text.contains("sound") && !text.contains("Structure"), "{text}");
        assert!(show(&Health { structure: None, ..closed }).contains("Checked:    never"));
    }

    #[test]
    fn damage_of_other_origin_is_not_counted_as_none() {
        let files =
            |paths: &[&str]| model::check::DamagedFiles { paths: paths.iter().map(|p| (*p).to_owned()).collect(), ..Default::default() };
        let foreign = DamagedArchive {
            name: "v2".into(),
            id: "00".repeat(32),
            client: None,
            label: None,
            chunks: 0,
            error: None,
            files: Some(files(&["etc/passwd"])),
        };
        assert_eq!(archive(&foreign), ["v2: 1 damaged file", "  etc/passwd"]);
        let broken = DamagedArchive { error: Some("its metadata is damaged".into()), files: None, ..foreign.clone() };
        assert_eq!(archive(&broken)[0], "v2: its metadata is damaged");
        let own = DamagedArchive { chunks: 2, client: Some("web1".parse().unwrap()), label: Some("etc".parse().unwrap()), ..broken };
        assert_eq!(archive(&own)[0], "v2 (web1/etc): 2 damaged chunks, its metadata is damaged");
    }

    #[test]
    fn the_next_step_is_that_of_the_damage() {
        let page = |damage: Damage| {
            let health = known(Some(damage.clone()));
            super::damage(&health, &damage)
        };
        let closed = page(Damage::unopened(None, "no index", Timestamp(9)));
        assert!(
            closed.contains("nothing until it can be opened: no backup") && closed.contains("it cannot be opened: no index"),
            "{closed}"
        );
        assert!(!closed.contains("0 chunks"), "{closed}");
        let chunks = page(damaged(1));
        assert!(
            chunks.contains("let the clients back up") && chunks.contains("--verify-data") && chunks.contains("1.4 or newer"),
            "{chunks}"
        );
        let healed = page(Damage { healed: 1, ..damaged(0) });
        assert!(healed.contains("1 chunk that was damaged is sound again") && healed.contains("--repair --repository-only"), "{healed}");
        assert!(!healed.contains("0 chunks") && !healed.contains("let the clients back up"), "{healed}");
        // A check since has found nothing: no repair then.
        let over = page(Damage { needs_data: true, found: Timestamp(1), ..damaged(0) });
        assert!(over.contains("it is over when everything was looked at") && over.contains("check main --verify-data"), "{over}");
        assert!(!over.contains("--repair"), "{over}");
    }
}
