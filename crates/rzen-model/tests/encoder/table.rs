//! A token table that is kept on the CPU while all else is on any device.

use std::path::Path;

use burn::tensor::{Device, FloatDType};
use rzen_core::Encode;
use rzen_model::{
    Companions, Encoded, ModelConfig, PositionMode, Qwen2Vl, RandomCheckpoint, TextConfig, VisionConfig,
};

use crate::case::{cases, collator, special_ids};
use crate::golden::{Place, rows};
use crate::reference::{distance, file};

fn split(folder: &Path, place: &Place) -> Qwen2Vl {
    Qwen2Vl::load_with_table_on(&Device::flex(), folder, FloatDType::F32, &place.device).unwrap()
}

/// Texts and pictures of golden cases come out bit by bit as with the table beside the other weights.
pub fn gives_the_same_vectors(place: &Place) {
    let Some(whole) = place.model(FloatDType::F32) else { return };
    let split = split(&file("model").unwrap(), place);
    assert_eq!(split.model.embed_tokens.weight.val().device(), Device::flex());
    for case in &cases() {
        let [whole, split] = [&whole, &split]
            .map(|model| rows(&model.encode(case.input(model, PositionMode::Sequential)).into_data()));
        assert_eq!(whole, split, "{}", case.name);
    }
}

/// A table over 128 MiB, the most that WebGPU promises a kernel as one buffer.
pub fn may_be_larger_than_a_buffer(place: &Place) {
    let (folder, special) = (tempfile::tempdir().unwrap(), special_ids());
    let config = wide();
    let checkpoint =
        RandomCheckpoint { config: &config, seed: 1, dtype: FloatDType::F32, shard_size: u64::MAX };
    checkpoint.write(folder.path(), &Companions::default()).unwrap();
    let last = config.text.vocab_size as u32 - 1;
    let item = Encoded { input_ids: vec![last, 3, last / 2, special.endoftext], pictures: Vec::new() };
    let embed = |model: &Qwen2Vl| {
        rows(&model.encode(collator(model, PositionMode::Sequential).collate(&[&item])).into_data())
            .swap_remove(0)
    };
    let expected = embed(&split(folder.path(), &Place::cpu()));
    let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
    let off = distance(&embed(&split(folder.path(), place)), &expected);
    assert!(off <= 1e-5 * place.slack, "off by {off:e}");
}

/// Little beside a table of 141 MiB.
fn wide() -> ModelConfig {
    ModelConfig {
        text: TextConfig {
            hidden_size: 1024,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 16,
            num_key_value_heads: 1,
            vocab_size: 36_096,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            mrope_section: [8, 12, 12],
        },
        vision: VisionConfig {
            depth: 1,
            embed_dim: 16,
            num_heads: 2,
            mlp_ratio: 2.0,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        },
        tie_word_embeddings: true,
        token_ids: Default::default(),
    }
}
