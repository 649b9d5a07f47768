//! One archive of many is deleted, and the repository compacted: by the owner, which knows what refers to what, and by stock borg on a
//! copy of the same repository, once as somebody who never saw it (its cache has to be built from all archives), once with that cache.

use crate::Sizes;
use crate::figures::{Figures, alone, head, measured, row, seconds};
use crate::scenes::{MODE, PASSPHRASE, all_at_once, copy_tree, run_ok};
use crate::sources;
use testkit::{Borg, BorgWorld, TestSystem};

/// Each archive has so much of its own: every so many files differ.
const STEP: usize = 40;

pub fn run(borg: &Borg, sizes: &Sizes) {
    let system = TestSystem::start_with(&[("BORGCUBE_BORG", &borg.program.display().to_string())]);
    let repository = system.add_repository("bench", MODE, Some(PASSPHRASE));
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
    let source = system.join("source");
    sources::small(&source, sizes.archive_files, 5);
    system.add_config("host", "bench", "bench", &["--compression", "lz4"], &[&source]);
    for archive in 0..sizes.archives {
        sources::change(&source, sizes.archive_files, STEP, archive as u64);
        system.run_ok("host/bench");
    }
    let archives = system.cli_json(&["archive", "list"]);
    let names: Vec<String> = archives.as_array().expect("a list").iter().map(|a| a["name"].as_str().expect("a name").to_owned()).collect();
    let (one, other) = (&names[names.len() / 2], &names[names.len() / 2 - 1]);
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let copy = world.join("repository");
    copy_tree(&repository, &copy);

    println!("\n### One of {} archives of {} files is deleted, and the repository compacted", sizes.archives, sizes.archive_files);
    head(&["", "delete", "compact", "both", "processor time"]);
    let stock = |name: &str| {
        let at = format!("{}::{name}", copy.display());
        let delete = alone(|| run_ok(borg.command(&world).args(["delete", &at])));
        let compact = alone(|| run_ok(borg.command(&world).arg("compact").arg(&copy)));
        (delete, compact)
    };
    show("stock borg, its cache has to be built", stock(one));
    show("stock borg, its cache is there", stock(other));
    let side = [system.up_pid()];
    let ours = |words: &[&str]| measured(&[], &side, || all_at_once([system.cli_command(words)]));
    let first = (ours(&["archive", "delete", "--now", "--yes", one]), ours(&["repository", "compact", "bench"]));
    show("BorgCube, the owner has to open the repository", first);
    show(
        "BorgCube, the owner has it open",
        (ours(&["archive", "delete", "--now", "--yes", other]), ours(&["repository", "compact", "bench"])),
    );
    system.settle();
    borg.check_verify_data(&world, &repository).expect("what is left is sound");
}

fn show(name: &str, (delete, compact): (Figures, Figures)) {
    let both = seconds(delete.wall + compact.wall);
    row(&[name.to_owned(), seconds(delete.wall), seconds(compact.wall), both, seconds(delete.server + compact.server)]);
}
