//! Data that was made for other tools, written as a dataset of ours.
//!
//! ```text
//! file ─records─► Record ─a kind's reader─► Draft ─► a line of train.jsonl      pictures in Parquet ─► media/
//! ```

pub(crate) mod beir;
mod columns;
mod draft;
mod llava;
mod manifest;
pub(crate) mod media;
mod megapairs;
mod mmeb;
pub(crate) mod passages;
pub(crate) mod placeholders;
mod python_list;
pub(crate) mod record;
mod report;
mod swift;
mod tevatron;
mod vidore;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use draft::Draft;
use media::Media;
use record::{Record, records};
use rzen_core::Origin;

pub use report::{ImportBadRow, ImportError, ImportReport};

/// A layout that can be imported.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportKind {
    /// MMEB-train, mmE5 and what is laid out like them: `qry`, `qry_image_path`, `pos_text`, ….
    Mmeb,
    /// MegaPairs: `q_img`, `q_text`, `t_img`, `hns`.
    MegaPairs,
    /// Columns in the order that sentence-transformers takes them: query, positive, negatives.
    SentenceTransformers {
        /// The columns of query, positive and negatives; default the order of the file.
        columns: Option<Vec<String>>,
    },
    /// ms-swift's rows for embedding models: `messages`, `positive_messages`, `negative_messages`.
    Swift,
    /// Tevatron: `query`, `positive_passages`, `negative_passages`, or ids of a corpus.
    Tevatron {
        /// The files of the corpus that the ids name.
        corpus: Vec<PathBuf>,
    },
    /// BEIR: a folder of `corpus`, `queries` and `qrels`.
    Beir {
        /// Which judgements, such as `train`.
        split: String,
        /// The least grade of a positive. Grade 0 or less is a hard negative; what lies between is neither.
        min_grade: f64,
    },
    /// ViDoRe's training set, and others with a `query` and the `image` of a page.
    Vidore,
    /// Conversations about pictures and clips.
    Llava {
        /// Whether the answer looks for the picture or clip, instead of the other way round.
        reverse: bool,
    },
    /// Our own columns in Parquet, with pictures inside.
    Parquet,
}

/// What becomes of the rows.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The corpus folder in which the dataset's folder will stand; paths below it are written relative to it.
    pub corpus: PathBuf,
    /// The dataset's name, and that of its folder.
    pub dataset: String,
    /// The rows' task.
    pub task: String,
    /// The rows' `name`; default none.
    pub name: Option<String>,
    /// The queries' instruction. Where the layout has it inside the query, it is split off those that begin with it.
    pub instruction: Option<String>,
    /// Put before the paths of media; default the folder of the file that names them.
    pub media: Option<PathBuf>,
    /// The column that becomes the rows' `label`.
    pub label: Option<String>,
    /// The column that becomes the rows' `group`.
    pub group: Option<String>,
    /// Frames taken of a clip that is a folder of pictures, evenly spread.
    pub num_frames: usize,
    /// Whether hard negatives that equal the query are left out.
    pub drop_query: bool,
    /// Rows written at most: the first ones.
    pub cap: Option<usize>,
    /// Rows that may be refused before the import stops.
    pub bad_row_limit: usize,
}

/// What a kind makes of its input.
struct Layout<'a> {
    /// The files that hold the rows.
    files: Vec<PathBuf>,
    read: Box<ReadRow<'a>>,
}

/// Reads a row, which may give several.
type ReadRow<'a> = dyn FnMut(&mut Record, &mut Media, &mut ImportReport) -> Result<Vec<Draft>, Refusal> + 'a;

/// Why a row is not taken.
pub(crate) enum Refusal {
    /// It is wrong.
    Row(String),
    /// Nothing can be written.
    Failed(ImportError),
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Refusal::Row(message)
    }
}

