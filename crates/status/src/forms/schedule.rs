//! Schedules: when, and a table of actions.

use super::typed::expressions;
use super::{Errors, Field, Formed, Known, Section, Typed};
use model::recurrence::RecurrenceError;
use model::{Action, Recurrence, Schedule, Timestamp};
use store::Read;
use wire::control::Call;

/// What is of no name: all repositories are pruned.
const PRUNE_ALL: &str = "prune-all";

/// Kinds of actions: the word that is sent, and what people read. With the words of `borgcube schedule add`.
const KINDS: [(&str, &str); 14] = [
    ("", "nothing"),
    ("run", "run the config"),
    ("run-matching", "run all configs matching"),
    ("prune", "prune the repository"),
    (PRUNE_ALL, "prune every repository"),
    ("prune-by", "prune by the policy"),
    ("compact", "compact the repository"),
    ("check", "check the repository"),
    ("verify-data", "check the repository and verify its data"),
    ("check-config", "check by the check config"),
    ("restore-test", "test restores of configs matching"),
    ("restore-test-live", "test restores against the live clients matching"),
    ("enable", "enable the schedule"),
    ("disable", "disable the schedule"),
];

/// An action that no row can say otherwise; it stays as it is.
const KEPT: (&str, &str) = ("as-it-is", "as it is:");

/// Rows that are free to be filled.
const FREE: usize = 3;

const TABLE: &str = "action";

fn kind_field(number: usize) -> String {
    format!("{TABLE}-{number}")
}

fn of_field(number: usize) -> String {
    format!("of-{number}")
}

/// An action as a row: kind and what of. `at`: its place, which tells those from each other that no row can say.
fn row(at: usize, action: &Action) -> (&'static str, String) {
    let kept = || (KEPT.0, format!("{}: {}", at + 1, action.to_string().split_whitespace().collect::<Vec<_>>().join(" ")));
    let matching = |word, client: &str, label: &str| {
        let text = format!("{client}/{label}");
        match expressions(&text) {
            // Nor can a row have a line break, or blanks around it.
            Ok((c, l)) if c == client && l == label && text.trim() == text && !text.contains(char::is_control) => (word, text),
            _ => kept(),
        }
    };
    match action {
        Action::RunConfig { config } => ("run", config.to_string()),
        Action::RunConfigs { client, label } => matching("run-matching", client, label),
        Action::Check { repository, verify_data: false } => ("check", repository.to_string()),
        Action::Check { repository, verify_data: true } => ("verify-data", repository.to_string()),
        Action::CheckBy { config } => ("check-config", config.to_string()),
        Action::Compact { repository } => ("compact", repository.to_string()),
        Action::Prune { repository: None, policy: None, clients: None, labels: None } => (PRUNE_ALL, String::new()),
        Action::Prune { repository: Some(repository), policy: None, clients: None, labels: None } => ("prune", repository.to_string()),
        Action::Prune { repository: None, policy: Some(policy), clients: None, labels: None } => ("prune-by", policy.to_string()),
        Action::Prune { .. } => kept(),
        Action::RestoreTest { client, label, live: false } => matching("restore-test", client, label),
        Action::RestoreTest { client, label, live: true } => matching("restore-test-live", client, label),
        Action::EnableSchedule { schedule } => ("enable", schedule.to_string()),
        Action::DisableSchedule { schedule } => ("disable", schedule.to_string()),
    }
}

/// The half of a row that is wrong.
enum Wrong {
    Kind(String),
    Of(String),
}

impl From<String> for Wrong {
    fn from(sentence: String) -> Wrong {
        Wrong::Of(sentence)
    }
}

