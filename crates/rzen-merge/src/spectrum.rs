//! Singular values and the nearest update of a lower rank.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::product::{Threads, View, product};
use crate::random::SplitMix;
use crate::{LowRank, Matrix};

/// Singular values below this share of the largest are rounding.
const ROUNDING: f64 = 1e-8;

/// What f32 factors leave of parts that cancel, squared: a share below it is none.
pub(crate) const CANCELLED: f64 = 1e-14;

/// A sum of low-rank updates, with its singular values.
///
/// With all factors side by side in `B` `[out, rank]` and `A` `[rank, in]`, `BᵀB = R_bᵀR_b` and `AAᵀ = R_aᵀR_a`, the sum has the
/// singular values of `M = R_b R_aᵀ = U Σ Vᵀ`, a matter of rank × rank, and is `(B R_aᵀ V Σ⁻¹ᐟ²) (Σ⁻¹ᐟ² Uᵀ R_b A)`. Everything is
/// in f64, where squaring leaves singular values down to [`ROUNDING`].
pub(crate) struct Sum {
    shape: [usize; 2],
    a: Vec<f64>,
    b: Vec<f64>,
    root_a: DMatrix<f64>,
    root_b: DMatrix<f64>,
    u: DMatrix<f64>,
    v: DMatrix<f64>,
    /// From the largest on; those that are rounding are left out.
    values: Vec<f64>,
}

impl Sum {
    pub(crate) fn new(updates: &[(f64, &LowRank)]) -> Sum {
        let (mut a, mut b) = stack(updates);
        let [out, input] = updates[0].1.shape();
        let rank = a.len() / input.max(1);
        balance(&mut a, &mut b, rank);
        let gram_a =
            product(View::new(&a, rank, input), View::new(&a, rank, input).transposed(), 1.0, Threads::All);
        let gram_b =
            product(View::new(&b, out, rank).transposed(), View::new(&b, out, rank), 1.0, Threads::All);
        let parts: f64 = (0..rank).map(|i| gram_a[i * rank + i] * gram_b[i * rank + i]).sum();
        let (root_a, root_b) = (root(rank, &gram_a), root(rank, &gram_b));
        let svd = (&root_b * root_a.transpose()).svd(true, true);
        let (u, v_t) = (svd.u.expect("u was asked for"), svd.v_t.expect("v was asked for"));
        let largest = svd.singular_values.iter().copied().fold(0.0, f64::max);
        let least = f64::max(largest * ROUNDING, (parts * CANCELLED).sqrt());
        let values = svd.singular_values.iter().copied().take_while(|value| *value > least).collect();
        Sum { shape: [out, input], a, b, root_a, root_b, u, v: v_t.transpose(), values }
    }

    /// Singular values, from the largest on.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// The nearest update of this rank; each factor takes the root of the singular values.
    pub(crate) fn nearest(&self, rank: usize) -> LowRank {
        let [out, input] = self.shape;
        let kept = rank.min(self.values.len());
        let roots = DMatrix::from_diagonal(&nalgebra::DVector::from_iterator(
            kept,
            self.values[..kept].iter().map(|value| value.sqrt().recip()),
        ));
        let right = self.root_a.transpose() * self.v.columns(0, kept) * &roots;
        let left = roots * self.u.columns(0, kept).transpose() * &self.root_b;
        let all = self.root_a.nrows();
        let b = product(View::new(&self.b, out, all), column_major(&right), 1.0, Threads::All);
        let a = product(column_major(&left), View::new(&self.a, all, input), 1.0, Threads::All);
        LowRank::new(padded_rows(&a, kept, input, rank), padded_cols(&b, out, kept, rank))
    }
}

/// A dense matrix's nearest of rank `rank`, and the squared singular values of it that are kept.
///
/// By a random subspace that is multiplied with the matrix and its transpose [`ROUNDS`] times ([Halko et al.,
/// 2011](https://arxiv.org/abs/0909.4061)), with [`SPARE`] more directions than are kept; exact where the smaller side has
/// no more than that.
pub(crate) fn nearest_dense(matrix: &[f32], [rows, cols]: [usize; 2], rank: usize) -> (LowRank, f64) {
    let width = (rank + SPARE).min(rows).min(cols);
    let m = View::new(matrix, rows, cols);
    let signs = SplitMix(0x5EED);
    let first: Vec<f32> =
        (0..(cols * width) as u64).map(|i| if signs.at(i) >> 63 == 0 { 1.0 } else { -1.0 }).collect();
    let mut q = orthonormal(&product(m, View::new(&first, cols, width), 1.0, Threads::All), rows, width);
    for _ in 0..ROUNDS {
        let back = product(m.transposed(), View::new(&q, rows, width), 1.0, Threads::All);
        let back = orthonormal(&back, cols, width);
        q = orthonormal(&product(m, View::new(&back, cols, width), 1.0, Threads::All), rows, width);
    }
    let c = product(View::new(&q, rows, width).transposed(), m, 1.0, Threads::All);
    let c: Vec<f64> = c.iter().map(|x| f64::from(*x)).collect();
    let c_view = View::new(&c, width, cols);
    let (values, vectors) = eigen(width, &product(c_view, c_view.transposed(), 1.0, Threads::All));
    let least = values.first().copied().unwrap_or(0.0) * ROUNDING * ROUNDING;
    let kept = values.iter().take(rank).take_while(|value| **value > least).count();
    // B = Q U Σ¹ᐟ² and A = Σ⁻¹ᐟ² Uᵀ C, where the eigenvalues are those of Σ².
    let scaled = |power: f64| {
        let mut u = vectors.columns(0, kept).into_owned();
        for (mut column, value) in u.column_iter_mut().zip(&values) {
            column *= value.powf(power);
        }
        u
    };
    let q: Vec<f64> = q.iter().map(|x| f64::from(*x)).collect();
    let b = product(View::new(&q, rows, width), column_major(&scaled(0.25)), 1.0, Threads::All);
    let a = product(column_major(&scaled(-0.25)).transposed(), c_view, 1.0, Threads::All);
    let update = LowRank::new(padded_rows(&a, kept, cols, rank), padded_cols(&b, rows, kept, rank));
    (update, values[..kept].iter().sum())
}

