use borg::Id;
use borg::item::{ChunkRef, Item, ItemError, ItemLimits, ItemParser};
use borg::msgpack::{Error, Writer};
use proptest::prelude::*;

fn stream(items: &[Item]) -> Vec<u8> {
    Writer::packed(|writer| items.iter().for_each(|item| item.write(writer)))
}

fn parse_all(stream: &[u8], pieces: &[usize], limits: ItemLimits) -> Result<Vec<Item>, ItemError> {
    let mut parser = ItemParser::new(limits);
    let mut items = Vec::new();
    let mut rest = stream;
    for size in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        parser.push(piece);
        while let Some(item) = parser.next_item()? {
            items.push(item);
        }
    }
    parser.finish()?;
    assert_eq!(parser.count(), items.len() as u64);
    Ok(items)
}

fn strict(stream: &[u8]) -> Result<Vec<Item>, ItemError> {
    parse_all(stream, &[1 << 16], ItemLimits::STRICT)
}

fn file(chunks: usize) -> Item {
    let chunk = |n: usize| ChunkRef { id: Id([n as u8; 32]), size: n as u32, csize: u32::MAX };
    Item {
        path: b"home/user/file".to_vec(),
        mode: Some(0o100_644),
        mtime: 1_700_000_000_000_000_000,
        chunks: Some((0..chunks).map(chunk).collect()),
        ..Item::default()
    }
}

/// A map of fields as given, each value packed.
fn map(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    Writer::packed(|writer| {
        writer.map(fields.len());
        for (name, value) in fields {
            writer.raw(name.as_bytes());
            writer.bytes_of_raw(value);
        }
    })
}

fn raw(bytes: &[u8]) -> Vec<u8> {
    Writer::packed(|writer| writer.raw(bytes))
}

fn int(number: i64) -> Vec<u8> {
    Writer::packed(|writer| writer.int(number))
}

/// A minimal item and one more field.
fn with(name: &'static str, value: Vec<u8>) -> Vec<u8> {
    map(&[("path", raw(b"a")), ("mode", int(0o100_600)), ("mtime", int(1)), (name, value)])
}

#[test]
fn a_real_item_of_borg() {
    // Written by hand from the documented form: what `borg create` stores for a file.
    let mut packed = vec![0x8a];
    for part in [
        &b"\xa6chunks\x91\x93\xda\x00\x20"[..],
        &[7; 32],
        b"\xcd\x03\xe8\x2b\xa5ctime\xcf\x17\x9f\x3c\x3a\x5a\x1c\x00\x00\xa3gid\x00\xa5group\xa4root",
        b"\xafhardlink_master\xc2\xa4mode\xcd\x81\xa4\xa5mtime\xcf\x17\x9f\x3c\x3a\x5a\x1c\x00\x00",
        b"\xa4path\xaeetc/caf\xe9.conf\x2e\xa4size\xcd\x03\xe8\xa3uid\xd1\xff\x00",
    ] {
        packed.extend_from_slice(part);
    }
    let items = strict(&packed).expect("as Borg writes it");
    let item = &items[0];
    assert_eq!(item.path, b"etc/caf\xe9.conf.");
    assert_eq!(item.chunks, Some(vec![ChunkRef { id: Id([7; 32]), size: 1000, csize: 43 }]));
    assert_eq!((item.mode, item.gid, item.uid, item.size), (Some(0o100_644), Some(0), Some(-256), Some(1000)));
    assert_eq!(item.group, Some(Some(b"root".to_vec())));
    assert_eq!(item.hardlink_master, Some(false));
    assert_eq!(item.content_size(), 1000);
    assert_eq!(stream(&items), packed, "the same bytes again");
}

#[test]
fn names_may_be_nil_and_attributes_empty() {
    let mut item = file(0);
    item.user = Some(None);
    item.group = Some(None);
    item.xattrs = Some(vec![(b"user.a".to_vec(), None), (b"user.b".to_vec(), Some(b"v".to_vec()))]);
    assert_eq!(strict(&stream(std::slice::from_ref(&item))), Ok(vec![item]));
}

