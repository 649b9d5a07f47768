//! Records as forms: what somebody typed becomes a record, or sentences beside its fields; a record becomes what is in its fields.
//!
//! The types of `model` decide what is right; here is only which sentence belongs to which field. Nothing that was typed is lost by a refusal.
//!
//! *Is not*: able to change what makes a client or this server run a command. Hooks, dumps, SSH commands and programs are on no form, and are
//! as they were in the record that a form makes.

mod check_config;
mod client;
mod config;
mod page;
mod policy;
mod schedule;
mod typed;

pub use page::{
    Description, FormPage, Kind, Prepared, Question, Target, Verb, Wrong, descriptions, first, is_there, prepare, refused, unknown_field,
    wrong_switch,
};
pub use typed::{Errors, Typed};

use crate::query::Unanswered;
use crate::view::{ChangedGroup, Context};
use model::{CheckName, ClientName, ConfigName, PolicyName, RepositoryName, ScheduleName, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use store::Read;
use wire::control::Call;

/// What there is already: names that are taken, and names that fields may have in them.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Clients.
    pub clients: BTreeSet<ClientName>,
    /// Backup configs.
    pub configs: BTreeSet<ConfigName>,
    /// Configs that may be gone, and have archives.
    pub archived: BTreeSet<ConfigName>,
    /// Repositories.
    pub repositories: BTreeSet<RepositoryName>,
    /// Schedules.
    pub schedules: BTreeSet<ScheduleName>,
    /// Retention policies.
    pub policies: BTreeSet<PolicyName>,
    /// Check configs.
    pub check_configs: BTreeSet<CheckName>,
    /// The server's time zone; nothing: it does not say.
    pub zone: String,
    /// The server is an installed one: its sshd asks for keys, and no client is the machine itself.
    pub installed: bool,
    /// The present moment.
    pub now: Timestamp,
}

impl Known {
    /// What a database has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(read: &Read<'_>, installed: bool, now: Timestamp) -> store::Result<Known> {
        let system = jiff::tz::TimeZone::system();
        let zone = system.iana_name().unwrap_or(if system == jiff::tz::TimeZone::UTC { "UTC" } else { "" });
        let mut archived = BTreeSet::new();
        while let Some(config) = read.archives().config_behind(archived.last())? {
            archived.insert(config);
        }
        Ok(Known {
            archived,
            clients: read.clients().list()?.into_iter().map(|client| client.name).collect(),
            configs: read.configs().list()?.iter().map(model::BackupConfig::name).collect(),
            repositories: read.repositories().list()?.into_iter().map(|repository| repository.name).collect(),
            schedules: read.schedules().list()?.into_iter().map(|schedule| schedule.name).collect(),
            policies: read.policies().list()?.into_iter().map(|policy| policy.name).collect(),
            check_configs: read.check_configs().list()?.into_iter().map(|config| config.name).collect(),
            zone: zone.to_owned(),
            installed,
            now,
        })
    }
}

/// A kind of record that has a form.
pub trait Formed: Sized + Clone + PartialEq + Serialize {
    /// What it is called, in a sentence.
    const WHAT: &'static str;
    /// The command that has what is on no form, if something is on none: `borgcube client edit`.
    const REST: Option<&'static str>;

    /// The fields of a new one. `of`: the client that a config is of.
    fn blank(known: &Known, of: &str) -> Typed;
    /// The fields of this one.
    fn fields(&self) -> Typed;
    /// Reads fields. Of `before`, the record that is changed, stays what is on no form, and what was typed as it was.
    ///
    /// # Errors
    /// A sentence for each field that is wrong.
    fn read(typed: &Typed, before: Option<&Self>, known: &Known) -> Result<Self, Errors>;
    /// The form, without what is in it.
    fn sections(typed: &Typed, before: Option<&Self>, known: &Known) -> Vec<Section>;

    /// The stored record of that name.
    ///
    /// # Errors
    /// The database cannot be read.
    fn find(read: &Read<'_>, name: &str) -> store::Result<Option<Self>>;
    /// Its name as in addresses: `CLIENT/LABEL` of a config.
    fn name(&self) -> String;
    /// The page that shows it.
    fn page(&self) -> String;
    /// Where its pages begin: `/clients/web1`.
    fn place(&self) -> String;
    /// The call that adds it.
    fn add(self) -> Call;
    /// The call that puts it in the place of `previous`.
    fn update(self, previous: Self) -> Call;
    /// The call that removes it.
    fn remove(&self) -> Call;
    /// What a person should know before it is removed.
    fn farewell(&self) -> &'static str;
    /// Something that tells what it would do from what another one would, where that is shown before it is stored. None: nothing to show.
    fn decides(&self, _before: Option<&Self>) -> Option<String> {
        None
    }
    /// What it would do that `before` does not.
    ///
    /// # Errors
    /// The database cannot be read.
    fn preview(&self, _c: &Context<'_>, _before: Option<&Self>) -> Result<Vec<ChangedGroup>, Unanswered> {
        Ok(vec![])
    }
    /// What a person should know about it although it is right.
    fn warnings(&self) -> Vec<String> {
        vec![]
    }
    /// It as far as people change it; what the server itself keeps in it does not count.
    fn settled(&self) -> Self {
        self.clone()
    }
}

/// The record that is changed, if this field is as it was: then what it has stays as it is, whatever a field makes of it.
fn kept<'a, T: Formed>(typed: &Typed, before: Option<&'a T>, field: &str) -> Option<&'a T> {
    before.filter(|before| before.fields().raw(field) == typed.raw(field))
}

