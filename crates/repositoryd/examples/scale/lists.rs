//! View lists as an owner writes them: a whole one, up to a hundred differences, a whole one; see `repositoryd::viewlist` for the format.
//! Written here without the owner's durability, which would take an hour.

use borg::Id;
use repositoryd::viewlist::{MAX_DEPTH, Parsed, hex};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::path::Path;

/// Chunks that come and go from one day to the next.
pub const DAILY: usize = 80;

/// Of a client's first chunks, so many in ten are any other client's as well.
const SHARED: u64 = 3;

/// So many of them there are in a repository.
const POOL: u64 = 100_000;

const SIZE: u32 = 4096;
/// As its client states it.
const CSIZE: u32 = 2048;

/// Ids as hashes are: all bits count.
pub fn id(space: u64, number: u64) -> Id {
    let mut id = [0; 32];
    let mut state = space.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ number;
    for word in id.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        *word = (mixed ^ mixed >> 31).to_le_bytes();
    }
    Id(id)
}

/// The first chunks of a config: its own ones, and some of its repository's clients.
fn first(repository: usize, config: usize, count: usize) -> Vec<Id> {
    let mut seen = HashSet::new();
    let mut number = 0;
    let mut ids = vec![];
    while ids.len() < count {
        number += 1;
        let own = id(1000 + config as u64, number);
        let is_shared = number % 10 < SHARED;
        let pool = u64::from_le_bytes([own.0[0], own.0[1], own.0[2], own.0[3], 0, 0, 0, 0]) % POOL;
        let one = if is_shared { id(repository as u64, pool) } else { own };
        if seen.insert(one) {
            ids.push(one);
        }
    }
    ids
}

/// How long a whole list is, so that so many references are in the files of a config's archives.
pub fn whole(references: usize, days: usize) -> usize {
    let wholes = days.div_ceil(MAX_DEPTH as usize + 1);
    ((references.saturating_sub((days - wholes) * DAILY)) / wholes).max(10 * DAILY)
}

/// Writes the lists of a config's archives, which have these ids; returns their digests. `stored` hears of every chunk when it is new.
pub fn write(directory: &Path, place: (usize, usize), whole: usize, archives: &[Id], stored: &mut dyn FnMut(&Id)) -> Vec<String> {
    let (repository, config) = place;
    let mut current = first(repository, config, whole);
    current.iter().for_each(&mut *stored);
    let mut digests: Vec<String> = vec![];
    let (mut depth, mut chain, mut next) = (0_u32, 0_u64, 0_u64);
    for (day, archive) in archives.iter().enumerate() {
        let (mut new, mut gone) = (vec![], vec![]);
        if day > 0 {
            for n in 0..DAILY {
                // Spread over everything there is, each place once a day.
                let at = (n * (current.len() / DAILY) + day * 7) % current.len();
                let fresh = id(1_000_000 + config as u64, next);
                next += 1;
                stored(&fresh);
                gone.push(std::mem::replace(&mut current[at], fresh));
                new.push(fresh);
            }
        }
        let is_whole = day == 0 || depth == MAX_DEPTH;
        let mut references = if is_whole { current.clone() } else { new };
        references.sort_unstable();
        gone.sort_unstable();
        (depth, chain) = if is_whole { (0, 0) } else { (depth + 1, chain + (references.len() * 40 + gone.len() * 32) as u64) };
        let base = (!is_whole).then(|| (archives[day - 1], digests[day - 1].as_str()));
        let bytes = encode(depth, chain, current.len(), base, &references, if is_whole { &[] } else { &gone });
        if day < 2 {
            assert!(Parsed::parse(&bytes).is_some(), "an owner can read it");
        }
        std::fs::write(directory.join(format!("{}.view", archive.to_hex())), &bytes).expect("it can be written");
        digests.push(hex(&Sha256::digest(&bytes)));
    }
    digests
}

fn encode(depth: u32, chain: u64, total: usize, base: Option<(Id, &str)>, references: &[Id], removed: &[Id]) -> Vec<u8> {
    let mut bytes = b"BCVIEW2\n".to_vec();
    bytes.extend(u64::from(depth).to_le_bytes());
    for count in [references.len() as u64, removed.len() as u64, 0, total as u64, chain] {
        bytes.extend(count.to_le_bytes());
    }
    let (id, digest) = base.map_or(([0; 32], [0; 32]), |(id, digest)| (id.0, Id::from_hex(digest).expect("a digest").0));
    bytes.extend(id);
    bytes.extend(digest);
    bytes.extend([0; 48]);
    for id in references {
        bytes.extend(id.0);
        bytes.extend(SIZE.to_le_bytes());
        bytes.extend(CSIZE.to_le_bytes());
    }
    removed.iter().for_each(|id| bytes.extend(id.0));
    bytes
}
