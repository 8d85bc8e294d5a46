//! The scores of all tasks of a run, as a file and as means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rzen_core::Task;
use serde_json::{Map, Value, json};

use crate::{EvalError, Metric, TaskScore};

/// The scores of one model on several tasks, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    tasks: Vec<TaskSummary>,
}

/// What the results keep of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSummary {
    /// The name of the task.
    pub task: String,
    /// The kind of work.
    pub kind: Task,
    /// The metric that the task is known by.
    pub metric: Metric,
    /// The means over the queries, the task's own metric first.
    pub values: Vec<(Metric, f64)>,
    /// What a random order scores on the task's metric.
    pub chance: f64,
    /// What a random order scores on [`Metric::HIT_AT_1`].
    pub hit_chance: f64,
    /// Queries.
    pub queries: usize,
    /// Candidates of a query, as the mean over the queries.
    pub candidates: f64,
    /// Places decided by equal scores.
    pub ties: usize,
}

/// The mean over the tasks of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct KindMean {
    /// The kind of work.
    pub kind: Task,
    /// Tasks of that kind.
    pub tasks: usize,
    /// The mean of their own metrics.
    pub mean: f64,
}

impl TaskSummary {
    /// The value of the metric that the task is known by.
    pub fn headline(&self) -> f64 {
        self.values[0].1
    }

    /// The value of a metric, if it was computed.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.values.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value)
    }
}

impl Results {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the scores of a task.
    ///
    /// # Errors
    /// A task of that name is there already.
    pub fn push(&mut self, score: &TaskScore) -> Result<(), EvalError> {
        if self.get(&score.task).is_some() {
            return Err(EvalError::DuplicateTask { task: score.task.clone() });
        }
        self.tasks.push(TaskSummary {
            task: score.task.clone(),
            kind: score.kind.clone(),
            metric: score.metric,
            values: score.values.clone(),
            chance: score.chance,
            hit_chance: score.hit_chance,
            queries: score.per_query.len(),
            candidates: score.candidates,
            ties: score.ties,
        });
        Ok(())
    }

    /// The tasks in the order in which they were added.
    pub fn tasks(&self) -> &[TaskSummary] {
        &self.tasks
    }

    /// A task by name.
    pub fn get(&self, task: &str) -> Option<&TaskSummary> {
        self.tasks.iter().find(|summary| summary.task == task)
    }

    /// The mean over all tasks of their own metrics; `None` without tasks.
    pub fn mean(&self) -> Option<f64> {
        mean(self.tasks.iter().map(TaskSummary::headline))
    }

    /// The mean over all tasks of one metric; `None` unless every task has it.
    pub fn mean_of(&self, metric: Metric) -> Option<f64> {
        let values: Option<Vec<f64>> = self.tasks.iter().map(|task| task.value(metric)).collect();
        mean(values?.into_iter())
    }

    /// The mean over all tasks of what a random order scores on [`Metric::HIT_AT_1`]; `None` without tasks.
    pub fn mean_hit_chance(&self) -> Option<f64> {
        mean(self.tasks.iter().map(|task| task.hit_chance))
    }

    /// The mean for each kind of work, in the order of first appearance.
    pub fn kind_means(&self) -> Vec<KindMean> {
        let mut kinds: Vec<&Task> = Vec::new();
        for task in &self.tasks {
            if !kinds.contains(&&task.kind) {
                kinds.push(&task.kind);
            }
        }
        let summarise = |kind: &Task| {
            let of_kind: Vec<f64> =
                self.tasks.iter().filter(|task| task.kind == *kind).map(TaskSummary::headline).collect();
            let mean = mean(of_kind.iter().copied()).expect("a kind has at least the task that named it");
            KindMean { kind: kind.clone(), tasks: of_kind.len(), mean }
        };
        kinds.into_iter().map(summarise).collect()
    }

    /// `{task: {metric: value, …, "queries": n}}`.
    ///
    /// Every value is a number; the first metric of a task is the one it is known by.
    pub fn to_json(&self) -> Value {
        let task_json = |task: &TaskSummary| {
            let mut map: Map<String, Value> =
                task.values.iter().map(|(metric, value)| (metric.to_string(), json!(value))).collect();
            map.insert("queries".into(), json!(task.queries));
            Value::Object(map)
        };
        Value::Object(self.tasks.iter().map(|task| (task.task.clone(), task_json(task))).collect())
    }

    /// Writes [`to_json`](Results::to_json) to a file, whole or not at all.
    ///
    /// # Errors
    /// The file can't be written; what stood there before stays.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        let text = format!("{:#}\n", self.to_json());
        let temporary = beside(path);
        write_synced(&temporary, text.as_bytes()).and_then(|()| fs::rename(&temporary, path)).map_err(
            |source| {
                // The write has failed already; a leftover is no second failure.
                let _ = fs::remove_file(&temporary);
                EvalError::Write { path: path.to_path_buf(), source }
            },
        )
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// A hidden name in the same folder, so that the renaming stays on one file system.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
