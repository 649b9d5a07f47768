//! What can be done from the pages and over the API: one table.
//!
//! `POST /do/NAME` takes a form and answers with the page it came from, `POST /api/v1/do/NAME` takes the same fields as JSON. What becomes of them
//! is a call that `borgcubed` judges by itself; the roles here only say who sees a button.

use crate::query::{Unanswered, whole_number};
use model::restore_test::{RestoreTest, TestedArchive};
use model::web_user::Role;
use model::{ConfigName, Schedule, Work};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use store::{ArchiveKey, Read};
use wire::control::{ArchiveRef, Call};

/// Fields of one act at most.
const MAX_FIELDS: usize = 20_000;

/// What kind of value a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`; a checkbox that is not there is `false`.
    Switch,
    /// Several texts.
    Texts,
}

/// A field of an act.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// It has to be there.
    pub required: bool,
    /// What it means.
    pub about: &'static str,
}

/// Something that can be done.
pub struct Act {
    /// Its name in addresses.
    pub name: &'static str,
    /// Who sees it. (Who may have it done is decided by borgcubed.)
    pub role: Role,
    /// What it does, for the API's document.
    pub about: &'static str,
    /// What people read when it is done.
    pub said: &'static str,
    /// What it takes.
    pub fields: &'static [Field],
    /// The call that it is.
    pub plan: fn(&Fields, &Read<'_>) -> Result<Call, Unanswered>,
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: true, about }
}

const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, required: false, about }
}

/// Archives, as acts take them.
const ARCHIVES: Field = required("archive", Kind::Texts, "The archives, each as REPOSITORY/ID");
const REPOSITORY: Field = required("repository", Kind::Text, "The repository");
const SCHEDULE: Field = required("schedule", Kind::Text, "The schedule");

