//! The configuration as text: always the same for the same configuration.

use super::kind::Kind;
use super::object::Object;
use super::{Configuration, FORMAT};
use serde_json::Value;
use toml_writer::{ToTomlKey, ToTomlValue};

/// What is longer goes over several lines.
const WIDTH: usize = 100;

const HEAD: &str = "\
# The configuration of a BorgCube server, as borgcube export writes it; borgcube.toml(5) explains every field.
#
# It holds no secrets (passphrases, private keys and the ids of triggers stay on the server) and nothing that changes by itself (jobs,
# archives, holds). What is as it would be anyway is left out. Change it, look at what that would do, and do it:
#
#     borgcube diff borgcube.toml
#     borgcube apply borgcube.toml
";

/// Writes a configuration.
#[must_use]
pub fn export(configuration: &Configuration) -> String {
    let mut text = format!("{HEAD}\nformat = {FORMAT}\n");
    for object in configuration.objects() {
        text.push('\n');
        text.push_str(&table(&object));
    }
    text
}

fn table(object: &Object) -> String {
    let mut text = match object.kind {
        Kind::Settings => "[settings]\n".to_owned(),
        Kind::Trigger => "[[trigger]]\n".to_owned(),
        kind => format!("[{kind}.{}]\n", object.name.to_toml_key()),
    };
    for (field, value) in object.fields() {
        text.push_str(&format!("{} = ", field.name));
        text.push_str(&broken(value, field.name.len() + 3));
        text.push('\n');
    }
    text
}

/// A value that begins in column `from`, a list over several lines if it is long.
fn broken(value: &Value, from: usize) -> String {
    let line = inline(value);
    match value {
        Value::Array(elements) if from + line.len() > WIDTH || (elements.len() > 1 && elements.iter().any(Value::is_object)) => {
            let elements: String = elements.iter().map(|element| format!("    {},\n", inline(element))).collect();
            format!("[\n{elements}]")
        }
        _ => line,
    }
}

/// A value on one line, as TOML has it.
#[must_use]
pub fn inline(value: &Value) -> String {
    match value {
        // TOML has no null, and no record has one here.
        Value::Null => "\"\"".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.as_str().to_toml_value(),
        Value::Array(elements) => format!("[{}]", elements.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let mut entries: Vec<(&String, &Value)> = table.iter().filter(|(_, value)| !value.is_null()).collect();
            // What it is comes first; behind that, names sort whatever order they are kept in.
            entries.sort_by_key(|(name, _)| (!matches!(name.as_str(), "kind" | "key" | "name"), period(name), *name));
            let entries: Vec<String> =
                entries.iter().map(|(name, value)| format!("{} = {}", name.as_str().to_toml_key(), inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// Periods are in the order of their length.
fn period(name: &str) -> usize {
    crate::retention::Period::ALL.iter().position(|period| period.as_str() == name).unwrap_or(0)
}
