//! The network against the reference: every layer, every embedding, every file layout.

mod adapters;
mod bad_adapters;
mod bad_files;
mod case;
mod invariants;
mod layouts;
mod mapped;
mod random;
mod reference;
mod saving;

use std::collections::BTreeSet;

use burn::tensor::{Device, FloatDType};
use rzen_core::Encode;
use rzen_model::{EncoderInput, PositionMode, Qwen2Vl, Trace};

use case::{Case, cases};
use reference::{cosine, distance, file};

const MODES: [(&str, PositionMode); 2] =
    [("sequential", PositionMode::Sequential), ("mrope", PositionMode::Mrope)];

fn model(dtype: FloatDType) -> Option<Qwen2Vl> {
    let folder = file("model")?;
    Some(Qwen2Vl::load(&folder, dtype, &Device::flex()).unwrap())
}

fn rows(data: &burn::tensor::TensorData) -> Vec<Vec<f32>> {
    let width = *data.shape().as_slice().last().unwrap();
    data.clone().try_to_vec::<f32>().unwrap().chunks(width).map(<[f32]>::to_vec).collect()
}

/// The embeddings by both ways: tensor by tensor as in training, and as they are made for use.
fn both_ways(model: &Qwen2Vl, input: &EncoderInput) -> [(&'static str, Vec<Vec<f32>>); 2] {
    let (encoded, embedded) = (model.encode(input.clone()), model.embed(input));
    [("encode", rows(&encoded.into_data())), ("embed", rows(&embedded.into_data()))]
}

#[test]
fn golden_embeddings() {
    let Some(model) = model(FloatDType::F32) else { return };
    for case in cases() {
        for (name, mode) in MODES {
            let expected = case.arrays.get(&format!("{name}.embedding"));
            for (way, embeddings) in both_ways(&model, &case.input(&model, mode)) {
                for (i, embedding) in embeddings.iter().enumerate() {
                    let off = distance(embedding, expected.row(i));
                    let at = format!("{} {name} {way} row {i}", case.name);
                    assert!(off <= case.embedding_tolerance(), "{at}: off by {off:e}");
                    let length: f32 = embedding.iter().map(|x| x * x).sum();
                    assert!((length - 1.0).abs() < 1e-5);
                    assert!(cosine(embedding, expected.row(i)) >= 0.999, "{at}");
                }
            }
        }
    }
}

#[test]
fn golden_pixels() {
    let compared: usize = cases().iter().map(Case::compare_pixels).sum();
    assert!(compared > 0);
}

#[test]
fn golden_every_layer() {
    let Some(model) = model(FloatDType::F32) else { return };
    for case in cases() {
        for (name, mode) in MODES {
            let mut trace = Trace::on();
            let embeddings = rows(&model.encode_traced(&case.input(&model, mode), &mut trace).into_data());
            let expected = case.arrays.get(&format!("{name}.embedding"));
            for (i, embedding) in embeddings.iter().enumerate() {
                assert!(
                    distance(embedding, expected.row(i)) <= case.embedding_tolerance(),
                    "{} row {i}",
                    case.name
                );
            }
            if case.is_lossy() {
                continue;
            }
            let states = trace.states().iter();
            let compared: BTreeSet<String> =
                states.filter_map(|(state, data)| case.compare_state(name, state, &rows(data))).collect();
            assert_eq!(compared, case.stored_states(name), "{} {name}: not every state compared", case.name);
        }
    }
}

#[test]
fn golden_bf16() {
    let Some(model) = model(FloatDType::BF16) else { return };
    for case in cases() {
        for (name, mode) in MODES {
            for (way, embeddings) in both_ways(&model, &case.input(&model, mode)) {
                for reference in ["embedding", "embedding_bf16"] {
                    let expected = case.arrays.get(&format!("{name}.{reference}"));
                    for (i, embedding) in embeddings.iter().enumerate() {
                        let cosine = cosine(embedding, expected.row(i));
                        let at = format!("{} {name}.{reference} {way} row {i}", case.name);
                        assert!(cosine >= 0.999, "{at}: cosine {cosine}");
                    }
                }
            }
        }
    }
}
