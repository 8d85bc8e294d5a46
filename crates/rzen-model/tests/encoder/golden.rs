//! Golden cases on any device: every embedding, every inner state, adapters, narrow weights.
//!
//! `crates/rzen/tests/backends` runs these on each device that is compiled in and there; here they run on the CPU.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Device, FloatDType, TensorData};
use rzen_core::Encode;
use rzen_model::{AdapterConfig, EncoderInput, PositionMode, Qwen2Vl, Trace};

use crate::case::{Case, cases};
use crate::reference::{Array, Arrays, cosine, distance, file, folder};

pub const MODES: [(&str, PositionMode); 2] =
    [("sequential", PositionMode::Sequential), ("mrope", PositionMode::Mrope)];

/// How far embeddings in f32 may be from the reference on the CPU.
const TOLERANCE: f64 = 1e-5;

/// Where golden cases run, and how far from the reference they may be there.
pub struct Place {
    pub device: Device,
    /// Of the tolerances on the CPU. Another device adds in another order.
    pub slack: f64,
}

impl Place {
    pub fn cpu() -> Self {
        Place { device: Device::flex(), slack: 1.0 }
    }

    /// Embeddings are within 1e-4 there.
    #[allow(dead_code, reason = "tests of one backend have no other device")]
    pub fn gpu(device: Device) -> Self {
        Place { device, slack: 10.0 }
    }

    fn is_cpu(&self) -> bool {
        self.device == Device::flex()
    }

    /// The reference's model, where this set has it.
    pub fn model(&self, dtype: FloatDType) -> Option<Qwen2Vl> {
        Some(Qwen2Vl::load(&file("model")?, dtype, &self.device).unwrap())
    }
}

/// Rows of the last axis.
pub fn rows(data: &TensorData) -> Vec<Vec<f32>> {
    let width = *data.shape().as_slice().last().unwrap();
    data.clone().try_to_vec::<f32>().unwrap().chunks(width).map(<[f32]>::to_vec).collect()
}

