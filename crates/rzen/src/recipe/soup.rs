//! The table `[soup]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What is made of the stages' adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soup {
    /// The stages whose adapters are combined; they start from the same stage.
    pub ingredients: Vec<String>,
    /// A weight for each; default equal shares.
    pub weights: Option<Vec<f64>>,
    /// How.
    #[serde(default)]
    pub method: SoupMethod,
    /// The rank that `svd` cuts to.
    pub rank: Option<usize>,
}

/// How adapters are combined; see `rzen soup --help`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoupMethod {
    /// The weighted sum of the updates; ranks add up.
    #[default]
    Exact,
    /// That sum, cut back to `rank`.
    Svd,
    /// The mean of the factors, which is not the mean of the updates.
    MeanAb,
    /// PEFT's `linear`.
    Linear,
    /// TIES.
    Ties,
    /// Magnitude pruning.
    MagnitudePrune,
}

impl SoupMethod {
    /// The name that `rzen soup --method` takes.
    pub fn name(self) -> &'static str {
        match self {
            SoupMethod::Exact => "exact",
            SoupMethod::Svd => "svd",
            SoupMethod::MeanAb => "mean-ab",
            SoupMethod::Linear => "linear",
            SoupMethod::Ties => "ties",
            SoupMethod::MagnitudePrune => "magnitude-prune",
        }
    }
}

impl Soup {
    pub(super) fn check(&self) -> Result<()> {
        let count = self.ingredients.len();
        ensure!(count >= 2, "`ingredients` has {count} entries, expected two stages or more");
        if let Some(weights) = &self.weights {
            ensure!(
                weights.len() == count,
                "`weights` has {} entries for {count} ingredients; give one for each",
                weights.len()
            );
            let wrong = weights.iter().find(|weight| !weight.is_finite());
            ensure!(wrong.is_none(), "`weights` holds {}, expected numbers", wrong.unwrap_or(&0.0));
        }
        ensure!(self.rank != Some(0), "`rank` is 0, expected 1 or more");
        let cuts = self.method == SoupMethod::Svd || self.rank.is_none();
        ensure!(cuts, "`rank` is for `method = \"svd\"`, and the method is {}", self.method.name());
        Ok(())
    }
}
