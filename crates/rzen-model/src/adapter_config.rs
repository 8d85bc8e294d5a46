//! `adapter_config.json`: what a LoRA adapter is, in PEFT's words.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ModelError;
use crate::weights::Naming;

/// What an adapter is: its rank, its scale and the layers that it stands beside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Numbers between the two factors.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Scale by `alpha / sqrt(rank)` instead (rsLoRA).
    #[serde(default)]
    pub rank_stabilized: bool,
    /// Names, or ends of names, of linear layers; default all of both towers.
    #[serde(default = "all_linear")]
    pub targets: Vec<String>,
}

/// The linear layers of both towers, as PEFT names targets.
pub fn all_linear() -> Vec<String> {
    let names = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "attn.qkv",
        "attn.proj",
        "mlp.fc1",
        "mlp.fc2",
        "merger.mlp.0",
        "merger.mlp.2",
    ];
    names.map(str::to_owned).to_vec()
}

impl AdapterConfig {
    /// What `B A` is multiplied by.
    pub fn scale(&self) -> f64 {
        match self.rank_stabilized {
            true => self.alpha / (self.rank as f64).sqrt(),
            false => self.alpha / self.rank as f64,
        }
    }

    /// Says what a new adapter can't be made of.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.rank == 0 {
            return Err("the adapter's `rank` is 0, expected 1 or more".into());
        }
        if !self.alpha.is_finite() {
            return Err(format!("the adapter's `alpha` is {}, expected a finite number", self.alpha));
        }
        if self.targets.is_empty() {
            let names = all_linear().join(", ");
            return Err(format!("the adapter's `targets` are empty, expected names of layers: {names}"));
        }
        Ok(())
    }

    /// True if a target is the name, or the end of the name, of `module` in any version's naming.
    pub(crate) fn targets(&self, module: &str) -> bool {
        let names = Naming::ALL.map(|naming| naming.apply(module));
        let ends = |name: &String, target: &String| {
            name.strip_suffix(target).is_some_and(|head| head.is_empty() || head.ends_with('.'))
        };
        self.targets.iter().any(|target| names.iter().any(|name| ends(name, target)))
    }

    /// Reads `folder/adapter_config.json`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedAdapter`] names the first setting that is more than a plain or
    /// rank-stabilised LoRA, known here or not; [`ModelError::Config`] one that has no usable value.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(ModelError::json(&path))?;
        if let Some(feature) = unsupported(&json) {
            return Err(ModelError::UnsupportedAdapter { path, feature });
        }
        Self::from_peft(&json).map_err(|problem| ModelError::Config { path, problem })
    }

    fn from_peft(json: &Map<String, Value>) -> Result<Self, String> {
        let wrong = |key: &str, expected: &str| {
            let found = json.get(key).map_or("missing".into(), |value| format!("{value}"));
            format!("`{key}` is {found}, expected {expected}")
        };
        let rank = json.get("r").and_then(Value::as_u64).filter(|r| *r > 0);
        let alpha = json.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
        let rank_stabilized = match json.get("use_rslora") {
            None | Some(Value::Null) => false,
            Some(value) => value.as_bool().ok_or_else(|| wrong("use_rslora", "true or false"))?,
        };
        Ok(AdapterConfig {
            rank: rank.ok_or_else(|| wrong("r", "a whole number above 0"))? as usize,
            alpha: alpha.ok_or_else(|| wrong("lora_alpha", "a number"))?,
            rank_stabilized,
            targets: json.get("target_modules").and_then(target_names).ok_or_else(|| {
                wrong("target_modules", "a list of names or \"all-linear\"; patterns are not supported")
            })?,
        })
    }

    /// The content of an `adapter_config.json` that PEFT opens.
    pub fn to_json(&self, base_model: &str) -> Value {
        serde_json::json!({
            "peft_type": "LORA",
            "auto_mapping": {
                "base_model_class": "Qwen2VLForConditionalGeneration",
                "parent_library": "transformers.models.qwen2_vl.modeling_qwen2_vl",
            },
            "base_model_name_or_path": base_model,
            "task_type": null,
            "inference_mode": true,
            "r": self.rank,
            "lora_alpha": if self.alpha.fract() == 0.0 { Value::from(self.alpha as i64) } else { Value::from(self.alpha) },
            "use_rslora": self.rank_stabilized,
            "target_modules": self.targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "use_dora": false,
            "modules_to_save": null,
            "init_lora_weights": true,
        })
    }
}

