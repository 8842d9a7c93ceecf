//! Chance, drawn from a hash of the input: the same input is always treated the same.

/// A xorshift generator (Marsaglia 2003), seeded by FNV-1a.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of an input.
    pub fn of(data: &[u8]) -> Self {
        let hash = data
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        // Zero is the one state that it would never leave.
        Self(hash | 1)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The high half is the better one.
        (self.0 >> 32) as usize % bound
    }

    /// True once in `odds` throws.
    pub fn once_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    /// Where to cut so many bytes: ascending, without the ends. Some inputs come byte by byte, some in a few pieces.
    pub fn cuts(&mut self, length: usize) -> Vec<usize> {
        const LENGTHS_MAX: [usize; 8] = [1, 3, 8, 8, 32, 64, 256, 2048];
        let most = LENGTHS_MAX[self.below(LENGTHS_MAX.len())];
        let mut cuts = Vec::new();
        let mut at = 1 + self.below(most);
        while at < length {
            cuts.push(at);
            at += 1 + self.below(most);
        }
        cuts
    }
}

/// The pieces between the cuts.
pub fn pieces<'a>(data: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut start = 0;
    cuts.iter().copied().chain([data.len()]).map(move |end| &data[std::mem::replace(&mut start, end)..end])
}
