//! Values of the msgpack dialect.

use crate::bytes::Bytes;
use borg::msgpack::{Frames, Limits, Reader, Scanner, Value, Writer};

/// Three ways to walk over the same bytes agree, and what was read is written with the same meaning.
pub fn values(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let limits = match bytes.below(4) {
        0 => Limits::LOOSE,
        1 => Limits { old_spec_only: true, ..Limits::LOOSE },
        2 => Limits { depth: 3, elements: 20, raw: 200, values: 100, old_spec_only: false },
        _ => Limits::default(),
    };
    let input = bytes.rest();
    let mut reader = Reader::with_limits(input, limits);
    let read = reader.read_value();
    let mut skipper = Reader::with_limits(input, limits);
    let skipped = skipper.skip_value();
    let scanned = Scanner::new(limits).scan(input);
    match &read {
        Ok(value) => {
            assert_eq!(skipped.as_deref(), Ok(&input[..reader.position()]), "skipping and reading end at the same place");
            assert_eq!(scanned, Ok(Some(reader.position())), "the scanner finds the end");
            round_trip(value);
        }
        Err(error) => {
            assert!(skipped.is_err(), "{error:?} for a value that can be skipped: {skipped:?}");
            assert!(!matches!(scanned, Ok(Some(_))), "{error:?} for a value whose end is found");
        }
    }
    assert_eq!(Reader::with_limits(input, limits).read_value().is_ok(), read.is_ok());
    streams(input, limits);
}

fn round_trip(value: &Value<'_>) {
    let packed = Writer::packed(|writer| value.write(writer));
    let strict = Limits { old_spec_only: true, ..Limits::LOOSE };
    let mut reader = Reader::with_limits(&packed, strict);
    let again = reader.read_value();
    let again = again.unwrap_or_else(|error| panic!("what was written is not read: {error} in {packed:02x?}"));
    assert!(reader.finish().is_ok());
    // Floats by their bits: one that is no number is not equal to itself.
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
    assert_eq!(format!("{:?}", value.to_owned().as_value()), format!("{value:?}"));
    assert_eq!(Writer::packed(|writer| again.write(writer)), packed, "the same value, the same bytes");
}

/// A stream gives the same messages and the same end, however it is cut.
fn streams(input: &[u8], limits: Limits) {
    let largest = 300;
    let messages = |pieces: &[&[u8]]| {
        let (mut frames, mut found, mut here) = (Frames::new(largest, limits), Vec::new(), 0);
        for piece in pieces {
            frames.push(piece);
            here += piece.len();
            loop {
                match frames.next_frame() {
                    Ok(Some(message)) => {
                        assert!(!message.is_empty() && message.len() <= largest);
                        here -= message.len();
                        found.push(message.to_vec());
                    }
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
            assert_eq!(frames.buffered(), here, "nothing is lost");
            assert!(here <= largest, "no more is kept than one message may have");
        }
        (found, None)
    };
    let whole = messages(&[input]);
    let pieces = messages(&Bytes::new(input).pieces());
    assert_eq!(whole.0, pieces.0, "the same messages");
    // Which of two faults is noticed first may depend on how much is here.
    assert_eq!(whole.1.is_some(), pieces.1.is_some(), "{:?} or {:?}", whole.1, pieces.1);
    assert_eq!(whole.0.concat(), input[..whole.0.iter().map(Vec::len).sum()], "messages are the stream");
}
