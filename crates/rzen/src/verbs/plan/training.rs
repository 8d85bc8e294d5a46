//! `rzen plan --config`: what training by a recipe will cost.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::FloatDType;
use rzen_core::Sample;
use rzen_model::{
    Encoded, ItemShape, ModelConfig, Processor, ProcessorConfig, Rates, TrainingMemory, TrainingOperations,
    TrainingShape,
};
use rzen_train::Checkpointing;
use serde_json::{Value, json};

use super::{Args, Kind, giga};
use crate::pipeline::training_texts;
use crate::reader::{EncodedSample, Reader, read_samples};
use crate::recipe::{BaseType, Recipe, Stage, Start, Train};
use crate::stage_data::StageData;

/// What training by the recipe costs.
///
/// # Errors
/// Names the option or key that is wrong or missing, or the row that can't be read.
pub fn plan(args: &Args, path: &Path) -> Result<TrainingPlan> {
    let mut recipe = Recipe::load(path, &args.set)?;
    recipe.data.replace_by(args.data.as_deref());
    let rows = Rows::of(args, &recipe)?;
    let (config, processor) = model(args, &recipe, &rows)?;
    let device = crate::device::open(&args.device)?;
    let stages: Vec<StagePlan> = recipe
        .stages
        .iter()
        .map(|stage| {
            // By blocks, frozen weights stay as they are stored; what a stage before has changed is f32.
            let as_stored =
                matches!(recipe.model, Start::Checkpoint { .. }) && recipe.base_of(stage)?.is_none();
            let blocks = stage.training.checkpointing == Checkpointing::Blocks;
            let kept =
                as_stored && blocks && crate::device::is_cpu(&device) && stored_as_bf16(args, &recipe)?;
            let narrow = kept || recipe.model.base_type() == BaseType::Bf16;
            let drawn = match &rows {
                Rows::Corpus(folder) => {
                    let processor = processor.as_ref().expect("a corpus is read with the model's processor");
                    sampled(&recipe, stage, folder, processor, args.sample)
                }
                Rows::Mix(count) => Ok(mixed(stage, &args.mix, *count)),
            };
            let drawn = drawn.with_context(|| format!("stage `{}`", stage.name))?;
            Ok(StagePlan::new(&config, stage, drawn, narrow))
        })
        .collect::<Result<_>>()?;
    let rates = match args.gflops {
        Some(gflops) => [Rates::even(gflops * 1e9); 2],
        None => {
            let stored = match stages.iter().any(|stage| stage.weight_size == 2) {
                true => FloatDType::BF16,
                false => FloatDType::F32,
            };
            // A CPU computes with bf16 as f32.
            let dtype = if crate::device::is_cpu(&device) { FloatDType::F32 } else { stored };
            [
                Rates::measure(&config, dtype, stored, &device),
                Rates::measure_training(&config, dtype, &device),
            ]
        }
    };
    Ok(TrainingPlan {
        recipe: path.display().to_string(),
        device: args.device.clone(),
        devices: args.devices,
        measured: args.gflops.is_none(),
        rates,
        stages,
    })
}

/// Whether the files of the recipe's model hold bf16; released shapes do.
fn stored_as_bf16(args: &Args, recipe: &Recipe) -> Result<bool> {
    match (&args.shape, &args.model, &recipe.model) {
        (None, Some(folder), _) | (None, None, Start::Checkpoint { folder, .. }) => {
            super::stored_as_bf16(folder)
        }
        _ => Ok(args.shape.is_some()),
    }
}

/// Where the sizes of rows come from.
enum Rows {
    /// The corpus on disk, some of whose rows are read.
    Corpus(std::path::PathBuf),
    /// So many rows a stage, of items as `--mix` says.
    Mix(usize),
}

impl Rows {
    fn of(args: &Args, recipe: &Recipe) -> Result<Self> {
        match (args.rows, &recipe.data.folder) {
            (Some(rows), _) => Ok(Rows::Mix(rows)),
            (None, Some(folder)) => Ok(Rows::Corpus(folder.clone())),
            (None, None) => bail!(
                "how long are the rows? Give --data DIR to look at them, or --rows N and --mix KIND,… to say it"
            ),
        }
    }
}

