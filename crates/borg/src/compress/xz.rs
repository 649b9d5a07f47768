//! xz containers as Borg writes them: no check, at most one block, the LZMA2 filter and nothing else.

use liblzma::stream::{Action, Check, Status, Stream};

use super::codec::Room;
use super::{Codec, DecompressError};

const MALFORMED: DecompressError = DecompressError::Malformed(Codec::Lzma);
const UNSUPPORTED: DecompressError = DecompressError::Unsupported(Codec::Lzma);

/// Memory of the decoder: the 64 MiB dictionary of level 9 and some.
const MEMORY: u64 = 80 << 20;

/// Magic and flags of a stream without integrity check, up to the header's CRC.
const HEADER: [u8; 8] = [0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0];
const HEADER_LENGTH: usize = 12;
const FOOTER_LENGTH: usize = 12;
const LZMA2: u8 = 0x21;

/// Decompresses one stream to the front of `buffer`; returns the size.
pub(super) fn decompress(stream: &[u8], limit: usize, buffer: &mut Vec<u8>) -> Result<usize, DecompressError> {
    check_form(stream)?;
    let mut decoder = Stream::new_stream_decoder(MEMORY, 0).map_err(|_| MALFORMED)?;
    let mut room = Room::new(buffer, limit, stream.len());
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let input = stream.get(read as usize..).ok_or(MALFORMED)?;
        match decoder.process(input, room.free(written as usize), Action::Run).map_err(|_| MALFORMED)? {
            Status::StreamEnd if decoder.total_in() == stream.len() as u64 => break,
            Status::StreamEnd => return Err(MALFORMED),
            _ if room.is_full(decoder.total_out() as usize) => room.grow()?,
            _ if decoder.total_in() == read && decoder.total_out() == written => return Err(MALFORMED),
            _ => {}
        }
    }
    room.finish(decoder.total_out() as usize)
}

/// Looks at the container before it is decoded. Other filters and checks exist, but not in every build of the library
/// that a client may have. That the index speaks the truth about the number of blocks is for the decoder to verify.
fn check_form(stream: &[u8]) -> Result<(), DecompressError> {
    if stream.len() < HEADER_LENGTH + FOOTER_LENGTH {
        return Err(MALFORMED);
    }
    if stream.get(..HEADER.len()) != Some(&HEADER) {
        return Err(UNSUPPORTED);
    }
    match stream.get(HEADER_LENGTH..HEADER_LENGTH + 3) {
        // No block at all: the index follows.
        Some(&[0, ..]) => return Ok(()),
        // Size, flags (no sizes present, one filter), filter.
        Some(&[_, 0, LZMA2]) => {}
        Some(_) => return Err(UNSUPPORTED),
        None => return Err(MALFORMED),
    }
    let footer = stream.len() - FOOTER_LENGTH;
    let size = stream.get(footer + 4..footer + 8).and_then(|bytes| bytes.try_into().ok()).ok_or(MALFORMED)?;
    let index_length = u64::from(u32::from_le_bytes(size)).checked_add(1).and_then(|words| words.checked_mul(4));
    let index = index_length
        .and_then(|length| usize::try_from(length).ok())
        .and_then(|length| footer.checked_sub(length))
        .and_then(|start| stream.get(start..footer))
        .ok_or(MALFORMED)?;
    match index {
        [0, 0 | 1, ..] => Ok(()),
        [0, ..] => Err(UNSUPPORTED),
        _ => Err(MALFORMED),
    }
}

pub(super) fn compress(data: &[u8], level: u32) -> Option<Vec<u8>> {
    let mut encoder = Stream::new_easy_encoder(level.min(9), Check::None).ok()?;
    let mut payload = vec![2, 0];
    loop {
        payload.reserve(data.len() / 2 + 4096);
        let input = data.get(encoder.total_in() as usize..)?;
        if encoder.process_vec(input, &mut payload, Action::Finish).ok()? == Status::StreamEnd {
            return Some(payload);
        }
    }
}
