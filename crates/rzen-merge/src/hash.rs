//! Hashes of weights and of files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::MergeError;
use crate::checkpoint::Checkpoint;
use crate::names::{canonical, is_head};
use crate::weight_file::widen;

/// A SHA-256 of a model's weights that depends on their names under the oldest naming, shapes and values alone.
///
/// Numbers count as f32, so that a model in bf16 and the same widened are one; `lm_head.weight` doesn't count, since an
/// embedder has none. The order in which tensors are added, shards and other files don't matter.
#[derive(Default)]
pub struct WeightsHasher {
    tensors: BTreeMap<String, [u8; 32]>,
}

/// Numbers that are hashed together; pieces are hashed side by side.
const PIECE: usize = 1 << 20;

impl WeightsHasher {
    /// Adds a tensor; `bytes` hold its numbers, little-endian.
    ///
    /// # Panics
    /// If `dtype` is none of F32, BF16, F16 and F64.
    pub fn add(&mut self, name: &str, shape: &[usize], dtype: Dtype, bytes: &[u8]) {
        let size = dtype.bitsize() / 8;
        let pieces: Vec<[u8; 32]> = bytes
            .par_chunks(PIECE * size)
            .map(|piece| {
                if dtype == Dtype::F32 {
                    return Sha256::digest(piece).into();
                }
                let numbers = widen(dtype, piece).expect("the format was promised to be one of floats");
                let wide: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
                Sha256::digest(wide).into()
            })
            .collect();
        let mut hasher = Sha256::new();
        hasher.update((shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|side| hasher.update((*side as u64).to_le_bytes()));
        pieces.iter().for_each(|piece| hasher.update(piece));
        let name = canonical(name);
        if !is_head(&name) {
            self.tensors.insert(name, hasher.finalize().into());
        }
    }

    /// The hash of all that was added, as hexadecimal digits.
    pub fn finish(self) -> String {
        let mut hasher = Sha256::new();
        for (name, digest) in self.tensors {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(digest);
        }
        hex(&hasher.finalize())
    }
}

/// What [`WeightsHasher`] makes of the checkpoint in `folder`. Tensors that hold no floats don't count.
///
/// # Errors
/// If the checkpoint can't be read.
pub fn weights_sha256(folder: &Path) -> Result<String, MergeError> {
    Ok(Checkpoint::open(folder)?.sha256().to_owned())
}

pub(crate) fn checkpoint_sha256(checkpoint: &Checkpoint) -> String {
    let mut hasher = WeightsHasher::default();
    for name in checkpoint.names().filter(|name| !is_head(name)) {
        let (file, _, entry) = checkpoint.find(name).expect("it is one of its names");
        if matches!(entry.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64) {
            hasher.add(name, &entry.shape, entry.dtype, file.bytes(entry));
            file.release(entry);
        }
    }
    hasher.finish()
}

/// The SHA-256 of a file.
pub(crate) fn file_sha256(path: &Path) -> Result<[u8; 32], MergeError> {
    let fail = || MergeError::io("read", path);
    let mut file = File::open(path).map_err(fail())?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(fail())? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&piece[..count]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn values_count_and_formats_do_not() {
        let numbers = [1.5f32, -0.25, 3.0];
        let wide: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let narrow: Vec<u8> = numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
        let hash = |tensors: &[(&str, &[usize], Dtype, &[u8])]| {
            let mut hasher = WeightsHasher::default();
            tensors.iter().for_each(|(name, shape, dtype, bytes)| hasher.add(name, shape, *dtype, bytes));
            hasher.finish()
        };
        let plain = hash(&[("model.x", &[3], Dtype::F32, &wide), ("visual.y", &[1, 3], Dtype::F32, &wide)]);
        let same = [
            ("model.visual.y", &[1usize, 3][..], Dtype::BF16, &narrow[..]),
            ("lm_head.weight", &[3], Dtype::F32, &wide),
            ("model.language_model.x", &[3], Dtype::F32, &wide),
        ];
        assert_eq!(hash(&same), plain);
        assert_ne!(hash(&[("model.x", &[3], Dtype::F32, &wide)]), plain);
        let turned = [("model.x", &[3][..], Dtype::F32, &wide[..]), ("visual.y", &[3, 1], Dtype::F32, &wide)];
        assert_ne!(hash(&turned), plain);
        let mut other = wide.clone();
        other[0] ^= 1;
        assert_ne!(
            hash(&[("model.x", &[3], Dtype::F32, &other), ("visual.y", &[1, 3], Dtype::F32, &wide)]),
            plain
        );
    }
}
