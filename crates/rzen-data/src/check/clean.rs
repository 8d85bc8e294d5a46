//! A corpus without the rows that are wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{CheckError, Checked, CheckedManifest, FindingKind, RowPlace};
use crate::eval_copy::EvalCopy;
use crate::parquet_names::KnownPictures;
use crate::train_line::Line;
use crate::train_rows::each_train_row;

/// What became of the rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cleaned {
    /// The training manifests.
    pub manifests: Vec<CleanedManifest>,
    /// How many rows were left out for each kind; a row may count for several.
    pub left_out: BTreeMap<&'static str, usize>,
}

/// What became of a training manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CleanedManifest {
    /// The manifest under the corpus.
    pub file: String,
    /// Rows written.
    pub kept: usize,
    /// Rows left out.
    pub left_out: usize,
}

/// A line of `left_out.jsonl`.
#[derive(Serialize)]
struct LeftOut<'a> {
    #[serde(flatten)]
    place: &'a RowPlace,
    kinds: Vec<FindingKind>,
}

/// Writes a corpus to `folder`, which exists, without the training rows that findings of these kinds name: each
/// `DATASET/train.jsonl`, `left_out.jsonl`, and tasks with their queries and pools as they are. Media stay where they
/// are and are named from the root of the disk. Rows that can't be read are left out always, a dataset of which no
/// row is left has no manifest.
///
/// # Errors
/// If a file can't be read or written.
pub fn write_clean(
    checked: &Checked,
    kinds: &BTreeSet<FindingKind>,
    folder: &Path,
) -> Result<Cleaned, CheckError> {
    let mut out: BTreeMap<&RowPlace, BTreeSet<FindingKind>> = BTreeMap::new();
    for finding in &checked.findings {
        if finding.kind == FindingKind::UnreadableRow || kinds.contains(&finding.kind) {
            for row in &finding.rows {
                out.entry(row).or_default().insert(finding.kind);
            }
        }
    }
    let mut manifests = Vec::new();
    // Of each dataset.
    let mut known: BTreeMap<Option<&Path>, KnownPictures> = BTreeMap::new();
    for manifest in checked.manifests.iter().filter(|manifest| manifest.trains) {
        let known = known.entry(Path::new(&manifest.file).parent()).or_default();
        manifests.push(write_rows(checked, manifest, known, &out, folder)?);
    }
    EvalCopy::read(&checked.corpus)
        .map_err(|(path, source)| CheckError::Read { path, source })?
        .write(folder)
        .map_err(|(path, source)| CheckError::Write { path, source })?;
    let licences = checked.corpus.join("LICENSES.md");
    if licences.is_file() {
        let copy = folder.join("LICENSES.md");
        fs::copy(&licences, &copy).map_err(|source| CheckError::Write { path: copy, source })?;
    }
    let mut left_out = BTreeMap::new();
    out.values().flatten().for_each(|kind| *left_out.entry(kind.name()).or_default() += 1);
    let lines = out.into_iter().map(|(place, kinds)| {
        let line = LeftOut { place, kinds: kinds.into_iter().collect() };
        serde_json::to_string(&line).expect("strings and numbers become JSON")
    });
    write_lines(&folder.join("left_out.jsonl"), lines.map(Ok))?;
    Ok(Cleaned { manifests, left_out })
}

fn write_rows(
    checked: &Checked,
    manifest: &CheckedManifest,
    known: &KnownPictures,
    out: &BTreeMap<&RowPlace, BTreeSet<FindingKind>>,
    folder: &Path,
) -> Result<CleanedManifest, CheckError> {
    let path = checked.corpus.join(&manifest.file);
    let changed = |problem: String| CheckError::Changed { path: path.clone(), problem };
    let samples = match each_train_row(&path, &checked.corpus, &checked.corpus, known) {
        Ok(samples) => samples,
        // It was a finding before.
        Err(_) => {
            return Ok(CleanedManifest { file: manifest.file.clone(), kept: 0, left_out: manifest.rows });
        }
    };
    let lines = samples.filter_map(|sample| {
        let sample = match sample {
            Ok(sample) => sample,
            Err(error) => {
                let row = error.origin().map(|origin| origin.line);
                let place = row.map(|row| RowPlace { file: manifest.file.clone(), row });
                // What broke the file off was a finding before as well.
                let known = place.is_none_or(|place| out.contains_key(&place));
                return (!known).then(|| Err(changed(error.to_string())));
            }
        };
        let place = RowPlace { file: manifest.file.clone(), row: sample.origin.line };
        (!out.contains_key(&place)).then(|| Line::of(&sample).to_json().map_err(&changed))
    });
    // Several files of a dataset become one.
    let target = folder.join(&manifest.file).with_file_name("train.jsonl");
    let kept = write_lines(&target, lines)?;
    let remove_empty = || match fs::metadata(&target)?.len() {
        0 => fs::remove_file(&target),
        _ => Ok(()),
    };
    remove_empty().map_err(|source| CheckError::Write { path: target.clone(), source })?;
    let left_out = out.keys().filter(|place| place.file == manifest.file).count();
    Ok(CleanedManifest { file: manifest.file.clone(), kept, left_out })
}

/// Writes lines behind those of a file, which is made with its folder, and counts them.
fn write_lines(
    path: &Path,
    lines: impl Iterator<Item = Result<String, CheckError>>,
) -> Result<usize, CheckError> {
    let failed = |source| CheckError::Write { path: PathBuf::from(path), source };
    fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).map_err(failed)?;
    let file = File::options().create(true).append(true).open(path).map_err(failed)?;
    let mut file = BufWriter::new(file);
    let mut count = 0;
    for line in lines {
        writeln!(file, "{}", line?).map_err(failed)?;
        count += 1;
    }
    file.flush().map_err(failed)?;
    Ok(count)
}
