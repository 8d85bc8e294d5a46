//! Why something can't be merged.

use std::path::{Path, PathBuf};

/// Why something can't be merged. Nothing stands under the output's name then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A file or folder can't be read or written.
    #[error("can't {action} {path}{}", advice(action), path = path.display())]
    Io {
        /// "read", "write" and the like.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A file is not JSON.
    #[error("{path} is not the JSON that was expected", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A file is not safetensors, or only the beginning of one.
    #[error("{path} is not a whole safetensors file; was it copied completely?", path = path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// An adapter's configuration asks for something that is not done here.
    #[error(
        "{path} sets `{key}` to {found}, expected {expected}; only plain and rank-stabilised LoRA can be merged",
        path = path.display()
    )]
    Setting {
        /// The `adapter_config.json`.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A tensor is not what its name promises.
    #[error("tensor `{tensor}` of {path} {problem}", path = path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// A clause that says what was found, what was expected, and what to do.
        problem: String,
    },
    /// An index of shards and the shards disagree.
    #[error("{path} {problem}", path = path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// A clause that says what is wrong.
        problem: String,
    },
    /// Ingredients don't fit together.
    #[error("{first} and {other} don't fit: {problem}", first = first.display(), other = other.display())]
    Ingredients {
        /// The first ingredient.
        first: PathBuf,
        /// The one that doesn't fit it.
        other: PathBuf,
        /// A clause that says what differs and what to do.
        problem: String,
    },
    /// An adapter has a module for which the base has no weight.
    #[error(
        "the adapter updates module `{module}`, but {base} has no tensor `{module}.weight`; \
         is this the base that the adapter was trained on?",
        base = base.display()
    )]
    NoSuchModule {
        /// The module, in the naming of the older library versions.
        module: String,
        /// The base folder.
        base: PathBuf,
    },
    /// A base is not the one that an adapter was trained on.
    #[error(
        "{adapter} was trained on a base whose weights have the SHA-256 {recorded:.12}…, and those of {base} have {found:.12}…; \
         give the base that it was trained on, or ask for a soup of any base",
        adapter = adapter.display(),
        base = base.display()
    )]
    WrongBase {
        /// The adapter.
        adapter: PathBuf,
        /// The hash in its `base.json`.
        recorded: String,
        /// The folder that was given.
        base: PathBuf,
        /// The hash of its weights.
        found: String,
    },
    /// Weights or settings of the soup make no sense.
    #[error("{0}")]
    Recipe(String),
    /// Another process fills the output, or another part of this one.
    #[error("{path} is being written by another process; wait for it, or choose another output", path = path.display())]
    Busy {
        /// The output.
        path: PathBuf,
    },
    /// Something stands where the output should go.
    #[error("{path} exists; choose another output, or say that it may be replaced", path = path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
}

/// What to do where writing fails; where reading fails, the path says enough.
fn advice(action: &str) -> &'static str {
    match action {
        "read" => "",
        _ => "; is there room on the disk, and may its folder be written?",
    }
}

impl MergeError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MergeError {
        move |source| MergeError::Io { action, path: path.into(), source }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> MergeError {
        MergeError::Tensor { path: path.into(), tensor: tensor.into(), problem: problem.into() }
    }
}
