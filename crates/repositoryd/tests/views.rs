//! Views: what a client may refer to, what it is told, and what stays for it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{Client, System, Worker, noise};
use model::{Cause, EncryptionMode, Failure, JobState, Timestamp};
use wire::session::{Cached, Outcome, Prepared, Reference, Verdict};

/// What the database says once `borgcubed` has recorded the job's end.
fn record_end(system: &System, job: u64, well: bool) {
    let now = Timestamp::now();
    let mut state = JobState::ClientPreparing;
    while let Some(next) = state.next(model::JobKind::Backup) {
        if next == JobState::Done && !well {
            let failure = Failure::new(Cause::SessionLost, "the test wants it");
            system.store.write("test", "test", |w| w.jobs().force_state(job, JobState::Failed, failure.clone(), now)).unwrap();
            return;
        }
        system.store.write("test", "test", |w| w.jobs().update_state(job, state, next, now)).unwrap();
        state = next;
    }
}

struct Run {
    worker: Worker,
    job: u64,
    prepared: Prepared,
    client: Client,
}

fn begin(system: &System, config: &str, archive: &str) -> Run {
    let mut worker = system.worker();
    let job = system.job(config);
    let prepared = worker.prepare_only(job, archive).unwrap();
    let client = system.open(&prepared.token).unwrap();
    Run { worker, job, prepared, client }
}

impl Run {
    fn end(self, system: &System) -> Outcome {
        self.client.end();
        let outcome = self.worker.finish(self.job);
        record_end(system, self.job, outcome.failure.is_none() && outcome.archive.is_some());
        outcome
    }
}

/// A whole backup of these chunks; gives its mark.
fn backup(system: &System, config: &str, archive: &str, chunks: &[&[u8]]) -> Prepared {
    let mut run = begin(system, config, archive);
    assert_eq!(run.client.archive(archive, chunks, false), Verdict::Accepted);
    let prepared = run.prepared.clone();
    assert!(run.end(system).failure.is_none());
    prepared
}

/// What a new job of the config would be told.
fn told(system: &System, config: &str) -> (Option<String>, Cached) {
    let mut worker = system.worker();
    let job = system.job(config);
    let prepared = worker.prepare_only(job, &format!("looking-{job}")).unwrap();
    let (cached, _) = worker.cache();
    drop(worker.finish(job));
    record_end(system, job, false);
    (prepared.kept, cached)
}

fn lists(system: &System) -> Vec<u64> {
    let files = std::fs::read_dir(system.layout.views("main")).unwrap().map(|entry| entry.unwrap());
    let lists = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "view"));
    let mut sizes: Vec<u64> = lists.map(|file| file.metadata().unwrap().len()).collect();
    sizes.sort_unstable();
    sizes
}

