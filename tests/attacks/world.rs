//! A running BorgCube for attacks: a repository that holds another client's backup, and clients whose borg is this test.
//!
//! What such a client runs as its borg is a shell script that hands token and passphrase over and then does what it is told, last of
//! all to exit. So everything from `borgcube run` to the job's failure is real, and nothing needs Python.

use crate::hostile::Hostile;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use tests::{PATIENCE, start, text};

/// The repository's.
pub const PASSPHRASE: &str = "nobody but the owner";

/// What the victim has backed up: the hostile client knows all of it, and the ids.
pub const SECRET: &[u8] = b"what nobody but the victim ever had, long enough to be a chunk that is not small";

/// A system with the clients `victim` and `hostile`, each with the config `all`, and one archive of the victim.
pub struct World {
    pub system: TestSystem,
    pub repository: PathBuf,
    relays: TempDir,
}

/// What a client's borg was given.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The path that `open` takes: `/./` and 64 hex digits.
    pub path: String,
    pub passphrase: String,
    /// The command by which borg would come here.
    pub rsh: String,
    /// Where the client's cache is.
    pub cache: PathBuf,
}

/// A job whose client waits for this test.
pub struct Job<'w> {
    world: &'w World,
    pub number: u64,
    pub ticket: Ticket,
    relay: PathBuf,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `done`, `failed`, `cancelled`.
    pub state: String,
    /// The cause's word, empty without a failure.
    pub word: String,
    /// The rule or the limit that the cause names.
    pub name: String,
    pub message: String,
}

/// Everything that an attack must leave as it was: the committed objects, and the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// SHA-256 of every object, by id.
    objects: BTreeMap<[u8; 32], [u8; 32]>,
    /// SHA-256 of the other files of the repository that say what it is, of the view lists, and of each list of records.
    rest: BTreeMap<String, [u8; 32]>,
}

impl World {
    pub fn new() -> World {
        World::with(&[])
    }

    /// With further environment variables of the daemons.
    pub fn with(variables: &[(&str, &str)]) -> World {
        let relays = tempfile::Builder::new().prefix("bc-relays-").tempdir().unwrap();
        let switch = format!("@{}", relays.path().join("rule-off").display());
        let variables: Vec<_> = variables.iter().copied().chain([("BORGCUBE_TEST_RULE_OFF", switch.as_str())]).collect();
        let system = TestSystem::start_with(&variables);
        let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
        fs::create_dir(system.join("source")).unwrap();
        let world = World { system, repository, relays };
        world.add_client("victim");
        world.add_client("hostile");
        let job = world.job("victim");
        let mut victim = job.open();
        victim.backup_of(SECRET);
        drop(victim);
        let verdict = job.end(0);
        assert_eq!(verdict.state, "done", "{verdict:?}\n{}", world.system.log());
        world
    }

    /// One more client whose borg is this test.
    pub fn add_client(&self, name: &str) {
        let borg = self.relay(name);
        // As on hosts of their own: two jobs of one host would wait for one another.
        let cache = self.system.home().join(name);
        let words = [format!("--remote-borg={}", borg.display()), format!("--remote-cache-dir={}", cache.display())];
        self.system.cli_ok(&["client", "add", name, "--local", &words[0], &words[1]]);
        self.system.add_config(name, "all", "main", &[], &[&self.system.join("source")]);
    }

