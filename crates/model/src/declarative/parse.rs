//! Reading the file: every mistake with its place and a sentence.

use super::form::{Reading, Wrong, described, unknown};
use super::kind::{Kind, Record};
use super::object::{Object, set, title, usual};
use super::{Configuration, FORMAT};
use crate::Recurrence;
use crate::time::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A place in the file, as editors count: from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Something wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// A sentence about what, and what to write instead.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.line, self.place.column, self.message)
    }
}

/// One object of the file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The record that it describes, without what only the server knows.
    pub record: Record,
    /// What the file says of it.
    pub object: Object,
    /// Where it begins.
    pub place: Place,
    /// Where its fields are.
    places: BTreeMap<&'static str, Place>,
}

impl Entry {
    /// The place of a field; of the object, if the file does not have that field.
    #[must_use]
    pub fn place_of(&self, field: &str) -> Place {
        self.places.get(field).copied().unwrap_or(self.place)
    }

    /// Whether the file has this field; the empty one is the name.
    pub(super) fn has(&self, field: &str) -> bool {
        field.is_empty() || self.places.contains_key(field)
    }
}

/// A file without mistakes in itself.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its objects, in the order of kinds and names.
    pub entries: Vec<Entry>,
    /// What the file does not have is to be removed.
    pub remove_missing: bool,
}

/// All that could be read of a file.
#[derive(Debug)]
pub(super) struct Parsed {
    /// What has no mistakes in itself.
    pub document: Document,
    /// Objects with mistakes in themselves, as far as they are known.
    pub half: Vec<Entry>,
    /// Kinds and names of all objects, those with mistakes as well.
    pub named: BTreeSet<(Kind, String)>,
    /// The mistakes, in the order of their places.
    pub mistakes: Vec<Mistake>,
    /// Its syntax is in order, and its format known.
    pub is_toml: bool,
}

/// Reads a file. `current`: what the server has; a recurrence that it has already may be over.
pub fn parse(text: &str, now: Timestamp, current: &Configuration) -> Result<Document, Vec<Mistake>> {
    let Parsed { document, mistakes, .. } = parsed(text, now, current);
    if mistakes.is_empty() { Ok(document) } else { Err(mistakes) }
}

/// The same, with what can be known beside the mistakes.
pub(super) fn parsed(text: &str, now: Timestamp, current: &Configuration) -> Parsed {
    let (document, errors) = DeTable::parse_recoverable(text);
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { text, lines, now, current, mistakes: vec![], entries: vec![], half: vec![], named: BTreeSet::new() };
    let is_toml = errors.is_empty();
    if let Some((at, newer)) = newer(document.get_ref()) {
        // Whatever else looks wrong may be right there.
        reader.mistake(at, format!("the file has format {newer}, and this borgcube knows format {FORMAT}: use a newer borgcube"));
        let document = Document { entries: vec![], remove_missing: false };
        return Parsed { document, half: vec![], named: BTreeSet::new(), mistakes: reader.mistakes, is_toml: false };
    }
    for error in &errors {
        let span = error.span().unwrap_or_default();
        let message = reader.syntax(error.message(), &span);
        reader.mistake(span, message);
    }
    let remove_missing = reader.document(document.get_ref());
    // What was recovered from broken syntax is not what the person wrote: only what is wrong for sure.
    if !errors.is_empty() {
        reader.mistakes.truncate(errors.len());
    }
    let Reader { mut mistakes, mut entries, half, named, .. } = reader;
    mistakes.sort();
    mistakes.dedup();
    // Stable: equal triggers stay in the order of the file.
    let order = |entry: &Entry| (entry.object.kind, entry.object.name.clone(), entry.object.get("enabled").is_some());
    entries.sort_by_cached_key(order);
    Parsed { document: Document { entries, remove_missing }, half, named, mistakes, is_toml }
}

/// A format that this program does not know.
fn newer(document: &DeTable<'_>) -> Option<(Range<usize>, u64)> {
    let format = document.get("format")?;
    let number: u64 = format.get_ref().as_integer()?.as_str().parse().ok()?;
    (number > FORMAT).then(|| (format.span(), number))
}

struct Reader<'a> {
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    now: Timestamp,
    current: &'a Configuration,
    mistakes: Vec<Mistake>,
    entries: Vec<Entry>,
    half: Vec<Entry>,
    named: BTreeSet<(Kind, String)>,
}

