//! What a field's value looks like in the file, and what it is in a record: both as JSON values, because that is how records are stored.

use crate::Recurrence;
use crate::blackout::Blackout;
use crate::retention::{Count, Period};
use crate::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// Reads a value as a type of the model and writes it again: the type's own rules, and its own sentences.
pub type Through = fn(&Value) -> Result<Value, String>;

/// The [`Through`] of a type.
pub fn through<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let read: T = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(read).map_err(|e| e.to_string())
}

/// How a field is written.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// A list of texts.
    Texts,
    /// A text that stands for this variant of a record's field; another field is for another variant.
    Variant(&'static str),
    /// `true` stands for a record's `kind = "local"`.
    Local,
    /// A list of texts such as `mon-fri 08:00-18:00 Europe/Berlin`.
    Blackouts,
    /// A text such as `daily 02:30 Europe/Berlin`.
    Recurrence,
    /// A table of numbers by period.
    Keep,
    /// A table that is a type of the model.
    Table(Through),
    /// A list of such tables.
    Tables(Through),
}

/// Something wrong at these bytes of the file.
pub type Wrong = (Range<usize>, String);

/// What reading a value needs to know beside it.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The present moment: what is over is no recurrence.
    pub now: Timestamp,
    /// The object's recurrence on the server: it stays as it is if the file has the same text.
    pub recurrence: Option<&'a Recurrence>,
}

impl Form {
    /// In words, for the manual and for sentences about what is wrong.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Form::Text | Form::Recurrence | Form::Variant(_) => "a text in quotes",
            Form::Number => "a whole number",
            Form::Switch | Form::Local => "true or false",
            Form::Texts | Form::Blackouts => "a list of texts",
            Form::Keep => "a table of numbers, such as { daily = 7 }",
            Form::Table(_) => "a table, such as { kind = \"...\" }",
            Form::Tables(_) => "a list of tables, such as [{ kind = \"...\" }]",
        }
    }

    /// From the file into the record.
    pub fn read(self, node: &Spanned<DeValue<'_>>, reading: Reading<'_>) -> Result<Value, Vec<Wrong>> {
        let wrong = |why: String| vec![(node.span(), why)];
        let other = || wrong(format!("this is {}, not {}", described(node.get_ref()), self.words()));
        let value = node.get_ref();
        match self {
            Form::Text => value.as_str().map(Value::from).ok_or_else(other),
            Form::Number => number(value).ok_or_else(other),
            Form::Switch => value.as_bool().map(Value::from).ok_or_else(other),
            Form::Variant(variant) => value.as_str().map(|text| serde_json::json!({ variant: text })).ok_or_else(other),
            Form::Local => Ok(Value::from(if value.as_bool().ok_or_else(other)? { "local" } else { "ssh" })),
            Form::Texts => each(node, self, |element| match element.as_str() {
                Some(text) => Ok(text.into()),
                None => Err(format!("this is {}, not a text in quotes", described(element))),
            }),
            Form::Blackouts => each(node, self, |element| {
                let text = element.as_str().ok_or_else(|| format!("this is {}, not a text in quotes", described(element)))?;
                json(&text.parse::<Blackout>()?)
            }),
            Form::Recurrence => recurrence(value.as_str().ok_or_else(other)?, reading).map_err(wrong),
            Form::Keep => keep(value.as_table().ok_or_else(other)?),
            Form::Table(through) => {
                if value.as_table().is_none() {
                    return Err(other());
                }
                table(node, through)
            }
            Form::Tables(through) => {
                let elements = value.as_array().ok_or_else(other)?;
                collect(elements.iter().map(|element| table(element, through)))
            }
        }
    }

    /// From the record into the file. None: there is nothing to write.
    #[must_use]
    pub fn show(self, value: &Value) -> Option<Value> {
        let shown = match self {
            Form::Text | Form::Number | Form::Switch | Form::Texts => value.clone(),
            Form::Variant(variant) => value.get(variant)?.clone(),
            Form::Local if value == "local" => Value::Bool(true),
            Form::Local => return None,
            Form::Blackouts => {
                let windows: Vec<Blackout> = serde_json::from_value(value.clone()).ok()?;
                windows.iter().map(|window| Value::from(window.to_string())).collect()
            }
            Form::Recurrence => value.get("text")?.clone(),
            Form::Keep => {
                let shown = |(period, count): (&String, &Value)| {
                    let count = if *count == -1 { Value::from("all") } else { count.clone() };
                    (period.clone(), count)
                };
                value.as_object()?.iter().map(shown).collect()
            }
            Form::Table(through) => slim(value, through),
            Form::Tables(through) => value.as_array()?.iter().map(|element| slim(element, through)).collect(),
        };
        let nothing = match &shown {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(table) => table.is_empty(),
            _ => false,
        };
        (!nothing).then_some(shown)
    }
}

fn json<T: Serialize>(value: &T) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|e| e.to_string())
}

/// What stands there, in words.
pub fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time without quotes",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
    .to_owned()
}

fn number(value: &DeValue<'_>) -> Option<Value> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Value::from)
}