#[test]
fn times_beyond_63_bits_are_little_endian_bytes() {
    for time in [i128::from(i64::MAX) + 1, i128::from(i64::MIN) - 1, i128::MAX, i128::MIN, -1, 0] {
        let item = Item { mtime: time, atime: Some(time), ..file(0) };
        assert_eq!(strict(&stream(std::slice::from_ref(&item))), Ok(vec![item]));
    }
    // Borg writes as few bytes as hold the number and its sign.
    let short = with("atime", raw(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0]));
    assert_eq!(strict(&short).expect("accepted")[0].atime, Some(1 << 63));
    let negative = with("atime", raw(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff]));
    assert_eq!(strict(&negative).expect("accepted")[0].atime, Some(-(1 << 63) - 1));
    assert!(strict(&with("atime", raw(&[0; 17]))).is_err());
}

#[test]
fn unknown_fields_are_refused() {
    let error = strict(&with("evil", int(1))).expect_err("unknown");
    assert_eq!(error, ItemError::Unknown { number: 0, field: "evil".to_owned() });
    // A repair's leftover is accepted from repositories, not from clients.
    let healthy = with("chunks_healthy", vec![0x90]);
    assert!(matches!(strict(&healthy), Err(ItemError::Unknown { .. })));
    assert!(parse_all(&healthy, &[9], ItemLimits::TOLERANT).is_ok());
}

#[test]
fn fields_that_are_there_twice_are_refused() {
    let error = strict(&with("path", raw(b"b"))).expect_err("twice");
    assert_eq!(error, ItemError::Duplicate { number: 0, field: "path".to_owned() });
}

#[test]
fn required_fields() {
    let all = [("path", raw(b"a")), ("mode", int(1)), ("mtime", int(1))];
    for missing in 0..3 {
        let fields: Vec<_> = all.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, f)| f.clone()).collect();
        let error = strict(&map(&fields)).expect_err("incomplete");
        assert_eq!(error, ItemError::Missing { number: 0, field: all[missing].0 });
        assert_eq!(parse_all(&map(&fields), &[9], ItemLimits::TOLERANT).is_ok(), all[missing].0 == "mode");
    }
}

