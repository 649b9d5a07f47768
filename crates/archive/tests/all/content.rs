//! Sizes, attributes and links that an archive states, and what becomes of them.

use crate::owner::{Builder, Complaints, directory, extract, hard_link, item, link};
use archive::Selection;
use archive::attributes;
use archive::extract::Options;
use borg::item::Item;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

#[test]
fn wrong_sizes_are_told() {
    let mut builder = Builder::default();
    let mut larger = builder.file("larger", &[b"12345"]);
    larger.size = Some(1 << 62);
    let mut smaller = builder.file("smaller", &[b"12345"]);
    smaller.size = Some(1);
    let mut chunk = builder.file("chunk", &[b"12345"]);
    chunk.chunks.as_mut().unwrap()[0].size = u32::MAX;
    chunk.size = None;
    let none = Item { size: Some(5), ..item("none", 0o100_644) };
    for item in [&larger, &smaller, &chunk, &none] {
        builder.add(item);
    }
    let source = builder.source();
    let target = tempfile::tempdir().unwrap();
    let complaints = extract(&source, target.path());
    for name in ["larger", "smaller", "chunk"] {
        assert_eq!(fs::read(target.path().join(name)).unwrap(), b"12345");
    }
    complaints.assert("larger", "its size is not");
    complaints.assert("smaller", "its size is not");
    complaints.assert("none", "no content");
    let mut out = vec![];
    let mut complaints = Complaints::default();
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    let written = archive::export::tar(&source, &mut crate::owner::everything(), &mut out, complain).unwrap();
    assert_eq!(written.items, 4);
    complaints.assert("chunk", "its size is not");
    assert_eq!(out.len() as u64, written.bytes);
}

/// What a repair left is whole as it is, and nobody would notice.
#[test]
fn a_file_that_was_repaired_is_named_wherever_it_is_read() {
    let mut builder = Builder::default();
    let lost = builder.chunk(b"lost");
    let repaired = Item { chunks_healthy: Some(vec![lost]), ..builder.file("repaired", &[b"\0\0\0\0"]) };
    let sound = builder.file("sound", &[b"1"]);
    builder.add(&repaired).add(&sound);
    let source = builder.source();
    let target = tempfile::tempdir().unwrap();
    let named = |complaints: Complaints| {
        complaints.assert("repaired", "has put zeros in place of what was lost");
        assert_eq!(complaints.0.len(), 1, "{complaints:#?}");
    };
    named(extract(&source, target.path()));
    let mut complaints = Complaints::default();
    archive::tree::Tree::read(&source, true, &mut |path, what| complaints.add(path, what)).unwrap();
    named(complaints);
    let mut complaints = Complaints::default();
    let whole = archive::export::cat(&source, b"repaired", &mut vec![], &mut |path, what| complaints.add(path, what)).unwrap();
    assert!(!whole);
    named(complaints);
}

#[test]
fn zeros_become_holes_and_times_are_kept() {
    let mut builder = Builder::default();
    let zeros = vec![0; 4 << 20];
    let file = builder.file("sparse", &[&zeros, b"data", &zeros]);
    builder.add(&file);
    let mut odd = builder.file("odd", &[b"x"]);
    (odd.mtime, odd.atime) = (-1, Some(1_000_000_001));
    builder.add(&odd);
    let mut far = builder.file("far", &[b"x"]);
    far.mtime = i128::MAX;
    builder.add(&far);
    builder.add(&directory("d")).add(&link("d/l", "x"));
    let target = tempfile::tempdir().unwrap();
    let complaints = extract(&builder.source(), target.path());
    assert!(complaints.0.is_empty(), "{complaints:#?}");
    let meta = |name: &str| fs::symlink_metadata(target.path().join(name)).unwrap();
    assert_eq!(meta("sparse").len(), (8 << 20) + 4);
    assert!(meta("sparse").blocks() < 100, "{} blocks", meta("sparse").blocks());
    assert_eq!((meta("odd").mtime(), meta("odd").mtime_nsec()), (-1, 999_999_999));
    assert_eq!((meta("odd").atime(), meta("odd").atime_nsec()), (1, 1));
    for name in ["d", "d/l"] {
        assert_eq!((meta(name).mtime(), meta(name).mtime_nsec()), (1_600_000_000, 123_456_789), "{name}");
    }
}