/// A value that needs no more than to be copied.
fn plain(node: &Spanned<DeValue<'_>>) -> Result<Value, Vec<Wrong>> {
    match node.get_ref() {
        DeValue::String(text) => Ok(Value::from(text.as_ref())),
        DeValue::Boolean(truth) => Ok(Value::Bool(*truth)),
        DeValue::Array(elements) => collect(elements.iter().map(plain)),
        DeValue::Table(table) => {
            let mut object = Map::new();
            let mut wrongs = vec![];
            for (key, value) in table.iter() {
                match plain(value) {
                    Ok(value) => drop(object.insert(key.get_ref().to_string(), value)),
                    Err(more) => wrongs.extend(more),
                }
            }
            if wrongs.is_empty() { Ok(Value::Object(object)) } else { Err(wrongs) }
        }
        other => number(other).ok_or_else(|| {
            let why = format!("this is {}; write a text in quotes, a whole number, or true or false", described(other));
            vec![(node.span(), why)]
        }),
    }
}

fn collect(elements: impl Iterator<Item = Result<Value, Vec<Wrong>>>) -> Result<Value, Vec<Wrong>> {
    let (mut values, mut wrongs) = (vec![], vec![]);
    for element in elements {
        match element {
            Ok(value) => values.push(value),
            Err(more) => wrongs.extend(more),
        }
    }
    if wrongs.is_empty() { Ok(Value::Array(values)) } else { Err(wrongs) }
}

fn each(node: &Spanned<DeValue<'_>>, form: Form, read: impl Fn(&DeValue<'_>) -> Result<Value, String>) -> Result<Value, Vec<Wrong>> {
    let Some(elements) = node.get_ref().as_array() else {
        return Err(vec![(node.span(), format!("this is {}, not {}", described(node.get_ref()), form.words()))]);
    };
    collect(elements.iter().map(|element| read(element.get_ref()).map_err(|why| vec![(element.span(), why)])))
}

/// A table of a type of the model, with its rules.
fn table(node: &Spanned<DeValue<'_>>, through: Through) -> Result<Value, Vec<Wrong>> {
    let Some(keys) = node.get_ref().as_table() else {
        return Err(vec![(node.span(), format!("this is {}, not a table such as {{ kind = \"...\" }}", described(node.get_ref())))]);
    };
    let value = plain(node)?;
    let full = through(&value).map_err(|why| vec![(node.span(), why)])?;
    let known: Vec<&str> = full.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default();
    let mut wrongs = vec![];
    for (key, _) in keys.iter() {
        let name: &str = key.get_ref();
        if known.contains(&name) || notices(&value, name, through) {
            continue;
        }
        wrongs.push((key.span(), unknown("field", name, known.iter().copied())));
    }
    if wrongs.is_empty() { Ok(full) } else { Err(wrongs) }
}

/// Whether the type looks at a field: nonsense in it is an error then.
fn notices(value: &Value, name: &str, through: Through) -> bool {
    let mut nonsense = value.clone();
    nonsense[name] = serde_json::json!({"?": ["?"]});
    through(&nonsense).is_err()
}

/// Without what is as it would be anyway.
fn slim(value: &Value, through: Through) -> Value {
    let Some(object) = value.as_object() else { return value.clone() };
    let mut slim = object.clone();
    let full = through(value);
    for name in object.keys() {
        let Some(field) = slim.remove(name) else { continue };
        if field.is_null() || (full.is_ok() && through(&Value::Object(slim.clone())) == full) {
            continue;
        }
        slim.insert(name.clone(), field);
    }
    Value::Object(slim)
}

fn recurrence(text: &str, reading: Reading<'_>) -> Result<Value, String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // One that has come to its end can still be described, disabled and so on.
    if let Some(stored) = reading.recurrence.filter(|stored| stored.text() == text) {
        return json(stored);
    }
    let recurrence = Recurrence::parse(&text, "UTC", reading.now).map_err(|e| e.to_string())?;
    // A file means the same on every machine.
    if recurrence.text() != text {
        return Err(format!("{text:?} has no time zone: write it behind, such as `{text} Europe/Berlin`, or `{text} UTC`"));
    }
    json(&recurrence)
}

fn keep(table: &toml::de::DeTable<'_>) -> Result<Value, Vec<Wrong>> {
    let mut kept = Map::new();
    let mut wrongs = vec![];
    for (key, count) in table.iter() {
        let name: &str = key.get_ref();
        if !Period::ALL.iter().any(|period| period.as_str() == name) {
            wrongs.push((key.span(), unknown("period", name, Period::ALL.iter().map(|period| period.as_str()))));
            continue;
        }
        let given = match count.get_ref() {
            DeValue::String(text) => text.parse::<Count>(),
            integer @ DeValue::Integer(_) => match number(integer).as_ref().and_then(Value::as_i64) {
                Some(integer) => Count::try_from(integer),
                None => Err("this number is too large".to_owned()),
            },
            other => Err(format!("this is {}, not a number of archives to keep: write 7, or \"all\"", described(other))),
        };
        match given {
            Ok(count) => drop(kept.insert(name.to_owned(), Value::from(i64::from(count)))),
            Err(why) => wrongs.push((count.span(), why)),
        }
    }
    if wrongs.is_empty() { Ok(Value::Object(kept)) } else { Err(wrongs) }
}

/// A name that nobody knows, with the one that was probably meant.
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let likeness = |known: &str| (strsim::jaro_winkler(known, &name.to_lowercase()) * 1000.0) as u32;
    match known.clone().map(|known| (likeness(known), known)).max() {
        Some((likeness, near)) if likeness >= 800 => format!("there is no {what} {name:?}; is {near} meant?"),
        _ => format!("there is no {what} {name:?}; there are {}", known.collect::<Vec<_>>().join(", ")),
    }
}
