//! Hard negatives that a teacher takes for answers.

use rzen_core::Sample;
use serde::{Deserialize, Serialize};

use crate::ManifestError;

/// Which hard negatives are too near the positive to be wrong answers, by a teacher's scores
/// ([NV-Retriever](https://arxiv.org/abs/2407.15831) §3). Where a row has several positives, the lowest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TeacherFilter {
    /// A hard negative scores below the positive's score by more than this; the paper takes 0.05.
    pub margin: Option<f64>,
    /// A hard negative scores below this much of the positive's score, in percent; the paper takes 95.
    pub percent: Option<f64>,
}

impl TeacherFilter {
    /// Says which setting makes no sense, if any.
    ///
    /// # Errors
    /// The setting, what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        if let Some(margin) = self.margin.filter(|margin| !margin.is_finite()) {
            return Err(format!("`teacher.margin` is {margin}, expected a number"));
        }
        match self.percent.filter(|percent| !(*percent > 0.0 && *percent <= 100.0)) {
            Some(percent) => {
                Err(format!("`teacher.percent` is {percent}, expected more than 0, at most 100"))
            }
            None if self.margin.is_none() && self.percent.is_none() => {
                Err("`teacher` is empty; give it `margin` or `percent`".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Moves hard negatives that are too near the positive to the false ones. Returns how many.
    ///
    /// # Errors
    /// If the row has hard negatives and no scores.
    pub fn apply(&self, sample: &mut Sample) -> Result<usize, ManifestError> {
        if sample.hard_negatives.is_empty() {
            return Ok(0);
        }
        let Some(teacher) = &mut sample.teacher else {
            return Err(ManifestError::NoScores { origin: sample.origin.clone() });
        };
        let positive = teacher.positives.iter().copied().fold(f64::INFINITY, f64::min);
        let scores = std::mem::take(&mut teacher.negatives);
        let before = sample.hard_negatives.len();
        for (item, score) in std::mem::take(&mut sample.hard_negatives).into_iter().zip(scores) {
            if self.keeps(positive, score) {
                sample.hard_negatives.push(item);
                teacher.negatives.push(score);
            } else {
                sample.false_negatives.push(item);
            }
        }
        Ok(before - sample.hard_negatives.len())
    }

    /// Whether a negative scores far enough below a positive.
    pub fn keeps(&self, positive: f64, negative: f64) -> bool {
        // Less than all of a score below 0 would be above it.
        let far_below = |percent| negative < positive.min(positive * percent / 100.0);
        self.margin.is_none_or(|margin| negative < positive - margin) && self.percent.is_none_or(far_below)
    }
}

#[cfg(test)]
mod tests {
    use rzen_core::{Item, Origin, Task, TeacherScores};

    use super::*;

    fn sample() -> Sample {
        let origin = Origin { file: std::path::Path::new("train.jsonl").into(), line: 7 };
        let row = Sample::new("d", Task("t".into()), Item::text("q"), Item::text("p"), origin);
        Sample {
            other_positives: vec![Item::text("o")],
            hard_negatives: ["a", "b", "c", "d"].map(Item::text).to_vec(),
            teacher: Some(TeacherScores {
                positives: vec![0.9, 0.8],
                negatives: vec![0.85, 0.2, 0.77, 0.75],
            }),
            ..row
        }
    }

    #[test]
    fn what_scores_near_the_lowest_positive_is_a_false_negative() {
        let kept = |margin, percent| {
            let mut sample = sample();
            let dropped = TeacherFilter { margin, percent }.apply(&mut sample).unwrap();
            assert_eq!(dropped, sample.false_negatives.len());
            assert_eq!(sample.teacher.unwrap().negatives.len(), sample.hard_negatives.len());
            let texts = [sample.hard_negatives, sample.false_negatives]
                .map(|items| items.iter().map(|item| format!("{:?}", item.content)).collect::<String>());
            texts.map(|text| text.chars().filter(|c| "abcd".contains(*c)).collect::<String>())
        };
        // Exactly at the limit is too near.
        assert_eq!(kept(Some(0.05), None), ["b", "acd"]);
        assert_eq!(kept(Some(0.04), None), ["bd", "ac"]);
        assert_eq!(kept(None, Some(95.0)), ["bd", "ac"]);
        assert_eq!(kept(None, Some(100.0)), ["bcd", "a"]);
        assert_eq!(kept(Some(0.0), Some(20.0)), ["", "abcd"]);
    }

    #[test]
    fn a_share_of_a_score_below_zero_is_no_higher_than_the_score() {
        let filter = TeacherFilter { margin: None, percent: Some(95.0) };
        assert_eq!([-0.21, -0.2, -0.195].map(|score| filter.keeps(-0.2, score)), [true, false, false]);
    }

    #[test]
    fn rows_without_scores_and_odd_settings_are_refused() {
        let filter = TeacherFilter { margin: Some(0.05), percent: None };
        let error = filter.apply(&mut Sample { teacher: None, ..sample() }).unwrap_err().to_string();
        assert!(error.contains("train.jsonl:7") && error.contains("`negative_scores`"), "{error}");
        let nothing = Sample { teacher: None, hard_negatives: Vec::new(), ..sample() };
        assert_eq!(filter.apply(&mut nothing.clone()).unwrap(), 0);
        for (margin, percent, named) in [
            (None, None, "empty"),
            (Some(f64::NAN), None, "`teacher.margin` is NaN"),
            (None, Some(0.0), "`teacher.percent` is 0"),
            (None, Some(101.0), "`teacher.percent` is 101"),
        ] {
            let message = TeacherFilter { margin, percent }.check().unwrap_err();
            assert!(message.contains(named), "{message}");
        }
    }
}
