//! Cosines of two sets of rows.

use burn::tensor::{FloatDType, Tensor};

/// Rows shorter than this count as zero.
const EPSILON: f64 = 1e-12;

/// Takes the cosine of every query with every candidate.
///
/// - `queries`: `[queries, dim]`, of any length
/// - `candidates`: `[candidates, dim]`, of any length
/// - returns `[queries, candidates]`, f32, between -1 and 1 up to rounding
///
/// A row of zeros has no direction: its cosines and its gradient are 0.
pub fn similarity(queries: Tensor<2>, candidates: Tensor<2>) -> Tensor<2> {
    unit_rows(queries).matmul(unit_rows(candidates).transpose())
}

/// Divides each row by its length, in f32.
///
/// The largest entry is divided out first, so that no square overflows or vanishes. It counts as a
/// constant, which changes no gradient: the result doesn't depend on the length of a row.
pub(crate) fn unit_rows(rows: Tensor<2>) -> Tensor<2> {
    let rows = rows.cast(FloatDType::F32);
    let largest = rows.clone().inner().max_abs_dim(1);
    let no_direction = largest.clone().lower_elem(EPSILON);
    // Anything finite over infinity is 0, and so is its gradient.
    let rows = rows / largest.mask_fill(no_direction, f32::INFINITY);
    // The length is at least 1 here, except in a row of zeros.
    let length = rows.clone().square().sum_dim(1).clamp_min(1.0).sqrt();
    rows / length
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn cosines_of_any_length() {
        let device = Device::flex();
        let queries = Tensor::<2>::from_floats([[3e38, 3e38], [0.0, 0.0], [1e-11, 0.0]], &device);
        let candidates = Tensor::<2>::from_floats([[0.0, 7.0], [1e-30, 1e-30]], &device);
        let found = similarity(queries, candidates).into_data().try_to_vec::<f32>().unwrap();
        let half = 0.5f32.sqrt();
        for (found, expected) in found.iter().zip([half, 0.0, 0.0, 0.0, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }
}
