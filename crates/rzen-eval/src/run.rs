//! Embeds the items of a task, ranks, and scores.

use rzen_core::{Embed, Item, Task};

use crate::rank::rank;
use crate::ranking::Ranked;
use crate::{
    Compression, EmbedProblem, EmbeddingCache, EvalError, Metric, RankTask, Ranking, ReadRows, Rows, Ties,
};

/// How to run a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Items given to the embedder at a time, at least 1.
    pub batch_size: usize,
    /// How it is scored.
    pub scoring: Scoring,
}

/// How a task is scored, and what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scoring {
    /// Metrics beside the task's own.
    pub metrics: &'static [Metric],
    /// Candidates in each query's [`TopK`].
    pub top_k: usize,
    /// Where candidates with the same score stand.
    pub ties: Ties,
}

impl Default for Scoring {
    fn default() -> Self {
        Scoring { metrics: &Metric::STANDARD, top_k: 5, ties: Ties::Against }
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { batch_size: 32, scoring: Scoring::default() }
    }
}

/// The scores of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskScore {
    /// The name of the task.
    pub task: String,
    /// The kind of work.
    pub kind: Task,
    /// The metric that the task is known by.
    pub metric: Metric,
    /// The mean over the queries of the task's metric (first) and of those asked for.
    pub values: Vec<(Metric, f64)>,
    /// What a random order scores on the task's metric.
    pub chance: f64,
    /// What a random order scores on [`Metric::HIT_AT_1`].
    pub hit_chance: f64,
    /// Candidates that a query is ranked against, as the mean over the queries.
    pub candidates: f64,
    /// Candidates whose scores are the same as that of a better one, over all queries.
    pub ties: usize,
    /// One for each query, in the order of the task.
    pub per_query: Vec<QueryScore>,
}

/// What came of one query.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryScore {
    /// The id of the query.
    pub id: String,
    /// The task's own metric.
    pub value: f64,
    /// What was found.
    pub top: TopK,
}

/// The candidates that a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// The query, as an index into the task.
    pub query: usize,
    /// `(index into the pool, score)` of the first few, best first.
    pub ranked: Vec<(usize, f32)>,
    /// The rank of the first relevant candidate, counted from 1.
    pub first_relevant_rank: usize,
    /// The candidate of that rank, `(index into the pool, score)`.
    pub first_relevant: (usize, f32),
}

impl TaskScore {
    /// The value of the metric that the task is known by.
    pub fn headline(&self) -> f64 {
        self.values[0].1
    }

    /// The value of a metric, if it was computed.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        self.values.iter().find(|(name, _)| *name == metric).map(|(_, value)| *value)
    }

    /// The task's own metric for each query, to compare runs with [`paired_bootstrap`](crate::paired_bootstrap).
    pub fn per_query_values(&self) -> Vec<f64> {
        self.per_query.iter().map(|query| query.value).collect()
    }
}

