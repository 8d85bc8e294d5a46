//! A low-rank update of one weight.

use std::ops::Range;

use crate::product::{Threads, View, product_into};

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// Wraps `data`, row by row.
    ///
    /// # Panics
    /// If `data` doesn't hold `rows * cols` numbers.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * cols, "numbers of a {rows}x{cols} matrix");
        Matrix { rows, cols, data }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The numbers, row by row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

/// An update of a weight `[out, in]`: its scaling times `b a`.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    a: Matrix,
    b: Matrix,
}

impl LowRank {
    /// Joins `a` `[rank, in]` and `b` `[out, rank]`.
    ///
    /// # Panics
    /// If they disagree on the rank.
    pub fn new(a: Matrix, b: Matrix) -> Self {
        assert_eq!(a.rows(), b.cols(), "rank of both factors");
        LowRank { a, b }
    }

    /// `[rank, in]`
    pub fn a(&self) -> &Matrix {
        &self.a
    }

    /// `[out, rank]`
    pub fn b(&self) -> &Matrix {
        &self.b
    }

    /// Rows of `a`.
    pub fn rank(&self) -> usize {
        self.a.rows()
    }

    /// The shape `[out, in]` of the weight that is updated.
    pub fn shape(&self) -> [usize; 2] {
        [self.b.rows(), self.a.cols()]
    }

    /// `scaling * b a`, `[out, in]`.
    pub fn delta(&self, scaling: f64) -> Matrix {
        let [out, input] = self.shape();
        let mut data = vec![0.0; out * input];
        for rows in blocks([out, input]) {
            let part = &mut data[rows.start * input..rows.end * input];
            self.delta_rows(scaling, rows, part, Threads::All);
        }
        Matrix::new(out, input, data)
    }

    /// Writes some rows of [`LowRank::delta`] over `out`.
    pub(crate) fn delta_rows(&self, scaling: f64, rows: Range<usize>, out: &mut [f32], threads: Threads) {
        let (rank, [_, input]) = (self.rank(), self.shape());
        let b = View::new(&self.b.data[rows.start * rank..rows.end * rank], rows.len(), rank);
        product_into(b, View::new(&self.a.data, rank, input), scaling as f32, out, threads);
    }
}

/// Numbers that are computed together: few enough that some blocks in each thread take little memory.
const BLOCK: usize = 1 << 20;

/// The rows of a matrix `[rows, cols]` in blocks. They depend on the shape alone, so that whoever computes a block again
/// gets the same bits.
pub(crate) fn blocks([rows, cols]: [usize; 2]) -> impl Iterator<Item = Range<usize>> {
    let step = (BLOCK / cols.max(1)).max(1);
    (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_is_the_scaled_product() {
        let a = Matrix::new(1, 3, vec![1.0, 2.0, 3.0]);
        let b = Matrix::new(2, 1, vec![10.0, -1.0]);
        let delta = LowRank::new(a, b).delta(0.5);
        assert_eq!(delta, Matrix::new(2, 3, vec![5.0, 10.0, 15.0, -0.5, -1.0, -1.5]));
    }

    #[test]
    fn blocks_cover_every_row_once() {
        for shape in [[1, 1], [1, 5 << 20], [100_000, 3000], [7, 1 << 18]] {
            let all: Vec<usize> = blocks(shape).flatten().collect();
            assert!(all.iter().copied().eq(0..shape[0]), "{shape:?}");
        }
        assert_eq!(blocks([7, 1 << 18]).count(), 2);
    }
}
