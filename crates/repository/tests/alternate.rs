//! Ours and theirs take turns on one repository, at random, and ours is killed now and then. After every step every judge reads and verifies
//! every byte. `STEPS` says how many (a few without it), `SEED` repeats a run.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use borg::manifest::Manifest;
use borg::{Id, Key};
use repository::{OpenOptions, Repository, Reserve};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testkit::{Borg, BorgWorld};

/// Steps of a run that nobody asked for more.
const FEW: u32 = 10;

fn options(path: &Path) -> OpenOptions {
    OpenOptions {
        lock_wait: 5,
        exclusive: true,
        host_id: Some("test@1".into()),
        reserve: Reserve::NONE,
        ..OpenOptions::at(path.to_str().unwrap())
    }
}

fn kept(world: &Path) -> OpenOptions {
    OpenOptions { index: Some(world.join("index")), ..options(&world.join("repo")) }
}

fn manifest(repository: &mut Repository) -> Manifest {
    let envelope = repository.get(&Id::MANIFEST).unwrap();
    let key = Key::none();
    let payload = key.open(&envelope).unwrap();
    Manifest::parse(&borg::compress::decompress(&payload, borg::MAX_PLAINTEXT).unwrap(), &key).unwrap()
}

fn put_manifest(repository: &mut Repository, mut manifest: Manifest) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    manifest.timestamp = Some(borg::time::format(now));
    let key = Key::none();
    let packed = manifest.pack(&key, [5; 64]);
    let payload = borg::compress::compress(borg::compress::Compression::Lz4, &packed);
    repository.put(&Id::MANIFEST, &key.seal(&payload, 0), packed.len() as u32).unwrap();
}

/// The objects of an archive that ours brought in, noted when it was made.
fn noted(world: &Path, name: &str) -> Option<BTreeSet<Id>> {
    let text = std::fs::read_to_string(world.join(format!("{name}.objects"))).ok()?;
    Some(text.lines().map(|line| Id::from_hex(line).unwrap()).collect())
}

/// What ours does in one step, in a process of its own that may be killed.
#[test]
fn helper_of_ours() {
    let (Some(world), Ok(what)) = (std::env::var_os("WORLD"), std::env::var("WHAT")) else { return };
    let world = Path::new(&world);
    let mut words = what.split(' ');
    let (verb, name) = (words.next().unwrap(), words.next().unwrap());
    let mut repository = Repository::open(&kept(world)).unwrap();
    let mut list = manifest(&mut repository);
    std::fs::write(world.join("begun"), "").unwrap();
    match verb {
        "add" | "undo" => {
            let mut donor = Repository::open(&OpenOptions { exclusive: false, ..options(&world.join(name)) }).unwrap();
            for id in noted(world, name).unwrap() {
                if !repository.reader().unwrap().contains(&id).unwrap() {
                    repository.put(&id, &donor.get(&id).unwrap(), 0).unwrap();
                }
            }
            list.archives.extend(manifest(&mut donor).archives);
            donor.close();
        }
        "delete" => {
            list.archives.remove(name.as_bytes()).unwrap();
            let others = list.archives.keys().filter_map(|other| noted(world, std::str::from_utf8(other).unwrap()));
            let needed: BTreeSet<Id> = others.flatten().collect();
            for id in noted(world, name).unwrap().difference(&needed) {
                repository.delete(id).unwrap();
            }
        }
        // The same object again and again, as nobody should do it.
        "churn" => {
            let id = Id([9; 32]);
            for n in 0..20u8 {
                repository.put(&id, &vec![n; 2000], 0).unwrap();
                if n % 5 == 4 {
                    repository.commit().unwrap();
                }
            }
            repository.delete(&id).unwrap();
        }
        other => panic!("{other}"),
    }
    put_manifest(&mut repository, list);
    match verb {
        "undo" => repository.discard().unwrap(),
        _ => repository.commit().unwrap(),
    }
    if words.next() == Some("proper") {
        repository.close();
    }
}

struct Run {
    world: BorgWorld,
    judges: Vec<Borg>,
    writers: Vec<Borg>,
    random: u64,
    /// Archives there have been.
    count: u32,
}

