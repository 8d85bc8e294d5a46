//! What can go wrong between a folder on disk and a model in memory.

use std::path::{Path, PathBuf};

/// Why a checkpoint or an adapter could not be loaded, attached or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file could not be read.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{} could not be written: {source}; see to free space and permissions there and run again", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("{}: not the JSON that it should be ({source}); fetch or write it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A setting of `config.json` is missing or can't be used.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The setting, what was found, what was expected.
        problem: String,
    },
    /// A network was given a tokenizer or a processor of another.
    #[error(
        "{} does not fit {}: {problem}; take both from one checkpoint",
        other.display(),
        config.display()
    )]
    Misfit {
        /// The `config.json` of the network.
        config: PathBuf,
        /// The file that does not fit.
        other: PathBuf,
        /// What was found, what was expected.
        problem: String,
    },
    /// A folder holds no weights.
    #[error(
        "{}: no model.safetensors and no model.safetensors.index.json; give the folder of a Hugging Face checkpoint in safetensors form",
        path.display()
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A safetensors file is damaged or cut off.
    #[error("{}: not a whole safetensors file ({source}); copy it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the format's reader said.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor stands in the files twice, under one name or two that mean the same.
    #[error(
        "{}: tensor `{name}` is there a second time, as `{other_name}` of {}; keep one of them",
        file.display(),
        other_file.display()
    )]
    TwiceTensor {
        /// The file that was read later.
        file: PathBuf,
        /// Its name there.
        name: String,
        /// The file that was read first.
        other_file: PathBuf,
        /// Its name there.
        other_name: String,
    },
    /// A tensor that the model needs is in none of the files.
    #[error("{}: tensor `{name}` {expected:?} is missing; is this a checkpoint of the model in config.json?", folder.display())]
    MissingTensor {
        /// The checkpoint.
        folder: PathBuf,
        /// The tensor, in the names of transformers 4.51.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{name}` is {found:?}, expected {expected:?}; is this a checkpoint of the model in config.json?", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor, as the file names it.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that is not loaded.
    #[error("{}: tensor `{name}` is {found}, expected F32, F16 or BF16", file.display())]
    Dtype {
        /// The file.
        file: PathBuf,
        /// The tensor, as the file names it.
        name: String,
        /// The element type in the file.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("{}: tensor `{name}` holds {found} at element {at}; the file is damaged or training had diverged", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor, as the file names it.
        name: String,
        /// The value.
        found: f32,
        /// Its place in the flattened tensor.
        at: usize,
    },
    /// A number of a tensor is finite in the file and infinite in the type that was asked for.
    #[error("{}: tensor `{name}` holds {found} at element {at}, which is infinite as {dtype}; load the model as bf16 or f32", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The tensor, as the file names it.
        name: String,
        /// The value.
        found: f32,
        /// Its place in the flattened tensor.
        at: usize,
        /// The type that was asked for.
        dtype: &'static str,
    },
    /// The files hold tensors that the model has no place for.
    #[error("{}: {} tensors have no place in this model, first `{}`; is this a checkpoint of the model in config.json?", folder.display(), names.len(), names[0])]
    ExtraTensors {
        /// The checkpoint or adapter.
        folder: PathBuf,
        /// The tensors, as the files name them.
        names: Vec<String>,
    },
    /// An adapter uses something that is not supported.
    #[error("{}: the adapter has {feature}, which is not supported; use a plain or rank-stabilised LoRA", path.display())]
    UnsupportedAdapter {
        /// Its `adapter_config.json`.
        path: PathBuf,
        /// The setting and its value.
        feature: String,
    },
    /// An adapter does not fit the model that it was put on.
    #[error("{}: {problem}; the adapter is incomplete or belongs to another base model", folder.display())]
    AdapterMismatch {
        /// The adapter.
        folder: PathBuf,
        /// The module, what was found, what was expected.
        problem: String,
    },
    /// Something was asked of the adapters that does not fit the model's state.
    #[error("{0}")]
    Adapter(String),
}

impl ModelError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
        move |source| ModelError::Io { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
        move |source| ModelError::Write { path: path.to_owned(), source }
    }

    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> ModelError + '_ {
        move |source| ModelError::Json { path: path.to_owned(), source }
    }
}

/// What to do about a file of a checkpoint that can't be read.
pub(crate) fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "; give the folder of a whole Hugging Face checkpoint",
        std::io::ErrorKind::OutOfMemory => {
            "; `rzen plan` says how much memory a model takes: free some, or lower --batch-tokens"
        }
        _ => "",
    }
}
