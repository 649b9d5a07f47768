//! How long a plan takes: `cargo run --release -p model --example retention_scale [ARCHIVES] [CONFIGS]`.

use model::Timestamp;
use model::retention::{Candidate, Count, Fate, Period, Policy, Situation, Standing, plan};
use std::time::Instant;

const NOW: Timestamp = Timestamp(1_795_287_991_055_717);

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().expect("a number"));
    let archives = numbers.next().unwrap_or(100_000);
    let configs = numbers.next().unwrap_or(200).max(1);
    let policy = Policy {
        name: "standard".parse().expect("a name"),
        description: String::new(),
        within: Some("7d".parse().expect("an interval")),
        keep: Period::ALL
            .into_iter()
            .filter(|period| *period != Period::Quarterly13Weekly)
            .map(|period| (period, Count::Number(12)))
            .collect(),
        minimum: 3,
        zone: "Europe/Berlin".parse().expect("a zone"),
        most_per_day: Policy::MOST_PER_DAY,
        grace_hours: Policy::GRACE_HOURS,
        applies: vec![],
        confirmed: vec![],
        created: NOW,
    };
    let each = archives / configs;
    // One an hour, the oldest first.
    let names: Vec<String> = (0..each).map(|number| format!("{number:064x}")).collect();
    let candidates: Vec<Candidate<'_>> = (1..)
        .zip(&names)
        .map(|(job, id)| Candidate {
            id,
            name: id,
            job,
            time: NOW.plus_seconds((job as i64 - each as i64) * 3600),
            standing: Standing::Complete,
            held: false,
            going: false,
            imported: false,
        })
        .collect();
    let begin = Instant::now();
    let mut goes = 0;
    for _ in 0..configs {
        let situation = Situation { now: NOW, jumps: &[], confirmed: 0 };
        let verdicts = plan(&candidates, &policy, &situation).expect("nothing is wrong with them");
        goes += verdicts.iter().filter(|verdict| matches!(verdict.fate, Fate::Goes { .. })).count();
    }
    println!("{} archives of {configs} configs: {goes} go; {:?}", each * configs, begin.elapsed());
}
