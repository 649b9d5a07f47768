//! What is missing or damaged takes nothing else with it, and is told.

use crate::owner::{Builder, Complaints, directory, everything, extract, id_of, names, open};
use borg::Id;
use borg::compress::{Compression, compress};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[test]
fn a_file_with_a_hole_is_named_and_the_others_are_whole() {
    let mut builder = Builder::default();
    let (a, b, c) = (vec![b'a'; 5000], vec![b'b'; 6000], vec![b'c'; 7000]);
    for name in ["before", "holed", "after"] {
        let chunks: &[&[u8]] = if name == "holed" { &[&a, &b, &c] } else { &[&a, &c] };
        let file = builder.file(name, chunks);
        builder.add(&file);
    }
    let objects = Arc::new(builder.finish());
    let rotten = compress(Compression::Lz4, b"something else");
    for damage in [None, Some(rotten), Some(vec![1, 0, 0xff, 0xff]), Some(vec![9, 9])] {
        match damage {
            None => objects.payloads.lock().unwrap().remove(&id_of(&b)),
            Some(payload) => objects.payloads.lock().unwrap().insert(id_of(&b), payload),
        };
        let source = open(&objects);
        let target = tempfile::tempdir().unwrap();
        let complaints = extract(&source, target.path());
        assert_eq!(complaints.0.len(), 1, "{complaints:#?}");
        complaints.assert("holed", "6000 bytes of it are lost and were replaced by zeros, from byte 5000 on");
        let whole = [a.as_slice(), &c].concat();
        assert_eq!(fs::read(target.path().join("before")).unwrap(), whole);
        assert_eq!(fs::read(target.path().join("after")).unwrap(), whole);
        assert_eq!(fs::read(target.path().join("holed")).unwrap(), [a.as_slice(), &[0; 6000], &c].concat());

        let mut complaints = Complaints::default();
        let mut out = vec![];
        let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
        assert!(!archive::export::cat(&source, b"holed", &mut out, complain).unwrap());
        assert_eq!(out, a, "what is behind a hole would be taken for what belongs there");
        assert!(archive::export::cat(&source, b"/after", &mut out, complain).unwrap());
        complaints.assert("holed", "breaks off at byte 5000");

        let mut complaints = Complaints::default();
        let mut out = vec![];
        let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
        let written = archive::export::tar(&source, &mut everything(), &mut out, complain).unwrap();
        assert_eq!((written.items, written.content, written.bytes), (3, 42_000, out.len() as u64));
        complaints.assert("holed", "replaced by zeros");
    }
}

#[test]
fn a_hole_in_the_list_of_files_costs_what_is_in_it() {
    let mut builder = Builder::in_pieces(2000);
    for number in 0..1000 {
        let file = builder.file(format!("file {number:04}"), &[b"content"]);
        builder.add(&file);
    }
    let objects = Arc::new({
        builder.flush();
        builder.finish()
    });
    let source = open(&objects);
    let all = source.metadata.items.clone();
    assert!(all.len() > 20);
    objects.payloads.lock().unwrap().remove(&all[3]);
    objects.payloads.lock().unwrap().insert(all[7], compress(Compression::None, b"nonsense"));
    let last = *all.last().unwrap();
    objects.payloads.lock().unwrap().remove(&last);
    let (names, complaints) = names(&source);
    assert!((900..1000).contains(&names.len()), "{} of 1000", names.len());
    assert!(names.iter().all(|name| name.starts_with("file ")) && names.is_sorted());
    assert_eq!(complaints.0.len(), 3, "{complaints:#?}");
    complaints.assert("", &format!("object {} is not in the repository", all[3]));
    complaints.assert("", "its content is not what its id promises");
}

#[test]
fn a_list_that_makes_no_sense_is_told() {
    let mut builder = Builder::default();
    builder.add(&directory("before")).flush();
    builder.raw(b"\xc1 this is no item").flush();
    builder.raw(b"\x81\xa7unknown\x01").flush();
    builder.add(&directory("after")).flush();
    builder.raw(&[0x8f, 0xa4]);
    let (names, complaints) = names(&builder.source());
    assert_eq!(names, ["before", "after"]);
    complaints.assert("", "makes no sense behind item 1");
    complaints.assert("", "ends in the middle of an item");
}

#[test]
fn a_reader_goes_on_when_its_connection_breaks() {
    let mut builder = Builder::default();
    let mut content = vec![];
    for number in 0..500_u32 {
        let piece = number.to_le_bytes().repeat(100);
        let file = builder.file(format!("{number:03}"), &[&piece]);
        content.extend(piece);
        builder.add(&file);
    }
    let mut objects = builder.finish();
    objects.breaks_after = 20;
    let objects = Arc::new(objects);
    let source = open(&objects);
    let target = tempfile::tempdir().unwrap();
    let complaints = extract(&source, target.path());
    assert!(complaints.0.is_empty(), "{complaints:#?}");
    let read: Vec<u8> = (0..500).flat_map(|number| fs::read(target.path().join(format!("{number:03}"))).unwrap()).collect();
    assert!(read == content);
    assert!(objects.connections.load(Ordering::SeqCst) > 20);
}

#[test]
fn an_archive_that_is_not_there() {
    let objects = Arc::new(Builder::default().finish());
    let source = open(&objects);
    assert_eq!(source.readable.name, "a");
    assert_eq!(names(&source).0, Vec::<String>::new());
    assert_eq!(source.readable.id, Id::to_hex(id_of(&objects.metadata)));
}
