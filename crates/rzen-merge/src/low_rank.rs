//! A low-rank update of one weight.

use nalgebra::DMatrix;

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

    pub(crate) fn to_f64(&self) -> DMatrix<f64> {
        DMatrix::from_row_iterator(self.rows, self.cols, self.data.iter().map(|x| f64::from(*x)))
    }

    /// Rounds to f32.
    pub(crate) fn from_f64(matrix: &DMatrix<f64>) -> Self {
        let data = matrix.transpose().iter().map(|x| *x as f32).collect();
        Matrix::new(matrix.nrows(), matrix.ncols(), data)
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
        // Row-major [r, in] is column-major [in, r], so this is (b a)ᵀ, whose columns are our rows.
        let a = DMatrix::from_column_slice(input, self.rank(), self.a.data());
        let b = DMatrix::from_column_slice(self.rank(), out, self.b.data());
        let product = a * b * scaling as f32;
        Matrix::new(out, input, product.data.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_is_the_scaled_product() {
        let a = Matrix::new(1, 3, vec![1.0, 2.0, 3.0]);
        let b = Matrix::new(2, 1, vec![10.0, -1.0]);
        let delta = LowRank::new(a.clone(), b).delta(0.5);
        assert_eq!(delta, Matrix::new(2, 3, vec![5.0, 10.0, 15.0, -0.5, -1.0, -1.5]));
        assert_eq!(Matrix::from_f64(&a.to_f64()), a);
    }
}
