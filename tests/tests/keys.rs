//! SSH keys: one for each job, permanent ones, and the road without any, over real sshds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testkit::borgs::Borg;
use testkit::retry_until;
use testkit::sshd::Sshd;
use testkit::system::{TestSystem, programs};
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{Tap, assert_failed, job, newest_archive, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "correct horse battery staple";

/// A system whose clients come back through an sshd that asks BorgCube for keys.
struct Keys {
    system: TestSystem,
    there: Sshd,
    here: Sshd,
    repository: PathBuf,
}

impl Keys {
    fn new() -> Keys {
        let system = TestSystem::start();
        // sshd gives the command no environment.
        let command =
            format!("/usr/bin/env BORGCUBE_STATE={} {}", system.state().display(), programs().join("borgcube-authorized-keys").display());
        let here = Sshd::start_with(&format!("AuthorizedKeysCommand {command} %u %t %k\nAuthorizedKeysCommandUser root\n"));
        let there = Sshd::start();
        // Where the server's own host keys are not those of /etc/ssh, a person puts them here.
        let host_keys = system.state().join("host-keys");
        fs::create_dir(&host_keys).unwrap();
        fs::copy(here.host_key(), host_keys.join("host_key.pub")).unwrap();
        let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
        make(&system.join("source"), Spec::default());
        Keys { system, there, here, repository }
    }

    /// A client behind `there`, with these further options.
    fn add_client(&mut self, name: &str, options: &[&str]) {
        let out = self.there.authorize("");
        let words = self.there.ssh_options(&out);
        let words: Vec<_> = words.iter().filter(|word| *word != "-i" && !out.as_os_str().eq(word.as_str())).collect();
        let mut arguments: Vec<String> = vec!["client".into(), "add".into(), name.into(), "--remote".into(), self.there.destination()];
        arguments.extend(words.iter().map(|word| format!("--rsh-option={word}")));
        arguments.push(format!("--ssh-identity-file={}", out.display()));
        // A directory whose name wants quoting.
        arguments.push(format!("--remote-cache-dir={}", self.system.join(format!("cache of {name}'s")).display()));
        arguments.extend(options.iter().map(|word| (*word).to_owned()));
        self.system.cli_ok(&arguments);
    }

    fn server(&self) -> String {
        format!("--server={}:{}", self.here.destination(), self.here.port())
    }

    fn job_keys(&self) -> Vec<PathBuf> {
        files(&self.system.state().join("run/keys"))
    }

    #[track_caller]
    fn judge(&self) {
        let archive = text(&newest_archive(&self.system), "name").to_owned();
        self.system.settle();
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        for borg in Borg::judges() {
            borg.judge(&world, &self.repository, &archive, &self.system.join("source"))
                .unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// sshd wants the way to an AuthorizedKeysCommand to be root's.
fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        testkit::borgs::not_run(test, "only root's sshd runs an AuthorizedKeysCommand");
    }
    root
}

fn borgs() -> Vec<Borg> {
    let borgs: Vec<_> = Borg::judges();
    assert!(!borgs.is_empty());
    borgs
}

#[test]
fn a_job_brings_its_own_key_and_leaves_nothing() {
    if !is_root("a_job_brings_its_own_key_and_leaves_nothing") {
        return;
    }
    let mut keys = Keys::new();
    for borg in borgs() {
        let name = format!("web-{}", borg.version);
        let program = format!("--remote-borg={}", borg.program.display());
        let server = keys.server();
        keys.add_client(&name, &[&server, "--key=job", &program]);
        keys.system.add_config(&name, "all", "main", &[], &[&keys.system.join("source")]);
        keys.system.run_ok(&format!("{name}/all"));
        keys.judge();
        assert_eq!(keys.job_keys(), Vec::<PathBuf>::new());
        // Not on the client either.
        let base = keys.system.join(format!("cache of {name}'s"));
        assert!(files(&base).iter().all(|path| !path.file_name().unwrap().to_string_lossy().starts_with("job-")), "{:?}", files(&base));
    }
}

/// Everything of a running job's key, as its client has it.
struct Stolen {
    directory: PathBuf,
}

impl Stolen {
    fn of(keys: &Keys, client: &str) -> Stolen {
        let base = keys.system.join(format!("cache of {client}'s"));
        let found = retry_until(Duration::from_secs(60), || {
            files(&base).into_iter().find(|path| path.join("key").exists() && path.join("known_hosts").exists())
        });
        Stolen { directory: found.expect("the job's directory") }
    }

    fn ssh(&self, keys: &Keys, options: &[&str], words: &[&str]) -> Output {
        let known = format!("UserKnownHostsFile=\"{}\"", self.directory.join("known_hosts").display());
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-i"]).arg(self.directory.join("key")).args(["-p", &keys.here.port().to_string(), "-o", &known]);
        for option in ["HostKeyAlias=borgcube", "IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes", "LogLevel=ERROR"] {
            command.args(["-o", option]);
        }
        command.args(options).arg(keys.here.destination()).args(words).stdin(Stdio::null()).output().unwrap()
    }
}

#[test]
fn a04_the_key_of_one_job_opens_no_other() {
    if !is_root("a04_the_key_of_one_job_opens_no_other") {
        return;
    }
    let mut keys = Keys::new();
    let server = keys.server();
    let slow = keys.system.join("slow");
    fs::create_dir(&slow).unwrap();
    let tap = Tap::open(&slow.join("tap"), 100_000);
    keys.add_client("hostile", &[&server, "--key=job"]);
    keys.system.add_config("hostile", "all", "main", &["--read-special"], &[&slow]);
    // The victim's borg waits, so that its token is not used yet, and tells what it was given.
    let told = keys.system.join("told");
    let wait = keys.system.join("wait");
    let script = keys.system.join("borg");
    let real = Borg::judges()[0].program.display().to_string();
    fs::write(
        &script,
        format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || exec {real} --version\nprintf %s \"$BORG_REPO\" >'{told}.new'; mv '{told}.new' '{told}'\n\
             while [ ! -e '{wait}' ]; do sleep 0.1; done\nexec {real} \"$@\"\n",
            told = told.display(),
            wait = wait.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    keys.add_client("victim", &[&server, "--key=job", &format!("--remote-borg={}", script.display())]);
    keys.system.add_config("victim", "all", "main", &[], &[&keys.system.join("source")]);

    let (attacker, victim) = (start(&keys.system, "hostile/all"), start(&keys.system, "victim/all"));
    wait_for_state(&keys.system, attacker, "client_in_progress");
    let url = retry_until(Duration::from_secs(60), || fs::read_to_string(&told).ok()).expect("the victim's borg runs");
    assert_eq!(keys.job_keys().len(), 2);
    let stolen = Stolen::of(&keys, "hostile");
    // Stock borg with the hostile job's key and the victim's token.
    let rsh = "sh -c 'cd \"$D\" && exec ssh -F none -i key -o IdentitiesOnly=yes -o UserKnownHostsFile=known_hosts -o HostKeyAlias=borgcube \
         -o StrictHostKeyChecking=yes -o BatchMode=yes \"$@\"' ssh";
    let mut borg = Command::new(&real);
    borg.env("D", &stolen.directory).env("BORG_RSH", rsh).env("BORG_REPO", &url).env("BORG_PASSPHRASE", "x");
    borg.env("BORG_BASE_DIR", keys.system.join("thief")).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
    let said = borg.args(["create", "::x", "/etc/hostname"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.contains("token-not-own"), "{said}");
    assert!(keys.system.log().contains("policy violation: token-not-own"), "the server says so, too");
    // The key opens nothing else: no command of the client's, no terminal, no forwarding.
    let proof = keys.system.join("proof");
    stolen.ssh(&keys, &[], &["touch", proof.to_str().unwrap()]);
    assert!(!proof.exists());
    let refused = |options: &[&str], words: &[&str]| String::from_utf8_lossy(&stolen.ssh(&keys, options, words).stderr).into_owned();
    assert!(refused(&["-o", "LogLevel=INFO", "-tt"], &["x"]).contains("PTY allocation request failed"));
    assert!(refused(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"], &["x"]).contains("forwarding failed"));
    // The victim has lost nothing by it.
    fs::write(&wait, "").unwrap();
    assert_eq!(text(&wait_for_end(&keys.system, victim), "state"), "done");
    // With its job a key ends, whoever has a copy.
    let copy = Stolen { directory: keys.system.join("copy") };
    fs::create_dir(&copy.directory).unwrap();
    for name in ["key", "known_hosts"] {
        fs::copy(stolen.directory.join(name), copy.directory.join(name)).unwrap();
    }
    tap.close();
    assert_eq!(text(&wait_for_end(&keys.system, attacker), "state"), "done");
    assert!(keys.job_keys().is_empty());
    let said = String::from_utf8_lossy(&copy.ssh(&keys, &[], &["x"]).stderr).into_owned();
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn a_worker_that_is_killed_leaves_no_key() {
    if !is_root("a_worker_that_is_killed_leaves_no_key") {
        return;
    }
    let mut keys = Keys::new();
    let server = keys.server();
    let slow = keys.system.join("slow");
    fs::create_dir(&slow).unwrap();
    let tap = Tap::open(&slow.join("tap"), 100_000);
    keys.add_client("web1", &[&server, "--key=job"]);
    keys.system.add_config("web1", "all", "main", &["--read-special"], &[&slow]);
    let number = start(&keys.system, "web1/all");
    wait_for_state(&keys.system, number, "client_in_progress");
    assert_eq!(keys.job_keys().len(), 1);
    testkit::process::kill_all(&keys.system.pids("borgcube-worker"));
    assert_failed(&wait_for_end(&keys.system, number), "worker-crashed");
    let gone = retry_until(Duration::from_secs(20), || keys.job_keys().is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", keys.job_keys());
    tap.close();
}

#[test]
fn a_changed_host_key_of_the_server_is_noticed() {
    if !is_root("a_changed_host_key_of_the_server_is_noticed") {
        return;
    }
    let mut keys = Keys::new();
    let server = keys.server();
    keys.add_client("web1", &[&server, "--key=job"]);
    keys.system.add_config("web1", "all", "main", &[], &[&keys.system.join("source")]);
    // Somebody else answers at the server's address.
    keys.here.rotate_host_key();
    let number = start(&keys.system, "web1/all");
    assert_failed(&wait_for_end(&keys.system, number), "client-cannot-reach-server");
    // What ssh says of it, borg passes on only sometimes before it ends itself. What counts: the stranger was not trusted with a key.
    let log = keys.here.log();
    assert!(log.contains("Connection closed by") && !log.contains("Accepted"), "{log}");
}

#[test]
fn a_permanent_key_lets_in_its_client_and_nobody_else() {
    if !is_root("a_permanent_key_lets_in_its_client_and_nobody_else") {
        return;
    }
    let mut keys = Keys::new();
    let server = keys.server();
    let key = |name: &str| {
        let path = keys.system.join(name);
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "evil\" comment", "-f"]).arg(&path).status().unwrap();
        assert!(made.success());
        (path.clone(), fs::read_to_string(path.with_extension("pub")).unwrap())
    };
    let ((own, own_public), (other, other_public)) = (key("own"), key("other"));
    let rsh = |key: &Path| format!("--client-rsh={}", keys.here.rsh(key));
    let (own_rsh, other_rsh) = (rsh(&own), rsh(&other));
    keys.add_client("web1", &[&server, "--key=permanent", &own_rsh]);
    // This one comes with the key of another client.
    keys.add_client("web2", &[&server, "--key=permanent", &own_rsh]);
    keys.add_client("web3", &[&server, "--key=permanent", &other_rsh]);
    for name in ["web1", "web2", "web3"] {
        keys.system.add_config(name, "all", "main", &[], &[&keys.system.join("source")]);
    }
    keys.system.cli_ok(&["client", "key", "add", "web1", &own_public, "--from", "127.0.0.1"]);
    keys.system.cli_ok(&["client", "key", "add", "web3", &other_public, "--from", "192.0.2.1"]);
    assert!(keys.system.cli_fails(&["client", "key", "add", "web2", &own_public]).1.contains("belongs to client web1"));
    assert!(
        keys.system
            .cli_fails(&["client", "key", "add", "web2", &format!("command=\"x\" {own_public}")])
            .1
            .contains("must begin with its type")
    );
    let listed = keys.system.cli_json(&["client", "key", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");

    keys.system.run_ok("web1/all");
    keys.judge();
    let failed = wait_for_end(&keys.system, start(&keys.system, "web2/all"));
    assert_eq!(text(&failed, "state"), "failed", "{failed}");
    assert!(keys.system.log().contains("the key of web1 came with the token of a job of web2"), "{}", keys.system.log());
    assert_failed(&wait_for_end(&keys.system, start(&keys.system, "web3/all")), "client-cannot-reach-server");

    let fingerprint = text(&listed[0], "fingerprint").to_owned();
    keys.system.cli_ok(&["client", "key", "remove", "web1", &fingerprint]);
    assert_failed(&wait_for_end(&keys.system, start(&keys.system, "web1/all")), "client-cannot-reach-server");
    assert_eq!(files(&keys.system.state().join("keys")).len(), 1, "the other client's");
}

#[test]
fn the_carrier_needs_nothing_of_the_client_but_a_login() {
    let mut keys = bare();
    for borg in borgs() {
        let name = format!("dmz-{}", borg.version);
        let program = format!("--remote-borg={}", borg.program.display());
        keys.add_client(&name, &["--road=carrier", &program]);
        keys.system.add_config(&name, "all", "main", &[], &[&keys.system.join("source")]);
        for _ in 0..2 {
            keys.system.run_ok(&format!("{name}/all"));
            keys.judge();
        }
        let base = keys.system.join(format!("cache of {name}'s"));
        assert!(files(&base).iter().all(|path| !path.file_name().unwrap().to_string_lossy().starts_with("job-")), "{:?}", files(&base));
    }
    assert!(keys.job_keys().is_empty());
    // Nobody waits at a pipe that is gone.
    let waiting = || -> Vec<i32> { testkit::process::all().into_iter().filter(|pid| is_carrier(*pid, &keys.system)).collect() };
    let gone = retry_until(Duration::from_secs(20), || waiting().is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", waiting());
}

#[test]
fn a_carrier_that_is_cut_fails_the_job_soon() {
    let mut keys = bare();
    let slow = keys.system.join("slow");
    fs::create_dir(&slow).unwrap();
    let tap = Tap::open(&slow.join("tap"), 100_000);
    keys.add_client("dmz", &["--road=carrier"]);
    keys.system.add_config("dmz", "all", "main", &["--read-special"], &[&slow]);
    let number = start(&keys.system, "dmz/all");
    wait_for_state(&keys.system, number, "client_in_progress");
    let session = keys.system.wait_for("borgcube-session", Duration::from_secs(30));
    testkit::process::kill_all(&[session]);
    let ended = wait_for_end(&keys.system, number);
    assert_failed(&ended, "session-lost");
    tap.close();
    assert_eq!(text(&job(&keys.system, number), "state"), "failed");
}

/// Without an sshd that asks for keys: the carrier's road has none.
fn bare() -> Keys {
    let system = TestSystem::start();
    let (there, here) = (Sshd::start(), Sshd::start());
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    make(&system.join("source"), Spec::default());
    Keys { system, there, here, repository }
}

fn is_carrier(pid: i32, system: &TestSystem) -> bool {
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    directory.starts_with(system.join("")) && testkit::process::program(pid).as_deref() == Some("cat")
}
