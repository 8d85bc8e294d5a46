//! A whole training: start, stages, soup, scores, report.

mod base;
mod rows;
mod soup;
mod stage;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device};
use rzen_core::{Ranks, Sample, SaveWeights};
use rzen_data::train_manifests;
use rzen_merge::Existing;
use rzen_model::{Processor, ProcessorConfig, Qwen2Vl};
use serde_json::json;

use crate::card::Card;
use crate::device::is_cpu;
use crate::embedder::EmbedSettings;
use crate::evaluate::{Benchmark, Scores};
use crate::files::whole_folder;
use crate::fit_examples::fit_examples;
use crate::models::{self, Opened};
use crate::ranks::{agreed, as_first, first, same_everywhere};
use crate::reader::Reader;
use crate::recipe::{BaseType, Recipe, Start};
use crate::run_cards::{RunCards, data_uses};
use crate::run_folder::Run;
use crate::scratch::Scratch;
use crate::{summary, world};
use base::{Base, open_folder, open_result, result_folder};
use rows::{Rows, check_datasets};
use soup::{score_soup, soup_adapters};
use stage::train_one;

/// What a training needs to know.
pub struct Job<'a> {
    /// What is to be done.
    pub recipe: &'a Recipe,
    /// Where it is written.
    pub run: &'a Run,
    /// Where it computes.
    pub device: &'a Device,
    /// As the user named it.
    pub device_name: &'a str,
    /// Set when the user wants it to end.
    pub stop: &'a AtomicBool,
    /// The processes that train together. Rank 0 draws, writes and measures; the others train with it.
    pub ranks: &'a dyn Ranks,
}

impl Job<'_> {
    /// Tells the user, once for all ranks.
    fn say(&self, text: &str) {
        if self.ranks.rank() == 0 {
            eprintln!("{text}");
        }
    }
}

/// The scores of one column of the results.
pub struct Column {
    /// `start`, a stage, or `soup`.
    pub name: String,
    /// What it scored.
    pub scores: Scores,
}

/// Trains by the recipe; what the run folder holds already is not done again.
///
/// # Errors
/// Names the row, file or step that is wrong, or where the run was stopped.
pub fn train(job: &Job, name: &str) -> Result<()> {
    let started = Instant::now();
    agreed(job.ranks, check_base_type(job))?;
    let corpus = corpus(job)?;
    agreed(job.ranks, check_datasets(job.recipe, &corpus))?;
    // Rank 0 measures.
    let tasks = || {
        Benchmark::load(&corpus, job.recipe.evaluation.tasks.as_deref())
            .context("tasks to measure; without any, set `tasks = []` under [evaluation] of the recipe")
    };
    let benchmark = first(job.ranks, tasks)?;
    // All of them before the first trains: a mistake in the last stage's rows shows now. One stage's are held at a time, and the
    // first's are the last to be read.
    let (mut held, mut manifests, mut data) = (None, Vec::new(), Vec::new());
    for stage in job.recipe.stages.iter().rev() {
        drop(held.take());
        let rows = agreed(job.ranks, Rows::load(stage, &corpus, job.recipe.seed))?;
        manifests.push(rows.manifests.clone());
        data.push((stage.name.clone(), data_uses(&rows.data, &corpus, job.recipe)));
        held = Some(rows);
    }
    manifests.reverse();
    same_everywhere(job.ranks, "manifest of training rows", &json!(manifests).to_string())?;
    let start = start_model(job, &corpus, held.as_ref())?;
    let cards = RunCards { recipe: job.recipe, run: job.run, name, data: data.into_iter().collect() };
    for (stage, manifests) in job.recipe.stages.iter().zip(manifests) {
        let first = held.take();
        // Where folders are shared over a network, ranks may see new ones at different times: rank 0 looks.
        if as_first(job.ranks, || Ok(result_folder(job.run, stage).is_dir()))? {
            job.say(&format!("{}: done before", stage.name));
            continue;
        }
        let rows = match first {
            Some(first) => first,
            None => agreed(job.ranks, Rows::load_again(stage, &corpus, job.recipe.seed, &manifests))?,
        };
        train_one(job, stage, &start, rows, &cards)?;
    }
    let finish = || benchmark.map_or(Ok(()), |benchmark| finish(job, &benchmark, &start, &cards, started));
    first(job.ranks, finish)?;
    Ok(())
}

