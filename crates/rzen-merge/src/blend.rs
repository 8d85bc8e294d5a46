//! Updates joined entry by entry, some rows at a time: no whole update is held.

use std::ops::Range;

use rayon::prelude::*;

use crate::LowRank;
use crate::low_rank::blocks;
use crate::product::Threads;
use crate::random::SplitMix;

/// An update of one module, and what it counts.
pub(crate) struct Portion {
    /// The weight in the soup.
    pub weight: f64,
    /// The adapter's scaling.
    pub scaling: f64,
    /// The update without it.
    pub update: LowRank,
    /// Random numbers of this adapter's module.
    pub random: SplitMix,
}

impl Portion {
    /// What the update is multiplied with in the weighted sum.
    pub(crate) fn factor(&self) -> f64 {
        self.weight * self.scaling
    }
}

/// The update of a module that TIES or DARE gives.
pub(crate) struct Blend<'a> {
    portions: &'a [Portion],
    rule: Rule,
}

enum Rule {
    /// The magnitude, as bits, from which on entries of each update count, and the sum of all weights.
    Ties {
        least: Vec<u32>,
        total: f32,
    },
    Dare {
        density: f64,
    },
}

impl<'a> Blend<'a> {
    /// TIES; `total` is the sum of all weights, also of adapters that lack the module.
    pub(crate) fn ties(portions: &'a [Portion], density: f64, total: f64) -> Self {
        let least = portions.iter().map(|portion| least_kept(portion, density)).collect();
        Blend { portions, rule: Rule::Ties { least, total: total as f32 } }
    }

    pub(crate) fn dare(portions: &'a [Portion], density: f64) -> Self {
        Blend { portions, rule: Rule::Dare { density } }
    }

    /// `[out, in]`
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.portions[0].update.shape()
    }

    /// All rows.
    pub(crate) fn matrix(&self) -> Vec<f32> {
        let shape @ [out, input] = self.shape();
        let mut matrix = vec![0.0; out * input];
        let mut parts = Vec::new();
        let mut rest = &mut matrix[..];
        for rows in blocks(shape) {
            let (part, after) = rest.split_at_mut(rows.len() * input);
            parts.push((rows, part));
            rest = after;
        }
        parts.into_par_iter().for_each(|(rows, part)| part.copy_from_slice(&self.rows(rows)));
        matrix
    }

    /// Some rows; one of [`blocks`], so that they have the bits that were looked at before.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        let updates: Vec<Vec<f32>> =
            self.portions.iter().map(|portion| delta_rows(portion, rows.clone())).collect();
        match &self.rule {
            Rule::Ties { least, total } => {
                let trimmed = |n: usize, i: usize| {
                    let x: f32 = updates[n][i];
                    if x.abs().to_bits() >= least[n] { x } else { 0.0 }
                };
                let entry = |i: usize| {
                    let parts = self.portions.iter().enumerate();
                    let parts = parts.map(|(n, portion)| (portion.weight as f32, trimmed(n, i)));
                    let vote: f32 = parts.clone().map(|(weight, x)| weight * x).sum();
                    let agreeing =
                        parts.filter(|(_, x)| if vote > 0.0 { *x > 0.0 } else { *x < 0.0 && vote < 0.0 });
                    let (sum, weights) = agreeing
                        .fold((0.0, 0.0), |(sum, weights), (weight, x)| (sum + weight * x, weights + weight));
                    if weights > 0.0 { total * (sum / weights) } else { 0.0 }
                };
                (0..updates[0].len()).map(entry).collect()
            }
            Rule::Dare { density } => {
                let first = (rows.start * self.shape()[1]) as u64;
                let mut sums = vec![0.0f32; updates[0].len()];
                for (portion, update) in self.portions.iter().zip(&updates) {
                    let factor = (portion.weight / density) as f32;
                    for (i, (sum, x)) in sums.iter_mut().zip(update).enumerate() {
                        if portion.random.chance(first + i as u64, *density) {
                            *sum += factor * x;
                        }
                    }
                }
                sums
            }
        }
    }

    /// The squared distance to the weighted sum of the updates, and the squared norm of that sum.
    pub(crate) fn distance(&self, rows: Range<usize>, found: &[f32]) -> (f64, f64) {
        let mut wanted = vec![0.0f64; found.len()];
        for portion in self.portions {
            let update = delta_rows(portion, rows.clone());
            wanted.iter_mut().zip(update).for_each(|(sum, x)| *sum += portion.weight * f64::from(x));
        }
        let pairs = found.iter().zip(&wanted);
        pairs.fold((0.0, 0.0), |(difference, norm), (x, w)| {
            let d = f64::from(*x) - w;
            (difference + d * d, norm + w * w)
        })
    }
}