type Node<'i> = Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        Place { line, column: self.text.get(start..at).unwrap_or_default().chars().count() + 1 }
    }

    fn mistake(&mut self, at: Range<usize>, message: impl Into<String>) {
        let place = self.place(at.start);
        self.mistakes.push(Mistake { place, message: message.into() });
    }

    fn wrongs(&mut self, wrongs: Vec<Wrong>) {
        wrongs.into_iter().for_each(|(at, why)| self.mistake(at, why));
    }

    /// The parser's sentence, or a better one.
    fn syntax(&self, message: &str, span: &Range<usize>) -> String {
        if message != "duplicate key" {
            return format!("this is not TOML: {message}");
        }
        let key = self.text.get(span.clone()).unwrap_or_default();
        let line = self.text[..span.start].rsplit('\n').next().unwrap_or_default().trim_start();
        match line.strip_prefix('[').and_then(|head| head.strip_suffix('.')) {
            Some(kind) => format!("{kind} {key} is in the file twice: write each object once"),
            None => format!("{key} is there twice: write it once"),
        }
    }

    /// Gives whether what is missing is to be removed.
    fn document(&mut self, table: &DeTable<'_>) -> bool {
        match table.get("format") {
            None => self.mistake(0..0, format!("the file does not say its format: write `format = {FORMAT}` as its first line")),
            Some(format) if format.get_ref().as_integer().is_some_and(|number| number.as_str() == FORMAT.to_string()) => {}
            Some(format) => self.mistake(format.span(), format!("this is no format: write `format = {FORMAT}`")),
        }
        let mut remove_missing = false;
        for (key, node) in table.iter() {
            let name: &str = key.get_ref();
            match Kind::ALL.into_iter().find(|kind| kind.word() == name) {
                Some(Kind::Settings) => self.object(Kind::Settings, "", key.span(), node),
                Some(Kind::Trigger) => self.triggers(node),
                Some(kind) => self.named(kind, node),
                None if name == "format" => {}
                None if name == "apply" => remove_missing = self.apply(node),
                None => {
                    let known = Kind::ALL.iter().map(|kind| kind.word()).chain(["apply", "format"]);
                    self.mistake(key.span(), unknown("table", name, known));
                }
            }
        }
        remove_missing
    }

    fn apply(&mut self, node: &Node<'_>) -> bool {
        let Some(table) = node.get_ref().as_table() else {
            self.mistake(node.span(), "write this as a table: [apply]");
            return false;
        };
        let mut remove_missing = false;
        for (key, value) in table.iter() {
            match (&**key.get_ref(), value.get_ref().as_bool()) {
                ("remove_missing", Some(truth)) => remove_missing = truth,
                ("remove_missing", None) => {
                    self.mistake(value.span(), format!("this is {}, not true or false", described(value.get_ref())));
                }
                (name, _) => self.mistake(key.span(), unknown("field", name, ["remove_missing"].into_iter())),
            }
        }
        remove_missing
    }

    fn named(&mut self, kind: Kind, node: &Node<'_>) {
        let Some(objects) = node.get_ref().as_table() else {
            let message = format!("a {kind} is written as a table with its name: {}", kind.heading());
            return self.mistake(node.span(), message);
        };
        for (key, object) in objects.iter() {
            self.object(kind, key.get_ref(), key.span(), object);
        }
    }

    fn triggers(&mut self, node: &Node<'_>) {
        let Some(triggers) = node.get_ref().as_array() else {
            return self.mistake(node.span(), "triggers have no names: write each as [[trigger]]");
        };
        for trigger in triggers.iter() {
            self.object(Kind::Trigger, "", trigger.span(), trigger);
        }
    }

    fn object(&mut self, kind: Kind, name: &str, at: Range<usize>, node: &Node<'_>) {
        let mut json = match kind.blank(name) {
            Ok(blank) => blank,
            Err(why) => return self.mistake(at, why),
        };
        self.named.insert((kind, name.to_owned()));
        if self.is_new_repository(kind, name) {
            set(&mut json, &["repository_id"], Value::from("0".repeat(64)));
        }
        let Some(table) = node.get_ref().as_table() else {
            let message = format!("this is {}, not a table such as {}", described(node.get_ref()), kind.heading());
            return self.mistake(node.span(), message);
        };
        let known = self.mistakes.len();
        let given = self.fields(kind, name, table, at.clone());
        given.iter().for_each(|(field, _, value)| set(&mut json, field.path, value.clone()));
        let record = kind.record(json.clone());
        if let Err(why) = &record {
            // Each field alone, so that each says what is wrong with it.
            let before = self.mistakes.len();
            for (field, span, value) in &given {
                let mut alone = kind.blank(name).unwrap_or_default();
                set(&mut alone, field.path, value.clone());
                if let Err(why) = kind.record(alone) {
                    self.mistake(span.clone(), sentence(&why));
                }
            }
            if self.mistakes.len() == before {
                self.mistake(at.clone(), sentence(why));
            }
        }
        let spans: BTreeMap<&str, Range<usize>> = given.into_iter().map(|(field, span, _)| (field.name, span)).collect();
        let places = spans.iter().map(|(field, span)| (*field, self.place(span.start))).collect();
        let Ok(record) = record else { return };
        let object = Object::of(&record);
        let entry = Entry { record, object, place: self.place(at.start), places };
        if self.mistakes.len() > known {
            return self.half.push(entry);
        }
        if let Err(why) = entry.record.check() {
            let culprit = culprit(kind, name, &json, &why, &spans);
            self.half.push(entry);
            return self.mistake(culprit.unwrap_or(at), why);
        }
        let object = &entry.object;
        let lost = |(field, usual): &(&super::Field, &Option<Value>)| {
            let wanted = || super::object::find(&json, field.path).and_then(|value| field.form.show(value));
            spans.contains_key(field.name) && object.get(field.name).is_none() && wanted() != **usual
        };
        let lost: Vec<&super::Field> = kind.fields().iter().zip(usual(kind)).filter(lost).map(|(field, _)| field).collect();
        for field in &lost {
            let message = match kind {
                Kind::Client => format!("a client with `local = true` has no {}: take it out", field.name),
                _ => format!("{} has no effect beside the other fields of {}: take it out", field.name, title(kind, name)),
            };
            self.mistake(spans[field.name].clone(), message);
        }
        if lost.is_empty() {
            self.entries.push(entry);
        } else {
            self.half.push(entry);
        }
    }

    /// The fields that were given, as the record has them.
    fn fields(
        &mut self,
        kind: Kind,
        name: &str,
        table: &DeTable<'_>,
        at: Range<usize>,
    ) -> Vec<(&'static super::Field, Range<usize>, Value)> {
        let recurrence = self.recurrence(kind, name);
        let reading = Reading { now: self.now, recurrence: recurrence.as_ref() };
        let mut given = vec![];
        for (key, node) in table.iter() {
            let Some(field) = kind.fields().iter().find(|field| field.name == &**key.get_ref()) else {
                let mut message = unknown("field", key.get_ref(), kind.fields().iter().map(|field| field.name));
                if !name.is_empty() && node.get_ref().is_table() {
                    message =
                        format!("{message} If it belongs to the name, put all of that in quotes: [{kind}.\"{name}.{}\"]", key.get_ref());
                }
                self.mistake(key.span(), message);
                continue;
            };
            match field.form.read(node, reading) {
                Ok(value) => given.push((field, node.span(), value)),
                Err(wrongs) => self.wrongs(wrongs),
            }
        }
        // Of those that say the same thing, the first one speaks for all.
        let mut said: BTreeSet<&[&str]> = BTreeSet::new();
        // What apply does not add anyway need not be known to the last field.
        let is_new = self.is_new_repository(kind, name);
        let is_needed = |field: &super::Field| field.required && !(is_new && UNKNOWN_BEFORE.contains(&field.name));
        for field in kind.fields().iter().filter(|field| is_needed(field) && said.insert(field.path)) {
            let names: Vec<&str> = std::iter::once(field.name).chain(kind.alternatives(field).map(|other| other.name)).collect();
            let there: Vec<&&str> = names.iter().filter(|name| table.get(**name).is_some()).collect();
            match there.as_slice() {
                [_] => {}
                [] => {
                    let wanted: Vec<String> = names.iter().map(|name| format!("`{name} = ...`")).collect();
                    let message = format!("{} has no {}: write {}", title(kind, name), names.join(" or "), wanted.join(" or "));
                    self.mistake(at.clone(), message);
                }
                [first, more @ ..] => {
                    for other in more {
                        let span = table.get(**other).map_or_else(|| at.clone(), Spanned::span);
                        self.mistake(span, format!("{} has {first} and {other}: take one of them out", title(kind, name)));
                    }
                }
            }
        }
        given.sort_by_key(|(field, ..)| kind.fields().iter().position(|known| known.name == field.name));
        given
    }

    fn is_new_repository(&self, kind: Kind, name: &str) -> bool {
        kind == Kind::Repository && self.current.repositories.iter().all(|repository| repository.name.as_str() != name)
    }

    fn recurrence(&self, kind: Kind, name: &str) -> Option<Recurrence> {
        let mut schedules = self.current.schedules.iter().filter(|schedule| kind == Kind::Schedule && schedule.name.as_str() == name);
        schedules.next().map(|schedule| schedule.recurrence.clone())
    }
}

