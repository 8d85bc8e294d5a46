//! The shapes of the released models, by name.

use std::collections::BTreeMap;

use crate::config::{ModelConfig, TextConfig, VisionConfig};

impl ModelConfig {
    /// The names that [`ModelConfig::preset`] knows.
    pub const PRESETS: [&'static str; 2] = ["qwen2-vl-2b", "qwen2-vl-7b"];

    /// The shape of a released model, without ids of control tokens: those come from a tokenizer.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "qwen2-vl-2b" => Some(shape([1536, 8960, 12, 2, 151_936], true)),
            "qwen2-vl-7b" => Some(shape([3584, 18944, 28, 4, 152_064], false)),
            _ => None,
        }
    }
}

/// What all sizes share, around the decoder's width, MLP, heads, key heads and tokens.
fn shape([hidden, wide, heads, key_heads, tokens]: [usize; 5], tied: bool) -> ModelConfig {
    ModelConfig {
        text: TextConfig {
            hidden_size: hidden,
            intermediate_size: wide,
            num_hidden_layers: 28,
            num_attention_heads: heads,
            num_key_value_heads: key_heads,
            vocab_size: tokens,
            rms_norm_eps: 1e-6,
            rope_theta: 1_000_000.0,
            mrope_section: [16, 24, 24],
        },
        vision: VisionConfig {
            depth: 32,
            embed_dim: 1280,
            num_heads: 16,
            mlp_ratio: 4.0,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        },
        tie_word_embeddings: tied,
        token_ids: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_shape_that_config_json_takes() {
        for name in ModelConfig::PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            assert_eq!(ModelConfig::from_json(&config.to_json("bfloat16")).unwrap(), config);
        }
        assert_eq!(ModelConfig::preset("qwen2-vl-72b"), None);
    }

    /// The published sizes: 2.2 and 7.7 billion numbers, of which the tower has 0.67 (without `lm_head`).
    #[test]
    fn the_sizes_are_those_of_the_released_models() {
        let count = |name| ModelConfig::preset(name).unwrap().num_parameters();
        assert_eq!(count("qwen2-vl-2b"), 2_208_985_600);
        // The released 7B has an `lm_head` of 152064 × 3584 besides.
        assert_eq!(count("qwen2-vl-7b") + 152_064 * 3584, 8_291_375_616);
    }
}
