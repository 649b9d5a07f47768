//! Nothing is made, changed or linked outside of the target, whatever the archive says.

use crate::owner::{Builder, directory, extract, hard_link, item, link};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// A target beside files that must stay as they are.
struct Scene {
    directory: tempfile::TempDir,
    before: BTreeMap<PathBuf, (u32, u64, u64, Vec<u8>)>,
}

impl Scene {
    fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        fs::write(outside.join("shadow"), "secret").unwrap();
        let before = look(&outside);
        Scene { directory, before }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(look(&self.outside()), self.before, "something outside of the target is not what it was");
        let names: Vec<_> = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == "outside" || name == "target"), "{names:?}");
    }
}

/// Mode, number of names, owner and content of everything there.
fn look(directory: &Path) -> BTreeMap<PathBuf, (u32, u64, u64, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let one = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).unwrap();
        (path.clone(), (meta.mode(), meta.nlink(), u64::from(meta.uid()), fs::read(&path).unwrap()))
    };
    entries.map(|entry| one(entry.path())).collect()
}

#[test]
fn a57_paths_that_lead_out_are_refused() {
    let scene = Scene::new();
    let absolute = scene.outside().join("made").display().to_string();
    let paths = ["../outside/made", "../made", "/made-by-a-hostile-archive", &absolute, "a/../../outside/made", "a/..", "..", "./../made"];
    let mut builder = Builder::default();
    for path in paths {
        let file = builder.file(path, &[b"evil"]);
        builder.add(&file).add(&directory(path)).add(&link(path, "x")).add(&item(path, 0o010_644));
    }
    let with_zero = builder.file(b"a\0b", &[b"evil"]);
    builder.add(&with_zero);
    let good = builder.file("good", &[b"good"]);
    builder.add(&good);
    let complaints = extract(&builder.source(), &scene.target());
    assert_eq!(complaints.0.len(), paths.len() * 4 + 1, "{complaints:#?}");
    complaints.assert("../made", "contains \"..\"");
    complaints.assert("/made-by-a-hostile-archive", "absolute");
    assert_eq!(fs::read(scene.target().join("good")).unwrap(), b"good");
    assert!(!Path::new("/made-by-a-hostile-archive").exists());
    scene.assert_untouched();
}

#[test]
fn a85_links_are_never_followed() {
    let scene = Scene::new();
    let outside = scene.outside();
    let mut builder = Builder::default();
    // A link, then something below it: by an absolute and by a relative target, and by two links that are harmless alone.
    builder.add(&link("abs", outside.as_os_str().as_encoded_bytes())).add(&link("rel", "../outside"));
    builder.add(&directory("d")).add(&link("d/up", "..")).add(&link("twice", "d/up/../outside"));
    for path in ["abs/precious", "abs/made", "rel/precious", "rel/made/deep", "twice/precious", "d/up/../outside/precious", "d/up/x"] {
        let file = builder.file(path, &[b"evil"]);
        builder.add(&file).add(&directory(path)).add(&link(path, "x"));
    }
    // The directory's own attributes go to no link's target: the link takes the place of the directory.
    builder.add(&directory("swap")).add(&link("swap", "../outside"));
    let below = builder.file("swap/precious", &[b"evil"]);
    builder.add(&below);
    // And the other way round.
    builder.add(&link("paws", "../outside")).add(&directory("paws"));
    let below = builder.file("paws/fine", &[b"fine"]);
    builder.add(&below);
    let complaints = extract(&builder.source(), &scene.target());
    complaints.assert("abs/precious", "is on the way to it, and is not followed");
    complaints.assert("rel/made/deep", "is on the way to it, and is not followed");
    complaints.assert("swap/precious", "is on the way to it, and is not followed");
    assert_eq!(fs::read(scene.target().join("paws/fine")).unwrap(), b"fine");
    assert!(fs::symlink_metadata(scene.target().join("swap")).unwrap().is_symlink());
    scene.assert_untouched();
}

