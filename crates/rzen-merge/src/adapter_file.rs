//! An adapter on the disk, read one module at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base_record::BaseRecord;
use crate::names::{Factor, factor_name, parse_factor};
use crate::weight_file::WeightFile;
use crate::{AdapterConfig, LowRank, Matrix, MergeError};

pub(crate) const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
pub(crate) const PROCESSOR: &str = "processor.json";

/// What an adapter's folder holds; its numbers stay in the file.
pub(crate) struct AdapterFile {
    folder: PathBuf,
    config: AdapterConfig,
    file: WeightFile,
    modules: BTreeMap<String, Place>,
    processor: Option<Vec<u8>>,
    base: Option<BaseRecord>,
}

/// The two tensors of a module and the shape `[out, in]` of the weight that they update.
struct Place {
    a: String,
    b: String,
    shape: [usize; 2],
}

impl AdapterFile {
    /// Reads all but the numbers, and checks that names and shapes fit together.
    pub(crate) fn open(folder: &Path) -> Result<Self, MergeError> {
        let config = AdapterConfig::read(&folder.join(CONFIG))?;
        let file = WeightFile::open(&folder.join(WEIGHTS))?;
        let mut factors: BTreeMap<String, [Option<(String, usize)>; 2]> = BTreeMap::new();
        for (tensor, entry) in file.tensors() {
            let refuse = |problem: String| MergeError::tensor(file.path(), tensor, problem);
            let Some((module, factor)) = parse_factor(tensor) else {
                return Err(refuse("is no factor of a LoRA update; only plain LoRA can be merged".into()));
            };
            let [rows, cols] = entry.shape[..] else {
                return Err(refuse(format!("is {:?}, expected a matrix", entry.shape)));
            };
            let (rank, side) = if factor == Factor::A { (rows, cols) } else { (cols, rows) };
            if rank != config.r {
                return Err(refuse(format!(
                    "is {:?}, which is rank {rank}, expected {} as {CONFIG} says",
                    entry.shape, config.r
                )));
            }
            if side == 0 {
                return Err(refuse(format!("is {:?}, expected numbers in it", entry.shape)));
            }
            let place = &mut factors.entry(module.clone()).or_default()[factor as usize];
            if place.replace((tensor.clone(), side)).is_some() {
                return Err(refuse(format!("is there a second time under another name of `{module}`")));
            }
        }
        let modules = pair(factors, file.path())?;
        if modules.is_empty() {
            return Err(MergeError::Index { path: file.path().into(), problem: "holds no tensor".into() });
        }
        let (processor, base) = (read_processor(folder)?, BaseRecord::read(folder)?);
        Ok(AdapterFile { folder: folder.into(), config, file, modules, processor, base })
    }

    pub(crate) fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The path of the numbers.
    pub(crate) fn weights_path(&self) -> PathBuf {
        self.folder.join(WEIGHTS)
    }

    /// The bytes of `processor.json`: how items become the input that the adapter was trained on.
    pub(crate) fn processor(&self) -> Option<&[u8]> {
        self.processor.as_deref()
    }

    /// The base that it was trained on, where its training wrote that down.
    pub(crate) fn base(&self) -> Option<&BaseRecord> {
        self.base.as_ref()
    }

    /// Canonical names of all modules, in order.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &String> + Clone {
        self.modules.keys()
    }

    /// The shape `[out, in]` of the weight that the module's update belongs to.
    pub(crate) fn shape(&self, module: &str) -> Option<[usize; 2]> {
        Some(self.modules.get(module)?.shape)
    }

    /// Reads the factors of a module; `None` where the adapter lacks it.
    pub(crate) fn update(&self, module: &str) -> Result<Option<LowRank>, MergeError> {
        let Some(place) = self.modules.get(module) else { return Ok(None) };
        let [out, input] = place.shape;
        let a = Matrix::new(self.config.r, input, self.numbers(&place.a)?);
        Ok(Some(LowRank::new(a, Matrix::new(out, self.config.r, self.numbers(&place.b)?))))
    }

    fn numbers(&self, tensor: &str) -> Result<Vec<f32>, MergeError> {
        let entry = &self.file.tensors()[tensor];
        let data = self.file.floats(tensor, entry)?;
        self.file.release(entry);
        match data.iter().position(|x| !x.is_finite()) {
            None => Ok(data),
            Some(at) => {
                let problem = format!("holds {} at position {at}; its training diverged", data[at]);
                Err(MergeError::tensor(self.file.path(), tensor, problem))
            }
        }
    }
}

fn read_processor(folder: &Path) -> Result<Option<Vec<u8>>, MergeError> {
    let path = folder.join(PROCESSOR);
    match path.is_file() {
        true => fs::read(&path).map(Some).map_err(MergeError::io("read", &path)),
        false => Ok(None),
    }
}

fn pair(
    factors: BTreeMap<String, [Option<(String, usize)>; 2]>,
    path: &Path,
) -> Result<BTreeMap<String, Place>, MergeError> {
    let mut modules = BTreeMap::new();
    for (module, pair) in factors {
        let missing = if pair[0].is_none() { Factor::A } else { Factor::B };
        let [Some((a, input)), Some((b, out))] = pair else {
            let name = factor_name(&module, missing);
            return Err(MergeError::tensor(path, &name, "is missing, but the other factor is there"));
        };
        modules.insert(module, Place { a, b, shape: [out, input] });
    }
    Ok(modules)
}
