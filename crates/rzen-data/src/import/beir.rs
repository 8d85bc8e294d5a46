//! BEIR, and ViDoRe in its layout: a folder of `corpus`, `queries` and `qrels`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rzen_core::{Origin, Part};

use super::draft::Draft;
use super::media::Media;
use super::passages::{Passages, content, id_of};
use super::record::{Record, records, text_of};
use super::{ImportError, ImportReport, Layout, Refusal};

/// Grades of passages, by query and in the order of the file.
pub(crate) type Judgements = HashMap<String, Vec<(String, f64)>>;

pub(super) fn layout<'a>(
    inputs: &[PathBuf],
    split: &str,
    min_grade: f64,
    media: &mut Media,
    report: &mut ImportReport,
) -> Result<Layout<'a>, ImportError> {
    let [folder] = inputs else {
        let path = inputs.first().cloned().unwrap_or_default();
        let problem = format!("is one of {} inputs, expected one folder", inputs.len());
        return Err(ImportError::Layout { path, problem });
    };
    let judgements = judgements(&files(folder, "qrels", Some(split))?)?;
    let used = |grade: f64| grade >= min_grade || grade <= 0.0;
    let all = || judgements.values().flatten();
    report.note_many(
        "judgements between a negative and a positive, not used",
        all().filter(|(_, g)| !used(*g)).count(),
    );
    let wanted: HashSet<String> = all().filter(|(_, grade)| used(*grade)).map(|(id, _)| id.clone()).collect();
    let passages = Passages::read(&files(folder, "corpus", None)?, &wanted, media, report)?;
    let lost = wanted.iter().filter(|id| !passages.has(id));
    note_lost(report, "judged passages that are not in the corpus", lost);
    let files = files(folder, "queries", None)?;
    let places = places(&files, &judgements)?;
    let lost = judgements.keys().filter(|id| !places.contains_key(*id));
    note_lost(report, "judged queries that are not there", lost);
    let mut queries = Queries { judgements, min_grade, passages, places, seen: HashMap::new() };
    let read = move |record: &mut Record, media: &mut Media, report: &mut ImportReport| {
        queries.read(record, media, report)
    };
    Ok(Layout { files, read: Box::new(read) })
}

/// What makes rows of queries.
struct Queries {
    judgements: Judgements,
    min_grade: f64,
    passages: Passages,
    /// Where each judged query stands first.
    places: HashMap<String, Origin>,
    /// What the judged queries ask that were read so far.
    seen: HashMap<String, Vec<Part>>,
}

impl Queries {
    fn read(
        &mut self,
        record: &mut Record,
        media: &mut Media,
        report: &mut ImportReport,
    ) -> Result<Vec<Draft>, Refusal> {
        let id = id_of(record)?;
        let Some(judged) = self.judgements.get(&id) else {
            report.note("queries without judgements in this split, left out");
            return Ok(Vec::new());
        };
        // ViDoRe calls a query's text `query`.
        let mut query = content(record, media)?;
        if let Some(text) = record.text("query")? {
            query.extend(super::draft::words(&text));
        }
        if let Some(earlier) = self.seen.get(&id) {
            if *earlier == query {
                report.note("queries that stand twice, with the same content, left out");
                return Ok(Vec::new());
            }
            let first = &self.places[&id];
            return Err(
                format!("query `{id}` stands in {first} too, with other content; keep one of them").into()
            );
        }
        self.seen.insert(id, query.clone());
        let mut draft = Draft { query, ..Draft::default() };
        for (passage, grade) in judged {
            if *grade >= self.min_grade {
                draft.positives.push(self.passages.get(passage)?);
            } else if *grade <= 0.0 {
                draft.negatives.push(self.passages.get(passage)?);
            }
        }
        if draft.positives.is_empty() {
            report.note("queries without a passage of the least grade, left out");
            return Ok(Vec::new());
        }
        Ok(vec![draft])
    }
}

/// Where each judged query stands first. Rows that can't be read are refused later.
fn places(files: &[PathBuf], judgements: &Judgements) -> Result<HashMap<String, Origin>, ImportError> {
    let mut places = HashMap::new();
    for path in files {
        let file: Arc<Path> = path.as_path().into();
        for (index, record) in records(path)?.enumerate() {
            let id = record.ok().and_then(|mut record| id_of(&mut record).ok());
            if let Some(id) = id.filter(|id| judgements.contains_key(id)) {
                places.entry(id).or_insert_with(|| Origin { file: Arc::clone(&file), line: index + 1 });
            }
        }
    }
    Ok(places)
}