/// The names in `target_modules`.
fn target_names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(name) => (name == "all-linear").then(all_linear),
        Value::Array(names) if !names.is_empty() => {
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

/// Keys that may have any value: they are read here, or say how the adapter was made.
const HARMLESS: [&str; 15] = [
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "base_model_name_or_path",
    "auto_mapping",
    "inference_mode",
    // Says where `layers_to_transform` counts, which is refused.
    "layers_pattern",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    // Read together with `use_qalora`, which is refused.
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Ways to start the factors that leave the base as it is; others move a part of it into the adapter.
const STARTS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// The first setting of an adapter that asks for something that is not implemented. A key that is not
/// known here does unless it is off.
fn unsupported(json: &Map<String, Value>) -> Option<String> {
    if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Some(format!("`peft_type` {}", json.get("peft_type").unwrap_or(&Value::Null)));
    }
    let (key, value) = json.iter().find(|(key, value)| !is_harmless(key, value))?;
    Some(format!("`{key}` {value}"))
}

fn is_harmless(key: &str, value: &Value) -> bool {
    let is_off = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Bool(true) | Value::Number(_) => false,
    };
    let is_start = || *value == Value::Bool(true) || value.as_str().is_some_and(|it| STARTS.contains(&it));
    is_off || HARMLESS.contains(&key) || (key == "init_lora_weights" && is_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(key: &str, value: Value) -> Result<AdapterConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let config = AdapterConfig { rank: 4, alpha: 8.0, rank_stabilized: false, targets: all_linear() };
        let mut json = config.to_json("base");
        json[key] = value;
        std::fs::write(folder.path().join("adapter_config.json"), json.to_string()).unwrap();
        AdapterConfig::load(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn targets_are_ends_of_names_of_any_version() {
        let targets = |target: &str, module: &str| {
            let targets = vec![target.to_owned()];
            AdapterConfig { rank: 4, alpha: 8.0, rank_stabilized: false, targets }.targets(module)
        };
        for target in [
            "q_proj",
            "self_attn.q_proj",
            "layers.0.self_attn.q_proj",
            "model.layers.0.self_attn.q_proj",
            "language_model.layers.0.self_attn.q_proj",
            "model.language_model.layers.0.self_attn.q_proj",
            "language_model.model.layers.0.self_attn.q_proj",
        ] {
            assert!(targets(target, "model.layers.0.self_attn.q_proj"), "{target}");
            assert!(!targets(target, "model.layers.0.self_attn.k_proj"), "{target}");
        }
        assert!(targets("model.visual.merger.mlp.0", "visual.merger.mlp.0"));
        assert!(!targets("proj", "model.layers.0.self_attn.q_proj"));
        assert!(!targets("layers.1.self_attn.q_proj", "model.layers.11.self_attn.q_proj"));
    }

    #[test]
    fn what_asks_for_more_than_lora_is_refused_by_name() {
        for (key, value) in [
            ("peft_type", "\"LOHA\""),
            ("peft_type", "null"),
            ("bias", "\"lora_only\""),
            ("use_dora", "true"),
            ("lora_bias", "true"),
            ("fan_in_fan_out", "true"),
            ("use_qalora", "true"),
            ("modules_to_save", "[\"lm_head\"]"),
            ("exclude_modules", "[\"q_proj\"]"),
            ("layers_to_transform", "[0]"),
            ("layers_to_transform", "0"),
            ("rank_pattern", "{\"q_proj\": 2}"),
            ("alpha_pattern", "{\"q_proj\": 2}"),
            ("loftq_config", "{\"loftq_bits\": 4}"),
            ("init_lora_weights", "\"pissa\""),
            ("init_lora_weights", "\"pissa_niter_16\""),
            ("init_lora_weights", "\"olora\""),
            ("init_lora_weights", "\"loftq\""),
            ("init_lora_weights", "\"corda\""),
            ("init_lora_weights", "1"),
            ("a_key_of_the_future", "true"),
            ("a_key_of_the_future", "0.5"),
        ] {
            let value: Value = serde_json::from_str(value).unwrap();
            let error = load(key, value.clone()).unwrap_err();
            assert!(error.contains(&format!("`{key}` {value}")), "{error}");
            assert!(error.contains("adapter_config.json") && error.contains("not supported"), "{error}");
        }
    }

    #[test]
    fn what_has_the_wrong_type_is_refused_by_name() {
        for (key, value, expected) in [
            ("r", "0", "whole number above 0"),
            ("r", "2.5", "whole number above 0"),
            ("r", "null", "whole number above 0"),
            ("lora_alpha", "\"8\"", "a number"),
            ("use_rslora", "\"yes\"", "true or false"),
            ("use_rslora", "1", "true or false"),
            ("target_modules", "[\"q_proj\",1]", "a list of names"),
            ("target_modules", "[]", "a list of names"),
            ("target_modules", "null", "a list of names"),
            ("target_modules", "\".*q_proj\"", "patterns are not supported"),
        ] {
            let error = load(key, serde_json::from_str(value).unwrap()).unwrap_err();
            assert!(error.contains(&format!("`{key}` is {value}, expected")), "{error}");
            assert!(error.contains(expected) && error.contains("adapter_config.json"), "{error}");
        }
    }

    #[test]
    fn what_changes_nothing_is_read() {
        for (key, value) in [
            ("init_lora_weights", "\"gaussian\""),
            ("init_lora_weights", "false"),
            ("use_rslora", "null"),
            ("loftq_config", "{}"),
            ("qalora_group_size", "16"),
            ("lora_dropout", "0.1"),
            ("task_type", "\"FEATURE_EXTRACTION\""),
            ("a_key_of_the_future", "null"),
            ("target_modules", "\"all-linear\""),
        ] {
            let config = load(key, serde_json::from_str(value).unwrap()).unwrap();
            assert_eq!((config.rank, config.alpha, config.targets), (4, 8.0, all_linear()), "{key}");
        }
    }
}
