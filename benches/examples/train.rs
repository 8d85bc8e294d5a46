//! Memory and time of training: passes over a micro-batch, or whole cached steps; prints one line of JSON.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, GradientCheckpointingStrategy, Int, Tensor};
use cpu_time::ProcessTime;
use rzen_core::{Batch, Encode, Picture, Targets, encode_with_graph};
use rzen_loss::{InfoNce, InfoNceConfig};
use rzen_model::{
    AdapterConfig, Collator, Encoded, EncoderInput, ItemShape, PositionMode, Processor, ProcessorConfig,
    Qwen2Vl, TrainingShape, all_linear, picture_patches,
};
use rzen_train::{
    Checkpointing, Contrastive, Optimizer, StageConfig, StepOptions, cached_gradients, clip_gradients,
    gradient_norm,
};
use serde_json::json;

const USAGE: &str = "train pass|step none|burn|blocks MODEL RANK REPEAT WORK...
pass: forwards and backwards through one micro-batch of all works
step: a cached step of rows whose query is a text and whose positive is of a work, each work a micro-batch
none: one graph; burn: the same with burn's own checkpointing (a pass only); blocks: block by block
WORK: text:8x128 (items, tokens) or picture:2x224x224 (items, pixels); RANK of an adapter of every layer
REPEAT: runs that are measured; several follow one that is not";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, way, folder, rank, repeat, works @ ..] = &args[..] else { bail!("{USAGE}") };
    ensure!(!works.is_empty(), "{USAGE}");
    let (folder, rank) = (Path::new(folder), rank.parse().context("RANK is a number")?);
    let repeat: usize = repeat.parse().context("REPEAT is a number")?;
    let device = Device::flex();
    let blocks = way == "blocks";
    let model = match blocks {
        true => Qwen2Vl::load_to_embed(&device, folder, FloatDType::F32, &device)?,
        false => Qwen2Vl::load(folder, FloatDType::F32, &device)?,
    };
    let adapter = AdapterConfig { rank, alpha: rank as f64, rank_stabilized: false, targets: all_linear() };
    let model = model.with_new_adapter(&adapter, 1)?;
    let processor = Processor::load(folder)?;
    let parts: Vec<Vec<Encoded>> =
        works.iter().map(|work| prepare(work, &processor)).collect::<Result<_>>()?;
    let items: Vec<&Encoded> = parts.iter().flatten().collect();
    let config = model.config().clone();
    let collator = Collator::new(&config, processor.special(), PositionMode::Sequential, &device);
    let collate = |items: &[&Encoded]| collator.collate(items);
    // The peak counts from here.
    std::fs::write("/proc/self/clear_refs", "5").context("memory is measured on Linux alone")?;
    let loaded = resident("VmRSS");
    let mut run: Box<dyn FnMut() -> f32> = match (what.as_str(), way.as_str()) {
        ("pass", "none" | "burn" | "blocks") => {
            let (input, model) = (collate(&items), if way == "burn" { by_burn(model) } else { model });
            Box::new(move || pass(&model, input.clone(), blocks))
        }
        ("step", "none" | "blocks") => {
            let batch = batch(&parts, &collate, &device);
            let checkpointing = if blocks { Checkpointing::Blocks } else { Checkpointing::None };
            let mut trainer = Trainer::new(model, checkpointing)?;
            Box::new(move || trainer.step(&batch))
        }
        _ => bail!("{USAGE}"),
    };
    let mut loss = if repeat > 1 { run() } else { f32::NAN };
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        let (started, used) = (Instant::now(), ProcessTime::now());
        loss = run();
        wall.push(started.elapsed().as_secs_f64());
        cpu.push(used.elapsed().as_secs_f64());
    }
    let tokens: usize = items.iter().map(|item| item.input_ids.len()).sum();
    let patches: usize = items.iter().flat_map(|item| &item.pictures).map(|x| x.rows.len() / 1176).sum();
    let peak = resident("VmHWM");
    // As `rzen plan` has it, where all items are alike.
    let training = TrainingShape {
        adapter: Some(adapter),
        embed_twice: what == "step",
        by_blocks: blocks,
        side_by_side: 1,
    };
    let (merged, item) = (config.vision.merge_unit(), items[0]);
    let pictures: Vec<usize> =
        item.pictures.iter().map(|picture| picture.grid_thw.iter().product::<usize>() / merged).collect();
    let like = ItemShape { words: item.input_ids.len() - pictures.iter().sum::<usize>(), pictures };
    let of_batch = if what == "step" { parts.len() + 1 } else { 1 };
    let memory = config.training_memory(&training, 4, (&like, parts[0].len()), of_batch);
    // An adapter is loaded already; a pass makes its gradients alone.
    let of_adapter = memory.trained * if what == "step" { 0.75 } else { 0.25 };
    let predicted = (memory.activations + of_adapter) / 1e6;
    println!(
        "{}",
        json!({
            "way": way, "samples": items.len(), "tokens": tokens, "patches": patches, "wall_s": wall, "cpu_s": cpu,
            "loss": loss, "loaded_mb": loaded, "peak_mb": peak, "more_mb": peak - loaded,
            "predicted_more_mb": predicted.round(),
        })
    );
    Ok(())
}

