//! The OpenAPI document describes what is really answered: every answer is compared with its schema, and nothing is left undescribed.

use crate::pages::PAGES;
use crate::records::some;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether `value` is what `schema` describes, as far as our schemas go (types, properties, items, references, alternatives). Unlike JSON
/// Schema it also refuses properties that are not described.
pub fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).ok_or(format!("{place}: {reference} leads nowhere"))?;
        return check(document, target, value, place);
    }
    if let Some(alternatives) = schema["anyOf"].as_array() {
        let tried: Vec<_> = alternatives.iter().map(|schema| check(document, schema, value, place)).collect();
        return if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{place}: {tried:?}")) };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("{place}: a schema without a type: {schema}")),
    };
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !types.iter().any(|kind| is(kind)) {
        return Err(format!("{place}: {value} is not {types:?}"));
    }
    match value {
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(at, item)| check(document, &schema["items"], item, &format!("{place}[{at}]")))
        }
        Value::Object(fields) => {
            for required in schema["required"].as_array().into_iter().flatten() {
                let name = required.as_str().unwrap();
                if !fields.contains_key(name) {
                    return Err(format!("{place}: {name} is missing"));
                }
            }
            fields.iter().try_for_each(|(name, value)| match schema["properties"].get(name) {
                Some(schema) => check(document, schema, value, &format!("{place}.{name}")),
                None => Err(format!("{place}: {name} is not described")),
            })
        }
        _ => Ok(()),
    }
}

/// No JSON, or tried where there is an archive to read.
const ELSEWHERE: &[&str] = &[
    "/events",
    "/me",
    "/socket",
    "/archives/{repository}/{id}/files/{path}",
    "/archives/{repository}/{id}/file/{path}",
    "/archives/{repository}/{id}/tar/{path}",
];

/// The addresses of the table in `routes.rs`, with `{}` for what varies.
fn routes() -> BTreeSet<String> {
    let table = regex::Regex::new(r#"(?m)^ +\[("[a-z-]+"(?:, ["a-z-]+)*)\] => (?:render::view|\{)"#).unwrap();
    let segment = |segment: &str| segment.strip_prefix('"').map_or("{}".to_owned(), |name| name.trim_end_matches('"').to_owned());
    let address = |row: &str| row.split(", ").map(|one| format!("/{}", segment(one))).collect::<String>();
    table.captures_iter(include_str!("../../src/routes.rs")).map(|row| address(&row[1])).collect()
}

/// Forms and the question before something goes, which only administrators see.
fn is_form(path: &str) -> bool {
    ["/new", "/edit", "/remove"].iter().any(|end| path.ends_with(end))
}

#[test]
fn every_route_is_described() {
    let world = World::filled(some);
    let document = world.api("/openapi.json");
    let varying = regex::Regex::new(r"\{[a-z]+\}").unwrap();
    let looked_at = document["paths"].as_object().unwrap().iter().filter(|(_, methods)| methods.get("get").is_some());
    let described: BTreeSet<String> = looked_at.map(|(path, _)| varying.replace_all(path, "{}").into_owned()).collect();
    let routes = routes();
    assert!(routes.len() >= 14 && routes.contains("/archives/{}/{}"), "the measure itself: {routes:?}");
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(missing.is_empty(), "not in the document: {missing:?}");
    // What is no short read of the database is no row of the table; forms are tried in `forms`.
    let described: BTreeSet<String> = described.into_iter().filter(|path| !is_form(path)).collect();
    let elsewhere: BTreeSet<String> = ELSEWHERE.iter().map(|path| varying.replace_all(path, "{}").into_owned()).collect();
    assert_eq!(described.difference(&routes).cloned().collect::<BTreeSet<_>>(), elsewhere);
}

#[test]
fn answers_are_as_described() {
    let world = World::filled(some);
    let document = world.api("/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let mut used = BTreeSet::new();
    for path in PAGES {
        let asked: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
        let fits = |template: &str| {
            let segments: Vec<&str> = template.split('/').collect();
            segments.len() == asked.len() && segments.iter().zip(&asked).all(|(a, b)| a == b || a.starts_with('{'))
        };
        let template = paths.keys().find(|template| fits(template)).unwrap_or_else(|| panic!("{path} is not described"));
        let get = &paths[template]["get"];
        // Parameters are described as well.
        for (name, _) in path.split('?').nth(1).into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('=')) {
            assert!(get["parameters"].as_array().unwrap().iter().any(|p| p["name"] == name && p["in"] == "query"), "{path}: {name}");
        }
        let schema = &get["responses"]["200"]["content"]["application/json"]["schema"];
        check(&document, schema, &world.api(path), path).unwrap();
        used.insert(template.clone());
    }
    // What is done is tried in `access`, and so is who is asking.
    let looked_at = paths.iter().filter(|(path, what)| !ELSEWHERE.contains(&path.as_str()) && what["get"].is_object());
    // Forms are for administrators, and tried in `forms`.
    let looked_at = looked_at.filter(|(path, _)| !is_form(path));
    let described: BTreeSet<_> = looked_at.map(|(path, _)| path.clone()).collect();
    assert_eq!(used, described, "a path is described and never tried");
    let error: Value = serde_json::from_slice(&world.get("/api/v1/jobs/999").body).unwrap();
    check(&document, &document["components"]["schemas"]["Error"], &error, "error").unwrap();
    // The measure itself.
    let jobs = &paths["/jobs"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    let mut wrong = world.api("/jobs");
    wrong["jobs"][0]["number"] = "7".into();
    assert!(check(&document, jobs, &wrong, "").unwrap_err().contains("jobs[0].number"));
    let mut more = world.api("/jobs");
    more["jobs"][0]["secret"] = 1.into();
    assert!(check(&document, jobs, &more, "").is_err());
    let mut less = world.api("/jobs");
    less["jobs"][0].as_object_mut().unwrap().remove("state");
    assert!(check(&document, jobs, &less, "").is_err());
}