/// Tells a record from the same record after a change: 64 hex digits.
#[must_use]
pub fn version<T: Formed>(record: &T) -> String {
    let bytes = serde_json::to_vec(&record.settled()).unwrap_or_default();
    hex(&Sha256::digest(bytes))
}

/// The form for a new config of a client.
#[must_use]
pub fn config_form(client: &str) -> String {
    format!("/clients/{client}/configs/new")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fields that belong together.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Section {
    /// What they have in common; nothing: they stand by themselves.
    pub legend: String,
    /// They are short, and go next to each other.
    #[serde(skip)]
    #[schemars(skip)]
    pub row: bool,
    /// The fields.
    pub fields: Vec<Field>,
}

impl Section {
    fn new(legend: &str, fields: Vec<Field>) -> Section {
        Section { legend: legend.to_owned(), row: false, fields }
    }

    fn row(legend: &str, fields: Vec<Field>) -> Section {
        Section { row: true, ..Section::new(legend, fields) }
    }
}

/// A field of a form.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Field {
    /// Its name, as it is sent.
    pub name: String,
    /// What people call it.
    pub label: String,
    /// What to type.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// What is in it.
    pub value: String,
    /// What is wrong with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is stored, where the record was changed since the form was filled and this is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// It cannot be left empty.
    pub required: bool,
    /// What it looks like.
    pub control: Control,
}

/// What a field looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// One line. With the names that it is likely to have.
    Line(Vec<String>),
    /// A whole number.
    Number,
    /// One thing per line.
    Lines,
    /// `yes` or `no`.
    Switch,
    /// One of these; the word that is sent, and what people read.
    Choice(Vec<(String, String)>),
    /// It is as it is.
    #[default]
    Fixed,
}

impl Field {
    fn new(name: &str, label: &str, control: Control, hint: &str) -> Field {
        Field { name: name.to_owned(), label: label.to_owned(), hint: hint.to_owned(), control, ..Field::default() }
    }

    fn line(name: &str, label: &str, hint: &str) -> Field {
        Field::new(name, label, Control::Line(vec![]), hint)
    }

    fn suggesting(name: &str, label: &str, suggestions: Vec<String>, hint: &str) -> Field {
        Field::new(name, label, Control::Line(suggestions), hint)
    }

    fn lines(name: &str, label: &str, hint: &str) -> Field {
        Field::new(name, label, Control::Lines, hint)
    }

    fn number(name: &str, label: &str, hint: &str) -> Field {
        Field::new(name, label, Control::Number, hint)
    }

    fn switch(name: &str, label: &str, hint: &str) -> Field {
        Field::new(name, label, Control::Switch, hint)
    }

    fn choice(name: &str, label: &str, options: &[(&str, &str)], hint: &str) -> Field {
        let options = options.iter().map(|(word, text)| ((*word).to_owned(), (*text).to_owned())).collect();
        Field::new(name, label, Control::Choice(options), hint)
    }

    fn required(self) -> Field {
        Field { required: true, ..self }
    }

    /// The name of a record: given once, never changed.
    fn named(label: &str, is_new: bool) -> Field {
        let hint = "Letters, digits, '.', '_' and '-', at most 64. It cannot be changed later.";
        if is_new { Field::line("name", label, hint).required() } else { Field::new("name", label, Control::Fixed, "") }
    }

    fn description() -> Field {
        Field::line("description", "Description", "A note for people, of one line.")
    }

    /// The address of this field's place on the page.
    #[must_use]
    pub fn id(&self) -> String {
        format!("f-{}", self.name)
    }

    /// What describes it, for assistive technology.
    #[must_use]
    pub fn described_by(&self) -> String {
        let id = self.id();
        let parts = [("error", self.error.is_some()), ("stored", self.stored.is_some()), ("hint", !self.hint.is_empty())];
        parts.into_iter().filter(|(_, is_there)| *is_there).map(|(part, _)| format!("{id}-{part}")).collect::<Vec<_>>().join(" ")
    }

    /// How many lines to show.
    #[must_use]
    pub fn rows(&self) -> usize {
        (self.value.lines().count() + 1).clamp(3, 15)
    }
}

/// What the words of a switch mean to people.
#[must_use]
pub fn spoken(control: &Control, value: &str) -> String {
    match control {
        Control::Choice(options) => options.iter().find(|(word, _)| word == value).map_or(value, |(_, text)| text).to_owned(),
        _ if value.is_empty() => "nothing".to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;
