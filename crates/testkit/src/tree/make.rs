//! Making a source tree.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{geteuid, mkfifo};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};

use super::Random;

/// What a tree is made of, besides one of everything.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The same seed gives the same tree, content and times included.
    pub seed: u64,
    /// How many small files there are in `many/`, 50 to a directory.
    pub files: usize,
    /// The size of the big incompressible file in bytes.
    pub big: usize,
}

impl Default for Spec {
    /// About 5 MiB and 100 files: big enough for more than one chunk, small enough for a row of the matrix.
    fn default() -> Self {
        Self { seed: 1, files: 60, big: 3 << 20 }
    }
}

/// What could be made on this machine, and what could not.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Kinds of things that are not in the tree, each with the reason (`character device: not root`).
    pub left_out: Vec<String>,
}

/// The moment of the tree's first file: 2021-03-04 05:06:07 UTC. Later ones follow in odd steps.
const FIRST_TIME: i64 = 1_614_834_367;

/// Makes a tree in `root`, which must not exist or be empty.
///
/// Left out of a tree, because Borg 1.x cannot keep them: sockets, times before 1970 and after 2038, the times
/// of access and change.
///
/// # Panics
/// When something that works on every Linux file system fails.
pub fn make(root: &Path, spec: Spec) -> Made {
    let mut builder = Builder { root, random: Random::new(spec.seed), made: Made::default() };
    fs::create_dir_all(root).expect("the tree's directory can be made");
    builder.contents(spec.big);
    builder.many(spec.files);
    builder.names();
    builder.modes();
    builder.links();
    builder.special();
    builder.attributes();
    builder.owners();
    // Last: everything above changes times of files and directories.
    set_times(root, &mut Random::new(!spec.seed));
    builder.odd_times();
    builder.made
}

struct Builder<'a> {
    root: &'a Path,
    random: Random,
    made: Made,
}

