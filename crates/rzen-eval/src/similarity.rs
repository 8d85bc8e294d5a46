//! Dot products that come out the same whatever the blocking and the threads.

/// Sums kept apart, so that the compiler can use vector instructions; their number is part of the result.
const LANES: usize = 16;

/// The dot product in f32, always summed in the same order.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "vectors of one embedder");
    let mut sums = [0.0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

/// Rows of candidates that stay in the cache of a core while a block of queries passes.
const BLOCK: usize = 64;

/// Scores `[queries][candidates]` of each query against each candidate.
pub(crate) fn dot_all(queries: &[&[f32]], candidates: &[&[f32]]) -> Vec<Vec<f32>> {
    let mut scores: Vec<Vec<f32>> = queries.iter().map(|_| Vec::with_capacity(candidates.len())).collect();
    for block in candidates.chunks(BLOCK) {
        for (query, row) in queries.iter().zip(&mut scores) {
            row.extend(block.iter().map(|candidate| dot(query, candidate)));
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_equal_the_plain_sum() {
        for len in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..len).map(|i| i as f32 * 0.25 - 3.0).collect();
            let b: Vec<f32> = (0..len).map(|i| 1.5 - i as f32 * 0.5).collect();
            let expected: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            assert!((f64::from(dot(&a, &b)) - expected).abs() <= 1e-5 * expected.abs(), "length {len}");
        }
    }

    #[test]
    fn blocks_do_not_change_a_score() {
        let rows: Vec<Vec<f32>> = (0..3 * BLOCK + 5)
            .map(|i| (0..37).map(|j| ((i * 31 + j * 17) % 23) as f32 - 11.0).collect())
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        for (query, scores) in rows[..7].iter().zip(dot_all(&rows[..7], &rows)) {
            let expected: Vec<f32> = rows.iter().map(|candidate| dot(query, candidate)).collect();
            assert_eq!(scores, expected);
        }
    }
}
