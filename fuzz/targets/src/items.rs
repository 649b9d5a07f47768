//! Item streams, as an archive's examination reads them back from the owner.

use crate::bytes::Bytes;
use crate::keys::key;
use borg::archive::{Archive, ChunkerParams};
use borg::compress::{Compression, compress};
use borg::item::{Item, ItemLimits, ItemParser};
use borg::msgpack::Writer;
use borg::{Id, Key, KeyType};
use model::progress::SessionCounters;
use proxy::intake;
use proxy::intake::object::Verifier;
use proxy::intake::stream::Examination;
use std::sync::LazyLock;
use wire::session::{Reference, kind};

static KEY: LazyLock<Key> = LazyLock::new(|| key(KeyType::Authenticated, 1));

/// The same verdict however the stream is cut; what is read is written with the same meaning; and what is accepted proposes
/// every reference of every item, in order.
pub fn items(data: &[u8]) {
    let whole = parsed(&[data], ItemLimits::STRICT);
    let cut = Bytes::new(data).pieces();
    assert_eq!(whole, parsed(&cut, ItemLimits::STRICT), "the verdict depends on where the stream was cut");
    let tolerant = parsed(&[data], ItemLimits::TOLERANT);
    assert!(whole.0.len() <= tolerant.0.len(), "strict reading accepts no more");
    for item in &tolerant.0 {
        let packed = Writer::packed(|writer| item.write(writer));
        let (again, error) = parsed(&[&packed], ItemLimits::TOLERANT);
        assert_eq!((again.as_slice(), error), (std::slice::from_ref(item), None), "written again it means something else");
    }
    let one = examined(&[data]);
    let many = examined(&cut);
    assert_eq!(one, many, "the examination depends on where the stream was cut");
    if let Ok(references) = one {
        let of_items: Vec<_> = whole.0.iter().flat_map(|item| item.chunks.iter().flatten()).collect();
        assert_eq!(whole.1, None, "a stream that does not parse is proposed");
        assert_eq!(references.len(), of_items.len(), "a reference is not proposed");
        for (reference, chunk) in references.iter().zip(of_items) {
            assert_eq!((reference.id, reference.size, reference.csize), (chunk.id.0, chunk.size, chunk.csize));
        }
        for item in &whole.0 {
            assert_sane(item);
        }
    }
}

/// How many references a stream proposes that is accepted.
#[must_use]
pub fn accepted(stream: &[u8]) -> Option<usize> {
    examined(&[stream]).ok().map(|references| references.len())
}

/// What an accepted item never has, whatever the rules are called.
pub fn assert_sane(item: &Item) {
    let path = &item.path;
    assert!(!path.is_empty() && !path.contains(&0) && !path.starts_with(b"/"), "{item:?}");
    assert!(path == b"." || path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")), "{item:?}");
    assert!(item.chunks_healthy.is_none(), "{item:?}");
    assert!(item.chunks.is_none() || item.size.is_none_or(|size| size == item.content_size()), "{item:?}");
    assert!(item.chunks.is_none() || item.mode.is_some_and(|mode| mode & 0o170_000 == 0o100_000), "{item:?}");
}

/// The items of a stream up to its first fault, and that fault.
fn parsed(pieces: &[&[u8]], limits: ItemLimits) -> (Vec<Item>, Option<String>) {
    let (mut parser, mut items) = (ItemParser::new(limits), Vec::new());
    for piece in pieces {
        parser.push(piece);
        loop {
            match parser.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Some(error.to_string())),
            }
        }
        assert_eq!(parser.count(), items.len() as u64);
    }
    let end = parser.finish().err().map(|error| error.to_string());
    (items, end)
}

/// What an archive with this stream proposes, or the rule or limit it breaks.
fn examined(pieces: &[&[u8]]) -> Result<Vec<Reference>, String> {
    let payloads: Vec<(Id, Vec<u8>)> = pieces.iter().map(|piece| (KEY.id_hash(piece), compress(Compression::None, piece))).collect();
    let archive = Archive {
        name: b"job-1".to_vec(),
        time: "2026-01-02T03:04:05.000006".into(),
        items: payloads.iter().map(|(id, _)| *id).collect(),
        chunker_params: Some(ChunkerParams { algorithm: None, numbers: vec![19, 23, 21, 4095] }),
        ..Archive::default()
    };
    let name = |stop: proxy::stop::Stop| match stop {
        proxy::stop::Stop::Violation(violation) => violation.rule,
        proxy::stop::Stop::Failed(failure) => failure.cause.word().to_owned(),
        proxy::stop::Stop::Unknown => "unknown".to_owned(),
    };
    let accepted = intake::archive::accept(&archive.pack(&KEY, [4; 64]), b"job-1").map_err(name)?;
    // As much was put as to allow for repeated pieces: how often those may come depends on the cut, and is not the point here.
    let mut examination = Examination::new(false, accepted, [7; 16], 1 << 40).map_err(|stop| format!("repeats {}", name(stop)))?;
    let mut verifier = Verifier::new(KEY.clone()).ok_or("an encrypting key")?;
    let mut references = Vec::new();
    let mut collect = |frames: &[(u8, Vec<u8>)]| {
        for (_, payload) in frames.iter().filter(|(kind, _)| *kind == kind::REFS) {
            references.extend(Reference::decode_all(payload).expect("references"));
        }
    };
    let mut next = 0;
    while !examination.is_complete() {
        collect(&examination.frames());
        let Some((id, payload)) = payloads.get(next) else { break };
        next += 1;
        match examination.object(id.0, payload, true, &mut verifier) {
            Some(result) => result.map_err(name)?,
            None => panic!("the oldest read is not the next chunk"),
        }
    }
    let mut counters = SessionCounters::default();
    collect(&examination.finish(&mut counters).map_err(name)?);
    Ok(references)
}
