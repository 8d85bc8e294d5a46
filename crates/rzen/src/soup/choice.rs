//! What a user says of a soup, and what it means.

use anyhow::{Result, bail, ensure};
use rzen_merge::{Cut, Method, SoupSettings};
use serde::{Deserialize, Serialize};

/// How adapters are combined; see `docs/souping.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SoupMethod {
    /// The weighted sum of the updates; ranks add up
    #[default]
    Exact,
    /// That sum, cut to a rank by singular values
    Svd,
    /// From one adapter to another along the sphere
    Slerp,
    /// The largest entries of the updates, by the sign with more weight behind it
    Ties,
    /// Random entries of the updates, scaled up for those dropped
    Dare,
    /// The mean of the factors, which is not the mean of the updates
    MeanAb,
    /// `linear` of peft, on the factors
    #[serde(alias = "linear")]
    #[value(alias = "linear")]
    PeftLinear,
    /// `ties` of peft, on the factors
    PeftTies,
    /// `magnitude_prune` of peft, on the factors
    #[serde(alias = "magnitude-prune")]
    #[value(alias = "magnitude-prune")]
    PeftMagnitudePrune,
    /// `dare_linear` of peft, on the factors
    PeftDareLinear,
}

impl SoupMethod {
    /// The name that `--method` and recipes take.
    pub fn name(self) -> &'static str {
        match self {
            SoupMethod::Exact => "exact",
            SoupMethod::Svd => "svd",
            SoupMethod::Slerp => "slerp",
            SoupMethod::Ties => "ties",
            SoupMethod::Dare => "dare",
            SoupMethod::MeanAb => "mean-ab",
            SoupMethod::PeftLinear => "peft-linear",
            SoupMethod::PeftTies => "peft-ties",
            SoupMethod::PeftMagnitudePrune => "peft-magnitude-prune",
            SoupMethod::PeftDareLinear => "peft-dare-linear",
        }
    }

    fn prunes(self) -> bool {
        use SoupMethod::{Dare, PeftDareLinear, PeftMagnitudePrune, PeftTies, Ties};
        matches!(self, Ties | Dare | PeftTies | PeftMagnitudePrune | PeftDareLinear)
    }

    fn draws(self) -> bool {
        matches!(self, SoupMethod::Dare | SoupMethod::PeftDareLinear)
    }
}

/// A method and its settings, as a recipe or the command line gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoupChoice {
    /// How.
    pub method: SoupMethod,
    /// The rank to cut to.
    pub rank: Option<usize>,
    /// The share of the squared singular values to keep.
    pub energy: Option<f64>,
    /// The share of numbers to keep.
    pub density: Option<f64>,
    /// Decides which are kept.
    pub seed: Option<u64>,
}

/// The share of numbers that are kept where none is given.
const DENSITY: f64 = 0.5;

impl SoupChoice {
    /// What is done with the adapters; `into_base`: whether updates of full rank have somewhere to go.
    ///
    /// # Errors
    /// Names the setting that the method does not have, or that is out of range.
    pub fn settings(&self, into_base: bool) -> Result<SoupSettings> {
        let (name, density, seed) =
            (self.method.name(), self.density.unwrap_or(DENSITY), self.seed.unwrap_or(0));
        ensure!(
            self.density.is_none() || self.method.prunes(),
            "density {density} is given, but soup method `{name}` keeps every number; leave it out, or take ties, dare, \
             peft-ties, peft-magnitude-prune or peft-dare-linear"
        );
        ensure!(
            self.seed.is_none() || self.method.draws(),
            "seed {seed} is given, but soup method `{name}` draws no random numbers; leave it out, or take dare or \
             peft-dare-linear"
        );
        let method = match self.method {
            SoupMethod::Exact | SoupMethod::Svd => Method::Exact,
            SoupMethod::Slerp => Method::Slerp,
            SoupMethod::Ties => Method::Ties { density },
            SoupMethod::Dare => Method::Dare { density, seed },
            SoupMethod::MeanAb => Method::MeanAb,
            SoupMethod::PeftLinear => Method::PeftLinear,
            SoupMethod::PeftTies => Method::PeftTies { density },
            SoupMethod::PeftMagnitudePrune => Method::PeftMagnitudePrune { density },
            SoupMethod::PeftDareLinear => Method::PeftDareLinear { density, seed },
        };
        let settings = SoupSettings { cut: self.cut(into_base)?, ..SoupSettings::new(method) };
        settings.check()?;
        Ok(settings)
    }

