//! The table `[evaluation]`.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What is measured at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluation {
    /// The tasks; default all of the corpus, with `[]` nothing is measured.
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
        Ok(())
    }
}
