//! Making files below a directory, and nowhere else, whatever their paths say.
//!
//! Every step down is `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`: no `..`, no absolute path and no symbolic link, of this or any
//! other process's making, leads out. What is made is made with `O_EXCL` and by its name in an opened directory; a name is never followed.

use crate::{Error, Result};
use nix::libc;
use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod, chownat, fchmod,
    fchown, fsetxattr, futimens, ioctl_getflags, ioctl_setflags, linkat, lsetxattr, mkdirat, mknodat, openat, openat2, setxattr, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

/// Linux takes paths of so many bytes in one call, and some for the zero behind.
const LONGEST: usize = 4000;

const DOWN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory below which everything is made.
#[derive(Debug)]
pub struct Root {
    directory: Arc<OwnedFd>,
    /// The last parent: files of one directory follow one another.
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

/// A name in an opened directory.
#[derive(Debug, Clone)]
pub struct Place {
    directory: Arc<OwnedFd>,
    /// Without a slash; `.` for the root itself.
    name: Vec<u8>,
}

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// Anything else.
    Other,
}

/// Something that was made, and can be given its attributes.
#[derive(Debug)]
pub enum Made {
    /// A file, open for writing.
    File(File),
    /// A directory.
    Directory(OwnedFd),
    /// A symbolic link, by its place.
    Link(Place),
    /// A pipe or a device, opened as a name only.
    Special(OwnedFd),
}

/// What the system says about a file that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBack {
    /// Permissions.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Time of modification, nanoseconds since 1970.
    pub mtime: i128,
}

/// File flags, those which both Borg and Linux know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Not to be dumped.
    pub no_dump: bool,
    /// Compressed by the file system.
    pub compressed: bool,
    /// Not to be changed by anybody. Only root can set it.
    pub immutable: bool,
    /// To be appended to only. Only root can set it.
    pub append_only: bool,
}

impl Root {
    /// Opens a directory, which is made (mode 0700) if it is not there. Symbolic links to it are followed: a person named it.
    pub fn open(path: &Path) -> Result<Root> {
        let failed = |e| Error::io(format!("cannot use the directory {}", path.display()), e);
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        Ok(Root { directory: Arc::new(directory), last: None })
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> Result<bool> {
        let failed = |e: Errno| Error::io("cannot list the directory", e);
        let mut entries = rustix::fs::Dir::read_from(&self.directory).map_err(failed)?;
        let others = entries.try_fold(0, |count, entry| {
            let name = entry?.file_name().to_bytes().to_owned();
            Ok(if name == b"." || name == b".." { count } else { count + 1 })
        });
        Ok(others.map_err(failed)? == 0)
    }

    /// The place that a relative path names. Missing parents are made, with mode 0700.
    ///
    /// # Errors
    /// For paths that are absolute, contain `..` or a zero byte, or lead over something that is no directory.
    pub fn place(&mut self, path: &[u8]) -> Result<Place> {
        self.place_at(path, true)
    }

    /// The same; parents must be there.
    pub fn existing_place(&mut self, path: &[u8]) -> Result<Place> {
        self.place_at(path, false)
    }

    fn place_at(&mut self, path: &[u8], make: bool) -> Result<Place> {
        let mut parents = components(path)?;
        let Some(name) = parents.pop() else {
            return Ok(Place { directory: Arc::clone(&self.directory), name: b".".to_vec() });
        };
        let key = parents.join(&b'/');
        if let Some((last, directory)) = &self.last
            && *last == key
        {
            return Ok(Place { directory: Arc::clone(directory), name: name.to_vec() });
        }
        let directory = self.descend(&parents, make).map_err(|e| match e {
            Errno::LOOP => Error::Invalid("a symbolic link is on the way to it, and is not followed".into()),
            Errno::XDEV => Error::Invalid("its path leads out of the target".into()),
            Errno::NOTDIR => Error::Invalid("a file or a symbolic link is on the way to it, and is not followed".into()),
            e => Error::io("cannot go to its directory", e),
        })?;
        self.last = Some((key, Arc::clone(&directory)));
        Ok(Place { directory, name: name.to_vec() })
    }

    /// What was at a place is something else now: no directory that was opened before is trusted to be below it.
    pub fn forget(&mut self) {
        self.last = None;
    }

    fn descend(&self, components: &[&[u8]], make: bool) -> std::result::Result<Arc<OwnedFd>, Errno> {
        let mut at = Arc::clone(&self.directory);
        let mut rest = components;
        while !rest.is_empty() {
            let mut length = 0;
            let many = rest.iter().take_while(|component| {
                length += component.len() + 1;
                length <= LONGEST
            });
            let many = many.count().max(1);
            let (these, others) = rest.split_at(many);
            at = match down(&at, &these.join(&b'/')) {
                Err(Errno::NOENT) if make => make_all(at, these)?,
                other => other?,
            };
            rest = others;
        }
        Ok(at)
    }
}

fn down(from: &OwnedFd, path: &[u8]) -> std::result::Result<Arc<OwnedFd>, Errno> {
    loop {
        match openat2(from, path, DIRECTORY | OFlags::RDONLY, Mode::empty(), DOWN) {
            // Linux: somebody renames directories meanwhile, and it could not be told whether that leads out.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.map(Arc::new),
        }
    }
}

fn make_all(mut at: Arc<OwnedFd>, components: &[&[u8]]) -> std::result::Result<Arc<OwnedFd>, Errno> {
    for component in components {
        match mkdirat(&at, *component, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        at = down(&at, component)?;
    }
    Ok(at)
}

/// The names in a path, without those that mean the same directory.
fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    if path.first() == Some(&b'/') {
        return Err(Error::Invalid("its path is absolute".into()));
    }
    if path.contains(&0) {
        return Err(Error::Invalid("there is a zero byte in its path".into()));
    }
    let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.contains(&b"..".as_slice()) { Err(Error::Invalid("its path contains \"..\"".into())) } else { Ok(names) }
}

impl Place {
    /// Whether it is the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.name == b"."
    }

