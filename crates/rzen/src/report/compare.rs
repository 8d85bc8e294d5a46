//! Several runs on one page.

use std::path::Path;

use anyhow::Result;
use rzen_eval::PairedDifference;

use super::chart::Chart;
use super::html::{escape, score, words};
use super::measured::{ModelScores, ScoredTask, difference};
use super::seeds::{GroupDifference, SeedGroup};
use super::{Measurements, RunCurves, StepRecord, curves, head, write_page};

/// A run to be compared.
#[derive(Clone, Debug, Default)]
pub struct ComparedRun {
    /// Its name, unlike those of the others.
    pub name: String,
    /// Its recipe as dotted keys and values, in order.
    pub recipe: Vec<(String, String)>,
    /// Its stages so far.
    pub stages: Vec<RunCurves>,
    /// What it scored, once it is finished.
    pub measured: Option<Measurements>,
}

impl ComparedRun {
    /// The model that the run was for.
    pub(super) fn model(&self) -> Option<&ModelScores> {
        self.measured.as_ref()?.models.last()
    }
}

/// Writes a page that compares runs with the first of them, and those of several seeds as `groups`, whole or not at all.
///
/// # Errors
/// If the file can't be written.
pub fn write_comparison(runs: &[ComparedRun], groups: &[SeedGroup], path: &Path) -> Result<()> {
    write_page(&render(runs, groups), path)
}

fn render(runs: &[ComparedRun], groups: &[SeedGroup]) -> String {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    [
        head(&format!("rzen: {}", names.join(", "))),
        seeds(groups),
        scores(runs),
        models(runs),
        training(runs),
        speed(runs),
        recipes(runs),
        "</main>\n</body>\n</html>\n".to_owned(),
    ]
    .concat()
}

/// A table; heads and cells are HTML.
fn table(heads: &[String], rows: &[Vec<String>]) -> String {
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let line = |row: &Vec<String>| {
        let cells: String = row[1..].iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", row[0])
    };
    format!(
        "<div class=\"scroll\">\n<table class=\"plain\">\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n{}</tbody>\n\
         </table>\n</div>\n",
        rows.iter().map(line).collect::<String>()
    )
}

fn section(title: &str, lead: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{body}</section>\n")
}

/// Runs of one recipe together.
fn seeds(groups: &[SeedGroup]) -> String {
    let Some((base, _)) = groups.split_first() else { return String::new() };
    let heads = ["Recipe", "Seeds", "Mean", "Deviation of the means"].map(str::to_owned);
    let mut heads = heads.to_vec();
    heads.extend([format!("− {}", escape(&base.name)), "By seed".to_owned(), "Tasks".to_owned()]);
    heads.extend(base.tasks().iter().map(|task| escape(&task.task)));
    let row = |(i, group): (usize, &SeedGroup)| {
        let against = match group.difference(base).filter(|_| i > 0) {
            Some(GroupDifference { found, by_seed, tasks }) => {
                let seeds: Vec<String> = by_seed.iter().map(|value| format!("{value:+.3}")).collect();
                [interval(&found), seeds.join(", "), tasks.to_string()]
            }
            None => ["–", "–", "–"].map(str::to_owned),
        };
        let spread = group.spread().map_or("–".to_owned(), score);
        let mut row = vec![escape(&group.name), group.seeds().to_string(), score(group.mean()), spread];
        row.extend(against);
        row.extend(base.tasks().iter().map(|task| group.task(task).map_or("–".to_owned(), score)));
        row
    };
    let rows: Vec<Vec<String>> = groups.iter().enumerate().map(row).collect();
    let lead = "Runs whose recipes differ in nothing but their seed, taken together: the last model of each. Differences are means over \
                the tasks that were measured alike, with the 95&nbsp;% interval of a bootstrap over the queries of each task (bold: \
                it doesn't reach 0), and by seed, for what another seed would do.";
    section("Recipes over seeds", lead, &table(&heads, &rows))
}

