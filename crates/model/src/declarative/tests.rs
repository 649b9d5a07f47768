//! What must hold for every configuration, and what people are told about a file with mistakes.

use super::*;
use crate::blackout::Blackout;
use crate::check::{CheckPlan, Repositories};
use crate::client::{BinaryUse, Connection, KeyUse, Road, SshConnection};
use crate::hook::{Commands, Dump, Hook, OnFailure};
use crate::queue::Limits;
use crate::retention::{Count, Period, Scope};
use crate::schedule::Action;
use crate::settings::SessionLimits;
use crate::sshkey::{ClientKey, job_key};
use crate::trigger::{AccessContext, TriggerId, TriggerTarget};
use crate::web_user::WebSettings;
use crate::{CheckName, ConfigName, EncryptionMode, Recurrence, ScheduleName, Timestamp};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const NOW: Timestamp = Timestamp(1_795_300_000_000_000);

fn empty() -> Configuration {
    Configuration {
        settings: Settings {
            server_id: "s".into(),
            limits: Limits::default(),
            sessions: SessionLimits::default(),
            web: Default::default(),
        },
        repositories: vec![],
        clients: vec![],
        configs: vec![],
        policies: vec![],
        check_configs: vec![],
        schedules: vec![],
        triggers: vec![],
    }
}

fn repository(name: &str) -> Repository {
    Repository {
        name: name.parse().unwrap(),
        url: format!("/srv/{name}"),
        description: String::new(),
        repository_id: name.bytes().cycle().take(32).map(|byte| format!("{byte:02x}")).collect(),
        encryption: EncryptionMode::RepokeyBlake2,
        remote_borg: None,
        rsh: None,
        created: NOW,
    }
}

// --- random configurations

fn note() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), r#"[a-z"'\\#= äß漢.-]{1,20}"#]
}

fn regex() -> impl Strategy<Value = String> {
    select(vec![".*", "web[0-9]+", r"db\d", "a|b", "x"]).prop_map(str::to_owned)
}

fn connection() -> impl Strategy<Value = Connection> {
    let local = (any::<bool>(), any::<bool>()).prop_map(|(borg, cache)| Connection::Local {
        remote_borg: borg.then(|| "/opt/borg".to_owned()),
        remote_cache_dir: cache.then(|| "/var/cache/b".to_owned()),
    });
    let options = subsequence(vec!["-p2222".to_owned(), "-oConnectTimeout=10".to_owned(), "-4".to_owned()], 0..=3);
    let ssh = (options, any::<[bool; 5]>()).prop_map(|(rsh_options, [identity, borg, carrier, permanent, cache])| {
        Connection::Ssh(SshConnection {
            remote: "root@web1".into(),
            rsh: None,
            rsh_options,
            ssh_identity_file: identity.then(|| "/etc/key".to_owned()),
            remote_borg: borg.then(|| "borg-1.4".to_owned()),
            remote_cache_dir: cache.then(|| "/c".to_owned()),
            server: if carrier { String::new() } else { "b@server:22".into() },
            road: if carrier { Road::Carrier } else { Road::Back },
            key: if permanent { KeyUse::Permanent } else { KeyUse::Job },
            client_rsh: (permanent && !carrier).then(|| "ssh -v".to_owned()),
        })
    });
    prop_oneof![local, ssh]
}

fn client(name: &'static str, seed: u8) -> impl Strategy<Value = Client> {
    let windows = subsequence(vec!["mon-fri 08:00-18:00 Europe/Berlin", "22:00-06:00 UTC"], 0..=2);
    (note(), connection(), windows, any::<[bool; 3]>()).prop_map(move |(description, connection, windows, [key, from, always])| Client {
        name: name.parse().unwrap(),
        description,
        borg_binary: if always && connection.remote_borg().is_none() { BinaryUse::Always } else { BinaryUse::IfNeeded },
        connection,
        keys: key
            .then(|| ClientKey { key: job_key(&[seed; 32]).unwrap().0, from: from.then(|| "192.0.2.0/24".parse().unwrap()), added: NOW })
            .into_iter()
            .collect(),
        blackouts: windows.iter().map(|window| window.parse::<Blackout>().unwrap()).collect(),
        created: NOW,
    })
}

