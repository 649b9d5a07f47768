//! Writing without ever waiting, on descriptors that others opened and that stay blocking.

use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

/// Where the descriptor stands, in place of an offset.
const HERE: u64 = u64::MAX;

/// Writes as much as fits. `WouldBlock`: nothing fits now. None: this kernel cannot do that with such a descriptor (pipes: Linux before 6.4).
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<Option<usize>> {
    match pwritev2(fd, &[IoSlice::new(bytes)], HERE, ReadWriteFlags::NOWAIT) {
        Ok(written) => Ok(Some(written)),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// What fits is written, and what does not keeps nobody waiting.
    fn fills(mut reader: impl Read, writer: BorrowedFd<'_>) {
        let bytes = vec![7; 1 << 20];
        let Some(first) = write(writer, &bytes).unwrap() else {
            eprintln!("NOT RUN: this kernel cannot do it");
            return;
        };
        assert!(first > 4096 && first < bytes.len(), "{first}");
        let mut all = first;
        let full = loop {
            match write(writer, &bytes) {
                Ok(written) => all += written.unwrap(),
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        reader.read_exact(&mut vec![0; all]).unwrap();
        assert!(write(writer, &bytes).unwrap().unwrap() > 4096);
    }

    #[test]
    fn a_blocking_pipe_and_a_blocking_socket_take_what_fits() {
        let (reader, writer) = io::pipe().unwrap();
        fills(reader, writer.as_fd());
        let (reader, writer) = UnixStream::pair().unwrap();
        fills(reader, writer.as_fd());
    }

    #[test]
    fn who_reads_no_more_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert!(
            matches!(write(writer.as_fd(), b"x"), Ok(None)) || write(writer.as_fd(), b"x").unwrap_err().kind() == ErrorKind::BrokenPipe
        );
    }
}
