//! Compressed payloads: two bytes that name the codec, then its data (zlib has no header of its own).
//!
//! The decoders accept a subset of what stock Borg accepts: one xz block with the plain LZMA2 filter, one zstd frame of
//! the current format with its size, LZ4 blocks that end as the reference decoder demands, no garbage behind the data.
//! Borg itself writes nothing else. That a decoder here accepts a malformed frame does not mean that another version of
//! the same library reads the same from it: what a stranger compressed must be compressed anew ([`Compressor`]) before
//! it is stored. Only what [`is_plain`] can be kept, because it leaves a decoder no choice.

mod codec;
mod lz4;
mod xz;

use std::borrow::Cow;

/// The codec a payload names in its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// `00 00`: stored.
    None,
    /// `01 00`: an LZ4 block.
    Lz4,
    /// `02 00`: an xz container.
    Lzma,
    /// `03 00`: a zstd frame.
    Zstd,
    /// `04 00`: another payload, padded.
    Obfuscate,
    /// A zlib stream, without header.
    Zlib,
}

/// A payload that does not decompress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The first two bytes name no codec of Borg 1.x.
    #[error("the data starts with no known compression header")]
    UnknownCodec,
    /// The codec's data is damaged, cut short, or followed by something else.
    #[error("the {0:?} compressed data is malformed")]
    Malformed(Codec),
    /// Legal for the codec, but nothing any Borg writes, and not every Borg could read it.
    #[error("the {0:?} compressed data uses a form that Borg does not write")]
    Unsupported(Codec),
    /// More plaintext than allowed.
    #[error("the data decompresses to more than {limit} bytes")]
    TooLarge {
        /// The limit that was given.
        limit: usize,
    },
    /// Obfuscation inside obfuscation.
    #[error("obfuscated data contains obfuscated data")]
    Nested,
}

/// How to compress our own objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Store.
    None,
    /// LZ4, Borg's default.
    #[default]
    Lz4,
    /// zstd with level 1 to 22.
    Zstd(i32),
    /// zlib with level 0 to 9.
    Zlib(u32),
    /// xz with level 0 to 9.
    Lzma(u32),
}

/// The codec named by a payload's first bytes, and the data it applies to.
pub fn detect(payload: &[u8]) -> Result<(Codec, &[u8]), DecompressError> {
    match payload {
        [0x00, 0x00, data @ ..] => Ok((Codec::None, data)),
        [0x01, 0x00, data @ ..] => Ok((Codec::Lz4, data)),
        [0x02, 0x00, data @ ..] => Ok((Codec::Lzma, data)),
        [0x03, 0x00, data @ ..] => Ok((Codec::Zstd, data)),
        [0x04, 0x00, data @ ..] => Ok((Codec::Obfuscate, data)),
        [a, b, ..] if a & 0x0f == 8 && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0 => Ok((Codec::Zlib, payload)),
        _ => Err(DecompressError::UnknownCodec),
    }
}

/// A payload without its obfuscation, and whether it had one.
pub fn unwrap_obfuscated(payload: &[u8]) -> Result<(&[u8], bool), DecompressError> {
    let (Codec::Obfuscate, data) = detect(payload)? else { return Ok((payload, false)) };
    // u32 BE length of the inner payload, the inner payload, padding.
    let malformed = DecompressError::Malformed(Codec::Obfuscate);
    let (length, rest) = data.split_first_chunk::<4>().ok_or(malformed)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| malformed)?;
    let inner = rest.get(..length).ok_or(malformed)?;
    if detect(inner)?.0 == Codec::Obfuscate { Err(DecompressError::Nested) } else { Ok((inner, true)) }
}

/// Obfuscates a payload: zeros behind it, up to `length` bytes in all, header included. Adds none if it is longer already.
#[must_use]
pub fn obfuscate(payload: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length.max(payload.len() + 6));
    out.extend_from_slice(&[4, 0]);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out.resize(length.max(out.len()), 0);
    out
}

/// Whether every decoder reads the same from an accepted payload: one that is stored, or an LZ4 block, whose few rules
/// are all checked here and not by a library.
#[must_use]
pub fn is_plain(payload: &[u8]) -> bool {
    matches!(detect(payload), Ok((Codec::None | Codec::Lz4, _)))
}

