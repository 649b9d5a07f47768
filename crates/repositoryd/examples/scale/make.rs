//! Fills a server.

use crate::{LABELS, REPOSITORIES, Sizes, lists};
use borg::archive::Archive as Metadata;
use borg::compress::{Compression, compress};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::{Id, Key};
use model::archive::PendingDeletion;
use model::job::Step;
use model::progress::{SessionCounters, Statistics};
use model::{Archive, ConfigName, Job, JobState, Timestamp};
use repository::{OpenOptions, Repository};
use std::path::Path;
use std::time::{Instant, SystemTime};
use store::Store;
use testkit::TestSystem;
use unix::paths::Layout;

const DAY: i64 = 86_400;

/// Archives of each config that the policy lets go.
pub const GOING: usize = 7;

/// Records of one transaction.
const BATCH: usize = 2000;

/// One config, with everything about its archives that is decided beforehand.
struct Config {
    name: ConfigName,
    number: usize,
    repository: usize,
}

impl Config {
    /// The job of a day; jobs have the order of their times.
    fn job(&self, day: usize, sizes: &Sizes) -> u64 {
        (day * sizes.configs() + self.number + 1) as u64
    }

    /// Between 1:00 and 3:00 or so, the newest a day ago.
    fn start(&self, day: usize, sizes: &Sizes, now: i64) -> Timestamp {
        let midnight = now / DAY * DAY - (sizes.days() - day) as i64 * DAY;
        Timestamp((midnight + 3600 + 20 * self.number as i64) * 1_000_000)
    }

    fn archive_name(&self, day: usize, sizes: &Sizes, now: i64) -> String {
        let date = self.start(day, sizes, now).to_name();
        format!("{}-{}-{date}-{}", self.name.client, self.name.label, self.job(day, sizes))
    }
}

