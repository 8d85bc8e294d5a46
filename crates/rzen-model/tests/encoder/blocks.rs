//! Training by blocks gives the gradients of one graph.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use rzen_core::{Encode, SaveWeights, encode_with_graph};
use rzen_model::{
    AdapterConfig, Collator, Encoded, EncoderInput, ModelConfig, Patches, PositionMode, Qwen2Vl, SpecialIds,
    all_linear,
};

use crate::bad_files::tiny;
use crate::golden::MODES;

const SPECIAL: SpecialIds = SpecialIds {
    endoftext: 39,
    im_start: 38,
    im_end: 37,
    vision_start: 30,
    vision_end: 31,
    image_pad: 32,
    video_pad: 33,
};

/// Blocks of every kind: the first, one between, the last; heads that share keys.
fn config() -> ModelConfig {
    let mut config = tiny();
    (config.text.num_hidden_layers, config.vision.depth) = (3, 3);
    (config.text.hidden_size, config.text.num_attention_heads) = (32, 4);
    (config.text.num_key_value_heads, config.vision.embed_dim) = (2, 32);
    config
}

/// `still`: the frames of a patch are equal.
fn picture(grid_thw: [usize; 3], still: bool) -> Patches {
    let count = grid_thw.iter().product::<usize>() * 1176;
    let frame = |i: usize| if still { i / 392 * 196 + i % 196 } else { i };
    Patches { grid_thw, rows: (0..count).map(|i| (frame(i) as f32 * 0.731).sin()).collect() }
}

fn shown(picture: Patches, pad: u32) -> Encoded {
    let tokens = picture.grid_thw.iter().product::<usize>() / 4;
    let input_ids = [&[4, 30][..], &vec![pad; tokens], &[31, 7, 39]].concat();
    Encoded { input_ids, pictures: vec![picture] }
}

fn text(length: u32) -> Encoded {
    Encoded { input_ids: (0..length).map(|i| i * 7 % 29).chain([39]).collect(), pictures: vec![] }
}

/// Micro-batches of texts, of pictures of two sizes (one of which is there twice), of a clip beside a text.
fn inputs(config: &ModelConfig, mode: PositionMode) -> Vec<EncoderInput> {
    let large = || shown(picture([1, 4, 6], true), SPECIAL.image_pad);
    let batches = [
        vec![text(9), text(3), text(17)],
        vec![large(), text(5), shown(picture([1, 2, 4], true), SPECIAL.image_pad), large()],
        vec![shown(picture([2, 4, 4], false), SPECIAL.video_pad), text(2)],
    ];
    let collator = Collator::new(config, &SPECIAL, mode, &Device::flex());
    batches.iter().map(|items| collator.collate(&items.iter().collect::<Vec<_>>())).collect()
}

/// Numbers between -1 and 1; random ones would come from a generator that tests share.
fn wave<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 1.7).sin()).collect();
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

/// A new adapter whose factors are both other than zero.
fn adapted(base: Qwen2Vl, targets: Vec<String>) -> Qwen2Vl {
    struct Stir(bool);
    impl ModuleMapper for Stir {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.0 = name == "lora_b";
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !self.0 {
                return param;
            }
            let stir = |x: Tensor<D>| wave(x.dims()) * 0.1;
            param.map(stir).set_require_grad(true)
        }
    }
    let config = AdapterConfig { rank: 3, alpha: 6.0, rank_stabilized: false, targets };
    base.with_new_adapter(&config, 7).unwrap().map(&mut Stir(false))
}

/// The names and gradients of all parameters that have one.
fn values(model: &Qwen2Vl, gradients: &GradientsParams) -> Vec<(String, Vec<f32>)> {
    struct Values<'a>(&'a GradientsParams, Vec<String>, Vec<(String, Vec<f32>)>);
    impl ModuleVisitor for Values<'_> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.1.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.1.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.get::<D>(param.id) {
                self.2.push((self.1.join("."), gradient.into_data().try_to_vec().unwrap()));
            }
        }
    }
    let mut visitor = Values(gradients, Vec::new(), Vec::new());
    model.visit(&mut visitor);
    assert_eq!(gradients.len(), visitor.2.len());
    visitor.2
}

