//! Names and formulas of the metrics.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Ranking;

/// A number between 0 and 1 about one ranking; a task's score is the mean over its queries.
///
/// Written as `hit_rate@1`, `precision@5`, `recall@10`, `f1@10`, `mrr`, `mrr@10`, `map`, `map@100`,
/// `ndcg`, `ndcg@10`, `ndcg_exponential@5`; without `@k` the whole ranking counts.
///
/// ```
/// use rzen_eval::Metric;
/// let metric: Metric = "ndcg@10".parse().unwrap();
/// assert_eq!(metric.to_string(), "ndcg@10");
/// assert!("accuracy".parse::<Metric>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Metric {
    /// 1 if a relevant candidate is among the first k.
    HitRate(NonZeroUsize),
    /// Relevant among the first k, divided by k.
    Precision(NonZeroUsize),
    /// Relevant among the first k, divided by all relevant.
    Recall(NonZeroUsize),
    /// Harmonic mean of precision and recall at k.
    F1(NonZeroUsize),
    /// One over the rank of the first relevant candidate, 0 past k.
    Mrr(Option<NonZeroUsize>),
    /// Mean of the precision at each relevant rank within k, over `min(relevant, k)`.
    Map(Option<NonZeroUsize>),
    /// Discounted gain over the ideal one; the gain is the grade.
    Ndcg(Option<NonZeroUsize>),
    /// Discounted gain over the ideal one; the gain is 2^grade − 1.
    NdcgExponential(Option<NonZeroUsize>),
}

impl Metric {
    /// What every run reports, beside a task's own metric.
    pub const STANDARD: [Metric; 9] = [
        Metric::HitRate(at(1)),
        Metric::HitRate(at(5)),
        Metric::HitRate(at(10)),
        Metric::Recall(at(10)),
        Metric::Mrr(None),
        Metric::Map(None),
        Metric::Ndcg(Some(at(5))),
        Metric::Ndcg(Some(at(10))),
        Metric::NdcgExponential(Some(at(5))),
    ];

    /// The share of queries answered right at once.
    pub const HIT_AT_1: Metric = Metric::HitRate(at(1));

    /// The value for one ranking.
    pub fn value(self, ranking: &Ranking) -> f64 {
        let all = ranking.relevant();
        let found = |k: NonZeroUsize| all.iter().take_while(move |one| one.place < k.get());
        let hits = |k| found(k).count() as f64;
        match self {
            Metric::HitRate(k) => f64::from(u8::from(all[0].place < k.get())),
            Metric::Precision(k) => hits(k) / k.get() as f64,
            Metric::Recall(k) => hits(k) / all.len() as f64,
            // 2PR / (P + R) with P = h / k and R = h / r.
            Metric::F1(k) => 2.0 * hits(k) / (k.get() + all.len()) as f64,
            Metric::Mrr(k) => found(cutoff(k)).next().map_or(0.0, |one| 1.0 / (one.place + 1) as f64),
            Metric::Map(k) => {
                let precisions =
                    found(cutoff(k)).zip(1..).map(|(one, h)| f64::from(h) / (one.place + 1) as f64);
                sum(precisions) / all.len().min(cutoff(k).get()) as f64
            }
            Metric::Ndcg(k) => ndcg(ranking, cutoff(k), linear_gain),
            Metric::NdcgExponential(k) => ndcg(ranking, cutoff(k), exponential_gain),
        }
    }
}

/// A cut-off written down in this crate.
const fn at(k: usize) -> NonZeroUsize {
    NonZeroUsize::new(k).expect("written cut-offs are above 0")
}

pub(crate) fn cutoff(k: Option<NonZeroUsize>) -> NonZeroUsize {
    k.unwrap_or(NonZeroUsize::MAX)
}

pub(crate) fn linear_gain(grade: f64) -> f64 {
    grade
}