/// Refuses a base of bf16 where the device has none.
fn check_base_type(job: &Job) -> Result<()> {
    let narrow = job.recipe.model.base_type() == BaseType::Bf16;
    ensure!(
        !narrow || is_cpu(job.device) || job.device.supports_dtype(DType::BF16),
        "`model.dtype` is bf16, which {} does not compute with; leave it out, or name another --device",
        job.device_name
    );
    Ok(())
}

/// Soup, scores and report of stages that are trained, in a run that goes on since `started`.
fn finish(job: &Job, benchmark: &Benchmark, start: &Base, cards: &RunCards, started: Instant) -> Result<()> {
    let soup = match &job.recipe.soup {
        Some(soup) => Some(soup_adapters(job, soup, start, cards)?),
        None => None,
    };
    if benchmark.tasks.is_empty() {
        let run = job.run.join("");
        println!("trained: {}; the recipe measures no tasks, `rzen report` shows its curves", run.display());
        return Ok(());
    }
    let columns = measure(job, benchmark, start, soup.as_deref())?;
    write_cards(job, cards, &columns)?;
    println!("{}", summary::table(&columns));
    let report =
        summary::write_report(job, cards.name, benchmark, &columns, &start.processor, started.elapsed())?;
    println!("report: {}", report.display());
    Ok(())
}

/// The corpus folder, drawn first where the recipe asks for a world.
fn corpus(job: &Job) -> Result<PathBuf> {
    match (&job.recipe.data.world, &job.recipe.data.folder) {
        (Some(config), _) => {
            let folder = job.run.join("world");
            let drawn = first(job.ranks, || Ok(world::draw_world(config, &folder)?))?;
            if let Some(drawn) = drawn {
                eprintln!(
                    "world: {} pictures, {} clips, {} documents in {}",
                    drawn.pictures,
                    drawn.clips,
                    drawn.documents,
                    folder.display()
                );
            }
            Ok(folder)
        }
        (None, Some(folder)) => Ok(folder.clone()),
        (None, None) => {
            bail!("the recipe names no data; give --data DIR, or [data] with `folder` or `world`")
        }
    }
}

/// The model that training starts from, made where it is to be random.
fn start_model(job: &Job, corpus: &Path, rows: Option<&Rows>) -> Result<Base> {
    let own = job.recipe.processor.clone();
    match &job.recipe.model {
        Start::Checkpoint { folder, .. } => {
            let there =
                || ProcessorConfig::load(folder).with_context(|| format!("model {}", folder.display()));
            let processor = agreed(job.ranks, own.map_or_else(there, Ok))?;
            Ok(Base::new(folder.clone(), processor))
        }
        Start::Scratch(scratch) => {
            let base = Base::new(job.run.join("start"), own.unwrap_or_default());
            let draw = || match base.folder.is_dir() {
                true => Ok(()),
                false => draw_start(job, corpus, &base, scratch, rows),
            };
            first(job.ranks, draw)?;
            Ok(base)
        }
    }
}

