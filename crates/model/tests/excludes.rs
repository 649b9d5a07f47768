//! What is left out of a restore is left out by every real borg, and nothing else is.

use model::restore::{Restore, Target};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use testkit::{Borg, BorgWorld};

const DAMAGED: [&[u8]; 5] = [b"caf\xe9", b"a\nb", b"\xff\xc3\xa4\n", b"x\xe2\x82", b"it's [*].\\n"];

/// Alike, but whole.
const WHOLE: [&[u8]; 11] = [
    b"cafe",
    b"caf\xe8",
    b"caf\xc3\xa9",
    b"caf\xe9\n",
    b"a b",
    b"axb",
    b"a\nb\n",
    b"\xff\xc3\xa4",
    b"x\xe2\x83",
    b"it's [*].\n",
    b"it's [*]x\\n",
];

#[test]
fn files_are_left_out_one_by_one() {
    let world = BorgWorld::new();
    let source = world.join("s");
    fs::create_dir(&source).unwrap();
    for name in DAMAGED.iter().chain(&WHOLE) {
        fs::write(source.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let borgs = Borg::all_clients();
    let (first, repository) = (borgs.first().expect("a borg"), world.join("r"));
    first.init(&world, &repository, "none").unwrap();
    let mut create = first.command(&world);
    create.current_dir(world.path()).args(["create", "r::a", "s"]);
    assert!(create.status().unwrap().success());

    let restore = Restore {
        archive: "a".into(),
        id: "0f".repeat(32),
        of: "web1".parse().unwrap(),
        paths: vec![],
        patterns: vec![],
        excludes: vec![],
        target: Target::New,
        sparse: false,
        ignore_space: false,
    };
    let less = restore.without(&DAMAGED.map(|name| [b"s/", name].concat())).unwrap();
    for borg in borgs {
        let into = world.join(format!("into-{}", borg.version));
        fs::create_dir(&into).unwrap();
        let output = borg.command(&world).current_dir(&into).env("BORG_REPO", &repository).args(less.borg_arguments()).output().unwrap();
        assert!(output.status.success(), "{} {output:?}", borg.version);
        let there: BTreeSet<Vec<u8>> = fs::read_dir(into.join("s")).unwrap().map(|entry| entry.unwrap().file_name().into_vec()).collect();
        assert_eq!(there, WHOLE.iter().map(|name| name.to_vec()).collect(), "{}", borg.version);
    }
}