fn config(client: ClientNameText, label: &'static str) -> impl Strategy<Value = BackupConfig> {
    let lists = (
        subsequence(vec!["/etc", "/home", "/srv/with space", "--strange", "/'quote\"d'"], 1..=4),
        subsequence(vec!["*.tmp", r"re:\.cache$", "sh:**/x"], 0..=3),
        subsequence(vec!["--exclude-caches", "--noatime", "--exclude-if-present=.nobackup"], 0..=3),
    );
    (lists, any::<[bool; 4]>(), select(vec!["main", "old"])).prop_map(
        move |((paths, excludes, extra), [one, compressed, special, checkpoint], repository)| {
            let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
            BackupConfig {
                client: client.parse().unwrap(),
                label: label.parse().unwrap(),
                repository: repository.parse().unwrap(),
                paths: owned(paths.clone()),
                excludes: owned(excludes),
                patterns: if one { vec!["+ /etc/x".into()] } else { vec![] },
                one_file_system: one,
                compression: compressed.then(|| "zstd,3".to_owned()),
                checkpoint_interval: checkpoint.then_some(600),
                read_special: special,
                ignore_inode: one && special,
                extra_options: owned(extra),
                target_age_hours: if compressed { 200 } else { BackupConfig::TARGET_AGE_HOURS },
                commands: Commands {
                    hooks: if compressed { vec![hook("snapshot", special)] } else { vec![] },
                    // What Commands::check wants of a config with dumps.
                    dumps: if checkpoint && (one || !special) && paths.iter().all(|path: &&str| path.starts_with('/')) {
                        vec![dump("all.sql", one)]
                    } else {
                        vec![]
                    },
                },
                created: NOW,
            }
        },
    )
}

fn hook(name: &str, both: bool) -> Hook {
    Hook {
        name: name.parse().unwrap(),
        before: Some("set -e\n'sync' \"now\"".into()),
        after: both.then(|| "true".to_owned()),
        seconds: if both { 60 } else { Hook::SECONDS },
        on_failure: if both { OnFailure::Warn } else { OnFailure::Fail },
    }
}

fn dump(name: &str, spool: bool) -> Dump {
    Dump { name: name.parse().unwrap(), command: "pg_dumpall".into(), seconds: if spool { 60 } else { Dump::SECONDS }, spool }
}

type ClientNameText = &'static str;

fn policy(name: &'static str, configs: Vec<ConfigName>) -> impl Strategy<Value = Policy> {
    let keep = proptest::collection::btree_map(
        select(Period::ALL[..6].to_vec()),
        prop_oneof![(1_u32..99).prop_map(Count::Number), Just(Count::All)],
        1..4,
    );
    let scopes = (regex(), regex(), any::<bool>(), any::<bool>(), any::<prop::sample::Index>());
    (note(), keep, any::<bool>(), select(vec!["UTC", "Europe/Berlin"]), 0_u32..5, scopes).prop_map(
        move |(description, keep, within, zone, minimum, (client, label, matching, one, which))| {
            let mut applies = vec![];
            if matching {
                applies.push(Scope::Configs { client, label });
            }
            if one && !configs.is_empty() {
                applies.push(Scope::Config { config: configs[which.index(configs.len())].clone() });
            }
            Policy {
                name: name.parse().unwrap(),
                description,
                within: within.then(|| "14d".parse().unwrap()),
                keep,
                minimum,
                zone: zone.parse().unwrap(),
                most_per_day: Policy::MOST_PER_DAY,
                grace_hours: minimum * 24,
                applies,
                confirmed: vec![],
                created: NOW,
            }
        },
    )
}

fn check_config(name: &'static str) -> impl Strategy<Value = CheckConfig> {
    let repositories = prop_oneof![
        select(vec!["main", "old"]).prop_map(|name| Repositories::Named(name.parse().unwrap())),
        prop_oneof![regex(), Just(String::new())].prop_map(Repositories::Matching)
    ];
    let parts = any::<[bool; 3]>().prop_filter("it checks something", |parts| parts.contains(&true));
    let times = (select(vec![24_u32, 336, 2160]), 0_u32..24, proptest::option::of(1_u32..9999));
    (note(), repositories, parts, times).prop_map(
        move |(description, repositories, [structure, archives, data], (promise_hours, skip_hours, seconds))| CheckConfig {
            name: name.parse().unwrap(),
            description,
            repositories,
            plan: CheckPlan { structure, archives, data, skip_hours, seconds, promise_hours, since: None },
            created: NOW,
        },
    )
}

fn schedule(
    name: &'static str,
    configs: Vec<ConfigName>,
    policies: Vec<crate::PolicyName>,
    checks: Vec<CheckName>,
) -> impl Strategy<Value = Schedule> {
    let when = select(vec![
        "daily 02:30 Europe/Berlin",
        "weekly sat,sun 03:00 UTC",
        "monthly last 04:00 UTC",
        "DTSTART;TZID=Europe/Berlin:20260101T030000 RRULE:FREQ=MONTHLY;BYDAY=1SU",
    ]);
    let what = (regex(), regex(), any::<[bool; 4]>(), any::<prop::sample::Index>());
    (when, note(), any::<bool>(), 0_u32..600, what).prop_map(
        move |(when, description, enabled, jitter_seconds, (client, label, [run, verify_data, compact, prune], which))| {
            let mut actions = vec![Action::RunConfigs { client: client.clone(), label }];
            if run && !configs.is_empty() {
                actions.push(Action::RunConfig { config: configs[which.index(configs.len())].clone() });
            }
            actions.push(Action::Check { repository: "main".parse().unwrap(), verify_data });
            if !checks.is_empty() {
                actions.push(Action::CheckBy { config: checks[which.index(checks.len())].clone() });
            }
            if compact {
                actions.push(Action::Compact { repository: "old".parse().unwrap() });
            }
            if prune {
                let policy = (!policies.is_empty()).then(|| policies[which.index(policies.len())].clone());
                actions.push(Action::Prune { repository: None, policy, clients: Some(client), labels: None });
            }
            Schedule {
                name: name.parse().unwrap(),
                description,
                recurrence: Recurrence::parse(when, "UTC", NOW).unwrap(),
                enabled,
                actions,
                jitter_seconds,
                handled: NOW,
                ahead: None,
                created: NOW,
            }
        },
    )
}

