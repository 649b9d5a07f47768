//! Everything in a repository is read and its content proved: by the owner that wrote it, and by stock borg on a copy.

use crate::Sizes;
use crate::figures::{alone, head, measured, median, ratio, row, seconds, spread};
use crate::scenes::{MODE, PASSPHRASE, all_at_once, copy_tree, run_ok};
use crate::sources;
use std::fs;
use testkit::{Borg, BorgWorld, TestSystem};

pub fn run(borg: &Borg, sizes: &Sizes) {
    let system = TestSystem::start_with(&[("BORGCUBE_BORG", &borg.program.display().to_string())]);
    let repository = system.add_repository("bench", MODE, Some(PASSPHRASE));
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
    let source = system.join("source");
    fs::create_dir(&source).expect("a directory can be made");
    sources::big(&source.join("file"), sizes.big);
    sources::small(&source, sizes.small, 2);
    system.add_config("host", "bench", "bench", &["--compression", "lz4"], &[&source]);
    system.run_ok("host/bench");
    fs::remove_dir_all(&source).expect("it can be removed");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let copy = world.join("repository");
    copy_tree(&repository, &copy);

    println!("\n### check --verify-data of one archive with a file of {} MiB and {} of up to 4 KiB", sizes.big >> 20, sizes.small);
    let side = [system.up_pid()];
    let (mut stock, mut ours) = (vec![], vec![]);
    for _ in 0..sizes.rounds {
        stock.push(alone(|| run_ok(borg.command(&world).args(["check", "--verify-data"]).arg(&copy))));
        ours.push(measured(&[], &side, || all_at_once([system.cli_command(&["repository", "check", "bench", "--verify-data"])])));
    }
    println!("\nMedian of {}. Wall times of all: stock {} | ours {}", sizes.rounds, spread(&stock), spread(&ours));
    let (stock, ours) = (median(stock), median(ours));
    head(&["", "wall", "processor time"]);
    for (name, figures) in [("stock borg", &stock), ("BorgCube", &ours)] {
        row(&[name.to_owned(), seconds(figures.wall), seconds(figures.server)]);
    }
    row(&["ratio".to_owned(), ratio(ours.wall, stock.wall), ratio(ours.server, stock.server)]);
}
