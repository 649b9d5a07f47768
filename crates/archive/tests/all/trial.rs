//! Restore tests of archives of every kind: what is drawn is extracted below the test's directory, and nothing else happens.

use crate::owner::{Builder, directory, hard_link, id_of, item, link};
use archive::trial::{Trial, Tried, is_no_room, run};
use archive::{Error, Source};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn everything() -> Trial {
    Trial { files: 2000, bytes: 1 << 30, seed: 7, ..Trial::default() }
}

fn tried(source: &Source, trial: &Trial) -> Result<Tried, Error> {
    let directory = tempfile::tempdir().unwrap();
    run(source, trial, directory.path(), &mut |_, _, _| {})
}

fn names(tried: &Tried) -> Vec<String> {
    tried.files.iter().map(|file| String::from_utf8_lossy(&file.path).into_owned()).collect()
}

#[test]
fn what_comes_out_is_what_went_in() {
    let mut builder = Builder::default();
    let (two, empty) = (builder.file("d/two", &[b"abc", b"def"]), builder.file("empty", &[]));
    let odd = builder.file(b"odd\n\xff", &[b"odd"]);
    builder.add(&directory("d")).add(&two).add(&empty).add(&odd).add(&link("link", "d/two"));
    let tried = tried(&builder.source(), &everything()).unwrap();
    assert_eq!((tried.seen, tried.seen_bytes, tried.bytes), (3, 9, 9));
    let content: Vec<&str> = tried.files.iter().map(|file| file.content.as_str()).collect();
    assert_eq!(content, [hash(b"abcdef"), hash(b""), hash(b"odd")]);
    assert!(tried.files.iter().all(|file| file.damage.is_none() && file.note.is_none()), "{tried:?}");
    assert_eq!(tried.files[2].path_hash, hash(b"odd\n\xff"));
}

#[test]
fn a_hostile_archive_stays_where_it_is() {
    let scene = tempfile::tempdir().unwrap();
    let outside = scene.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    let target = scene.path().join("test");
    fs::create_dir(&target).unwrap();
    // Even if somebody has put a link into the test's directory.
    fs::create_dir(target.join("files")).unwrap();
    symlink(&outside, target.join("files/way")).unwrap();
    let absolute = outside.join("precious").display().to_string();
    let hostile = ["../outside/precious", "../../outside/made", &absolute, "way/precious", "way/made", "a/../../../outside/made", "..", ""];
    let mut builder = Builder::default();
    builder.add(&link("abs", outside.as_os_str().as_encoded_bytes())).add(&item("device", 0o060_666)).add(&item("pipe", 0o010_666));
    builder.add(&hard_link("hard", "../outside/precious")).add(&hard_link("harder", &absolute)).add(&item("socket", 0o140_777));
    for path in hostile {
        let file = builder.file(path, &[b"evil"]);
        builder.add(&file);
    }
    // Below a file, and a name twice: the last one counts.
    for (path, content) in [("file", &b"1"[..]), ("file/below", b"2"), ("twice", b"3"), ("twice", b"4")] {
        let file = builder.file(path, &[content]);
        builder.add(&file);
    }
    let tried = run(&builder.source(), &everything(), &target, &mut |_, _, _| {}).unwrap();
    for file in &tried.files {
        let path = String::from_utf8_lossy(&file.path);
        match &*path {
            "file" | "twice" => assert!(file.damage.is_none(), "{file:?}"),
            _ => assert!(file.damage.is_some() && file.content.is_empty(), "{file:?}"),
        }
    }
    assert_eq!(tried.files.iter().find(|file| file.path == b"twice").unwrap().content, hash(b"4"));
    let names = names(&tried);
    assert!(hostile.iter().all(|path| names.iter().any(|name| name == path)), "{names:?}");
    assert!(!names.iter().any(|name| ["abs", "device", "pipe", "socket"].contains(&name.as_str())), "{names:?}");
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(scene.path()).unwrap().count(), 2);
}

#[test]
fn what_is_lost_or_not_as_stated_is_damage() {
    let mut builder = Builder::default();
    let (good, mut lost, mut short) =
        (builder.file("good", &[b"good"]), builder.file("lost", &[b"abc", b"lost"]), builder.file("short", &[b"abc"]));
    lost.chunks.as_mut().unwrap()[1].id = id_of(b"nobody has it");
    short.size = Some(700);
    let mut empty = item("none", 0o100_644);
    empty.chunks = None;
    builder.add(&good).add(&lost).add(&short).add(&empty);
    let tried = tried(&builder.source(), &everything()).unwrap();
    let damage: Vec<Option<&str>> = tried.files.iter().map(|file| file.damage.as_deref()).collect();
    assert!(damage[0].is_none() && damage[1].unwrap().contains("are lost"), "{damage:?}");
    assert!(damage[2].unwrap().contains("size") && damage[3].unwrap().contains("no content"), "{damage:?}");
}

#[test]
fn chunks_that_are_longer_than_stated_fill_no_disk() {
    let mut builder = Builder::default();
    let mut file = builder.file("bomb", &[&[7; 100_000]]);
    file.chunks.as_mut().unwrap()[0].size = 1;
    file.size = None;
    for n in 0..50 {
        file.path = format!("bomb {n}").into_bytes();
        builder.add(&file);
    }
    let error = tried(&builder.source(), &everything()).unwrap_err();
    assert!(error.to_string().contains("more than the 50 bytes"), "{error}");
}

