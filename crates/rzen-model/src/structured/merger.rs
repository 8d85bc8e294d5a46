//! The merger's last layer, fitted to pictures and to the words that go with them.

use burn::tensor::{Tensor, TensorData};
use nalgebra::{DMatrix, DVector};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Made, RESERVED, WEIGHT, rows, tokens};
use crate::weights::param;
use crate::{Collator, Encoded, Qwen2Vl};

/// Items whose principal components are looked for, at most; the work grows with its third power.
const MOST_ITEMS: usize = 1536;
/// The share of the mean square that may be rounding of what the backend computed.
const ROUNDING: f64 = 1e-9;
/// Deviations are raised to one minus this power: 0 would leave them, 1 would make all equal.
const WHITENING: f64 = 0.5;
/// The penalty of whitening what two views differ by, as a share of the mean variance of a coordinate.
const LIKENESS_PENALTY: f64 = 0.1;
/// The share of a picture token's length that asks for weight among words.
const PICTURE_WEIGHT: f32 = 0.5;
/// What the part that is told from captions is to the part that shows the picture itself.
const CAPTION_GAIN: f64 = 0.5;
/// The penalty of the regression onto captions, as a share of the mean variance of a coordinate.
const CAPTION_PENALTY: f64 = 0.05;

/// Items with pictures of the same thing, most often one or two, and the words that go with it where there are some.
/// A merger is fitted to such examples.
#[derive(Clone, Debug)]
pub struct FitExample {
    /// The items.
    pub views: Vec<Encoded>,
    /// The tokens of a text that says what the pictures show; the template's count for next to nothing.
    pub caption: Option<Vec<u32>>,
    /// What the caption, and the likeness of two views, count in the fit.
    pub weight: f64,
}

/// What is kept of the examples.
#[derive(Default)]
struct States {
    /// The mean state of each item that has a caption or a second view.
    related: Vec<Vec<f64>>,
    /// Those of other items.
    lone: Vec<Vec<f64>>,
    /// What two views differ by, and its weight.
    differences: Vec<(Vec<f64>, f64)>,
    captioned: Vec<Captioned>,
}

struct Captioned {
    /// The mean state of the pictures.
    state: Vec<f64>,
    /// The vector of the caption.
    words: Vec<f64>,
    weight: f64,
}

impl Qwen2Vl {
    /// Fits the last layer of the merger to `examples`. The mean token of an item becomes the sum of two parts, both of
    /// zero mean over the examples:
    ///
    /// - its half-whitened principal components (of 1536 items at most, those with a caption or a second view first),
    ///   after what two views of the same thing differ by has been whitened (linear discriminant analysis);
    /// - what a ridge regression from the pictures of an item tells of the mean vector of its caption's words.
    ///
    /// A model that sees no two different pictures is given back as it is. The result depends on the examples and on
    /// `seed`; last bits of the machine's products may turn nearly equal components. The work grows with the third
    /// power of the layer's width.
    ///
    /// # Errors
    /// The first of `examples`.
    ///
    /// # Panics
    /// If the model is not f32 or has an adapter.
    pub fn fit_merger<E>(
        mut self,
        collator: &Collator,
        examples: impl Iterator<Item = Result<Vec<FitExample>, E>>,
        seed: u64,
    ) -> Result<Self, E> {
        assert!(self.adapter.is_none(), "first weights have no adapter");
        let states = self.states(collator, examples)?;
        let size = self.config.text.hidden_size;
        let made = Made { seed, tensors: Default::default() };
        let Some((weight, bias)) = fit(states, size, &made) else { return Ok(self) };
        let last = &mut self.visual.merger.mlp[1];
        let device = last.weight.val().device();
        let name = "visual.merger.mlp.2";
        let shape = [size, weight.ncols()];
        let weight = Tensor::from_data(TensorData::new(rows(&weight), shape), &device);
        let bias = Tensor::from_data(TensorData::new(bias, [size]), &device);
        last.weight = param(&format!("{name}.weight"), weight);
        last.bias = Some(param(&format!("{name}.bias"), bias));
        Ok(self)
    }

    fn states<E>(
        &self,
        collator: &Collator,
        examples: impl Iterator<Item = Result<Vec<FitExample>, E>>,
    ) -> Result<States, E> {
        let table = self.model.embed_tokens.weight.val();
        let [_, size] = table.dims();
        let table = table.into_data().try_to_vec::<f32>().expect("a structured model is f32");
        let mut kept = States::default();
        for batch in examples {
            let batch = batch?;
            let items: Vec<&Encoded> = batch.iter().flat_map(|example| &example.views).collect();
            if items.is_empty() {
                continue;
            }
            let input = collator.collate(&items);
            let Some(patches) = &input.patches else { continue };
            let states = self.visual.merger_states(patches);
            let [_, width] = states.dims();
            let states = states.into_data().try_to_vec::<f32>().expect("a structured model is f32");
            // Where the picture tokens of each item come from, after the rows of words.
            let (words, seq) = (input.batch() * input.seq(), input.seq());
            let order: Vec<i64> = input.tokens.order.into_data().iter().collect();
            let mut items = order.chunks_exact(seq).map(|row| {
                let pictures = row.iter().filter_map(|place| (*place as usize).checked_sub(words));
                pictures.map(|state| &states[state * width..][..width]).collect::<Vec<&[f32]>>()
            });
            for FitExample { views, caption, weight } in batch {
                let with_pictures = items.by_ref().take(views.len()).filter(|own| !own.is_empty());
                let means: Vec<Vec<f64>> = with_pictures.map(|own| mean(&own)).collect();
                let is_related = caption.is_some() || means.len() > 1;
                let states = if is_related { &mut kept.related } else { &mut kept.lone };
                states.extend(means.iter().cloned());
                for pair in means.windows(2) {
                    let difference = pair[0].iter().zip(&pair[1]).map(|(a, b)| a - b).collect();
                    kept.differences.push((difference, weight));
                }
                let words = caption.and_then(|ids| tokens::mean(&ids, &table, size));
                let captioned = |state| words.clone().map(|words| Captioned { state, words, weight });
                kept.captioned.extend(means.into_iter().filter_map(captioned));
            }
        }
        Ok(kept)
    }
}

