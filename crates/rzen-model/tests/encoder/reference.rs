//! The reference folder: where it is, and its arrays as plain numbers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// `RZEN_REFERENCE`, else the project's shared folder, else the repository's own copy.
pub fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Some(name) = std::env::var_os("RZEN_REFERENCE") {
        return named_folder(&root, &name);
    }
    let shared = root.join("../shared/reference");
    if shared.is_dir() { shared } else { root.join("fixtures/reference") }
}

/// What `RZEN_REFERENCE` names, counted from the workspace; a name of no folder must not pass for an
/// empty set.
pub fn named_folder(root: &Path, name: &OsStr) -> PathBuf {
    let folder = root.join(name);
    let named = !name.is_empty() && folder.is_dir();
    assert!(named, "RZEN_REFERENCE is {name:?}, and {} is no folder of references", folder.display());
    folder
}

/// The path of a reference file, or `None` (said aloud) where this set lacks it.
pub fn file(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if !path.exists() {
        eprintln!("skipped: {name} is not there");
        return None;
    }
    Some(path)
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The arrays of one safetensors file.
pub struct Arrays {
    bytes: Vec<u8>,
}

pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn ints(&self) -> Vec<i64> {
        self.values.iter().map(|x| *x as i64).collect()
    }

    /// Row `i` of the array seen as `[rows, last]`.
    pub fn row(&self, i: usize) -> &[f64] {
        let width = *self.shape.last().unwrap();
        &self.values[i * width..(i + 1) * width]
    }
}

impl Arrays {
    pub fn read(path: &Path) -> Self {
        Arrays { bytes: std::fs::read(path).unwrap() }
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = SafeTensors::deserialize(&self.bytes)
            .unwrap()
            .names()
            .into_iter()
            .map(|n| n.to_string())
            .collect();
        names.sort();
        names
    }

    pub fn find(&self, name: &str) -> Option<Array> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => {
                bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            Dtype::U8 => bytes.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{name}: {other:?}"),
        };
        Some(Array { shape: view.shape().to_vec(), values })
    }

    pub fn get(&self, name: &str) -> Array {
        self.find(name).unwrap_or_else(|| panic!("the reference file has no `{name}`"))
    }
}

/// The largest difference of two rows.
pub fn distance(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "rows of different lengths");
    largest(a.iter().zip(b).map(|(a, b)| f64::from(*a) - b))
}

/// The largest magnitude; infinite where there is a NaN, which `f64::max` would pass over.
pub fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| if x.is_nan() { f64::INFINITY } else { x.abs() }).fold(0.0, f64::max)
}

pub fn cosine(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "rows of different lengths");
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum();
    let norm = |x: f64| x.sqrt();
    let aa: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
    let bb: f64 = b.iter().map(|b| b * b).sum();
    dot / norm(aa) / norm(bb)
}
