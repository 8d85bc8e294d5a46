//! The folder that an evaluation leaves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rzen_eval::Compression;
use serde_json::{Map, Value, json};

use super::scored::{EVAL, FORMAT, QUERIES, query_lines};
use super::{Confusion, Estimate, Evaluation, GroupScore, vlm2vec};
use crate::files::{parent_of, whole_folder};
use crate::output::{check_folder, check_written, existing, files_below};
use crate::report::{Bar, EvaluationPage, write_evaluation_page};

/// What an evaluation says about itself besides its scores.
#[derive(Default)]
pub struct Description {
    /// What was evaluated: a corpus folder or a suite.
    pub title: String,
    /// Model, adapter, settings and the like, as they stand in `eval.json`.
    pub settings: Map<String, Value>,
    /// The file for a leaderboard, where there is one.
    pub submission: Option<Value>,
    /// Published scores beside ours: a head and rows.
    pub published: Vec<Vec<String>>,
    /// Sentences that a reader should bear in mind.
    pub notes: Vec<String>,
}

/// Refuses a folder that an evaluation must not replace.
///
/// # Errors
/// If it can't be written, is there and `overwrite` isn't set, or holds anything that no evaluation wrote.
pub fn check_output(output: &Path, overwrite: bool) -> Result<()> {
    check_folder(output, overwrite)?;
    check_written(output, EVAL, "evaluation")
}

/// Writes the folder `output`, whole or not at all, over an earlier evaluation where `overwrite` allows it: `results.json`, `eval.json`, `queries.jsonl`, `report.html`, `submission.json`
/// where there is one, and `MODALITY/TASK_score.json` where `modality` gives tasks a folder.
///
/// # Errors
/// If the folder can't be written.
pub fn write_evaluation(
    evaluation: &Evaluation,
    description: &Description,
    modality: impl Fn(&str) -> Option<String>,
    output: &Path,
    overwrite: bool,
) -> Result<()> {
    whole_folder(output, existing(overwrite), |part| {
        evaluation.results()?.save(&part.join("results.json"))?;
        fs::write(part.join(QUERIES), query_lines(evaluation)?)?;
        write_evaluation_page(&page(evaluation, description), &part.join("report.html"))?;
        if let Some(submission) = &description.submission {
            fs::write(part.join("submission.json"), format!("{submission:#}\n"))?;
        }
        for task in &evaluation.tasks {
            let Some(folder) = modality(&task.info.name) else { continue };
            // Sets of BEIR may lie a folder deeper.
            let file = part.join(folder).join(format!("{}_score.json", task.info.name));
            fs::create_dir_all(parent_of(&file))?;
            fs::write(file, format!("{:#}\n", vlm2vec::score_file(&task.score)))?;
        }
        let mut files = files_below(part)?;
        files.push(EVAL.into());
        files.sort();
        fs::write(part.join(EVAL), format!("{:#}\n", eval_json(evaluation, description, &files)))?;
        // Hours have passed since it was asked.
        check_output(output, overwrite)?;
        Ok(())
    })
}

fn eval_json(evaluation: &Evaluation, description: &Description, files: &[PathBuf]) -> Value {
    let tasks: Map<String, Value> = evaluation
        .tasks
        .iter()
        .map(|task| {
            let value = json!({
                "metric": task.score.metric.to_string(),
                "groups": task.info.groups,
                "score": task.estimate,
                "chance": task.score.chance,
                "queries": task.score.per_query.len(),
                "candidates": task.score.candidates,
                "ties": task.score.ties,
                "compressed": forms(task.compressed.iter().map(|form| (form.compression, json!({"score": form.value, "ties": form.ties})))),
            });
            (task.info.name.clone(), value)
        })
        .collect();
    let group =
        |group: &GroupScore| (group.name.clone(), json!({ "tasks": group.tasks, "score": group.estimate }));
    let bytes = |form: Compression| form.bytes(evaluation.dim);
    let compressed = evaluation.compressed().into_iter();
    json!({
        "format": FORMAT,
        "program": format!("rzen {}", env!("CARGO_PKG_VERSION")),
        "title": description.title,
        "settings": description.settings,
        "dim": evaluation.dim,
        "score": evaluation.overall,
        "groups": evaluation.groups.iter().map(group).collect::<Map<_, _>>(),
        "compressed": forms(compressed.map(|(form, mean)| (form, json!({"score": mean, "bytes": bytes(form)})))),
        "tasks": tasks,
        "notes": description.notes,
        "files": files,
    })
}

