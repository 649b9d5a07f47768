//! The files in systemd/: clean, and no unit with a larger sandbox than its bar.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testkit::borgs::not_run;

/// `systemd-analyze security`, 0 (best) to 10: the most that each service may have.
const BARS: &[(&str, f64)] = &[
    ("borgcube-session@.service", 0.5),
    ("borgcube-schedule@.service", 0.5),
    ("borgcube-scheduler-sync.service", 0.5),
    ("borgcube-timers.service", 1.0),
    ("borgcube-statusd.service", 0.5),
    ("borgcubed.service", 1.5),
    ("borgcube-repositoryd@.service", 1.5),
];

/// What `borgcube repository add` gives to the owner of a repository on another host.
const REMOTE: &str = "PrivateNetwork=no\nIPAddressDeny=\nRestrictAddressFamilies=AF_INET AF_INET6\n";

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The units as they are installed: name and text.
fn units() -> BTreeMap<String, String> {
    let entries = fs::read_dir(tree().join("systemd/system")).unwrap();
    let read = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap());
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

/// Runs a program of systemd; None where it is not installed.
fn systemd(test: &str, program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            not_run(test, &format!("{program} is not installed (package systemd)"));
            None
        }
        Err(e) => panic!("{program}: {e}"),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The exposure of one service file; None where systemd-analyze is not installed.
fn exposure(test: &str, name: &str, text: &str) -> Option<f64> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    let output = systemd(test, "systemd-analyze", &["security", "--offline=true", "--no-pager", path.to_str().unwrap()])?;
    let said = said(&output);
    let verdict = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{name}: {said}"));
    let figure = verdict.rsplit_once(": ").unwrap().1.split(' ').next().unwrap();
    Some(figure.parse().unwrap_or_else(|_| panic!("{verdict}")))
}

#[test]
fn no_unit_is_exposed_more_than_its_bar() {
    let units = units();
    let bars: BTreeMap<_, _> = BARS.iter().copied().collect();
    for (name, text) in units.iter().filter(|(name, _)| name.ends_with(".service")) {
        let bar = bars.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no bar: give it one"));
        let Some(figure) = exposure("no_unit_is_exposed_more_than_its_bar", name, text) else { return };
        assert!(figure <= *bar, "{name} has an exposure of {figure}, more than {bar}: systemd-analyze security --offline=true says why");
    }
    let owner = "borgcube-repositoryd@.service";
    let remote = units[owner].clone() + REMOTE;
    let figure = exposure("no_unit_is_exposed_more_than_its_bar", owner, &remote).unwrap();
    assert!(figure <= bars[owner] && figure > 0.6, "{owner} of a remote repository: {figure}");
    // The measure itself: it notices what is taken away.
    let open = units[owner].replace("SystemCallFilter=", "#").replace("ProtectSystem=strict", "").replace("CapabilityBoundingSet=", "#");
    assert!(exposure("no_unit_is_exposed_more_than_its_bar", owner, &open).unwrap() > 1.5);
}

#[test]
fn only_the_one_that_must_runs_as_root() {
    for (name, text) in units().iter().filter(|(name, _)| name.ends_with(".service")) {
        let user = text.lines().find(|line| line.starts_with("User=") || *line == "DynamicUser=yes");
        let user = user.unwrap_or_else(|| panic!("{name} says no user"));
        assert_eq!(user == "User=root", name == "borgcube-timers.service", "{name}: {user}");
        for directive in ["NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "MemoryDenyWriteExecute=yes"] {
            assert!(text.lines().any(|line| line == directive), "{name} lacks {directive}");
        }
        // A user namespace hides who is at the other end of a socket, and a pid namespace breaks LMDB's locks.
        assert!(!text.contains("PrivatePIDs="), "{name}");
        let asks = ["borgcubed.service", "borgcube-statusd.service", "borgcube-repositoryd@.service", "borgcube-session@.service"]
            .contains(&name.as_str());
        assert!(!(asks && text.contains("PrivateUsers=")), "{name} could not tell its peers");
        // Readers of the database have to write its lock file.
        let database = text.contains("SupplementaryGroups=borgcube-db");
        let writable = text.lines().any(|line| line.starts_with("ReadWritePaths=") && line.contains("/var/lib/borgcube/db"));
        assert_eq!(database, writable, "{name}: the database's group and its directory go together");
    }
}

