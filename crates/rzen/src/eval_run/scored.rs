//! The scores of an evaluation as they are kept for a comparison.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Evaluation;
use crate::report::Measurements;

/// The scores of one model, query by query.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// In the order of the evaluation.
    pub tasks: Vec<ScoredQueries>,
    /// What `eval.json` says of model, data and protocol; nothing of a training run.
    pub settings: Map<String, Value>,
}

/// The scores of a task, query by query.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredQueries {
    /// Its name.
    pub task: String,
    /// The metric that it is known by.
    pub metric: String,
    /// The groups that it counts in.
    pub groups: Vec<String>,
    /// The metric of each query, by id.
    pub queries: Vec<(String, f64)>,
}

/// A line of `queries.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line {
    task: String,
    query: String,
    /// The task's metric.
    value: f64,
    /// The rank of the first relevant candidate, counted from 1.
    rank: usize,
    /// The first candidates with their scores, best first.
    top: Vec<(String, f32)>,
}

/// The part of `eval.json` that a comparison needs.
#[derive(Deserialize)]
struct Head {
    tasks: Map<String, Value>,
    settings: Map<String, Value>,
}

/// The form of `eval.json`; another number when what is read here changes.
pub const FORMAT: u32 = 1;

/// The name of the file of scores by query.
pub const QUERIES: &str = "queries.jsonl";
/// The name of the file of everything else.
pub const EVAL: &str = "eval.json";

/// The lines of `queries.jsonl`.
///
/// # Errors
/// Never for scores that are numbers.
pub fn query_lines(evaluation: &Evaluation) -> Result<String> {
    let mut text = String::new();
    for task in &evaluation.tasks {
        for (query, ids) in task.score.per_query.iter().zip(&task.top) {
            let scores = query.top.ranked.iter().map(|(_, score)| *score);
            let line = Line {
                task: task.info.name.clone(),
                query: query.id.clone(),
                value: query.value,
                rank: query.top.first_relevant_rank,
                top: ids.iter().cloned().zip(scores).collect(),
            };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
        }
    }
    Ok(text)
}

impl Scored {
    /// Reads the scores in a folder that `rzen eval` wrote, or those of the last model in the folder of a training run.
    ///
    /// # Errors
    /// A folder that is neither, or a file that can't be read.
    pub fn load(folder: &Path) -> Result<Self> {
        if folder.join(EVAL).is_file() {
            return Self::of_evaluation(folder)
                .with_context(|| format!("the evaluation {}", folder.display()));
        }
        let last = Measurements::load(folder)?.and_then(|mut run| run.models.pop());
        let last = last.with_context(|| {
            format!(
                "{} holds neither {EVAL}, which `rzen eval --output FOLDER` writes, nor {}, which a training run writes",
                folder.display(),
                Measurements::FILE
            )
        })?;
        let task = |task: crate::report::ScoredTask| ScoredQueries {
            task: task.task,
            metric: task.metric,
            groups: vec![task.kind],
            queries: task.queries,
        };
        Ok(Scored { tasks: last.tasks.into_iter().map(task).collect(), settings: Map::new() })
    }

    fn of_evaluation(folder: &Path) -> Result<Self> {
        let read =
            |name: &str| fs::File::open(folder.join(name)).with_context(|| format!("can't read {name}"));
        let head: Value = serde_json::from_reader(BufReader::new(read(EVAL)?)).context(EVAL)?;
        ensure!(
            head["format"] == FORMAT,
            "{EVAL} has format {}, and this program reads {FORMAT}; evaluate again, or use the program that wrote it",
            head["format"]
        );
        let head: Head = serde_json::from_value(head).context(EVAL)?;
        let mut tasks = Vec::new();
        for (name, value) in &head.tasks {
            let metric =
                value["metric"].as_str().with_context(|| format!("{EVAL}: task `{name}` has no `metric`"))?;
            let groups = value["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str());
            tasks.push(ScoredQueries {
                task: name.clone(),
                metric: metric.to_owned(),
                groups: groups.map(str::to_owned).collect(),
                queries: Vec::new(),
            });
        }
        for (at, line) in BufReader::new(read(QUERIES)?).lines().enumerate() {
            let place = || format!("{QUERIES}:{}", at + 1);
            let line: Line = serde_json::from_str(&line.with_context(place)?).with_context(place)?;
            let task = tasks.iter_mut().find(|task| task.task == line.task);
            let task = task.with_context(|| format!("{}: {EVAL} has no task `{}`", place(), line.task))?;
            task.queries.push((line.query, line.value));
        }
        if let Some(empty) = tasks.iter().find(|task| task.queries.is_empty()) {
            ensure!(false, "{QUERIES} has no line of task `{}`", empty.task);
        }
        Ok(Scored { tasks, settings: head.settings })
    }
}