/// 2^grade − 1, without losing small grades to rounding.
pub(crate) fn exponential_gain(grade: f64) -> f64 {
    (grade * std::f64::consts::LN_2).exp_m1()
}

fn ndcg(ranking: &Ranking, k: NonZeroUsize, gain: fn(f64) -> f64) -> f64 {
    let grades: Vec<f64> = ranking.relevant().iter().map(|one| one.grade).collect();
    let found = ranking.relevant().iter().take_while(|one| one.place < k.get());
    sum(found.map(|one| gain(one.grade) * discount(one.place))) / ideal(&grades, k, gain)
}

/// The sum, 0 of nothing (`Iterator::sum` says -0).
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// The gain of the best order: all relevant ones by falling grade, cut at k.
pub(crate) fn ideal(grades: &[f64], k: NonZeroUsize, gain: fn(f64) -> f64) -> f64 {
    let mut relevant: Vec<f64> = grades.iter().copied().filter(|grade| *grade > 0.0).collect();
    relevant.sort_by(|a, b| b.total_cmp(a));
    relevant.iter().take(k.get()).enumerate().map(|(place, grade)| gain(*grade) * discount(place)).sum()
}

/// The weight of a place, counted from 0.
pub(crate) fn discount(place: usize) -> f64 {
    1.0 / (place as f64 + 2.0).log2()
}

