//! `rzen eval`: scores on the tasks of a corpus folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_eval::{Compression, Keep, Quantization};
use serde_json::{Map, Value, json};

use crate::eval_run::{
    Description, EvalSettings, Evaluation, Scored, TaskSource, compare, compressed_table, evaluate,
    group_table, write_evaluation,
};
use crate::files::{hex, resolved, whole_file};
use crate::load_limits::LoadLimits;
use crate::models;
use crate::verbs::model_options::ModelOptions;
use crate::verbs::output::{check_file, check_folder};

/// Rank every task of a corpus folder and write the scores
///
/// The folder holds tasks.jsonl, which names query and pool files. Every metric is computed for graded
/// relevance, and ties count against the model. Vectors are kept in --vectors, and taken from there where model, settings and
/// content are the same: what was interrupted goes on, and a second evaluation embeds nothing.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  rzen eval --model runs/world/soup/model --data runs/world/world --output results.json\n  \
                  rzen eval --model runs/world/soup/model --data runs/world/world --output evals/soup --dims 32,64 --quantize int8,binary\n  \
                  rzen eval compare evals/stage_1 evals/soup"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    Compare(CompareArgs),
}

/// What is evaluated.
#[derive(clap::Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    model: ModelOptions,
    /// Corpus folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Tasks to rank, separated by commas; default all
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tasks: Option<Vec<String>>,
    /// Where the scores go: a file NAME.json, {task: {metric: value, "queries": n}}, or a folder with that file, intervals,
    /// scores by query and report.html
    #[arg(long, default_value = "results.json", value_name = "PATH")]
    output: PathBuf,
    /// Score vectors cut to their first numbers too, for example 256,512
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    dims: Vec<usize>,
    /// Score vectors stored in fewer bits too: int8, binary; with --dims also those of every size
    #[arg(long, value_delimiter = ',', value_name = "HOW,…")]
    quantize: Vec<Quantize>,
    /// Folder that keeps vectors from run to run; default OUTPUT.vectors for a folder, none for a file
    #[arg(long, value_name = "DIR")]
    vectors: Option<PathBuf>,
    /// Replace what an earlier evaluation wrote in the folder --output
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Quantize {
    Int8,
    Binary,
}

/// Say which differences of two evaluations are real
///
/// Each task that both measured is compared query by query: the second minus the first, with the interval of a paired bootstrap, and
/// p corrected for the number of tasks (Holm). Also the folders of training runs, whose last models are compared.
#[derive(clap::Args, Debug)]
struct CompareArgs {
    /// Folder that `rzen eval --output` wrote, or a run's
    first: PathBuf,
    /// Folder to compare with it
    second: PathBuf,
    /// Write the comparison as JSON too
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// Names the option, file, row or item that is wrong. No output is left then; vectors that were computed stay in --vectors.
pub fn run(args: &Args) -> Result<()> {
    match (&args.verb, &args.run) {
        (Some(Verb::Compare(args)), _) => run_compare(args),
        (None, Some(args)) => run_evaluation(args),
        (None, None) => bail!("--model and --data are needed; see `rzen eval --help`"),
    }
}

fn run_compare(args: &CompareArgs) -> Result<()> {
    if let Some(output) = &args.output {
        check_file(output)?;
    }
    let found = compare(&Scored::load(&args.first)?, &Scored::load(&args.second)?)?;
    println!("{}", found.table());
    for (folder, only) in [(&args.first, &found.only_first), (&args.second, &found.only_second)] {
        if !only.is_empty() {
            println!("only in {}: {}", folder.display(), only.join(", "));
        }
    }
    if let Some(output) = &args.output {
        whole_file(output, |file| {
            use std::io::Write;
            Ok(writeln!(file, "{:#}", serde_json::to_value(&found)?)?)
        })?;
        println!("{}", output.display());
    }
    Ok(())
}

impl RunArgs {
    /// Whether `--output` is one file.
    fn writes_a_file(&self) -> bool {
        self.output.extension().is_some_and(|ending| ending == "json")
    }

