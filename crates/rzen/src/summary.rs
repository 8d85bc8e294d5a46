//! What a training came to: one table of all models, and the report.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use image::{DynamicImage, ImageFormat, RgbImage};
use rzen_core::{Item, Media, Picture};
use rzen_data::Loader;
use rzen_eval::{Metric, RankTask, TopK};
use rzen_model::ProcessorConfig;

use crate::evaluate::Benchmark;
use crate::models;
use crate::pipeline::{Column, Job};
use crate::recipe::Recipe;
use crate::report::{
    Example, Found, Measurements, ModelScores, ReportInput, ReportPart, RunCurves, ScoredTask, TaskRow,
    difference, read_curves, write_report as write_html,
};
use crate::text_table::aligned;

/// The headline metric of each task, a column for each model, with the mean and the mean of hit@1; below it what
/// the last model's mean of hit@1 is worth.
pub fn table(columns: &[Column]) -> String {
    let Some(first) = columns.first() else { return String::new() };
    let mut rows: Vec<Vec<String>> = vec![vec!["task".into(), "metric".into(), "chance".into()]];
    rows[0].extend(columns.iter().map(|column| column.name.clone()));
    for (i, task) in first.scores.scores.iter().enumerate() {
        let mut row = vec![task.task.clone(), task.metric.to_string(), number(task.chance)];
        row.extend(columns.iter().map(|column| number(column.scores.scores[i].headline())));
        rows.push(row);
    }
    let tasks = first.scores.results.tasks();
    let chance = tasks.iter().map(|task| task.chance).sum::<f64>() / tasks.len().max(1) as f64;
    rows.push(mean_row("mean", Some(chance), columns, |column| column.scores.results.mean()));
    let hit_chance = first.scores.results.mean_hit_chance();
    rows.push(mean_row("mean of hit_rate@1", hit_chance, columns, mean_hit));
    let models: Vec<ModelScores> = columns.iter().map(model_scores).collect();
    let verdict = hit_verdict(&models).map_or(String::new(), |verdict| format!("\n\n{verdict}"));
    aligned(&rows, 2) + &verdict
}

fn mean_row(
    name: &str,
    chance: Option<f64>,
    columns: &[Column],
    mean: impl Fn(&Column) -> Option<f64>,
) -> Vec<String> {
    let mut row = vec![name.to_owned(), String::new(), chance.map_or(String::new(), number)];
    row.extend(columns.iter().map(|column| mean(column).map_or(String::new(), number)));
    row
}

/// The scores of a column as they are kept.
pub fn model_scores(column: &Column) -> ModelScores {
    let tasks = column.scores.scores.iter().map(ScoredTask::of).collect();
    ModelScores { name: column.name.clone(), tasks }
}

fn mean_hit(column: &Column) -> Option<f64> {
    column.scores.results.mean_of(Metric::HIT_AT_1)
}

/// The mean hit_rate@1 of the last model against chance and against the models before it.
fn hit_verdict(models: &[ModelScores]) -> Option<String> {
    let (_, chance) = models.last()?.hits()?;
    let means: Option<Vec<(&str, f64)>> =
        models.iter().map(|model| Some((model.name.as_str(), model.hits()?.0))).collect();
    Some(hit_sentence(&means?, chance))
}

/// `soup: mean hit_rate@1 0.400 = 8.0 × chance 0.050; start 0.050, stage_1 0.300`.
fn hit_sentence(means: &[(&str, f64)], chance: f64) -> String {
    let Some(((name, mean), others)) = means.split_last() else { return String::new() };
    let times = mean / chance;
    let others: Vec<String> = others.iter().map(|(name, mean)| format!("{name} {}", number(*mean))).collect();
    let others = if others.is_empty() { others.join("") } else { format!("; {}", others.join(", ")) };
    format!("{name}: mean hit_rate@1 {} = {times:.1} × chance {}{others}", number(*mean), number(chance))
}

fn number(x: f64) -> String {
    format!("{x:.3}")
}