fn largest(x: impl IntoIterator<Item = f32>) -> f32 {
    x.into_iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Compares the gradients of `model` by blocks with those of `whole`'s graph; returns the names of what has one.
fn check_against(model: &Qwen2Vl, whole: &Qwen2Vl, tolerance: f32) -> Vec<String> {
    let mut names = Vec::new();
    for input in MODES.into_iter().flat_map(|(_, mode)| inputs(model.config(), mode)) {
        let (expected, whole_back) = encode_with_graph(whole, input.clone());
        let (found, back) = model.encode_by_blocks(input);
        let off = (found - expected.clone()).abs().max().into_scalar::<f32>();
        assert!(off < tolerance, "embeddings are off by {off}");
        let gradient = wave(expected.dims()) + 0.1;
        let expected = values(whole, &whole_back(gradient.clone()));
        let found = values(model, &back(gradient));
        let most = largest(expected.iter().flat_map(|(_, x)| x.iter().copied()));
        let own = |all: &[(String, Vec<f32>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(own(&found), own(&expected));
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(
                largest(expected.iter().copied()) > 0.0 || name.contains("k_proj"),
                "{name} has no gradient"
            );
            let off = largest(found.iter().zip(expected).map(|(a, b)| a - b));
            assert!(off <= tolerance * most, "{name} is off by {off}, where {most} is the largest");
        }
        names.extend(own(&found));
    }
    names.sort();
    names.dedup();
    names
}

/// Where few weights train, the largest gradient is nearer to the others' rounding.
const FEW: f32 = 3e-6;
const EVERY: f32 = 2e-6;

fn check(model: &Qwen2Vl, tolerance: f32) -> Vec<String> {
    let names = check_against(model, model, tolerance);
    // Also with the weights on the autodiff device.
    check_against(&model.clone().train(), model, tolerance);
    names
}

fn base() -> Qwen2Vl {
    Qwen2Vl::random(&config(), 3, FloatDType::F32, &Device::flex())
}

#[test]
fn adapters_of_every_layer() {
    // Two factors for 4 layers in 3 blocks, 7 in 3 layers, 2 in the merger.
    assert_eq!(check(&adapted(base(), all_linear()), EVERY).len(), 2 * (3 * 4 + 3 * 7 + 2));
}

#[test]
fn adapters_of_some_layers() {
    let names = check(&adapted(base(), vec!["model.layers.1.mlp.up_proj".into()]), FEW);
    assert_eq!(names.len(), 2);
    assert_eq!(check(&adapted(base(), vec!["visual.blocks.1.attn.qkv".into()]), FEW).len(), 2);
    assert_eq!(check(&adapted(base(), vec!["visual.merger.mlp.0".into()]), FEW).len(), 2);
    assert_eq!(check(&adapted(base(), vec!["o_proj".into()]), FEW).len(), 6);
}

#[test]
fn every_weight() {
    // 10 tensors of layers besides 3 biases, 12 of blocks, the table, the norm, the kernel, the merger's 6.
    assert_eq!(check(&base().unfreeze_all(), EVERY).len(), 3 * 12 + 3 * 12 + 3 + 6);
}

#[test]
fn some_weights() {
    let mut model = base();
    model.model.embed_tokens = model.model.embed_tokens.set_require_grad(true);
    assert_eq!(check(&model, FEW), ["model.embed_tokens.weight"]);
    let mut model = base();
    model.visual.patch_embed = model.visual.patch_embed.set_require_grad(true);
    assert_eq!(check(&model, FEW), ["visual.patch_embed.proj.weight"]);
    let mut model = base();
    model.model.norm = model.model.norm.set_require_grad(true);
    assert_eq!(check(&model, FEW), ["model.norm.weight"]);
}

/// Weights that are stored as bf16 and computed with as f32 give what they give when all are widened first.
#[cfg(feature = "cpu")]
#[test]
fn kept_bf16_weights() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    Qwen2Vl::random(&config(), 3, FloatDType::BF16, &device).save_weights(folder.path()).unwrap();
    let wide = adapted(Qwen2Vl::load(folder.path(), FloatDType::F32, &device).unwrap(), all_linear());
    let kept = Qwen2Vl::load_to_embed(&device, folder.path(), FloatDType::F32, &device).unwrap();
    assert_eq!(kept.dtype(), burn::tensor::DType::BF16);
    let kept = adapted(kept, all_linear());
    // Where products of bf16 are summed in another order.
    check_against(&kept, &wide, 4e-6);
    // An adapter is merged without rounding, and then trained on.
    let wide = adapted(wide.merge_adapter(), all_linear());
    check_against(&adapted(kept.merge_adapter(), all_linear()), &wide, 4e-6);
}

/// A base of bf16 under adapters of f32, both as a CPU computes with it (as f32) and as other devices do (in bf16).
#[cfg(feature = "cpu")]
#[test]
fn a_narrow_base_under_adapters() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    // Stored as f32, so that loading rounds.
    Qwen2Vl::random(&config(), 3, FloatDType::F32, &device).save_weights(folder.path()).unwrap();
    let rounded = Qwen2Vl::load(folder.path(), FloatDType::BF16, &device).unwrap();
    let stored = tempfile::tempdir().unwrap();
    rounded.save_weights(stored.path()).unwrap();
    let wide = Qwen2Vl::load(stored.path(), FloatDType::F32, &device).unwrap();
    let narrow = Qwen2Vl::load_narrow(&device, folder.path(), &device).unwrap();
    assert_eq!(narrow.dtype(), burn::tensor::DType::BF16);
    check_against(&adapted(narrow.clone(), all_linear()), &adapted(wide.clone(), all_linear()), 4e-6);
    let in_bf16 = adapted(rounded, all_linear());
    check_near(&in_bf16, &adapted(wide, all_linear()));
    // What is merged stays bf16 in both, and is the same.
    let merged = [adapted(narrow, all_linear()), in_bf16].map(Qwen2Vl::merge_adapter_rounded);
    let [one, other] = merged.each_ref().map(|model| {
        assert_eq!(model.dtype(), burn::tensor::DType::BF16);
        model.model.layers[1].mlp.up_proj.weight.val().into_data()
    });
    assert_eq!(one, other);
}

/// Gradients of f32 adapters, by graph and by blocks, point where those of `whole` do.
fn check_near(model: &Qwen2Vl, whole: &Qwen2Vl) {
    for input in inputs(model.config(), PositionMode::Sequential) {
        let (expected, back) = encode_with_graph(whole, input.clone());
        let gradient = wave(expected.dims()) + 0.1;
        let flat = |gradients: &GradientsParams, model: &Qwen2Vl| -> Vec<f32> {
            values(model, gradients).into_iter().flat_map(|(_, numbers)| numbers).collect()
        };
        let expected = flat(&back(gradient.clone()), whole);
        let graph = encode_with_graph(model, input.clone());
        let blocks = model.encode_by_blocks(input);
        for (way, (embeddings, back)) in [("graph", graph), ("blocks", blocks)] {
            assert_eq!(embeddings.dtype(), burn::tensor::DType::F32, "{way}");
            let found = flat(&back(gradient.clone()), model);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let cosine = dot(&found, &expected) / (dot(&found, &found) * dot(&expected, &expected)).sqrt();
            assert!(cosine > 0.995, "{way}: the cosine of the gradients is {cosine}");
        }
    }
}