    fn cut(&self, into_base: bool) -> Result<Cut> {
        use SoupMethod::{Dare, Slerp, Svd, Ties};
        match (self.rank, self.energy) {
            (Some(_), Some(_)) => bail!("both a rank and an energy are given; the one decides the other"),
            (Some(rank), None) if !matches!(self.method, Svd | Slerp | Ties | Dare) => bail!(
                "rank {rank} is given, but soup method `{}` doesn't cut ranks; leave it out, or take svd, slerp, ties or dare",
                self.method.name()
            ),
            (None, Some(energy)) if !matches!(self.method, Svd | Slerp) => bail!(
                "energy {energy} is given, but soup method `{}` doesn't choose ranks by it; leave it out, or take svd or slerp",
                self.method.name()
            ),
            (Some(rank), None) => Ok(Cut::Rank(rank)),
            (None, Some(energy)) => Ok(Cut::Energy(energy)),
            (None, None) => Ok(match self.method {
                Svd => Cut::LargestRank,
                Ties | Dare if !into_base => Cut::LargestRank,
                _ => Cut::Nothing,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(method: SoupMethod) -> SoupChoice {
        SoupChoice { method, ..SoupChoice::default() }
    }

    #[test]
    fn defaults_of_methods() {
        let settings = |method, into_base| {
            let settings = choice(method).settings(into_base).unwrap();
            (settings.method, settings.cut)
        };
        assert_eq!(settings(SoupMethod::Exact, false), (Method::Exact, Cut::Nothing));
        assert_eq!(settings(SoupMethod::Svd, true), (Method::Exact, Cut::LargestRank));
        let ties = Method::Ties { density: 0.5 };
        assert_eq!(settings(SoupMethod::Ties, false), (ties, Cut::LargestRank));
        assert_eq!(settings(SoupMethod::Ties, true), (ties, Cut::Nothing));
    }

    #[test]
    fn settings_of_other_methods_are_refused() {
        let refused = |choice: SoupChoice| choice.settings(false).unwrap_err().to_string();
        let error = refused(SoupChoice { rank: Some(4), ..choice(SoupMethod::Exact) });
        assert!(error.contains("rank 4") && error.contains("`exact`") && error.contains("svd"), "{error}");
        let error = refused(SoupChoice { energy: Some(0.9), ..choice(SoupMethod::Ties) });
        assert!(error.contains("energy 0.9") && error.contains("`ties`"), "{error}");
        let error = refused(SoupChoice { density: Some(0.3), ..choice(SoupMethod::Slerp) });
        assert!(error.contains("density 0.3") && error.contains("`slerp`"), "{error}");
        let error = refused(SoupChoice { seed: Some(3), ..choice(SoupMethod::Ties) });
        assert!(error.contains("seed 3") && error.contains("dare"), "{error}");
        let both = SoupChoice { rank: Some(4), energy: Some(0.9), ..choice(SoupMethod::Svd) };
        assert!(refused(both).contains("both"));
    }

    #[test]
    fn names_are_those_of_recipes_and_of_the_command_line() {
        use clap::ValueEnum;
        for method in SoupMethod::value_variants() {
            let in_recipe = serde_json::to_value(method).unwrap();
            let on_the_line = method.to_possible_value().unwrap();
            assert_eq!((in_recipe.as_str().unwrap(), on_the_line.get_name()), (method.name(), method.name()));
        }
        for (old, new) in
            [("linear", SoupMethod::PeftLinear), ("magnitude-prune", SoupMethod::PeftMagnitudePrune)]
        {
            assert_eq!(SoupMethod::from_str(old, false).unwrap(), new);
            assert_eq!(serde_json::from_value::<SoupMethod>(old.into()).unwrap(), new);
        }
    }
}
