//! A view of a million references: how long it takes, how many bytes, how much memory. Prints its figures; run it by hand:
//! `cargo test --release -p repositoryd --test views_million -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{Client, System};
use model::{EncryptionMode, JobState, Timestamp};
use std::time::{Duration, Instant};
use wire::frame;
use wire::session::{Proposal, REFS_BATCH, Reference, Verdict, kind};

const CHUNKS: u64 = 1_000_000;

fn done(system: &System, job: u64) {
    let mut state = JobState::ClientPreparing;
    while let Some(next) = state.next(model::JobKind::Backup) {
        system.store.write("test", "test", |w| w.jobs().update_state(job, state, next, Timestamp::now())).unwrap();
        state = next;
    }
}

/// Memory of the owner in MiB: now, and at most so far.
fn memory(system: &System) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", system.pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:") / 1024, field("VmHWM:") / 1024)
}

fn lists(system: &System) -> Vec<u64> {
    let files = std::fs::read_dir(system.layout.views("main")).unwrap().map(|entry| entry.unwrap());
    let mut sizes: Vec<u64> =
        files.filter(|f| f.path().extension().is_some_and(|e| e == "view")).map(|f| f.metadata().unwrap().len()).collect();
    sizes.sort_unstable();
    sizes
}

fn archive(client: &mut Client, items: &[[u8; 32]], references: &[Reference]) -> (Duration, Duration) {
    let begun = Instant::now();
    frame::write(&mut client.stream, kind::ITEMS, &[&items.concat()]).unwrap();
    for part in references.chunks(REFS_BATCH) {
        let mut bytes = vec![];
        part.iter().for_each(|reference| reference.encode(&mut bytes));
        frame::write(&mut client.stream, kind::REFS, &[&bytes]).unwrap();
    }
    let proposal = Proposal {
        checkpoint: false,
        statistics: Default::default(),
        chunker_params: ("buzhash".into(), vec![19, 23, 21, 4095]),
        chunker_named: true,
        cwd: None,
        counters: Default::default(),
        claims: vec![],
    };
    frame::write(&mut client.stream, kind::PROPOSE, &[&serde_json::to_vec(&proposal).unwrap()]).unwrap();
    assert_eq!(client.verdict(), Verdict::Accepted);
    let judged = begun.elapsed();
    assert_eq!(client.commit(), Verdict::Accepted);
    (judged, begun.elapsed() - judged)
}

#[test]
#[ignore = "takes minutes and prints figures"]
fn a_view_of_a_million_references() {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    system.stop();
    system.set("BORGCUBE_LOG", "info");
    system.start();
    let mut worker = system.worker();
    let job = system.job("web1/etc");
    let prepared = worker.prepare_only(job, "first").unwrap();
    let mut client = system.open(&prepared.token).unwrap();
    let begun = Instant::now();
    // The answers of the owner are credit; nobody reads them meanwhile.
    let mut other = client.stream.try_clone().unwrap();
    let references: Vec<Reference> = (0..CHUNKS)
        .map(|n| {
            if n % 10_000 == 0 {
                other.set_nonblocking(true).unwrap();
                let mut waste = [0; 1 << 16];
                while std::io::Read::read(&mut other, &mut waste).is_ok_and(|count| count == waste.len()) {}
                other.set_nonblocking(false).unwrap();
            }
            client.put(&[&n.to_le_bytes()[..], &[7; 92]].concat())
        })
        .collect();
    println!("{CHUNKS} chunks of 100 bytes sent: {:?}", begun.elapsed());
    let item = client.put(b"items");
    // Whatever credit was cut in the middle is read up to here.
    drop(other);
    let (judged, committed) = archive(&mut client, &[item.id], &references);
    println!(
        "first archive: judged in {judged:?}, committed in {committed:?}; lists {:?}; owner {:?} MiB",
        lists(&system),
        memory(&system)
    );
    client.end();
    drop(worker.finish(job));
    done(&system, job);

    system.stop();
    system.start();
    let mut mark = prepared.mark;
    for (n, fetch) in [true, false, true].into_iter().enumerate() {
        let mut worker = system.worker();
        let job = system.job("web1/etc");
        let begun = Instant::now();
        let prepared = worker.prepare_only(job, &format!("again-{n}")).unwrap();
        println!("prepare {n}: {:?}; owner {:?} MiB", begun.elapsed(), memory(&system));
        assert_eq!(prepared.kept, Some(mark));
        assert_eq!(prepared.view_chunks, CHUNKS + 1 + n as u64);
        if fetch {
            let begun = Instant::now();
            let (cached, _) = worker.cache();
            println!("full cache: {:?}, {} bytes; owner {:?} MiB", begun.elapsed(), cached.size, memory(&system));
        }
        let mut client = system.open(&prepared.token).unwrap();
        // Two more configs of the client at the same time.
        let more: Vec<_> = (0..2)
            .map(|m| {
                let (mut worker, job) = (system.worker(), system.job(&format!("web1/more{m}")));
                worker.prepare_only(job, &format!("more-{n}-{m}")).unwrap();
                worker
            })
            .collect();
        println!("three jobs of the client: owner {:?} MiB", memory(&system));
        drop(more);
        let item = client.put(format!("items {n}").as_bytes());
        let (judged, committed) = archive(&mut client, &[item.id], &references);
        println!(
            "unchanged archive: judged in {judged:?}, committed in {committed:?}; lists {:?}; owner {:?} MiB",
            lists(&system),
            memory(&system)
        );
        client.end();
        drop(worker.finish(job));
        done(&system, job);
        mark = prepared.mark;
    }
    let begun = Instant::now();
    println!("deleted one of four: {} chunks in {:?}; owner {:?} MiB", system.delete(&["again-1"]), begun.elapsed(), memory(&system));
}
