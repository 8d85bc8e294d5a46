//! What is known about each step.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The stage's name.
    pub stage: String,
    /// Steps finished, counted from 1.
    pub step: usize,
    /// Steps in the stage.
    pub steps: usize,
    /// The objective's value before the step.
    pub loss: f32,
    /// The encoder's learning rate in this step.
    pub learning_rate: f64,
    /// The objective's learning rate in this step.
    pub temperature_learning_rate: f64,
    /// The gradient's norm over all parameters before clipping.
    pub grad_norm: f64,
    /// Queries since the line before.
    pub samples: usize,
    /// Queries a second since the line before.
    pub samples_per_second: f64,
    /// Seconds since the line before.
    pub seconds: f64,
    /// The batch's label.
    pub label: String,
    /// What the objective reports, by name.
    pub stats: BTreeMap<String, f32>,
}

/// Somebody who watches a stage: a progress bar, plain lines, nobody (`()`).
pub trait Observer {
    /// After a step whose numbers were read, see [`StageConfig::log_every`](crate::StageConfig::log_every).
    fn step(&mut self, record: &StepRecord);

    /// After a checkpoint lies on the disk.
    fn checkpoint(&mut self, _step: usize, _folder: &Path) {}
}

impl Observer for () {
    fn step(&mut self, _record: &StepRecord) {}
}

/// `metrics.jsonl`, open at its end.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file and cuts off what lies behind `step`, so that no step is ever in it twice.
    pub(crate) fn open(path: PathBuf, step: usize) -> Result<Self, TrainError> {
        let open = || {
            if path.exists() {
                cut_back(&path, step)?;
            }
            OpenOptions::new().create(true).append(true).open(&path)
        };
        match open() {
            Ok(file) => Ok(Metrics { path, file }),
            Err(source) => Err(TrainError::Metrics { action: "open", path, source }),
        }
    }

    /// Adds a line.
    pub(crate) fn write(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(record).expect("a record has string keys alone");
        line.push('\n');
        // One write, so that a line is whole or absent.
        self.file.write_all(line.as_bytes()).map_err(|source| TrainError::Metrics {
            action: "write",
            path: self.path.clone(),
            source,
        })
    }
}

/// Keeps the lines up to `step`; a last line without an end was cut off and goes too.
fn cut_back(path: &Path, step: usize) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        step: usize,
    }
    let text = fs::read_to_string(path)?;
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter(|line| serde_json::from_str::<Line>(line).is_ok_and(|line| line.step <= step))
        .collect();
    if kept == text {
        return Ok(());
    }
    let temporary = path.with_extension("jsonl.tmp");
    fs::write(&temporary, kept)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_behind_the_step_and_broken_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"st").unwrap();
        cut_back(&path, 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":2}\n");
        cut_back(&path, 0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
