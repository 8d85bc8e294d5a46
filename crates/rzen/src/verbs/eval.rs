//! `rzen eval`: scores on the tasks of a corpus folder or of a published benchmark.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_data::{Protocol, Published, Suite};
use rzen_eval::{Compression, Metric, Quantization, Scoring, Ties};
use rzen_merge::SoupRecord;
use rzen_model::ModelConfig;
use serde_json::{Map, Value, json};

use crate::eval_run::vlm2vec::{self, Metadata};
use crate::eval_run::{
    Description, EvalSettings, Evaluation, Scored, TaskSource, check_output, compare, compressed_table,
    evaluate, group_table, write_evaluation,
};
use crate::files::{hex, resolved, whole_file};
use crate::load_limits::LoadLimits;
use crate::models;
use crate::output::{check_file, vectors_beside};
use crate::verbs::model_options::ModelOptions;

/// Rank every task of a corpus folder, or of a published benchmark, and write the scores
///
/// A corpus folder holds tasks.jsonl, which names query and pool files; the files of a benchmark lie as docs/evaluation.md says. Every metric is computed for graded
/// relevance, and ties count against the model. Vectors are kept in --vectors, and taken from there where model, settings and
/// content are the same: what was interrupted goes on, and a second evaluation embeds nothing.
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  rzen eval --model runs/world/soup/model --data runs/world/world --output results.json\n  \
                  rzen eval --model runs/world/soup/model --data runs/world/world --output evals/soup --dims 32,64 --quantize int8,binary\n  \
                  rzen eval --benchmark mmeb-v2 --model MODEL --data BENCHMARK --output evals/mmeb --dtype bf16\n  \
                  rzen eval compare evals/stage_1 evals/soup"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    // Beside each other: clap knows whether options of one struct were given, but not those of a struct inside it.
    #[command(flatten)]
    model: Option<ModelOptions>,
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
    /// Corpus folder, or the folder of the benchmark's files
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A published benchmark in --data: mmeb-v1, mmeb-v2, vidore, vidore-v2-english or beir
    #[arg(long, value_name = "NAME")]
    benchmark: Option<Suite>,
    /// Texts, frames and picture sizes: rzen, the model's own chat template and settings, or vlm2vec, those of MMEB's reference runner
    #[arg(long, value_name = "NAME", requires = "benchmark", default_value = "rzen")]
    protocol: Protocol,
    /// Rank the more relevant of candidates with equal scores first, as MMEB's reference runner does where the answer stands
    /// first; by default it comes last
    #[arg(long, requires = "benchmark")]
    compat: bool,
    /// Evaluate data sets whose numbers of queries or candidates are not the published ones
    #[arg(long, requires = "benchmark")]
    allow_other_counts: bool,
    /// Folder that pages are written to which stand in tables of the benchmark; default --data
    #[arg(long, value_name = "DIR", requires = "benchmark")]
    pages: Option<PathBuf>,
    /// What submission.json says of the model, such as model_name=MINE or url=https://…; may be given several times
    #[arg(long, value_name = "KEY=VALUE", requires = "benchmark", value_parser = key_value)]
    about: Vec<(String, String)>,
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

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| format!("`{text}` is no KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
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
    match (&args.verb, &args.model, &args.run) {
        (Some(Verb::Compare(args)), _, _) => run_compare(args),
        (None, Some(model), Some(args)) => run_evaluation(model, args),
        (None, _, _) => bail!("--model and --data are needed; see `rzen eval --help`"),
    }
}

fn run_compare(args: &CompareArgs) -> Result<()> {
    if let Some(output) = &args.output {
        for folder in [&args.first, &args.second] {
            ensure!(
                !resolved(output)?.starts_with(resolved(folder)?),
                "--output {} lies in {}, which is only read; name a file elsewhere",
                output.display(),
                folder.display()
            );
        }
        check_file(output)?;
    }
    let (first, second) = (Scored::load(&args.first)?, Scored::load(&args.second)?);
    let found = compare(&first, &second)?;
    found.notes.iter().for_each(|note| eprintln!("note: {note}"));
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
        if self.vectors.is_none() && self.writes_a_file() {
            let folder =
                tempfile::tempdir().context("can't make a folder for vectors; give --vectors DIR")?;
            return Ok((folder.path().to_owned(), Some(folder)));
        }
        Ok((vectors_beside(&self.output, self.vectors.as_deref())?, None))
    }
}

