//! An archive is restored to its client: `borgcube restore` beside `borg extract`, each out of the repository that it wrote itself.

use crate::Sizes;
use crate::figures::{costs, head, measured, median, processes, ratios, spread};
use crate::scenes::{Ours, Stock, all_at_once};
use crate::sources;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::Borg;

pub fn run(borg: &Borg, sizes: &Sizes) {
    let place = tempfile::Builder::new().prefix("bench-").tempdir().expect("a temporary directory can be made");
    sources::big(&place.path().join("file"), sizes.big);
    println!("\n### Restore of one file of {} MiB, half of it compressible", sizes.big >> 20);
    compare(borg, place.path(), sizes.rounds);
    let source = place.path().join("many");
    fs::create_dir(&source).expect("a directory can be made");
    sources::small(&source, sizes.small, 2);
    println!("\n### Restore of {} files of up to 4 KiB", sizes.small);
    compare(borg, &source, sizes.rounds);
}

/// Both sides in turn, so that what the machine does besides hits both.
fn compare(borg: &Borg, source: &Path, rounds: usize) {
    let theirs = Stock::new(borg);
    all_at_once([theirs.create(0, "archive", "", source)]);
    let mut mine = Ours::new(borg);
    mine.add_client(0, source);
    all_at_once([mine.run(0)]);
    let archives = mine.system.cli_json(&["archive", "list"]);
    let archive = archives[0]["name"].as_str().expect("a name").to_owned();
    let (mut stock, mut ours) = (vec![], vec![]);
    // In memory, where that can be: how long a file system takes for the same files differs by a factor of ten from one time to the next.
    let memory = Path::new("/dev/shm");
    let targets =
        tempfile::Builder::new().prefix("bench-").tempdir_in(if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() });
    let targets = targets.expect("a temporary directory can be made");
    for round in 0..rounds {
        let target = targets.path().join(format!("stock-{round}"));
        let (client, server) = theirs.sides();
        stock.push(measured(&client, &server, || all_at_once([theirs.extract(0, "archive", &target)])));
        judge(source, &target);
        let target = targets.path().join(format!("ours-{round}"));
        let (client, server) = mine.sides();
        let command = || mine.system.cli_command(&["restore", &archive, "--into", &target.display().to_string(), "--wait"]);
        ours.push(measured(&client, &server, || all_at_once([command()])));
        judge(source, &target);
    }
    println!(
        "\nInto {}. Median of {rounds}. Wall times of all: stock {} | ours {}",
        targets.path().display(),
        spread(&stock),
        spread(&ours)
    );
    head(&["", "wall", "client CPU", "server CPU"]);
    let (stock, ours) = (median(stock), median(ours));
    costs("stock borg", &stock);
    costs("BorgCube", &ours);
    ratios(&ours, &stock);
    println!();
    processes(&[("stock borg", &stock), ("BorgCube", &ours)]);
}

/// What is not all there has not been restored; and it makes room for the next.
fn judge(source: &Path, target: &Path) {
    let restored = target.join(source.strip_prefix("/").expect("a temporary directory has a full path"));
    let (there, here) = (files(&restored), files(source));
    assert!(!here.is_empty(), "there is something to restore");
    assert_eq!(there.len(), here.len(), "everything is there");
    for (there, here) in there.iter().zip(&here).step_by((here.len() / 100).max(1)) {
        assert!(fs::read(there).expect("it can be read") == fs::read(here).expect("it can be read"), "{} is as it was", here.display());
    }
    fs::remove_dir_all(target).expect("it can be removed");
}

/// All files below a directory, in an order of their names.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&directory).expect("it can be listed").flatten().map(|entry| entry.path()).collect();
        entries.sort();
        let (mut below, mut here) = entries.into_iter().partition(|path| path.is_dir());
        left.append(&mut below);
        found.append(&mut here);
    }
    found
}
