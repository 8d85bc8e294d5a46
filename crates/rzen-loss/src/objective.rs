//! The objective: the pure functions, their settings and the temperatures.

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor};
use rzen_core::{Loss, Objective, Targets};

use crate::negatives::false_negatives_of_unit_rows;
use crate::similarity::unit_rows;
use crate::stats::Stats;
use crate::{InfoNceConfig, hardness_weights, info_nce, possible_negatives};

/// InfoNCE with hardness weights, a false-negative mask and a temperature per task.
///
/// Built by [`InfoNceConfig::init`]. The parameter `theta` holds the logarithms of the
/// temperatures; train it without weight decay. Where theta leaves the range of
/// [`temperature_min`](InfoNceConfig::temperature_min) and
/// [`temperature_max`](InfoNceConfig::temperature_max), the loss takes the nearer end and theta still
/// gets the gradient there, so that it can come back.
///
/// The statistics of the [`Loss`] are of the direction query → candidate:
///
/// | name | |
/// |---|---|
/// | `masked` | share of the possible negatives that were taken for false ones |
/// | `mean_weight` | mean hardness weight of the negatives; 0 where there is none |
/// | `accuracy` | share of the queries whose positive is ahead of all negatives; a tie counts against it |
/// | `tau.TASK` | the temperature that the task's queries take |
#[derive(Module, Debug)]
pub struct InfoNce {
    /// `[tasks]`: logarithms of the temperatures.
    theta: Param<Tensor<1>>,
    #[module(skip)]
    config: InfoNceConfig,
}

impl InfoNce {
    pub(crate) fn new(config: InfoNceConfig, theta: Param<Tensor<1>>) -> Self {
        InfoNce { theta, config }
    }

    /// The settings.
    pub fn config(&self) -> &InfoNceConfig {
        &self.config
    }

    /// `[tasks]`: the logarithms of the temperatures, as they are trained.
    pub fn theta(&self) -> Tensor<1> {
        self.theta.val()
    }

    /// `[tasks]`: the temperatures that the loss uses.
    pub fn temperatures(&self) -> Tensor<1> {
        let theta = self.theta.val().cast(FloatDType::F32);
        let (low, high) = self.config.theta_range();
        let clamped = theta.clone().inner().clamp(low, high);
        // Adds 0, and with it the gradient.
        (clamped + (theta.clone() - theta.inner())).exp()
    }

    /// `[queries]`: the loss of each query, in the direction query → candidate.
    ///
    /// [`Objective::loss`] takes the mean of this, or of both directions.
    pub fn per_query(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Tensor<1> {
        let side = self.side(unit_rows(queries), unit_rows(candidates), targets);
        self.one_direction(&side, targets)
    }

    pub(crate) fn theta_device(&self) -> Device {
        self.theta.val().device()
    }

    fn side(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Side {
        let [num_candidates, _] = candidates.dims();
        let positive = targets.positive.clone().inner();
        let possible = possible_negatives(positive.clone(), targets.owner.clone(), num_candidates);
        let similarity = queries.matmul(candidates.clone().transpose());
        self.mask(similarity, candidates, positive, possible)
    }

    /// Positives look for their queries; `side` is the other direction.
    ///
    /// A query with the same positive is no negative here.
    fn reversed_side(&self, side: &Side, queries: Tensor<2>) -> Side {
        let [num_queries, _] = queries.dims();
        let device = side.positive.device();
        let similarity = side.similarity.clone().select(1, side.positive.clone()).transpose();
        let shape = [num_queries, num_queries];
        let row = side.positive.clone().unsqueeze_dim::<2>(1).expand(shape);
        let column = side.positive.clone().unsqueeze_dim::<2>(0).expand(shape);
        let own = Tensor::<1, Int>::arange(0..num_queries as i64, &device);
        self.mask(similarity, queries, own, row.not_equal(column))
    }

    fn mask(
        &self,
        similarity: Tensor<2>,
        candidates: Tensor<2>,
        positive: Tensor<1, Int>,
        possible: Tensor<2, Bool>,
    ) -> Side {
        let negatives = match self.config.delta {
            Some(delta) => {
                let false_ones = false_negatives_of_unit_rows(candidates, positive.clone(), delta);
                possible.clone().bool_and(false_ones.bool_not())
            }
            None => possible.clone(),
        };
        Side { similarity, positive, possible, negatives }
    }

    fn one_direction(&self, side: &Side, targets: &Targets) -> Tensor<1> {
        let InfoNceConfig { alpha, differentiate_hardness, .. } = self.config;
        let log_weights =
            (alpha != 0.0).then(|| hardness_weights(side.similarity.clone(), alpha, differentiate_hardness));
        let temperature = self.temperatures().select(0, targets.task.clone().inner());
        info_nce(
            side.similarity.clone(),
            side.positive.clone(),
            side.negatives.clone(),
            log_weights,
            temperature,
        )
    }
}

/// One direction of the comparison: who may be told from whom.
pub(crate) struct Side {
    /// `[queries, candidates]`
    pub similarity: Tensor<2>,
    /// `[queries]`
    pub positive: Tensor<1, Int>,
    /// `[queries, candidates]`: the negatives before the false ones are taken out.
    pub possible: Tensor<2, Bool>,
    /// `[queries, candidates]`: the negatives.
    pub negatives: Tensor<2, Bool>,
}

impl Objective for InfoNce {
    /// # Panics
    /// If the shapes disagree.
    fn loss(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Loss {
        let [num_queries, dim] = queries.dims();
        assert_eq!(candidates.dims()[1], dim, "size of the candidates' rows");
        assert_eq!(targets.positive.dims(), [num_queries], "positives of {num_queries} queries");
        assert_eq!(targets.task.dims(), [num_queries], "tasks of {num_queries} queries");

        let queries = unit_rows(queries);
        let side = self.side(queries.clone(), unit_rows(candidates), targets);
        let mut value = self.one_direction(&side, targets).mean();
        if self.config.symmetric {
            let back = self.one_direction(&self.reversed_side(&side, queries), targets).mean();
            value = (value + back).mul_scalar(0.5);
        }
        Loss { value, stats: self.stats(&side) }
    }
}

impl InfoNce {
    fn stats(&self, side: &Side) -> Vec<(String, Tensor<1>)> {
        let Stats { masked, mean_weight, accuracy } = Stats::of(side, self.config.alpha);
        let mut stats = vec![
            ("masked".into(), masked),
            ("mean_weight".into(), mean_weight),
            ("accuracy".into(), accuracy),
        ];
        let temperatures = self.temperatures().inner();
        for (at, task) in self.config.tasks.iter().enumerate() {
            stats.push((format!("tau.{task}"), temperatures.clone().narrow(0, at, 1)));
        }
        stats
    }
}