/// Directions beyond those that are kept.
const SPARE: usize = 16;
/// Products with the matrix and its transpose after the first.
const ROUNDS: usize = 3;

/// All factors side by side: `A` `[rank, in]` with what each is multiplied with, and `B` `[out, rank]`.
fn stack(updates: &[(f64, &LowRank)]) -> (Vec<f64>, Vec<f64>) {
    let rank: usize = updates.iter().map(|(_, update)| update.rank()).sum();
    let [out, input] = updates[0].1.shape();
    let mut a = Vec::with_capacity(rank * input);
    let mut b = Vec::with_capacity(out * rank);
    for (factor, update) in updates {
        a.extend(update.a().data().iter().map(|x| factor * f64::from(*x)));
    }
    for row in 0..out {
        for (_, update) in updates {
            let r = update.rank();
            b.extend(update.b().data()[row * r..(row + 1) * r].iter().map(|x| f64::from(*x)));
        }
    }
    (a, b)
}

/// Shares the length of each row of `a` and column of `b` between both, so that neither loses small ones to rounding.
fn balance(a: &mut [f64], b: &mut [f64], rank: usize) {
    if rank == 0 {
        return;
    }
    let mut of_b = vec![0.0f64; rank];
    for row in b.chunks_exact(rank) {
        of_b.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
    }
    let input = a.len() / rank;
    let mut turn = vec![1.0; rank];
    for (i, row) in a.chunks_exact_mut(input.max(1)).enumerate() {
        let of_a: f64 = row.iter().map(|x| x * x).sum();
        if of_a > 0.0 && of_b[i] > 0.0 {
            turn[i] = (of_b[i] / of_a).powf(0.25);
            row.iter_mut().for_each(|x| *x *= turn[i]);
        }
    }
    for row in b.chunks_exact_mut(rank) {
        row.iter_mut().zip(&turn).for_each(|(x, turn)| *x /= turn);
    }
}

/// Eigenvalues of a symmetric matrix, none below zero, from the largest on, and their vectors as columns.
fn eigen(size: usize, gram: &[f64]) -> (Vec<f64>, DMatrix<f64>) {
    if size == 0 {
        return (Vec::new(), DMatrix::zeros(0, 0));
    }
    let found = SymmetricEigen::new(DMatrix::from_row_slice(size, size, gram));
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| found.eigenvalues[*b].total_cmp(&found.eigenvalues[*a]));
    let values = order.iter().map(|i| found.eigenvalues[*i].max(0.0)).collect();
    (values, found.eigenvectors.select_columns(&order))
}

/// `R` with `RᵀR` the symmetric matrix.
fn root(size: usize, gram: &[f64]) -> DMatrix<f64> {
    let (values, vectors) = eigen(size, gram);
    let mut root = vectors.transpose();
    for (mut row, value) in root.row_iter_mut().zip(values) {
        row *= value.sqrt();
    }
    root
}

/// Columns of length 1, at right angles, that span those of `matrix` `[rows, cols]`; zeros for those that add nothing.
fn orthonormal(matrix: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut q: Vec<f64> = matrix.iter().map(|x| f64::from(*x)).collect();
    // The second time mends what squaring lost the first time.
    for _ in 0..2 {
        let view = View::new(&q, rows, cols);
        let (values, mut vectors) = eigen(cols, &product(view.transposed(), view, 1.0, Threads::All));
        let least = values.first().copied().unwrap_or(0.0) * 1e-13;
        for (mut column, value) in vectors.column_iter_mut().zip(&values) {
            column *= if *value > least { value.sqrt().recip() } else { 0.0 };
        }
        q = product(view, column_major(&vectors), 1.0, Threads::All);
    }
    q.into_iter().map(|x| x as f32).collect()
}

/// nalgebra's matrices stand column by column.
fn column_major(matrix: &DMatrix<f64>) -> View<'_, f64> {
    View::new(matrix.as_slice(), matrix.ncols(), matrix.nrows()).transposed()
}

fn padded_rows(a: &[f64], kept: usize, cols: usize, rank: usize) -> Matrix {
    debug_assert_eq!(a.len(), kept * cols);
    let mut data: Vec<f32> = a.iter().map(|x| *x as f32).collect();
    data.resize(rank * cols, 0.0);
    Matrix::new(rank, cols, data)
}

fn padded_cols(b: &[f64], rows: usize, kept: usize, rank: usize) -> Matrix {
    let mut data = vec![0.0; rows * rank];
    if kept > 0 {
        for (row, from) in data.chunks_exact_mut(rank).zip(b.chunks_exact(kept)) {
            row.iter_mut().zip(from).for_each(|(to, x)| *to = *x as f32);
        }
    }
    Matrix::new(rows, rank, data)
}