fn trigger(number: u8, schedules: Vec<ScheduleName>, configs: Vec<ConfigName>) -> impl Strategy<Value = Option<Trigger>> {
    (select(vec!["", "deploy", "it's \"me\""]), any::<[bool; 3]>(), any::<prop::sample::Index>()).prop_map(
        move |(comment, [enabled, web, config], which)| {
            let target = if config && !configs.is_empty() {
                TriggerTarget::Config { config: configs[which.index(configs.len())].clone() }
            } else if !schedules.is_empty() {
                TriggerTarget::Schedule { schedule: schedules[which.index(schedules.len())].clone() }
            } else {
                return None;
            };
            Some(Trigger {
                id: TriggerId::from_random([number; 16]),
                access: if web { AccessContext::AnonymousWeb } else { AccessContext::LocalCli },
                enabled,
                comment: comment.to_owned(),
                target,
                created: NOW.plus_seconds(number.into()),
                last_used: None,
            })
        },
    )
}

fn all<S: Strategy>(strategies: Vec<S>) -> impl Strategy<Value = Vec<S::Value>> {
    strategies
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let names = subsequence(vec![("web1", 1), ("web2.example.net", 2), ("db", 3), ("Old-1", 4)], 0..=4);
    let clients = names.prop_flat_map(|names| all(names.into_iter().map(|(name, seed)| client(name, seed)).collect()));
    let settings = (1_u32..4, any::<bool>(), any::<bool>()).prop_map(|(per_client, total, sessions)| Settings {
        server_id: "s".into(),
        limits: Limits { per_client, total: if total { 3 } else { Limits::default().total }, ..Limits::default() },
        sessions: if sessions { SessionLimits { idle_seconds: 99, ..SessionLimits::default() } } else { SessionLimits::default() },
        web: WebSettings { peer: sessions, proxy: total },
    });
    let with_configs = clients.prop_flat_map(|clients| {
        let pairs: Vec<(&'static str, &'static str)> = clients
            .iter()
            .flat_map(|client| {
                let name = ["web1", "web2.example.net", "db", "Old-1"].into_iter().find(|name| *name == client.name.as_str()).unwrap();
                [(name, "etc"), (name, "data")]
            })
            .collect();
        let most = pairs.len();
        let configs = subsequence(pairs, 0..=most)
            .prop_flat_map(|pairs| all(pairs.into_iter().map(|(client, label)| config(client, label)).collect()));
        (Just(clients), configs)
    });
    let checks = subsequence(vec!["quick", "deep.2"], 0..=2);
    let base = (
        settings,
        with_configs,
        subsequence(vec!["standard", "long"], 0..=2),
        checks,
        subsequence(vec!["nightly", "weekly-1", "tidy"], 0..=3),
    );
    base.prop_flat_map(|(settings, (clients, configs), policies, checks, schedules)| {
        let names: Vec<ConfigName> = configs.iter().map(BackupConfig::name).collect();
        let policy_names: Vec<crate::PolicyName> = policies.iter().map(|name| name.parse().unwrap()).collect();
        let check_names: Vec<CheckName> = checks.iter().map(|name| name.parse().unwrap()).collect();
        let schedule_names: Vec<ScheduleName> = schedules.iter().map(|name| name.parse().unwrap()).collect();
        let policies = all(policies.into_iter().map(|name| policy(name, names.clone())).collect());
        let checks = all(checks.into_iter().map(check_config).collect());
        let schedule = |name| schedule(name, names.clone(), policy_names.clone(), check_names.clone());
        let schedules = all(schedules.into_iter().map(schedule).collect());
        let triggers = all((1..5).map(|number| trigger(number, schedule_names.clone(), names.clone())).collect());
        (Just((settings, clients, configs)), policies, checks, schedules, triggers)
    })
    .prop_map(|((settings, clients, configs), policies, check_configs, schedules, triggers)| Configuration {
        settings,
        repositories: vec![repository("main"), repository("old")],
        clients,
        configs,
        policies,
        check_configs,
        schedules,
        triggers: triggers.into_iter().flatten().collect(),
    })
}

