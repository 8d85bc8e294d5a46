//! What there is to know about a step besides its loss.

use burn::tensor::{Bool, Tensor};

use crate::objective::Side;

/// `e^60` times any number of pairs is still a finite f32.
const LOG_WEIGHT_LIMIT: f32 = 60.0;

/// Scalars `[1]` without a graph.
pub(crate) struct Stats {
    pub masked: Tensor<1>,
    pub mean_weight: Tensor<1>,
    pub accuracy: Tensor<1>,
}

impl Stats {
    pub(crate) fn of(side: &Side, alpha: f64) -> Stats {
        let similarity = side.similarity.clone().inner();
        let no_negative = side.negatives.clone().bool_not();
        let num_possible = count(side.possible.clone());
        let num_negatives = count(side.negatives.clone());

        let masked = (num_possible.clone() - num_negatives.clone()) / num_possible.clamp_min(1.0);
        let weights = similarity.clone().mul_scalar(alpha).clamp_max(LOG_WEIGHT_LIMIT).exp();
        let mean_weight = weights.mask_fill(no_negative.clone(), 0.0).sum() / num_negatives.clamp_min(1.0);

        let own = similarity.clone().gather(1, side.positive.clone().unsqueeze_dim(1));
        // Below every cosine, so that a query without negatives counts as right.
        let best_negative = similarity.mask_fill(no_negative, -2.0).max_dim(1);
        let accuracy = own.greater(best_negative).float().mean();
        Stats { masked, mean_weight, accuracy }
    }
}

fn count(mask: Tensor<2, Bool>) -> Tensor<1> {
    mask.float().sum()
}
