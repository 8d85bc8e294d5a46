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

/// Draws the queries of each task anew `samples` times, with replacement, and looks at the mean over tasks of the
/// differences: tasks count alike, however many queries they have.
///
/// `differences` of a task hold one number for each query; of several runs of each side, the mean over the runs. The interval
/// says what other queries would do, not what other seeds would.
///
/// The result depends on `seed` but on no thread.
///
/// # Errors
/// No task, or a task without queries.
///
/// # Panics
/// If `samples` is 0.
pub fn bootstrap_of_tasks(
    differences: &[Vec<f64>],
    samples: usize,
    seed: u64,
) -> Result<PairedDifference, EvalError> {
    if differences.is_empty() || differences.iter().any(Vec::is_empty) {
        return Err(EvalError::Unpaired { first: 0, second: 0 });
    }
    let over_tasks = |one: &mut dyn FnMut(&[f64]) -> f64| {
        differences.iter().map(|task| one(task) / task.len() as f64).sum::<f64>() / differences.len() as f64
    };
    let resampled = |sample: u64| {
        let mut draw = Draw::new(seed, sample);
        over_tasks(&mut |task| (0..task.len()).map(|_| task[draw.below(task.len())]).sum())
    };
    let found = over_tasks(&mut |task| task.iter().sum());
    Ok(PairedDifference::of(found, samples, resampled))
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
    let differences = a.iter().zip(b).map(|(a, b)| a - b).collect();
    bootstrap_of_tasks(&[differences], samples, seed)
}

impl PairedDifference {
    fn of(mean_difference: f64, samples: usize, resampled: impl Fn(u64) -> f64 + Sync + Send) -> Self {
        assert!(samples > 0, "a bootstrap needs samples");
        let mut means: Vec<f64> = (0..samples as u64).into_par_iter().map(resampled).collect();
        means.sort_by(f64::total_cmp);
        let below = means.iter().filter(|mean| **mean <= 0.0).count();
        let above = means.iter().filter(|mean| **mean >= 0.0).count();
        // One is added on both sides of the fraction: p can't be 0 after finitely many samples.
        let p = 2.0 * (below.min(above) + 1) as f64 / (samples + 1) as f64;
        let outside = samples * 25 / 1000;
        PairedDifference {
            mean_difference,
            low: means[outside],
            high: means[samples - 1 - outside],
            p: p.min(1.0),
        }
    }
}

/// Numbers of one resample.
struct Draw(u64);

impl Draw {
    fn new(seed: u64, sample: u64) -> Self {
        Draw(mix(seed).wrapping_add(mix(!sample)))
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * count as u128) >> 64) as usize
    }
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
    fn tasks_count_alike() {
        // The small task weighs as much as the large one.
        let uneven = [vec![1.0, 0.0], vec![0.0; 98]];
        assert!((bootstrap_of_tasks(&uneven, 10, 1).unwrap().mean_difference - 0.25).abs() < 1e-12);
        // One task: as the bootstrap of its queries.
        let a: Vec<f64> = (0..400).map(|i| if i % 20 < 11 { 1.0 } else { -1.0 }).collect();
        let one = bootstrap_of_tasks(std::slice::from_ref(&a), 4000, 7).unwrap();
        assert_eq!(one, paired_bootstrap(&a, &[0.0; 400], 4000, 7).unwrap());
        // Two such tasks: the interval is narrower by the root of two.
        let two = bootstrap_of_tasks(&[a.clone(), a], 4000, 7).unwrap();
        let ratio = (one.high - one.low) / (two.high - two.low);
        assert!((ratio / 2.0f64.sqrt() - 1.0).abs() < 0.1, "{one:?} {two:?}");
        assert!(bootstrap_of_tasks(&[], 10, 1).is_err() && bootstrap_of_tasks(&[vec![]], 10, 1).is_err());
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