/// Counts ids that are judged and nowhere else, and names the first.
fn note_lost<'a>(report: &mut ImportReport, what: &str, ids: impl Iterator<Item = &'a String>) {
    const NAMED: usize = 3;
    let mut ids: Vec<&String> = ids.collect();
    ids.sort();
    let names: Vec<String> = ids.iter().take(NAMED).map(|id| format!("`{id}`")).collect();
    let more = match ids.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    report.note_many(&format!("{what}: {}{more}", names.join(", ")), ids.len());
}

/// The files of a part of the folder: `corpus.jsonl`, or all tables in `corpus/`; of `split` alone where there are splits.
pub(crate) fn files(folder: &Path, name: &str, split: Option<&str>) -> Result<Vec<PathBuf>, ImportError> {
    const ENDINGS: [&str; 4] = ["jsonl", "parquet", "json", "tsv"];
    let single = ENDINGS.map(|ending| folder.join(format!("{name}.{ending}"))).into_iter();
    let single: Vec<PathBuf> = single.filter(|path| path.is_file()).collect();
    if !single.is_empty() {
        return Ok(single);
    }
    let inner = folder.join(name);
    let mut files: Vec<PathBuf> = match fs::read_dir(&inner) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    files.retain(|path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let of_split = split.is_none_or(|split| stem == split || stem.starts_with(&format!("{split}-")));
        of_split && path.extension().and_then(|e| e.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
    });
    files.sort();
    if files.is_empty() {
        let of_split = split.map_or(String::new(), |split| format!(" of split `{split}`"));
        let problem =
            format!("has no {name}.jsonl, and no tables{of_split} in {name}/; expected BEIR's layout");
        return Err(ImportError::Layout { path: folder.to_owned(), problem });
    }
    Ok(files)
}

pub(crate) fn judgements(files: &[PathBuf]) -> Result<Judgements, ImportError> {
    let mut judgements = Judgements::new();
    for file in files {
        let wrong = |row: usize, problem: String| ImportError::Layout {
            path: file.clone(),
            problem: format!("is wrong in row {row}: {problem}"),
        };
        if file.extension().is_some_and(|ending| ending == "tsv") {
            let text = fs::read_to_string(file)
                .map_err(|source| crate::ManifestError::Read { path: file.clone(), source })?;
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
                let row = match fields.as_slice() {
                    // A line of column names.
                    [_, _, grade] if index == 0 && grade.parse::<f64>().is_err() => continue,
                    // As TREC writes them, with a number of the run that nobody needs.
                    [query, passage, grade] | [query, _, passage, grade] => {
                        grade_of(grade).map(|grade| (query.to_string(), passage.to_string(), grade))
                    }
                    _ => None,
                };
                let expected = || format!("`{line}`, expected query, passage and grade with tabs between");
                let (query, passage, grade) = row.ok_or_else(|| wrong(index + 1, expected()))?;
                judgements.entry(query).or_default().push((passage, grade));
            }
            continue;
        }
        for (index, record) in records(file)?.enumerate() {
            let judgement = record.and_then(|mut record| Ok(judgement(&mut record)?));
            match judgement {
                Ok((query, passage, grade)) => judgements.entry(query).or_default().push((passage, grade)),
                Err(Refusal::Failed(error)) => return Err(error),
                Err(Refusal::Row(problem)) => return Err(wrong(index + 1, problem)),
            }
        }
    }
    Ok(judgements)
}

fn judgement(record: &mut Record) -> Result<(String, String, f64), String> {
    let mut text = |columns: &[&str]| {
        let cell = record.take_any(columns);
        let text = cell.map_or(Ok(None), |cell| text_of(cell, columns[0]))?;
        text.ok_or_else(|| format!("column `{}` is missing or empty", columns[0]))
    };
    let query = text(&["query-id", "query_id"])?;
    let passage = text(&["corpus-id", "corpus_id"])?;
    let grade = text(&["score", "relevance"])?;
    let number = grade_of(&grade).ok_or_else(|| format!("the grade is `{grade}`, expected a number"))?;
    Ok((query, passage, number))
}

/// A grade; `nan` and `inf` are none, nor is what is above 1000.
fn grade_of(text: &str) -> Option<f64> {
    text.parse().ok().filter(|grade: &f64| grade.is_finite() && *grade <= 1000.0)
}
