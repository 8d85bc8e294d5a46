//! Training rows as lines of a manifest.

use rzen_core::{Item, Part, Sample};
use serde::Serialize;

/// A line of `train.jsonl`; what is empty is not written.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    pub dataset: &'a str,
    pub task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<&'a str>,
    pub query: &'a [Part],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<&'a [Part]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub positives: Vec<&'a [Part]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub negatives: Vec<&'a [Part]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub positive_scores: &'a [f64],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub negative_scores: &'a [f64],
}

impl<'a> Line<'a> {
    /// A row of a query and what answers it, which is one content at least.
    pub fn new(dataset: &'a str, task: &'a str, query: &'a [Part], positives: Vec<&'a [Part]>) -> Self {
        let (positive, positives) = match positives[..] {
            [positive] => (Some(positive), Vec::new()),
            _ => (None, positives),
        };
        Line {
            dataset,
            task,
            name: None,
            instruction: None,
            query,
            positive,
            positives,
            negatives: Vec::new(),
            label: None,
            group: None,
            positive_scores: &[],
            negative_scores: &[],
        }
    }

    /// A row as it was read.
    pub fn of(sample: &'a Sample) -> Self {
        let content = |item: &'a Item| item.content.as_slice();
        let line = Line::new(
            &sample.dataset,
            &sample.task.0,
            &sample.query.content,
            sample.positives().map(content).collect(),
        );
        Line {
            name: Some(sample.name.as_str()).filter(|name| *name != sample.dataset),
            instruction: sample.query.instruction.as_deref(),
            negatives: sample.hard_negatives.iter().map(content).collect(),
            label: sample.label.as_deref(),
            group: sample.group.as_deref(),
            positive_scores: sample.teacher.as_ref().map_or(&[], |teacher| &teacher.positives),
            negative_scores: sample.teacher.as_ref().map_or(&[], |teacher| &teacher.negatives),
            ..line
        }
    }

    /// The line, without its end.
    ///
    /// # Errors
    /// If a path is no UTF-8.
    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }
}

/// The row as a line that [`train_rows`](crate::train_rows) reads, without the line break. False negatives, which are none
/// of a manifest's keys, are left out.
///
/// # Errors
/// If a path is not UTF-8.
pub fn train_line(sample: &Sample) -> serde_json::Result<String> {
    serde_json::to_string(&Line::of(sample))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rzen_core::{Origin, Task, TeacherScores};

    use super::*;
    use crate::train_rows;

    #[test]
    fn lines_are_read_as_the_rows_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.jsonl");
        let origin = |line| Origin { file: path.as_path().into(), line };
        let query = Item { instruction: Some("Find it: ".into()), ..Item::text("a \"cat\"\n") };
        let plain = Sample::new("d", Task("t".into()), Item::text("q"), Item::image("/a/b.png"), origin(1));
        let full = Sample {
            name: "n".into(),
            other_positives: vec![Item::text("o")],
            hard_negatives: vec![Item::image("/a/c.png"), Item::text("x")],
            label: Some("l".into()),
            group: Some("g".into()),
            teacher: Some(TeacherScores { positives: vec![0.9, 0.1], negatives: vec![0.25, 1e-7] }),
            ..Sample::new("d", Task("t".into()), query, Item::text("p"), origin(2))
        };
        let rows = [plain, full];
        let lines: String = rows.iter().map(|row| train_line(row).unwrap() + "\n").collect();
        std::fs::write(&path, lines).unwrap();
        assert_eq!(train_rows(&path, Path::new("")).unwrap(), rows);
    }
}
