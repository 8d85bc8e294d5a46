//! The objective: the pure functions, their settings and the temperatures.

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor};
use rzen_core::{Loss, Objective, Targets};

use crate::negatives::{false_negatives_of_unit_rows, without};
use crate::similarity::unit_rows;
use crate::stats::Stats;
use crate::{InfoNceConfig, hardness_weights, info_nce, possible_negatives};

/// InfoNCE with hardness weights, a false-negative mask and a temperature per task.
///
/// Built by [`InfoNceConfig::init`]. The parameter `theta` holds the logarithms of the
/// temperatures; train it without weight decay. At the ends of the range of
/// [`temperature_min`](InfoNceConfig::temperature_min) and
/// [`temperature_max`](InfoNceConfig::temperature_max), theta gets the gradient that leads back into
/// the range and none that leads out of it; where an optimizer's momentum carries it past an end, the
/// loss takes the end.
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

    /// [`temperatures`](Self::temperatures) without the part of the gradient of `value` that leads out
    /// of the range. Which part that is, a backward pass through `value` alone says.
    fn temperatures_kept_inside(&self, value: impl Fn(Tensor<1>) -> Tensor<1>) -> Tensor<1> {
        let theta = self.theta.val().cast(FloatDType::F32);
        if !self.config.is_bounded() || !theta.is_tracked() {
            return self.temperatures();
        }
        let (low, high) = self.config.theta_range();
        let here = theta.clone().inner();
        let clamped = here.clone().clamp(low, high);
        let probe = clamped.clone().autodiff().require_grad();
        let gradient = probe.grad(&value(probe.clone().exp()).backward());
        let gradient = gradient.unwrap_or_else(|| clamped.zeros_like());
        // A step goes against the gradient.
        let below = here.clone().lower_equal_elem(low).bool_and(gradient.clone().greater_elem(0.0));
        let above = here.greater_equal_elem(high).bool_and(gradient.lower_elem(0.0));
        let stays = below.bool_or(above).bool_not().float();
        let moves = (theta.clone() - theta.inner()) * Tensor::from_inner(stays);
        (Tensor::from_inner(clamped) + moves).exp()
    }

    /// `[queries]`: the loss of each query, in the direction query → candidate.
    ///
    /// [`Objective::loss`] takes the mean of this, or of both directions.
    pub fn per_query(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Tensor<1> {
        let side = self.side(unit_rows(queries), unit_rows(candidates), targets);
        self.one_direction(&side, targets, self.temperatures())
    }

    pub(crate) fn theta_device(&self) -> Device {
        self.theta.val().device()
    }

    fn side(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Side {
        let [num_candidates, _] = candidates.dims();
        let positive = targets.positive.clone().inner();
        let (owner, exempt) = (targets.owner.clone(), targets.exempt.clone());
        let possible = possible_negatives(positive.clone(), owner, exempt, num_candidates);
        let similarity = queries.matmul(candidates.clone().transpose());
        self.mask(similarity, candidates, positive, possible)
    }

    /// Positives look for their queries; `side` is the other direction.
    ///
    /// A query with the same positive is no negative here, nor one that the positive is exempt from.
    fn reversed_side(&self, side: &Side, queries: Tensor<2>, exempt: Option<Tensor<2, Bool>>) -> Side {
        let [num_queries, _] = queries.dims();
        let device = side.positive.device();
        let similarity = side.similarity.clone().select(1, side.positive.clone()).transpose();
        let shape = [num_queries, num_queries];
        let row = side.positive.clone().unsqueeze_dim::<2>(1).expand(shape);
        let column = side.positive.clone().unsqueeze_dim::<2>(0).expand(shape);
        let own = Tensor::<1, Int>::arange(0..num_queries as i64, &device);
        let exempt = exempt.map(|exempt| exempt.inner().select(1, side.positive.clone()).transpose());
        self.mask(similarity, queries, own, without(row.not_equal(column), exempt))
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

    /// The mean of one direction, or of both.
    fn value(&self, sides: &[Side], targets: &Targets, temperatures: Tensor<1>) -> Tensor<1> {
        let means = sides.iter().map(|side| self.one_direction(side, targets, temperatures.clone()).mean());
        let sum = means.reduce(|sum, mean| sum + mean).expect("a loss has a direction");
        if sides.len() == 1 { sum } else { sum.div_scalar(sides.len() as f64) }
    }

    fn one_direction(&self, side: &Side, targets: &Targets, temperatures: Tensor<1>) -> Tensor<1> {
        let InfoNceConfig { alpha, differentiate_hardness, .. } = self.config;
        let log_weights =
            (alpha != 0.0).then(|| hardness_weights(side.similarity.clone(), alpha, differentiate_hardness));
        let temperature = temperatures.select(0, targets.task.clone().inner());
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
#[derive(Clone)]
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

impl Side {
    /// The same comparison, as constants.
    fn without_gradient(&self) -> Self {
        Side { similarity: self.similarity.clone().detach(), ..self.clone() }
    }
}

impl Objective for InfoNce {
    /// # Panics
    /// If the shapes disagree.
    fn loss(&self, queries: Tensor<2>, candidates: Tensor<2>, targets: &Targets) -> Loss {
        let [num_queries, dim] = queries.dims();
        assert_eq!(candidates.dims()[1], dim, "size of the candidates' rows");
        assert_eq!(targets.positive.dims(), [num_queries], "positives of {num_queries} queries");
        assert_eq!(targets.task.dims(), [num_queries], "tasks of {num_queries} queries");
        if let Some(exempt) = &targets.exempt {
            assert_eq!(exempt.dims(), [num_queries, candidates.dims()[0]], "exempt candidates of each query");
        }

        let queries = unit_rows(queries);
        let side = self.side(queries.clone(), unit_rows(candidates), targets);
        let stats = self.stats(&side);
        let back = self.config.symmetric.then(|| self.reversed_side(&side, queries, targets.exempt.clone()));
        let sides: Vec<Side> = [Some(side), back].into_iter().flatten().collect();
        let temperatures = self.temperatures_kept_inside(|temperatures| {
            let constants: Vec<Side> = sides.iter().map(Side::without_gradient).collect();
            self.value(&constants, targets, temperatures)
        });
        Loss { value: self.value(&sides, targets, temperatures), stats }
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
