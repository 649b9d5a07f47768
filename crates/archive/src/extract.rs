//! An archive, or a part of it, as files below a directory.
//!
//! An archive is what a client wrote: it may say that a file is to go anywhere. Everything is made by [`unix::beneath`], which goes nowhere but down,
//! over no symbolic link, whoever made it.

use crate::Complain;
use crate::attributes::{self, Attributes, LeftOut};
use crate::error::{Error, Result};
use crate::export::{Trouble, ZEROS};
use crate::feed::{Chosen, Feed};
use crate::kind::Kind;
use crate::links::Body;
use crate::selection::Selection;
use crate::source::Source;
use borg::item::Item;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use unix::beneath::{Found, Made, Root};

/// What is so long and only zeros becomes a hole.
const HOLE: usize = 4096;

/// Directories that are open in the sense of the archive wait for their attributes; so many bytes of them.
const MOST_WEIGHT: usize = 64 << 20;

/// How to extract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which attributes.
    pub attributes: attributes::Options,
    /// The target may have something in it: what has the name of an item is replaced.
    pub overwrite: bool,
}

/// What was done, up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extracted {
    /// Items.
    pub items: u64,
    /// Bytes of content.
    pub content: u64,
    /// What was left out on purpose.
    pub left_out: LeftOut,
}

/// Reads everything that would be extracted, and makes nothing.
pub fn dry_run(
    source: &Source,
    selection: &mut Selection,
    progress: &mut dyn FnMut(&Extracted),
    complain: &mut Complain<'_>,
) -> Result<Extracted> {
    let mut feed = Feed::open(source, selection, true)?;
    let mut done = Extracted::default();
    while let Some(Chosen { item, .. }) = feed.next(complain)? {
        done.items += 1;
        let (mut trouble, mut at) = (Trouble::default(), 0);
        while let Some((stated, chunk)) = feed.chunk(complain)? {
            match chunk {
                Ok(plain) => at += plain.len() as u64,
                Err(lack) => {
                    trouble.lacks(at, stated.into(), lack.why);
                    at += u64::from(stated);
                }
            }
        }
        done.content += at;
        trouble.sizes = Kind::of(&item) == Kind::File && item.source.is_none() && item.size.is_some_and(|stated| stated != at);
        trouble.tell(&item, complain);
        progress(&done);
    }
    Ok(done)
}

/// Extracts into `target`, which is made if it is not there.
pub fn extract(
    source: &Source,
    selection: &mut Selection,
    target: &Path,
    options: Options,
    progress: &mut dyn FnMut(&Extracted),
    complain: &mut Complain<'_>,
) -> Result<Extracted> {
    let root = Root::open(target).map_err(Error::Target)?;
    if !options.overwrite && !root.is_empty().map_err(Error::Target)? {
        let message = format!("{} is not empty; name a new directory, or say --overwrite", target.display());
        return Err(Error::Target(unix::Error::Invalid(message)));
    }
    let mut extraction = Extraction::new(root, options);
    let mut feed = Feed::open(source, selection, true)?;
    while let Some(chosen) = feed.next(complain)? {
        extraction.leave_directories(&chosen.name, complain);
        let path = chosen.item.path.clone();
        match extraction.make(chosen, &mut feed, complain) {
            Ok(()) => {}
            Err(Stop::Item(what)) => complain(Some(&path), &what),
            Err(Stop::All(error)) => return Err(error),
        }
        extraction.done.items += 1;
        progress(&extraction.done);
    }
    extraction.leave_directories(b"", complain);
    let mut done = extraction.done;
    let devices = done.left_out.devices;
    done.left_out = LeftOut { devices, ..extraction.attributes.left_out };
    Ok(done)
}

