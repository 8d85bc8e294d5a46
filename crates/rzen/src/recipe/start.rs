//! The table `[model]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::scratch::Scratch;

/// What training starts from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// No checkpoint: first weights, and a tokenizer trained on the texts of the training rows.
    Scratch(Scratch),
    /// A Hugging Face folder.
    Checkpoint {
        /// The folder.
        folder: PathBuf,
    },
}
