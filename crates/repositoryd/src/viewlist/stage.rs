//! Writing a list: as the difference to an earlier one where that is smaller, to a file that gets its name with the commit.

use super::file::{HEAD, Head, Stream, Verified};
use super::tree::Event;
use super::{Lists, MAX_DEPTH, Named, Note, ViewList, find, hex, remove};
use crate::failures::of_state;
use borg::Id;
use model::Failure;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use wire::session::Reference;

/// Above this share of the whole list, as a divisor, all differences of a chain together are not worth it any more.
const SHARE: u64 = 2;

/// A list that is written and durable, but no archive's yet. It goes when it is dropped before [`Staged::publish`].
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    digest: String,
    published: AtomicBool,
    /// The file had its name before, and stays whatever becomes of the archive.
    kept: bool,
}

impl Staged {
    /// Whether the file is one that was there before, and is not there any more.
    pub fn is_gone(&self) -> bool {
        self.kept && !self.path.exists()
    }

    /// Removes the file of an archive that never was, unless others may build on it.
    pub fn withdraw(&self, path: &Path) {
        if !self.kept {
            remove(path);
        }
    }

    /// Gives the file its name, durably; returns the digest for the archive's record.
    pub fn publish(&self, path: &Path) -> Result<String, Failure> {
        if self.kept {
            return Ok(self.digest.clone());
        }
        let failed = |e| unix::Error::Io { doing: format!("cannot create {}", path.display()), cause: e };
        std::fs::rename(&self.path, path).map_err(|e| of_state(&failed(e)))?;
        self.published.store(true, Ordering::Relaxed);
        unix::files::fsync_dir(path.parent().unwrap_or(Path::new("."))).map_err(|e| of_state(&e))?;
        Ok(self.digest.clone())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Relaxed) {
            remove(&self.path);
        }
    }
}

/// The difference between two lists.
#[derive(Default)]
struct Difference {
    references: Vec<Reference>,
    removed: Vec<Id>,
}

impl Lists {
    /// Writes a list. `base` is the list of an earlier archive whose file stays for as long as this takes.
    pub fn stage(&self, list: &ViewList, base: Option<&Named>, note: Option<Note>) -> Result<Staged, Failure> {
        let others: Vec<Id> = list.new.iter().filter(|id| find(&list.references, id).is_none()).copied().collect();
        let whole = Head {
            references: list.references.len() as u64,
            others: others.len() as u64,
            total: list.references.len() as u64,
            note,
            ..Head::default()
        };
        let limit = whole.total * Reference::SIZE as u64 / SHARE;
        let difference = base.and_then(|base| self.difference(list, base, limit));
        match difference {
            Some((difference, below)) => {
                let head = Head {
                    base: base.cloned(),
                    depth: below.depth + 1,
                    references: difference.references.len() as u64,
                    removed: difference.removed.len() as u64,
                    chain: below.chain + bytes(&difference),
                    ..whole
                };
                self.write(&head, &difference.references, &difference.removed, &others)
            }
            None => self.write(&whole, &list.references, &[], &others),
        }
    }

    /// The same for an archive that may have had a list before, as one has that another borg took away and brought back. Lists of others may build
    /// on that file: it stays as it is, and is the archive's again. None if they do, and it says something else.
    pub fn stage_again(&self, id: &str, list: &ViewList, base: Option<&Named>) -> Result<Option<Staged>, Failure> {
        let path = self.path(id);
        let old = std::fs::File::open(&path).ok().and_then(|file| digest_of(file).ok());
        let old = old.and_then(|digest| {
            let named = Named { id: id.to_owned(), digest };
            // What builds on a list that is lost is lost as well.
            self.read(&named).inspect_err(|e| log::warn!("{e}; the archive gets a new one")).ok().map(|old| (named.digest, old))
        });
        let Some((digest, old)) = old else { return self.stage(list, base, None).map(Some) };
        let facts = |list: &ViewList| list.references.iter().map(|reference| (reference.id, reference.size)).collect::<Vec<_>>();
        if facts(&old) == facts(list) {
            return Ok(Some(Staged { path, digest, published: AtomicBool::new(true), kept: true }));
        }
        if self.is_built_on(id) { Ok(None) } else { self.stage(list, base, None).map(Some) }
    }

