//! The OpenAPI document, made of the very types that the answers are made of.

use crate::acts::{ACTS, Act, Kind, Outcome};
use crate::forms::{self, Control, Description, FormPage, Question};
use crate::view::{
    About, ArchivePage, ArchivesPage, CheckConfigsPage, ClientPage, ClientsPage, Dashboard, FilesPage, JobPage, JobsPage, LogPage,
    PoliciesPage, PolicyPage, RepositoriesPage, RepositoryPage, SchedulesPage,
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
    add::<CheckConfigsPage>(&mut paths, g, "/check-configs", "Check configs", &[]);
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
    let text = || json!({ "type": "string" });
    paths.insert(
        "/me".into(),
        json!({ "get": {
            "summary": "Who is asking; csrf is what acts take from who is signed in without a bearer token",
            "responses": { "200": { "description": "The user, or null", "content": { "application/json": { "schema": {
                "type": "object", "required": ["user"], "properties": { "user": { "type": ["object", "null"], "required": ["name", "role", "csrf"],
                "properties": { "name": text(), "role": text(), "csrf": text() } } } } } } } }
        } }),
    );
    let outcome = generator.subschema_for::<Outcome>();
    for act in ACTS {
        paths.insert(format!("/do/{}", act.name), describe(act, &outcome));
    }
    let (form, question) = (generator.subschema_for::<FormPage>(), generator.subschema_for::<Question>());
    for description in forms::descriptions() {
        let page = if description.fields.is_empty() { &question } else { &form };
        paths.insert(description.path.clone(), form_page(&description, page));
        paths.insert(format!("/do/{}", description.act), form_act(&description, &outcome));
    }
    outside(&mut paths);
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
            "description": "Whoever may look may read. What is below /do is done for users, if their role allows it, and stands in the transaction log \
                under web:NAME. Moments are microseconds since 1970-01-01T00:00:00Z, sizes are bytes."
        },
        "servers": [{ "url": "/api/v1" }],
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": {
            "token": { "type": "http", "scheme": "bearer", "description": "borgcube user add prints one" },
            "session": { "type": "apiKey", "in": "cookie", "name": crate::access::COOKIE }
        } },
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

fn error_schema(description: &str) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } })
}

/// Something that can be done.
fn describe(act: &Act, outcome: &schemars::Schema) -> Value {
    let mut properties = Map::new();
    for field in act.fields {
        let kind = match field.kind {
            Kind::Text => json!({ "type": "string", "description": field.about }),
            Kind::Number => json!({ "type": "integer", "description": field.about }),
            Kind::Switch => json!({ "type": "boolean", "description": field.about }),
            Kind::Texts => json!({ "type": "array", "items": { "type": "string" }, "description": field.about }),
        };
        properties.insert(field.name.to_owned(), kind);
    }
    properties.insert("csrf".into(), json!({ "type": "string", "description": "As /me says; not with a bearer token" }));
    let required: Vec<&str> = act.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    json!({ "post": {
        "summary": format!("{} ({})", act.about, act.role),
        "security": [{ "token": [] }, { "session": [] }],
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object", "required": required, "properties": properties
        } } } },
        "responses": {
            "200": { "description": act.said, "content": { "application/json": { "schema": {
                "type": "object", "required": ["outcome", "reply"],
                "properties": { "outcome": outcome, "reply": { "type": "object", "description": "The answer of borgcubed" } }
            } } } },
            "400": error_schema("The fields make no sense"), "401": error_schema("Nobody has signed in"),
            "403": error_schema("The role does not allow it, or nobody may do it here"), "404": error_schema("There is no such thing"),
            "409": error_schema("Something stands in the way"), "429": error_schema("Too often"), "503": error_schema("borgcubed does not answer")
        }
    } })
}

/// A form as it is shown first: what may be sent, and what is in it.
fn form_page(description: &Description, page: &schemars::Schema) -> Value {
    let in_path = description.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> =
        in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })).collect();
    json!({ "get": {
        "summary": format!("{}: the form", description.about),
        "security": [{ "token": [] }, { "session": [] }],
        "parameters": parameters,
        "responses": {
            "200": { "description": "Its fields, and what is in them", "content": { "application/json": { "schema": page } } },
            "401": error_schema("Nobody has signed in"), "403": error_schema("The role does not allow it"), "404": error_schema("There is no such record")
        }
    } })
}