impl Run {
    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    fn writer(&mut self) -> Borg {
        let at = self.below(self.writers.len() as u64) as usize;
        self.writers[at].clone()
    }

    fn repo(&self) -> PathBuf {
        self.world.join("repo")
    }

    /// A few files; those of the same salt have most in common with each other and nothing with others.
    fn source(&mut self, salt: u64) -> PathBuf {
        let tree = self.world.join("source");
        let _ = std::fs::remove_dir_all(&tree);
        std::fs::create_dir_all(&tree).unwrap();
        for _ in 0..12 {
            let n = self.below(40);
            let mut state = n << 8 | salt;
            let length = 200 + state * 7919 % 90_000;
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            std::fs::write(tree.join(format!("{salt}-{n}")), bytes).unwrap();
        }
        tree
    }

    /// A repository with one archive, for ours to take it from.
    fn donor(&mut self) -> String {
        self.count += 1;
        let name = format!("ours-{}", self.count);
        let path = self.world.join(&name);
        let (tree, writer) = (self.source(1), self.judges[0].clone());
        writer.init(&self.world, &path, "none").unwrap();
        writer.create(&self.world, &path, &name, &[], &[&tree]).unwrap();
        let mut repository = Repository::open(&options(&path)).unwrap();
        let ids = repository.list_ids().unwrap().into_iter().filter(|id| *id != Id::MANIFEST);
        let lines: String = ids.map(|id| format!("{}\n", id.to_hex())).collect();
        repository.close();
        std::fs::write(self.world.join(format!("{name}.objects")), lines).unwrap();
        name
    }