    fn stat(&self) -> std::result::Result<Stat, Errno> {
        statat(&*self.directory, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// What is there.
    pub fn look(&self) -> Result<Found> {
        match self.stat() {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(Found::Directory),
            Ok(_) => Ok(Found::Other),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(e) => Err(Error::io("cannot look at it", e)),
        }
    }

    /// Removes what is there: anything but a directory that is not empty.
    pub fn clear(&self) -> Result<()> {
        let flags = match self.look()? {
            Found::Nothing => return Ok(()),
            Found::Directory => AtFlags::REMOVEDIR,
            Found::Other => AtFlags::empty(),
        };
        unlinkat(&*self.directory, self.name.as_slice(), flags).map_err(|e| Error::io("cannot remove what is there", e))
    }

    /// A new file, of mode 0600.
    pub fn create(&self) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&*self.directory, self.name.as_slice(), flags, Mode::RUSR | Mode::WUSR);
        Ok(File::from(file.map_err(|e| Error::io("cannot make the file", e))?))
    }

    /// The regular file that is there, open for reading, and what the system says about it.
    pub fn read_back(&self) -> Result<(File, ReadBack)> {
        let stat = self.stat().map_err(|e| Error::io("cannot look at it", e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Invalid("what was made is no file".into()));
        }
        let mode = stat.st_mode & 0o7777;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            openat(&*self.directory, self.name.as_slice(), flags, Mode::empty()).map_err(|e| Error::io("cannot open the file", e))?;
        let mtime = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        Ok((File::from(file), ReadBack { mode, size: u64::try_from(stat.st_size).unwrap_or(0), mtime }))
    }

    /// A new directory, of mode 0700, unless there is one.
    pub fn make_directory(&self) -> Result<()> {
        match mkdirat(&*self.directory, self.name.as_slice(), Mode::RWXU) {
            Err(Errno::EXIST) if matches!(self.look(), Ok(Found::Directory)) => Ok(()),
            other => other.map_err(|e| Error::io("cannot make the directory", e)),
        }
    }

    /// A symbolic link to whatever; it is never followed here.
    pub fn symlink(&self, target: &[u8]) -> Result<Made> {
        symlinkat(target, &*self.directory, self.name.as_slice()).map_err(|e| Error::io("cannot make the symbolic link", e))?;
        Ok(Made::Link(self.clone()))
    }

