//! Checkpoints that must be refused, and what the messages say.

use std::path::Path;

use burn::tensor::{Device, FloatDType};
use rzen_core::SaveWeights;
use rzen_model::{ModelConfig, Qwen2Vl, TextConfig, VisionConfig};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

pub fn tiny() -> ModelConfig {
    ModelConfig {
        text: TextConfig {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            vocab_size: 40,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            mrope_section: [2, 1, 1],
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

fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Qwen2Vl::random(&tiny(), 3, FloatDType::F32, &Device::flex()).save_weights(folder.path()).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    Qwen2Vl::load(folder, FloatDType::F32, &Device::flex()).unwrap_err().to_string()
}

/// Rewrites the weights, each tensor as `edit` returns it.
fn edit(folder: &Path, edit: impl Fn(&str, Vec<usize>, Vec<u8>) -> Option<(String, Vec<usize>, Vec<u8>)>) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors: Vec<_> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .filter_map(|(name, view)| edit(name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, data)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}

#[test]
fn a_whole_checkpoint_loads() {
    Qwen2Vl::load(saved().path(), FloatDType::F32, &Device::flex()).unwrap();
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = saved();
    edit(folder.path(), |name, shape, data| {
        (name != "model.norm.weight").then(|| (name.into(), shape, data))
    });
    let error = refusal(folder.path());
    assert!(error.contains("`model.norm.weight` [16] is missing"), "{error}");
}

#[test]
fn an_extra_tensor_is_named() {
    let folder = saved();
    edit(folder.path(), |name, shape, data| {
        Some((if name == "model.norm.weight" { "model.norm.gain".into() } else { name.into() }, shape, data))
    });
    let error = refusal(folder.path());
    assert!(error.contains("model.norm.weight"), "{error}");
    let folder = saved();
    edit(folder.path(), |name, shape, data| Some((name.into(), shape, data)));
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut views: Vec<(String, TensorView)> =
        tensors.iter().map(|(name, view)| (name.to_owned(), view)).collect();
    views.push(("model.layers.9.extra".into(), TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.path().join("other")).unwrap();
    std::fs::rename(folder.path().join("other"), &path).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("no place") && error.contains("model.layers.9.extra"), "{error}");
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let folder = saved();
    edit(folder.path(), |name, shape, data| match name {
        "model.norm.weight" => Some((name.into(), vec![8], data[..32].to_vec())),
        _ => Some((name.into(), shape, data)),
    });
    let error = refusal(folder.path());
    assert!(error.contains("`model.norm.weight` is [8], expected [16]"), "{error}");
}

#[test]
fn a_patch_kernel_with_its_axes_swapped_is_refused() {
    for (axes, found) in [(vec![16, 2, 3, 14, 14], "[16, 2, 3, 14, 14]"), (vec![16, 1176], "[16, 1176]")] {
        let folder = saved();
        edit(folder.path(), |name, shape, data| match name {
            "visual.patch_embed.proj.weight" => Some((name.into(), axes.clone(), data)),
            _ => Some((name.into(), shape, data)),
        });
        let error = refusal(folder.path());
        let expected = format!("`visual.patch_embed.proj.weight` is {found}, expected [16, 3, 2, 14, 14]");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn nan_in_a_tensor_is_named() {
    let folder = saved();
    edit(folder.path(), |name, shape, mut data| {
        if name == "visual.merger.ln_q.bias" {
            data[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some((name.into(), shape, data))
    });
    let error = refusal(folder.path());
    assert!(error.contains("visual.merger.ln_q.bias") && error.contains("NaN at element 2"), "{error}");
}

#[test]
fn a_number_too_large_for_the_type_is_named() {
    let folder = saved();
    edit(folder.path(), |name, shape, mut data| {
        if name == "model.norm.weight" {
            data[12..16].copy_from_slice(&(-7e4f32).to_le_bytes());
        }
        Some((name.into(), shape, data))
    });
    let load = |dtype| Qwen2Vl::load(folder.path(), dtype, &Device::flex());
    let error = load(FloatDType::F16).unwrap_err().to_string();
    assert!(error.contains("`model.norm.weight` holds -70000 at element 3"), "{error}");
    assert!(error.contains("f16") && error.contains("as bf16 or f32"), "{error}");
    load(FloatDType::BF16).unwrap();
    load(FloatDType::F32).unwrap();
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let folder = saved();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, 4096, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = refusal(folder.path());
        assert!(error.contains("model.safetensors"), "{length} bytes: {error}");
    }
}

#[test]
fn a_folder_without_weights_says_what_it_should_hold() {
    let folder = saved();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(refusal(folder.path()).contains("model.safetensors.index.json"));
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(refusal(folder.path()).contains("config.json"));
}

/// Puts tensors that `moved` names in a second shard, and an index beside them.
fn shard(folder: &Path, moved: impl Fn(&str) -> bool) -> serde_json::Value {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut weight_map = serde_json::Map::new();
    for (shard, second) in [("one.safetensors", false), ("two.safetensors", true)] {
        let views: Vec<(String, TensorView)> = tensors
            .iter()
            .filter(|(name, _)| moved(name) == second)
            .map(|(name, view)| (name.to_owned(), view))
            .collect();
        weight_map.extend(views.iter().map(|(name, _)| (name.clone(), shard.into())));
        safetensors::serialize_to_file(views, None, &folder.join(shard)).unwrap();
    }
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    serde_json::json!({ "weight_map": weight_map })
}

fn write_index(folder: &Path, index: &serde_json::Value) {
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_refused() {
    let folder = saved();
    let index = shard(folder.path(), |name| name.starts_with("visual."));
    write_index(folder.path(), &index);
    Qwen2Vl::load(folder.path(), FloatDType::F32, &Device::flex()).unwrap();

    for wrong in ["two.safetensors", "model.absent.weight"] {
        let mut edited = index.clone();
        match wrong {
            "two.safetensors" => edited["weight_map"]["model.norm.weight"] = wrong.into(),
            _ => edited["weight_map"][wrong] = "one.safetensors".into(),
        }
        write_index(folder.path(), &edited);
        let error = refusal(folder.path());
        assert!(error.contains("index.json: `") && error.contains("has no tensor"), "{error}");
        assert!(error.contains(wrong), "{error}");
    }
    for wrong in [serde_json::json!({}), serde_json::json!({ "weight_map": { "model.norm.weight": 1 } })] {
        write_index(folder.path(), &wrong);
        let error = refusal(folder.path());
        assert!(error.contains("index.json: `weight_map`"), "{error}");
    }

    write_index(folder.path(), &index);
    std::fs::remove_file(folder.path().join("two.safetensors")).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("index.json: `two.safetensors`") && error.contains("copy it"), "{error}");
}

#[test]
fn a_single_file_goes_before_an_index() {
    let folder = saved();
    write_index(folder.path(), &serde_json::json!({ "weight_map": { "x": "gone.safetensors" } }));
    Qwen2Vl::load(folder.path(), FloatDType::F32, &Device::flex()).unwrap();
}

#[test]
fn a_tensor_that_is_there_twice_is_refused() {
    // Under two names in one file.
    let folder = saved();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut views: Vec<(String, TensorView)> =
        tensors.iter().map(|(name, view)| (name.to_owned(), view)).collect();
    let twin = tensors.tensor("visual.merger.ln_q.bias").unwrap();
    views.push(("model.visual.merger.ln_q.bias".into(), twin));
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("`visual.merger.ln_q.bias`"), "{error}");
    assert!(error.contains("`model.visual.merger.ln_q.bias`") && error.contains("keep one"), "{error}");

    // Under one name in two shards.
    let folder = saved();
    let mut index = shard(folder.path(), |name| name.starts_with("visual."));
    std::fs::copy(folder.path().join("two.safetensors"), folder.path().join("three.safetensors")).unwrap();
    index["weight_map"]["visual.merger.ln_q.bias"] = "three.safetensors".into();
    write_index(folder.path(), &index);
    let error = refusal(folder.path());
    assert!(error.contains("three.safetensors") && error.contains("two.safetensors"), "{error}");
}

#[test]
fn a_configuration_for_another_shape_is_refused() {
    let folder = saved();
    let mut config = tiny();
    config.text.vocab_size = 50;
    std::fs::write(folder.path().join("config.json"), config.to_json("float32").to_string()).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("embed_tokens") && error.contains("[40, 16], expected [50, 16]"), "{error}");
}