/// The embeddings by both ways: tensor by tensor as in training, and as they are made for use.
pub fn both_ways(model: &Qwen2Vl, input: &EncoderInput) -> [(&'static str, Vec<Vec<f32>>); 2] {
    let (encoded, embedded) = (model.encode(input.clone()), model.embed(input));
    [("encode", rows(&encoded.into_data())), ("embed", rows(&embedded.into_data()))]
}

pub fn embeddings(place: &Place) {
    let Some(model) = place.model(FloatDType::F32) else { return };
    for case in cases() {
        for (name, mode) in MODES {
            let expected = case.arrays.get(&format!("{name}.embedding"));
            for (way, embeddings) in both_ways(&model, &case.input(&model, mode)) {
                check(&embeddings, &expected, TOLERANCE * place.slack, &case, &format!("{name} {way}"));
            }
        }
    }
}

/// Rows are within `tolerance` of the expected ones, and unit.
fn check(embeddings: &[Vec<f32>], expected: &Array, tolerance: f64, case: &Case, what: &str) {
    assert_eq!(embeddings.len(), expected.shape[0], "{what} on {}", case.name);
    for (i, embedding) in embeddings.iter().enumerate() {
        let off = distance(embedding, expected.row(i));
        assert!(off <= tolerance, "{} {what} row {i}: off by {off:e}", case.name);
        let length: f32 = embedding.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{} {what} row {i}: of length {length}", case.name);
        assert!(cosine(embedding, expected.row(i)) >= 0.999, "{} {what} row {i}", case.name);
    }
}

pub fn every_layer(place: &Place) {
    let Some(model) = place.model(FloatDType::F32) else { return };
    for case in cases() {
        for (name, mode) in MODES {
            let mut trace = Trace::on();
            let embeddings = rows(&model.encode_traced(&case.input(&model, mode), &mut trace).into_data());
            let expected = case.arrays.get(&format!("{name}.embedding"));
            check(&embeddings, &expected, TOLERANCE * place.slack, &case, name);
            let states = trace.states().iter();
            let compared: BTreeSet<String> = states
                .filter_map(|(state, data)| case.compare_state(name, state, &rows(data), place.slack))
                .collect();
            assert_eq!(compared, case.stored_states(name), "{} {name}: not every state compared", case.name);
        }
    }
}

/// Weights of 16 bits, where the device computes with them.
pub fn bf16(place: &Place) {
    if !place.device.supports_dtype(DType::BF16) {
        return eprintln!("skipped: no bf16 on {:?}", place.device);
    }
    let Some(model) = place.model(FloatDType::BF16) else { return };
    let cases = cases();
    // A model whose bf16 vectors PyTorch has off by a thousandth or so can't be nearer here; two such vectors are off each by
    // itself, and lengths of differences add up.
    let noise = cases.iter().map(bf16_noise).fold(0.0, f64::max);
    let most = |factor: f64| if noise < 5e-4 { 1e-3 } else { (factor * noise).clamp(1e-3, 1e-2) };
    for case in &cases {
        for (name, mode) in MODES {
            for (way, embeddings) in both_ways(&model, &case.input(&model, mode)) {
                for (reference, factor) in [("embedding", 2.0), ("embedding_bf16", 6.0)] {
                    let expected = case.arrays.get(&format!("{name}.{reference}"));
                    let least = 1.0 - most(factor);
                    for (i, embedding) in embeddings.iter().enumerate() {
                        let cosine = cosine(embedding, expected.row(i));
                        let at = format!("{} {name}.{reference} {way} row {i}", case.name);
                        assert!(cosine >= least, "{at}: cosine {cosine}, expected {least}");
                    }
                }
            }
        }
    }
}

/// How far PyTorch's bf16 vectors of a case are from its f32 ones at most: 1 minus the cosine.
fn bf16_noise(case: &Case) -> f64 {
    let of_mode = |name: &str| {
        let [exact, narrow] =
            ["embedding", "embedding_bf16"].map(|of| case.arrays.get(&format!("{name}.{of}")));
        let row = |i: usize| narrow.row(i).iter().map(|x| *x as f32).collect::<Vec<f32>>();
        (0..exact.shape[0]).map(|i| 1.0 - cosine(&row(i), exact.row(i))).fold(0.0, f64::max)
    };
    MODES.iter().map(|(name, _)| of_mode(name)).fold(0.0, f64::max)
}

/// Adapters beside their weights and merged into them; on other devices than the CPU one of each rank, since others differ in
/// their numbers alone.
pub fn adapters(place: &Place) {
    let Some(path) = file("lora/embeddings.safetensors") else { return };
    let Some(base) = place.model(FloatDType::F32) else { return };
    let arrays = Arrays::read(&path);
    let mut count = 0;
    let mut of_rank: BTreeMap<usize, String> = BTreeMap::new();
    // Each is `ADAPTER.CASE.MODE`.
    for name in arrays.names() {
        let (head, mode_name) = name.rsplit_once('.').unwrap();
        let (adapter, case) = head.split_once('.').unwrap();
        let mode = MODES.iter().find(|(mode, _)| *mode == mode_name).unwrap().1;
        let Some(case) = Case::open(case) else { continue };
        if let (false, Some(folder)) = (place.is_cpu(), adapter_folder(adapter)) {
            let rank = AdapterConfig::load(&folder).unwrap().rank;
            if of_rank.entry(rank).or_insert_with(|| adapter.to_owned()) != adapter {
                continue;
            }
        }
        let model = match (adapter, adapter_folder(adapter)) {
            ("base", _) => base.clone(),
            (_, Some(folder)) => base.clone().with_adapter(&folder).unwrap(),
            (_, None) => {
                eprintln!("skipped: adapter {adapter} is not there");
                continue;
            }
        };
        let input = case.input(&model, mode);
        let merged = model.clone().merge_adapter();
        for (state, model) in [("beside", model), ("merged", merged)] {
            for (way, embeddings) in both_ways(&model, &input) {
                let what = format!("{adapter} {state} {way}");
                check(&embeddings, &arrays.get(&name), 1e-5 * place.slack, &case, &what);
            }
        }
        count += 1;
    }
    assert!(count > 0);
}

fn adapter_folder(name: &str) -> Option<std::path::PathBuf> {
    ["lora", "lora/soup"].iter().map(|place| folder().join(place).join(name)).find(|folder| folder.is_dir())
}
