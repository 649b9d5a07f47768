//! An archive, or a part of it, as a tar archive; and the content of single files.

use crate::Complain;
use crate::error::{Error, Result};
use crate::feed::{Chosen, Feed, stated};
use crate::kind::Kind;
use crate::links::Body;
use crate::selection::Selection;
use crate::source::Source;
use crate::tar::{Entry, Tar, Type};
use borg::item::Item;
use std::io::Write;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Items.
    pub items: u64,
    /// Bytes of content.
    pub content: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// Zeros in place of what is missing.
pub(crate) static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Writes a tar archive. A file whose content is not whole has zeros in place of what is missing, and is complained of.
pub fn tar(source: &Source, selection: &mut Selection, out: impl Write, complain: &mut Complain<'_>) -> Result<Written> {
    let mut feed = Feed::open(source, selection, true)?;
    let mut tar = Tar::new(out);
    let mut written = entries(&mut feed, &mut tar, complain)?;
    written.bytes = tar.finish().map_err(Error::Output)?;
    Ok(written)
}

/// Everything of a tar archive but its end: whoever has more to say may add it.
pub fn entries<W: Write>(feed: &mut Feed<'_>, tar: &mut Tar<W>, complain: &mut Complain<'_>) -> Result<Written> {
    let mut written = Written::default();
    let failed = Error::Output;
    while let Some(chosen) = feed.next(complain)? {
        let Some(entry) = entry(&chosen) else {
            complain(Some(&chosen.item.path), "a tar archive cannot hold what it is");
            continue;
        };
        tar.entry(&entry).map_err(failed)?;
        written.items += 1;
        written.content += entry.size;
        if entry.size > 0 {
            content(feed, &chosen.item, entry.size, tar, complain)?;
            tar.pad().map_err(failed)?;
        }
        if !feed.is_ready() {
            tar.flush().map_err(failed)?;
        }
    }
    written.bytes = tar.written();
    Ok(written)
}

fn entry(chosen: &Chosen) -> Option<Entry<'_>> {
    let Chosen { item, name, body } = chosen;
    let (kind, target) = match (Kind::of(item), body) {
        (Kind::File, Body::LinkTo(master)) => (Type::HardLink, master.as_slice()),
        (Kind::File, _) => (Type::File, b"".as_slice()),
        (Kind::Directory, _) => (Type::Directory, b"".as_slice()),
        (Kind::Link, _) => (Type::Link, item.source.as_deref().unwrap_or_default()),
        (Kind::Fifo, _) => (Type::Fifo, b"".as_slice()),
        (Kind::Character, _) => (Type::Character, b"".as_slice()),
        (Kind::Block, _) => (Type::Block, b"".as_slice()),
        (Kind::Unknown, _) => return None,
    };
    let size = match body {
        Body::Chunks(chunks) if kind == Type::File => chunks.iter().map(|chunk| u64::from(stated(chunk))).sum(),
        _ => 0,
    };
    Some(Entry {
        name,
        kind,
        mode: item.mode.unwrap_or(0),
        uid: item.uid.unwrap_or(0),
        gid: item.gid.unwrap_or(0),
        size,
        mtime: seconds(item.mtime),
        target,
        user: known(&item.user),
        group: known(&item.group),
        device: device_numbers(item.rdev.unwrap_or(0)),
    })
}

/// As Python has them, by way of a floating-point number: a last nanosecond of a second may become the next second. The same bytes as
/// `borg export-tar` are worth more than that.
fn seconds(nanoseconds: i128) -> i64 {
    (nanoseconds as f64 / 1e9) as i64
}

fn known(name: &Option<Option<Vec<u8>>>) -> &[u8] {
    name.as_ref().and_then(|name| name.as_deref()).unwrap_or_default()
}

/// Major and minor number (Linux).
#[must_use]
pub fn device_numbers(device: u64) -> (u32, u32) {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & 0xffff_f000);
    let minor = (device & 0xff) | ((device >> 12) & 0xffff_ff00);
    (major as u32, minor as u32)
}

/// Writes exactly `size` bytes.
fn content(feed: &mut Feed<'_>, item: &Item, size: u64, tar: &mut impl Write, complain: &mut Complain<'_>) -> Result<()> {
    let mut left = size;
    let mut trouble = Trouble::default();
    while let Some((size_of_chunk, chunk)) = feed.chunk(complain)? {
        let stated = u64::from(size_of_chunk);
        match chunk {
            Ok(plain) => {
                let fits = plain.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                tar.write_all(&plain[..fits]).map_err(Error::Output)?;
                left -= fits as u64;
                trouble.sizes |= plain.len() as u64 != stated;
            }
            Err(lack) => {
                let gap = stated.min(left);
                zeros(tar, gap)?;
                trouble.lacks(size - left, gap, lack.why);
                left -= gap;
            }
        }
    }
    zeros(tar, left)?;
    trouble.sizes |= left > 0 || item.size.is_some_and(|stated| stated != size);
    trouble.tell(item, complain);
    Ok(())
}