/// The table.
pub const ACTS: &[Act] = &[
    Act {
        name: "run-config",
        role: Role::Operator,
        about: "Run a backup config now",
        said: "The backup is queued.",
        fields: &[required("config", Kind::Text, "The config, CLIENT/LABEL")],
        plan: |fields, _| Ok(Call::RunConfig { config: fields.needed("config")?, archive_name: None, retry: false }),
    },
    Act {
        name: "run-schedule",
        role: Role::Operator,
        about: "Do now what a schedule does",
        said: "The schedule's actions are done or queued.",
        fields: &[SCHEDULE],
        plan: |fields, _| Ok(Call::RunSchedule { name: fields.needed("schedule")? }),
    },
    Act {
        name: "enable-schedule",
        role: Role::Operator,
        about: "Let a schedule's occurrences lead to runs",
        said: "The schedule is enabled.",
        fields: &[SCHEDULE],
        plan: |fields, read| switch_schedule(fields, read, true),
    },
    Act {
        name: "disable-schedule",
        role: Role::Operator,
        about: "Have a schedule's occurrences skipped",
        said: "The schedule is disabled.",
        fields: &[SCHEDULE],
        plan: |fields, read| switch_schedule(fields, read, false),
    },
    Act {
        name: "cancel-job",
        role: Role::Operator,
        about: "Cancel a job that waits or runs",
        said: "The job is cancelled, or will be in a moment.",
        fields: &[required("job", Kind::Number, "Its number")],
        plan: |fields, _| Ok(Call::CancelJob { job: fields.number("job")?.ok_or_else(|| missing("job"))? }),
    },
    Act {
        name: "check-repository",
        role: Role::Operator,
        about: "Check a repository",
        said: "The check is queued.",
        fields: &[REPOSITORY, optional("verify_data", Kind::Switch, "Also decrypt each object and recompute its id")],
        plan: |fields, _| maintenance(fields, Work::Check { verify_data: fields.switch("verify_data")?, config: None }),
    },
    Act {
        name: "compact-repository",
        role: Role::Operator,
        about: "Give back the space of what was deleted in a repository",
        said: "The compact is queued.",
        fields: &[REPOSITORY],
        plan: |fields, _| maintenance(fields, Work::Compact { threshold: Work::THRESHOLD }),
    },
    Act {
        name: "prune-repository",
        role: Role::Administrator,
        about: "Let the policies decide about a repository's archives, delete what is due, and give the space back",
        said: "The prune is queued.",
        fields: &[REPOSITORY, optional("policy", Kind::Text, "What this policy decides about only")],
        plan: |fields, _| maintenance(fields, Work::Prune { policy: fields.get("policy")?, clients: None, labels: None, compact: true }),
    },
    Act {
        name: "test-restore",
        role: Role::Operator,
        about: "Extract a sample of an archive on the server, and compare it",
        said: "The restore test is queued.",
        fields: &[
            optional("config", Kind::Text, "The newest archive of this config, CLIENT/LABEL"),
            optional("archive", Kind::Text, "This archive, REPOSITORY/ID"),
            optional("live", Kind::Switch, "Compare with what is on the client now"),
        ],
        plan: test_restore,
    },
    Act {
        name: "hold-archives",
        role: Role::Operator,
        about: "Keep archives, whatever policies say",
        said: "Held: nothing and nobody deletes what is held.",
        fields: &[ARCHIVES, optional("reason", Kind::Text, "What for")],
        plan: |fields, _| {
            let reason = fields.text("reason").unwrap_or_default().to_owned();
            Ok(Call::HoldArchives { archives: archives(fields)?, reason })
        },
    },
    Act {
        name: "release-archives",
        role: Role::Administrator,
        about: "Let policies decide about archives again that were held",
        said: "Released: policies decide again.",
        fields: &[ARCHIVES],
        plan: |fields, _| Ok(Call::ReleaseArchives { archives: archives(fields)? }),
    },
    Act {
        name: "delete-archives",
        role: Role::Administrator,
        about: "Delete archives when their grace period is over",
        said: "It is deleted when its grace period is over; until then it can be brought back.",
        fields: &[ARCHIVES, optional("grace_hours", Kind::Number, "Its length, 24 at least; otherwise as the policy says, or a week")],
        plan: |fields, _| Ok(Call::DeleteArchives { archives: archives(fields)?, grace_hours: fields.number("grace_hours")? }),
    },
    Act {
        name: "undelete-archives",
        role: Role::Operator,
        about: "Keep archives that were going to be deleted",
        said: "It stays.",
        fields: &[ARCHIVES, optional("hold", Kind::Switch, "Hold them as well, so that no policy takes them again")],
        plan: |fields, _| Ok(Call::UndeleteArchives { archives: archives(fields)?, hold: fields.switch("hold")? }),
    },
    Act {
        name: "confirm-policy",
        role: Role::Administrator,
        about: "Say that somebody has looked at what stopped a policy, and that it goes on",
        said: "Confirmed: what may have stopped the policy until now stops it no more.",
        fields: &[required("policy", Kind::Text, "The policy"), optional("config", Kind::Text, "For this config only, CLIENT/LABEL")],
        plan: |fields, _| Ok(Call::ConfirmPolicy { name: fields.needed("policy")?, config: fields.get("config")? }),
    },
];

fn missing(field: &str) -> Unanswered {
    Unanswered::BadRequest(format!("the field {field} is missing"))
}

fn switch_schedule(fields: &Fields, read: &Read<'_>, enabled: bool) -> Result<Call, Unanswered> {
    let previous = read.schedules().require(&fields.needed("schedule")?)?;
    let schedule = Schedule { enabled, ..previous.clone() };
    Ok(Call::UpdateSchedule { previous: Box::new(previous), schedule: Box::new(schedule) })
}

fn maintenance(fields: &Fields, work: Work) -> Result<Call, Unanswered> {
    Ok(Call::RunMaintenance { repository: fields.needed("repository")?, work, retry: false })
}

fn archive(text: &str) -> Result<ArchiveRef, Unanswered> {
    let found =
        text.rsplit_once('/').and_then(|(repository, id)| Some(ArchiveRef { repository: repository.parse().ok()?, id: id.to_owned() }));
    found.ok_or_else(|| Unanswered::BadRequest(format!("archive: {text:?} is not REPOSITORY/ID")))
}

