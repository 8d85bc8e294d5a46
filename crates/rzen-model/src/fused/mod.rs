//! The forward pass on slices, where every tensor lies in main memory and no gradient is wanted.
//!
//! The same functions as in [`vision`](crate::vision) and [`decoder`](crate::decoder), through the fused
//! kernels of `rzen-kernels` and without padding: states are f32 and change in place, rows of all items
//! stand one after another, attention goes item by item and picture by picture, and a beginning that all
//! items share is computed once.

mod decoder;
mod layers;
mod vision;

use burn::tensor::{Tensor, TensorData};
use rzen_kernels::{Scratch, Window};

use crate::decoder::DecoderLayer;
use crate::encoder::TokenInput;
use crate::pieces::MLP_ROWS;
use crate::vision::VisionBlock;
use crate::{EncoderInput, PatchInput, PrefixCache, Qwen2Vl};
pub(crate) use layers::Layer;
use layers::Stored;

/// The pooled states, `[batch, hidden_size]`, if all is in main memory.
pub(crate) fn pooled(
    model: &Qwen2Vl,
    input: &EncoderInput,
    cache: Option<&PrefixCache>,
) -> Option<Tensor<2>> {
    // Of both before either computes: what is elsewhere is elsewhere for all of a model.
    let decoder = decoder::Decoder::of(&model.model, model.widen)?;
    let pictures = match &input.patches {
        Some(patches) => vision::Tower::of(&model.visual, model.widen)?.forward(patches)?,
        None => Scratch::new(0),
    };
    let states = decoder.pooled(&input.tokens, &pictures, cache)?;
    let hidden = model.config().text.hidden_size;
    let data = TensorData::new(states.to_vec(), [states.len() / hidden, hidden]);
    Some(Tensor::from_data(data, &model.model.embed_tokens.weight.val().device()))
}

/// What a block of the vision tower makes of `x`, see [`VisionBlock::forward`], if all is f32 in main memory.
pub(crate) fn vision_block(
    block: &VisionBlock,
    x: &Tensor<2>,
    input: &PatchInput,
    widen: bool,
) -> Option<Tensor<2>> {
    let (block, angles) = (vision::Block::of(block, widen)?, Angles::of(&input.rotary)?);
    let angles = [angles.cos.f32()?, angles.sin.f32()?];
    let lengths = input.windows.iter().flat_map(|&(count, length)| std::iter::repeat_n(length, count));
    let windows = neighbours(lengths);
    changed(x, |x| block.forward(x, angles, &windows))
}

/// What a layer of the decoder makes of `x`, see [`DecoderLayer::forward`], if all is f32 in main memory.
pub(crate) fn decoder_layer(
    layer: &DecoderLayer,
    x: &Tensor<2>,
    input: &TokenInput,
    widen: bool,
) -> Option<Tensor<2>> {
    let (layer, angles) = (decoder::Block::of(layer, widen)?, Angles::of(&input.rotary)?);
    let angles = [angles.cos.f32()?, angles.sin.f32()?];
    let windows = neighbours(std::iter::repeat_n(input.seq, input.batch));
    changed(x, |x| drop(layer.forward(x, angles, &windows, [&[]; 2])))
}

/// Windows of these lengths, one after another.
fn neighbours(lengths: impl Iterator<Item = usize>) -> Vec<Window> {
    let mut end = 0;
    let window = |length| {
        end += length;
        Window::of(end - length..end)
    };
    lengths.map(window).collect()
}

/// A copy of `x` with other numbers, if it is f32.
fn changed(x: &Tensor<2>, change: impl FnOnce(&mut [f32])) -> Option<Tensor<2>> {
    let mut numbers = x.clone().into_data().try_into_vec::<f32>().ok()?;
    change(&mut numbers);
    Some(Tensor::from_data(TensorData::new(numbers, x.dims()), &x.device()))
}

/// Cosines and sines of the rotary positions.
struct Angles {
    cos: Stored,
    sin: Stored,
}

impl Angles {
    fn of(rotary: &crate::rotary::Rotary) -> Option<Self> {
        Some(Angles { cos: Stored::of(rotary.cos.clone())?, sin: Stored::of(rotary.sin.clone())? })
    }
}

