//! LZ4 blocks.

use super::{Codec, DecompressError};

const MALFORMED: DecompressError = DecompressError::Malformed(Codec::Lz4);

/// A block ends with at least this many literals after its last match.
const LAST_LITERALS: usize = 5;

/// The last match starts at least this far before the end of the plaintext. The reference decoder refuses other blocks when it
/// is given no more room than the plaintext takes.
const LAST_MATCH: usize = 12;

/// Offset, token and [`LAST_LITERALS`]: what at least follows the literals of a sequence that is not the last.
const AFTER_LITERALS: usize = 2 + 1 + LAST_LITERALS;

/// Decompresses to the front of `buffer`, which grows to the exact size if it is smaller; returns the size.
pub(super) fn decompress(block: &[u8], limit: usize, buffer: &mut Vec<u8>) -> Result<usize, DecompressError> {
    let length = plain_length(block, limit)?;
    if buffer.len() < length {
        *buffer = vec![0; length];
    }
    let target = buffer.get_mut(..length).ok_or(MALFORMED)?;
    match lz4_flex::block::decompress_into(block, target) {
        Ok(written) if written == length => Ok(length),
        _ => Err(MALFORMED),
    }
}

/// Walks over the sequences of a block: how long its plaintext is. The block does not say, and walking costs no memory.
///
/// It also asserts the end conditions of the reference decoder, which other decoders do without. A block accepted here
/// and refused by a stock client would be a chunk nobody can restore.
fn plain_length(block: &[u8], limit: usize) -> Result<usize, DecompressError> {
    let mut position = 0usize;
    let mut length = 0usize;
    let mut last_match = None;
    loop {
        let token = *block.get(position).ok_or(MALFORMED)?;
        position += 1;
        let literals = run(block, &mut position, token >> 4)?;
        position = position.checked_add(literals).ok_or(MALFORMED)?;
        length = length.checked_add(literals).ok_or(MALFORMED)?;
        if length > limit {
            return Err(DecompressError::TooLarge { limit });
        }
        let left = block.len().checked_sub(position).ok_or(MALFORMED)?;
        if left == 0 {
            let early = last_match.is_none_or(|start| literals >= LAST_LITERALS && length - start >= LAST_MATCH);
            return if early { Ok(length) } else { Err(MALFORMED) };
        }
        if left < AFTER_LITERALS {
            return Err(MALFORMED);
        }
        let offset = match block.get(position..position + 2) {
            Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
            _ => return Err(MALFORMED),
        };
        if offset == 0 || offset > length {
            return Err(MALFORMED);
        }
        position += 2;
        last_match = Some(length);
        let copied = run(block, &mut position, token & 0x0f)?.checked_add(4).ok_or(MALFORMED)?;
        length = length.checked_add(copied).ok_or(MALFORMED)?;
        if length > limit {
            return Err(DecompressError::TooLarge { limit });
        }
    }
}

/// A length of 15 goes on in the following bytes, until one is not 255.
fn run(block: &[u8], position: &mut usize, nibble: u8) -> Result<usize, DecompressError> {
    let mut length = usize::from(nibble);
    if nibble == 15 {
        loop {
            let more = *block.get(*position).ok_or(MALFORMED)?;
            *position += 1;
            length = length.checked_add(usize::from(more)).ok_or(MALFORMED)?;
            if more != 255 {
                break;
            }
        }
    }
    Ok(length)
}

pub(super) fn compress(data: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; 2 + lz4_flex::block::get_maximum_output_size(data.len())];
    payload[0] = 1;
    let written = lz4_flex::block::compress_into(data, &mut payload[2..]);
    // The buffer has the maximal size, so there is always room; storing would be the answer if not.
    payload.truncate(2 + written.unwrap_or(payload.len()));
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_agrees_with_the_decoder() {
        for size in [0usize, 1, 4, 5, 11, 12, 13, 14, 64, 255, 270, 1000, 70_000] {
            for data in [vec![7u8; size], (0..size).map(|i| (i * i / 7) as u8).collect::<Vec<_>>()] {
                let payload = compress(&data);
                assert_eq!(plain_length(&payload[2..], size), Ok(size));
                if size > 0 {
                    let error = DecompressError::TooLarge { limit: size - 1 };
                    assert_eq!(plain_length(&payload[2..], size - 1), Err(error));
                }
                let mut buffer = Vec::new();
                assert_eq!(decompress(&payload[2..], size, &mut buffer), Ok(size));
                assert_eq!(buffer, data);
            }
        }
    }

    #[test]
    fn blocks_the_reference_decoder_refuses_are_refused() {
        // Ends with a match: literals "a", match offset 1 length 4, nothing behind it.
        let ends_with_match = [0x10, b'a', 1, 0];
        // Offset 0.
        let offset_zero = [0x10, b'a', 0, 0, 0x50, 1, 2, 3, 4, 5];
        // Only four literals after the last match.
        let four_literals = [0x10, b'a', 1, 0, 0x40, 1, 2, 3, 4];
        // Offset before the start.
        let before_start = [0x10, b'a', 2, 0, 0x50, 1, 2, 3, 4, 5];
        // The last match starts eleven bytes before the end: found by fuzzing.
        let late_match = [0x10, b'a', 1, 0, 0x70, 1, 2, 3, 4, 5, 6, 7];
        for block in [&ends_with_match[..], &offset_zero, &four_literals, &before_start, &late_match, &[], &[0x10], &[0xf0, 255]] {
            assert_eq!(plain_length(block, 1000), Err(MALFORMED), "{block:?}");
        }
        let legal = [0x10, b'a', 1, 0, 0x80, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut buffer = Vec::new();
        assert_eq!(decompress(&legal, 1000, &mut buffer), Ok(13));
        assert_eq!(buffer, [b'a', b'a', b'a', b'a', b'a', 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(plain_length(&[0], 0), Ok(0));
    }
}
