//! The key `objective` of a stage.

use rzen_loss::InfoNceConfig;
use serde::{Deserialize, Serialize};

/// The criterion of a stage (paper §3.3); see [`InfoNceConfig`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    alpha: f64,
    delta: Option<f64>,
    differentiate_hardness: bool,
    symmetric: bool,
    initial_temperature: f64,
    learn_temperature: bool,
    temperature_min: Option<f64>,
    temperature_max: Option<f64>,
}

impl Default for Objective {
    fn default() -> Self {
        let config = InfoNceConfig::default();
        Objective {
            alpha: config.alpha,
            delta: config.delta,
            differentiate_hardness: config.differentiate_hardness,
            symmetric: config.symmetric,
            initial_temperature: config.initial_temperature,
            learn_temperature: config.learn_temperature,
            temperature_min: config.temperature_min,
            temperature_max: config.temperature_max,
        }
    }
}

impl Objective {
    /// The settings with a temperature for each of `tasks`.
    pub fn config(&self, tasks: Vec<String>) -> InfoNceConfig {
        InfoNceConfig {
            alpha: self.alpha,
            // TOML has no null: a delta of 2 or more masks nothing, cosines end at 1.
            delta: self.delta.filter(|delta| *delta < 2.0),
            differentiate_hardness: self.differentiate_hardness,
            symmetric: self.symmetric,
            tasks,
            initial_temperature: self.initial_temperature,
            learn_temperature: self.learn_temperature,
            temperature_min: self.temperature_min,
            temperature_max: self.temperature_max,
        }
    }
}
