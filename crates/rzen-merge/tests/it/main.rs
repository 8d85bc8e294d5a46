//! What merging promises to the outside.

mod adapters;
mod bad_input;
mod bases;
mod checkpoints;
mod golden;
mod reference;
mod updates;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rzen_merge::{Adapter, Cut, Ingredient, MergeError, Method, Soup, SoupRecord, SoupSettings};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};

/// Name to shape and numbers.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A soup in memory, of which nothing is cut.
fn cook(ingredients: &[Ingredient], method: Method) -> Result<(Adapter, SoupRecord), MergeError> {
    cook_cut(ingredients, method, Cut::Nothing)
}

fn cook_cut(
    ingredients: &[Ingredient],
    method: Method,
    cut: Cut,
) -> Result<(Adapter, SoupRecord), MergeError> {
    Soup::new(ingredients, SoupSettings { cut, ..SoupSettings::new(method) })?.adapter()
}

/// Writes `tensors` as `dtype`.
fn write(path: &Path, tensors: &Tensors, dtype: Dtype) {
    let bytes: Vec<Vec<u8>> = tensors
        .values()
        .map(|(_, data)| match dtype {
            Dtype::F32 => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::F16 => data.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::BF16 => data.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            other => panic!("{other:?}"),
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    serialize_to_file(views, None, path).unwrap();
}

/// Reads a file of F32, BF16 or F16, or of bytes.
fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let pair = |b: &[u8]| [b[0], b[1]];
            let data = match view.dtype() {
                Dtype::F32 => {
                    view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
                }
                Dtype::F16 => {
                    view.data().chunks(2).map(|b| half::f16::from_le_bytes(pair(b)).into()).collect()
                }
                Dtype::BF16 => {
                    view.data().chunks(2).map(|b| half::bf16::from_le_bytes(pair(b)).into()).collect()
                }
                Dtype::U8 => view.data().iter().map(|b| f32::from(*b)).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name, (view.shape().to_vec(), data))
        })
        .collect()
}

/// Reproducible numbers between -1 and 1.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A module's canonical name and its `[out, in]`.
const MODULES: [(&str, [usize; 2]); 3] = [
    ("model.layers.0.self_attn.q_proj", [6, 5]),
    ("model.layers.1.mlp.down_proj", [5, 9]),
    ("visual.merger.mlp.0", [4, 7]),
];

/// Random factors for `modules`.
fn factors(seed: u64, r: usize, modules: &[(&str, [usize; 2])]) -> Tensors {
    let mut tensors = Tensors::new();
    for (at, (module, [out, input])) in modules.iter().enumerate() {
        let seed = seed * 100 + at as u64 * 2;
        let name = |factor: &str| format!("base_model.model.{module}.lora_{factor}.weight");
        tensors.insert(name("A"), (vec![r, *input], noise(seed, r * input)));
        tensors.insert(name("B"), (vec![*out, r], noise(seed + 1, out * r)));
    }
    tensors
}

fn write_adapter(folder: &Path, config: Value, tensors: &Tensors) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    write(&folder.join("adapter_model.safetensors"), tensors, Dtype::F32);
}

fn config(r: usize, lora_alpha: f64) -> Value {
    json!({ "peft_type": "LORA", "r": r, "lora_alpha": lora_alpha, "base_model_name_or_path": "somewhere" })
}

/// The relative difference of the sums of squares.
fn relative(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    difference / norm(&mut expected.iter().copied())
}
