//! Training rows as lines of a manifest.

use rzen_core::{Item, Part, Sample};
use serde::Serialize;

/// A line of `train.jsonl`.
#[derive(Serialize)]
pub(crate) struct TrainLine<'a> {
    pub dataset: &'a str,
    pub task: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<&'a str>,
    pub query: &'a [Part],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<&'a [Part]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positives: Option<Vec<&'a [Part]>>,
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

impl<'a> TrainLine<'a> {
    /// The two keys for answers, of which one stands in a row.
    pub fn answers(positives: Vec<&'a [Part]>) -> (Option<&'a [Part]>, Option<Vec<&'a [Part]>>) {
        match positives[..] {
            [positive] => (Some(positive), None),
            _ => (None, Some(positives)),
        }
    }
}

/// The row as a line that [`train_rows`](crate::train_rows) reads, without the line break. False negatives, which are none
/// of a manifest's keys, are left out.
///
/// # Errors
/// If a path is not UTF-8.
pub fn train_line(sample: &Sample) -> serde_json::Result<String> {
    fn contents<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<&'a [Part]> {
        items.map(|item| item.content.as_slice()).collect()
    }
    let (positive, positives) = TrainLine::answers(contents(sample.positives()));
    let teacher = sample.teacher.as_ref();
    serde_json::to_string(&TrainLine {
        dataset: &sample.dataset,
        task: &sample.task.0,
        name: Some(sample.name.as_str()).filter(|name| *name != sample.dataset),
        instruction: sample.query.instruction.as_deref(),
        query: &sample.query.content,
        positive,
        positives,
        negatives: contents(sample.hard_negatives.iter()),
        label: sample.label.as_deref(),
        group: sample.group.as_deref(),
        positive_scores: teacher.map_or(&[], |teacher| &teacher.positives),
        negative_scores: teacher.map_or(&[], |teacher| &teacher.negatives),
    })
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
