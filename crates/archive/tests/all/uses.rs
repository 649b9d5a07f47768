//! What an archive refers to, whole or not at all.

use crate::owner::{Builder, directory, hard_link, id_of, open};
use archive::uses::{self, Uses};
use archive::{Error, Source};
use borg::item::Item;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use wire::importing::{Counted, Use};

/// What it refers to, and what was counted.
type Collected = (Vec<Use>, Counted);

fn collect(source: &Source) -> archive::Result<Option<Collected>> {
    let scratch = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let uses = uses::collect(source, 1000, &scratch, &mut |_, _| true)?;
    Ok(uses.map(|Uses { file, uses, counted }| {
        let mut bytes = vec![];
        (&scratch[file]).seek(SeekFrom::Start(0)).unwrap();
        (&scratch[file]).read_to_end(&mut bytes).unwrap();
        let all: Vec<Use> = Use::decode_all(&bytes).unwrap().collect();
        assert_eq!(all.len() as u64, uses);
        (all, counted)
    }))
}

/// What is wrong with an archive.
type Wrong<'a> = &'a dyn Fn(&mut Builder);

#[test]
fn every_chunk_of_every_file_is_counted() {
    let mut builder = Builder::in_pieces(500);
    let (a, b) = (vec![b'a'; 5000], vec![b'b'; 6000]);
    for number in 0..100 {
        let file = builder.file(format!("file {number}"), &[&a, &a, &b]);
        builder.add(&file);
    }
    let part = Item { part: Some(1), ..builder.file("file 1.borg_part_1", &[b"only in a part"]) };
    let repaired = Item { chunks_healthy: Some(vec![builder.chunk(b"lost")]), ..builder.file("repaired", &[&b]) };
    builder.add(&directory("d")).add(&part).add(&repaired).add(&hard_link("h", "file 1"));
    let source = builder.source();
    let (all, counted) = collect(&source).unwrap().unwrap();
    assert_eq!((counted.files, counted.repaired), (101, 1));
    let count = |all: &[Use], plain: &[u8]| all.iter().find(|one| one.id == id_of(plain).0).map(|one| (one.size, one.count));
    assert_eq!(all.len(), 3);
    assert_eq!(count(&all, &a), Some((5000, 200)));
    assert_eq!(count(&all, &b), Some((6000, 101)));
    assert_eq!(count(&all, b"only in a part"), Some((14, 0)), "it needs it all the same");

    let scratch = [(); 2].map(|()| tempfile::tempfile().unwrap());
    assert!(uses::collect(&source, 1000, &scratch, &mut |_, _| false).unwrap().is_none());
    assert!(matches!(uses::collect(&source, 2, &scratch, &mut |_, _| true), Err(Error::TooLarge(_))));
}

#[test]
fn what_is_not_understood_is_refused() {
    let chunk = |builder: &mut Builder| builder.file("f", &[b"content"]);
    let refused: [(&str, Wrong<'_>); 8] = [
        ("garbage", &|builder| {
            builder.raw(b"\xc1");
        }),
        ("an unknown field", &|builder| {
            builder.raw(b"\x81\xa7unknown\x01");
        }),
        // A map with twice the same key, of which others may take the other value.
        ("a doubled field", &|builder| {
            builder.raw(b"\x83\xa4path\xa1a\xa4path\xa1b\xa5mtime\x00");
        }),
        ("no path", &|builder| {
            builder.raw(b"\x81\xa5mtime\x00");
        }),
        ("chunks that are none", &|builder| {
            builder.raw(b"\x83\xa4path\xa1a\xa5mtime\x00\xa6chunks\xc0");
        }),
        ("an odd end", &|builder| {
            builder.raw(&[0x8f, 0xa4]);
        }),
        ("another type", &|builder| {
            builder.raw(b"\xa4text");
        }),
        ("two sizes of one chunk", &|builder| {
            let mut item = chunk(builder);
            item.chunks.as_mut().unwrap()[0].size += 1;
            builder.add(&item);
        }),
    ];
    for (what, spoil) in refused {
        let mut builder = Builder::default();
        let file = chunk(&mut builder);
        builder.add(&file);
        spoil(&mut builder);
        let error = collect(&builder.source()).err();
        assert!(matches!(error, Some(Error::Incomplete(_))), "{what}: {error:?}");
    }
    // A hole.
    let mut builder = Builder::in_pieces(500);
    for number in 0..50 {
        let file = builder.file(format!("{number}"), &[b"content"]);
        builder.add(&file);
    }
    let objects = Arc::new(builder.finish());
    let source = open(&objects);
    assert!(collect(&source).unwrap().is_some());
    objects.payloads.lock().unwrap().remove(&source.metadata.items[2]);
    let error = collect(&source).unwrap_err();
    assert!(matches!(&error, Error::Incomplete(why) if why.contains("hole")), "{error:?}");
}
