//! What a mining writes: a corpus of the same rows, and how it came about.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_core::{Item, Origin, Sample, TeacherScores};
use rzen_data::{BadRow, Loader, NegativesLost, train_line};
use serde::Serialize;
use serde_json::{Value, json};

use super::tell::{UnitSummary, median_rank};
use super::{Mined, MinedRow, Source, Unit, page};
use crate::files::whole_folder;
use crate::output::{check_apart, check_folder, check_written, existing};

/// How a mining came about: the settings as `mine.json` keeps them.
pub struct Record {
    /// The corpus that was read.
    pub corpus: PathBuf,
    /// Models, options: whatever decides the result.
    pub settings: Value,
    /// Whether rows get the scores of their answers and negatives.
    pub scores: bool,
    /// Whether what an earlier mining wrote may be replaced.
    pub overwrite: bool,
}

const RECORD: &str = "mine.json";

/// Refuses an output that the mining must not replace.
///
/// # Errors
/// If the folder can't be written, holds the corpus or anything that no mining wrote, or is there and `overwrite` isn't set.
pub fn check_output(output: &Path, corpus: &Path, overwrite: bool) -> Result<()> {
    check_apart(output, [corpus])?;
    check_folder(output, overwrite)?;
    check_written(output, RECORD, "mining")
}

/// Writes the mined rows as a corpus: of each dataset `train.jsonl` and `mined.jsonl` (what became of each row), the tasks and
/// licences of the corpus, `report.html` and `mine.json`.
///
/// # Errors
/// As of [`check_output`], which is asked again before anything is replaced, and if something can't be written; nothing stands
/// under the final name then, or what stood there before.
pub fn write(output: &Path, source: &Source, mined: &Mined, record: &Record, loader: &Loader) -> Result<()> {
    ensure!(!mined.units.is_empty(), "no row can be read, so there is nothing to mine for");
    let mut refused = None;
    let written = whole_folder(output, existing(record.overwrite), |part| {
        // Before the datasets: no name of a query file may replace a manifest.
        let written = source.tasks.write(part);
        let mut files =
            written.map_err(|(path, error)| anyhow::Error::new(error).context(path.display().to_string()))?;
        for (place, dataset) in source.datasets.iter().enumerate() {
            let units = mined.units.iter().filter(|(unit, _)| unit.dataset == place);
            let mut rows: Vec<(&Unit, usize, &MinedRow)> = units
                .flat_map(|(unit, rows)| rows.iter().enumerate().map(move |(at, row)| (unit, at, row)))
                .collect();
            let place = |unit: &Unit, at: usize| {
                let origin = &unit.rows[at].sample.origin;
                (origin.file.clone(), origin.line)
            };
            rows.sort_by_cached_key(|(unit, at, _)| place(unit, *at));
            let folder = Path::new(&dataset.name);
            fs::create_dir_all(part.join(folder))?;
            let mut lines = [("train.jsonl", String::new()), ("mined.jsonl", String::new())];
            for (unit, at, row) in rows {
                lines[0].1 += &(line_of(unit, at, row, mined.keep, record.scores)? + "\n");
                lines[1].1 += &(fate_of(unit, at, row)? + "\n");
            }
            for (name, lines) in lines {
                fs::write(part.join(folder).join(name), lines)?;
                files.push(folder.join(name));
            }
        }
        let licences = record.corpus.join("LICENSES.md");
        if licences.is_file() {
            fs::copy(licences, part.join("LICENSES.md"))?;
            files.push("LICENSES.md".into());
        }
        page::write(&part.join("report.html"), mined, record, loader)?;
        files.extend(["report.html", RECORD].map(PathBuf::from));
        files.sort();
        fs::write(part.join(RECORD), format!("{:#}\n", account(mined, record, &files)))?;
        // Hours have passed since it was asked.
        if let Err(error) = check_output(output, &record.corpus, record.overwrite) {
            refused = Some(error);
            bail!("refused");
        }
        Ok(())
    });
    refused.map_or(written, Err)
}

/// The name of the manifest of a row, where its dataset may have several.
pub(super) fn file_of_several(origin: &Origin) -> Option<&str> {
    let name = origin.file.file_name()?.to_str()?;
    (origin.file.file_stem()? != "train").then_some(name)
}

/// The row with its negatives.
fn line_of(unit: &Unit, at: usize, row: &MinedRow, keep: bool, scores: bool) -> Result<String> {
    let sample = unit.rows[at].sample;
    let present = sample.hard_negatives.iter().zip(&row.present_scores);
    let taken = row.taken.iter().map(|taken| (unit.candidates[taken.candidate].item, &taken.score));
    let (items, its_scores): (Vec<&Item>, Vec<f64>) =
        present.filter(|_| keep).chain(taken).map(|(item, score)| (item, *score)).unzip();
    let negatives = items.into_iter().map(|item| Item { instruction: None, ..item.clone() });
    let teacher = TeacherScores { positives: row.positive_scores.clone(), negatives: its_scores };
    let mined =
        Sample { hard_negatives: negatives.collect(), teacher: scores.then_some(teacher), ..sample.clone() };
    train_line(&mined).with_context(|| sample.origin.to_string())
}

/// What became of a row.
#[derive(Serialize)]
struct Fate<'a> {
    /// The manifest that was read, where it is one of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    /// Its line in the manifest that was read.
    line: usize,
    /// Negatives that were taken, by rank.
    ranks: Vec<usize>,
    scores: Vec<f64>,
    positive_scores: Vec<f64>,
    positive_rank: Option<usize>,
    lost: NegativesLost,
}

fn fate_of(unit: &Unit, at: usize, row: &MinedRow) -> Result<String> {
    let fate = Fate {
        file: file_of_several(&unit.rows[at].sample.origin),
        line: unit.rows[at].sample.origin.line,
        ranks: row.taken.iter().map(|taken| taken.rank).collect(),
        scores: row.taken.iter().map(|taken| taken.score).collect(),
        positive_scores: row.positive_scores.clone(),
        positive_rank: row.positive_rank,
        lost: row.lost,
    };
    Ok(serde_json::to_string(&fate)?)
}

fn account(mined: &Mined, record: &Record, files: &[PathBuf]) -> Value {
    let units = mined.units.iter().map(|(unit, rows)| {
        let summary = UnitSummary::of(unit, rows, mined);
        json!({
            "dataset": unit.rows[0].sample.dataset,
            "name": unit.name,
            "rows": rows.len(),
            "candidates": unit.candidates.len(),
            "taken": summary.taken,
            "rows_short": summary.short,
            "rows_without": summary.without,
            "lost": summary.lost,
            "median_positive_rank": median_rank(rows),
            "positive_ranks": summary.ranks.iter().map(|(bin, count)| (bin.to_string(), json!(count))).collect::<serde_json::Map<_, _>>(),
        })
    });
    let bad =
        |row: &BadRow| json!({ "row": row.origin.to_string(), "file": row.file, "message": row.message });
    json!({
        "program": format!("rzen {}", env!("CARGO_PKG_VERSION")),
        "corpus": record.corpus,
        "settings": record.settings,
        "items": mined.items,
        "datasets": units.collect::<Vec<_>>(),
        "bad_rows": mined.bad_rows.iter().map(bad).collect::<Vec<_>>(),
        "files": files,
    })
}
