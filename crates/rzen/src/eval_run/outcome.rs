//! What an evaluation found.

use anyhow::Result;
use rzen_eval::{Compression, Results, TaskScore, bootstrap_of_tasks};
use serde::{Deserialize, Serialize};

use super::{Confusion, TaskInfo};
use crate::report::Example;

/// A mean and what other queries of the same kind would make of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end of the 95 % interval.
    pub high: f64,
}

/// Resamples of an interval.
const SAMPLES: usize = 2000;
/// Decides the draws.
const SEED: u64 = 1;

impl Estimate {
    /// The mean over tasks of the means over their queries, with the bootstrap's interval over the queries of each task.
    ///
    /// # Errors
    /// Without tasks, or with a task without queries.
    pub fn of(tasks: &[Vec<f64>]) -> Result<Self> {
        let found = bootstrap_of_tasks(tasks, SAMPLES, SEED)?;
        Ok(Estimate { mean: found.mean_difference, low: found.low, high: found.high })
    }
}

/// What came of a task.
pub struct TaskOutcome {
    /// What was known before.
    pub info: TaskInfo,
    /// The scores with vectors as they are.
    pub score: TaskScore,
    /// The interval of its own metric.
    pub estimate: Estimate,
    /// Its own metric with smaller vectors, in the order of [`EvalSettings`](super::EvalSettings).
    pub compressed: Vec<CompressedScore>,
    /// Which kind of wrong candidate came first.
    pub confusion: Confusion,
    /// The ids of the first candidates of each query.
    pub top: Vec<Vec<String>>,
    /// The queries whose answer came last.
    pub worst: Vec<Example>,
}

/// The score of a task with smaller vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompressedScore {
    /// What was done to them.
    pub compression: Compression,
    /// The task's own metric.
    pub value: f64,
    /// Places decided by equal scores.
    pub ties: usize,
}

/// What came of all tasks.
pub struct Evaluation {
    /// In their order.
    pub tasks: Vec<TaskOutcome>,
    /// Numbers in a vector.
    pub dim: usize,
    /// Items that were embedded, and those whose vectors were there before.
    pub items: usize,
    /// Of these, the ones that an earlier evaluation or mining embedded.
    pub found: usize,
    /// The mean over all tasks.
    pub overall: Estimate,
    /// The groups in the order of their first tasks.
    pub groups: Vec<GroupScore>,
}

/// The mean over a group of tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupScore {
    /// Its name.
    pub name: String,
    /// How many tasks are in it.
    pub tasks: usize,
    /// Their mean.
    pub estimate: Estimate,
}

impl Evaluation {
    /// Takes the means of `tasks`, at least one.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn new(tasks: Vec<TaskOutcome>, dim: usize, items: usize, found: usize) -> Result<Self> {
        let mut names: Vec<&String> = Vec::new();
        for name in tasks.iter().flat_map(|task| &task.info.groups) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let values: Vec<Vec<f64>> = tasks.iter().map(|task| task.score.per_query_values()).collect();
        let group = |name: &String| {
            let members = tasks.iter().zip(&values).filter(|(task, _)| task.info.groups.contains(name));
            let members: Vec<Vec<f64>> = members.map(|(_, values)| values.clone()).collect();
            Ok(GroupScore { name: name.clone(), tasks: members.len(), estimate: Estimate::of(&members)? })
        };
        let groups = names.into_iter().map(group).collect::<Result<_>>()?;
        Ok(Evaluation { overall: Estimate::of(&values)?, groups, tasks, dim, items, found })
    }

    /// The scores of all tasks.
    ///
    /// # Errors
    /// Two tasks of one name.
    pub fn results(&self) -> Result<Results> {
        let mut results = Results::new();
        self.tasks.iter().try_for_each(|task| results.push(&task.score))?;
        Ok(results)
    }

    /// The mean over all tasks with each of the smaller forms of a vector.
    pub fn compressed(&self) -> Vec<(Compression, f64)> {
        let Some(first) = self.tasks.first() else { return Vec::new() };
        let count = self.tasks.len() as f64;
        let mean = |at: usize| self.tasks.iter().map(|task| task.compressed[at].value).sum::<f64>() / count;
        first.compressed.iter().enumerate().map(|(at, form)| (form.compression, mean(at))).collect()
    }
}