    /// The forms of vectors that are scored besides the full one.
    fn compressions(&self) -> Result<Vec<Compression>> {
        ensure!(!self.dims.contains(&0), "--dims 0: expected 1 or more");
        let dims = std::iter::once(None).chain(self.dims.iter().copied().map(Some));
        let stored = |how: &Quantize| match how {
            Quantize::Int8 => Quantization::Int8,
            Quantize::Binary => Quantization::Binary,
        };
        let all = dims.flat_map(|dims| {
            let quantizations = std::iter::once(Quantization::None).chain(self.quantize.iter().map(stored));
            quantizations.map(move |quantization| Compression { dims, quantization })
        });
        let mut forms: Vec<Compression> = Vec::new();
        for form in all.skip(1) {
            ensure!(!forms.contains(&form), "`{form}` of --dims and --quantize is asked for twice");
            forms.push(form);
        }
        ensure!(
            forms.is_empty() || !self.writes_a_file(),
            "--dims and --quantize need a folder for their scores: give --output a name without `.json`"
        );
        Ok(forms)
    }

    /// The folder of vectors; the temporary one, if it is one, is gone when dropped.
    fn vectors(&self) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
        if let Some(folder) = &self.vectors {
            return Ok((folder.clone(), None));
        }
        if self.writes_a_file() {
            let folder =
                tempfile::tempdir().context("can't make a folder for vectors; give --vectors DIR")?;
            return Ok((folder.path().to_owned(), Some(folder)));
        }
        let mut name = self.output.file_name().context("--output has no name; give a folder")?.to_owned();
        name.push(".vectors");
        Ok((self.output.with_file_name(name), None))
    }
}

/// Queries of each task that the page shows, those whose answers came last.
const WORST: usize = 2;

fn run_evaluation(args: &RunArgs) -> Result<()> {
    let compressions = args.compressions()?;
    match args.writes_a_file() {
        true => check_file(&args.output)?,
        false => check_folder(&args.output, args.overwrite)?,
    }
    let (vectors, temporary) = args.vectors()?;
    if !args.writes_a_file() {
        ensure!(
            !resolved(&vectors)?.starts_with(resolved(&args.output)?),
            "--vectors {} lies in the output; name a folder beside it",
            vectors.display()
        );
    }
    let source = TaskSource::corpus(&args.data, args.tasks.as_deref())?;
    let open = || args.model.boxed();
    let model = args.model.stored(&open)?;
    let limits = LoadLimits::parse(&args.model.load)?;
    let loader = models::loader(&args.model.processor_config()?, PathBuf::new(), limits.options());
    let worst = if args.writes_a_file() { 0 } else { WORST };
    let settings = EvalSettings { keep: Keep::default(), compressions, worst };
    let evaluation = evaluate(&source, &model, &vectors, &loader, &settings)?;
    let description = describe(args, &hex(&model.key))?;
    write(args, &evaluation, &description)?;
    println!("{}", evaluation.results()?.table());
    if !args.writes_a_file() {
        println!("\n{}", group_table(&evaluation)?);
    }
    if let Some(table) = compressed_table(&evaluation) {
        println!("\n{table}");
    }
    if temporary.is_none() {
        println!(
            "\n{} items, {} of them embedded before; vectors in {}",
            evaluation.items,
            evaluation.found,
            vectors.display()
        );
    }
    println!("{}", args.output.display());
    Ok(())
}

fn write(args: &RunArgs, evaluation: &Evaluation, description: &Description) -> Result<()> {
    if args.writes_a_file() {
        return Ok(evaluation.results()?.save(&args.output)?);
    }
    remove_earlier(&args.output)?;
    write_evaluation(evaluation, description, |_| None, &args.output)
}

/// Removes an earlier evaluation, and nothing else.
fn remove_earlier(output: &Path) -> Result<()> {
    if !output.exists() {
        return Ok(());
    }
    ensure!(
        output.join("eval.json").is_file(),
        "--output {} is no folder that an evaluation wrote; choose another name",
        output.display()
    );
    std::fs::remove_dir_all(output).with_context(|| format!("can't remove {}", output.display()))
}

fn describe(args: &RunArgs, key: &str) -> Result<Description> {
    let settings = json!({
        "model": args.model.model,
        "adapter": args.model.adapter,
        "key": key,
        "data": args.data,
        "processor": args.model.processor_config()?,
        "load": LoadLimits::parse(&args.model.load)?,
        "dtype": args.model.dtype,
        "device": args.model.device,
    });
    let Value::Object(settings) = settings else { unreachable!("written as an object") };
    let settings: Map<String, Value> = settings.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Description {
        title: format!("{} on {}", name(&args.model.model), name(&args.data)),
        settings,
        ..Description::default()
    })
}