/// Compresses with zstd and a context that is kept from one payload to the next.
#[derive(Default)]
pub struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// The level.
    pub const LEVEL: i32 = 3;

    /// Takes no memory until it is needed.
    #[must_use]
    pub fn new() -> Compressor {
        Compressor::default()
    }

    /// The same bytes as [`compress`] with `Compression::Zstd(Compressor::LEVEL)`.
    #[must_use]
    pub fn compress(&mut self, data: &[u8]) -> Vec<u8> {
        smaller(codec::zstd_compress_with(data, Self::LEVEL, &mut self.zstd), data)
    }
}

/// Decompresses with memory that is kept from one payload to the next.
#[derive(Default)]
pub struct Decompressor {
    buffer: Vec<u8>,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").field("buffer", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Decompressor {
    /// Takes no memory until it is needed.
    #[must_use]
    pub fn new() -> Decompressor {
        Decompressor::default()
    }

    /// The plaintext of a payload, at most `limit` bytes; borrowed from the payload if it is only stored.
    /// Memory beyond the plaintext: the decoder's state, for xz up to 80 MiB.
    pub fn decompress<'a>(&'a mut self, payload: &'a [u8], limit: usize) -> Result<&'a [u8], DecompressError> {
        match self.run(payload, limit)? {
            Plain::Payload(plain) => Ok(plain),
            Plain::Buffer(length) => Ok(self.buffer.get(..length).unwrap_or_default()),
        }
    }

    fn run<'a>(&mut self, payload: &'a [u8], limit: usize) -> Result<Plain<'a>, DecompressError> {
        let (codec, data) = detect(unwrap_obfuscated(payload)?.0)?;
        self.decode(codec, data, limit)
    }

    fn decode<'a>(&mut self, codec: Codec, data: &'a [u8], limit: usize) -> Result<Plain<'a>, DecompressError> {
        let length = match codec {
            Codec::None if data.len() > limit => return Err(DecompressError::TooLarge { limit }),
            Codec::None => return Ok(Plain::Payload(data)),
            Codec::Lz4 => lz4::decompress(data, limit, &mut self.buffer)?,
            Codec::Zstd => codec::zstd(data, limit, &mut self.zstd, &mut self.buffer)?,
            Codec::Zlib => codec::zlib(data, limit, &mut self.buffer)?,
            Codec::Lzma => xz::decompress(data, limit, &mut self.buffer)?,
            Codec::Obfuscate => return Err(DecompressError::Nested),
        };
        Ok(Plain::Buffer(length))
    }
}

/// Where the plaintext is.
enum Plain<'a> {
    /// It is a part of the payload.
    Payload(&'a [u8]),
    /// So many bytes at the front of the decompressor's buffer.
    Buffer(usize),
}

/// The plaintext of a payload, at most `limit` bytes.
pub fn decompress(payload: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, DecompressError> {
    let mut decompressor = Decompressor::new();
    match decompressor.run(payload, limit)? {
        Plain::Payload(plain) => Ok(Cow::Borrowed(plain)),
        Plain::Buffer(length) => {
            decompressor.buffer.truncate(length);
            Ok(Cow::Owned(decompressor.buffer))
        }
    }
}

/// Like [`decompress`], into a vector whose memory is reused; its content is replaced, on errors by nothing.
/// A [`Decompressor`] is faster for many payloads.
pub fn decompress_into(payload: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let mut decompressor = Decompressor { buffer: std::mem::take(out), zstd: None };
    let result = decompressor.run(payload, limit);
    *out = decompressor.buffer;
    match result {
        Ok(Plain::Buffer(length)) => out.truncate(length),
        Ok(Plain::Payload(plain)) => {
            out.clear();
            out.extend_from_slice(plain);
        }
        Err(error) => {
            out.clear();
            return Err(error);
        }
    }
    Ok(())
}

/// Compresses; stores instead what would not become smaller, as Borg 1.2 does.
#[must_use]
pub fn compress(compression: Compression, data: &[u8]) -> Vec<u8> {
    let compressed = match compression {
        Compression::None => None,
        Compression::Lz4 => Some(lz4::compress(data)),
        Compression::Zstd(level) => codec::zstd_compress(data, level),
        Compression::Zlib(level) => return codec::zlib_compress(data, level),
        Compression::Lzma(level) => xz::compress(data, level),
    };
    smaller(compressed, data)
}

fn smaller(compressed: Option<Vec<u8>>, data: &[u8]) -> Vec<u8> {
    match compressed {
        Some(payload) if payload.len() < data.len() + 2 => payload,
        _ => [&[0, 0], data].concat(),
    }
}
