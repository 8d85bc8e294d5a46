//! The table of scores.

use super::html::{counted, escape, score, words};
use super::{ReportInput, TaskRow};

/// Scores by task and model, with means for each kind and over all.
pub(super) fn section(input: &ReportInput) -> String {
    if input.table.is_empty() || input.columns.is_empty() {
        return String::new();
    }
    let columns: String =
        input.columns.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).collect();
    let mut body = String::new();
    for kind in kinds(&input.table) {
        let rows: Vec<&TaskRow> = input.table.iter().filter(|row| row.kind == kind).collect();
        body.push_str(&kind_block(kind, &rows));
    }
    let all: Vec<&TaskRow> = input.table.iter().collect();
    let name = format!("Mean of {}", counted(all.len(), "task", "tasks"));
    format!(
        "<section>\n<h2>Scores by task</h2>\n<p class=\"lead\">Bold is the best of a row. The colour says how far a \
         score is on the way from chance to perfect; scores no better than chance are red.</p>\n\
         <div class=\"scroll\">\n<table>\n<thead>\n<tr><th scope=\"col\">Task</th><th scope=\"col\">Metric</th>\
         <th scope=\"col\">Chance</th>{columns}</tr>\n</thead>\n{body}<tbody class=\"mean\">\n{}</tbody>\n\
         </table>\n</div>\n</section>\n",
        line(&name, "", mean_chance(&all), &means(&all, input.columns.len()))
    )
}

/// The kinds in the order of first appearance.
fn kinds(table: &[TaskRow]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for row in table {
        if !kinds.contains(&row.kind.as_str()) {
            kinds.push(&row.kind);
        }
    }
    kinds
}

/// The rows of a kind under its name, which carries their mean if there are several.
fn kind_block(kind: &str, rows: &[&TaskRow]) -> String {
    let width = rows[0].values.len();
    let mut block = String::from("<tbody>\n");
    if rows.len() > 1 {
        let head = line(&escape(&words(kind)), "mean", mean_chance(rows), &means(rows, width));
        block.push_str(&head.replacen("<tr>", "<tr class=\"kind\">", 1));
    } else {
        block.push_str(&format!(
            "<tr class=\"kind\"><th scope=\"rowgroup\">{}</th><td colspan=\"{}\"></td></tr>\n",
            escape(&words(kind)),
            width + 2
        ));
    }
    for row in rows {
        block.push_str(&line(&escape(&row.task), &escape(&row.metric), row.chance, &row.values));
    }
    block + "</tbody>\n"
}

/// A row; `name` and `metric` are HTML.
fn line(name: &str, metric: &str, chance: Option<f64>, values: &[f64]) -> String {
    let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let cells: String = values.iter().map(|value| cell(*value, chance, best)).collect();
    let chance = chance.map_or("–".to_string(), score);
    format!(
        "<tr><th scope=\"row\">{name}</th><td class=\"metric\">{metric}</td><td class=\"chance\">{chance}</td>{cells}</tr>\n"
    )
}

fn cell(value: f64, chance: Option<f64>, best: f64) -> String {
    if !value.is_finite() {
        return "<td>–</td>".to_string();
    }
    // What is shown decides what counts as equal.
    let text = if score(value) == score(best) { format!("<b>{}</b>", score(value)) } else { score(value) };
    if chance.is_some_and(|chance| value <= chance) {
        return format!("<td class=\"bad\">{text}</td>");
    }
    let floor = chance.unwrap_or(0.0);
    let heat = ((value - floor) / (1.0 - floor).max(1e-9)).clamp(0.0, 1.0) * 100.0;
    format!("<td class=\"heat\" style=\"--heat:{heat:.0}%\">{text}</td>")
}

/// The mean of each column; NaN where a score is absent.
pub(super) fn means(rows: &[&TaskRow], columns: usize) -> Vec<f64> {
    let mean = |column: usize| rows.iter().map(|row| row.values[column]).sum::<f64>() / rows.len() as f64;
    (0..columns).map(mean).collect()
}

/// The mean over all rows, if chance is known for all.
pub(super) fn mean_chance(rows: &[&TaskRow]) -> Option<f64> {
    let known: Option<Vec<f64>> = rows.iter().map(|row| row.chance).collect();
    known.filter(|known| !known.is_empty()).map(|known| known.iter().sum::<f64>() / known.len() as f64)
}
