//! `rzen eval`: tasks ranked with stored vectors, and everything that is written about it.
//!
//! ```text
//! TaskSource ─► RankTask ─embed_missing─► VectorStore ─score_task─► TaskOutcome ─► Evaluation ─► results.json, report.html …
//!                                                                                        └─ compare ─► which differences are real
//! ```

mod compare;
mod confusion;
mod outcome;
mod output;
mod run;
mod scored;
mod tables;
mod tasks;
pub mod vlm2vec;

pub use compare::{Comparison, compare};
pub use confusion::Confusion;
pub use outcome::{CompressedScore, Estimate, Evaluation, GroupScore, TaskOutcome};
pub use output::{Description, check_output, write_evaluation};
pub use run::{EvalSettings, evaluate};
pub use scored::Scored;
pub use tables::{compressed_table, group_table};
pub use tasks::{TaskInfo, TaskSource};
