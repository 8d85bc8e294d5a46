//! Exact search: the best candidates of each query, in memory that doesn't grow with the pool.

use std::borrow::Cow;

use rayon::prelude::*;
use rzen_kernels::{FEW_ROWS, Linear, Matrix, Then};

use crate::best::Best;
use crate::similarity::dot;

/// Queries whose best candidates are kept while the pool passes: enough that packing them costs little.
pub(crate) const QUERY_ROWS: usize = 1024;
/// Candidates that are scored at once.
pub(crate) const POOL_ROWS: usize = 4096;
/// Scores that are compared with the least one kept in one go.
pub(crate) const LANES: usize = 32;

/// Vectors of one size, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    dim: usize,
}

impl<'a> Rows<'a> {
    /// `data`: `[rows, dim]`.
    ///
    /// # Panics
    /// If `dim` is 0 or doesn't divide the length of `data`.
    pub fn new(data: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && data.len().is_multiple_of(dim), "{} numbers in rows of {dim}", data.len());
        Rows { data, dim }
    }

    /// All numbers, row after row.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows there are.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.dim..][..self.dim]
    }

    /// The dot product of a row with a vector, as [`run_task`](crate::run_task) scores.
    ///
    /// # Panics
    /// If there is no such row, or the vector has another size.
    pub fn score(&self, index: usize, vector: &[f32]) -> f32 {
        dot(self.row(index), vector)
    }
}

/// The `k` candidates of `pool` with the highest dot products for each query, `(index, score)`, best first, of
/// equal ones the lower index first; fewer where there are fewer.
///
/// `allowed(query, candidate)` says which pairs count. It is asked only about pairs whose score is among the best so far,
/// so that it may look something up.
///
/// Scores are those of [`Rows::score`]. Which candidates are the best is found with products of matrices: two whose scores
/// differ in the last bits alone may stand for each other at place `k`. The result does not depend on the number of threads.
///
/// # Panics
/// If queries and pool have vectors of different size.
pub fn search(
    queries: Rows<'_>,
    pool: Rows<'_>,
    k: usize,
    allowed: impl Fn(usize, usize) -> bool + Sync,
) -> Vec<Vec<(usize, f32)>> {
    assert_eq!(queries.dim, pool.dim, "vectors of one embedder");
    let dim = queries.dim;
    let mut found = Vec::with_capacity(queries.len());
    let most_rows = queries.len().clamp(FEW_ROWS + 1, QUERY_ROWS);
    let mut scores = vec![0.0; most_rows * pool.len().min(POOL_ROWS)];
    for block in queries.data.chunks(QUERY_ROWS * dim) {
        let first = found.len();
        let mut best: Vec<Best<(usize, f32)>> =
            (0..block.len() / dim).map(|_| Best::new(k, |entry| entry.1, before)).collect();
        let block = enough_rows(block, dim);
        let rows = block.len() / dim;
        for (place, candidates) in pool.data.chunks(POOL_ROWS * dim).enumerate() {
            let (start, outputs) = (place * POOL_ROWS, candidates.len() / dim);
            let weight = Matrix::F32(candidates);
            let product = Linear { weight, inputs: dim, outputs, bias: None, lora: None };
            let scores = &mut scores[..rows * outputs];
            product.forward(&block, scores, false, Then::Nothing);
            let each = best.par_iter_mut().zip(scores.par_chunks(outputs)).enumerate();
            each.for_each(|(row, (best, scores))| offer(best, scores, start, |at| allowed(first + row, at)));
        }
        let rescored = best.into_par_iter().enumerate().map(|(row, best)| {
            let query = queries.row(first + row);
            let mut found = best.ranked();
            found.iter_mut().for_each(|(candidate, score)| *score = pool.score(*candidate, query));
            found.sort_unstable_by(before);
            found
        });
        found.par_extend(rescored);
    }
    found
}

