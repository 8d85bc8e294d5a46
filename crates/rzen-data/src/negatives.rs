//! Which of the candidates that a model ranks high for a query become its hard negatives.

use std::ops::AddAssign;

use rzen_core::Part;
use serde::Serialize;

use crate::TeacherFilter;
use crate::rng::Rng;

/// What a query's hard negatives are taken from, and how.
///
/// Ranks count the candidates that may be negatives at all, from 1. Of those in the window, the ones that the filters keep
/// are taken ([NV-Retriever](https://arxiv.org/abs/2407.15831) §3: margin and percentage of the positive's score, and
/// a window that begins after the first ranks).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NegativeChoice {
    /// Negatives taken at most.
    pub count: usize,
    /// The first and the last rank of the window.
    pub rank: [usize; 2],
    /// Keeps what scores far enough below the lowest positive.
    pub below_positive: TeacherFilter,
    /// Keeps what scores no more than this.
    pub max_score: Option<f64>,
    /// Keeps what scores no less than this.
    pub min_score: Option<f64>,
    /// Which of those kept are taken.
    pub sampling: Sampling,
}

/// Which of the candidates that are kept are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// Those ranked first.
    Top,
    /// As chance has it, in an order of chance too: a training that uses the first few uses a sample.
    Random {
        /// Decides the draws.
        seed: u64,
    },
}

/// How many candidates each rule left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NegativesLost {
    /// Ranked before the window.
    pub rank: usize,
    /// Not far enough below the positive by `margin`.
    pub margin: usize,
    /// Not far enough below the positive by `percent`, and not counted for `margin`.
    pub percent: usize,
    /// Scored above `max_score`, and not counted before.
    pub max_score: usize,
    /// Scored below `min_score`, and not counted before.
    pub min_score: usize,
}

impl AddAssign for NegativesLost {
    fn add_assign(&mut self, other: Self) {
        self.rank += other.rank;
        self.margin += other.margin;
        self.percent += other.percent;
        self.max_score += other.max_score;
        self.min_score += other.min_score;
    }
}

/// What is the query again and therefore no good negative of it: all that it shows, and its pictures, clips and pages without
/// the words.
pub fn forms_of_query(query: &[Part]) -> impl Iterator<Item = Vec<Part>> {
    let media: Vec<Part> = query.iter().filter(|part| !matches!(part, Part::Text(_))).cloned().collect();
    std::iter::once(query.to_vec()).chain(Some(media).filter(|media| !media.is_empty()))
}

