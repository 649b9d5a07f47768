//! A control socket that answers as a test wants it, and the real `borgcube` in front of it.

use serde_json::{Value, json};
use std::io::BufReader;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// What the server says to one call; an empty answer closes the connection.
pub type Answers = Vec<Value>;

/// The fake.
pub struct Fake {
    directory: TempDir,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    /// Answers each call by what `answer` makes of its method's last word, its parameters, and how many calls there were before.
    pub fn start(answer: impl Fn(&str, &Value, usize) -> Answers + Send + 'static) -> Fake {
        let directory = tempfile::Builder::new().prefix("bc-").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let listener = UnixListener::bind(directory.path().join("run/control.sock")).unwrap();
        let calls = Arc::new(Mutex::new(vec![]));
        let heard = calls.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answer, &heard);
            }
        });
        Fake { directory, calls }
    }

    /// A state directory in which nobody listens.
    pub fn nobody() -> Fake {
        Fake { directory: tempfile::tempdir().unwrap(), calls: Arc::default() }
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Methods called so far, by their last word.
    pub fn methods(&self) -> Vec<String> {
        let word = |call: &Value| call["method"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        self.calls.lock().unwrap().iter().map(word).collect()
    }

    /// The parameters of the last call.
    pub fn last(&self) -> Value {
        self.calls.lock().unwrap().last().unwrap()["parameters"].clone()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_borgcube"));
        command.env_remove("BORGCUBE_STATE").env_remove("COMPLETE").env("NO_COLOR", "1").env("TZ", "UTC").stdin(Stdio::null());
        command.arg("--state").arg(self.directory.path()).args(arguments);
        command
    }

    /// Runs `borgcube` and gives its exit code, standard output and standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        said(&self.command(arguments).output().unwrap())
    }
}

pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// One connection at a time is enough for a fake.
fn serve(stream: UnixStream, answer: &impl Fn(&str, &Value, usize) -> Answers, calls: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Ok(call) = wire::json::read::<Value>(&mut reader) {
        let before = {
            let mut calls = calls.lock().unwrap();
            calls.push(call.clone());
            calls.len() - 1
        };
        let method = call["method"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let answers = answer(&method, &call["parameters"], before);
        if answers.is_empty() {
            return;
        }
        for answer in answers {
            if answer == json!("sleep") {
                std::thread::sleep(std::time::Duration::from_millis(300));
            } else if answer == json!("close") || wire::json::write(&mut writer, &answer).is_err() {
                return;
            }
        }
    }
}

/// A plain answer.
pub fn ok(parameters: Value) -> Answers {
    vec![json!({ "parameters": parameters })]
}

/// An answer with more to come.
pub fn more(parameters: Value) -> Value {
    json!({ "parameters": parameters, "continues": true })
}

/// An error.
pub fn error(kind: &str, message: &str) -> Answers {
    vec![json!({ "error": format!("org.borgcube.Control.{kind}"), "parameters": { "message": message } })]
}
