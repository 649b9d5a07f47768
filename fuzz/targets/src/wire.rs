//! Frames and messages between our own processes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::session::{Put, REFS_BATCH, Reference, decode_ids, kind, read_json, split_id};
use wire::{WireError, frame};

/// A stream of frames: what was read is what was written, and a length costs no memory before its bytes are here.
pub fn frame(data: &[u8]) {
    let (mut input, mut buffer) = (data, Vec::new());
    loop {
        let before = input;
        match frame::read(&mut input, &mut buffer) {
            Ok(kind) => {
                assert_eq!(before.len() - input.len(), buffer.len() + 5, "not one byte more than the frame");
                let mut again = Vec::new();
                frame::write(&mut again, kind, &[&buffer]).expect("a vector takes everything");
                assert_eq!(again, before[..again.len()]);
                let mut parts = Vec::new();
                let (front, back) = buffer.split_at(buffer.len() / 3);
                frame::write(&mut parts, kind, &[front, &[], back]).expect("a vector takes everything");
                assert_eq!(parts, again);
                owner_message(&[&[kind], &buffer[..]].concat());
            }
            Err(WireError::Closed | WireError::TooLarge { .. } | WireError::Malformed(_)) => break,
            Err(WireError::Io(error)) => panic!("reading memory failed: {error}"),
        }
    }
    assert!(buffer.capacity() <= 2 * data.len() + 64, "memory follows what came: {} for {}", buffer.capacity(), data.len());
}

/// The payload of a frame: its type, then what that type carries.
pub fn owner_message(data: &[u8]) {
    let Some((kind, payload)) = data.split_first() else { return };
    match *kind {
        kind::OPEN => json::<wire::session::Open>(payload),
        kind::PUT => {
            if let Ok(put) = Put::decode(payload) {
                let mut again = Vec::new();
                put.write(&mut again).expect("a vector takes everything");
                assert_eq!(again[5..], *payload);
            } else {
                assert!(payload.len() < 36);
            }
        }
        kind::READ | kind::OBJECT | kind::NOT_IN_VIEW => match split_id(payload) {
            Ok((id, rest)) => assert_eq!([&id[..], rest].concat(), payload),
            Err(_) => assert!(payload.len() < 32),
        },
        kind::REFS => {
            if let Ok(references) = Reference::decode_all(payload) {
                let mut again = Vec::new();
                references.for_each(|reference| reference.encode(&mut again));
                assert_eq!(again, payload);
                assert!(payload.len() > REFS_BATCH * Reference::SIZE || payload.len().is_multiple_of(Reference::SIZE));
            }
        }
        kind::ITEMS => {
            if let Ok(ids) = decode_ids(payload) {
                assert_eq!(ids.concat(), payload);
            }
        }
        kind::PROPOSE => json::<wire::session::Proposal>(payload),
        kind::VIOLATION => json::<wire::session::Violation>(payload),
        kind::END => json::<wire::session::End>(payload),
        kind::PREPARE => json::<wire::session::Prepare>(payload),
        kind::FINISH => json::<wire::session::Finish>(payload),
        kind::MAINTAIN => json::<wire::maintenance::Maintain>(payload),
        kind::OPENED => json::<wire::session::Opened>(payload),
        kind::REFUSED | kind::FAILED => json::<model::Failure>(payload),
        kind::VERDICT => json::<wire::session::Verdict>(payload),
        kind::PREPARED => json::<wire::session::Prepared>(payload),
        kind::OUTCOME => json::<wire::session::Outcome>(payload),
        kind::PROGRESS => json::<wire::maintenance::Progress>(payload),
        kind::REPORT => json::<wire::maintenance::Report>(payload),
        kind::GRANTED => json::<wire::maintenance::Granted>(payload),
        // Between `borgcubed` and its workers; these have no frames, but the same content.
        0x10 => json::<wire::worker::ToWorker>(payload),
        0x11 => json::<wire::worker::FromWorker>(payload),
        0x12 => json::<wire::tool::Answer>(payload),
        _ => {}
    }
}

/// Written again it means the same.
fn json<T: DeserializeOwned + Serialize + PartialEq>(payload: &[u8]) {
    if let Ok(message) = read_json::<T>(payload) {
        let text = serde_json::to_vec(&message).expect("what was read can be written");
        let again = read_json::<T>(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)));
        assert!(again == message, "a message changes its meaning: {}", String::from_utf8_lossy(&text));
    }
}
