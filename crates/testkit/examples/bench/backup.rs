//! First and unchanged runs of one client, each in a repository of its own.

use crate::Sizes;
use crate::figures::{Figures, costs, head, measured, median, processes, ratios, spread};
use crate::scenes::{Ours, Stock, all_at_once};
use crate::sources;
use std::fs;
use std::path::Path;
use testkit::Borg;

pub fn big(borg: &Borg, sizes: &Sizes) {
    let place = tempfile::Builder::new().prefix("bench-").tempdir().expect("a temporary directory can be made");
    sources::big(&place.path().join("file"), sizes.big);
    sources::age(place.path());
    println!("\n### One file of {} MiB, half of it compressible", sizes.big >> 20);
    compare(borg, place.path(), sizes.rounds);
}

pub fn small(borg: &Borg, sizes: &Sizes) {
    let place = tempfile::Builder::new().prefix("bench-").tempdir().expect("a temporary directory can be made");
    let source = place.path().join("many");
    fs::create_dir(&source).expect("a directory can be made");
    sources::small(&source, sizes.small, 2);
    sources::age(&source);
    println!("\n### {} files of up to 4 KiB", sizes.small);
    compare(borg, &source, sizes.rounds);
}

/// Both sides in turn, so that what the machine does besides hits both.
fn compare(borg: &Borg, source: &Path, rounds: usize) {
    let (mut stock, mut ours) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..rounds {
        let scene = Stock::new(borg);
        let (client, server) = scene.sides();
        for (n, archive) in ["first", "second"].into_iter().enumerate() {
            stock[n].push(measured(&client, &server, || all_at_once([scene.create(0, archive, "", source)])));
        }
        drop(scene);
        let mut scene = Ours::new(borg);
        scene.add_client(0, source);
        let (client, server) = scene.sides();
        for figures in &mut ours {
            figures.push(measured(&client, &server, || all_at_once([scene.run(0)])));
        }
    }
    println!(
        "\nMedian of {rounds}. Wall times of all: first stock {} | ours {}; unchanged stock {} | ours {}",
        spread(&stock[0]),
        spread(&ours[0]),
        spread(&stock[1]),
        spread(&ours[1])
    );
    head(&["", "wall", "client CPU", "server CPU"]);
    let mut medians: Vec<(&str, Figures)> = vec![];
    for (run, (stock, ours)) in ["first", "unchanged"].into_iter().zip(stock.into_iter().zip(ours)) {
        let (stock, ours) = (median(stock), median(ours));
        costs(&format!("{run}: stock borg"), &stock);
        costs(&format!("{run}: BorgCube"), &ours);
        ratios(&ours, &stock);
        if run == "first" {
            medians = vec![("stock borg", stock), ("BorgCube", ours)];
        }
    }
    let rows: Vec<(&str, &Figures)> = medians.iter().map(|(name, figures)| (*name, figures)).collect();
    println!("\nThe first run's processes:");
    processes(&rows);
}
