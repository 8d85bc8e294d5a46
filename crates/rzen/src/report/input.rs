//! What a report is made from.

use serde::{Deserialize, Serialize};

/// Everything that a report shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportInput {
    /// The headline.
    pub title: String,
    /// How the run came about, as name and value: recipe, seed, machine, duration, command.
    pub summary: Vec<(String, String)>,
    /// Training runs with their curves, in order.
    pub runs: Vec<RunCurves>,
    /// The models compared, in order of training; the last one is what the run was for.
    pub columns: Vec<String>,
    /// Scores by task.
    pub table: Vec<TaskRow>,
    /// What the last model's mean hit_rate@1 is worth, in a sentence.
    pub hits: Option<String>,
    /// Queries with what was found.
    pub examples: Vec<Example>,
    /// Sentences that a reader should bear in mind.
    pub notes: Vec<String>,
}

/// The scores of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    /// Its name.
    pub task: String,
    /// The kind of work; rows of a kind stand together.
    pub kind: String,
    /// The name of the metric.
    pub metric: String,
    /// A score from 0 to 1 for each of [`ReportInput::columns`]; NaN where there is none.
    pub values: Vec<f64>,
    /// What a random order scores.
    pub chance: Option<f64>,
}

/// The curves of one training run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunCurves {
    /// Its name.
    pub name: String,
    /// Steps that were recorded, in order.
    pub steps: Vec<StepRecord>,
}

/// What is known about one step; numbers may be absent or not finite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepRecord {
    /// Steps finished, counted from 1.
    pub step: u64,
    /// The objective's value.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: Option<f64>,
    /// The temperature of each task.
    pub temperatures: Vec<(String, f64)>,
    /// The share of a batch's queries whose positive is ahead of all negatives.
    pub accuracy: Option<f64>,
    /// The norm of the gradient before clipping.
    pub grad_norm: Option<f64>,
    /// Seconds since the record before.
    pub seconds: Option<f64>,
    /// Queries since the record before.
    pub samples: Option<f64>,
    /// Tokens since the record before.
    pub tokens: Option<f64>,
    /// Seconds that steps waited for their batches.
    pub stall_seconds: Option<f64>,
    /// The most main memory so far, in bytes.
    pub peak_memory_bytes: Option<f64>,
}

/// A query and what was found for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The task that the query is from.
    pub task: String,
    /// The kind of work; examples of a kind stand together.
    pub kind: String,
    /// What is asked of the query.
    pub instruction: Option<String>,
    /// The content of the query.
    pub query: Vec<ReportPart>,
    /// The first candidates, best first.
    pub found: Vec<Found>,
    /// True if the first candidate is relevant.
    pub correct: bool,
    /// The first relevant candidate, where it is not among those found.
    pub answer: Option<Found>,
    /// The rank of the first relevant candidate, counted from 1.
    pub rank: usize,
}

/// A candidate that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Its content.
    pub parts: Vec<ReportPart>,
    /// Its score.
    pub score: f32,
    /// True if it answers the query.
    pub relevant: bool,
}

/// Something to show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportPart {
    /// Words.
    Text(String),
    /// A picture, best made small before.
    Image {
        /// The file as it would lie on disk.
        #[serde(with = "as_base64")]
        bytes: Vec<u8>,
        /// `image/png`, `image/jpeg` or another type that browsers show.
        media_type: String,
    },
    /// The frames of a clip in order.
    Frames(Vec<ReportPart>),
}

/// Bytes as a string of JSON.
mod as_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
