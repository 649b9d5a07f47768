//! Pages are what a plain search through everything would give, and are fast without it.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use std::time::Instant;

use common::*;
use model::{Archive, Job, JobKind, JobState, Timestamp, Work};
use store::{ArchiveFilter, ArchiveKey, JobFilter, Store};

const CLIENTS: [&str; 4] = ["web1", "web10", "web", "db"];
const LABELS: [&str; 2] = ["etc", "home"];
const REPOSITORIES: [&str; 3] = ["main", "main2", "far"];

/// Small, good enough and the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }
}

fn fill_jobs(store: &Store, count: usize) -> Vec<Job> {
    let mut dice = Dice(7);
    let mut jobs = Vec::new();
    for n in 1..=count as u64 {
        let config = format!("{}/{}", dice.pick(&CLIENTS), dice.pick(&LABELS));
        let mut job = job(n, &config, dice.pick(&REPOSITORIES));
        job.state = if dice.roll(50) == 0 { dice.pick(&JobState::ALL) } else { JobState::Done };
        if dice.roll(20) == 0 {
            job.repository = None;
        }
        match dice.roll(10) {
            0 => job.work = Work::Check { verify_data: false, config: None },
            1 => job.work = Work::Compact { threshold: 10 },
            _ => {}
        }
        jobs.push(job);
    }
    for some in jobs.chunks(1000) {
        store
            .write_at(T0, "fill", "root", |w| {
                for job in some {
                    w.jobs().insert(job)?;
                }
                Ok(())
            })
            .unwrap();
    }
    jobs
}

fn plain(jobs: &[Job], filter: &JobFilter, limit: usize) -> Vec<Job> {
    let fits = |job: &&Job| {
        (filter.states.is_empty() || filter.states.contains(&job.state))
            && filter.client.as_ref().is_none_or(|c| Some(c) == job.client())
            && filter.repository.as_ref().is_none_or(|r| Some(r) == job.repository.as_ref())
            && filter.config.as_ref().is_none_or(|c| Some(c) == job.config().as_ref())
            && filter.kind.is_none_or(|kind| kind == job.kind())
            && filter.label.as_ref().is_none_or(|label| job.config().is_some_and(|config| config.label == *label))
            && filter.before.is_none_or(|n| job.number < n)
    };
    jobs.iter().rev().filter(fits).take(limit).cloned().collect()
}

#[test]
fn pages_of_jobs_equal_a_plain_search() {
    let (_dir, store) = store();
    let jobs = fill_jobs(&store, 2000);
    let mut dice = Dice(11);
    for _ in 0..600 {
        let mut filter = JobFilter::default();
        for _ in 0..dice.roll(4) {
            filter.states.push(dice.pick(&JobState::ALL));
        }
        if dice.roll(2) == 0 {
            filter.client = Some(client_name(dice.pick(&CLIENTS)));
        }
        if dice.roll(2) == 0 {
            filter.repository = Some(repository_name(dice.pick(&REPOSITORIES)));
        }
        if dice.roll(3) == 0 {
            filter.config = Some(config_name(&format!("{}/{}", dice.pick(&CLIENTS), dice.pick(&LABELS))));
        }
        if dice.roll(3) == 0 {
            filter.kind = Some(dice.pick(&[JobKind::Backup, JobKind::Check, JobKind::Compact, JobKind::Prune]));
        }
        if dice.roll(3) == 0 {
            filter.label = Some(dice.pick(&LABELS).parse().unwrap());
        }
        if dice.roll(2) == 0 {
            filter.before = Some(dice.roll(2100) as u64);
        }
        let limit = dice.roll(60);
        let page = store.read(|r| r.jobs().page(&filter, limit)).unwrap();
        assert_eq!(page, plain(&jobs, &filter, limit), "{filter:?} limit {limit}");
    }
    verify(&store);
}

#[test]
fn paging_through_gives_every_job_once() {
    let (_dir, store) = store();
    let jobs = fill_jobs(&store, 500);
    let mut filter = JobFilter { client: Some(client_name("web1")), ..JobFilter::default() };
    let mut seen = Vec::new();
    loop {
        let page = store.read(|r| r.jobs().page(&filter, 7)).unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.number);
        seen.extend(page);
    }
    assert_eq!(seen, plain(&jobs, &JobFilter { before: None, ..filter }, 500));
}