    /// A named pipe, or a device of that number (Linux: as in `st_rdev`); `mode` is `st_mode`.
    pub fn special(&self, mode: u32, device: u64) -> Result<Made> {
        let kind = FileType::from_raw_mode(mode);
        let made = mknodat(&*self.directory, self.name.as_slice(), kind, Mode::RUSR | Mode::WUSR, device);
        made.map_err(|e| Error::io(if kind == FileType::Fifo { "cannot make the pipe" } else { "cannot make the device" }, e))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&*self.directory, self.name.as_slice(), flags, Mode::empty());
        Ok(Made::Special(opened.map_err(|e| Error::io("cannot open what was made", e))?))
    }

    /// A hard link to what is at another place; a symbolic link there is not followed.
    pub fn link(&self, source: &Place) -> Result<()> {
        linkat(&*source.directory, source.name.as_slice(), &*self.directory, self.name.as_slice(), AtFlags::empty())
            .map_err(|e| Error::io("cannot make the hard link", e))
    }

    /// The directory that is there.
    pub fn directory(&self) -> Result<Made> {
        let flags = if self.is_root() { OFlags::DIRECTORY | OFlags::CLOEXEC } else { DIRECTORY };
        let opened = openat(&*self.directory, self.name.as_slice(), flags | OFlags::RDONLY, Mode::empty());
        Ok(Made::Directory(opened.map_err(|e| Error::io("cannot open the directory", e))?))
    }
}

impl Made {
    /// Gives it away. Bits of its mode and capabilities may go with that (Linux), so this comes first.
    pub fn set_owner(&self, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let done = match self {
            Made::File(file) => fchown(file, uid, gid),
            Made::Directory(directory) => fchown(directory, uid, gid),
            Made::Link(place) => chownat(&*place.directory, place.name.as_slice(), uid, gid, AtFlags::SYMLINK_NOFOLLOW),
            Made::Special(node) => chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH),
        };
        done.map_err(|e| Error::io("cannot set its owner", e))
    }

    /// Permissions; a symbolic link has none.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let done = match self {
            Made::File(file) => fchmod(file, mode),
            Made::Directory(directory) => fchmod(directory, mode),
            Made::Link(_) => Ok(()),
            Made::Special(node) => chmod(own(node).as_str(), mode),
        };
        done.map_err(|e| Error::io("cannot set its permissions", e))
    }

    /// An extended attribute.
    pub fn set_attribute(&self, name: &[u8], value: &[u8]) -> Result<()> {
        let none = XattrFlags::empty();
        let done = match self {
            Made::File(file) => fsetxattr(file, name, value, none),
            Made::Directory(directory) => fsetxattr(directory, name, value, none),
            Made::Link(place) => {
                let path = [own(&place.directory).as_bytes(), b"/", &place.name].concat();
                lsetxattr(path, name, value, none)
            }
            Made::Special(node) => setxattr(own(node).as_str(), name, value, none),
        };
        done.map_err(|e| Error::io(format!("cannot set its attribute {}", crate::logging::escape_bytes(name)), e))
    }

    /// Times of access and modification, nanoseconds since 1970.
    pub fn set_times(&self, access: i128, modification: i128) -> Result<()> {
        let times = Timestamps { last_access: time(access), last_modification: time(modification) };
        let done = match self {
            Made::File(file) => futimens(file, &times),
            Made::Directory(directory) => futimens(directory, &times),
            Made::Link(place) => utimensat(&*place.directory, place.name.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW),
            Made::Special(node) => utimensat(rustix::fs::CWD, own(node).as_str(), &times, AtFlags::empty()),
        };
        done.map_err(|e| Error::io("cannot set its times", e))
    }

    /// Sets those flags that are asked for, on files and directories.
    pub fn set_flags(&self, flags: Flags) -> Result<()> {
        let set = |fd: BorrowedFd<'_>| {
            let mut all = ioctl_getflags(fd)?;
            all.set(IFlags::NODUMP, flags.no_dump || all.contains(IFlags::NODUMP));
            all.set(IFlags::COMPRESSED, flags.compressed || all.contains(IFlags::COMPRESSED));
            all.set(IFlags::IMMUTABLE, flags.immutable);
            all.set(IFlags::APPEND, flags.append_only);
            ioctl_setflags(fd, all)
        };
        let done = match self {
            Made::File(file) => set(file.as_fd()),
            Made::Directory(directory) => set(directory.as_fd()),
            Made::Link(_) | Made::Special(_) => Ok(()),
        };
        done.map_err(|e| Error::io("cannot set its flags", e))
    }
}

/// The system's name for what a descriptor of ours refers to: for calls that take no descriptor that is a name only.
fn own(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Times that the system does not know become the nearest that it does.
fn time(nanoseconds: i128) -> Timespec {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let rest = nanoseconds.rem_euclid(1_000_000_000);
    match i64::try_from(seconds) {
        Ok(tv_sec) => Timespec { tv_sec, tv_nsec: rest as libc::c_long },
        Err(_) => Timespec { tv_sec: if seconds < 0 { i64::MIN } else { i64::MAX }, tv_nsec: 0 },
    }
}