pub fn make(sizes: &Sizes) -> TestSystem {
    // Owners may stay: nobody else wants these repositories.
    let mut system = TestSystem::start_with(&[("BORGCUBE_IDLE_SECONDS", "5")]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970").as_secs() as i64;
    let start = Instant::now();
    let configs = configure(sizes, &system);
    system.settle();
    system.down();
    println!("configured in {:.0} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let layout = Layout::new(&system.state());
    let archives: Vec<Vec<Archive>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..REPOSITORIES)
            .collect::<Vec<_>>()
            .chunks(REPOSITORIES.div_ceil(2))
            .map(|some| {
                let (some, system, layout, configs) = (some.to_vec(), &system, &layout, &configs);
                scope.spawn(move || some.into_iter().flat_map(|r| fill(r, sizes, configs, system, layout, now)).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it ends well")).collect()
    });
    println!("repositories and view lists filled in {:.0} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    records(sizes, &configs, archives, &layout);
    println!("database filled in {:.0} s", start.elapsed().as_secs_f64());
    system.up();
    system
}

/// What people do: through the command line.
fn configure(sizes: &Sizes, system: &TestSystem) -> Vec<Config> {
    for repository in 0..REPOSITORIES {
        system.add_repository(&format!("store{repository}"), "none", None);
    }
    let source = system.home();
    let mut configs = vec![];
    for client in 0..sizes.clients {
        let name = format!("client{client:03}");
        let repository = client % REPOSITORIES;
        system.add_local_client(&name);
        for label in LABELS {
            system.add_config(&name, label, &format!("store{repository}"), &[], &[&source]);
            let name = format!("{name}/{label}").parse().expect("a config's name");
            configs.push(Config { name, number: configs.len(), repository });
        }
        let (hour, minute) = (1 + client / 60, client % 60);
        let at = format!("daily {hour:02}:{minute:02}");
        system.cli_ok(&["schedule", "add", &format!("nightly-{name}"), "--at", &at, "--run-matching", &format!("{name}/.*")]);
    }
    for repository in 0..REPOSITORIES {
        let name = format!("store{repository}");
        system.cli_ok(&["schedule", "add", &format!("tidy-{name}"), "--at", "daily 12:00", "--prune", &name]);
        system.cli_ok(&["schedule", "add", &format!("check-{name}"), "--at", "weekly sun 14:00", "--check", &name]);
    }
    let keep = sizes.days().saturating_sub(GOING).to_string();
    let rules = ["policy", "add", "standard", "--keep-daily", &keep, "--zone", "UTC", "--matching", ".*/.*"];
    system.cli_ok(&rules);
    configs
}

/// The repository's chunks, its archives' metadata and lists, its manifest. Gives the archives of each of its configs, the oldest first.
fn fill(repository: usize, sizes: &Sizes, configs: &[Config], system: &TestSystem, layout: &Layout, now: i64) -> Vec<Vec<Archive>> {
    let name = format!("store{repository}");
    layout.create_repository_directories(&name).expect("directories can be made");
    let key = Key::none();
    let host_id = std::fs::read_to_string(layout.host_id_file()).ok().map(|text| text.trim().to_owned());
    let path = system.join(format!("repository-{name}"));
    let options =
        OpenOptions { exclusive: true, host_id, index: Some(layout.index(&name)), ..OpenOptions::at(path.to_str().expect("text")) };
    let mut store = Repository::open(&options).expect("it can be opened");
    let packed = store.get(&Id::MANIFEST).expect("there is a manifest");
    let payload = key.open(&packed).expect("it can be opened");
    let packed = borg::compress::decompress(&payload, borg::MAX_PLAINTEXT).expect("it is compressed");
    let mut manifest = Manifest::parse(&packed, &key).expect("it is one");
    let whole = lists::whole(sizes.references / sizes.configs(), sizes.days());
    let mut all = vec![];
    for config in configs.iter().filter(|config| config.repository == repository) {
        let mut ids = vec![];
        for day in 0..sizes.days() {
            let (name, start) = (config.archive_name(day, sizes, now), config.start(day, sizes, now));
            let time = start.to_name();
            let metadata = Metadata { name: name.clone().into_bytes(), time: format!("{time}.000000"), ..Metadata::default() };
            let packed = metadata.pack(&key, [7; 64]);
            let id = key.id_hash(&packed);
            put(&mut store, &id, &key.seal(&compress(Compression::Lz4, &packed), 0));
            manifest.archives.insert(name.into_bytes(), ArchiveEntry { id, time: format!("{time}.000000") });
            ids.push(id);
        }
        // A chunk's bytes do not matter to those who only count it.
        let envelope = key.seal(&[1, 0, 7, 7, 7, 7, 7, 7], 0);
        let mut seen = |id: &Id| put(&mut store, id, &envelope);
        let digests = lists::write(&layout.views(&name), (repository, config.number), whole, &ids, &mut seen);
        all.push(archives(config, sizes, &ids, digests, whole, now));
    }
    put(&mut store, &Id::MANIFEST, &key.seal(&compress(Compression::Lz4, &manifest.pack(&key, [8; 64])), 0));
    store.commit().expect("it can be committed");
    println!("repository {name}: {} objects", store.object_count().expect("it can be counted"));
    store.close();
    all
}

fn put(store: &mut Repository, id: &Id, envelope: &[u8]) {
    store.put(id, envelope, 0).expect("it can be stored");
}

fn archives(config: &Config, sizes: &Sizes, ids: &[Id], digests: Vec<String>, whole: usize, now: i64) -> Vec<Archive> {
    let statistics = Statistics {
        nfiles: whole as u64,
        original_size: whole as u64 * 4096,
        compressed_size: whole as u64 * 2048,
        deduplicated_size: lists::DAILY as u64 * 2048,
    };
    let record = |(day, (id, view_digest)): (usize, (&Id, String))| {
        let start = config.start(day, sizes, now);
        // The policy has decided about all but the last of these on the days before.
        let pending = (day + 1 < GOING).then(|| {
            let since = Timestamp((now - (GOING - 1 - day) as i64 * DAY) * 1_000_000);
            PendingDeletion { since, due: since.plus_seconds(7 * DAY), by: "schedule:tidy".into(), policy: "standard".parse().ok() }
        });
        Archive {
            id: id.to_hex(),
            name: config.archive_name(day, sizes, now),
            repository: format!("store{}", config.repository).parse().expect("a name"),
            client: config.name.client.clone(),
            label: config.name.label.clone(),
            job: config.job(day, sizes),
            comment: String::new(),
            statistics,
            counters: SessionCounters { puts: 100, put_bytes: 200_000, item_stream_bytes: 4_000_000, item_stream_put_bytes: 80_000 },
            start,
            end: start.plus_seconds(60),
            incomplete: false,
            view_digest,
            claims: vec![],
            suspicious: false,
            warnings: vec![],
            hold: None,
            pending_deletion: pending,
            imported: None,
        }
    };
    ids.iter().zip(digests).enumerate().map(record).collect()
}

/// Archives and their jobs, in the order of time.
fn records(sizes: &Sizes, configs: &[Config], archives: Vec<Vec<Archive>>, layout: &Layout) {
    let store = open(&layout.db());
    let mut by_config: Vec<Option<std::vec::IntoIter<Archive>>> = (0..configs.len()).map(|_| None).collect();
    for some in archives {
        let job = some.first().map_or(1, |archive| archive.job);
        by_config[job as usize - 1] = Some(some.into_iter());
    }
    let mut batch = vec![];
    for day in 0..sizes.days() {
        for config in configs {
            batch.extend(by_config[config.number].as_mut().and_then(Iterator::next));
            if batch.len() >= BATCH || (day + 1 == sizes.days() && config.number + 1 == configs.len()) {
                write(&store, &std::mem::take(&mut batch));
            }
        }
    }
}

fn open(db: &Path) -> Store {
    Store::open(db).expect("the database can be opened")
}

fn write(store: &Store, archives: &[Archive]) {
    let written = store.write("an earlier life", "scale", |w| {
        for archive in archives {
            w.jobs().insert(&job(archive))?;
            w.archives().insert(archive)?;
        }
        Ok(())
    });
    written.expect("it can be written");
}

/// The job that made an archive; one of fifty failed at first.
fn job(archive: &Archive) -> Job {
    let config = ConfigName { client: archive.client.clone(), label: archive.label.clone() };
    let mut job = Job::backup(archive.job, &config, archive.repository.clone(), "schedule:nightly", archive.start);
    let states = [
        JobState::ClientPreparing,
        JobState::ClientPrepared,
        JobState::ClientInProgress,
        JobState::ClientDone,
        JobState::ClientCleanup,
        JobState::Done,
    ];
    job.history.extend(states.into_iter().zip(1..).map(|(state, n)| Step { state, time: archive.start.plus_seconds(10 * n) }));
    job.state = JobState::Done;
    job.archive_name = Some(archive.name.clone());
    job.archive = Some(archive.id.clone());
    job.statistics = Some(archive.statistics);
    job.client_borg = Some("1.4.5".into());
    job.origin = model::Origin::Schedule;
    job.schedule = format!("nightly-{}", archive.client).parse().ok();
    job
}
