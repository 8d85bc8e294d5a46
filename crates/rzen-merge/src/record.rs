//! `soup.json`: what a soup was made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Cut, MergeError, Method};

/// The content of [`SoupRecord::FILE`], which lies in every folder that a soup is written to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SoupRecord {
    /// The format of the file.
    pub format: u32,
    /// What was joined.
    pub of: Kind,
    /// What came out.
    pub output: Kind,
    /// How; an average of checkpoints is `exact`.
    pub method: Method,
    /// What the adapter's rank left out of it.
    pub cut: Cut,
    /// The rank of the adapter that came out or was merged into the base; none where updates of full rank were.
    pub rank: Option<usize>,
    /// What was joined, in the order given.
    pub ingredients: Vec<IngredientRecord>,
    /// The base, of adapters.
    pub base: Option<BaseUse>,
    /// `‖ΔW_soup − Σ wᵢΔWᵢ‖ / ‖Σ wᵢΔWᵢ‖` over all modules, in Frobenius norms; what is below 1e-7 reads 0. None where the sum is
    /// zero and the soup isn't.
    pub relative_error: Option<f64>,
    /// What the number format of merged weights took: `‖W_out − (W + ΔW_soup)‖ / ‖ΔW_soup‖` over all modules. Of averaged
    /// checkpoints, `‖W_out − Σ wᵢWᵢ‖ / ‖Σ wᵢWᵢ‖` over all tensors. None of an adapter, which is f32, and where
    /// nothing was to be added and something was.
    pub rounding_error: Option<f64>,
    /// The share of the squared singular values of the method's updates that the rank kept, over all modules.
    pub kept_energy: f64,
    /// The same of each module.
    pub modules: BTreeMap<String, ModuleRecord>,
    /// Sentences about what came out otherwise than one may expect.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How weights were found, where they were searched.
    pub search: Option<SearchRecord>,
    /// What was scored before and after.
    pub scores: Option<ScoresRecord>,
}

/// Adapters or whole models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Low-rank updates.
    Adapter,
    /// All weights.
    Model,
}

/// One of the joined folders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngredientRecord {
    /// The folder, as it was given.
    pub path: String,
    /// What it counts.
    pub weight: f64,
    /// Of an adapter, the SHA-256 of `adapter_model.safetensors`; of a checkpoint, [`weights_sha256`](crate::weights_sha256).
    pub sha256: String,
    /// Of an adapter.
    #[serde(flatten)]
    pub lora: Option<LoraRecord>,
}

/// The settings of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraRecord {
    /// Its rank.
    pub rank: usize,
    /// The numerator of its scaling.
    pub alpha: f64,
    /// Whether the denominator of its scaling is the rank's root.
    pub rslora: bool,
    /// The hash of its base, where its training wrote that down.
    pub base_sha256: Option<String>,
}

/// The base of adapters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaseUse {
    /// The folder that the soup was merged into.
    pub path: Option<String>,
    /// The hash of its weights; without a folder, as the adapters say.
    pub sha256: Option<String>,
    /// How it is known that the adapters belong to one base.
    pub checked_by: BaseCheck,
}

/// How it is known that adapters belong to one base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseCheck {
    /// All of them say so, by its hash.
    Hash,
    /// Some don't say: names and shapes fit.
    Shapes,
    /// They don't, and were joined on demand.
    Nothing,
}

/// How a module came out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleRecord {
    /// As of [`SoupRecord::relative_error`].
    pub relative_error: Option<f64>,
    /// As of [`SoupRecord::rounding_error`].
    pub rounding_error: Option<f64>,
    /// As of [`SoupRecord::kept_energy`].
    pub kept_energy: f64,
}

/// How weights were searched for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// `greedy` or `weights`.
    pub kind: String,
    /// The corpus folder, as it was given.
    pub data: String,
    /// Its tasks that decided: what is measured on them afterwards is no test.
    pub tasks: Vec<String>,
    /// What was compared: the mean of this over the tasks.
    pub metric: String,
    /// Soups that were measured.
    pub trials: usize,
}

/// Scores before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoresRecord {
    /// What the numbers are the mean of, over the tasks.
    pub metric: String,
    /// The tasks.
    pub tasks: Vec<String>,
    /// Each ingredient alone, also those that a search left out.
    pub ingredients: Vec<IngredientScore>,
    /// All of them with equal weights, where that was measured.
    pub uniform: Option<f64>,
    /// The soup.
    pub soup: f64,
}

/// The score of an ingredient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngredientScore {
    /// Its folder, as it was given.
    pub path: String,
    /// Alone.
    pub score: f64,
}

impl SoupRecord {
    /// The file's name.
    pub const FILE: &str = "soup.json";

    /// The file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record is plain") + "\n"
    }

    /// Reads the record of a folder, where it has one.
    ///
    /// # Errors
    /// If it is there and can't be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, MergeError> {
        read_beside(folder, Self::FILE)
    }

    /// Writes the record into a folder that is not whole yet.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, folder: &Path) -> Result<(), MergeError> {
        let path = folder.join(Self::FILE);
        fs::write(&path, self.to_json()).map_err(MergeError::io("write", &path))
    }
}

/// Reads the JSON file `name` of a folder, where it has one.
pub(crate) fn read_beside<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, MergeError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(MergeError::io("read", &path))?;
    serde_json::from_str(&text).map(Some).map_err(|source| MergeError::Json { path, source })
}