#[test]
fn limits_are_kept_and_said() {
    let mut builder = Builder::default();
    for n in 0..100 {
        let file = builder.file(format!("d/{n}"), &[&[n; 100]]);
        builder.add(&file);
    }
    let big = builder.file("big", &[&[1; 5000]]);
    builder.add(&big);
    let source = builder.source();
    let some = tried(&source, &Trial { files: 10, bytes: 750, ..everything() }).unwrap();
    assert_eq!((some.files.len(), some.bytes, some.seen, some.too_large), (7, 700, 101, 1));
    assert_eq!(names(&tried(&source, &Trial { files: 10, bytes: 750, ..everything() }).unwrap()), names(&some));
    let chosen = Trial { take: vec!["pp:d/7".into(), "pf:d/8".into(), "pf:nothing".into()], is_whole: true, ..everything() };
    let two = tried(&source, &chosen).unwrap();
    assert_eq!((names(&two), &two.unmatched[..]), (vec!["d/7".into(), "d/8".into()], &["pf:nothing".to_owned()][..]));
    let error = tried(&source, &Trial { bytes: 150, ..chosen }).unwrap_err();
    assert!(error.to_string().contains("2 files of 200 bytes") && !is_no_room(&error), "{error}");
    // What is recorded is drawn again.
    let known: BTreeMap<String, String> = some.files.iter().take(3).map(|file| (file.path_hash.clone(), file.item_hash.clone())).collect();
    for seed in 0..5 {
        let again = tried(&source, &Trial { files: 6, seed, known: known.clone(), ..everything() }).unwrap();
        assert!(known.keys().all(|path| again.files.iter().any(|file| file.path_hash == *path)), "{seed}");
    }
}

#[test]
fn a_hard_link_whose_master_is_elsewhere_is_a_file() {
    let mut builder = Builder::default();
    let mut master = builder.file("a/master", &[b"both"]);
    master.hardlink_master = Some(true);
    builder.add(&master).add(&hard_link("b/other", "a/master"));
    let source = builder.source();
    assert_eq!(names(&tried(&source, &everything()).unwrap()), ["a/master"]);
    let other = tried(&source, &Trial { take: vec!["pp:b".into()], ..everything() }).unwrap();
    assert_eq!((names(&other), other.files[0].content.as_str()), (vec!["b/other".into()], &hash(b"both")[..]));
}

#[test]
fn each_name_that_somebody_expects_is_compared() {
    let mut builder = Builder::default();
    let mut master = builder.file("a/master", &[b"both"]);
    master.hardlink_master = Some(true);
    let mut old = builder.file("a/old", &[b"does not say"]);
    old.hardlink_master = None;
    builder.add(&master).add(&hard_link("a/other", "a/master")).add(&hard_link("a/third", "a/master"));
    builder.add(&old).add(&hard_link("a/unknown", "a/old"));
    let source = builder.source();
    let take = |patterns: &[&str]| {
        tried(&source, &Trial { take: patterns.iter().map(|p| (*p).into()).collect(), is_whole: true, ..everything() }).unwrap()
    };
    let found = take(&["pf:a/master", "pf:a/third"]);
    assert_eq!(names(&found), ["a/master", "a/third"]);
    assert!(found.files.iter().all(|file| file.content == hash(b"both") && file.damage.is_none() && file.size == 4), "{found:?}");
    // Beside a directory that has all of them, and without their master.
    assert_eq!(names(&take(&["pp:a", "pf:a/other"])), ["a/master", "a/other", "a/old"]);
    let without = take(&["pf:a/other", "pf:a/third"]);
    assert_eq!((names(&without).len(), without.files.iter().filter(|file| file.content == hash(b"both")).count()), (2, 2));
    // What cannot be compared is said.
    let unknown = take(&["pf:a/old", "pf:a/unknown"]);
    assert_eq!(names(&unknown), ["a/old"]);
    assert_eq!(unknown.complaints, [""; 0]);
    assert_eq!(
        unknown.not_compared,
        ["a/unknown was not compared: it is another name of a/old, and the archive does not say what that consists of"]
    );
}

#[test]
fn an_expected_path_that_is_no_file_is_missed() {
    let mut builder = Builder::default();
    let (good, mut master) = (builder.file("good", &[b"good"]), builder.file("d/was-a-file/below", &[b"new"]));
    master.hardlink_master = Some(true);
    let was = builder.file("twice", &[b"was"]);
    builder.add(&good).add(&directory("d")).add(&directory("d/was-a-file")).add(&master).add(&link("link", "good"));
    builder.add(&hard_link("other-name", "d/was-a-file/below")).add(&was).add(&directory("twice"));
    let source = builder.source();
    let expecting = |also: &[&str], paths: &[&str]| {
        let whole = paths.iter().map(|path| format!("pf:{path}"));
        let take = also.iter().map(|pattern| (*pattern).to_owned()).chain(whole).collect();
        tried(&source, &Trial { take, is_whole: true, ..everything() }).unwrap()
    };
    let alone = expecting(&[], &["d/was-a-file"]);
    assert_eq!((names(&alone).len(), &alone.unmatched[..]), (0, &["pf:d/was-a-file".to_owned()][..]));
    let beside = expecting(&[], &["good", "link", "nothing", "twice", "other-name"]);
    assert_eq!(beside.unmatched, ["pf:link", "pf:nothing", "pf:twice"]);
    // Something else may have taken it.
    assert_eq!(expecting(&["pp:d", "pp:nowhere"], &["d/was-a-file", "d/was-a-file/below"]).unmatched, ["pp:nowhere", "pf:d/was-a-file"]);
}
