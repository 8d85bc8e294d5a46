//! The shape of a Qwen2-VL model, read from and written to `config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ModelError;

/// The shape of a whole model, with the names of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Whether `lm_head` shares the token table; an embedder needs no `lm_head` in either case.
    pub tie_word_embeddings: bool,
    /// Ids of control tokens, by their keys in `config.json` (`image_token_id` …). The encoder takes them
    /// from the tokenizer; other programs read them here.
    pub token_ids: BTreeMap<String, u64>,
}

/// Keys of `config.json` that hold ids of control tokens.
const TOKEN_KEYS: [&str; 7] = [
    "bos_token_id",
    "eos_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
    "image_token_id",
    "video_token_id",
];

/// The shape of the decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Numbers in a hidden state, and in an embedding.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Rows of the token table; may be more than the tokenizer has tokens.
    pub vocab_size: usize,
    /// Added to the mean square before the root.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How many of the `head_dim / 2` frequencies follow time, height and width.
    pub mrope_section: [usize; 3],
}

impl TextConfig {
    /// Numbers in a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The shape of the vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Numbers in a patch's state.
    pub embed_dim: usize,
    /// Heads.
    pub num_heads: usize,
    /// Width of the MLP over `embed_dim`.
    pub mlp_ratio: f64,
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Patches on a side of a token.
    pub spatial_merge_size: usize,
    /// Frames in a patch.
    pub temporal_patch_size: usize,
}

impl VisionConfig {
    /// Numbers in a patch's pixels: channels × frames × patch × patch.
    pub fn patch_dim(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// The patch kernel in files: `[embed_dim, channels, frames, patch, patch]`.
    pub(crate) fn kernel_shape(&self) -> [usize; 5] {
        [self.embed_dim, self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size]
    }

    /// Numbers in a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// Patches in a token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Width of the MLP.
    pub fn mlp_dim(&self) -> usize {
        (self.embed_dim as f64 * self.mlp_ratio) as usize
    }
}

impl ModelConfig {
    /// Reads `folder/config.json` in any of the layouts of transformers 4.45 to 5.x: flat, nested in
    /// `text_config`, with `rope_scaling` or `rope_parameters`.
    ///
    /// # Errors
    /// Names the setting that is missing or that no Qwen2-VL can have.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let value: Value = serde_json::from_str(&text).map_err(ModelError::json(&path))?;
        Self::from_json(&value).map_err(|problem| ModelError::Config { path, problem })
    }

    /// Reads the content of a `config.json`.
    ///
    /// # Errors
    /// A sentence that names the setting, what was found and what was expected.
    pub fn from_json(root: &Value) -> Result<Self, String> {
        let empty = Map::new();
        let root = root.as_object().ok_or("the file is not a JSON object")?;
        let nested = root.get("text_config").and_then(Value::as_object).unwrap_or(&empty);
        match root.get("model_type").and_then(Value::as_str) {
            Some("qwen2_vl") => {}
            Some(found) => return Err(format!("`model_type` is \"{found}\", expected \"qwen2_vl\"")),
            None => return Err("`model_type` is missing, expected \"qwen2_vl\"".into()),
        }
        let text = Settings { name: "", tables: vec![nested, root] };
        let vision = root.get("vision_config").and_then(Value::as_object).unwrap_or(&empty);
        let vision = Settings { name: "vision_config.", tables: vec![vision] };
        let config = ModelConfig {
            text: read_text(&text)?,
            vision: read_vision(&vision)?,
            tie_word_embeddings: text.find("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            token_ids: TOKEN_KEYS
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), text.find(key)?.as_u64()?)))
                .collect(),
        };
        config.validate(vision.find("hidden_size").and_then(Value::as_u64))?;
        Ok(config)
    }

    fn validate(&self, merger_size: Option<u64>) -> Result<(), String> {
        let (text, vision) = (&self.text, &self.vision);
        let divides = |part: usize, whole: usize, what: &str| match part > 0 && whole.is_multiple_of(part) {
            true => Ok(()),
            false => Err(format!("{what}: {whole} is not a multiple of {part}")),
        };
        divides(text.num_attention_heads, text.hidden_size, "`hidden_size` over `num_attention_heads`")?;
        divides(
            text.num_key_value_heads,
            text.num_attention_heads,
            "`num_attention_heads` over `num_key_value_heads`",
        )?;
        divides(2, text.head_dim(), "numbers in a head of the decoder")?;
        divides(vision.num_heads, vision.embed_dim, "`vision_config.embed_dim` over `num_heads`")?;
        divides(4, vision.head_dim(), "numbers in a head of the vision tower")?;
        let sections: usize = text.mrope_section.iter().sum();
        if sections != text.head_dim() / 2 {
            return Err(format!(
                "`mrope_section` {:?} adds up to {sections}, expected half a head: {}",
                text.mrope_section,
                text.head_dim() / 2
            ));
        }
        match merger_size {
            Some(size) if size as usize != text.hidden_size => Err(format!(
                "`vision_config.hidden_size` is {size}, expected the decoder's {}",
                text.hidden_size
            )),
            _ => Ok(()),
        }
    }

    /// The content of a `config.json` that transformers opens, weights stored as `dtype` (`"float32"`, `"bfloat16"` …).
    pub fn to_json(&self, dtype: &str) -> Value {
        let (text, vision) = (&self.text, &self.vision);
        let mut config = json!({
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "hidden_act": "silu",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "vocab_size": text.vocab_size,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta,
            "rope_scaling": { "type": "mrope", "mrope_section": text.mrope_section },
            "max_position_embeddings": 32768,
            "use_sliding_window": false,
            "attention_dropout": 0.0,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "vision_config": {
                "model_type": "qwen2_vl",
                "depth": vision.depth,
                "embed_dim": vision.embed_dim,
                "hidden_size": text.hidden_size,
                "num_heads": vision.num_heads,
                "mlp_ratio": json_number(vision.mlp_ratio),
                "in_chans": vision.in_channels,
                "in_channels": vision.in_channels,
                "patch_size": vision.patch_size,
                "spatial_patch_size": vision.patch_size,
                "spatial_merge_size": vision.spatial_merge_size,
                "temporal_patch_size": vision.temporal_patch_size,
            },
        });
        for (key, id) in &self.token_ids {
            config[key] = json!(id);
        }
        config
    }
}

