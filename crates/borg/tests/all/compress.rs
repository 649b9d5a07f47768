use borg::compress::{Codec, Compression, Compressor, DecompressError, Decompressor, compress, decompress, decompress_into, detect};
use proptest::prelude::*;

const ALL: [Compression; 7] = [
    Compression::None,
    Compression::Lz4,
    Compression::Zstd(1),
    Compression::Zstd(22),
    Compression::Zlib(6),
    Compression::Lzma(0),
    Compression::Lzma(9),
];

fn text(length: usize) -> Vec<u8> {
    (0..).flat_map(|n: u32| format!("line {n}\n").into_bytes()).take(length).collect()
}

fn obfuscated(inner: &[u8], padding: usize) -> Vec<u8> {
    [&[4, 0], (inner.len() as u32).to_be_bytes().as_slice(), inner, &vec![0; padding]].concat()
}

#[test]
fn codecs_are_told_by_their_header() {
    for (compression, codec) in [
        (Compression::None, Codec::None),
        (Compression::Lz4, Codec::Lz4),
        (Compression::Zstd(3), Codec::Zstd),
        (Compression::Zlib(6), Codec::Zlib),
        (Compression::Lzma(6), Codec::Lzma),
    ] {
        assert_eq!(detect(&compress(compression, &text(1000))).map(|found| found.0), Ok(codec));
    }
    for unknown in [&[][..], &[0], &[1], &[0x78], &[5, 0, 0], &[0, 1], &[0x78, 0x9d], &[255, 255]] {
        assert_eq!(detect(unknown), Err(DecompressError::UnknownCodec), "{unknown:?}");
        assert!(decompress(unknown, 1000).is_err());
    }
}

#[test]
fn a_kept_context_does_not_show() {
    let mut compressor = Compressor::new();
    for length in [100_000, 0, 1, 20, 3_000_000, 1000, 100_000, 3_000_000] {
        let plain = text(length);
        assert_eq!(compressor.compress(&plain), compress(Compression::Zstd(3), &plain), "{length}");
    }
}

#[test]
fn what_does_not_shrink_is_stored() {
    let mut noise = vec![0; 1000];
    crate::noise(1)(&mut noise);
    for compression in [Compression::Lz4, Compression::Zstd(3), Compression::Lzma(6)] {
        assert_eq!(compress(compression, &noise), [&[0, 0], noise.as_slice()].concat(), "{compression:?}");
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 24 << 20];
    for compression in ALL {
        let bomb = compress(compression, &zeros);
        let limit = 1 << 20;
        assert_eq!(decompress(&bomb, limit), Err(DecompressError::TooLarge { limit }), "{compression:?}");
        let wrapped = obfuscated(&bomb, 10);
        assert_eq!(decompress(&wrapped, limit), Err(DecompressError::TooLarge { limit }), "{compression:?}");
    }
}

