//! Pages: 4096 bytes of sorted records, each page with its own checksum.
//!
//! ```text
//! 0   4  CRC32 of the rest
//! 4   2  number of records
//! 6   2  zero
//! 8   4  number of the page
//! 12  4  number of the run
//! 16     records: id (32), segment, offset, size, csize (4 each, little-endian)
//! ```

use borg::Id;

use crate::Entry;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
const HEADER: usize = 16;
const RECORD: usize = 48;
/// Records of a full page.
pub(super) const RECORDS: usize = (PAGE - HEADER) / RECORD;

/// Stands in the place of a segment's number where an id was removed. Borg 1.x has no segment of that number.
pub(super) const REMOVED: u32 = u32::MAX;

/// An id and where it is; `None` if it was removed.
pub(super) type Record = (Id, Option<Entry>);

/// Makes a page of no more than [`RECORDS`] records.
pub(super) fn encode(records: &[Record], run: u32, number: u32) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[4..6].copy_from_slice(&(records.len() as u16).to_le_bytes());
    page[8..12].copy_from_slice(&number.to_le_bytes());
    page[12..16].copy_from_slice(&run.to_le_bytes());
    for (place, (id, entry)) in page[HEADER..].chunks_exact_mut(RECORD).zip(records) {
        let Entry { segment, offset, size, csize } = entry.unwrap_or(Entry { segment: REMOVED, offset: 0, size: 0, csize: 0 });
        place[..32].copy_from_slice(&id.0);
        for (target, value) in place[32..].as_chunks_mut::<4>().0.iter_mut().zip([segment, offset, size, csize]) {
            *target = value.to_le_bytes();
        }
    }
    let sum = crc32fast::hash(&page[4..]);
    page[..4].copy_from_slice(&sum.to_le_bytes());
    page
}

/// A page that was read and found to be whole.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    records: &'a [[u8; RECORD]],
}

impl<'a> Page<'a> {
    /// `None` if it is damaged or another page.
    pub(super) fn parse(bytes: &'a [u8; PAGE], run: u32, number: u32) -> Option<Page<'a>> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let count = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        let whole = word(0) == crc32fast::hash(&bytes[4..]) && word(8) == number && word(12) == run && (1..=RECORDS).contains(&count);
        whole.then(|| Page { records: &bytes[HEADER..].as_chunks().0[..count] })
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn record(&self, at: usize) -> Record {
        let bytes = &self.records[at];
        (id_of(bytes), entry_of(bytes))
    }

    pub(super) fn first(&self) -> Id {
        id_of(&self.records[0])
    }

    pub(super) fn find(&self, id: &Id) -> Option<Option<Entry>> {
        let at = self.records.binary_search_by(|record| record[..32].cmp(&id.0)).ok()?;
        Some(entry_of(&self.records[at]))
    }
}

fn id_of(record: &[u8; RECORD]) -> Id {
    let mut id = [0; 32];
    id.copy_from_slice(&record[..32]);
    Id(id)
}

fn entry_of(record: &[u8; RECORD]) -> Option<Entry> {
    let word = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let entry = Entry { segment: word(32), offset: word(36), size: word(40), csize: word(44) };
    (entry.segment != REMOVED).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_seen_wherever_it_is() {
        let records: Vec<Record> = (0..RECORDS as u8)
            .map(|n| (Id([n; 32]), (n % 3 != 0).then_some(Entry { segment: n.into(), offset: 8, size: 1, csize: 2 })))
            .collect();
        let page = encode(&records, 7, 3);
        let parsed = Page::parse(&page, 7, 3).unwrap();
        assert_eq!((0..parsed.len()).map(|at| parsed.record(at)).collect::<Vec<_>>(), records);
        assert_eq!(parsed.find(&Id([4; 32])), Some(records[4].1));
        assert_eq!(parsed.find(&Id([3; 32])), Some(None));
        assert_eq!(parsed.find(&Id([200; 32])), None);
        assert!(Page::parse(&page, 8, 3).is_none() && Page::parse(&page, 7, 4).is_none());
        for at in 0..PAGE {
            let mut damaged = page;
            damaged[at] ^= 0x10;
            assert!(Page::parse(&damaged, 7, 3).is_none(), "byte {at}");
        }
    }
}
