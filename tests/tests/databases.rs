//! Dumps of databases with the real servers of Debian: dumped, backed up, restored into a second database, compared.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use testkit::borgs::not_run;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use tests::{PATIENCE, assert_failed, newest_archive, start, text, wait_for_end};

fn helper(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/client").join(name).display().to_string()
}

/// Runs it, which must succeed.
#[track_caller]
fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same with something on its standard input.
#[track_caller]
fn feed(command: &mut Command, input: &[u8]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
}

/// A server in a directory of its own, on a socket and no network; ended with the test.
struct Server {
    child: Child,
    /// What it has on the disk goes with it.
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // PostgreSQL: at once.
        drop(Command::new("kill").args(["-QUIT", &pid]).status());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_root() -> bool {
    ok(Command::new("id").arg("-u")).trim() == "0"
}

/// A command as the user of that server, which is not root.
fn as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program);
    command
}

fn place(user: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    if is_root() {
        ok(Command::new("chown").arg(user).arg(directory.path()));
    }
    directory
}

/// Backs up the dump, and gives what the archive has.
fn through_a_backup(system: &TestSystem, label: &str, name: &str, command: &str) -> Vec<u8> {
    system.add_config("db1", label, "main", &["--dump", &format!("{name}={command}")], &[Path::new("/etc/hostname")]);
    system.run_ok(&format!("db1/{label}"));
    let archive = text(&newest_archive(system), "name").to_owned();
    let output = system.cli(&["archive", "cat", &archive, &format!("borgcube-dumps/{name}")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn system() -> TestSystem {
    let system = TestSystem::start();
    system.add_repository("main", "repokey-blake2", Some("what databases hold"));
    system.add_local_client("db1");
    system
}

fn postgresql() -> Option<PathBuf> {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|e| e.path().join("bin")).collect();
    versions.retain(|bin| bin.join("postgres").exists());
    versions.sort();
    versions.pop()
}

#[test]
fn a_database_of_postgresql_comes_back() {
    let Some(bin) = postgresql() else { return not_run("dumps of PostgreSQL", "its server is not installed (Debian: postgresql)") };
    let directory = place("postgres");
    let (data, socket) = (directory.path().join("data"), directory.path().display().to_string());
    ok(as_user("postgres", &bin.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--username=postgres", "-D"])
        .arg(&data));
    let child = as_user("postgres", &bin.join("postgres"))
        .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k", &socket, "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child, _directory: directory };
    let psql = |database: &str| {
        let mut command = Command::new("psql");
        command.env("PGHOST", &socket).args(["-U", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]);
        command
    };
    let up = retry_until(PATIENCE, || {
        psql("postgres").args(["-c", "SELECT 1"]).stderr(Stdio::null()).output().ok()?.status.success().then_some(())
    });
    up.expect("the server starts");
    ok(psql("postgres").args(["-c", "CREATE DATABASE wiki"]));
    let content = "CREATE TABLE pages (id serial PRIMARY KEY, title text UNIQUE, body bytea, at timestamptz DEFAULT now());
        INSERT INTO pages (title, body) SELECT 'Seite ü ' || n || E'\\n\\t''x', sha256(n::text::bytea) FROM generate_series(1, 5000) n;
        CREATE VIEW titles AS SELECT title FROM pages; CREATE INDEX ON pages (at); SELECT lo_from_bytea(0, '\\x00ff27');
        CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 42 $$;";
    ok(psql("wiki").args(["-c", content]));

    let system = system();
    let user = if is_root() { "" } else { "PGUSER=postgres " };
    let dump = |database: &str| format!("PGHOST='{socket}' {user}'{}' {database}", helper("borgcube-dump-postgresql"));
    let saved = through_a_backup(&system, "wiki", "wiki.sql", &dump("wiki"));
    ok(psql("postgres").args(["-c", "CREATE DATABASE second"]));
    feed(&mut psql("second"), &saved);
    // Newer versions have a random word in each dump.
    let now = |database: &str| {
        let text = ok(Command::new("sh").args(["-c", &dump(database)]));
        text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict")).collect::<Vec<_>>().join("\n")
    };
    assert!(now("wiki") == now("second"), "what came back is what there was");
    let sum = "SELECT count(*), md5(string_agg(title || encode(body, 'hex') || at, ',' ORDER BY id)), f() FROM pages";
    assert_eq!(ok(psql("wiki").args(["-c", sum])), ok(psql("second").args(["-c", sum])));

    // A database that is not there, and a server that goes away in the middle, leave no archive.
    system.add_config("db1", "none", "main", &["--dump", &format!("x.sql={}", dump("nosuch"))], &[]);
    assert_failed(&wait_for_end(&system, start(&system, "db1/none")), "dump-failed");
    assert_eq!(system.cli_json(&["archive", "list"]).as_array().unwrap().len(), 1);
    drop(server);
    assert_failed(&wait_for_end(&system, start(&system, "db1/wiki")), "dump-failed");
}

#[test]
fn a_database_of_mariadb_comes_back() {
    let programs = ["/usr/sbin/mariadbd", "/usr/bin/mariadb-install-db", "/usr/bin/mariadb-dump"].map(Path::new);
    if programs.iter().any(|program| !program.exists()) {
        return not_run("dumps of MariaDB", "its server is not installed (Debian: mariadb-server)");
    }
    let directory = place("mysql");
    let (data, socket) = (directory.path().join("data"), directory.path().join("socket"));
    let (data, socket) = (format!("--datadir={}", data.display()), format!("--socket={}", socket.display()));
    ok(as_user("mysql", programs[1]).args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data]));
    let child = as_user("mysql", programs[0])
        .args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0", &data, &socket])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child, _directory: directory };
    let mariadb = || {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=root", "-N", &socket]);
        command
    };
    retry_until(PATIENCE, || mariadb().args(["-e", "SELECT 1"]).stderr(Stdio::null()).output().ok()?.status.success().then_some(()))
        .expect("the server starts");
    let content = "CREATE DATABASE shop CHARACTER SET utf8mb4; USE shop;
        CREATE TABLE goods (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(99) UNIQUE, body BLOB) ENGINE=InnoDB;
        INSERT INTO goods (name, body) SELECT CONCAT('Käse \\'', seq, '\\' 🧀'), UNHEX(SHA2(seq, 256)) FROM seq_1_to_5000;
        CREATE VIEW names AS SELECT name FROM goods; CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 42;
        CREATE TRIGGER t BEFORE INSERT ON goods FOR EACH ROW SET NEW.name = TRIM(NEW.name);
        CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1;";
    ok(mariadb().args(["--default-character-set=utf8mb4", "-e", content]));

    let system = system();
    let options = system.join("my.cnf");
    fs::write(&options, format!("[client]\nuser=root\n{}\n", &socket[2..])).unwrap();
    let dump =
        |database: &str| format!("BORGCUBE_MARIADB_DEFAULTS='{}' '{}' {database}", options.display(), helper("borgcube-dump-mariadb"));
    let saved = through_a_backup(&system, "shop", "shop.sql", &dump("shop"));
    let second = |text: &[u8]| String::from_utf8_lossy(text).replace("`shop`", "`second`");
    feed(mariadb().arg("--default-character-set=utf8mb4"), second(&saved).as_bytes());
    let now = |database: &str| {
        let text = ok(Command::new("sh").args(["-c", &dump(database)]));
        text.lines().filter(|line| !line.starts_with("-- ")).collect::<Vec<_>>().join("\n")
    };
    assert!(second(now("shop").as_bytes()) == now("second"), "what came back is what there was");
    let sum = |database: &str| {
        let query = format!(
            "SET group_concat_max_len = 10000000; SELECT COUNT(*), MD5(GROUP_CONCAT(name, HEX(body) ORDER BY id)), {database}.f() FROM {database}.goods"
        );
        ok(mariadb().args(["-e", &query]))
    };
    assert_eq!(sum("shop"), sum("second"));

    system.add_config("db1", "none", "main", &["--dump", &format!("x.sql={}", dump("nosuch"))], &[]);
    assert_failed(&wait_for_end(&system, start(&system, "db1/none")), "dump-failed");
    assert_eq!(system.cli_json(&["archive", "list"]).as_array().unwrap().len(), 1);
    drop(server);
}
