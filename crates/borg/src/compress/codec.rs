//! zstd and zlib.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use zstd::zstd_safe;

use super::{Codec, DecompressError};

/// Start of a zstd frame of the current format. Older formats are understood by some builds of the library only.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Largest window of zstd's levels 1 to 22, as a power of two. Some builds refuse larger ones.
const ZSTD_WINDOW_LOG: u8 = 27;

/// Decompresses one frame to the front of `buffer`; returns the size, which the frame must state.
pub(super) fn zstd(
    frame: &[u8],
    limit: usize,
    context: &mut Option<zstd::bulk::Decompressor<'static>>,
    buffer: &mut Vec<u8>,
) -> Result<usize, DecompressError> {
    let malformed = DecompressError::Malformed(Codec::Zstd);
    let unsupported = DecompressError::Unsupported(Codec::Zstd);
    let (magic, header) = frame.split_first_chunk::<4>().ok_or(malformed)?;
    let &[descriptor, window, ..] = header else { return Err(malformed) };
    let single_segment = descriptor & 0x20 != 0;
    if *magic != ZSTD_MAGIC || (!single_segment && 10 + (window >> 3) > ZSTD_WINDOW_LOG) {
        return Err(unsupported);
    }
    let size = zstd_safe::get_frame_content_size(frame).map_err(|_| malformed)?.ok_or(unsupported)?;
    let length = usize::try_from(size).ok().filter(|size| *size <= limit);
    let length = length.ok_or(DecompressError::TooLarge { limit })?;
    if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(malformed);
    }
    if buffer.len() < length {
        *buffer = vec![0; length];
    }
    if context.is_none() {
        *context = zstd::bulk::Decompressor::new().ok();
    }
    let context = context.as_mut().ok_or(malformed)?;
    let target = buffer.get_mut(..length).ok_or(malformed)?;
    match context.decompress_to_buffer(frame, target) {
        Ok(written) if written == length => Ok(length),
        _ => Err(malformed),
    }
}

pub(super) fn zstd_compress(data: &[u8], level: i32) -> Option<Vec<u8>> {
    zstd_compress_with(data, level, &mut None)
}

/// Makes the context if there is none yet; `level` must be the same in every call with the same context.
pub(super) fn zstd_compress_with(data: &[u8], level: i32, context: &mut Option<zstd::bulk::Compressor<'static>>) -> Option<Vec<u8>> {
    if context.is_none() {
        *context = zstd::bulk::Compressor::new(level.clamp(1, 22)).ok();
    }
    // Not one byte is copied, and nothing is zeroed: the frame is written behind the header.
    let mut payload = Vec::with_capacity(2 + zstd_safe::compress_bound(data.len()));
    payload.extend_from_slice(&[3, 0]);
    let mut target = std::io::Cursor::new(&mut payload);
    target.set_position(2);
    context.as_mut()?.compress_to_buffer(data, &mut target).ok()?;
    Some(payload)
}

/// Decompresses one zlib stream to the front of `buffer`; returns the size.
pub(super) fn zlib(stream: &[u8], limit: usize, buffer: &mut Vec<u8>) -> Result<usize, DecompressError> {
    let malformed = DecompressError::Malformed(Codec::Zlib);
    let mut inflate = Decompress::new(true);
    let mut room = Room::new(buffer, limit, stream.len());
    loop {
        let (read, written) = (inflate.total_in(), inflate.total_out());
        let input = stream.get(read as usize..).ok_or(malformed)?;
        let status = inflate.decompress(input, room.free(written as usize), FlushDecompress::None);
        match status.map_err(|_| malformed)? {
            Status::StreamEnd if inflate.total_in() == stream.len() as u64 => break,
            Status::StreamEnd => return Err(malformed),
            Status::Ok | Status::BufError if room.is_full(inflate.total_out() as usize) => room.grow()?,
            _ if inflate.total_in() == read && inflate.total_out() == written => return Err(malformed),
            _ => {}
        }
    }
    room.finish(inflate.total_out() as usize)
}

pub(super) fn zlib_compress(data: &[u8], level: u32) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::new(level.min(9)), true);
    let mut payload = Vec::with_capacity(data.len() / 2 + 64);
    loop {
        payload.reserve(4096);
        let input = data.get(deflate.total_in() as usize..).unwrap_or_default();
        match deflate.compress_vec(input, &mut payload, FlushCompress::Finish) {
            Ok(Status::Ok | Status::BufError) => {}
            Ok(Status::StreamEnd) => return payload,
            // Deflating cannot fail on valid parameters; storing is right in any case.
            Err(_) => return [&[0, 0], data].concat(),
        }
    }
}

/// Output of a decoder that does not say in advance how much it will be: grows in steps, up to one byte above the limit.
pub(super) struct Room<'a> {
    buffer: &'a mut Vec<u8>,
    limit: usize,
}

impl<'a> Room<'a> {
    pub(super) fn new(buffer: &'a mut Vec<u8>, limit: usize, input: usize) -> Room<'a> {
        let start = input.saturating_mul(4).max(4096).min(limit.saturating_add(1));
        if buffer.len() < start {
            *buffer = vec![0; start];
        }
        Room { buffer, limit }
    }

    /// Where the decoder goes on writing. One byte above the limit is offered, to tell "exactly" from "more".
    pub(super) fn free(&mut self, written: usize) -> &mut [u8] {
        let end = self.buffer.len().min(self.limit.saturating_add(1));
        self.buffer.get_mut(written..end).unwrap_or_default()
    }

    pub(super) fn is_full(&self, written: usize) -> bool {
        written >= self.buffer.len().min(self.limit.saturating_add(1))
    }

    pub(super) fn grow(&mut self) -> Result<(), DecompressError> {
        let most = self.limit.saturating_add(1);
        if self.buffer.len() >= most {
            return Err(DecompressError::TooLarge { limit: self.limit });
        }
        self.buffer.resize(self.buffer.len().saturating_mul(2).min(most), 0);
        Ok(())
    }

    pub(super) fn finish(self, written: usize) -> Result<usize, DecompressError> {
        if written > self.limit { Err(DecompressError::TooLarge { limit: self.limit }) } else { Ok(written) }
    }
}