#[test]
fn the_queue_is_first_in_first_out() {
    let (_dir, store) = store();
    for _ in 0..300 {
        store.write_at(T0, "run", "root", |w| w.jobs().create(|n| job(n, "web1/etc", "main"))).unwrap();
    }
    let queue = store.read(|r| r.jobs().in_state(JobState::JobCreated)).unwrap();
    assert_eq!(queue.iter().map(|j| j.number).collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
}

#[test]
fn archives_by_client_config_repository_name_and_time() {
    let (_dir, store) = store();
    let mut dice = Dice(3);
    let mut archives: Vec<Archive> = Vec::new();
    for n in 0..400 {
        let config = format!("{}/{}", dice.pick(&CLIENTS), dice.pick(&LABELS));
        // Several have the same time, some lie before 1970.
        let mut archive = archive(dice.pick(&REPOSITORIES), &config, n, 60 * dice.roll(100) as i64);
        if dice.roll(10) == 0 {
            archive.start = Timestamp(-(dice.roll(100) as i64));
        }
        archive.incomplete = dice.roll(7) == 0;
        archives.push(archive);
    }
    store
        .write_at(T0, "fill", "root", |w| {
            for archive in &archives {
                w.archives().insert(archive)?;
            }
            Ok(())
        })
        .unwrap();
    // Newest first; the order among those of one time is that of the keys.
    archives.sort_by(|a, b| (b.start, ArchiveKey::of(b)).cmp(&(a.start, ArchiveKey::of(a))));
    for _ in 0..300 {
        let mut filter = ArchiveFilter::default();
        if dice.roll(2) == 0 {
            filter.repository = Some(repository_name(dice.pick(&REPOSITORIES)));
        }
        if dice.roll(2) == 0 {
            filter.client = Some(client_name(dice.pick(&CLIENTS)));
        }
        if dice.roll(3) == 0 {
            filter.config = Some(config_name(&format!("{}/{}", dice.pick(&CLIENTS), dice.pick(&LABELS))));
        }
        let fits = |a: &&Archive| {
            filter.repository.as_ref().is_none_or(|r| *r == a.repository)
                && filter.client.as_ref().is_none_or(|c| *c == a.client)
                && filter.config.as_ref().is_none_or(|c| c.client == a.client && c.label == a.label)
        };
        let wanted: Vec<Archive> = archives.iter().filter(fits).cloned().collect();
        let mut seen = Vec::new();
        let mut next = filter.clone();
        loop {
            let page = store.read(|r| r.archives().page(&next, 9)).unwrap();
            let Some(last) = page.last() else { break };
            next.before = Some((last.start, ArchiveKey::of(last)));
            seen.extend(page);
        }
        assert_eq!(seen, wanted, "{filter:?}");
    }
    let count = || store.read(|r| r.archives().restore_points()).unwrap();
    assert_eq!(count(), archives.iter().filter(|archive| !archive.incomplete).count() as u64);
    let odd = archives.iter().find(|archive| archive.incomplete).unwrap();
    let (before, whole) = (count(), Archive { incomplete: false, ..odd.clone() });
    store.write_at(T0, "complete", "root", |w| w.archives().put(&whole)).unwrap();
    assert_eq!(count(), before + 1);
    store.write_at(T0, "put back", "root", |w| w.archives().put(odd)).unwrap();
    assert_eq!(count(), before);
    let one = &archives[7];
    store
        .read(|r| {
            assert_eq!(r.archives().by_name(&one.name)?, std::slice::from_ref(one));
            assert_eq!(r.archives().named(&one.repository, &one.name)?.as_ref(), Some(one));
            assert_eq!(r.archives().of_job(one.job)?, std::slice::from_ref(one));
            assert_eq!(r.archives().by_id_prefix(&one.id)?, std::slice::from_ref(one));
            assert!(r.archives().by_name("web1")?.is_empty(), "a name is a whole name");
            Ok(())
        })
        .unwrap();
    verify(&store);
}

#[test]
fn configs_of_a_client_and_of_a_repository() {
    let (_dir, store) = store();
    store
        .write_at(T0, "fill", "root", |w| {
            for (name, repository) in [("web1/etc", "main"), ("web1/home", "far"), ("web10/etc", "main"), ("web/etc", "main2")] {
                w.configs().insert(&config(name, repository))?;
            }
            Ok(())
        })
        .unwrap();
    let names = |configs: Vec<model::BackupConfig>| configs.iter().map(|c| c.name().to_string()).collect::<Vec<_>>();
    store
        .read(|r| {
            assert_eq!(names(r.configs().of_client(&client_name("web1"))?), ["web1/etc", "web1/home"]);
            assert_eq!(names(r.configs().of_repository(&repository_name("main"))?), ["web1/etc", "web10/etc"]);
            assert!(r.configs().of_client(&client_name("we"))?.is_empty());
            Ok(())
        })
        .unwrap();
}

/// Prints, asserts no time: machines differ.
#[test]
fn a_page_of_ten_thousand_jobs() {
    let (_dir, store) = store();
    fill_jobs(&store, 10_000);
    let cases = [
        ("no filter", JobFilter::default()),
        ("client", JobFilter { client: Some(client_name("web1")), ..JobFilter::default() }),
        ("failed", JobFilter { states: vec![JobState::Failed], ..JobFilter::default() }),
        (
            "failed, client and repository",
            JobFilter {
                states: vec![JobState::Failed],
                client: Some(client_name("db")),
                repository: Some(repository_name("far")),
                ..JobFilter::default()
            },
        ),
    ];
    for (name, filter) in cases {
        let begin = Instant::now();
        let page = store.read(|r| r.jobs().page(&filter, 50)).unwrap();
        println!("page of {} out of 10000 jobs, {name}: {:?}", page.len(), begin.elapsed());
    }
}
