//! What a client runs: one small script, and the bytes that follow it on its standard input.
//!
//! The script's text is the argument of a shell and therefore no secret; settings (token, passphrase) and the chunks cache
//! travel over standard input, the latter after an answer to what the client says it has.

use super::carrier;
use super::keys::JobKey;
use model::client::Connection;
use model::hook::{Commands, Stream};
use model::restore::{Restore, Target};
use model::{BackupConfig, Client, JobKind};
use std::fmt::Write;
use wire::session::Prepared;
use wire::worker::{Backup, Restoring, Task};

const SCRIPT: &str = concat!(include_str!("binary.sh"), include_str!("begin.sh"), include_str!("hooks.sh"), include_str!("backup.sh"));

const RESTORE: &str = concat!(include_str!("binary.sh"), include_str!("begin.sh"), include_str!("restore.sh"));

const LIVE: &str = concat!(include_str!("binary.sh"), include_str!("restore_test/live.sh"));

/// The parts of a client's standard input, in order. The answer about its chunks cache follows them.
pub struct Input {
    /// The command line for the client's shell: reads the script and runs it.
    pub command: String,
    /// Script and settings.
    pub head: Vec<u8>,
}

/// How the client's borg comes to a session.
pub enum Way {
    /// By this command: the shim for a client on this machine, or the SSH command of one that has a key of its own.
    Command(String),
    /// By ssh with a key of this job only.
    Key(JobKey),
    /// By a second connection of ours.
    Carrier,
}

/// Builds the client's side of a backup.
pub fn build(task: &Task, backup: &Backup, prepared: &Prepared, borg_arguments: &[String], way: &Way) -> Input {
    let mut input = input(SCRIPT, &settings(task, backup, prepared, borg_arguments, way), way);
    if matches!(backup.client.connection, Connection::Local { .. }) && !backup.config.commands.hooks.is_empty() {
        // A hook after the backup may take longer than borgcubed leaves the processes of a worker that is gone.
        let command = input.command.strip_prefix("exec ").unwrap_or(&input.command);
        input.command = format!("command -v setsid >/dev/null 2>&1 && exec setsid {command}; exec {command}");
    }
    input
}

/// Builds the client's side of a restore. `again`: it has begun before, and may have left these files half written.
pub fn restore(task: &Task, errand: &Restoring, restore: &Restore, again: Option<&[Vec<u8>]>, prepared: &Prepared, way: &Way) -> Input {
    let Restoring { client, archive, .. } = errand;
    let mut settings = common(task, client, prepared, way);
    let (place, directory) = match &restore.target {
        Target::New => ("new", ""),
        Target::Directory(path) => ("directory", path.as_str()),
        Target::InPlace => ("in-place", ""),
    };
    // Of a part nobody knows how much it is; in place much of it is there.
    let measured = restore.is_whole() && restore.target != Target::InPlace && !restore.ignore_space && !restore.sparse;
    let needed = archive.filter(|_| measured).map_or(0, |archive| archive.original_size.div_ceil(1024));
    assign(&mut settings, "place", place);
    assign(&mut settings, "target", directory);
    assign(&mut settings, "new_directory", &Target::new_directory(task.job.number));
    assign(&mut settings, "needed", &needed.to_string());
    assign(&mut settings, "again", if again.is_some() { "yes" } else { "" });
    let halves = again.unwrap_or_default();
    assign(&mut settings, "half_count", &halves.len().to_string());
    for (n, path) in halves.iter().enumerate() {
        // For %b: names may have bytes that are no text.
        let coded: String = path.iter().map(|byte| format!("\\0{byte:03o}")).collect();
        assign(&mut settings, &format!("half_{n}"), &coded);
    }
    finish(&mut settings, &restore.borg_arguments());
    input(RESTORE, &settings, way)
}

/// Has a client hash its files; `lines` name them.
pub fn live(lines: &[u8]) -> Input {
    let mut input = input(LIVE, "", &Way::Carrier);
    input.head.extend_from_slice(lines);
    input
}