fn rule(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Violation(violation) => &violation.rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn unchanged_run_sends_no_cache() {
    let mut system = System::new(EncryptionMode::Repokey);
    let chunks: Vec<Vec<u8>> = (0..200).map(|n| noise(n, 500)).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let first = backup(&system, "web1/etc", "a", &chunks);
    assert_eq!(first.kept, None, "there is nothing to keep");
    let second = backup(&system, "web1/etc", "b", &chunks);
    assert_eq!(second.kept, Some(first.mark));
    assert_eq!(second.view_chunks, 201);
    // Also for another config of that client, and after another owner came.
    system.stop();
    system.start();
    let third = backup(&system, "web1/home", "c", &[&noise(900, 500)]);
    assert_eq!(third.kept, Some(second.mark));
    assert_eq!(told(&system, "web1/etc").0, Some(third.mark));
    // Another client has never had anything.
    assert_eq!(told(&system, "web2/etc").0, None);
    // The list of the unchanged run is a difference: one item chunk came, one went.
    let sizes = lists(&system);
    assert!(sizes[0] < 1024 && sizes[2] > 200 * 40, "{sizes:?}");
    system.stop();
    assert_eq!(system.judge(), ["a", "b", "c"]);
}

#[test]
fn a_cache_that_is_not_exactly_the_view_is_not_kept() {
    let system = System::new(EncryptionMode::Repokey);
    let a = noise(1, 3000);
    // A file that the client could not read to its end: its beginning is in the client's cache and in no archive.
    let mut run = begin(&system, "web1/etc", "a");
    run.client.put(&noise(2, 3000));
    assert_eq!(run.client.archive("f", &[&a], false), Verdict::Accepted);
    run.end(&system);
    assert_eq!(told(&system, "web1/etc").0, None);
    let good = backup(&system, "web1/etc", "b", &[&a]);
    assert_eq!(told(&system, "web1/etc").0, Some(good.mark));
    // The archive is there, but the job failed.
    let mut run = begin(&system, "web1/etc", "c");
    assert_eq!(run.client.archive("f", &[&a], false), Verdict::Accepted);
    run.client.end();
    run.worker.finish(run.job);
    assert_eq!(told(&system, "web1/etc").0, None);
    record_end(&system, run.job, false);
    assert_eq!(told(&system, "web1/etc").0, None);
    // A broken job left a checkpoint: the view has more now. And with the next success it goes, so that the view has less.
    backup(&system, "web1/etc", "d", &[&a]);
    let mut run = begin(&system, "web1/etc", "e");
    assert_eq!(run.client.archive("f", &[&noise(3, 3000)], true), Verdict::Accepted);
    run.end(&system);
    assert_eq!(told(&system, "web1/etc").0, None);
    backup(&system, "web1/etc", "f", &[&a]);
    assert_eq!(told(&system, "web1/etc").0, None);
    // Two at once: each has what the other one does not know of.
    let good = backup(&system, "web1/etc", "g", &[&a]);
    let (mut one, mut two) = (begin(&system, "web1/etc", "h"), begin(&system, "web1/home", "i"));
    assert_eq!((&one.prepared.kept, &two.prepared.kept), (&Some(good.mark.clone()), &Some(good.mark)));
    assert_eq!(one.client.archive("f", &[&noise(4, 3000)], false), Verdict::Accepted);
    assert_eq!(two.client.archive("f", &[&noise(5, 3000)], false), Verdict::Accepted);
    one.end(&system);
    two.end(&system);
    assert_eq!(told(&system, "web1/etc").0, None);
    // A checkpoint of its own that its success replaces changes nothing: its chunks are in the archive.
    let mut run = begin(&system, "web1/etc", "j");
    assert_eq!(run.client.archive("f", &[&noise(6, 3000)], true), Verdict::Accepted);
    let item = harness::item("f", &[]);
    let reference = run.client.put(&noise(6, 3000));
    let items = [run.client.put(&item).id, run.client.put(&harness::item("f", &[reference])).id];
    assert_eq!(run.client.propose(&items, &[reference], false), Verdict::Accepted);
    assert_eq!(run.client.commit(), Verdict::Accepted);
    let mark = run.prepared.mark.clone();
    run.end(&system);
    assert_eq!(told(&system, "web1/etc").0, Some(mark));
}

#[test]
fn deleted_archive_sends_full_view() {
    let mut system = System::new(EncryptionMode::Repokey);
    let chunks: Vec<Vec<u8>> = (0..20).map(|n| noise(n, 3000)).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    backup(&system, "web1/etc", "a", &chunks);
    let last = backup(&system, "web1/etc", "b", &chunks[1..]);
    let (kept, cached) = told(&system, "web1/etc");
    assert_eq!((kept, cached.chunks), (Some(last.mark), 22));
    assert_eq!(system.delete(&["a"]), 2, "one chunk and the item stream");
    let (kept, cached) = told(&system, "web1/etc");
    assert_eq!((kept, cached.chunks), (None, 20));
    // The list of b builds on a's, which is still there.
    assert_eq!(lists(&system).len(), 2);
    let next = backup(&system, "web1/etc", "c", &chunks);
    assert_eq!(told(&system, "web1/etc").0, Some(next.mark));
    assert!(system.delete(&["b", "c"]) > 0);
    assert!(lists(&system).is_empty());
    assert_eq!(told(&system, "web1/etc").1.chunks, 0);
    system.stop();
    assert_eq!(system.judge(), [""; 0]);
}

#[test]
fn a_view_is_pinned_until_its_session_ends() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (a, b) = (noise(1, 30_000), noise(2, 30_000));
    backup(&system, "web1/etc", "a", &[&a, &b]);
    let mut worker = system.worker();
    let job = system.job("web1/etc");
    let prepared = worker.prepare_only(job, "b").unwrap();
    // Before the client comes: the archive goes, what the job may refer to stays.
    assert_eq!(system.delete(&["a"]), 0);
    let mut client = system.open(&prepared.token).unwrap();
    let a = Reference { id: client.key.id_hash(&a).0, size: 30_000, csize: 0 };
    assert!(client.read(a.id).is_some());
    assert_eq!(client.archive_of("f", &[a], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    record_end(&system, job, true);
    // What the session did not use goes with it; what it did stays.
    let (mut worker, job) = (system.worker(), system.job("web1/etc"));
    let prepared = worker.prepare_only(job, "c").unwrap();
    assert_eq!(prepared.kept, None);
    assert_eq!(worker.cache().0.chunks, 2);
    let mut client = system.open(&prepared.token).unwrap();
    assert!(client.read(a.id).is_some());
    assert_eq!(client.read(client.key.id_hash(&b).0), None);
    drop((client, worker));
    system.stop();
    assert_eq!(system.judge(), ["b"]);
}

#[test]
fn phantom_chunk_never_uploaded_enters_no_view() {
    let mut system = System::new(EncryptionMode::Repokey);
    let secret = noise(1, 30_000);
    // E8: an archive names a chunk that nobody has ever sent.
    let mut run = begin(&system, "evil/etc", "evil");
    let phantom = Reference { id: run.client.key.id_hash(&secret).0, size: 30_000, csize: 30_000 };
    let verdict = run.client.archive_of("f", &[phantom], false);
    assert_eq!(rule(&verdict), "unknown-chunk");
    drop(run.client);
    let outcome = run.worker.finish(run.job);
    assert_eq!(outcome.failure.unwrap().cause, Cause::PolicyViolation { rule: "unknown-chunk".into() });
    record_end(&system, run.job, false);
    // Nor by way of a checkpoint, nor as an item stream.
    let mut run = begin(&system, "evil/etc", "evil2");
    assert_eq!(rule(&run.client.archive_of("f", &[phantom], true)), "unknown-chunk");
    drop(run.client);
    record_end(&system, run.job, false);
    let mut run = begin(&system, "evil/etc", "evil3");
    assert_eq!(rule(&run.client.propose(&[phantom.id], &[], false)), "unknown-chunk");
    drop(run.client);
    record_end(&system, run.job, false);
    assert!(system.archives().is_empty() && lists(&system).is_empty());
    // The client that has this content is not told that it is there, and its backup is whole.
    let honest = backup(&system, "web1/etc", "honest", &[&secret]);
    assert_eq!(honest.view_chunks, 0);
    assert_eq!(told(&system, "evil/etc").1.chunks, 0);
    system.stop();
    assert_eq!(system.judge(), ["honest"]);
    let into = system.dir.path().join("extracted");
    let judge = testkit::Borg::judges().pop().unwrap();
    judge.extract(&system.world(), &system.repo(), "honest", &into).unwrap();
    assert_eq!(harness::read(&into.join("honest")), secret);
}

#[test]
fn claim_by_hash_of_another_clients_chunk() {
    let mut system = System::new(EncryptionMode::Repokey);
    let secret = noise(1, 30_000);
    backup(&system, "web1/etc", "honest", &[&secret]);
    let mut run = begin(&system, "evil/etc", "claimed");
    // It knows the id and the sizes, and the chunk is there.
    let claimed = Reference { id: run.client.key.id_hash(&secret).0, size: 30_000, csize: 0 };
    assert_eq!(run.client.read(claimed.id), None, "not received now");
    assert_eq!(rule(&run.client.archive_of("f", &[claimed], false)), "unknown-chunk");
    drop(run.client);
    let outcome = run.worker.finish(run.job);
    assert_eq!(outcome.failure.unwrap().cause, Cause::PolicyViolation { rule: "unknown-chunk".into() });
    record_end(&system, run.job, false);
    // Nor later, by way of a view: the client's has nothing of it.
    let mut run = begin(&system, "evil/etc", "later");
    assert_eq!(run.worker.cache().0.chunks, 0);
    assert_eq!(run.client.read(claimed.id), None);
    // A mark that it made up, or took from others, is worth nothing: it only chooses what it is sent.
    assert_eq!(run.prepared.kept, None);
    drop(run.client);
    drop(run.worker);
    system.stop();
    assert_eq!(system.judge(), ["honest"]);
}

#[test]
fn chunk_outside_view_that_exists_is_uploaded_verified_and_dropped_without_visible_difference() {
    let mut system = System::new(EncryptionMode::Repokey);
    let there = noise(1, 300_000);
    backup(&system, "web1/etc", "first", &[&there]);
    system.stop();
    let size = |system: &System| -> u64 {
        let segments = std::fs::read_dir(system.repo().join("data/0")).unwrap();
        segments.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    };
    let before = size(&system);
    system.start();
    // One sends what exists, one sends what does not: the frames that come back are the same.
    let answers = |system: &System, config: &str, data: &[u8]| {
        let mut run = begin(system, config, &config.replace('/', "-"));
        let reference = run.client.put(data);
        let item = run.client.put(b"not an item");
        let read = run.client.read(reference.id).map(|read| read == data);
        assert!(run.client.read(item.id).is_some());
        let frames = (read, run.client.credit > 0, run.prepared.view_chunks, reference.csize);
        drop(run.client);
        (frames, run.worker.finish(run.job).failure.map(|failure| failure.cause))
    };
    let known = answers(&system, "web2/etc", &there);
    let unknown = answers(&system, "web3/etc", &noise(2, 300_000));
    assert_eq!(known, unknown);
    system.stop();
    let idle = size(&system);
    assert!(idle < before + 20_000, "{before} -> {idle}");
    system.start();
    // And an archive of it costs its metadata, nothing else.
    let mut run = begin(&system, "web2/etc", "second");
    assert_eq!(run.client.archive("f", &[&there], false), Verdict::Accepted);
    let archive = run.end(&system).archive.unwrap();
    assert!(archive.statistics.deduplicated_size < 1000, "{archive:?}");
    system.stop();
    assert!(size(&system) < idle + 20_000);
    assert_eq!(system.judge(), ["first", "second"]);
}
