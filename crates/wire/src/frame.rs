//! Binary frames: `length (u32, little endian) | type (u8) | payload`; the length counts type and payload.

use crate::WireError;
use std::io::{IoSlice, Read, Write};

/// Borg 1.x: an object's payload has at most 20 971 479 bytes; a frame adds an id, a size and its type.
pub const MAX_FRAME: usize = 20_971_479 + 1024;

/// Writes one frame whose payload is the concatenation of `parts`.
pub fn write(out: &mut impl Write, kind: u8, parts: &[&[u8]]) -> Result<(), WireError> {
    let payload: usize = parts.iter().map(|p| p.len()).sum();
    let size = payload + 1;
    if size > MAX_FRAME {
        return Err(WireError::TooLarge { size, limit: MAX_FRAME });
    }
    let mut head = [0; 5];
    head[..4].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    head[4] = kind;
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(parts.len() + 1);
    slices.push(IoSlice::new(&head));
    slices.extend(parts.iter().map(|p| IoSlice::new(p)));
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match out.write_vectored(rest) {
            Ok(0) => return Err(WireError::Closed),
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(closed_or_io(e)),
        }
        while rest.first().is_some_and(|s| s.is_empty()) {
            rest = &mut rest[1..];
        }
    }
    Ok(())
}

/// Reads one frame into `buffer` (replaced) and returns its type. Reads not one byte more, so that descriptors sent behind it are not lost.
pub fn read(input: &mut impl Read, buffer: &mut Vec<u8>) -> Result<u8, WireError> {
    let mut head = [0; 5];
    input.read_exact(&mut head).map_err(closed_or_io)?;
    let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if size > MAX_FRAME {
        return Err(WireError::TooLarge { size, limit: MAX_FRAME });
    }
    let Some(payload) = size.checked_sub(1) else {
        return Err(WireError::Malformed("an empty frame".into()));
    };
    buffer.clear();
    // Not `resize`: a length on the wire must not cost memory before its bytes arrive.
    let got = input.take(payload as u64).read_to_end(buffer).map_err(closed_or_io)?;
    if got < payload {
        return Err(WireError::Closed);
    }
    Ok(head[4])
}

fn closed_or_io(e: std::io::Error) -> WireError {
    use std::io::ErrorKind;
    match e.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => WireError::Closed,
        _ => WireError::Io(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_with_empty_and_many_parts() {
        let mut wire = vec![];
        write(&mut wire, 7, &[b"ab", b"", b"c"]).unwrap();
        write(&mut wire, 8, &[]).unwrap();
        let (mut input, mut buffer) = (&wire[..], vec![1, 2, 3]);
        assert_eq!(read(&mut input, &mut buffer).unwrap(), 7);
        assert_eq!(buffer, b"abc");
        assert_eq!(read(&mut input, &mut buffer).unwrap(), 8);
        assert!(buffer.is_empty());
        assert!(matches!(read(&mut input, &mut buffer), Err(WireError::Closed)));
    }

    #[test]
    fn lengths_that_lie() {
        let mut buffer = vec![];
        assert!(matches!(read(&mut &[0xff, 0xff, 0xff, 0xff, 1][..], &mut buffer), Err(WireError::TooLarge { .. })));
        assert!(matches!(read(&mut &[0, 0, 0, 0, 1][..], &mut buffer), Err(WireError::Malformed(_))));
        assert!(matches!(read(&mut &[9, 0, 0, 0, 1, 2][..], &mut buffer), Err(WireError::Closed)));
        assert!(buffer.capacity() < 1000);
    }
}
