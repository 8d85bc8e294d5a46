//! Training block by block: a forward pass that keeps what each block was given, and a backward pass that computes one
//! block at a time again ([activation checkpointing](https://arxiv.org/abs/1604.06174)).
//!
//! A block is pulled back in three parts, so that its scores never stand in a graph: all that comes after attention,
//! attention itself ([`attend_backward`]), all that comes before. Weights that are stored as bf16 and computed with as
//! f32 are widened for their block's turn only.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, FloatDType, Gradients, IndexingUpdateOp, Int, Tensor};
use rzen_core::Pullback;

use crate::attention::{Projected, Windows, attend, attend_backward};
use crate::decoder::DecoderLayer;
use crate::encoder::{EncoderInput, PatchInput, Qwen2Vl, TokenInput, join, unit_rows};
use crate::vision::{Merger, VisionBlock};

/// The embeddings, and what pulls a gradient back through them; `model` may be on either device.
pub(crate) fn encode(model: &Qwen2Vl, input: EncoderInput) -> (Tensor<2>, Pullback) {
    let model = model.valid();
    let (kept, pooled) = Kept::forward(&model, &input);
    let embedding = unit_rows(widened(&model, &model.model.norm).forward(pooled.clone()));
    let pullback = move |gradient| {
        let mut pull = Pull { model: &model, gradients: GradientsParams::new() };
        kept.pull(&mut pull, &input, pooled, gradient);
        pull.gradients
    };
    (embedding, Box::new(pullback))
}

/// What blocks were given, in order.
struct Kept {
    /// The blocks of the vision tower, and the merger.
    patches: Vec<Tensor<2>>,
    /// The layers of the decoder.
    tokens: Vec<Tensor<2>>,
}

impl Kept {
    /// Also gives what the decoder's last norm was given.
    fn forward(model: &Qwen2Vl, input: &EncoderInput) -> (Self, Tensor<2>) {
        let mut kept = Kept { patches: Vec::new(), tokens: Vec::new() };
        let pictures = input.patches.as_ref().map(|patches| {
            let mut x = widened(model, &model.visual.patch_embed).forward(patches);
            for block in &model.visual.blocks {
                kept.patches.push(x.clone());
                x = vision_block(model, block, x, patches);
            }
            kept.patches.push(x.clone());
            widened(model, &model.visual.merger).forward(x)
        });
        let mut x = join(model.words(&input.tokens), pictures, &input.tokens);
        let (last, layers) = model.model.layers.split_last().expect("a decoder has at least one layer");
        for layer in layers {
            kept.tokens.push(x.clone());
            x = decoder_layer(model, layer, x, &input.tokens);
        }
        kept.tokens.push(x.clone());
        (kept, widened(model, last).forward_pooled(x, &input.tokens))
    }

    /// Pulls the gradient of the embeddings back as far down as something trains.
    fn pull(mut self, pull: &mut Pull, input: &EncoderInput, pooled: Tensor<2>, gradient: Tensor<2>) {
        let (decoder, tokens) = (&pull.model.model, &input.tokens);
        let patches = input.patches.as_ref().filter(|_| trains(&pull.model.visual));
        let embeds = patches.is_some() || trains(&decoder.embed_tokens);
        let mut gradient =
            pull.through(&decoder.norm, pooled, gradient, |norm, x| unit_rows(norm.forward(x)));
        let last = decoder.layers.len() - 1;
        for (i, layer) in decoder.layers.iter().enumerate().skip(lowest(embeds, &decoder.layers)).rev() {
            let x = self.tokens.pop().expect("each layer was given something");
            gradient = match i == last {
                true => pull.through_block(
                    (layer, x, gradient),
                    &[tokens.last_windows()],
                    |layer, x| layer.project_pooled(x, tokens),
                    |layer, x, y| layer.finish_pooled(x, y, tokens),
                ),
                false => pull.through_block(
                    (layer, x, gradient),
                    &[tokens.windows()],
                    |layer, x| layer.project(x, tokens),
                    DecoderLayer::finish,
                ),
            };
        }
        if !embeds {
            return;
        }
        let gradient = pull.through_join(gradient, input);
        if let Some(patches) = patches {
            let words = tokens.batch * tokens.seq;
            let pictures = gradient.dims()[0] - words;
            self.pull_patches(pull, patches, gradient.narrow(0, words, pictures));
        }
    }

    /// The same for the vision tower, given the gradient of its tokens.
    fn pull_patches(mut self, pull: &mut Pull, patches: &PatchInput, gradient: Tensor<2>) {
        let tower = &pull.model.visual;
        let embeds = trains(&tower.patch_embed);
        let x = self.patches.pop().expect("the merger was given something");
        let mut gradient = pull.through(&tower.merger, x, gradient, Merger::forward);
        for block in tower.blocks.iter().skip(lowest(embeds, &tower.blocks)).rev() {
            let x = self.patches.pop().expect("each block was given something");
            gradient = pull.through_block(
                (block, x, gradient),
                &patches.attention_windows(),
                |block, x| block.project(x, patches),
                VisionBlock::finish,
            );
        }
        if embeds {
            let kernel = widened(pull.model, &tower.patch_embed).train();
            let made = product(kernel.forward(patches), gradient);
            pull.keep(&kernel, made.backward());
        }
    }
}

/// Gradients on their way down.
struct Pull<'a> {
    /// On the plain device.
    model: &'a Qwen2Vl,
    /// Of what has been passed.
    gradients: GradientsParams,
}

