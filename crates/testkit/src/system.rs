//! A whole BorgCube, all of its processes, in a temporary state directory: what whole-system tests start with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process;
use crate::{Manager, Sshd, retry_until};

/// How long `borgcube up` may take until it answers, on a loaded machine.
const READY: Duration = Duration::from_secs(60);

/// A running `borgcube up` with a state directory, a home and a working directory of its own.
///
/// It ends with all of its processes when the value is dropped; what it wrote is shown when the test failed.
#[derive(Debug)]
pub struct TestSystem {
    directory: TempDir,
    variables: Vec<(String, String)>,
    up: Option<Child>,
    manager: Option<Manager>,
}

/// The directory of the programs that cargo built beside this test.
///
/// # Panics
/// When they are not there: cargo builds the programs of other packages only when it is told to.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows its own program");
    // target/PROFILE/deps/TEST-HASH
    let directory = test.ancestors().nth(2).expect("the test is in target");
    assert!(
        directory.join("borgcube").exists(),
        "there is no program borgcube in {}: run cargo build --workspace --bins, as make test does",
        directory.display()
    );
    directory.to_owned()
}

impl TestSystem {
    /// Starts BorgCube in a new state directory and waits until it answers.
    ///
    /// # Panics
    /// When it does not, with everything it wrote.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further environment variables, such as `BORGCUBE_BORG`.
    pub fn start_with(variables: &[(&str, &str)]) -> Self {
        let mut system = Self::new(variables);
        system.up();
        system
    }

