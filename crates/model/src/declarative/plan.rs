//! What has to be done so that a server has what a file says.

use super::kind::{Kind, Record};
use super::object::{Object, title};
use super::parse::{Document, Entry, Mistake, Parsed, parsed};
use super::{Configuration, Known};
use crate::names::ConfigName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Verb {
    Add,
    Change,
    Remove,
}

/// A field that becomes another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The field's name in the file.
    pub field: &'static str,
    /// What it is on the server, as the file would have it. None: as it would be anyway.
    pub old: Option<Value>,
    /// What the file says.
    pub new: Option<Value>,
}

/// What is done to one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What.
    pub action: Verb,
    /// The object's kind.
    pub kind: Kind,
    /// The object's name.
    pub name: String,
    /// Its fields that become others; of an object that is added, all of them.
    pub fields: Vec<Difference>,
    /// For the server.
    #[serde(skip)]
    pub change: Change,
}

/// A change as the server is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Adds the record, or puts it in the place of the one with its name. What only the server knows is not taken from it. A trigger whose
    /// id the server does not have gets an id of the server's.
    Put(Record),
    /// Removes this record.
    Remove(Record),
}

/// Something that apply does not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// About which kind of object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Why not, and what to do: a sentence.
    pub message: String,
}

/// Everything that is to be done, in the order in which it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Plan {
    /// What is done.
    pub changes: Vec<Step>,
    /// What somebody has to deal with first.
    pub obstacles: Vec<Obstacle>,
}

impl Plan {
    /// The server has what the file says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.obstacles.is_empty()
    }

    /// How many objects are added, changed, removed.
    #[must_use]
    pub fn count(&self, verb: Verb) -> usize {
        self.changes.iter().filter(|step| step.action == verb).count()
    }
}

/// Reads a file and compares it, as [`plan`] does. All mistakes come at once: those that only show beside what the server has as well, as far as the file's
/// other mistakes let anybody know. `remove_missing`: also if the file does not say so.
pub fn compare(
    text: &str,
    now: Timestamp,
    current: &Configuration,
    archived: &[ConfigName],
    remove_missing: bool,
) -> Result<Plan, Vec<Mistake>> {
    let Parsed { document, half, named, mut mistakes, is_toml } = parsed(text, now, current);
    let remove_missing = remove_missing || document.remove_missing;
    if mistakes.is_empty() {
        return plan(current, archived, &document, remove_missing);
    }
    if is_toml {
        let (_, more) = planned(current, archived, &document, (&half, &named), remove_missing);
        mistakes.extend(more);
        mistakes.sort();
        mistakes.dedup();
    }
    Err(mistakes)
}

/// Compares. What the server has and the file has not stays, unless `remove_missing`. Mistakes are those that only show beside what the
/// server has.
pub fn plan(current: &Configuration, archived: &[ConfigName], document: &Document, remove_missing: bool) -> Result<Plan, Vec<Mistake>> {
    let (plan, mistakes) = planned(current, archived, document, (&[], &BTreeSet::new()), remove_missing);
    if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
}

/// The plan, and the mistakes. `half` are objects with mistakes in themselves, and the names of all that the file has.
fn planned(
    current: &Configuration,
    archived: &[ConfigName],
    document: &Document,
    (half, named): (&[Entry], &BTreeSet<(Kind, String)>),
    remove_missing: bool,
) -> (Plan, Vec<Mistake>) {
    let mut server = current.known();
    let file: BTreeMap<(Kind, String), &Entry> = super::numbered(document.entries.iter(), |entry| (entry.object.kind, &entry.object.name));
    pair_triggers(&mut server, &file);
    let mut planning = Planning { server: &server, file: &file, named, remove_missing, plan: Plan::default(), mistakes: vec![] };
    for (key, entry) in &file {
        planning.entry(key, entry);
    }
    for entry in half {
        planning.references(entry, server.get(&(entry.object.kind, entry.object.name.clone())));
    }
    if remove_missing {
        // Nothing is removed before what refers to it.
        for ((kind, name), known) in server.iter().rev().filter(|(key, _)| key.0 != Kind::Settings && !file.contains_key(*key)) {
            planning.missing(*kind, name, known, archived);
        }
    }
    let Planning { plan, mut mistakes, .. } = planning;
    mistakes.sort();
    (plan, mistakes)
}