    /// The program that such a client has for its borg.
    pub fn relay(&self, name: &str) -> PathBuf {
        let relay = self.relays.path().join(name);
        fs::create_dir(&relay).unwrap();
        let borg = relay.join("borg");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" != --version ] || {{ echo borg 1.4.5; exit; }}\ncd '{}'\nrm -f go\nmkfifo go\n\
             printf '%s\\n' \"$BORG_REPO\" \"$BORG_PASSPHRASE\" \"$BORG_RSH\" \"$BORG_CACHE_DIR\" >new\nmv new told\n\
             while read -r line <go; do eval \"$line\"; done\nexit 99\n",
            relay.display()
        );
        fs::write(&borg, script).unwrap();
        fs::set_permissions(&borg, fs::Permissions::from_mode(0o755)).unwrap();
        borg
    }

    /// Starts a job of this client and waits until its borg runs.
    pub fn job(&self, client: &str) -> Job<'_> {
        let number = start(&self.system, &format!("{client}/all"));
        self.awaited(client, number)
    }

    /// Waits until the borg of this client runs for job `number`, which somebody else has started.
    pub fn awaited(&self, client: &str, number: u64) -> Job<'_> {
        let relay = self.relays.path().join(client);
        let told = retry_until(PATIENCE, || fs::read_to_string(relay.join("told")).ok());
        let told = told.unwrap_or_else(|| panic!("job {number} never came to its client: {:?}", tests::job(&self.system, number)));
        fs::remove_file(relay.join("told")).unwrap();
        let mut lines = told.lines().map(str::to_owned);
        let mut line = || lines.next().expect("four lines");
        let (repo, passphrase, rsh, cache) = (line(), line(), line(), line());
        let at = repo.find("/./").expect("a token in BORG_REPO");
        let ticket = Ticket { path: repo[at..].to_owned(), passphrase, rsh, cache: cache.into() };
        Job { world: self, number, ticket, relay }
    }

    /// The socket of the sessions.
    pub fn session_socket(&self) -> PathBuf {
        unix::paths::Layout::new(&self.system.state()).session_socket()
    }

    /// The one session process that there is.
    #[track_caller]
    pub fn session(&self) -> i32 {
        let sessions = self.system.pids("borgcube-session");
        let [one] = sessions[..] else { panic!("not one session: {sessions:?}") };
        one
    }

    /// The most memory that a process ever had, in bytes.
    pub fn peak(&self, pid: i32) -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Where a client's borg is.
    pub fn relay_directory(&self, client: &str) -> PathBuf {
        self.relays.path().join(client)
    }

    /// Speaks to a session without a job.
    pub fn stranger(&self) -> Hostile {
        Hostile::connect(&self.session_socket())
    }

    /// What there is now.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut rest = BTreeMap::new();
        for name in ["config", "README"] {
            rest.insert(name.to_owned(), hash(&fs::read(self.repository.join(name)).unwrap()));
        }
        for list in ["archive", "client", "config", "repository"] {
            let records = self.system.cli_json(&[list, "list"]);
            rest.insert(list.to_owned(), hash(records.to_string().as_bytes()));
        }
        let views = unix::paths::Layout::new(&self.system.state()).views("main");
        for entry in fs::read_dir(views).unwrap().map(Result::unwrap) {
            // How far nonces are reserved says nothing of what is stored.
            if entry.file_name() == "nonce" {
                continue;
            }
            let name = format!("view {}", entry.file_name().to_string_lossy());
            rest.insert(name, hash(&fs::read(entry.path()).unwrap_or_default()));
        }
        Fingerprint { objects: objects(&self.repository), rest }
    }

    /// Asserts that nothing is different from `before`. Chunks that a session left behind may take a moment to go.
    #[track_caller]
    pub fn assert_unchanged(&self, before: &Fingerprint) {
        let mut after = self.fingerprint();
        let same = retry_until(Duration::from_secs(20), || {
            after = self.fingerprint();
            (after == *before).then_some(())
        });
        if same.is_none() {
            let hex = |id: &[u8; 32]| borg::Id(*id).to_hex();
            let gone: Vec<_> = before.objects.iter().filter(|(id, h)| after.objects.get(*id) != Some(h)).map(|(id, _)| hex(id)).collect();
            let new: Vec<_> = after.objects.keys().filter(|id| !before.objects.contains_key(*id)).map(hex).collect();
            let rest: Vec<_> = after.rest.keys().chain(before.rest.keys()).filter(|k| before.rest.get(*k) != after.rest.get(*k)).collect();
            panic!("the attack changed something: objects lost or changed {gone:?}, new {new:?}, else {rest:?}");
        }
    }

    /// Switches a rule off from now on; none with an empty name.
    pub fn switch_off(&self, rule: &str) {
        fs::write(self.relays.path().join("rule-off"), rule).unwrap();
    }

    /// One attack: a job of the hostile client is opened, `deed` does what it likes, and nothing has changed afterwards.
    #[track_caller]
    pub fn attack(&self, deed: impl FnOnce(&mut Hostile)) -> Verdict {
        let before = self.fingerprint();
        let verdict = self.attempt(deed);
        self.assert_unchanged(&before);
        verdict
    }

    /// The same, whatever it changes.
    pub fn attempt(&self, deed: impl FnOnce(&mut Hostile)) -> Verdict {
        self.attempt_of("hostile", deed)
    }

    /// The same by another client.
    pub fn attempt_of(&self, client: &str, deed: impl FnOnce(&mut Hostile)) -> Verdict {
        let job = self.job(client);
        let mut client = job.open();
        deed(&mut client);
        drop(client);
        job.end(2)
    }

    /// A restore of the victim's archive to the hostile client, which an operator has asked for.
    pub fn restore_job(&self) -> Job<'_> {
        let name = text(&tests::newest_archive(&self.system), "name").to_owned();
        let made = self.system.cli_json(&["restore", &name, "--to-client", "hostile"]);
        self.awaited("hostile", tests::number(&made, "job"))
    }

    /// The same as [`World::attempt`], by the client of a restore.
    pub fn attempt_restore(&self, deed: impl FnOnce(&mut Hostile)) -> Verdict {
        let job = self.restore_job();
        let mut client = job.open();
        deed(&mut client);
        drop(client);
        job.end(2)
    }

    /// An attack by another client.
    #[track_caller]
    pub fn expect_rule_of(&self, client: &str, rule: &str, deed: impl FnOnce(&mut Hostile)) {
        let before = self.fingerprint();
        self.attempt_of(client, deed).expect_rule(rule);
        self.assert_unchanged(&before);
    }

    /// An attack that must end with this rule's name as the cause, told to the client in one line.
    #[track_caller]
    pub fn expect_rule(&self, rule: &str, deed: impl FnOnce(&mut Hostile)) -> Verdict {
        let verdict = self.attack(deed);
        verdict.expect_rule(rule);
        verdict
    }
}

