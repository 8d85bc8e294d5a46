//! Reproducible random numbers ([SplitMix64](https://doi.org/10.1145/2714064.2660195)).

use sha2::{Digest, Sha256};

/// A generator whose numbers can be asked for by their place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitMix(pub u64);

impl SplitMix {
    /// A generator for `seed` and the thing that `names` tell apart from others.
    pub(crate) fn of(seed: u64, names: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(seed.to_le_bytes());
        for name in names {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        SplitMix(u64::from_le_bytes(hash[..8].try_into().expect("a hash has 32 bytes")))
    }

    /// The `i`-th number.
    pub(crate) fn at(self, i: u64) -> u64 {
        let state = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(i.wrapping_add(1)));
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Whether the `i`-th of a series of trials, each with this chance, comes out.
    pub(crate) fn chance(self, i: u64, chance: f64) -> bool {
        (self.at(i) >> 11) as f64 / ((1u64 << 53) as f64) < chance
    }

    /// True with the chance `density`, `len` times; the generator goes on.
    pub(crate) fn mask(&mut self, len: usize, density: f64) -> Vec<bool> {
        let mask = (0..len as u64).map(|i| self.chance(i, density)).collect();
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(len as u64));
        mask
    }
}
