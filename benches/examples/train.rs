//! Memory and time of training: passes over a micro-batch, or whole cached steps; prints one line of JSON.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, GradientCheckpointingStrategy, Int, Tensor};
use cpu_time::ProcessTime;
use devices::{check, open};
use rzen::device;
use rzen::doctor::machine;
use rzen_core::{Batch, Encode, Picture, Targets, encode_with_graph};
use rzen_loss::{InfoNce, InfoNceConfig};
use rzen_model::{
    AdapterConfig, Collator, Encoded, EncoderInput, ModelConfig, PositionMode, Processor, ProcessorConfig,
    Qwen2Vl, TrainingShape, all_linear, picture_patches,
};
use rzen_train::{
    Checkpointing, Contrastive, Optimizer, StageConfig, StepOptions, cached_gradients, clip_gradients,
    gradient_norm,
};
use serde_json::{Value, json};
use works::{shape, split, words};

mod devices;
mod works;

const USAGE: &str =
    "train pass|step none|burn|blocks MODEL RANK REPEAT [--device NAME] [--dtype TYPE] WORK...
pass: forwards and backwards through one micro-batch of all works
step: a cached step of rows whose query is a text and whose positive is of a work, each work a micro-batch
none: one graph; burn: the same with burn's own checkpointing (a pass only); blocks: block by block
RANK of an adapter of every layer, in f32
REPEAT: runs that are measured; where there are several, and on a GPU, they follow one that is not
NAME: cpu, cuda[:N], wgpu[:N], vulkan[:N] or metal[:N]; without it, cpu
TYPE: f32, bf16 or f16, of the weights that don't train; without it, f32
WORK: text:8x128 (items, tokens) or picture:2x224x224 (items, pixels)";

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let device = option(&mut args, "--device")?.unwrap_or("cpu".into());
    let dtype = option(&mut args, "--dtype")?.unwrap_or("f32".into());
    let [what, way, folder, rank, repeat, works @ ..] = &args[..] else { bail!("{USAGE}") };
    ensure!(!works.is_empty(), "{USAGE}");
    let (folder, rank) = (Path::new(folder), rank.parse().context("RANK is a number")?);
    let repeat: usize = repeat.parse().context("REPEAT is a number")?;

    let (found, dtype) = (open(&device)?, device::dtype(&dtype)?);
    check(&found, dtype)?;
    let (device, on_cpu) = (&found.device, device::is_cpu(&found.device));
    let adapter = AdapterConfig { rank, alpha: rank as f64, rank_stabilized: false, targets: all_linear() };
    let model = load(folder, dtype, device, way == "blocks")?.with_new_adapter(&adapter, 1)?;
    let (config, weights) = (model.config().clone(), model.dtype());
    let processor = Processor::load(folder)?;
    let parts: Vec<Vec<Encoded>> =
        works.iter().map(|work| prepare(work, &processor)).collect::<Result<_>>()?;
    let collator = Collator::new(&config, processor.special(), PositionMode::Sequential, device);
    let resident = if on_cpu { Some(Resident::start()?) } else { None };

    let mut run = runner(what, way, model, &parts, &collator)?;
    if repeat > 1 || !on_cpu {
        run();
    }
    let (mut wall, mut cpu, mut loss) = (Vec::new(), Vec::new(), f32::NAN);
    for _ in 0..repeat {
        let (started, used) = (Instant::now(), ProcessTime::now());
        loss = run();
        // A GPU has the loss long before it has made the step.
        device.sync()?;
        wall.push(started.elapsed().as_secs_f64());
        cpu.push(used.elapsed().as_secs_f64());
    }
    ensure!(loss.is_finite(), "the loss is {loss}: {} computes wrong gradients in {dtype:?}", found.name);

    let training = TrainingShape {
        adapter: Some(adapter),
        embed_twice: what == "step",
        by_blocks: way == "blocks",
        side_by_side: 1,
    };
    let mut printed = costs(&config, &parts, &training, weights.size());
    printed["way"] = json!(way);
    printed["wall_s"] = json!(wall);
    printed["cpu_s"] = json!(cpu);
    printed["loss"] = json!(loss);
    printed["device"] = json!(machine::describe(&found));
    printed["dtype"] = json!(format!("{dtype:?}"));
    printed["weights"] = json!(format!("{weights:?}"));
    if let Some(resident) = resident {
        resident.add_to(&mut printed);
    }
    println!("{printed}");
    Ok(())
}

