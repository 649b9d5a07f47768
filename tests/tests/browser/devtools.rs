//! Debian's Chromium without a window, over the DevTools protocol, which it speaks through two descriptors.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use unix::spawn::{Child, Spawn, Stdio};

/// A browser needs its time on a machine that is busy.
const LONG: Duration = Duration::from_secs(90);

/// A browser with one page that is looked at, and an empty one in which pictures are.
pub struct Browser {
    child: Child,
    to: UnixStream,
    from: BufReader<UnixStream>,
    last: u64,
    page: String,
    gallery: String,
    /// What consoles say, exceptions, what the content policy stopped, and what could not be loaded.
    pub complaints: Vec<String>,
    loaded: bool,
    _home: TempDir,
}

/// A picture of a page.
pub struct Picture {
    /// As a file.
    pub png: Vec<u8>,
    /// How many colours are in it.
    pub colours: u64,
}

/// The program. None: there is no Chromium here.
pub fn program() -> Option<&'static str> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|program| Path::new(program).exists())
}

impl Browser {
    /// Starts it, with a profile of its own.
    pub fn start(program: &str) -> Browser {
        let home = tempfile::Builder::new().prefix("bc-browser-").tempdir().unwrap();
        let (to, its_input) = UnixStream::pair().unwrap();
        let (from, its_output) = UnixStream::pair().unwrap();
        from.set_read_timeout(Some(LONG)).unwrap();
        let profile = format!("--user-data-dir={}", home.path().display());
        let arguments = [
            "--headless",
            // The tests may be root, and everything it looks at is ours.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
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
        drop((its_input, its_output));
        let from = BufReader::new(from);
        let (page, gallery) = (String::new(), String::new());
        let mut browser = Browser { child, to, from, last: 0, page, gallery, complaints: vec![], loaded: false, _home: home };
        browser.gallery = browser.target();
        browser.page = browser.target();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Audits.enable"] {
            browser.call(domain, json!({}));
        }
        // Keys go to the page that has the focus, as if a window had it.
        browser.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true }));
        browser
    }

    fn target(&mut self) -> String {
        let target = self.tell("", "Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = self.tell("", "Target.attachToTarget", json!({ "targetId": target, "flatten": true }))["sessionId"].clone();
        session.as_str().unwrap().to_owned()
    }

    fn hear(&mut self) -> Value {
        let mut bytes = vec![];
        self.from.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        let about = &said["params"];
        match said["method"].as_str() {
            Some("Page.loadEventFired") => self.loaded = true,
            // That the page before was left without anybody having clicked there is our doing.
            Some("Audits.issueAdded") if about.to_string().contains("NavigationEntryMarkedSkippable") => {}
            Some("Runtime.exceptionThrown" | "Audits.issueAdded") => self.complaints.push(about.to_string()),
            Some("Runtime.consoleAPICalled") if ["error", "warning", "assert"].iter().any(|kind| about["type"] == *kind) => {
                self.complaints.push(about.to_string());
            }
            Some("Log.entryAdded") if ["error", "warning"].iter().any(|level| about["entry"]["level"] == *level) => {
                self.complaints.push(about.to_string());
            }
            _ => {}
        }
        said
    }

    /// Asks the browser (no session) or one of its pages for something.
    fn tell(&mut self, session: &str, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let number = self.last;
        let mut command = json!({ "id": number, "method": method, "params": parameters });
        if !session.is_empty() {
            command["sessionId"] = session.into();
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

    /// Asks the page for something.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        let session = self.page.clone();
        self.tell(&session, method, parameters)
    }

    /// Goes to an address, and waits until everything is loaded.
    pub fn open(&mut self, url: &str) {
        self.loaded = false;
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.arrive();
    }

    /// Does something that leads to another page, and waits until that is loaded.
    pub fn follow(&mut self, act: impl FnOnce(&mut Browser)) {
        self.loaded = false;
        act(self);
        self.arrive();
    }

    fn arrive(&mut self) {
        while !self.loaded {
            self.hear();
        }
    }

    /// What a script says, promises included.
    #[track_caller]
    pub fn ask(&mut self, script: &str) -> Value {
        let session = self.page.clone();
        self.ask_of(&session, script)
    }

    #[track_caller]
    fn ask_of(&mut self, session: &str, script: &str) -> Value {
        let question = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.tell(session, "Runtime.evaluate", question);
        assert!(answer["exceptionDetails"].is_null(), "{}: {answer}", script.chars().take(500).collect::<String>());
        answer["result"]["value"].clone()
    }

    /// Waits until a script says true.
    #[track_caller]
    pub fn until(&mut self, what: &str, script: &str) {
        let end = Instant::now() + LONG;
        while self.ask(script) != true {
            assert!(Instant::now() < end, "never: {what}; the page says {}", self.ask("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key and lets it go. `text` is what it types.
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// The Tab key.
    pub fn tab(&mut self) {
        self.press("Tab", 9, "");
    }

    /// The Enter key.
    pub fn enter(&mut self) {
        self.press("Enter", 13, "\r");
    }

    /// The size of the window and what its user prefers.
    pub fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let features =
            json!([{ "name": "prefers-color-scheme", "value": scheme }, { "name": "prefers-reduced-motion", "value": "reduce" }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// A picture of the whole page, also of what is below the window.
    pub fn picture(&mut self) -> Picture {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"].as_f64().unwrap().min(4000.0), "scale": 1 });
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true, "clip": clip }));
        let data = taken["data"].as_str().unwrap();
        // Who makes a picture can read it: pages themselves must not load one like this.
        let count = format!(
            r#"(async () => {{
                const image = await createImageBitmap(await (await fetch("data:image/png;base64,{data}")).blob());
                const drawing = new OffscreenCanvas(image.width, image.height).getContext("2d");
                drawing.drawImage(image, 0, 0);
                const pixels = new Uint32Array(drawing.getImageData(0, 0, image.width, image.height).data.buffer);
                return new Set(pixels).size;
            }})()"#
        );
        let gallery = self.gallery.clone();
        let colours = self.ask_of(&gallery, &count).as_u64().unwrap();
        Picture { png: STANDARD.decode(data).unwrap(), colours }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers are of its group.
        let _ = self.child.kill_group(unix::Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
