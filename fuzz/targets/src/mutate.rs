//! Mutations from a seed, for the short run in the tests. The fuzzer has its own, guided by coverage.

/// A small generator of numbers (xorshift64*): the same seed, the same run.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() >> 16) as usize % bound.max(1)
    }
}

/// Values that parsers stumble over.
const SPECIAL: [u8; 16] = [0, 1, 2, 0x7f, 0x80, 0x8f, 0x90, 0xc0, 0xc1, 0xd9, 0xdb, 0xdd, 0xdf, 0xfe, 0xff, b'"'];

/// Changes an input in a few places; `others` are inputs to take parts from. At most `longest` bytes come out.
pub fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random, longest: usize) {
    for _ in 0..1 + random.below(4) {
        let length = input.len();
        let at = random.below(length + 1);
        let most = if random.below(4) == 0 { 64 } else { 5 };
        let count = random.below(most) + 1;
        match random.below(9) {
            0 if at < length => input[at] ^= 1 << random.below(8),
            1 if at < length => input[at] = SPECIAL[random.below(SPECIAL.len())],
            2 if at < length => input[at] = random.number() as u8,
            3 => drop(input.drain(at..length.min(at + count))),
            4 => {
                let byte = random.number() as u8;
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            5 => {
                let copy: Vec<u8> = input[at..length.min(at + count)].to_vec();
                let to = random.below(length + 1);
                input.splice(to..to, copy);
            }
            6 => input.truncate(at),
            7 if !others.is_empty() => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                let part = &other[from..other.len().min(from + count * 8)];
                input.splice(at..length.min(at + part.len()), part.iter().copied());
            }
            _ => {
                // A number of four bytes, of either order, becomes a little more or less.
                if let Some(bytes) = input.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) {
                    let change = random.below(17) as u32;
                    let number = match random.below(2) {
                        0 => u32::from_be_bytes(bytes).wrapping_add(change).wrapping_sub(8).to_be_bytes(),
                        _ => u32::from_le_bytes(bytes).wrapping_add(change).wrapping_sub(8).to_le_bytes(),
                    };
                    input[at..at + 4].copy_from_slice(&number);
                }
            }
        }
    }
    input.truncate(longest);
}
