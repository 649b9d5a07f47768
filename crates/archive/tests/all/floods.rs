//! What is too much: of items, of chunks, of bytes.

use crate::owner::{Builder, Complaints, directory, everything, extract, hard_link, item, names, open};
use archive::Selection;
use borg::Id;
use borg::compress::Compression;
use borg::item::{ChunkRef, Item};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most bytes this process has had in memory.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_first_item_comes_before_the_list_is_read() {
    let mut builder = Builder::in_pieces(100_000);
    for number in 0..200_000 {
        builder.add(&directory(format!("some/directory/{number:08}")));
    }
    let objects = Arc::new(builder.finish());
    let source = open(&objects);
    let mut selection = everything();
    let mut feed = archive::feed::Feed::open(&source, &mut selection, false).unwrap();
    let first = feed.next(&mut |_, _| {}).unwrap().unwrap();
    assert_eq!(first.item.path, b"some/directory/00000000");
    let asked = objects.asked.load(Ordering::SeqCst);
    assert!(asked < 40, "{asked} pieces of the list were read for one item");
    let mut count = 1;
    while feed.next(&mut |_, _| {}).unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 200_000);
}

#[test]
fn content_is_not_read_far_ahead_of_who_takes_it() {
    let mut builder = Builder::in_pieces(100_000);
    for number in 0..400_u32 {
        let content: Vec<u8> = number.to_le_bytes().iter().copied().cycle().take(1 << 20).collect();
        let chunk = builder.packed_chunk(&content, Compression::None);
        let file = Item { chunks: Some(vec![chunk]), ..item(format!("{number}"), 0o100_644) };
        builder.add(&file);
    }
    let objects = Arc::new(builder.finish());
    let source = open(&objects);
    let mut selection = everything();
    let mut feed = archive::feed::Feed::open(&source, &mut selection, true).unwrap();
    for number in 0..3_u32 {
        feed.next(&mut |_, _| {}).unwrap().unwrap();
        let (_, plain) = feed.chunk(&mut |_, _| {}).unwrap().unwrap();
        assert_eq!(plain.unwrap()[..4], number.to_le_bytes());
        assert!(feed.chunk(&mut |_, _| {}).unwrap().is_none());
    }
    // What is on its way may arrive.
    std::thread::yield_now();
    let asked = objects.asked.load(Ordering::SeqCst);
    assert!(asked < 80, "{asked} objects were read for three files");
}

/// A chunk that says it is one byte long and is 20 MiB, over and over: what is on its way is bounded by what arrives, not by what is said.
#[test]
fn small_words_and_large_chunks_take_no_memory() {
    let mut builder = Builder::in_pieces(1 << 20);
    // Some kilobytes.
    let chunk = builder.packed_chunk(&vec![0; 20 << 20], Compression::Zstd(3));
    let liar = ChunkRef { size: 1, ..chunk };
    let file = Item { chunks: Some(vec![liar; 60]), ..item("bomb", 0o100_644) };
    builder.add(&file);
    let source = builder.source();
    let before = peak();
    let mut complaints = Complaints::default();
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    let written = archive::export::tar(&source, &mut everything(), std::io::sink(), complain).unwrap();
    assert_eq!(written.content, 60, "a tar archive has what its header says");
    complaints.assert("bomb", "its size is not");
    let grown = peak() - before;
    assert!(grown < 400 << 20, "{} MiB", grown >> 20);
}

#[test]
fn a_file_of_very_many_chunks() {
    let mut builder = Builder::in_pieces(1 << 20);
    let chunk = builder.chunk(b"0123456789");
    let file = Item { chunks: Some(vec![chunk; 300_000]), size: Some(3_000_000), ..item("many", 0o100_644) };
    builder.add(&file);
    let good = builder.file("good", &[b"good"]);
    builder.add(&good);
    let source = builder.source();
    assert_eq!(names(&source).0, ["many", "good"]);
    let directory = tempfile::tempdir().unwrap();
    let complaints = extract(&source, &directory.path().join("target"));
    assert!(complaints.0.is_empty(), "{complaints:#?}");
    let content = fs::read(directory.path().join("target/many")).unwrap();
    assert!(content.len() == 3_000_000 && content.chunks(10).all(|part| part == b"0123456789"));
}

#[test]
fn an_item_that_is_too_large_is_told_and_what_is_behind_it_is_found() {
    let mut builder = Builder::in_pieces(1 << 20);
    builder.add(&directory("before")).flush();
    // More than any Borg writes.
    let chunks = vec![ChunkRef { id: Id([1; 32]), size: 1, csize: 1 }; 2_200_000];
    let giant = Item { chunks: Some(chunks), ..item("giant", 0o100_644) };
    builder.add(&giant).flush();
    builder.add(&directory("after"));
    let (names, complaints) = names(&builder.source());
    assert_eq!(names, ["before", "after"]);
    complaints.assert("", "makes no sense");
}

#[test]
fn directories_that_are_deep_and_heavy() {
    let mut builder = Builder::in_pieces(1 << 20);
    let mut path = String::from("d");
    let value = vec![b'v'; 60_000];
    for _ in 0..1200 {
        let heavy = Item { xattrs: Some(vec![(b"user.heavy".to_vec(), Some(value.clone()))]), ..directory(&path) };
        builder.add(&heavy);
        path.push_str("/d");
    }
    let file = builder.file(format!("{path}/file"), &[b"deep down"]);
    builder.add(&file);
    let target = tempfile::tempdir().unwrap();
    let complaints = extract(&builder.source(), target.path());
    complaints.assert("d", "its times may be those of its extraction");
    assert!(!complaints.0.iter().any(|(path, _)| path.ends_with("file")), "{complaints:#?}");
}

/// Old archives do not say which files have further names.
#[test]
fn a_part_of_an_archive_without_the_masters_of_its_hard_links() {
    let mut builder = Builder::default();
    for number in 0..1000 {
        let mut file = builder.file(format!("left/{number}"), &[format!("content {number}").as_bytes()]);
        file.hardlink_master = (number % 2 == 0).then_some(true);
        builder.add(&file);
    }
    for number in 0..1000 {
        builder.add(&hard_link(format!("right/{number}"), format!("left/{number}")));
        builder.add(&hard_link(format!("right/{number} again"), format!("left/{number}")));
    }
    let source = builder.source();
    let target = tempfile::tempdir().unwrap();
    let nothing: [&str; 0] = [];
    let mut selection = Selection::new(&["right"], &nothing, 1).unwrap();
    let options = archive::extract::Options::default();
    let mut complaints = Complaints::default();
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    let done = archive::extract::extract(&source, &mut selection, target.path(), options, &mut |_| {}, complain).unwrap();
    assert_eq!((done.items, complaints.0.len()), (2000, 0), "{complaints:#?}");
    for number in 0..1000 {
        let content = fs::read_to_string(target.path().join(format!("{number} again"))).unwrap();
        assert_eq!(content, format!("content {number}"));
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(target.path().join(format!("{number}"))).unwrap().nlink(), 2);
    }
}