/// A whole number stays one in JSON: transformers reads `mlp_ratio` as an integer.
fn json_number(x: f64) -> Value {
    if x.fract() == 0.0 { json!(x as u64) } else { json!(x) }
}

/// Looks a key up in several tables, first match first; null counts as absent.
struct Settings<'a> {
    name: &'static str,
    tables: Vec<&'a Map<String, Value>>,
}

impl<'a> Settings<'a> {
    fn find(&self, key: &str) -> Option<&'a Value> {
        self.tables.iter().find_map(|table| table.get(key).filter(|value| !value.is_null()))
    }

    fn size(&self, key: &str) -> Result<usize, String> {
        let value = self.find(key).ok_or_else(|| format!("`{}{key}` is missing", self.name))?;
        match value.as_u64() {
            Some(size) if size > 0 => Ok(size as usize),
            _ => Err(format!("`{}{key}` is {value}, expected a whole number above 0", self.name)),
        }
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, String> {
        if self.find(key).is_none() { Ok(default) } else { self.size(key) }
    }

    fn positive_or(&self, key: &str, default: f64) -> Result<f64, String> {
        let Some(value) = self.find(key) else { return Ok(default) };
        let number = value.as_f64().filter(|number| *number > 0.0);
        number.ok_or_else(|| format!("`{}{key}` is {value}, expected a number above 0", self.name))
    }
}

