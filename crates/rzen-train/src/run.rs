//! The folder that a stage writes to.

use std::path::PathBuf;

use serde_json::Value;

/// The folder of one stage, and what makes the stage itself: a checkpoint is only resumed under the
/// same name, seed and settings.
///
/// ```text
/// path/metrics.jsonl                  one line a step
/// path/checkpoints/step_000200/       encoder/ objective/ optimizer.bpk state.json
/// ```
///
/// Two stages need two folders.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFolder {
    /// Where the stage writes; made when it isn't there.
    pub path: PathBuf,
    /// The name of the stage.
    pub stage: String,
    /// The seed of the data order.
    pub seed: u64,
    /// Whatever else must not change between stop and resume: datasets, model shape, objective.
    pub settings: Value,
}

impl RunFolder {
    /// One JSON object a line, see [`StepRecord`](crate::StepRecord).
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Holds a folder for each checkpoint.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
}
