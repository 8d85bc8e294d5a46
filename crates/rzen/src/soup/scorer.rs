//! The score of a soup on held-out tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rzen_eval::Metric;
use rzen_merge::{Average, Checkpoint, Cut, Existing, Ingredient, Method, Soup, SoupSettings, StagedFolder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::device;
use crate::embedder::{Kept, LocalEmbedder};
use crate::evaluate::Benchmark;
use crate::files::{hex, sha256};
use crate::load_limits::LoadLimits;
use crate::models::{self, Opened};
use crate::soup::{Trials, check_alike};

/// What is to be joined.
#[derive(Clone, Debug)]
pub enum What {
    /// Adapters, on this base, by these settings.
    Adapters {
        /// The base that they are put on.
        base: PathBuf,
        /// How.
        settings: SoupSettings,
    },
    /// Whole checkpoints, by averages.
    Models,
}

/// How soups are scored.
pub struct ScorerOptions {
    /// What is compared; each task's own metric where none is given.
    pub metric: Option<Metric>,
    /// Element type of the weights: `f32`, `bf16` or `f16`.
    pub dtype: String,
    /// Where is computed.
    pub device: String,
    /// Items in a batch, at most.
    pub batch_size: usize,
    /// Tokens in a batch, at most.
    pub batch_tokens: usize,
    /// Limits of files, `KEY=VALUE`.
    pub load: Vec<String>,
}

/// What is joined, opened once.
enum Joins {
    Adapters(Box<OnBase>),
    Models(Average),
}

struct OnBase {
    /// Of all adapters.
    soup: Soup,
    settings: SoupSettings,
    /// The base's files, for what no adapter holds.
    base: Checkpoint,
    /// The base as a model, on which soups are put.
    model: Opened,
}

/// Joins folders by weights and scores the result.
pub struct Scorer {
    what: What,
    paths: Vec<PathBuf>,
    benchmark: Benchmark,
    options: ScorerOptions,
    /// Beside this, soups are written to be scored.
    work: PathBuf,
    joins: Joins,
    kept: Arc<Kept>,
}

impl Scorer {
    /// Opens the base of adapters, and checks that the folders can be joined.
    ///
    /// # Errors
    /// Names the folder, option or file that is wrong.
    pub fn new(
        what: What,
        paths: &[PathBuf],
        benchmark: Benchmark,
        options: ScorerOptions,
        work: &Path,
    ) -> Result<Self> {
        let joins = match &what {
            What::Adapters { base, settings } => {
                let soup = Soup::new(&Ingredient::uniform(paths), *settings)?;
                let processor = models::processor_config(base, Some(&paths[0]))?;
                let model = open(base, &options)?.with_processor(base, processor)?;
                let base = Checkpoint::open(base)?;
                Joins::Adapters(Box::new(OnBase { soup, settings: *settings, base, model }))
            }
            What::Models => {
                check_alike(paths)?;
                Joins::Models(Average::new(&Ingredient::uniform(paths))?)
            }
        };
        let (paths, work) = (paths.to_vec(), work.join("trial"));
        let kept = Arc::new(Kept::new(KEPT_BYTES));
        Ok(Scorer { what, paths, benchmark, options, work, joins, kept })
    }

    /// What a score depends on besides weights.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn context(&self) -> Result<Value> {
        let (hashes, base, settings) = match &self.joins {
            Joins::Adapters(on) => (on.soup.hashes(), Some(on.base.sha256()), Some(on.settings)),
            Joins::Models(average) => (average.hashes(), None, None),
        };
        let processor = match &self.joins {
            Joins::Adapters(on) => on.model.processor.config().to_json(),
            Joins::Models(_) => models::processor_config(&self.paths[0], None)?.to_json(),
        };
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ingredients": hashes,
            "settings_of_folders": self.settings_hashes()?,
            "base": base,
            "settings": settings.map(|one| (one.method, one.cut)),
            "alone": settings.map(|one| alone_as_it_is(one, &joined(&self.paths[..1], &[1.0])).cut),
            "tasks": self.tasks(),
            "rows": self.rows_hash(),
            "metric": self.metric(),
            "processor": processor,
            "load": serde_json::to_value(LoadLimits::parse(&self.options.load)?)?,
            "dtype": self.options.dtype,
            "device": self.options.device,
        }))
    }

    /// The names of the tasks.
    pub fn tasks(&self) -> Vec<&str> {
        self.benchmark.tasks.iter().map(|task| task.name.as_str()).collect()
    }

    /// What is compared, in words.
    pub fn metric(&self) -> String {
        self.options.metric.map_or_else(|| "each task's own".to_owned(), |metric| metric.to_string())
    }

    /// Scores the soup of these weights, or finds it in the log.
    ///
    /// # Errors
    /// Names what can't be joined, opened or embedded.
    pub fn measure(&self, trials: &mut Trials, weights: &[f64]) -> Result<Option<f64>> {
        let mut fresh = false;
        let score = trials.measure(weights, || {
            fresh = true;
            self.score(weights)
        })?;
        if let Some(score) = score {
            let shares: Vec<String> = weights.iter().map(|weight| format!("{weight:.3}")).collect();
            let known = if fresh { "" } else { " (known)" };
            eprintln!("trial {:>3}: {score:.4} at {}{known}", trials.asked(), shares.join(" "));
        }
        Ok(score)
    }

    /// The mean over the tasks, and each of them.
    fn score(&self, weights: &[f64]) -> Result<(f64, BTreeMap<String, f64>)> {
        let (embedder, written) = self.embedder(weights)?;
        let scores = self.benchmark.run(&embedder, "score", self.options.batch_size)?;
        // The files go after who reads them.
        drop(embedder);
        drop(written);
        let value = |task: &rzen_eval::TaskSummary| match self.options.metric {
            None => Ok(task.headline()),
            Some(metric) => task.value(metric).with_context(|| {
                let known: Vec<String> = task.values.iter().map(|(metric, _)| metric.to_string()).collect();
                format!("task `{}` has no {metric}; give one of {}", task.task, known.join(", "))
            }),
        };
        let summaries = scores.results.tasks();
        let tasks = summaries
            .iter()
            .map(|task| Ok((task.task.clone(), value(task)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let sum: f64 = tasks.values().sum();
        ensure!(sum.is_finite(), "the scores {tasks:?} are no numbers");
        Ok((sum / tasks.len() as f64, tasks))
    }

    /// The soup of these weights, and the folder that it lies in as long as it is needed.
    fn embedder(&self, weights: &[f64]) -> Result<(LocalEmbedder, StagedFolder)> {
        let written = StagedFolder::create(&self.work, Existing::Replace)?;
        let opened = match &self.joins {
            Joins::Adapters(on) => {
                let OnBase { soup, settings, base, model } = &**on;
                let settings = alone_as_it_is(*settings, &joined(&self.paths, weights));
                let soup = soup.reweighted(weights, settings)?;
                if soup.adds_full_rank() {
                    soup.write_merged(base, written.path())?;
                    open(written.path(), &self.options)?
                } else {
                    soup.write(written.path())?;
                    let on_base = model.model.clone().with_adapter(written.path())?;
                    Opened {
                        model: on_base,
                        processor: model.processor.clone(),
                        device: model.device.clone(),
                    }
                }
            }
            Joins::Models(average) => {
                average.reweighted(weights)?.write(written.path())?;
                open(written.path(), &self.options)?
            }
        };
        let limits = LoadLimits::parse(&self.options.load)?.options();
        let embedder =
            opened.embedder(PathBuf::new(), self.options.batch_size, self.options.batch_tokens, limits);
        Ok((embedder.keeping(self.kept.clone()), written))
    }

    /// Of the ingredients and their base, what changes a vector besides weights: scalings, shapes, tokens.
    fn settings_hashes(&self) -> Result<Vec<String>> {
        let base = match &self.what {
            What::Adapters { base, .. } => Some(base),
            What::Models => None,
        };
        let files = self.paths.iter().chain(base).flat_map(|folder| {
            ["adapter_config.json", "config.json", "tokenizer.json"].map(|name| folder.join(name))
        });
        let hash = |file: PathBuf| Ok(hex(&sha256(&file).with_context(|| file.display().to_string())?));
        files.filter(|file| file.is_file()).map(hash).collect()
    }

    /// Of all items, their order and what is relevant; what media files hold is not looked at.
    fn rows_hash(&self) -> String {
        let mut hasher = Sha256::new();
        for task in &self.benchmark.tasks {
            hasher.update(format!("{:?}", (&task.name, task.metric, &task.queries, &task.pool)));
        }
        hex(&hasher.finalize())
    }
}

fn open(folder: &Path, options: &ScorerOptions) -> Result<Opened> {
    let device = device::open(&options.device)?;
    models::open_to_embed(folder, None, device::dtype(&options.dtype)?, &device)
}

/// What items are kept decoded between soups, at most.
const KEPT_BYTES: usize = 2 << 30;

/// Folders whose weight is not zero.
pub(crate) fn joined(paths: &[PathBuf], weights: &[f64]) -> Vec<Ingredient> {
    let pairs = paths.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    pairs.map(|(path, weight)| Ingredient { path: path.clone(), weight: *weight }).collect()
}

/// A single adapter is what it is, without pruning or an arc, but for a rank or an energy that was asked for.
pub(crate) fn alone_as_it_is(settings: SoupSettings, ingredients: &[Ingredient]) -> SoupSettings {
    if ingredients.len() != 1 {
        return settings;
    }
    let cut = match settings.cut {
        cut @ (Cut::Rank(_) | Cut::Energy(_)) => cut,
        Cut::Nothing | Cut::LargestRank => Cut::Nothing,
    };
    SoupSettings { method: Method::Exact, cut, ..settings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_adapter_is_cut_where_that_was_asked_for() {
        let one = Ingredient::uniform(["one"]);
        for (cut, expected) in [
            (Cut::Rank(3), Cut::Rank(3)),
            (Cut::Energy(0.9), Cut::Energy(0.9)),
            (Cut::LargestRank, Cut::Nothing),
            (Cut::Nothing, Cut::Nothing),
        ] {
            for method in [Method::Exact, Method::Slerp, Method::Ties { density: 0.5 }] {
                let settings = SoupSettings { cut, any_base: true, ..SoupSettings::new(method) };
                let alone = SoupSettings { method: Method::Exact, cut: expected, any_base: true };
                assert_eq!(alone_as_it_is(settings, &one), alone, "{method:?}");
                assert_eq!(alone_as_it_is(settings, &Ingredient::uniform(["one", "two"])), settings);
            }
        }
    }
}