fn forms(forms: impl Iterator<Item = (Compression, Value)>) -> Map<String, Value> {
    forms.map(|(form, value)| (form.to_string(), value)).collect()
}

fn page(evaluation: &Evaluation, description: &Description) -> EvaluationPage {
    let bar = |name: String, detail: String, score: Estimate, chance: Option<f64>| Bar {
        name,
        detail,
        mean: score.mean,
        low: score.low,
        high: score.high,
        chance,
    };
    let tasks = evaluation.tasks.iter().map(|task| {
        let metric = task.score.metric.to_string();
        bar(task.info.name.clone(), metric, task.estimate, Some(task.score.chance))
    });
    let count = evaluation.tasks.len() as f64;
    let chance = evaluation.tasks.iter().map(|task| task.score.chance).sum::<f64>() / count;
    let groups = evaluation.groups.iter().map(|group| {
        let count = format!("{} task{}", group.tasks, if group.tasks == 1 { "" } else { "s" });
        bar(group.name.clone(), count, group.estimate, None)
    });
    EvaluationPage {
        title: description.title.clone(),
        overall: bar(String::new(), String::new(), evaluation.overall, Some(chance)),
        groups: groups.collect(),
        tasks: tasks.collect(),
        published: description.published.clone(),
        compressed: compressed_rows(evaluation),
        confusion: confusion_rows(evaluation),
        worst: evaluation.tasks.iter().flat_map(|task| task.worst.iter().cloned()).collect(),
        facts: description.settings.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        notes: description.notes.clone(),
    }
}

/// A value as it is read: strings without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Each task and the mean under each form of the vectors.
fn compressed_rows(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let forms = evaluation.compressed();
    if forms.is_empty() {
        return Vec::new();
    }
    let number = |value: f64| format!("{value:.3}");
    let mut head =
        vec!["task".to_owned(), format!("full ({} bytes)", Compression::NONE.bytes(evaluation.dim))];
    head.extend(forms.iter().map(|(form, _)| format!("{form} ({} bytes)", form.bytes(evaluation.dim))));
    let mut rows = vec![head];
    for task in &evaluation.tasks {
        let values = task.compressed.iter().map(|form| number(form.value));
        rows.push([task.info.name.clone(), number(task.estimate.mean)].into_iter().chain(values).collect());
    }
    let means = forms.iter().map(|(_, mean)| number(*mean));
    rows.push(["mean".to_owned(), number(evaluation.overall.mean)].into_iter().chain(means).collect());
    rows
}

/// The wrong answers of tasks whose candidates are of several kinds.
fn confusion_rows(evaluation: &Evaluation) -> Vec<Vec<String>> {
    let mut all = Confusion::default();
    evaluation
        .tasks
        .iter()
        .map(|task| &task.confusion)
        .filter(|one| one.pool.len() > 1)
        .for_each(|one| all.add(one));
    if all.pool.is_empty() {
        return Vec::new();
    }
    let pool: usize = all.pool.values().sum();
    let mut rows =
        vec![std::iter::once("answer".to_owned()).chain(all.pool.keys().cloned()).collect::<Vec<_>>()];
    for answer in all.pool.keys() {
        let count = |kind: &String| all.wrong.get(&(answer.clone(), kind.clone())).copied().unwrap_or(0);
        rows.push(
            std::iter::once(answer.clone())
                .chain(all.pool.keys().map(|kind| count(kind).to_string()))
                .collect(),
        );
    }
    let share = |count: &usize| format!("{:.0} %", 100.0 * *count as f64 / pool as f64);
    rows.push(std::iter::once("of all candidates".to_owned()).chain(all.pool.values().map(share)).collect());
    rows
}
