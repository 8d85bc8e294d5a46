//! Scores in the files of VLM2Vec, for its report script and the MMEB leaderboard.

use std::sync::LazyLock;

use rzen_data::{Modality, PublishedTask};
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

/// The metrics that [`score_file`] needs, and those of every evaluation.
pub fn metrics() -> &'static [Metric] {
    static ALL: LazyLock<Vec<Metric>> = LazyLock::new(|| {
        let mut all = Metric::STANDARD.to_vec();
        all.extend(named().map(|(_, metric)| metric).filter(|metric| !Metric::STANDARD.contains(metric)));
        all
    });
    &ALL
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

/// What the leaderboard wants to know of a model.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Its name.
    pub model_name: String,
    /// Billions of parameters.
    pub model_size: f64,
    /// Numbers in a vector.
    pub embedding_dimension: usize,
    /// Most tokens of an item.
    pub max_length_tokens: usize,
    /// Anything else, or these in other words; of a key that stands twice the last.
    pub about: Vec<(String, String)>,
}

/// The file for the leaderboard: what is known of the model, and the scores of all data sets by modality.
pub fn submission<'a>(
    scores: impl Iterator<Item = (&'a PublishedTask, &'a TaskScore)>,
    metadata: &Metadata,
) -> Value {
    let mut metrics = Map::new();
    for (task, score) in scores {
        let of_modality = metrics.entry(task.modality.to_string()).or_insert_with(|| json!({}));
        of_modality[submitted_name(&task.name)] = score_file(score);
    }
    let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
    let mut known = json!({
        "model_name": metadata.model_name,
        "model_backbone": "qwen2_vl",
        "model_size": metadata.model_size,
        "embedding_dimension": metadata.embedding_dimension,
        "max_length_tokens": metadata.max_length_tokens,
        "model_release_date": null,
        "data_source": "Self-Reported",
        "url": null,
        "report_generated_date": now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
    });
    for (key, value) in &metadata.about {
        known[key] = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    }
    json!({ "metadata": known, "metrics": metrics })
}

/// Two data sets were corrected after their names were given; the leaderboard tells them apart.
fn submitted_name(name: &str) -> String {
    match name {
        "ViDoSeek-page" | "MMLongBench-page" => format!("{name}-fixed"),
        name => name.to_owned(),
    }
}

/// The published means over images, videos, visual documents and all data sets of MMEB-V2, in percent
/// (arXiv 2510.27350, table 1).
const PUBLISHED: [(&str, [f64; 4]); 5] = [
    ("RzenEmbed 2B", [72.3, 47.3, 74.5, 67.2]),
    ("RzenEmbed 7B", [75.9, 55.7, 77.1, 71.6]),
    ("Seed-1.6-embedding", [77.8, 55.3, 73.4, 71.3]),
    ("Ops-MM-embedding-v1 7B", [72.7, 53.8, 70.3, 67.6]),
    ("VLM2Vec-V2 2B", [64.9, 34.9, 65.4, 58.0]),
];

/// A table of these means, the first row its head, the second that of this evaluation; `mean` gives the mean of a modality, or of all,
/// where all its data sets were evaluated.
pub fn beside_published(name: &str, mean: impl Fn(Option<Modality>) -> Option<f64>) -> Vec<Vec<String>> {
    let parts = [Some(Modality::Image), Some(Modality::Video), Some(Modality::VisualDocument), None];
    let ours: Vec<Option<f64>> = parts.into_iter().map(mean).collect();
    if ours.iter().all(Option::is_none) {
        return Vec::new();
    }
    let percent =
        |value: &Option<f64>| value.map_or("–".to_owned(), |value| format!("{:.1}", 100.0 * value));
    let head = ["model", "image (36)", "video (18)", "visual documents (24)", "all (78)"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.push(std::iter::once(name.to_owned()).chain(ours.iter().map(percent)).collect());
    rows.extend(PUBLISHED.into_iter().map(|(name, means)| {
        std::iter::once(name.to_owned()).chain(means.map(|mean| format!("{mean:.1}"))).collect()
    }));
    rows
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rzen_core::{Embed, EmbedError, Item, Task};
    use rzen_data::{Protocol, Published, Suite};
    use rzen_eval::{EmbeddingCache, RankQuery, RankTask, RunOptions, Scoring, run_task};

    use super::*;

    /// Gives everything the same vector.
    struct Blind;

    impl Embed for Blind {
        fn dim(&self) -> usize {
            2
        }

        fn embed(&self, items: &[Item]) -> Result<Vec<Vec<f32>>, EmbedError> {
            Ok(vec![vec![1.0, 0.0]; items.len()])
        }
    }

    #[test]
    fn a_submission_has_all_sets_by_modality_under_the_names_of_the_leaderboard() {
        let published = Published::open(Suite::MmebV2, Path::new("/"), Protocol::Rzen, None).unwrap();
        let task = RankTask {
            name: "two".into(),
            kind: Task("image_retrieval".into()),
            metric: Metric::HIT_AT_1,
            queries: vec![RankQuery {
                id: "q".into(),
                item: Item::text("q"),
                candidates: None,
                excluded: None,
                relevant: vec![(0, 1.0)],
            }],
            pool: ["a", "b"].map(|id| (id.to_owned(), Item::text(id))).to_vec(),
        };
        let options = RunOptions {
            scoring: Scoring { metrics: metrics(), ..Scoring::default() },
            ..RunOptions::default()
        };
        let score = run_task(&Blind, &mut EmbeddingCache::new(), &task, options, &mut |_, _| {}).unwrap();
        let metadata = Metadata {
            model_name: "world/soup".into(),
            model_size: 2.21,
            embedding_dimension: 1536,
            max_length_tokens: 2000,
            about: [("model_name", "Tiny"), ("url", "https://example.org"), ("year", "2026")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .to_vec(),
        };
        let found = submission(published.tasks().iter().map(|task| (task, &score)), &metadata);
        let known = &found["metadata"];
        assert_eq!(known["model_name"], "Tiny");
        assert_eq!((&known["url"], &known["year"]), (&json!("https://example.org"), &json!(2026)));
        assert_eq!((&known["model_size"], &known["embedding_dimension"]), (&json!(2.21), &json!(1536)));
        for (modality, count) in [("image", 36), ("video", 18), ("visdoc", 24)] {
            let sets = found["metrics"][modality].as_object().unwrap();
            assert_eq!(sets.len(), count);
            assert!(sets.values().all(|set| set.as_object().unwrap().len() == 26));
        }
        let pages = &found["metrics"]["visdoc"];
        assert!(pages["ViDoSeek-page-fixed"].is_object() && pages["MMLongBench-page-fixed"].is_object());
        assert!(pages.get("ViDoSeek-page").is_none());
        let set = &found["metrics"]["image"]["ImageNet-1K"];
        assert_eq!((&set["hit@1"], &set["hit@5"], &set["num_data"]), (&json!(0.0), &json!(1.0), &json!(1)));
    }

    #[test]
    fn there_are_twenty_four_metrics_under_their_names() {
        let names: Vec<String> = named().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 24);
        assert!(names.contains(&"hit@1".into()) && names.contains(&"ndcg_linear@5".into()));
    }
}
