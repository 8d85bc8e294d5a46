//! Means, smaller vectors and comparisons as plain text.

use rzen_eval::{Compression, PairedDifference};

use super::compare::REAL;
use super::{Comparison, Evaluation};
use crate::text_table::aligned;

/// The mean of each group and over all with its 95 % interval.
pub fn group_table(evaluation: &Evaluation) -> String {
    let mut rows = vec![["mean of", "tasks", "score", "95 % interval"].map(String::from).to_vec()];
    let groups = evaluation.groups.iter().map(|group| (group.name.as_str(), group.tasks, group.estimate));
    for (name, tasks, estimate) in groups.chain([("all", evaluation.tasks.len(), evaluation.overall)]) {
        let interval = format!("{:.3} to {:.3}", estimate.low, estimate.high);
        rows.push(vec![name.to_owned(), tasks.to_string(), format!("{:.3}", estimate.mean), interval]);
    }
    aligned(&rows, 1)
}

/// What smaller vectors cost; `None` where none were asked for.
pub fn compressed_table(evaluation: &Evaluation) -> Option<String> {
    let forms = evaluation.compressed();
    let full = evaluation.overall.mean;
    if forms.is_empty() {
        return None;
    }
    let mut rows = vec![["vectors", "bytes", "score", "of full"].map(String::from).to_vec()];
    let whole = (Compression::NONE, full);
    for (form, mean) in [whole].into_iter().chain(forms) {
        let bytes = form.bytes(evaluation.dim).to_string();
        rows.push(vec![
            form.to_string(),
            bytes,
            format!("{mean:.3}"),
            // Nothing is no share of nothing.
            if full > 0.0 { format!("{:.1} %", 100.0 * mean / full) } else { "–".to_owned() },
        ]);
    }
    Some(aligned(&rows, 1))
}

impl Comparison {
    /// A line for each task, each group and all.
    pub fn table(&self) -> String {
        let head = ["", "metric", "first", "second", "difference", "95 % interval", "p", ""];
        let mut rows = vec![head.map(String::from).to_vec()];
        for task in &self.tasks {
            let [difference, interval] = shown(&task.difference);
            rows.push(vec![
                task.task.clone(),
                task.metric.clone(),
                format!("{:.3}", task.first),
                format!("{:.3}", task.second),
                difference,
                interval,
                format!("{:.4}", task.corrected_p),
                verdict(task.corrected_p, task.difference.mean_difference).to_owned(),
            ]);
        }
        let groups = self
            .groups
            .iter()
            .map(|group| (group.name.clone(), group.tasks, group.difference, group.corrected_p));
        let all = ("all".to_owned(), self.tasks.len(), self.overall, self.overall.p);
        for (name, tasks, found, p) in groups.chain([all]) {
            let [difference, interval] = shown(&found);
            let name = format!("mean of {name} ({tasks})");
            let verdict = verdict(p, found.mean_difference).to_owned();
            let none = String::new;
            rows.push(vec![name, none(), none(), none(), difference, interval, format!("{p:.4}"), verdict]);
        }
        aligned(&rows, 2)
    }
}

fn shown(difference: &PairedDifference) -> [String; 2] {
    [
        format!("{:+.3}", difference.mean_difference),
        format!("{:+.3} to {:+.3}", difference.low, difference.high),
    ]
}

fn verdict(p: f64, difference: f64) -> &'static str {
    match p < REAL {
        true if difference > 0.0 => "second is better",
        true => "first is better",
        false => "",
    }
}