/// Where the job's files are on the client, as a word for its shell.
pub fn directory(task: &Task, connection: &Connection, prepared: &Prepared) -> String {
    let base = match connection.remote_cache_dir() {
        Some(directory) => quote(directory),
        None => format!("\"${{HOME:-}}\"/.cache/borgcube/{}", quote(&task.server_id)),
    };
    let what = if task.job.kind() == JobKind::Restore { "restore" } else { "job" };
    format!("{base}/{what}-{}-{}", prepared.repository_id, task.job.number)
}

fn input(text: &str, settings: &str, way: &Way) -> Input {
    let mut script = String::new();
    let mut assign = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(script, "{name}={}", quote(&value));
    };
    assign("settings_size", settings.len().to_string());
    script.push_str(text);
    // `dd` reads byte by byte: a shell that reads its script from a pipe may read too much.
    let command = format!("exec sh -c 's=$(dd bs=1 count={} 2>/dev/null); eval \"$s\"'", script.len());
    let mut head = script.into_bytes();
    head.extend_from_slice(settings.as_bytes());
    if let Way::Key(key) = way {
        head.extend_from_slice(key.private.as_bytes());
        head.extend_from_slice(key.known_hosts.as_bytes());
    }
    Input { command, head }
}

fn assign(text: &mut String, name: &str, value: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{name}={}", quote(value));
}

/// What the beginning of every script needs.
fn common(task: &Task, client: &Client, prepared: &Prepared, way: &Way) -> String {
    let connection = &client.connection;
    let server = match (connection, way) {
        (Connection::Local { .. }, _) | (_, Way::Carrier) => "borgcube-ssh@localhost",
        (Connection::Ssh(ssh), _) => ssh.server.as_str(),
    };
    let (rsh, key_size, known_hosts_size) = match way {
        Way::Command(command) => (command.clone(), 0, 0),
        Way::Key(key) => (JobKey::rsh(), key.private.len(), key.known_hosts.len()),
        Way::Carrier => (carrier::RSH.to_owned(), 0, 0),
    };
    let mut text = String::new();
    let mut assign = |name: &str, value: &str| assign(&mut text, name, value);
    assign("job", &task.job.number.to_string());
    assign("server_id", &task.server_id);
    assign("cache_dir", connection.remote_cache_dir().unwrap_or_default());
    assign("borg", connection.remote_borg().unwrap_or("borg"));
    assign("borg_binary", client.binary_use().word());
    assign("repository_id", &prepared.repository_id);
    assign("BORG_REPO", &format!("ssh://{server}/./{}", prepared.token));
    assign("BORG_RSH", &rsh);
    assign("key_size", &key_size.to_string());
    assign("known_hosts_size", &known_hosts_size.to_string());
    assign("carrier", if matches!(way, Way::Carrier) { "yes" } else { "" });
    assign("BORG_PASSPHRASE", &prepared.passphrase);
    for yes in ["BORG_RELOCATED_REPO_ACCESS_IS_OK", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK"] {
        assign(yes, "yes");
    }
    assign("BORG_EXIT_CODES", "modern");
    assign("BORG_SELFTEST", "disabled");
    text
}

/// What follows everything else: what borg gets of it, and its arguments.
fn finish(text: &mut String, borg_arguments: &[String]) {
    assign(
        text,
        "borg_variables",
        "BORG_REPO BORG_RSH BORG_PASSPHRASE BORG_RELOCATED_REPO_ACCESS_IS_OK BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK BORG_EXIT_CODES \
         BORG_SELFTEST BORG_BASE_DIR BORG_CACHE_DIR BORG_SECURITY_DIR BORG_FILES_CACHE_SUFFIX",
    );
    text.push_str("set --");
    for argument in borg_arguments {
        text.push(' ');
        text.push_str(&quote(argument));
    }
    text.push_str("\nsettings_complete=yes\n");
}