/// Extracts these items, files with their content, into `target`, and says of each whether it is there and whole: None, or what is wrong with it.
/// The second sentence is what could not be set of its attributes, if there is one.
///
/// # Errors
/// Also when more than `most` bytes come out, whatever the archive says about their sizes.
pub fn extract_items(
    source: &Source,
    items: Vec<Item>,
    target: &Path,
    most: u64,
    progress: &mut dyn FnMut(&Extracted),
) -> Result<Vec<(Option<String>, Option<String>)>> {
    let options = Options { attributes: attributes::Options { numeric_ids: true, privileged: false }, overwrite: false };
    let mut extraction = Extraction::new(Root::open(target).map_err(Error::Target)?, options);
    let mut feed = Feed::of(source, items);
    let mut results = vec![];
    loop {
        let mut said: Option<String> = None;
        let mut complain = |_: Option<&[u8]>, what: &str| {
            said.get_or_insert_with(|| what.to_owned());
        };
        let Some(chosen) = feed.next(&mut complain)? else { break };
        extraction.is_spoilt = false;
        let made = extraction.make(chosen, &mut feed, &mut complain);
        let wrong = match made {
            Ok(()) if extraction.is_spoilt => said.take().or_else(|| Some("it is not whole".to_owned())),
            Ok(()) => None,
            Err(Stop::Item(what)) => Some(what),
            Err(Stop::All(error)) => return Err(error),
        };
        if extraction.done.content > most {
            return Err(Error::TooLarge(format!("the files have more than the {most} bytes that the archive says")));
        }
        extraction.done.items += 1;
        progress(&extraction.done);
        results.push((wrong, said));
    }
    Ok(results)
}

/// What ends an item, or everything.
enum Stop {
    Item(String),
    All(Error),
}

impl From<unix::Error> for Stop {
    fn from(error: unix::Error) -> Stop {
        Stop::Item(error.to_string())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::All(error)
    }
}

struct Extraction {
    root: Root,
    attributes: Attributes,
    options: Options,
    /// Directories that the next item may be below of, outermost first: they get their attributes when nothing comes any more that would change
    /// their times, or needs the permission to write.
    open: Vec<(Vec<u8>, Item)>,
    weight: usize,
    done: Extracted,
    /// Something of the content of the last file is lacking, or is not what the archive says.
    is_spoilt: bool,
}

fn weight(item: &Item) -> usize {
    let values = item.xattrs.iter().flatten().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
    let texts = [&item.acl_access, &item.acl_default].into_iter().flatten().map(Vec::len);
    2 * item.path.len() + values.sum::<usize>() + texts.sum::<usize>() + 500
}

fn is_below(name: &[u8], directory: &[u8]) -> bool {
    directory == b"." || (name.len() > directory.len() && name.starts_with(directory) && name[directory.len()] == b'/')
}

impl Extraction {
    fn new(root: Root, options: Options) -> Extraction {
        let attributes = Attributes::new(options.attributes);
        Extraction { root, attributes, options, open: vec![], weight: 0, done: Extracted::default(), is_spoilt: false }
    }

    /// Directories above which the next item is get what they have yet to get. No name: all of them.
    fn leave_directories(&mut self, next: &[u8], complain: &mut Complain<'_>) {
        while let Some((name, item)) = self.open.pop_if(|(name, _)| next.is_empty() || !is_below(next, name)) {
            self.leave(&name, &item, complain);
        }
        while self.weight > MOST_WEIGHT && !self.open.is_empty() {
            let (name, item) = self.open.remove(0);
            complain(Some(&item.path), "its times may be those of its extraction: too much is below one another");
            self.leave(&name, &item, complain);
        }
    }

    fn leave(&mut self, name: &[u8], item: &Item, complain: &mut Complain<'_>) {
        self.weight -= weight(item);
        let directory = self.root.existing_place(name).and_then(|place| place.directory());
        match directory {
            Ok(made) => self.attributes.set(item, &made, &mut |what| complain(Some(&item.path), what)),
            Err(e) => complain(Some(&item.path), &format!("its permissions and times are not set: {e}")),
        }
    }

