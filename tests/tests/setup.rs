//! `borgcube setup` and `borgcube doctor` with a real sshd on both roads: from nothing to the first backup, stopped by what goes wrong on the
//! way and started again; and what the doctor says of installations that were broken since.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use testkit::{Sshd, TestSystem};

/// A source, a client's sshd and this server's.
struct Place {
    system: TestSystem,
    there: Sshd,
    here: Sshd,
    words: Vec<String>,
}

impl Place {
    fn new() -> Place {
        let (system, there, mut here) = (TestSystem::start(), Sshd::start(), Sshd::start());
        let source = system.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "content").unwrap();
        let proxy = testkit::system::programs().join("borgcube-proxy");
        let back = here.authorize(&format!("command=\"env BORGCUBE_STATE={} {}\",restrict", system.state().display(), proxy.display()));
        let known = system.join("ssh/known_hosts");
        let mut words: Vec<String> = ["setup", "--yes", "--client", "web1", "--encryption", "repokey-blake2"].map(str::to_owned).into();
        words.extend(["--remote".to_owned(), there.destination()]);
        for option in ["-F", "/dev/null", "-p", &there.port().to_string(), &format!("-oUserKnownHostsFile={}", known.display())] {
            words.push(format!("--rsh-option={option}"));
        }
        words.push("--rsh-option=-oGlobalKnownHostsFile=/dev/null".to_owned());
        words.push(format!("--server={}:{}", here.destination(), here.port()));
        words.push(format!("--client-rsh={}", here.rsh(&back)));
        words.push(source.display().to_string());
        Place { system, there, here, words }
    }

    fn identity(&self) -> PathBuf {
        self.system.state().join("ssh/id_ed25519")
    }

    fn with(&self, more: &[&str]) -> Vec<String> {
        self.words.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect()
    }

    fn fails(&self, more: &[&str]) -> (i32, String) {
        self.system.cli_fails(&self.with(more))
    }

    fn let_in(&self) {
        self.there.add_authorized_line(&fs::read_to_string(self.identity().with_extension("pub")).unwrap());
    }
}

fn steps(done: &Value) -> Vec<(String, bool)> {
    let step = |step: &Value| (step["step"].as_str().unwrap().to_owned(), step["before"].as_bool().unwrap());
    done.as_array().unwrap().iter().map(step).collect()
}

fn verdict_of(system: &TestSystem, check: &str, more: &[&str]) -> (i32, Vec<Value>) {
    let words: Vec<&str> = ["doctor", "--json"].iter().chain(more).copied().collect();
    let output = system.cli(&words);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let findings = report["findings"].as_array().unwrap();
    let problems = findings.iter().filter(|f| f["check"] == check && f["verdict"] == "problem").cloned().collect();
    (output.status.code().unwrap(), problems)
}

#[track_caller]
fn is_mended(problems: &[Value], said: &str, mend: &str) {
    let found = problems.iter().any(|problem| {
        problem["message"].as_str().unwrap().contains(said)
            && problem["mend"].as_array().unwrap().iter().any(|m| m.as_str().unwrap().contains(mend))
    });
    assert!(found, "{said}, {mend}: {problems:?}");
}

