//! Text of others is data on every page: names that people chose, and what clients, paths and errors say.

use crate::pages::PAGES;
use crate::records::{self, some};
use crate::world::{Control, World};
use model::archive::{Hold, PendingDeletion};
use model::check::DamagedFiles;
use model::progress::Progress;
use model::{Cause, Connection, Failure, JobState, Timestamp};
use wire::control::Event;
use wire::worker::LogLine;

/// Each breaks out of another place: text, attributes with either quote, comments, scripts, titles, templates, entities, addresses.
pub const CORPUS: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(2)>",
    "' onmouseover='alert(3)' x='",
    "\" autofocus onfocus=\"alert(4)",
    "</title></textarea></style></script><svg onload=alert(5)>",
    "--><iframe src=javascript:alert(6)>",
    "]]><![CDATA[<b>7</b>",
    "{{ 8 }}{% raw %}{# 8 #}",
    "&lt;script&gt;alert(9)&lt;/script&gt;",
    "javascript:alert(10)",
    "<\u{0}scr\u{0}ipt>alert(11)</script>",
    "\u{202e}<b>12</b>\u{2066}",
    "\\u003cscript\\u003ealert(13)",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(14)>",
];

pub fn fill(store: &store::Store, evil: &str) {
    some(store);
    let text = evil.replace('\0', "\u{fffd}");
    let text = &text;
    store
        .write(text, text, |w| {
            w.repositories().update(&"main".parse().unwrap(), |repository| {
                repository.description = text.clone();
                repository.url = format!("/srv/{text}");
                Ok(())
            })?;
            w.clients().update(&"web1".parse().unwrap(), |client| {
                client.description = text.clone();
                client.connection =
                    Connection::Ssh(model::client::SshConnection { remote: text.clone(), ..model::client::SshConnection::default() });
                Ok(())
            })?;
            w.configs().update(&"web1/etc".parse().unwrap(), |config| {
                config.paths = vec![text.clone()];
                Ok(())
            })?;
            w.schedules().update(&"nightly".parse().unwrap(), |schedule| {
                schedule.description = text.clone();
                schedule.actions = vec![model::Action::RunConfigs { client: text.clone(), label: text.clone() }];
                Ok(())
            })?;
            let mut health = records::health("main", true);
            if let Some(damage) = &mut health.damage {
                damage.errors = vec![text.clone()];
                damage.unknown = damage.archives.clone();
                for archive in damage.archives.iter_mut().chain(&mut damage.unknown) {
                    archive.name = text.clone();
                    archive.error = Some(text.clone());
                    archive.files = Some(DamagedFiles { paths: vec![text.clone()], more: 1, incomplete: Some(text.clone()) });
                }
            }
            w.health().put(&health)?;
            w.policies().update(&"standard".parse().unwrap(), |policy| {
                policy.description = text.clone();
                Ok(())
            })?;
            w.jobs().update(&5, |job| {
                job.failure = Some(Failure::new(Cause::ClientBorgFailed { code: 2, msgid: text.clone() }, text.clone()));
                job.warnings = vec![text.clone(); 2];
                job.warning_count = 2;
                job.actor = text.clone();
                job.client_borg = Some(text.clone());
                job.archive_name = Some(text.clone());
                Ok(())
            })?;
            w.archives().update(&store::ArchiveKey::of(&records::archive(3, "web1/etc", 12)), |archive| {
                archive.name = text.clone();
                archive.comment = text.clone();
                archive.claims = vec![text.clone()];
                archive.warnings = vec![text.clone()];
                archive.suspicious = true;
                archive.hold = Some(Hold { since: Timestamp(1), by: text.clone(), reason: text.clone() });
                let due = Timestamp(2);
                archive.pending_deletion = Some(PendingDeletion { since: Timestamp(1), due, by: text.clone(), policy: None });
                Ok(())
            })
        })
        .unwrap();
}