/// Scores one task.
///
/// A score is the dot product of two unit vectors in f32. Items that `cache` holds are not embedded
/// again; `progress` is told the items embedded and those to embed in all.
///
/// # Errors
/// Wrong data ([`RankTask::check`]), an item that can't be embedded, or a vector that is not finite
/// and of unit length; the message names the task and the query or candidate.
///
/// # Panics
/// If `options.batch_size` is 0.
pub fn run_task(
    embedder: &dyn Embed,
    cache: &mut EmbeddingCache,
    task: &RankTask,
    options: RunOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TaskScore, EvalError> {
    task.check()?;
    embed_items(embedder, cache, task, options.batch_size, progress)?;
    let vector = |item: &Item| cache.get(item).expect("embedded before ranking");
    let queries: Vec<f32> = task.queries.iter().flat_map(|query| vector(&query.item)).copied().collect();
    let mut read = |indices: &[usize], rows: &mut Vec<f32>| {
        rows.extend(indices.iter().flat_map(|index| vector(&task.pool[*index].1)));
        Ok(())
    };
    let queries = Rows::new(&queries, cache.dim());
    score_task(task, queries, &mut read, Compression::NONE, options.scoring)
}

/// Scores a task whose items were embedded.
///
/// - `queries`: the vectors of its queries, in their order
/// - `read`: gives the vectors of candidates; asked for those that a query ranks, a few thousand at a time, so that
///   memory does not grow with the pool
/// - `compression`: what is done to every vector before
///
/// A score is the dot product in f32, always summed in the same order.
///
/// # Errors
/// Wrong data ([`RankTask::check`]), or candidates that can't be read.
///
/// # Panics
/// If there is not one vector for each query.
pub fn score_task(
    task: &RankTask,
    queries: Rows<'_>,
    read: &mut ReadRows<'_>,
    compression: Compression,
    scoring: Scoring,
) -> Result<TaskScore, EvalError> {
    task.check()?;
    let metrics = metrics_of(task.metric, scoring.metrics);
    let ranked = rank(task, queries, read, compression, scoring)?;
    let outcomes = ranked.into_iter().enumerate().map(|(query, Ranked { ranking, top })| Outcome {
        values: metrics.iter().map(|metric| metric.value(&ranking)).collect(),
        ties: ranking.ties(),
        top: top_of(query, &ranking, top),
    });
    let outcomes = outcomes.collect();
    Ok(summarise(task, &metrics, outcomes))
}

/// The task's own metric, then the others.
fn metrics_of(own: Metric, others: &[Metric]) -> Vec<Metric> {
    let mut metrics = vec![own];
    metrics.extend(others.iter().filter(|metric| **metric != own));
    metrics
}

fn embed_items(
    embedder: &dyn Embed,
    cache: &mut EmbeddingCache,
    task: &RankTask,
    batch_size: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), EvalError> {
    let used = task.used_candidates();
    let candidates = used.iter().map(|index| &task.pool[*index].1);
    let items: Vec<&Item> = task.queries.iter().map(|query| &query.item).chain(candidates).collect();
    cache.embed(embedder, &items, batch_size, progress).map_err(|(place, problem)| {
        let item = match place.checked_sub(task.queries.len()) {
            None => format!("query `{}`", task.queries[place].id),
            Some(place) => format!("candidate `{}`", task.pool[used[place]].0),
        };
        embed_error(task, item, problem)
    })
}

fn embed_error(task: &RankTask, item: String, problem: EmbedProblem) -> EvalError {
    EvalError::Embed { task: task.name.clone(), item, problem }
}

/// What is kept of a ranking.
struct Outcome {
    values: Vec<f64>,
    ties: usize,
    top: TopK,
}

fn top_of(query: usize, ranking: &Ranking, ranked: Vec<(usize, f32)>) -> TopK {
    let (first_relevant_rank, first_relevant) = (ranking.first_relevant_rank(), ranking.first_relevant());
    TopK { query, ranked, first_relevant_rank, first_relevant }
}

fn summarise(task: &RankTask, metrics: &[Metric], outcomes: Vec<Outcome>) -> TaskScore {
    let count = outcomes.len() as f64;
    let mean = |at: usize| outcomes.iter().map(|outcome| outcome.values[at]).sum::<f64>() / count;
    let values = metrics.iter().enumerate().map(|(at, metric)| (*metric, mean(at))).collect();
    let ties = outcomes.iter().map(|outcome| outcome.ties).sum();
    let per_query = outcomes.into_iter().zip(&task.queries).map(|(outcome, query)| QueryScore {
        id: query.id.clone(),
        value: outcome.values[0],
        top: outcome.top,
    });
    TaskScore {
        task: task.name.clone(),
        kind: task.kind.clone(),
        metric: task.metric,
        values,
        chance: task.chance(task.metric),
        hit_chance: task.chance(Metric::HIT_AT_1),
        candidates: task.mean_candidates(),
        ties,
        per_query: per_query.collect(),
    }
}
