//! Which files of an archive a test takes: drawn in one pass, with as much memory as the sample needs, and the same again from the same seed.
//!
//! Three lots are drawn at once. The first is blind to size: each file has the same chance, so most of it are small ones, as most files are. The
//! second is drawn by size: each *byte* has the same chance, so that the few big files appear as well. The third are files that earlier tests have
//! recorded, without which nothing could be compared. (Reservoirs of smallest random keys; by weight: Efraimidis and Spirakis, 2006.)

use std::collections::BTreeMap;

/// For each place in the sample so many are remembered, because what is drawn first may not fit.
const SPARE: usize = 3;

/// Bytes that what is remembered may take in memory in each lot.
const MEMORY: usize = 32 << 20;

/// A file that may be drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<T> {
    /// Bytes of its content.
    pub size: u64,
    /// An earlier test has recorded it, and it has not changed since.
    pub is_known: bool,
    /// Bytes that it takes in memory while it is remembered.
    pub weight: usize,
    /// Whatever it is.
    pub file: T,
}

/// Draws a sample.
#[derive(Debug)]
pub struct Sampler<T> {
    seed: u64,
    files: usize,
    bytes: u64,
    blind: Lot<T>,
    by_size: Lot<T>,
    known: Lot<T>,
    seen: u64,
    seen_bytes: u64,
    too_large: u64,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<T> {
    /// The files, in the order in which they were offered.
    pub files: Vec<T>,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that were offered,
    pub seen: u64,
    /// bytes of them,
    pub seen_bytes: u64,
    /// and those that are larger than the sample may be.
    pub too_large: u64,
}

/// Those with the smallest keys.
#[derive(Debug)]
struct Lot<T> {
    most: usize,
    memory: usize,
    /// By key and number.
    best: BTreeMap<(u64, u64), Candidate<T>>,
}

impl<T: Clone> Lot<T> {
    fn offer(&mut self, key: (u64, u64), candidate: &Candidate<T>) {
        let is_full = |lot: &Lot<T>| lot.best.len() >= lot.most || lot.memory.saturating_add(candidate.weight) > MEMORY;
        while is_full(self) {
            match self.best.last_key_value() {
                Some((worst, _)) if *worst > key => {
                    self.memory -= self.best.pop_last().map_or(0, |(_, last)| last.weight);
                }
                _ => return,
            }
        }
        self.memory += candidate.weight;
        self.best.insert(key, candidate.clone());
    }
}

/// Steele, Lea and Flood, 2014: a good hash of 64 bits.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Between 0 and 1, neither of them.
fn unit(random: u64) -> f64 {
    ((random >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

impl<T: Clone> Sampler<T> {
    /// For at most so many files and bytes.
    #[must_use]
    pub fn new(seed: u32, files: u32, bytes: u64) -> Sampler<T> {
        let files = files as usize;
        let lot = |most: usize| Lot { most, memory: 0, best: BTreeMap::new() };
        Sampler {
            seed: mix(u64::from(seed)),
            files,
            bytes,
            blind: lot(files * SPARE),
            by_size: lot(files.div_ceil(4) * SPARE),
            known: lot(files.div_ceil(2) * SPARE),
            seen: 0,
            seen_bytes: 0,
            too_large: 0,
        }
    }

    /// One more file.
    pub fn offer(&mut self, candidate: &Candidate<T>) {
        let number = self.seen;
        self.seen += 1;
        self.seen_bytes = self.seen_bytes.saturating_add(candidate.size);
        if candidate.size > self.bytes {
            self.too_large += 1;
            return;
        }
        let random = |lot: u64| mix(self.seed ^ mix(number.wrapping_mul(4).wrapping_add(lot)));
        let (blind, by_size, known) = (random(0), random(1), random(2));
        self.blind.offer((blind, number), candidate);
        if candidate.size > 0 {
            // The bits of positive numbers are in the order of the numbers.
            let key = (-unit(by_size).ln() / candidate.size as f64).to_bits();
            self.by_size.offer((key, number), candidate);
        }
        if candidate.is_known {
            self.known.offer((known, number), candidate);
        }
    }

    /// What came out. Up to half of it is what earlier tests know, up to a quarter of the rest was drawn by size.
    #[must_use]
    pub fn draw(self) -> Sample<T> {
        let mut chosen: BTreeMap<u64, T> = BTreeMap::new();
        let mut left = self.bytes;
        let mut take = |lot: &Lot<T>, until: usize, chosen: &mut BTreeMap<u64, T>| {
            for ((_, number), candidate) in &lot.best {
                if chosen.len() >= until {
                    break;
                }
                if candidate.size <= left && !chosen.contains_key(number) {
                    left -= candidate.size;
                    chosen.insert(*number, candidate.file.clone());
                }
            }
        };
        take(&self.known, self.files / 2, &mut chosen);
        let rest = self.files - chosen.len();
        // Blind before big: what is big takes what is left.
        take(&self.blind, self.files - rest / 4, &mut chosen);
        take(&self.by_size, self.files, &mut chosen);
        take(&self.blind, self.files, &mut chosen);
        take(&self.known, self.files, &mut chosen);
        Sample {
            files: chosen.into_values().collect(),
            bytes: self.bytes - left,
            seen: self.seen,
            seen_bytes: self.seen_bytes,
            too_large: self.too_large,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u32, files: u32, bytes: u64, sizes: &[u64], known: &[usize]) -> Sample<usize> {
        let mut sampler = Sampler::new(seed, files, bytes);
        for (at, size) in sizes.iter().enumerate() {
            sampler.offer(&Candidate { size: *size, is_known: known.contains(&at), weight: 100, file: at });
            assert!(sampler.blind.best.len() <= files as usize * SPARE && sampler.by_size.best.len() <= files as usize * SPARE);
        }
        let sample = sampler.draw();
        assert!(sample.files.len() <= files as usize && sample.bytes <= bytes);
        assert_eq!(sample.bytes, sample.files.iter().map(|at| sizes[*at]).sum::<u64>());
        assert!(sample.files.is_sorted());
        sample
    }

    #[test]
    fn the_same_seed_draws_the_same_sample() {
        let sizes: Vec<u64> = (0..5000).map(|n| n * 37 % 1000).collect();
        for seed in 0..20 {
            assert_eq!(draw(seed, 20, 1 << 20, &sizes, &[]), draw(seed, 20, 1 << 20, &sizes, &[]));
        }
        assert_ne!(draw(1, 20, 1 << 20, &sizes, &[]).files, draw(2, 20, 1 << 20, &sizes, &[]).files);
    }

    #[test]
    fn each_file_has_the_same_chance() {
        let sizes = vec![10; 200];
        let mut hits = [0_u32; 200];
        for seed in 0..4000 {
            let sample = draw(seed, 10, 1 << 20, &sizes, &[]);
            assert_eq!(sample.files.len(), 10);
            sample.files.iter().for_each(|at| hits[*at] += 1);
        }
        // 200 expected each, with a deviation of about 14: six of them either way.
        assert!(hits.iter().all(|hits| (116..=284).contains(hits)), "{hits:?}");
    }

    #[test]
    fn small_files_have_the_same_chance_beside_big_ones_and_big_ones_appear() {
        // A big file in every 50.
        let sizes: Vec<u64> = (0..1000).map(|n| if n % 50 == 0 { 1_000_000 } else { 100 }).collect();
        let (mut small, mut big, mut with_big) = (vec![0_u32; 1000], 0, 0);
        for seed in 0..2000 {
            let sample = draw(seed, 20, 8_000_000, &sizes, &[]);
            assert_eq!(sample.files.len(), 20);
            let bigs = sample.files.iter().filter(|at| sizes[**at] > 100).count();
            big += bigs;
            with_big += usize::from(bigs > 0);
            sample.files.iter().for_each(|at| small[*at] += 1);
            assert!(sample.files.len() - bigs >= 10, "few small ones: {sample:?}");
        }
        assert!(with_big > 1990, "{with_big} of 2000 have a big file");
        assert!(big > 2000 * 4, "{big}");
        let small: Vec<u32> = small.into_iter().enumerate().filter(|(at, _)| at % 50 != 0).map(|(_, hits)| hits).collect();
        // About 30 each.
        assert!(small.iter().all(|hits| (5..=65).contains(hits)), "{small:?}");
    }

    #[test]
    fn whatever_fits_can_be_reached_and_nothing_goes_over() {
        // The last one takes all of the bytes there are.
        let sizes = [5, 5, 5, 1000];
        let reached = (0..200).filter(|seed| draw(*seed, 2, 1000, &sizes, &[]).files.contains(&3)).count();
        assert!(reached > 20, "{reached}");
        let sample = draw(1, 5, 999, &sizes, &[]);
        assert_eq!((sample.files, sample.seen, sample.too_large), (vec![0, 1, 2], 4, 1));
        assert_eq!(draw(1, 5, 100, &[], &[]).files, Vec::<usize>::new());
    }

    #[test]
    fn what_is_known_is_up_to_half_and_no_more() {
        let sizes = vec![10; 3000];
        let known: Vec<usize> = (0..300).map(|n| n * 10).collect();
        for seed in 0..20 {
            let sample = draw(seed, 20, 1 << 20, &sizes, &known);
            let again = sample.files.iter().filter(|at| known.contains(at)).count();
            assert!((10..=16).contains(&again) && sample.files.len() == 20, "{again}");
        }
        assert!(draw(3, 20, 1 << 20, &sizes, &[7]).files.contains(&7));
    }

    #[test]
    fn memory_is_bounded() {
        let mut sampler = Sampler::new(1, 2000, u64::MAX);
        for at in 0..5000_u32 {
            sampler.offer(&Candidate { size: 10, is_known: true, weight: 1 << 20, file: at });
            assert!(sampler.blind.memory <= MEMORY && sampler.by_size.memory <= MEMORY && sampler.known.memory <= MEMORY);
        }
        assert!(sampler.draw().files.len() >= 32);
    }
}
