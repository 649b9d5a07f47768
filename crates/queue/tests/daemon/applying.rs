//! The configuration as a whole: all of it or nothing, what was planned or nothing.

use crate::harness::{Daemon, client, repository};
use model::declarative::{self, Change, Plan};
use model::{JobState, Timestamp};
use serde_json::{Value, json};
use std::time::Instant;
use wire::control::{Applied, Configured, ControlError, ErrorKind};

impl Daemon {
    fn configured(&self) -> Configured {
        self.call("GetConfiguration", json!({})).unwrap()
    }

    fn export(&self) -> String {
        declarative::export(&self.configured().configuration)
    }

    fn planned(&self, text: &str, remove_missing: bool) -> (u64, Plan) {
        let Configured { transaction, configuration, archived } = self.configured();
        let document = declarative::parse(text, Timestamp::now(), &configuration).unwrap();
        (transaction, declarative::plan(&configuration, &archived, &document, remove_missing).unwrap())
    }

    fn apply(&self, base: u64, plan: &Plan) -> Result<Applied, ControlError> {
        assert_eq!(plan.obstacles, []);
        let changes: Vec<&Change> = plan.changes.iter().map(|step| &step.change).collect();
        self.call("ApplyConfiguration", json!({"base": base, "changes": changes, "note": "from git"}))
    }

    fn applied(&self, text: &str, remove_missing: bool) -> u64 {
        let (base, plan) = self.planned(text, remove_missing);
        self.apply(base, &plan).unwrap().transaction
    }

    fn last(&self) -> Value {
        self.ok("GetLog", json!({"limit": 1}))["entries"][0].clone()
    }
}

/// One of everything, but for the repository.
const MANY: &str = r#"
[settings]
per_client = 2

[client.web1]
local = true
blackouts = ["mon-fri 08:00-18:00 Europe/Berlin"]

