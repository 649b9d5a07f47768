//! Retention policies.

use super::typed::expressions;
use super::{Errors, Field, Formed, Known, Section, Typed, hex, kept};
use crate::query::Unanswered;
use crate::view::{ChangedGroup, Context};
use model::retention::{Count, Period, Scope};
use model::web_user::LEAST_GRACE_HOURS;
use model::{Policy, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use store::Read;
use wire::control::Call;

fn keep_field(period: Period) -> String {
    format!("keep_{period}")
}

/// What a rule takes one archive of each of.
fn spoken(period: Period) -> &'static str {
    match period {
        Period::Secondly => "Seconds (the last ones)",
        Period::Minutely => "Minutes",
        Period::Hourly => "Hours",
        Period::Daily => "Days",
        Period::Weekly => "Weeks",
        Period::Monthly => "Months",
        Period::Quarterly13Weekly => "Quarters of 13 weeks",
        Period::Quarterly3Monthly => "Quarters of 3 months",
        Period::Yearly => "Years",
    }
}

/// A scope as a line, and whether it is one config.
fn line(scope: &Scope) -> (bool, String) {
    match scope {
        Scope::Config { config } => (true, config.to_string()),
        Scope::Configs { client, label } => (false, format!("{client}/{label}")),
    }
}

fn lines(applies: &[Scope], named: bool) -> Vec<String> {
    applies.iter().map(line).filter(|(is_named, _)| *is_named == named).map(|(_, line)| line).collect()
}

/// What it is for. The order means nothing, and one that is only sorted otherwise is no change.
fn applies(errors: &mut Errors, typed: &Typed, before: Option<&Policy>) -> Vec<Scope> {
    let stored = before.map_or(&[][..], |policy| &policy.applies);
    let mut read = vec![];
    for (field, named) in [("configs", true), ("matching", false)] {
        if kept(typed, before, field).is_some() {
            read.extend(stored.iter().filter(|scope| line(scope).0 == named).cloned());
            continue;
        }
        for text in typed.lines(field, &lines(stored, named)) {
            let kept = stored.iter().find(|scope| line(scope) == (named, text.clone())).cloned();
            let scope = match (kept, named) {
                (Some(kept), _) => Ok(kept),
                (None, true) => text.parse().map(|config| Scope::Config { config }).map_err(|e: model::names::NameError| e.to_string()),
                (None, false) => expressions(&text).map(|(client, label)| Scope::Configs { client, label }),
            };
            read.extend(errors.take(field, scope));
        }
    }
    let sorted = |scopes: &[Scope]| {
        let mut lines: Vec<_> = scopes.iter().map(line).collect();
        lines.sort();
        lines
    };
    if sorted(&read) == sorted(stored) { stored.to_vec() } else { read }
}

fn keep(errors: &mut Errors, typed: &Typed, before: Option<&Policy>) -> BTreeMap<Period, Count> {
    let mut keep = BTreeMap::new();
    for period in Period::ALL {
        let field = keep_field(period);
        let text = typed.text(&field);
        let stored = before.and_then(|policy| policy.keep.get(&period));
        let count = match stored.filter(|stored| stored.to_string() == text) {
            Some(stored) => Some(*stored),
            None if text.is_empty() => None,
            None => errors.parse(typed, &field).filter(|count| *count != Count::Number(0)),
        };
        keep.extend(count.map(|count| (period, count)));
    }
    keep
}

/// One that does nothing special, to see what is wrong with one field.
fn plain(now: Timestamp) -> Option<Policy> {
    Some(Policy {
        name: "policy".parse().ok()?,
        description: String::new(),
        within: None,
        keep: [(Period::Daily, Count::Number(1))].into(),
        minimum: Policy::MINIMUM,
        zone: "UTC".parse().ok()?,
        most_per_day: Policy::MOST_PER_DAY,
        grace_hours: Policy::GRACE_HOURS,
        applies: vec![],
        confirmed: vec![],
        created: now,
    })
}

impl Formed for Policy {
    const WHAT: &'static str = "policy";
    const REST: Option<&'static str> = None;

    fn blank(known: &Known, _of: &str) -> Typed {
        Typed::default()
            .with("zone", &known.zone)
            .with("minimum", Policy::MINIMUM)
            .with("most_per_day", Policy::MOST_PER_DAY)
            .with("grace_hours", Policy::GRACE_HOURS)
    }

    fn fields(&self) -> Typed {
        let typed = Typed::default()
            .with("name", &self.name)
            .with("description", &self.description)
            .with_maybe("within", self.within)
            .with("minimum", self.minimum)
            .with("zone", self.zone)
            .with("most_per_day", self.most_per_day)
            .with("grace_hours", self.grace_hours)
            .with_lines("configs", lines(&self.applies, true))
            .with_lines("matching", lines(&self.applies, false));
        Period::ALL.into_iter().fold(typed, |typed, period| typed.with_maybe(&keep_field(period), self.keep.get(&period)))
    }