/// What nobody knows of a repository before it was made or opened.
const UNKNOWN_BEFORE: [&str; 2] = ["repository_id", "encryption"];

/// The field without which the record would be right; or, if there are several mistakes, the one that the sentence names.
fn culprit(kind: Kind, name: &str, json: &Value, why: &str, spans: &BTreeMap<&'static str, Range<usize>>) -> Option<Range<usize>> {
    let blank = kind.blank(name).ok().and_then(|blank| kind.record(blank).ok()).map(|record| record.json()).unwrap_or_default();
    let without = |field: &super::Field| {
        let mut json = json.clone();
        set(&mut json, field.path, super::object::find(&blank, field.path).cloned().unwrap_or_default());
        kind.record(json).map(|record| record.check().is_ok()).unwrap_or(false)
    };
    let given = || kind.fields().iter().filter(|field| spans.contains_key(field.name));
    let words: Vec<&str> = why.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let named = |field: &&super::Field| words.iter().any(|word| *word == field.name || *word == field.name.trim_end_matches('s'));
    let found = given().find(|field| without(field)).or_else(|| given().find(named));
    found.and_then(|field| spans.get(field.name).cloned())
}

/// What serde says; of numbers it speaks in terms of programs.
fn sentence(why: &str) -> String {
    let number = why.strip_prefix("invalid value: integer `").and_then(|rest| rest.split_once('`'));
    number.map_or_else(|| why.to_owned(), |(number, _)| format!("{number} is out of range here"))
}
