//! A comparison that cannot find a difference proves nothing: each kind of difference is planted here.

use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::geteuid;
use rustix::fs::{XattrFlags, lsetxattr};
use tempfile::TempDir;

use super::*;
use crate::tree::make::set_time;
use crate::tree::{Spec, make, modify};

const SMALL: Spec = Spec { seed: 3, files: 10, big: 300_000 };

fn two() -> (TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    make(&a, SMALL);
    make(&b, SMALL);
    (directory, a, b)
}

/// What is found after `plant` has changed one thing in the second tree, times set back.
fn found_after(relative: &str, plant: impl FnOnce(&Path)) -> Vec<Difference> {
    let (_directory, a, b) = two();
    assert_same(&a, &b);
    let target = b.join(relative);
    plant(&target);
    let same_time = |path: &Path| {
        let inside = path.strip_prefix(&b).expect("below b");
        let Ok(original) = fs::symlink_metadata(a.join(inside)) else {
            return;
        };
        if fs::symlink_metadata(path).is_ok() {
            set_time(path, original.mtime(), original.mtime_nsec() as u32);
        }
    };
    same_time(&target);
    same_time(target.parent().expect("a parent"));
    differences(&a, &b)
}

#[track_caller]
fn only(differences: &[Difference], path: &str, what: &str) {
    let [one] = differences else {
        panic!("expected one difference, found:\n{}", listed(differences));
    };
    assert_eq!(one.path, Path::new(path));
    assert!(one.what.starts_with(what), "{one}");
}

#[test]
fn the_same_seed_makes_the_same_tree_and_another_does_not() {
    let (directory, a, b) = two();
    assert_same(&a, &b);
    let c = directory.path().join("c");
    make(&c, Spec { seed: 4, ..SMALL });
    assert!(!differences(&a, &c).is_empty());
}

#[test]
fn finds_what_is_missing_and_what_is_too_much() {
    let found = found_after("contents/empty", |path| {
        fs::remove_file(path).expect("removed");
    });
    only(&found, "contents/empty", "is missing");
    let found = found_after("contents/more", |path| {
        fs::write(path, b"more").expect("written");
    });
    only(&found, "contents/more", "is there, but should not be");
}

#[test]
fn finds_one_changed_byte() {
    let found = found_after("contents/incompressible", |path| {
        let mut content = fs::read(path).expect("read");
        content[299_999] ^= 1;
        fs::write(path, content).expect("written");
    });
    only(&found, "contents/incompressible", "content differs from byte 299999 on");
}

#[test]
fn finds_another_size() {
    let found = found_after("contents/one byte", |path| {
        fs::write(path, b"xy").expect("written");
    });
    only(&found, "contents/one byte", "size 1 became 2");
}

#[test]
fn finds_another_mode() {
    let found = found_after("modes/file 4755", |path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permitted");
    });
    only(&found, "modes/file 4755", "mode 4755 became 0755");
}

#[test]
fn finds_one_nanosecond() {
    let (_directory, a, b) = two();
    let path = b.join("names/with space");
    let metadata = fs::metadata(&path).expect("there");
    let other = (metadata.mtime_nsec() as u32) ^ 1;
    set_time(&path, metadata.mtime(), other);
    only(&differences(&a, &b), "names/with space", "mtime");
    let (_directory, a, b) = two();
    let metadata = fs::metadata(&b).expect("there");
    set_time(&b, metadata.mtime() + 1, metadata.mtime_nsec() as u32);
    only(&differences(&a, &b), "", "mtime");
}

#[test]
fn finds_another_link_target() {
    let found = found_after("links/dangling", |path| {
        fs::remove_file(path).expect("removed");
        symlink("elsewhere", path).expect("linked");
    });
    only(&found, "links/dangling", "target");
}

#[test]
fn finds_another_type() {
    let found = found_after("special/fifo", |path| {
        fs::remove_file(path).expect("removed");
        fs::write(path, b"").expect("written");
    });
    only(&found, "special/fifo", "fifo became file");
}

#[test]
fn finds_a_broken_hard_link() {
    let found = found_after("links/hard 2", |path| {
        let content = fs::read(path).expect("read");
        fs::remove_file(path).expect("removed");
        fs::write(path, content).expect("written");
    });
    // The group lost a member, which each of its three names tells.
    assert_eq!(found.len(), 3, "{}", listed(&found));
    assert!(found.iter().all(|one| one.what.starts_with("hard links")));
}

#[test]
fn finds_a_changed_attribute() {
    let found = found_after("attributes/file", |path| {
        lsetxattr(path, "user.empty", b"!", XattrFlags::empty()).expect("set");
    });
    only(&found, "attributes/file", "attributes");
}

#[test]
fn finds_a_changed_acl() {
    let (_directory, a, b) = two();
    let path = b.join("attributes/with acl");
    let status = Command::new("setfacl").args(["-m", "u:65534:r--,m::rw-"]).arg(&path).status();
    if !status.is_ok_and(|status| status.success()) {
        crate::borgs::not_run("the test of ACLs", "setfacl does not work here");
        return;
    }
    only(&differences(&a, &b), "attributes/with acl", "attributes");
}

#[test]
fn finds_another_owner_and_device_number() {
    if !geteuid().is_root() {
        crate::borgs::not_run("the test of owners and devices", "it needs root");
        return;
    }
    let found = found_after("owners/of nobody known", |path| {
        lchown(path, Some(54321), Some(1)).expect("given away");
    });
    only(&found, "owners/of nobody known", "owner (54321, 54322)");
    let found = found_after("special/character device", |path| {
        fs::remove_file(path).expect("removed");
        mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 5)).expect("made");
    });
    only(&found, "special/character device", "device number");
}

#[test]
#[should_panic(expected = "names/with space")]
fn assert_same_fails() {
    let (_directory, a, b) = two();
    fs::remove_file(b.join("names/with space")).expect("removed");
    assert_same(&a, &b);
}

#[test]
fn modify_does_what_it_says() {
    let (_directory, a, b) = two();
    let changes = modify(&b, 9);
    let found = differences(&a, &b);
    let tells = |path: &PathBuf, what: &str| found.iter().any(|one| one.path == *path && one.what.contains(what));
    for path in &changes.added {
        assert!(tells(path, "is there, but should not be"), "{path:?}");
    }
    for path in &changes.removed {
        assert!(tells(path, "is missing"), "{path:?}");
    }
    for path in &changes.changed {
        assert!(tells(path, "content") || tells(path, "size"), "{path:?}");
    }
    for path in &changes.touched {
        assert!(tells(path, "mode") || tells(path, "mtime"), "{path:?}");
        assert!(!tells(path, "content"), "{path:?}");
    }
    modify(&b, 10);
}
