//! What a soup says of itself: the configuration of its adapter, and its record.

use rayon::prelude::*;

use crate::hash::hex;
use crate::join::{Tally, low_rank_terms};
use crate::record::{BaseCheck, BaseUse, IngredientRecord, Kind, LoraRecord, SoupRecord};
use crate::spectrum::Sum;
use crate::{AdapterConfig, Checkpoint, Cut, MergeError, Method, Soup};

impl Soup {
    /// What the adapter that comes out says of itself.
    pub(super) fn result_config(&self) -> Result<AdapterConfig, MergeError> {
        let ranks = self.adapters.iter().map(|adapter| adapter.config().r);
        let first = self.adapters[0].config();
        let (all, largest) = (ranks.clone().sum::<usize>(), ranks.max().expect("there is an ingredient"));
        // Everything that was a factor goes into A and B, so that the scaling is 1.
        let unscaled = |r: usize| first.with_rank(r, r as f64, false);
        Ok(match (self.settings.method, self.settings.cut) {
            (Method::MeanAb, _) => first.clone(),
            (method, _) if !method.joins_updates() => unscaled(first.r),
            (_, Cut::Nothing) => unscaled(all),
            (_, Cut::LargestRank) => unscaled(largest),
            (_, Cut::Energy(share)) => unscaled(self.rank_for(share)?),
            (method, Cut::Rank(rank)) if method.is_dense() => {
                // No update has more directions than its smaller side.
                let most = self.modules.values().map(|[out, input]| *out.min(input)).max();
                unscaled(rank.min(most.unwrap_or(rank)))
            }
            (_, Cut::Rank(rank)) => unscaled(rank.min(all)),
        })
    }

    /// The least rank that keeps this share of the squared singular values of all modules.
    fn rank_for(&self, share: f64) -> Result<usize, MergeError> {
        let names: Vec<&String> = self.modules.keys().collect();
        let mut by_place: Vec<f64> = Vec::new();
        for some in names.chunks(self.side_by_side()) {
            let sums = some.par_iter().map(|name| {
                let portions = self.portions(name)?;
                let (wanted, _) = low_rank_terms(self.settings.method, self.total(), &portions);
                Ok(Sum::new(&wanted).values().to_vec())
            });
            for values in sums.collect::<Result<Vec<_>, MergeError>>()? {
                by_place.resize(by_place.len().max(values.len()), 0.0);
                by_place.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * value);
            }
        }
        let needed = share * by_place.iter().sum::<f64>();
        let mut kept = 0.0;
        for (place, energy) in by_place.iter().enumerate() {
            kept += energy;
            // To all digits that sums in f64 have.
            if kept >= needed * (1.0 - 1e-12) {
                return Ok(place + 1);
            }
        }
        Ok(by_place.len().max(1))
    }

    pub(super) fn record(
        &self,
        output: Kind,
        tally: Tally,
        base: Option<(&Checkpoint, BaseCheck)>,
    ) -> SoupRecord {
        let ingredients = self.ingredients.iter().zip(&self.adapters).zip(&self.hashes);
        let ingredients = ingredients.map(|((one, adapter), hash)| IngredientRecord {
            path: one.path.display().to_string(),
            weight: one.weight,
            sha256: hex(hash),
            lora: Some(LoraRecord {
                rank: adapter.config().r,
                alpha: adapter.config().lora_alpha,
                rslora: adapter.config().use_rslora,
                base_sha256: adapter.base().map(|base| base.weights_sha256.clone()),
            }),
        });
        let base = match base {
            Some((base, checked_by)) => BaseUse {
                path: Some(base.folder().display().to_string()),
                sha256: Some(base.sha256().to_owned()),
                checked_by,
            },
            None => BaseUse {
                path: None,
                sha256: self.companions().base.map(|base| base.weights_sha256),
                checked_by: self.base_check,
            },
        };
        SoupRecord {
            format: 1,
            of: Kind::Adapter,
            output,
            method: self.settings.method,
            cut: self.settings.cut,
            rank: (!self.adds_full_rank()).then_some(self.config.r),
            ingredients: ingredients.collect(),
            base: Some(base),
            relative_error: tally.relative_error(),
            rounding_error: tally.rounding_error(),
            kept_energy: tally.kept_energy(),
            notes: tally.notes(),
            modules: tally.modules,
            search: None,
            scores: None,
        }
    }
}
