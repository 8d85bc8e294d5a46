//! Scores in the files of VLM2Vec, for its report script and the MMEB leaderboard.

use rzen_eval::{Metric, TaskScore};
use serde_json::{Map, Value, json};

/// Their names of metrics, beside ours.
const NAMES: [(&str, &str); 8] = [
    ("hit", "hit_rate"),
    ("ndcg_linear", "ndcg"),
    ("ndcg_exponential", "ndcg_exponential"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "f1"),
    ("map", "map"),
    ("mrr", "mrr"),
];
/// Their cut-offs.
const AT: [usize; 3] = [1, 5, 10];

/// Their 24 metrics, by their names.
fn named() -> impl Iterator<Item = (String, Metric)> {
    NAMES.into_iter().flat_map(|(theirs, ours)| {
        AT.into_iter().map(move |k| {
            let metric = format!("{ours}@{k}").parse().expect("written names are metrics");
            (format!("{theirs}@{k}"), metric)
        })
    })
}

/// The metrics that [`score_file`] needs.
pub fn metrics() -> Vec<Metric> {
    named().map(|(_, metric)| metric).collect()
}

/// The content of `TASK_score.json`: 24 metrics and two counts.
///
/// # Panics
/// If one of [`metrics`] was not computed.
pub fn score_file(score: &TaskScore) -> Value {
    let value = |metric| score.value(metric).expect("computed with the others");
    let mut file: Map<String, Value> = named().map(|(name, metric)| (name, json!(value(metric)))).collect();
    for name in ["num_pred", "num_data"] {
        file.insert(name.into(), json!(score.per_query.len()));
    }
    Value::Object(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twenty_four_metrics_under_their_names() {
        let names: Vec<String> = named().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 24);
        assert!(names.contains(&"hit@1".into()) && names.contains(&"ndcg_linear@5".into()));
    }
}