#[test]
fn from_nothing_to_the_first_backup_over_ssh() {
    let place = Place::new();

    // Nobody vouches for the host key, or for another one.
    let (code, said) = place.fails(&["--host-key", "SHA256:wrong"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("has no host key SHA256:wrong") && said.contains("Done so far: repository main"), "{said}");
    let print = said.split("but ").nth(1).and_then(|rest| rest.split([',', '\n']).next()).unwrap().trim().to_owned();

    // The client lets nobody in yet; what is done stays done, and the key to let in is shown.
    let (_, said) = place.fails(&["--host-key", &print]);
    let public = fs::read_to_string(place.identity().with_extension("pub")).unwrap();
    assert!(said.contains("Permission denied") && said.contains(public.split_whitespace().nth(1).unwrap()), "{said}");
    assert!(said.contains("Then go on with: borgcube"), "{said}");
    assert_eq!(fs::metadata(place.identity()).unwrap().permissions().mode() & 0o777, 0o600);

    // The server is not there for the client.
    place.let_in();
    let mut place = place;
    place.here.stop();
    let (_, said) = place.fails(&["--host-key", &print]);
    assert!(said.contains("nothing listens at 127.0.0.1"), "{said}");
    place.here.come_back();

    let done: Value = place.system.cli_json(&place.with(&["--host-key", &print]));
    let steps_now = steps(&done);
    let before: Vec<_> = steps_now.iter().filter(|(_, before)| *before).map(|(step, _)| step.as_str()).collect();
    assert_eq!(before, ["repository", "ssh-key", "host-key", "client"], "{done}");
    assert_eq!(steps_now.last().unwrap(), &("backup".to_owned(), false));
    let archives = place.system.cli_json(&["archive", "list"]);
    assert_eq!(archives.as_array().unwrap().len(), 1);

    // Once more: nothing is left to do, and no second backup is made.
    let again: Value = place.system.cli_json(&place.with(&[]));
    assert!(steps(&again).iter().all(|(step, before)| *before || ["connection", "way-back"].contains(&step.as_str())), "{again}");
    assert_eq!(place.system.cli_json(&["archive", "list"]), archives);

    // The doctor takes the same roads.
    let (code, _) = verdict_of(&place.system, "connection", &["--client", "web1"]);
    assert_eq!(code, 0);
    place.there.stop();
    let (code, problems) = verdict_of(&place.system, "connection", &["--client", "web1"]);
    assert_eq!(code, 1);
    is_mended(&problems, "client web1 cannot be reached", "Try by hand: ssh");
    fs::remove_file(place.system.join("ssh/known_hosts")).unwrap();
    let (_, problems) = verdict_of(&place.system, "host-keys", &[]);
    is_mended(&problems, "no host key of [127.0.0.1]", "ssh-keyscan");
    fs::set_permissions(place.identity(), Permissions::from_mode(0o644)).unwrap();
    let (_, problems) = verdict_of(&place.system, "ssh-keys", &[]);
    is_mended(&problems, "others may read", "chmod 0600");
}

#[test]
fn this_machine_itself_without_a_question() {
    let mut system = TestSystem::start();
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    let words = ["setup", "--yes", "--local", "--client", "me", source.to_str().unwrap()];
    let said = system.cli_ok(&words);
    assert!(said.contains("$ borgcube repository add main") && said.contains("Set up. Next:"), "{said}");
    let other = ["setup", "--yes", "--local", "--client", "me", "/somewhere/else"];
    let (code, said) = system.cli_fails(&other);
    assert!(code == 4 && said.contains("backs up something else") && said.contains("--label"), "{said}");
    let (code, said) = system.cli_fails(&["setup"]);
    assert!(code == 2 && said.contains("--yes"), "{said}");

    let sound = verdict_of(&system, "directories", &[]);
    assert_eq!(sound, (0, vec![]));
    let db = system.state().join("db");
    fs::set_permissions(&db, Permissions::from_mode(0o755)).unwrap();
    is_mended(&verdict_of(&system, "directories", &[]).1, "others have rights", "chmod 0700");
    fs::set_permissions(&db, Permissions::from_mode(0o700)).unwrap();

    let passphrase = system.state().join("credentials/main/passphrase");
    fs::rename(&passphrase, system.join("elsewhere")).unwrap();
    is_mended(&verdict_of(&system, "credentials", &[]).1, "is missing", "from the copy");
    fs::rename(system.join("elsewhere"), &passphrase).unwrap();
    fs::set_permissions(&passphrase, Permissions::from_mode(0o644)).unwrap();
    is_mended(&verdict_of(&system, "credentials", &[]).1, "everybody may read", "chmod 0600");
    fs::set_permissions(&passphrase, Permissions::from_mode(0o600)).unwrap();

    system.settle();
    let repository = system.state().join("main");
    fs::rename(&repository, system.join("away")).unwrap();
    is_mended(&verdict_of(&system, "space", &[]).1, "is missing", "mounted");
    fs::rename(system.join("away"), &repository).unwrap();

    assert_eq!(verdict_of(&system, "directories", &[]), (0, vec![]));
    let (code, said) = system.cli_fails(&["doctor", "--client", "nobody"]);
    assert!(code == 3 && said.contains("there is no client nobody"), "{said}");
    system.down();
    let (code, problems) = verdict_of(&system, "server", &[]);
    assert_eq!(code, 1);
    is_mended(&problems, "borgcube up is not running", "borgcube up --state");
}
