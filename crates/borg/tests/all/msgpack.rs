use borg::msgpack::{Error, Frames, Limits, OwnedValue, Reader, Scanner, Value, Writer};
use proptest::prelude::*;

fn packed(value: &Value<'_>) -> Vec<u8> {
    Writer::packed(|writer| value.write(writer))
}

fn values() -> impl Strategy<Value = OwnedValue> {
    let leaf = prop_oneof![
        Just(OwnedValue::Nil),
        any::<bool>().prop_map(OwnedValue::Bool),
        any::<i64>().prop_map(OwnedValue::Int),
        (-40000i64..70000).prop_map(OwnedValue::Int),
        (i64::MAX as u64 + 1..).prop_map(OwnedValue::UInt),
        any::<f32>().prop_filter("comparable", |f| !f.is_nan()).prop_map(|f| OwnedValue::Float(f64::from(f))),
        proptest::collection::vec(any::<u8>(), 0..80).prop_map(OwnedValue::Raw),
    ];
    leaf.prop_recursive(5, 60, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(OwnedValue::Array),
            proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(OwnedValue::Map),
        ]
    })
}

#[test]
fn the_writer_writes_what_borg_writes() {
    let raw = |length: usize| Writer::packed(|writer| writer.raw(&vec![7; length]));
    for (length, head) in [
        (0, &[0xa0][..]),
        (31, &[0xbf]),
        (32, &[0xda, 0, 32]),
        (255, &[0xda, 0, 255]),
        (256, &[0xda, 1, 0]),
        (65_535, &[0xda, 255, 255]),
        (65_536, &[0xdb, 0, 1, 0, 0]),
    ] {
        assert_eq!(raw(length), [head, vec![7; length].as_slice()].concat(), "{length} bytes");
    }
    for (number, bytes) in [
        (0, &[0][..]),
        (127, &[127]),
        (128, &[0xcc, 128]),
        (255, &[0xcc, 255]),
        (256, &[0xcd, 1, 0]),
        (65_535, &[0xcd, 255, 255]),
        (65_536, &[0xce, 0, 1, 0, 0]),
        (u32::MAX.into(), &[0xce, 255, 255, 255, 255]),
        (1 << 32, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        (-1, &[0xff]),
        (-32, &[0xe0]),
        (-33, &[0xd0, 0xdf]),
        (-128, &[0xd0, 0x80]),
        (-129, &[0xd1, 0xff, 0x7f]),
        (-32_768, &[0xd1, 0x80, 0]),
        (-32_769, &[0xd2, 0xff, 0xff, 0x7f, 0xff]),
        (i32::MIN.into(), &[0xd2, 0x80, 0, 0, 0]),
        (i64::from(i32::MIN) - 1, &[0xd3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]),
    ] {
        assert_eq!(Writer::packed(|writer| writer.int(number)), bytes, "{number}");
    }
    assert_eq!(Writer::packed(|writer| writer.array(15)), [0x9f]);
    assert_eq!(Writer::packed(|writer| writer.array(16)), [0xdc, 0, 16]);
    assert_eq!(Writer::packed(|writer| writer.array(65_536)), [0xdd, 0, 1, 0, 0]);
    assert_eq!(Writer::packed(|writer| writer.map(15)), [0x8f]);
    assert_eq!(Writer::packed(|writer| writer.map(18)), [0xde, 0, 18]);
    assert_eq!(Writer::packed(|writer| writer.map(65_536)), [0xdf, 0, 1, 0, 0]);
}

#[test]
fn new_style_strings_are_read_unless_forbidden() {
    for bytes in [&[0xd9, 2, b'h', b'i'][..], &[0xc4, 2, b'h', b'i'], &[0xc5, 0, 2, b'h', b'i'], &[0xc6, 0, 0, 0, 2, b'h', b'i']] {
        assert_eq!(Value::parse(bytes), Ok(Value::Raw(b"hi")));
        let strict = Limits { old_spec_only: true, ..Limits::default() };
        assert_eq!(Value::parse_with(bytes, strict), Err(Error::Marker(bytes[0])));
    }
}

#[test]
fn extension_types_are_refused() {
    for marker in [0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8] {
        assert_eq!(Value::parse(&[marker, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Error::Marker(marker)));
    }
}

#[test]
fn depth_is_bounded_for_values_skipping_and_scanning() {
    let limits = Limits { depth: 32, ..Limits::default() };
    let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    assert!(Value::parse_with(&nested(32), limits).is_ok());
    assert_eq!(Value::parse_with(&nested(33), limits), Err(Error::Depth));
    assert!(Reader::with_limits(&nested(32), limits).skip_value().is_ok());
    assert_eq!(Reader::with_limits(&nested(33), limits).skip_value(), Err(Error::Depth));
    assert_eq!(Scanner::new(limits).scan(&nested(32)), Ok(Some(33)));
    assert_eq!(Scanner::new(limits).scan(&nested(33)), Err(Error::Depth));
    // A million levels must not even be tried.
    assert_eq!(Value::parse_with(&nested(1_000_000), limits), Err(Error::Depth));
    assert_eq!(Scanner::new(limits).scan(&nested(1_000_000)), Err(Error::Depth));
}

#[test]
fn announced_lengths_take_no_memory() {
    for marker in [0xdb, 0xdd, 0xdf, 0xc6] {
        let lie = [marker, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert!(Value::parse_with(&lie, Limits::LOOSE).is_err());
        assert!(Value::parse(&lie).is_err());
        assert!(Reader::with_limits(&lie, Limits::LOOSE).skip_value().is_err());
    }
    // Many containers that each announce as much as is left.
    let lie = [0xdd, 0, 0x0f, 0xff, 0xff].repeat(400_000);
    assert!(Value::parse_with(&lie, Limits { values: 1000, ..Limits::LOOSE }).is_err());
}

#[test]
fn the_number_of_values_is_bounded() {
    let limits = Limits { values: 100, ..Limits::default() };
    let list = |length: usize| {
        Writer::packed(|writer| {
            writer.array(length);
            (0..length).for_each(|_| writer.nil());
        })
    };
    assert!(Value::parse_with(&list(99), limits).is_ok());
    assert_eq!(Value::parse_with(&list(100), limits), Err(Error::TooLarge("message")));
    assert_eq!(Scanner::new(limits).scan(&list(99)), Ok(Some(102)));
    assert_eq!(Scanner::new(limits).scan(&list(100)), Err(Error::TooLarge("message")));
}

#[test]
fn incomplete_is_told_from_malformed() {
    assert_eq!(Value::parse(&[]), Err(Error::Incomplete { needed: 1 }));
    assert_eq!(Value::parse(&[0xcd, 1]), Err(Error::Incomplete { needed: 1 }));
    assert_eq!(Value::parse(&[0xda, 0, 5, 1]), Err(Error::Incomplete { needed: 4 }));
    assert_eq!(Value::parse(&[0xc0, 0xc0]), Err(Error::Trailing(1)));
}

#[test]
fn typed_reading_refuses_other_types_and_ranges() {
    assert_eq!(Reader::new(&[0xff]).read_uint(), Err(Error::Range));
    assert_eq!(Reader::new(&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]).read_int(), Err(Error::Range));
    assert_eq!(Reader::new(&[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]).read_u32(), Err(Error::Range));
    assert_eq!(Reader::new(&[0xa1, 1]).read_int(), Err(Error::Type { expected: "an integer", found: "a byte string" }));
    assert!(Reader::new(&[0xa1, 1]).read_id().is_err());
    assert!(Reader::new(&[0x01]).read_bool().is_err());
    assert!(Reader::new(&[0x01]).read_nil().is_err());
    assert!(Reader::new(&[0x80]).read_array_len().is_err());
    assert!(Reader::new(&[0x90]).read_map_len().is_err());
}

#[test]
fn a_frame_above_the_limit_is_refused_as_soon_as_it_is_announced() {
    let mut frames = Frames::new(1000, Limits::default());
    frames.push(&[0xdb, 0, 0, 4, 0]);
    assert_eq!(frames.next_frame(), Err(Error::TooLarge("message")));
}

proptest! {
    #[test]
    fn values_go_both_ways(value in values()) {
        let bytes = packed(&value.as_value());
        let parsed = Value::parse(&bytes).expect("our own bytes");
        prop_assert_eq!(parsed.to_owned(), value);
        let strict = Limits { old_spec_only: true, ..Limits::default() };
        prop_assert!(Value::parse_with(&bytes, strict).is_ok());
        prop_assert_eq!(Reader::new(&bytes).skip_value().expect("our own bytes"), bytes.as_slice());
        for cut in 0..bytes.len() {
            let incomplete = matches!(Value::parse(&bytes[..cut]), Err(Error::Incomplete { needed: 1.. }));
            prop_assert!(incomplete, "cut at {}", cut);
        }
    }

    #[test]
    fn anything_is_survived_and_all_readers_agree(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = Reader::new(&bytes);
        let value = reader.read_value();
        let mut skipper = Reader::new(&bytes);
        let skipped = skipper.skip_value();
        let scanned = Scanner::new(Limits::default()).scan(&bytes);
        match value {
            Ok(_) => {
                prop_assert_eq!(skipped.expect("skips what it reads").len(), reader.position());
                prop_assert_eq!(scanned, Ok(Some(reader.position())));
            }
            Err(_) => {
                prop_assert!(skipped.is_err());
                prop_assert!(!matches!(scanned, Ok(Some(_))));
            }
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in(
        values in proptest::collection::vec(values(), 1..6),
        pieces in proptest::collection::vec(1usize..50, 1..20),
    ) {
        let sent: Vec<Vec<u8>> = values.iter().map(|value| packed(&value.as_value())).collect();
        let stream = sent.concat();
        let mut frames = Frames::new(1 << 20, Limits::default());
        let mut received = Vec::new();
        let mut rest = stream.as_slice();
        for size in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            rest = after;
            frames.push(piece);
            while let Some(frame) = frames.next_frame().expect("well-formed") {
                received.push(frame.to_vec());
            }
        }
        prop_assert_eq!(received, sent);
        prop_assert_eq!(frames.buffered(), 0);
    }
}