fn read_text(text: &Settings) -> Result<TextConfig, String> {
    if text.find("use_sliding_window").and_then(Value::as_bool) == Some(true) {
        return Err("`use_sliding_window` is true, expected false; sliding windows are not supported".into());
    }
    if let Some(act) = text.find("hidden_act").filter(|act| act.as_str() != Some("silu")) {
        return Err(format!("`hidden_act` is {act}, expected \"silu\""));
    }
    let (rope_key, rope) = ["rope_parameters", "rope_scaling"]
        .iter()
        .find_map(|key| Some((key, text.find(key)?.as_object()?)))
        .ok_or("`rope_scaling` (or `rope_parameters`) with `mrope_section` is missing")?;
    check_rope_type(rope_key, rope)?;
    let section =
        rope.get("mrope_section").ok_or_else(|| format!("`{rope_key}.mrope_section` is missing"))?;
    let mrope_section = serde_json::from_value(section.clone())
        .map_err(|_| format!("`mrope_section` is {section}, expected three whole numbers"))?;
    let theta = Settings { name: "rope_parameters.", tables: vec![rope] };
    let rope_theta = match theta.find("rope_theta") {
        Some(_) => theta.positive_or("rope_theta", 0.0)?,
        None => text.positive_or("rope_theta", 1_000_000.0)?,
    };
    let num_attention_heads = text.size("num_attention_heads")?;
    Ok(TextConfig {
        hidden_size: text.size("hidden_size")?,
        intermediate_size: text.size("intermediate_size")?,
        num_hidden_layers: text.size("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: text.size_or("num_key_value_heads", num_attention_heads)?,
        vocab_size: text.size("vocab_size")?,
        rms_norm_eps: text.positive_or("rms_norm_eps", 1e-6)?,
        rope_theta,
        mrope_section,
    })
}

/// Frequencies that are stretched (`yarn`, `linear`, `dynamic` …) would give other vectors.
fn check_rope_type(table: &str, rope: &Map<String, Value>) -> Result<(), String> {
    let is_plain = |value: &Value| value.is_null() || value == "mrope" || value == "default";
    let mut types = ["type", "rope_type"].into_iter().filter_map(|key| Some((key, rope.get(key)?)));
    match types.find(|(_, value)| !is_plain(value)) {
        Some((key, value)) => Err(format!(
            "`{table}.{key}` is {value}, expected \"mrope\" or \"default\"; scaled rotary frequencies are not supported"
        )),
        None => Ok(()),
    }
}

fn read_vision(vision: &Settings) -> Result<VisionConfig, String> {
    if let Some(act) = vision.find("hidden_act").filter(|act| act.as_str() != Some("quick_gelu")) {
        return Err(format!("`vision_config.hidden_act` is {act}, expected \"quick_gelu\""));
    }
    let channels = vision.size_or("in_chans", 3)?;
    Ok(VisionConfig {
        depth: vision.size_or("depth", 32)?,
        embed_dim: vision.size_or("embed_dim", 1280)?,
        num_heads: vision.size_or("num_heads", 16)?,
        mlp_ratio: vision.positive_or("mlp_ratio", 4.0)?,
        in_channels: vision.size_or("in_channels", channels)?,
        patch_size: vision.size_or("patch_size", 14)?,
        spatial_merge_size: vision.size_or("spatial_merge_size", 2)?,
        temporal_patch_size: vision.size_or("temporal_patch_size", 2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        json!({
            "model_type": "qwen2_vl", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            "vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 4, "hidden_size": 64},
        })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let config = ModelConfig::from_json(&small()).unwrap();
        assert_eq!(ModelConfig::from_json(&config.to_json("float32")).unwrap(), config);
    }

    #[test]
    fn a_null_of_the_nested_table_hides_nothing() {
        let mut config = small();
        config["image_token_id"] = json!(95);
        config["text_config"] = json!({"image_token_id": null, "hidden_size": 64});
        assert_eq!(ModelConfig::from_json(&config).unwrap().token_ids["image_token_id"], 95);
    }

    #[test]
    fn a_bad_setting_is_named() {
        let with = |key: &str, value: Value| {
            let mut config = small();
            config[key] = value;
            ModelConfig::from_json(&config).unwrap_err()
        };
        assert!(with("model_type", json!("llama")).contains("is \"llama\", expected \"qwen2_vl\""));
        assert!(with("model_type", Value::Null).contains("missing"));
        assert!(with("rope_theta", json!(0)).contains("`rope_theta` is 0, expected a number above 0"));
        assert!(with("rms_norm_eps", json!(-1)).contains("`rms_norm_eps` is -1"));
        assert!(with("hidden_size", json!("64")).contains("`hidden_size` is \"64\""));
        assert!(with("num_key_value_heads", json!(3)).contains("num_key_value_heads"));
        assert!(with("rope_scaling", json!({"mrope_section": [2, 2, 2]})).contains("adds up to 6"));
        assert!(with("use_sliding_window", json!(true)).contains("sliding"));
        for (table, key) in
            [("rope_scaling", "type"), ("rope_scaling", "rope_type"), ("rope_parameters", "rope_type")]
        {
            for value in [json!("yarn"), json!("linear"), json!(1)] {
                let error = with(table, json!({ key: value, "mrope_section": [2, 3, 3] }));
                let (found, expected) = (format!("`{table}.{key}` is {value}"), "expected \"mrope\"");
                assert!(error.contains(&found) && error.contains(expected), "{error}");
            }
        }
    }

    #[test]
    fn plain_rope_types_are_read() {
        for rope in [json!({}), json!({"type": null}), json!({"type": "mrope", "rope_type": "default"})] {
            let mut config = small();
            config["rope_scaling"] = rope;
            config["rope_scaling"]["mrope_section"] = json!([2, 3, 3]);
            ModelConfig::from_json(&config).unwrap();
        }
    }
}
