//! Scores of an embedder on the tasks of a corpus folder.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use rzen_core::Embed;
use rzen_data::{EvalCorpus, EvalSet, EvalTask};
use rzen_eval::{EmbeddingCache, Metric, RankQuery, RankTask, Results, RunOptions, TaskScore, run_task};

use crate::progress::Progress;

/// The tasks of a corpus, ready to be ranked.
pub struct Benchmark {
    /// In the order of `tasks.jsonl`.
    pub tasks: Vec<RankTask>,
}

impl Benchmark {
    /// Reads the tasks of `corpus`, or those named.
    ///
    /// # Errors
    /// Names the file, the row and the key.
    pub fn load(corpus: &Path, names: Option<&[String]>) -> Result<Self> {
        let corpus = EvalCorpus::open(corpus)?;
        let wanted: Vec<&EvalTask> = match names {
            None => corpus.tasks.iter().collect(),
            Some(names) => names.iter().map(|name| corpus.task(name)).collect::<Result<_, _>>()?,
        };
        let tasks =
            wanted.into_iter().map(|task| rank_task(task, corpus.load(task)?)).collect::<Result<_>>()?;
        Ok(Benchmark { tasks })
    }

    /// Ranks every task.
    ///
    /// # Errors
    /// The first item that can't be embedded, with its task and id.
    pub fn run(&self, embedder: &dyn Embed, label: &str, batch_size: usize) -> Result<Scores> {
        let mut cache = EmbeddingCache::new();
        let (mut results, mut scores) = (Results::new(), Vec::new());
        // Enough at a time for the embedder to sort by length.
        let options = RunOptions { batch_size: batch_size * 16, top_k: 5 };
        let progress = Progress::tasks(label, self.tasks.len());
        for task in &self.tasks {
            progress.message(&task.name);
            let score =
                run_task(embedder, &mut cache, task, options, &mut |done, all| progress.part(done, all))?;
            progress.advance();
            results.push(&score)?;
            scores.push(score);
        }
        progress.finish();
        Ok(Scores { results, scores })
    }
}

/// The scores of one embedder.
pub struct Scores {
    /// All numbers, by task.
    pub results: Results,
    /// What each query found.
    pub scores: Vec<TaskScore>,
}

fn rank_task(task: &EvalTask, set: EvalSet) -> Result<RankTask> {
    let places: HashMap<&str, usize> =
        set.pool.iter().enumerate().map(|(i, row)| (row.id.as_str(), i)).collect();
    let metric: Metric = task.metric.parse().with_context(|| format!("{}: `metric`", task.origin))?;
    let queries = set.queries.iter().map(|query| RankQuery {
        id: query.id.clone(),
        item: query.item.clone(),
        candidates: query.candidates.as_ref().map(|ids| ids.iter().map(|id| places[id.as_str()]).collect()),
        relevant: query.relevant.iter().map(|(id, grade)| (places[id.as_str()], *grade)).collect(),
    });
    let queries = queries.collect();
    let pool = set.pool.iter().map(|row| (row.id.clone(), row.item.clone())).collect();
    Ok(RankTask { name: task.name.clone(), kind: task.task.clone(), metric, queries, pool })
}
