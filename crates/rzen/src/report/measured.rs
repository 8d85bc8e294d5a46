//! What a run's models scored, as its folder keeps it.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rzen_eval::{Metric, PairedDifference, TaskScore, paired_bootstrap};
use serde::{Deserialize, Serialize};

use super::Example;
use crate::files::whole_file;

/// What a report shows and training alone knows: `results/report.json` of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// The headline.
    pub title: String,
    /// How the run came about, as name and value.
    pub summary: Vec<(String, String)>,
    /// In order of training.
    pub models: Vec<ModelScores>,
    /// Queries of the last model with what was found.
    pub examples: Vec<Example>,
}

/// The scores of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelScores {
    /// `start`, a stage, or `soup`.
    pub name: String,
    /// In the order of the corpus.
    pub tasks: Vec<ScoredTask>,
}

/// The scores of a model on a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredTask {
    /// Its name.
    pub task: String,
    /// The kind of work.
    pub kind: String,
    /// The metric that the task is known by.
    pub metric: String,
    /// Its mean over the queries.
    pub value: f64,
    /// What a random order scores.
    pub chance: f64,
    /// The mean of `hit_rate@1`.
    pub hit: Option<f64>,
    /// What a random order hits.
    pub hit_chance: f64,
    /// The metric of each query, by id, in order.
    pub queries: Vec<(String, f64)>,
}

impl ScoredTask {
    /// What is kept of a task's scores.
    pub fn of(score: &TaskScore) -> Self {
        ScoredTask {
            task: score.task.clone(),
            kind: score.kind.0.clone(),
            metric: score.metric.to_string(),
            value: score.headline(),
            chance: score.chance,
            hit: score.value(Metric::HIT_AT_1),
            hit_chance: score.hit_chance,
            queries: score.per_query.iter().map(|query| (query.id.clone(), query.value)).collect(),
        }
    }
}

impl ModelScores {
    /// A task by name.
    pub fn task(&self, name: &str) -> Option<&ScoredTask> {
        self.tasks.iter().find(|task| task.task == name)
    }

    /// The mean over all tasks of their own metrics.
    pub fn mean(&self) -> f64 {
        mean(self.tasks.iter().map(|task| task.value))
    }

    /// The mean of `hit_rate@1` and what a random order has; `None` where a task does not have it.
    pub fn hits(&self) -> Option<(f64, f64)> {
        let hits: Option<Vec<f64>> = self.tasks.iter().map(|task| task.hit).collect();
        let hits = hits.filter(|hits| !hits.is_empty())?;
        Some((mean(hits.into_iter()), mean(self.tasks.iter().map(|task| task.hit_chance))))
    }
}

pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Whether two models answered the same queries of a task, measured alike.
pub(super) fn same_queries(a: &ScoredTask, b: &ScoredTask) -> bool {
    a.metric == b.metric && a.queries.iter().map(|(id, _)| id).eq(b.queries.iter().map(|(id, _)| id))
}

/// The difference `a - b` over the queries of all tasks given, with its interval; `None` unless both have the same
/// queries and metrics.
pub fn difference(a: &[&ScoredTask], b: &[&ScoredTask]) -> Option<PairedDifference> {
    if a.len() != b.len() || !a.iter().zip(b).all(|(a, b)| same_queries(a, b)) {
        return None;
    }
    let values = |tasks: &[&ScoredTask]| -> Vec<f64> {
        tasks.iter().flat_map(|task| task.queries.iter().map(|(_, value)| *value)).collect()
    };
    paired_bootstrap(&values(a), &values(b), 2000, 1).ok()
}

impl Measurements {
    /// The name of the file below a run.
    pub const FILE: &str = "results/report.json";

    /// Reads the file of a run; `None` where the run has not come so far.
    ///
    /// # Errors
    /// A file that can't be read or is of another version.
    pub fn load(run: &Path) -> Result<Option<Self>> {
        let path = run.join(Self::FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let found = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is not of this version; give the run's command again to measure anew", path.display())
        })?;
        Ok(Some(found))
    }

    /// Writes the file of a run, whole or not at all.
    ///
    /// # Errors
    /// If the folder `results` is not there or the file can't be written.
    pub fn save(&self, run: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).context("the measurements")?;
        whole_file(&run.join(Self::FILE), |file| Ok(file.write_all(&bytes)?))
    }
}