    /// Runs ours; with `kill`, only for a while. Whether it was done.
    fn ours(&mut self, what: &str, kill: bool) -> bool {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "helper_of_ours"]).env("WORLD", self.world.path()).env("WHAT", what).stdout(Stdio::null());
        let begun = self.world.join("begun");
        let _ = std::fs::remove_file(&begun);
        let mut child = command.stderr(if kill { Stdio::null() } else { Stdio::inherit() }).spawn().unwrap();
        if kill {
            while !begun.exists() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_micros(self.below(25_000)));
            child.kill().unwrap();
            return child.wait().unwrap().success();
        }
        let status = child.wait().unwrap();
        assert!(status.success(), "ours, {what}: {status}");
        true
    }

    fn theirs(&self, writer: &Borg, arguments: &[&str], archive: Option<&str>) {
        let mut command = writer.command(&self.world);
        command.env("BORG_HOST_ID", "test@1").arg("--lock-wait=5").args(arguments);
        let mut place = self.repo().into_os_string();
        if let Some(archive) = archive {
            place.push(format!("::{archive}"));
        }
        let output = command.arg(place).output().unwrap();
        assert!(output.status.success(), "borg {} {arguments:?}: {}", writer.version, String::from_utf8_lossy(&output.stderr));
    }

    fn step(&mut self, archives: &BTreeSet<String>) -> String {
        let of_ours: Vec<&String> = archives.iter().filter(|name| name.starts_with("ours-")).collect();
        let proper = if self.below(2) == 0 { "proper" } else { "abrupt" };
        let writer = self.writer();
        match self.below(16) {
            0..=3 => {
                let (name, kill) = (self.donor(), self.below(2) == 0);
                let done = self.ours(&format!("add {name} {proper}"), kill);
                format!("ours adds {name}, {proper}, killed: {kill}, done: {done}")
            }
            4..=6 if !of_ours.is_empty() => {
                let at = self.below(of_ours.len() as u64) as usize;
                let (name, kill) = (of_ours[at].clone(), self.below(2) == 0);
                let done = self.ours(&format!("delete {name} {proper}"), kill);
                format!("ours deletes {name}, {proper}, killed: {kill}, done: {done}")
            }
            7 => {
                let name = self.donor();
                self.ours(&format!("undo {name} {proper}"), false);
                format!("ours adds {name} and thinks better of it, {proper}")
            }
            8 => {
                self.ours(&format!("churn - {proper}"), false);
                format!("ours churns, {proper}")
            }
            9 | 10 if archives.len() > 2 => {
                let name = archives.iter().nth(self.below(archives.len() as u64) as usize).unwrap();
                self.theirs(&writer, &["delete"], Some(name));
                format!("borg {} deletes {name}", writer.version)
            }
            11 if archives.len() > 6 => {
                self.theirs(&writer, &["prune", "--keep-last=4"], None);
                format!("borg {} prunes", writer.version)
            }
            12 | 13 if writer.at_least([1, 2, 0]) => {
                let threshold = ["--threshold=0", "--threshold=10", "--threshold=50"][self.below(3) as usize];
                self.theirs(&writer, &["compact", threshold], None);
                format!("borg {} compacts with {threshold}", writer.version)
            }
            14 => {
                let repair = self.below(3) == 0;
                self.theirs(&writer, if repair { &["check", "--repair"] } else { &["check"] }, None);
                format!("borg {} checks, repair: {repair}", writer.version)
            }
            _ => {
                self.count += 1;
                let (name, tree) = (format!("theirs-{}", self.count), self.source(2));
                writer.create(&self.world, &self.repo(), &name, &[], &[&tree]).unwrap();
                format!("borg {} creates {name}", writer.version)
            }
        }
    }

    /// Ours with and without its index and every judge agree on everything.
    fn judge(&mut self) -> BTreeSet<String> {
        let objects = |options: &OpenOptions| -> BTreeMap<Id, Vec<u8>> {
            let mut repository = Repository::open(options).unwrap();
            let ids = repository.list_ids().unwrap();
            let all = ids.into_iter().map(|id| (id, repository.get(&id).unwrap())).collect();
            assert_eq!(repository.object_count().unwrap(), BTreeMap::len(&all) as u64);
            drop(repository);
            all
        };
        // Shared and dropped: nothing is tidied for the judges.
        let alone = objects(&OpenOptions { exclusive: false, ..options(&self.repo()) });
        let names = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
        let mut repository = Repository::open(&OpenOptions { exclusive: false, ..options(&self.repo()) }).unwrap();
        let archives: BTreeSet<String> = manifest(&mut repository).archives.keys().map(|name| names(name)).collect();
        drop(repository);
        for judge in &self.judges {
            // The one that comes second must find what the first found, not what it left.
            let copy = self.world.join("copy");
            let copied = Command::new("cp").args(["-a".as_ref(), self.repo().as_os_str(), copy.as_os_str()]).status().unwrap();
            assert!(copied.success());
            let mut command = judge.command(&self.world);
            let output = command.args(["check".as_ref(), "--verify-data".as_ref(), copy.as_os_str()] as [&OsStr; 3]).output().unwrap();
            assert!(output.status.success(), "borg {}: {}", judge.version, String::from_utf8_lossy(&output.stderr));
            let listed: BTreeSet<String> = judge.archives(&self.world, &copy).unwrap().into_iter().collect();
            assert_eq!(listed, archives, "borg {}", judge.version);
            std::fs::remove_dir_all(copy).unwrap();
        }
        if self.below(2) == 0 {
            let by_index = objects(&kept(self.world.path()));
            assert!(by_index == alone, "the index that was kept knows {} objects, there are {}", by_index.len(), alone.len());
        }
        archives
    }
}

#[test]
fn ours_and_theirs_take_turns() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let steps = number("STEPS").map_or(FEW, |steps| steps as u32);
    let seed = number("SEED").unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000);
    eprintln!("SEED={seed} STEPS={steps}");
    let mut writers = Borg::judges();
    writers.extend(Borg::v1_1_18());
    let mut run = Run { world: BorgWorld::new(), judges: Borg::judges(), writers, random: seed, count: 0 };
    run.judges[0].init(&run.world, &run.repo(), "none").unwrap();
    let mut archives = BTreeSet::new();
    let mut told = vec![];
    for step in 0..steps {
        // What happened is told only if something goes wrong.
        told.push(format!("{step}: {}", run.step(&archives)));
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.judge()));
        archives = judged.unwrap_or_else(|e| {
            eprintln!("SEED={seed}\n{}", told.join("\n"));
            if let Some(keep) = std::env::var_os("KEEP") {
                let _ = Command::new("cp").arg("-a").arg(run.world.path()).arg(keep).status();
            }
            std::panic::resume_unwind(e)
        });
    }
    if number("STEPS").is_some() {
        eprintln!("{}", told.join("\n"));
    }
}
