//! An object as the file has it: its name, and the fields that are not as they would be anyway.

use super::fields::Field;
use super::kind::{Kind, Record};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What one table of the file says. Two records with equal objects differ in nothing that the file could say.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its fields as the file has them, by their place among [`Kind::fields`].
    pub(super) fields: BTreeMap<usize, Value>,
}

impl Object {
    /// What the file says of a record.
    #[must_use]
    pub fn of(record: &Record) -> Object {
        let kind = record.kind();
        let json = record.json();
        let usual = usual(kind);
        let mut fields = BTreeMap::new();
        for (at, (field, usual)) in kind.fields().iter().zip(usual).enumerate() {
            let shown = find(&json, field.path).and_then(|value| field.form.show(value));
            if let Some(shown) = shown.filter(|shown| field.required || usual.as_ref() != Some(shown)) {
                fields.insert(at, shown);
            }
        }
        Object { kind, name: record.name(), fields }
    }

    /// Its fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, &Value)> {
        let all = self.kind.fields();
        self.fields.iter().filter_map(move |(at, value)| Some((all.get(*at)?, value)))
    }

    /// One field, if it is not as it would be anyway.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields().find(|(field, _)| field.name == name).map(|(_, value)| value)
    }

    /// For programs: `{"kind": .., "name": .., "fields": {..}}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let fields: serde_json::Map<String, Value> = self.fields().map(|(field, value)| (field.name.to_owned(), value.clone())).collect();
        serde_json::json!({"kind": self.kind, "name": self.name, "fields": fields})
    }

    /// For people: `client web1`, `settings`.
    #[must_use]
    pub fn title(&self) -> String {
        title(self.kind, &self.name)
    }
}

/// For people: `client web1`, `settings`.
pub(super) fn title(kind: Kind, name: &str) -> String {
    if name.is_empty() { kind.to_string() } else { format!("{kind} {name}") }
}

/// What each field of a kind is as long as nobody says otherwise.
pub(super) fn usual(kind: Kind) -> &'static [Option<Value>] {
    static USUAL: LazyLock<BTreeMap<Kind, Vec<Option<Value>>>> = LazyLock::new(|| {
        let of = |kind: Kind| {
            // Any name will do.
            let name = if kind == Kind::Config { "x/x" } else { "x" };
            let blank = kind.blank(name).and_then(|blank| kind.record(blank)).map(|record| record.json()).unwrap_or_default();
            kind.fields().iter().map(|field| find(&blank, field.path).and_then(|value| field.form.show(value))).collect()
        };
        Kind::ALL.into_iter().map(|kind| (kind, of(kind))).collect()
    });
    USUAL.get(&kind).map_or(&[], Vec::as_slice)
}

pub(super) fn find<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

pub(super) fn set(value: &mut Value, path: &[&str], field: Value) {
    let at = path.iter().fold(value, |value, name| &mut value[*name]);
    *at = field;
}