/// The model's shape, and its processor where rows are to be read.
fn model(args: &Args, recipe: &Recipe, rows: &Rows) -> Result<(ModelConfig, Option<Processor>)> {
    let own = recipe.processor.clone();
    let folder = match (&args.model, &recipe.model) {
        (Some(folder), _) | (None, Start::Checkpoint { folder, .. }) => folder,
        (None, Start::Scratch(scratch)) => {
            ensure!(
                args.shape.is_none(),
                "--shape is for recipes that start from a checkpoint; this one says its own"
            );
            let config = own.unwrap_or_default();
            let Rows::Corpus(corpus) = rows else {
                bail!(
                    "the recipe's model has a tokenizer made of its rows: give --data DIR instead of --rows"
                )
            };
            let texts = training_texts(recipe, &config.system_prompt, corpus)?;
            let (config, processor, _) = scratch.shape(&config, &texts)?;
            return Ok((config, Some(processor)));
        }
    };
    let config = match &args.shape {
        Some(_) => args.config()?,
        None => ModelConfig::load(folder).with_context(|| {
            format!("model {}; without its files give --shape NAME of a released one", folder.display())
        })?,
    };
    let Rows::Corpus(_) = rows else { return Ok((config, None)) };
    let processor = match own {
        Some(own) => own,
        None => ProcessorConfig::load(folder)?,
    };
    Ok((config, Some(Processor::load_with(folder, processor)?)))
}

/// What a stage draws.
struct Drawn {
    steps: usize,
    kinds: Vec<RowKind>,
}

/// Rows alike: how many of them a stage draws, and what a few of them hold.
struct RowKind {
    rows: f64,
    /// Query, positive and hard negatives of each.
    examples: Vec<Vec<ItemShape>>,
}

/// Reads up to `sample` rows of each dataset that the stage draws from.
fn sampled(
    recipe: &Recipe,
    stage: &Stage,
    corpus: &Path,
    processor: &Processor,
    sample: usize,
) -> Result<Drawn> {
    let data = StageData::load(stage, corpus, recipe.seed)?;
    let reader = Reader::new(processor.clone(), recipe.data.load.options());
    let mut kinds = Vec::new();
    for (rows, drawn) in data.planned_rows() {
        let step = drawn.len().div_ceil(sample).max(1);
        let chosen: Vec<&Sample> = drawn.iter().step_by(step).map(|row| &rows[*row]).collect();
        let (read, bad) = read_samples(&reader, &chosen, |_| {});
        ensure!(
            !read.is_empty() || chosen.is_empty(),
            "none of {} rows can be read; the first: {}: {}",
            chosen.len(),
            bad[0].origin,
            bad[0].message
        );
        let shapes = |(_, (query, positive, hard)): (usize, EncodedSample)| {
            [query, positive].iter().chain(&hard).map(|item| shape(item, processor)).collect()
        };
        kinds.push(RowKind { rows: drawn.len() as f64, examples: read.into_iter().map(shapes).collect() });
    }
    Ok(Drawn { steps: data.steps(), kinds })
}

fn shape(item: &Encoded, processor: &Processor) -> ItemShape {
    let merged = processor.config().merge_size.pow(2);
    let tokens = |grid: &[usize; 3]| grid.iter().product::<usize>() / merged;
    let pictures: Vec<usize> = item.pictures.iter().map(|picture| tokens(&picture.grid_thw)).collect();
    let words = item.input_ids.len() - pictures.iter().sum::<usize>();
    ItemShape { words, pictures }
}

/// Rows whose query, positive and hard negatives are drawn from the kinds of `mix`.
fn mixed(stage: &Stage, mix: &[Kind], rows: usize) -> Drawn {
    let all: usize = mix.iter().map(|kind| kind.count).sum();
    let (rows, items) = (rows as f64 * stage.epochs, 2 + stage.hard_negatives);
    let kind = |kind: &Kind| RowKind {
        rows: rows * kind.count as f64 / all as f64,
        examples: vec![vec![kind.shape.clone(); items]],
    };
    let steps = ((rows / stage.batch_size as f64).round() as usize).max(1);
    Drawn { steps, kinds: mix.iter().map(kind).collect() }
}

/// What a stage costs.
struct StagePlan {
    name: String,
    rows: f64,
    steps: usize,
    items: f64,
    tokens: f64,
    trained: usize,
    operations: TrainingOperations,
    memory: TrainingMemory,
    /// Bytes of a frozen number in memory.
    weight_size: usize,
}

