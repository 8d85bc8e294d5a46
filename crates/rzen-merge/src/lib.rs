//! Souping of adapters and checkpoints, one tensor at a time.
//!
//! Works on folders as `peft` and `transformers` write them and needs no model and no device:
//!
//! - [`soup_adapters`] joins several low-rank adapters into one, by a [`Method`], and says how far the
//!   result is from the weighted sum of the updates;
//! - [`merge_into_base`] adds an adapter's update to the weights of its base;
//! - [`soup_checkpoints`] averages full checkpoints.
//!
//! An output folder appears under its name complete or not at all.
#![warn(missing_docs)]

mod adapter;
mod adapter_config;
mod base;
mod checkpoint;
mod deviation;
mod error;
mod low_rank;
mod method;
mod names;
mod output;
mod soup;
mod task_arithmetic;
mod weight_file;

pub use adapter::Adapter;
pub use adapter_config::AdapterConfig;
pub use base::{merge_into_base, soup_checkpoints};
pub use error::MergeError;
pub use low_rank::{LowRank, Matrix};
pub use method::Method;
pub use output::Existing;
pub use soup::{Ingredient, Soup, SoupReport, soup_adapters};
pub use task_arithmetic::{dare_linear, linear, magnitude_prune, ties};
