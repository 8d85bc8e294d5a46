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
    /// Tokens since the line before, without padding; 0 in lines of older versions.
    #[serde(default)]
    pub tokens: usize,
    /// Queries a second since the line before.
    pub samples_per_second: f64,
    /// Tokens a second since the line before.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// Seconds since the line before.
    pub seconds: f64,
    /// Those of them in which a step waited for its batch: to be read, and to be put on the device.
    #[serde(default)]
    pub stall_seconds: f64,
    /// The most main memory that the process has had so far, in bytes, pages of mapped files included; `None` where the
    /// system does not say (Linux alone does).
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
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

/// The process's `VmHWM`, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
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

    /// Makes the lines so far last.
    pub(crate) fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_all().map_err(|source| TrainError::Metrics {
            action: "sync",
            path: self.path.clone(),
            source,
        })
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
    let fits = |line: &[u8]| serde_json::from_slice::<Line>(line).is_ok_and(|line| line.step <= step);
    // Bytes: a line may have been cut inside of a letter.
    let bytes = fs::read(path)?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let kept: Vec<u8> = lines.filter(|line| line.ends_with(b"\n") && fits(line)).flatten().copied().collect();
    if kept == bytes {
        return Ok(());
    }
    let temporary = path.with_extension("jsonl.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&kept)?;
    file.sync_all()?;
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

    #[test]
    fn a_line_cut_inside_of_a_letter_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let cut = "{\"step\":2,\"label\":\"é".as_bytes();
        fs::write(&path, [b"{\"step\":1}\n", &cut[..cut.len() - 1]].concat()).unwrap();
        cut_back(&path, 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_covers_what_was_allocated() {
        let before = peak_memory().unwrap();
        let block = vec![1_u8; before as usize + 8_000_000];
        let peak = peak_memory().unwrap();
        assert!(peak > block.len() as u64 && peak > before, "{before} and then {peak}");
    }

    #[test]
    fn lines_of_older_versions_are_read() {
        let line = r#"{"stage":"one","step":1,"steps":2,"loss":0.5,"learning_rate":0.1,"temperature_learning_rate":0.1,
            "grad_norm":1.0,"samples":4,"samples_per_second":2.0,"seconds":2.0,"label":"set","stats":{}}"#;
        let record: StepRecord = serde_json::from_str(line).unwrap();
        assert_eq!((record.samples, record.tokens, record.stall_seconds), (4, 0, 0.0));
    }

    /// `/dev/full` is a Linux device.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut metrics = Metrics { path: "run/metrics.jsonl".into(), file };
        let record = StepRecord {
            stage: "one".into(),
            step: 1,
            steps: 2,
            loss: 0.5,
            learning_rate: 0.1,
            temperature_learning_rate: 0.1,
            grad_norm: 1.0,
            samples: 4,
            tokens: 40,
            samples_per_second: 2.0,
            tokens_per_second: 20.0,
            seconds: 2.0,
            stall_seconds: 0.5,
            peak_memory_bytes: None,
            label: "set".into(),
            stats: BTreeMap::new(),
        };
        let message = metrics.write(&record).unwrap_err().to_string();
        assert!(message.contains("run/metrics.jsonl") && message.contains("is the disk full"), "{message}");
    }
}