/// Refuses a name that an option is given twice.
fn check_once<'a>(option: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = HashSet::new();
    let mut names = names;
    match names.find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(name) => bail!("{option} names `{name}` twice; leave one out"),
    }
}

/// Queries of each task that the page shows, those whose answers came last.
const WORST: usize = 2;
/// Candidates of each query that `queries.jsonl` names.
const TOP: usize = 10;

fn run_evaluation(model: &ModelOptions, args: &RunArgs) -> Result<()> {
    let compressions = args.compressions()?;
    check_once("--tasks", args.tasks.iter().flatten())?;
    check_once("--about", args.about.iter().map(|(key, _)| key))?;
    let mut options = model.clone();
    if args.protocol == Protocol::Vlm2vec {
        options.protocol = Some(args.protocol.settings());
    }
    match args.writes_a_file() {
        true => check_file(&args.output)?,
        false => check_output(&args.output, args.overwrite)?,
    }
    let dim = options.check()?.text.hidden_size;
    if let Some(dims) = args.dims.iter().find(|dims| **dims > dim) {
        bail!("--dims {dims}: the model's vectors have {dim} numbers; give less");
    }
    let (vectors, temporary) = args.vectors()?;
    ensure!(!vectors.is_file(), "--vectors {}: a file stands there; name a folder", vectors.display());
    let (source, mut notes) = args.source(options.processor_config()?.num_frames)?;
    for folder in [Some(&options.model), options.adapter.as_ref()].into_iter().flatten() {
        notes.extend(searched_on(folder, &source)?);
    }
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    let open = || options.boxed();
    let model = options.stored(&open)?;
    let limits = LoadLimits::parse(&options.load)?;
    let loader = models::loader(&options.processor_config()?, PathBuf::new(), limits.options());
    let settings = EvalSettings {
        scoring: args.scoring(),
        compressions,
        worst: if args.writes_a_file() { 0 } else { WORST },
    };
    let evaluation = evaluate(&source, &model, &vectors, &loader, &settings)
        .with_context(|| format!("nothing is written to --output {}", args.output.display()))?;
    if args.writes_a_file() {
        evaluation.results()?.save(&args.output)?;
    } else {
        let description = describe(args, &options, &hex(&model.key), &source, &evaluation, notes)?;
        let modality = |name: &str| source.published_task(name).map(|task| task.modality.to_string());
        write_evaluation(&evaluation, &description, modality, &args.output, args.overwrite)?;
    }
    let keeps_vectors = temporary.is_none();
    // Before anything is printed: where nobody reads, the program ends.
    drop(temporary);
    tell(args, &evaluation)?;
    if keeps_vectors {
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

impl RunArgs {
    /// What is evaluated, with so many frames of a clip, and what is to be known of it.
    fn source(&self, num_frames: usize) -> Result<(TaskSource, Vec<String>)> {
        let names = self.tasks.as_deref();
        let Some(suite) = self.benchmark else {
            return Ok((TaskSource::corpus(&self.data, names)?, Vec::new()));
        };
        let published = Published::open(suite, &self.data, self.protocol, self.pages.as_deref())?;
        let published = published.with_num_frames(num_frames);
        let (source, mut notes) = TaskSource::published(published, names, self.allow_other_counts)?;
        if self.compat {
            notes.push(
                "Equal scores are ranked for the model (--compat), as VLM2Vec's runner does where the answer stands first in its list."
                    .to_owned(),
            );
        }
        Ok((source, notes))
    }

    fn scoring(&self) -> Scoring {
        Scoring {
            metrics: if self.benchmark.is_some() { vlm2vec::metrics() } else { &Metric::STANDARD },
            top_k: TOP,
            ties: if self.compat { Ties::For } else { Ties::Against },
        }
    }
}

fn tell(args: &RunArgs, evaluation: &Evaluation) -> Result<()> {
    println!("{}", evaluation.results()?.table().trim_end());
    if !args.writes_a_file() {
        println!("\n{}", group_table(evaluation));
    }
    if let Some(table) = compressed_table(evaluation) {
        println!("\n{table}");
    }
    Ok(())
}

/// What is to be said where a soup's weights were found on tasks that are measured now.
fn searched_on(folder: &Path, source: &TaskSource) -> Result<Option<String>> {
    let Some(search) = SoupRecord::read(folder)?.and_then(|record| record.search) else { return Ok(None) };
    let names = source.infos().into_iter().map(|task| task.name);
    let again: Vec<String> = names.filter(|name| search.tasks.contains(name)).collect();
    Ok((!again.is_empty()).then(|| {
        format!(
            "The weights of the soup {} were searched on {} of {}; a score there is no test of it.",
            folder.display(),
            again.join(", "),
            search.data
        )
    }))
}

fn describe(
    args: &RunArgs,
    options: &ModelOptions,
    key: &str,
    source: &TaskSource,
    evaluation: &Evaluation,
    mut notes: Vec<String>,
) -> Result<Description> {
    let processor = options.processor_config()?;
    let settings = json!({
        "model": options.model,
        "adapter": options.adapter,
        "key": key,
        "data": args.data,
        "benchmark": args.benchmark.map(Suite::name),
        "protocol": args.benchmark.map(|_| args.protocol.name()),
        "compat": args.compat.then_some(true),
        "processor": processor,
        "load": LoadLimits::parse(&options.load)?,
        "dtype": options.dtype,
        "device": options.device,
    });
    let Value::Object(settings) = settings else { unreachable!("written as an object") };
    let settings: Map<String, Value> = settings.into_iter().filter(|(_, value)| !value.is_null()).collect();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let model = model_name(options.adapter.as_deref().unwrap_or(&options.model));
    let what = args.benchmark.map_or_else(|| name(&args.data), |suite| suite.to_string());
    let standing = Standing::of(source.whole_suite(), source.has_published_counts(), args.compat);
    let submission = match standing {
        Standing::Submitted => Some(vlm2vec::submission(
            evaluation
                .tasks
                .iter()
                .filter_map(|task| Some((source.published_task(&task.info.name)?, &task.score))),
            &Metadata {
                model_name: model.clone(),
                model_size: ModelConfig::load(&options.model)?.num_parameters() as f64 / 1e9,
                embedding_dimension: evaluation.dim,
                max_length_tokens: processor.max_length,
                about: args.about.clone(),
            },
        )),
        _ => None,
    };
    if let Standing::Otherwise(why) = standing {
        notes.push(format!(
            "There is neither a submission.json nor a comparison with published scores: those are measured without {why}."
        ));
    } else if submission.is_none() && !args.about.is_empty() {
        notes.push("There is no submission.json, which --about is for: it takes all data sets of mmeb-v1 or mmeb-v2.".to_owned());
    }
    let is_beside = !matches!(standing, Standing::Otherwise(_));
    let mean = |modality| source.whole_mean(evaluation, modality).filter(|_| is_beside);
    Ok(Description {
        title: format!("{model} on {what}"),
        settings,
        submission,
        published: vlm2vec::beside_published(&model, mean),
        notes,
    })
}

/// How scores stand to published ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Beside them, and in a file for the leaderboard.
    Submitted,
    /// Beside them, as far as there are any.
    Beside,
    /// Not measured as they were, and why: nobody is to be measured by scores of another kind.
    Otherwise(&'static str),
}

impl Standing {
    /// `whole` is the benchmark of which all data sets were evaluated.
    fn of(whole: Option<Suite>, has_published_counts: bool, compat: bool) -> Self {
        match whole {
            _ if compat => Standing::Otherwise("--compat"),
            _ if !has_published_counts => Standing::Otherwise("other numbers of queries or candidates"),
            Some(Suite::MmebV1 | Suite::MmebV2) => Standing::Submitted,
            _ => Standing::Beside,
        }
    }
}

/// The folder's name, with those above it where it is called what runs call all of theirs.
fn model_name(folder: &Path) -> String {
    let parts: Vec<_> = folder.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let plain = ["model", "adapter"].contains(&parts.last().map_or("", |last| last));
    let kept = if plain { 3 } else { 1 };
    parts[parts.len().saturating_sub(kept)..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_measured_as_published_is_submitted() {
        let of = Standing::of;
        for suite in [Suite::MmebV1, Suite::MmebV2] {
            assert_eq!(of(Some(suite), true, false), Standing::Submitted);
            assert_eq!(of(Some(suite), true, true), Standing::Otherwise("--compat"));
            assert!(
                matches!(of(Some(suite), false, false), Standing::Otherwise(why) if why.contains("numbers"))
            );
        }
        assert_eq!(of(Some(Suite::Beir), true, false), Standing::Beside);
        assert_eq!(of(None, true, false), Standing::Beside);
    }

    #[test]
    fn models_are_told_apart_by_their_names() {
        for (folder, expected) in
            [("a/runs/world/soup/model", "world/soup/model"), ("big/rzen-2b", "rzen-2b"), ("model", "model")]
        {
            assert_eq!(model_name(Path::new(folder)), expected);
        }
    }
}
