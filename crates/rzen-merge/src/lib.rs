//! Souping of adapters and checkpoints, one tensor at a time.
//!
//! Works on folders as `peft` and `transformers` write them and needs no model and no device:
//!
//! - [`Soup`] joins several low-rank adapters by a [`Method`] into an adapter or a merged model, says how far the result
//!   is from the weighted sum of the updates, and what a lower rank left out of it;
//! - [`merge_into_base`] adds an adapter's update to the weights of its base;
//! - [`Average`] averages full checkpoints;
//! - [`weights_sha256`] is the hash by which adapters know their base.
//!
//! An output folder appears under its name complete or not at all ([`StagedFolder`]), and holds a [`SoupRecord`].
#![warn(missing_docs)]

mod adapter;
mod adapter_config;
mod adapter_file;
mod average;
mod base;
mod base_record;
mod blend;
mod checkpoint;
mod deviation;
mod error;
mod fit;
mod hash;
mod join;
mod low_rank;
mod method;
mod names;
mod output;
mod product;
mod random;
mod record;
mod soup;
mod spectrum;
mod task_arithmetic;
mod weight_file;

pub use adapter::Adapter;
pub use adapter_config::AdapterConfig;
pub use average::Average;
pub use base::merge_into_base;
pub use base_record::BaseRecord;
pub use checkpoint::Checkpoint;
pub use error::MergeError;
pub use hash::{WeightsHasher, weights_sha256};
pub use low_rank::{LowRank, Matrix};
pub use method::{Cut, Method};
pub use output::{Existing, StagedFolder};
pub use record::{
    BaseCheck, BaseUse, IngredientRecord, IngredientScore, Kind, LoraRecord, ModuleRecord, ScoresRecord,
    SearchRecord, SoupRecord,
};
pub use soup::{Ingredient, Soup, SoupSettings};
pub use task_arithmetic::{dare_linear, linear, magnitude_prune, ties};
