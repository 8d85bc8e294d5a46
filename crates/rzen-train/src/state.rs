//! What a checkpoint says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contrastive::Trained;
use crate::{RunFolder, StageConfig};

/// The layout of a checkpoint that this version writes.
pub(crate) const FORMAT: u32 = 1;

/// `state.json`, written last: a checkpoint without it is not complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The version of the layout.
    pub format: u32,
    /// The stage's name.
    pub stage: String,
    /// Steps finished.
    pub step: usize,
    /// The loss of the last 100 steps or so, by which `keep_best` judges; none before the first.
    #[serde(default)]
    pub smoothed_loss: Option<f32>,
    /// The seed of the data order.
    pub seed: u64,
    /// How the stage trains.
    pub config: StageConfig,
    /// The run's own settings, see [`RunFolder::settings`].
    pub settings: Value,
    /// The parameters that train, by path.
    pub parameters: BTreeMap<String, ParameterKey>,
    /// Tensors in `optimizer.bpk`.
    pub optimizer_tensors: usize,
    /// Every other file of the checkpoint with its size in bytes; `/` between folders.
    pub files: BTreeMap<String, u64>,
    /// Their CRC-32C; none in checkpoints of before there were sums.
    #[serde(default)]
    pub sums: BTreeMap<String, u32>,
}

/// How the optimizer's state finds a parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterKey {
    /// The parameter's id.
    pub id: u64,
    /// Its shape.
    pub shape: Vec<usize>,
}

pub(crate) fn parameter_keys(trained: Vec<Trained>) -> BTreeMap<String, ParameterKey> {
    trained.into_iter().map(|p| (p.path, ParameterKey { id: p.id.val(), shape: p.shape })).collect()
}

impl State {
    /// Says in a clause each what this state and the run at hand disagree on.
    pub(crate) fn differences(
        &self,
        run: &RunFolder,
        config: &StageConfig,
        parameters: &BTreeMap<String, ParameterKey>,
    ) -> Vec<String> {
        let there = identity(&self.stage, self.seed, &self.config, &self.settings);
        let here = through_text(&identity(&run.stage, run.seed, config, &run.settings));
        let mut differences = Vec::new();
        compare("", &there, &here, &mut differences);
        differences.extend(parameter_difference(&self.parameters, parameters));
        differences
    }
}

fn identity(stage: &str, seed: u64, config: &StageConfig, settings: &Value) -> Value {
    json!({"stage": stage, "seed": seed, "config": config.identity(), "settings": settings})
}

/// What `state.json` would give back: parsing may move the last bit of a number.
fn through_text(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).expect("JSON that was just written parses")
}

/// Lists the leaves at which two JSON values differ.
fn compare(path: &str, there: &Value, here: &Value, differences: &mut Vec<String>) {
    let join = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                compare(&join(key), value, b.get(key).unwrap_or(&Value::Null), differences);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(&join(key), &Value::Null, value, differences);
            }
        }
        _ if there != here => differences.push(format!("`{path}` was {there} and is {here}")),
        _ => {}
    }
}

/// The first parameter that one side trains and the other does not, or trains otherwise.
fn parameter_difference(
    there: &BTreeMap<String, ParameterKey>,
    here: &BTreeMap<String, ParameterKey>,
) -> Option<String> {
    let missing = there.keys().find(|path| !here.contains_key(*path));
    let added = here.keys().find(|path| !there.contains_key(*path));
    if let Some(path) = missing {
        return Some(format!("parameter `{path}` was trained and is not now"));
    }
    if let Some(path) = added {
        return Some(format!("parameter `{path}` was not trained and is now"));
    }
    let (path, was, is) =
        there.iter().map(|(path, was)| (path, was, &here[path])).find(|(_, was, is)| was != is)?;
    Some(format!(
        "parameter `{path}` had id {} and shape {:?}, and has id {} and shape {:?}",
        was.id, was.shape, is.id, is.shape
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_by_path() {
        let there = json!({"a": {"b": 1, "gone": true}, "same": [1, 2]});
        let here = json!({"a": {"b": 2}, "same": [1, 2], "new": "x"});
        let mut differences = Vec::new();
        compare("", &there, &here, &mut differences);
        assert_eq!(
            differences,
            ["`a.b` was 1 and is 2", "`a.gone` was true and is null", "`new` was null and is \"x\""]
        );
    }

    #[test]
    fn numbers_that_went_through_json_are_the_same() {
        let config = StageConfig { learning_rate: 0.1 + 0.2, eps: 4.35e-9, ..StageConfig::default() };
        let read: StageConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        let settings = json!({"rate": 2.0_f64.sqrt() * 1e-5});
        let there = identity("s", 1, &read, &through_text(&settings));
        assert_eq!(there, through_text(&identity("s", 1, &config, &settings)));
    }
}
