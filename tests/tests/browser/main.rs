//! The status pages in Debian's Chromium, while a backup runs: every page that a link leads to, light and dark, on a desk and in a hand, by keyboard, as
//! axe sees it, and without scripts.
//!
//! The pictures are in `target/pictures`. Without Chromium or axe-core (scripts/setup test) it says NOT RUN.

mod devtools;
mod scene;

use devtools::Browser;
use scene::{Scene, shape};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use testkit::system::programs;
use tests::wait_for_end;

const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);

/// Every kind of page there is.
const KINDS: &[&str] = &[
    "/",
    "/about",
    "/archives",
    "/archives/*/*",
    "/clients",
    "/clients/*",
    "/jobs",
    "/jobs/*",
    "/log",
    "/policies",
    "/policies/*",
    "/repositories",
    "/repositories/*",
    "/schedules",
    "/sign-in",
];

/// What people with a keyboard or a screen reader need, and what a narrow screen must not have.
const BASICS: &str = r#"[
    ...[...document.querySelectorAll("img:not([alt]), a:not([href]), th:not([scope]), svg:not([aria-label]), progress:not([aria-label])")].map((e) => e.outerHTML),
    ...[...document.querySelectorAll("select, input:not([type=hidden]), textarea")].filter((e) => e.labels.length === 0).map((e) => e.outerHTML),
    ...(document.querySelectorAll("h1").length === 1 && document.querySelectorAll("main").length === 1 ? [] : ["not one h1 in one main"]),
    ...(document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] : [
        `${document.documentElement.scrollWidth} wide on ${document.documentElement.clientWidth}`,
        ...[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth).map((e) => e.outerHTML.slice(0, 200)),
    ]),
]"#;

/// Follows every link of every page, as far as they are ours; gives each address with its status. Months go on for ever, so only those beside the
/// present one are looked at.
const CRAWL: &str = r#"(async () => {
    const found = {}, waiting = ["/", "/nothing/of/the/kind"];
    while (waiting.length > 0) {
        const path = waiting.shift();
        if (path in found) continue;
        const answer = await fetch(path);
        found[path] = answer.status;
        if (!(answer.headers.get("content-type") || "").startsWith("text/html")) { await answer.text(); continue; }
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const [selector, name] of [["a[href], link[href]", "href"], ["script[src], img[src]", "src"], ["form[action]:not([method=post])", "action"]]) {
            for (const element of page.querySelectorAll(selector)) {
                const to = new URL(element.getAttribute(name), new URL(path, location.origin));
                if (to.origin === location.origin && !(path.includes("month=") && to.search.includes("month="))) waiting.push(to.pathname + to.search);
            }
        }
        if (Object.keys(found).length > 500) throw new Error("links without end: " + waiting.slice(0, 20));
    }
    return found;
})()"#;

/// What axe has to say of a page that it was put into.
const AXE: &str =
    "axe.run().then((r) => r.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html + ' ' + n.failureSummary).join(' ')}`))";

/// All that the Tab key has to reach, in the order of the page; each gets a number.
const STOPS: &str = r#"[...document.querySelectorAll("a[href], button, select, input:not([type=hidden]), textarea, summary, [tabindex='0']")]
    .filter((e) => e.checkVisibility() && !e.disabled).map((e, at) => (e.dataset.stop = at, `${e.tagName} ${e.textContent.trim().slice(0, 40)}`))"#;

/// What has the focus, and whether people see that it has.
const FOCUSED: &str = r#"(() => {
    const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
    const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2
        && box.width > 0 && box.left >= 0 && box.right <= innerWidth && box.top >= 0 && box.bottom <= innerHeight;
    return [e.dataset.stop === undefined ? null : Number(e.dataset.stop), seen || `${e.outerHTML.slice(0, 200)} ${style.outline} ${JSON.stringify(box)}`];
})()"#;