[client."web2.example.net"]
remote = "root@web2"
server = "borgcube-ssh@backup"
key = "permanent"
keys = [{ key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAnmQmN4lK8duDoJxm9IH8aVZbT1qzXDA6Uqf4aXDRSj", from = "192.0.2.0/24" }]

[config."web1/etc"]
repository = "main"
paths = ["/hold"]

[config."web2.example.net/all"]
repository = "main"
paths = ["/"]
excludes = ["re:\\.cache$"]
one_file_system = true
compression = "zstd,3"

[policy.standard]
keep = { daily = 7, weekly = 4, yearly = "all" }
applies = [{ kind = "config", config = "web1/etc" }, { kind = "configs", client = "web2.*", label = ".*" }]

[check-config.quick]
matching = ".*"
promise_hours = 240
skip_hours = 120
seconds = 1800

[check-config.deep]
repository = "main"
description = "everything"
data = true

[schedule.first]
recurrence = "daily 02:30 Europe/Berlin"
actions = [{ kind = "run-config", config = "web1/etc" }, { kind = "enable-schedule", schedule = "second" }]

[schedule.second]
recurrence = "weekly sat 20:00 UTC"
enabled = false
actions = [{ kind = "prune", policy = "standard" }, { kind = "check-by", config = "quick" }, { kind = "disable-schedule", schedule = "first" }]

[[trigger]]
target = { kind = "schedule", schedule = "first" }
access = "local-cli"
comment = "the deployment"

[[trigger]]
target = { kind = "config", config = "web1/etc" }
access = "local-cli"
"#;

fn file(daemon: &Daemon, more: &str) -> String {
    let repository = daemon.export();
    let repository = repository.split("[repository.main]").nth(1).unwrap().split("\n\n").next().unwrap();
    format!("format = 1\n[repository.main]\n{repository}\n{more}")
}

#[test]
fn what_is_exported_here_is_the_same_on_an_empty_server() {
    let here = Daemon::start();
    here.repository("main");
    let before = here.export();
    let transaction = here.applied(&file(&here, MANY), false);
    let last = here.last();
    assert_eq!((last["transaction"].as_u64(), last["actor"].as_str()), (Some(transaction), Some("root")));
    assert_eq!(last["note"], "apply configuration (11 added, 1 changed, 0 removed): from git");
    let text = here.export();
    // Nothing to do the second time, and nothing is done.
    let (base, plan) = here.planned(&text, true);
    assert!(plan.is_empty(), "{plan:#?}");
    assert_eq!(here.apply(base, &plan).unwrap().transaction, 0);
    assert_eq!(here.last()["transaction"].as_u64(), Some(transaction));

    let there = Daemon::start();
    there.repository("main");
    there.applied(&text, true);
    assert_eq!(there.export(), text);
    // No secret of either is in it.
    for daemon in [&here, &there] {
        let id = daemon.ok("ListTriggers", json!({}))["triggers"][0]["id"].as_str().unwrap().to_owned();
        assert!(id.len() == 32 && id != "0".repeat(32) && !text.contains(&id[..8]));
    }
    // What is not in the file has its default, and the single commands see the same.
    let checks = there.ok("ListCheckConfigs", json!({}))["configs"].clone();
    assert_eq!((&checks[0]["name"], &checks[0]["repositories"]), (&json!("deep"), &json!({"named": "main"})));
    assert_eq!(
        [&checks[0]["structure"], &checks[0]["archives"], &checks[0]["data"], &checks[0]["promise_hours"], &checks[0]["skip_hours"]],
        [&json!(true), &json!(true), &json!(true), &json!(336), &json!(0)]
    );
    assert_eq!((&checks[1]["name"], &checks[1]["seconds"]), (&json!("quick"), &json!(1800)));
    assert!(checks[0]["created"].as_i64() > Some(0));
    // The keys of clients are where sshd asks for them.
    let keys = std::fs::read_dir(there.state.join("keys")).unwrap().count();
    assert_eq!(keys, 1);

    // One transaction, so one undo.
    here.ok("Undo", json!({"transaction": transaction}));
    assert_eq!(here.export(), before);
    assert_eq!(here.ok("ListTriggers", json!({}))["triggers"], json!([]));
}

#[test]
fn all_or_nothing() {
    let daemon = Daemon::start();
    daemon.repository("main");
    let (base, plan) = daemon.planned(&file(&daemon, MANY), false);
    let (before, log) = (daemon.export(), daemon.last());
    // The last of many is refused, by what it is or by what it needs.
    let mut wrong: Vec<Value> = plan.changes.iter().map(|step| serde_json::to_value(&step.change).unwrap()).collect();
    let last = wrong.len() - 1;
    for (target, kind, said) in [
        (json!({"kind": "config", "config": "web9/etc"}), ErrorKind::NotFound, "there is no config web9/etc"),
        (json!({"kind": "schedule", "schedule": "third"}), ErrorKind::NotFound, "there is no schedule third"),
    ] {
        wrong[last]["put"]["record"]["target"] = target;
        let (found, message) = daemon.fails("ApplyConfiguration", json!({"base": base, "changes": wrong}));
        assert_eq!(found, kind);
        assert!(message.contains(said) && message.contains("nothing was changed"), "{message}");
    }
    wrong[last]["put"]["record"]["comment"] = "two\nlines".into();
    let (_, message) = daemon.fails("ApplyConfiguration", json!({"base": base, "changes": wrong}));
    assert!(message.contains("no line breaks"), "{message}");
    assert_eq!((daemon.export(), daemon.last()), (before, log));

    // The rules of the single commands, whoever writes the changes.
    let refused = |change: Value, said: &str| {
        let (_, message) = daemon.fails("ApplyConfiguration", json!({"base": base, "changes": [change]}));
        assert!(message.contains(said), "{message}");
    };
    let record = |kind: &str, record: Value| json!({"put": {"kind": kind, "record": record}});
    let mut other = repository("main");
    other.repository_id = "ab".repeat(32);
    refused(record("repository", json!(other)), "another repository id");
    let mut moved = repository("main");
    moved.url = "/mnt/elsewhere".into();
    refused(record("repository", json!(moved)), "borgcube repository edit main");
    refused(record("repository", json!(repository("new"))), "borgcube repository add new");
    refused(json!({"remove": {"kind": "repository", "record": repository("main")}}), "borgcube repository remove main");
    let mut odd = client("odd");
    odd.description = "a\nb".into();
    refused(record("client", json!(odd)), "a description is one line");
    let check = |name: &str, more: Value| {
        let mut config = json!({"name": name, "repositories": {"matching": ".*"}, "structure": true, "archives": false, "data": false,
                                "promise_hours": 24, "created": 0});
        more.as_object().unwrap().iter().for_each(|(field, value)| config[field] = value.clone());
        record("check-config", config)
    };
    refused(check("c", json!({"structure": false})), "check-config c: a check config checks at least one of");
    refused(check("c", json!({"skip_hours": 24})), "cannot be checked every 1 day");
    refused(check("c", json!({"repositories": {"named": "other"}})), "there is no repository other");
    let settings = daemon.ok("GetSettings", json!({}))["settings"].clone();
    refused(json!({"remove": {"kind": "settings", "record": settings}}), "cannot be without settings");
}

#[test]
fn a_change_in_between_makes_it_another_plan() {
    let daemon = Daemon::start();
    daemon.repository("main");
    daemon.applied(&file(&daemon, MANY), false);
    let text = daemon.export().replace("/hold", "/well");
    let (base, plan) = daemon.planned(&text, false);
    // Something else entirely, by somebody else.
    daemon.client("web3");
    let error = daemon.apply(base, &plan).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains("was changed since the plan was made") && error.message.contains("root: add client web3"), "{error}");
    assert!(daemon.export().contains("/hold"));
    // What was taken back is no change, nor is what nobody set: when a trigger was used.
    let number = daemon.last()["transaction"].as_u64().unwrap();
    daemon.ok("Undo", json!({"transaction": number}));
    let triggers = daemon.ok("ListTriggers", json!({}))["triggers"].clone();
    let trigger = triggers.as_array().unwrap().iter().find(|trigger| trigger["target"]["kind"] == "config").unwrap();
    daemon.ok("FireTrigger", json!({"id": trigger["id"], "context": "local-cli"}));
    daemon.apply(base, &plan).unwrap();
    assert_eq!(daemon.export(), text);
    // A schedule that disables another one changes what people see.
    let (base, plan) = daemon.planned(&text.replace("/well", "/talk"), false);
    daemon.ok("RunSchedule", json!({"name": "second"}));
    let error = daemon.apply(base, &plan).unwrap_err();
    assert!(error.message.contains("by transaction") && error.message.contains("run schedule second"), "{error}");
    let error = daemon.call::<Value>("ApplyConfiguration", json!({"base": 9999, "changes": []})).unwrap_err();
    assert!(error.message.contains("9999"), "{error}");
}

#[test]
fn what_runs_goes_on_and_what_it_needs_stays() {
    let daemon = Daemon::start();
    daemon.repository("main");
    daemon.applied(&file(&daemon, MANY), false);
    let job = daemon.run("web1/etc");
    daemon.reaches(job, JobState::ClientInProgress);
    // Of what it uses something may change, but nothing may go.
    daemon.applied(&daemon.export().replace("paths = [\"/hold\"]", "paths = [\"/hold\", \"/more\"]"), false);
    let nothing = file(&daemon, "");
    let (base, plan) = daemon.planned(&nothing, true);
    let error = daemon.apply(base, &plan).unwrap_err();
    assert!(error.message.contains(&format!("is used by job {job}")), "{error}");
    assert!(daemon.export().contains("/more"));
    daemon.go(job);
    daemon.reaches(job, JobState::Done);
    let (base, plan) = daemon.planned(&nothing, true);
    let removed = daemon.apply(base, &plan).unwrap().transaction;
    assert_eq!(daemon.export().matches("\n[").count(), 2, "{}", daemon.export());
    daemon.ok("Undo", json!({"transaction": removed}));
    assert!(daemon.export().contains("/more"));
}

#[test]
fn a_check_config_goes_with_or_after_the_schedules_that_check_by_it() {
    let daemon = Daemon::start();
    daemon.repository("main");
    daemon.applied(&file(&daemon, MANY), false);
    let created = daemon.ok("ListCheckConfigs", json!({}))["configs"][1]["created"].clone();
    let (base, plan) = daemon.planned(&file(&daemon, ""), true);
    let removal = plan.changes.iter().find(|step| step.kind == declarative::Kind::CheckConfig && step.name == "quick").unwrap();
    let (kind, message) = daemon.fails("ApplyConfiguration", json!({"base": base, "changes": [removal.change]}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("check-config quick: schedule second checks by config quick"), "{message}");
    // A change by the single command makes it another plan; what it says is what the file says.
    let mut config = daemon.ok("ListCheckConfigs", json!({}))["configs"][1].clone();
    let previous = config.clone();
    config["seconds"] = json!(60);
    let before = daemon.export();
    daemon.ok("UpdateCheckConfig", json!({"previous": previous, "config": config}));
    let error = daemon.apply(base, &plan).unwrap_err();
    assert!(error.message.contains("change check config quick"), "{error}");
    assert_eq!(daemon.export(), before.replace("seconds = 1800", "seconds = 60"));
    let repository = "repository = \"main\"\npromise_hours = 240";
    daemon.applied(&before.replace("matching = \".*\"\npromise_hours = 240", repository), false);
    let config = daemon.ok("ListCheckConfigs", json!({}))["configs"][1].clone();
    assert_eq!(
        config,
        json!({"repositories": {"named": "main"}, "created": created, "name": "quick", "description": "", "structure": true,
        "archives": true, "data": false, "skip_hours": 120, "seconds": 1800, "promise_hours": 240})
    );
    // With its schedule it goes in one, whichever way round.
    daemon.applied(&file(&daemon, ""), true);
    assert_eq!(daemon.ok("ListCheckConfigs", json!({}))["configs"], json!([]));
}

/// Timers follow, and it is quick enough for a person who waits.
#[test]
fn a_thousand_configs_at_once() {
    let daemon = Daemon::start();
    daemon.repository("main");
    let mut text = String::new();
    for number in 0..500 {
        text.push_str(&format!("[client.host{number}]\nremote = \"root@host{number}\"\nserver = \"borgcube-ssh@backup\"\n"));
        for label in ["system", "data"] {
            text.push_str(&format!(
                "[config.\"host{number}/{label}\"]\nrepository = \"main\"\npaths = [\"/{label}\"]\nexcludes = [\"*.tmp\", \"sh:**/cache\"]\n"
            ));
        }
    }
    let text = file(&daemon, &text);
    let begin = Instant::now();
    let (base, plan) = daemon.planned(&text, false);
    let planned = begin.elapsed();
    assert_eq!(plan.changes.len(), 1500);
    let begin = Instant::now();
    daemon.apply(base, &plan).unwrap();
    println!("500 clients with 1000 configs: planned in {planned:?}, applied in {:?}", begin.elapsed());
    assert!(daemon.planned(&text, true).1.is_empty());
}