impl Builder<'_> {
    fn at(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(Path::new(relative.as_ref()))
    }

    fn directory(&self, relative: &str) -> PathBuf {
        let path = self.at(relative);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn file(&self, relative: impl AsRef<OsStr>, content: &[u8]) -> PathBuf {
        let path = self.at(relative);
        fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn contents(&mut self, big: usize) {
        self.directory("contents/deep/er/and/deeper");
        self.directory("contents/empty directory");
        self.file("contents/empty", b"");
        self.file("contents/one byte", b"x");
        let random = self.random.bytes(big);
        self.file("contents/incompressible", &random);
        let text = self.random.text(700_000);
        self.file("contents/compressible.txt", &text);
        self.file("contents/zeros", &vec![0; 1_500_000]);
        self.file("contents/deep/er/and/deeper/file", b"deep down");
        // The same bytes twice, and the same bytes at another offset.
        self.file("contents/deep/copy of incompressible", &random);
        let mut shifted = self.random.bytes(4099);
        shifted.extend_from_slice(&random);
        self.file("contents/deep/shifted", &shifted);
        self.sparse();
    }

    /// 8 MiB with 1000 bytes of data in the middle and at the end.
    fn sparse(&mut self) {
        let path = self.at("contents/sparse");
        let mut file = File::create(&path).expect("a file can be made");
        let data = self.random.bytes(1000);
        file.set_len(8 << 20).expect("a file can be made longer");
        file.write_all_at(&data, 4 << 20).expect("it can be filled");
        file.write_all_at(&data, (8 << 20) - 1000).expect("it can be filled");
        file.flush().expect("it can be flushed");
    }

    fn many(&mut self, files: usize) {
        for number in 0..files {
            let directory = format!("many/{:04}", number / 50);
            if number % 50 == 0 {
                self.directory(&directory);
            }
            let length = self.random.below(9000) as usize;
            let content = match number % 3 {
                0 => self.random.bytes(length),
                _ => self.random.text(length),
            };
            self.file(format!("{directory}/file-{number:06}"), &content);
        }
    }

    fn names(&mut self) {
        self.directory("names");
        let names: [&[u8]; 14] = [
            b"with space",
            b"  two spaces at both ends  ",
            b"-leading-dash",
            b"--exclude",
            b"new\nline",
            b"tab\tand\rreturn",
            b"back\\slash",
            b"quote'and\"quote",
            b"{now} and $HOME and `id`",
            b"*?[a-z]",
            "gr\u{fc}\u{df}e \u{1f980}".as_bytes(),
            b"caf\xe9 is Latin-1",
            b"\xff\xfe\x80 is nothing",
            &[b'n'; 255],
        ];
        for name in names {
            let path = self.at("names").join(OsStr::from_bytes(name));
            fs::write(&path, name).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        let directory = self.at("names").join(OsStr::from_bytes(b"dir\xe9ctory"));
        fs::create_dir(&directory).expect("a directory can be made");
        fs::write(directory.join("inside"), b"inside").expect("a file can be made");
    }

    fn modes(&mut self) {
        self.directory("modes");
        for mode in [0o400, 0o600, 0o644, 0o755, 0o777, 0o2755, 0o4755, 0o6711] {
            let path = self.file(format!("modes/file {mode:04o}"), b"mode");
            permit(&path, mode);
        }
        for mode in [0o700, 0o755, 0o1777, 0o2770] {
            let path = self.directory(&format!("modes/dir {mode:04o}"));
            permit(&path, mode);
        }
    }

    fn links(&mut self) {
        self.directory("links/below");
        let links: [(&[u8], &[u8]); 5] = [
            (b"../contents/one byte", b"relative"),
            (b"/etc/hostname", b"absolute"),
            (b"there is\xff no such thing", b"dangling"),
            (b"../contents", b"to a directory"),
            (b".", b"to itself"),
        ];
        for (target, name) in links {
            let path = self.at("links").join(OsStr::from_bytes(name));
            symlink(OsStr::from_bytes(target), path).expect("a symlink can be made");
        }
        let first = self.file("links/hard 1", b"one file, three names");
        for name in ["links/hard 2", "links/below/hard 3"] {
            fs::hard_link(&first, self.at(name)).expect("a hard link can be made");
        }
        let content = self.random.bytes(200_000);
        let big = self.file("links/below/big hard 1", &content);
        fs::hard_link(&big, self.at("links/big hard 2")).expect("a hard link can be made");
        let empty = self.file("links/empty hard 1", b"");
        fs::hard_link(&empty, self.at("links/empty hard 2")).expect("a hard link can be made");
    }

    fn special(&mut self) {
        self.directory("special");
        let fifo = self.at("special/fifo");
        mkfifo(&fifo, Mode::from_bits_truncate(0o640)).expect("a fifo can be made");
        permit(&fifo, 0o640);
        let mode = Mode::from_bits_truncate(0o600);
        for (name, kind, device) in [("character device", SFlag::S_IFCHR, makedev(1, 3)), ("block device", SFlag::S_IFBLK, makedev(7, 200))]
        {
            if let Err(error) = mknod(&self.at(format!("special/{name}")), kind, mode, device) {
                self.made.left_out.push(format!("{name}: {error}"));
            }
        }
    }

    fn attributes(&mut self) {
        self.directory("attributes/directory");
        let file = self.file("attributes/file", b"with attributes");
        let both = [file.clone(), self.at("attributes/directory")];
        for (name, value) in [("user.borgcube", b"a value".as_slice()), ("user.binary", b"\x00\xff\x01 not text"), ("user.empty", b"")] {
            for path in &both {
                if let Err(error) = lsetxattr(path, name, value, XattrFlags::empty()) {
                    self.made.left_out.push(format!("{name}: {error}"));
                }
            }
        }
        self.file("attributes/with acl", b"access control list");
        for (entries, relative) in [("u:65534:rw-,g:12345:r--", "attributes/with acl"), ("d:u:65534:rwx", "attributes/directory")] {
            if let Err(error) = set_acl(entries, &self.at(relative)) {
                self.made.left_out.push(format!("acl {relative}: {error}"));
            }
        }
    }

    fn owners(&mut self) {
        if !geteuid().is_root() {
            self.made.left_out.push("other owners: not root".into());
            return;
        }
        self.directory("owners");
        let known = self.file("owners/of a known user", b"nobody's");
        let unknown = self.file("owners/of nobody known", b"54321's");
        lchown(&known, Some(65534), Some(65534)).expect("root can give files away");
        lchown(&unknown, Some(54321), Some(54322)).expect("root can give files away");
        let link = self.at("owners/link");
        symlink("of nobody known", &link).expect("a symlink can be made");
        lchown(&link, Some(54321), Some(54322)).expect("root can give links away");
    }

    fn odd_times(&mut self) {
        set_time(&self.at("contents/empty"), 0, 1);
        set_time(&self.at("contents/one byte"), 2_147_000_000, 999_999_999);
        set_time(&self.at("links/dangling"), 981_173_106, 123_456_789);
        set_time(&self.at("special/fifo"), 1_000_000_000, 100);
    }
}

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn set_acl(entries: &str, path: &Path) -> Result<(), String> {
    let output = Command::new("setfacl")
        .args(["-m", entries])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("setfacl: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Sets the time of modification, of a symlink itself where it is one; that of access follows.
pub(super) fn set_time(path: &Path, seconds: i64, nanoseconds: u32) {
    let name = CString::new(path.as_os_str().as_bytes()).expect("no zero byte in a path");
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, name.as_c_str(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap_or_else(|e| panic!("time of {}: {e}", path.display()));
}

/// Gives everything in the tree a time of its own, children before their directory.
fn set_times(path: &Path, random: &mut Random) {
    let kind = fs::symlink_metadata(path).expect("it was just made");
    if kind.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(path).expect("a directory we made can be read").flatten().map(|entry| entry.path()).collect();
        // The order of a directory is an accident; the same seed must give the same tree.
        inside.sort();
        for child in inside {
            set_times(&child, random);
        }
    }
    let seconds = FIRST_TIME + random.below(100_000_000) as i64;
    set_time(path, seconds, random.below(1_000_000_000) as u32);
}
