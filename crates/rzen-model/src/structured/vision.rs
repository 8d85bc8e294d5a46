//! The patch kernel and the blocks of the vision tower.

use std::f64::consts::PI;

use nalgebra::DMatrix;

use super::{Biases, Made, rows};
use crate::config::VisionConfig;

/// What the branches beside the residual stream are scaled by.
const BRANCH: f64 = 0.3;
/// What a patch's mean brightness and colour are raised by; the layout of a picture is in them.
const MEAN_GAIN: f64 = 4.0;
/// What the merger's first layer is scaled by: GELU is nearly linear near 0.
const MERGER_GAIN: f64 = 0.3;
/// The standard deviation of the part of queries and keys that depends on the patch.
const ATTENTION_CONTENT: f64 = 0.02;

pub(super) fn make(made: &mut Made, config: &VisionConfig) {
    let kernel = made.orthogonal("visual.patch_embed.proj.weight", config.embed_dim) * cosine_basis(config);
    made.put("visual.patch_embed.proj.weight", rows(&kernel));
    for i in 0..config.depth {
        block(made, &format!("visual.blocks.{i}"), config);
    }
    let (name, wide) = ("visual.merger.mlp.0.weight", config.embed_dim * config.merge_unit());
    made.put(name, made.normals(name, wide * wide, MERGER_GAIN / (wide as f64).sqrt()));
}

/// `[embed_dim, channels · frames · patch · patch]`: the lowest frequencies of brightness and two colour
/// differences, the high ones raised as natural pictures lack them. All frames count alike: a patch holds one.
fn cosine_basis(config: &VisionConfig) -> DMatrix<f64> {
    let (patch, frames) = (config.patch_size, config.temporal_patch_size);
    let mut waves = Vec::new();
    for color in colors(config.in_channels) {
        for (u, v) in (0..patch).flat_map(|u| (0..patch).map(move |v| (u, v))) {
            let frequency = (u as f64).hypot(v as f64);
            // The eye's resolution for colour is lower, and so is what pictures hold of it.
            let (order, gain) = match color.is_brightness {
                true => (frequency, 1.0),
                false => (frequency * 2.2, 2.0),
            };
            let gain = gain * if u + v == 0 { MEAN_GAIN } else { 0.5 + frequency };
            waves.push((order, color.clone(), u, v, gain));
        }
    }
    waves.sort_by(|a, b| a.0.total_cmp(&b.0));
    let area = patch * patch;
    let mut basis = DMatrix::zeros(config.embed_dim, config.patch_dim());
    for (row, (_, color, u, v, gain)) in waves.iter().take(config.embed_dim).enumerate() {
        for (channel, share) in color.shares.iter().enumerate() {
            for (y, x) in (0..patch).flat_map(|y| (0..patch).map(move |x| (y, x))) {
                let value = share * gain * wave(*u, y, patch) * wave(*v, x, patch) * 2.0;
                for frame in 0..frames {
                    let column = (channel * frames + frame) * area + y * patch + x;
                    basis[(row, column)] = value / (patch * frames) as f64;
                }
            }
        }
    }
    basis
}

/// What a wave is a wave of.
#[derive(Clone)]
struct Color {
    is_brightness: bool,
    /// Of each channel.
    shares: Vec<f64>,
}

/// Brightness and, for three channels, red against blue and green against both.
fn colors(channels: usize) -> Vec<Color> {
    let unit = |shares: &[f64]| -> Vec<f64> {
        let length = shares.iter().map(|x| x * x).sum::<f64>().sqrt();
        shares.iter().map(|x| x / length).collect()
    };
    let mut colors = vec![Color { is_brightness: true, shares: unit(&vec![1.0; channels]) }];
    if channels == 3 {
        for shares in [[1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]] {
            colors.push(Color { is_brightness: false, shares: unit(&shares) });
        }
    }
    colors
}

/// A sample of the orthonormal cosine of this frequency.
fn wave(frequency: usize, place: usize, size: usize) -> f64 {
    let norm = if frequency == 0 { 1.0 } else { 2.0 };
    (norm / size as f64).sqrt() * (PI * (place as f64 + 0.5) * frequency as f64 / size as f64).cos()
}

fn block(made: &mut Made, name: &str, config: &VisionConfig) {
    let (size, head) = (config.embed_dim, config.head_dim());
    let qkv = format!("{name}.attn.qkv");
    let mut weight = made.normals(&format!("{qkv}.weight"), 2 * size * size, ATTENTION_CONTENT);
    // Where the key's bias stands, nothing depends on the patch.
    let key = neighbour([0.0; 2], head).key;
    for (row, bias) in weight.chunks_exact_mut(size).zip(key.iter().cycle()) {
        if *bias != 0.0 {
            row.fill(0.0);
        }
    }
    weight.extend(rows(&made.orthogonal(&format!("{qkv}.values"), size)));
    made.put(format!("{qkv}.weight"), weight);
    let (mut queries, mut keys) = (vec![0.0; size], vec![0.0; size]);
    for h in 0..config.num_heads {
        let biases = neighbour(NEIGHBOURS[h % NEIGHBOURS.len()], head);
        queries[h * head..][..head].copy_from_slice(&biases.query);
        keys[h * head..][..head].copy_from_slice(&biases.key);
    }
    made.put(format!("{qkv}.bias"), [queries, keys, vec![0.0; size]].concat());
    let out = made.orthogonal(&format!("{name}.attn.proj.weight"), size) * BRANCH;
    made.put(format!("{name}.attn.proj.weight"), rows(&out));
    let narrow = BRANCH / (config.mlp_dim() as f64).sqrt();
    let fc2 = format!("{name}.mlp.fc2.weight");
    let values = made.normals(&fc2, size * config.mlp_dim(), narrow);
    made.put(fc2, values);
}

/// Longer biases would drown what the patch itself says; small heads have no frequency between.
const MOST_LOGIT: f64 = 150.0;

/// Rows and columns from a patch to its neighbours.
const NEIGHBOURS: [[f64; 2]; 8] =
    [[-1., -1.], [-1., 0.], [-1., 1.], [0., -1.], [0., 1.], [1., -1.], [1., 0.], [1., 1.]];

/// The biases whose product is greatest for the patch at `offset`: the highest frequency tells near patches apart,
/// the second far ones.
pub(super) fn neighbour(offset: [f64; 2], head_dim: usize) -> Biases {
    let count = head_dim / 4;
    let mut biases = Biases::zero(head_dim);
    for (axis, offset) in offset.into_iter().enumerate() {
        for i in 0..count.min(2) {
            let frequency = 10_000_f64.powf(-(i as f64) / count as f64);
            let logit = if i == 0 { 4.0 } else { (2.5 / (frequency * frequency)).min(MOST_LOGIT) };
            biases.prefer(axis * count + i, logit, frequency * offset);
        }
    }
    biases
}