fn archives(fields: &Fields) -> Result<Vec<ArchiveRef>, Unanswered> {
    match fields.all("archive") {
        [] => Err(missing("archive")),
        all => all.iter().map(|text| archive(text)).collect(),
    }
}

fn test_restore(fields: &Fields, read: &Read<'_>) -> Result<Call, Unanswered> {
    let live = fields.switch("live")?;
    if let Some(text) = fields.text("archive") {
        let ArchiveRef { repository, id } = archive(text)?;
        let found = read.archives().require(&ArchiveKey { repository: repository.clone(), id })?;
        let tested = TestedArchive { name: found.name, id: found.id };
        let test = RestoreTest { label: Some(found.label), archive: Some(tested), live, ..RestoreTest::new() };
        return Ok(Call::RunRestoreTest { client: found.client, repository: Some(repository), test: Box::new(test), retry: false });
    }
    let config: ConfigName = fields.needed("config")?;
    let test = RestoreTest { label: Some(config.label), live, ..RestoreTest::new() };
    Ok(Call::RunRestoreTest { client: config.client, repository: None, test: Box::new(test), retry: false })
}

/// The act of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Act> {
    ACTS.iter().find(|act| act.name == name)
}

/// The fields of a body that is JSON.
///
/// # Errors
/// It is something else; the sentence says what is expected, and where it stops being that.
pub fn json_object(body: &[u8]) -> Result<Map<String, Value>, Unanswered> {
    let wrong = |why: String| {
        Err(Unanswered::BadRequest(format!(
            "the body is not what is expected, a JSON object of fields such as {{\"name\": \"value\"}}: {why}"
        )))
    };
    let kind = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(Value::Null) => "null",
        Ok(Value::Bool(_)) => "true or false",
        Ok(Value::Number(_)) => "a number",
        Ok(Value::String(_)) => "a text",
        Ok(Value::Array(_)) => "a list",
        Err(_) if body.trim_ascii().is_empty() => return wrong("it is empty".into()),
        Err(e) if e.is_eof() => return wrong("it breaks off in the middle".into()),
        Err(e) => return wrong(format!("it is no JSON at line {}, character {}", e.line(), e.column())),
    };
    wrong(format!("it is {kind}"))
}

/// A field that has something else in it than fields have.
pub fn no_value(name: &str) -> Unanswered {
    Unanswered::BadRequest(format!("the field {name} is neither a text, a number, true or false, nor a list of such"))
}

