//! Memory and time of training: one pass over a micro-batch, or a whole cached step; prints one line of JSON.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, GradientCheckpointingStrategy, Int, Tensor};
use rzen_core::{Batch, Encode, Picture, Targets, encode_with_graph};
use rzen_loss::InfoNceConfig;
use rzen_model::{
    AdapterConfig, Collator, Encoded, EncoderInput, PositionMode, Processor, ProcessorConfig, Qwen2Vl,
    all_linear, picture_patches,
};
use rzen_train::{
    Checkpointing, Contrastive, Optimizer, StageConfig, StepOptions, cached_gradients, clip_gradients,
    gradient_norm,
};
use serde_json::json;

const USAGE: &str = "train pass|step none|burn|blocks MODEL RANK WORK...
pass: forwards and backwards through one micro-batch of all works
step: a cached step of rows whose query is a text and whose positive is a work, one work in a micro-batch
none: one graph; burn: the same with burn's own checkpointing (a pass only); blocks: block by block
WORK: text:128 (tokens) or picture:224x224 (pixels); RANK of an adapter of every layer";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, way, folder, rank, works @ ..] = &args[..] else { bail!("{USAGE}") };
    let (folder, rank) = (Path::new(folder), rank.parse().context("RANK is a number")?);
    let device = Device::flex();
    let blocks = way == "blocks";
    let model = match blocks {
        true => Qwen2Vl::load_to_embed(&device, folder, FloatDType::F32, &device)?,
        false => Qwen2Vl::load(folder, FloatDType::F32, &device)?,
    };
    let adapter = AdapterConfig { rank, alpha: rank as f64, rank_stabilized: false, targets: all_linear() };
    let model = model.with_new_adapter(&adapter, 1)?;
    let processor = Processor::load(folder)?;
    let items: Vec<Encoded> = works.iter().map(|work| prepare(work, &processor)).collect::<Result<_>>()?;
    let collator = Collator::new(model.config(), processor.special(), PositionMode::Mrope, &device);
    let collate = |items: &[&Encoded]| collator.collate(items);
    // The peak counts from here.
    std::fs::write("/proc/self/clear_refs", "5").context("memory is measured on Linux alone")?;
    let loaded = resident("VmRSS");
    let started = Instant::now();
    let loss = match (what.as_str(), way.as_str()) {
        ("pass", "none" | "burn" | "blocks") => {
            let input = collate(&items.iter().collect::<Vec<_>>());
            pass(if way == "burn" { by_burn(model) } else { model }, input, blocks)
        }
        ("step", "none" | "blocks") => {
            let batch = batch(&items, &collate, &device);
            step(model, &batch, if blocks { Checkpointing::Blocks } else { Checkpointing::None })?
        }
        _ => bail!("{USAGE}"),
    };
    let seconds = started.elapsed().as_secs_f64();
    let tokens: usize = items.iter().map(|item| item.input_ids.len()).sum();
    let patches: usize = items.iter().flat_map(|item| &item.pictures).map(|x| x.rows.len() / 1176).sum();
    let peak = resident("VmHWM");
    println!(
        "{}",
        json!({
            "way": way, "tokens": tokens, "patches": patches, "seconds": seconds, "loss": loss,
            "loaded_mb": loaded, "peak_mb": peak, "more_mb": peak - loaded,
        })
    );
    Ok(())
}

/// The sum of all numbers, pulled back.
fn pass(model: Qwen2Vl, input: EncoderInput, blocks: bool) -> f32 {
    let (embedding, pullback) =
        if blocks { model.encode_by_blocks(input) } else { encode_with_graph(&model, input) };
    let gradients = pullback(embedding.ones_like());
    assert!(!gradients.is_empty());
    embedding.sum().into_scalar()
}

fn step(model: Qwen2Vl, batch: &Batch<EncoderInput>, checkpointing: Checkpointing) -> Result<f32> {
    let config = StageConfig::default();
    let objective = InfoNceConfig::default().init(&model.device())?;
    let model = Contrastive { encoder: model, objective };
    let mut optimizer = Optimizer::new(&model, &config);
    let options = StepOptions { checkpointing, ..StepOptions::default() };
    let (stats, gradients) = cached_gradients(&model, batch, options);
    let norm = gradient_norm(&model, &gradients).total;
    let gradients = clip_gradients(&model, gradients, norm, config.max_grad_norm);
    optimizer.step(model, gradients, config.learning_rates(config.steps / 2));
    Ok(stats.loss.into_scalar())
}

/// A row for each item: a text of a few words asks for it.
fn batch(
    items: &[Encoded],
    collate: &dyn Fn(&[&Encoded]) -> EncoderInput,
    device: &Device,
) -> Batch<EncoderInput> {
    let queries: Vec<Encoded> = (0..items.len() as u32).map(|i| words(i + 1, 16)).collect();
    let positive = Tensor::<1, Int>::arange(0..items.len() as i64, device);
    Batch {
        queries: vec![collate(&queries.iter().collect::<Vec<_>>())],
        candidates: items.iter().map(|item| collate(&[item])).collect(),
        targets: Targets { task: positive.zeros_like(), positive, owner: None, exempt: None },
    }
}

/// The same model where burn recomputes what it thinks is cheap.
fn by_burn(model: Qwen2Vl) -> Qwen2Vl {
    struct Balanced;
    impl ModuleMapper for Balanced {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let trains = param.is_require_grad();
            let balanced = |x: Tensor<D>| {
                x.inner()
                    .autodiff()
                    .with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced)
            };
            param.map(balanced).set_require_grad(trains)
        }
    }
    model.train().map(&mut Balanced)
}

fn prepare(work: &str, processor: &Processor) -> Result<Encoded> {
    let (kind, sizes) = work.split_once(':').context("a work is a kind, a colon and sizes")?;
    let sizes: Vec<u32> = sizes.split('x').map(str::parse).collect::<Result<_, _>>()?;
    match (kind, &sizes[..]) {
        ("text", &[length]) => Ok(words(length, length)),
        ("picture", &[height, width]) => {
            let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
            let picture = Picture::new(width, height, (0..width * height * 3).map(byte).collect());
            // As large as it is.
            let patches = picture_patches(&ProcessorConfig::default(), &picture, [1, usize::MAX / 4096]);
            let special = processor.special();
            let tokens = patches.grid_thw.iter().product::<usize>() / 4;
            let input_ids =
                [&[special.vision_start][..], &vec![special.image_pad; tokens], &[special.endoftext]]
                    .concat();
            Ok(Encoded { input_ids, pictures: vec![patches] })
        }
        _ => bail!("`{work}` is no work"),
    }
}

/// Other tokens for each seed.
fn words(seed: u32, length: u32) -> Encoded {
    let input_ids = (0..length).map(|i| (i * 7 + seed * 13) % 256).collect();
    Encoded { input_ids, pictures: Vec::new() }
}

/// A line of the kernel's report on this process, in MB; 0 where there is none.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    kb.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
        / 1_000_000
}