    /// The same without `borgcube up`: a service manager runs the daemons, see [`manager`](Self::manager).
    ///
    /// # Panics
    /// When `borgcubed` does not answer, with everything it wrote.
    pub fn managed(variables: &[(&str, &str)]) -> Self {
        let mut system = Self::new(variables);
        let environment: Vec<(String, String)> = {
            let command = system.command("borgcubed");
            let set = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned())));
            let kept = ["PATH", "LANG", "TMPDIR"].into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
            let state = ("BORGCUBE_STATE".to_owned(), system.state().display().to_string());
            set.chain(kept).chain([state]).collect()
        };
        let log = system.join("up.log");
        system.manager = Some(Manager::start(system.directory.path(), &programs(), &environment, &log));
        let mut last = String::new();
        let ready = retry_until(READY, || {
            let output = system.cli(&["status"]);
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(())
        });
        assert!(ready.is_some(), "borgcubed does not answer: {last}\n{}", system.log());
        system
    }

    /// What runs the daemons of a [`managed`](Self::managed) system.
    ///
    /// # Panics
    /// When `borgcube up` does.
    pub fn manager(&self) -> &Manager {
        self.manager.as_ref().expect("a service manager")
    }

    fn new(variables: &[(&str, &str)]) -> Self {
        // A short name: the path of a Unix socket ends after 107 bytes, and a session's has 64 hex digits in it.
        let directory = tempfile::Builder::new().prefix("bc-").tempdir().expect("a temporary directory can be made");
        for name in ["state", "home"] {
            fs::create_dir(directory.path().join(name)).expect("a directory can be made");
        }
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { directory, variables, up: None, manager: None }
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The home directory of everything in this system: a local client's caches are below it.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A path beside the state directory, for sources and repositories of a test.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// What `borgcube up` and everything under it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.join("up.log")).unwrap_or_default()
    }

    /// One of our programs, with the environment of this system.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BORG") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.home())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .env("NO_COLOR", "1")
            .env("BORG_SELFTEST", "disabled")
            // Owners give repositories back at once, so that stock borg can judge them; see `settle`.
            .env("BORGCUBE_IDLE_SECONDS", "1")
            .env("BORGCUBE_STOP_SECONDS", "2")
            .envs(self.variables.iter().map(|(n, v)| (n, v)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts `borgcube up`, for the first time or after [`down`](Self::down), and waits until it answers.
    pub fn up(&mut self) {
        assert!(self.up.is_none(), "it is up already");
        let log = File::options().create(true).append(true).open(self.join("up.log")).expect("the log can be opened");
        let mut command = self.command("borgcube");
        command
            .arg("up")
            .arg("--state")
            .arg(self.state())
            .stdout(log.try_clone().expect("a descriptor can be doubled"))
            .stderr(log)
            .process_group(0);
        self.up = Some(command.spawn().expect("borgcube up starts"));
        let mut last = String::new();
        let ready = retry_until(READY, || {
            if let Some(Ok(Some(status))) = self.up.as_mut().map(Child::try_wait) {
                panic!("borgcube up ended with {status}:\n{}", self.log());
            }
            let output = self.cli(&["status"]);
            last = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(())
        });
        assert!(ready.is_some(), "borgcube up does not answer: {last}\n{}", self.log());
    }

    /// Ends it as a service manager would: SIGTERM, ten seconds, SIGKILL for everything.
    pub fn down(&mut self) {
        if let Some(mut up) = self.up.take() {
            process::end_tree(&mut up, Duration::from_secs(10));
        }
        self.manager = None;
        self.kill_the_rest();
    }

    /// Ends it without any warning, everything at once: what a power cut leaves of processes.
    pub fn crash(&mut self) {
        // Nobody may see another one end first.
        for pid in self.own_processes() {
            process::signal(pid, Signal::SIGSTOP);
        }
        self.kill_the_rest();
        if let Some(mut up) = self.up.take() {
            let _reaped = up.wait();
        }
        // What was forked while we looked.
        self.kill_the_rest();
    }

    /// The process of `borgcube up`.
    ///
    /// # Panics
    /// When it is down.
    pub fn up_pid(&self) -> i32 {
        let up = self.up.as_ref().expect("it is up");
        i32::try_from(up.id()).expect("a process number")
    }

    /// Runs the command line program on this system's state directory.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        self.cli_command(arguments).output().expect("borgcube starts")
    }

    /// The same, not started yet.
    pub fn cli_command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = self.command("borgcube");
        command.arg("--state").arg(self.state()).args(arguments);
        command
    }

    /// Runs it, and gives standard output.
    ///
    /// # Panics
    /// When it fails, with all it said and the log of the daemons.
    #[track_caller]
    pub fn cli_ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let output = self.cli(arguments);
        assert!(
            output.status.success(),
            "borgcube {}: {}\n{}{}",
            words(arguments),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs it, expecting failure; gives the exit code and everything it said.
    #[track_caller]
    pub fn cli_fails<A: AsRef<OsStr>>(&self, arguments: &[A]) -> (i32, String) {
        let output = self.cli(arguments);
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let Some(code) = output.status.code().filter(|code| *code != 0) else {
            panic!("borgcube {} should have failed, but: {}\n{said}", words(arguments), output.status);
        };
        (code, said)
    }

    /// Runs it with `--json` at the end, and gives what it printed.
    #[track_caller]
    pub fn cli_json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Value {
        let mut all: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.push("--json".as_ref());
        let text = self.cli_ok(&all);
        match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => panic!("borgcube {}: no JSON: {error}\n{text}", words(arguments)),
        }
    }

    /// Makes a new repository beside the state directory and tells BorgCube of it; gives its path.
    ///
    /// `mode` is one of [`crate::borgs::MODES`]; mode `none` takes no passphrase.
    #[track_caller]
    pub fn add_repository(&self, name: &str, mode: &str, passphrase: Option<&str>) -> PathBuf {
        let path = self.join(format!("repository-{name}"));
        let mut arguments =
            vec!["repository".into(), "add".into(), name.to_owned(), path.display().to_string(), "--encryption".into(), mode.to_owned()];
        if let Some(passphrase) = passphrase {
            let file = self.secret_file(&format!("passphrase-{name}"), passphrase);
            arguments.extend(["--passphrase-file".into(), file.display().to_string()]);
        }
        self.cli_ok(&arguments);
        path
    }

    /// Writes a file only this user can read, beside the state directory.
    pub fn secret_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.join(name);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file can be made");
        writeln!(file, "{content}").expect("it can be written");
        path
    }

    /// Tells BorgCube of a client on this machine, without SSH.
    #[track_caller]
    pub fn add_local_client(&self, name: &str) {
        self.cli_ok(&["client", "add", name, "--local"]);
    }

    /// Tells BorgCube of a client behind a real sshd (`there`), whose borg comes back through another one (`here`)
    /// to the forced command, as an installed server has it. `options` are further ones of `borgcube client add`.
    #[track_caller]
    pub fn add_ssh_client(&self, name: &str, there: &mut Sshd, here: &mut Sshd, options: &[&str]) {
        let proxy = programs().join("borgcube-proxy");
        let forced = format!("command=\"env BORGCUBE_STATE={} {}\",restrict", self.state().display(), proxy.display());
        let back = here.authorize(&forced);
        let server = format!("--server={}:{}", here.destination(), here.port());
        let rsh = format!("--client-rsh={}", here.rsh(&back));
        self.add_client_behind(there, name, &[&[server.as_str(), rsh.as_str()], options].concat());
    }

    /// Tells BorgCube of a client behind a real sshd that has no road back: everything goes over the worker's own connections.
    #[track_caller]
    pub fn add_carrier_client(&self, name: &str, there: &mut Sshd, options: &[&str]) {
        self.add_client_behind(there, name, &[&["--road=carrier"], options].concat());
    }

    #[track_caller]
    fn add_client_behind(&self, there: &mut Sshd, name: &str, options: &[&str]) {
        let out = there.authorize("");
        // The identity file has an option of its own in BorgCube.
        let words = there.ssh_options(&out);
        let words: Vec<_> = words.iter().filter(|word| *word != "-i" && !out.as_os_str().eq(word.as_str())).collect();
        let mut arguments: Vec<String> = ["client", "add", name, "--remote"].map(str::to_owned).into();
        arguments.push(there.destination());
        arguments.extend(words.iter().map(|word| format!("--rsh-option={word}")));
        arguments.push(format!("--ssh-identity-file={}", out.display()));
        arguments.extend(options.iter().map(|word| (*word).to_owned()));
        self.cli_ok(&arguments);
    }

    /// Tells BorgCube what to back up; `options` are those of `borgcube config add`.
    #[track_caller]
    pub fn add_config(&self, client: &str, label: &str, repository: &str, options: &[&str], paths: &[&Path]) {
        let mut arguments: Vec<&OsStr> = ["config", "add", label].map(OsStr::new).into();
        arguments.extend(["--client", client, "--repository", repository].map(OsStr::new));
        arguments.extend(options.iter().map(OsStr::new));
        arguments.extend(paths.iter().map(|path| path.as_os_str()));
        self.cli_ok(&arguments);
    }

    /// Runs a config (`client/label`) and waits for its end.
    pub fn run(&self, config: &str) -> Output {
        self.cli(&["run", config, "--wait"])
    }

    /// Runs a config, which must succeed.
    #[track_caller]
    pub fn run_ok(&self, config: &str) -> String {
        self.cli_ok(&["run", config, "--wait"])
    }

    /// Waits until no owner holds a repository: from then on, until the next job, it is stock borg's.
    ///
    /// # Panics
    /// When an owner does not let go.
    #[track_caller]
    pub fn settle(&self) {
        let serving = || {
            self.own_processes().into_iter().any(|pid| {
                process::arguments(pid).iter().any(|word| word == "serve")
                    && process::program(pid).as_deref() != Some("borgcube-repositoryd")
            })
        };
        // Owners that need no borg hold Borg's own lock; test repositories lie in this system's directory.
        let locked = || {
            let entries = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
            entries.map(|entry| entry.path().join("lock.exclusive")).any(|lock| lock.exists())
        };
        let free = retry_until(Duration::from_secs(30), || (!serving() && !locked()).then_some(()));
        assert!(free.is_some(), "an owner holds its repository for ever:\n{}", self.log());
    }

    /// The running processes of one of our programs (its whole name) that belong to this system.
    pub fn pids(&self, program: &str) -> Vec<i32> {
        self.own_processes().into_iter().filter(|pid| process::program(*pid).as_deref() == Some(program)).collect()
    }

    /// Waits for a process of this program to appear.
    ///
    /// # Panics
    /// When there is none in time.
    #[track_caller]
    pub fn wait_for(&self, program: &str, limit: Duration) -> i32 {
        retry_until(limit, || self.pids(program).first().copied()).unwrap_or_else(|| panic!("no {program} appeared within {limit:?}"))
    }

    /// Every process that was started with this system's state directory in its environment, or below one.
    fn own_processes(&self) -> Vec<i32> {
        let state = self.state();
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        let mut found: Vec<i32> = process::all()
            .into_iter()
            .filter(|pid| *pid != me && process::has_environment(*pid, "BORGCUBE_STATE", state.as_os_str()))
            .collect();
        if let Some(up) = &self.up {
            found.extend(i32::try_from(up.id()));
        }
        for pid in found.clone() {
            found.extend(process::descendants(pid));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn kill_the_rest(&self) {
        let left = self.own_processes();
        if !left.is_empty() {
            process::kill_all(&left);
        }
    }
}

impl Drop for TestSystem {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(200)..];
            eprintln!("the end of the log of borgcube up:\n{}", tail.join("\n"));
        }
        self.down();
    }
}

fn words<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
    words.join(" ")
}
