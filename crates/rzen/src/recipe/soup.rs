//! The table `[soup]`.

use anyhow::{Result, ensure};
use rzen_merge::SoupSettings;
use serde::{Deserialize, Serialize};

use crate::soup::{SoupChoice, SoupMethod};

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
    /// The rank that `svd`, `slerp`, `ties` and `dare` are cut to.
    pub rank: Option<usize>,
    /// The share of the squared singular values that `svd` and `slerp` keep, instead of a rank.
    pub energy: Option<f64>,
    /// Share of numbers that the pruning methods keep.
    pub density: Option<f64>,
    /// Decides which numbers the random methods keep.
    pub seed: Option<u64>,
}

impl Soup {
    /// How the adapters become one.
    ///
    /// # Errors
    /// Names the setting that the method does not have.
    pub fn settings(&self) -> Result<SoupSettings> {
        let Soup { method, rank, energy, density, seed, .. } = *self;
        SoupChoice { method, rank, energy, density, seed }.settings(false)
    }

    pub(super) fn check(&self) -> Result<()> {
        let count = self.ingredients.len();
        ensure!(count >= 2, "`ingredients` has {count} entries, expected two stages or more");
        if let Some(weights) = &self.weights {
            ensure!(
                weights.len() == count,
                "`weights` has {} entries for {count} ingredients; give one for each",
                weights.len()
            );
        }
        let weights = self.weights.clone().unwrap_or_else(|| vec![1.0 / count as f64; count]);
        Ok(self.settings()?.check_weights(&weights)?)
    }
}