impl World {
    /// A deed must be answered with its rule, to the client and in the job, and change nothing.
    #[track_caller]
    pub fn expect_deed(&self, deed: &crate::Deed) -> Verdict {
        if deed.restores() {
            let before = self.fingerprint();
            let verdict = self.attempt_restore(|client| assert_eq!((deed.deed)(client).broke(), deed.rule));
            verdict.expect_rule(deed.rule);
            self.assert_unchanged(&before);
            return verdict;
        }
        self.expect_rule(deed.rule, |client| assert_eq!((deed.deed)(client).broke(), deed.rule))
    }
}

impl Job<'_> {
    /// Connects and opens the repository.
    #[track_caller]
    pub fn open(&self) -> Hostile {
        let mut client = self.connect();
        client.open(&self.ticket);
        client
    }

    /// Connects, and says nothing yet.
    pub fn connect(&self) -> Hostile {
        let mut client = Hostile::connect(&self.world.session_socket());
        client.archive_name = self.archive_name();
        client.set_path(&self.ticket.path);
        client
    }

    /// The only archive that this job may make.
    pub fn archive_name(&self) -> String {
        let record = tests::job(&self.world.system, self.number);
        let name = record["archive_name"].as_str().or_else(|| record["restore"]["archive"].as_str());
        name.unwrap_or_else(|| panic!("an archive's name in {record}")).to_owned()
    }

    /// The client's borg does this, in its shell. False: it runs no more.
    pub fn tell(&self, line: &str) -> bool {
        let open = || OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(self.relay.join("go"));
        let sent = retry_until(PATIENCE, || match open() {
            Ok(mut fifo) => Some(writeln!(fifo, "{line}").is_ok()),
            Err(_) if self.has_ended() => Some(false),
            Err(_) => None,
        });
        sent.unwrap_or(false)
    }

    fn has_ended(&self) -> bool {
        matches!(text(&tests::job(&self.world.system, self.number), "state"), "done" | "failed" | "cancelled")
    }

    /// The client's borg exits with this code; waits for the job's end.
    #[track_caller]
    pub fn end(self, code: u8) -> Verdict {
        self.tell(&format!("exit {code}"));
        self.wait()
    }

    /// Waits for the job's end.
    #[track_caller]
    pub fn wait(self) -> Verdict {
        Verdict::of(&tests::wait_for_end(&self.world.system, self.number))
    }
}

