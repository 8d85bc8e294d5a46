//! Hashes that differ in few bits, without comparing all with all.

use std::collections::HashMap;

/// Hashes by each of their four quarters.
///
/// Two hashes that differ in at most 7 bits have a quarter in which they differ in at most one. So each quarter and its
/// 16 neighbours at one bit are looked up, 68 lists of about `count / 65536` hashes each where hashes are spread well
/// (multi-index hashing, <https://arxiv.org/abs/1307.2982>).
#[derive(Default)]
pub(super) struct HashIndex {
    quarters: [HashMap<u16, Vec<usize>>; 4],
    hashes: Vec<(u64, usize)>,
}

/// The largest distance at which every pair is found.
pub const MAX_BITS: u32 = 7;

impl HashIndex {
    /// Adds a hash under a number, which may come several times.
    pub fn add(&mut self, hash: u64, number: usize) {
        let place = self.hashes.len();
        self.hashes.push((hash, number));
        for (quarter, key) in self.quarters.iter_mut().zip(quarters(hash)) {
            quarter.entry(key).or_default().push(place);
        }
    }

    /// The numbers of the hashes within `bits` of this one, each once, in order.
    ///
    /// # Panics
    /// If `bits` is more than [`MAX_BITS`].
    pub fn within(&self, hash: u64, bits: u32) -> Vec<usize> {
        assert!(bits <= MAX_BITS, "{bits} bits are more than {MAX_BITS}");
        let mut found = Vec::new();
        for (quarter, key) in self.quarters.iter().zip(quarters(hash)) {
            let flipped = (0..16).map(|bit| key ^ 1 << bit);
            for list in std::iter::once(key).chain(flipped).filter_map(|key| quarter.get(&key)) {
                let hashes = list.iter().map(|place| self.hashes[*place]);
                found.extend(hashes.filter(|(other, _)| (other ^ hash).count_ones() <= bits).map(|(_, n)| n));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn quarters(hash: u64) -> [u16; 4] {
    [0, 16, 32, 48].map(|shift| (hash >> shift) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn every_hash_within_seven_bits_is_found() {
        let mut rng = Rng::new(3, 0, "hashes");
        let mut word = || (0..4).fold(0_u64, |word, _| word << 16 | rng.below(1 << 16) as u64);
        let centre = word();
        let mut hashes: Vec<u64> = (0..500).map(|_| word()).collect();
        for count in 0..300 {
            let mut near = centre;
            (0..count % 12).for_each(|_| near ^= 1 << (word() % 64));
            hashes.push(near);
        }
        let mut index = HashIndex::default();
        hashes.iter().enumerate().for_each(|(number, hash)| index.add(*hash, number));
        for bits in [0, 3, MAX_BITS] {
            let near = |hash: &u64| (hash ^ centre).count_ones() <= bits;
            let all: Vec<usize> = (0..hashes.len()).filter(|number| near(&hashes[*number])).collect();
            assert_eq!(index.within(centre, bits), all, "{bits}");
            assert!(all.len() > 20, "{bits}");
        }
    }
}
