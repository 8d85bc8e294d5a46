//! What a ranking in random order scores on average.

use crate::Metric;
use crate::metric::{cutoff, discount, exponential_gain, ideal, linear_gain};

impl Metric {
    /// The expected value over all orders of `candidates` candidates, of which some have the
    /// grades above 0 in `grades`.
    ///
    /// # Panics
    /// If no grade is above 0 or there are more such grades than candidates.
    pub fn chance(self, candidates: usize, grades: &[f64]) -> f64 {
        let relevant = grades.iter().filter(|grade| **grade > 0.0).count();
        assert!((1..=candidates).contains(&relevant), "{relevant} of {candidates} candidates are relevant");
        let (n, r) = (candidates as f64, relevant as f64);
        let expected_hits = |k: usize| r * k.min(candidates) as f64 / n;
        match self {
            Metric::HitRate(k) => 1.0 - all_missed(candidates, relevant, k.get()),
            Metric::Precision(k) => expected_hits(k.get()) / k.get() as f64,
            Metric::Recall(k) => expected_hits(k.get()) / r,
            Metric::F1(k) => 2.0 * expected_hits(k.get()) / (k.get() as f64 + r),
            Metric::Mrr(k) => reciprocal_rank(candidates, relevant, cutoff(k).get()),
            Metric::Map(k) => {
                // Given a relevant candidate at a place, each other place holds one with (r - 1) / (n - 1).
                let rest = if candidates > 1 { (r - 1.0) / (n - 1.0) } else { 0.0 };
                let k = cutoff(k).get();
                let places = (1..=k.min(candidates)).map(|place| place as f64);
                r / n * places.map(|place| (1.0 + (place - 1.0) * rest) / place).sum::<f64>()
                    / relevant.min(k) as f64
            }
            Metric::Ndcg(k) => gain_share(candidates, grades, cutoff(k), linear_gain),
            Metric::NdcgExponential(k) => gain_share(candidates, grades, cutoff(k), exponential_gain),
        }
    }
}

/// The probability that the first `k` places hold nothing relevant.
fn all_missed(candidates: usize, relevant: usize, k: usize) -> f64 {
    let wrong = candidates - relevant;
    if k > wrong {
        return 0.0;
    }
    (0..k).map(|i| (wrong - i) as f64 / (candidates - i) as f64).product()
}

fn reciprocal_rank(candidates: usize, relevant: usize, k: usize) -> f64 {
    let wrong = candidates - relevant;
    let mut missed = 1.0;
    let mut sum = 0.0;
    for place in 0..k.min(wrong + 1) {
        let left = (candidates - place) as f64;
        sum += missed * relevant as f64 / left / (place + 1) as f64;
        missed *= (wrong - place) as f64 / left;
    }
    sum
}

fn gain_share(candidates: usize, grades: &[f64], k: std::num::NonZeroUsize, gain: fn(f64) -> f64) -> f64 {
    let total: f64 = grades.iter().map(|grade| gain(*grade)).sum();
    let discounts: f64 = (0..k.get().min(candidates)).map(discount).sum();
    total / candidates as f64 * discounts / ideal(grades, k, gain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ranking;

    /// Calls `visit` with every order of `items`.
    fn permute(items: &mut Vec<usize>, fixed: usize, visit: &mut dyn FnMut(&[usize])) {
        if fixed == items.len() {
            return visit(items);
        }
        for other in fixed..items.len() {
            items.swap(fixed, other);
            permute(items, fixed + 1, visit);
            items.swap(fixed, other);
        }
    }

    fn mean_over_all_orders(metric: Metric, candidates: usize, relevant: &[(usize, f64)]) -> f64 {
        let (mut sum, mut orders) = (0.0, 0);
        permute(&mut (0..candidates).collect(), 0, &mut |order| {
            let scores = order.iter().enumerate().map(|(place, index)| (*index, -(place as f32))).collect();
            sum += metric.value(&Ranking::new(scores, relevant).unwrap());
            orders += 1;
        });
        sum / f64::from(orders)
    }

    #[test]
    fn chance_is_the_mean_over_all_orders() {
        let cases: [(usize, &[f64]); 4] =
            [(1, &[1.0]), (4, &[1.0]), (6, &[2.0, 0.0, 1.0, 3.0]), (3, &[1.0; 3])];
        let names = [
            "hit_rate@1",
            "hit_rate@3",
            "hit_rate@9",
            "precision@2",
            "precision@8",
            "recall@2",
            "recall@9",
            "f1@3",
            "mrr",
            "mrr@2",
            "map",
            "map@2",
            "ndcg",
            "ndcg@2",
            "ndcg_exponential",
            "ndcg_exponential@5",
        ];
        for (candidates, grades) in cases {
            let relevant: Vec<_> = grades.iter().copied().enumerate().collect();
            for name in names {
                let metric: Metric = name.parse().unwrap();
                let expected = mean_over_all_orders(metric, candidates, &relevant);
                let found = metric.chance(candidates, grades);
                assert!((found - expected).abs() < 1e-9, "{name} of {grades:?}: {found}, not {expected}");
            }
        }
    }
}
