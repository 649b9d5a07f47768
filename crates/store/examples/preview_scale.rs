//! How long previews take: `cargo run --release -p store --example preview_scale [ARCHIVES] [CLIENTS]`.
//!
//! Fills a database in a temporary directory, then asks for all that the policies say, at once and page by page as a preview does.
#![allow(clippy::unwrap_used, reason = "an example for a bench: what fails, fails it")]

use model::progress::Statistics;
use model::retention::{Count, Period, Scope};
use model::{Archive, Policy, Timestamp};
use std::time::Instant;
use store::Store;
use store::retention::{Group, RetentionFilter};

const NOW: Timestamp = Timestamp(1_795_287_991_055_717);
const PAGE: usize = 2_000;

fn archive(client: usize, number: usize, each: usize) -> Archive {
    let id = client * each + number;
    let start = NOW.plus_seconds((number as i64 - each as i64) * 3600);
    Archive {
        id: format!("{id:064x}"),
        name: format!("client{client}-all-{}", start.to_name()),
        repository: format!("repository{}", client % 4).parse().unwrap(),
        client: format!("client{client}").parse().unwrap(),
        label: "all".parse().unwrap(),
        job: id as u64 + 1,
        comment: String::new(),
        statistics: Statistics { nfiles: 300_000, original_size: 1 << 40, compressed_size: 1 << 39, deduplicated_size: 1 << 30 },
        counters: Default::default(),
        start,
        end: start.plus_seconds(600),
        incomplete: false,
        view_digest: format!("{id:064x}"),
        claims: vec!["host: client".into(), "user: root".into()],
        suspicious: false,
        warnings: vec![],
        hold: None,
        pending_deletion: None,
        imported: None,
    }
}

fn policy() -> Policy {
    let periods = [Period::Hourly, Period::Daily, Period::Weekly, Period::Monthly, Period::Yearly];
    Policy {
        name: "standard".parse().unwrap(),
        description: String::new(),
        within: Some("2d".parse().unwrap()),
        keep: periods.map(|period| (period, Count::Number(12))).into(),
        minimum: 3,
        zone: "Europe/Berlin".parse().unwrap(),
        most_per_day: Policy::MOST_PER_DAY,
        grace_hours: Policy::GRACE_HOURS,
        applies: vec![Scope::Configs { client: "client[0-9]+".into(), label: ".*".into() }],
        confirmed: vec![],
        created: NOW,
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let (archives, clients) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(200).max(1));
    let each = archives / clients;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("db")).unwrap();
    store.write("policy", "bench", |w| w.policies().put(&policy())).unwrap();
    for client in 0..clients {
        let fill = |w: &mut store::Write<'_>| (0..each).try_for_each(|number| w.archives().put(&archive(client, number, each)));
        store.write("archives", "bench", fill).unwrap();
    }
    let filter = RetentionFilter::default();
    let begin = Instant::now();
    let groups = store.read(|r| r.retention(&filter, None, usize::MAX, NOW)).unwrap();
    let going: usize = groups.iter().map(|group| group.going().count()).sum();
    println!("{} archives of {clients} clients, {going} go: at once in {:?}", each * clients, begin.elapsed());
    let (begin, mut pages, mut slowest) = (Instant::now(), 0, 0.0_f64);
    let mut last: Option<Group> = None;
    loop {
        let page_begin = Instant::now();
        let after = last.as_ref().map(|group| group.config.clone());
        let mut page = store.read(|r| r.retention(&filter, after.as_ref(), PAGE, NOW)).unwrap();
        slowest = slowest.max(page_begin.elapsed().as_secs_f64());
        match page.pop() {
            None => break,
            newest => last = newest,
        }
        pages += 1;
    }
    println!("in {pages} pages: {:?}, the slowest {:.1} ms", begin.elapsed(), slowest * 1000.0);
    let begin = Instant::now();
    let pruned = store.write("prune", "bench", |w| w.prune(&filter, NOW, "bench")).unwrap().0;
    println!("{} marked in one transaction: {:?}", pruned.marked.len(), begin.elapsed());
}