/// A row as an action; None: it is empty.
fn action(kind: &str, of: &str, before: &[Action], known: &Known) -> Result<Option<Action>, Wrong> {
    if kind.is_empty() && of.is_empty() {
        return Ok(None);
    }
    // What was named before stays, also if it is gone by now.
    if let Some((_, kept)) = before.iter().enumerate().find(|(at, action)| row(*at, action) == (kind, of.to_owned())) {
        return Ok(Some(kept.clone()));
    }
    let kind_is_known = KINDS.iter().any(|(word, _)| *word == kind);
    match kind {
        "" => return Err(Wrong::Kind(format!("choose what to do with {}", super::typed::shortened(of)))),
        _ if kind == KEPT.0 => return Err(Wrong::Kind("there is no such action to be left as it is: choose what to do".into())),
        _ if !kind_is_known => return Err(Wrong::Kind(format!("{:?} is nothing that a schedule does", super::typed::shortened(kind)))),
        PRUNE_ALL if !of.is_empty() => {
            return Err(Wrong::Of("every repository is pruned, so this stays empty; for one of them choose: prune the repository".into()));
        }
        PRUNE_ALL => {}
        _ if of.is_empty() => return Err(Wrong::Of("say what of: it is empty".into())),
        _ => {}
    }
    fn name<T: std::str::FromStr<Err: std::fmt::Display> + Ord + std::fmt::Display>(
        what: &str,
        of: &str,
        there: &std::collections::BTreeSet<T>,
    ) -> Result<T, String> {
        let name: T = of.parse().map_err(|e: T::Err| e.to_string())?;
        if there.contains(&name) { Ok(name) } else { Err(format!("there is no {what} {name}")) }
    }
    let repository = || name("repository", of, &known.repositories);
    let prune = |repository, policy| Action::Prune { repository, policy, clients: None, labels: None };
    let test = |live| expressions(of).map(|(client, label)| Action::RestoreTest { client, label, live });
    let action = match kind {
        "run" => Action::RunConfig { config: name("backup config", of, &known.configs)? },
        "run-matching" => expressions(of).map(|(client, label)| Action::RunConfigs { client, label })?,
        PRUNE_ALL => prune(None, None),
        "prune" if of == "all" && repository().is_err() => {
            return Err(Wrong::Of("there is no repository all; for all of them choose: prune every repository".into()));
        }
        "prune" => prune(Some(repository()?), None),
        "prune-by" => prune(None, Some(name("policy", of, &known.policies)?)),
        "compact" => Action::Compact { repository: repository()? },
        "check" => Action::Check { repository: repository()?, verify_data: false },
        "verify-data" => Action::Check { repository: repository()?, verify_data: true },
        "check-config" => Action::CheckBy { config: name("check config", of, &known.check_configs)? },
        "restore-test" => test(false)?,
        "restore-test-live" => test(true)?,
        "enable" => Action::EnableSchedule { schedule: name("schedule", of, &known.schedules)? },
        "disable" => Action::DisableSchedule { schedule: name("schedule", of, &known.schedules)? },
        _ => return Err(Wrong::Kind("choose what to do".into())),
    };
    action.check()?;
    Ok(Some(action))
}

fn recurrence(errors: &mut Errors, typed: &Typed, before: Option<&Schedule>, known: &Known) -> Option<Recurrence> {
    let text = typed.text("at");
    // One that has come to its end may stay.
    if let Some(before) = before.filter(|before| before.recurrence.text() == text) {
        return Some(before.recurrence.clone());
    }
    if text.is_empty() {
        errors.add("at", "it is empty: write when, such as daily 02:30");
        return None;
    }
    let read = Recurrence::parse(text, &known.zone, known.now).map_err(|error| match &error {
        RecurrenceError::UnknownZone(zone) if zone.is_empty() => {
            "this server does not say which time zone it is in: write one behind it, such as daily 02:30 Europe/Berlin".to_owned()
        }
        _ => error.to_string(),
    });
    errors.take("at", read)
}

/// One that does nothing special, to see what is wrong with one field.
fn plain(recurrence: Recurrence, now: Timestamp) -> Option<Schedule> {
    Some(Schedule {
        name: "schedule".parse().ok()?,
        description: String::new(),
        recurrence,
        enabled: true,
        actions: vec![Action::RunConfigs { client: ".*".into(), label: ".*".into() }],
        jitter_seconds: 0,
        handled: now,
        ahead: None,
        created: now,
    })
}

impl Formed for Schedule {
    const WHAT: &'static str = "schedule";
    const REST: Option<&'static str> = None;

    fn blank(_known: &Known, _of: &str) -> Typed {
        Typed::default().with_switch("enabled", true).with("jitter_seconds", 0)
    }

    fn fields(&self) -> Typed {
        let typed = Typed::default()
            .with("name", &self.name)
            .with("description", &self.description)
            .with("at", self.recurrence.text())
            .with_switch("enabled", self.enabled)
            .with("jitter_seconds", self.jitter_seconds);
        self.actions.iter().enumerate().fold(typed, |typed, (at, action)| {
            let (kind, of) = row(at, action);
            typed.with(&kind_field(at + 1), kind).with(&of_field(at + 1), of)
        })
    }

