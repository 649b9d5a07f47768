//! The OpenAPI document, made of the very types that the answers are made of.

use crate::view::{
    About, ArchivePage, ArchivesPage, ClientPage, ClientsPage, Dashboard, FilesPage, JobPage, JobsPage, LogPage, PoliciesPage, PolicyPage,
    RepositoriesPage, RepositoryPage, SchedulesPage,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// A parameter of the query.
type Parameter = (&'static str, &'static str, &'static str);

const BEFORE: Parameter = ("before", "string", "The place behind which to go on; `window.next` of an answer has it");
const LIMIT: Parameter = ("limit", "integer", "At most so many, 1 to 500");
const CLIENT: Parameter = ("client", "string", "Of this client");
const REPOSITORY: Parameter = ("repository", "string", "In this repository");
const CONFIG: Parameter = ("config", "string", "Of this config, CLIENT/LABEL");
const LABEL: Parameter = ("label", "string", "Of configs with this label");
const STATE: Parameter = ("state", "string", "In this state, or one of queued, running, done, failed, cancelled");
const KIND: Parameter = ("kind", "string", "Of this kind: backup, check, compact, prune, restore, restore-test, import");

/// The document, OpenAPI 3.1, as JSON.
#[must_use]
pub fn document() -> String {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.for_serialize().into_generator();
    let mut paths = Map::new();
    let g = &mut generator;
    add::<Dashboard>(&mut paths, g, "/dashboard", "What people look at every morning", &[]);
    add::<ClientsPage>(&mut paths, g, "/clients", "All clients", &[]);
    add::<ClientPage>(&mut paths, g, "/clients/{name}", "One client", &[BEFORE]);
    add::<RepositoriesPage>(&mut paths, g, "/repositories", "All repositories", &[]);
    add::<RepositoryPage>(&mut paths, g, "/repositories/{name}", "One repository", &[]);
    add::<JobsPage>(&mut paths, g, "/jobs", "Jobs, the newest first", &[STATE, KIND, CLIENT, REPOSITORY, CONFIG, LABEL, BEFORE, LIMIT]);
    add::<JobPage>(&mut paths, g, "/jobs/{number}", "One job, with its log", &[]);
    add::<ArchivesPage>(&mut paths, g, "/archives", "Archives, the newest first", &[CLIENT, REPOSITORY, CONFIG, BEFORE, LIMIT]);
    add::<ArchivePage>(&mut paths, g, "/archives/{repository}/{id}", "One archive", &[]);
    let from = ("from", "integer", "The number of the first entry, counted from 0");
    let files = "A directory of an archive, for operators, if the setting web-downloads is on; without a path: the archive";
    add::<FilesPage>(&mut paths, g, "/archives/{repository}/{id}/files/{path}", files, &[from, LIMIT]);
    for (what, summary) in
        [("file", "A file of an archive"), ("tar", "A directory of an archive, or without a path all of it, as a tar archive")]
    {
        paths.insert(format!("/archives/{{repository}}/{{id}}/{what}/{{path}}"), download(summary));
    }
    let month = ("month", "string", "The month of the calendar, such as 2026-11");
    add::<SchedulesPage>(&mut paths, g, "/schedules", "Schedules, and a month of them", &[month]);
    add::<PoliciesPage>(&mut paths, g, "/policies", "Retention policies", &[]);
    let after = ("after", "string", "The config behind which to go on; `window.next` of an answer has it");
    add::<PolicyPage>(&mut paths, g, "/policies/{name}", "One retention policy, and what it would do now", &[after]);
    add::<LogPage>(&mut paths, g, "/log", "The transaction log, the newest first", &[BEFORE, LIMIT]);
    add::<About>(&mut paths, g, "/about", "Versions and health", &[]);
    paths.insert(
        "/events".into(),
        json!({ "get": {
            "summary": "Server-sent events: job, progress, repository, schedules, borgcubed, resync",
            "responses": { "200": { "description": "For as long as the connection lasts", "content": { "text/event-stream": {} } } }
        } }),
    );
    paths.insert(
        "/socket".into(),
        json!({ "get": {
            "summary": "A WebSocket with the same events, each a JSON object of id (not of all), event and data",
            "parameters": [{ "name": "after", "in": "query", "description": "The id of the last event that was seen", "schema": { "type": "string" } }],
            "responses": { "101": { "description": "For as long as the connection lasts" }, "403": { "description": "A page of another server" }, "426": { "description": "No handshake" } }
        } }),
    );
    let mut schemas = generator.take_definitions(true);
    schemas.insert(
        "Error".into(),
        json!({ "type": "object", "required": ["error"], "properties": { "error": { "type": "object", "required": ["status", "message"],
            "properties": { "status": { "type": "integer" }, "message": { "type": "string" } } } } }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "BorgCube status",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Reading only. Moments are microseconds since 1970-01-01T00:00:00Z, sizes are bytes."
        },
        "servers": [{ "url": "/api/v1" }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
    .to_string()
}

/// What is no JSON. The path has as many segments as the file has names above it.
fn download(summary: &str) -> Value {
    let in_path =
        ["repository", "id", "path"].map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    json!({ "get": {
        "summary": summary,
        "parameters": in_path,
        "responses": { "200": { "description": summary, "content": { "application/octet-stream": {} } } }
    } })
}

fn add<T: JsonSchema>(paths: &mut Map<String, Value>, generator: &mut SchemaGenerator, path: &str, summary: &str, query: &[Parameter]) {
    let schema = generator.subschema_for::<T>();
    let in_path = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query =
        query.iter().map(|(name, kind, about)| json!({ "name": name, "in": "query", "description": about, "schema": { "type": kind } }));
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let error =
        json!({ "description": "Why not", "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } });
    let get = json!({ "get": {
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": summary, "content": { "application/json": { "schema": schema } } },
            "400": error, "404": error, "503": error
        }
    } });
    paths.insert(path.to_owned(), get);
}
