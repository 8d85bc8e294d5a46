//! The rows of the manifests, key for key.

use rzen_core::Part;
use serde::Serialize;
use serde_json::{Map, Value};

/// A line of `<dataset>/train.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TrainRow {
    pub dataset: &'static str,
    pub task: &'static str,
    pub name: &'static str,
    /// Missing in stage 1.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub instruction: &'static str,
    pub query: Vec<Part>,
    pub positive: Vec<Part>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub negatives: Vec<Vec<Part>>,
}

impl TrainRow {
    /// Its instruction and the words of its parts, in order.
    pub fn into_texts(self) -> impl Iterator<Item = String> {
        let parts = self.query.into_iter().chain(self.positive).chain(self.negatives.into_iter().flatten());
        let words = parts.filter_map(|part| if let Part::Text(words) = part { Some(words) } else { None });
        (!self.instruction.is_empty()).then(|| self.instruction.to_owned()).into_iter().chain(words)
    }
}

/// A line of `<dataset>/eval_<task>.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct QueryRow {
    pub id: String,
    pub query: Vec<Part>,
    pub instruction: &'static str,
    pub pool: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<String>>,
    /// Grades by id, best first in the order of the pool.
    pub relevant: Map<String, Value>,
}

/// A line of `<dataset>/pool_<pool>.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct CandidateRow {
    pub id: String,
    pub content: Vec<Part>,
}

/// A line of `tasks.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TaskRow {
    pub dataset: &'static str,
    pub name: &'static str,
    pub task: &'static str,
    pub metric: &'static str,
    pub instruction: &'static str,
    pub about: &'static str,
    pub queries: String,
    pub pool: String,
    pub query_count: usize,
    pub pool_size: usize,
    pub candidates_per_query: f64,
    pub chance_hit_at_1: f64,
}

/// A line of `media.jsonl`: what a file shows, for people and for checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct MediaRow {
    pub file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    pub split: &'static str,
    pub shows: String,
}
