//! The table `[evaluation]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What is measured at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// The tasks; default all of the corpus.
    pub tasks: Option<Vec<String>>,
    /// Items in a batch.
    pub batch_size: usize,
    /// Whether the untrained model is measured too.
    pub start: bool,
}

impl Default for Evaluation {
    fn default() -> Self {
        Evaluation { tasks: None, batch_size: 32, start: true }
    }
}

impl Evaluation {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.batch_size >= 1, "`batch_size` is 0, expected 1 or more");
        let tasks = self.tasks.as_ref().is_none_or(|tasks| !tasks.is_empty());
        ensure!(tasks, "`tasks` is empty; leave it out for all tasks of the corpus");
        Ok(())
    }
}