/// The last model of each run, task by task, against that of the first run.
fn scores(runs: &[ComparedRun]) -> String {
    let scored: Vec<(&ComparedRun, &ModelScores)> =
        runs.iter().filter_map(|run| Some((run, run.model()?))).collect();
    let waiting: Vec<String> =
        runs.iter().filter(|run| run.model().is_none()).map(|run| escape(&run.name)).collect();
    let waiting = match waiting.is_empty() {
        true => String::new(),
        false => format!(" Not scored yet: {}.", waiting.join(", ")),
    };
    let Some(((first, base), others)) = scored.split_first() else {
        return section("Scores by task", "No run has been scored.", "");
    };
    let mut heads = vec!["Task".to_owned(), "Metric".to_owned(), "Chance".to_owned()];
    for (run, model) in &scored {
        heads.push(format!("{}<br><small>{}</small>", escape(&run.name), escape(&model.name)));
    }
    heads.extend(others.iter().map(|(run, _)| format!("{} − {}", escape(&run.name), escape(&first.name))));
    let mut tasks: Vec<&ScoredTask> = Vec::new();
    for task in scored.iter().flat_map(|(_, model)| &model.tasks) {
        if !tasks.iter().any(|known| known.task == task.task && known.metric == task.metric) {
            tasks.push(task);
        }
    }
    let of = |model: &'_ ModelScores, task: &ScoredTask| {
        model.task(&task.task).filter(|found| found.metric == task.metric).cloned()
    };
    let mut rows = Vec::new();
    for task in &tasks {
        let values: Vec<Option<ScoredTask>> = scored.iter().map(|(_, model)| of(model, task)).collect();
        let mut row = vec![escape(&task.task), escape(&task.metric), score(task.chance)];
        row.extend(
            values.iter().map(|found| found.as_ref().map_or("–".to_owned(), |found| score(found.value))),
        );
        row.extend(values[1..].iter().map(|found| match (found, &values[0]) {
            (Some(found), Some(base)) => gap(found.value - base.value, &[found], &[base]),
            _ => "–".to_owned(),
        }));
        rows.push(row);
    }
    rows.extend(means(base, &scored, others));
    let lead = format!(
        "The last model of each run. Differences are to <b>{}</b>, with the 95&nbsp;% interval of a paired bootstrap where \
         both runs answered the same queries; bold ones don't reach 0. Of twenty tasks that are equal, one is bold by chance.{waiting}",
        escape(&first.name)
    );
    section("Scores by task", &lead, &table(&heads, &rows))
}

/// The means over each run's own tasks, and the differences over those that a run shares with the first,
/// by task and by query.
fn means(
    base: &ModelScores,
    scored: &[(&ComparedRun, &ModelScores)],
    others: &[(&ComparedRun, &ModelScores)],
) -> Vec<Vec<String>> {
    let mut row = vec!["<b>Mean</b>".to_owned(), String::new(), String::new()];
    row.extend(scored.iter().map(|(_, model)| score(model.mean())));
    let mut pooled = vec!["All common queries".to_owned(), String::new(), String::new()];
    pooled.extend(scored.iter().map(|_| String::new()));
    for (_, model) in others {
        let pairs = model.tasks.iter().filter_map(|task| {
            let base = base.task(&task.task).filter(|base| base.metric == task.metric)?;
            Some((task, base))
        });
        let (here, there): (Vec<&ScoredTask>, Vec<&ScoredTask>) = pairs.unzip();
        let sum: f64 = here.iter().zip(&there).map(|(here, there)| here.value - there.value).sum();
        row.push(if here.is_empty() { "–".to_owned() } else { format!("{:+.3}", sum / here.len() as f64) });
        let found = difference(&here, &there);
        pooled.push(found.map_or("–".to_owned(), |found| gap(found.mean_difference, &here, &there)));
    }
    vec![row, pooled]
}

fn gap(value: f64, here: &[&ScoredTask], there: &[&ScoredTask]) -> String {
    match difference(here, there) {
        Some(found) => interval(&PairedDifference { mean_difference: value, ..found }),
        None => format!("{value:+.3}"),
    }
}

fn interval(found: &PairedDifference) -> String {
    let PairedDifference { mean_difference, low, high, .. } = found;
    let text = format!("{mean_difference:+.3} <small>({low:+.3} to {high:+.3})</small>");
    if *low > 0.0 || *high < 0.0 { format!("<b>{text}</b>") } else { text }
}

/// The means of all models of all runs.
fn models(runs: &[ComparedRun]) -> String {
    let models = runs.iter().flat_map(|run| {
        let models = run.measured.iter().flat_map(|measured| &measured.models);
        models.map(|model| {
            let hits = model.hits();
            vec![
                escape(&run.name),
                escape(&model.name),
                model.tasks.len().to_string(),
                score(model.mean()),
                hits.map_or("–".to_owned(), |(hits, _)| score(hits)),
                hits.map_or("–".to_owned(), |(_, chance)| score(chance)),
            ]
        })
    });
    let rows: Vec<Vec<String>> = models.collect();
    if rows.is_empty() {
        return String::new();
    }
    let heads = ["Run", "Model", "Tasks", "Mean", "Mean of hit_rate@1", "Chance of that"].map(str::to_owned);
    section("All models", "Means over the tasks of each run.", &table(&heads, &rows))
}

