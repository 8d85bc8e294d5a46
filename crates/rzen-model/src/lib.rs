//! Qwen2-VL as an embedding encoder: processor, vision tower, decoder, adapters, checkpoints.
//!
//! ```text
//! LoadedItem ─Processor─► Encoded ─Collator─► EncoderInput ─Qwen2Vl─► [batch, dim], unit length
//! ```
//!
//! The processor works on the host and can fail, item by item; the collator only pads, stacks and
//! uploads; the model works on tensors alone. The last token's final state, divided by its length in
//! f32, is the embedding (RzenEmbed §3.1, <https://arxiv.org/abs/2510.27350>).
#![warn(missing_docs)]

mod adapter;
mod adapter_config;
mod attention;
mod blocks;
mod collate;
mod config;
mod decoder;
mod encoder;
mod error;
mod fit;
#[cfg(feature = "cpu")]
mod fused;
mod layout;
mod linear;
mod mapped;
mod norm;
mod pieces;
mod plan;
// Without main memory nothing is kept.
#[cfg_attr(not(feature = "cpu"), allow(dead_code))]
mod prefixes;
mod presets;
mod processor;
mod random_checkpoint;
mod rate;
mod rotary;
mod save;
mod structured;
mod trace;
mod training_plan;
mod vision;
mod weights;

pub use adapter_config::{AdapterConfig, all_linear};
pub use collate::Collator;
pub use config::{ModelConfig, TextConfig, VisionConfig};
pub use encoder::{EncoderInput, PatchInput, Qwen2Vl};
pub use error::ModelError;
pub use fit::check_fit;
pub use layout::{TensorRole, TensorSpec};
pub use plan::{ItemShape, Memory, Operations, Way};
pub use prefixes::PrefixCache;
pub use processor::{
    Encoded, FrameRule, Patches, PositionMode, ProcessError, Processor, ProcessorConfig, SPECIAL_TOKENS,
    SpecialIds, SpecialTokens, Template, Truncation, fit_picture, load_size, picture_patches, position_ids,
    resize, smart_resize, train_tokenizer,
};
pub use random_checkpoint::RandomCheckpoint;
pub use rate::Rates;
pub use save::Companions;
pub use structured::{FitExample, WordStatistics};
pub use trace::Trace;
pub use training_plan::{TrainingMemory, TrainingOperations, TrainingShape};
pub use weights::{TensorInfo, tensor_table};
