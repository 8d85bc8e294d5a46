//! `rzen eval`: scores on the tasks of a corpus folder.

use std::path::{Path, PathBuf};

use anyhow::Result;

use rzen_merge::SoupRecord;

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
    for folder in [Some(&args.model.model), args.model.adapter.as_ref()].into_iter().flatten() {
        if let Some(warning) = searched_on(folder, &benchmark)? {
            eprintln!("{warning}");
        }
    }
    let scores = benchmark.run(&embedder, "eval", args.model.batch_size)?;
    scores.results.save(&args.output)?;
    println!("{}", scores.results.table());
    println!("{}", args.output.display());
    Ok(())
}

/// What is to be said where a soup's weights were found on tasks that are measured now.
fn searched_on(folder: &Path, benchmark: &Benchmark) -> Result<Option<String>> {
    let Some(search) = SoupRecord::read(folder)?.and_then(|record| record.search) else { return Ok(None) };
    let names = benchmark.tasks.iter().map(|task| &task.name);
    let again: Vec<&str> = names.filter(|name| search.tasks.contains(name)).map(String::as_str).collect();
    Ok((!again.is_empty()).then(|| {
        format!(
            "warning: the weights of the soup {} were searched on {} of {}; a score there is no test of it",
            folder.display(),
            again.join(", "),
            search.data
        )
    }))
}
