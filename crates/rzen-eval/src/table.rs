//! The results as plain text.

use crate::{Metric, Results};

/// A line of the table, or a rule between blocks.
enum Line {
    Cells(Vec<String>),
    Rule,
}

impl Results {
    /// An aligned table: a line for each task, then the means for each kind and over all.
    ///
    /// `score` is the metric that the task is known by, `chance` what a random order scores on it.
    pub fn table(&self) -> String {
        let mut lines = vec![Line::Cells(HEAD.map(String::from).to_vec()), Line::Rule];
        for task in self.tasks() {
            lines.push(Line::Cells(vec![
                task.task.clone(),
                task.kind.to_string(),
                task.metric.to_string(),
                number(task.headline()),
                number(task.chance),
                task.value(Metric::HIT_AT_1).map_or(String::new(), number),
                task.queries.to_string(),
                count(task.candidates),
                task.ties.to_string(),
            ]));
        }
        lines.push(Line::Rule);
        for kind in self.kind_means() {
            let of = self.tasks().iter().filter(|task| task.kind == kind.kind);
            let chance = of.map(|task| task.chance).sum::<f64>() / kind.tasks as f64;
            lines.push(mean_line(kind.kind.to_string(), kind.tasks, kind.mean, chance, String::new()));
        }
        if let Some(mean) = self.mean() {
            let count = self.tasks().len();
            let chance = self.tasks().iter().map(|task| task.chance).sum::<f64>() / count as f64;
            let hit = self.mean_of(Metric::HIT_AT_1).map_or(String::new(), number);
            lines.push(mean_line("all".into(), count, mean, chance, hit));
        }
        render(&lines)
    }
}

const HEAD: [&str; 9] =
    ["task", "kind", "metric", "score", "chance", "hit@1", "queries", "candidates", "ties"];

/// The first columns are words, the others numbers.
const WORDS: usize = 3;

fn mean_line(kind: String, tasks: usize, mean: f64, chance: f64, hit: String) -> Line {
    let name = format!("mean of {tasks} task{}", if tasks == 1 { "" } else { "s" });
    let [none, more] = [String::new(), String::new()];
    Line::Cells(vec![name, kind, none, number(mean), number(chance), hit, more, String::new(), String::new()])
}

fn number(value: f64) -> String {
    format!("{value:.3}")
}

/// A mean of counts: whole where it is whole.
fn count(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.1}") }
}

fn render(lines: &[Line]) -> String {
    let mut widths = [0; HEAD.len()];
    for line in lines {
        if let Line::Cells(cells) = line {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    let total = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    let mut out = String::new();
    for line in lines {
        let text = match line {
            Line::Rule => "─".repeat(total),
            Line::Cells(cells) => cells
                .iter()
                .zip(widths)
                .enumerate()
                .map(
                    |(at, (cell, width))| {
                        if at < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                    },
                )
                .collect::<Vec<_>>()
                .join("  "),
        };
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}
