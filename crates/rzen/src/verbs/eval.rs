//! `rzen eval`: scores on the tasks of a corpus folder.

use std::path::PathBuf;

use anyhow::Result;

use crate::evaluate::Benchmark;
use crate::verbs::model_options::ModelOptions;
use crate::verbs::output::check_file;

/// Rank every task of a corpus folder and write the scores
///
/// The folder holds tasks.jsonl, which names query and pool files. Every metric is computed for graded
/// relevance, and ties count against the model.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen eval --model runs/world/soup/model --data runs/world/world --output results.json"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Corpus folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Tasks to rank, separated by commas; default all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tasks: Option<Vec<String>>,
    /// Where the scores go: {task: {metric: value, "queries": n}}
    #[arg(long, default_value = "results.json", value_name = "FILE")]
    output: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// Names the option, file, row or item that is wrong. No output is left then.
pub fn run(args: &Args) -> Result<()> {
    check_file(&args.output)?;
    let benchmark = Benchmark::load(&args.data, args.tasks.as_deref())?;
    let embedder = args.model.embedder()?;
    let scores = benchmark.run(&embedder, "eval", args.model.batch_size)?;
    scores.results.save(&args.output)?;
    println!("{}", scores.results.table());
    println!("{}", args.output.display());
    Ok(())
}
