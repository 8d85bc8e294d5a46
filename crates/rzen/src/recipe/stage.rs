//! The tables `[[stage]]`.

use anyhow::{Context, Result, bail, ensure};
use rzen_train::{Checkpointing, StageConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::{DatasetRow, Objective, Train};

/// One stage of training.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Names its folder and its column in the results.
    pub name: String,
    /// The stage to start from; the first starts from `model`, others by default from the one before.
    pub from: Option<String>,
    /// What trains.
    #[serde(default = "Train::full")]
    pub train: Train,
    /// Queries in a batch.
    pub batch_size: usize,
    /// Items in a micro-batch, at most.
    pub micro_batch_size: usize,
    /// Tokens in a micro-batch, padding included, at most, where it holds more than one item: long pictures and short
    /// texts share a recipe. Default without limit.
    pub micro_batch_tokens: Option<usize>,
    /// Passes over the data; the number of steps follows.
    pub epochs: f64,
    /// Whether queries carry their instruction.
    #[serde(default = "yes")]
    pub instructions: bool,
    /// Hard negatives of its own that a row may bring, at most.
    #[serde(default)]
    pub hard_negatives: usize,
    /// Whether a row's hard negatives are negatives of the other rows of its batch as well.
    #[serde(default = "yes")]
    pub share_hard_negatives: bool,
    /// What is drawn from.
    pub datasets: Vec<DatasetRow>,
    /// The criterion.
    #[serde(default)]
    pub objective: Objective,
    /// Rates, schedule, memory. `steps` follows from `epochs`; the key is refused.
    #[serde(default, serialize_with = "write_training", deserialize_with = "read_training")]
    pub training: StageConfig,
}

fn read_training<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StageConfig, D::Error> {
    let table = toml::Table::deserialize(deserializer)?;
    if table.contains_key("steps") {
        return Err(de::Error::custom("`training.steps` follows from `epochs` and the data; set `epochs`"));
    }
    table.try_into().map_err(de::Error::custom)
}

fn write_training<S: Serializer>(training: &StageConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let mut table = toml::Table::try_from(training).map_err(ser::Error::custom)?;
    table.remove("steps");
    table.serialize(serializer)
}

fn yes() -> bool {
    true
}

impl Stage {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.batch_size >= 2, "`batch_size` is {}, expected 2 or more", self.batch_size);
        ensure!(self.micro_batch_size >= 1, "`micro_batch_size` is 0, expected 1 or more");
        ensure!(self.micro_batch_tokens != Some(0), "`micro_batch_tokens` is 0, expected 1 or more");
        ensure!(
            self.epochs.is_finite() && self.epochs > 0.0,
            "`epochs` is {}, expected a number above 0",
            self.epochs
        );
        ensure!(!self.datasets.is_empty(), "there are no `datasets`");
        for row in &self.datasets {
            row.check().map_err(|problem| anyhow::anyhow!("dataset `{}`: {problem}", row.dataset))?;
        }
        let shares: Vec<f64> = self.datasets.iter().filter_map(|row| row.share).collect();
        if let Some(without) = self.datasets.iter().find(|row| row.share.is_none() && !shares.is_empty()) {
            bail!("dataset `{}` has no `share` and others have; give one to all of them", without.dataset);
        }
        ensure!(
            shares.is_empty() || shares.iter().any(|share| *share > 0.0),
            "no dataset has a `share` above 0"
        );
        self.train.check()?;
        self.objective.config(vec!["task".to_owned()]).validate().context("`objective`")?;
        self.training.validate().context("`training`")
    }
}

impl Stage {
    /// Whether the stage can train on a base of bf16.
    pub(super) fn check_narrow(&self) -> Result<()> {
        ensure!(
            matches!(self.train, Train::Lora(_)),
            "it trains every weight, and steps smaller than bf16 can hold would be lost; leave `model.dtype` out"
        );
        ensure!(
            self.training.checkpointing == Checkpointing::Blocks,
            "`model.dtype = \"bf16\"` needs `checkpointing = \"blocks\"` under [stage.training]"
        );
        Ok(())
    }
}

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
