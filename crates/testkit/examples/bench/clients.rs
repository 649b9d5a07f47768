//! One, two, four and eight clients into one repository at the same time.

use crate::Sizes;
use crate::figures::{Figures, head, measured, processes, ratio, row, seconds};
use crate::scenes::{Ours, Stock, all_at_once};
use crate::sources;
use std::path::PathBuf;
use std::time::Duration;
use testkit::Borg;

const CLIENTS: usize = 8;

pub fn run(borg: &Borg, sizes: &Sizes) {
    let place = tempfile::Builder::new().prefix("bench-").tempdir().expect("a temporary directory can be made");
    let sources: Vec<PathBuf> = (0..CLIENTS).map(|client| place.path().join(format!("source-{client}"))).collect();
    for (client, source) in sources.iter().enumerate() {
        sources::mixed(source, sizes.client, client);
    }
    println!("\n### Clients of {} MB each into one repository, every second file the same for all", sizes.client / 1_000_000);
    head(&["", "wall", "client CPU", "server CPU", "wall of the ideal row / wall"]);
    let show = |name: &str, figures: &Figures, ideal: Option<Duration>| {
        let speed = ideal.map(|ideal| ratio(ideal, figures.wall)).unwrap_or_default();
        row(&[name.to_owned(), seconds(figures.wall), seconds(figures.client), seconds(figures.server), speed]);
    };

    let (rows, one) = stock_in_a_row(borg, &sources);
    show("one stock client", &one, None);
    show("8 stock clients one after another: the ideal row", &rows, Some(rows.wall));
    if sizes.lock_wait > 0 {
        let at_once = stock_at_once(borg, &sources, sizes.lock_wait);
        show(&format!("8 stock clients at once, --lock-wait {}", sizes.lock_wait), &at_once, Some(rows.wall));
    }
    let mut last = None;
    for clients in [1, 2, 4, CLIENTS] {
        let figures = ours(borg, &sources[..clients]);
        // A row of fewer is as long as its part of the row of eight.
        let ideal = if clients == 1 { one.wall } else { rows.wall * clients as u32 / CLIENTS as u32 };
        show(&format!("BorgCube, {clients} at once"), &figures, Some(ideal));
        last = Some(figures);
    }
    if let Some(figures) = last {
        println!("\nProcesses of eight clients at once, and of one stock client:");
        processes(&[("stock borg", &one), ("BorgCube", &figures)]);
    }
}

/// The row, and the first of it alone.
fn stock_in_a_row(borg: &Borg, sources: &[PathBuf]) -> (Figures, Figures) {
    let scene = Stock::new(borg);
    let (client, server) = scene.sides();
    let mut sum = Figures::default();
    let mut first = None;
    for (number, source) in sources.iter().enumerate() {
        let one = measured(&client, &server, || all_at_once([scene.create(number, &format!("c{number}"), "", source)]));
        sum.wall += one.wall;
        sum.client += one.client;
        sum.server += one.server;
        first.get_or_insert(one);
    }
    (sum, first.unwrap_or_default())
}

fn stock_at_once(borg: &Borg, sources: &[PathBuf], lock_wait: usize) -> Figures {
    let scene = Stock::new(borg);
    let (client, server) = scene.sides();
    let options = format!("--lock-wait {lock_wait}");
    let create = |(number, source): (usize, &PathBuf)| scene.create(number, &format!("c{number}"), &options, source);
    measured(&client, &server, || all_at_once(sources.iter().enumerate().map(create)))
}

fn ours(borg: &Borg, sources: &[PathBuf]) -> Figures {
    let mut scene = Ours::new(borg);
    for (number, source) in sources.iter().enumerate() {
        scene.add_client(number, source);
    }
    let (client, server) = scene.sides();
    measured(&client, &server, || all_at_once((0..sources.len()).map(|number| scene.run(number))))
}
