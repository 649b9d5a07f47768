//! Tar archives in the GNU form, byte for byte as Python's tarfile writes them, which is what `borg export-tar` uses.
//!
//! Our own and no library's: those that there are refuse names that an archive of files may have, and know no times before 1970.

use std::io::{self, Write};

/// Tar: everything comes in blocks of this size,
const BLOCK: usize = 512;

/// and a whole archive in records of this one.
const RECORD: u64 = 10_240;

const NAME: usize = 100;
const OWNER: usize = 32;

/// What an entry is; the byte that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// A file with content.
    File = b'0',
    /// Another name of an earlier file.
    HardLink = b'1',
    /// A symbolic link.
    Link = b'2',
    /// A character device.
    Character = b'3',
    /// A block device.
    Block = b'4',
    /// A directory.
    Directory = b'5',
    /// A named pipe.
    Fifo = b'6',
}

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its path.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Type,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Bytes of content that will follow.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Where a link leads.
    pub target: &'a [u8],
    /// Owner's name.
    pub user: &'a [u8],
    /// Group's name.
    pub group: &'a [u8],
    /// Of devices.
    pub device: (u32, u32),
}

/// Writes entries. Content goes through [`Write`], and [`Tar::pad`] ends it.
#[derive(Debug)]
pub struct Tar<W: Write> {
    out: W,
    written: u64,
}

impl<W: Write> Tar<W> {
    /// An empty archive.
    pub fn new(out: W) -> Tar<W> {
        Tar { out, written: 0 }
    }

    /// Bytes so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// An entry's header; `size` bytes of content have to follow.
    pub fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let name = match entry.kind {
            Type::Directory if !entry.name.ends_with(b"/") => [entry.name, b"/"].concat(),
            _ => entry.name.to_vec(),
        };
        if entry.target.len() > NAME {
            self.long(b'K', entry.target)?;
        }
        if name.len() > NAME {
            self.long(b'L', &name)?;
        }
        let device = matches!(entry.kind, Type::Character | Type::Block).then_some(entry.device);
        let header = Header {
            name: &name,
            kind: entry.kind as u8,
            numbers: [i128::from(entry.mode & 0o7777), entry.uid.into(), entry.gid.into(), entry.size.into(), entry.mtime.into()],
            target: entry.target,
            user: entry.user,
            group: entry.group,
            device,
        };
        self.write_all(&header.bytes())
    }

    /// A name that is too long for a header is the content of an entry of its own before it.
    fn long(&mut self, kind: u8, name: &[u8]) -> io::Result<()> {
        let size = name.len() as u64 + 1;
        let numbers = [0, 0, 0, i128::from(size), 0];
        let header = Header { name: b"././@LongLink", kind, numbers, target: b"", user: b"", group: b"", device: None };
        self.write_all(&header.bytes())?;
        self.write_all(name)?;
        self.write_all(&[0])?;
        self.pad()
    }

    /// Fills up the last block of an entry's content.
    pub fn pad(&mut self) -> io::Result<()> {
        let over = (self.written % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.write_all(&[0; BLOCK][over..]) }
    }

    /// The end of the archive; gives the number of its bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        self.write_all(&[0; 2 * BLOCK])?;
        let over = self.written % RECORD;
        if over > 0 {
            self.write_all(&[0; RECORD as usize][over as usize..])?;
        }
        self.out.flush()?;
        Ok(self.written)
    }
}

impl<W: Write> Write for Tar<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Header<'a> {
    name: &'a [u8],
    kind: u8,
    /// Mode, owner, group, size, time.
    numbers: [i128; 5],
    target: &'a [u8],
    user: &'a [u8],
    group: &'a [u8],
    device: Option<(u32, u32)>,
}

impl Header<'_> {
    fn bytes(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let [mode, uid, gid, size, time] = self.numbers;
        put(&mut block, 0, NAME, self.name);
        number(&mut block[100..108], mode);
        number(&mut block[108..116], uid);
        number(&mut block[116..124], gid);
        number(&mut block[124..136], size);
        number(&mut block[136..148], time);
        // The sum counts itself as blanks.
        block[148..156].fill(b' ');
        block[156] = self.kind;
        put(&mut block, 157, NAME, self.target);
        block[257..265].copy_from_slice(b"ustar  \0");
        put(&mut block, 265, OWNER, self.user);
        put(&mut block, 297, OWNER, self.group);
        if let Some((major, minor)) = self.device {
            number(&mut block[329..337], major.into());
            number(&mut block[337..345], minor.into());
        }
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, room: usize, text: &[u8]) {
    let length = text.len().min(room);
    block[at..at + length].copy_from_slice(&text[..length]);
}

/// Octal digits and a zero byte; what does not fit is binary, behind a byte that says so (GNU). What does not fit there either is the nearest that
/// does.
fn number(field: &mut [u8], value: i128) {
    let digits = field.len() as u32 - 1;
    if (0..8_i128.pow(digits)).contains(&value) {
        let text = format!("{value:0width$o}\0", width = digits as usize);
        field.copy_from_slice(text.as_bytes());
        return;
    }
    let limit = 256_i128.pow(digits);
    let bytes = value.clamp(-limit, limit - 1).to_be_bytes();
    let (first, rest) = field.split_at_mut(1);
    first[0] = if value < 0 { 0xff } else { 0x80 };
    rest.copy_from_slice(&bytes[bytes.len() - rest.len()..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(uid: i64, size: u64, mtime: i64) -> Vec<u8> {
        let mut tar = Tar::new(vec![]);
        let name = [b'n'; 101];
        let entry = Entry {
            name: &name,
            kind: Type::File,
            mode: 0o100_644,
            uid,
            gid: 0,
            size,
            mtime,
            target: b"",
            user: b"root",
            group: b"",
            device: (0, 0),
        };
        tar.entry(&entry).unwrap();
        tar.out
    }

    #[test]
    fn numbers_that_fit_are_octal_and_others_binary() {
        let bytes = header(1000, 8 << 30, -1);
        assert_eq!(bytes.len(), 3 * BLOCK, "a long name has a header and a block of its own");
        assert_eq!(&bytes[..13], b"././@LongLink");
        let own = &bytes[2 * BLOCK..];
        assert_eq!(&own[108..116], b"0001750\0");
        assert_eq!(&own[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(&own[136..148], [0xff; 12]);
        let sum: u32 = own.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
        assert_eq!(&own[148..156], format!("{sum:06o}\0 ").as_bytes());
        // Owners beyond every field.
        let own = &header(i64::MAX, 0, 0)[2 * BLOCK..];
        assert_eq!(&own[108..116], [0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn an_archive_is_whole_records() {
        let mut out = vec![];
        let mut tar = Tar::new(&mut out);
        tar.write_all(b"x").unwrap();
        tar.pad().unwrap();
        assert_eq!(tar.written(), 512);
        assert_eq!(tar.finish().unwrap(), 10_240);
        assert_eq!(out.len(), 10_240);
    }
}