    fn read(typed: &Typed, before: Option<&Schedule>, known: &Known) -> Result<Schedule, Errors> {
        let mut errors = Errors::default();
        let name = errors.name(typed, Schedule::WHAT, before.map(|schedule| &schedule.name), &known.schedules);
        let recurrence = recurrence(&mut errors, typed, before, known);
        let jitter_seconds = errors.number(typed, "jitter_seconds").unwrap_or(0);
        let description = typed.text_or("description", before.map(|schedule| schedule.description.as_str())).to_owned();
        let mut actions = vec![];
        let stored = before.map_or(&[][..], |schedule| &schedule.actions);
        for number in 1..=typed.rows(TABLE) {
            let (kind, of) = (typed.text(&kind_field(number)), typed.text(&of_field(number)));
            let read = match action(kind, of, stored, known) {
                Ok(None) => continue,
                Ok(Some(read)) => read,
                Err(Wrong::Kind(sentence)) => {
                    errors.add(&kind_field(number), sentence);
                    continue;
                }
                Err(Wrong::Of(sentence)) => {
                    errors.add(&of_field(number), sentence);
                    continue;
                }
            };
            if let Action::EnableSchedule { schedule } | Action::DisableSchedule { schedule } = &read
                && name.as_ref() == Some(schedule)
            {
                errors.add(&of_field(number), "a schedule can't enable or disable itself");
            }
            if actions.len() == Schedule::MAX_ACTIONS {
                let most = Schedule::MAX_ACTIONS;
                errors.add(
                    &kind_field(number),
                    format!("a schedule has at most {most} actions: run many configs by a regular expression instead"),
                );
            }
            actions.push(read);
        }
        if actions.is_empty() && errors.is_empty() {
            errors.add(&kind_field(1), "it does nothing: choose at least one action");
        }
        let any = || Recurrence::parse("yearly 01-01 00:00", "UTC", known.now).ok();
        if let Some(plain) = recurrence.clone().or_else(any).and_then(|recurrence| plain(recurrence, known.now)) {
            errors.probe("jitter_seconds", Schedule { jitter_seconds, ..plain.clone() }.check());
            errors.probe("description", Schedule { description: description.clone(), ..plain }.check());
        }
        let record = name.zip(recurrence).map(|(name, recurrence)| Schedule {
            name,
            description,
            recurrence,
            enabled: typed.switch("enabled"),
            actions,
            jitter_seconds,
            handled: before.map_or(known.now, |schedule| schedule.handled),
            ahead: before.and_then(|schedule| schedule.ahead),
            created: before.map_or(known.now, |schedule| schedule.created),
        });
        errors.end(record, &kind_field(1), Schedule::check)
    }

    fn sections(typed: &Typed, before: Option<&Schedule>, known: &Known) -> Vec<Section> {
        let zone = match known.zone.as_str() {
            "" => "Write the time zone behind it.".to_owned(),
            zone => format!("Without a time zone behind it: {zone}."),
        };
        let hint = format!(
            "hourly 15; daily 02:30; weekdays 22:00; weekly sat,sun 03:00; monthly 1,last 04:00; yearly 01-02 05:00; or DTSTART and RRULE of RFC 5545. {zone}"
        );
        let mut sections = vec![
            Section::new("", vec![Field::named("Name", before.is_none()), Field::description()]),
            Section::new(
                "When",
                vec![
                    Field::line("at", "Time", &hint).required(),
                    Field::number(
                        "jitter_seconds",
                        "Begin up to so many seconds later",
                        "By how many is left to chance, so that not everything begins at once. 0: on time.",
                    ),
                    Field::switch("enabled", "Enabled", "While it is not, each of its times is recorded as skipped."),
                ],
            ),
        ];
        let names = names(known);
        let is_kept = before.is_some_and(|before| before.actions.iter().enumerate().any(|(at, action)| row(at, action).0 == KEPT.0));
        let kinds: Vec<(&str, &str)> = KINDS.into_iter().chain(is_kept.then_some(KEPT)).collect();
        // Empty rows are in no one's way, and what was typed is not moved.
        let filled = (1..=typed.rows(TABLE))
            .rfind(|number| [kind_field(*number), of_field(*number)].iter().any(|field| !typed.text(field).is_empty()))
            .unwrap_or(0);
        for number in 1..=(filled + FREE).min(Schedule::MAX_ACTIONS + 1) {
            let hint = if number == 1 {
                "A name, such as web1/etc or main; nothing, to prune every repository; or regular expressions for client and label, such as web[0-9]+/.*"
            } else {
                ""
            };
            sections.push(Section::row(
                &format!("Action {number}"),
                vec![
                    Field::choice(&kind_field(number), "Do", &kinds, ""),
                    Field::suggesting(&of_field(number), "Of", if number == 1 { names.clone() } else { vec![] }, hint),
                ],
            ));
        }
        sections
    }

    fn find(read: &Read<'_>, name: &str) -> store::Result<Option<Schedule>> {
        name.parse().map_or(Ok(None), |name| read.schedules().get(&name))
    }

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn page(&self) -> String {
        "/schedules".to_owned()
    }

    fn place(&self) -> String {
        format!("/schedules/{}", self.name)
    }

    fn add(self) -> Call {
        Call::AddSchedule { schedule: self }
    }

    fn update(self, previous: Schedule) -> Call {
        Call::UpdateSchedule { previous: Box::new(previous), schedule: Box::new(self) }
    }

    fn remove(&self) -> Call {
        Call::RemoveSchedule { name: self.name.clone() }
    }

    fn farewell(&self) -> &'static str {
        "Its history stays. What it started goes on."
    }

    /// How far its times are dealt with changes by itself.
    fn settled(&self) -> Schedule {
        Schedule { handled: Timestamp(0), ahead: None, ..self.clone() }
    }
}

/// What an action may be of.
fn names(known: &Known) -> Vec<String> {
    let configs = known.configs.iter().map(ToString::to_string);
    let repositories = known.repositories.iter().map(ToString::to_string);
    let others = known.policies.iter().map(ToString::to_string).chain(known.check_configs.iter().map(ToString::to_string));
    configs.chain(repositories).chain(others).chain(known.schedules.iter().map(ToString::to_string)).collect()
}