impl NegativeChoice {
    /// Says which setting makes no sense, if any.
    ///
    /// # Errors
    /// The setting, what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        let [first, last] = self.rank;
        if self.count == 0 {
            return Err("no negatives are asked for; ask for 1 or more".to_owned());
        }
        if first == 0 || last < first {
            return Err(format!("the ranks {first}..{last} are no window; ranks are counted from 1"));
        }
        if last - first + 1 < self.count {
            let found = last - first + 1;
            return Err(format!(
                "the ranks {first}..{last} hold {found} candidates, and {} negatives are asked for; widen the window",
                self.count
            ));
        }
        for (name, score) in [("max", self.max_score), ("min", self.min_score)] {
            if score.is_some_and(|score| !score.is_finite()) {
                return Err(format!("the {name} score is no number"));
            }
        }
        match (self.min_score, self.max_score) {
            (Some(min), Some(max)) if min > max => {
                Err(format!("no score is both {min} or more and {max} or less"))
            }
            _ if self.below_positive == TeacherFilter::default() => Ok(()),
            _ => self.below_positive.check(),
        }
    }

    /// Takes from `scores`, those of the ranks from 1 on, with `positive`, the score of the lowest positive. Returns places in
    /// `scores`. `purpose` names the row: together with the seed it decides the draw.
    pub fn choose(&self, scores: &[f64], positive: f64, purpose: &str) -> (Vec<usize>, NegativesLost) {
        let [first, last] = self.rank;
        let mut lost = NegativesLost { rank: scores.len().min(first - 1), ..Default::default() };
        let window = (first - 1).min(scores.len())..last.min(scores.len());
        let mut kept: Vec<usize> =
            window.filter(|place| self.keeps(positive, scores[*place], &mut lost)).collect();
        if let Sampling::Random { seed } = self.sampling {
            Rng::new(seed, 0, purpose).shuffle(&mut kept);
        }
        kept.truncate(self.count);
        (kept, lost)
    }

    fn keeps(&self, positive: f64, score: f64, lost: &mut NegativesLost) -> bool {
        let TeacherFilter { margin, percent } = self.below_positive;
        let rules = [
            (TeacherFilter { margin, percent: None }.keeps(positive, score), &mut lost.margin),
            (TeacherFilter { margin: None, percent }.keeps(positive, score), &mut lost.percent),
            (self.max_score.is_none_or(|max| score <= max), &mut lost.max_score),
            (self.min_score.is_none_or(|min| score >= min), &mut lost.min_score),
        ];
        let broken = rules.into_iter().find(|(keeps, _)| !keeps);
        match broken {
            Some((_, count)) => {
                *count += 1;
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 6] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4];

    fn choice() -> NegativeChoice {
        NegativeChoice {
            count: 2,
            rank: [1, 5],
            below_positive: TeacherFilter::default(),
            max_score: None,
            min_score: None,
            sampling: Sampling::Top,
        }
    }

    fn check(choice: NegativeChoice, taken: &[usize], lost: NegativesLost) {
        choice.check().unwrap();
        assert_eq!(choice.choose(&SCORES, 0.8, "row"), (taken.to_vec(), lost), "{choice:?}");
    }

    #[test]
    fn each_rule_leaves_out_what_it_says() {
        let lost = NegativesLost::default();
        let below = |margin, percent| TeacherFilter { margin, percent };
        check(choice(), &[0, 1], lost);
        check(NegativeChoice { rank: [3, 4], ..choice() }, &[2, 3], NegativesLost { rank: 2, ..lost });
        // At the limit is too near; 0.7 is below by less than 0.15.
        let margin = NegativeChoice { below_positive: below(Some(0.15), None), ..choice() };
        check(margin.clone(), &[3, 4], NegativesLost { margin: 3, ..lost });
        let percent = NegativeChoice { below_positive: below(None, Some(95.0)), ..choice() };
        check(percent, &[2, 3], NegativesLost { percent: 2, ..lost });
        let both = NegativeChoice { below_positive: below(Some(0.0), Some(80.0)), ..choice() };
        check(both, &[3, 4], NegativesLost { margin: 2, percent: 1, ..lost });
        check(
            NegativeChoice { max_score: Some(0.7), ..choice() },
            &[2, 3],
            NegativesLost { max_score: 2, ..lost },
        );
        let min = NegativeChoice { min_score: Some(0.85), max_score: Some(0.95), ..choice() };
        check(min, &[0], NegativesLost { min_score: 4, ..lost });
        // Nothing beyond the window, and no more than there is.
        check(NegativeChoice { rank: [5, 9], ..margin }, &[4, 5], NegativesLost { rank: 4, ..lost });
        let (none, lost) = NegativeChoice { rank: [9, 12], ..choice() }.choose(&SCORES, 0.8, "row");
        assert_eq!((none.len(), lost.rank), (0, 6));
    }

    #[test]
    fn a_sample_depends_on_seed_and_row_alone() {
        let scores: Vec<f64> = (0..50).map(|i| 1.0 - f64::from(i) / 50.0).collect();
        let draw = |seed, row| {
            let choice =
                NegativeChoice { count: 5, rank: [11, 50], sampling: Sampling::Random { seed }, ..choice() };
            choice.choose(&scores, 2.0, row).0
        };
        let one = draw(1, "a");
        assert_eq!(one, draw(1, "a"));
        assert_ne!(one, draw(2, "a"));
        assert_ne!(one, draw(1, "b"));
        assert!(one.iter().all(|place| (10..50).contains(place)), "{one:?}");
    }

    #[test]
    fn odd_settings_are_named() {
        for (choice, named) in [
            (NegativeChoice { count: 0, ..choice() }, "ask for 1"),
            (NegativeChoice { rank: [0, 5], ..choice() }, "counted from 1"),
            (NegativeChoice { rank: [6, 5], ..choice() }, "no window"),
            (NegativeChoice { rank: [4, 4], ..choice() }, "hold 1 candidates"),
            (NegativeChoice { max_score: Some(f64::NAN), ..choice() }, "max score"),
            (NegativeChoice { max_score: Some(0.1), min_score: Some(0.2), ..choice() }, "0.2 or more"),
        ] {
            let message = choice.check().unwrap_err();
            assert!(message.contains(named), "{message}");
        }
    }
}
