//! 30 of 365 archives go by a policy's rules, and the repository is compacted: by the owner that wrote it, and by stock borg on a copy of the
//! same repository, once as somebody who never saw it, as whoever prunes a repository of many clients is, and once with its cache in place.

use crate::Sizes;
use crate::figures::{Figures, alone, head, measured, ratio, row, seconds};
use crate::scenes::{MODE, PASSPHRASE, all_at_once, copy_tree, run_ok};
use crate::sources;
use std::path::Path;
use std::time::{Duration, SystemTime};
use testkit::{Borg, BorgWorld, TestSystem};

/// So many go at once.
const GO: usize = 30;

/// Each archive has so much of its own: every so many files differ.
const STEP: usize = 40;

pub fn run(borg: &Borg, sizes: &Sizes) {
    let system = TestSystem::start_with(&[("BORGCUBE_BORG", &borg.program.display().to_string())]);
    let repository = system.add_repository("bench", MODE, Some(PASSPHRASE));
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
    let source = system.join("source");
    sources::small(&source, sizes.prune_files, 5);
    system.add_config("host", "bench", "bench", &["--compression", "lz4"], &[&source]);
    for archive in 0..sizes.prune_archives {
        sources::change(&source, sizes.prune_files, STEP, archive as u64);
        // Rules count archives of different seconds.
        next_second();
        system.run_ok("host/bench");
    }
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let copy = world.join("repository");
    copy_tree(&repository, &copy);
    let keep = |times: usize| sizes.prune_archives.saturating_sub(times * GO).to_string();

    println!("\n### {GO} of {} archives of {} files are pruned, and the repository compacted", sizes.prune_archives, sizes.prune_files);
    let stock = |times: usize| {
        let at = copy.display().to_string();
        let prune = alone(|| run_ok(borg.command(&world).args(["prune", "--keep-last", &keep(times), &at])));
        let compact = alone(|| run_ok(borg.command(&world).args(["compact", &at])));
        (prune, compact)
    };
    let rows = [("stock borg, its cache has to be built", stock(1)), ("stock borg, its cache is there", stock(2))];
    let left = sizes.prune_archives - 2 * GO;
    assert_eq!(archives(borg, &world, &copy), left, "stock borg has pruned");

    let side = [system.up_pid()];
    let rules =
        |times: usize| ["--keep-last".to_owned(), keep(times), "--most-per-day".into(), "100000".into(), "--grace".into(), "0".into()];
    let policy = |verb: &str, times: usize, more: &[&str]| {
        let rules = rules(times);
        let words: Vec<&str> =
            ["policy", verb, "bench"].into_iter().chain(rules.iter().map(String::as_str)).chain(more.iter().copied()).collect();
        system.cli_ok(&words);
    };
    let ours = || measured(&[], &side, || all_at_once([system.cli_command(&["prune", "--compact"])]));
    policy("add", 1, &["--matching", ".*/.*"]);
    let closed = ours();
    policy("edit", 2, &[]);
    let open = ours();
    assert_eq!(system.cli_json(&["archive", "list", "--limit", "100000"]).as_array().map_or(0, Vec::len), left, "BorgCube has pruned");

    head(&["", "prune", "compact", "both", "processor time"]);
    for (name, (prune, compact)) in &rows {
        let both = seconds(prune.wall + compact.wall);
        row(&[(*name).to_owned(), seconds(prune.wall), seconds(compact.wall), both, seconds(prune.server + compact.server)]);
    }
    for (name, figures) in [("BorgCube, the owner has to open the repository", &closed), ("BorgCube, the owner has it open", &open)] {
        row(&[name.to_owned(), String::new(), String::new(), seconds(figures.wall), seconds(figures.server)]);
    }
    let wall = |(prune, compact): &(Figures, Figures)| prune.wall + compact.wall;
    println!(
        "\nOurs, to be opened, of stock's: {} with its cache to be built, {} with its cache there.",
        ratio(closed.wall, wall(&rows[0].1)),
        ratio(closed.wall, wall(&rows[1].1))
    );
    system.settle();
    borg.check_verify_data(&world, &repository).expect("what is left is sound");
    assert_eq!(archives(borg, &world, &repository), left, "both have pruned the same");
}

/// How many archives stock borg sees.
fn archives(borg: &Borg, world: &BorgWorld, repository: &Path) -> usize {
    let output = borg.command(world).arg("list").arg("--short").arg(repository).output().expect("borg starts");
    assert!(output.status.success(), "borg failed:\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
}

fn next_second() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    std::thread::sleep(Duration::from_secs(1) - Duration::from_nanos(u64::from(now.subsec_nanos())) + Duration::from_millis(5));
}