#[test]
fn a58_what_can_do_harm_is_left_out_unless_asked_for() {
    let mut builder = Builder::default();
    let with = |builder: &mut Builder, name: &str, mode: u32| {
        let file = Item { mode: Some(0o100_000 | mode), ..builder.file(name, &[b"#!/bin/sh"]) };
        builder.add(&file);
    };
    with(&mut builder, "set-uid", 0o4755);
    with(&mut builder, "set-gid", 0o2755);
    with(&mut builder, "sticky", 0o1755);
    builder.add(&item("dir", 0o042_775));
    let mut capable = builder.file("capable", &[b"x"]);
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    capable.xattrs = Some(vec![(b"security.capability".to_vec(), Some(capability)), (b"system.posix_acl_access".to_vec(), Some(vec![1]))]);
    builder.add(&capable);
    let device = Item { rdev: Some(0x0103), ..item("null", 0o020_666) };
    builder.add(&device);
    builder.add(&item("fifo", 0o010_640));
    let source = builder.source();
    let run = |target: &Path, privileged: bool| {
        let options = Options { attributes: attributes::Options { numeric_ids: true, privileged }, overwrite: false };
        let mut complaints = Complaints::default();
        let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
        let done = archive::extract::extract(&source, &mut Selection::default(), target, options, &mut |_| {}, complain).unwrap();
        (done.left_out, complaints)
    };
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("plain");
    let (left, complaints) = run(&target, false);
    assert!(complaints.0.is_empty(), "{complaints:#?}");
    assert_eq!((left.set_ids, left.devices, left.attributes), (2, 1, 1));
    let mode = |name: &str| fs::symlink_metadata(target.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("set-uid"), mode("set-gid"), mode("sticky"), mode("dir"), mode("fifo")), (0o755, 0o755, 0o1755, 0o2775, 0o640));
    assert!(!target.join("null").exists());
    if unix::socket::own_uid() != 0 {
        eprintln!("NOT RUN: with privileges: not root");
        return;
    }
    let target = directory.path().join("privileged");
    let (left, complaints) = run(&target, true);
    assert!(complaints.0.is_empty(), "{complaints:#?}");
    assert_eq!((left.set_ids, left.devices, left.attributes), (0, 0, 0));
    let mode = |name: &str| fs::symlink_metadata(target.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("set-uid"), mode("set-gid")), (0o4755, 0o2755));
    let null = fs::metadata(target.join("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == 0x0103);
}

#[test]
fn a58_attributes_that_make_no_sense_are_told() {
    let mut builder = Builder::default();
    let mut file = builder.file("file", &[b"x"]);
    file.acl_access = Some(b"user::rwx\nnonsense".to_vec());
    file.xattrs = Some(vec![(b"user.\0".to_vec(), None), (b"user.large".to_vec(), Some(vec![0; 1 << 20])), (b"user.fine".to_vec(), None)]);
    (file.uid, file.gid) = (Some(1 << 40), Some(-5));
    builder.add(&file);
    builder.add(&item("unknown", 0o140_644)).add(&Item { mode: None, ..item("modeless", 0) });
    builder.add(&Item { source: None, ..link("nowhere", "") });
    let target = tempfile::tempdir().unwrap();
    let complaints = extract(&builder.source(), target.path());
    complaints.assert("file", "its ACL makes no sense");
    complaints.assert("file", "the name of one of its attributes makes no sense");
    complaints.assert("file", "cannot set its attribute user.large");
    complaints.assert("file", "no number that a user or group can have");
    complaints.assert("unknown", "it is nothing that can be made");
    complaints.assert("modeless", "it is nothing that can be made");
    complaints.assert("nowhere", "a symbolic link to nothing");
    assert_eq!(fs::read(target.path().join("file")).unwrap(), b"x");
}

#[test]
fn names_that_are_no_text_and_long_paths() {
    let mut builder = Builder::default();
    let strange = b"caf\xe9/\xff\xfe\n\x1b[2J";
    let file = builder.file(strange, &[b"strange"]);
    builder.add(&file);
    let deep = format!("{}/file", ["component"; 800].join("/"));
    assert!(deep.len() > 4096);
    let file = builder.file(&deep, &[b"deep"]);
    builder.add(&file);
    builder.add(&hard_link(format!("{deep} too"), &deep));
    let long = builder.file("n".repeat(256), &[b"x"]);
    builder.add(&long);
    let target = tempfile::tempdir().unwrap();
    let complaints = extract(&builder.source(), target.path());
    assert_eq!(complaints.0.len(), 1, "{complaints:#?}");
    let path = target.path().join(std::ffi::OsStr::from_bytes(strange));
    assert_eq!(fs::read(path).unwrap(), b"strange");
    // No program opens a path that long at once; it is there all the same.
    let mut at = unix::beneath::Root::open(target.path()).unwrap();
    let place = at.existing_place(format!("{deep} too").as_bytes()).unwrap();
    assert_eq!(place.look().unwrap(), unix::beneath::Found::Other);
}
