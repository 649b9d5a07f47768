//! Tables by object id.

use borg::Id;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A table by id.
pub type IdMap<V> = HashMap<Id, V, IdHash>;

/// A set of ids.
pub type IdSet = HashSet<Id, IdHash>;

/// Hashes ids for a table in memory with a key of its own, at a fraction of what the standard library's hash costs.
///
/// Ids are hashes already, but of what clients choose, and a client knows the key of its ids: it could look for many that share a few
/// bytes. That they meet in a table depends on all bytes and on a key that nobody is told.
#[derive(Debug, Clone, Copy)]
pub struct IdHash([u64; 2]);

impl Default for IdHash {
    fn default() -> IdHash {
        let random = RandomState::new();
        IdHash([random.hash_one(0), random.hash_one(1)])
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { key: self.0, hash: 0 }
    }
}

/// See [`IdHash`].
#[derive(Debug)]
pub struct IdHasher {
    key: [u64; 2],
    hash: u64,
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<16>();
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        for block in blocks.iter().chain((!rest.is_empty()).then_some(&last)) {
            // The halves of a product depend on all bits of both factors.
            let block = u128::from_le_bytes(*block);
            let left = block as u64 ^ self.key[0] ^ self.hash;
            let product = u128::from(left) * u128::from((block >> 64) as u64 ^ self.key[1]);
            self.hash = product as u64 ^ (product >> 64) as u64;
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length, which is always the same.
    }

    fn finish(&self) -> u64 {
        // Ids that differ in a few neighbouring bits are evenly spaced up to here, under some keys in steps that meet again soon.
        let product = u128::from(self.hash) * 0x9e37_79b9_7f4a_7c15;
        product as u64 ^ (product >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_every_table_has_its_own_key() {
        let hash = IdHash::default();
        let base = Id(std::array::from_fn(|at| at as u8));
        for at in 0..32 {
            let mut other = base;
            other.0[at] ^= 1;
            assert_ne!(hash.hash_one(base), hash.hash_one(other), "byte {at}");
        }
        assert_ne!(hash.hash_one(base), IdHash::default().hash_one(base));
        assert_eq!(hash.hash_one(base), hash.hash_one(base));
    }

    #[test]
    fn ids_that_are_alike_spread() {
        // The bits that a table of 65 536 uses first: 10 000 hashes by chance meet in about 700 pairs. Under any key.
        for _ in 0..500 {
            let hash = IdHash::default();
            let mut seen = HashSet::new();
            let ids = (0..10_000u32).map(|n| Id(std::array::from_fn(|at| if at < 28 { 7 } else { n.to_le_bytes()[at - 28] })));
            let fresh = ids.filter(|id| seen.insert(hash.hash_one(id) & 0xffff)).count();
            assert!(fresh > 8_500, "{fresh} with {hash:?}");
        }
    }
}
