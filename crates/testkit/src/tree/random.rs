//! Numbers that look random and are the same for the same seed, on every machine and for ever.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// Bytes that no compression makes smaller.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// Text that compresses well.
    pub fn text(&mut self, length: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = ["backup ", "chunk ", "segment ", "client ", "archive ", "of ", "the ", "\n"];
        let mut text = Vec::with_capacity(length + 8);
        while text.len() < length {
            let word = WORDS[(self.number() % 8) as usize];
            text.extend_from_slice(word.as_bytes());
        }
        text.truncate(length);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same() {
        assert_eq!(Random::new(7).bytes(1001), Random::new(7).bytes(1001));
        assert_ne!(Random::new(7).bytes(1001), Random::new(8).bytes(1001));
        assert_eq!(Random::new(7).text(99).len(), 99);
    }

    #[test]
    fn the_sequence_stays_as_it_is() {
        // SplitMix64's published first value for the state 0.
        assert_eq!(Random::new(0).number(), 0xe220_a839_7b1d_cdaf);
    }
}