fn settings(task: &Task, backup: &Backup, prepared: &Prepared, borg_arguments: &[String], way: &Way) -> String {
    let config = &backup.config;
    let mut text = common(task, &backup.client, prepared, way);
    let mut assign = |name: &str, value: &str| assign(&mut text, name, value);
    assign("manifest_id", &prepared.manifest_id);
    assign("mark", &prepared.mark);
    assign("BORG_FILES_CACHE_SUFFIX", config.label.as_str());
    let mut literal = vec![];
    for (n, path) in config.paths.iter().enumerate() {
        assign(&format!("path_{n}"), path);
        literal.push(n.to_string());
    }
    assign("literal_paths", &literal.join(" "));
    // Roots in patterns are Borg's to judge.
    let roots = config.patterns.iter().filter(|p| p.starts_with('R')).count();
    assign("path_count", &(literal.len() + roots).to_string());
    let archive = borg_arguments.iter().find_map(|argument| argument.strip_prefix("::")).unwrap_or_default();
    commands(&mut text, archive, config);
    finish(&mut text, borg_arguments);
    text
}

/// What the administrator has the client run.
fn commands(text: &mut String, archive: &str, config: &BackupConfig) {
    let Commands { hooks, dumps } = &config.commands;
    let mut assign = |name: &str, value: &str| assign(text, name, value);
    assign("client_name", config.client.as_str());
    assign("config_name", &config.name().to_string());
    assign("archive_name", archive);
    assign("hook_count", &hooks.len().to_string());
    assign("dump_count", &dumps.len().to_string());
    for (n, hook) in hooks.iter().enumerate() {
        assign(&format!("hook_{n}"), hook.name.as_str());
        assign(&format!("before_{n}"), hook.before.as_deref().unwrap_or_default());
        assign(&format!("after_{n}"), hook.after.as_deref().unwrap_or_default());
        assign(&format!("limit_{n}"), &hook.seconds.to_string());
        assign(&format!("policy_{n}"), hook.on_failure.word());
    }
    for (n, dump) in dumps.iter().enumerate() {
        assign(&format!("dump_name_{n}"), dump.name.as_str());
        assign(&format!("dump_{n}"), &dump.command);
        assign(&format!("dump_limit_{n}"), &dump.seconds.to_string());
    }
    let numbers = |spool: bool| {
        let those = dumps.iter().enumerate().filter(|(_, dump)| dump.spool == spool);
        those.map(|(n, _)| n.to_string()).collect::<Vec<_>>().join(" ")
    };
    assign("spooled", &numbers(true));
    assign("streamed", &numbers(false));
    let input = match config.commands.stream() {
        Stream::Input(n) => n.to_string(),
        Stream::Nothing | Stream::Pipes => String::new(),
    };
    assign("stdin_dump", &input);
}

