//! A server is set up through forms, by somebody with a browser that has no scripts; what stock commands say afterwards agrees.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use tests::{PATIENCE, text, wait_for_end};

/// A browser as far as forms need one: it keeps a cookie, and sends what is in the fields.
struct Browser {
    address: String,
    cookie: String,
}

struct Page {
    status: u16,
    head: String,
    html: String,
}

type Fields = BTreeMap<String, String>;

impl Browser {
    fn new(system: &TestSystem) -> Browser {
        let url = retry_until(PATIENCE, || fs::read_to_string(system.state().join("run/status.url")).ok()).expect("an address");
        let browser = Browser { address: url.trim().trim_start_matches("http://").trim_end_matches('/').to_owned(), cookie: String::new() };
        assert!(retry_until(PATIENCE, || (browser.get("/healthz").status == 200).then_some(())).is_some(), "{}", system.log());
        browser
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Page {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (address, cookie, length) = (&self.address, &self.cookie, body.len());
        let kind = "application/x-www-form-urlencoded";
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nOrigin: http://{address}\r\nCookie: {cookie}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut whole = String::new();
        stream.read_to_string(&mut whole).unwrap();
        let (head, html) = whole.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer for {path}: {whole}"));
        Page { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head: head.to_owned(), html: html.to_owned() }
    }

    fn get(&self, path: &str) -> Page {
        self.request("GET", path, "")
    }

    fn post(&self, path: &str, fields: &Fields) -> Page {
        let encode = |text: &str| {
            text.bytes()
                .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
                .collect::<String>()
        };
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        self.request("POST", path, &body.join("&"))
    }

    fn sign_in(&mut self, token: &str) {
        let fields = [("token", token), ("next", "/clients")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let page = self.post("/sign-in", &fields);
        assert_eq!(page.status, 303, "{}", page.html);
        let cookie = page.header("set-cookie");
        self.cookie = cookie.split(';').next().unwrap().to_owned();
    }

    /// Fills the form on a page in, and sends it.
    fn fill(&self, path: &str, changes: &[(&str, &str)]) -> Page {
        let page = self.get(path);
        assert_eq!(page.status, 200, "{path}: {}", page.html);
        self.send(&page, changes)
    }

    /// Sends the form of a page with these changes.
    fn send(&self, page: &Page, changes: &[(&str, &str)]) -> Page {
        let (act, mut fields) = page.form();
        for (name, value) in changes {
            assert!(fields.contains_key(*name), "the form {act} has no field {name}: {fields:?}");
            fields.insert((*name).to_owned(), (*value).to_owned());
        }
        self.post(&act, &fields)
    }
}

impl Page {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")));
        line.map_or("", |line| &line[name.len() + 2..])
    }

    /// The address and the fields of the form that records have, as a browser would send them.
    fn form(&self) -> (String, Fields) {
        let from = self.html.find("action=\"/do/").unwrap_or_else(|| panic!("no form: {}", self.html));
        let form = &self.html[from..];
        let form = &form[..form.find("</form>").unwrap()];
        let mut fields = Fields::new();
        for (at, _) in form.match_indices(['<']) {
            let tag = &form[at..];
            let (opening, behind) = tag.split_once('>').unwrap_or((tag, ""));
            let Some(name) = attribute(opening, "name") else { continue };
            let value = match opening.split([' ', '>']).next().unwrap() {
                "<input" if opening.contains("type=\"checkbox\"") && !opening.contains(" checked") => continue,
                "<input" => attribute(opening, "value").unwrap_or_default(),
                "<textarea" => unescape(&behind[..behind.find("</textarea>").unwrap()]).trim_start_matches('\n').to_owned(),
                "<select" => {
                    let options = &behind[..behind.find("</select>").unwrap()];
                    let chosen = options.split("<option").find(|option| option.contains(" selected")).or(options.split("<option").nth(1));
                    attribute(chosen.unwrap(), "value").unwrap_or_default()
                }
                _ => continue,
            };
            fields.insert(name, value);
        }
        (attribute(form, "action").unwrap(), fields)
    }

    /// Where somebody is sent on to, with everything there.
    #[track_caller]
    fn done(&self, browser: &Browser) -> String {
        assert_eq!(self.status, 303, "{}", self.html);
        let page = browser.get(self.header("location"));
        assert_eq!(page.status, 200);
        page.html
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    Some(unescape(rest.split_once('"')?.0))
}

fn unescape(text: &str) -> String {
    let pairs = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    pairs.into_iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Another machine, as far as `ssh` leads to it: what it is to run, runs here.
fn other_machine() -> (tempfile::TempDir, String) {
    let directory = tempfile::Builder::new().prefix("bc-").tempdir().unwrap();
    let ssh = directory.path().join("ssh");
    fs::write(&ssh, "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n").unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    (directory, path)
}

#[test]
fn a_server_is_set_up_through_forms() {
    let (_ssh, path) = other_machine();
    let system = TestSystem::start_with(&[("PATH", &path)]);
    system.add_repository("main", "none", None);
    let source = system.join("source");
    make(&source, Spec::default());
    let mut browser = Browser::new(&system);
    assert_eq!(browser.get("/clients/new").status, 303, "to the sign-in");
    browser.sign_in(text(&system.cli_json(&["user", "add", "alice", "--role", "administrator"]), "token"));

    // A mistake first: it is named, and nothing that was typed is lost.
    let typed = [("name", "new1"), ("remote", "root@new1"), ("description", "für <alle>")];
    let page = browser.fill("/clients/new", &typed);
    assert_eq!(page.status, 422);
    assert!(page.html.contains("id=\"f-server-error\"") && page.html.contains("aria-describedby=\"f-server-error"), "{}", page.html);
    let (_, fields) = page.form();
    assert!(typed.iter().all(|(name, value)| fields[*name] == *value), "{fields:?}");
    let html = browser.send(&page, &[("road", "carrier"), ("blackouts", "mon 01:00-01:01 UTC")]).done(&browser);
    assert!(html.contains("Added client new1.") && html.contains("f&#252;r") | html.contains("für"), "{html}");
    let client = system.cli_json(&["client", "show", "new1"]);
    assert_eq!((text(&client, "description"), text(&client["connection"], "remote")), ("für <alle>", "root@new1"));
    assert_eq!((text(&client["connection"], "road"), &client["connection"]["rsh"]), ("carrier", &Value::Null));

    let paths = source.display().to_string();
    let config = [("name", "all"), ("paths", &*paths), ("compression", "zstd,3"), ("target_age_hours", "30")];
    browser.fill("/clients/new1/configs/new", &config).done(&browser);
    let stored = system.cli_json(&["config", "show", "new1/all"]);
    assert_eq!(
        (text(&stored, "compression"), stored["paths"][0].as_str(), &stored["target_age_hours"]),
        ("zstd,3", Some(&*paths), &30.into())
    );
    let html = browser.fill("/schedules/new", &[("name", "nightly"), ("at", "daily 02:30 UTC"), ("action-1", "run"), ("of-1", "new1/all")]);
    assert!(html.done(&browser).contains("daily 02:30 UTC"));
    assert_eq!(system.cli_json(&["schedule", "show", "nightly"])["actions"][0]["config"], "new1/all");

    // A backup by what was made so, on the client that was made so.
    let page = browser.get("/clients/new1");
    let run = page.html.find("action=\"/do/run-config\"").unwrap_or_else(|| panic!("{}", page.html));
    let button = Page { html: page.html[run..].to_owned(), ..page };
    let html = browser.send(&button, &[]).done(&browser);
    let job = system.cli_json(&["job", "list"])[0]["number"].as_u64().unwrap_or_else(|| panic!("{html}"));
    let job = wait_for_end(&system, job);
    assert_eq!((text(&job, "state"), text(&job, "actor")), ("done", "web:alice"), "{job}");

    // What a policy would do is shown before it is stored.
    let policy = [("name", "standard"), ("keep_daily", "7"), ("configs", "new1/all"), ("zone", "UTC")];
    let page = browser.fill("/policies/new", &policy);
    assert_eq!(page.status, 200);
    assert!(page.html.contains("Nothing is saved yet") && page.html.contains("1 kept"), "{}", page.html);
    assert_eq!(system.cli_json(&["policy", "list"]), Value::Array(vec![]));
    browser.send(&page, &[]).done(&browser);
    let stored = system.cli_json(&["policy", "show", "standard"]);
    assert_eq!((&stored["keep"]["daily"], &stored["applies"][0]["config"]), (&7.into(), &"new1/all".into()));

    // Somebody else is faster: what was typed stays, what is stored is shown, and the second time it is saved.
    let page = browser.get("/clients/new1/configs/all/edit");
    system.cli_ok(&["config", "edit", "new1/all", "--compression", "lz4"]);
    let page = browser.send(&page, &[("excludes", "*.tmp")]);
    assert_eq!(page.status, 422);
    assert!(page.html.contains("was changed by somebody else") && page.html.contains(">lz4<"), "{}", page.html);
    assert_eq!(system.cli_json(&["config", "show", "new1/all"])["excludes"], Value::Array(vec![]));
    browser.send(&page, &[("compression", "lz4")]).done(&browser);
    let stored = system.cli_json(&["config", "show", "new1/all"]);
    assert_eq!((text(&stored, "compression"), &stored["excludes"][0]), ("lz4", &"*.tmp".into()));

    // What is refused says so on the page of the question; the other way round it goes.
    let page = browser.fill("/clients/new1/remove", &[]);
    assert!(page.status == 422 && page.html.contains("new1/all"), "{} {}", page.status, page.html);
    browser.fill("/schedules/nightly/remove", &[]).done(&browser);
    assert_eq!(system.cli_json(&["schedule", "list"]), Value::Array(vec![]));

    let log = system.cli_json(&["log"]);
    let notes: Vec<&str> =
        log.as_array().unwrap().iter().filter(|entry| entry["actor"] == "web:alice").map(|entry| text(entry, "note")).collect();
    let expected = [
        "remove schedule nightly",
        "change config new1/all",
        "add policy standard",
        "run config new1/all",
        "add schedule nightly",
        "add config new1/all",
        "add client new1",
    ];
    assert_eq!(notes, expected);
}
