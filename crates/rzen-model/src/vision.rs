//! The vision tower: patches of pictures to tokens of the decoder's width.

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, sigmoid};
use burn::tensor::{FloatDType, Tensor};

use crate::attention::{Projected, attend};
use crate::config::VisionConfig;
use crate::linear::Linear;
use crate::norm::LayerNorm;
use crate::rotary::Rotary;
use crate::trace::Trace;
use crate::weights::{Init, Weights};
use crate::{ModelError, PatchInput};

/// Qwen2-VL's vision tower and merger (`visual.*`).
#[derive(Module, Debug)]
pub struct VisionTower {
    /// The patch kernel.
    pub patch_embed: PatchEmbed,
    /// Pre-norm transformer blocks.
    pub blocks: Vec<VisionBlock>,
    /// Joins 4 patches to a token.
    pub merger: Merger,
}

impl VisionTower {
    pub(crate) fn load(
        weights: &mut Weights,
        config: &VisionConfig,
        hidden_size: usize,
    ) -> Result<Self, ModelError> {
        let blocks = (0..config.depth)
            .map(|i| VisionBlock::load(weights, &format!("visual.blocks.{i}"), config))
            .collect::<Result<_, _>>()?;
        Ok(VisionTower {
            patch_embed: PatchEmbed::load(weights, config)?,
            blocks,
            merger: Merger::load(weights, config, hidden_size)?,
        })
    }

    /// Returns `[tokens, hidden_size]`, one row for each 4 patches, in order.
    pub fn forward(&self, input: &PatchInput, trace: &mut Trace) -> Tensor<2> {
        let tokens = self.merger.forward(self.patches(input, trace));
        trace.keep(|| "vision_output".into(), &tokens);
        tokens
    }

    /// What the merger's last layer gets, a row for each token.
    pub(crate) fn merger_states(&self, input: &PatchInput) -> Tensor<2> {
        self.merger.states(self.patches(input, &mut Trace::off()))
    }

    /// The last block's states: `[patches, embed_dim]`.
    fn patches(&self, input: &PatchInput, trace: &mut Trace) -> Tensor<2> {
        let mut x = self.patch_embed.forward(input);
        trace.keep(|| "vision_patch_embed".into(), &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, input);
            trace.keep(|| format!("vision_block_{i}"), &x);
        }
        x
    }
}

/// The patch kernel: a convolution whose stride is its size, so one matrix product.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// Named `proj` in files.
    pub proj: Kernel,
}

/// The weight of [`PatchEmbed`]; `[E, C, T, P, P]` in files.
#[derive(Module, Debug)]
pub struct Kernel {
    /// `[embed_dim, channels · frames · patch · patch]`.
    pub weight: Param<Tensor<2>>,
    #[module(skip)]
    channels: usize,
    #[module(skip)]
    frames: usize,
}

impl PatchEmbed {
    fn load(weights: &mut Weights, config: &VisionConfig) -> Result<Self, ModelError> {
        let init = Init::Normal((config.patch_dim() as f64).sqrt().recip());
        let shape = [config.embed_dim, config.patch_dim()];
        let weight =
            weights.reshaped("visual.patch_embed.proj.weight", &config.kernel_shape(), shape, init)?;
        let proj = Kernel { weight, channels: config.in_channels, frames: config.temporal_patch_size };
        Ok(PatchEmbed { proj })
    }

    pub(crate) fn forward(&self, input: &PatchInput) -> Tensor<2> {
        let weight = self.matrix(input, false);
        let dtype = FloatDType::from(weight.dtype());
        input.pixels_like(&weight).cast(dtype).matmul(weight.transpose())
    }

    /// The kernel for these pixels, as f32 if `widen` says so: `[embed_dim, numbers of a patch]`.
    pub(crate) fn matrix(&self, input: &PatchInput, widen: bool) -> Tensor<2> {
        let weight = self.proj.weight.val();
        let weight = if widen { weight.cast(FloatDType::F32) } else { weight };
        match input.still() {
            true => self.proj.folded(weight),
            false => weight,
        }
    }
}

impl Kernel {
    /// The kernel for patches whose frames are all equal: the sum over its frames, so that a patch
    /// needs the pixels of one frame only.
    fn folded(&self, weight: Tensor<2>) -> Tensor<2> {
        let [size, width] = weight.dims();
        let area = width / self.channels / self.frames;
        weight
            .reshape([size, self.channels, self.frames, area])
            .sum_dim(2)
            .reshape([size, self.channels * area])
    }
}

