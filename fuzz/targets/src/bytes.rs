//! Decisions made from the bytes of an input.

/// Takes decisions from the front of an input. When it is used up every number is 0, so that each input has an end.
#[derive(Debug, Clone)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// All of an input.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Bytes<'a> {
        Bytes { rest: input }
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`, from one byte.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// True in one of `often` cases.
    pub fn rarely(&mut self, often: usize) -> bool {
        self.below(often) == often - 1
    }

    /// Some bytes: as many as the next byte says.
    pub fn some(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The rest in pieces, whose lengths its own bytes choose: small ones, and some larger.
    pub fn pieces(&mut self) -> Vec<&'a [u8]> {
        let (mut pieces, mut rest) = (Vec::new(), self.rest());
        let mut seed = rest.len() as u32 ^ rest.first().map_or(0, |byte| u32::from(*byte) << 8);
        while !rest.is_empty() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = match seed >> 28 {
                0..=5 => 1,
                6..=11 => 1 + (seed >> 8 & 0x1f) as usize,
                _ => 1 + (seed >> 8 & 0x3ff) as usize,
            };
            let (piece, after) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}