/// Rows enough for the kernel that sums in the same way whatever their number.
pub(crate) fn enough_rows(block: &[f32], dim: usize) -> Cow<'_, [f32]> {
    match block.len() / dim > FEW_ROWS {
        true => Cow::Borrowed(block),
        false => {
            let mut padded = block.to_vec();
            padded.resize((FEW_ROWS + 1) * dim, 0.0);
            Cow::Owned(padded)
        }
    }
}

/// Takes the scores of the candidates from `start` on; indices rise from call to call, so that of equal ones the first stays.
fn offer(best: &mut Best<(usize, f32)>, scores: &[f32], start: usize, allowed: impl Fn(usize) -> bool) {
    for (chunk, scores) in scores.chunks(LANES).enumerate() {
        let highest = scores.iter().fold(f32::NEG_INFINITY, |most, score| most.max(*score));
        if highest <= best.least() {
            continue;
        }
        for (lane, score) in scores.iter().enumerate() {
            let candidate = start + chunk * LANES + lane;
            if *score > best.least() && allowed(candidate) {
                best.push((candidate, *score));
            }
        }
    }
}

/// By falling score, then rising index.
fn before(a: &(usize, f32), b: &(usize, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of small whole numbers: their products are exact in whatever order they are summed, and often equal.
    fn rows(count: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % 7) as f32 - 3.0
        };
        (0..count * dim).map(|_| next()).collect()
    }

    /// By sorting all scores.
    fn sorted(
        queries: Rows<'_>,
        pool: Rows<'_>,
        k: usize,
        allowed: impl Fn(usize, usize) -> bool,
    ) -> Vec<Vec<(usize, f32)>> {
        let of_query = |query: usize| {
            let candidates = (0..pool.len()).filter(|candidate| allowed(query, *candidate));
            let mut all: Vec<_> = candidates.map(|c| (c, pool.score(c, queries.row(query)))).collect();
            all.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
            all.truncate(k);
            all
        };
        (0..queries.len()).map(of_query).collect()
    }

    #[test]
    fn finds_what_sorting_finds_with_ties_by_index() {
        // One block, several blocks with a rest, a lone query, an odd width.
        for (queries, pool, dim) in
            [(7, 50, 16), (QUERY_ROWS + 3, 70, 8), (5, 2 * POOL_ROWS + 33, 24), (1, 100, 13)]
        {
            let (q, p) = (rows(queries, dim, 1), rows(pool, dim, 2));
            let (q, p) = (Rows::new(&q, dim), Rows::new(&p, dim));
            for k in [0, 1, 10, pool + 5] {
                assert_eq!(
                    search(q, p, k, |_, _| true),
                    sorted(q, p, k, |_, _| true),
                    "{queries} × {pool}, {k}"
                );
            }
            let odd = |query: usize, candidate: usize| (query + candidate) % 3 == 1;
            assert_eq!(search(q, p, 10, odd), sorted(q, p, 10, odd), "{queries} × {pool}, some allowed");
        }
    }

    #[test]
    fn equal_vectors_are_told_apart_by_index_wherever_they_stand() {
        let dim = 37;
        let one: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.37).sin()).collect();
        let pool: Vec<f32> = (0..POOL_ROWS + 77).flat_map(|_| one.clone()).collect();
        let pool = Rows::new(&pool, dim);
        let found = search(Rows::new(&one, dim), pool, 20, |_, candidate| candidate % 2 == 1);
        assert_eq!(
            found[0].iter().map(|hit| hit.0).collect::<Vec<_>>(),
            (0..20).map(|i| 2 * i + 1).collect::<Vec<_>>()
        );
    }

    #[test]
    fn threads_do_not_matter() {
        let wave =
            |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin()).collect::<Vec<f32>>();
        let (q, p) = (wave(90 * 40, 0.71), wave(5000 * 40, 0.37));
        let run = |threads: usize| {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            threads.install(|| search(Rows::new(&q, 40), Rows::new(&p, 40), 15, |_, _| true))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn an_empty_pool_gives_nothing() {
        let q = [1.0, 0.0];
        assert_eq!(search(Rows::new(&q, 2), Rows::new(&[], 2), 3, |_, _| true), [vec![]]);
    }
}
