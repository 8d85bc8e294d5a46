//! How a stage trains.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// How a stage trains: a table of the recipe. Every key has a default; unknown keys are refused.
///
/// ```
/// use rzen_train::{Schedule, StageConfig, Warmup};
/// let config: StageConfig = toml::from_str("steps = 300\nlearning_rate = 2e-4\nwarmup = 0.1").unwrap();
/// assert_eq!(config.warmup, Warmup::Share(0.1));
/// assert_eq!(config.schedule, Schedule::Cosine);
/// assert!(toml::from_str::<StageConfig>("learning_rat = 1.0").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageConfig {
    /// Optimizer steps in the stage.
    pub steps: usize,
    /// The peak learning rate of the encoder.
    pub learning_rate: f64,
    /// The peak learning rate of the objective's parameters (the logarithms of the temperatures);
    /// it follows the same schedule. 0 holds them still.
    pub temperature_learning_rate: f64,
    /// Decoupled weight decay of the encoder's matrices, see [`Optimizer`](crate::Optimizer).
    pub weight_decay: f64,
    /// AdamW's decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Gradients are scaled down to this global norm, counted over all parameters; 0 switches it off.
    pub max_grad_norm: f64,
    /// How long the learning rate rises.
    pub warmup: Warmup,
    /// How it falls after that.
    pub schedule: Schedule,
    /// The share of the peak that `linear` and `cosine` end at.
    pub final_learning_rate_ratio: f64,
    /// Embed the batch without a graph first and again with one, micro-batch by micro-batch: memory
    /// for one micro-batch (of each thread), a quarter to a third more time. When false, the graphs
    /// of the whole batch are kept. The gradients are the same.
    pub recompute: bool,
    /// What is kept of a micro-batch until its gradient is known. The gradients are the same.
    pub checkpointing: Checkpointing,
    /// Micro-batches computed side by side; the result does not depend on it.
    pub threads: usize,
    /// Steps between checkpoints; 0 writes one at the end alone.
    pub checkpoint_every: usize,
    /// Minutes without a checkpoint after which a step writes one; 0 writes none for that reason.
    pub checkpoint_minutes: f64,
    /// Checkpoints kept, the newest; 0 keeps all.
    pub keep_last: usize,
    /// Keep the checkpoint of the lowest training loss too (over the last 100 steps or so, see
    /// [`State::smoothed_loss`](crate::State::smoothed_loss)). It is there for the run that went astray and saved its
    /// newest checkpoints after that; it says nothing of unseen data.
    pub keep_best: bool,
    /// Steps between two lines of `metrics.jsonl`.
    pub log_every: usize,
}

impl Default for StageConfig {
    fn default() -> Self {
        StageConfig {
            steps: 1000,
            learning_rate: 1e-4,
            temperature_learning_rate: 1e-3,
            weight_decay: 0.01,
            betas: [0.9, 0.999],
            eps: 1e-8,
            max_grad_norm: 1.0,
            warmup: Warmup::Share(0.05),
            schedule: Schedule::Cosine,
            final_learning_rate_ratio: 0.1,
            recompute: true,
            checkpointing: Checkpointing::None,
            threads: 1,
            checkpoint_every: 200,
            checkpoint_minutes: 30.0,
            keep_last: 2,
            keep_best: true,
            log_every: 1,
        }
    }
}

/// What is kept of a micro-batch between its forward and its backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpointing {
    /// Its whole graph: least time.
    None,
    /// What each block was given. Blocks are computed again, one at a time, when the gradient comes back to them: the
    /// graph of one block at most is in memory, however many there are. One more forward pass.
    Blocks,
}

/// The shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays at the peak.
    Constant,
    /// Falls on a straight line.
    Linear,
    /// Falls on half a cosine.
    Cosine,
}

/// The length of the warm-up: `100` are steps, `0.05` is a share of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Warmup {
    /// A number of steps.
    Steps(usize),
    /// A share of the stage's steps, from 0 to 1.
    Share(f64),
}

impl StageConfig {
    /// The settings that must not change between stop and resume; the others are at their defaults.
    ///
    /// Those don't change what is computed (`recompute` and `checkpointing` do in the last bits; a run that no
    /// longer fits in memory needs them).
    pub fn identity(&self) -> StageConfig {
        let free = StageConfig::default();
        StageConfig {
            recompute: free.recompute,
            checkpointing: free.checkpointing,
            threads: free.threads,
            checkpoint_every: free.checkpoint_every,
            checkpoint_minutes: free.checkpoint_minutes,
            keep_last: free.keep_last,
            keep_best: free.keep_best,
            log_every: free.log_every,
            ..self.clone()
        }
    }

    /// Checks that every value can be trained with.
    ///
    /// # Errors
    /// [`TrainError::Config`] names the first key out of its range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let warmup = match self.warmup {
            Warmup::Steps(_) => 0.0,
            Warmup::Share(share) => share,
        };
        let checks = [
            ("steps", self.steps as f64, self.steps > 0, "at least 1"),
            ("learning_rate", self.learning_rate, not_negative(self.learning_rate), "0 or more"),
            (
                "temperature_learning_rate",
                self.temperature_learning_rate,
                not_negative(self.temperature_learning_rate),
                "0 or more",
            ),
            ("weight_decay", self.weight_decay, not_negative(self.weight_decay), "0 or more"),
            ("betas[0]", self.betas[0], share(self.betas[0]) && self.betas[0] < 1.0, "in 0..1"),
            ("betas[1]", self.betas[1], share(self.betas[1]) && self.betas[1] < 1.0, "in 0..1"),
            ("eps", self.eps, positive(self.eps), "above 0"),
            ("max_grad_norm", self.max_grad_norm, not_negative(self.max_grad_norm), "0 (off) or more"),
            ("warmup", warmup, share(warmup), "a number of steps or a share in 0..=1"),
            (
                "final_learning_rate_ratio",
                self.final_learning_rate_ratio,
                share(self.final_learning_rate_ratio),
                "in 0..=1",
            ),
            ("threads", self.threads as f64, self.threads > 0, "at least 1"),
            (
                "checkpoint_minutes",
                self.checkpoint_minutes,
                not_negative(self.checkpoint_minutes),
                "0 (off) or more",
            ),
            ("log_every", self.log_every as f64, self.log_every > 0, "at least 1"),
        ];
        match checks.into_iter().find(|(_, _, valid, _)| !valid) {
            Some((key, found, _, expected)) => Err(TrainError::Config { key, found, expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        assert!(StageConfig::default().validate().is_ok());
        let check = |toml: &str, key: &str| {
            let error = toml::from_str::<StageConfig>(toml).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        };
        check("steps = 0", "steps");
        check("betas = [0.9, 1.0]", "betas[1]");
        check("warmup = 1.5", "warmup");
        check("eps = 0.0", "eps");
        check("learning_rate = nan", "learning_rate");
        check("threads = 0", "threads");
        check("checkpoint_minutes = -1.0", "checkpoint_minutes");
    }

    #[test]
    fn a_config_survives_toml() {
        let config = StageConfig { warmup: Warmup::Steps(7), ..StageConfig::default() };
        assert_eq!(toml::from_str::<StageConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}
