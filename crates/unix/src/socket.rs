//! Unix sockets with a path, and who is at the other end.

use crate::{Error, Result, random, raw};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path that fits into a socket address, without the final NUL.
const LONGEST: usize = 107;

/// Who is at the other end of a socket, as the kernel saw it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Process; for messages only, it may be gone and its number reused.
    pub pid: i32,
}

/// Listens at `path`, with `mode` as the permissions of the socket.
///
/// A socket left by a process that is gone is replaced; one that answers is an error, and so is a file that is not a
/// socket. The socket appears under its name only when it listens and has its mode.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener> {
    let failed = |e| Error::io(format!("cannot listen at {}", path.display()), e);
    let (parent, name) = split(path)?;
    let directory = File::open(parent).map_err(failed)?;
    // Two processes starting at once would both find the other's socket stale.
    directory.lock().map_err(failed)?;
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) => match short_address(&directory, path, name, knock) {
            Ok(()) => return Err(Error::SocketInUse(path.to_owned())),
            // A full backlog belongs to somebody who lives.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(Error::SocketInUse(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(e) => return Err(failed(e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let temporary_name = PathBuf::from(format!(".{}.tmp", random::hex(8)?));
    let temporary = parent.join(&temporary_name);
    let listener = short_address(&directory, &temporary, &temporary_name, |address| UnixListener::bind(address)).map_err(failed)?;
    let placed = fs::set_permissions(&temporary, Permissions::from_mode(mode)).and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = placed {
        // The first error is the one to tell; a left-over socket without a listener harms nobody.
        let _ = fs::remove_file(&temporary);
        return Err(failed(e));
    }
    Ok(listener)
}

/// Whether anybody answers at `address`, without waiting for one who is too busy to (that is `WouldBlock`).
fn knock(address: &Path) -> io::Result<()> {
    let address = SocketAddrUnix::new(address)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    Ok(rustix::net::connect(&socket, &address)?)
}

/// Connects to the socket at `path` (symbolic links are followed).
pub fn connect(path: &Path) -> Result<UnixStream> {
    let failed = |e| Error::io(format!("cannot connect to {}", path.display()), e);
    let (parent, name) = split(path)?;
    if path.as_os_str().len() <= LONGEST {
        return UnixStream::connect(path).map_err(failed);
    }
    let directory = File::open(parent).map_err(failed)?;
    short_address(&directory, path, name, |address| UnixStream::connect(address)).map_err(failed)
}

/// Runs `act` with an address for `path` that fits: through the open directory if the path is too long.
fn short_address<T>(directory: &File, path: &Path, name: &Path, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= LONGEST {
        return act(path);
    }
    act(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

fn split(path: &Path) -> Result<(&Path, &Path)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => Ok((Path::new("."), Path::new(name))),
        (Some(parent), Some(name)) if !path.as_os_str().as_bytes().contains(&0) => Ok((parent, Path::new(name))),
        _ => Err(Error::Invalid(format!("\"{}\" cannot be the path of a socket", path.display()))),
    }
}

/// Who is at the other end.
pub fn peer(stream: &UnixStream) -> Result<Peer> {
    let credentials = getsockopt(stream, sockopt::PeerCredentials).map_err(|e| Error::io("cannot tell who is connected", e))?;
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
}

/// Who a peer of ours would see.
#[must_use]
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The groups of who is at the other end, as the kernel saw them when the connection was made: primary and supplementary ones.
/// systemd's dynamic users have no others, because no user database knows them.
pub fn peer_groups(stream: &UnixStream) -> Result<Vec<u32>> {
    let mut groups = raw::peer_groups(stream.as_raw_fd()).map_err(|e| Error::io("cannot tell the groups of who is connected", e))?;
    groups.push(peer(stream)?.gid);
    Ok(groups)
}

/// The number of a group; None if the system knows none of that name.
pub fn group_id(name: &str) -> Result<Option<u32>> {
    let group = Group::from_name(name).map_err(|e| Error::io(format!("cannot look up the group {name}"), e))?;
    Ok(group.map(|group| group.gid.as_raw()))
}

/// The number of a user; None if the system knows none of that name.
pub fn user_id(name: &str) -> Result<Option<u32>> {
    let user = User::from_name(name).map_err(|e| Error::io(format!("cannot look up the user {name}"), e))?;
    Ok(user.map(|user| user.uid.as_raw()))
}

/// The name of a user; None if the system knows none for this uid.
pub fn user_name(uid: u32) -> Result<Option<String>> {
    Ok(user(uid)?.map(|user| user.name))
}

/// Whether the user belongs to the group, as the system's user database says now (not as the peer's process was when
/// it logged in). False if either does not exist.
pub fn is_in_group(uid: u32, group: &str) -> Result<bool> {
    let failed = |e| Error::io(format!("cannot look up the group {group}"), e);
    let Some(group_id) = Group::from_name(group).map_err(failed)?.map(|group| group.gid) else {
        return Ok(false);
    };
    let Some(user) = user(uid)? else {
        return Ok(false);
    };
    let name = CString::new(user.name).map_err(|e| failed_lookup(uid, io::Error::from(e)))?;
    let groups: Vec<Gid> = nix::unistd::getgrouplist(&name, user.gid).map_err(failed)?;
    Ok(groups.contains(&group_id))
}

fn user(uid: u32) -> Result<Option<User>> {
    User::from_uid(Uid::from_raw(uid)).map_err(|e| failed_lookup(uid, e.into()))
}

fn failed_lookup(uid: u32, cause: io::Error) -> Error {
    Error::io(format!("cannot look up the user with uid {uid}"), cause)
}
