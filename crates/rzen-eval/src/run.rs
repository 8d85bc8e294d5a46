//! Embeds the items of a task, ranks, and scores.

use rayon::prelude::*;
use rzen_core::{Embed, Item, Task};

use crate::similarity::{dot, dot_all};
use crate::{EmbedProblem, EmbeddingCache, EvalError, Metric, QueryProblem, RankQuery, RankTask, Ranking};

/// How to run a task; none of it changes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// Items given to the embedder at a time, at least 1.
    pub batch_size: usize,
    /// Candidates kept in each query's [`TopK`].
    pub top_k: usize,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions { batch_size: 32, top_k: 5 }
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
    /// The mean over the queries of the task's metric (first) and of [`Metric::STANDARD`].
    pub values: Vec<(Metric, f64)>,
    /// What a random order scores on the task's metric.
    pub chance: f64,
    /// What a random order scores on [`Metric::HIT_AT_1`].
    pub hit_chance: f64,
    /// Candidates that a query is ranked against, as the mean over the queries.
    pub candidates: f64,
    /// Candidates ranked before a better one only because their scores are the same, over all queries.
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
    let metrics = metrics_of(task.metric);
    let outcomes = rank_queries(cache, task, &metrics, options.top_k)?;
    Ok(summarise(task, &metrics, outcomes))
}

/// The task's own metric, then the standard ones.
fn metrics_of(own: Metric) -> Vec<Metric> {
    let mut metrics = vec![own];
    metrics.extend(Metric::STANDARD.into_iter().filter(|metric| *metric != own));
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

/// Queries that are scored together.
const QUERY_BLOCK: usize = 16;

fn rank_queries(
    cache: &EmbeddingCache,
    task: &RankTask,
    metrics: &[Metric],
    top_k: usize,
) -> Result<Vec<Outcome>, EvalError> {
    let vector = |item: &Item| cache.get(item).expect("embedded before ranking");
    // Empty where no query ranks a candidate, which then has no vector.
    let pool: Vec<&[f32]> = task.pool.iter().map(|(_, item)| cache.get(item).unwrap_or_default()).collect();
    let blocks: Vec<Vec<Outcome>> = task
        .queries
        .par_chunks(QUERY_BLOCK)
        .enumerate()
        .map(|(block, queries)| {
            let vectors: Vec<&[f32]> = queries.iter().map(|query| vector(&query.item)).collect();
            let scores = score_block(queries, &vectors, &pool);
            let outcomes = queries.iter().zip(scores).enumerate().map(|(i, (query, scores))| {
                judge(block * QUERY_BLOCK + i, query, scores, metrics, top_k).map_err(|problem| {
                    EvalError::Query { task: task.name.clone(), query: query.id.clone(), problem }
                })
            });
            outcomes.collect()
        })
        .collect::<Result<_, _>>()?;
    Ok(blocks.into_iter().flatten().collect())
}

/// `(index, score)` for the candidates of each query.
fn score_block(queries: &[RankQuery], vectors: &[&[f32]], pool: &[&[f32]]) -> Vec<Vec<(usize, f32)>> {
    let whole_pool: Vec<&[f32]> = queries
        .iter()
        .zip(vectors)
        .filter(|(query, _)| query.candidates.is_none())
        .map(|(_, vector)| *vector)
        .collect();
    let mut whole_pool = dot_all(&whole_pool, pool).into_iter();
    queries
        .iter()
        .zip(vectors)
        .map(|(query, vector)| match &query.candidates {
            None => whole_pool.next().expect("one row each").into_iter().enumerate().collect(),
            Some(indices) => indices.iter().map(|index| (*index, dot(vector, pool[*index]))).collect(),
        })
        .collect()
}

fn judge(
    query: usize,
    row: &RankQuery,
    scores: Vec<(usize, f32)>,
    metrics: &[Metric],
    top_k: usize,
) -> Result<Outcome, QueryProblem> {
    let ranking = Ranking::new(scores, &row.relevant)?;
    let ranked = ranking.ranked().iter().take(top_k).copied().collect();
    Ok(Outcome {
        values: metrics.iter().map(|metric| metric.value(&ranking)).collect(),
        ties: ranking.ties(),
        top: TopK {
            query,
            ranked,
            first_relevant_rank: ranking.first_relevant_rank(),
            first_relevant: ranking.first_relevant(),
        },
    })
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
