//! What somebody typed, and what is wrong with it.

use crate::acts::{json_object, no_value};
use crate::query::Unanswered;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

/// Values of fields by name, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed {
    values: BTreeMap<String, String>,
    /// Those of a record that a browser would send back otherwise than they are.
    uncarried: BTreeSet<String>,
}

/// Browsers drop line breaks of one line, take `\r` for one, and separate the lines of many by them; none of them sends NUL.
fn is_carried(text: &str) -> bool {
    !text.contains(['\n', '\r', '\0'])
}

impl Typed {
    /// Of pairs. Of a name that comes twice the last one counts: a switch is sent as `no`, and if it is on as `yes` behind that.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Typed {
        // Browsers send line ends as mail has them.
        let values = pairs.into_iter().map(|(name, value)| (name, value.replace("\r\n", "\n"))).collect();
        Typed { values, uncarried: BTreeSet::new() }
    }

    /// Of a form (`application/x-www-form-urlencoded`).
    #[must_use]
    pub fn of_form(body: &[u8]) -> Typed {
        Typed::new(form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned())))
    }

    /// Of a JSON object of texts, numbers, `true` and `false`, and of lists of these, which are lines.
    ///
    /// # Errors
    /// It is something else.
    pub fn of_json(body: &[u8]) -> Result<Typed, Unanswered> {
        let text = |name: &str, value: Value| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text),
            Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
            Value::Array(_) | Value::Object(_) => Err(no_value(name)),
        };
        let line = |name: &str, value: Value| {
            let line = text(name, value)?;
            // Between lines it would make two of one.
            let broken = || {
                format!(
                    "the field {name}: {:?} has a line break in it, which no form can carry; borgcube at the server can",
                    shortened(&line)
                )
            };
            if is_carried(&line) { Ok(line) } else { Err(Unanswered::BadRequest(broken())) }
        };
        let mut pairs = vec![];
        for (name, value) in json_object(body)? {
            let value = match value {
                Value::Array(values) => values.into_iter().map(|value| line(&name, value)).collect::<Result<Vec<_>, _>>()?.join("\n"),
                value => text(&name, value)?,
            };
            pairs.push((name, value));
        }
        Ok(Typed::new(pairs))
    }

    /// The same with another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Typed {
        let value = value.to_string();
        if !is_carried(&value) {
            self.uncarried.insert(name.to_owned());
        }
        self.values.insert(name.to_owned(), value);
        self
    }

    /// One that is not there is nothing.
    pub(super) fn with_maybe(self, name: &str, value: Option<impl Display>) -> Typed {
        match value {
            Some(value) => self.with(name, value),
            None => self.with(name, ""),
        }
    }

    pub(super) fn with_switch(self, name: &str, on: bool) -> Typed {
        self.with(name, if on { "yes" } else { "no" })
    }

    pub(super) fn with_lines<T: ToString>(mut self, name: &str, lines: impl IntoIterator<Item = T>) -> Typed {
        let lines: Vec<String> = lines.into_iter().map(|line| line.to_string()).collect();
        if !lines.iter().all(|line| is_carried(line)) {
            self.uncarried.insert(name.to_owned());
        }
        self.values.insert(name.to_owned(), lines.join("\n"));
        self
    }

    /// Whether a browser sends this value of a record back as it is.
    #[must_use]
    pub fn is_carried(&self, name: &str) -> bool {
        !self.uncarried.contains(name)
    }

    /// What was sent goes before what is here. Rows of a table count as a whole: whoever sends one sends all.
    #[must_use]
    pub fn overlaid(mut self, sent: &Typed) -> Typed {
        let rows: BTreeSet<&str> = sent.values.keys().filter_map(|name| row_of(name)).collect();
        self.values.retain(|name, _| row_of(name).is_none_or(|row| !rows.contains(row)));
        self.values.extend(sent.values.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// A value as it was typed.
    #[must_use]
    pub fn raw(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// A value without space around it, which nobody sees.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The same, and as it is where it was so before.
    #[must_use]
    pub fn text_or<'a>(&'a self, name: &str, before: Option<&str>) -> &'a str {
        if before == Some(self.raw(name)) { self.raw(name) } else { self.text(name) }
    }

    /// Whether a switch is on; `true` and `on` as well, for who writes JSON.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        matches!(self.text(name), "yes" | "true" | "on" | "1")
    }

    /// The lines that have something in them. Space around a line goes, unless a line of `before` has it: paths may end with a space.
    #[must_use]
    pub fn lines(&self, name: &str, before: &[String]) -> Vec<String> {
        let line = |line: &str| if before.iter().any(|before| before == line) { line.to_owned() } else { line.trim().to_owned() };
        self.raw(name).split('\n').map(line).filter(|line| !line.is_empty()).collect()
    }

    /// The names of what was sent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The highest number that a row of this table has: `action-3` of `action`.
    #[must_use]
    pub fn rows(&self, table: &str) -> usize {
        let number = |name: &String| row_of(name).filter(|row| *row == table).and_then(|_| name[table.len() + 1..].parse().ok());
        self.values.keys().filter_map(number).max().unwrap_or(0)
    }
}

