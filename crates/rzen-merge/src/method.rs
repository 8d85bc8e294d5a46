//! The ways to join adapters.

use crate::MergeError;

/// How several adapters become one.
///
/// With the scaling `s_n` of adapter `n`, its update of a weight is `s_n B_n A_n`, and the soup that
/// one wants is `Σ w_n s_n B_n A_n`. Only the first two give it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// The weighted sum itself: factors side by side, the ranks add up (`cat` of `peft`).
    Exact,
    /// The nearest update of a lower rank, by singular values (`svd` of `peft`).
    Svd {
        /// The rank; `None` takes the largest of the ingredients. Never more than the sum of their ranks.
        rank: Option<usize>,
    },
    /// `A` and `B` averaged on their own. Not the average of the updates; ranks and scalings must agree.
    MeanAb,
    /// `Σ √(w_n s_n) A_n`, and so for `B` (`linear` of `peft`). Ranks must agree.
    Linear,
    /// `linear` over the largest entries that agree with the majority's sign (`ties` of `peft`).
    Ties {
        /// The share of the entries that is kept, above 0 and up to 1.
        density: f64,
    },
    /// `linear` over the largest entries of each factor (`magnitude_prune` of `peft`).
    MagnitudePrune {
        /// The share of the entries that is kept, above 0 and up to 1.
        density: f64,
    },
    /// `linear` over random entries, scaled up for those dropped (`dare_linear` of `peft`).
    DareLinear {
        /// The chance of an entry to be kept, above 0 and up to 1.
        density: f64,
        /// Decides which are kept.
        seed: u64,
    },
}

impl Method {
    /// Whether a module that an ingredient lacks counts as an update of zero.
    pub(crate) fn takes_missing_modules(self) -> bool {
        matches!(self, Method::Exact | Method::Svd { .. })
    }

    pub(crate) fn check(self) -> Result<(), MergeError> {
        match self {
            Method::Svd { rank: Some(0) } => {
                Err(MergeError::Recipe("the rank of the soup is 0, expected at least 1".into()))
            }
            Method::Ties { density }
            | Method::MagnitudePrune { density }
            | Method::DareLinear { density, .. }
                if !(density > 0.0 && density <= 1.0) =>
            {
                Err(MergeError::Recipe(format!(
                    "the density of the soup is {density}, expected more than 0 and at most 1"
                )))
            }
            _ => Ok(()),
        }
    }
}