impl Verdict {
    /// From a job's record.
    pub fn of(record: &Value) -> Verdict {
        let field = |name: &str| record["failure"]["cause"][name].as_str().unwrap_or_default().to_owned();
        let name = if field("rule").is_empty() { field("limit") } else { field("rule") };
        let message = record["failure"]["message"].as_str().unwrap_or_default().to_owned();
        Verdict { state: text(record, "state").to_owned(), word: field("word"), name, message }
    }

    /// Asserts that the job failed because the client broke this rule.
    #[track_caller]
    pub fn expect_rule(&self, rule: &str) {
        assert_eq!((self.word.as_str(), self.name.as_str()), ("policy-violation", rule), "{self:?}");
        assert!(!self.message.contains('\n') && !self.message.contains('\u{1b}'), "{self:?}");
    }

    /// Asserts that the job failed for this cause, and of these limits for that one.
    #[track_caller]
    pub fn expect_cause(&self, word: &str, name: &str) {
        assert_eq!((self.word.as_str(), self.name.as_str()), (word, name), "{self:?}");
    }
}

/// SHA-256.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What a repository has committed: the hash of every object.
pub fn objects(repository: &Path) -> BTreeMap<[u8; 32], [u8; 32]> {
    committed(repository).into_iter().map(|(id, envelope)| (id, hash(&envelope))).collect()
}

/// The envelopes of all committed objects.
pub fn segments(repository: &Path) -> Vec<Vec<u8>> {
    committed(repository).into_values().collect()
}

/// Every committed object, read from the segments by nothing but the description of Borg 1.x.
fn committed(repository: &Path) -> BTreeMap<[u8; 32], Vec<u8>> {
    let mut segments = BTreeMap::new();
    for directory in fs::read_dir(repository.join("data")).unwrap().map(Result::unwrap) {
        for entry in fs::read_dir(directory.path()).into_iter().flatten().flatten() {
            if let Ok(number) = entry.file_name().to_string_lossy().parse::<u64>() {
                segments.insert(number, entry.path());
            }
        }
    }
    let (mut committed, mut pending) = (BTreeMap::new(), Vec::new());
    for path in segments.values() {
        // A segment may be compacted away meanwhile; what is in it then stands in a later one.
        let Ok(bytes) = fs::read(path) else { continue };
        let mut rest = bytes.strip_prefix(b"BORG_SEG".as_slice()).unwrap_or_default();
        while let Some((head, _)) = rest.split_first_chunk::<9>() {
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            if size < 9 || size > rest.len() {
                break;
            }
            let (entry, behind) = rest.split_at(size);
            rest = behind;
            let id = || entry[9..].first_chunk::<32>().copied().unwrap_or_default();
            match head[8] {
                0 => pending.push((id(), Some(entry[41..].to_vec()))),
                3 => pending.push((id(), Some(entry[49..].to_vec()))),
                1 => pending.push((id(), None)),
                _ => {
                    for (id, object) in pending.drain(..) {
                        match object {
                            Some(object) => drop(committed.insert(id, object)),
                            None => drop(committed.remove(&id)),
                        }
                    }
                }
            }
        }
    }
    committed
}
