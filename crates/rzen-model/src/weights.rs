//! Where a model's numbers come from: the files of a checkpoint, or a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Param, ParamId};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

use crate::ModelError;
use crate::mapped::{MappedFile, Stored};

/// A tensor of a checkpoint or adapter, without its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name as transformers 4.51 has it.
    pub name: String,
    /// Its name in the file.
    pub stored_name: String,
    /// The file.
    pub file: PathBuf,
    /// Element type, as safetensors names it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its size in the file.
    pub bytes: usize,
}

/// The tensors of the checkpoint or the adapter in `folder`.
///
/// # Errors
/// If the folder holds neither, or a file of it is damaged.
pub fn tensor_table(folder: &Path) -> Result<Vec<TensorInfo>, ModelError> {
    let adapter = "adapter_model.safetensors";
    let files = match folder.join(adapter).is_file() {
        true => TensorFiles::open(folder, &[adapter.to_owned()])?,
        false => TensorFiles::open_checkpoint(folder)?,
    };
    Ok(files.table())
}

/// The tensors of a folder: `model.safetensors`, the shards of an index, or an adapter's file.
///
/// Files are memory-mapped; a tensor's bytes are read when it is asked for, and stay in the file's pages where they are
/// of the type that is asked for.
pub(crate) struct TensorFiles {
    folder: PathBuf,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    stored: Stored,
    shape: Vec<usize>,
}

impl TensorFiles {
    /// Opens the checkpoint in `folder`, single or sharded.
    pub(crate) fn open_checkpoint(folder: &Path) -> Result<Self, ModelError> {
        let single = "model.safetensors";
        // With both, transformers takes the single file.
        if folder.join(single).is_file() {
            return Self::open(folder, &[single.to_owned()]);
        }
        let index = folder.join("model.safetensors.index.json");
        if !index.is_file() {
            return Err(ModelError::NoWeights { path: folder.to_owned() });
        }
        let shards = WeightMap::read(&index)?;
        let files = Self::open(folder, &shards.files())?;
        shards.check(&files)?;
        Ok(files)
    }

    /// Opens the named files of `folder`; tensors are known by their canonical names.
    pub(crate) fn open(folder: &Path, files: &[String]) -> Result<Self, ModelError> {
        let mut tensors = BTreeMap::new();
        for name in files {
            add_file(&folder.join(name), &mut tensors)?;
        }
        Ok(TensorFiles { folder: folder.to_owned(), tensors })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// How the file itself names a tensor.
    pub(crate) fn stored_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.tensors.get(name).map_or(name, |entry| &entry.stored.name)
    }

    /// What every tensor is, in the order of their names.
    pub(crate) fn table(&self) -> Vec<TensorInfo> {
        let info = |(name, entry): (&String, &Entry)| TensorInfo {
            name: name.clone(),
            stored_name: entry.stored.name.clone(),
            file: entry.stored.file.path.clone(),
            dtype: format!("{:?}", entry.stored.dtype),
            shape: entry.shape.clone(),
            bytes: entry.stored.range.len(),
        };
        self.tensors.iter().map(info).collect()
    }