impl Pull<'_> {
    /// The gradient of `x`, given that of `run(module, x)`.
    fn through<M: Module>(
        &mut self,
        module: &M,
        x: Tensor<2>,
        gradient: Tensor<2>,
        run: impl FnOnce(&M, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let module = widened(self.model, module).train();
        let x = leaf(x);
        let mut gradients = product(run(&module, x.clone()), gradient).backward();
        let below = take(&x, &mut gradients);
        self.keep(&module, gradients);
        below
    }

    /// The gradient of `x`, given that of what the block makes of it.
    fn through_block<M: Module>(
        &mut self,
        (block, x, gradient): (&M, Tensor<2>, Tensor<2>),
        windows: &[Windows],
        project: impl FnOnce(&M, Tensor<2>) -> Projected,
        finish: impl FnOnce(&M, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let block = widened(self.model, block).train();
        let before = leaf(x.clone());
        let projected = project(&block, before.clone());
        let inner = projected.clone().map(Tensor::inner);
        let y = attend(inner.clone(), windows);

        let (beside, attended) = (leaf(x), leaf(y.clone()));
        let mut gradients = product(finish(&block, beside.clone(), attended.clone()), gradient).backward();
        let (below, gradient) = (take(&beside, &mut gradients), take(&attended, &mut gradients));
        self.keep(&block, gradients);

        let [q, k, v] = attend_backward(inner, y, gradient, windows);
        let [queries, keys, values] = projected;
        let mut gradients = (product(queries, q) + product(keys, k) + product(values, v)).backward();
        let below = below + take(&before, &mut gradients);
        self.keep(&block, gradients);
        below
    }

    /// The gradient of the words and of the pictures' tokens behind them, given that of the decoder's input.
    fn through_join(&mut self, gradient: Tensor<2>, input: &EncoderInput) -> Tensor<2> {
        let tokens = &input.tokens;
        let patches = input.patches.as_ref().map_or(0, |patches| patches.pixels.dims()[0]);
        let (words, pictures) = (tokens.batch * tokens.seq, patches / self.model.config.vision.merge_unit());
        let [_, hidden] = gradient.dims();
        let add = |rows: usize, places: &Tensor<1, Int>, gradient: Tensor<2>| {
            let zeros = Tensor::zeros([rows, hidden], (&gradient.device(), gradient.dtype()));
            zeros.select_assign(0, places.clone(), gradient, IndexingUpdateOp::Add)
        };
        let both = add(words + pictures, &tokens.order, gradient);
        let table = &self.model.model.embed_tokens;
        if trains(table) {
            let [rows, _] = table.weight.dims();
            let gradient = add(rows, &tokens.ids, both.clone().narrow(0, 0, words));
            self.gradients.register(table.weight.id, gradient);
        }
        both
    }

    fn keep<M: Module>(&mut self, module: &M, gradients: Gradients) {
        module.visit(&mut Keep { from: gradients, to: &mut self.gradients });
    }
}

fn leaf(x: Tensor<2>) -> Tensor<2> {
    x.autodiff().require_grad()
}

fn take(leaf: &Tensor<2>, gradients: &mut Gradients) -> Tensor<2> {
    leaf.grad_remove(gradients).expect("it had a part in what was pulled back")
}

/// `[1]`: what has the gradient `gradient` where `y` is.
fn product<const D: usize>(y: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    let gradient = gradient.cast(FloatDType::from(y.dtype()));
    (y * gradient.autodiff()).sum()
}

/// The first block to be pulled back, if something `under` them all trains or not.
fn lowest<M: Module>(under: bool, blocks: &[M]) -> usize {
    if under { 0 } else { blocks.iter().position(trains).unwrap_or(blocks.len()) }
}

/// Whether a parameter of `module`, which is on the plain device, trains.
fn trains<M: Module>(module: &M) -> bool {
    struct Trains(bool);
    impl ModuleVisitor for Trains {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= param.is_require_grad();
        }
    }
    let mut trains = Trains(false);
    module.clone().train().visit(&mut trains);
    trains.0
}

/// Moves what the graph found for the visited parameters.
struct Keep<'a> {
    from: Gradients,
    to: &'a mut GradientsParams,
}

impl ModuleVisitor for Keep<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(&mut self.from) {
            self.to.register(param.id, gradient);
        }
    }
}

/// A part of `model` with f32 weights, if its weights are to be computed with as such.
pub(crate) fn widened<M: Module>(model: &Qwen2Vl, part: &M) -> M {
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            // Adapters are wide already.
            match param.val().dtype() {
                DType::F32 => param,
                _ => param.map(|weight| weight.cast(FloatDType::F32)),
            }
        }
    }
    let part = part.clone();
    if model.widen { part.map(&mut Widen) } else { part }
}

fn vision_block(model: &Qwen2Vl, block: &VisionBlock, x: Tensor<2>, patches: &PatchInput) -> Tensor<2> {
    #[cfg(feature = "cpu")]
    if let Some(y) = crate::fused::vision_block(block, &x, patches, model.widen) {
        return y;
    }
    widened(model, block).forward(x, patches)
}

fn decoder_layer(model: &Qwen2Vl, layer: &DecoderLayer, x: Tensor<2>, tokens: &TokenInput) -> Tensor<2> {
    #[cfg(feature = "cpu")]
    if let Some(y) = crate::fused::decoder_layer(layer, &x, tokens, model.widen) {
        return y;
    }
    widened(model, layer).forward(x, tokens)
}