/// What a server does with changes, without its rules.
fn apply(configuration: &mut Configuration, steps: &[Step]) {
    fn put<R, K: PartialEq>(all: &mut Vec<R>, record: &R, key: impl Fn(&R) -> K)
    where
        R: Clone,
    {
        all.retain(|other| key(other) != key(record));
        all.push(record.clone());
    }
    let mut made = 100;
    for step in steps {
        match &step.change {
            Change::Put(record) => match record {
                Record::Settings(settings) => configuration.settings = (**settings).clone(),
                Record::Repository(repository) => put(&mut configuration.repositories, repository, |r| r.name.clone()),
                Record::Client(client) => put(&mut configuration.clients, client, |c| c.name.clone()),
                Record::Config(config) => put(&mut configuration.configs, config, BackupConfig::name),
                Record::Policy(policy) => put(&mut configuration.policies, policy, |p| p.name.clone()),
                Record::CheckConfig(config) => put(&mut configuration.check_configs, config, |c| c.name.clone()),
                Record::Schedule(schedule) => put(&mut configuration.schedules, schedule, |s| s.name.clone()),
                Record::Trigger(trigger) => {
                    let mut trigger = (**trigger).clone();
                    if !configuration.triggers.iter().any(|known| known.id == trigger.id) {
                        made += 1;
                        trigger.id = TriggerId::from_random([made; 16]);
                    }
                    put(&mut configuration.triggers, &trigger, |t| t.id.clone());
                }
            },
            Change::Remove(record) => match record {
                Record::Settings(_) | Record::Repository(_) => panic!("never removed"),
                Record::Client(client) => configuration.clients.retain(|other| other.name != client.name),
                Record::Config(config) => configuration.configs.retain(|other| other.name() != config.name()),
                Record::Policy(policy) => configuration.policies.retain(|other| other.name != policy.name),
                Record::CheckConfig(config) => configuration.check_configs.retain(|other| other.name != config.name),
                Record::Schedule(schedule) => configuration.schedules.retain(|other| other.name != schedule.name),
                Record::Trigger(trigger) => configuration.triggers.retain(|other| other.id != trigger.id),
            },
        }
    }
}

fn read(text: &str, current: &Configuration) -> Document {
    parse(text, NOW, current).unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back_as_the_same(configuration in configuration()) {
        for record in configuration.records() {
            prop_assert_eq!(record.check(), Ok(()));
        }
        let text = export(&configuration);
        let document = read(&text, &configuration);
        prop_assert_eq!(plan(&configuration, &[], &document, true).unwrap(), Plan::default(), "{}", text);
        // Nowhere more than what the records say: each is read as it was, but for what only the server knows.
        for entry in &document.entries {
            prop_assert_eq!(&Object::of(&entry.record), &entry.object);
        }
    }

    #[test]
    fn what_is_applied_is_what_the_file_says(a in configuration(), b in configuration()) {
        let wanted = export(&b);
        let document = read(&wanted, &a);
        let plan_of = |server: &Configuration| plan(server, &[], &document, true).unwrap();
        let mut server = a.clone();
        let steps = plan_of(&server);
        prop_assert_eq!(&steps.obstacles, &vec![]);
        apply(&mut server, &steps.changes);
        prop_assert_eq!(export(&server), wanted.clone());
        prop_assert!(plan_of(&server).is_empty());
        // Without removal, everything of a that b does not have is still there.
        let mut both = a.clone();
        let steps = plan(&both, &[], &document, false).unwrap();
        prop_assert_eq!(steps.count(Verb::Remove), 0);
        apply(&mut both, &steps.changes);
        prop_assert!(plan(&both, &[], &document, false).unwrap().is_empty());
        prop_assert!(a.clients.iter().all(|client| both.clients.iter().any(|other| other.name == client.name)));
        // On an empty server with the same repositories.
        let mut fresh = Configuration { repositories: b.repositories.clone(), ..empty() };
        let document = read(&wanted, &fresh);
        let steps = plan(&fresh, &[], &document, false).unwrap();
        apply(&mut fresh, &steps.changes);
        prop_assert_eq!(export(&fresh), wanted);
    }
}

// --- what people are told

fn server() -> Configuration {
    let mut server = Configuration { repositories: vec![repository("main")], ..empty() };
    let text = r#"format = 1
[client.web1]
remote = "root@web1"
server = "b@s"
[config."web1/etc"]
repository = "main"
paths = ["/etc"]
"#;
    let document = read(text, &server);
    let steps = plan(&server, &[], &document, false).unwrap();
    apply(&mut server, &steps.changes);
    server
}

fn mistakes(text: &str) -> Vec<String> {
    let server = server();
    let found = compare(text, NOW, &server, &[], false).expect_err("it has mistakes");
    found.iter().map(ToString::to_string).collect()
}

