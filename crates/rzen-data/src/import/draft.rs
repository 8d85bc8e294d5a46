//! Rows on their way into a manifest.

use rzen_core::Part;

use super::{ImportOptions, ImportReport};
use crate::forms_of_query;
use crate::train_line::Line;

/// A training row as a kind reads it.
#[derive(Default)]
pub(super) struct Draft {
    /// Where the row has one of its own.
    pub name: Option<String>,
    /// Where the row has one of its own.
    pub task: Option<String>,
    pub instruction: Option<String>,
    pub query: Vec<Part>,
    pub positives: Vec<Vec<Part>>,
    pub negatives: Vec<Vec<Part>>,
    pub label: Option<String>,
    pub group: Option<String>,
    /// A teacher's scores, one for each positive and negative.
    pub positive_scores: Vec<f64>,
    pub negative_scores: Vec<f64>,
}

impl Draft {
    /// A row of one positive.
    pub fn pair(query: Vec<Part>, positive: Vec<Part>) -> Self {
        Draft { query, positives: vec![positive], ..Draft::default() }
    }

    /// The line of the manifest. Negatives that are answers, or the query where that is asked for, are left out.
    pub fn into_line(mut self, options: &ImportOptions, report: &mut ImportReport) -> Result<String, String> {
        if self.query.is_empty() {
            return Err("the query is empty".to_owned());
        }
        if self.positives.is_empty() || self.positives.iter().any(Vec::is_empty) {
            return Err("the positive is empty".to_owned());
        }
        if self.negatives.iter().any(Vec::is_empty) {
            return Err("a negative is empty".to_owned());
        }
        self.drop_negatives(report, "negatives left out that equal a positive", |draft, negative| {
            draft.positives.contains(negative)
        });
        if options.drop_query {
            self.drop_negatives(report, "negatives left out that equal the query", |draft, negative| {
                forms_of_query(&draft.query).any(|form| form == *negative)
            });
        }
        self.check_scores()?;
        let instruction = self.instruction.as_deref().filter(|text| !text.is_empty());
        let positives = self.positives.iter().map(Vec::as_slice).collect();
        let task = self.task.as_deref().unwrap_or(&options.task);
        let line = Line {
            name: self.name.as_deref().or(options.name.as_deref()),
            instruction,
            negatives: self.negatives.iter().map(Vec::as_slice).collect(),
            label: self.label.as_deref(),
            group: self.group.as_deref(),
            positive_scores: &self.positive_scores,
            negative_scores: &self.negative_scores,
            ..Line::new(&options.dataset, task, &self.query, positives)
        };
        line.to_json()
    }

    fn drop_negatives(
        &mut self,
        report: &mut ImportReport,
        note: &str,
        drops: impl Fn(&Draft, &Vec<Part>) -> bool,
    ) {
        let keep: Vec<bool> = self.negatives.iter().map(|negative| !drops(&*self, negative)).collect();
        report.note_many(note, keep.iter().filter(|keep| !**keep).count());
        let mut kept = keep.iter();
        self.negatives.retain(|_| kept.next().is_some_and(|keep| *keep));
        let mut kept = keep.iter();
        self.negative_scores.retain(|_| kept.next().is_none_or(|keep| *keep));
    }

    fn check_scores(&self) -> Result<(), String> {
        let [positives, negatives] = [self.positive_scores.len(), self.negative_scores.len()];
        let fits = positives == self.positives.len() && negatives == self.negatives.len();
        match positives + negatives == 0 || fits {
            true => Ok(()),
            false => Err(format!(
                "has scores of {positives} positives and {negatives} negatives, expected one for each of {} and {}",
                self.positives.len(),
                self.negatives.len()
            )),
        }
    }
}

/// A part of words, where there are any.
pub(super) fn words(text: &str) -> Option<Part> {
    let text = text.trim();
    (!text.is_empty()).then(|| Part::Text(text.to_owned()))
}