#[test]
fn a57_hard_links_lead_to_nothing_outside() {
    let scene = Scene::new();
    let shadow = scene.outside().join("shadow").display().to_string();
    let mut builder = Builder::default();
    builder.add(&link("way", "../outside")).add(&link("file", "../outside/shadow"));
    for (path, master) in [("1", shadow.as_str()), ("2", "../outside/shadow"), ("3", "way/shadow"), ("4", "a/../../outside/shadow")] {
        builder.add(&hard_link(path, master));
    }
    // Of a link to a file outside: another name of the link itself.
    builder.add(&hard_link("5", "file"));
    // Nothing, itself, one another, a directory.
    builder.add(&hard_link("6", "nothing")).add(&hard_link("7", "7")).add(&hard_link("8", "9")).add(&hard_link("9", "8"));
    builder.add(&directory("dir")).add(&hard_link("10", "dir")).add(&hard_link("11", "")).add(&hard_link("12", "."));
    let complaints = extract(&builder.source(), &scene.target());
    for path in ["1", "2", "3", "4", "6", "7", "8", "9", "10", "11", "12"] {
        complaints.assert(path, "it is a hard link to");
        assert!(fs::symlink_metadata(scene.target().join(path)).is_err(), "{path}");
    }
    assert!(fs::symlink_metadata(scene.target().join("5")).unwrap().is_symlink());
    scene.assert_untouched();
}

#[test]
fn what_lies_in_the_target_already_leads_nobody_out() {
    let scene = Scene::new();
    fs::create_dir(scene.target()).unwrap();
    symlink("../outside", scene.target().join("etc")).unwrap();
    symlink("../outside/precious", scene.target().join("file")).unwrap();
    fs::hard_link(scene.outside().join("precious"), scene.directory.path().join("target/name")).unwrap();
    let mut builder = Builder::default();
    for path in ["etc/precious", "file", "name"] {
        let file = builder.file(path, &[b"new"]);
        builder.add(&file);
    }
    let complaints = extract(&builder.source(), &scene.target());
    complaints.assert("etc/precious", "is on the way to it, and is not followed");
    assert_eq!(complaints.0.len(), 1, "{complaints:#?}");
    // What had the names was replaced, not written to.
    for name in ["file", "name"] {
        assert_eq!(fs::read(scene.target().join(name)).unwrap(), b"new");
    }
    scene.assert_untouched();
}

#[test]
fn the_target_itself_is_a_directory_and_stays_one() {
    let scene = Scene::new();
    let mut builder = Builder::default();
    for path in [".", "", "./", "//"] {
        let file = builder.file(path, &[b"evil"]);
        builder.add(&file).add(&link(path, "../outside"));
    }
    builder.add(&item(".", 0o040_750));
    let good = builder.file("./x//y", &[b"good"]);
    builder.add(&good);
    let complaints = extract(&builder.source(), &scene.target());
    complaints.assert(".", "the name of the target itself");
    assert_eq!(fs::read(scene.target().join("x/y")).unwrap(), b"good");
    assert_eq!(fs::metadata(scene.target()).unwrap().mode() & 0o7777, 0o750);
    scene.assert_untouched();
}

#[test]
fn a_directory_that_is_not_empty_is_no_target_unless_that_is_said() {
    let scene = Scene::new();
    let source = Builder::default().source();
    let options = archive::extract::Options::default();
    let result =
        |target: &Path| archive::extract::extract(&source, &mut crate::owner::everything(), target, options, &mut |_| {}, &mut |_, _| {});
    let error = result(&scene.outside()).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    result(&scene.target()).unwrap();
    // It is there now, and empty.
    result(&scene.target()).unwrap();
    assert!(result(&scene.outside().join("precious")).is_err());
    assert!(result(&scene.outside().join("no/parent")).is_err());
    scene.assert_untouched();
}
