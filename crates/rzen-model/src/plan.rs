//! What a model of some shape costs: operations and memory, from the configuration alone.

use std::ops::{Add, Mul};

use burn::tensor::FloatDType;

use crate::config::{ModelConfig, TextConfig};
use crate::pieces::{MLP_ROWS, PATCHES};

/// The sizes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemShape {
    /// Tokens that are no part of a picture, the template's included.
    pub words: usize,
    /// Tokens of each picture.
    pub pictures: Vec<usize>,
}

impl ItemShape {
    /// Tokens that the decoder gets.
    pub fn tokens(&self) -> usize {
        self.words + self.pictures.iter().sum::<usize>()
    }
}

/// How a forward pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Tensor by tensor, on any device.
    Tensors,
    /// Through fused kernels, in main memory.
    Fused,
}

impl Way {
    /// The way of [`Qwen2Vl::embed`](crate::Qwen2Vl::embed) with weights of this type.
    pub fn of(dtype: FloatDType, in_main_memory: bool) -> Self {
        let fused = cfg!(feature = "cpu") && matches!(dtype, FloatDType::F32 | FloatDType::BF16);
        if fused && in_main_memory { Way::Fused } else { Way::Tensors }
    }
}

/// Operations, two for each multiplication with its addition; norms and the like are left out. Exact where
/// they are fewer than 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Operations {
    /// Products with weights of the vision tower and its merger.
    pub tower_linear: f64,
    /// Products of patches with patches of their picture.
    pub tower_attention: f64,
    /// Products with weights of the decoder.
    pub decoder_linear: f64,
    /// Products of tokens with the tokens before them.
    pub decoder_attention: f64,
}

impl Operations {
    /// Of the vision tower.
    pub fn tower(&self) -> f64 {
        self.tower_linear + self.tower_attention
    }

    /// Of the decoder.
    pub fn decoder(&self) -> f64 {
        self.decoder_linear + self.decoder_attention
    }

    /// Products with weights.
    pub fn linear(&self) -> f64 {
        self.tower_linear + self.decoder_linear
    }

    /// Products of states with states.
    pub fn attention(&self) -> f64 {
        self.tower_attention + self.decoder_attention
    }

    /// All.
    pub fn total(&self) -> f64 {
        self.tower() + self.decoder()
    }
}

impl Add for Operations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Operations {
            tower_linear: self.tower_linear + other.tower_linear,
            tower_attention: self.tower_attention + other.tower_attention,
            decoder_linear: self.decoder_linear + other.decoder_linear,
            decoder_attention: self.decoder_attention + other.decoder_attention,
        }
    }
}

impl Mul<f64> for Operations {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Operations {
            tower_linear: self.tower_linear * times,
            tower_attention: self.tower_attention * times,
            decoder_linear: self.decoder_linear * times,
            decoder_attention: self.decoder_attention * times,
        }
    }
}

/// Bytes that a run of a model needs at its peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// All weights, the token table included.
    pub weights: f64,
    /// States of the micro-batches that are computed side by side.
    pub activations: f64,
    /// Pixels of the items that wait for their batch.
    pub waiting: f64,
}

impl Memory {
    /// All.
    pub fn total(&self) -> f64 {
        self.weights + self.activations + self.waiting
    }
}

impl ModelConfig {
    /// The operations that embedding an item takes here: still pictures use the kernel of one frame, the last
    /// block computes the pooled token alone, and a token's attention ends at itself.
    pub fn operations(&self, item: &ItemShape) -> Operations {
        let full = self.full_operations(item);
        let (text, rows) = (&self.text, item.tokens() as f64);
        // All but one row's queries, way out and MLP of one block, and half a square of its attention.
        let left_out = (rows - 1.0) * 2.0 * (decoder_matrices(text) - key_matrices(text));
        let half_square = 2.0 * rows * rows * text.hidden_size as f64;
        let row = 4.0 * rows * text.hidden_size as f64;
        let patches = self.all_patches(item);
        let kernel = 2.0 * patches * (self.vision.embed_dim * self.vision.patch_dim()) as f64;
        Operations {
            tower_linear: full.tower_linear - kernel + kernel / self.vision.temporal_patch_size as f64,
            tower_attention: full.tower_attention,
            decoder_linear: full.decoder_linear - left_out,
            decoder_attention: full.decoder_attention - half_square + row.min(half_square),
        }
    }