/// Adds what `mlp` makes of the normed rows, some rows at a time, since it is wide between its layers.
fn add_mlp(x: &mut [f32], width: usize, mut mlp: impl FnMut(&mut [f32])) {
    x.chunks_mut(MLP_ROWS * width).for_each(&mut mlp);
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, FloatDType};
    use rzen_core::Encode;

    use super::*;
    use crate::{Collator, Encoded, ModelConfig, Patches, PositionMode, SpecialIds};

    fn config() -> ModelConfig {
        let mut config = ModelConfig::preset("qwen2-vl-2b").unwrap();
        let (text, vision) = (&mut config.text, &mut config.vision);
        (text.hidden_size, text.intermediate_size, text.num_attention_heads) = (96, 200, 6);
        (text.num_hidden_layers, text.vocab_size, text.mrope_section) = (3, 300, [2, 3, 3]);
        (vision.depth, vision.embed_dim, vision.num_heads) = (2, 80, 2);
        config
    }

    fn special() -> SpecialIds {
        SpecialIds {
            endoftext: 299,
            im_start: 298,
            im_end: 297,
            vision_start: 290,
            vision_end: 291,
            image_pad: 292,
            video_pad: 293,
        }
    }

    fn picture([time, height, width]: [usize; 3]) -> Patches {
        let count = time * height * width * 1176;
        Patches {
            grid_thw: [time, height, width],
            rows: (0..count).map(|i| (i as f32 * 0.31).sin()).collect(),
        }
    }

    fn items() -> Vec<Encoded> {
        let text = |ids: &[u32]| Encoded { input_ids: ids.to_vec(), pictures: vec![] };
        let start = [1, 2, 3, 4, 5];
        let shown = |id, tokens| [&start[..], &[290], &vec![id; tokens], &[291, 7, 299]].concat();
        vec![
            text(&[&start[..], &[9, 299]].concat()),
            Encoded { input_ids: shown(292, 6), pictures: vec![picture([1, 4, 6])] },
            text(&(1..130).chain([299]).collect::<Vec<u32>>()),
            Encoded { input_ids: shown(293, 8), pictures: vec![picture([2, 4, 4])] },
        ]
    }

    fn check(model: &Qwen2Vl, tolerance: f32) {
        let device = Device::flex();
        let items = items();
        let collator = Collator::new(&config(), &special(), PositionMode::Mrope, &device);
        for items in [&items[..], &items[..1], &items[2..], &[&items[..1], &items[..1]].concat()] {
            let input = collator.collate(&items.iter().collect::<Vec<_>>());
            let fused = pooled(model, &input, None).expect("all is in main memory");
            let fused = (fused.clone() / fused.square().sum_dim(1).sqrt()).into_data();
            let plain = model.encode(input).into_data();
            let [fused, plain] = [fused, plain].map(|data| data.try_to_vec::<f32>().unwrap());
            let off = fused.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < tolerance, "off by {off} with {} items", items.len());
        }
    }

    #[test]
    fn agrees_with_the_tensors() {
        for (dtype, tolerance) in [(FloatDType::F32, 1e-5), (FloatDType::BF16, 2e-2)] {
            check(&Qwen2Vl::random(&config(), 3, dtype, &Device::flex()), tolerance);
        }
    }

    /// Whatever came before, a vector is what it would be alone.
    #[test]
    fn what_items_begin_with_is_computed_once() {
        let device = Device::flex();
        let collator = Collator::new(&config(), &special(), PositionMode::Mrope, &device);
        let text = |ids: Vec<u32>| Encoded { input_ids: ids, pictures: vec![] };
        let start: Vec<u32> = (1..20).collect();
        let with = |more: &[u32]| text([&start[..], more, &[299]].concat());
        let [_, shown, long, _]: [Encoded; 4] = items().try_into().ok().unwrap();
        let longer = text((1..180).chain([299]).collect());
        // Alone, together, longer and shorter than what is kept, a picture in what is kept and after it, nothing in common.
        let batches = [
            vec![with(&[40])],
            vec![with(&[41, 42, 43]), with(&[44])],
            vec![with(&[])],
            vec![long, longer.clone()],
            vec![longer],
            vec![shown.clone()],
            vec![with(&[45]), shown],
            vec![text(vec![299])],
            vec![text(vec![1, 299]), with(&[46])],
            vec![with(&[40])],
        ];
        for (dtype, tolerance) in [(FloatDType::F32, 1e-5), (FloatDType::BF16, 1e-2)] {
            let model = Qwen2Vl::random(&config(), 3, dtype, &device);
            let cache = PrefixCache::default();
            for (number, batch) in batches.iter().enumerate() {
                let input = collator.collate(&batch.iter().collect::<Vec<_>>());
                let [cached, plain] = [model.embed_after(&input, &cache), model.embed(&input)]
                    .map(|vectors| vectors.into_data().try_to_vec::<f32>().unwrap());
                let off = cached.iter().zip(&plain).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < tolerance, "{dtype:?}: off by {off} in batch {number}, after {cache:?}");
            }
            // Of a long text so much is kept.
            assert!(format!("{cache:?}").contains("128"), "{cache:?}");
            // It is not computed again: another model would begin with the states of this one.
            let other = Qwen2Vl::random(&config(), 4, dtype, &device);
            let input = collator.collate(&[&with(&[40])]);
            let [cached, plain] = [other.embed_after(&input, &cache), other.embed(&input)]
                .map(|vectors| vectors.into_data().try_to_vec::<f32>().unwrap());
            assert!(cached.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 0.02), "nothing was found");
        }
    }

    #[test]
    fn what_waits_for_a_gradient_is_left_to_the_tensors() {
        let device = Device::flex();
        let collator = Collator::new(&config(), &special(), PositionMode::Mrope, &device);
        let input = collator.collate(&[&items()[0]]);
        let model = Qwen2Vl::random(&config(), 3, FloatDType::F32, &device.autodiff());
        assert!(pooled(&model, &input, None).is_none());
    }
}