#[test]
fn wrong_types_are_refused_by_name() {
    let wrong: &[(&'static str, Vec<u8>)] = &[
        ("uid", raw(b"0")),
        ("gid", vec![0xc0]),
        ("user", int(0)),
        ("group", vec![0x90]),
        ("ctime", vec![0xc0]),
        ("birthtime", vec![0xcb, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("size", int(-1)),
        ("chunks", vec![0xc0]),
        ("chunks", vec![0x91, 0x92]),
        ("chunks", [&[0x91, 0x93][..], &raw(&[1; 31]), &int(1), &int(1)].concat()),
        ("chunks", [&[0x91, 0x93][..], &raw(&[1; 32]), &int(-1), &int(1)].concat()),
        ("chunks", [&[0x91, 0x93][..], &raw(&[1; 32]), &int(1), &int(1 << 32)].concat()),
        ("chunks", [&[0x91, 0x94][..], &raw(&[1; 32]), &int(1), &int(1), &int(1)].concat()),
        ("hardlink_master", int(1)),
        ("source", int(1)),
        ("rdev", int(-1)),
        ("bsdflags", raw(b"")),
        ("xattrs", vec![0x90]),
        ("xattrs", [&[0x81][..], &int(1), &raw(b"")].concat()),
        ("xattrs", [&[0x81][..], &raw(b"a"), &int(1)].concat()),
        ("acl_access", vec![0xc0]),
        ("acl_default", int(1)),
        ("acl_extended", int(1)),
        ("acl_nfs4", int(1)),
        ("part", int(-1)),
    ];
    for (name, value) in wrong {
        // A list announced longer than the bytes that follow shows as a stream that ends too early.
        match strict(&with(name, value.clone())) {
            Err(ItemError::Field { field, .. }) => assert_eq!(&field, name),
            Err(ItemError::Cut { .. }) => assert_eq!(*value, [0x91, 0x92]),
            other => panic!("{name} {value:?}: {other:?}"),
        }
    }
}

#[test]
fn things_that_are_no_items_are_refused() {
    for bytes in [&[0x90][..], &[0xc0], &[1], b"\xa4item"] {
        assert!(matches!(strict(bytes), Err(ItemError::Stream(Error::Type { .. }))), "{bytes:?}");
    }
    assert!(matches!(strict(&[0x80]), Err(ItemError::Missing { .. })));
    assert!(strict(&[]).expect("an empty archive").is_empty());
    // New-style strings, which clients never write.
    let new_style = [&[0x81, 0xd9, 4][..], b"path", &raw(b"a")].concat();
    assert_eq!(strict(&new_style), Err(ItemError::Stream(Error::Marker(0xd9))));
}

#[test]
fn a_stream_that_ends_inside_an_item_is_noticed() {
    let whole = stream(&[file(3), file(2)]);
    for cut in 1..whole.len() {
        let result = strict(&whole[..cut]);
        if cut == stream(&[file(3)]).len() {
            assert!(result.is_ok());
        } else {
            assert!(matches!(result, Err(ItemError::Cut { .. })), "cut at {cut}");
        }
    }
}

#[test]
fn limits_hold() {
    let limits = ItemLimits { item: 10_000, chunks: 100, path: 50, xattrs: 10, ..ItemLimits::STRICT };
    let parse = |item: &Item| parse_all(&stream(std::slice::from_ref(item)), &[1000], limits);
    assert!(parse(&file(100)).is_ok());
    assert!(matches!(parse(&file(101)), Err(ItemError::Stream(Error::TooLarge(_)))));
    assert!(parse(&Item { path: vec![b'a'; 50], ..file(0) }).is_ok());
    assert!(matches!(parse(&Item { path: vec![b'a'; 51], ..file(0) }), Err(ItemError::TooLarge { .. })));
    assert!(matches!(parse(&Item { source: Some(vec![b'a'; 51]), ..file(0) }), Err(ItemError::TooLarge { .. })));
    let xattrs = |count: u8| Some((0..count).map(|n| (vec![n], None)).collect());
    assert!(parse(&Item { xattrs: xattrs(10), ..file(0) }).is_ok());
    assert!(matches!(parse(&Item { xattrs: xattrs(11), ..file(0) }), Err(ItemError::TooLarge { .. })));
    let large = Item { acl_access: Some(vec![b'x'; 10_000]), ..file(0) };
    assert!(matches!(parse(&large), Err(ItemError::Stream(Error::TooLarge(_)))));
}

#[test]
fn an_item_as_large_as_the_limit_arriving_in_tiny_pieces_takes_no_time() {
    // 300 000 chunks, some 12 MB, 30 bytes at a time: looking at everything again with each piece would take hours.
    let item = file(300_000);
    let items = parse_all(&stream(std::slice::from_ref(&item)), &[30], ItemLimits::STRICT).expect("within the limits");
    assert_eq!(items, [item]);
}

prop_compose! {
    fn items()(
        path in proptest::collection::vec(any::<u8>(), 1..60),
        mode in proptest::option::of(any::<u32>()),
        ids in proptest::option::of((any::<i64>(), any::<i64>())),
        user in proptest::option::of(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..10))),
        times in (any::<i128>(), proptest::option::of(any::<i64>())),
        chunks in proptest::option::of(proptest::collection::vec((any::<[u8; 32]>(), any::<u32>(), any::<u32>()), 0..20)),
        master in proptest::option::of(any::<bool>()),
        source in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        numbers in (proptest::option::of(any::<u64>()), proptest::option::of(any::<u64>())),
        xattrs in proptest::option::of(proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..9), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))),
            0..4,
        )),
    ) -> Item {
        Item {
            path,
            mode,
            uid: ids.map(|ids| ids.0),
            gid: ids.map(|ids| ids.1),
            user: user.clone(),
            group: user,
            mtime: times.0,
            atime: times.1.map(i128::from),
            size: numbers.0,
            rdev: numbers.1,
            part: numbers.0,
            chunks: chunks.clone().map(|chunks| {
                chunks.into_iter().map(|(id, size, csize)| ChunkRef { id: Id(id), size, csize }).collect()
            }),
            hardlink_master: master,
            acl_nfs4: source.clone(),
            source,
            xattrs,
            ..Item::default()
        }
    }
}

proptest! {
    #[test]
    fn items_go_both_ways_however_they_are_cut(
        items in proptest::collection::vec(items(), 0..6),
        pieces in proptest::collection::vec(1usize..200, 1..10),
    ) {
        let bytes = stream(&items);
        prop_assert_eq!(parse_all(&bytes, &pieces, ItemLimits::TOLERANT), Ok(items));
    }

    #[test]
    fn damaged_streams_are_survived(
        items in proptest::collection::vec(items(), 1..4),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = stream(&items);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = parse_all(&bytes, &[17], ItemLimits::STRICT).is_ok();
        let _ = parse_all(&bytes, &[1000], ItemLimits::TOLERANT).is_ok();
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_all(&bytes, &[7], ItemLimits::STRICT).is_ok();
    }
}
