//! `rzen embed`: vectors of the rows of a file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_core::Embed;
use rzen_data::{EmbedRow, embed_rows};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::files::whole_file;
use crate::output::check_file;
use crate::progress::Progress;
use crate::vectors::embed_in_runs;
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
    /// Rows that may be unreadable before the embedding stops; they are named, and left out of the output
    #[arg(long, default_value_t = 0, value_name = "N")]
    bad_row_limit: usize,
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
    let Embedded { rows: whole, vectors, bad } = embed(&embedder, &rows, args)?;
    whole_file(&args.output, |file| match format {
        Format::Safetensors => write_safetensors(file, &whole, &vectors),
        Format::JsonLines => write_json_lines(file, &whole, &vectors),
    })?;
    bad.iter().for_each(|row| eprintln!("left out: {row}"));
    let left_out = if bad.is_empty() { String::new() } else { format!(", {} rows left out", bad.len()) };
    println!("{} vectors of {} numbers{left_out}: {}", vectors.len(), embedder.dim(), args.output.display());
    Ok(())
}

/// What came of rows.
struct Embedded<'a> {
    /// Those that have a vector.
    rows: Vec<&'a EmbedRow>,
    /// One of each.
    vectors: Vec<Vec<f32>>,
    /// What is wrong with the others.
    bad: Vec<String>,
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

fn embed<'a>(embedder: &dyn Embed, rows: &'a [EmbedRow], args: &Args) -> Result<Embedded<'a>> {
    let ahead = args.model.chunk();
    let progress = Progress::tasks("embed", rows.len().div_ceil(ahead));
    progress.message("rows");
    let mut embedded = Embedded { rows: Vec::new(), vectors: Vec::new(), bad: Vec::new() };
    let mut done = 0;
    for part in rows.chunks(ahead) {
        embed_in_runs(
            embedder,
            part,
            |row| row.item.clone(),
            |whole, vectors, refused| {
                embedded.rows.extend(whole);
                embedded.vectors.extend(vectors);
                if let Some((row, refused)) = refused {
                    embedded.bad.push(format!("{}: row `{}`: {}", row.origin, row.id, refused.message));
                    ensure!(
                        embedded.bad.len() <= args.bad_row_limit,
                        too_many(&embedded.bad, args.bad_row_limit)
                    );
                }
                Ok(())
            },
        )?;
        done += part.len();
        progress.part(done, rows.len());
        progress.advance();
    }
    progress.finish();
    ensure!(!embedded.rows.is_empty(), "{}: no row could be embedded", args.input.display());
    Ok(embedded)
}

fn too_many(bad: &[String], limit: usize) -> String {
    match (bad, limit) {
        ([one], 0) => format!("{one}; mend the row, or leave such rows out with --bad-row-limit"),
        _ => format!(
            "{} rows can't be embedded, more than --bad-row-limit {limit}: {}",
            bad.len(),
            bad.join("; ")
        ),
    }
}

fn write_safetensors(file: &mut std::fs::File, rows: &[&EmbedRow], vectors: &[Vec<f32>]) -> Result<()> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let metadata = [("ids".to_owned(), serde_json::to_string(&ids)?)].into();
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![vectors.len(), vectors[0].len()], &bytes)?;
    let bytes = safetensors::serialize([("embeddings", view)], Some(metadata))?;
    file.write_all(&bytes).context("the vectors")
}

fn write_json_lines(file: &mut std::fs::File, rows: &[&EmbedRow], vectors: &[Vec<f32>]) -> Result<()> {
    let mut writer = std::io::BufWriter::new(file);
    for (row, vector) in rows.iter().zip(vectors) {
        serde_json::to_writer(&mut writer, &serde_json::json!({ "id": row.id, "embedding": vector }))?;
        writer.write_all(b"\n")?;
    }
    writer.flush().context("the vectors")
}
