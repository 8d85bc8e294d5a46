//! Checkpoints as different library versions write them.

use std::path::Path;

use burn::tensor::{Device, FloatDType};
use rzen_core::{Encode, SaveWeights};
use rzen_model::{ModelConfig, PositionMode, Qwen2Vl};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::case::cases;
use crate::reference::{cosine, distance, file, json};
use crate::rows;

type Rename = fn(&str) -> Option<String>;

/// Copies a checkpoint's weights with other names, and its `config.json`.
fn rewrite(from: &Path, to: &Path, rename: impl Fn(&str) -> Option<String>) {
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed: Vec<(String, TensorView)> =
        tensors.iter().filter_map(|(name, view)| Some((rename(name)?, view))).collect();
    safetensors::serialize_to_file(renamed, None, &to.join("model.safetensors")).unwrap();
}

fn first_embeddings(model: &Qwen2Vl) -> Vec<Vec<f32>> {
    rows(&model.encode(cases()[0].input(model, PositionMode::Sequential)).into_data())
}

#[test]
fn golden_tensor_names_of_all_versions_load() {
    let Some(folder) = file("model") else { return };
    let plain = first_embeddings(&Qwen2Vl::load(&folder, FloatDType::F32, &Device::flex()).unwrap());
    let namings: [(&str, Rename); 3] = [
        ("4.52", |name| match name.strip_prefix("model.") {
            Some(rest) => Some(format!("model.language_model.{rest}")),
            None => Some(
                name.strip_prefix("visual.").map_or(name.to_owned(), |rest| format!("model.visual.{rest}")),
            ),
        }),
        ("wrapped", |name| {
            Some(if name.starts_with("visual.") { name.to_owned() } else { format!("language_model.{name}") })
        }),
        ("without lm_head", |name| (!name.starts_with("lm_head")).then(|| name.to_owned())),
    ];
    for (version, rename) in namings {
        let copy = tempfile::tempdir().unwrap();
        rewrite(&folder, copy.path(), rename);
        let model = Qwen2Vl::load(copy.path(), FloatDType::F32, &Device::flex()).unwrap();
        assert_eq!(first_embeddings(&model), plain, "names of {version}");
    }
}

#[test]
fn golden_configurations_of_all_versions_agree() {
    let (Some(model), Some(variants)) = (file("model/config.json"), file("config_variants")) else { return };
    let config = |path: &Path| ModelConfig::from_json(&json(path)).unwrap();
    let expected = config(&model);
    assert!(expected.token_ids.contains_key("image_token_id"));
    let mut count = 0;
    for entry in std::fs::read_dir(variants).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(config(&path), expected, "{}", path.display());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn golden_sharded_bf16_checkpoint() {
    let Some(folder) = file("model_sharded_bf16") else { return };
    let model = Qwen2Vl::load(&folder, FloatDType::F32, &Device::flex()).unwrap();
    for case in cases() {
        let embeddings = rows(&model.encode(case.input(&model, PositionMode::Sequential)).into_data());
        let expected = case.arrays.get("sequential.embedding_bf16");
        for (i, embedding) in embeddings.iter().enumerate() {
            let cosine = cosine(embedding, expected.row(i));
            assert!(cosine >= 0.999, "{} row {i}: cosine {cosine}", case.name);
        }
    }
}

/// Weights stored as f16 and bf16, in shards that an index names, read as f32.
#[test]
fn golden_shards_and_narrow_types_load() {
    let Some(folder) = file("model") else { return };
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let exact = first_embeddings(&Qwen2Vl::load(&folder, FloatDType::F32, &Device::flex()).unwrap());
    for dtype in [Dtype::F16, Dtype::BF16] {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("config.json"), copy.path().join("config.json")).unwrap();
        let mut weight_map = serde_json::Map::new();
        for shard in 0..3 {
            let name = format!("model-{}-of-3.safetensors", shard + 1);
            let narrow: Vec<(String, Vec<u8>, Vec<usize>)> = tensors
                .iter()
                .enumerate()
                .filter(|(i, _)| i % 3 == shard)
                .map(|(_, (name, view))| (name.to_owned(), narrow(view.data(), dtype), view.shape().to_vec()))
                .collect();
            for (tensor, _, _) in &narrow {
                weight_map.insert(tensor.clone(), name.clone().into());
            }
            let views = narrow.iter().map(|(name, bytes, shape)| {
                (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
            });
            safetensors::serialize_to_file(views, None, &copy.path().join(&name)).unwrap();
        }
        let index = serde_json::json!({ "weight_map": weight_map });
        std::fs::write(copy.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        let model = Qwen2Vl::load(copy.path(), FloatDType::F32, &Device::flex()).unwrap();
        for (ours, exact) in first_embeddings(&model).iter().zip(&exact) {
            let exact: Vec<f64> = exact.iter().map(|x| f64::from(*x)).collect();
            assert!(cosine(ours, &exact) > 0.999 && distance(ours, &exact) > 0.0, "{dtype:?}");
        }
    }
}

fn narrow(bytes: &[u8], dtype: Dtype) -> Vec<u8> {
    let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    match dtype {
        Dtype::F16 => floats.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => floats.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

#[test]
fn golden_a_saved_model_is_the_loaded_one() {
    let Some(folder) = file("model") else { return };
    let model = Qwen2Vl::load(&folder, FloatDType::F32, &Device::flex()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    model.save_weights(copy.path()).unwrap();
    let bytes = [&folder, copy.path()].map(|f| std::fs::read(f.join("model.safetensors")).unwrap());
    let [before, after] = [0, 1].map(|i| SafeTensors::deserialize(&bytes[i]).unwrap());
    for (name, view) in before.iter().filter(|(name, _)| !name.starts_with("lm_head")) {
        let saved = after.tensor(name).unwrap_or_else(|_| panic!("{name} was not saved"));
        assert_eq!((saved.shape(), saved.data()), (view.shape(), view.data()), "{name}");
    }
    let again = Qwen2Vl::load(copy.path(), FloatDType::F32, &Device::flex()).unwrap();
    assert_eq!(first_embeddings(&again), first_embeddings(&model));
}
