//! The status pages in a browser, while a backup runs: headless Chromium over the DevTools protocol, which it speaks through two descriptors.
//!
//! Pictures are kept in the directory that `BORGCUBE_PICTURES` names. With `axe-core/axe.min.js` in the tests' cache (docs/testing.md) axe looks as well.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use tests::{PATIENCE, Tap, start, wait_for_end};
use unix::spawn::{Child, Spawn, Stdio};

/// A browser needs its time on a machine that is busy.
const LONG: Duration = Duration::from_secs(90);

struct Browser {
    child: Child,
    to: UnixStream,
    from: BufReader<UnixStream>,
    last: u64,
    session: Option<String>,
    /// Errors on consoles, exceptions, and what the content policy stopped.
    complaints: Vec<String>,
    loaded: bool,
    _home: TempDir,
}

impl Browser {
    /// None: there is no Chromium here.
    fn start() -> Option<Browser> {
        let program = ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|program| Path::new(program).exists())?;
        let home = tempfile::Builder::new().prefix("bc-browser-").tempdir().unwrap();
        let (to, its_input) = UnixStream::pair().unwrap();
        let (from, its_output) = UnixStream::pair().unwrap();
        from.set_read_timeout(Some(LONG)).unwrap();
        let profile = format!("--user-data-dir={}", home.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-pipe",
            &profile,
        ];
        // It reads commands from descriptor 3 and writes what it says to 4.
        let child = Spawn::new(program)
            .args(arguments)
            .keep_env(&["PATH", "LANG"])
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stdin(Stdio::Null)
            .stdout(Stdio::Null)
            .stderr(Stdio::Null)
            .death_signal(unix::Signal::SIGKILL)
            .fd(its_input.as_fd(), "commands")
            .fd(its_output.as_fd(), "answers")
            .spawn()
            .unwrap();
        let from = BufReader::new(from);
        let mut browser = Browser { child, to, from, last: 0, session: None, complaints: vec![], loaded: false, _home: home };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))["sessionId"].clone();
        browser.session = session.as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        Some(browser)
    }

    fn hear(&mut self) -> Value {
        let mut bytes = vec![];
        self.from.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        match said["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            Some("Runtime.exceptionThrown") => self.complaints.push(said["params"].to_string()),
            Some("Log.entryAdded") if said["params"]["entry"]["level"] == "error" => self.complaints.push(said["params"].to_string()),
            _ => {}
        }
        said
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let number = self.last;
        let mut command = json!({ "id": number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let said = self.hear();
            if said["id"] == number {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
        }
    }

    fn open(&mut self, url: &str) {
        self.loaded = false;
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        while !self.loaded {
            self.hear();
        }
    }

    /// What a script says, promises included.
    fn ask(&mut self, script: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": script, "returnByValue": true, "awaitPromise": true }));
        assert!(answer["exceptionDetails"].is_null(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    #[track_caller]
    fn until(&mut self, what: &str, script: &str) {
        let end = Instant::now() + LONG;
        while self.ask(script) != true {
            assert!(Instant::now() < end, "never: {what}; the page says {}", self.ask("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    fn look(&mut self, width: u32, height: u32, scheme: &str) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        );
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }));
    }

    /// A picture of the page, as base64 of a PNG.
    fn picture(&mut self) -> String {
        self.call("Page.captureScreenshot", json!({ "format": "png" }))["data"].as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers are of its group.
        let _ = self.child.kill_group(unix::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn keep(name: &str, picture: &str) {
    if let Some(directory) = std::env::var_os("BORGCUBE_PICTURES").map(PathBuf::from) {
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{name}.png.base64")), picture).unwrap();
    }
}

fn axe() -> Option<String> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    fs::read_to_string(home.join(".cache/borgcube-tests/axe-core/axe.min.js")).ok()
}

/// What people with a keyboard or a screen reader need, and what a narrow screen must not have.
const BASICS: &str = r#"[
    ...[...document.querySelectorAll("img:not([alt]), a:not([href]), th:not([scope]), svg:not([aria-label]), progress:not([aria-label])")].map((e) => e.outerHTML),
    ...[...document.querySelectorAll("select, input")].filter((e) => e.labels.length === 0).map((e) => e.outerHTML),
    ...(document.querySelectorAll("h1").length === 1 && document.querySelectorAll("main").length === 1 ? [] : ["not one h1 in one main"]),
    ...(document.documentElement.scrollWidth <= innerWidth ? [] : [`${document.documentElement.scrollWidth} wide on ${innerWidth}`]),
]"#;

#[test]
#[ignore = "written, and not yet run against a whole system: run it before it counts"]
fn pages_in_a_browser_while_a_backup_runs() {
    let Some(mut browser) = Browser::start() else {
        return println!("NOT RUN: there is no Chromium (apt-get install chromium)");
    };
    let system = TestSystem::start();
    let written = retry_until(PATIENCE, || fs::read_to_string(system.state().join("run/status.url")).ok());
    let url = written.expect("the address is written down").trim().trim_end_matches('/').to_owned();
    system.add_repository("main", "none", None);
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let slow = system.join("slow");
    system.add_config("host", "slow", "main", &["--read-special"], &[&slow]);
    let tap = Tap::open(&slow, 200_000);

    // The dashboard sees a job begin and move without being loaded again.
    browser.look(1280, 900, "light");
    browser.open(&format!("{url}/"));
    browser.until("live events", r#"document.getElementById("live").textContent === "Live.""#);
    browser.ask("window.still = true");
    let job = start(&system, "host/slow");
    let figures = format!(r#"document.querySelector('[data-progress="{job}"] .figures')"#);
    browser.until("the job is on the dashboard", &format!("!!{figures}"));
    browser.until("progress", &format!(r#"{figures}?.textContent.includes("/s") ?? false"#));
    let before = browser.ask(&format!("{figures}.textContent"));
    browser.until("progress moves", &format!("({figures}?.textContent ?? {before}) !== {before}"));
    assert_eq!(browser.ask("window.still"), true);

    // By keyboard: the first stop is the way past the navigation.
    browser.open(&format!("{url}/"));
    browser.press("Tab", 9, "");
    assert_eq!(browser.ask("document.activeElement.className"), "skip");
    browser.press("Enter", 13, "\r");
    browser.until("the content has the focus", r#"document.activeElement.id === "main""#);

    // Every page, light and dark, on a desk and in a hand.
    let axe = axe();
    if axe.is_none() {
        println!("NOT RUN: axe-core is not in the tests' cache, see docs/testing.md");
    }
    let links = browser.ask(r#"[...document.querySelectorAll("header nav a")].map((link) => link.getAttribute("href"))"#);
    let links: Vec<String> = links.as_array().unwrap().iter().map(|link| link.as_str().unwrap().to_owned()).collect();
    assert_eq!(links.len(), 9, "{links:?}");
    let more = ["/clients/host".to_owned(), "/repositories/main".to_owned(), format!("/jobs/{job}")];
    for path in links.iter().chain(&more) {
        let name = path.trim_matches('/').replace('/', "-");
        let name = if name.is_empty() { "dashboard" } else { &name };
        browser.look(1280, 900, "light");
        browser.open(&format!("{url}{path}"));
        assert_eq!(browser.ask(BASICS), json!([]), "{path}");
        let light = browser.picture();
        keep(&format!("{name}-light"), &light);
        browser.look(1280, 900, "dark");
        let dark = browser.picture();
        keep(&format!("{name}-dark"), &dark);
        assert_ne!(light, dark, "{path} has one look");
        if let Some(axe) = &axe {
            browser.ask(&format!("{axe}; true"));
            for scheme in ["dark", "light"] {
                browser.look(1280, 900, scheme);
                let run = "axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map((n) => n.html).join(' ')))";
                assert_eq!(browser.ask(run), json!([]), "{path}, {scheme}");
            }
        }
        browser.look(390, 844, "light");
        assert_eq!(browser.ask(BASICS), json!([]), "{path} in a hand");
        keep(&format!("{name}-phone"), &browser.picture());
    }

    // The job's page, reached by its link, sees the end.
    browser.look(1280, 900, "light");
    browser.open(&format!("{url}/"));
    browser.ask(&format!(r#"document.querySelector('a[href="/jobs/{job}"]').click()"#));
    browser.until(
        "the job's page",
        &format!(r#"location.pathname === "/jobs/{job}" && document.getElementById("live")?.textContent === "Live.""#),
    );
    browser.ask("window.still = true");
    tap.close();
    browser.until("the job is done", r#"!!document.querySelector("section .badge.done")"#);
    assert_eq!(browser.ask("window.still"), true);
    wait_for_end(&system, job);
    assert_eq!(browser.complaints, [""; 0], "the browser complains");
}