fn delta_rows(portion: &Portion, rows: Range<usize>) -> Vec<f32> {
    let mut out = vec![0.0; rows.len() * portion.update.shape()[1]];
    portion.update.delta_rows(portion.scaling, rows, &mut out, Threads::One);
    out
}

/// The least magnitude, as bits, among the share `density` of an update's entries that is largest, at least one.
///
/// Magnitudes of floats are ordered as their bits are: entries are counted by their upper 16 bits, and those in the place
/// that is looked for by their lower 16.
fn least_kept(portion: &Portion, density: f64) -> u32 {
    let shape @ [out, input] = portion.update.shape();
    let entries = out * input;
    let keep = ((density * entries as f64).ceil() as usize).clamp(1, entries) as u64;
    let blocks: Vec<Range<usize>> = blocks(shape).collect();
    let count = |place: &(dyn Fn(u32) -> Option<u16> + Sync)| -> Vec<u64> {
        let counts = blocks.par_iter().fold(
            || vec![0u64; 1 << 16],
            |mut counts, rows| {
                for x in delta_rows(portion, rows.clone()) {
                    if let Some(place) = place(x.abs().to_bits()) {
                        counts[usize::from(place)] += 1;
                    }
                }
                counts
            },
        );
        counts.reduce(
            || vec![0; 1 << 16],
            |mut sums, counts| {
                sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                sums
            },
        )
    };
    let (upper, above) = place_of(&count(&|bits| Some((bits >> 16) as u16)), keep);
    let lower = count(&|bits| ((bits >> 16) as u16 == upper).then_some(bits as u16));
    let (lower, _) = place_of(&lower, keep - above);
    (u32::from(upper) << 16) | u32::from(lower)
}

/// The place of the `keep`-th entry from above, and how many stand above that place.
fn place_of(counts: &[u64], keep: u64) -> (u16, u64) {
    let mut above = 0;
    for (place, count) in counts.iter().enumerate().rev() {
        if above + count >= keep {
            return (place as u16, above);
        }
        above += count;
    }
    (0, above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;

    fn portion(weight: f64, row: &[f32]) -> Portion {
        let update = LowRank::new(Matrix::new(1, row.len(), row.to_vec()), Matrix::new(1, 1, vec![1.0]));
        Portion { weight, scaling: 1.0, update, random: SplitMix(1) }
    }

    #[test]
    fn the_least_kept_is_exact() {
        let row = [4.0, -1.0, 2.0, 2.000_001, -3.0, 0.0, 1e-30, 0.5];
        for (density, least) in
            [(0.01, 4.0), (0.25, 3.0), (0.375, 2.000_001), (0.5, 2.0), (0.51, 1.0), (1.0, 0.0f32)]
        {
            assert_eq!(least_kept(&portion(1.0, &row), density), least.to_bits(), "{density}");
        }
    }

    #[test]
    fn ties_follows_the_heavier_sign() {
        let portions = [portion(0.75, &[4.0, -1.0, 2.0]), portion(0.25, &[-1.0, -3.0, 8.0])];
        // 0.75 * 4 outweighs 0.25 * 1; where both agree it is their mean.
        assert_eq!(Blend::ties(&portions, 1.0, 1.0).matrix(), [4.0, -1.5, 3.5]);
        // Of the first 4 is kept, of the second 8; twice, as the weights ask.
        assert_eq!(Blend::ties(&portions, 0.3, 2.0).matrix(), [8.0, 0.0, 16.0]);
    }
}
