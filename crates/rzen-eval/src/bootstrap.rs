//! Is one run better than another, or were the queries kind?

use rayon::prelude::*;
use serde::Serialize;

use crate::EvalError;

/// The difference of two runs over the same queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairedDifference {
    /// The mean of the first run minus that of the second.
    pub mean_difference: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end of the 95 % interval.
    pub high: f64,
    /// Twice the share of resamples on the rarer side of no difference, between 0 and 1.
    pub p: f64,
}

/// Draws the queries anew `samples` times, with replacement, and looks at the mean of `a − b`.
///
/// The result depends on `seed` but on no thread.
///
/// # Errors
/// Runs of different length or without queries.
///
/// # Panics
/// If `samples` is 0.
pub fn paired_bootstrap(
    a: &[f64],
    b: &[f64],
    samples: usize,
    seed: u64,
) -> Result<PairedDifference, EvalError> {
    if a.len() != b.len() || a.is_empty() {
        return Err(EvalError::Unpaired { first: a.len(), second: b.len() });
    }
    assert!(samples > 0, "a bootstrap needs samples");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let mut means: Vec<f64> = (0..samples)
        .into_par_iter()
        .map(|sample| resampled_mean(&differences, seed, sample as u64))
        .collect();
    means.sort_by(f64::total_cmp);
    let below = means.iter().filter(|mean| **mean <= 0.0).count();
    let above = means.iter().filter(|mean| **mean >= 0.0).count();
    // One is added on both sides of the fraction: p can't be 0 after finitely many samples.
    let p = 2.0 * (below.min(above) + 1) as f64 / (samples + 1) as f64;
    let outside = samples * 25 / 1000;
    Ok(PairedDifference {
        mean_difference: differences.iter().sum::<f64>() / differences.len() as f64,
        low: means[outside],
        high: means[samples - 1 - outside],
        p: p.min(1.0),
    })
}

fn resampled_mean(differences: &[f64], seed: u64, sample: u64) -> f64 {
    let mut state = mix(seed).wrapping_add(mix(!sample));
    let sum: f64 = (0..differences.len())
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let at = (u128::from(mix(state)) * differences.len() as u128) >> 64;
            differences[at as usize]
        })
        .sum();
    sum / differences.len() as f64
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_normal_distribution() {
        // 400 differences of ±1 with mean 0.1: standard error √(1 − 0.01) / √400 ≈ 0.0497.
        let a: Vec<f64> = (0..400).map(|i| if i % 20 < 11 { 1.0 } else { -1.0 }).collect();
        let b = vec![0.0; 400];
        let found = paired_bootstrap(&a, &b, 4000, 7).unwrap();
        assert!((found.mean_difference - 0.1).abs() < 1e-12);
        assert!((found.low - (0.1 - 1.96 * 0.0497)).abs() < 0.012, "{found:?}");
        assert!((found.high - (0.1 + 1.96 * 0.0497)).abs() < 0.012, "{found:?}");
        // The two-sided p of z = 2.01 is 0.044.
        assert!((0.02..0.08).contains(&found.p), "{found:?}");
    }

    #[test]
    fn sides_swap_with_the_runs_and_the_seed_decides() {
        let a: Vec<f64> = (0..50).map(|i| f64::from(i % 3)).collect();
        let b: Vec<f64> = (0..50).map(|i| f64::from(i % 5) * 0.3).collect();
        let forth = paired_bootstrap(&a, &b, 501, 1).unwrap();
        let back = paired_bootstrap(&b, &a, 501, 1).unwrap();
        assert!((forth.mean_difference + back.mean_difference).abs() < 1e-12);
        assert!((forth.low + back.high).abs() < 1e-12 && (forth.high + back.low).abs() < 1e-12);
        assert_eq!(forth, paired_bootstrap(&a, &b, 501, 1).unwrap());
        assert_ne!(forth, paired_bootstrap(&a, &b, 501, 2).unwrap());
        assert!(forth.low < forth.mean_difference && forth.mean_difference < forth.high);
    }

    #[test]
    fn equal_runs_do_not_differ_and_clear_ones_do() {
        let a = [0.0, 1.0, 1.0, 0.0];
        let same = paired_bootstrap(&a, &a, 100, 3).unwrap();
        assert_eq!((same.mean_difference, same.low, same.high, same.p), (0.0, 0.0, 0.0, 1.0));
        let better: Vec<f64> = a.iter().map(|value| value + 1.0).collect();
        assert!(paired_bootstrap(&better, &a, 999, 3).unwrap().p < 0.01);
        assert!(paired_bootstrap(&a, &a[..3], 10, 0).is_err());
        assert!(paired_bootstrap(&[], &[], 10, 0).is_err());
    }
}
