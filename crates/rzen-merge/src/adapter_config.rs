//! `adapter_config.json` as `peft` writes it.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::MergeError;
use crate::names::layer;

/// Keys that may have any value: they say how the adapter was made, or are read here.
const HARMLESS: [&str; 17] = [
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "base_model_name_or_path",
    "auto_mapping",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Ways to start the factors that leave the base as it is; others move a part of it into the adapter.
const STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// What an adapter says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank of every module.
    pub r: usize,
    /// The numerator of the scaling.
    pub lora_alpha: f64,
    /// Whether the denominator of the scaling is `√r` instead of `r`.
    pub use_rslora: bool,
    /// Everything, as it stood in the file.
    json: Map<String, Value>,
}

impl AdapterConfig {
    /// A configuration of rank `r` with the scaling `lora_alpha / r`.
    pub fn new(r: usize, lora_alpha: f64) -> Self {
        AdapterConfig { r, lora_alpha, use_rslora: false, json: Map::new() }
    }

    /// What `b a` is multiplied with.
    pub fn scaling(&self) -> f64 {
        let r = self.r as f64;
        self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }
    }

    /// The base model that the adapter names, if any.
    pub fn base_model(&self) -> Option<&str> {
        self.json.get("base_model_name_or_path")?.as_str()
    }

    /// The same remarks (base model and the like) with another rank and scaling.
    pub(crate) fn with_rank(&self, r: usize, lora_alpha: f64, use_rslora: bool) -> Self {
        AdapterConfig { r, lora_alpha, use_rslora, json: self.json.clone() }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, MergeError> {
        let text = fs::read_to_string(path).map_err(MergeError::io("read", path))?;
        let json: Map<String, Value> =
            serde_json::from_str(&text).map_err(|source| MergeError::Json { path: path.into(), source })?;
        let refuse = |key: &str, expected| {
            let found = json.get(key).map_or("nothing".into(), Value::to_string);
            MergeError::Setting { path: path.into(), key: key.into(), found, expected }
        };
        if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(refuse("peft_type", "\"LORA\""));
        }
        let r = json.get("r").and_then(Value::as_u64).filter(|r| *r > 0);
        let r = r.ok_or_else(|| refuse("r", "a rank of at least 1"))? as usize;
        let lora_alpha = json.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
        let lora_alpha = lora_alpha.ok_or_else(|| refuse("lora_alpha", "a number"))?;
        let use_rslora = match json.get("use_rslora") {
            None | Some(Value::Null) => false,
            Some(value) => value.as_bool().ok_or_else(|| refuse("use_rslora", "true or false"))?,
        };
        if let Some((key, expected)) =
            json.iter().find_map(|(key, value)| Some((key, unsupported(key, value)?)))
        {
            return Err(refuse(key, expected));
        }
        Ok(AdapterConfig { r, lora_alpha, use_rslora, json })
    }

    /// Whether it says which layers have modules.
    pub(crate) fn names_layers(&self) -> bool {
        let given = |key: &str| self.json.get(key).is_some_and(|value| !value.is_null());
        let of_a_layer = |target: &Value| target.as_str().is_none_or(|target| layer(target).is_some());
        ["layers_to_transform", "layers_pattern", "exclude_modules"].into_iter().any(given)
            || match self.json.get("target_modules") {
                Some(Value::Array(targets)) => targets.iter().any(of_a_layer),
                Some(Value::String(pattern)) => pattern != "all-linear",
                _ => false,
            }
    }

    /// Writes the file for modules with these endings.
    pub(crate) fn write(&self, path: &Path, target_modules: &[String]) -> Result<(), MergeError> {
        let mut json = self.json.clone();
        for (key, value) in [
            ("peft_type", json!("LORA")),
            ("r", json!(self.r)),
            ("lora_alpha", number(self.lora_alpha)),
            ("use_rslora", json!(self.use_rslora)),
            ("use_dora", json!(false)),
            ("target_modules", json!(target_modules)),
            // They could hide modules that came from another ingredient.
            ("exclude_modules", Value::Null),
            ("layers_to_transform", Value::Null),
            ("layers_pattern", Value::Null),
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("inference_mode", json!(true)),
            ("rank_pattern", json!({})),
            ("alpha_pattern", json!({})),
        ] {
            json.insert(key.into(), value);
        }
        for key in ["base_model_name_or_path", "modules_to_save", "task_type"] {
            json.entry(key).or_insert(Value::Null);
        }
        json.entry("lora_dropout").or_insert(json!(0.0));
        let text = format!("{:#}\n", Value::Object(json));
        fs::write(path, text).map_err(MergeError::io("write", path))
    }
}

/// What `key` may be, if it asks for something that is not done here.
///
/// An unknown key counts as asking for something unless it is off.
fn unsupported(key: &str, value: &Value) -> Option<&'static str> {
    let off = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Bool(true) | Value::Number(_) => false,
    };
    if off || HARMLESS.contains(&key) {
        return None;
    }
    if key == "init_lora_weights" {
        let known =
            *value == Value::Bool(true) || value.as_str().is_some_and(|start| STARTS.contains(&start));
        return (!known).then_some("a start that leaves the base weights as they are");
    }
    Some("it to be off")
}

/// Whole numbers without a point, as `peft` writes them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AdapterConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter_config.json");
        fs::write(&path, text).unwrap();
        AdapterConfig::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn scaling_is_plain_or_rank_stabilised() {
        let plain = read(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": false}"#).unwrap();
        assert_eq!(plain.scaling(), 2.0);
        let stabilised =
            read(r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8.5, "use_rslora": true}"#).unwrap();
        assert_eq!(stabilised.scaling(), 4.25);
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (key, value) in [
            ("use_dora", "true"),
            ("lora_bias", "true"),
            ("bias", "\"lora_only\""),
            ("fan_in_fan_out", "true"),
            ("use_qalora", "true"),
            ("modules_to_save", "[\"lm_head\"]"),
            ("rank_pattern", "{\"q_proj\": 8}"),
            ("alpha_pattern", "{\"q_proj\": 8}"),
            ("layer_replication", "[[0, 4]]"),
            ("trainable_token_indices", "[1]"),
            ("target_parameters", "[\"experts\"]"),
            ("init_lora_weights", "\"pissa\""),
            ("a_key_of_the_future", "true"),
        ] {
            let text = format!(r#"{{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "{key}": {value}}}"#);
            let error = read(&text).unwrap_err();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
        assert!(read(r#"{"peft_type": "IA3", "r": 4, "lora_alpha": 8}"#).unwrap_err().contains("IA3"));
        assert!(read(r#"{"peft_type": "LORA", "r": 0, "lora_alpha": 8}"#).unwrap_err().contains("`r` to 0"));
        assert!(read(r#"{"peft_type": "LORA", "r": 4}"#).unwrap_err().contains("`lora_alpha` to nothing"));
        assert!(read("{\"peft_type\"").unwrap_err().contains("not the JSON"));
    }
}