    /// The difference and the head of the base; None where it is not worth it, or the base is lost.
    fn difference(&self, list: &ViewList, base: &Named, limit: u64) -> Option<(Difference, Head)> {
        let below = match Verified::open(&self.path(&base.id), &base.digest) {
            Ok(file) => file.head,
            Err(e) => {
                log::warn!("{e}; the next list is a whole one");
                return None;
            }
        };
        if below.depth >= MAX_DEPTH {
            return None;
        }
        let mut rest = list.references.as_slice();
        let mut difference = Difference::default();
        let scanned = self.scan(std::slice::from_ref(base), &mut |event| {
            let Event::Reference(old) = event else { return };
            let before = rest.iter().take_while(|new| new.id < old.id).count();
            difference.references.extend_from_slice(&rest[..before]);
            rest = &rest[before..];
            match rest.split_first() {
                Some((new, behind)) if new.id == old.id => {
                    rest = behind;
                    if *new != old {
                        difference.references.push(*new);
                    }
                }
                _ => difference.removed.push(Id(old.id)),
            }
        });
        difference.references.extend_from_slice(rest);
        match scanned {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                lost.iter().for_each(|e| log::warn!("{e}; the next list is a whole one"));
                return None;
            }
            Err(e) => {
                log::warn!("{e}; the next list is a whole one");
                return None;
            }
        }
        (below.chain.saturating_add(bytes(&difference)) <= limit).then_some((difference, below))
    }

    fn write(&self, head: &Head, references: &[Reference], removed: &[Id], others: &[Id]) -> Result<Staged, Failure> {
        let path = self.directory.join(format!("{}.tmp", unix::random::hex(16).map_err(|e| of_state(&e))?));
        let failed = |e| of_state(&unix::Error::Io { doing: format!("cannot write {}", path.display()), cause: e });
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let mut staged = Staged { path: path.clone(), digest: String::new(), published: AtomicBool::new(false), kept: false };
        staged.digest = write_all(file, head, references, removed, others).map_err(failed)?;
        Ok(staged)
    }
}

fn write_all(file: File, head: &Head, references: &[Reference], removed: &[Id], others: &[Id]) -> std::io::Result<String> {
    let mut out = Hashing { file: BufWriter::with_capacity(1 << 18, file), hash: Sha256::new() };
    write_parts(&mut out, head, references, removed, others)?;
    out.file.flush()?;
    out.file.get_ref().sync_all()?;
    Ok(hex(&out.hash.finalize()))
}

fn digest_of(mut file: File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Everything that a file says, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    head: Head,
    references: Vec<Reference>,
    removed: Vec<Id>,
    others: Vec<Id>,
}

impl Parsed {
    /// Reads a whole file; None if it is damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Parsed> {
        let file = Verified::in_memory(bytes)?;
        let ids = |stream| Some(all(stream)?.into_iter().map(|reference| Id(reference.id)).collect());
        let references = all(file.references().ok()?)?;
        let (removed, others) = (ids(file.removed().ok()?)?, ids(file.others().ok()?)?);
        // Whatever its version, it is written as of today.
        Some(Parsed { head: Head { first: false, ..file.head }, references, removed, others })
    }

    /// How many references and ids are in the file.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.references.len() + self.removed.len() + self.others.len()
    }

    /// The bytes of such a file.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Hashing { file: vec![], hash: Sha256::new() };
        write_parts(&mut out, &self.head, &self.references, &self.removed, &self.others)?;
        Ok(out.file)
    }
}

fn all(mut stream: Stream) -> Option<Vec<Reference>> {
    let mut all = vec![];
    while let Some(reference) = stream.next().ok()? {
        all.push(reference);
    }
    Some(all)
}

fn write_parts<W: Write>(
    out: &mut Hashing<W>,
    head: &Head,
    references: &[Reference],
    removed: &[Id],
    others: &[Id],
) -> std::io::Result<()> {
    let head = head.encode();
    debug_assert_eq!(head.len(), HEAD);
    out.write(&head)?;
    let mut bytes = Vec::with_capacity(1000 * Reference::SIZE);
    for some in references.chunks(1000) {
        bytes.clear();
        some.iter().for_each(|reference| reference.encode(&mut bytes));
        out.write(&bytes)?;
    }
    for ids in [removed, others] {
        for some in ids.chunks(1000) {
            bytes.clear();
            some.iter().for_each(|id| bytes.extend_from_slice(&id.0));
            out.write(&bytes)?;
        }
    }
    Ok(())
}

struct Hashing<W> {
    file: W,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

fn bytes(difference: &Difference) -> u64 {
    (difference.references.len() * Reference::SIZE + difference.removed.len() * 32) as u64
}
