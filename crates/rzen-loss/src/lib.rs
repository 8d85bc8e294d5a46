//! Contrastive objectives: InfoNCE with hardness weights, false-negative mask and a temperature per task.
//!
//! For query `i` with its positive `k⁺`, and `s_ij` the cosine of query `i` and candidate `j`
//! ([RzenEmbed](https://arxiv.org/abs/2510.27350), §3.3 and §3.4.3):
//!
//! ```text
//! loss_i = log( e^{s_i⁺/τ} + Σ_j w_ij e^{s_ij/τ} ) − s_i⁺/τ      w_ij = e^{α s_ij}      τ = e^{θ[task_i]}
//! ```
//!
//! where `j` runs over the negatives of query `i`: every other candidate of the batch, without hard
//! negatives that belong to another query and without those with `cos(k_j, k⁺) > δ`.
//!
//! The formula is four pure functions ([`similarity`], [`false_negative_mask`], [`hardness_weights`],
//! [`info_nce`]); [`InfoNce`] joins them with their settings and the temperatures.
#![warn(missing_docs)]

mod config;
mod error;
mod info_nce;
mod negatives;
mod objective;
mod similarity;
mod stats;
mod temperatures;

pub use config::InfoNceConfig;
pub use error::LossError;
pub use info_nce::info_nce;
pub use negatives::{false_negative_mask, hardness_weights, possible_negatives};
pub use objective::InfoNce;
pub use similarity::similarity;
pub use temperatures::TEMPERATURES_FILE;
