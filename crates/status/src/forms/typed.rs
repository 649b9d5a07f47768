//! What somebody typed, and what is wrong with it.

use crate::query::Unanswered;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

/// Values of fields by name, as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typed(BTreeMap<String, String>);

impl Typed {
    /// Of pairs. Of a name that comes twice the last one counts: a switch is sent as `no`, and if it is on as `yes` behind that.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Typed {
        // Browsers send line ends as mail has them.
        Typed(pairs.into_iter().map(|(name, value)| (name, value.replace("\r\n", "\n"))).collect())
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
        let wrong = |why: &dyn Display| Unanswered::BadRequest(format!("the body is no JSON object of fields: {why}"));
        let object: Map<String, Value> = serde_json::from_slice(body).map_err(|e| wrong(&e))?;
        let text = |name: &str, value: Value| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text),
            Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
            Value::Array(_) | Value::Object(_) => Err(wrong(&format!("{name} is neither a text, a number nor a list of such"))),
        };
        let mut pairs = vec![];
        for (name, value) in object {
            let value = match value {
                Value::Array(values) => values.into_iter().map(|value| text(&name, value)).collect::<Result<Vec<_>, _>>()?.join("\n"),
                value => text(&name, value)?,
            };
            pairs.push((name, value));
        }
        Ok(Typed::new(pairs))
    }

    /// The same with another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Typed {
        self.0.insert(name.to_owned(), value.to_string());
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

    pub(super) fn with_lines<T: ToString>(self, name: &str, lines: impl IntoIterator<Item = T>) -> Typed {
        self.with(name, lines.into_iter().map(|line| line.to_string()).collect::<Vec<_>>().join("\n"))
    }

    /// What was sent goes before what is here. Rows of a table count as a whole: whoever sends one sends all.
    #[must_use]
    pub fn overlaid(mut self, sent: &Typed) -> Typed {
        let rows: BTreeSet<&str> = sent.0.keys().filter_map(|name| row_of(name)).collect();
        self.0.retain(|name, _| row_of(name).is_none_or(|row| !rows.contains(row)));
        self.0.extend(sent.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// A value as it was typed.
    #[must_use]
    pub fn raw(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A value without space around it, which nobody sees.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
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
        self.0.keys().map(String::as_str)
    }

    /// The highest number that a row of this table has: `action-3` of `action`.
    #[must_use]
    pub fn rows(&self, table: &str) -> usize {
        let number = |name: &String| row_of(name).filter(|row| *row == table).and_then(|_| name[table.len() + 1..].parse().ok());
        self.0.keys().filter_map(number).max().unwrap_or(0)
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
