//! Whatever a record has: on its form, through a browser and back it is the same, or the form says why not.

use super::page::filled;
use super::tests::known;
use super::*;
use model::check::{CheckPlan, Repositories};
use model::client::SshConnection;
use model::hook::Commands;
use model::retention::{Count, Period, Scope};
use model::{Action, BackupConfig, CheckConfig, Client, Connection, Policy, Recurrence, Schedule, validate};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::cell::Cell;

/// A field as a browser sends it: of one line it drops line breaks, `\r` is a line break to it, line ends are those of mail, and of a choice it
/// takes the first where there is nothing else.
fn browsed(field: &Field) -> Option<String> {
    match &field.control {
        Control::Fixed => None,
        Control::Lines => Some(field.value.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n").replace('\0', "\u{fffd}")),
        Control::Choice(options) if !options.iter().any(|(word, _)| *word == field.value) => Some(options[0].0.clone()),
        _ => Some(field.value.replace(['\r', '\n'], "").replace('\0', "\u{fffd}")),
    }
}

fn sent<T: Formed>(kind: Kind, typed: &Typed, before: Option<&T>, known: &Known) -> Typed {
    let fields = filled(kind, typed, before, known).into_iter().flat_map(|section| section.fields);
    Typed::new(fields.filter_map(|field| Some((field.name.clone(), browsed(&field)?))))
}

/// Saved as it is shown, changed in one field, typed anew.
fn comes_back<T: Formed + std::fmt::Debug>(kind: Kind, record: &T, change: (&str, &str), changed: &T) -> Result<(), TestCaseError> {
    let known = known();
    BACK.set((BACK.get().0, BACK.get().1 + 1));
    let fields = record.fields();
    let sent = sent(kind, &fields, Some(record), &known);
    match T::read(&fields.clone().overlaid(&sent), Some(record), &known) {
        Ok(read) => {
            BACK.set((BACK.get().0 + 1, BACK.get().1));
            prop_assert_eq!(&read, record);
        }
        Err(errors) => prop_assert!(errors.iter().all(|(_, sentence)| sentence.len() > 10), "{:?}", errors),
    }
    let other = fields.overlaid(&sent).with(change.0, change.1);
    if let Ok(read) = T::read(&other, Some(record), &known) {
        prop_assert_eq!(&read, changed);
    }
    Ok(())
}

/// What may be in a line somewhere; blanks, breaks and slashes more often than in life.
fn text() -> impl Strategy<Value = String> {
    "[ /a-cä\\\\\\t\r\n\u{a0}.*]{1,8}"
}

/// One line of anything.
fn note() -> impl Strategy<Value = String> {
    "[ a-cä<&\"\u{a0}]{0,6}"
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(names: &'static [&'static str]) -> impl Strategy<Value = T> {
    select(names).prop_map(|name| name.parse().expect("a name"))
}

fn configs() -> impl Strategy<Value = BackupConfig> {
    let words = (vec(text(), 1..4), vec(text(), 0..3), vec(text(), 0..3), option::of(select(&["lz4", "auto,zstd,3"][..])));
    (words, any::<(bool, bool, bool)>(), option::of(1..99u32), 1..99u32).prop_map(
        |(words, switches, checkpoint_interval, target_age_hours)| BackupConfig {
            client: "web1".parse().expect("a name"),
            label: "new".parse().expect("a name"),
            repository: "main".parse().expect("a name"),
            paths: words.0,
            excludes: words.1,
            patterns: words.2.into_iter().map(|text| format!("- {text}x")).collect(),
            one_file_system: switches.0,
            compression: words.3.map(str::to_owned),
            checkpoint_interval,
            read_special: switches.1,
            ignore_inode: switches.2,
            extra_options: vec![],
            target_age_hours,
            commands: Commands::default(),
            created: Timestamp(1),
        },
    )
}

fn actions() -> impl Strategy<Value = Action> {
    let repository = || name(&["all", "main", "gone"]);
    prop_oneof![
        name(&["web1/etc", "gone/x"]).prop_map(|config| Action::RunConfig { config }),
        (text(), text()).prop_map(|(client, label)| Action::RunConfigs { client, label }),
        (text(), text(), any::<bool>()).prop_map(|(client, label, live)| Action::RestoreTest { client, label, live }),
        (repository(), any::<bool>()).prop_map(|(repository, verify_data)| Action::Check { repository, verify_data }),
        repository().prop_map(|repository| Action::Compact { repository }),
        name(&["weekly", "all"]).prop_map(|config| Action::CheckBy { config }),
        (option::of(repository()), option::of(name(&["standard", "all"])), option::of(text()), option::of(text()))
            .prop_map(|(repository, policy, clients, labels)| Action::Prune { repository, policy, clients, labels }),
        Just(Action::Prune { repository: None, policy: None, clients: None, labels: None }),
        name(&["other"]).prop_map(|schedule| Action::EnableSchedule { schedule }),
    ]
}

thread_local! {
    /// Records that came back as they were, and all.
    static BACK: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 200, failure_persistence: None, max_global_rejects: 100_000, ..ProptestConfig::default() }
}

/// A form that refuses what it shows brings nothing back.
fn most_came_back() {
    let (back, all) = BACK.get();
    println!("{back} of {all}");
    assert!(all >= 50 && back * 2 > all, "{back} of {all}");
}