fn zeros(out: &mut impl Write, mut count: u64) -> Result<()> {
    while count > 0 {
        let part = count.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..part as usize]).map_err(Error::Output)?;
        count -= part;
    }
    Ok(())
}

/// Said of a file with `chunks_healthy`: its chunks are whole, and not what the client had.
pub(crate) const REPAIRED: &str = "it was damaged before: borg check --repair has put zeros in place of what was lost";

/// What is wrong with the content of one file.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    count: u64,
    bytes: u64,
    first: Option<(u64, String)>,
    /// Something has another size than the archive says.
    pub(crate) sizes: bool,
}

impl Trouble {
    /// `bytes` from `at` on are zeros, because of what is lacking.
    pub(crate) fn lacks(&mut self, at: u64, bytes: u64, why: String) {
        self.count += 1;
        self.bytes += bytes;
        self.first.get_or_insert((at, why));
    }

    /// Whether anything is.
    pub(crate) fn is_any(&self) -> bool {
        self.count > 0 || self.sizes
    }

    /// Complains, once for each kind of trouble.
    pub(crate) fn tell(self, item: &Item, complain: &mut Complain<'_>) {
        if let Some((at, why)) = self.first {
            let more = if self.count > 1 { format!(" ({} such pieces)", self.count) } else { String::new() };
            let text = format!("{} bytes of it are lost and were replaced by zeros, from byte {at} on{more}: {why}", self.bytes);
            complain(Some(&item.path), &text);
        }
        if self.sizes {
            complain(Some(&item.path), "its size is not what the archive says");
        }
        if item.chunks_healthy.is_some() {
            complain(Some(&item.path), REPAIRED);
        }
    }
}

/// The selection for [`file`]: what has exactly this path.
pub fn file_selection(path: &[u8]) -> Result<Selection> {
    let nothing: [&[u8]; 0] = [];
    Selection::new(&[[b"pf:", path].concat()], &nothing, 0)
}

/// The one file of a feed over [`file_selection`], and the bytes of its content; or why there is none to be read.
pub fn file(feed: &mut Feed<'_>, complain: &mut Complain<'_>) -> Result<std::result::Result<(Item, u64), &'static str>> {
    let Some(Chosen { item, body, .. }) = feed.next(complain)? else { return Ok(Err("the archive has no such file")) };
    Ok(Err(match (Kind::of(&item), body) {
        (Kind::File, Body::LinkTo(_)) => "what it is a hard link to is not in the archive",
        (Kind::File, Body::Chunks(chunks)) => return Ok(Ok((item, chunks.iter().map(|chunk| u64::from(chunk.size)).sum()))),
        (Kind::File, Body::Itself) => return Ok(Ok((item, 0))),
        (Kind::Directory, _) => "it is a directory",
        (Kind::Link, _) => "it is a symbolic link; name the file that it leads to",
        _ => "it has no content: it is no file",
    }))
}

/// Writes the content of one file, up to the first piece that is missing. False if it is not there, or not whole.
pub fn cat(source: &Source, path: &[u8], out: &mut impl Write, complain: &mut Complain<'_>) -> Result<bool> {
    let mut selection = file_selection(path)?;
    let mut feed = Feed::open(source, &mut selection, true)?;
    match file(&mut feed, complain)? {
        Ok((item, _)) => pour(&mut feed, &item, out, complain),
        Err(what) => {
            complain(Some(path), what);
            Ok(false)
        }
    }
}

/// Writes the content of what [`file`] has found, up to the first piece that is missing. False if it is not whole.
pub fn pour(feed: &mut Feed<'_>, item: &Item, out: &mut impl Write, complain: &mut Complain<'_>) -> Result<bool> {
    let mut at = 0_u64;
    while let Some((_, chunk)) = feed.chunk(complain)? {
        match chunk {
            Ok(plain) => {
                out.write_all(&plain).map_err(Error::Output)?;
                at += plain.len() as u64;
            }
            Err(lack) => {
                complain(Some(&item.path), &format!("it breaks off at byte {at}: {}", lack.why));
                return Ok(false);
            }
        }
    }
    let trouble = Trouble { sizes: item.size.is_some_and(|stated| stated != at), ..Trouble::default() };
    let is_whole = !trouble.sizes && item.chunks_healthy.is_none();
    trouble.tell(item, complain);
    Ok(is_whole)
}
