//! `rzen embed`: vectors of the rows of a file.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_core::{Embed, Item};
use rzen_data::{EmbedRow, embed_rows};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::files::whole_file;
use crate::output::{check_file, vectors_beside};
use crate::progress::Progress;
use crate::vectors::{Contents, Key, Model, Unreadable, VectorStore, embed_in_runs, embed_missing};
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
    /// Where vectors are kept as they come, found by content; they stay for later runs. By default OUTPUT.part.vectors, of more
    /// rows than 16 batches, and until all are written. Files of media are read once more for it, and all weights
    #[arg(long, value_name = "DIR")]
    vectors: Option<PathBuf>,
    /// Rows that may be unreadable before the embedding stops; they are named, and left out of the output
    #[arg(long, default_value_t = 0, value_name = "N")]
    bad_row_limit: usize,
}

/// Runs the verb.
///
/// # Errors
/// Names the option, or the row and its file, that is wrong. No output is left then; vectors that were kept stay for the next run.
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
    let open = || args.model.boxed();
    args.model.check()?;
    let folder = match &args.vectors {
        Some(folder) => vectors_beside(&args.output, Some(folder))?,
        None => with_ending(&args.output, ".part.vectors"),
    };
    // Of few there is nothing to lose, and hashing a model takes longer than they do.
    let keeps = args.vectors.is_some() || rows.len() > args.model.chunk() || folder.is_dir();
    let kept = match keeps {
        true => {
            let mut model = args.model.stored(&open)?;
            model.most_bad = args.bad_row_limit;
            Some(Kept { folder, model })
        }
        false => None,
    };
    let (Embedded { rows: whole, vectors, bad, before }, store) = match &kept {
        Some(kept) => {
            let (embedded, store) = embed_kept(kept, &rows, args)?;
            (embedded, Some(store))
        }
        None => {
            args.model.check_base()?;
            (embed(&*open()?, &rows, args)?, None)
        }
    };
    whole_file(&args.output, |file| match format {
        Format::Safetensors => write_safetensors(file, &whole, &vectors),
        Format::JsonLines => write_json_lines(file, &whole, &vectors),
    })?;
    if let (Some(kept), Some(store), None) = (&kept, store, &args.vectors) {
        // The output is whole, whatever becomes of them. Those of other models stay.
        store.remove();
        let _ = std::fs::remove_dir(&kept.folder);
    }
    bad.iter().for_each(|row| eprintln!("left out: {row}"));
    let left_out = if bad.is_empty() { String::new() } else { format!(", {} rows left out", bad.len()) };
    let before = if before == 0 { String::new() } else { format!(", {before} of them computed before") };
    println!(
        "{} vectors of {} numbers{before}{left_out}: {}",
        vectors.len(),
        vectors[0].len(),
        args.output.display()
    );
    Ok(())
}

/// A model whose vectors are kept.
struct Kept<'a> {
    folder: PathBuf,
    model: Model<'a>,
}

/// What came of rows.
struct Embedded<'a> {
    /// Those that have a vector.
    rows: Vec<&'a EmbedRow>,
    /// One of each.
    vectors: Vec<Vec<f32>>,
    /// What is wrong with the others.
    bad: Vec<String>,
    /// Different vectors that an earlier run computed.
    before: usize,
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
    let mut embedded = Embedded { rows: Vec::new(), vectors: Vec::new(), bad: Vec::new(), before: 0 };
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
                    embedded.bad.push(complaint(row, &refused.message));
                    check_limit(&embedded.bad, args)?;
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

/// The same with vectors that are kept as they come, and found by an earlier run.
fn embed_kept<'a>(kept: &Kept, rows: &'a [EmbedRow], args: &Args) -> Result<(Embedded<'a>, VectorStore)> {
    let mut contents = Contents::default();
    contents.read(rows.iter().map(|row| &row.item));
    let keys: Vec<Result<Key, Unreadable>> = rows.iter().map(|row| contents.vector_key(&row.item)).collect();
    let unreadable = |(row, key): (&EmbedRow, &Result<Key, Unreadable>)| {
        let Unreadable { file, message } = key.as_ref().err()?;
        Some(complaint(row, &format!("can't read `{}`: {message}", file.display())))
    };
    // What isn't there is found before hours of embedding.
    check_limit(&rows.iter().zip(&keys).filter_map(unreadable).collect::<Vec<_>>(), args)?;
    let mut store = VectorStore::open(&kept.folder, &kept.model.key)?;
    let items: Vec<(Key, &Item)> =
        rows.iter().zip(&keys).filter_map(|(row, key)| Some((*key.as_ref().ok()?, &row.item))).collect();
    let before = items.iter().map(|(key, _)| key).collect::<HashSet<_>>();
    let before = before.into_iter().filter(|key| store.contains(key)).count();
    let refused = embed_missing(&mut store, &kept.model, &items, "embed", &|item| contents.unchanged(item))?;
    let mut embedded = Embedded { rows: Vec::new(), vectors: Vec::new(), bad: Vec::new(), before };
    let mut found = Vec::new();
    for (row, key) in rows.iter().zip(&keys) {
        match key {
            Ok(key) => match refused.get(key) {
                Some(message) => embedded.bad.push(complaint(row, message)),
                None => {
                    embedded.rows.push(row);
                    found.push(*key);
                }
            },
            Err(_) => embedded.bad.extend(unreadable((row, key))),
        }
    }
    check_limit(&embedded.bad, args)
        .with_context(|| format!("the other vectors are kept in {}", kept.folder.display()))?;
    ensure!(!found.is_empty(), "{}: no row could be embedded", args.input.display());
    for keys in found.chunks(READ_AT_ONCE) {
        let numbers = store.rows(keys)?;
        embedded.vectors.extend(numbers.chunks_exact(numbers.len() / keys.len()).map(<[f32]>::to_vec));
    }
    Ok((embedded, store))
}

/// Vectors that are read from the disk at once.
const READ_AT_ONCE: usize = 4096;

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn complaint(row: &EmbedRow, message: &str) -> String {
    format!("{}: row `{}`: {message}", row.origin, row.id)
}

fn check_limit(bad: &[String], args: &Args) -> Result<()> {
    let limit = args.bad_row_limit;
    match bad {
        [one] if limit == 0 => {
            bail!("{one}; mend the row, or leave such rows out with --bad-row-limit")
        }
        _ if bad.len() > limit => bail!(
            "{} rows can't be embedded, more than --bad-row-limit {limit}: {}",
            bad.len(),
            bad.join("; ")
        ),
        _ => Ok(()),
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
