//! Weights that stay in the file that they are loaded from.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use rzen_core::SaveWeights;
use rzen_model::{ModelError, PositionMode, Qwen2Vl};

use crate::bad_files::tiny;
use crate::case::cases;
use crate::golden::rows;
use crate::model;

fn load(folder: &Path) -> Qwen2Vl {
    Qwen2Vl::load(folder, FloatDType::F32, &Device::flex()).unwrap()
}

fn load_to_embed(folder: &Path) -> Result<Qwen2Vl, ModelError> {
    let device = Device::flex();
    Qwen2Vl::load_to_embed(&device, folder, FloatDType::F32, &device)
}

fn saved(model: &Qwen2Vl) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    model.save_weights(folder.path()).unwrap();
    folder
}

fn weights(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

fn bytes(model: &Qwen2Vl) -> Vec<u8> {
    std::fs::read(weights(saved(model).path())).unwrap()
}

/// Moves all numbers by three bytes: the header gets as many spaces.
fn shift(folder: &Path) {
    let path = weights(folder);
    let bytes = std::fs::read(&path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap());
    let (header, numbers) = rest.split_at(length as usize);
    std::fs::write(&path, [&(length + 3).to_le_bytes(), header, b"   ", numbers].concat()).unwrap();
}

#[test]
fn numbers_at_odd_places_load_as_well() {
    let model = Qwen2Vl::random(&tiny(), 3, FloatDType::F32, &Device::flex());
    let folder = saved(&model);
    let even = load(folder.path());
    assert_eq!(bytes(&even), bytes(&model));
    let other = saved(&model);
    shift(other.path());
    assert_eq!(bytes(&load(other.path())), bytes(&model));
}

struct AddOne;

impl ModuleMapper for AddOne {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.add_scalar(1.0))
    }
}

/// As a step of an optimizer does.
#[test]
fn weights_that_change_leave_the_file_and_other_models_alone() {
    let folder = saved(&Qwen2Vl::random(&tiny(), 3, FloatDType::F32, &Device::flex()));
    let before = std::fs::read(weights(folder.path())).unwrap();
    let (other, model) = (load(folder.path()), load(folder.path()));
    let clone = model.clone();
    let changed = load(folder.path()).map(&mut AddOne);
    let shared = model.map(&mut AddOne);
    assert_eq!(bytes(&changed), bytes(&shared));
    assert_ne!(bytes(&changed), before);
    assert_eq!(std::fs::read(weights(folder.path())).unwrap(), before);
    assert_eq!((bytes(&other), bytes(&clone)), (before.clone(), before));
}

/// A model goes on when its checkpoint is replaced or removed, as when an old one is cleared away.
#[test]
fn a_model_outlives_its_folder() {
    let folder = saved(&Qwen2Vl::random(&tiny(), 3, FloatDType::F32, &Device::flex()));
    let model = load(folder.path());
    let before = bytes(&model);
    Qwen2Vl::random(&tiny(), 4, FloatDType::F32, &Device::flex()).save_weights(folder.path()).unwrap();
    assert_ne!(bytes(&load(folder.path())), before);
    assert_eq!(bytes(&model), before);
    drop(folder);
    assert_eq!(bytes(&model), before);
}

/// Weights that stay bf16 and are widened on their way give what widened weights give, to the rounding of f32.
#[test]
fn golden_a_model_that_is_to_embed_gives_the_same_vectors() {
    let Some(narrow) = model(FloatDType::BF16) else { return };
    let folder = saved(&narrow);
    let wide = load(folder.path());
    let kept = load_to_embed(folder.path()).unwrap();
    assert_eq!((kept.dtype(), wide.dtype()), (DType::BF16, DType::F32));
    for case in cases() {
        let input = case.input(&wide, PositionMode::Mrope);
        let [kept, wide] = [&kept, &wide].map(|model| rows(&model.embed(&input).into_data()));
        assert_eq!(kept.len(), wide.len());
        for (kept, wide) in kept.iter().zip(&wide) {
            let off = kept.iter().zip(wide).all(|(kept, wide)| (kept - wide).abs() <= 1e-6);
            assert!(off && kept.len() == wide.len(), "{}: {kept:?} for {wide:?}", case.name);
        }
    }
    // With nothing to keep, it is an ordinary model.
    let folder = saved(&wide);
    let plain = load_to_embed(folder.path()).unwrap();
    assert_eq!(plain.dtype(), DType::F32);
    assert_eq!(bytes(&plain), bytes(&wide));
}
