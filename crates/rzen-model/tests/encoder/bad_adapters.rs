//! Adapters that must be refused, and what the messages say.

use std::path::Path;

use burn::tensor::{Device, FloatDType};
use rzen_core::SaveWeights;
use rzen_model::{AdapterConfig, Qwen2Vl, all_linear};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::bad_files::tiny;

fn base() -> Qwen2Vl {
    Qwen2Vl::random(&tiny(), 3, FloatDType::F32, &Device::flex())
}

fn config() -> AdapterConfig {
    AdapterConfig { rank: 2, alpha: 4.0, rank_stabilized: false, targets: all_linear() }
}

/// A folder with a sound adapter.
fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    base().with_new_adapter(&config(), 5).unwrap().save_weights(folder.path()).unwrap();
    base().with_adapter(folder.path()).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    base().with_adapter(folder).unwrap_err().to_string()
}

type Stored = (String, Vec<usize>, Vec<u8>);

/// Rewrites the factors.
fn edit(folder: &Path, edit: impl Fn(&mut Vec<Stored>)) {
    let path = folder.join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let own =
        |(name, view): (&str, TensorView)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors: Vec<Stored> = tensors.iter().map(own).collect();
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

/// Rewrites the configuration.
fn edit_config(folder: &Path, edit: impl Fn(&mut Value)) {
    let path = folder.join("adapter_config.json");
    let mut config = crate::reference::json(&path);
    edit(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
}

const FACTOR: &str = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight";

#[test]
fn nan_in_a_factor_is_named() {
    let folder = saved();
    edit(folder.path(), |tensors| {
        let (_, _, data) = tensors.iter_mut().find(|(name, _, _)| name == FACTOR).unwrap();
        data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let error = refusal(folder.path());
    assert!(error.contains(FACTOR) && error.contains("NaN at element 1"), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let folder = saved();
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains("adapter_model.safetensors"), "{length} bytes: {error}");
    }
}

#[test]
fn a_missing_factor_is_named() {
    let folder = saved();
    edit(folder.path(), |tensors| tensors.retain(|(name, _, _)| name != FACTOR));
    let error = refusal(folder.path());
    assert!(error.contains("model.layers.1.mlp.up_proj.lora_B.weight` [24, 2] is missing"), "{error}");
    assert!(error.contains("incomplete"), "{error}");
}

#[test]
fn a_targeted_module_without_factors_is_named() {
    let folder = saved();
    edit(folder.path(), |tensors| tensors.retain(|(name, _, _)| !name.contains("layers.1.mlp.up_proj")));
    let error = refusal(folder.path());
    assert!(error.contains("`target_modules` names `model.layers.1.mlp.up_proj`"), "{error}");
    assert!(error.contains("no factors"), "{error}");
}

#[test]
fn factors_of_a_module_that_is_no_target_are_named() {
    let folder = saved();
    edit_config(folder.path(), |config| {
        config["target_modules"].as_array_mut().unwrap().retain(|name| name != "up_proj");
    });
    let error = refusal(folder.path());
    assert!(error.contains("layers.0.mlp.up_proj.lora_A.weight`"), "{error}");
    assert!(error.contains("`target_modules` does not name"), "{error}");
}

#[test]
fn a_factor_of_another_width_is_named_with_both_shapes() {
    let folder = saved();
    edit(folder.path(), |tensors| {
        let (_, shape, data) = tensors.iter_mut().find(|(name, _, _)| name == FACTOR).unwrap();
        shape[0] -= 1;
        data.truncate(shape[0] * shape[1] * 4);
    });
    let error = refusal(folder.path());
    assert!(error.contains(&format!("`{FACTOR}` is [23, 2], expected [24, 2]")), "{error}");
}

#[test]
fn another_rank_than_the_factors_have_is_refused() {
    let folder = saved();
    edit_config(folder.path(), |config| config["r"] = 3.into());
    let error = refusal(folder.path());
    assert!(error.contains("lora_A") && error.contains("another base model"), "{error}");
}

#[test]
fn a_tensor_that_is_no_factor_is_named() {
    let folder = saved();
    let name = FACTOR.replace("lora_B.weight", "lora_magnitude_vector.weight");
    edit(folder.path(), |tensors| tensors.push((name.clone(), vec![24], vec![0; 96])));
    let error = refusal(folder.path());
    assert!(error.contains(&format!("first `{name}`")), "{error}");
}

#[test]
fn an_adapter_of_a_deeper_model_is_refused() {
    let folder = saved();
    let mut shallow = tiny();
    shallow.text.num_hidden_layers -= 1;
    let shallow = Qwen2Vl::random(&shallow, 3, FloatDType::F32, &Device::flex());
    let error = shallow.with_adapter(folder.path()).unwrap_err().to_string();
    assert!(error.contains("layers.1.") && error.contains("another base model"), "{error}");
}

#[test]
fn a_new_adapter_of_nothing_is_refused() {
    for (config, problem) in [
        (AdapterConfig { rank: 0, ..config() }, "`rank` is 0"),
        (AdapterConfig { alpha: f64::NAN, ..config() }, "`alpha` is NaN"),
        (AdapterConfig { targets: Vec::new(), ..config() }, "`targets` are empty"),
    ] {
        let error = base().with_new_adapter(&config, 5).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("expected"), "{error}");
    }
    let adapted = base().with_new_adapter(&config(), 5).unwrap();
    let error = adapted.with_new_adapter(&config(), 5).unwrap_err().to_string();
    assert!(error.contains("merge it first"), "{error}");
}
