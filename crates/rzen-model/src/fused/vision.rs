//! The vision tower, some pictures at a time.

use std::ops::Range;

use rzen_kernels::{Attention, Heads, Scratch, Then, Window};

use super::layers::{Layer, LayerNorm, Stored};
use super::{Angles, add_mlp};
use crate::PatchInput;
use crate::pieces::PATCHES;
use crate::vision::{VisionBlock, VisionTower};

/// The parameters of the tower.
pub(super) struct Tower<'a> {
    tower: &'a VisionTower,
    blocks: Vec<Block>,
    ln_q: LayerNorm,
    mlp: [Layer; 2],
    widen: bool,
}

/// The parameters of a block.
pub(super) struct Block {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Layer,
    proj: Layer,
    fc1: Layer,
    fc2: Layer,
    heads: usize,
}

impl Block {
    pub(super) fn of(block: &VisionBlock, widen: bool) -> Option<Self> {
        Some(Block {
            norm1: LayerNorm::of(&block.norm1)?,
            norm2: LayerNorm::of(&block.norm2)?,
            qkv: Layer::of(&block.attn.qkv, widen)?,
            proj: Layer::of(&block.attn.proj, widen)?,
            fc1: Layer::of(&block.mlp.fc1, widen)?,
            fc2: Layer::of(&block.mlp.fc2, widen)?,
            heads: block.attn.num_heads,
        })
    }

    /// `x`: `[patches, size]`, in place; `cos` and `sin` have a row for each patch.
    pub(super) fn forward(&self, x: &mut [f32], [cos, sin]: [&[f32]; 2], windows: &[Window]) {
        let size = self.proj.outputs();
        let width = size / self.heads;
        let rows = x.len() / size;
        let mut normed = Scratch::new(x.len());
        let mut qkv = Scratch::new(3 * x.len());
        self.norm1.forward(x, &mut normed);
        self.qkv.forward(&normed, &mut qkv, false, Then::Nothing);
        // Queries and keys stand side by side.
        rzen_kernels::rotate(&mut qkv, 3 * size, 2 * size, cos, sin, width / 2);
        let scale = (width as f32).sqrt().recip();
        let narrow = self.qkv.is_narrow();
        let attention =
            Attention { heads: self.heads, key_heads: self.heads, width, scale, causal: false, narrow };
        let part = |i: usize| Heads { data: &qkv[(i * size).min(qkv.len())..], stride: 3 * size };
        attention.forward(part(0), part(1), part(2), windows, &mut normed[..rows * size]);
        self.proj.forward(&normed, x, true, Then::Nothing);
        drop(qkv);
        add_mlp(x, size, |x| {
            let normed = &mut normed[..x.len()];
            let mut wide = Scratch::new(x.len() / size * self.fc1.outputs());
            self.norm2.forward(x, normed);
            self.fc1.forward(normed, &mut wide, false, Then::QuickGelu);
            self.fc2.forward(&wide, x, true, Then::Nothing);
        });
    }
}

impl<'a> Tower<'a> {
    pub(super) fn of(tower: &'a VisionTower, widen: bool) -> Option<Self> {
        let [first, last] = &tower.merger.mlp[..] else { return None };
        Some(Tower {
            tower,
            blocks: tower.blocks.iter().map(|block| Block::of(block, widen)).collect::<Option<_>>()?,
            ln_q: LayerNorm::of(&tower.merger.ln_q)?,
            mlp: [Layer::of(first, widen)?, Layer::of(last, widen)?],
            widen,
        })
    }

    /// `[tokens, hidden_size]`, as [`VisionTower::forward`].
    pub(super) fn forward(&self, input: &PatchInput) -> Option<Scratch> {
        let kernel = Layer::matrix(self.tower.patch_embed.matrix(input, self.widen))?;
        let pixels = Stored::of(input.pixels.clone())?;
        let angles = Angles::of(&input.rotary)?;
        let [patches, width] = input.pixels.dims();
        let (pixels, cos, sin) = (pixels.f32()?, angles.cos.f32()?, angles.sin.f32()?);
        let half = cos.len() / patches.max(1);
        let unit = self.mlp[0].outputs() / kernel.outputs();
        let mut tokens = Scratch::new(patches / unit * self.mlp[1].outputs());
        let mut done = 0;
        for (rows, windows) in groups(input) {
            let mut x = Scratch::new(rows.len() * kernel.outputs());
            kernel.forward(&pixels[rows.start * width..rows.end * width], &mut x, false, Then::Nothing);
            let angles = [cos, sin].map(|table| &table[rows.start * half..rows.end * half]);
            for block in &self.blocks {
                block.forward(&mut x, angles, &windows);
            }
            let size = rows.len() / unit * self.mlp[1].outputs();
            self.merge(&x, &mut tokens[done..done + size]);
            done += size;
        }
        Some(tokens)
    }

    /// Joins neighbouring patches, `[patches, size]`, to tokens.
    fn merge(&self, x: &[f32], tokens: &mut [f32]) {
        let mut normed = Scratch::new(x.len());
        let mut states = Scratch::new(x.len());
        self.ln_q.forward(x, &mut normed);
        self.mlp[0].forward(&normed, &mut states, false, Then::Nothing);
        rzen_kernels::gelu(&mut states);
        self.mlp[1].forward(&states, tokens, false, Then::Nothing);
    }
}

/// Whole windows, as many as are computed together: their rows, and the windows counted from the first.
fn groups(input: &PatchInput) -> Vec<(Range<usize>, Vec<Window>)> {
    let lengths = input.windows.iter().flat_map(|&(count, length)| std::iter::repeat_n(length, count));
    let mut groups: Vec<(Range<usize>, Vec<Window>)> = Vec::new();
    for length in lengths {
        let next = groups.last().map_or(0, |(rows, _)| rows.end);
        match groups.last_mut() {
            Some((rows, windows)) if rows.len() + length <= PATCHES => {
                windows.push(Window::of(rows.len()..rows.len() + length));
                rows.end += length;
            }
            _ => groups.push((next..next + length, vec![Window::of(0..length)])),
        }
    }
    groups
}
