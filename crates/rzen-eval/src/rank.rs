//! Ranks the candidates of every query, in memory that doesn't grow with the pool.

use std::error::Error;

use rayon::prelude::*;
use rzen_kernels::{Linear, Matrix, Then};

use crate::ranking::{Ranked, Standing, graded};
use crate::search::{POOL_ROWS, QUERY_ROWS, enough_rows};
use crate::similarity::dot;
use crate::{Compression, EvalError, RankQuery, RankTask, Rows, Scoring};

/// Appends the vectors of candidates, given by their index in the pool, to the rows; while those before are ranked.
pub type ReadRows<'a> =
    dyn FnMut(&[usize], &mut Vec<f32>) -> Result<(), Box<dyn Error + Send + Sync>> + Send + 'a;

/// The places of the relevant candidates of each query, and its best candidates.
///
/// Scores are those of `dot`. Most of them need not be known exactly: where a query ranks the whole pool, they are taken
/// from products of matrices, and only those that are too near to one that counts are computed anew.
pub(crate) fn rank(
    task: &RankTask,
    queries: Rows<'_>,
    read: &mut ReadRows<'_>,
    compression: Compression,
    scoring: Scoring,
) -> Result<Vec<Ranked>, EvalError> {
    assert_eq!(queries.len(), task.queries.len(), "one vector for each query");
    let mut pool = Pool { task, dim: queries.dim(), read, compression };
    let (queries, dim) = compression.apply(queries);
    let queries = Rows::new(&queries, dim);
    let mut standings = standings(&mut pool, queries, scoring)?;

    let all = 0..task.queries.len();
    let whole: Vec<usize> = all.filter(|query| task.queries[*query].candidates.is_none()).collect();
    let packed: Vec<f32> = whole.iter().flat_map(|query| queries.row(*query)).copied().collect();
    let used = task.used_candidates();
    let mut blocks = used.chunks(POOL_ROWS);
    let mut read = blocks.next().map(|block| pool.rows(block).map(|rows| (block, rows))).transpose()?;
    while let Some((block, rows)) = read.take() {
        let rank = || {
            let rows = Rows::new(&rows, dim);
            let longest = longest(rows);
            // The whole pool is used where a query ranks all of it, so that a block is a run of indices.
            for (at, queries) in packed.chunks(QUERY_ROWS * dim).enumerate() {
                let of_block = &whole[at * QUERY_ROWS..][..queries.len() / dim];
                let candidates = (rows, longest);
                rank_whole(task, &mut standings, of_block, Rows::new(queries, dim), block[0], candidates);
            }
            standings.par_iter_mut().enumerate().for_each(|(query, standing)| {
                rank_listed(standing, &task.queries[query], queries.row(query), block, rows);
            });
        };
        // The next block is read meanwhile.
        let next = || blocks.next().map(|block| pool.rows(block).map(|rows| (block, rows)));
        let ((), next) = rayon::join(rank, next);
        read = next.transpose()?;
    }
    Ok(standings.into_par_iter().map(Standing::finish).collect())
}

/// The candidates of a task.
struct Pool<'a, 'b> {
    task: &'a RankTask,
    dim: usize,
    read: &'a mut ReadRows<'b>,
    compression: Compression,
}

impl Pool<'_, '_> {
    fn rows(&mut self, indices: &[usize]) -> Result<Vec<f32>, EvalError> {
        let mut rows = Vec::with_capacity(indices.len() * self.dim);
        (self.read)(indices, &mut rows)
            .map_err(|source| EvalError::Read { task: self.task.name.clone(), source })?;
        assert_eq!(rows.len(), indices.len() * self.dim, "one vector for each candidate");
        Ok(match self.compression {
            Compression::NONE => rows,
            compression => compression.apply(Rows::new(&rows, self.dim)).0.into_owned(),
        })
    }
}