/// Triggers that are called the same: each of the file gets one of the server that is as it says, or one of the others.
fn pair_triggers(server: &mut BTreeMap<(Kind, String), Known>, file: &BTreeMap<(Kind, String), &Entry>) {
    let of_kind = |(kind, _): &&(Kind, String)| *kind == Kind::Trigger;
    let mut wanted: BTreeMap<String, Vec<(&String, &Object)>> = BTreeMap::new();
    for (key, entry) in file.iter().filter(|(key, _)| of_kind(key)) {
        wanted.entry(entry.record.name()).or_default().push((&key.1, &entry.object));
    }
    let mut there: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    for key in server.keys().filter(of_kind).cloned().collect::<Vec<_>>() {
        if let Some(known) = server.remove(&key) {
            there.entry(known.record.name()).or_default().push(known);
        }
    }
    for (name, mut there) in there {
        let (mut open, mut put) = (vec![], vec![]);
        for (key, object) in wanted.remove(&name).unwrap_or_default() {
            match there.iter().position(|known| known.object.fields == object.fields) {
                Some(at) => put.push((key.clone(), there.remove(at))),
                None => open.push(key.clone()),
            }
        }
        put.extend(open.into_iter().zip(std::iter::from_fn(|| (!there.is_empty()).then(|| there.remove(0)))));
        // More than the file has.
        let mut numbers = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name} #{number}") });
        let mut free = || numbers.find(|key| !file.contains_key(&(Kind::Trigger, key.clone())));
        put.extend(there.into_iter().filter_map(|known| Some((free()?, known))));
        server.extend(put.into_iter().map(|(key, known)| ((Kind::Trigger, key), known)));
    }
}

struct Planning<'a> {
    server: &'a BTreeMap<(Kind, String), Known>,
    file: &'a BTreeMap<(Kind, String), &'a Entry>,
    named: &'a BTreeSet<(Kind, String)>,
    remove_missing: bool,
    plan: Plan,
    mistakes: Vec<Mistake>,
}

impl Planning<'_> {
    fn entry(&mut self, key: &(Kind, String), entry: &Entry) {
        let (kind, name) = (key.0, key.1.clone());
        let old = self.server.get(key);
        if old.is_some_and(|old| old.object.fields == entry.object.fields) {
            // What it refers to may be about to go all the same.
            if self.remove_missing {
                self.references(entry, old);
            }
            return;
        }
        self.references(entry, old);
        if kind == Kind::Repository {
            let Some(old) = old else {
                let message = added_by_hand(&entry.object);
                return self.plan.obstacles.push(Obstacle { kind, name, message });
            };
            for field in ["repository_id", "encryption"] {
                if old.object.get(field) != entry.object.get(field) {
                    let message = format!(
                        "the {field} of repository {name} cannot be changed: another one is another repository, with a name of its own"
                    );
                    self.mistakes.push(Mistake { place: entry.place_of(field), message });
                }
            }
            if let Some(message) = moved_by_hand(&old.object, &entry.object) {
                return self.plan.obstacles.push(Obstacle { kind, name, message });
            }
        }
        if kind == Kind::Client && old.is_none_or(|old| old.object.get("keys") != entry.object.get("keys")) {
            self.shared_keys(entry);
        }
        let nothing = Object { kind, name: String::new(), fields: BTreeMap::new() };
        let fields = differences(old.map_or(&nothing, |old| &old.object), &entry.object);
        let mut record = entry.record.clone();
        if let (Record::Trigger(new), Some(Known { record: Record::Trigger(old), .. })) = (&mut record, old) {
            new.id = old.id.clone();
        }
        let action = if old.is_some() { Verb::Change } else { Verb::Add };
        self.plan.changes.push(Step { action, kind, name, fields, change: Change::Put(record) });
    }

    /// Everything that an object names is there when all is done.
    fn references(&mut self, entry: &Entry, old: Option<&Known>) {
        for (field, kind, name) in entry.record.references() {
            let key = (kind, name);
            let on_server = self.server.contains_key(&key);
            // A repository never goes by itself; what is missing since long is nothing new.
            let stays = on_server && (!self.remove_missing || kind == Kind::Repository);
            let as_before =
                !on_server && old.is_some_and(|old| old.object.get(field).is_some() && old.object.get(field) == entry.object.get(field));
            let in_file = self.file.contains_key(&key) || self.named.contains(&key);
            if in_file || stays || as_before || !entry.has(field) {
                continue;
            }
            let (what, name) = (entry.object.title(), &key.1);
            let message = match on_server {
                true => format!("{what} needs {kind} {name}, which is not in this file and would be removed: add it to the file"),
                false => format!("{what} names {kind} {name}, and there is none, neither in this file nor on the server"),
            };
            self.mistakes.push(Mistake { place: entry.place_of(field), message });
        }
    }

    /// A key that two clients have says nothing of who comes.
    fn shared_keys(&mut self, entry: &Entry) {
        let Record::Client(client) = &entry.record else { return };
        for other in self.file.values() {
            let Record::Client(known) = &other.record else { continue };
            let shared = client.keys.iter().find(|key| known.keys.iter().any(|known| known.key == key.key));
            if let Some(key) = shared.filter(|_| known.name != client.name) {
                let message =
                    format!("the key {} belongs to client {} as well; each client has keys of its own", key.key.fingerprint(), known.name);
                self.mistakes.push(Mistake { place: entry.place_of("keys"), message });
            }
        }
    }

    fn missing(&mut self, kind: Kind, name: &str, known: &Known, archived: &[ConfigName]) {
        let obstacle = match kind {
            Kind::Repository => Some(format!(
                "repository {name} is not in the file, and apply removes no repository: keep it in the file, or type borgcube repository remove {name}"
            )),
            Kind::Client if archived.iter().any(|config| config.client.as_str() == name) => Some(format!(
                "client {name} is not in the file and has archives: keep it in the file, or type borgcube client remove {name}"
            )),
            _ => None,
        };
        if let Some(message) = obstacle {
            return self.plan.obstacles.push(Obstacle { kind, name: name.to_owned(), message });
        }
        let nothing = Object { kind, name: String::new(), fields: BTreeMap::new() };
        let fields = differences(&known.object, &nothing);
        let change = Change::Remove(known.record.clone());
        self.plan.changes.push(Step { action: Verb::Remove, kind, name: name.to_owned(), fields, change });
    }
}

