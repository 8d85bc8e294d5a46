//! A model that starts from nothing but the rows that it will be trained on.

use std::collections::BTreeMap;

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use rzen_model::{
    Collator, Companions, FitExample, ModelConfig, Processor, ProcessorConfig, Qwen2Vl, SpecialIds,
    TextConfig, VisionConfig, WordStatistics, train_tokenizer,
};
use serde::{Deserialize, Serialize};

/// The shape of a model that starts from scratch, and how its weights begin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    /// Rows of the token table; the tokenizer has at most so many tokens.
    pub vocab_size: usize,
    /// The decoder.
    pub text: TextShape,
    /// The vision tower.
    pub vision: VisionShape,
    /// How the weights begin.
    #[serde(default)]
    pub weights: FirstWeights,
}

/// How the weights of a model from scratch begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstWeights {
    /// Normal random numbers.
    #[default]
    Random,
    /// Random numbers under which content already counts, fitted to the words and pictures of the training
    /// rows; see [`Qwen2Vl::structured`].
    Structured,
}

/// The decoder of a model that starts from scratch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextShape {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
}

/// The vision tower of a model that starts from scratch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionShape {
    depth: usize,
    embed_dim: usize,
    num_heads: usize,
    #[serde(default = "four")]
    mlp_ratio: f64,
}

fn four() -> f64 {
    4.0
}

impl Scratch {
    /// The model's configuration.
    ///
    /// # Errors
    /// Names the setting that no Qwen2-VL can have.
    pub fn config(
        &self,
        processor: &ProcessorConfig,
        token_ids: BTreeMap<String, u64>,
    ) -> Result<ModelConfig> {
        let Scratch { text, vision, .. } = self;
        let half_head = text.hidden_size / text.num_attention_heads.max(1) / 2;
        let side = (half_head * 3).div_ceil(8);
        let config = ModelConfig {
            text: TextConfig {
                hidden_size: text.hidden_size,
                intermediate_size: text.intermediate_size,
                num_hidden_layers: text.num_hidden_layers,
                num_attention_heads: text.num_attention_heads,
                num_key_value_heads: text.num_key_value_heads,
                vocab_size: self.vocab_size,
                rms_norm_eps: 1e-6,
                rope_theta: 1_000_000.0,
                // A quarter of the frequencies for time, the rest for height and width, as in Qwen2-VL.
                mrope_section: [half_head.saturating_sub(2 * side), side, side],
            },
            vision: VisionConfig {
                depth: vision.depth,
                embed_dim: vision.embed_dim,
                num_heads: vision.num_heads,
                mlp_ratio: vision.mlp_ratio,
                in_channels: 3,
                patch_size: processor.patch_size,
                spatial_merge_size: processor.merge_size,
                temporal_patch_size: processor.temporal_patch_size,
            },
            tie_word_embeddings: true,
            token_ids,
        };
        ModelConfig::from_json(&config.to_json("float32"))
            .map_err(|problem| anyhow::anyhow!("the recipe's `model`: {problem}"))
    }

    /// The model's configuration, a processor whose tokenizer is made of `texts`, and that tokenizer as its file.
    ///
    /// # Errors
    /// If the shape or the texts can't make a model.
    pub fn shape(
        &self,
        processor: &ProcessorConfig,
        texts: &[String],
    ) -> Result<(ModelConfig, Processor, Vec<u8>)> {
        let tokenizer = train_tokenizer(texts.iter().cloned(), self.vocab_size)?;
        let processor = Processor::new(processor.clone(), &tokenizer)?;
        let config = self.config(processor.config(), token_ids(processor.special()))?;
        let file = tokenizer.to_string(true).map_err(anyhow::Error::from_boxed)?;
        Ok((config, processor, file.into_bytes()))
    }

    /// Makes the model and a tokenizer of its own.
    ///
    /// `texts`: every text of the training rows; `examples`: encodes items of them that have pictures, with the
    /// processor that it is given, piece by piece, and is called where they are needed.
    ///
    /// # Errors
    /// If the shape or the texts can't make a model, or what `examples` says.
    pub fn draw<I: Iterator<Item = Result<Vec<FitExample>>>>(
        &self,
        seed: u64,
        processor: &ProcessorConfig,
        texts: &[String],
        examples: impl FnOnce(Processor) -> I,
        device: &Device,
    ) -> Result<Qwen2Vl> {
        let (config, processor, tokenizer) = self.shape(processor, texts)?;
        let special = processor.special().clone();
        let companions = Companions::default()
            .with("tokenizer.json", tokenizer)
            .with(ProcessorConfig::FILE, processor.config().to_json().into_bytes());
        let model = match self.weights {
            FirstWeights::Random => Qwen2Vl::random(&config, seed, FloatDType::F32, device),
            FirstWeights::Structured => {
                let words = WordStatistics::count(&processor, texts.iter().map(String::as_str))?;
                let collator = Collator::new(&config, &special, processor.config().positions, device);
                let model = Qwen2Vl::structured(&config, seed, &words, device);
                model.fit_merger(&collator, examples(processor), seed)?
            }
        };
        Ok(model.with_companions(companions))
    }
}

/// The ids of control tokens as `config.json` names them.
pub fn token_ids(special: &SpecialIds) -> BTreeMap<String, u64> {
    let ids = [
        ("bos_token_id", special.endoftext),
        ("eos_token_id", special.im_end),
        ("vision_start_token_id", special.vision_start),
        ("vision_end_token_id", special.vision_end),
        ("image_token_id", special.image_pad),
        ("video_token_id", special.video_pad),
    ];
    ids.into_iter().map(|(key, id)| (key.to_owned(), u64::from(id))).collect()
}