/// A page with all that we write ourselves taken out: what is left has no markup in it.
pub fn check(path: &str, page: &str, evil: &str) {
    assert!(!page.contains(evil) || !evil.contains(['<', '"', '\'']), "{path} has {evil} as it is");
    for tag in ["<iframe", "<img src=x", "<svg onload", "<math", "<mglyph", "<form><", "<b>7", "<b>12", "onerror=alert(2)>", "<scr\u{fffd}"]
    {
        assert!(!page.contains(tag), "{path}: {tag} of {evil}");
    }
    // Every tag is one of ours, its attributes are ours, and none is a handler.
    let tag = regex::Regex::new(r#"<(/?[a-zA-Z!][a-zA-Z0-9]*)((?:\s+[a-zA-Z-]+(?:="[^"<>]*")?)*)\s*/?>"#).unwrap();
    let known = [
        "!DOCTYPE",
        "html",
        "head",
        "meta",
        "title",
        "link",
        "script",
        "body",
        "a",
        "header",
        "img",
        "nav",
        "ul",
        "li",
        "main",
        "div",
        "p",
        "strong",
        "code",
        "h1",
        "h2",
        "h3",
        "section",
        "span",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
        "br",
        "b",
        "time",
        "progress",
        "footer",
        "ol",
        "form",
        "label",
        "select",
        "option",
        "button",
        "input",
        "textarea",
        "datalist",
        "fieldset",
        "legend",
        "figure",
        "figcaption",
        "svg",
        "rect",
    ];
    let values = regex::Regex::new(r#""[^"]*""#).unwrap();
    let handler = regex::Regex::new(r"(?i)\son[a-z]+=").unwrap();
    let rest = tag.replace_all(page, "");
    for found in tag.captures_iter(page) {
        let name = found[1].trim_start_matches('/');
        assert!(known.contains(&name), "{path}: <{name}> of {evil}");
        let attributes = values.replace_all(&found[2], "").into_owned();
        assert!(!handler.is_match(&attributes), "{path}: {attributes} of {evil}");
        // What is typed into a field leads nowhere.
        let leads = ["href", "src", "action", "formaction"].iter().any(|name| found[2].contains(&format!(" {name}=\"javascript:")));
        assert!(!leads, "{path}: {}", &found[2]);
    }
    assert!(!rest.contains('<'), "{path}: {} of {evil}", &rest[rest.find('<').unwrap()..].chars().take(200).collect::<String>());
}

#[test]
fn what_others_write_is_text() {
    for evil in CORPUS {
        let world = World::filled(|store| fill(store, evil));
        let line = LogLine { time: Timestamp(1), level: (*evil).into(), source: (*evil).into(), message: (*evil).into() };
        let control = Control::listen(&world, vec![line; 3]);
        control.wait();
        let mut running = records::job(7, "new1/all");
        running.update_state(JobState::JobCreated, JobState::ClientPreparing, Timestamp::now()).unwrap();
        world.store.write("begin", "root", |w| w.jobs().put(&running)).unwrap();
        let mut viewer = world.events(None);
        let progress = Progress { path: (*evil).into(), ..Progress::default() };
        control.events.send(Event::Progress { job: 7, progress }).unwrap();
        // JSON in one line, whatever is in it.
        assert_eq!(viewer.named("progress").data["progress"]["path"], *evil);
        for path in PAGES {
            check(path, &world.page(path), evil);
        }
        // It was there to be seen.
        let log = &world.api("/jobs/5")["log"];
        assert_eq!(log[0]["message"], *evil);
        let escaped = evil.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;").replace('"', "&#34;").replace('\'', "&#39;");
        for (path, needed) in [("/jobs/5", &escaped), ("/", &escaped), ("/jobs/7", &escaped)] {
            assert!(world.page(path).contains(needed.as_str()), "{path} does not show {evil}");
        }
        // In an address, and back out of it.
        let query: String = form(evil);
        let answer = world.get(&format!("/jobs?state={query}&client={query}"));
        assert_eq!(answer.status, 400);
        check("/jobs?", &answer.text(), evil);
        check("/x", &world.get(&format!("/{query}")).text(), evil);
        check("/log", &world.get(&format!("/log?limit=1&x={query}")).text(), evil);
    }
}

/// Percent-encoded.
pub fn form(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