/// What somebody sent: texts by name. An empty field is not there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    /// Of a form (`application/x-www-form-urlencoded`).
    pub fn of_form(body: &[u8]) -> Result<Fields, Unanswered> {
        let mut fields = Fields::default();
        for (at, (name, value)) in form_urlencoded::parse(body).enumerate() {
            if at >= MAX_FIELDS {
                return Err(Unanswered::TooLarge(format!("a form has at most {MAX_FIELDS} fields")));
            }
            fields.add(name.into_owned(), value.into_owned());
        }
        Ok(fields)
    }

    /// Of a JSON object of texts, numbers, `true` and `false`, and lists of them.
    pub fn of_json(body: &[u8]) -> Result<Fields, Unanswered> {
        let mut fields = Fields::default();
        let mut number = 0;
        for (name, value) in json_object(body)? {
            let values = match value {
                Value::Array(values) => values,
                value => vec![value],
            };
            for value in values {
                number += 1;
                if number > MAX_FIELDS {
                    return Err(Unanswered::TooLarge(format!("there are at most {MAX_FIELDS} values")));
                }
                let text = match value {
                    Value::Null => continue,
                    Value::String(text) => text,
                    Value::Bool(_) | Value::Number(_) => value.to_string(),
                    Value::Array(_) | Value::Object(_) => {
                        return Err(no_value(&name));
                    }
                };
                fields.add(name.clone(), text);
            }
        }
        Ok(fields)
    }

    fn add(&mut self, name: String, value: String) {
        if !value.is_empty() {
            self.0.entry(name).or_default().push(value);
        }
    }

    /// A field as it came; of several the last.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.last().map(String::as_str)
    }

    /// All values of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// A field as what it should be.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Unanswered> {
        self.text(name).map(|text| text.parse().map_err(|e| Unanswered::BadRequest(format!("{name}: {e}")))).transpose()
    }

    /// A field that has to be there.
    pub fn needed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Unanswered> {
        self.get(name)?.ok_or_else(|| missing(name))
    }

    /// A field that is a whole number.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Unanswered> {
        self.text(name).map(|text| whole_number(name, text)).transpose()
    }

    /// A checkbox, or `true`. What is neither on nor off is an error: nobody knows what was meant.
    pub fn switch(&self, name: &str) -> Result<bool, Unanswered> {
        match self.text(name) {
            None | Some("false" | "0" | "off" | "no") => Ok(false),
            Some("true" | "1" | "on" | "yes") => Ok(true),
            Some(other) => Err(Unanswered::BadRequest(format!("{name} is true or false, not {other:?}"))),
        }
    }
}

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outcome {
    /// The act's name.
    pub act: String,
    /// What was done, as a sentence.
    pub said: String,
    /// Jobs that were created.
    pub jobs: Vec<u64>,
    /// What a person should know about it all the same.
    pub warnings: Vec<String>,
}

impl Outcome {
    /// Of the answer of borgcubed, whichever call it was.
    #[must_use]
    pub fn of(act: &Act, reply: &Value) -> Outcome {
        let list = |name: &str| reply.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let jobs = reply.get("job").into_iter().chain(list("jobs")).filter_map(Value::as_u64).collect();
        let texts = list("done").iter().chain(list("warnings")).filter_map(Value::as_str).map(str::to_owned);
        let left_out = list("left_out").iter().filter_map(|part| {
            let reason = part.get("reason")?.as_str()?.replace('-', " ");
            Some(format!("{} left out: {reason}", part.get("what")?.as_str()?))
        });
        Outcome { act: act.name.into(), said: act.said.into(), jobs, warnings: texts.chain(left_out).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_json_are_the_same_fields() {
        let form = Fields::of_form(b"config=web1%2Fetc&empty=&many=a&many=b&on=on").unwrap();
        assert_eq!(form.text("config"), Some("web1/etc"));
        assert_eq!(
            (form.text("empty"), form.all("many"), form.switch("on").unwrap(), form.switch("x").unwrap()),
            (None, &["a".into(), "b".into()][..], true, false)
        );
        let json = Fields::of_json(br#"{"config": "web1/etc", "empty": null, "many": ["a", "b"], "on": "on"}"#).unwrap();
        assert_eq!(json, form);
        assert!(!Fields::of_json(br#"{"on": false}"#).unwrap().switch("on").unwrap());
        assert!(Fields::of_json(br#"{"on": "maybe"}"#).unwrap().switch("on").is_err());
        for (bad, said) in [
            (&b"[]"[..], "it is a list"),
            (b"", "it is empty"),
            (b"x", "it is no JSON at line 1, character 1"),
            (br#"{"a": "#, "it breaks off in the middle"),
            (br#"{"a": {}}"#, "the field a is neither a text"),
            (br#"{"a": [[]]}"#, "the field a is neither a text"),
        ] {
            let error = Fields::of_json(bad).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("expected value"), "{error}");
        }
        let wrong = Fields::of_json(br#"{"job": "x"}"#).unwrap().number::<u64>("job").unwrap_err().to_string();
        assert_eq!(wrong, "job: \"x\" is no whole number, or far too great a one");
        let many = "a=1&".repeat(MAX_FIELDS + 1);
        assert!(matches!(Fields::of_form(many.as_bytes()), Err(Unanswered::TooLarge(_))));
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = ACTS.iter().map(|act| act.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ACTS.len());
    }
}