/// Takes an option and what follows it out of the arguments.
fn option(args: &mut Vec<String>, name: &str) -> Result<Option<String>> {
    let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(None) };
    ensure!(at + 1 < args.len(), "{name} without a value\n{USAGE}");
    Ok(args.drain(at..at + 2).nth(1))
}

/// A model as `rzen train` has it.
fn load(folder: &Path, dtype: FloatDType, device: &Device, blocks: bool) -> Result<Qwen2Vl> {
    let table_home = device::table_home(device);
    Ok(match blocks {
        true => Qwen2Vl::load_to_embed(&table_home, folder, dtype, device)?,
        false => Qwen2Vl::load_with_table_on(&table_home, folder, dtype, device)?,
    })
}

/// What is measured; gives the loss of a step, or the sum of what a pass has made.
fn runner(
    what: &str,
    way: &str,
    model: Qwen2Vl,
    parts: &[Vec<Encoded>],
    collator: &Collator,
) -> Result<Box<dyn FnMut() -> f32>> {
    let collate = |items: &[&Encoded]| collator.collate(items);
    let blocks = way == "blocks";
    match (what, way) {
        ("pass", "none" | "burn" | "blocks") => {
            let items: Vec<&Encoded> = parts.iter().flatten().collect();
            let (input, model) = (collate(&items), if way == "burn" { by_burn(model) } else { model });
            Ok(Box::new(move || pass(&model, input.clone(), blocks)))
        }
        ("step", "none" | "blocks") => {
            let batch = batch(parts, &collate, &model.device());
            let checkpointing = if blocks { Checkpointing::Blocks } else { Checkpointing::None };
            let mut trainer = Trainer::new(model, checkpointing)?;
            Ok(Box::new(move || trainer.step(&batch)))
        }
        _ => bail!("{USAGE}"),
    }
}

/// What the works are, and what `rzen plan` predicts of them; its memory is right where all items are alike.
fn costs(
    config: &ModelConfig,
    parts: &[Vec<Encoded>],
    training: &TrainingShape,
    weight_size: usize,
) -> Value {
    let items: Vec<&Encoded> = parts.iter().flatten().collect();
    let is_step = training.embed_twice;
    let queries = if is_step { queries(items.len()) } else { Vec::new() };
    let operations = |item: &Encoded| config.training_operations(&shape(item), training).total();
    let micro_batches = if is_step { parts.len() + 1 } else { 1 };
    let memory =
        config.training_memory(training, weight_size, (&shape(items[0]), parts[0].len()), micro_batches);
    // An adapter is loaded already; a pass makes its gradients alone.
    let of_adapter = memory.trained * if is_step { 0.75 } else { 0.25 };
    let patches = |item: &Encoded| item.pictures.iter().map(|x| x.rows.len() / 1176).sum::<usize>();
    json!({
        "samples": items.len(),
        "tokens": items.iter().map(|item| item.input_ids.len()).sum::<usize>(),
        "patches": items.iter().map(|item| patches(item)).sum::<usize>(),
        "operations": items.iter().copied().chain(&queries).map(operations).sum::<f64>(),
        "predicted_more_mb": ((memory.activations + of_adapter) / 1e6).round(),
    })
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
    let queries = queries(parts.iter().map(Vec::len).sum());
    let positive = Tensor::<1, Int>::arange(0..queries.len() as i64, device);
    Batch {
        queries: vec![collate(&queries.iter().collect::<Vec<_>>())],
        candidates: parts.iter().map(|part| collate(&part.iter().collect::<Vec<_>>())).collect(),
        targets: Targets { task: positive.zeros_like(), positive, owner: None, exempt: None },
    }
}

fn queries(rows: usize) -> Vec<Encoded> {
    (1..=rows as u32).map(|text| words(text, 16)).collect()
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
    let (kind, sizes) = split(work)?;
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

/// The memory of this process.
struct Resident {
    loaded: u64,
}

impl Resident {
    /// The peak counts from here.
    fn start() -> Result<Self> {
        std::fs::write("/proc/self/clear_refs", "5").context("memory is measured on Linux alone")?;
        Ok(Resident { loaded: resident("VmRSS") })
    }

    fn add_to(&self, printed: &mut Value) {
        let peak = resident("VmHWM");
        printed["loaded_mb"] = json!(self.loaded);
        printed["peak_mb"] = json!(peak);
        printed["more_mb"] = json!(peak - self.loaded);
    }
}

/// A line of the kernel's report on this process, in MB; 0 where there is none.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    kb.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
        / 1_000_000
}
