//! Writing models: what stands in the folder, and what is said when it can't be written.

use burn::tensor::{Device, FloatDType};
use rzen_core::SaveWeights;
use rzen_model::{
    AdapterConfig, Companions, ModelConfig, ProcessorConfig, Qwen2Vl, all_linear, tensor_table,
};

use crate::bad_files::tiny;

fn model() -> Qwen2Vl {
    Qwen2Vl::random(&tiny(), 3, FloatDType::F32, &Device::flex())
}

fn adapted() -> Qwen2Vl {
    let config = AdapterConfig { rank: 2, alpha: 4.0, rank_stabilized: false, targets: all_linear() };
    model().with_new_adapter(&config, 5).unwrap()
}

#[cfg(unix)]
#[test]
fn weights_that_cannot_be_written_are_named() {
    for (model, file) in [(model(), "model.safetensors"), (adapted(), "adapter_model.safetensors")] {
        let folder = tempfile::tempdir().unwrap();
        // No file takes the place of a folder.
        std::fs::create_dir(folder.path().join(file)).unwrap();
        let error = model.save_weights(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("/{file} could not be written")), "{error}");
        assert!(error.contains("free space") && error.contains("run again"), "{error}");
    }
    let gone = tempfile::tempdir().unwrap().path().join("gone");
    let error = model().save_weights(&gone).unwrap_err().to_string();
    assert!(error.contains("gone/config.json could not be written"), "{error}");
}

#[cfg(unix)]
#[test]
fn weights_may_be_read_by_whoever_reads_other_files() {
    use std::os::unix::fs::PermissionsExt;
    for model in [model(), adapted()] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("other"), "").unwrap();
        model.save_weights(folder.path()).unwrap();
        let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let usual = mode(folder.path().join("other"));
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(path.clone()), usual, "{}", path.display());
        }
    }
}

#[test]
fn a_model_without_lm_head_says_that_it_needs_none() {
    let untied = ModelConfig { tie_word_embeddings: false, ..tiny() };
    let folder = tempfile::tempdir().unwrap();
    let model = Qwen2Vl::random(&untied, 3, FloatDType::F32, &Device::flex());
    model.save_weights(folder.path()).unwrap();
    let names: Vec<String> = tensor_table(folder.path()).unwrap().into_iter().map(|info| info.name).collect();
    assert!(!names.iter().any(|name| name.starts_with("lm_head")));
    assert!(ModelConfig::load(folder.path()).unwrap().tie_word_embeddings);
    Qwen2Vl::load(folder.path(), FloatDType::F32, &Device::flex()).unwrap();
}

#[test]
fn companions_travel_with_the_weights() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    model().save_weights(before.path()).unwrap();
    for name in Companions::NAMES {
        std::fs::write(before.path().join(name), format!("bytes of {name}")).unwrap();
    }
    let loaded = Qwen2Vl::load(before.path(), FloatDType::F32, &Device::flex()).unwrap();
    loaded.save_weights(after.path()).unwrap();
    for name in Companions::NAMES {
        let bytes = std::fs::read_to_string(after.path().join(name)).unwrap();
        assert_eq!(bytes, format!("bytes of {name}"));
    }
}

#[test]
fn processor_settings_are_written_and_replaced() {
    let config = |max_length| ProcessorConfig { max_length, ..ProcessorConfig::default() };
    for model in [model(), adapted()] {
        let folder = tempfile::tempdir().unwrap();
        let companions = Companions::default().with_processor(&config(700)).with_processor(&config(900));
        model.with_companions(companions).save_weights(folder.path()).unwrap();
        assert_eq!(ProcessorConfig::load(folder.path()).unwrap(), config(900));
    }
}
