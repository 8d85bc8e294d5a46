//! Full checkpoints: one safetensors file, or shards with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::json;

use crate::MergeError;
use crate::hash::checkpoint_sha256;
use crate::names::canonical;
use crate::weight_file::{Entry, WeightFile};

const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A checkpoint that is open: its files and where each tensor stands, by canonical name. The numbers stay in the files.
pub struct Checkpoint {
    folder: PathBuf,
    /// Name and content of each file.
    files: Vec<(String, WeightFile)>,
    sharded: bool,
    places: BTreeMap<String, (usize, String)>,
    sha256: OnceLock<String>,
}

impl Checkpoint {
    /// Opens `folder`; the single file goes before shards, as in `transformers`.
    ///
    /// # Errors
    /// If a file is missing or broken, an index and its shards disagree, or a tensor is there twice.
    pub fn open(folder: &Path) -> Result<Self, MergeError> {
        let index = folder.join(INDEX);
        let sharded = !folder.join(SINGLE).exists() && index.exists();
        let weight_map = if sharded { read_index(&index)? } else { BTreeMap::new() };
        let names = match sharded {
            true => weight_map.values().cloned().collect(),
            false => BTreeSet::from([SINGLE.to_string()]),
        };
        let mut files = Vec::new();
        for name in names {
            let file = WeightFile::open(&folder.join(&name))?;
            let mut promised = weight_map.iter().filter(|(_, shard)| **shard == name);
            if let Some((tensor, _)) = promised.find(|(tensor, _)| !file.tensors().contains_key(*tensor)) {
                let problem = format!("is missing, but {INDEX} names it; was the folder copied completely?");
                return Err(MergeError::tensor(file.path(), tensor, problem));
            }
            files.push((name, file));
        }
        let mut places = BTreeMap::new();
        for (at, (_, file)) in files.iter().enumerate() {
            for name in file.tensors().keys() {
                if let Some((_, other)) = places.insert(canonical(name), (at, name.clone())) {
                    let problem = format!("is there a second time as `{other}`; remove one of them");
                    return Err(MergeError::tensor(file.path(), name, problem));
                }
            }
        }
        Ok(Checkpoint { folder: folder.into(), files, sharded, places, sha256: OnceLock::new() })
    }

    /// The hash of its weights, see [`weights_sha256`](crate::weights_sha256); they are read once.
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| checkpoint_sha256(self))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn files(&self) -> &[(String, WeightFile)] {
        &self.files
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// The canonical names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    /// Writes an index of the tensors that are `kept`.
    pub(crate) fn write_index(&self, path: &Path, kept: impl Fn(&str) -> bool) -> Result<(), MergeError> {
        let (mut map, mut bytes) = (BTreeMap::new(), 0);
        for (shard, file) in &self.files {
            for (name, entry) in file.tensors().iter().filter(|(name, _)| kept(name)) {
                map.insert(name, shard);
                bytes += file.bytes(entry).len();
            }
        }
        let index = json!({ "metadata": { "total_size": bytes }, "weight_map": map });
        let text = serde_json::to_string_pretty(&index).expect("names are plain") + "\n";
        fs::write(path, text).map_err(MergeError::io("write", path))
    }

    /// The file and the entry of a tensor, by canonical name.
    pub(crate) fn find(&self, name: &str) -> Option<(&WeightFile, &str, &Entry)> {
        let (file, own_name) = self.places.get(name)?;
        let file = &self.files[*file].1;
        Some((file, own_name, &file.tensors()[own_name]))
    }
}

/// The shard of each tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, MergeError> {
    let text = fs::read_to_string(path).map_err(MergeError::io("read", path))?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|source| MergeError::Json { path: path.into(), source })?;
    let problem = |problem: String| Err(MergeError::Index { path: path.into(), problem });
    let plain =
        |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    if let Some(name) = weight_map.values().find(|name| !plain(name)) {
        return problem(format!("names the shard `{name}`, expected a file of its own folder"));
    }
    if weight_map.is_empty() {
        return problem("names no tensor".into());
    }
    Ok(weight_map)
}