    fn read(typed: &Typed, before: Option<&Policy>, known: &Known) -> Result<Policy, Errors> {
        let mut errors = Errors::default();
        let name = errors.name(typed, Policy::WHAT, before.map(|policy| &policy.name), &known.policies);
        let within = match kept(typed, before, "within") {
            Some(before) => before.within,
            None if typed.text("within").is_empty() => None,
            None => errors.parse(typed, "within"),
        };
        let keep = keep(&mut errors, typed, before);
        let zone = match typed.text("zone") {
            "" => {
                errors.add("zone", "it is empty: write a time zone, such as Europe/Berlin or UTC");
                None
            }
            _ => errors.parse(typed, "zone"),
        };
        let [minimum, most_per_day, grace_hours] =
            ["minimum", "most_per_day", "grace_hours"].map(|field| errors.needed_number(typed, field));
        let description = typed.text_or("description", before.map(|policy| policy.description.as_str())).to_owned();
        let applies = applies(&mut errors, typed, before);
        for config in applies.iter().filter_map(|scope| if let Scope::Config { config } = scope { Some(config) } else { None }) {
            let is_old = before.is_some_and(|before| lines(&before.applies, true).contains(&config.to_string()));
            if !known.configs.contains(config) && !known.archived.contains(config) && !is_old {
                errors.add("configs", format!("there is no backup config {config}"));
            }
        }
        // Who leaves a shorter one as it was may still find that other rules take more: borgcubed says so.
        let least = before.map_or(LEAST_GRACE_HOURS, |before| before.grace_hours.min(LEAST_GRACE_HOURS));
        if grace_hours < least && !typed.text("grace_hours").is_empty() {
            errors.add("grace_hours", format!("on these pages a grace period is at least {LEAST_GRACE_HOURS} hours"));
        }
        if let Some(plain) = plain(known.now) {
            let mut probe = |field, policy: Policy| errors.probe(field, policy.check());
            probe("description", Policy { description: description.clone(), ..plain.clone() });
            probe("most_per_day", Policy { most_per_day, ..plain.clone() });
            probe("grace_hours", Policy { grace_hours, ..plain.clone() });
            probe("matching", Policy { applies: applies.clone(), ..plain.clone() });
            // Two kinds of quarters do not go together.
            let quarters = [Period::Quarterly13Weekly, Period::Quarterly3Monthly];
            let quarters: BTreeMap<_, _> = quarters.iter().filter_map(|period| Some((*period, *keep.get(period)?))).collect();
            if !quarters.is_empty() {
                probe(&keep_field(Period::Quarterly3Monthly), Policy { keep: quarters, ..plain });
            }
        }
        let record = name.zip(zone).map(|(name, zone)| Policy {
            name,
            description,
            within,
            keep,
            minimum,
            zone,
            most_per_day,
            grace_hours,
            applies,
            confirmed: before.map_or_else(Vec::new, |policy| policy.confirmed.clone()),
            created: before.map_or(known.now, |policy| policy.created),
        });
        // What is left: there is no rule.
        errors.end(record, &keep_field(Period::Daily), Policy::check)
    }

    fn sections(_typed: &Typed, before: Option<&Policy>, known: &Known) -> Vec<Section> {
        let rules = Period::ALL.into_iter().map(|period| {
            let hint = if period == Period::Secondly { "A number, or all." } else { "" };
            Field::line(&keep_field(period), spoken(period), hint)
        });
        let configs = "One CLIENT/LABEL per line. This goes before all expressions, also those of other policies.";
        let matching = "Regular expressions for client and label, one pair per line: web[0-9]+/.* or .*/.* for all.";
        vec![
            Section::new("", vec![Field::named("Name", before.is_none()), Field::description()]),
            Section::new(
                "What is kept",
                vec![
                    Field::line("within", "Everything younger than", "36H, 14d, 8w, 6m or 2y; empty: no such rule."),
                    Field::number("minimum", "At least so many of a config's newest archives", "Whatever the rules say.").required(),
                ],
            ),
            Section::row("The newest archive of each of so many", rules.collect()),
            Section::new(
                "Of which configs",
                vec![Field::lines("configs", "These", configs), Field::lines("matching", "All matching", matching)],
            ),
            Section::new(
                "With care",
                vec![
                    Field::number("grace_hours", "Grace period in hours", "Between the decision that an archive goes and its deletion.")
                        .required(),
                    Field::number("most_per_day", "Archives of a config in 24 hours that are no burst", "More of them stop pruning.")
                        .required(),
                    Field::suggesting(
                        "zone",
                        "Time zone",
                        [known.zone.clone(), "UTC".into()].into(),
                        "In which days, weeks and so on begin.",
                    )
                    .required(),
                ],
            ),
        ]
    }

    fn find(read: &Read<'_>, name: &str) -> store::Result<Option<Policy>> {
        name.parse().map_or(Ok(None), |name| read.policies().get(&name))
    }

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn page(&self) -> String {
        format!("/policies/{}", self.name)
    }

    fn place(&self) -> String {
        self.page()
    }

    fn add(self) -> Call {
        Call::AddPolicy { policy: Box::new(self) }
    }

    fn update(self, previous: Policy) -> Call {
        Call::UpdatePolicy { previous: Box::new(previous), policy: Box::new(self) }
    }

    fn remove(&self) -> Call {
        Call::RemovePolicy { name: self.name.clone() }
    }

    fn decides(&self, before: Option<&Policy>) -> Option<String> {
        let decisive = |policy: &Policy| {
            serde_json::to_vec(&(policy.within, &policy.keep, policy.minimum, policy.zone, &policy.applies, policy.most_per_day))
                .unwrap_or_default()
        };
        let is_new = before.is_none_or(|before| decisive(before) != decisive(self));
        is_new.then(|| hex(&Sha256::digest(decisive(self))))
    }

    fn preview(&self, c: &Context<'_>, before: Option<&Policy>) -> Result<Vec<ChangedGroup>, Unanswered> {
        ChangedGroup::all(c, before, self)
    }

    fn warnings(&self) -> Vec<String> {
        Policy::warnings(self)
    }

    fn farewell(&self) -> &'static str {
        "Nothing that it was about to delete is deleted. What it alone decided about is kept for ever."
    }
}