/// A block of the tower.
#[derive(Module, Debug)]
pub struct VisionBlock {
    /// Before attention.
    pub norm1: LayerNorm,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// Full attention within a picture.
    pub attn: VisionAttention,
    /// Two layers with QuickGELU between.
    pub mlp: VisionMlp,
}

impl VisionBlock {
    fn load(weights: &mut Weights, name: &str, config: &VisionConfig) -> Result<Self, ModelError> {
        let size = config.embed_dim;
        Ok(VisionBlock {
            norm1: LayerNorm::load(weights, &format!("{name}.norm1"), size)?,
            norm2: LayerNorm::load(weights, &format!("{name}.norm2"), size)?,
            attn: VisionAttention {
                qkv: Linear::load(weights, &format!("{name}.attn.qkv"), [3 * size, size], true)?,
                proj: Linear::load(weights, &format!("{name}.attn.proj"), [size, size], true)?,
                num_heads: config.num_heads,
            },
            mlp: VisionMlp {
                fc1: Linear::load(weights, &format!("{name}.mlp.fc1"), [config.mlp_dim(), size], true)?,
                fc2: Linear::load(weights, &format!("{name}.mlp.fc2"), [size, config.mlp_dim()], true)?,
            },
        })
    }

    pub(crate) fn forward(&self, x: Tensor<2>, input: &PatchInput) -> Tensor<2> {
        let y = attend(self.project(x.clone(), input), &input.attention_windows());
        self.finish(x, y)
    }

    /// What attends to what.
    pub(crate) fn project(&self, x: Tensor<2>, input: &PatchInput) -> Projected {
        self.attn.project(self.norm1.forward(x), input)
    }

    /// All that comes after attention.
    pub(crate) fn finish(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let x = x + self.attn.proj.forward(y);
        x.clone() + self.mlp.forward(self.norm2.forward(x))
    }
}

/// Attention of patches to the patches of the same frame.
#[derive(Module, Debug)]
pub struct VisionAttention {
    /// Queries, keys and values in one layer.
    pub qkv: Linear,
    /// The way out.
    pub proj: Linear,
    #[module(skip)]
    pub(crate) num_heads: usize,
}

impl VisionAttention {
    fn project(&self, x: Tensor<2>, input: &PatchInput) -> Projected {
        let [patches, size] = x.dims();
        let qkv = self.qkv.forward(x).reshape([patches, 3, self.num_heads, size / self.num_heads]);
        let part = |i: usize| -> Tensor<3> { qkv.clone().narrow(1, i, 1).squeeze_dim(1) };
        [self.turn(part(0), &input.rotary), self.turn(part(1), &input.rotary), part(2)]
    }

    /// Rotary positions are applied in f32 also to narrower states, as the reference does.
    fn turn(&self, x: Tensor<3>, rotary: &Rotary) -> Tensor<3> {
        let dtype = FloatDType::from(x.dtype());
        rotary.apply(x.cast(FloatDType::F32)).cast(dtype)
    }
}

/// The MLP of a block.
#[derive(Module, Debug)]
pub struct VisionMlp {
    /// The wide layer.
    pub fc1: Linear,
    /// The way back.
    pub fc2: Linear,
}

impl VisionMlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.fc1.forward(x);
        // QuickGELU.
        self.fc2.forward(x.clone() * sigmoid(x.mul_scalar(1.702)))
    }
}

/// Joins the patches of a token and maps them to the decoder's width.
#[derive(Module, Debug)]
pub struct Merger {
    /// Over single patches.
    pub ln_q: LayerNorm,
    /// Named `mlp.0` and `mlp.2` in files, with an exact GELU between.
    pub mlp: Vec<Linear>,
}

impl Merger {
    fn load(weights: &mut Weights, config: &VisionConfig, hidden_size: usize) -> Result<Self, ModelError> {
        let size = config.embed_dim * config.merge_unit();
        Ok(Merger {
            ln_q: LayerNorm::load(weights, "visual.merger.ln_q", config.embed_dim)?,
            mlp: vec![
                Linear::load(weights, "visual.merger.mlp.0", [size, size], true)?,
                Linear::load(weights, "visual.merger.mlp.2", [hidden_size, size], true)?,
            ],
        })
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.mlp[1].forward(self.states(x))
    }

    /// What the last layer gets.
    fn states(&self, x: Tensor<2>) -> Tensor<2> {
        let [_, size] = self.mlp[0].weight.dims();
        let [patches, width] = x.dims();
        let x = self.ln_q.forward(x).reshape([patches * width / size, size]);
        gelu(self.mlp[0].forward(x))
    }
}