#[test]
fn systemd_finds_nothing_to_complain_of() {
    let directory = tempfile::tempdir().unwrap();
    let mut names = vec![];
    for (name, text) in units() {
        // The programs need not be installed where this runs.
        let text = text.lines().map(|line| match line.strip_prefix("ExecStart=/usr/libexec/borgcube/") {
            Some(command) => format!("ExecStart=/bin/true {command}\n"),
            None => format!("{line}\n"),
        });
        fs::write(directory.path().join(&name), text.collect::<String>()).unwrap();
        names.push(directory.path().join(&name));
    }
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(names.iter().map(|name| name.to_str().unwrap()));
    let Some(output) = systemd("systemd_finds_nothing_to_complain_of", "systemd-analyze", &arguments) else { return };
    // Its exit code is 0 also when it does not know a directive.
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));

    fs::write(directory.path().join("wrong.service"), "[Service]\nExecStart=/bin/true\nProtectEverything=yes\n").unwrap();
    let wrong = directory.path().join("wrong.service");
    let output =
        systemd("systemd_finds_nothing_to_complain_of", "systemd-analyze", &["verify", "--man=no", wrong.to_str().unwrap()]).unwrap();
    assert!(said(&output).contains("ProtectEverything"), "{}", said(&output));
}

#[test]
fn every_program_of_a_unit_is_installed() {
    let script = fs::read_to_string(tree().join("scripts/install-tree")).unwrap();
    for (name, text) in units() {
        for command in text.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let path = command.split(' ').next().unwrap();
            let program = path.strip_prefix("/usr/libexec/borgcube/").unwrap_or_else(|| panic!("{name}: {path}"));
            assert!(
                script.split_whitespace().any(|word| word.trim_matches('\'') == program),
                "{program} of {name} is not in scripts/install-tree"
            );
        }
    }
}

