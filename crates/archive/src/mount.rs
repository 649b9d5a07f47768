//! An archive as a file system, read only.

use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::source::Source;
use crate::tree::{Node, Piece, ROOT, Tree};
use borg::Id;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEntry, ReplyXattr, Request, SessionACL,
};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An archive does not change.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// Bytes of chunks that are kept, besides the last one.
const KEPT: usize = 64 << 20;

/// Chunks that are asked for ahead of who reads on.
const AHEAD: usize = 4;

/// A mounted archive; it goes when this is dropped.
#[derive(Debug)]
pub struct Mounted(fuser::BackgroundSession);

impl Mounted {
    /// Whether somebody has unmounted it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.guard.is_finished()
    }

    /// Unmounts it, unless somebody has.
    pub fn end(self) -> Result<()> {
        let ended = if self.is_over() { self.0.join() } else { self.0.umount_and_join() };
        ended.map_err(Error::System)
    }
}

/// Mounts a tree. `for_all`: everybody may look into it, as far as permissions in the archive go, not only who mounts it.
pub fn mount(source: &Source, tree: Tree, at: &Path, for_all: bool, complain: Box<Damaged>) -> Result<Mounted> {
    let reading = Reading { channel: Channel::open(source)?, kept: VecDeque::new(), bytes: 0, last: None };
    let files = Files { tree, reading: Mutex::new(reading), complain };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
        MountOption::FSName("borgcube".into()),
        MountOption::Subtype("borgcube".into()),
    ];
    config.acl = if for_all { SessionACL::All } else { SessionACL::Owner };
    fuser::spawn_mount(files, at, &config).map(Mounted).map_err(Error::System)
}

/// Told of a chunk that cannot be read: whoever reads hears of an input or output error only.
pub type Damaged = dyn Fn(&str) + Send + Sync;

struct Files {
    tree: Tree,
    reading: Mutex<Reading>,
    complain: Box<Damaged>,
}

struct Reading {
    channel: Channel,
    /// The last one first.
    kept: VecDeque<(Id, Arc<Vec<u8>>)>,
    bytes: usize,
    /// The chunk that was wanted before.
    last: Option<Id>,
}

impl Reading {
    /// The content of the first of these pieces.
    fn get(&mut self, pieces: &[Piece]) -> Result<std::result::Result<Arc<Vec<u8>>, String>> {
        let Some(first) = pieces.first() else { return Ok(Ok(Arc::default())) };
        if let Some(at) = self.kept.iter().position(|(id, _)| *id == first.id) {
            let found = self.kept.remove(at);
            let plain = found.map(|(_, plain)| plain).unwrap_or_default();
            self.kept.push_front((first.id, Arc::clone(&plain)));
            self.last = Some(first.id);
            return Ok(Ok(plain));
        }
        // Who has read the one before will read on.
        let reads_on = self.last.is_some() && first.at > 0;
        let mut wanted: Vec<Id> = vec![];
        for piece in pieces.iter().take(if reads_on { AHEAD } else { 1 }) {
            if !wanted.contains(&piece.id) && self.kept.iter().all(|(id, _)| *id != piece.id) {
                wanted.push(piece.id);
            }
        }
        self.channel.ask(wanted.iter().copied());
        let mut result = Err(String::new());
        for (at, id) in wanted.into_iter().enumerate() {
            let taken = self.channel.take()?;
            match taken {
                Ok(plain) => {
                    let plain = Arc::new(plain);
                    if at == 0 {
                        result = Ok(Arc::clone(&plain));
                    }
                    self.bytes += plain.len();
                    self.kept.push_front((id, plain));
                }
                Err(lack) if at == 0 => result = Err(lack.why),
                Err(_) => {}
            }
        }
        while self.bytes > KEPT && self.kept.len() > AHEAD {
            self.bytes -= self.kept.pop_back().map_or(0, |(_, plain)| plain.len());
        }
        self.last = Some(first.id);
        Ok(result)
    }
}

impl Files {
    fn find(&self, number: INodeNo) -> Option<(u32, &Node)> {
        let number = u32::try_from(u64::from(number).checked_sub(1)?).ok()?;
        Some((number, self.tree.node(number)?))
    }

