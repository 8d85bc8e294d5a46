//! Adapters in the layout of `peft`: a configuration and the factors of every updated module.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use safetensors::Dtype;

use crate::adapter_file::{AdapterFile, CONFIG, PROCESSOR, WEIGHTS};
use crate::base_record::BaseRecord;
use crate::names::{Factor, factor_name, layer, layer_target, parse_factor, target};
use crate::output::{Existing, StagedFolder};
use crate::weight_file::{self, f32_bytes};
use crate::{AdapterConfig, LowRank, Matrix, MergeError};

/// An adapter in memory.
///
/// Modules have the names of `transformers` 4.51, whichever version wrote the file:
/// `model.layers.0.mlp.up_proj`, `visual.blocks.0.attn.qkv`.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    config: AdapterConfig,
    modules: BTreeMap<String, LowRank>,
    companions: Companions,
}

/// What travels with an adapter's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Companions {
    /// The bytes of `processor.json`: how items become the input that the adapter was trained on.
    pub processor: Option<Vec<u8>>,
    /// What it was trained on.
    pub base: Option<BaseRecord>,
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
        Adapter { config, modules, companions: Companions::default() }
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors` (F32, F16, BF16 or F64) of `folder`,
    /// and its `processor.json` and `base.json` where they are.
    ///
    /// # Errors
    /// If a file is missing or broken, a setting or tensor is none that we do, factors don't fit
    /// together, or a number is not finite.
    pub fn load(folder: &Path) -> Result<Self, MergeError> {
        let file = AdapterFile::open(folder)?;
        let mut modules = BTreeMap::new();
        for name in file.modules() {
            modules.insert(name.clone(), file.update(name)?.expect("it is one of its modules"));
        }
        let companions =
            Companions { processor: file.processor().map(<[u8]>::to_vec), base: file.base().cloned() };
        Ok(Adapter { config: file.config().clone(), modules, companions })
    }

    /// The same adapter with other companions.
    pub(crate) fn with_companions(self, companions: Companions) -> Self {
        Adapter { companions, ..self }
    }

    pub(crate) fn companions(&self) -> &Companions {
        &self.companions
    }

    /// Writes the adapter to `folder`, in f32 and with the older module names.
    ///
    /// # Errors
    /// If `folder` exists and may not be replaced, or can't be written; it isn't there then.
    pub fn save(&self, folder: &Path, existing: Existing) -> Result<(), MergeError> {
        let staged = StagedFolder::create(folder, existing)?;
        let shapes = self.modules.iter().map(|(name, update)| (name.clone(), update.shape())).collect();
        write_adapter(staged.path(), &self.config, &self.companions, &shapes, |module| {
            Ok(self.modules[module].clone())
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

/// The endings that name these modules and no others: without their layers, where all modules of a tower have the same ones.
fn targets<'a>(config: &AdapterConfig, modules: impl Iterator<Item = &'a String> + Clone) -> Vec<String> {
    let mut layers: BTreeMap<(&str, String), BTreeSet<&str>> = BTreeMap::new();
    for module in modules.clone() {
        if let Some((tower, number)) = layer(module) {
            layers.entry((tower, target(module))).or_default().insert(number);
        }
    }
    let towers: BTreeMap<&str, &BTreeSet<&str>> =
        layers.iter().map(|((tower, _), set)| (*tower, set)).collect();
    let even = layers.iter().all(|((tower, _), set)| towers[tower] == set);
    let ending = if even && !config.names_layers() { target } else { layer_target };
    let endings: BTreeSet<String> = modules.map(|module| ending(module)).collect();
    endings.into_iter().collect()
}

/// Writes the files of an adapter into `folder`; `update` is asked for one module after another, in order.
pub(crate) fn write_adapter(
    folder: &Path,
    config: &AdapterConfig,
    companions: &Companions,
    modules: &BTreeMap<String, [usize; 2]>,
    mut update: impl FnMut(&str) -> Result<LowRank, MergeError>,
) -> Result<(), MergeError> {
    config.write(&folder.join(CONFIG), &targets(config, modules.keys()))?;
    companions.write(folder)?;
    let shapes = modules.iter().flat_map(|(module, [out, input])| {
        [(Factor::A, [config.r, *input]), (Factor::B, [*out, config.r])]
            .map(|(factor, shape)| (factor_name(module, factor), shape))
    });
    let shapes: Vec<(String, [usize; 2])> = shapes.collect();
    let list: Vec<_> = shapes.iter().map(|(name, shape)| (name.as_str(), Dtype::F32, &shape[..])).collect();
    let format = HashMap::from([("format".into(), "pt".into())]);
    // A module's two tensors stand side by side in the order of the file.
    let mut current: Option<(String, LowRank)> = None;
    weight_file::write(&folder.join(WEIGHTS), &list, Some(format), |name, sink| {
        let (module, factor) = parse_factor(name).expect("it was named as a factor is");
        let update = match current.take() {
            Some((name, update)) if name == module => update,
            _ => update(&module)?,
        };
        let matrix = if factor == Factor::A { update.a() } else { update.b() };
        sink(&f32_bytes(matrix.data().iter().copied()))?;
        current = Some((module, update));
        Ok(())
    })
}

impl Companions {
    /// Writes them into a folder, over those that are there.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), MergeError> {
        self.write_processor(folder)?;
        let Some(base) = &self.base else { return Ok(()) };
        let path = folder.join(BaseRecord::FILE);
        fs::write(&path, base.to_json()).map_err(MergeError::io("write", &path))
    }

    /// Writes `processor.json` into a folder, over one that is there.
    pub(crate) fn write_processor(&self, folder: &Path) -> Result<(), MergeError> {
        let Some(bytes) = &self.processor else { return Ok(()) };
        let path = folder.join(PROCESSOR);
        fs::write(&path, bytes).map_err(MergeError::io("write", &path))
    }
}
