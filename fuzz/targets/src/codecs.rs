//! Compressed payloads: each decoder within its bound, and the examination of an object that decides what is stored.

use borg::Key;
use borg::KeyType;
use borg::compress::{Codec, Compression, Decompressor, compress as pack, decompress, decompress_into, detect, unwrap_obfuscated};
use proxy::intake::object::{MAX_PAYLOAD, Verifier};
use std::io::Read;
use std::sync::LazyLock;

/// What one input may decompress to here. Bombs are told apart as well at 1 MiB as at 20.
const LIMIT: usize = 1 << 20;

static KEYS: LazyLock<[Key; 3]> =
    LazyLock::new(|| [KeyType::None, KeyType::Authenticated, KeyType::AuthenticatedBlake2].map(|kind| crate::keys::key(kind, 1)));

/// Any payload, with the header that it has.
pub fn object(data: &[u8]) {
    examine(data);
}

/// An LZ4 block.
pub fn lz4(data: &[u8]) {
    let payload = [&[1, 0], data].concat();
    if let Some(plain) = examine(&payload) {
        assert_eq!(stock_lz4(data, plain.len()).as_deref(), Some(&plain[..]), "the reference decoder reads something else");
    }
}

/// A zstd frame.
pub fn zstd(data: &[u8]) {
    examine(&[&[3, 0], data].concat());
}

/// A zlib stream, which is its own header: that of level 6 where the input has none.
pub fn zlib(data: &[u8]) {
    match detect(data) {
        Ok((Codec::Zlib, _)) => examine(data),
        _ => examine(&[&[0x78, 0x9c], data].concat()),
    };
}

/// An xz container.
pub fn lzma(data: &[u8]) {
    examine(&[&[2, 0], data].concat());
}

/// A payload in obfuscation; the first byte says whether the inner length is right.
pub fn obfuscate(data: &[u8]) {
    let Some((first, inner)) = data.split_first() else { return };
    let padded = borg::compress::obfuscate(inner, inner.len() + 6 + usize::from(*first) / 2);
    assert_eq!(padded.len(), inner.len() + 6 + usize::from(*first) / 2);
    match unwrap_obfuscated(&padded) {
        Ok((found, true)) => assert_eq!(found, inner),
        Ok((_, false)) => panic!("obfuscation is not seen"),
        Err(_) => assert!(!matches!(detect(inner), Ok((codec, _)) if codec != Codec::Obfuscate), "a good payload is lost"),
    }
    assert_eq!(examine(&padded), examine(inner), "the padding changes the meaning");
    if first % 2 == 0 {
        examine(&[&[4, 0], inner].concat());
    }
}

/// Decompresses in all ways there are, and examines the payload as an object that is put. The plaintext, if it has one.
fn examine(payload: &[u8]) -> Option<Vec<u8>> {
    let result = decompress(payload, LIMIT);
    let mut reused = vec![0xee; 100];
    assert_eq!(decompress_into(payload, LIMIT, &mut reused).err(), result.as_ref().err().copied());
    let mut kept = Decompressor::new();
    let _ = kept.decompress(&pack(Compression::Zstd(3), b"what was there before"), LIMIT);
    assert_eq!(kept.decompress(payload, LIMIT), result.as_deref().map_err(|error| *error), "what came before matters");
    let plain = match result {
        Ok(plain) => plain.into_owned(),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            // A limit is no other error: with more room it is either good, or bad in another way.
            return None;
        }
    };
    assert_eq!(reused, plain);
    assert!(plain.len() <= LIMIT);
    if !plain.is_empty() {
        assert!(decompress(payload, plain.len()).is_ok(), "exactly enough room is enough");
        assert!(decompress(payload, plain.len() - 1).is_err(), "one byte more than allowed");
    }
    stored(payload, &plain);
    Some(plain)
}

/// What an accepted object becomes in the repository means the same to decoders of others.
fn stored(payload: &[u8], plain: &[u8]) {
    for key in KEYS.iter() {
        let id = key.id_hash(plain);
        for obfuscating in [false, true] {
            let Some(verifier) = Verifier::new(key.clone()) else { panic!("{:?} encrypts nothing", key.key_type()) };
            let mut verifier = verifier.obfuscating(obfuscating);
            let envelope = key.seal(payload, 0);
            assert!(verifier.payload(&envelope).is_ok_and(|found| found == payload));
            let mut wrong = id;
            wrong.0[31] ^= 1;
            assert!(verifier.examine(&wrong, payload).is_err(), "another id is taken");
            let examined = match verifier.examine(&id, payload) {
                Ok(examined) => examined,
                Err(stop) => panic!("a payload that decompresses is refused: {stop:?}"),
            };
            assert_eq!(examined.size as usize, plain.len());
            assert!(examined.payload.len() <= MAX_PAYLOAD);
            if examined.is_archive {
                continue;
            }
            let (inner, obfuscated) = unwrap_obfuscated(&examined.payload).expect("what is stored is well-formed");
            assert!(obfuscating || !obfuscated, "padding is stored that nobody asked for");
            assert_eq!(decoded_by_others(inner, plain.len()), plain, "what is stored means something else to others");
            assert_eq!(decompress(&examined.payload, LIMIT).as_deref(), Ok(plain));
            let again = verifier.examine(&id, &examined.payload).map(|again| again.payload.len());
            assert_eq!(again, Ok(examined.payload.len()), "what is stored would be taken again");
        }
    }
}

/// The plaintext of a stored payload, by other people's code.
fn decoded_by_others(payload: &[u8], size: usize) -> Vec<u8> {
    match detect(payload) {
        Ok((Codec::None, data)) => data.to_vec(),
        Ok((Codec::Lz4, block)) => stock_lz4(block, size).expect("the reference decoder refuses a stored block"),
        Ok((Codec::Zstd, frame)) => {
            let mut plain = Vec::new();
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(frame).expect("another decoder refuses a stored frame");
            decoder.by_ref().take(LIMIT as u64 + 1).read_to_end(&mut plain).expect("another decoder refuses a stored frame");
            plain
        }
        other => panic!("{other:?} is stored as a stranger made it"),
    }
}

/// What liblz4 makes of a block, with as much room as Borg gives it.
fn stock_lz4(block: &[u8], size: usize) -> Option<Vec<u8>> {
    // liblz4 takes no empty buffer for a block of nothing.
    let room = i32::try_from(size.max(1)).ok()?;
    let mut plain = lz4::block::decompress(block, Some(room)).ok()?;
    plain.truncate(size.max(plain.len()));
    Some(plain)
}

/// Our own compression, every codec: what comes out is what went in, and is an object that would be taken.
pub fn compress(data: &[u8]) {
    let Some((level, plain)) = data.split_first() else { return };
    let all = [
        Compression::None,
        Compression::Lz4,
        Compression::Zstd(1 + i32::from(level % 6)),
        Compression::Zlib(u32::from(level % 10)),
        Compression::Lzma(u32::from(level % 2)),
    ];
    for compression in all {
        // The encoder of xz takes its dictionary's memory each time.
        if matches!(compression, Compression::Lzma(_)) && level % 8 != 0 {
            continue;
        }
        let payload = pack(compression, plain);
        assert!(payload.len() <= plain.len() + plain.len() / 1000 + 64, "{compression:?} makes more of it");
        assert_eq!(decompress(&payload, plain.len()).as_deref(), Ok(plain), "{compression:?}");
        if level % 4 == 0 {
            examine(&payload);
        }
    }
}
