use super::typed::WHOLE;
use super::*;
use model::check::Repositories;
use model::client::{BinaryUse, KeyUse, Road, SshConnection};
use model::hook::{Commands, Hook, OnFailure};
use model::retention::{Confirmation, Count, Period, Scope};
use model::{Action, BackupConfig, CheckConfig, Client, Connection, Policy, Recurrence, Schedule};

/// What anybody may type anywhere.
const BAD: [&str; 6] = ["", "ä ö ü", "<script>alert(1)</script>", "\"><b>", "../../etc", "a\u{0}b"];

pub(super) fn known() -> Known {
    Known {
        clients: ["web1", "db1"].map(|name| name.parse().unwrap()).into(),
        configs: ["web1/etc", "db1/data"].map(|name| name.parse().unwrap()).into(),
        archived: ["old1/etc"].map(|name| name.parse().unwrap()).into(),
        repositories: ["main", "other"].map(|name| name.parse().unwrap()).into(),
        schedules: ["nightly".parse().unwrap()].into(),
        policies: ["standard".parse().unwrap()].into(),
        check_configs: ["weekly".parse().unwrap()].into(),
        zone: "Europe/Berlin".into(),
        installed: false,
        now: Timestamp(1_795_300_000_000_000),
    }
}

fn typed(pairs: &[(&str, &str)]) -> Typed {
    Typed::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// What a form of a new one says to this.
fn add<T: Formed>(pairs: &[(&str, &str)]) -> Result<T, Errors> {
    T::read(&T::blank(&known(), "web1").overlaid(&typed(pairs)), None, &known())
}

/// What a form of this one says to a change.
fn edit<T: Formed>(before: &T, pairs: &[(&str, &str)]) -> Result<T, Errors> {
    T::read(&before.fields().overlaid(&typed(pairs)), Some(before), &known())
}

/// The sentence beside a field, which is the only one.
#[track_caller]
fn only<T: std::fmt::Debug>(outcome: Result<T, Errors>, field: &str) -> String {
    let errors = outcome.unwrap_err();
    let fields: Vec<&String> = errors.iter().map(|(field, _)| field).collect();
    assert_eq!(fields, [field], "{errors:?}");
    errors.of(field).unwrap().clone()
}

/// A record as it is comes out of its own form as it went in, and each field has a place on it.
#[track_caller]
fn round<T: Formed + std::fmt::Debug>(record: &T) {
    let fields = record.fields();
    assert_eq!(&T::read(&fields, Some(record), &known()).unwrap(), record);
    // As a browser sends it: line ends as in mail, and nothing of what cannot be changed.
    let mut sent = vec![];
    for field in T::sections(&fields, Some(record), &known()).into_iter().flat_map(|section| section.fields) {
        assert!(!field.label.is_empty() && !field.name.is_empty());
        if field.control != Control::Fixed {
            sent.push((field.name.clone(), fields.raw(&field.name).replace('\n', "\r\n")));
        }
    }
    assert_eq!(&T::read(&record.fields().overlaid(&Typed::new(sent)), Some(record), &known()).unwrap(), record);
    assert_eq!(version(record), version(&record.clone()));
    assert_eq!(version(record).len(), 64);
}

/// Every field of a form of a new one, filled with anything: it is refused or not, and nothing panics.
fn survives<T: Formed>() {
    let blank = T::blank(&known(), "web1");
    for field in T::sections(&blank, None, &known()).into_iter().flat_map(|section| section.fields) {
        for bad in BAD.into_iter().chain([&*"x".repeat(70_000), "999999999999999999999", "-1", "(", "1;2;3"]) {
            let _ = add::<T>(&[("name", "good"), (&field.name, bad)]);
        }
    }
}

#[test]
fn names() {
    for bad in BAD.into_iter().chain([&*"x".repeat(65), "-o"]) {
        for errors in [
            add::<Client>(&[("name", bad)]).unwrap_err(),
            add::<Schedule>(&[("name", bad)]).unwrap_err(),
            add::<Policy>(&[("name", bad)]).unwrap_err(),
            add::<CheckConfig>(&[("name", bad)]).unwrap_err(),
            add::<BackupConfig>(&[("name", bad)]).unwrap_err(),
        ] {
            assert!(errors.of("name").unwrap().contains("is not usable"), "{bad}: {errors:?}");
        }
    }
    let taken = |errors: Errors| errors.of("name").cloned().unwrap();
    assert!(taken(add::<Client>(&[("name", "web1")]).unwrap_err()).contains("there is a client web1 already"));
    assert!(taken(add::<Schedule>(&[("name", "nightly")]).unwrap_err()).contains("already"));
    assert!(taken(add::<Policy>(&[("name", "standard")]).unwrap_err()).contains("already"));
    assert!(taken(add::<CheckConfig>(&[("name", "weekly")]).unwrap_err()).contains("already"));
    assert!(taken(add::<BackupConfig>(&[("name", "etc")]).unwrap_err()).contains("there is a backup config web1/etc already"));
    survives::<Client>();
    survives::<BackupConfig>();
    survives::<Schedule>();
    survives::<Policy>();
    survives::<CheckConfig>();
}

fn client() -> Client {
    Client {
        name: "web1".parse().unwrap(),
        description: "Größe <b>2</b>".into(),
        connection: Connection::Ssh(SshConnection {
            remote: "root@web1".into(),
            server: "borgcube-ssh@backup:2222".into(),
            rsh: Some("/opt/ssh".into()),
            rsh_options: vec!["-oProxyCommand=x".into()],
            ssh_identity_file: Some("/root/key".into()),
            remote_borg: Some("/opt/borg".into()),
            key: KeyUse::Permanent,
            client_rsh: Some("ssh -p 2".into()),
            ..SshConnection::default()
        }),
        keys: vec![],
        blackouts: vec!["mon-fri 08:00-18:00 Europe/Berlin".parse().unwrap(), "02:00-03:00 UTC".parse().unwrap()],
        borg_binary: BinaryUse::Never,
        created: Timestamp(1),
    }
}

#[test]
fn clients() {
    let new = [("name", "new1"), ("remote", " root@new1 "), ("server", "b@backup"), ("description", "Müller & <Söhne>")];
    let added: Client = add(&new).unwrap();
    let Connection::Ssh(ssh) = &added.connection else { panic!("{added:?}") };
    assert_eq!((ssh.remote.as_str(), ssh.server.as_str(), ssh.road, ssh.key), ("root@new1", "b@backup", Road::Back, KeyUse::Permanent));
    assert_eq!(added.description, "Müller & <Söhne>");
    assert_eq!(
        added,
        Client {
            connection: Connection::Ssh(SshConnection {
                remote: "root@new1".into(),
                server: "b@backup".into(),
                key: KeyUse::Permanent,
                ..Default::default()
            }),
            ..added.clone()
        }
    );
    let with = |more: &[(&str, &str)]| add::<Client>(&[&new[..], more].concat());
    assert!(only(with(&[("remote", "")]), "remote").contains("it is empty"));
    assert!(only(with(&[("remote", "-oProxyCommand=x")]), "remote").contains("write user@host"));
    assert!(only(with(&[("remote", "u@h:22")]), "remote").contains("has a port in it"));
    assert!(only(with(&[("server", "")]), "server").contains("how the client reaches this server"));
    assert!(only(with(&[("server", "$(x)")]), "server").contains("is not usable"));
    assert!(with(&[("server", ""), ("road", "carrier")]).is_ok());
    assert!(only(with(&[("road", "sea")]), "road").contains("none of what can be chosen"));
    assert!(only(with(&[("description", &"ä".repeat(501))]), "description").contains("at most 1000 bytes"));
    assert!(only(with(&[("blackouts", "02:00-03:00 UTC\r\nmon 8-9 UTC")]), "blackouts").contains("HH:MM"));
    assert!(only(with(&[("blackouts", "02:00-03:00 Mars/Olympus")]), "blackouts").contains("is no time zone"));
    assert!(only(with(&[("blackouts", "mon 02:00-03:00")]), "blackouts").contains("lacks a time zone"));
    assert!(only(with(&[("blackouts", &"02:00-03:00 UTC\n".repeat(51))]), "blackouts").contains("at most 50"));
    let installed = Known { installed: true, ..known() };
    assert_eq!(Client::blank(&installed, "").text("key"), "job");

    round(&client());
    round(&Client { connection: Connection::Local { remote_borg: Some("/opt/borg".into()), remote_cache_dir: None }, ..client() });
}

#[test]
fn what_runs_commands_is_on_no_form_and_stays() {
    let sent = [
        ("remote", "root@other"),
        ("rsh", "/tmp/evil"),
        ("rsh_options", "-oProxyCommand=evil"),
        ("remote_borg", "/tmp/evil"),
        ("client_rsh", "evil"),
        ("ssh_identity_file", "/evil"),
        ("remote_cache_dir", "/evil"),
        ("keys", "evil"),
        ("connection", "local"),
    ];
    let changed = edit(&client(), &sent).unwrap();
    let (Connection::Ssh(before), Connection::Ssh(after)) = (client().connection, changed.connection) else { panic!() };
    assert_eq!(after, SshConnection { remote: "root@other".into(), ..before });
    // A client that comes with an SSH command of its own cannot come with a key that is made for each job.
    assert!(only(edit(&client(), &[("key", "job")]), "key").contains("cannot use job keys"));
    assert!(only(edit(&client(), &[("borg_binary", "always")]), "borg_binary").contains("/opt/borg is named"));

    let sent = [("hooks", "evil"), ("dumps", "evil"), ("commands", "evil"), ("extra_options", "--rs=evil"), ("paths", "/etc\n/srv")];
    let changed = edit(&config(), &sent).unwrap();
    assert_eq!(changed, BackupConfig { paths: vec!["/etc".into(), "/srv".into()], ..config() });
    let added: BackupConfig = add(&[&sent[..], &[("name", "all"), ("repository", "main")]].concat()).unwrap();
    assert!(added.commands.is_empty() && added.extra_options.is_empty());
    let added: Client =
        add(&[&[("name", "new1"), ("remote", "a@b"), ("server", "c@d"), ("rsh", "evil"), ("client_rsh", "evil")][..]].concat()).unwrap();
    let Connection::Ssh(ssh) = added.connection else { panic!() };
    assert!(!ssh.runs_programs() && ssh.client_rsh.is_none());
}

fn config() -> BackupConfig {
    let hook = Hook { name: "db".parse().unwrap(), before: Some("stop".into()), after: None, seconds: 9, on_failure: OnFailure::Fail };
    BackupConfig {
        client: "web1".parse().unwrap(),
        label: "etc".parse().unwrap(),
        repository: "main".parse().unwrap(),
        paths: vec!["/srv/Müller & Söhne ".into(), "/etc".into(), "relative".into()],
        excludes: vec!["*/.cache".into()],
        patterns: vec!["- /home/*/tmp".into()],
        one_file_system: true,
        compression: Some("zstd,3".into()),
        checkpoint_interval: Some(600),
        read_special: false,
        ignore_inode: true,
        extra_options: vec!["--list".into()],
        target_age_hours: 26,
        commands: Commands { hooks: vec![hook], dumps: vec![] },
        created: Timestamp(1),
    }
}

#[test]
fn configs() {
    let new = [("name", "all"), ("repository", "other"), ("paths", "/etc\r\n\r\n  /srv/ä b\r\n"), ("compression", "zstd,3")];
    let added: BackupConfig = add(&new).unwrap();
    assert_eq!((added.name().to_string(), added.repository.as_str(), added.target_age_hours), ("web1/all".into(), "other", 26));
    assert_eq!(added.paths, ["/etc", "/srv/ä b"]);
    let with = |more: &[(&str, &str)]| add::<BackupConfig>(&[&new[..], more].concat());
    assert!(only(with(&[("paths", "")]), "paths").contains("at least one path"));
    assert!(only(with(&[("paths", "etc\n/srv")]), "paths").contains("is not an absolute path"));
    assert!(with(&[("paths", ""), ("patterns", "R /etc\n- *.o")]).is_ok());
    assert!(only(with(&[("paths", "/a\u{0}b")]), "paths").contains("line break"));
    assert!(only(with(&[("excludes", "\u{0}")]), "excludes").contains("line break"));
    assert!(only(with(&[("compression", "zstd,99")]), "compression").contains("Borg knows no compression"));
    assert!(only(with(&[("checkpoint_interval", "0")]), "checkpoint_interval").contains("at least 1"));
    assert!(only(with(&[("checkpoint_interval", "soon")]), "checkpoint_interval").contains("no whole number"));
    assert!(only(with(&[("target_age_hours", "")]), "target_age_hours").contains("it is empty"));
    assert!(only(with(&[("target_age_hours", "99999999")]), "target_age_hours").contains("from 1 to"));
    assert!(only(with(&[("repository", "")]), "repository").contains("choose"));
    assert!(only(with(&[("repository", "nowhere")]), "repository").contains("there is no repository nowhere"));
    assert!(only(with(&[("repository", "<b>")]), "repository").contains("is not usable"));
    assert!(only(with(&[("client", "nobody")]), "client").contains("there is no client nobody"));
    let several = with(&[("paths", "etc"), ("compression", "x"), ("target_age_hours", "0")]).unwrap_err();
    assert_eq!(several.iter().count(), 3, "{several:?}");
    assert!(with(&[("excludes", &"x".repeat(600_000))]).is_err());

    round(&config());
    // Space at the end of a path that was there stays; before a slash nobody means any.
    let changed = edit(&config(), &[("paths", "/srv/Müller & Söhne \n  /new\nrelative")]).unwrap();
    assert_eq!(changed.paths, ["/srv/Müller & Söhne ", "/new", "relative"]);
    // Of one that is new, nobody knows whether it is meant.
    assert!(only(edit(&config(), &[("paths", "/srv/Müller & Söhne \n/new \n/etc")]), "paths").contains("\"/new \" ends with a blank"));
    assert!(only(edit(&config(), &[("excludes", " *.tmp")]), "excludes").contains("begins with a blank"));
    assert!(!edit(&config(), &[("one_file_system", "no")]).unwrap().one_file_system);
    // Of one repository there is no choice.
    let one = Known { repositories: ["main".parse().unwrap()].into(), ..known() };
    assert_eq!((BackupConfig::blank(&one, "x").text("repository"), BackupConfig::blank(&known(), "x").text("repository")), ("main", ""));
}

fn schedule() -> Schedule {
    let matching = |client: &str| Action::RunConfigs { client: client.into(), label: ".*".into() };
    let narrow = Action::Prune { repository: None, policy: None, clients: Some("web.*".into()), labels: None };
    Schedule {
        name: "nightly".parse().unwrap(),
        description: "jede Nacht".into(),
        recurrence: Recurrence::parse("daily 02:30", "Europe/Berlin", known().now).unwrap(),
        enabled: true,
        actions: vec![
            Action::RunConfig { config: "gone1/etc".parse().unwrap() },
            matching("web.*"),
            matching("a/b|c"),
            narrow,
            Action::EnableSchedule { schedule: "other".parse().unwrap() },
        ],
        jitter_seconds: 600,
        handled: Timestamp(5),
        ahead: Some(Timestamp(6)),
        created: Timestamp(1),
    }
}

#[test]
fn schedules() {
    let new = [("name", "weekly"), ("at", "weekly  sat 03:00"), ("action-1", "run"), ("of-1", "web1/etc")];
    let added: Schedule = add(&new).unwrap();
    assert_eq!((added.recurrence.text(), added.enabled, added.jitter_seconds), ("weekly sat 03:00 Europe/Berlin", true, 0));
    assert_eq!(added.actions, [Action::RunConfig { config: "web1/etc".parse().unwrap() }]);
    let with = |more: &[(&str, &str)]| add::<Schedule>(&[&new[..], more].concat());
    assert!(only(with(&[("at", "")]), "at").contains("it is empty"));
    assert!(only(with(&[("at", "<b>daily</b> 02:30")]), "at").contains("is no recurrence"));
    assert!(only(with(&[("at", "daily 02:30 Mars/Olympus")]), "at").contains("is no time zone"));
    let nowhere = Known { zone: String::new(), ..known() };
    let said = Schedule::read(&typed(&new), None, &nowhere).unwrap_err();
    assert!(said.of("at").unwrap().contains("does not say which time zone"), "{said:?}");
    assert!(only(with(&[("at", "DTSTART:20200101T000000Z RRULE:FREQ=DAILY;COUNT=1")]), "at").contains("no next run"));
    assert!(only(with(&[("of-1", "web1/nothing")]), "of-1").contains("there is no backup config web1/nothing"));
    assert!(only(with(&[("of-1", "")]), "of-1").contains("say what of"));
    assert!(only(with(&[("action-1", "")]), "action-1").contains("choose what to do with web1/etc"));
    assert!(only(with(&[("action-1", "explode")]), "action-1").contains("nothing that a schedule does"));
    assert!(only(with(&[("action-1", "as-it-is")]), "action-1").contains("no such action"));
    assert!(only(with(&[("action-1", "prune"), ("of-1", "all")]), "of-1").contains("choose: prune every repository"));
    assert!(only(with(&[("action-1", "prune-all"), ("of-1", "main")]), "of-1").contains("stays empty"));
    let named_so = Known { repositories: ["all".parse().unwrap()].into(), ..known() };
    let of = |kind: &str, of: &str| {
        let read = Schedule::read(
            &Schedule::blank(&named_so, "").overlaid(&typed(&[&new[..2], &[("action-1", kind), ("of-1", of)]].concat())),
            None,
            &named_so,
        );
        read.unwrap().actions[0].to_string()
    };
    assert_eq!((of("prune", "all").as_str(), of("prune-all", "").as_str()), ("prune repository all", "prune"));
    assert!(only(with(&[("action-1", ""), ("of-1", "")]), "action-1").contains("does nothing"));
    assert!(only(with(&[("action-2", "run-matching"), ("of-2", "(/x")]), "of-2").contains("no usable regular expression"));
    assert!(only(with(&[("action-2", "check"), ("of-2", "ä")]), "of-2").contains("is not usable"));
    assert!(only(with(&[("action-2", "disable"), ("of-2", "weekly")]), "of-2").contains("there is no schedule weekly"));
    assert!(
        only(edit(&schedule(), &[("action-3", "disable"), ("of-3", "nightly"), ("action-1", "compact"), ("of-1", "main")]), "of-3")
            .contains("itself")
    );
    let many: Vec<(String, String)> =
        (1..=101).flat_map(|n| [(format!("action-{n}"), "compact".into()), (format!("of-{n}"), "main".into())]).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert!(only(with(&many), "action-101").contains("at most 100"));
    assert!(only(with(&[("jitter_seconds", "86401")]), "jitter_seconds").contains("at most one day"));
    assert!(only(with(&[("at", "hourly"), ("jitter_seconds", "3600")]), "jitter_seconds").contains("overtakes"));
    assert!(only(with(&[("description", &"x".repeat(1001))]), "description").contains("at most 1000"));
    // Rows count as a whole, and empty ones not at all.
    let rows = [("action-1", ""), ("of-1", ""), ("action-7", "prune-all"), ("of-7", ""), ("action-1000000", "run"), ("of-1000000", "x")];
    assert_eq!(with(&rows).unwrap().actions.len(), 1);
    let both = edit(&schedule(), &[("action-1", "compact"), ("of-1", "main")]).unwrap();
    assert_eq!(both.actions, [Action::Compact { repository: "main".parse().unwrap() }]);
    for (kind, of) in [
        ("prune-all", ""),
        ("prune", "main"),
        ("prune-by", "standard"),
        ("compact", "main"),
        ("check", "main"),
        ("verify-data", "main"),
        ("check-config", "weekly"),
        ("run-matching", "web[0-9]+/.*"),
        ("restore-test", ".*/etc"),
        ("restore-test-live", "web1/.*"),
        ("enable", "nightly"),
        ("disable", "nightly"),
    ] {
        let added = with(&[("action-1", kind), ("of-1", of)]).unwrap();
        let fields = added.fields();
        assert_eq!((fields.text("action-1"), fields.text("of-1")), (kind, of));
    }

    round(&schedule());
    // A rule that has come to its end does not stand in the way of other changes.
    let over = serde_json::json!({ "text": "DTSTART:20200101T000000Z RDATE:20200101T000000Z", "lines": ["DTSTART:20200101T000000Z", "RDATE:20200101T000000Z"] });
    let over = Schedule { recurrence: serde_json::from_value(over).unwrap(), ..schedule() };
    assert!(!edit(&over, &[("enabled", "no")]).unwrap().enabled);
    // What the server keeps in it is no change.
    assert_eq!(version(&schedule()), version(&Schedule { handled: Timestamp(99), ahead: None, ..schedule() }));
    assert_ne!(version(&schedule()), version(&Schedule { enabled: false, ..schedule() }));
}

fn policy() -> Policy {
    let matching = |client: &str, label: &str| Scope::Configs { client: client.into(), label: label.into() };
    Policy {
        name: "standard".parse().unwrap(),
        description: "für alle".into(),
        within: Some("2d".parse().unwrap()),
        keep: [(Period::Daily, Count::Number(7)), (Period::Weekly, Count::Number(0)), (Period::Yearly, Count::All)].into(),
        minimum: 3,
        zone: "Europe/Berlin".parse().unwrap(),
        most_per_day: 48,
        grace_hours: 168,
        applies: vec![matching("a/b", ".*"), Scope::Config { config: "gone1/etc".parse().unwrap() }, matching("web.*", ".*")],
        confirmed: vec![Confirmation { config: None, job: 3, by: "root".into(), at: Timestamp(2) }],
        created: Timestamp(1),
    }
}

#[test]
fn policies() {
    let new = [("name", "long"), ("within", "2w"), ("keep_daily", "30"), ("keep_yearly", "all"), ("keep_weekly", "0")];
    let scopes = [("configs", "web1/etc\nold1/etc"), ("matching", "db.*/data\n web.*")];
    let added: Policy = add(&[new, [scopes[0], scopes[1], ("x", ""), ("x", ""), ("x", "")]].concat()).unwrap();
    assert_eq!(added.keep, [(Period::Daily, Count::Number(30)), (Period::Yearly, Count::All)].into());
    assert_eq!((added.minimum, added.grace_hours, added.zone.to_string()), (3, 168, "Europe/Berlin".to_owned()));
    let applies: Vec<String> = added.applies.iter().map(ToString::to_string).collect();
    assert_eq!(applies, ["web1/etc", "old1/etc", "clients /db.*/ with labels /data/", "clients /web.*/ with labels /.*/"]);
    let with = |more: &[(&str, &str)]| add::<Policy>(&[&new[..], more].concat());
    assert!(only(with(&[("within", "two weeks")]), "within").contains("is no interval"));
    assert!(only(with(&[("keep_monthly", "many")]), "keep_monthly").contains("no number of archives"));
    assert!(only(with(&[("keep_monthly", "-2")]), "keep_monthly").contains("no number of archives"));
    assert!(only(with(&[("zone", "Mars/Olympus")]), "zone").contains("is no time zone"));
    assert!(only(with(&[("zone", "")]), "zone").contains("it is empty"));
    assert!(only(with(&[("minimum", "")]), "minimum").contains("it is empty"));
    assert!(only(with(&[("grace_hours", "99999")]), "grace_hours").contains("at most 366 days"));
    assert!(only(with(&[("grace_hours", "23")]), "grace_hours").contains("at least 24 hours"));
    let short = Policy { grace_hours: 2, ..policy() };
    assert!(edit(&short, &[("description", "x")]).is_ok() && edit(&short, &[("grace_hours", "1")]).is_err());
    assert!(only(with(&[("most_per_day", "0")]), "most_per_day").contains("at least 1"));
    assert!(only(with(&[("configs", "web1/nothing")]), "configs").contains("there is no backup config web1/nothing"));
    assert!(only(with(&[("configs", "web1")]), "configs").contains("CLIENT/LABEL"));
    assert!(only(with(&[("matching", "(/.*")]), "matching").contains("no usable regular expression"));
    assert!(only(with(&[("matching", &"a.*\n".repeat(201))]), "matching").contains("at most 200"));
    assert!(only(with(&[("keep_13weekly", "1"), ("keep_3monthly", "1")]), "keep_3monthly").contains("choose one of"));
    assert!(only(add::<Policy>(&[("name", "long")]), "keep_daily").contains("at least one rule"));
    assert!(only(with(&[("description", "a\u{7}b")]), "description").contains("no line breaks"));

    round(&policy());
    // Sorted otherwise is no change, and what somebody confirmed stays.
    assert_eq!(edit(&policy(), &[("configs", "gone1/etc"), ("matching", "web.*/.*\na/b/.*")]).unwrap(), policy());
    let changed = edit(&policy(), &[("keep_daily", "14"), ("keep_yearly", "")]).unwrap();
    assert_eq!(changed.keep, [(Period::Daily, Count::Number(14)), (Period::Weekly, Count::Number(0))].into());
    assert_eq!(changed.confirmed, policy().confirmed);
    assert_eq!(policy().decides(Some(&policy())), None);
    let seen = changed.decides(Some(&policy())).unwrap();
    assert_ne!(policy().decides(None).unwrap(), seen);
    assert_eq!(Policy { description: "other".into(), ..policy() }.decides(Some(&policy())), None);
}

#[test]
fn check_configs() {
    let added: CheckConfig = add(&[("name", "monthly"), ("data", "yes"), ("promise_hours", "720")]).unwrap();
    assert_eq!(added.repositories, Repositories::Matching(".*".into()));
    assert_eq!((added.plan.data, added.plan.promise_hours, added.plan.skip_hours, added.plan.seconds), (true, 720, 168, None));
    let with = |more: &[(&str, &str)]| add::<CheckConfig>(&[&[("name", "monthly")], more].concat());
    assert_eq!(with(&[("repository", "main")]).unwrap().repositories, Repositories::Named("main".parse().unwrap()));
    assert!(only(with(&[("repository", "none")]), "repository").contains("there is no repository none"));
    assert!(only(with(&[("repository", "")]), "repository").contains("choose"));
    assert!(only(with(&[("matching", "(")]), "matching").contains("no usable regular expression"));
    assert!(only(with(&[("matching", "")]), "matching").contains("it is empty"));
    assert!(only(with(&[("structure", "no"), ("archives", "no")]), "structure").contains("at least one of"));
    assert!(only(with(&[("promise_hours", "0")]), "promise_hours").contains("at least an hour"));
    assert!(only(with(&[("skip_hours", "336")]), "skip_hours").contains("shorter time"));
    assert!(only(with(&[("seconds", "0")]), "seconds").contains("at least a second"));
    round(&added);
    round(&CheckConfig { repositories: Repositories::Named("gone".parse().unwrap()), ..added });
}

/// Who has not read the documentation has a line of help beside every field that is not one of many like it.
#[test]
fn every_field_has_a_line_of_help() {
    for description in descriptions() {
        for field in description.fields.iter().filter(|field| field.control != Control::Fixed) {
            let is_of_many = ["keep_", "action-", "of-"].iter().any(|start| field.name.starts_with(start));
            assert!(is_of_many || !field.hint.is_empty(), "{}: {}", description.act, field.name);
            assert_eq!(field.described_by(), if field.hint.is_empty() { String::new() } else { format!("f-{}-hint", field.name) });
        }
    }
}

#[test]
fn addresses_of_forms() {
    let of = |path: &str| Target::of_path(&path.split('/').collect::<Vec<_>>()).map(|target| (target.act(), target.name));
    let some = |act: &str, name: &str| Some((act.to_owned(), name.to_owned()));
    assert_eq!(of("clients/new"), some("add-client", ""));
    assert_eq!(of("clients/web1/edit"), some("edit-client", "web1"));
    assert_eq!(of("clients/web1/configs/new"), some("add-config", "web1"));
    assert_eq!(of("clients/web1/configs/etc/remove"), some("remove-config", "web1/etc"));
    assert_eq!(of("policies/standard/edit"), some("edit-policy", "standard"));
    assert_eq!(of("check-configs/weekly/remove"), some("remove-check-config", "weekly"));
    for none in ["clients", "clients/web1", "jobs/new", "clients/web1/configs/etc", "clients/web1/x", "repositories/new"] {
        assert_eq!(of(none), None, "{none}");
    }
    let sent = typed(&[("record", "web1/etc"), ("client", "db1")]);
    for (act, name) in [("edit-config", "web1/etc"), ("add-config", "db1"), ("add-policy", ""), ("remove-check-config", "web1/etc")] {
        let target = Target::of_act(act, &sent).unwrap();
        assert_eq!((target.act().as_str(), target.name.as_str()), (act, name));
    }
    assert_eq!(Target::of_act("run-config", &sent), None);
    assert!(Errors::of_all("x").of(WHOLE).is_some());
}

#[test]
fn what_programs_send_is_the_same() {
    let form =
        Typed::of_form(b"name=all&paths=%2Fetc%0D%0A%2Fsrv+a&one_file_system=no&one_file_system=yes&checkpoint_interval=60&compression=");
    let json = br#"{"name": "all", "paths": ["/etc", "/srv a"], "one_file_system": true, "checkpoint_interval": 60, "compression": null}"#;
    let json = Typed::of_json(json).unwrap();
    let read = |typed: &Typed| {
        BackupConfig::read(&BackupConfig::blank(&known(), "web1").with("repository", "main").overlaid(typed), None, &known())
    };
    assert_eq!(read(&form).unwrap(), read(&json).unwrap());
    assert_eq!(read(&json).unwrap().paths, ["/etc", "/srv a"]);
    for bad in [&b""[..], b"[]", b"x", br#"{"a": {}}"#, br#"{"a": [[]]}"#] {
        assert!(Typed::of_json(bad).is_err());
    }
    // What is not sent is as it is; what is sent empty is empty.
    let described = Client { description: "old".into(), ..client() };
    assert_eq!(edit(&described, &[("borg_binary", "never")]).unwrap(), described);
    assert_eq!(edit(&described, &[("description", "")]).unwrap().description, "");
}