#[test]
fn of_configs() {
    proptest!(cases(), |(record in configs().prop_filter("valid", |config| validate::config(config).is_ok()))| {
        let changed = BackupConfig { target_age_hours: 77, ..record.clone() };
        comes_back(Kind::Config, &record, ("target_age_hours", "77"), &changed)?;
        // Typed into an empty form it is the same, or not taken. What it has to carry, a browser carries.
        let fields = record.fields();
        if ["paths", "excludes", "patterns"].iter().all(|field| fields.is_carried(field)) {
            let sent = sent::<BackupConfig>(Kind::Config, &fields, None, &known());
            if let Ok(read) = BackupConfig::read(&BackupConfig::blank(&known(), "web1").overlaid(&sent), None, &known()) {
                // A line of blanks is nothing that somebody has typed.
                let typed = |lines: &[String]| lines.iter().filter(|line| !line.trim().is_empty()).cloned().collect::<Vec<_>>();
                let paths = typed(&record.paths).iter().map(|path| path.trim_start().to_owned()).collect();
                let (excludes, patterns) = (typed(&record.excludes), typed(&record.patterns));
                prop_assert_eq!(read, BackupConfig { created: known().now, paths, excludes, patterns, ..record });
            }
        }
    });
    most_came_back();
}

#[test]
fn of_clients() {
    proptest!(cases(), |(description in note(), remote in prop_oneof![3 => "[a-c]{1,4}@[a-c]{1,4}", 1 => "[ a-c@]{1,6}"], server in prop_oneof![3 => "[a-c]{1,3}@[a-c]{1,3}(:2)?", 1 => "[ a-c@:2]{0,6}"], times in vec(select(&["02:00-03:00 UTC", "mon-fri 08:00-18:00 Europe/Berlin", "mon,tue 08:00-18:00 UTC"][..]), 0..3))| {
        let connection = Connection::Ssh(SshConnection { remote, server, rsh: Some("/opt/ssh".into()), ..SshConnection::default() });
        let blackouts = times.into_iter().map(|time| time.parse().expect("a time")).collect();
        let record = Client { name: "web1".parse().expect("a name"), description, connection, keys: vec![], blackouts, borg_binary: Default::default(), created: Timestamp(1) };
        if validate::client(&record).is_ok() {
            comes_back(Kind::Client, &record, ("description", "other"), &Client { description: "other".into(), ..record.clone() })?;
        }
    });
    most_came_back();
}

#[test]
fn of_schedules() {
    proptest!(cases(), |(actions in vec(actions(), 1..6), description in note(), enabled in any::<bool>(), rule in select(&["daily 02:30 UTC", "weekly sat,sun 03:00 Europe/Berlin", "DTSTART:20261101T023000Z RRULE:FREQ=DAILY"][..]))| {
        let recurrence = Recurrence::parse(rule, "UTC", known().now).expect("a rule");
        let record = Schedule { name: "nightly".parse().expect("a name"), description, recurrence, enabled, actions, jitter_seconds: 7, handled: Timestamp(5), ahead: Some(Timestamp(6)), created: Timestamp(1) };
        if record.check().is_ok() {
            comes_back(Kind::Schedule, &record, ("jitter_seconds", "8"), &Schedule { jitter_seconds: 8, ..record.clone() })?;
        }
    });
    most_came_back();
}

#[test]
fn of_policies() {
    proptest!(cases(), |(
        scopes in vec(prop_oneof![name(&["web1/etc", "gone/x"]).prop_map(|config| Scope::Config { config }), (text(), text()).prop_map(|(client, label)| Scope::Configs { client, label })], 0..5),
        keep in btree_map(select(&Period::ALL[..]), prop_oneof![(0..9u32).prop_map(Count::Number), Just(Count::All)], 1..4),
        within in option::of(select(&["2d", "36H", "6m"][..])),
        description in note(),
    )| {
        let within = within.map(|text| text.parse().expect("an interval"));
        let record = Policy { name: "standard".parse().expect("a name"), description, within, keep, minimum: 3, zone: "UTC".parse().expect("a zone"), most_per_day: 48, grace_hours: 168, applies: scopes, confirmed: vec![], created: Timestamp(1) };
        if record.check().is_ok() {
            comes_back(Kind::Policy, &record, ("minimum", "4"), &Policy { minimum: 4, ..record.clone() })?;
            comes_back(Kind::Policy, &record, ("configs", ""), &Policy { applies: record.applies.iter().filter(|scope| matches!(scope, Scope::Configs { .. })).cloned().collect(), ..record.clone() })?;
        }
    });
    most_came_back();
}

#[test]
fn of_check_configs() {
    proptest!(cases(), |(
        repositories in prop_oneof![name(&["all", "main", "gone"]).prop_map(Repositories::Named), text().prop_map(Repositories::Matching)],
        description in note(), seconds in option::of(1..9u32), since in option::of((1..9i64).prop_map(Timestamp)), parts in any::<(bool, bool, bool)>(),
    )| {
        let plan = CheckPlan { structure: parts.0, archives: parts.1, data: parts.2, skip_hours: 3, seconds, promise_hours: 300, since };
        let record = CheckConfig { name: "weekly".parse().expect("a name"), description, repositories, plan, created: Timestamp(1) };
        if record.check().is_ok() {
            let plan = CheckPlan { skip_hours: 4, ..record.plan.clone() };
            comes_back(Kind::CheckConfig, &record, ("skip_hours", "4"), &CheckConfig { plan, ..record.clone() })?;
        }
    });
    most_came_back();
}