impl StagePlan {
    fn new(config: &ModelConfig, stage: &Stage, drawn: Drawn, narrow: bool) -> Self {
        let adapter = match &stage.train {
            Train::Full {} => None,
            Train::Lora(adapter) => Some(adapter.clone()),
        };
        let shape = TrainingShape {
            embed_twice: stage.training.recompute,
            by_blocks: stage.training.checkpointing == Checkpointing::Blocks,
            side_by_side: stage.training.threads,
            adapter,
        };
        let weight_size = if narrow && shape.adapter.is_some() { 2 } else { 4 };
        let (mut rows, mut items, mut tokens) = (0.0, 0.0, 0.0);
        let mut operations = TrainingOperations::default();
        let mut largest: Option<TrainingMemory> = None;
        for RowKind { rows: alike, examples } in &drawn.kinds {
            rows += alike;
            let each = alike / examples.len() as f64;
            let row = examples.iter().map(Vec::len).max().unwrap_or(0);
            for item in examples.iter().flatten() {
                items += each;
                tokens += each * item.tokens() as f64;
                operations = operations + config.training_operations(item, &shape) * each;
                // Candidates are more than queries.
                let candidates = stage.batch_size * (row - 1).max(1);
                let most = stage.micro_batch_tokens.unwrap_or(usize::MAX) / item.tokens().max(1);
                let count = most.clamp(1, stage.micro_batch_size).min(candidates);
                let of_batch = (stage.batch_size * row).div_ceil(count);
                let memory = config.training_memory(&shape, weight_size, (item, count), of_batch);
                if largest.is_none_or(|largest| largest.total() < memory.total()) {
                    largest = Some(memory);
                }
            }
        }
        StagePlan {
            name: stage.name.clone(),
            rows,
            steps: drawn.steps,
            items,
            tokens,
            trained: config.trained_parameters(shape.adapter.as_ref()),
            operations,
            memory: largest.expect("a stage draws from at least one dataset"),
            weight_size,
        }
    }

    fn seconds(&self, [plain, graph]: &[Rates; 2]) -> f64 {
        plain.seconds(&self.operations.plain) + graph.seconds(&self.operations.graph)
    }
}

/// What training by a recipe costs.
pub struct TrainingPlan {
    recipe: String,
    device: String,
    devices: usize,
    measured: bool,
    rates: [Rates; 2],
    stages: Vec<StagePlan>,
}

impl TrainingPlan {
    fn seconds(&self, stage: &StagePlan) -> f64 {
        stage.seconds(&self.rates) / self.devices as f64
    }

    /// A table and what stands below it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<20} {:>9} {:>8} {:>9} {:>11} {:>11} {:>11} {:>10} {:>11}",
            "stage", "rows", "steps", "items", "tokens", "trained", "TFLOP/step", "memory", "time"
        )];
        lines.extend(self.stages.iter().map(|stage| {
            format!(
                "{:<20} {:>9.0} {:>8} {:>9.0} {:>11.0} {:>11} {:>11.3} {:>10} {:>11}",
                stage.name,
                stage.rows,
                stage.steps,
                stage.items,
                stage.tokens,
                stage.trained,
                stage.operations.total() / stage.steps as f64 / 1e12,
                giga(stage.memory.total()),
                spelled(self.seconds(stage))
            )
        }));
        let largest = self.stages.iter().max_by(|a, b| a.memory.total().total_cmp(&b.memory.total()));
        let TrainingMemory { weights, trained, activations } = largest.expect("a recipe has a stage").memory;
        let source = if self.measured { "measured" } else { "as given" };
        let [plain, graph] = self.rates;
        let total: f64 = self.stages.iter().map(|stage| self.seconds(stage)).sum();
        lines.extend([
            String::new(),
            format!(
                "memory       {} on each device at the largest of these rows: {} for weights, {} for what trains with gradients and moments, {} \
                 for a micro-batch",
                giga(weights + trained + activations),
                giga(weights),
                giga(trained),
                giga(activations)
            ),
            format!(
                "device       {} x {}: {:.0} GFLOP/s forwards ({:.0} in attention), {:.0} with a graph ({:.0}), {source}",
                self.devices,
                self.device,
                plain.linear / 1e9,
                plain.attention / 1e9,
                graph.linear / 1e9,
                graph.attention / 1e9
            ),
            format!("time         {} for the stages of {}", spelled(total), self.recipe),
        ]);
        lines
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let rates = |rates: &Rates| json!({ "linear": rates.linear, "attention": rates.attention });
        let stage = |stage: &StagePlan| {
            let TrainingMemory { weights, trained, activations } = stage.memory;
            json!({
                "stage": stage.name, "rows": stage.rows, "steps": stage.steps, "items": stage.items,
                "tokens": stage.tokens, "trained_parameters": stage.trained,
                "operations": { "plain": stage.operations.plain.total(), "graph": stage.operations.graph.total() },
                "memory_bytes": {
                    "weights": weights, "trained": trained, "activations": activations, "total": stage.memory.total(),
                },
                "seconds": self.seconds(stage),
            })
        };
        json!({
            "recipe": self.recipe,
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
            "device": self.device,
            "devices": self.devices,
            "flops": { "plain": rates(&self.rates[0]), "graph": rates(&self.rates[1]), "measured": self.measured },
            "seconds": self.stages.iter().map(|stage| self.seconds(stage)).sum::<f64>(),
        })
    }
}

/// `12.3 s`, `45.0 min`, `6.1 h`, `9.9 days`.
fn spelled(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86400.0),
    }
}
