//! What a repository keeps beside its index: statistics of segments, and the digests of both files (Borg 1.x: facts 9.3 and 9.4).

use crate::msgpack::Writer;
use std::collections::BTreeMap;

/// Statistics of a repository's segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Objects that are still there, of every segment.
    pub segments: BTreeMap<u32, u32>,
    /// Bytes that compaction would free, of the segments that have some.
    pub compact: BTreeMap<u32, u64>,
    /// Bytes of all PUT entries.
    pub storage_quota_use: u64,
}

impl Hints {
    /// The file `hints.N`. Without `shadow_index`, as Borg 1.1 writes it: newer ones then keep every DELETE that might be needed.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        Writer::packed(|w| {
            w.map(4);
            w.raw(b"version");
            w.uint(2);
            w.raw(b"segments");
            w.map(self.segments.len());
            for (segment, live) in &self.segments {
                w.uint(u64::from(*segment));
                w.uint(u64::from(*live));
            }
            w.raw(b"compact");
            w.map(self.compact.len());
            for (segment, bytes) in &self.compact {
                w.uint(u64::from(*segment));
                w.uint(*bytes);
            }
            w.raw(b"storage_quota_use");
            w.uint(self.storage_quota_use);
        })
    }
}

/// The file `integrity.N`; both arguments are what [`crate::integrity`] gives.
#[must_use]
pub fn pack_integrity(hints: &str, index: &str) -> Vec<u8> {
    Writer::packed(|w| {
        w.map(3);
        w.raw(b"version");
        w.uint(2);
        w.raw(b"hints");
        w.raw(hints.as_bytes());
        w.raw(b"index");
        w.raw(index.as_bytes());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbers() {
        let hints = Hints { segments: [(0, 3), (300, 0)].into(), compact: [(300, 17)].into(), storage_quota_use: 5 };
        let packed = hints.pack();
        let expected =
            b"\x84\xa7version\x02\xa8segments\x82\x00\x03\xcd\x01\x2c\x00\xa7compact\x81\xcd\x01\x2c\x11\xb1storage_quota_use\x05";
        assert_eq!(packed, expected);
        assert!(pack_integrity("h", "i").ends_with(b"\xa5hints\xa1h\xa5index\xa1i"));
    }
}
