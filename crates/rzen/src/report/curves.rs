//! The curves of training.

use super::chart::{Chart, Legend, Line};
use super::html::{counted, escape, words};
use super::ticks::Axis;
use super::{RunCurves, StepRecord};

/// The share of a run's steps that the trend of a noisy curve is fitted to.
const SMOOTHING: f64 = 0.15;

/// Loss, accuracy, temperatures, learning rate and gradient norm of all runs.
pub(super) fn section(runs: &[RunCurves]) -> String {
    if runs.iter().all(|run| run.steps.is_empty()) {
        return String::new();
    }
    let charts = [
        compare(runs, "Loss", "loss", |step| Some(step.loss)),
        compare(runs, "Accuracy inside the batch", "share of queries", |step| step.accuracy),
        compare(runs, "Norm of the gradient, before clipping", "norm", |step| step.grad_norm),
        planned(compare(runs, "Learning rate", "learning rate", |step| step.learning_rate)),
    ];
    format!(
        "<section>\n<h2>Training</h2>\n<p class=\"lead\">Faint lines are single steps, strong ones their trend: a \
         straight line fitted to the {:.0}&nbsp;% of the steps around. Numbers are the ends of the strong lines, and \
         for the learning rate its peak.{}</p>\n<div class=\"charts\">\n{}</div>\n{}</section>\n",
        SMOOTHING * 100.0,
        lost_steps(runs),
        charts.iter().map(Chart::render).collect::<String>(),
        temperatures(runs)
    )
}

/// One line for each run.
pub(super) fn compare(
    runs: &[RunCurves],
    title: &str,
    unit: &'static str,
    value: impl Fn(&StepRecord) -> Option<f64>,
) -> Chart {
    let lines = runs.iter().enumerate().map(|(colour, run)| Line {
        name: run.name.clone(),
        colour,
        points: points(run, &value),
        smoothing: SMOOTHING,
    });
    Chart { title: title.to_string(), unit, lines: lines.collect(), legend: Legend::Last, vertical: None }
}

/// The same chart for numbers that were set and not measured.
fn planned(mut chart: Chart) -> Chart {
    chart.lines.iter_mut().for_each(|line| line.smoothing = 0.0);
    Chart { legend: Legend::Highest, ..chart }
}

fn points(run: &RunCurves, value: impl Fn(&StepRecord) -> Option<f64>) -> Vec<(f64, f64)> {
    let finite = |step: &StepRecord| Some((step.step as f64, value(step).filter(|value| value.is_finite())?));
    run.steps.iter().filter_map(finite).collect()
}

/// One chart for each run, all with the same axis and colours.
pub(super) fn temperatures(runs: &[RunCurves]) -> String {
    let mut tasks: Vec<&str> = Vec::new();
    for (task, _) in runs.iter().flat_map(|run| &run.steps).flat_map(|step| &step.temperatures) {
        if !tasks.contains(&task.as_str()) {
            tasks.push(task);
        }
    }
    if tasks.is_empty() {
        return String::new();
    }
    let line = |run: &RunCurves, colour: usize| Line {
        name: words(tasks[colour]),
        colour,
        points: points(run, |step| {
            step.temperatures.iter().find(|(task, _)| task == tasks[colour]).map(|(_, value)| *value)
        }),
        smoothing: 0.0,
    };
    let lines: Vec<Vec<Line>> =
        runs.iter().map(|run| (0..tasks.len()).map(|colour| line(run, colour)).collect()).collect();
    let values = || lines.iter().flatten().flat_map(|line| &line.points).map(|(_, value)| *value);
    let (low, high) =
        values().fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), v| (low.min(v), high.max(v)));
    let axis = Axis::around(values(), high > 20.0 * low);
    let charts = runs.iter().zip(lines).map(|(run, lines)| {
        Chart {
            title: run.name.clone(),
            unit: "temperature",
            lines,
            legend: Legend::Last,
            vertical: Some(axis),
        }
        .render()
    });
    format!(
        "<h3>Temperature of each task</h3>\n<p class=\"lead\">Small means that the loss looks at the hardest negatives \
         only. All charts have the same axis.</p>\n<div class=\"charts small\">\n{}</div>\n",
        charts.collect::<String>()
    )
}

/// Says which runs have steps whose loss can't be drawn.
fn lost_steps(runs: &[RunCurves]) -> String {
    let lost = runs.iter().filter_map(|run| {
        let count = run.steps.iter().filter(|step| !step.loss.is_finite()).count();
        (count > 0).then(|| {
            format!(
                " <b class=\"bad\">{}: the loss of {} is not finite.</b>",
                escape(&run.name),
                counted(count, "step", "steps")
            )
        })
    });
    lost.collect()
}
