//! The program `rzen`: recipes in, models, scores and reports out.
//!
//! The library half holds everything but the reading of arguments, so that benches and tests can use it.
#![warn(missing_docs)]

pub mod augment;
mod batch_reader;
pub mod batches;
pub mod card;
mod cut;
mod deal;
pub mod device;
pub mod doctor;
pub mod embedder;
pub mod eval_run;
pub mod evaluate;
pub mod files;
pub mod fit_examples;
pub(crate) mod host_batch;
pub mod index;
pub mod load_limits;
pub mod mine;
pub mod models;
pub mod output;
pub mod pipeline;
pub mod progress;
pub mod ranks;
pub mod reader;
pub mod recipe;
pub mod report;
pub mod run_cards;
pub mod run_folder;
pub mod scratch;
mod served;
pub mod soup;
pub mod stage_data;
pub mod summary;
pub mod tensorboard;
pub mod text_table;
pub mod vectors;
pub mod verbs;
pub mod world;
