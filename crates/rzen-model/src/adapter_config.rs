//! `adapter_config.json`: what a LoRA adapter is, in PEFT's words.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ModelError;
use crate::weights::canonical_name;

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

    pub(crate) fn targets(&self, module: &str) -> bool {
        let ends = |target: &String| {
            module.strip_suffix(target).is_some_and(|head| head.is_empty() || head.ends_with('.'))
        };
        self.targets.iter().any(ends)
    }

    /// Reads `folder/adapter_config.json`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedAdapter`] names the first setting that is more than a plain or
    /// rank-stabilised LoRA.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("adapter_config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(ModelError::json(&path))?;
        if let Some(feature) = unsupported(&json) {
            return Err(ModelError::UnsupportedAdapter { path, feature });
        }
        let problem = |problem: &str| ModelError::Config { path: path.clone(), problem: problem.into() };
        let rank = json.get("r").and_then(Value::as_u64).filter(|r| *r > 0);
        let targets = match json.get("target_modules") {
            Some(Value::Array(names)) => {
                names.iter().filter_map(|n| n.as_str().map(canonical_target)).collect()
            }
            Some(Value::String(name)) if name == "all-linear" => all_linear(),
            _ => return Err(problem("`target_modules` is not a list of names; patterns are not supported")),
        };
        Ok(AdapterConfig {
            rank: rank.ok_or_else(|| problem("`r` is missing or not a whole number above 0"))? as usize,
            alpha: json
                .get("lora_alpha")
                .and_then(Value::as_f64)
                .ok_or_else(|| problem("`lora_alpha` is missing"))?,
            rank_stabilized: json.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            targets,
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

/// Targets may be whole paths of newer transformers versions.
fn canonical_target(name: &str) -> String {
    canonical_name(name)
}

/// The first setting of an adapter that changes its arithmetic in a way that is not implemented.
fn unsupported(json: &Map<String, Value>) -> Option<String> {
    let set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        _ => true,
    };
    if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        return Some(format!("`peft_type` {}", json.get("peft_type").unwrap_or(&Value::Null)));
    }
    if let Some(bias) = json.get("bias").filter(|bias| bias.as_str() != Some("none")) {
        return Some(format!("`bias` {bias}"));
    }
    let keys = [
        "use_dora",
        "lora_bias",
        "fan_in_fan_out",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "use_qalora",
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "eva_config",
        "use_bdlora",
        "kasa_config",
        "velora_config",
        "exclude_modules",
        "megatron_config",
    ];
    let found = keys.iter().find(|key| json.get(**key).is_some_and(set))?;
    Some(format!("`{found}` {}", json[*found]))
}
