//! Training: stages, cached gradients, schedules, checkpoints and resume.
//!
//! ```text
//! source(step) ─► Batch ─cached_gradients─► gradients ─clip─► Optimizer ─► model ─► checkpoints/step_000100
//!                                                                    └────────────► metrics.jsonl, Observer
//! ```
//!
//! [`train_stage`] is generic over an encoder and an objective and never sees a file of samples or a
//! concrete model. Its parts are public so that a step can be taken by hand: [`cached_gradients`]
//! (the gradient of one batch of any size), [`Optimizer`] (AdamW over encoder and objective),
//! [`StageConfig`] (how fast, how long, how often saved) and [`Checkpoint`] (what a run leaves behind).
//!
//! # Where weights live
//! The caller builds or loads the model on a plain device and marks what trains
//! ([`Param::set_require_grad`](burn::module::Param::set_require_grad) or
//! [`Module::freeze_group`](burn::module::Module::freeze_group)). [`train_stage`] moves it to the
//! autodiff device itself, and gives it back on the plain one. Inputs stay on the plain device too.
//! A frozen parameter is a constant of every graph: no gradient is computed for it, no optimizer
//! state kept, and no byte of it changed.
//!
//! # Several processes
//! [`train_stage_on`] is the same stage on several [`Ranks`](rzen_core::Ranks), each of which embeds a
//! [`Share`] of every batch; [`shared_gradients`] is its step. Weights and optimizer are the same on all.
//!
//! Resuming finds the optimizer's state by parameter id, so an encoder and an objective must give
//! the same id to the same parameter whenever they are built.
#![warn(missing_docs)]

mod checkpoint;
mod config;
mod contrastive;
mod error;
mod gradients;
mod in_order;
mod likeness;
mod log;
mod metrics;
mod optimizer;
mod retention;
mod run;
mod schedule;
mod share;
mod stage;
mod state;
mod step;
mod together;

pub use checkpoint::{Checkpoint, Latest, latest};
pub use config::{Checkpointing, Schedule, StageConfig, Warmup};
pub use contrastive::Contrastive;
pub use error::{BoxError, CheckpointError, TrainError};
pub use gradients::{GradientNorm, clip_gradients, gradient_norm};
pub use metrics::{Observer, StepRecord};
pub use optimizer::{LearningRates, Optimizer};
pub use run::RunFolder;
pub use share::Share;
pub use stage::{Control, Source, TrainBatch, train_stage, train_stage_on};
pub use state::{ParameterKey, State};
pub use step::{StepOptions, StepStats, cached_gradients, shared_gradients};
