//! The public contract: tasks in, scores out.

mod embedders;
mod rank;
mod results;
mod run;
