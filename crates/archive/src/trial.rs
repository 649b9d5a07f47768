//! A sample of an archive, extracted, read back and hashed: the part of a restore test that sees what clients wrote.

use crate::error::{Error, Result};
use crate::extract::extract_items;
use crate::feed::{Chosen, Feed, stated, weight};
use crate::kind::Kind;
use crate::links::{Body, MEMORY};
use crate::selection::Selection;
use crate::source::Source;
use borg::item::{ChunkRef, Item};
use model::restore_test::{Candidate, RestoreTest, Sample, Sampler};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use unix::beneath::Root;
use unix::files::Room;
use unix::logging::escape_bytes;

/// What is left free of a file system besides what the sample takes.
const SPARE: u64 = 16 << 20;

/// About what a file or a directory takes besides its content, unless blocks are larger.
const FILE: u64 = 8 << 10;

/// Complaints about the archive as such that are passed on.
const COMPLAINTS: usize = 20;

/// How a pattern begins that means one path.
const WHOLE_PATH: &str = "pf:";

/// Linux: bits that are left out, because they do harm here.
const SET_ID: u32 = 0o6000;
/// Its owner may read it. An unreadable file would be in the way of its own test.
const OWNER_READS: u32 = 0o400;

/// What to try.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// Files at most, and bytes of them.
    pub files: u32,
    /// See above.
    pub bytes: u64,
    /// Everything that the selection takes has to fit: it is what a person asked for, and nothing is drawn from it.
    pub is_whole: bool,
    /// Patterns with their style; none: everything.
    pub take: Vec<String>,
    /// What the sample is drawn with.
    pub seed: u32,
    /// Files that are recorded: the hash of the path, and that of the item.
    pub known: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tried {
    /// The sample, in the order of the archive.
    pub files: Vec<TriedFile>,
    /// Bytes of it.
    pub bytes: u64,
    /// Files of the selection that could have been in it, bytes of them, and those of them that are larger than a sample may be.
    pub seen: u64,
    /// See above.
    pub seen_bytes: u64,
    /// See above.
    pub too_large: u64,
    /// What was asked for and is not in the archive: patterns. Of those for one whole path (`pf:`) also what is there and no regular file.
    pub unmatched: Vec<String>,
    /// What is wrong with the archive's list of files, escaped for printing.
    pub complaints: Vec<String>,
    /// Files that were asked for by a whole path (`pf:`), are there, and could not be looked at; escaped for printing.
    pub not_compared: Vec<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedFile {
    /// Its path in the archive.
    pub path: Vec<u8>,
    /// SHA-256 of the path.
    pub path_hash: String,
    /// SHA-256 of what must be the same for the content to be.
    pub item_hash: String,
    /// SHA-256 of the content, as it was read back. Empty if it is damaged.
    pub content: String,
    /// As the archive has it: type and permissions,
    pub mode: u32,
    /// owner,
    pub uid: i64,
    /// group,
    pub gid: i64,
    /// bytes,
    pub size: u64,
    /// time of modification, nanoseconds since 1970,
    pub mtime: i128,
    /// time of status change.
    pub ctime: Option<i128>,
    /// Why it is not there as a whole.
    pub damage: Option<String>,
    /// What it has not got of its attributes.
    pub note: Option<String>,
}

/// How far it is: a word, how many are done, and of how many (0: unknown).
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Draws the sample, extracts it below `directory`, and reads it back.
pub fn run(source: &Source, trial: &Trial, directory: &Path, progress: &mut Progress<'_>) -> Result<Tried> {
    let (sample, mut tried) = draw(source, trial, progress)?;
    let items = last_of_each_path(sample.files);
    tried.bytes = items.iter().map(|item| content_size(item)).sum();
    let paths: Vec<&[u8]> = items.iter().map(|item| item.path.as_slice()).collect();
    if let Err(why) = has_room(unix::files::room(directory).map_err(Error::Target)?, tried.bytes, &paths) {
        let why = format!("the sample needs {why} in the file system of {}", directory.display());
        return Err(Error::Output(io::Error::new(io::ErrorKind::StorageFull, why)));
    }
    let (files, total) = (directory.join("files"), items.len() as u64);
    let plain = items.iter().map(|item| readable(item)).collect();
    let results = extract_items(source, plain, &files, tried.bytes, &mut |done| progress("files extracted", done.items, total))?;
    let mut root = Root::open(&files).map_err(Error::Target)?;
    for (at, (item, (damage, note))) in items.iter().zip(results).enumerate() {
        tried.files.push(read_back(item, &mut root, damage, note));
        progress("files compared", at as u64 + 1, total);
    }
    Ok(tried)
}

/// Whether so many bytes in files with these paths, and the directories that they are in, find room; if not, what is needed and what there is.
fn has_room(room: Room, bytes: u64, paths: &[&[u8]]) -> std::result::Result<(), String> {
    let made = paths.len() as u64 + directories(paths);
    let needed = bytes.saturating_add(made.saturating_mul(FILE.max(2 * room.block))).saturating_add(SPARE);
    if room.bytes < needed {
        return Err(format!("{needed} bytes, and there are {}", room.bytes));
    }
    match room.files {
        Some(files) if files < made => Err(format!("{made} files and directories (inodes), and there are {files}")),
        _ => Ok(()),
    }
}

/// How many directories there are above these paths. A path can have thousands of its own.
fn directories(paths: &[&[u8]]) -> u64 {
    let mut parents: Vec<Vec<&[u8]>> = paths
        .iter()
        .map(|path| {
            let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
            names.pop();
            names
        })
        .collect();
    parents.sort_unstable();
    let mut before: &[&[u8]] = &[];
    let mut count = 0;
    for names in &parents {
        let common = names.iter().zip(before).take_while(|(name, other)| name == other).count();
        count += (names.len() - common) as u64;
        before = names;
    }
    count
}

fn draw(source: &Source, trial: &Trial, progress: &mut Progress<'_>) -> Result<(Sample<Arc<Item>>, Tried)> {
    let nothing: [&str; 0] = [];
    let mut selection = Selection::new(&trial.take, &nothing, 0)?;
    let mut sampler = Sampler::new(trial.seed, trial.files, trial.bytes);
    let (mut complaints, mut not_compared, mut looked) = (vec![], vec![], 0_u64);
    let mut complain = |path: Option<&[u8]>, what: &str| {
        if complaints.len() < COMPLAINTS {
            let shown = path.map(|path| format!("{}: ", escape_bytes(path))).unwrap_or_default();
            complaints.push(format!("{shown}{}", unix::logging::escape(what)));
        }
    };
    // Paths that have to be files; of a path that comes twice, the last one counts.
    let mut whole: BTreeMap<&[u8], bool> =
        trial.take.iter().filter_map(|pattern| Some((pattern.strip_prefix(WHOLE_PATH)?.as_bytes(), false))).collect();
    let mut masters = Masters::default();
    let mut feed = Feed::open(source, &mut selection, false)?;
    while let Some(Chosen { mut item, body, .. }) = feed.next(&mut complain)? {
        looked += 1;
        if looked.is_multiple_of(1000) {
            progress("items", looked, 0);
        }
        if let Some(is_file) = whole.get_mut(&item.path[..]) {
            *is_file = Kind::of(&item) == Kind::File;
        }
        // What is no file has no content.
        if Kind::of(&item) != Kind::File {
            continue;
        }
        let body = match body {
            // Another name of a file is tested with that file; one that somebody has named is asked for by itself.
            Body::LinkTo(_) if !whole.contains_key(&item.path[..]) => continue,
            Body::LinkTo(master) => match masters.find(&master) {
                Some(chunks) => {
                    item.size = Some(chunks.iter().map(|chunk| u64::from(stated(chunk))).sum());
                    Body::Chunks(chunks)
                }
                None => {
                    let (name, master) = (escape_bytes(&item.path), escape_bytes(&master));
                    not_compared.push(format!(
                        "{name} was not compared: it is another name of {master}, and the archive does not say what that consists of"
                    ));
                    continue;
                }
            },
            Body::Chunks(chunks) => {
                if !whole.is_empty() && (item.hardlink_master == Some(true) || item.source.is_some()) {
                    masters.keep(&item.path, &chunks);
                }
                Body::Chunks(chunks)
            }
            Body::Itself => Body::Itself,
        };
        let weight = weight(&item, &body);
        if let Body::Chunks(chunks) = body {
            item.chunks = Some(Arc::unwrap_or_clone(chunks));
        }
        item.source = None;
        let is_known = !trial.known.is_empty() && trial.known.get(&hash(&item.path)).is_some_and(|known| *known == item_hash(&item));
        sampler.offer(&Candidate { size: content_size(&item), is_known, weight, file: Arc::new(item) });
    }
    let is_file = |path: &str| whole.get(path.as_bytes()).copied().unwrap_or_default();
    let others = selection.unmatched().filter(|pattern| !pattern.starts_with(WHOLE_PATH));
    // What another pattern has taken is there as well.
    let no_files = trial.take.iter().filter(|pattern| pattern.strip_prefix(WHOLE_PATH).is_some_and(|path| !is_file(path)));
    let unmatched = others.map(str::to_owned).chain(no_files.cloned()).collect();
    let sample = sampler.draw();
    let Sample { seen, seen_bytes, too_large, .. } = sample;
    if trial.is_whole && (seen > u64::from(trial.files) || seen_bytes > trial.bytes || sample.files.len() as u64 != seen) {
        return Err(Error::TooLarge(format!(
            "the paths have {seen} files of {seen_bytes} bytes, more than the {} files or {} bytes of one restore test: name fewer, raise --bytes, or let --files draw some of them",
            trial.files.min(RestoreTest::MAX_FILES),
            trial.bytes
        )));
    }
    Ok((sample, Tried { seen, seen_bytes, too_large, unmatched, complaints, not_compared, ..Tried::default() }))
}

/// What files consist of that have more than one name, as far as there is room to remember.
#[derive(Default)]
struct Masters {
    chunks: BTreeMap<Vec<u8>, Arc<Vec<ChunkRef>>>,
    bytes: usize,
}

impl Masters {
    fn keep(&mut self, path: &[u8], chunks: &Arc<Vec<ChunkRef>>) {
        let bytes = path.len() + chunks.len() * size_of::<ChunkRef>() + 100;
        if self.bytes.saturating_add(bytes) <= MEMORY {
            self.bytes += bytes;
            self.chunks.insert(path.to_owned(), Arc::clone(chunks));
        }
    }

    fn find(&self, path: &[u8]) -> Option<Arc<Vec<ChunkRef>>> {
        self.chunks.get(path).cloned()
    }
}

/// Borg stores a path twice if paths of a backup overlap; what comes later is what an extraction leaves.
fn last_of_each_path(items: Vec<Arc<Item>>) -> Vec<Arc<Item>> {
    let mut seen = BTreeSet::new();
    let mut kept: Vec<_> = items.into_iter().rev().filter(|item| seen.insert(item.path.clone())).collect();
    kept.reverse();
    kept
}

/// It is read back, so its owner has to be allowed to.
fn readable(item: &Item) -> Item {
    Item { mode: item.mode.map(|mode| mode | OWNER_READS), ..item.clone() }
}

fn content_size(item: &Item) -> u64 {
    item.chunks.iter().flatten().map(|chunk| u64::from(stated(chunk))).sum()
}

fn read_back(item: &Item, root: &mut Root, damage: Option<String>, note: Option<String>) -> TriedFile {
    let mut file = TriedFile {
        path: item.path.clone(),
        path_hash: hash(&item.path),
        item_hash: item_hash(item),
        content: String::new(),
        mode: item.mode.unwrap_or(0),
        uid: item.uid.unwrap_or(-1),
        gid: item.gid.unwrap_or(-1),
        size: content_size(item),
        mtime: item.mtime,
        ctime: item.ctime,
        damage,
        note,
    };
    if file.damage.is_some() {
        return file;
    }
    match hashed(&item.path, root) {
        Ok((content, found)) => {
            if found.size != file.size {
                file.damage = Some(format!("{} bytes of it were read back, and {} were written", found.size, file.size));
            } else if found.mode != (file.mode | OWNER_READS) & 0o7777 & !SET_ID || found.mtime != file.mtime {
                file.note.get_or_insert_with(|| "its mode or time is not what the archive says".to_owned());
            }
            file.content = content;
        }
        Err(e) => file.damage = Some(format!("it cannot be read back: {e}")),
    }
    file
}

fn hashed(path: &[u8], root: &mut Root) -> unix::Result<(String, unix::beneath::ReadBack)> {
    let (mut file, found) = root.existing_place(path)?.read_back()?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer).map_err(|e| unix::Error::Invalid(e.to_string()))? {
            0 => break,
            n => digest.update(&buffer[..n]),
        }
    }
    Ok((hex(&digest.finalize()), found))
}