    /// The operations of a model that leaves nothing out but attention to later tokens: what others count.
    pub fn full_operations(&self, item: &ItemShape) -> Operations {
        let (text, rows) = (&self.text, item.tokens() as f64);
        let layers = text.num_hidden_layers as f64;
        let tower = item.pictures.iter().map(|tokens| self.tower_operations(*tokens));
        Operations {
            decoder_linear: layers * rows * 2.0 * decoder_matrices(text),
            decoder_attention: layers * 2.0 * rows * rows * text.hidden_size as f64,
            ..tower.fold(Operations::default(), Add::add)
        }
    }

    fn tower_operations(&self, tokens: usize) -> Operations {
        let (vision, patches) = (&self.vision, self.patches(tokens));
        let (size, wide, depth) = (vision.embed_dim as f64, vision.mlp_dim() as f64, vision.depth as f64);
        let kernel = size * vision.patch_dim() as f64;
        let block = 4.0 * size * size + 2.0 * size * wide;
        let merged = size * vision.merge_unit() as f64;
        let merger = tokens as f64 * merged * (merged + self.text.hidden_size as f64);
        Operations {
            tower_linear: 2.0 * (patches * (kernel + depth * block) + merger),
            tower_attention: depth * 4.0 * patches * patches * size,
            ..Operations::default()
        }
    }

    fn patches(&self, tokens: usize) -> f64 {
        (tokens * self.vision.merge_unit()) as f64
    }

    /// The memory that embedding takes at its peak, with weights of `weight_size` bytes a number.
    ///
    /// - `batch`: an item, and how many like it make a micro-batch, of which `side_by_side` are computed at once
    /// - `waiting`: items that are read and not computed yet, and how many there are of each
    ///
    /// Attention works on tiles and needs no square of tokens; what programs need for themselves is left out.
    pub fn memory(
        &self,
        way: Way,
        weight_size: usize,
        batch: (&ItemShape, usize),
        side_by_side: usize,
        waiting: &[(&ItemShape, usize)],
    ) -> Memory {
        let (item, count) = batch;
        let states = match way {
            Way::Tensors => self.tensor_states(weight_size, item, count),
            Way::Fused => self.fused_states(item, count),
        };
        // One frame of each patch.
        let own = count as f64 * self.pixels(item) / self.vision.temporal_patch_size as f64;
        Memory {
            weights: (self.num_parameters() * weight_size) as f64,
            activations: side_by_side as f64 * (states + own),
            waiting: waiting.iter().fold(0.0, |sum, (item, count)| sum + self.pixels(item) * *count as f64),
        }
    }

    fn tensor_states(&self, weight_size: usize, item: &ItemShape, count: usize) -> f64 {
        let (text, vision) = (&self.text, &self.vision);
        let patches = self.all_patches(item);
        let tower = patches * row_bytes(vision.embed_dim, vision.mlp_dim(), weight_size);
        let decoder = item.tokens() as f64 * row_bytes(text.hidden_size, text.intermediate_size, weight_size);
        count as f64 * tower.max(decoder)
    }