    fn make(&mut self, chosen: Chosen, feed: &mut Feed<'_>, complain: &mut Complain<'_>) -> std::result::Result<(), Stop> {
        let Chosen { mut item, name, body } = chosen;
        let kind = Kind::of(&item);
        let is_device = matches!(kind, Kind::Character | Kind::Block);
        if kind == Kind::Unknown {
            return Err(Stop::Item("it is nothing that can be made: neither file, directory, link, pipe nor device".into()));
        }
        if is_device && !self.options.attributes.privileged {
            self.done.left_out.devices += 1;
            return Ok(());
        }
        let place = self.root.place(&name)?;
        if kind == Kind::Directory {
            if place.look()? == Found::Other {
                place.clear()?;
            }
            place.make_directory()?;
            item.chunks = None;
            self.weight += weight(&item);
            self.open.push((name, item));
            return Ok(());
        }
        if place.is_root() {
            return Err(Stop::Item("it has the name of the target itself, and is no directory".into()));
        }
        if place.look()? == Found::Directory {
            self.root.forget();
        }
        place.clear()?;
        let made = match (kind, body) {
            (Kind::Link, _) => {
                let target = item.source.as_deref().ok_or_else(|| Stop::Item("it is a symbolic link to nothing".into()))?;
                place.symlink(target)?
            }
            (_, Body::LinkTo(master)) => {
                let source = self.root.existing_place(&master);
                let linked = source.and_then(|source| place.link(&source));
                let shown = unix::logging::escape_bytes(&master);
                return linked.map_err(|e| Stop::Item(format!("it is a hard link to {shown}: {e}")));
            }
            (Kind::File, Body::Itself) => {
                complain(Some(&item.path), "the archive has no content for it");
                self.is_spoilt = true;
                Made::File(place.create()?)
            }
            (Kind::File, Body::Chunks(_)) => {
                let mut file = place.create()?;
                self.pour(&item, feed, &mut file, complain)?;
                Made::File(file)
            }
            (Kind::Fifo, _) => place.special(item.mode.unwrap_or(0), 0)?,
            (..) => place.special(item.mode.unwrap_or(0), item.rdev.unwrap_or(0))?,
        };
        self.attributes.set(&item, &made, &mut |what| complain(Some(&item.path), what));
        Ok(())
    }

    fn pour(&mut self, item: &Item, feed: &mut Feed<'_>, file: &mut File, complain: &mut Complain<'_>) -> std::result::Result<(), Stop> {
        let (mut trouble, mut at) = (Trouble::default(), 0_u64);
        while let Some((stated, chunk)) = feed.chunk(complain)? {
            match chunk {
                Ok(plain) if is_hole(&plain) => at += plain.len() as u64,
                Ok(plain) => {
                    let sought = file.seek(SeekFrom::Start(at));
                    sought.and_then(|_| file.write_all(&plain)).map_err(broken)?;
                    at += plain.len() as u64;
                }
                Err(lack) => {
                    trouble.lacks(at, stated.into(), lack.why);
                    at += u64::from(stated);
                }
            }
        }
        file.set_len(at).map_err(broken)?;
        self.done.content += at;
        trouble.sizes = item.size.is_some_and(|stated| stated != at);
        self.is_spoilt = trouble.is_any() || item.chunks_healthy.is_some();
        trouble.tell(item, complain);
        Ok(())
    }
}

fn is_hole(plain: &[u8]) -> bool {
    plain.len() >= HOLE && plain.chunks(ZEROS.len()).all(|part| part == &ZEROS[..part.len()])
}

/// What is wrong with the file system is wrong for every file.
fn broken(error: io::Error) -> Stop {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | ReadOnlyFilesystem => Stop::All(Error::Output(error)),
        _ => Stop::Item(format!("it is not complete: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_what() {
        for (name, directory, is) in
            [("a/b", "a", true), ("ab", "a", false), ("a", "a", false), ("b/a", "a", false), ("x", ".", true), ("a/b/c", "a/b", true)]
        {
            assert_eq!(is_below(name.as_bytes(), directory.as_bytes()), is, "{name} {directory}");
        }
    }
}
