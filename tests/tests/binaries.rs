//! Clients without a borg of their own: they get one from this server, keep it, and lose nothing when that is not possible.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use testkit::borgs::{Borg, not_run};
use testkit::sshd::Sshd;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{assert_failed, newest_archive, newest_job, number, text};

const PASSPHRASE: &str = "correct horse battery staple";

/// What a client has in its `PATH`: all that the script needs, and no borg.
const TOOLS: &str = "sh dd mkdir mv rm cat sleep stat flock uname wc chmod sha256sum getconf ldd tr ls env ssh";

fn tools(directory: &Path) {
    fs::create_dir(directory).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for name in TOOLS.split(' ') {
        let found = std::env::split_paths(&path).map(|place| place.join(name)).find(|place| place.exists());
        symlink(found.unwrap_or_else(|| panic!("there is no {name}")), directory.join(name)).unwrap();
    }
}

fn script(path: &Path, content: &str) {
    fs::write(path, format!("#!/bin/sh\n{content}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn platform() -> String {
    format!("--platform={}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

fn log(system: &TestSystem) -> String {
    system.cli_ok(&["job", "log", &number(&newest_job(system), "number").to_string()])
}

fn fails(system: &TestSystem, cause: &str) -> String {
    system.run("host/all");
    let record = newest_job(system);
    assert_failed(&record, cause);
    text(&record["failure"], "message").to_owned()
}

fn judge(system: &TestSystem, borg: &Borg, repository: &Path) {
    let archive = text(&newest_archive(system), "name").to_owned();
    system.settle();
    borg.judge(&BorgWorld::with_passphrase(PASSPHRASE), repository, &archive, &system.join("source")).unwrap();
}

#[test]
fn a_client_without_borg_gets_one_and_keeps_it() {
    let Some(borg) = Borg::v1_4_5() else { return not_run("clients without borg", "borg 1.4.5 is not installed") };
    // It is there before the system is, for its processes inherit it.
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("bin");
    tools(&path);
    let system = TestSystem::start_with(&[("PATH", path.to_str().unwrap()), ("BORGCUBE_BORG", borg.program.to_str().unwrap())]);
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    system.add_local_client("host");
    make(&system.join("source"), Spec { files: 20, ..Spec::default() });
    system.add_config("host", "all", "main", &[], &[&system.join("source")]);
    fails(&system, "client-borg-missing");

    // It is asked for its version.
    let file = system.join("a binary");
    // Borg calls itself by the name of its file.
    let named = format!("[ $# != 1 ] || {{ echo \"${{0##*/}} {}\"; exit; }}", borg.version);
    script(&file, &format!("{named}\nexec '{}' \"$@\"", borg.program.display()));
    let added = system.cli_json(&["binary".into(), "add".into(), file.display().to_string(), platform(), "--glibc=2.17".into()]);
    let name = text(&added, "name").to_owned();
    assert!(name.starts_with("borg-1.4.5-") && name.ends_with("-glibc2.17"), "{name}");
    system.run_ok("host/all");
    assert!(log(&system).contains(&format!("gets {name}, ")), "{}", log(&system));
    assert_eq!(text(&newest_job(&system), "client_borg"), "borg 1.4.5");
    let kept = kept(&system);
    assert_eq!(fs::read(&kept).unwrap(), fs::read(&file).unwrap());
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o7777, 0o700);

    // One that is too old is as good as none. Nothing is sent again.
    script(&path.join("borg"), "echo borg 1.0.13");
    system.run_ok("host/all");
    assert!(log(&system).contains(&format!("uses {name} again")) && !log(&system).contains("gets borg-"), "{}", log(&system));
    system.cli_ok(&["client", "edit", "host", "--borg-binary", "never"]);
    fails(&system, "client-borg-outdated");
    system.cli_ok(&["client", "edit", "host", "--borg-binary", "if-needed"]);

    // What the client has made of it does not count.
    script(&kept, "echo borg 1.4.5");
    system.run_ok("host/all");
    assert!(log(&system).contains(&format!("gets {name}, ")), "{}", log(&system));
    assert_eq!(fs::read(&kept).unwrap(), fs::read(&file).unwrap());
    judge(&system, &borg, &repository);

    // What somebody has made of it on this server is sent to nobody.
    system.cli_ok(&["binary", "verify"]);
    let here = system.state().join("binaries").join(&name);
    fs::write(&here, "#!/bin/sh\necho borg 1.4.5\n").unwrap();
    let (code, said) = system.cli_fails(&["binary", "verify"]);
    assert!(code == 1 && said.contains(&name) && said.contains("instead of"), "{said}");
    fs::remove_file(&kept).unwrap();
    assert!(fails(&system, "client-borg-binary").contains("borgcube binary verify"));
    assert!(!kept.exists());

    system.cli_ok(&["binary", "remove", &name]);
    assert!(!here.exists());
    let arguments = ["binary".into(), "add".into(), file.display().to_string(), platform(), "--glibc=99.0".into()];
    system.cli_ok(&arguments);
    let why = fails(&system, "client-borg-binary");
    assert!(why.contains("borg 1.0.13, which is too old") && why.contains("with glibc 2.") && why.contains("-glibc99.0"), "{why}");
    fs::remove_file(path.join("borg")).unwrap();
    assert!(fails(&system, "client-borg-binary").contains("no borg of its own"));
}

fn kept(system: &TestSystem) -> PathBuf {
    let caches = fs::read_dir(system.home().join(".cache/borgcube")).unwrap();
    caches.map(|entry| entry.unwrap().path().join("binary/borg")).find(|path| path.exists()).expect("it is kept")
}

#[test]
fn over_ssh_a_binary_comes_once() {
    let Some(borg) = Borg::v1_4_5() else { return not_run("binaries over SSH", "borg 1.4.5 is not installed") };
    let system = TestSystem::start();
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let cache = format!("--remote-cache-dir={}", system.join("a client's cache").display());
    system.add_ssh_client("host", &mut there, &mut here, &[&cache, "--borg-binary=always"]);
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    make(&system.join("source"), Spec { files: 20, ..Spec::default() });
    system.add_config("host", "all", "main", &[], &[&system.join("source")]);
    assert!(fails(&system, "client-borg-binary").contains("there is none"));

    // As large as the real ones are: it does not fit into any pipe.
    let file = system.join("borg-linux-glibc217");
    script(&file, &format!("exec '{}' \"$@\"\n{}", borg.program.display(), "# and so on\n".repeat(1_000_000)));
    system.cli_ok(&["binary".into(), "add".into(), file.display().to_string(), platform(), "--borg-version=1.4.5".into()]);
    system.run_ok("host/all");
    assert!(log(&system).contains("gets borg-1.4.5-"), "{}", log(&system));
    judge(&system, &borg, &repository);
    system.run_ok("host/all");
    assert!(log(&system).contains(" again, which it has kept"), "{}", log(&system));
    assert_eq!(fs::read(system.join("a client's cache/binary/borg")).unwrap(), fs::read(&file).unwrap());
}

#[test]
fn what_is_no_binary_for_clients_is_refused_with_a_sentence() {
    let system = TestSystem::start();
    let refused = |name: &str, content: &str, options: &[&str]| {
        let file = system.join(name);
        script(&file, content);
        let mut arguments = vec!["binary".to_owned(), "add".to_owned(), file.display().to_string()];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        system.cli_fails(&arguments)
    };
    let here = platform();
    let (code, said) = refused("borg", "echo borg 1.4.5", &[]);
    assert!(code == 2 && said.contains("--platform linux-x86_64"), "{said}");
    let (code, said) = refused("borg", "echo borg 1.4.5", &[&here]);
    assert!(code == 2 && said.contains("--glibc 2.31"), "{said}");
    let (code, said) = refused("borg", "echo borg 2.0.0", &[&here, "--glibc=2.31"]);
    assert!(code == 2 && said.contains("clients need 1.1.10 or newer, below 2"), "{said}");
    let (code, said) = refused("borg", "echo borg 1.1.9", &[&here, "--glibc=2.31"]);
    assert!(code == 2 && said.contains("is borg 1.1.9"), "{said}");
    let (code, said) = refused("borg", "echo no >&2; exit 1", &[&here, "--glibc=2.31"]);
    assert!(code == 2 && said.contains("does not run here: no") && said.contains("--borg-version"), "{said}");
    let (code, said) = refused("borg", "", &["--platform=linux-riscv64", "--glibc=2.31"]);
    assert!(code == 2 && said.contains("linux-riscv64") && said.contains("--borg-version"), "{said}");
    let (code, said) = system.cli_fails(&["binary", "add", "/nonexistent/borg"]);
    assert!(code == 1 && said.contains("/nonexistent/borg"), "{said}");
    assert_eq!(system.cli_fails(&["binary", "remove", "borg-1.4.5-linux-x86_64"]).0, 3);
    let left: Vec<_> = fs::read_dir(system.state().join("binaries")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");

    let file = system.join("borg").display().to_string();
    let add = ["binary", "add", &file, "--platform=freebsd-amd64", "--borg-version=1.4.5"];
    system.cli_ok(&add);
    assert_eq!(system.cli_fails(&add).0, 4);
    let listed = system.cli_json(&["binary", "list"]);
    assert_eq!((text(&listed[0], "name"), listed[0]["glibc"].is_null()), ("borg-1.4.5-freebsd-x86_64", true), "{listed}");
    assert_eq!(system.cli_json(&["binary", "verify"])[0]["ok"], true);
}