    /// All in f32: some pictures' patches in the tower, then all rows in the decoder, and what an MLP makes of a
    /// piece of them.
    fn fused_states(&self, item: &ItemShape, count: usize) -> f64 {
        let (text, vision) = (&self.text, &self.vision);
        let largest = item.pictures.iter().copied().max().unwrap_or(0);
        let patches = count as f64 * self.all_patches(item);
        let group = patches.min((PATCHES as f64).max(self.patches(largest)));
        // States, normed ones, queries, keys and values, and what products read, packed.
        let tower = group * (6 * vision.embed_dim) as f64;
        let tower_mlp = group * (2 * vision.embed_dim) as f64 + (2 * MLP_ROWS * vision.mlp_dim()) as f64;
        let rows = (count * item.tokens()) as f64;
        let narrow = text.num_key_value_heads * text.head_dim();
        let decoder = rows * (4 * text.hidden_size + 2 * narrow) as f64;
        let decoder_mlp =
            rows * (2 * text.hidden_size) as f64 + (3 * MLP_ROWS * text.intermediate_size) as f64;
        let tokens = patches / vision.merge_unit() as f64 * text.hidden_size as f64;
        4.0 * (tokens + tower.max(tower_mlp).max(decoder).max(decoder_mlp))
    }

    /// Of all pictures of an item. (A sum of no floats would be -0.)
    fn all_patches(&self, item: &ItemShape) -> f64 {
        item.pictures.iter().fold(0.0, |sum, tokens| sum + self.patches(*tokens))
    }

    /// Bytes of an item's pixels.
    fn pixels(&self, item: &ItemShape) -> f64 {
        let patches = self.all_patches(item);
        4.0 * patches * self.vision.patch_dim() as f64
    }
}

/// Bytes that live at once in a block for each of its rows: the row and its normed one, and either what the MLP makes of
/// it (the wide row, the gate, and in types narrower than f32 a product before it is rounded) or, where that is less,
/// what attention makes of it (queries, keys and values as they come, two of them turned, one laid out by head, the
/// result).
fn row_bytes(size: usize, wide: usize, number: usize) -> f64 {
    let unrounded = if number < 4 { 4 * wide } else { 0 };
    (number * (2 * size + (2 * wide).max(7 * size)) + unrounded) as f64
}

/// Numbers of the matrices of a block of the decoder.
fn decoder_matrices(text: &TextConfig) -> f64 {
    let (size, wide) = (text.hidden_size as f64, text.intermediate_size as f64);
    2.0 * size * size + key_matrices(text) + 3.0 * size * wide
}