/// The curves of each stage over each other, and the temperatures beside each other.
fn training(runs: &[ComparedRun]) -> String {
    let mut stages: Vec<&str> = Vec::new();
    for stage in runs.iter().flat_map(|run| &run.stages) {
        if !stages.contains(&stage.name.as_str()) {
            stages.push(&stage.name);
        }
    }
    let mut body = String::new();
    for stage in stages {
        // A run without the stage keeps its colour.
        let steps =
            |run: &ComparedRun| run.stages.iter().find(|found| found.name == stage).map(|x| x.steps.clone());
        let of_stage: Vec<RunCurves> = runs
            .iter()
            .map(|run| RunCurves { name: run.name.clone(), steps: steps(run).unwrap_or_default() })
            .collect();
        let speed = |step: &StepRecord| Some(step.samples? / step.seconds?);
        let charts = [
            curves::compare(&of_stage, "Loss", "loss", |step| Some(step.loss)),
            curves::compare(&of_stage, "Accuracy inside the batch", "share of queries", |step| step.accuracy),
            curves::compare(&of_stage, "Norm of the gradient, before clipping", "norm", |step| {
                step.grad_norm
            }),
            curves::compare(&of_stage, "Samples a second", "samples a second", speed),
        ];
        body += &format!(
            "<h3>{}</h3>\n<div class=\"charts\">\n{}</div>\n",
            escape(&words(stage)),
            charts.iter().map(Chart::render).collect::<String>()
        );
    }
    let named = runs.iter().flat_map(|run| {
        run.stages.iter().map(|stage| RunCurves {
            name: format!("{}: {}", run.name, stage.name),
            steps: stage.steps.clone(),
        })
    });
    body += &curves::temperatures(&named.collect::<Vec<_>>());
    section(
        "Training",
        "Faint lines are single steps, strong ones their trend. Numbers are the ends of the strong lines.",
        &body,
    )
}

/// What each stage of each run took.
fn speed(runs: &[ComparedRun]) -> String {
    let row = |run: &ComparedRun, stage: &RunCurves| {
        let sum = |value: fn(&StepRecord) -> Option<f64>| stage.steps.iter().map(value).sum::<Option<f64>>();
        let (seconds, samples) = (sum(|step| step.seconds), sum(|step| step.samples));
        let number =
            |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |x| format!("{x:.digits$}"));
        let a_second = |count: Option<f64>| Some(count? / seconds?);
        let tokens = sum(|step| step.tokens).filter(|tokens| *tokens > 0.0);
        let stall = sum(|step| step.stall_seconds).zip(seconds).map(|(stall, all)| 100.0 * stall / all);
        let peak = stage.steps.iter().filter_map(|step| step.peak_memory_bytes).reduce(f64::max);
        vec![
            escape(&run.name),
            escape(&stage.name),
            stage.steps.last().map_or(0, |step| step.step).to_string(),
            number(samples, 0),
            number(seconds.map(|seconds| seconds / 60.0), 1),
            number(a_second(samples), 1),
            number(a_second(tokens), 0),
            number(stall, 1),
            number(peak.map(|peak| peak / 1e9), 2),
        ]
    };
    let rows: Vec<Vec<String>> =
        runs.iter().flat_map(|run| run.stages.iter().map(move |stage| row(run, stage))).collect();
    let heads = [
        "Run",
        "Stage",
        "Steps",
        "Samples",
        "Minutes",
        "Samples/s",
        "Tokens/s",
        "Stall, %",
        "Peak memory, GB",
    ];
    let lead = "Checkpoints are part of the time. Stall is the share of the time in which steps waited for their batches; the \
                peak is that of the process, stages before included.";
    section("Speed", lead, &table(&heads.map(str::to_owned), &rows))
}

/// The keys of the recipes that are not the same in all runs.
fn recipes(runs: &[ComparedRun]) -> String {
    let value = |run: &ComparedRun, key: &str| {
        run.recipe.iter().find(|(found, _)| found == key).map(|(_, value)| value.clone())
    };
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in runs.iter().flat_map(|run| &run.recipe) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    keys.retain(|key| runs.iter().any(|run| value(run, key) != value(&runs[0], key)));
    if keys.is_empty() {
        return section("Recipes", "All runs have the same recipe.", "");
    }
    let mut heads = vec!["Key".to_owned()];
    heads.extend(runs.iter().map(|run| escape(&run.name)));
    let row = |key: &&str| {
        let mut row = vec![format!("<code>{}</code>", escape(key))];
        row.extend(runs.iter().map(|run| match value(run, key) {
            Some(value) => format!("<code>{}</code>", escape(&value)),
            None => "not set".to_owned(),
        }));
        row
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    section("Recipes", "Keys on which the runs differ; all others are the same.", &table(&heads, &rows))
}