    fn is_bf16(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|entry| entry.stored.dtype == safetensors::Dtype::BF16)
    }

    /// Reads a tensor as `dtype`, whatever it is stored as.
    ///
    /// - `expected`: its shape in the file
    /// - `shape`: its shape here, of as many numbers
    pub(crate) fn data(
        &self,
        name: &str,
        expected: &[usize],
        shape: &[usize],
        dtype: FloatDType,
    ) -> Result<TensorData, ModelError> {
        let entry = self.tensors.get(name).ok_or_else(|| ModelError::MissingTensor {
            folder: self.folder.clone(),
            name: name.to_owned(),
            expected: expected.to_vec(),
        })?;
        if entry.shape != expected {
            return Err(ModelError::Shape {
                file: entry.stored.file.path.clone(),
                name: entry.stored.name.clone(),
                found: entry.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        entry.stored.read(shape, dtype)
    }
}

/// What an index says: the shard of each tensor.
struct WeightMap {
    index: PathBuf,
    shards: BTreeMap<String, String>,
}

impl WeightMap {
    /// Reads an index; every shard that it names is there.
    fn read(index: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(index).map_err(ModelError::io(index))?;
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(ModelError::json(index))?;
        let shards = value.get_mut("weight_map").map(serde_json::Value::take).unwrap_or_default();
        let shards = serde_json::from_value(shards)
            .map_err(|_| problem(index, "`weight_map` is missing or names no file for each tensor".into()))?;
        let map = WeightMap { index: index.to_owned(), shards };
        let missing = map.files().into_iter().find(|shard| !index.with_file_name(shard).is_file());
        match missing {
            Some(shard) => {
                let missing =
                    format!("`{shard}` belongs to the checkpoint and is missing; copy it beside the index");
                Err(problem(index, missing))
            }
            None => Ok(map),
        }
    }

    /// The shards, each once.
    fn files(&self) -> Vec<String> {
        let files: BTreeSet<&String> = self.shards.values().collect();
        files.into_iter().cloned().collect()
    }

    /// Every tensor stands in its shard.
    fn check(&self, files: &TensorFiles) -> Result<(), ModelError> {
        let stands = |(name, shard): &(&String, &String)| {
            let entry = files.tensors.get(&canonical_name(name));
            entry.is_some_and(|Entry { stored, .. }| {
                stored.name == **name && stored.file.path.ends_with(shard)
            })
        };
        match self.shards.iter().find(|entry| !stands(entry)) {
            Some((name, shard)) => {
                let lost = format!(
                    "`{shard}` has no tensor `{name}`; copy index and shards of one checkpoint again"
                );
                Err(problem(&self.index, lost))
            }
            None => Ok(()),
        }
    }
}

fn problem(path: &Path, problem: String) -> ModelError {
    ModelError::Config { path: path.to_owned(), problem }
}

fn add_file(path: &Path, tensors: &mut BTreeMap<String, Entry>) -> Result<(), ModelError> {
    let file = Arc::new(MappedFile::open(path)?);
    let invalid = |source| ModelError::Safetensors { path: path.to_owned(), source };
    let (header, metadata) = SafeTensors::read_metadata(file.bytes()).map_err(invalid)?;
    SafeTensors::deserialize(file.bytes()).map_err(invalid)?;
    let start = header + 8;
    for (name, info) in metadata.tensors() {
        let (from, to) = info.data_offsets;
        let range = start + from..start + to;
        let stored = Stored { file: file.clone(), name: name.clone(), dtype: info.dtype, range };
        let entry = Entry { stored, shape: info.shape.clone() };
        if let Some(other) = tensors.insert(canonical_name(&name), entry) {
            return Err(ModelError::TwiceTensor {
                file: path.to_owned(),
                name,
                other_file: other.stored.file.path.clone(),
                other_name: other.stored.name,
            });
        }
    }
    Ok(())
}

/// How versions of transformers name tensors and modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As 4.51 and, but for 4.52, all since: `visual.*`, `model.*`. The names of this program.
    #[default]
    Flat,
    /// As 4.52 in memory and in files, later versions in memory: `model.visual.*`, `model.language_model.*`.
    Nested,
    /// As older wrappers of a language model: `language_model.model.*`.
    Wrapped,
    /// As 4.52 in files of a model without a head: `language_model.*`.
    Headless,
}

impl Naming {
    /// All of them; what two begin with belongs to the first.
    pub(crate) const ALL: [Naming; 4] = [Naming::Flat, Naming::Nested, Naming::Wrapped, Naming::Headless];

    /// How names begin, and what stands for it in [`Naming::Flat`].
    fn renames(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Naming::Flat => &[],
            Naming::Nested => &[("model.visual.", "visual."), ("model.language_model.", "model.")],
            Naming::Wrapped => {
                &[("language_model.model.", "model."), ("language_model.lm_head.", "lm_head.")]
            }
            Naming::Headless => &[("language_model.", "model.")],
        }
    }

    /// The naming that `name` shows, if it shows one; it may stand behind PEFT's prefix.
    pub(crate) fn of(name: &str) -> Self {
        let name = name.strip_prefix(PEFT_PREFIX).unwrap_or(name);
        let shows = |naming: &Naming| naming.renames().iter().any(|(from, _)| name.starts_with(from));
        Naming::ALL.into_iter().find(shows).unwrap_or_default()
    }

    /// A canonical name in this naming.
    pub(crate) fn apply(self, name: &str) -> String {
        let renamed = |(from, to): &(&str, &str)| Some(format!("{from}{}", name.strip_prefix(to)?));
        self.renames().iter().find_map(renamed).unwrap_or_else(|| name.to_owned())
    }
}

/// What PEFT puts before the names of modules.
pub(crate) const PEFT_PREFIX: &str = "base_model.model.";

/// A tensor's name in the naming of transformers 4.51: `visual.*`, `model.*`, `lm_head.weight`.
///
/// Takes the names of 4.52 (`model.visual.*`, `model.language_model.*`; without a head `language_model.*`), of older
/// language-model wrappers (`language_model.model.*`, `language_model.lm_head.*`), and any of them behind PEFT's
/// `base_model.model.`. `rzen-merge` has the same rule; `fixtures/tensor_names.json` is what both are tested on.
pub(crate) fn canonical_name(name: &str) -> String {
    let renames = Naming::of(name).renames();
    let name = name.strip_prefix(PEFT_PREFIX).unwrap_or(name);
    let renamed = |(from, to): &(&str, &str)| Some(format!("{to}{}", name.strip_prefix(from)?));
    renames.iter().find_map(renamed).unwrap_or_else(|| name.to_owned())
}