#[test]
fn the_limit_itself_is_allowed() {
    for compression in ALL {
        for length in [1usize, 100, 4095, 4096, 4097, 300_000] {
            let plain = text(length);
            let payload = compress(compression, &plain);
            assert_eq!(decompress(&payload, length).as_deref(), Ok(plain.as_slice()), "{compression:?} {length}");
            let limit = length - 1;
            assert_eq!(decompress(&payload, limit), Err(DecompressError::TooLarge { limit }), "{compression:?} {length}");
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let plain = text(3000);
    for compression in ALL {
        let payload = compress(compression, &plain);
        for cut in 0..payload.len() {
            // Stored data and LZ4 blocks have no end of their own. What is left is a part of the plaintext, and the id
            // will not fit.
            if let Ok(short) = decompress(&payload[..cut], plain.len()) {
                assert!(matches!(compression, Compression::None | Compression::Lz4), "{compression:?} cut at {cut}");
                assert!(short.len() < plain.len() && plain.starts_with(&short));
            }
        }
    }
}

#[test]
fn garbage_behind_the_data_is_refused() {
    let plain = text(3000);
    for compression in ALL {
        if compression == Compression::None {
            continue;
        }
        let payload = compress(compression, &plain);
        for garbage in [&[0][..], &[0, 0, 0, 0], &payload[2..]] {
            let longer = [payload.as_slice(), garbage].concat();
            assert!(decompress(&longer, 1 << 20).is_err(), "{compression:?} followed by {} bytes", garbage.len());
        }
    }
}

#[test]
fn zstd_frames_must_be_what_borg_reads() {
    // A skippable frame alone, with its "content size" of 0.
    let skippable = [3, 0, 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(decompress(&skippable, 100), Err(DecompressError::Unsupported(Codec::Zstd)));
    // A frame of the format of version 0.7.
    let legacy = [3, 0, 0x27, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0, 0, 0];
    assert_eq!(decompress(&legacy, 100), Err(DecompressError::Unsupported(Codec::Zstd)));
    // No content size: descriptor 0, window descriptor 0, one empty last raw block.
    let unsized_frame = [3, 0, 0x28, 0xb5, 0x2f, 0xfd, 0, 0, 1, 0, 0];
    assert_eq!(decompress(&unsized_frame, 100), Err(DecompressError::Unsupported(Codec::Zstd)));
    // A window of 256 MiB in a frame that is small.
    let window = [3, 0, 0x28, 0xb5, 0x2f, 0xfd, 0x80, 18 << 3, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(decompress(&window, 100), Err(DecompressError::Unsupported(Codec::Zstd)));
    // A content size that is a lie.
    let mut lie = compress(Compression::Zstd(3), &text(200));
    assert_eq!(lie[6] & 0xe0, 0x20, "one segment, size in one byte");
    lie[7] += 1;
    assert_eq!(decompress(&lie, 1000), Err(DecompressError::Malformed(Codec::Zstd)));
}

#[test]
fn xz_containers_must_be_what_borg_writes() {
    use liblzma::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};
    fn encode(mut encoder: Stream, plain: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(1 << 16);
        payload.extend([2, 0]);
        let status = encoder.process_vec(plain, &mut payload, Action::Finish).expect("encodes");
        assert_eq!(status, Status::StreamEnd);
        payload
    }
    let plain = text(2000);
    let good = encode(Stream::new_easy_encoder(6, Check::None).expect("an encoder"), &plain);
    assert_eq!(decompress(&good, 2000).as_deref(), Ok(plain.as_slice()));
    let unsupported = Err(DecompressError::Unsupported(Codec::Lzma));
    for check in [Check::Crc32, Check::Crc64, Check::Sha256] {
        let other = encode(Stream::new_easy_encoder(6, check).expect("an encoder"), &plain);
        assert_eq!(decompress(&other, 2000), unsupported);
    }
    let options = LzmaOptions::new_preset(6).expect("options");
    let mut filters = Filters::new();
    filters.x86().lzma2(&options);
    let filtered = encode(Stream::new_stream_encoder(&filters, Check::None).expect("an encoder"), &plain);
    assert_eq!(decompress(&filtered, 2000), unsupported);
    let alone = encode(Stream::new_lzma_encoder(&options).expect("an encoder"), &plain);
    assert_eq!(decompress(&alone, 2000), unsupported);

    // Two blocks, by a full flush between them.
    let mut encoder = Stream::new_easy_encoder(6, Check::None).expect("an encoder");
    let mut payload = Vec::with_capacity(1 << 16);
    payload.extend([2, 0]);
    encoder.process_vec(&plain[..1000], &mut payload, Action::FullFlush).expect("flushes");
    encoder.process_vec(&plain[1000..], &mut payload, Action::Finish).expect("finishes");
    assert_eq!(decompress(&payload, 2000), unsupported);

    // Nothing at all: no block.
    let empty = encode(Stream::new_easy_encoder(6, Check::None).expect("an encoder"), b"");
    assert_eq!(decompress(&empty, 0).as_deref(), Ok(&[][..]));
}

#[test]
fn an_xz_dictionary_larger_than_any_level_has_is_refused() {
    let mut payload = compress(Compression::Lzma(9), &text(3000));
    // Block header: size, flags, filter, length of properties, dictionary size, padding, CRC32.
    let header = 2 + 12;
    assert_eq!(&payload[header..header + 4], &[2, 0, 0x21, 1]);
    payload[header + 4] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&payload[header..header + 8]);
    payload[header + 8..header + 12].copy_from_slice(&crc.sum().to_le_bytes());
    assert_eq!(decompress(&payload, 3000), Err(DecompressError::Malformed(Codec::Lzma)));
}

#[test]
fn obfuscation_has_one_level() {
    let plain = text(500);
    for compression in ALL {
        let wrapped = obfuscated(&compress(compression, &plain), 77);
        assert_eq!(decompress(&wrapped, 500).as_deref(), Ok(plain.as_slice()));
        assert_eq!(decompress(&obfuscated(&wrapped, 0), 500), Err(DecompressError::Nested));
    }
    let malformed = Err(DecompressError::Malformed(Codec::Obfuscate));
    for short in [&[4, 0][..], &[4, 0, 0, 0], &[4, 0, 0, 0, 0, 3, 0, 0], &[4, 0, 255, 255, 255, 255, 0, 0]] {
        assert_eq!(decompress(short, 500), malformed, "{short:?}");
    }
    assert_eq!(decompress(&[4, 0, 0, 0, 0, 0], 500), Err(DecompressError::UnknownCodec));
}

#[test]
fn a_buffer_is_reused_and_nothing_old_shines_through() {
    let mut out = Vec::new();
    let mut decompressor = Decompressor::new();
    for length in [300_000usize, 10, 0, 5000, 299_999] {
        for compression in ALL {
            let plain = text(length);
            for payload in [compress(compression, &plain), obfuscated(&compress(compression, &plain), 3)] {
                decompress_into(&payload, 300_000, &mut out).expect("our own");
                assert_eq!(out, plain, "{compression:?} {length}");
                assert_eq!(decompressor.decompress(&payload, 300_000), Ok(plain.as_slice()));
            }
        }
    }
    assert!(decompress_into(&[9, 9], 10, &mut out).is_err());
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn data_goes_both_ways(
        plain in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..3000),
        compression in proptest::sample::select(ALL.to_vec()),
    ) {
        let payload = compress(compression, &plain);
        let opened = decompress(&payload, plain.len());
        prop_assert_eq!(opened.as_deref(), Ok(plain.as_slice()));
    }

    #[test]
    fn anything_is_survived(
        head in proptest::sample::select(vec![
            vec![], vec![0, 0], vec![1, 0], vec![2, 0], vec![2, 0, 0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0], vec![3, 0],
            vec![3, 0, 0x28, 0xb5, 0x2f, 0xfd], vec![4, 0], vec![4, 0, 0, 0, 0, 20, 1, 0], vec![0x78, 0x9c],
        ]),
        tail in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let payload = [head, tail].concat();
        if let Ok(plain) = decompress(&payload, 1000) {
            prop_assert!(plain.len() <= 1000);
        }
    }

    #[test]
    fn a_damaged_payload_is_survived(
        compression in proptest::sample::select(ALL.to_vec()),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut payload = compress(compression, &text(2000));
        for (place, value) in damage {
            let place = place.index(payload.len());
            payload[place] = value;
        }
        if let Ok(plain) = decompress(&payload, 4000) {
            prop_assert!(plain.len() <= 4000);
        }
    }
}
