//! Products of row-major matrices.

use gemm::Parallelism;

/// A matrix inside of a slice, with the distance between neighbours in a row and in a column.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// Row-major `[rows, cols]`.
    ///
    /// # Panics
    /// If `data` has another size.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "numbers of a {rows}x{cols} matrix");
        View { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    pub(crate) fn transposed(self) -> Self {
        View {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// The threads that a product may take.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Threads {
    /// That of the caller, who computes several products side by side.
    One,
    /// All of them.
    All,
}

/// `factor * left right`, row-major.
pub(crate) fn product<T>(left: View<T>, right: View<T>, factor: T, threads: Threads) -> Vec<T>
where
    T: Copy + Default + 'static,
{
    let mut out = vec![T::default(); left.rows * right.cols];
    product_into(left, right, factor, &mut out, threads);
    out
}

/// Writes `factor * left right`, row-major, over `out`.
pub(crate) fn product_into<T>(left: View<T>, right: View<T>, factor: T, out: &mut [T], threads: Threads)
where
    T: Copy + Default + 'static,
{
    let (m, k, n) = (left.rows, left.cols, right.cols);
    assert_eq!(k, right.rows, "inner sizes of a product");
    assert_eq!(out.len(), m * n, "numbers of a product of {m}x{n}");
    if out.is_empty() {
        return;
    }
    if k == 0 {
        out.fill(T::default());
        return;
    }
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: the strides of a `View` lead to numbers of its slice alone, `out` has m × n of them, row by row, and
    // is borrowed by nobody else. It is not read, since `read_dst` is false.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            left.data.as_ptr(),
            left.col_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.col_stride as isize,
            right.row_stride as isize,
            factor,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_every_orientation() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0f64];
        let tall = View::new(&a, 3, 2);
        assert_eq!(product(tall.transposed(), tall, 1.0, Threads::One), [35.0, 44.0, 44.0, 56.0]);
        let wide = View::new(&a, 2, 3);
        assert_eq!(
            product(tall, wide, 2.0, Threads::All),
            [18.0, 24.0, 30.0, 38.0, 52.0, 66.0, 58.0, 80.0, 102.0]
        );
        assert_eq!(product(View::new(&a[..0], 2, 0), View::new(&a[..0], 0, 1), 1.0, Threads::All), [0.0; 2]);
    }
}
