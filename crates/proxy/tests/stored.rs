//! What a session has stored: never what a stranger's compressor wrote, unless every decoder must read it alike.

mod common;

use borg::KeyType;
use borg::compress::{Compression, compress, decompress};
use borg::rpc::Method;
use common::puppet::Puppet;
use proptest::prelude::*;
use proxy::intake::object::Verifier;

/// A payload with a malformed zstd frame of 659 bytes, from which libzstd 1.5.7 and 1.5.4 read different plaintexts.
const DIVERGING: &str = include_str!("fixtures/diverging-zstd.hex");

const OBFUSCATED: [u8; 2] = [4, 0];

fn from_hex(text: &str) -> Vec<u8> {
    let nibbles: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|n| n as u8).collect();
    nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// What is stored when this payload is put, and its plaintext.
fn stored(obfuscate: bool, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let plain = decompress(payload, borg::MAX_PLAINTEXT).expect("accepted").into_owned();
    let mut puppet = Puppet::new();
    puppet.owner.opened.obfuscate = obfuscate;
    puppet.do_open();
    let (id, envelope) = (puppet.key.id_hash(&plain), puppet.key.seal(payload, 0));
    puppet.ok(Method::Put { id, data: &envelope });
    let (size, payload) = puppet.owner.put[&id.0].clone();
    assert_eq!(size as usize, plain.len());
    (payload, plain)
}

fn obfuscated(inner: &[u8], padding: usize, with: u8) -> Vec<u8> {
    [&OBFUSCATED[..], &(inner.len() as u32).to_be_bytes(), inner, &vec![with; padding]].concat()
}

fn text() -> Vec<u8> {
    (0..2000).flat_map(|n: u32| format!("line {n}\n").into_bytes()).collect()
}

#[test]
fn a_frame_that_other_versions_read_differently_is_not_stored() {
    let (payload, plain) = stored(false, &from_hex(DIVERGING));
    assert_eq!(plain.len(), 5000);
    assert_eq!(payload, compress(Compression::Zstd(3), &plain));
}

#[test]
fn stored_and_lz4_pass_as_they_are() {
    for compression in [Compression::None, Compression::Lz4] {
        let sent = compress(compression, &text());
        assert_eq!(stored(false, &sent).0, sent);
        assert_eq!(stored(true, &sent).0, sent);
    }
}

#[test]
fn obfuscation_that_the_config_does_not_ask_for_is_taken_off() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(9), Compression::Lzma(0)] {
        let (payload, plain) = stored(false, &obfuscated(&compress(compression, &text()), 1 << 20, 0));
        let kept = matches!(compression, Compression::None | Compression::Lz4);
        assert_eq!(payload, compress(if kept { compression } else { Compression::Zstd(3) }, &plain), "{compression:?}");
    }
}

#[test]
fn obfuscation_that_the_config_asks_for_is_our_own() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zlib(1)] {
        // The padding is the client's to fill, so it is filled with zeros here.
        let sent = obfuscated(&compress(compression, &text()), 1 << 16, b'!');
        let (payload, plain) = stored(true, &sent);
        let kept = matches!(compression, Compression::None | Compression::Lz4);
        let inner = compress(if kept { compression } else { Compression::Zstd(3) }, &plain);
        assert_eq!(payload, obfuscated(&inner, sent.len() - 6 - inner.len(), 0), "{compression:?}");
        assert_eq!(payload.len(), sent.len());
    }
    // Nothing to hide behind: no padding, but whole.
    let small = compress(Compression::Lzma(9), &text());
    let (payload, plain) = stored(true, &obfuscated(&small, 0, 0));
    assert_eq!(payload, obfuscated(&compress(Compression::Zstd(3), &plain), 0, 0));
}

#[test]
fn archive_metadata_still_stays_here() {
    let mut puppet = Puppet::open();
    let packed = puppet.archive("a", vec![]).pack(&puppet.key, [4; 64]);
    let (id, envelope) = (puppet.key.id_hash(&packed), puppet.key.seal(&compress(Compression::Zstd(3), &packed), 0));
    puppet.ok(Method::Put { id, data: &envelope });
    assert!(puppet.owner.put.is_empty());
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![
        (1..=19i32).prop_map(Compression::Zstd),
        (0..=9u32).prop_map(Compression::Zlib),
        (0..=3u32).prop_map(Compression::Lzma),
        Just(Compression::Lz4),
        Just(Compression::None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was damaged: what is accepted at all is stored in a form of ours, or in one that leaves no choice. One
    /// verifier takes them all, so that a context that is kept must not show in the result either.
    #[test]
    fn accepted_payloads_are_encoded_anew(
        objects in prop::collection::vec((
            compression(),
            prop::collection::vec(prop_oneof![4 => Just(b'a'), 2 => Just(b'b'), 1 => any::<u8>()], 0..3000),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            prop::option::of(0..100usize),
        ), 1..6),
        obfuscate: bool,
    ) {
        let key = common::key(KeyType::Authenticated, 1);
        let mut verifier = Verifier::new(key.clone()).unwrap().obfuscating(obfuscate);
        for (compression, plain, damage, padding) in objects {
            let mut inner = compress(compression, &plain);
            for (at, value) in damage {
                let at = at.index(inner.len());
                inner[at] = value;
            }
            let sent = padding.map_or(inner.clone(), |padding| obfuscated(&inner, padding, 0));
            let Ok(plain) = decompress(&sent, borg::MAX_PLAINTEXT) else { continue };
            let plain = plain.into_owned();
            let examined = verifier.examine(&key.id_hash(&plain), &sent).unwrap();
            let ours = if matches!(inner[..2], [0 | 1, 0]) { inner } else { compress(Compression::Zstd(3), &plain) };
            let expected = match padding {
                Some(_) if obfuscate => obfuscated(&ours, sent.len().saturating_sub(6 + ours.len()), 0),
                _ => ours,
            };
            prop_assert_eq!(&examined.payload[..], expected);
            prop_assert_eq!(decompress(&examined.payload, borg::MAX_PLAINTEXT).unwrap(), plain);
        }
    }
}