/// Numbers of the matrices of keys and values.
fn key_matrices(text: &TextConfig) -> f64 {
    2.0 * (text.hidden_size * text.num_key_value_heads * text.head_dim()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::preset("qwen2-vl-2b").unwrap()
    }

    fn text(words: usize) -> ItemShape {
        ItemShape { words, pictures: Vec::new() }
    }

    fn picture(tokens: usize) -> ItemShape {
        ItemShape { words: 40, pictures: vec![tokens] }
    }

    /// 28 blocks of 2 · 1536² + 2 · 1536 · 256 + 3 · 1536 · 8960 = 46 792 704 numbers.
    #[test]
    fn a_text_of_128_tokens() {
        let full = config().full_operations(&text(128));
        assert_eq!(full.decoder_linear, 28.0 * 2.0 * 128.0 * 46_792_704.0);
        assert_eq!(full.decoder_attention, 28.0 * 2.0 * 128.0 * 128.0 * 1536.0);
        assert_eq!((full.tower(), full.total()), (0.0, 336_819_388_416.0));
        // The last block: keys and values of 128 tokens, and one row of 46 006 272 numbers and of attention.
        let here = config().operations(&text(128));
        assert_eq!(
            here.decoder_linear,
            (27 * 2 * 128 * 46_792_704u64 + 2 * 128 * 786_432 + 2 * 46_006_272) as f64
        );
        assert_eq!(here.decoder_attention, (27u64 * 2 * 128 * 128 * 1536 + 4 * 128 * 1536) as f64);
    }

    /// 5120 patches: 14.45 TF, of which the tower 10.84, of which attention 4.30.
    #[test]
    fn a_picture_of_1280_tokens() {
        let full = config().full_operations(&picture(1280));
        assert_eq!(full.tower_attention, (32u64 * 4 * 5120 * 5120 * 1280) as f64);
        let block = 12 * 1280 * 1280u64;
        let merger = 1280 * 5120 * (5120 + 1536);
        assert_eq!(full.tower_linear, (2 * (5120 * (1280 * 1176 + 32 * block) + merger)) as f64);
        let tera = |x: f64| (x / 1e10).round() / 100.0;
        let parts = [full.total(), full.tower(), full.tower_attention, full.decoder()].map(tera);
        assert_eq!(parts, [14.45, 10.84, 4.29, 3.61]);
        let here = config().operations(&picture(1280));
        // A patch needs one frame of two.
        assert_eq!(full.tower_linear - here.tower_linear, (5120u64 * 1280 * 1176) as f64);
        assert_eq!(here.tower_attention, full.tower_attention);
    }

    /// The larger model, and frames, which see only themselves.
    #[test]
    fn published_sums() {
        let seven = ModelConfig::preset("qwen2-vl-7b").unwrap();
        let tera = |config: &ModelConfig, item: &ItemShape| {
            (config.full_operations(item).total() / 1e11).round() / 10.0
        };
        assert_eq!(tera(&seven, &picture(1280)), 28.4);
        let clip = ItemShape { words: 40, pictures: vec![160; 8] };
        assert_eq!(tera(&config(), &clip), 10.7);
        assert_eq!(tera(&seven, &clip), 24.7);
        let frame = config().full_operations(&picture(160)).tower();
        assert_eq!(config().full_operations(&clip).tower(), 8.0 * frame);
    }

    /// A single token is its own pooled one: nothing is left out of a decoder of any depth.
    #[test]
    fn one_token_costs_the_same_with_nothing_left_out() {
        let (one, config) = (text(1), config());
        assert_eq!(config.operations(&one).decoder_linear, config.full_operations(&one).decoder_linear);
        assert_eq!(config.operations(&one).decoder_attention, config.full_operations(&one).decoder_attention);
    }

    #[test]
    fn memory_grows_with_what_lives_at_once() {
        let config = config();
        let (large, words) = (picture(1225), text(100));
        let memory = config.memory(Way::Tensors, 2, (&large, 2), 3, &[(&picture(256), 5), (&text(9), 7)]);
        assert_eq!(memory.weights, 2.0 * 2_208_985_600.0);
        assert_eq!(memory.waiting, (5 * 4 * 4 * 256 * 1176) as f64);
        // 9800 patches of 10 · 1280 numbers and 5120 wide ones, or 2530 tokens of 2 · 1536 + 2 · 8960 and 8960: the
        // tower's are more.
        assert_eq!(memory.activations, (3 * 9800 * (10 * 1280 * 2 + 4 * 5120 + 588 * 4u64)) as f64);
        let tensors = config.memory(Way::Tensors, 4, (&words, 2), 1, &[]);
        assert_eq!(tensors.activations, (200 * (2 * 1536 + 2 * 8960) * 4) as f64);
        assert_eq!(tensors.total(), tensors.weights + tensors.activations + tensors.waiting);
    }

    #[test]
    fn fused_states_grow_with_the_largest_picture_and_all_tokens() {
        let config = config();
        let states =
            |item: &ItemShape, count| config.memory(Way::Fused, 2, (item, count), 1, &[]).activations;
        // One picture at a time: 4900 patches of six times 1280 numbers, and each one's pixels and tokens.
        let own = |count: u64| count * (4 * 1225 * 1536 + 4900 * 588 * 4);
        let tower = 4 * 4900 * 6 * 1280;
        assert_eq!(states(&picture(1225), 1), (tower + own(1)) as f64);
        assert_eq!(states(&picture(1225), 3), (tower + own(3)) as f64);
        // Two times 1536 numbers for each token, and a piece of 640 rows in the MLP; or more tokens than that.
        assert_eq!(states(&text(100), 8), (4 * (800 * 2 * 1536 + 640 * 3 * 8960)) as f64);
        assert_eq!(states(&text(100), 400), (4 * 40_000 * (4 * 1536 + 2 * 256u64)) as f64);
    }
}
