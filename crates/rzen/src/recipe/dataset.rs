//! The key `datasets` of a stage.

use rzen_data::TeacherFilter;
use serde::{Deserialize, Serialize};

use crate::augment::Augment;

/// A dataset of a stage.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetRow {
    /// The folder below the corpus that holds `train.jsonl` or `train.parquet`.
    pub dataset: String,
    /// The rows' `name`s that are taken; each is a dataset of its own to the sampler. Default all.
    pub rows: Option<Vec<String>>,
    /// How many times a pass draws the dataset.
    #[serde(default = "one")]
    pub weight: f64,
    /// In place of `weight`: the rows of an epoch are dealt out in proportion to the shares of the stage's datasets, whatever
    /// their sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Rows taken at most, of each name.
    pub cap: Option<usize>,
    /// Datasets of one group are merged before batches are cut (merged classification, paper §3.4.2).
    pub group: Option<String>,
    /// Random changes of its items.
    #[serde(default)]
    pub augment: Augment,
    /// Leaves hard negatives out that score near the positive by a teacher's scores. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherFilter>,
}

impl DatasetRow {
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=1000.0).contains(&self.weight) {
            return Err(format!("`weight` is {}, expected 0 or more, at most 1000", self.weight));
        }
        if let Some(share) = self.share {
            if !share.is_finite() || share < 0.0 {
                return Err(format!("`share` is {share}, expected a number of 0 or more"));
            }
            if self.weight != one() {
                return Err("`share` and `weight` exclude each other; keep one".into());
            }
        }
        if self.cap == Some(0) {
            return Err(
                "`cap` is 0, expected 1 or more; leave the dataset out, or set its `weight` or `share` to 0"
                    .into(),
            );
        }
        self.augment.check()?;
        self.teacher.as_ref().map_or(Ok(()), TeacherFilter::check)
    }
}

fn one() -> f64 {
    1.0
}
