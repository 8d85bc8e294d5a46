//! What the objective promises to the outside.

mod golden;
mod properties;
mod reference;
mod weights;

use burn::tensor::{Device, Int, Tensor};
use rzen_core::Targets;

/// `[rows, dim]` on `device`.
fn matrix(rows: &[f32], dim: usize, device: &Device) -> Tensor<2> {
    Tensor::<1>::from_floats(rows, device).reshape([(rows.len() / dim) as i32, dim as i32])
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_to_vec::<f32>().unwrap()
}

fn targets(positive: &[i32], task: &[i32], owner: Option<&[i32]>, device: &Device) -> Targets {
    let ints = |values: &[i32]| Tensor::<1, Int>::from_ints(values, device);
    Targets { positive: ints(positive), task: ints(task), owner: owner.map(ints), exempt: None }
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