    fn read_at(&self, node: &Node, offset: u64, size: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(size.min(1 << 20));
        let end = node.size.min(offset.saturating_add(size as u64));
        let mut at = offset;
        while at < end {
            let pieces = self.tree.pieces(node, at);
            let piece = pieces.first()?;
            let plain = match self.reading.lock().unwrap_or_else(PoisonError::into_inner).get(pieces) {
                Ok(Ok(plain)) if plain.len() == piece.size as usize => plain,
                Ok(Ok(_)) => {
                    (self.complain)(&format!("object {} has another size than the archive says", piece.id));
                    return None;
                }
                Ok(Err(why)) => {
                    (self.complain)(&why);
                    return None;
                }
                Err(e) => {
                    (self.complain)(&e.to_string());
                    return None;
                }
            };
            let first = usize::try_from(at - piece.at).ok()?;
            let last = plain.len().min(usize::try_from(end - piece.at).ok()?);
            out.extend_from_slice(plain.get(first..last)?);
            at = piece.at + last as u64;
        }
        Some(out)
    }
}

fn time(nanoseconds: i128) -> SystemTime {
    let distance = u64::try_from(nanoseconds.unsigned_abs()).map_or(Duration::ZERO, Duration::from_nanos);
    let moved = if nanoseconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    moved.unwrap_or(UNIX_EPOCH)
}

fn kind(node: &Node) -> FileType {
    match Kind::of_mode(node.mode) {
        Kind::Directory => FileType::Directory,
        Kind::Link => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Character => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::File | Kind::Unknown => FileType::RegularFile,
    }
}

fn attributes(number: u32, node: &Node) -> FileAttr {
    let target = node.more.as_ref().map_or(0, |more| more.target.len() as u64);
    let size = if Kind::of_mode(node.mode) == Kind::Link { target } else { node.size };
    FileAttr {
        ino: inode(number),
        size,
        blocks: size.div_ceil(512),
        atime: time(node.atime),
        mtime: time(node.mtime),
        ctime: time(node.mtime),
        crtime: time(node.mtime),
        kind: kind(node),
        perm: (node.mode & 0o7777) as u16,
        nlink: node.links,
        uid: node.uid,
        gid: node.gid,
        rdev: node.device,
        blksize: 1 << 17,
        flags: 0,
    }
}

fn inode(number: u32) -> INodeNo {
    INodeNo(u64::from(number) + 1)
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.find(parent).and_then(|(parent, _)| self.tree.entry(parent, name.as_bytes()));
        match found.and_then(|number| Some((number, self.tree.node(number)?))) {
            Some((number, node)) => reply.entry(&FOR_EVER, &attributes(number, node), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.find(number) {
            Some((number, node)) => reply.attr(&FOR_EVER, &attributes(number, node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.find(number).and_then(|(_, node)| node.more.as_ref()) {
            Some(more) => reply.data(&more.target),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.find(number).map(|(_, node)| self.read_at(node, offset, size as usize)) {
            Some(Some(bytes)) => reply.data(&bytes),
            Some(None) => reply.error(Errno::EIO),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some((own, node)) = self.find(number) else { return reply.error(Errno::ENOENT) };
        let dots = [(b".".as_slice(), own), (b"..".as_slice(), if own == ROOT { ROOT } else { node.parent })];
        let entries = dots.into_iter().chain(node.entries.iter().map(|(name, number)| (&**name, *number)));
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, number)) in entries.enumerate().skip(offset) {
            let Some(node) = self.tree.node(number) else { continue };
            if reply.add(inode(number), at as u64 + 1, kind(node), OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let xattrs = self.find(number).and_then(|(_, node)| node.more.as_ref()).map(|more| &more.xattrs);
        match xattrs.into_iter().flatten().find(|(known, _)| known == name.as_bytes()) {
            Some((_, value)) => answer(value.as_deref().unwrap_or_default(), size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let xattrs = self.find(number).and_then(|(_, node)| node.more.as_ref()).map(|more| &more.xattrs);
        let names: Vec<u8> = xattrs.into_iter().flatten().flat_map(|(name, _)| [name.as_slice(), b"\0"].concat()).collect();
        answer(&names, size, reply);
    }
}

fn answer(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(size) if room == 0 => reply.size(size),
        Ok(size) if size <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}
