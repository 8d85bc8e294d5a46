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
        /// What its weights are under adapters.
        #[serde(default, skip_serializing_if = "BaseType::is_f32")]
        dtype: BaseType,
    },
}

/// The type of weights that adapters stand beside; adapters, gradients and the optimizer are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseType {
    /// As exact as can be. On a CPU, weights that are stored as bf16 and not merged with an adapter stay so in memory.
    #[default]
    F32,
    /// Half the memory, and products of bf16 on devices that have them; a CPU computes with them as f32. An adapter that a later
    /// stage starts from is merged into weights that are rounded to bf16.
    Bf16,
}

impl BaseType {
    fn is_f32(&self) -> bool {
        *self == BaseType::F32
    }
}

impl Start {
    /// What weights are under adapters.
    pub fn base_type(&self) -> BaseType {
        match self {
            Start::Scratch(_) => BaseType::F32,
            Start::Checkpoint { dtype, .. } => *dtype,
        }
    }
}
