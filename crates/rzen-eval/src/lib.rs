//! Retrieval metrics and benchmark runs over any embedder.
//!
//! ```text
//! RankTask ─┐
//!           ├─ run_task ─► TaskScore ─► Results ─► table, results.json
//! dyn Embed ┘                 └─ per query: TopK and the task's own metric ─► paired_bootstrap
//! ```
//!
//! - [`Metric`] is a number about one [`Ranking`]; graded relevance throughout, grade 0 = not relevant.
//! - Ties count against the model: of two candidates with the same score the less relevant one is
//!   ranked first, and [`TaskScore::ties`] says how often that decided a place. A model that gives
//!   everything the same vector therefore scores worst, not best.
//! - [`search`] finds the best candidates of a large pool, exactly.
//! - Scores don't depend on the order of candidates, the size of batches or the number of threads.
//! - Wrong data is an error that names task and query, never a silent 0.
#![warn(missing_docs)]

mod best;
mod bootstrap;
mod cache;
mod chance;
mod compression;
mod error;
mod metric;
mod rank;
mod ranking;
mod results;
mod run;
mod search;
mod similarity;
mod table;
mod task;

pub use bootstrap::{PairedDifference, bootstrap_of_tasks, paired_bootstrap};
pub use cache::{EmbeddingCache, item_size};
pub use compression::{Compression, Quantization, UnknownCompression};
pub use error::{EmbedProblem, EvalError, QueryProblem};
pub use metric::{Metric, UnknownMetric};
pub use rank::ReadRows;
pub use ranking::{Placed, Ranking, Ties};
pub use results::{KindMean, Results, TaskSummary};
pub use run::{QueryScore, RunOptions, Scoring, TaskScore, TopK, run_task, score_task};
pub use search::{Rows, search};
pub use task::{RankQuery, RankTask};
