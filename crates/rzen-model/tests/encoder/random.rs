//! Checkpoints of random numbers.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, FloatDType};
use rzen_core::SaveWeights;
use rzen_model::{Companions, ModelConfig, Qwen2Vl, RandomCheckpoint, tensor_table};

use crate::bad_files::tiny;

fn write(folder: &Path, seed: u64, dtype: FloatDType, shard_size: u64) -> u64 {
    let config = ModelConfig { tie_word_embeddings: false, ..tiny() };
    let checkpoint = RandomCheckpoint { config: &config, seed, dtype, shard_size };
    checkpoint.write(folder, &Companions::default().with("tokenizer.json", b"{}".to_vec())).unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

#[test]
fn one_file_is_the_checkpoint_that_its_configuration_promises() {
    for dtype in [FloatDType::F32, FloatDType::BF16, FloatDType::F16] {
        let (folder, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bytes = write(folder.path(), 1, dtype, u64::MAX);
        assert!(ModelConfig::load(folder.path()).unwrap().tie_word_embeddings);
        // Loading compares names and shapes; saving gives back what was read.
        let model = Qwen2Vl::load(folder.path(), dtype, &Device::flex()).unwrap();
        model.save_weights(saved.path()).unwrap();
        let table = |folder: &Path| -> Vec<_> {
            let table = tensor_table(folder).unwrap().into_iter();
            table.map(|info| (info.name, info.dtype, info.shape, info.bytes)).collect()
        };
        assert_eq!(table(folder.path()), table(saved.path()));
        let numbers: usize = tiny().num_parameters();
        assert_eq!(bytes as usize, table(saved.path()).iter().map(|(.., bytes)| bytes).sum::<usize>());
        assert_eq!(bytes as usize, numbers * if dtype == FloatDType::F32 { 4 } else { 2 });
        assert_eq!(
            files(folder.path()).keys().collect::<Vec<_>>(),
            ["config.json", "model.safetensors", "tokenizer.json"]
        );
    }
}

#[test]
fn shards_hold_the_same_numbers() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let limit = 12_000;
    let total = write(whole.path(), 1, FloatDType::F32, u64::MAX);
    assert_eq!(write(parts.path(), 1, FloatDType::F32, limit), total);
    let written = files(parts.path());
    let shards: Vec<&String> = written.keys().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(shards.len() > 2, "{shards:?}");
    assert_eq!(*shards[0], format!("model-00001-of-{:05}.safetensors", shards.len()));
    let index: serde_json::Value = serde_json::from_slice(&written["model.safetensors.index.json"]).unwrap();
    assert_eq!(index["metadata"]["total_size"], total);
    let mut sizes = BTreeMap::new();
    for info in tensor_table(parts.path()).unwrap() {
        assert_eq!(index["weight_map"][&info.name], info.file.file_name().unwrap().to_str().unwrap());
        let (bytes, tensors) = sizes.entry(info.file).or_insert((0, 0));
        (*bytes, *tensors) = (*bytes + info.bytes as u64, *tensors + 1);
    }
    assert!(sizes.values().all(|(bytes, tensors)| *bytes <= limit || *tensors == 1), "{sizes:?}");
    let numbers = |folder: &Path| {
        let place = tempfile::tempdir().unwrap();
        let model = Qwen2Vl::load(folder, FloatDType::F32, &Device::flex()).unwrap();
        model.save_weights(place.path()).unwrap();
        std::fs::read(place.path().join("model.safetensors")).unwrap()
    };
    assert_eq!(numbers(whole.path()), numbers(parts.path()));
}

#[test]
fn a_seed_decides_every_byte_whatever_the_threads() {
    let folder = |seed, threads| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| write(folder.path(), seed, FloatDType::BF16, 12_000));
        files(folder.path())
    };
    assert_eq!(folder(1, 1), folder(1, 3));
    assert_ne!(folder(1, 1), folder(2, 1));
}