/// Writes `report.html` into the run.
///
/// # Errors
/// If the metrics can't be read or the page can't be written.
pub fn write_report(
    job: &Job,
    name: &str,
    benchmark: &Benchmark,
    columns: &[Column],
    processor: &ProcessorConfig,
    duration: Duration,
) -> Result<PathBuf> {
    let loader = models::loader(processor, PathBuf::new(), job.recipe.data.load.options());
    let measured = Measurements {
        title: format!("rzen: {name}"),
        summary: facts(job, name, duration),
        models: columns.iter().map(model_scores).collect(),
        examples: columns.last().map_or(Vec::new(), |column| examples(&loader, benchmark, column)),
    };
    measured.save(&job.run.folder)?;
    let path = job.run.join("report.html");
    write_html(&report_input(stage_curves(job.recipe, &job.run.folder)?, measured), &path)?;
    Ok(path)
}

/// The curves of a run's stages as far as they have come.
///
/// # Errors
/// If a `metrics.jsonl` can't be read.
pub fn stage_curves(recipe: &Recipe, run: &Path) -> Result<Vec<RunCurves>> {
    let mut curves = Vec::new();
    for stage in &recipe.stages {
        let path = run.join(&stage.name).join("metrics.jsonl");
        if path.is_file() {
            curves.extend(read_curves(&path)?);
        }
    }
    Ok(curves)
}

/// What the report of one run shows.
pub fn report_input(runs: Vec<RunCurves>, measured: Measurements) -> ReportInput {
    let models = &measured.models;
    ReportInput {
        runs,
        columns: models.iter().map(|model| model.name.clone()).collect(),
        table: task_rows(models),
        hits: hit_verdict(models),
        notes: notes(models),
        title: measured.title,
        summary: measured.summary,
        examples: measured.examples,
    }
}

fn facts(job: &Job, name: &str, duration: Duration) -> Vec<(String, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let stages: Vec<&str> = job.recipe.stages.iter().map(|stage| stage.name.as_str()).collect();
    let rows = [
        ("recipe", format!("{name} (recipe.toml in the run's folder)")),
        ("seed", job.recipe.seed.to_string()),
        ("stages", stages.join(", ")),
        ("device", format!("{}, {cores} cores", job.device_name)),
        ("time", format!("{} for this command", spelled(duration))),
        ("program", format!("rzen {}", env!("CARGO_PKG_VERSION"))),
    ];
    rows.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// `42 seconds`, `12.5 minutes`.
fn spelled(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 120.0 => format!("{seconds:.0} seconds"),
        seconds => format!("{:.1} minutes", seconds / 60.0),
    }
}

fn task_rows(models: &[ModelScores]) -> Vec<TaskRow> {
    let Some(first) = models.first() else { return Vec::new() };
    let value = |model: &ModelScores, name: &str| model.task(name).map_or(f64::NAN, |task| task.value);
    let row = |task: &ScoredTask| TaskRow {
        task: task.task.clone(),
        kind: task.kind.clone(),
        metric: task.metric.clone(),
        values: models.iter().map(|model| value(model, &task.task)).collect(),
        chance: Some(task.chance),
    };
    first.tasks.iter().map(row).collect()
}

/// Says for each earlier model whether the last one is better for sure, query by query.
fn notes(models: &[ModelScores]) -> Vec<String> {
    let Some((last, others)) = models.split_last() else { return Vec::new() };
    let compare = |other: &ModelScores| -> Option<String> {
        let difference =
            difference(&last.tasks.iter().collect::<Vec<_>>(), &other.tasks.iter().collect::<Vec<_>>())?;
        Some(format!(
            "{} against {}: {:+.3} over all queries, 95 % interval {:+.3} to {:+.3} (paired bootstrap).",
            last.name, other.name, difference.mean_difference, difference.low, difference.high
        ))
    };
    others.iter().filter_map(compare).collect()
}