fn one(text: &str) -> String {
    let found = mistakes(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

#[test]
fn each_mistake_has_its_place_and_its_sentence() {
    for (text, said) in [
        ("", "1:1: the file does not say its format: write `format = 1` as its first line"),
        ("format = 2\n[anything]\n", "1:10: the file has format 2, and this borgcube knows format 1: use a newer borgcube"),
        ("format = \"one\"", "1:10: this is no format: write `format = 1`"),
        ("format = 1\n[clients.web1]", "2:2: there is no table \"clients\"; is client meant?"),
        (
            "format = 1\n[client.web1]\nremot = \"x\"\nremote = \"r@w\"\nserver = \"b@s\"",
            "3:1: there is no field \"remot\"; is remote meant?",
        ),
        ("format = 1\n[client.web1]\nremote = 5", "3:10: this is a whole number, not a text in quotes"),
        ("format = 1\n[config.\"web1/x\"]\nrepository = \"main\"\npaths = \"/etc\"", "4:9: this is a text, not a list of texts"),
        (
            "format = 1\n[config.\"web1/x\"]\nrepository = \"main\"\npaths = [\"/etc\", 5]",
            "4:18: this is a whole number, not a text in quotes",
        ),
        (
            "format = 1\n[client.web1.example.net]\nremote = \"r@w\"\nserver = \"b@s\"",
            "put all of that in quotes: [client.\"web1.example\"]",
        ),
        ("format = 1\n[client.\"-x\"]\nremote = \"r@w\"", "2:9: client name \"-x\" is not usable: it must begin with a letter or a digit"),
        ("format = 1\n[config.web1]\nrepository = \"main\"", "config name \"web1\" is not usable: it has the form CLIENT/LABEL"),
        ("format = 1\n[client.web1]\nremote = \"-oX\"\nserver = \"b@s\"", "3:10: remote \"-oX\" is not usable: write user@host"),
        ("format = 1\n[client.web1]\nlocal = true\nremote = \"r@w\"", "4:10: a client with `local = true` has no remote: take it out"),
        (
            "format = 1\n[client.web1]\nremote = \"r@w\"\nserver = \"b@s\"\nblackouts = [\"mon-fri 08:00-18:00\"]",
            "5:14: \"mon-fri 08:00-18:00\" lacks a time zone",
        ),
        (
            "format = 1\n[client.web1]\nremote = \"r@w\"\nserver = \"b@s\"\nroad = \"bak\"",
            "5:8: unknown variant `bak`, expected `back` or `carrier`",
        ),
        (
            "format = 1\n[client.web1]\nremote = \"r@w\"\nserver = \"b@s\"\nkeys = [{ key = \"ssh-dss AAAA\" }]",
            "5:9: this is not usable as a public key: DSA keys",
        ),
        ("format = 1\n[config.\"web1/x\"]\npaths = [\"/etc\"]", "2:9: config web1/x has no repository: write `repository = ...`"),
        ("format = 1\n[config.\"web1/x\"]\nrepository = \"main\"", "2:9: a backup config needs at least one path"),
        (
            "format = 1\n[config.\"web1/x\"]\nrepository = \"main\"\npaths = [\"/\"]\ncompression = \"zip\"",
            "5:15: Borg knows no compression \"zip\"",
        ),
        (
            "format = 1\n[config.\"web1/x\"]\nrepository = \"main\"\npaths = [\"/\"]\ncheckpoint_interval = -5",
            "5:23: -5 is out of range here",
        ),
        (
            "format = 1\n[config.\"web9/x\"]\nrepository = \"main\"\npaths = [\"/\"]",
            "2:9: config web9/x names client web9, and there is none, neither in this file nor on the server",
        ),
        (
            "format = 1\n[config.\"web1/x\"]\nrepository = \"mian\"\npaths = [\"/\"]",
            "3:14: config web1/x names repository mian, and there is none",
        ),
        ("format = 1\n[policy.p]\nminimum = 2", "2:9: a policy needs at least one rule"),
        ("format = 1\n[policy.p]\nkeep = { dayly = 7 }", "3:10: there is no period \"dayly\"; is daily meant?"),
        ("format = 1\n[policy.p]\nkeep = { daily = \"some\" }", "3:18: \"some\" is no number of archives to keep: write 7, or `all`"),
        (
            "format = 1\n[policy.p]\nkeep = { daily = 7 }\nzone = \"Berlin\"",
            "4:8: \"Berlin\" is no time zone: names are like Europe/Berlin or UTC",
        ),
        (
            "format = 1\n[policy.p]\nkeep = { daily = 7 }\napplies = [{ kind = \"configs\", client = \"(\", label = \".*\" }]",
            "4:11: \"(\" is no usable regular expression for the client",
        ),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"dayly 02:30\"\nactions = [{ kind = \"compact\", repository = \"main\" }]",
            "3:14: \"dayly 02:30\" is no recurrence",
        ),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"daily 02:30\"\nactions = [{ kind = \"compact\", repository = \"main\" }]",
            "3:14: \"daily 02:30\" has no time zone: write it behind",
        ),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"daily 02:30 UTC\"\nactions = [{ kind = \"run-config\", config = \"web9/x\" }]",
            "4:11: schedule s names config web9/x, and there is none",
        ),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"daily 02:30 UTC\"\nactions = [{ kind = \"compress\", repository = \"main\" }]",
            "4:12: unknown variant `compress`, expected one of `run-config`",
        ),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"daily 02:30 UTC\"\nactions = [{ kind = \"check-by\", config = \"deep\" }]",
            "4:11: schedule s names check-config deep, and there is none, neither in this file nor on the server",
        ),
        (
            "format = 1\n[check-config.c]\nseconds = 60",
            "2:15: check-config c has no repository or matching: write `repository = ...` or `matching = ...`",
        ),
        (
            "format = 1\n[check-config.c]\nmatching = \".*\"\nrepository = \"main\"",
            "3:12: check-config c has repository and matching: take one of them out",
        ),
        ("format = 1\n[check-config.c]\nmatching = \"(\"", "3:12: \"(\" is no usable regular expression for the repository"),
        ("format = 1\n[check-config.c]\nrepository = \"a b\"", "3:14: repository name \"a b\" is not usable"),
        (
            "format = 1\n[check-config.c]\nrepository = \"mian\"",
            "3:14: check-config c names repository mian, and there is none, neither in this file nor on the server",
        ),
        ("format = 1\n[check-config.c]\nrepository = [\"main\"]", "3:14: this is a list, not a text in quotes"),
        ("format = 1\n[check-config.c]\nmatching = \".*\"\nseconds = -5", "4:11: -5 is out of range here"),
        ("format = 1\n[check-config.c]\nmatching = \".*\"\nseconds = 0", "4:11: a check with a time limit needs at least a second"),
        (
            "format = 1\n[check-config.c]\nmatching = \".*\"\nskip_hours = 336",
            "4:14: what is left out for 14 days cannot be checked every 14 days",
        ),
        (
            "format = 1\n[check-config.c]\nmatching = \".*\"\nstructure = false\narchives = false",
            "4:13: a check config checks at least one of structure, archives and data",
        ),
        ("format = 1\n[check-configs.c]\nmatching = \".*\"", "2:2: there is no table \"check-configs\"; is check-config meant?"),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"daily 02:30 UTC\"\nactions = [{ kind = \"check\", repository = \"main\", verify = true }]",
            "4:51: there is no field \"verify\"; is verify_data meant?",
        ),
        ("format = 1\n[schedule.s]\nrecurrence = \"daily 02:30 UTC\"\nactions = []", "4:11: a schedule needs at least one action"),
        (
            "format = 1\n[schedule.s]\nrecurrence = \"hourly UTC\"\njitter_seconds = 3600\nactions = [{ kind = \"compact\", repository = \"main\" }]",
            "the jitter must be less than the 3600 seconds",
        ),
        (
            "format = 1\n[[trigger]]\naccess = \"cli\"\ntarget = { kind = \"schedule\", schedule = \"s\" }",
            "3:10: unknown variant `cli`, expected `local-cli` or `anonymous-web`",
        ),
        ("format = 1\n[trigger.x]\naccess = \"local-cli\"", "2:2: triggers have no names: write each as [[trigger]]"),
        ("format = 1\n[settings]\nper_client = 0", "3:14: each limit is a number of jobs from 1 to 1000"),
        ("format = 1\n[apply]\nremove_missing = 1", "3:18: this is a whole number, not true or false"),
        ("format = 1\n[apply]\nremove = true", "3:1: there is no field \"remove\""),
        ("format = 1\nclient = 5", "2:10: a client is written as a table with its name: [client.NAME]"),
        (
            "format = 1\n[client.web1]\nremote = \"r@w\"\nserver = \"b@s\"\n[client.web1]\nrsh = \"ssh\"",
            "5:9: client web1 is in the file twice",
        ),
        ("format = 1\n[client.web1]\nremote = \"r@w\"\nremote = \"r@v\"", "4:1: remote is there twice"),
        ("format = 1\n[client.web1\nremote = \"r@w\"", "this is not TOML"),
    ] {
        // Behind broken syntax more may look broken.
        let found = if said == "this is not TOML" { mistakes(text).remove(0) } else { one(text) };
        assert!(found.contains(said), "{found}\n  instead of\n{said}");
    }
}

