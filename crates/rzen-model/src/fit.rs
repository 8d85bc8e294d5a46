//! Whether a network, its tokenizer and its processor settings belong together.

use std::path::{Path, PathBuf};

use crate::processor::{Processor, ProcessorConfig};
use crate::{ModelConfig, ModelError};

/// Checks that items which `processor` encodes can be taken by a model of this shape.
///
/// - `folder`: where `config.json` and `tokenizer.json` came from
/// - `settings`: where the processor settings came from ([`ProcessorConfig::load`])
///
/// # Errors
/// [`ModelError::Misfit`] names two files and what in them disagrees: the ids of tokens and the rows of
/// the token table, the id of picture tokens, or the sizes of patches.
pub fn check_fit(
    config: &ModelConfig,
    processor: &Processor,
    folder: &Path,
    settings: &Path,
) -> Result<(), ModelError> {
    let misfit =
        |other: PathBuf, problem| ModelError::Misfit { config: folder.join("config.json"), other, problem };
    check_tokens(config, processor).map_err(|problem| misfit(folder.join("tokenizer.json"), problem))?;
    check_sizes(config, processor.config())
        .map_err(|problem| misfit(ProcessorConfig::file_of(settings), problem))
}

fn check_tokens(config: &ModelConfig, processor: &Processor) -> Result<(), String> {
    let (rows, highest) = (config.text.vocab_size, processor.highest_id() as usize);
    if highest >= rows {
        return Err(format!(
            "the tokenizer's highest id is {highest}, expected one below `vocab_size`, which is {rows}"
        ));
    }
    let pad = u64::from(processor.special().image_pad);
    match config.token_ids.get("image_token_id") {
        Some(id) if *id != pad => {
            Err(format!("the tokenizer's `<|image_pad|>` is {pad}, expected `image_token_id`, which is {id}"))
        }
        _ => Ok(()),
    }
}

fn check_sizes(config: &ModelConfig, processor: &ProcessorConfig) -> Result<(), String> {
    let vision = &config.vision;
    let sizes = [
        ("patch_size", processor.patch_size, "patch_size", vision.patch_size),
        ("merge_size", processor.merge_size, "spatial_merge_size", vision.spatial_merge_size),
        (
            "temporal_patch_size",
            processor.temporal_patch_size,
            "temporal_patch_size",
            vision.temporal_patch_size,
        ),
    ];
    match sizes.iter().find(|(_, found, _, expected)| found != expected) {
        Some((name, found, key, expected)) => Err(format!(
            "the processor's `{name}` is {found}, expected `vision_config.{key}`, which is {expected}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::train_tokenizer;
    use serde_json::json;

    fn config(vocab_size: u32, token_ids: &[(&str, u32)]) -> ModelConfig {
        let mut config = json!({
            "model_type": "qwen2_vl", "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": vocab_size,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            "vision_config": {"depth": 2, "embed_dim": 64, "num_heads": 4, "hidden_size": 64},
        });
        for (key, id) in token_ids {
            config[*key] = json!(id);
        }
        ModelConfig::from_json(&config).unwrap()
    }

    fn processor(config: ProcessorConfig) -> Processor {
        let texts = ["a red star", "the quick brown fox"].iter().cycle().take(20);
        let tokenizer = train_tokenizer(texts.map(|text| (*text).to_owned()), 300).unwrap();
        Processor::new(config, &tokenizer).unwrap()
    }

    fn check(config: &ModelConfig, processor: &Processor) -> Result<(), String> {
        check_fit(config, processor, Path::new("base"), Path::new("own")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_belongs_together_fits() {
        let processor = processor(ProcessorConfig::default());
        let (highest, pad) = (processor.highest_id(), processor.special().image_pad);
        assert_eq!(check(&config(highest + 1, &[("image_token_id", pad)]), &processor), Ok(()));
        assert_eq!(check(&config(highest + 100, &[]), &processor), Ok(()));
    }

    #[test]
    fn a_tokenizer_of_another_model_is_refused() {
        let processor = processor(ProcessorConfig::default());
        let (highest, pad) = (processor.highest_id(), processor.special().image_pad);
        let error = check(&config(highest, &[]), &processor).unwrap_err();
        assert!(error.contains("base/config.json") && error.contains("base/tokenizer.json"), "{error}");
        assert!(error.contains(&format!("highest id is {highest}, expected")), "{error}");
        let error = check(&config(highest + 1, &[("image_token_id", pad - 1)]), &processor).unwrap_err();
        assert!(error.contains("base/config.json") && error.contains("base/tokenizer.json"), "{error}");
        assert!(
            error.contains(&format!("is {pad}")) && error.contains(&format!("is {}", pad - 1)),
            "{error}"
        );
    }

    #[test]
    fn settings_of_another_model_are_refused() {
        let default = ProcessorConfig::default;
        for (settings, name) in [
            (ProcessorConfig { patch_size: 16, ..default() }, "`patch_size` is 16"),
            (ProcessorConfig { merge_size: 1, ..default() }, "`merge_size` is 1"),
            (ProcessorConfig { temporal_patch_size: 1, ..default() }, "`temporal_patch_size` is 1"),
        ] {
            let error = check(&config(1000, &[]), &processor(settings)).unwrap_err();
            assert!(error.contains("base/config.json") && error.contains("own/"), "{error}");
            assert!(error.contains(name) && error.contains("expected `vision_config."), "{error}");
        }
    }
}