/// The sum of all numbers, pulled back.
fn pass(model: &Qwen2Vl, input: EncoderInput, blocks: bool) -> f32 {
    let (embedding, pullback) =
        if blocks { model.encode_by_blocks(input) } else { encode_with_graph(model, input) };
    let gradients = pullback(embedding.ones_like());
    assert!(!gradients.is_empty());
    embedding.sum().into_scalar()
}

/// Steps of a stage.
struct Trainer {
    model: Option<Contrastive<Qwen2Vl, InfoNce>>,
    optimizer: Optimizer,
    config: StageConfig,
    options: StepOptions,
}

impl Trainer {
    fn new(model: Qwen2Vl, checkpointing: Checkpointing) -> Result<Self> {
        let config = StageConfig::default();
        let objective = InfoNceConfig::default().init(&model.device())?;
        let model = Contrastive { encoder: model, objective };
        let optimizer = Optimizer::new(&model, &config);
        let options = StepOptions { checkpointing, ..StepOptions::default() };
        Ok(Trainer { model: Some(model), optimizer, config, options })
    }

    fn step(&mut self, batch: &Batch<EncoderInput>) -> f32 {
        let (config, model) = (&self.config, self.model.take().expect("each step gives it back"));
        let (stats, gradients) = cached_gradients(&model, batch, self.options);
        let norm = gradient_norm(&model, &gradients).total;
        let gradients = clip_gradients(&model, gradients, norm, config.max_grad_norm);
        self.model = Some(self.optimizer.step(model, gradients, config.learning_rates(config.steps / 2)));
        stats.loss.into_scalar()
    }
}

/// A row for each item: a text of a few words asks for it.
fn batch(
    parts: &[Vec<Encoded>],
    collate: &dyn Fn(&[&Encoded]) -> EncoderInput,
    device: &Device,
) -> Batch<EncoderInput> {
    let rows = parts.iter().map(Vec::len).sum::<usize>() as u32;
    let queries: Vec<Encoded> = (0..rows).map(|i| words(i + 1, 16)).collect();
    let positive = Tensor::<1, Int>::arange(0..i64::from(rows), device);
    Batch {
        queries: vec![collate(&queries.iter().collect::<Vec<_>>())],
        candidates: parts.iter().map(|part| collate(&part.iter().collect::<Vec<_>>())).collect(),
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

fn prepare(work: &str, processor: &Processor) -> Result<Vec<Encoded>> {
    let (kind, sizes) = work.split_once(':').context("a work is a kind, a colon and sizes")?;
    let sizes: Vec<u32> = sizes.split('x').map(str::parse).collect::<Result<_, _>>()?;
    ensure!(sizes.iter().all(|size| *size > 0), "`{work}` has a size of 0");
    let one = |item: u32| match (kind, &sizes[1..]) {
        ("text", &[length]) => Ok(words(100 + item, length)),
        ("picture", &[height, width]) => {
            let byte = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(item << 20) >> 24) as u8;
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
    };
    (0..sizes[0]).map(one).collect()
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
