//! A start that knows what retrieval needs: random weights under which an untrained model already tells
//! items apart.
//!
//! With plain random weights all items look alike: the template's tokens outweigh the content, the mean
//! picture outweighs what differs between pictures, and a small training set is used up by mending that.
//! Here every tensor keeps its published role and shape, but
//!
//! - words: a token's row sums vectors of its character n-grams (as fastText does, <https://arxiv.org/abs/1607.04606>),
//!   so that `Git`, ` git` and `gits` are near each other, and rare tokens weigh more (after SIF,
//!   <https://openreview.net/forum?id=SyK00v5xx>, but compressed, since the norm before attention bounds it);
//! - the decoder: the last token takes the weighted mean of the content; control tokens get no weight, other tokens of
//!   the template hardly any; blocks before the last look at near tokens;
//! - the vision tower: the patch kernel is a cosine basis that raises high frequencies, which pictures have little of;
//!   the first block's MLP sums up edges by direction (histograms of oriented gradients); in the blocks behind it each
//!   head looks at one neighbour of its patch, as a convolution would (biases and rotary positions alone can say so;
//!   compare <https://arxiv.org/abs/2404.01139>);
//! - the merger: [`Qwen2Vl::fit_merger`] fits its last layer to pictures of the training set and to the words that go
//!   with them (data-dependent initialisation, <https://arxiv.org/abs/1511.06856>; a linear probe before all is
//!   trained distorts features less, <https://arxiv.org/abs/2202.10054>).
//!
//! Two coordinates of the decoder's state are kept for this: [`TEMPLATE`] and [`WEIGHT`].

mod decoder;
mod merger;
mod tokens;
mod vision;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, FloatDType};
use nalgebra::DMatrix;
use rzen_core::LoadedItem;

pub use self::merger::FitExample;
use crate::weights::{Weights, name_hash, normals};
use crate::{ModelConfig, ProcessError, Processor, Qwen2Vl, SPECIAL_TOKENS};

/// The coordinate that marks tokens of the template.
const TEMPLATE: usize = 0;
/// The coordinate that says how much a token weighs in the mean.
const WEIGHT: usize = 1;
/// Coordinates that carry no content.
const RESERVED: usize = 2;
/// The logarithm of a token's weight in the mean, for a [`WEIGHT`] of all its length.
const WEIGHT_LOGIT: f64 = 4.0;
/// How far below content the logit of the template's tokens is.
const GATE_LOGIT: f64 = 8.0;

/// What is known of the words of a training set before training.
#[derive(Clone, Debug, Default)]
pub struct WordStatistics {
    /// How often each token occurs, by its id.
    counts: Vec<u64>,
    /// What each token looks like to a reader, in lower case; empty where it is no whole text.
    texts: Vec<String>,
    /// The tokens that stand around every item, and may be parts of words as well.
    template: BTreeSet<u32>,
    /// The control tokens.
    control: BTreeSet<u32>,
}

impl WordStatistics {
    /// Counts the tokens of `texts` as `processor` writes them.
    ///
    /// # Errors
    /// If a text can't be encoded.
    pub fn count<'a>(
        processor: &Processor,
        texts: impl Iterator<Item = &'a str>,
    ) -> Result<Self, ProcessError> {
        let tokenizer = processor.tokenizer();
        let size = processor.highest_id() as usize + 1;
        let mut counts = vec![0; size];
        for text in texts {
            let encoding = tokenizer.encode(text, false).map_err(ProcessError::Tokenize)?;
            encoding.get_ids().iter().for_each(|id| counts[*id as usize] += 1);
        }
        let text = |id: usize| -> Result<String, ProcessError> {
            let text = tokenizer.decode(&[id as u32], false).map_err(ProcessError::Tokenize)?;
            Ok(if text.contains('\u{fffd}') { String::new() } else { text.trim().to_lowercase() })
        };
        let texts = (0..size).map(text).collect::<Result<_, _>>()?;
        let empty = processor.process(&LoadedItem::default())?;
        let prompt = tokenizer.encode(processor.config().picture_prompt.as_str(), false);
        let prompt = prompt.map_err(ProcessError::Tokenize)?;
        let template = empty.input_ids.iter().chain(prompt.get_ids()).copied().collect();
        let is_control = |name: &&str| tokenizer.token_to_id(name);
        let control = SPECIAL_TOKENS.iter().filter_map(is_control).collect();
        Ok(WordStatistics { counts, texts, template, control })
    }
}

impl Qwen2Vl {
    /// A model of this shape, in f32, whose first weights are random but let content count before training: tokens
    /// start from their spelling and rarity, attention as a weighted mean over content, patches from their colours and
    /// edges. The part that needs pictures is [`fit_merger`](Self::fit_merger).
    ///
    /// The numbers depend on `config`, `seed` and `words` alone, up to the last bits of products of matrices, which
    /// depend on the machine.
    pub fn structured(config: &ModelConfig, seed: u64, words: &WordStatistics, device: &Device) -> Self {
        let mut made = Made { seed, tensors: BTreeMap::new() };
        vision::make(&mut made, &config.vision);
        decoder::make(&mut made, &config.text);
        tokens::make(&mut made, &config.text, words);
        let mut weights = Weights::from_made(seed, made.tensors, FloatDType::F32, device);
        Self::build(config, &mut weights, device).expect("a seed has every tensor")
    }
}

/// The tensors that are not plain random numbers, in the order of rows.
struct Made {
    seed: u64,
    tensors: BTreeMap<String, Vec<f32>>,
}

impl Made {
    fn put(&mut self, name: impl Into<String>, values: Vec<f32>) {
        self.tensors.insert(name.into(), values);
    }

    /// Random numbers that depend on the seed and `name`.
    fn normals(&self, name: &str, count: usize, deviation: f64) -> Vec<f32> {
        normals(self.seed ^ name_hash(name), count, deviation)
    }

    /// A random orthogonal matrix.
    fn orthogonal(&self, name: &str, size: usize) -> DMatrix<f64> {
        let numbers = self.normals(name, size * size, 1.0).into_iter().map(f64::from);
        DMatrix::from_iterator(size, size, numbers).qr().q()
    }
}

/// The biases of a query and a key of one head.
///
/// Rotary positions turn the pair of frequency `f` by `f` times the distance `d`.
struct Biases {
    query: Vec<f32>,
    key: Vec<f32>,
}

impl Biases {
    fn zero(head_dim: usize) -> Self {
        Biases { query: vec![0.0; head_dim], key: vec![0.0; head_dim] }
    }

    /// Adds `logit · cos(f d - angle)` to the head's logit, through the pair at `place`.
    fn prefer(&mut self, place: usize, logit: f64, angle: f64) {
        let head_dim = self.query.len();
        let length = (logit * (head_dim as f64).sqrt()).sqrt();
        self.query[place] = (length * angle.cos()) as f32;
        self.query[head_dim / 2 + place] = (length * angle.sin()) as f32;
        self.key[place] = length as f32;
    }
}

/// The elements row by row, as checkpoint files have them.
fn rows(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|x| *x as f32).collect()
}

#[cfg(test)]
mod tests;
