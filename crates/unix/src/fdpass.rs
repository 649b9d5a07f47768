//! Descriptors sent over a Unix socket, and memory shared that way.

use crate::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// The most descriptors one message can carry (a limit of Linux).
pub const MAX_FDS: usize = 253;

/// The most data bytes [`recv_fds`] returns at once. What was sent beyond that is read from the stream as usual.
pub const MAX_DATA: usize = 64 * 1024;

/// Sends descriptors together with `data`, which must not be empty: without a byte to travel with they would get lost.
/// The descriptors arrive with the first byte.
pub fn send_fds(stream: &UnixStream, fds: &[BorrowedFd<'_>], data: &[u8]) -> Result<()> {
    if data.is_empty() {
        return Err(Error::Invalid("descriptors need at least one byte to travel with".into()));
    }
    if fds.len() > MAX_FDS {
        return Err(Error::Invalid(format!("one message cannot carry {} descriptors", fds.len())));
    }
    let failed = |e: io::Error| Error::io("cannot send descriptors", e);
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::Invalid("the descriptors do not fit into one message".into()));
    }
    let sent = loop {
        match rustix::net::sendmsg(stream, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e.into())),
            Ok(sent) => break sent,
        }
    };
    let mut stream = stream;
    stream.write_all(&data[sent..]).map_err(failed)
}

/// Receives up to `max` descriptors (close-on-exec) and the data that came with them, at most [`MAX_DATA`] bytes. Both
/// empty: the peer has closed.
///
/// More than `max` are an error, and all of them are closed. On a stream the data may be shorter than what was sent,
/// and bytes that were sent *before* the message with the descriptors may stand in front: let the protocol make sure
/// that nothing else is under way.
pub fn recv_fds(socket: impl AsFd, max: usize) -> Result<(Vec<OwnedFd>, Vec<u8>)> {
    let max = max.min(MAX_FDS);
    let mut space = vec![MaybeUninit::uninit(); if max == 0 { 0 } else { rustix::cmsg_space!(ScmRights(max)) }];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = vec![0; MAX_DATA];
    let received = loop {
        let mut into = [IoSliceMut::new(&mut data)];
        match rustix::net::recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io("cannot receive descriptors", e)),
            Ok(received) => break received,
        }
    };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    // The buffer is padded, so that one more than asked for may have fitted in.
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > max {
        return Err(Error::TooManyDescriptors { max });
    }
    data.truncate(received.bytes);
    Ok((fds, data))
}

/// Sends one descriptor and no data at all over a datagram socket: how the journal takes large entries.
pub fn send_fd_alone(socket: &UnixDatagram, fd: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::Invalid("the descriptor does not fit into a message".into()));
    }
    let sent = rustix::net::sendmsg(socket, &[], &mut control, SendFlags::NOSIGNAL);
    sent.map(drop).map_err(|e| Error::io("cannot send a descriptor", e))
}

/// The receiving side of [`send_fd_alone`], for tests.
#[cfg(test)]
pub(crate) fn recv_fd_alone(socket: &UnixDatagram) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(socket, &mut [], &mut control, RecvFlags::CMSG_CLOEXEC).map_err(|e| Error::io("nothing came", e))?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut rights) = message
            && let Some(fd) = rights.next()
        {
            return Ok(fd);
        }
    }
    Err(Error::Invalid("no descriptor came".into()))
}

/// A file that exists in memory only; `name` is for debugging.
pub fn memfd(name: &str) -> Result<File> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map(File::from)
        .map_err(|e| Error::io("cannot create a file in memory", e))
}

/// Nothing about the content may change any more, by anybody.
fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Makes a [`memfd`] unchangeable for everybody who has it, the caller included.
pub fn seal(file: &File) -> Result<()> {
    rustix::fs::fcntl_add_seals(file, all_seals()).map_err(|e| Error::io("cannot seal a file in memory", e))
}

/// Whether `fd` is a file in memory that nobody can change any more. Who reads a received one ought to ask first: an
/// unsealed file may change or shrink between two looks.
pub fn is_sealed(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(all_seals()))
}
