//! Scores of an embedder on the tasks of a corpus folder.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rzen_core::{Embed, Task};
use rzen_data::{EvalCorpus, EvalSet, EvalTask, media_is_there};
use rzen_eval::{EmbeddingCache, Metric, RankQuery, RankTask, Results, RunOptions, TaskScore, run_task};

use crate::progress::Progress;

/// The tasks of a corpus, ready to be ranked.
pub struct Benchmark {
    /// In the order of `tasks.jsonl`.
    pub tasks: Vec<RankTask>,
}

impl Benchmark {
    /// Reads the tasks of `corpus`, or those named, and looks for their files. Where none is to be read there need be no
    /// list of tasks.
    ///
    /// # Errors
    /// Names the file, the row and the key; or the task, the row and the file that is missing.
    pub fn load(corpus: &Path, names: Option<&[String]>) -> Result<Self> {
        if names.is_some_and(<[String]>::is_empty) {
            return Ok(Benchmark { tasks: Vec::new() });
        }
        let corpus = EvalCorpus::open(corpus)?;
        let wanted: Vec<&EvalTask> = match names {
            None => corpus.tasks.iter().collect(),
            Some(names) => names.iter().map(|name| corpus.task(name)).collect::<Result<_, _>>()?,
        };
        let tasks: Vec<RankTask> =
            wanted.into_iter().map(|task| corpus_task(&corpus, task)).collect::<Result<_>>()?;
        let mut seen = HashSet::new();
        tasks.iter().try_for_each(|task| find_files(task, &mut seen))?;
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
        let options = RunOptions { batch_size: batch_size * 16, ..RunOptions::default() };
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

/// Looks for every file of a task, so that none is missing only after hours of training.
pub(crate) fn find_files(task: &RankTask, seen: &mut HashSet<PathBuf>) -> Result<()> {
    let queries = task.queries.iter().map(|query| ("query", &query.id, &query.item));
    let pool = task.pool.iter().map(|(id, item)| ("candidate", id, item));
    for (kind, id, item) in queries.chain(pool) {
        for file in item.content.iter().flat_map(|part| part.files(Path::new(""))) {
            let there = seen.contains(&file) || media_is_there(&file);
            ensure!(
                there,
                "task `{}`, {kind} `{id}`: {} is missing; put the file there, or leave the task out",
                task.name,
                file.display()
            );
            seen.insert(file);
        }
    }
    Ok(())
}

/// Reads a task of a corpus.
pub(crate) fn corpus_task(corpus: &EvalCorpus, task: &EvalTask) -> Result<RankTask> {
    let metric: Metric = task.metric.parse().with_context(|| format!("{}: `metric`", task.origin))?;
    Ok(rank_task(&task.name, &task.task, metric, corpus.load(task)?))
}

/// A set of queries and candidates that were checked against each other, by index.
pub(crate) fn rank_task(name: &str, kind: &Task, metric: Metric, set: EvalSet) -> RankTask {
    let places: HashMap<&str, usize> =
        set.pool.iter().enumerate().map(|(i, row)| (row.id.as_str(), i)).collect();
    let queries = set.queries.into_iter().map(|query| RankQuery {
        id: query.id,
        item: query.item,
        candidates: query.candidates.as_ref().map(|ids| ids.iter().map(|id| places[id.as_str()]).collect()),
        excluded: query.excluded.as_ref().map(|id| places[id.as_str()]),
        relevant: query.relevant.iter().map(|(id, grade)| (places[id.as_str()], *grade)).collect(),
    });
    let queries = queries.collect();
    let pool = set.pool.into_iter().map(|row| (row.id, row.item)).collect();
    RankTask { name: name.to_owned(), kind: kind.clone(), metric, queries, pool }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_found_before_anything_is_embedded() {
        let corpus = tempfile::tempdir().unwrap();
        crate::world::draw_world(&crate::world::WorldConfig { queries: 4, ..small() }, corpus.path())
            .unwrap();
        let benchmark = Benchmark::load(corpus.path(), None).unwrap();
        let mut items = benchmark.tasks.iter().flat_map(|task| &task.pool).map(|(_, item)| item);
        let gone =
            items.find_map(|item| item.content.iter().find_map(|part| part.files(Path::new("")).pop()));
        let gone = gone.expect("there are pictures among the candidates");
        std::fs::remove_file(&gone).unwrap();
        let Err(error) = Benchmark::load(corpus.path(), None) else { panic!("a file is missing") };
        let message = format!("{error:#}");
        assert!(message.contains(&format!("{} is missing", gone.display())), "{message}");
        assert!(message.starts_with("task `"), "{message}");
    }

    fn small() -> crate::world::WorldConfig {
        crate::world::WorldConfig {
            captions: 40,
            edits: 8,
            pages: 8,
            clips: 12,
            texts: 12,
            instructed: 12,
            labels: 8,
            ..crate::world::WorldConfig::default()
        }
    }
}