/// SHA-256, in hex digits.
fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of everything that a file's content follows from, and of its time.
fn item_hash(item: &Item) -> String {
    let mut digest = Sha256::new();
    digest.update(b"borgcube restore test 1\0");
    digest.update(item.mtime.to_le_bytes());
    digest.update(item.size.unwrap_or(u64::MAX).to_le_bytes());
    for chunk in item.chunks.iter().flatten() {
        digest.update(chunk.id.0);
        digest.update(chunk.size.to_le_bytes());
    }
    hex(&digest.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether it is that the server has no room.
#[must_use]
pub fn is_no_room(error: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, Error::Output(e) if matches!(e.kind(), StorageFull | QuotaExceeded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::Id;

    fn item(path: &str, id: u8, mtime: i128) -> Item {
        let chunks = Some(vec![ChunkRef { id: Id([id; 32]), size: 5, csize: 9 }]);
        Item { path: path.into(), mode: Some(0o100_644), mtime, size: Some(5), chunks, ..Item::default() }
    }

    #[test]
    fn an_item_is_the_same_if_content_and_time_must_be() {
        let first = item_hash(&item("a", 1, 7));
        // Other names, owners and stored sizes change nothing.
        assert_eq!(first, item_hash(&Item { uid: Some(5), ..item("b", 1, 7) }));
        for other in [item("a", 2, 7), item("a", 1, 8), Item { size: Some(6), ..item("a", 1, 7) }, Item { chunks: None, ..item("a", 1, 7) }]
        {
            assert_ne!(first, item_hash(&other));
        }
    }

    #[test]
    fn of_one_path_the_last_one_counts() {
        let items: Vec<_> = [item("a", 1, 1), item("b", 2, 1), item("a", 3, 1)].into_iter().map(Arc::new).collect();
        let kept: Vec<u8> = last_of_each_path(items).iter().map(|item| item.chunks.as_ref().unwrap()[0].id.0[0]).collect();
        assert_eq!(kept, [2, 3]);
    }

    #[test]
    fn directories_take_room_as_well() {
        let count = |paths: &[&str]| directories(&paths.iter().map(|path| path.as_bytes()).collect::<Vec<_>>());
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&["a", "b"]), 0);
        assert_eq!(count(&["a/b/c", "a/b/d", "a/e", "a-b/c", "/a//b/./f"]), 3);
        let deep: Vec<String> = (0..100).map(|n| format!("{n}/").repeat(1000) + "file").collect();
        let deep: Vec<&[u8]> = deep.iter().map(String::as_bytes).collect();
        assert_eq!(directories(&deep), 100_000);

        let room = Room { bytes: 1 << 30, files: Some(100_100), block: 4096 };
        assert_eq!(has_room(room, 1 << 20, &deep), Ok(()));
        let why = has_room(Room { bytes: 100 << 20, ..room }, 1 << 20, &deep).unwrap_err();
        assert!(why.ends_with("bytes, and there are 104857600"), "{why}");
        let why = has_room(Room { files: Some(100_099), ..room }, 1 << 20, &deep).unwrap_err();
        assert_eq!(why, "100100 files and directories (inodes), and there are 100099");
        assert_eq!(has_room(Room { files: None, ..room }, 1 << 20, &deep), Ok(()));
        assert!(has_room(Room { block: 64 << 10, ..room }, 1 << 20, &deep).is_err());
    }

    #[test]
    fn no_room_has_a_name() {
        assert!(is_no_room(&Error::Output(io::Error::from(io::ErrorKind::StorageFull))));
        assert!(!is_no_room(&Error::Output(io::Error::from(io::ErrorKind::PermissionDenied))));
        assert!(!is_no_room(&Error::TooLarge(String::new())));
    }
}
