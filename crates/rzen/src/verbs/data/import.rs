//! `rzen data import`: training data of other tools.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use rzen_data::{ImportKind, ImportOptions, ImportReport, import};
use serde_json::{Value, json};

use crate::files::whole_folder;
use crate::output::{check_apart, check_folder, existing};

/// What the rows were made for.
#[derive(Subcommand, Debug)]
pub enum Kind {
    /// MMEB-train, mmE5 and MMEB with mined negatives: qry, qry_image_path, pos_text, …
    Mmeb(Common),
    /// MegaPairs: q_img, q_text, t_img, hns
    Megapairs(Common),
    /// Columns as sentence-transformers takes them: query, positive, negatives
    SentenceTransformers {
        /// Columns of the query, the positive and the negatives, separated by commas; default their order in the file
        #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
        columns: Option<Vec<String>>,
        #[command(flatten)]
        common: Common,
    },
    /// ms-swift: messages, positive_messages, negative_messages
    Swift(Common),
    /// Tevatron: query, positive_passages, negative_passages, or ids of a corpus
    Tevatron {
        /// Files of the corpus that ids name
        #[arg(long, num_args = 1.., value_name = "FILE")]
        corpus: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// BEIR, and ViDoRe in its layout: a folder of corpus, queries and qrels
    Beir {
        /// Which judgements
        #[arg(long, default_value = "train", value_name = "NAME")]
        split: String,
        /// The least grade of a positive; 0 and less are hard negatives, what lies between is neither
        #[arg(long, default_value_t = 1.0, value_name = "GRADE")]
        min_grade: f64,
        #[command(flatten)]
        common: Common,
    },
    /// ViDoRe's training set, VisRAG's: a query and the image of the page that answers it
    Vidore(Common),
    /// Conversations about pictures and clips
    Llava {
        /// The answer looks for the picture or clip; what the human said is left out
        #[arg(long)]
        reverse: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Columns of train.jsonl in Parquet, with pictures inside
    Parquet(Common),
}

/// What every kind may be told.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// Files of rows (.jsonl, .ndjson, .json, .parquet); for `beir` a folder
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    input: Vec<PathBuf>,
    /// The corpus folder that the dataset's folder goes into
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The dataset's name, and its folder's
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// The rows' task; decides the temperature
    #[arg(long, value_name = "TASK")]
    task: String,
    /// The rows' `name`; default none
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The queries' instruction; for `mmeb`, split off the queries that begin with it
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Folder that paths of media count from; default the folder of the file that names them
    #[arg(long, value_name = "DIR")]
    media: Option<PathBuf>,
    /// Column that says which rows are no negatives of each other, such as a class
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Column that says which rows come into one batch as hard negatives, such as a film
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Frames taken of a clip that is a folder of pictures
    #[arg(long, default_value_t = 8, value_name = "N")]
    num_frames: usize,
    /// Leave hard negatives out that equal the query (MegaPairs' first one does)
    #[arg(long)]
    drop_query: bool,
    /// Rows written at most: the first ones
    #[arg(long, value_name = "N")]
    cap: Option<usize>,
    /// Rows that may be refused before the import stops
    #[arg(long, default_value_t = 0, value_name = "N")]
    bad_row_limit: usize,
    /// Replace what an earlier import wrote there
    #[arg(long)]
    overwrite: bool,
}

impl Kind {
    fn parts(&self) -> (ImportKind, &Common) {
        match self {
            Kind::Mmeb(common) => (ImportKind::Mmeb, common),
            Kind::Megapairs(common) => (ImportKind::MegaPairs, common),
            Kind::SentenceTransformers { columns, common } => {
                (ImportKind::SentenceTransformers { columns: columns.clone() }, common)
            }
            Kind::Swift(common) => (ImportKind::Swift, common),
            Kind::Tevatron { corpus, common } => (ImportKind::Tevatron { corpus: corpus.clone() }, common),
            Kind::Beir { split, min_grade, common } => {
                (ImportKind::Beir { split: split.clone(), min_grade: *min_grade }, common)
            }
            Kind::Vidore(common) => (ImportKind::Vidore, common),
            Kind::Llava { reverse, common } => (ImportKind::Llava { reverse: *reverse }, common),
            Kind::Parquet(common) => (ImportKind::Parquet, common),
        }
    }
}

impl Common {
    fn options(&self) -> Result<ImportOptions> {
        check_name(&self.dataset, &self.task)?;
        ensure!(self.num_frames >= 1, "--num-frames is 0, expected 1 or more");
        ensure!(self.cap != Some(0), "--cap is 0, expected 1 or more");
        Ok(ImportOptions {
            corpus: self.output.clone(),
            dataset: self.dataset.clone(),
            task: self.task.clone(),
            name: self.name.clone(),
            instruction: self.instruction.clone(),
            media: self.media.clone(),
            label: self.label.clone(),
            group: self.group.clone(),
            num_frames: self.num_frames,
            drop_query: self.drop_query,
            cap: self.cap,
            bad_row_limit: self.bad_row_limit,
        })
    }
}

/// Runs the verb.
///
/// # Errors
/// Names the option, file or row that is wrong. No output is left then.
pub fn run(kind: &Kind) -> Result<()> {
    let (kind, common) = kind.parts();
    let options = common.options()?;
    let folder = common.output.join(&common.dataset);
    check_folder(&folder, common.overwrite)?;
    check_apart(&folder, common.input.iter().chain(&common.media))?;
    check_replaceable(&folder, &WRITTEN)?;
    let report = write_dataset(&folder, common.overwrite, WRITTEN[0], |part| {
        let report = import(&kind, &common.input, &options, part)?;
        let record = json!({ "kind": format!("{kind:?}"), "input": common.input, "report": report });
        Ok((report, record))
    })?;
    tell(&report, &folder);
    Ok(())
}

/// Writes a dataset's folder, whole or not at all: what `write` puts into the part, and the `record` of how it came about.
pub fn write_dataset(
    folder: &Path,
    overwrite: bool,
    record: &str,
    write: impl FnOnce(&Path) -> Result<(ImportReport, Value)>,
) -> Result<ImportReport> {
    let mut refused = None;
    let mut report = None;
    let written = whole_folder(folder, existing(overwrite), |part| {
        let (found, text) = match write(part) {
            Ok(found) => found,
            Err(error) => {
                refused = Some(error);
                bail!("refused")
            }
        };
        fs::write(part.join(record), format!("{text:#}\n"))?;
        report = Some(found);
        Ok(())
    });
    // What was wrong with the input, not that the folder could therefore not be written.
    if let Some(error) = refused {
        return Err(error);
    }
    written?;
    report.context("what ends well has a report")
}

/// Refuses a name that can't be a dataset's folder, and a task without one.
pub fn check_name(dataset: &str, task: &str) -> Result<()> {
    let plain = matches!(Path::new(dataset).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    ensure!(
        plain && !dataset.starts_with('.'),
        "--dataset `{dataset}` becomes a folder; give it a plain name"
    );
    ensure!(!task.is_empty(), "--task is empty; name a task, such as image_retrieval");
    Ok(())
}

/// Refuses to replace a folder that holds more than was `written` by a command like this one, the first of which shows
/// that it was.
pub fn check_replaceable(folder: &Path, written: &[&str]) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        ensure!(
            written.iter().any(|written| name == *written) && folder.join(written[0]).is_file(),
            "--overwrite replaces what a command like this wrote ({}), and `{}` is not of one; move it away, or name \
             another --dataset",
            written[0],
            folder.join(&name).display()
        );
    }
    Ok(())
}

/// What an import writes; the first shows that it did.
const WRITTEN: [&str; 3] = ["import.json", "train.jsonl", "media"];

/// Says what became of what was read.
pub fn tell(report: &ImportReport, folder: &Path) {
    for row in &report.bad_rows {
        eprintln!("left out: {row}");
    }
    let ImportReport { read, rows, bad_rows, media_files, .. } = report;
    println!(
        "{}: {rows} rows of {read} read, {} refused",
        folder.join("train.jsonl").display(),
        bad_rows.len()
    );
    if report.capped {
        println!("the cap ended the import; the input goes on");
    }
    if *media_files > 0 {
        println!("{media_files} pictures written to {}", folder.join("media").display());
    }
    for (note, count) in &report.notes {
        println!("{count} {note}");
    }
    if !report.unused.is_empty() {
        println!("columns not used: {}", report.unused.iter().cloned().collect::<Vec<_>>().join(", "));
    }
}
