//! Files that damage concerns: what is told of them does not grow with what clients wrote.

use crate::owner::{Builder, hard_link, id_of, item};
use archive::Selection;
use archive::damaged::{bounded, concluded, files, unreadable, unreadable_within};
use model::Timestamp;
use model::check::{Damage, DamagedFiles};
use std::collections::HashSet;

#[test]
fn files_with_damaged_chunks_are_named() {
    let mut builder = Builder::in_pieces(500);
    let (a, b) = (vec![b'a'; 5000], vec![b'b'; 6000]);
    for number in 0..70 {
        let chunks: &[&[u8]] = if number % 10 == 9 { &[&a] } else { &[&a, &b] };
        let file = builder.file(format!("file {number}"), chunks);
        builder.add(&file);
    }
    let mut master = builder.file("master", &[&b]);
    master.hardlink_master = Some(true);
    builder.add(&master).add(&hard_link("link", "master")).add(&item("empty", 0o100_644));
    let source = builder.source();
    let found = files(&source, &HashSet::from([id_of(&b)]), &mut || true).unwrap().unwrap();
    assert_eq!((found.paths.len(), found.more, &found.incomplete), (DamagedFiles::MAX, 15, &None));
    assert_eq!(found.paths[0], "file 0");
    assert!(!found.paths.contains(&"file 9".to_owned()));
}

#[test]
fn endless_paths_are_cut_and_marked() {
    let mut builder = Builder::default();
    let names: [Vec<u8>; 4] = [vec![b'x'; 60_000], "ö\u{1b}".repeat(20_000).into_bytes(), vec![0xff; 60_000], b"back\\slash\n".to_vec()];
    for name in names {
        let file = builder.file(name, &[b"lost"]);
        builder.add(&file);
    }
    let found = files(&builder.source(), &HashSet::from([id_of(b"lost")]), &mut || true).unwrap().unwrap();
    for path in &found.paths[..3] {
        assert_eq!(path.chars().count(), DamagedFiles::LONGEST + 1, "{path}");
        assert!(path.ends_with('…') && !path.contains('\u{1b}'), "{path}");
    }
    assert_eq!(found.paths[3], "back\\\\slash\\n");
    // Who gets it from somebody else does the same once more, and changes nothing.
    assert_eq!(bounded(found.clone()), found);
}

#[test]
fn what_could_not_be_read_is_said() {
    let now = Timestamp::now();
    let damage = Damage {
        since: now,
        found: now,
        needs_data: false,
        errors: vec![],
        error_count: 0,
        chunks: 2,
        archives: vec![],
        more_archives: 0,
        unknown: vec![],
        more_unknown: 0,
        healed: 0,
        unopenable: None,
    };
    let chunks = ["ab".repeat(32), "cd".repeat(32)];
    let why = concluded(Err("no\n".repeat(5000)), &damage, &chunks).incomplete.unwrap();
    assert!(why.starts_with("no\\n") && why.chars().count() == DamagedFiles::SENTENCE + 1);
    assert_eq!(concluded(Ok(DamagedFiles::default()), &damage, &chunks), DamagedFiles::default());
    assert!(concluded(Ok(DamagedFiles::default()), &damage, &chunks[..1]).incomplete.unwrap().contains("more chunks"));
}

#[test]
fn only_a_hole_in_the_list_of_files_makes_it_incomplete() {
    let few = |builder: &mut Builder| {
        for number in 0..20 {
            let mut file = builder.file(format!("other/{number}"), &[b"x"]);
            file.hardlink_master = Some(true);
            builder.add(&file);
        }
        let file = builder.file("wanted/file", &[b"y"]);
        builder.add(&file);
    };
    let mut builder = Builder::default();
    few(&mut builder);
    let source = builder.source();
    let mut selection = Selection::new(&["wanted"], &[] as &[&str], 0).unwrap();
    let found = unreadable_within(&source, &mut selection, 1000, &mut || true).unwrap().unwrap();
    assert_eq!((found.whole, &found.paths, &found.incomplete), (1, &vec![], &None));
    assert!(found.forgotten > 5 && found.forgotten <= 20, "{found:?}");
    assert_eq!(unreadable(&source, &mut selection, &mut || true).unwrap().unwrap().forgotten, 0);

    let mut builder = Builder::default();
    few(&mut builder);
    builder.raw(b"\xc1");
    let found = unreadable(&builder.source(), &mut selection, &mut || true).unwrap().unwrap();
    assert!(found.incomplete.is_some(), "{found:?}");
}