/// What a form is sent to.
fn form_act(description: &Description, outcome: &schemars::Schema) -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let mut properties = Map::new();
    for field in &description.fields {
        let kind = match field.control {
            Control::Number => json!(["integer", "string"]),
            Control::Switch => json!(["boolean", "string"]),
            Control::Lines => json!(["array", "string"]),
            Control::Line(_) | Control::Choice(_) | Control::Fixed => json!("string"),
        };
        let about = [field.label.as_str(), field.hint.as_str()].join(". ");
        properties.insert(field.name.clone(), json!({ "type": kind, "items": { "type": "string" }, "description": about }));
    }
    if description.act.ends_with("-policy") && !description.act.starts_with("remove-") {
        properties.insert(
            "preview".into(),
            json!({ "type": ["boolean", "string"], "description": "Store nothing, answer with what the rules would do" }),
        );
    }
    let required: &[&str] = if description.act.starts_with("add-") { &[] } else { &["record", "version"] };
    if !description.act.starts_with("add-") {
        properties.insert("record".into(), text("The record's name"));
        properties.insert("version".into(), text("As the form has it: refused if somebody changed the record since then"));
    }
    properties.insert("csrf".into(), text("As /me says; not with a bearer token"));
    json!({ "post": {
        "summary": format!("{} (administrator)", description.about),
        "security": [{ "token": [] }, { "session": [] }],
        "requestBody": { "required": true, "content": { "application/json": { "schema": { "type": "object", "required": required, "properties": properties } } } },
        "responses": {
            "200": { "description": "Done", "content": { "application/json": { "schema": {
                "type": "object", "required": ["outcome", "reply"],
                "properties": { "outcome": outcome, "reply": { "type": "object", "description": "The answer of borgcubed" } }
            } } } },
            "401": error_schema("Nobody has signed in"), "403": error_schema("The role does not allow it, or nobody may do it here"),
            "404": error_schema("There is no such record"), "409": error_schema("Something stands in the way"),
            "422": error_schema("Something is wrong with the fields; the form with it is in the answer, too"),
            "503": error_schema("borgcubed does not answer")
        }
    } })
}

/// What is not below /api/v1.
fn outside(paths: &mut Map<String, Value>) {
    let root = json!([{ "url": "/" }]);
    let id = json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }]);
    let jobs =
        json!({ "type": "object", "required": ["jobs"], "properties": { "jobs": { "type": "array", "items": { "type": "integer" } } } });
    paths.insert(
        "/trigger/{id}".into(),
        json!({ "servers": root, "post": {
            "summary": "Use a trigger that was added for anonymous-web; nobody has to sign in",
            "parameters": id,
            "responses": {
                "200": { "description": "The jobs that were created", "content": { "application/json": { "schema": jobs } } },
                "404": error_schema("It cannot be used, whyever"), "429": error_schema("Too often"), "503": error_schema("borgcubed does not answer")
            }
        } }),
    );
    paths.insert(
        "/sign-in".into(),
        json!({ "servers": root, "post": {
            "summary": "Sign in with a token: the answer sets a cookie. Programs send the token with each request instead",
            "requestBody": { "required": true, "content": { "application/x-www-form-urlencoded": { "schema": {
                "type": "object", "required": ["token"], "properties": { "token": { "type": "string" }, "next": { "type": "string" } }
            } } } },
            "responses": {
                "303": { "description": "Signed in; on to the page" }, "403": { "description": "No user has that token" },
                "429": { "description": "Too often" }
            }
        } }),
    );
}

fn add<T: JsonSchema>(paths: &mut Map<String, Value>, generator: &mut SchemaGenerator, path: &str, summary: &str, query: &[Parameter]) {
    let schema = generator.subschema_for::<T>();
    let in_path = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query =
        query.iter().map(|(name, kind, about)| json!({ "name": name, "in": "query", "description": about, "schema": { "type": kind } }));
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let error = error_schema("Why not");
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