fn differences(old: &Object, new: &Object) -> Vec<Difference> {
    let all: BTreeSet<usize> = old.fields.keys().chain(new.fields.keys()).copied().collect();
    let differing = all.into_iter().filter(|at| old.fields.get(at) != new.fields.get(at));
    let known = old.kind.fields();
    differing
        .filter_map(|at| {
            Some(Difference { field: known.get(at)?.name, old: old.fields.get(&at).cloned(), new: new.fields.get(&at).cloned() })
        })
        .collect()
}

/// The command for a repository that is not there.
fn added_by_hand(repository: &Object) -> String {
    let text = |field: &str| repository.get(field).and_then(Value::as_str).map(str::to_owned);
    let name = &repository.name;
    let url = quoted(&text("url").unwrap_or_default());
    let mut options = String::new();
    for (field, option) in [("description", "--description"), ("remote_borg", "--remote-borg"), ("rsh", "--rsh")] {
        if let Some(value) = text(field) {
            options.push_str(&format!(" {option} {}", quoted(&value)));
        }
    }
    format!(
        "{} is not on this server, and apply cannot add it: its passphrase is not in the file. Type borgcube repository add {name} {url} --adopt{options}",
        title(Kind::Repository, name)
    )
}

/// The command for a repository that is to be found elsewhere, or in another way: it tries that first, which apply cannot.
fn moved_by_hand(old: &Object, new: &Object) -> Option<String> {
    let mut options = String::new();
    for (field, option) in [("url", "--url"), ("remote_borg", "--remote-borg"), ("rsh", "--rsh")] {
        match new.get(field).and_then(Value::as_str) {
            _ if old.get(field) == new.get(field) => {}
            Some(value) => options.push_str(&format!(" {option} {}", quoted(value))),
            None => options.push_str(&format!(" --clear {}", field.replace('_', "-"))),
        }
    }
    let name = &new.name;
    (!options.is_empty()).then(|| {
        format!(
            "{} is to be found elsewhere, and apply changes no place that nobody has tried. Type borgcube repository edit {name}{options}, which tries it",
            title(Kind::Repository, name)
        )
    })
}

/// As a person would type it into a shell.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-+:@,=~".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
