//! Adapters in the layout of `peft`: a configuration and the factors of every updated module.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use safetensors::Dtype;

use crate::names::{Factor, factor_name, parse_factor, target};
use crate::output::{Existing, StagedFolder};
use crate::weight_file::{self, WeightFile};
use crate::{AdapterConfig, LowRank, Matrix, MergeError};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
pub(crate) const PROCESSOR: &str = "processor.json";

/// An adapter in memory.
///
/// Modules have the names of `transformers` 4.51, whichever version wrote the file:
/// `model.layers.0.mlp.up_proj`, `visual.blocks.0.attn.qkv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    config: AdapterConfig,
    modules: BTreeMap<String, LowRank>,
    /// The bytes of `processor.json`: how items become the input that the adapter was trained on.
    processor: Option<Vec<u8>>,
}

impl Adapter {
    /// Joins a configuration and updates of its rank.
    ///
    /// # Panics
    /// If a module has another rank.
    pub fn new(config: AdapterConfig, modules: BTreeMap<String, LowRank>) -> Self {
        for (name, update) in &modules {
            assert_eq!(update.rank(), config.r, "rank of `{name}`");
        }
        Adapter { config, modules, processor: None }
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors` (F32, F16, BF16 or F64) of `folder`,
    /// and its `processor.json` where there is one.
    ///
    /// # Errors
    /// If a file is missing or broken, a setting or tensor is none that we do, factors don't fit
    /// together, or a number is not finite.
    pub fn load(folder: &Path) -> Result<Self, MergeError> {
        let config = AdapterConfig::read(&folder.join(CONFIG))?;
        let file = WeightFile::open(&folder.join(WEIGHTS))?;
        let mut factors: BTreeMap<String, [Option<Matrix>; 2]> = BTreeMap::new();
        for (tensor, entry) in file.tensors() {
            let refuse = |problem: String| MergeError::tensor(file.path(), tensor, problem);
            let Some((module, factor)) = parse_factor(tensor) else {
                return Err(refuse("is no factor of a LoRA update; only plain LoRA can be merged".into()));
            };
            let [rows, cols] = entry.shape[..] else {
                return Err(refuse(format!("is {:?}, expected a matrix", entry.shape)));
            };
            let rank = if factor == Factor::A { rows } else { cols };
            if rank != config.r {
                return Err(refuse(format!(
                    "is {:?}, which is rank {rank}, expected {} as {CONFIG} says",
                    entry.shape, config.r
                )));
            }
            let data = file.floats(tensor, entry)?;
            if let Some(at) = data.iter().position(|x| !x.is_finite()) {
                return Err(refuse(format!("holds {} at position {at}; its training diverged", data[at])));
            }
            let place = &mut factors.entry(module.clone()).or_default()[factor as usize];
            if place.replace(Matrix::new(rows, cols, data)).is_some() {
                return Err(refuse(format!("is there a second time under another name of `{module}`")));
            }
        }
        let modules = pair(factors, file.path())?;
        if modules.is_empty() {
            return Err(MergeError::Index { path: file.path().into(), problem: "holds no tensor".into() });
        }
        Ok(Adapter { config, modules, processor: read_processor(folder)? })
    }

    /// The same adapter with these bytes for its `processor.json`.
    pub(crate) fn with_processor(self, processor: Option<Vec<u8>>) -> Self {
        Adapter { processor, ..self }
    }

    /// The bytes of its `processor.json`, if it has one.
    pub(crate) fn processor(&self) -> Option<&[u8]> {
        self.processor.as_deref()
    }

    /// Writes the adapter to `folder`, in f32 and with the older module names.
    ///
    /// # Errors
    /// If `folder` exists and may not be replaced, or can't be written; it isn't there then.
    pub fn save(&self, folder: &Path, existing: Existing) -> Result<(), MergeError> {
        let staged = StagedFolder::create(folder, existing)?;
        let targets: BTreeSet<String> = self.modules.keys().map(|module| target(module)).collect();
        self.config.write(&staged.path().join(CONFIG), &targets.into_iter().collect::<Vec<_>>())?;

        write_processor(self.processor(), staged.path())?;

        let mut tensors: BTreeMap<String, (&Matrix, [usize; 2])> = BTreeMap::new();
        for (module, update) in &self.modules {
            for (factor, matrix) in [(Factor::A, update.a()), (Factor::B, update.b())] {
                tensors.insert(factor_name(module, factor), (matrix, [matrix.rows(), matrix.cols()]));
            }
        }
        let list: Vec<_> =
            tensors.iter().map(|(name, (_, shape))| (name.as_str(), Dtype::F32, &shape[..])).collect();
        let format = HashMap::from([("format".into(), "pt".into())]);
        weight_file::write(&staged.path().join(WEIGHTS), &list, Some(format), |name| {
            Ok(tensors[name].0.data().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>().into())
        })?;
        staged.commit()
    }

    /// What the adapter says about itself.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The update of each module, without the scaling.
    pub fn modules(&self) -> &BTreeMap<String, LowRank> {
        &self.modules
    }

    /// The scaled update `[out, in]` of `module`.
    pub fn delta(&self, module: &str) -> Option<Matrix> {
        Some(self.modules.get(module)?.delta(self.config.scaling()))
    }
}

fn read_processor(folder: &Path) -> Result<Option<Vec<u8>>, MergeError> {
    let path = folder.join(PROCESSOR);
    match path.is_file() {
        true => fs::read(&path).map(Some).map_err(MergeError::io("read", &path)),
        false => Ok(None),
    }
}

/// Writes `processor.json` into a folder, over one that is there.
pub(crate) fn write_processor(processor: Option<&[u8]>, folder: &Path) -> Result<(), MergeError> {
    let Some(bytes) = processor else { return Ok(()) };
    let path = folder.join(PROCESSOR);
    fs::write(&path, bytes).map_err(MergeError::io("write", &path))
}

fn pair(
    factors: BTreeMap<String, [Option<Matrix>; 2]>,
    path: &Path,
) -> Result<BTreeMap<String, LowRank>, MergeError> {
    let mut modules = BTreeMap::new();
    for (module, pair) in factors {
        let [Some(a), Some(b)] = pair else {
            let missing = if pair[0].is_none() { Factor::A } else { Factor::B };
            let name = factor_name(&module, missing);
            return Err(MergeError::tensor(path, &name, "is missing, but the other factor is there"));
        };
        modules.insert(module, LowRank::new(a, b));
    }
    Ok(modules)
}
