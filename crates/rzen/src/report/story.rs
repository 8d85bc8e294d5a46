//! What happened, in words.

use super::bars;
use super::html::{counted, escape, score};
use super::table::{mean_chance, means};
use super::{ReportInput, TaskRow};

/// The result in a few sentences, with a bar for the mean of each model.
pub(super) fn section(input: &ReportInput) -> String {
    let Some(last) = input.columns.len().checked_sub(1).filter(|_| !input.table.is_empty()) else {
        return "<section class=\"story\">\n<p>Nothing was scored in this run.</p>\n</section>\n".to_string();
    };
    let rows: Vec<&TaskRow> = input.table.iter().collect();
    let means = means(&rows, input.columns.len());
    let chance = mean_chance(&rows);
    let rivals: String = (0..last).map(|rival| versus(input, rival, last, &means)).collect();
    let hits = input.hits.as_ref().map_or(String::new(), |hits| format!("<li>{}.</li>\n", escape(hits)));
    format!(
        "<section class=\"story\">\n<p class=\"verdict\">{}</p>\n{}<ul>\n{hits}{rivals}{}</ul>\n</section>\n",
        verdict(input, means[last], chance),
        bars::render(&input.columns, &means, chance),
        failures(input, last)
    )
}

fn verdict(input: &ReportInput, mean: f64, chance: Option<f64>) -> String {
    let name = escape(input.columns.last().expect("there is a column"));
    let tasks = counted(input.table.len(), "task", "tasks");
    let metric = &input.table[0].metric;
    let same = input.table.iter().all(|row| row.metric == *metric);
    let what = if same { format!("mean {}", escape(metric)) } else { "mean score".to_string() };
    if !mean.is_finite() {
        return format!("<b>{name}</b> was not scored on all of the {tasks}.");
    }
    let against = chance.map(|chance| match mean / chance {
        ratio if chance == 0.0 || !ratio.is_finite() => String::new(),
        ratio if ratio >= 1.0 => {
            format!(", <b>{ratio:.1} times</b> what a random order gets ({})", score(chance))
        }
        _ => format!(", <b class=\"bad\">below</b> what a random order gets ({})", score(chance)),
    });
    format!(
        "<b>{name}</b> reaches a {what} of <b>{}</b> over {tasks}{}.",
        score(mean),
        against.unwrap_or_default()
    )
}

/// The last model against another one, task by task.
fn versus(input: &ReportInput, rival: usize, last: usize, means: &[f64]) -> String {
    let difference = |row: &TaskRow| row.values[last] - row.values[rival];
    // What the table shows as equal is called equal.
    let worse: Vec<&str> =
        input.table.iter().filter(|row| difference(row) <= -0.0005).map(|row| row.task.as_str()).collect();
    let better = input.table.iter().filter(|row| difference(row) >= 0.0005).count();
    let absent = input.table.iter().filter(|row| difference(row).is_nan()).count();
    let equal = input.table.len() - better - worse.len() - absent;
    let gap = means[last] - means[rival];
    let gap = if gap.is_finite() { format!(" ({gap:+.3} on the mean)") } else { String::new() };
    let worse =
        if worse.is_empty() { "none".to_string() } else { format!("{} ({})", worse.len(), listed(&worse)) };
    let absent = if absent > 0 { format!(", not compared on {absent}") } else { String::new() };
    let equal = if equal > 0 { format!(", equal on {equal}") } else { String::new() };
    format!(
        "<li>Against <b>{}</b>{gap}: better on {better}, worse on {worse}{equal}{absent}.</li>\n",
        escape(&input.columns[rival])
    )
}

/// Tasks on which the last model is no better than chance, and what the examples hold.
fn failures(input: &ReportInput, last: usize) -> String {
    let lost: Vec<&str> = input
        .table
        .iter()
        .filter(|row| row.chance.is_some_and(|chance| row.values[last] <= chance))
        .map(|row| row.task.as_str())
        .collect();
    let mut items = String::new();
    if !lost.is_empty() {
        items += &format!("<li class=\"bad\">No better than chance: {}.</li>\n", listed(&lost));
    }
    if !input.examples.is_empty() {
        let right = input.examples.iter().filter(|example| example.correct).count();
        let wrong = input.examples.len() - right;
        items += &format!(
            "<li>Below are {} answered right and {wrong} answered wrong.</li>\n",
            counted(right, "query", "queries")
        );
    }
    items
}

/// At most eight names.
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|name| escape(name)).collect();
    let more = names.len() - shown.len();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