/// Writes a model that starts from scratch.
fn draw_start(job: &Job, corpus: &Path, base: &Base, scratch: &Scratch, first: Option<&Rows>) -> Result<()> {
    let texts = training_texts(job.recipe, &base.processor.system_prompt, corpus)?;
    let limit = job.recipe.data.bad_row_limit;
    // The first stage is the one that starts from these weights.
    let datasets: Vec<&[Sample]> = first.map_or_else(Vec::new, |first| first.data.drawn().collect());
    let examples = |processor: Processor| {
        let mut lost = 0;
        let reader = Reader::new(processor, job.recipe.data.load.options());
        fit_examples(&datasets, reader, EXAMPLES_OF_A_SET).map(move |(examples, bad)| {
            for row in &bad {
                eprintln!("first weights, left out: {}: {}", row.origin, row.message);
            }
            lost += bad.len();
            ensure!(
                lost <= limit,
                "the first weights are fitted to some of the pictures, and {lost} of those rows can't be read, more \
                 than the {limit} allowed; mend their files, take the rows out of the manifest, or raise `bad_row_limit`"
            );
            Ok(examples)
        })
    };
    let model = scratch.draw(job.recipe.seed, &base.processor, &texts, examples, job.device)?;
    save(&model, &base.folder, None)
}

/// Rows of each dataset whose pictures and captions the first weights are fitted to, at most.
const EXAMPLES_OF_A_SET: usize = 1024;

/// Every text of the training rows, instructions and system prompt included.
pub(crate) fn training_texts(recipe: &Recipe, system_prompt: &str, corpus: &Path) -> Result<Vec<String>> {
    let mut texts = vec![system_prompt.to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    for row in recipe.stages.iter().flat_map(|stage| &stage.datasets) {
        if seen.insert(&row.dataset) {
            let manifests = train_manifests(&corpus.join(&row.dataset))?;
            texts.extend(crate::stage_data::texts(&manifests, corpus)?);
        }
    }
    Ok(texts)
}

fn save(model: &Qwen2Vl, folder: &Path, card: Option<&Card>) -> Result<()> {
    whole_folder(folder, Existing::Refuse, |part| {
        model.save_weights(part).map_err(anyhow::Error::from_boxed)?;
        card.map_or(Ok(()), |card| card.write(part))
    })
}

/// Puts the scores into the cards of all that was measured.
fn write_cards(job: &Job, cards: &RunCards, columns: &[Column]) -> Result<()> {
    for column in columns {
        let scores = summary::model_scores(column);
        if let Some(stage) = job.recipe.stage(&column.name) {
            cards.stage(stage, Some(&scores))?.write(&result_folder(job.run, stage))?;
        } else if let (Some(soup), "soup") = (&job.recipe.soup, column.name.as_str()) {
            for (folder, adapter) in [("soup/adapter", true), ("soup/model", false)] {
                cards.soup(soup, adapter, Some(&scores))?.write(&job.run.join(folder))?;
            }
            score_soup(job, soup, columns)?;
        }
    }
    Ok(())
}

/// Scores the start, each stage and the soup.
fn measure(job: &Job, benchmark: &Benchmark, start: &Base, soup: Option<&Path>) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    let mut column = |name: &str, opened: Opened| -> Result<()> {
        if job.stop.load(Ordering::SeqCst) {
            bail!("stopped before measuring `{name}`; give the same command again to go on");
        }
        let batch_size = job.recipe.evaluation.batch_size;
        let scores = benchmark.run(
            &opened.embedder(
                PathBuf::new(),
                batch_size,
                EmbedSettings::BATCH_TOKENS,
                job.recipe.data.load.options(),
            ),
            &format!("measure {name}"),
            batch_size,
        )?;
        let results = job.run.join("results");
        std::fs::create_dir_all(&results).with_context(|| results.display().to_string())?;
        scores.results.save(&results.join(format!("{name}.json")))?;
        columns.push(Column { name: name.to_owned(), scores });
        Ok(())
    };
    if job.recipe.evaluation.start {
        column("start", open_result(job, None, start, models::open_to_embed)?)?;
    }
    for stage in &job.recipe.stages {
        column(&stage.name, open_result(job, Some(stage), start, models::open_to_embed)?)?;
    }
    if let Some(folder) = soup {
        column("soup", open_folder(job, folder, start, models::open_to_embed)?)?;
    }
    Ok(columns)
}
