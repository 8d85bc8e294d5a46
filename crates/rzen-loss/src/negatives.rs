//! Which candidates are negatives of which query, and how much each counts.

use burn::tensor::{Bool, Int, IntDType, Tensor};

use crate::similarity::unit_rows;

/// Marks the negatives of each query before any is taken for a false one.
///
/// - `positive`: `[queries]`, each query's positive among the candidates
/// - `owner`: `[candidates]`, the one query that may use a candidate, or -1 for all; `None` is -1 throughout
/// - `exempt`: `[queries, candidates]`, true where a candidate must not be a negative; `None` is false throughout
/// - returns `[queries, num_candidates]`, true on negatives
pub fn possible_negatives(
    positive: Tensor<1, Int>,
    owner: Option<Tensor<1, Int>>,
    exempt: Option<Tensor<2, Bool>>,
    num_candidates: usize,
) -> Tensor<2, Bool> {
    let positive = positive.inner().cast(IntDType::I32);
    let device = positive.device();
    let [num_queries] = positive.dims();
    let count = |n: usize| Tensor::<1, Int>::arange(0..n as i64, &device).cast(IntDType::I32);
    let shape = [num_queries, num_candidates];

    let column = count(num_candidates).unsqueeze_dim::<2>(0).expand(shape);
    let others = without(column.not_equal(positive.unsqueeze_dim::<2>(1).expand(shape)), exempt);
    let Some(owner) = owner else { return others };

    let owner = owner.inner().cast(IntDType::I32).unsqueeze_dim::<2>(0);
    let anyones = owner.clone().lower_elem(0).expand(shape);
    let row = count(num_queries).unsqueeze_dim::<2>(1).expand(shape);
    others.bool_and(anyones.bool_or(owner.expand(shape).equal(row)))
}

/// `mask` where `exempt` is not; both have the same shape.
pub(crate) fn without(mask: Tensor<2, Bool>, exempt: Option<Tensor<2, Bool>>) -> Tensor<2, Bool> {
    match exempt {
        Some(exempt) => mask.bool_and(exempt.inner().bool_not()),
        None => mask,
    }
}

/// Marks the candidates that are too near a query's positive to be wrong answers (paper §3.3).
///
/// - `candidates`: `[candidates, dim]`, of any length; no gradient reaches them
/// - `positive`: `[queries]`, each query's positive among the candidates
/// - `delta`: the cosine with the positive that must be exceeded
/// - returns `[queries, candidates]`, true on false negatives
pub fn false_negative_mask(candidates: Tensor<2>, positive: Tensor<1, Int>, delta: f64) -> Tensor<2, Bool> {
    false_negatives_of_unit_rows(unit_rows(candidates.inner()), positive, delta)
}

/// [`false_negative_mask`] of rows that have unit length already.
pub(crate) fn false_negatives_of_unit_rows(
    candidates: Tensor<2>,
    positive: Tensor<1, Int>,
    delta: f64,
) -> Tensor<2, Bool> {
    let candidates = candidates.inner();
    let positives = candidates.clone().select(0, positive.inner());
    positives.matmul(candidates.transpose()).greater_elem(delta)
}

/// Takes the logarithms `α s` of the hardness weights `e^{α s}` (paper §3.3).
///
/// They are added to the logits; the weights themselves would overflow for a large `alpha`.
///
/// - `similarity`: `[queries, candidates]`
/// - returns `[queries, candidates]`, without a gradient unless `differentiate`
pub fn hardness_weights(similarity: Tensor<2>, alpha: f64, differentiate: bool) -> Tensor<2> {
    let similarity = if differentiate { similarity } else { similarity.inner() };
    similarity.mul_scalar(alpha)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn rows(mask: Tensor<2, Bool>) -> Vec<bool> {
        mask.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn owned_candidates_serve_their_query_alone() {
        let device = Device::flex();
        let positive = Tensor::<1, Int>::from_ints([0, 1], &device);
        assert_eq!(
            rows(possible_negatives(positive.clone(), None, None, 3)),
            [false, true, true, /**/ true, false, true]
        );
        let owner = Tensor::<1, Int>::from_ints([-1, -1, 1, 0], &device);
        assert_eq!(
            rows(possible_negatives(positive.clone(), Some(owner.clone()), None, 4)),
            [false, true, false, true, /**/ true, false, true, false]
        );
        let exempt = [[false, true, false, false], [true, false, false, false]];
        let exempt = Some(Tensor::<2, Bool>::from_data(exempt, &device));
        assert_eq!(
            rows(possible_negatives(positive, Some(owner), exempt, 4)),
            [false, false, false, true, /**/ false, false, true, false]
        );
    }

    #[test]
    fn only_what_exceeds_delta_is_masked() {
        let device = Device::flex();
        let candidates = Tensor::<2>::from_floats([[2.0, 0.0], [0.0, 1.0], [5.0, 0.1]], &device);
        let positive = Tensor::<1, Int>::from_ints([0, 1], &device);
        let mask = |delta| rows(false_negative_mask(candidates.clone(), positive.clone(), delta));
        assert_eq!(mask(0.95), [true, false, true, /**/ false, true, false]);
        assert_eq!(mask(1.0), [false; 6], "a cosine of exactly delta is kept");
    }
}