#[test]
fn mistakes_hide_no_others() {
    let text = r#"format = 1
[client.new]
remote = "r@new"
server = "b@s"
blackouts = ["mon-fri 25:00-18:00 Europe/Berlin"]
[policy.p]
keep = { daily = 7 }
zone = "Berlin"
[config."new/x"]
repository = "main"
paths = ["/"]
[config."web9/x"]
repository = "mian"
paths = ["/"]
compression = "zip"
[schedule.s]
recurrence = "daily 02:30 UTC"
actions = [{ kind = "run-config", config = "nobody/x" }]
"#;
    let found = mistakes(text);
    let expected = [
        "5:14: ",
        "8:8: \"Berlin\" is no time zone",
        "12:9: config web9/x names client web9",
        "13:14: config web9/x names repository mian",
        "15:15: Borg knows no compression",
        "18:11: schedule s names config nobody/x",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    // Of a client with a mistake it is known that it is there, and behind broken syntax nothing is known.
    assert!(!found.iter().any(|mistake| mistake.contains("client new")), "{found:#?}");
    let broken = mistakes("format = 1\n[config.\"web9/x\"]\nrepository = \"main\"\npaths = [\"/\"]\n[client.web1\nremote = \"r@w\"");
    assert!(broken.iter().all(|mistake| !mistake.contains("web9")), "{broken:#?}");
}

#[test]
fn of_a_repository_that_is_not_there_the_id_need_not_be_known() {
    let plan = compare("format = 1\n[repository.new]\nurl = \"/srv/new\"", NOW, &server(), &[], false).unwrap();
    assert!(plan.changes.is_empty() && plan.obstacles[0].message.contains("borgcube repository add new /srv/new --adopt"), "{plan:?}");
    assert!(one("format = 1\n[repository.main]\nurl = \"/srv/main\"\nencryption = \"repokey\"").contains("has no repository_id"));
    assert!(one("format = 1\n[repository.new]\nencryption = \"repokey\"").contains("has no url"));
}

#[test]
fn sentences_say_what_is_missing_and_take_one_line() {
    let server = one("format = 1\n[client.new]\nremote = \"r@w\"");
    assert!(server.contains("a client needs `server`") && server.contains("`local = true`") && !server.contains("not usable"), "{server}");
    let remote = one("format = 1\n[client.new]\nserver = \"r@w\"");
    assert!(remote.contains("a client needs `remote`") && remote.contains("`local = true`"), "{remote}");
    let regex = one("format = 1\n[check-config.c]\nmatching = \"(\"");
    assert!(regex.ends_with("(`.*` matches all): unclosed group"), "{regex:?}");
}

#[test]
fn a_repository_is_what_it_is() {
    let server = server();
    let text = export(&server);
    let other = text.replace(&server.repositories[0].repository_id, &"ab".repeat(32)).replace("repokey-blake2", "none");
    let found = mistakes(&other);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].contains("the repository_id of repository main cannot be changed") && found[1].contains("the encryption of"),
        "{found:#?}"
    );
    // One that is not there needs a secret.
    let more = text.replace("[repository.main]", "[repository.other]").replace("/srv/main", "/srv/my other");
    let found = plan(&server, &[], &read(&more, &server), false).unwrap();
    assert!(found.changes.is_empty());
    assert!(found.obstacles[0].message.contains("borgcube repository add other '/srv/my other' --adopt"), "{found:#?}");
}

