//! The ways to join adapters.

use serde::{Deserialize, Serialize};

use crate::MergeError;
use crate::fit::check_weights;

/// How several adapters become one.
///
/// With the scaling `s_n` of adapter `n`, its update of a weight is `ΔW_n = s_n B_n A_n`, and the soup that
/// one wants is `Σ w_n ΔW_n`. The first four work on these updates, module by module, and take adapters of
/// different ranks, scalings and modules; the others work on `A` and on `B`, as `peft` does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// The weighted sum itself (`cat` and `svd` of `peft`).
    Exact,
    /// The way from one update to the other along the sphere: the direction turns by the share of the second weight, the
    /// length goes from the one to the other in a straight line, and the weights' sum multiplies both. Exactly two
    /// adapters, no negative weight. Updates of the same direction or nearly opposite ones, and a zero beside another, are
    /// added as [`Method::Exact`] does.
    Slerp,
    /// Of each update its largest entries, of each entry the sign with more weight behind it, of those that agree the
    /// weighted mean, times the sum of all weights ([TIES](https://arxiv.org/abs/2306.01708)). No negative weight.
    Ties {
        /// The share of the entries that is kept, above 0 and up to 1.
        density: f64,
    },
    /// The weighted sum over random entries, scaled up for those dropped ([DARE](https://arxiv.org/abs/2311.03099)). What
    /// is dropped depends on the seed, the module and the adapter's weights.
    Dare {
        /// The chance of an entry to be kept, above 0 and up to 1.
        density: f64,
        /// Decides which are kept.
        seed: u64,
    },
    /// `A` and `B` averaged on their own. Not the average of the updates; ranks and scalings must agree.
    MeanAb,
    /// `Σ √(w_n s_n) A_n`, and so for `B` (`linear` of `peft`). Ranks must agree.
    PeftLinear,
    /// `linear` over the largest entries that agree with the majority's sign (`ties` of `peft`).
    PeftTies {
        /// The share of the entries that is kept, above 0 and up to 1.
        density: f64,
    },
    /// `linear` over the largest entries of each factor (`magnitude_prune` of `peft`).
    PeftMagnitudePrune {
        /// The share of the entries that is kept, above 0 and up to 1.
        density: f64,
    },
    /// `linear` over random entries, scaled up for those dropped (`dare_linear` of `peft`).
    PeftDareLinear {
        /// The chance of an entry to be kept, above 0 and up to 1.
        density: f64,
        /// Decides which are kept.
        seed: u64,
    },
}

/// What of a method's updates goes into the factors of an adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// All of it. [`Method::Ties`] and [`Method::Dare`] leave no low rank: they can be added to a base so, and become no
    /// adapter.
    #[default]
    Nothing,
    /// The nearest update of this rank, by singular values. Never more than the sum of the ingredients' ranks, but for
    /// [`Method::Ties`] and [`Method::Dare`].
    Rank(usize),
    /// The nearest update of the largest rank among the ingredients.
    LargestRank,
    /// The nearest update of the least rank, one for all modules, that keeps this share of the energy (the squared
    /// singular values of all modules).
    Energy(f64),
}

impl Method {
    /// Whether it works on updates rather than on their factors.
    pub(crate) fn joins_updates(self) -> bool {
        matches!(self, Method::Exact | Method::Slerp) || self.is_dense()
    }

    /// Whether an update of full rank comes out.
    pub(crate) fn is_dense(self) -> bool {
        matches!(self, Method::Ties { .. } | Method::Dare { .. })
    }

    /// Whether it multiplies factors with the root of a weight.
    pub(crate) fn takes_roots(self) -> bool {
        !self.joins_updates() && self != Method::MeanAb
    }

    /// Refuses weights that it has no use for, whatever the adapters are.
    pub(crate) fn check_weights(self, weights: &[f64]) -> Result<(), MergeError> {
        check_weights(weights)?;
        let refuse = |problem: String| Err(MergeError::Recipe(problem));
        let least = weights.iter().copied().fold(f64::INFINITY, f64::min);
        let goes_along_or_votes = matches!(self, Method::Slerp | Method::Ties { .. });
        if least < 0.0 && goes_along_or_votes {
            return refuse(format!(
                "a weight is {least}, and neither an arc nor a vote goes below 0; take the exact or the dare soup for \
                 negative weights"
            ));
        }
        if least < 0.0 && self.takes_roots() {
            return refuse(format!(
                "a weight is {least}, whose root this method needs; take the exact soup for negative weights"
            ));
        }
        match (self, weights.len()) {
            (Method::Slerp, count) if count != 2 => {
                refuse(format!("slerp goes from one adapter to another, and {count} are given; name two"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check(self, cut: Cut) -> Result<(), MergeError> {
        let refuse = |problem: String| Err(MergeError::Recipe(problem));
        match self {
            Method::Ties { density }
            | Method::Dare { density, .. }
            | Method::PeftTies { density }
            | Method::PeftMagnitudePrune { density }
            | Method::PeftDareLinear { density, .. }
                if !(density > 0.0 && density <= 1.0) =>
            {
                return refuse(format!(
                    "the density of the soup is {density}, expected more than 0 and at most 1"
                ));
            }
            _ => {}
        }
        match cut {
            Cut::Nothing => Ok(()),
            _ if !self.joins_updates() => refuse(
                "a soup of factors has the rank of its ingredients; only exact, slerp, ties and dare soups are cut".into(),
            ),
            Cut::Rank(0) => refuse("the rank of the soup is 0, expected at least 1".into()),
            Cut::Energy(_) if self.is_dense() => refuse(
                "the energy of a ties or dare soup is spread over all singular values, too many to be computed; give a \
                 rank, and the report says what it keeps"
                    .into(),
            ),
            Cut::Energy(share) if !(share > 0.0 && share <= 1.0) => refuse(format!(
                "the energy to keep is {share}, expected more than 0 and at most 1"
            )),
            _ => Ok(()),
        }
    }
}
