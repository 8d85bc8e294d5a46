//! The loss of each query, from cosines.

use burn::tensor::{Bool, Int, Tensor};

/// Stands for the logit of what is no negative: far below any other, and finite.
const ABSENT: f32 = -1e30;

/// Takes `log(e^{s⁺/τ} + Σ w e^{s/τ}) − s⁺/τ` over the negatives of each query.
///
/// - `similarity`: `[queries, candidates]`, f32 cosines
/// - `positive`: `[queries]`, each query's positive among the candidates
/// - `negatives`: `[queries, candidates]`, true on the negatives; must be false on the positive
/// - `log_weights`: `[queries, candidates]`, what [`hardness_weights`](crate::hardness_weights) gives;
///   `None` weights all alike
/// - `temperature`: `[queries]`
/// - returns `[queries]`, each at least 0, and exactly 0 with zero gradients without a negative
///
/// # Panics
/// If the shapes disagree.
pub fn info_nce(
    similarity: Tensor<2>,
    positive: Tensor<1, Int>,
    negatives: Tensor<2, Bool>,
    log_weights: Option<Tensor<2>>,
    temperature: Tensor<1>,
) -> Tensor<1> {
    let [num_queries, num_candidates] = similarity.dims();
    assert_eq!(positive.dims(), [num_queries], "positives of {num_queries} queries");
    assert_eq!(negatives.dims(), [num_queries, num_candidates], "mask of [queries, candidates]");
    assert_eq!(temperature.dims(), [num_queries], "temperatures of {num_queries} queries");

    // Everything is relative to the positive's logit, which is 0 then.
    let own = similarity.clone().gather(1, positive.unsqueeze_dim(1));
    let logits = (similarity - own) * temperature.recip().unsqueeze_dim::<2>(1);
    let logits = match log_weights {
        Some(log_weights) => logits + log_weights,
        None => logits,
    };
    let logits = logits.mask_fill(negatives.bool_not(), ABSENT);

    // log(1 + Σ e^x) = m + log1p(e^{-m} − 1 + Σ e^{x−m}), whose last part is tiny where the loss is.
    let shift = logits.clone().inner().max_dim(1).clamp_min(0.0);
    let positive_term = shift.clone().neg().exp() - 1.0;
    let sum = (logits - shift.clone()).exp().sum_dim(1) + positive_term;
    (sum.log1p() + shift).squeeze_dim(1)
}
