//! The blocks of the decoder.

use nalgebra::DMatrix;

use super::{Biases, GATE_LOGIT, Made, RESERVED, TEMPLATE, WEIGHT, WEIGHT_LOGIT, rows};
use crate::config::TextConfig;

/// The standard deviation of the part of queries and keys that depends on the content.
const ATTENTION_CONTENT: f64 = 0.02;
/// The logit of each frequency for the token at a head's own distance.
const NEAR_LOGIT: f64 = 1.5;
/// Distances that the heads of the blocks before the last look at.
const DISTANCES: usize = 4;
/// What attention is scaled by in the blocks before the last.
const NEAR_BRANCH: f64 = 0.5;
/// What the MLPs are scaled by.
const MLP_BRANCH: f64 = 0.3;
/// What is left of the reserved coordinates in an embedding.
const RESERVED_GAIN: f32 = 0.02;

pub(super) fn make(made: &mut Made, config: &TextConfig) {
    for i in 0..config.num_hidden_layers {
        let is_last = i + 1 == config.num_hidden_layers;
        attention(made, &format!("model.layers.{i}.self_attn"), config, is_last);
        mlp(made, &format!("model.layers.{i}.mlp"), config);
    }
    let mut norm = vec![1.0; config.hidden_size];
    norm[..RESERVED].fill(RESERVED_GAIN);
    made.put("model.norm.weight", norm);
}

fn attention(made: &mut Made, name: &str, config: &TextConfig, is_last: bool) {
    let (size, head) = (config.hidden_size, config.head_dim());
    let (half, narrow) = (head / 2, config.num_key_value_heads * head);
    let mut keys = made.normals(&format!("{name}.k_proj.weight"), narrow * size, ATTENTION_CONTENT);
    let queries = made.normals(&format!("{name}.q_proj.weight"), size * size, ATTENTION_CONTENT);
    let (mut query_bias, mut key_bias) = (vec![0.0; size], vec![0.0; narrow]);
    // The pair of the lowest frequency, which hardly turns, reads the reserved coordinates.
    let (gate, root) = (half - 1, (head as f64).sqrt());
    let length = (GATE_LOGIT * root).sqrt();
    for h in 0..config.num_attention_heads {
        query_bias[h * head + gate] = length as f32;
        if !is_last {
            let near = distance(h % DISTANCES, config);
            for (i, x) in near.query.into_iter().enumerate() {
                query_bias[h * head + i] += x;
            }
        }
    }
    for h in 0..config.num_key_value_heads {
        let row = &mut keys[(h * head + gate) * size..][..size];
        let unit = (size as f64).sqrt();
        row.fill(0.0);
        row[TEMPLATE] = (-length / unit) as f32;
        row[WEIGHT] = (WEIGHT_LOGIT * root / length / unit) as f32;
        if !is_last {
            key_bias[h * head..][..head].copy_from_slice(&distance(0, config).key);
        }
    }
    made.put(format!("{name}.q_proj.weight"), queries);
    made.put(format!("{name}.q_proj.bias"), query_bias);
    made.put(format!("{name}.k_proj.weight"), keys);
    made.put(format!("{name}.k_proj.bias"), key_bias);
    let turn = made.orthogonal(&format!("{name}.values"), size);
    let branch = if is_last { 1.0 } else { NEAR_BRANCH };
    made.put(format!("{name}.o_proj.weight"), rows(&(way_out(&turn, config) * branch)));
    made.put(format!("{name}.v_proj.weight"), rows(&content_only(turn.rows(0, narrow).into_owned())));
}

/// The inverse of the values of each head, shared by the query heads that see it: what all heads agree on passes
/// unchanged where each has values of its own. Nothing is written to the reserved coordinates.
pub(super) fn way_out(turn: &DMatrix<f64>, config: &TextConfig) -> DMatrix<f64> {
    let (size, head) = (config.hidden_size, config.head_dim());
    let shared_by = config.num_attention_heads / config.num_key_value_heads;
    let mut out = DMatrix::zeros(size, size);
    for h in 0..config.num_attention_heads {
        let values = turn.rows(h / shared_by * head, head).transpose() / shared_by as f64;
        out.columns_mut(h * head, head).copy_from(&values);
    }
    out.rows_mut(0, RESERVED).fill(0.0);
    out
}

/// The biases whose product is greatest for the token `back` places before.
fn distance(back: usize, config: &TextConfig) -> Biases {
    let half = config.head_dim() / 2;
    let mut biases = Biases::zero(config.head_dim());
    // The lowest frequencies are left to the gate.
    for i in 0..half.saturating_sub(2) {
        let frequency = config.rope_theta.powf(-(i as f64) / half as f64);
        biases.prefer(i, NEAR_LOGIT, -(back as f64) * frequency);
    }
    biases
}

fn mlp(made: &mut Made, name: &str, config: &TextConfig) {
    let (size, wide) = (config.hidden_size, config.intermediate_size);
    for part in ["gate_proj", "up_proj"] {
        let tensor = format!("{name}.{part}.weight");
        let numbers = made.normals(&tensor, wide * size, (size as f64).sqrt().recip());
        let weight = DMatrix::from_row_iterator(wide, size, numbers.into_iter().map(f64::from));
        made.put(tensor, rows(&content_only(weight)));
    }
    let tensor = format!("{name}.down_proj.weight");
    let mut values = made.normals(&tensor, size * wide, MLP_BRANCH / (wide as f64).sqrt());
    values[..RESERVED * wide].fill(0.0);
    made.put(tensor, values);
}

/// The same map, blind to the reserved coordinates.
fn content_only(mut weight: DMatrix<f64>) -> DMatrix<f64> {
    weight.columns_mut(0, RESERVED).fill(0.0);
    weight
}
