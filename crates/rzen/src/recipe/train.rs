//! The key `train` of a stage.

use anyhow::{Result, bail, ensure};
use rzen_model::{AdapterConfig, all_linear};
use serde::{Deserialize, Serialize};

/// What a stage trains.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Train {
    /// Every weight. (Without the braces serde would accept any key here.)
    Full {},
    /// A new adapter.
    Lora(AdapterConfig),
}

impl Train {
    pub(super) fn full() -> Self {
        Train::Full {}
    }

    pub(super) fn check(&self) -> Result<()> {
        let Train::Lora(AdapterConfig { rank, alpha, targets, .. }) = self else { return Ok(()) };
        ensure!(*rank >= 1, "`train.rank` is 0, expected 1 or more");
        ensure!(alpha.is_finite() && *alpha > 0.0, "`train.alpha` is {alpha}, expected a number above 0");
        ensure!(!targets.is_empty(), "`train.targets` is empty; leave it out for all linear layers");
        let known = all_linear();
        let ends = |name: &str, end: &str| {
            name.strip_suffix(end).is_some_and(|head| head.is_empty() || head.ends_with('.'))
        };
        let wrong = targets.iter().find(|target| {
            target.is_empty() || !known.iter().any(|known| ends(target, known) || ends(known, target))
        });
        match wrong {
            Some(target) => bail!(
                "`train.targets` names `{target}`, which is no linear layer; they are called {}",
                known.join(", ")
            ),
            None => Ok(()),
        }
    }
}