#[test]
fn all_mistakes_at_once() {
    let found = mistakes("format = 1\n[client.web1]\nremot = \"x\"\nkey = 5\n[policy.p]\nkeep = { dayly = 7, weakly = 1 }\n[schedule.s]\n");
    assert_eq!(found.len(), 6, "{found:#?}");
    let found = mistakes("format = 1\n[config.\"web1/a\"]\nrepository = \"a b\"\npaths = [\"/\"]\ncheckpoint_interval = -1\n");
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn what_is_missing_stays_unless_it_is_to_go() {
    let server = server();
    let nothing = "format = 1\n[repository.main]\nurl = \"/srv/main\"\nencryption = \"repokey-blake2\"\nrepository_id = \"";
    let nothing = format!("{nothing}{}\"\n", server.repositories[0].repository_id);
    let document = read(&nothing, &server);
    assert!(plan(&server, &[], &document, false).unwrap().is_empty());
    let steps = plan(&server, &[], &document, true).unwrap();
    let removed: Vec<(Kind, &str)> = steps.changes.iter().map(|step| (step.kind, step.name.as_str())).collect();
    assert_eq!(removed, [(Kind::Config, "web1/etc"), (Kind::Client, "web1")]);
    // What has archives stays, and so does a repository.
    let archived = ["web1/etc".parse().unwrap()];
    let steps = plan(&server, &archived, &document, true).unwrap();
    assert!(steps.obstacles.iter().any(|obstacle| obstacle.message.contains("client web1 is not in the file and has archives")));
    let steps = plan(&server, &[], &read("format = 1\n[apply]\nremove_missing = true\n", &server), true).unwrap();
    assert!(steps.obstacles[0].message.contains("type borgcube repository remove main"), "{:#?}", steps.obstacles);
    // A config whose client would go.
    let text = format!("{nothing}[config.\"web1/etc\"]\nrepository = \"main\"\npaths = [\"/etc\"]\n");
    let found = plan(&server, &[], &read(&text, &server), true).unwrap_err();
    assert!(found[0].message.contains("needs client web1, which is not in this file and would be removed"), "{found:#?}");
}

#[test]
fn a_repository_is_moved_by_the_command_that_tries_it() {
    let mut server = server();
    server.repositories[0].rsh = Some("ssh -i key".into());
    let written = |url: &str, description: &str| {
        let id = &server.repositories[0].repository_id;
        let fields = format!("url = \"{url}\"\nencryption = \"repokey-blake2\"\nrepository_id = \"{id}\"\ndescription = \"{description}\"");
        format!("format = 1\n[repository.main]\n{fields}\n")
    };
    let plan_of = |text: &str| plan(&server, &[], &read(text, &server), false).unwrap();
    let moved = plan_of(&written("/mnt/my disk", "x"));
    assert_eq!(moved.changes, []);
    assert!(
        moved.obstacles[0].message.contains("Type borgcube repository edit main --url '/mnt/my disk' --clear rsh"),
        "{:?}",
        moved.obstacles
    );
    server.repositories[0].rsh = None;
    let plan_of = |text: &str| plan(&server, &[], &read(text, &server), false);
    let same = server.repositories[0].url.clone();
    let id = server.repositories[0].repository_id.clone();
    let fields = |url: &str| {
        format!(
            "format = 1\n[repository.main]\nurl = \"{url}\"\nencryption = \"repokey-blake2\"\nrepository_id = \"{id}\"\ndescription = \"x\"\n"
        )
    };
    let described = plan_of(&fields(&same)).unwrap();
    assert_eq!((described.changes.len(), described.obstacles.len()), (1, 0), "a description is no place");
    assert!(!mistakes(&fields("srv/main")).is_empty(), "a relative path is nobody's");
}

#[test]
fn a_plan_says_what_changes() {
    let server = server();
    let text = export(&server).replace("paths = [\"/etc\"]", "paths = [\"/etc\", \"/home\"]\none_file_system = true");
    let steps = plan(&server, &[], &read(&text, &server), true).unwrap().changes;
    let [step] = steps.as_slice() else { panic!("{steps:#?}") };
    assert_eq!((step.action, step.kind, step.name.as_str()), (Verb::Change, Kind::Config, "web1/etc"));
    let fields: Vec<_> = step.fields.iter().map(|d| (d.field, d.old.as_ref().map(inline), d.new.as_ref().map(inline))).collect();
    assert_eq!(
        fields,
        [
            ("paths", Some("[\"/etc\"]".to_owned()), Some("[\"/etc\", \"/home\"]".to_owned())),
            ("one_file_system", None, Some("true".to_owned()))
        ]
    );
}

#[test]
fn a_recurrence_that_is_over_may_stay() {
    let mut server = server();
    let text = "format = 1\n[schedule.once]\nrecurrence = \"DTSTART:20270101T000000Z RDATE:20270101T000000Z\"\nactions = [{ kind = \"compact\", repository = \"main\" }]\n";
    let document = read(text, &server);
    let steps = plan(&server, &[], &document, false).unwrap();
    apply(&mut server, &steps.changes);
    let later = Timestamp(NOW.0 + 400 * 86_400 * 1_000_000);
    assert!(plan(&server, &[], &parse(text, later, &server).unwrap(), false).unwrap().is_empty());
    let elsewhere = parse(text, later, &empty()).unwrap_err();
    assert!(elsewhere[0].message.contains("it has no next run"), "{elsewhere:#?}");
}

/// A field of a record that the file cannot say would be lost on the way through git.
#[test]
fn the_file_can_say_everything_that_people_set() {
    let only_here: &[(Kind, &[&str])] = &[
        (Kind::Settings, &["/server_id"]),
        (Kind::Repository, &["/name", "/created"]),
        (Kind::Client, &["/name", "/created"]),
        (Kind::Config, &["/client", "/label", "/created"]),
        (Kind::Policy, &["/name", "/confirmed", "/created"]),
        (Kind::CheckConfig, &["/name", "/created"]),
        (Kind::Schedule, &["/name", "/handled", "/created"]),
        (Kind::Trigger, &["/id", "/created", "/last_used"]),
    ];
    for (kind, state) in only_here {
        let blank = kind.record(kind.blank(if *kind == Kind::Config { "x/x" } else { "x" }).unwrap()).unwrap().json();
        let mut leaves = vec![];
        for (name, value) in blank.as_object().unwrap() {
            let nested = matches!(name.as_str(), "limits" | "sessions" | "web" | "connection");
            match value.as_object().filter(|_| nested) {
                Some(inner) => leaves.extend(inner.keys().map(|inner| format!("/{name}/{inner}"))),
                None => leaves.push(format!("/{name}")),
            }
        }
        let said: Vec<String> = kind.fields().iter().map(|field| format!("/{}", field.path.join("/"))).collect();
        for leaf in leaves {
            assert!(said.contains(&leaf) || state.contains(&leaf.as_str()), "{kind}: nothing in fields.rs is about {leaf}");
        }
    }
}