/// How a tensor begins when there is no checkpoint.
#[derive(Clone, Copy)]
pub(crate) enum Init {
    /// Normal with this standard deviation.
    Normal(f64),
    /// All zero.
    Zeros,
    /// All one.
    Ones,
}

/// Hands out a model's parameters one by one, from files or from a seed.
pub(crate) struct Weights<'a> {
    source: Source<'a>,
    dtype: FloatDType,
    /// What files store as bf16 stays so.
    pub(crate) keep_bf16: bool,
    device: Device,
}

enum Source<'a> {
    Files(&'a TensorFiles),
    /// A seed, and the tensors that are not drawn from it.
    Seed(u64, BTreeMap<String, Vec<f32>>),
}

impl<'a> Weights<'a> {
    pub(crate) fn from_files(files: &'a TensorFiles, dtype: FloatDType, device: &Device) -> Self {
        Weights { source: Source::Files(files), dtype, keep_bf16: false, device: device.clone() }
    }

    /// The same numbers, for another device.
    pub(crate) fn on<T>(&mut self, device: &Device, load: impl FnOnce(&mut Self) -> T) -> T {
        let own = std::mem::replace(&mut self.device, device.clone());
        let loaded = load(self);
        self.device = own;
        loaded
    }

    /// Random numbers that depend on the seed and the tensor's name alone, not on the order.
    pub(crate) fn from_seed(seed: u64, dtype: FloatDType, device: &Device) -> Self {
        Self::from_made(seed, BTreeMap::new(), dtype, device)
    }

    /// The same, but that the tensors of `made` are not random.
    pub(crate) fn from_made(
        seed: u64,
        made: BTreeMap<String, Vec<f32>>,
        dtype: FloatDType,
        device: &Device,
    ) -> Self {
        Weights { source: Source::Seed(seed, made), dtype, keep_bf16: false, device: device.clone() }
    }

    /// The parameter `name`, frozen; its id is a function of the name.
    pub(crate) fn param<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        self.reshaped(name, &shape, shape, init)
    }

    /// The parameter `name` that has the shape `stored` in files and `shape` here.
    pub(crate) fn reshaped<const D: usize>(
        &mut self,
        name: &str,
        stored: &[usize],
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let data = match &mut self.source {
            Source::Files(files) => {
                let keep = self.keep_bf16 && files.is_bf16(name);
                files.data(name, stored, &shape, if keep { FloatDType::BF16 } else { self.dtype })?
            }
            Source::Seed(seed, made) => match made.remove(name) {
                Some(values) => TensorData::new(values, shape.to_vec()),
                None => random(*seed, name, &shape, init),
            }
            .convert_dtype(self.dtype.into()),
        };
        let dtype = data.dtype();
        Ok(param(name, Tensor::from_data(data, (&self.device, dtype))))
    }
}

/// A frozen parameter whose id is a function of its name, so that it is the same in every process.
pub(crate) fn param<const D: usize>(name: &str, tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::from(name_hash(name)), tensor).set_require_grad(false)
}

/// FNV-1a: a fixed function, unlike the standard library's hashers.
pub(crate) fn name_hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn random(seed: u64, name: &str, shape: &[usize], init: Init) -> TensorData {
    let count = shape.iter().product();
    let values = match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Normal(deviation) => normals(seed ^ name_hash(name), count, deviation),
    };
    TensorData::new(values, shape.to_vec())
}

/// Box and Muller's transform of a counter-based generator: the same numbers on every platform.
pub(crate) fn normals(seed: u64, count: usize, deviation: f64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_namings_become_one() {
        let names: BTreeMap<String, String> =
            serde_json::from_str(include_str!("../../../fixtures/tensor_names.json")).unwrap();
        for (found, expected) in names {
            assert_eq!(canonical_name(&found), expected, "{found}");
        }
    }

    #[test]
    fn every_naming_can_be_given_back() {
        for naming in Naming::ALL {
            for name in ["model.layers.0.mlp.up_proj", "visual.merger.mlp.0"] {
                let other = naming.apply(name);
                assert_eq!(canonical_name(&other), name);
                assert_eq!(canonical_name(&format!("{PEFT_PREFIX}{other}")), name);
            }
            assert_eq!(Naming::of(&naming.apply("model.layers.0.mlp.up_proj")), naming);
        }
        assert_eq!(Naming::of("base_model.model.model.visual.merger.mlp.0"), Naming::Nested);
    }

    #[test]
    fn random_numbers_depend_on_seed_and_name() {
        let values = |seed, name| random(seed, name, &[1000], Init::Normal(2.0)).try_to_vec::<f32>().unwrap();
        assert_eq!(values(1, "a"), values(1, "a"));
        assert_ne!(values(1, "a"), values(2, "a"));
        assert_ne!(values(1, "a"), values(1, "b"));
        let mean_square = values(1, "a").iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1000.0;
        assert!((mean_square - 4.0).abs() < 0.6, "{mean_square}");
    }
}