/// The scores of the relevant candidates, with nothing counted yet.
fn standings(pool: &mut Pool, queries: Rows<'_>, scoring: Scoring) -> Result<Vec<Standing>, EvalError> {
    let task = pool.task;
    let relevant = |query: &RankQuery| graded(&query.relevant).expect("the task was checked");
    let mut standings = Vec::with_capacity(task.queries.len());
    while standings.len() < task.queries.len() {
        let first = standings.len();
        let mut grades = Vec::new();
        let mut indices: Vec<usize> = Vec::new();
        for query in &task.queries[first..] {
            if !grades.is_empty() && indices.len() >= POOL_ROWS {
                break;
            }
            let of_query = relevant(query);
            indices.extend(of_query.iter().map(|(index, _)| *index));
            grades.push(of_query);
        }
        indices.sort_unstable();
        indices.dedup();
        let rows = pool.rows(&indices)?;
        let rows = Rows::new(&rows, queries.dim());
        let each = grades.into_par_iter().enumerate().map(|(at, grades)| {
            let query = queries.row(first + at);
            let scored = grades.into_iter().map(|(index, grade)| {
                let row = indices.binary_search(&index).expect("read with the others");
                (index, dot(query, rows.row(row)), grade)
            });
            Standing::new(scored.collect(), scoring.top_k, scoring.ties)
        });
        standings.par_extend(each);
    }
    Ok(standings)
}

/// Ranks candidates from index `start` on for queries that rank all.
///
/// - `of_block`: which queries these are
/// - `queries`: their vectors
/// - `candidates`: with the length of the longest
fn rank_whole(
    task: &RankTask,
    standings: &mut [Standing],
    of_block: &[usize],
    queries: Rows<'_>,
    start: usize,
    (candidates, longest): (Rows<'_>, f32),
) {
    let (dim, outputs) = (queries.dim(), candidates.len());
    let block = enough_rows(queries.data(), dim);
    let weight = Matrix::F32(candidates.data());
    let product = Linear { weight, inputs: dim, outputs, bias: None, lora: None };
    let mut scores = vec![0.0; block.len() / dim * outputs];
    product.forward(&block, &mut scores, false, Then::Nothing);
    let mut standings = pick(standings, of_block);
    standings.par_iter_mut().zip(scores.par_chunks(outputs)).enumerate().for_each(
        |(row, (standing, scores))| {
            let query = queries.row(row);
            // A sum of `dim` products in f32 is off by half of this, in whatever order it is taken, and one of `dot`, in sixteen
            // sums, by a sixteenth of that.
            let margin = (dim + 32) as f32 * f32::EPSILON * norm(query) * longest;
            let exact = |at: usize| dot(query, candidates.row(at));
            let excluded = task.queries[of_block[row]].excluded.and_then(|index| index.checked_sub(start));
            match excluded.filter(|at| *at < outputs) {
                None => standing.offer_all(start, scores, margin, exact),
                Some(at) => {
                    standing.offer_all(start, &scores[..at], margin, exact);
                    let behind = at + 1;
                    standing.offer_all(start + behind, &scores[behind..], margin, |at| exact(behind + at));
                }
            }
        },
    );
}

/// Ranks those of `block` that the query lists, if it lists any.
fn rank_listed(
    standing: &mut Standing,
    query: &RankQuery,
    vector: &[f32],
    block: &[usize],
    candidates: Rows<'_>,
) {
    for candidate in query.candidates.iter().flatten() {
        if let Ok(row) = block.binary_search(candidate) {
            standing.offer(*candidate, dot(vector, candidates.row(row)));
        }
    }
}

/// Those at rising places.
fn pick<'a, T>(items: &'a mut [T], places: &[usize]) -> Vec<&'a mut T> {
    let mut places = places.iter().peekable();
    let all = items.iter_mut().enumerate();
    all.filter(|(place, _)| places.next_if(|next| *next == place).is_some()).map(|(_, item)| item).collect()
}

fn longest(rows: Rows<'_>) -> f32 {
    (0..rows.len()).into_par_iter().map(|row| norm(rows.row(row))).reduce(|| 0.0, f32::max)
}

fn norm(vector: &[f32]) -> f32 {
    dot(vector, vector).sqrt()
}
