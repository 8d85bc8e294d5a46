//! The public contract: tasks in, scores out.

mod embedders;
mod results;
mod run;