fn pictures() -> PathBuf {
    let directory = programs().parent().unwrap().join("pictures");
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The version that scripts/setup installs.
fn axe() -> Option<String> {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    fs::read_to_string(cache?.join("borgcube-tests/axe-core-4.14.1/axe.min.js")).ok()
}

#[test]
fn pages_in_a_browser_while_a_backup_runs() {
    let Some(program) = devtools::program() else {
        return println!("NOT RUN: there is no Chromium (scripts/setup test installs it)");
    };
    let axe = axe();
    if axe.is_none() {
        println!(
            "NOT RUN: axe-core is not in the tests' cache (scripts/setup test puts it there), so contrast and roles are not looked at"
        );
    }
    let scene = Scene::new();
    let mut browser = Browser::start(program);
    let browser = &mut browser;
    let job = progress_moves(browser, &scene);
    let pages = every_link_leads_somewhere(browser, &scene);
    for (kind, path) in &pages {
        looks(browser, &scene, kind, path, axe.as_deref());
    }
    if axe.is_some() {
        // The measure itself.
        browser.ask("document.querySelector('main').append(new Image())");
        assert_eq!(browser.ask(AXE).as_array().map(Vec::len), Some(1));
    }
    for path in ["/", "/jobs"] {
        tab_reaches_everything(browser, &scene, path);
    }
    filters_by_keyboard(browser, &scene);
    signed_in_by_keyboard(browser, &scene, axe.as_deref());
    without_scripts(browser, &scene, &pages);
    the_end_is_seen(browser, scene, job);
    assert_eq!(browser.complaints, [""; 0], "the browser complains");
}

/// The dashboard sees a job begin and move without being loaded again.
fn progress_moves(browser: &mut Browser, scene: &Scene) -> u64 {
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url("/"));
    browser.until("live events", r#"document.getElementById("live").textContent === "Live.""#);
    browser.ask("window.still = true");
    let job = scene.start_slow();
    let figures = format!(r#"document.querySelector('[data-progress="{job}"] .figures')"#);
    browser.until("the job is on the dashboard", &format!("!!{figures}"));
    browser.until("progress", &format!(r#"{figures}?.textContent.includes("/s") ?? false"#));
    let before = browser.ask(&format!("{figures}.textContent"));
    browser.until("progress moves", &format!("({figures}?.textContent ?? {before}) !== {before}"));
    assert_eq!(browser.ask("window.still"), true);
    job
}

/// One page of each kind.
fn every_link_leads_somewhere(browser: &mut Browser, scene: &Scene) -> BTreeMap<String, String> {
    assert_eq!(browser.complaints, [""; 0], "the browser complains");
    let found = browser.ask(CRAWL);
    let mut found: BTreeMap<String, u64> = serde_json::from_value(found).unwrap();
    assert_eq!(found.remove("/nothing/of/the/kind"), Some(404), "the measure itself");
    let lost: Vec<_> = found.iter().filter(|(_, status)| **status != 200).collect();
    assert!(lost.is_empty(), "links that lead nowhere: {lost:?}");
    // The browser has said so of that one address.
    let about = |complaint: &String| complaint.contains("/nothing/of/the/kind");
    assert!(browser.complaints.iter().all(about) && !browser.complaints.is_empty(), "{:?}", browser.complaints);
    browser.complaints.clear();
    let mut pages = BTreeMap::new();
    for path in found.keys().filter(|path| !["/static/", "/api/", "/metrics", "/healthz"].iter().any(|other| path.starts_with(other))) {
        pages.entry(shape(path)).or_insert_with(|| path.clone());
    }
    // Not just any job: the one that moves.
    pages.insert("/jobs/*".into(), format!("/jobs/{}", scene.job()));
    pages.insert("/clients/*".into(), "/clients/web1".into());
    for kind in KINDS {
        assert!(pages.contains_key(*kind), "no link leads to {kind}: {found:?}");
    }
    pages
}

fn looks(browser: &mut Browser, scene: &Scene, kind: &str, path: &str, axe: Option<&str>) {
    let name = kind.trim_matches('/').replace('/', "-").replace('*', "one");
    let name = if name.is_empty() { "dashboard" } else { &name };
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url(path));
    looks_of(browser, name, path, axe);
}

/// The page that is open.
fn looks_of(browser: &mut Browser, name: &str, path: &str, axe: Option<&str>) {
    if let Some(axe) = axe {
        browser.ask(&format!("{axe}; true"));
    }
    let mut pictures = vec![];
    for (look, (width, height), scheme) in
        [("light", DESK, "light"), ("phone", PHONE, "light"), ("phone-dark", PHONE, "dark"), ("dark", DESK, "dark")]
    {
        browser.look(width, height, scheme);
        assert_eq!(browser.ask(BASICS), json!([]), "{path}, {look}");
        let picture = browser.picture();
        // Letters alone have a dozen, with their soft edges; an empty page has one.
        assert!(picture.colours >= 16, "{path}, {look}: a picture of {} colours", picture.colours);
        fs::write(self::pictures().join(format!("{name}-{look}.png")), &picture.png).unwrap();
        pictures.push(picture.png);
        if axe.is_some() && look != "phone-dark" {
            assert_eq!(browser.ask(AXE), json!([]), "{path}, {look}");
        }
    }
    assert_ne!(pictures[0], pictures[3], "{path} is the same in light and dark");
}

fn tab_reaches_everything(browser: &mut Browser, scene: &Scene, path: &str) {
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url(path));
    // What is renewed would lose its number.
    browser.ask("document.querySelectorAll('[data-live]').forEach((e) => e.removeAttribute('data-live'))");
    let stops = browser.ask(STOPS);
    let stops = stops.as_array().unwrap();
    assert!(stops[0] == "A Skip to the content" && stops[1] == "A BorgCube" && stops.len() > 12, "{stops:?}");
    for (at, stop) in stops.iter().enumerate() {
        browser.tab();
        assert_eq!(browser.ask(FOCUSED), json!([at, true]), "{path}: {stop}");
    }
    // The way past the navigation.
    browser.open(&scene.url(path));
    browser.tab();
    browser.enter();
    browser.until("the content has the focus", r#"document.activeElement.id === "main""#);
    browser.tab();
    assert_eq!(browser.ask("document.getElementById('main').contains(document.activeElement)"), true);
}

/// The list of jobs, cut down to the failed ones without a mouse.
fn filters_by_keyboard(browser: &mut Browser, scene: &Scene) {
    browser.open(&scene.url("/jobs"));
    let all = browser.ask("document.querySelectorAll('tr[data-job]').length").as_u64().unwrap();
    for _ in 0..40 {
        if browser.ask("document.activeElement.name") == "state" {
            break;
        }
        browser.tab();
    }
    for (key, code) in [("f", 70), ("a", 65)] {
        browser.press(key, code, key);
    }
    assert_eq!(browser.ask("document.activeElement.value"), "failed");
    for _ in 0..10 {
        if browser.ask("document.activeElement.tagName") == "BUTTON" {
            break;
        }
        browser.tab();
    }
    browser.follow(Browser::enter);
    assert_eq!(browser.ask("new URLSearchParams(location.search).get('state')"), "failed");
    let failed = browser.ask("document.querySelectorAll('tr[data-job]').length").as_u64().unwrap();
    assert!(0 < failed && failed < all, "{failed} of {all}");
    assert_eq!(browser.ask("document.querySelectorAll('tr[data-job] .badge.failed').length"), failed);
}

/// Presses Tab until a script says that it is there.
#[track_caller]
fn tab_to(browser: &mut Browser, what: &str) {
    for _ in 0..60 {
        if browser.ask(what) == true {
            return;
        }
        browser.tab();
    }
    panic!("the Tab key never comes to {what}: {}", browser.ask("document.body.innerText"));
}

/// Somebody who may runs a config without a mouse.
fn signed_in_by_keyboard(browser: &mut Browser, scene: &Scene, axe: Option<&str>) {
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url("/clients/web1"));
    assert_eq!(browser.ask("document.querySelectorAll('main form').length"), 0, "who is not signed in has no buttons");
    tab_to(browser, "document.activeElement.textContent === 'Sign in'");
    browser.follow(Browser::enter);
    browser.until("the field has the focus", "document.activeElement.name === 'token'");
    browser.call("Input.insertText", json!({ "text": scene.operator() }));
    browser.follow(Browser::enter);
    assert_eq!(browser.ask("location.pathname"), "/clients/web1", "back where it began");
    let path = "/clients/web1 of an operator";
    looks_of(browser, "clients-one-operator", path, axe);
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url("/clients/web1"));
    tab_to(browser, "document.activeElement.form?.elements.config?.value === 'web1/etc'");
    assert_eq!(browser.ask(FOCUSED)[1], true);
    browser.follow(Browser::enter);
    browser.until("what came of it", "document.querySelector('main [role=status]:not(#trouble)')?.innerText.includes('queued') ?? false");
    let job = browser.ask("document.querySelector('main [role=status] a').getAttribute('href')");
    looks_of(browser, "clients-one-done", "what came of it", axe);
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url(job.as_str().unwrap()));
    assert_eq!(browser.ask("document.querySelector('.lead').innerText.includes('web1/etc')"), true);
    assert!(browser.ask("document.querySelector('#facts').innerText").as_str().unwrap().contains("web:alice"));
    tab_to(browser, "document.activeElement.textContent === 'Sign out'");
    browser.follow(Browser::enter);
    browser.open(&scene.url("/clients/web1"));
    assert_eq!(browser.ask("document.querySelectorAll('main form').length"), 0);
}