/// Writes the rows of `inputs` to `folder`, which exists and is empty: `train.jsonl`, and `media` where the input holds
/// pictures. `folder` is given its final place, `dataset` in the corpus, by the caller.
///
/// # Errors
/// If a file can't be read or written, more rows are refused than allowed, or none is taken.
pub fn import(
    kind: &ImportKind,
    inputs: &[PathBuf],
    options: &ImportOptions,
    folder: &Path,
) -> Result<ImportReport, ImportError> {
    let mut media = Media::new(options, folder)?;
    let mut report = ImportReport::default();
    let Layout { files, mut read } = kind.layout(inputs, options, &mut media, &mut report)?;
    let manifest = folder.join("train.jsonl");
    let failed = |source| ImportError::Write { path: manifest.clone(), source };
    let mut output = BufWriter::new(File::create(&manifest).map_err(failed)?);
    'files: for file in &files {
        let path: Arc<Path> = file.as_path().into();
        for (index, record) in records(file)?.enumerate() {
            if options.cap.is_some_and(|cap| report.rows >= cap) {
                report.capped = true;
                break 'files;
            }
            report.read += 1;
            let lines = record.and_then(|mut record| {
                let lines = lines(kind, &mut read, &mut record, options, &mut media, &mut report)?;
                // A row that gives nothing was not read to its end.
                if !lines.is_empty() {
                    report.unused.extend(record.names());
                }
                Ok(lines)
            });
            match lines {
                Ok(lines) => {
                    let left = options.cap.map_or(usize::MAX, |cap| cap - report.rows);
                    report.capped |= lines.len() > left;
                    for line in lines.iter().take(left) {
                        writeln!(output, "{line}").map_err(failed)?;
                        report.rows += 1;
                    }
                }
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Row(message)) => {
                    let row = Origin { file: Arc::clone(&path), line: index + 1 };
                    report.refuse(&row, message, options.bad_row_limit)?;
                }
            }
        }
    }
    output.flush().map_err(failed)?;
    if report.rows == 0 {
        return Err(ImportError::Nothing { read: report.read, bad_rows: report.bad_rows });
    }
    report.media_files = media.written();
    Ok(report)
}

/// The lines that a record gives.
fn lines(
    kind: &ImportKind,
    read: &mut ReadRow,
    record: &mut Record,
    options: &ImportOptions,
    media: &mut Media,
    report: &mut ImportReport,
) -> Result<Vec<String>, Refusal> {
    let mut column = |name: &Option<String>| match name {
        Some(name) => record.peek_text(name).map(Some),
        None => Ok(None),
    };
    let (label, group) = (column(&options.label)?, column(&options.group)?);
    let mut lines = Vec::new();
    for mut draft in read(record, media, report)? {
        draft.label = draft.label.or_else(|| label.clone());
        draft.group = draft.group.or_else(|| group.clone());
        if draft.instruction.is_none() && *kind != ImportKind::Mmeb {
            draft.instruction.clone_from(&options.instruction);
        }
        lines.push(draft.into_line(options, report)?);
    }
    Ok(lines)
}

impl ImportKind {
    fn layout<'a>(
        &'a self,
        inputs: &[PathBuf],
        options: &'a ImportOptions,
        media: &mut Media,
        report: &mut ImportReport,
    ) -> Result<Layout<'a>, ImportError> {
        let files = inputs.to_vec();
        Ok(match self {
            ImportKind::Mmeb => mmeb::layout(files, options),
            ImportKind::MegaPairs => Layout { files, read: Box::new(megapairs::read) },
            ImportKind::SentenceTransformers { columns } => columns::layout(files, columns.as_deref()),
            ImportKind::Swift => Layout { files, read: Box::new(swift::read) },
            ImportKind::Tevatron { corpus } => tevatron::layout(files, corpus, media, report)?,
            ImportKind::Beir { split, min_grade } => beir::layout(inputs, split, *min_grade, media, report)?,
            ImportKind::Vidore => Layout { files, read: Box::new(vidore::read) },
            ImportKind::Llava { reverse } => llava::layout(files, *reverse),
            ImportKind::Parquet => Layout { files, read: Box::new(manifest::read) },
        })
    }
}