/// A name that is no metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no metric; known are hit_rate@k, precision@k, recall@k, f1@k, mrr, mrr@k, map, map@k, \
     ndcg, ndcg@k, ndcg_exponential and ndcg_exponential@k, with k from 1"
)]
pub struct UnknownMetric {
    /// What was given.
    pub name: String,
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, UnknownMetric> {
        let unknown = || UnknownMetric { name: name.to_string() };
        let (kind, k) = match name.split_once('@') {
            None => (name, None),
            // `parse` would also take "+5" and "05", which no metric is called.
            Some((_, k)) if k.starts_with(['+', '0']) => return Err(unknown()),
            Some((kind, k)) => (kind, Some(k.parse::<NonZeroUsize>().map_err(|_| unknown())?)),
        };
        match (kind, k) {
            ("hit_rate", Some(k)) => Ok(Metric::HitRate(k)),
            ("precision", Some(k)) => Ok(Metric::Precision(k)),
            ("recall", Some(k)) => Ok(Metric::Recall(k)),
            ("f1", Some(k)) => Ok(Metric::F1(k)),
            ("mrr", k) => Ok(Metric::Mrr(k)),
            ("map", k) => Ok(Metric::Map(k)),
            ("ndcg", k) => Ok(Metric::Ndcg(k)),
            ("ndcg_exponential", k) => Ok(Metric::NdcgExponential(k)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, k) = match *self {
            Metric::HitRate(k) => ("hit_rate", Some(k)),
            Metric::Precision(k) => ("precision", Some(k)),
            Metric::Recall(k) => ("recall", Some(k)),
            Metric::F1(k) => ("f1", Some(k)),
            Metric::Mrr(k) => ("mrr", k),
            Metric::Map(k) => ("map", k),
            Metric::Ndcg(k) => ("ndcg", k),
            Metric::NdcgExponential(k) => ("ndcg_exponential", k),
        };
        match k {
            Some(k) => f.pad(&format!("{kind}@{k}")),
            None => f.pad(kind),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = UnknownMetric;

    fn try_from(name: String) -> Result<Self, UnknownMetric> {
        name.parse()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> String {
        metric.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidates in the order given by the model, with their grades.
    fn check(name: &str, grades: &[f64], expected: f64) {
        let scores = (0..grades.len()).map(|i| (i, -(i as f32))).collect();
        let relevant: Vec<_> = grades.iter().copied().enumerate().collect();
        let ranking = Ranking::new(scores, &relevant).unwrap();
        let found = name.parse::<Metric>().unwrap().value(&ranking);
        assert!((found - expected).abs() < 1e-12, "{name} of {grades:?} is {found}, expected {expected}");
    }

    #[test]
    fn binary_metrics_equal_hand_computed_values() {
        let grades = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        check("hit_rate@1", &grades, 0.0);
        check("hit_rate@2", &grades, 1.0);
        check("hit_rate@100", &grades, 1.0);
        check("precision@4", &grades, 0.5);
        check("precision@12", &grades, 0.25);
        check("recall@4", &grades, 2.0 / 3.0);
        // P = 1/2, R = 2/3: 2 · 1/3 / (7/6) = 4/7.
        check("f1@4", &grades, 4.0 / 7.0);
        check("f1@1", &grades, 0.0);
        check("mrr", &grades, 0.5);
        check("mrr@1", &grades, 0.0);
        // (1/2 + 2/4 + 3/5) / 3
        check("map", &grades, 1.6 / 3.0);
        // (1/2 + 2/4) / 3, and / 2 where only two places are left.
        check("map@4", &grades, 1.0 / 3.0);
        check("map@2", &grades, 0.25);
    }

    #[test]
    fn gains_of_graded_relevance_equal_hand_computed_values() {
        let log3 = 3f64.log2();
        let log5 = 5f64.log2();
        let grades = [1.0, 0.0, 3.0, 2.0];
        // DCG 1/1 + 3/2 + 2/log2(5); ideal 3/1 + 2/log2(3) + 1/2.
        check("ndcg", &grades, (1.0 + 1.5 + 2.0 / log5) / (3.0 + 2.0 / log3 + 0.5));
        check("ndcg@3", &grades, 2.5 / (3.0 + 2.0 / log3 + 0.5));
        check("ndcg@1", &grades, 1.0 / 3.0);
        // Gains 1, 7 and 3.
        check("ndcg_exponential", &grades, (1.0 + 3.5 + 3.0 / log5) / (7.0 + 3.0 / log3 + 0.5));
        check("ndcg_exponential@1", &grades, 1.0 / 7.0);
        // The ideal counts relevant ones that the cut leaves out.
        check("ndcg@2", &[0.0, 0.0, 1.0, 1.0], 0.0);
        for name in ["ndcg@2", "map@2", "mrr@2", "f1@2"] {
            let ranking = Ranking::new(vec![(0, 0.3), (1, 0.9), (2, 0.5)], &[(0, 1.0)]).unwrap();
            let value = name.parse::<Metric>().unwrap().value(&ranking);
            assert!(value == 0.0 && value.is_sign_positive(), "{name}: {value}");
        }
        check("ndcg@2", &[1.0, 0.0, 1.0, 1.0], 1.0 / (1.0 + 1.0 / log3));
    }

    #[test]
    fn binary_grades_make_both_gains_equal() {
        let ranking = Ranking::new(vec![(0, 0.3), (1, 0.9), (2, 0.1)], &[(0, 1.0), (2, 1.0)]).unwrap();
        let linear = Metric::Ndcg(None).value(&ranking);
        let exponential = Metric::NdcgExponential(None).value(&ranking);
        assert!((linear - exponential).abs() < 1e-12);
    }

    #[test]
    fn names_come_back_and_unknown_ones_are_refused() {
        for name in [
            "hit_rate@1",
            "precision@3",
            "recall@5",
            "f1@10",
            "mrr",
            "mrr@10",
            "map",
            "map@100",
            "ndcg",
            "ndcg@10",
            "ndcg_exponential",
            "ndcg_exponential@5",
        ] {
            let metric: Metric = name.parse().unwrap();
            assert_eq!(metric.to_string(), name);
            let json = serde_json::to_string(&metric).unwrap();
            assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
        }
        for name in
            ["", "hit_rate", "hit_rate@0", "hit_rate@", "ndcg@-1", "ndcg@+1", "ndcg@05", "mrr@1@2", "acc"]
        {
            let error = name.parse::<Metric>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("ndcg_exponential@k"), "{error}");
        }
    }
}