/// Everything but the live parts.
fn without_scripts(browser: &mut Browser, scene: &Scene, pages: &BTreeMap<String, String>) {
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&scene.url("/"));
    let shown = format!(r#"document.querySelector('[data-progress="{}"] .figures').textContent"#, scene.job());
    let before = browser.ask(&shown);
    assert_eq!(browser.ask("document.getElementById('live').hidden"), true, "no script has run");
    // It moves as often as somebody asks.
    let mut again = Value::Null;
    for _ in 0..600 {
        browser.open(&scene.url("/"));
        again = browser.ask(&shown);
        if again != before {
            break;
        }
    }
    assert_ne!(again, before);
    for path in pages.values() {
        browser.open(&scene.url(path));
        assert_eq!(browser.ask(BASICS), json!([]), "{path}");
        assert!(browser.ask("document.querySelector('main').innerText.length").as_u64().unwrap() > 20, "{path}");
    }
    filters_by_keyboard(browser, scene);
    browser.follow(|browser| drop(browser.ask(r#"document.querySelector('nav a[href="/schedules"]').click()"#)));
    browser.follow(|browser| drop(browser.ask(r#"document.querySelector('nav.pages a:last-child').click()"#)));
    assert_eq!(browser.ask("location.search.startsWith('?month=')"), true);
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": false }));
}

/// The job's page, reached by its link, sees the end.
fn the_end_is_seen(browser: &mut Browser, scene: Scene, job: u64) {
    browser.look(DESK.0, DESK.1, "light");
    browser.open(&scene.url("/"));
    browser.follow(|browser| drop(browser.ask(&format!(r#"document.querySelector('a[href="/jobs/{job}"]').click()"#))));
    browser.until("the job's page", r#"document.getElementById("live").textContent === "Live.""#);
    assert_eq!(browser.ask("location.pathname"), format!("/jobs/{job}"));
    browser.ask("window.still = true");
    let system = scene.end_slow();
    browser.until("the job is done", r#"!!document.querySelector("section .badge.done")"#);
    assert_eq!(browser.ask("window.still"), true);
    assert_eq!(wait_for_end(&system, job)["state"], "done");
}
