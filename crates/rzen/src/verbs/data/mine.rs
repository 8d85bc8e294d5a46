//! `rzen data mine`: hard negatives with a model.

use std::path::PathBuf;

use anyhow::{Result, bail};
use rzen_data::{NegativeChoice, Sampling, TeacherFilter};
use serde_json::{Value, json};

use crate::files::hex;
use crate::load_limits::LoadLimits;
use crate::mine::{MineOptions, Record, Source, check_output, example, examples, mine, table, write};
use crate::models;
use crate::output::vectors_beside;
use crate::verbs::model_options::{ModelOptions, Range};

/// Mine hard negatives with a model
///
/// Ranks the answers of all rows of a `name`, their hard negatives and the candidates of --pool for each query, and takes the
/// hardest that are no answers: never an answer of the query or of another row that asks the same, of a row of its label,
/// what shows the same as one of these or as the query, or the query's own picture or clip. Writes a corpus of the same rows
/// to train on, tasks included, with mine.json, report.html, and in each dataset mined.jsonl (what became of each row).
/// Vectors are kept and used again by the next run with this model.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen data mine --model runs/world/stage_1/model --corpus runs/world/world --dataset pictures \
                  --output mined --negatives 4 --rank 1..60 --percent 95 --scores"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Corpus folder that is read
    #[arg(long, value_name = "DIR")]
    corpus: PathBuf,
    /// Datasets, separated by commas; default every folder of the corpus with a manifest
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    dataset: Option<Vec<String>>,
    /// Corpus folder that is written
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Further candidates for every row, in the form of pools (docs/data.md); may be given several times
    #[arg(long, value_name = "FILE")]
    pool: Vec<PathBuf>,
    /// Negatives taken for each row, at most
    #[arg(long, default_value_t = 5, value_name = "N")]
    negatives: usize,
    /// Ranks that negatives are taken from, counted from 1 among the candidates that may be negatives
    #[arg(long, default_value = "1..100", value_name = "MIN..MAX")]
    rank: Range,
    /// A negative scores below the lowest answer by more than this (NV-Retriever: 0.05)
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    margin: Option<f64>,
    /// A negative scores below this much of the lowest answer's score, in percent (NV-Retriever: 95)
    #[arg(long, value_name = "P")]
    percent: Option<f64>,
    /// A negative scores at most this
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    max_score: Option<f64>,
    /// A negative scores at least this
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    min_score: Option<f64>,
    /// Which of those that are left: top, those ranked first, or random
    #[arg(long, default_value = "top", value_name = "HOW")]
    sample: Sample,
    /// Decides the draws of --sample random; default 0
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Drop the hard negatives that rows have; by default they stay, before the new ones
    #[arg(long)]
    replace: bool,
    /// Write positive_scores and negative_scores, for `teacher` in a recipe
    #[arg(long)]
    scores: bool,
    /// Folder of another model: --model ranks, this one gives the scores that filters look at and --scores writes
    #[arg(long, value_name = "DIR")]
    teacher_model: Option<PathBuf>,
    /// Folder that keeps vectors from run to run; default OUTPUT.vectors
    #[arg(long, value_name = "DIR")]
    vectors: Option<PathBuf>,
    /// Rows and candidates that may be unreadable before the mining stops
    #[arg(long, default_value_t = 0, value_name = "N")]
    bad_row_limit: usize,
    /// Replace what an earlier mining wrote there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Sample {
    Top,
    Random,
}

impl Args {
    fn choice(&self) -> Result<NegativeChoice> {
        let choice = NegativeChoice {
            count: self.negatives,
            rank: self.rank.0,
            below_positive: TeacherFilter { margin: self.margin, percent: self.percent },
            max_score: self.max_score,
            min_score: self.min_score,
            sampling: match (self.sample, self.seed) {
                (Sample::Top, None) => Sampling::Top,
                (Sample::Top, Some(_)) => {
                    bail!("--seed decides the draws of --sample random; give that too, or leave --seed out")
                }
                (Sample::Random, seed) => Sampling::Random { seed: seed.unwrap_or(0) },
            },
        };
        // What recipes call `teacher.margin` is an option here.
        choice.check().map_err(|problem| anyhow::Error::msg(problem.replace("`teacher.", "`--")))?;
        Ok(choice)
    }
}

/// Runs the verb.
///
/// # Errors
/// Names the option, row, file or item that is wrong. No output is left then; vectors that were computed stay for the next run.
pub fn run(args: &Args) -> Result<()> {
    let options =
        MineOptions { choice: args.choice()?, keep: !args.replace, bad_row_limit: args.bad_row_limit };
    check_output(&args.output, &args.corpus, args.overwrite)?;
    let vectors = vectors_beside(&args.output, args.vectors.as_deref())?;
    let source = Source::read(&args.corpus, args.dataset.as_deref(), &args.pool)?;
    let teacher = args.teacher_model.clone().map(|folder| args.model.of_model(folder));
    let open = || args.model.boxed();
    let model = args.model.stored(&open)?;
    let open_teacher = || teacher.as_ref().expect("it is opened where there is one").boxed();
    let teacher_model = teacher.as_ref().map(|options| options.stored(&open_teacher)).transpose()?;
    let limits = LoadLimits::parse(&args.model.load)?;
    let settings = json!({
        "model": args.model.model,
        "adapter": args.model.adapter,
        "key": hex(&model.key),
        "processor": processor_settings(&args.model)?,
        "teacher": args.teacher_model,
        "teacher_key": teacher_model.as_ref().map(|model| hex(&model.key)),
        "teacher_processor": teacher.as_ref().map(processor_settings).transpose()?,
        "load": limits,
        "dtype": args.model.dtype,
        "device": args.model.device,
        "datasets": source.datasets.iter().map(|dataset| &dataset.name).collect::<Vec<_>>(),
        "pools": args.pool,
        "choice": options.choice,
        "replace": args.replace,
        "scores": args.scores,
    });
    let loader = models::loader(&args.model.processor_config()?, PathBuf::new(), limits.options());
    let mined = mine(&source, &model, teacher_model.as_ref(), &vectors, &options)?;
    let record =
        Record { corpus: args.corpus.clone(), settings, scores: args.scores, overwrite: args.overwrite };
    write(&args.output, &source, &mined, &record, &loader)?;
    for row in &mined.bad_rows {
        eprintln!("left out: {}: {}", row.origin, row.message);
    }
    println!(
        "{} items, {} of them embedded before; vectors in {}\n",
        mined.items,
        mined.found,
        vectors.display()
    );
    println!("{}\n", table(&mined));
    for place in examples(&mined, EXAMPLES) {
        println!("{}\n", example(&mined, place));
    }
    println!("{}", args.output.display());
    Ok(())
}

/// Rows that are shown.
const EXAMPLES: usize = 3;

fn processor_settings(options: &ModelOptions) -> Result<Value> {
    Ok(serde_json::to_value(options.processor_config()?)?)
}
