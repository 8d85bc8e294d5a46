//! `rzen embed`: vectors of the rows of a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_core::{Embed, EmbedError, Item};
use rzen_data::{EmbedRow, embed_rows};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::files::whole_file;
use crate::output::check_file;
use crate::progress::Progress;
use crate::verbs::model_options::ModelOptions;

/// Embed the rows of a JSONL file
///
/// A row is {"id": "…", "content": [part, …], "instruction": "…"?}, a part {"text": "…"}, {"image": "file"},
/// {"video": "file" or ["frame", …]} or {"document": "file.pdf", "page": 1}. Relative paths count from
/// --root, by default from the folder of the input.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  rzen embed --model runs/world/soup/model --input rows.jsonl --output vectors.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Rows to embed
    #[arg(long, value_name = "ROWS.jsonl")]
    input: PathBuf,
    /// Where the vectors go: .safetensors (tensor `embeddings`, ids in its metadata) or .jsonl
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Folder that relative paths in rows count from
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// Names the option, or the row and its file, that is wrong. No output is left then.
pub fn run(args: &Args) -> Result<()> {
    let format = Format::of(&args.output)?;
    ensure!(
        !same_file(&args.input, &args.output),
        "--output {} is the input; name another file",
        args.output.display()
    );
    check_file(&args.output)?;
    let here = args.input.parent().unwrap_or(Path::new("")).to_owned();
    let rows = embed_rows(&args.input, args.root.as_ref().unwrap_or(&here))?;
    ensure!(!rows.is_empty(), "{}: no rows", args.input.display());
    let embedder = args.model.embedder()?;
    let vectors = embed(&embedder, &rows, args.model.batch_size)?;
    whole_file(&args.output, |file| match format {
        Format::Safetensors => write_safetensors(file, &rows, &vectors),
        Format::JsonLines => write_json_lines(file, &rows, &vectors),
    })?;
    println!("{} vectors of {} numbers: {}", vectors.len(), embedder.dim(), args.output.display());
    Ok(())
}

#[derive(Clone, Copy)]
enum Format {
    Safetensors,
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("safetensors") => Ok(Format::Safetensors),
            Some("jsonl") => Ok(Format::JsonLines),
            _ => bail!("--output {}: end the name in .safetensors or .jsonl", path.display()),
        }
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}

fn embed(embedder: &dyn Embed, rows: &[EmbedRow], batch_size: usize) -> Result<Vec<Vec<f32>>> {
    let ahead = batch_size * 16;
    let progress = Progress::tasks("embed", rows.len().div_ceil(ahead));
    progress.message("rows");
    let mut vectors = Vec::with_capacity(rows.len());
    for part in rows.chunks(ahead) {
        let items: Vec<Item> = part.iter().map(|row| row.item.clone()).collect();
        vectors.extend(embedder.embed(&items).map_err(|error| named(error, part))?);
        progress.part(vectors.len(), rows.len());
        progress.advance();
    }
    progress.finish();
    Ok(vectors)
}

/// Puts the row's id and place before what is wrong with it.
fn named(error: EmbedError, rows: &[EmbedRow]) -> anyhow::Error {
    let index = match &error {
        EmbedError::Item { index, .. } | EmbedError::Vector { index, .. } => Some(*index),
        _ => None,
    };
    match (index.and_then(|index| rows.get(index)), error) {
        (Some(row), EmbedError::Item { source, .. }) => {
            anyhow::anyhow!(source).context(format!("{}: row `{}`", row.origin, row.id))
        }
        (Some(row), error) => anyhow::anyhow!(error).context(format!("{}: row `{}`", row.origin, row.id)),
        (None, error) => error.into(),
    }
}

fn write_safetensors(file: &mut std::fs::File, rows: &[EmbedRow], vectors: &[Vec<f32>]) -> Result<()> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let metadata = [("ids".to_owned(), serde_json::to_string(&ids)?)].into();
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![vectors.len(), vectors[0].len()], &bytes)?;
    let bytes = safetensors::serialize([("embeddings", view)], Some(metadata))?;
    file.write_all(&bytes).context("the vectors")
}

fn write_json_lines(file: &mut std::fs::File, rows: &[EmbedRow], vectors: &[Vec<f32>]) -> Result<()> {
    let mut writer = std::io::BufWriter::new(file);
    for (row, vector) in rows.iter().zip(vectors) {
        serde_json::to_writer(&mut writer, &serde_json::json!({ "id": row.id, "embedding": vector }))?;
        writer.write_all(b"\n")?;
    }
    writer.flush().context("the vectors")
}
