//! `rzen soup --search`: weights by held-out tasks.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rzen_eval::Metric;
use rzen_merge::{IngredientScore, ScoresRecord, SearchRecord, SoupSettings};

use crate::device;
use crate::embedder::EmbedSettings;
use crate::evaluate::Benchmark;
use crate::load_limits::LoadLimits;
use crate::soup::{Scorer, ScorerOptions, Search, Trials, What, check_count, search};
use crate::verbs::soup::Args;

/// The search and how it scores.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Search")]
pub struct FindArgs {
    /// Find the weights on held-out tasks
    #[arg(long, value_enum, requires_all = ["data", "tasks"], conflicts_with = "weights")]
    search: Option<Search>,
    /// Corpus folder of the held-out tasks
    #[arg(long, requires = "search", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The held-out tasks, separated by commas; never those that are tested on
    #[arg(long, requires = "search", value_delimiter = ',', value_name = "NAMES")]
    tasks: Option<Vec<String>>,
    /// What is compared, as its mean over the tasks, for example ndcg@10; default each task's own metric
    #[arg(long, requires = "search")]
    metric: Option<String>,
    /// Soups that are scored, at most
    #[arg(long, requires = "search", default_value_t = 64, value_name = "N")]
    trials: usize,
    /// Folder of the search's log, by which a stopped search goes on; default OUTPUT.search
    #[arg(long, requires = "search", value_name = "DIR")]
    work: Option<PathBuf>,
    /// Write the soup as an adapter: --base is there to score it on
    #[arg(long, requires = "search")]
    pub(super) keep_adapter: bool,
    /// Element type of the weights that are scored: f32, bf16 or f16
    #[arg(long, requires = "search", default_value = "f32")]
    dtype: String,
    /// Device that scores: cpu, wgpu or cuda, with :N for another than the first
    #[arg(long, requires = "search", default_value = "cpu")]
    device: String,
    /// Items in a batch, at most
    #[arg(long, requires = "search", default_value_t = 64, value_name = "N")]
    batch_size: usize,
    /// Tokens in a batch, at most
    #[arg(long, requires = "search", default_value_t = EmbedSettings::BATCH_TOKENS, value_name = "N")]
    batch_tokens: usize,
    /// A limit on what files may ask for, as of rzen embed
    #[arg(long, requires = "search", value_name = "KEY=VALUE")]
    load: Vec<String>,
}

/// Weights, and how they were come by.
pub struct Weights {
    pub weights: Vec<f64>,
    pub search: SearchRecord,
    pub scores: ScoresRecord,
}

impl FindArgs {
    /// Refuses options that lead nowhere, before anything is read.
    pub(super) fn check(&self, args: &Args) -> Result<()> {
        let (Some(_), Some(tasks)) = (self.search, &self.tasks) else { return Ok(()) };
        ensure!(
            args.base.is_some() || !args.models.is_empty(),
            "--search scores adapters on their base; give it with --base, and --keep-adapter where the soup is to stay an adapter"
        );
        ensure!(
            self.batch_size > 0 && self.batch_tokens > 0,
            "--batch-size and --batch-tokens are 1 or more"
        );
        ensure!(!tasks.is_empty(), "--tasks names none");
        self.metric()?;
        device::dtype(&self.dtype)?;
        LoadLimits::parse(&self.load)?;
        check_count(args.folders().len(), self.trials)
    }

    fn metric(&self) -> Result<Option<Metric>> {
        self.metric.as_deref().map(str::parse).transpose().context("--metric")
    }

    /// Searches for weights, where that is asked for.
    pub(super) fn weights(&self, args: &Args, settings: SoupSettings) -> Result<Option<Weights>> {
        let (Some(kind), Some(data), Some(tasks)) = (self.search, &self.data, &self.tasks) else {
            return Ok(None);
        };
        let benchmark = Benchmark::load(data, Some(tasks))?;
        let work = match &self.work {
            Some(work) => work.clone(),
            None => {
                let mut name = args.output.file_name().context("--output has no name")?.to_owned();
                name.push(".search");
                args.output.with_file_name(name)
            }
        };
        let what = match &args.base {
            Some(base) => What::Adapters { base: base.clone(), settings },
            None => What::Models,
        };
        let options = ScorerOptions {
            metric: self.metric()?,
            dtype: self.dtype.clone(),
            device: self.device.clone(),
            batch_size: self.batch_size,
            batch_tokens: self.batch_tokens,
            load: self.load.clone(),
        };
        let scorer = Scorer::new(what, args.folders(), benchmark, options, &work)?;
        let mut trials = Trials::open(&work, scorer.context()?, self.trials)?;
        let count = args.folders().len();
        let found = search(kind, count, &mut |weights| scorer.measure(&mut trials, weights))?;
        let best = found.alone.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!(
            "{} soups scored; best ingredient {best:.4}, equal weights {:.4}, found {:.4}",
            trials.asked(),
            found.uniform,
            found.score
        );
        if found.weights.iter().filter(|weight| **weight != 0.0).count() == 1 {
            eprintln!("note: no soup is better than one ingredient alone, which is what is written");
        }
        if !found.score.is_finite() {
            bail!("the best score is {}, expected a number", found.score);
        }
        let paths = args.folders().iter().map(|path| path.display().to_string());
        let tasks: Vec<String> = scorer.tasks().into_iter().map(str::to_owned).collect();
        let scores = ScoresRecord {
            metric: scorer.metric(),
            tasks: tasks.clone(),
            ingredients: paths
                .zip(&found.alone)
                .map(|(path, score)| IngredientScore { path, score: *score })
                .collect(),
            uniform: Some(found.uniform),
            soup: found.score,
        };
        let search = SearchRecord {
            kind: kind.name().to_owned(),
            data: data.display().to_string(),
            tasks,
            metric: scorer.metric(),
            trials: trials.asked(),
        };
        Ok(Some(Weights { weights: found.weights, search, scores }))
    }
}