fn mean(states: &[&[f32]]) -> Vec<f64> {
    let mut mean = vec![0.0; states[0].len()];
    for state in states {
        mean.iter_mut().zip(*state).for_each(|(m, x)| *m += f64::from(*x) / states.len() as f64);
    }
    mean
}

/// The layer `[size, width]` and its bias `[size]`, unless all items are equal.
fn fit(kept: States, size: usize, made: &Made) -> Option<(DMatrix<f64>, Vec<f32>)> {
    let States { related: mut states, mut lone, differences, captioned } = kept;
    let mut random = ChaCha8Rng::seed_from_u64(made.seed);
    states.shuffle(&mut random);
    lone.shuffle(&mut random);
    states.append(&mut lone);
    states.truncate(MOST_ITEMS);
    let width = states.first()?.len();
    let states = DMatrix::from_fn(states.len(), width, |i, j| states[i][j]);
    let mean = states.row_mean();
    let root = root_of_likeness(&differences, width);
    let mut states = match &root {
        Some(root) => root.solve_lower_triangular(&states.transpose())?.transpose(),
        None => states,
    };
    let rounding = ROUNDING * states.norm_squared() / states.nrows() as f64;
    let middle = states.row_mean();
    states.row_iter_mut().for_each(|mut row| row -= &middle);
    let content = size - RESERVED;
    let components = principal_components(&states, content, rounding);
    if components.is_empty() {
        return None;
    }
    // The turn spreads each component over all coordinates.
    let turn = made.orthogonal("visual.merger.mlp.2.weight", content);
    let mut own = DMatrix::zeros(content, width);
    let mut variance = 0.0;
    for (place, (deviation, direction)) in components.iter().enumerate() {
        let gain = deviation.powf(-WHITENING);
        variance += (gain * deviation).powi(2);
        own.ger(gain, &turn.column(place), direction, 1.0);
    }
    own *= (content as f64 / variance).sqrt();
    if let Some(root) = &root {
        own = root.tr_solve_lower_triangular(&own.transpose())?.transpose();
    }
    if let Some(told) = regression(&captioned, content) {
        own = (own + told * CAPTION_GAIN) / 1f64.hypot(CAPTION_GAIN);
    }
    let mut weight = DMatrix::zeros(size, width);
    weight.rows_mut(RESERVED, content).copy_from(&own);
    let offset: DVector<f64> = -(&weight * mean.transpose());
    let mut bias: Vec<f32> = offset.iter().map(|x| *x as f32).collect();
    bias[WEIGHT] = PICTURE_WEIGHT * (size as f32).sqrt();
    Some((weight, bias))
}

/// The Cholesky root `[width, width]` of the covariance of what two views of the same thing differ by, with a penalty
/// that keeps it from vanishing anywhere.
fn root_of_likeness(differences: &[(Vec<f64>, f64)], width: usize) -> Option<DMatrix<f64>> {
    let rows = DMatrix::from_fn(differences.len(), width, |i, j| {
        let (difference, weight) = &differences[i];
        difference[j] * weight.sqrt()
    });
    let covariance = penalised(rows.transpose() * &rows, LIKENESS_PENALTY);
    // Without differences nothing is positive.
    covariance.cholesky().map(|cholesky| cholesky.unpack())
}

/// With this share of the mean variance of a coordinate added to each.
fn penalised(mut covariance: DMatrix<f64>, share: f64) -> DMatrix<f64> {
    let width = covariance.nrows();
    let penalty = share * covariance.trace() / width as f64;
    for i in 0..width {
        covariance[(i, i)] += penalty;
    }
    covariance
}

/// The ridge regression `[content, width]` of captions on states, scaled so that what it tells of the captions' own
/// items has a mean square of 1; none where all captions or all pictures are alike.
fn regression(captioned: &[Captioned], content: usize) -> Option<DMatrix<f64>> {
    let width = captioned.first()?.state.len();
    let all: f64 = captioned.iter().map(|row| row.weight).sum();
    let centred = |columns: usize, of: fn(&Captioned) -> &[f64]| {
        let mut mean = vec![0.0; columns];
        for row in captioned {
            mean.iter_mut().zip(of(row)).for_each(|(m, x)| *m += x * row.weight / all);
        }
        DMatrix::from_fn(captioned.len(), columns, |i, j| {
            (of(&captioned[i])[j] - mean[j]) * (captioned[i].weight / all).sqrt()
        })
    };
    let (states, words) = (centred(width, |row| &row.state), centred(content, |row| &row.words));
    let square = |row: &Captioned| row.weight / all * row.state.iter().map(|x| x * x).sum::<f64>();
    let all_alike = states.norm_squared() <= ROUNDING * captioned.iter().map(square).sum::<f64>();
    // The vectors of words have unit length.
    if all_alike || words.norm_squared() <= ROUNDING {
        return None;
    }
    // `tr_mul` would be many times slower.
    let across = states.transpose();
    let covariance = penalised(&across * &states, CAPTION_PENALTY);
    let told = covariance.cholesky()?.solve(&(&across * &words));
    let mean_square = (&states * &told).norm_squared() / content as f64;
    (mean_square > 0.0).then(|| told.transpose() / mean_square.sqrt())
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