/// A few queries of each task that were answered, and a few that were not.
fn examples(loader: &Loader, benchmark: &Benchmark, column: &Column) -> Vec<Example> {
    let mut examples = Vec::new();
    for (task, score) in benchmark.tasks.iter().zip(&column.scores.scores) {
        for correct in [true, false] {
            let picks = (0..score.per_query.len())
                .filter(|&i| is_right(task, &score.per_query[i].top) == correct)
                .take(EXAMPLES);
            examples.extend(picks.map(|i| example(loader, task, &score.per_query[i].top)));
        }
    }
    examples
}

/// Examples of each task, right and wrong.
const EXAMPLES: usize = 2;

fn relevant(task: &RankTask, query: usize, candidate: usize) -> bool {
    task.queries[query].relevant.iter().any(|(place, grade)| *place == candidate && *grade > 0.0)
}

fn is_right(task: &RankTask, top: &TopK) -> bool {
    top.ranked.first().is_some_and(|(candidate, _)| relevant(task, top.query, *candidate))
}

/// A query with what was found for it.
pub(crate) fn example(loader: &Loader, task: &RankTask, top: &TopK) -> Example {
    let query = &task.queries[top.query];
    let found = |candidate: usize, score: f32| Found {
        parts: shown(loader, &task.pool[candidate].1),
        score,
        relevant: relevant(task, top.query, candidate),
    };
    let ranked: Vec<Found> = top.ranked.iter().map(|(candidate, score)| found(*candidate, *score)).collect();
    let missed = ranked.iter().all(|found| !found.relevant);
    let (answer, its_score) = top.first_relevant;
    Example {
        task: task.name.clone(),
        kind: task.kind.0.clone(),
        instruction: query.item.instruction.clone(),
        query: shown(loader, &query.item),
        found: ranked,
        correct: is_right(task, top),
        answer: missed.then(|| found(answer, its_score)),
        rank: top.first_relevant_rank,
    }
}

/// The content of an item as it is shown: texts, and thumbnails of what is seen.
pub fn shown(loader: &Loader, item: &Item) -> Vec<ReportPart> {
    let parts = item.content.iter().map(|part| match loader.load_part(part) {
        Ok(Media::Text(text)) => ReportPart::Text(text),
        Ok(Media::Image(picture)) => thumbnail(&picture),
        Ok(Media::Frames(frames)) => {
            let step = frames.len().div_ceil(4).max(1);
            ReportPart::Frames(frames.iter().step_by(step).map(thumbnail).collect())
        }
        Err(error) => ReportPart::Text(error.to_string()),
    });
    parts.collect()
}

/// Longest side of a thumbnail in pixels.
const THUMBNAIL: u32 = 160;

fn thumbnail(picture: &Picture) -> ReportPart {
    ReportPart::Image { bytes: small_jpeg(picture, THUMBNAIL), media_type: "image/jpeg".into() }
}

/// A picture as JPEG, made smaller where a side is longer than `side`.
pub(crate) fn small_jpeg(picture: &Picture, side: u32) -> Vec<u8> {
    let rgb = RgbImage::from_raw(picture.width(), picture.height(), picture.rgb().to_vec());
    let image = DynamicImage::from(rgb.expect("a picture holds all of its pixels"));
    let small = match picture.width().max(picture.height()) > side {
        true => image.thumbnail(side, side),
        false => image,
    };
    let mut bytes = Cursor::new(Vec::new());
    small.write_to(&mut bytes, ImageFormat::Jpeg).expect("an RGB picture becomes a JPEG in memory");
    bytes.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_told_against_chance_and_the_other_models() {
        let means = [("start", 0.05), ("stage_1", 0.3), ("soup", 0.4)];
        assert_eq!(
            hit_sentence(&means, 0.05),
            "soup: mean hit_rate@1 0.400 = 8.0 × chance 0.050; start 0.050, stage_1 0.300"
        );
        assert_eq!(hit_sentence(&means[..1], 0.1), "start: mean hit_rate@1 0.050 = 0.5 × chance 0.100");
    }

    #[test]
    fn short_runs_are_told_in_seconds() {
        let spelled = [4, 119, 750].map(|seconds| spelled(Duration::from_secs(seconds)));
        assert_eq!(spelled, ["4 seconds", "119 seconds", "12.5 minutes"]);
    }
}