/// The table of `TABLE-NUMBER`.
pub(super) fn row_of(name: &str) -> Option<&str> {
    let (table, number) = name.rsplit_once('-')?;
    // A form has no more rows than this, whatever is sent.
    number.parse::<usize>().is_ok_and(|number| (1..=999).contains(&number)).then_some(table)
}

/// Sentences by the field that they belong to; those of none belong to the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(BTreeMap<String, String>);

/// The name of the whole.
pub(super) const WHOLE: &str = "";

impl Errors {
    /// One that belongs to the whole.
    #[must_use]
    pub fn of_all(sentence: impl Into<String>) -> Errors {
        Errors([(WHOLE.to_owned(), sentence.into())].into())
    }

    /// Adds one; the first one of a field stays.
    pub fn add(&mut self, field: &str, sentence: impl Into<String>) {
        self.0.entry(field.to_owned()).or_insert(sentence.into());
    }

    /// What is wrong with a field.
    #[must_use]
    pub fn of(&self, field: &str) -> Option<&String> {
        self.0.get(field)
    }

    /// Nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    /// The value, or the error beside its field.
    pub(super) fn take<T>(&mut self, field: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|sentence| self.add(field, sentence)).ok()
    }

    /// Parses a field.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, typed: &Typed, field: &str) -> Option<T> {
        self.take(field, typed.text(field).parse().map_err(|e: T::Err| e.to_string()))
    }

    /// Parses a name that has to be a new one, or is that of the record.
    pub(super) fn name<T: FromStr<Err: Display> + Ord + Clone + Display>(
        &mut self,
        typed: &Typed,
        what: &str,
        before: Option<&T>,
        taken: &BTreeSet<T>,
    ) -> Option<T> {
        if let Some(before) = before {
            return Some(before.clone());
        }
        let name: T = self.parse(typed, "name")?;
        if taken.contains(&name) {
            self.add("name", format!("there is a {what} {name} already: choose another name, or change that one"));
        }
        Some(name)
    }

    /// The lines of a field in which blanks mean something: one that begins or ends with a blank is none that somebody sees. Those that the
    /// record has (`before`) stay. What of a new one is `absolute` begins with a slash, and a blank before that was meant by nobody.
    pub(super) fn exact_lines(&mut self, typed: &Typed, field: &str, before: &[String], absolute: bool) -> Vec<String> {
        let lines = typed.raw(field).split('\n').filter(|line| before.iter().any(|before| before == line) || !line.trim().is_empty());
        let mut read = vec![];
        for line in lines {
            let inner = line.trim();
            let bare = if absolute && inner.starts_with('/') { line.trim_start() } else { line };
            if bare != inner && !before.iter().any(|before| before == line) {
                let end = if bare.ends_with(char::is_whitespace) { "ends" } else { "begins" };
                let sentence = format!(
                    "{:?} {end} with a blank, which nobody sees: take it away; if it is meant, write it at the server, with borgcube config edit",
                    shortened(bare)
                );
                self.add(field, sentence);
            }
            read.push(if before.iter().any(|before| before == line) { line } else { bare }.to_owned());
        }
        read
    }

    /// A whole number; None if the field is empty.
    pub(super) fn number(&mut self, typed: &Typed, field: &str) -> Option<u32> {
        let text = typed.text(field);
        if text.is_empty() {
            return None;
        }
        let wrong = |_| format!("{:?} is no whole number from 0 to {}", shortened(text), u32::MAX);
        self.take(field, text.parse().map_err(wrong))
    }

    /// A whole number that has to be there.
    pub(super) fn needed_number(&mut self, typed: &Typed, field: &str) -> u32 {
        if typed.text(field).is_empty() {
            self.add(field, "it is empty: write a whole number");
        }
        self.number(typed, field).unwrap_or_default()
    }

    /// What the model says of a record whose only peculiarity is this field.
    pub(super) fn probe(&mut self, field: &str, checked: Result<(), String>) {
        self.take(field, checked);
    }

    /// The record if nothing is wrong; what the model says of it as a whole belongs to `field`.
    pub(super) fn end<T>(mut self, record: Option<T>, field: &str, check: impl FnOnce(&T) -> Result<(), String>) -> Result<T, Errors> {
        match record {
            Some(record) if self.is_empty() => match check(&record) {
                Ok(()) => Ok(record),
                Err(sentence) => {
                    self.add(field, sentence);
                    Err(self)
                }
            },
            _ => Err(self),
        }
    }
}

/// What is quoted back need not be all of it.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// `CLIENT/LABEL` as regular expressions. Names have no slash, so the first one separates; without one all labels are meant.
pub(super) fn expressions(text: &str) -> Result<(String, String), String> {
    let (client, label) = text.split_once('/').unwrap_or((text, ".*"));
    model::schedule::Matcher::new(client, label)?;
    Ok((client.to_owned(), label.to_owned()))
}