/// Quotes for a POSIX shell: nothing inside single quotes has a meaning.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::client::answer_line;
    use super::*;
    use std::process::Command;

    #[test]
    fn quoting_survives_a_real_shell() {
        for text in ["", "a b", "it's", "$(reboot)", "`x`", "\\", "\n", "'", "''", "-n", "*", "ä\u{7f}\t", "a'b'c\"d"] {
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output().unwrap();
            assert_eq!(output.stdout, text.as_bytes(), "{text:?}");
        }
    }

    const MARK: &str = "0123456789abcdef0123456789abcdef";

    /// Runs the script as a client would, with `fake` as its borg; gives what it said to the worker and to standard error.
    fn run(fake: &str, chunks: &[u8], close: bool, change: impl Fn(&mut Backup)) -> (String, String, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let answer = [answer_line(&chunks.len().to_string()), chunks.to_vec()].concat();
        let (out, err) = run_in(home.path(), fake, &answer, close, change);
        (out, err, home)
    }

    /// The same in a home of before, with this answer about the chunks cache.
    pub fn run_in(home: &std::path::Path, fake: &str, answer: &[u8], close: bool, change: impl Fn(&mut Backup)) -> (String, String) {
        use std::io::{Read, Write};
        use std::os::unix::fs::PermissionsExt;
        let borg = home.join("borg it's");
        let text = format!("#!/bin/sh\n[ \"$1\" != --version ] || {{ cat $HOME/version 2>/dev/null || echo borg 1.2.4; exit; }}\n{fake}\n");
        // The same program stays as it is.
        if std::fs::read(&borg).ok().as_deref() != Some(text.as_bytes()) {
            std::fs::write(&borg, text).unwrap();
            std::fs::set_permissions(&borg, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let connection = Connection::Local { remote_borg: Some(borg.to_str().unwrap().into()), remote_cache_dir: None };
        let (task, mut backup) = task(connection);
        change(&mut backup);
        let input = build(&task, &backup, &prepared(), &backup.config.borg_arguments("a"), &Way::Command("shim 'x y'".into()));
        let mut child = Command::new("sh")
            .args(["-c", &input.command])
            .env_clear()
            .env("PATH", if home.join("bin").is_dir() { home.join("bin").into_os_string() } else { std::env::var_os("PATH").unwrap() })
            .env("HOME", home)
            // A login has variables of its own.
            .envs([("BORG_PASSPHRASE", "theirs"), ("BORG_REMOTE_PATH", "theirs"), ("key", "theirs"), ("TMPDIR", "/var/tmp")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A script that gives up early does not read the rest.
        let _ = stdin.write_all(&input.head).and_then(|()| stdin.write_all(answer));
        if close {
            // Not before borg can hear of it.
            while !home.join("ready").exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let stdin = (!close).then_some(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        drop(stdin);
        child.wait().unwrap();
        (out, err)
    }

    /// What its owner has prepared.
    pub fn prepared() -> Prepared {
        Prepared {
            token: "0".repeat(64),
            passphrase: "p'w $x".into(),
            repository_id: "ab".repeat(32),
            key_type: 7,
            manifest_id: "cd".repeat(32),
            manifest_timestamp: String::new(),
            view_chunks: 0,
            mark: MARK.into(),
            kept: None,
            warnings: vec![],
        }
    }

    /// A job of a client behind that connection.
    pub fn task(connection: Connection) -> (Task, Backup) {
        use model::{BackupConfig, Client, EncryptionMode, Job, Repository, Timestamp};
        use wire::worker::Errand;
        let now = Timestamp(0);
        let job = Job::backup(5, &"host/etc".parse().unwrap(), "main".parse().unwrap(), "root", now);
        let client = Client {
            name: "host".parse().unwrap(),
            description: String::new(),
            connection,
            keys: vec![],
            blackouts: vec![],
            borg_binary: Default::default(),
            created: now,
        };
        let config = BackupConfig {
            client: client.name.clone(),
            label: "etc".parse().unwrap(),
            repository: "main".parse().unwrap(),
            paths: vec!["/".into(), "/no where/it's".into()],
            excludes: vec!["*'$(x)`".into()],
            patterns: vec![],
            one_file_system: false,
            compression: None,
            checkpoint_interval: None,
            read_special: false,
            ignore_inode: false,
            extra_options: vec![],
            target_age_hours: 26,
            commands: Default::default(),
            created: now,
        };
        let repository = Repository {
            name: "main".parse().unwrap(),
            url: "/r".into(),
            description: String::new(),
            repository_id: String::new(),
            encryption: EncryptionMode::None,
            remote_borg: None,
            rsh: None,
            created: now,
        };
        let backup = Backup { client, config, expected: None };
        let task = Task {
            job,
            repository,
            errand: Errand::Backup(Box::new(backup.clone())),
            server_id: "sid".into(),
            log_bytes: 1 << 20,
            start_seconds: 60,
            total_seconds: 60,
            objects: 1000,
            outlives: false,
        };
        (task, backup)
    }

    #[test]
    fn a_whole_run_with_every_byte_in_its_place() {
        let chunks: Vec<u8> = (0..200_001u32).map(|i| (i % 251) as u8).collect();
        let fake = r#"printf '%s|' "$@" "$BORG_PASSPHRASE" "$BORG_RSH" "$BORG_REPO" >&2; cp "$BORG_CACHE_DIR"/*/chunks "$BORG_CACHE_DIR"/*/config "$HOME"; exit 1"#;
        let (out, err, home) = run(fake, &chunks, false, |_| {});
        let steps: Vec<_> = out.lines().collect();
        assert_eq!(
            steps,
            [
                "borgcube version borg 1.2.4",
                "borgcube missing /no where/it's",
                "borgcube cache -",
                "borgcube prepared",
                "borgcube started",
                "borgcube exit 1",
                "borgcube clean"
            ],
            "{err}"
        );
        assert!(err.contains("create|--log-json|--progress|--exclude=*'$(x)`|--|::a|/|/no where/it's|p'w $x|shim 'x y'|ssh://borgcube-ssh@localhost/./000"), "{err}");
        assert_eq!(std::fs::read(home.path().join("chunks")).unwrap(), chunks);
        let config = std::fs::read_to_string(home.path().join("config")).unwrap();
        assert_eq!(config, format!("[cache]\nversion = 1\nrepository = {}\nmanifest = {}\n", "ab".repeat(32), "cd".repeat(32)));
        let base = home.path().join(".cache/borgcube/sid");
        assert!(std::fs::read_dir(&base).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with("job-")));
        assert!(base.join("cache").join("ab".repeat(32)).join("files.etc").exists());
    }

    /// What the script says of its cache in the next run.
    fn found(home: &std::path::Path, answer: &[u8], exit: i32) -> String {
        let fake = format!(r#"cat "$BORG_CACHE_DIR"/*/chunks >"$HOME/seen"; printf x >>"$(echo "$BORG_CACHE_DIR"/*/chunks)"; exit {exit}"#);
        let (out, err) = run_in(home, &fake, answer, false, |_| {});
        assert!(out.contains(&format!("borgcube exit {exit}")), "{out}{err}");
        out.lines().find_map(|line| line.strip_prefix("borgcube cache ")).unwrap().to_owned()
    }

    #[test]
    fn a_cache_that_is_as_it_was_left_is_known_again() {
        let home = tempfile::tempdir().unwrap();
        let (home, full) = (home.path(), [answer_line("4"), b"full".to_vec()].concat());
        let cache = home.join(".cache/borgcube/sid/cache").join("ab".repeat(32));
        let seen = || std::fs::read_to_string(home.join("seen")).unwrap();
        assert_eq!(found(home, &full, 0), "-");
        assert_eq!((found(home, &answer_line("keep"), 1), seen()), (MARK.into(), "fullx".into()));
        // Nobody has to keep what he has.
        assert_eq!((found(home, &full, 0), seen()), (MARK.into(), "full".into()));
        // Changed, missing, of another borg, or left by one that failed: nobody's.
        std::fs::OpenOptions::new()
            .append(true)
            .open(cache.join("chunks"))
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"y"))
            .unwrap();
        assert_eq!(found(home, &full, 0), "-");
        std::fs::remove_file(cache.join("chunks")).unwrap();
        assert_eq!(found(home, &full, 0), "-");
        let copy = std::fs::read(cache.join("chunks")).unwrap();
        std::fs::remove_file(cache.join("chunks")).unwrap();
        std::fs::write(cache.join("chunks"), copy).unwrap();
        assert_eq!(found(home, &full, 0), "-");
        std::fs::write(home.join("version"), "borg 1.4.5\n").unwrap();
        std::fs::remove_file(home.join("borg it's")).unwrap();
        assert_eq!(found(home, &full, 0), "-");
        assert_eq!(found(home, &full, 2), MARK);
        assert_eq!(found(home, &full, 107), "-");
        std::fs::create_dir(cache.join("txn.active")).unwrap();
        assert_eq!(found(home, &full, 0), "-");
        // One that is used and not finished has lost its mark.
        std::fs::write(home.join("ready"), "").unwrap();
        let (out, _) = run_in(home, "exit 0", b"", true, |_| {});
        assert!(out.ends_with(&format!("borgcube cache {MARK}\n")), "{out}");
        assert_eq!(found(home, &full, 0), "-");
        std::fs::write(cache.join("borgcube-mark"), "").unwrap();
        assert_eq!(found(home, &full, 0), "-");
    }

    #[test]
    fn a_version_is_asked_for_once_a_day() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let version = |fake: &str, now: &str| {
            std::fs::write(home.join("version"), now).unwrap();
            let (out, err) = run_in(home, fake, &[answer_line("0"), vec![]].concat(), false, |_| {});
            out.lines().find_map(|line| line.strip_prefix("borgcube version ")).unwrap_or_else(|| panic!("{out}{err}")).to_owned()
        };
        assert_eq!(version("exit 0", "borg 1.2.4"), "borg 1.2.4");
        assert_eq!(version("exit 0", "borg 1.4.0"), "borg 1.2.4", "the same program");
        assert_eq!(version("exit 2", "borg 1.4.1"), "borg 1.4.1", "another one");
        assert_eq!(version("exit 2", "borg 1.4.2"), "borg 1.4.2", "one that failed");
        let kept = home.join(".cache/borgcube/sid/borg-version");
        assert_eq!(version("exit 0", "borg 1.4.3"), "borg 1.4.3");
        let yesterday = std::fs::read_to_string(&kept).unwrap().replacen("-", "_", 1);
        std::fs::write(&kept, yesterday).unwrap();
        assert_eq!(version("exit 0", "borg 1.4.4"), "borg 1.4.4", "another day");
        std::fs::write(&kept, std::fs::read_to_string(&kept).unwrap().lines().next().unwrap()).unwrap();
        assert_eq!(version("exit 0", "borg 1.4.5"), "borg 1.4.5", "half written");
    }

    #[test]
    fn the_end_of_input_interrupts_borg() {
        let fake = "trap 'echo interrupted >&2; exit 2' INT\n: >\"$HOME/ready\"\nwhile :; do sleep 0.1; done";
        let (out, err, _home) = run(fake, b"", true, |_| {});
        assert!(err.contains("interrupted"), "{out}{err}");
        assert!(out.contains("borgcube exit 2\nborgcube clean"), "{out}");
    }

    #[test]
    fn it_gives_up_with_a_word() {
        let missing = |backup: &mut Backup| {
            backup.client.connection = Connection::Local { remote_borg: Some("/nowhere/borg".into()), remote_cache_dir: None }
        };
        assert!(run("", b"", false, missing).0.contains("borgcube failed client-borg-missing /nowhere/borg"));
        let path = |backup: &mut Backup| backup.config.paths = vec!["/no where".into()];
        let (out, _, home) = run("", b"", false, path);
        assert!(out.contains("borgcube missing /no where\nborgcube failed path-missing"), "{out}");
        assert!(!home.path().join(".cache/borgcube/sid/cache").exists(), "nothing was touched");
        let cache = |backup: &mut Backup| {
            if let Connection::Local { remote_cache_dir, .. } = &mut backup.client.connection {
                *remote_cache_dir = Some("/dev/null/x".into());
            }
        };
        assert!(run("", b"", false, cache).0.contains("borgcube failed client-cache"));
    }

    #[test]
    fn the_files_cache_of_a_killed_borg_comes_back() {
        let fake = r#"cat "$BORG_CACHE_DIR"/*/files.etc >&2; ls "$BORG_CACHE_DIR"/* >&2"#;
        let before = |backup: &mut Backup| {
            let dir = std::env::temp_dir().join(format!("borgcube-script-{}", std::process::id()));
            let cache = dir.join("cache").join("ab".repeat(32));
            std::fs::create_dir_all(cache.join("txn.active")).unwrap();
            std::fs::create_dir_all(cache.join("lock.exclusive")).unwrap();
            std::fs::write(cache.join("files.etc"), "half written").unwrap();
            std::fs::write(cache.join("txn.active/files.etc"), "last good").unwrap();
            std::fs::write(cache.join("txn.active/chunks"), "stale").unwrap();
            if let Connection::Local { remote_cache_dir, .. } = &mut backup.client.connection {
                *remote_cache_dir = Some(dir.to_str().unwrap().into());
            }
        };
        let (_, err, _home) = run(fake, b"new", false, before);
        std::fs::remove_dir_all(std::env::temp_dir().join(format!("borgcube-script-{}", std::process::id()))).unwrap();
        assert!(err.contains("last good") && !err.contains("half written"), "{err}");
        assert!(!err.contains("txn.active") && !err.contains("lock.exclusive"), "{err}");
    }

    #[test]
    fn the_script_is_good_shell() {
        for script in [SCRIPT, RESTORE] {
            let output = Command::new("sh").arg("-n").arg("-c").arg(script).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