#[test]
fn users_and_directories() {
    const TEST: &str = "users_and_directories";
    if !nix::unistd::geteuid().is_root() {
        return not_run(TEST, "only root can make users and give directories away");
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    let file = |name: &str| tree().join(name).canonicalize().unwrap().to_str().unwrap().to_owned();
    let arguments = [&format!("--root={root}"), &file("systemd/sysusers.d/borgcube.conf")];
    let Some(output) = systemd(TEST, "systemd-sysusers", &arguments.map(String::as_str)) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let passwd = fs::read_to_string(directory.path().join("etc/passwd")).unwrap();
    let groups = fs::read_to_string(directory.path().join("etc/group")).unwrap();
    let number = |table: &str, name: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_else(|| panic!("{name} is not in\n{table}"));
        line.split(':').nth(2).unwrap().parse::<u32>().unwrap()
    };
    assert!(groups.lines().any(|line| line.starts_with("borgcube-db:") && line.contains("borgcube,borgcube-repo")), "{groups}");
    let shell =
        |name: &str| passwd.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(shell("borgcube-ssh"), "/bin/sh");
    for name in ["borgcube", "borgcube-repo", "borgcube-keys", "borgcube-status"] {
        assert!(shell(name).ends_with("nologin"), "{name}");
    }

    let arguments = [&format!("--root={root}"), "--create", &file("systemd/tmpfiles.d/borgcube.conf")];
    let output = systemd(TEST, "systemd-tmpfiles", &arguments).unwrap();
    assert!(output.status.success() && said(&output).is_empty(), "{}", said(&output));
    for (path, mode, owner, group) in [
        ("var/lib/borgcube", 0o755, "root", "root"),
        ("var/lib/borgcube/db", 0o2770, "borgcube", "borgcube-db"),
        ("var/lib/borgcube/db/data.mdb", 0o660, "borgcube", "borgcube-db"),
        ("var/lib/borgcube/db/lock.mdb", 0o660, "borgcube", "borgcube-db"),
        ("var/lib/borgcube/views", 0o700, "borgcube-repo", "borgcube-repo"),
        ("var/lib/borgcube/restore-tests", 0o700, "borgcube", "borgcube"),
        ("var/lib/borgcube/keys", 0o2750, "borgcube", "borgcube-keys"),
        ("run/borgcube", 0o755, "root", "root"),
        ("run/borgcube/keys", 0o2750, "borgcube", "borgcube-keys"),
        ("run/borgcube/sessions", 0o2711, "borgcube-repo", "borgcube-db"),
        ("run/borgcube/connections", 0o600, "borgcube-ssh", "borgcube-ssh"),
    ] {
        let meta = fs::metadata(directory.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{path}");
        let number = |table: &str, name: &str| if name == "root" { 0 } else { number(table, name) };
        assert_eq!((meta.uid(), meta.gid()), (number(&passwd, owner), number(&groups, group)), "{path}");
    }
}

/// The state's directories are made in one place and removed in another.
#[test]
fn a_purge_removes_every_directory() {
    let root = tree();
    let postrm = fs::read_to_string(root.join("debian/borgcube-server.postrm")).unwrap();
    let names =
        postrm.lines().find_map(|line| line.trim().strip_prefix("for name in ")?.strip_suffix("; do")).expect("the line with the names");
    let tmpfiles = fs::read_to_string(root.join("systemd/tmpfiles.d/borgcube.conf")).unwrap();
    let made: BTreeSet<&str> =
        tmpfiles.lines().filter_map(|line| line.split_whitespace().nth(1)?.strip_prefix("/var/lib/borgcube/")?.split('/').next()).collect();
    assert!(made.len() > 10, "{made:?}");
    let left: Vec<&&str> = made.iter().filter(|name| !names.split(' ').any(|other| other == **name)).collect();
    assert!(left.is_empty(), "debian/borgcube-server.postrm leaves {left:?}");
}

#[test]
fn sshd_takes_the_snippet() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]).status();
    let sshd = Path::new("/usr/sbin/sshd");
    if !sshd.exists() || !made.is_ok_and(|status| status.success()) {
        return not_run("sshd_takes_the_snippet", "OpenSSH's server is not installed");
    }
    if !Path::new("/run/sshd").exists() && fs::create_dir("/run/sshd").is_err() {
        return not_run("sshd_takes_the_snippet", "sshd wants the directory /run/sshd, which only root can make");
    }
    let snippet = tree().join("systemd/sshd_config.d/borgcube.conf").canonicalize().unwrap();
    let config = directory.path().join("sshd_config");
    // What comes behind it must not fall into its Match block.
    let text = format!("HostKey {}\nInclude {}\nMaxAuthTries 5\n", key.display(), snippet.display());
    fs::write(&config, text).unwrap();
    let ask = |who: &str| {
        let output =
            Command::new(sshd).args(["-T", "-f", config.to_str().unwrap(), "-C", &format!("user={who},host=h,addr=192.0.2.1")]).output();
        let output = output.unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        said(&output)
    };
    let client = ask("borgcube-ssh");
    for line in [
        "authenticationmethods publickey",
        "authorizedkeysfile none",
        "authorizedkeyscommanduser borgcube-keys",
        "disableforwarding yes",
        "permittty no",
        "permituserrc no",
        "forcecommand none",
        "maxauthtries 5",
    ] {
        assert!(client.lines().any(|l| l == line), "{line} is not in\n{client}");
    }
    let person = ask("somebody");
    assert!(person.contains("authorizedkeyscommand none") && person.contains("permittty yes"), "{person}");
}
