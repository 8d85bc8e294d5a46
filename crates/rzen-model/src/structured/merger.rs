//! The merger's last layer, fitted to pictures.

use burn::tensor::{Tensor, TensorData};
use nalgebra::{DMatrix, DVector};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Made, RESERVED, WEIGHT, rows};
use crate::Qwen2Vl;
use crate::encoder::EncoderInput;
use crate::weights::param;

/// Tokens that are looked at, at most; the work grows with its third power.
const MOST_TOKENS: usize = 1024;
/// The share of the mean square that may be rounding of what the backend computed.
const ROUNDING: f64 = 1e-9;
/// Deviations are raised to one minus this power: 0 would leave them, 1 would make all equal.
const WHITENING: f64 = 0.6;
/// The share of a picture token's length that asks for weight among words.
const PICTURE_WEIGHT: f32 = 0.5;

impl Qwen2Vl {
    /// Fits the last layer of the merger to the pictures of `inputs`, so that their tokens have zero mean
    /// and half-whitened principal components of mean square 1.
    ///
    /// Looks at 1024 tokens at most, drawn from all. A model that sees no two different tokens is given back as it is.
    /// The result depends on the pictures and on `seed`; last bits of the machine's products may turn nearly equal
    /// components.
    ///
    /// # Panics
    /// If the model is not f32 or has an adapter.
    pub fn fit_merger(mut self, inputs: impl Iterator<Item = EncoderInput>, seed: u64) -> Self {
        assert!(self.adapter.is_none(), "first weights have no adapter");
        let mut hidden: Vec<Vec<f32>> = inputs.flat_map(|input| self.merger_states(&input)).collect();
        hidden.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let taken = &hidden[..hidden.len().min(MOST_TOKENS)];
        if taken.len() < 2 {
            return self;
        }
        let width = taken[0].len();
        let states = DMatrix::from_fn(taken.len(), width, |i, j| f64::from(taken[i][j]));
        let size = self.config.text.hidden_size;
        let made = Made { seed, tensors: Default::default() };
        let Some((weight, bias)) = fit(states, size, &made) else { return self };
        let last = &mut self.visual.merger.mlp[1];
        let device = last.weight.val().device();
        let name = "visual.merger.mlp.2";
        let weight = Tensor::from_data(TensorData::new(rows(&weight), [size, width]), &device);
        let bias = Tensor::from_data(TensorData::new(bias, [size]), &device);
        last.weight = param(&format!("{name}.weight"), weight);
        last.bias = Some(param(&format!("{name}.bias"), bias));
        self
    }

    /// What the merger's last layer gets for each token of an input's pictures.
    fn merger_states(&self, input: &EncoderInput) -> Vec<Vec<f32>> {
        let Some(patches) = &input.patches else { return Vec::new() };
        let hidden = self.visual.merger_states(patches);
        let [_, width] = hidden.dims();
        let values = hidden.into_data().try_to_vec::<f32>().expect("a structured model is f32");
        values.chunks_exact(width).map(<[f32]>::to_vec).collect()
    }
}

/// The layer `[size, width]` and its bias `[size]` for inputs like the rows of `states`, unless all are equal.
fn fit(mut states: DMatrix<f64>, size: usize, made: &Made) -> Option<(DMatrix<f64>, Vec<f32>)> {
    let width = states.ncols();
    let rounding = ROUNDING * states.norm_squared() / states.nrows() as f64;
    let mean = states.row_mean();
    states.row_iter_mut().for_each(|mut row| row -= &mean);
    let content = size - RESERVED;
    let components = principal_components(&states, content, rounding);
    if components.is_empty() {
        return None;
    }
    // The turn spreads each component over all coordinates.
    let turn = made.orthogonal("visual.merger.mlp.2.weight", content);
    let mut weight = DMatrix::zeros(size, width);
    let mut variance = 0.0;
    for (place, (deviation, direction)) in components.iter().enumerate() {
        let gain = deviation.powf(-WHITENING);
        variance += (gain * deviation).powi(2);
        let mut content_rows = weight.rows_mut(RESERVED, content);
        content_rows.ger(gain, &turn.column(place), direction, 1.0);
    }
    weight *= (content as f64 / variance).sqrt();
    let offset: DVector<f64> = -(&weight * mean.transpose());
    let mut bias: Vec<f32> = offset.iter().map(|x| *x as f32).collect();
    bias[WEIGHT] = PICTURE_WEIGHT * (size as f32).sqrt();
    Some((weight, bias))
}

/// At most `most` directions of unit length with the standard deviation along them, greatest first; those of a
/// variance up to `least` are left out.
fn principal_components(centred: &DMatrix<f64>, most: usize, least: f64) -> Vec<(f64, DVector<f64>)> {
    let count = centred.nrows() as f64;
    // The inner products of rows have the spectrum of the covariance.
    let eigen = (centred * centred.transpose() / count).symmetric_eigen();
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]).then(a.cmp(b)));
    let kept = order.into_iter().take(most).filter(|i| eigen.eigenvalues[*i] > least);
    kept.map(|i| {
        let deviation = eigen.eigenvalues[i].sqrt();
        let direction = centred.tr_mul(&eigen.eigenvectors.column(i)) / (deviation * count.sqrt());
        // Either sign is an eigenvector.
        let sign = direction[direction.iamax()].signum();
        (deviation, direction * sign)
    })
    .collect()
}
