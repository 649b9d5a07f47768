//! A filter that tells for most absent ids that a run does not have them, so that no page is read for them.

use borg::Id;

/// A Bloom filter of about one byte for each id; all bits of an id are in one word, one id in twenty that is absent passes.
pub(super) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    pub(super) fn for_ids(count: u64) -> Filter {
        Filter { words: vec![0; count.div_ceil(8).max(1) as usize] }
    }

    pub(super) fn from_words(words: Vec<u64>) -> Option<Filter> {
        (!words.is_empty()).then_some(Filter { words })
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Ids are hashes, so their bits are as good as another hash of them. The first bytes are not used: ids are sorted by them.
    fn place(&self, id: &Id) -> (usize, u64) {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| id.0[at + i]));
        let (word, bits) = (number(8), number(16));
        let mask = (0..4).fold(0, |mask, n| mask | 1 << (bits >> (n * 6) & 63));
        (((u128::from(word) * self.words.len() as u128) >> 64) as usize, mask)
    }

    pub(super) fn add(&mut self, id: &Id) {
        let (word, mask) = self.place(id);
        self.words[word] |= mask;
    }

    pub(super) fn may_have(&self, id: &Id) -> bool {
        let (word, mask) = self.place(id);
        self.words[word] & mask == mask
    }
}
