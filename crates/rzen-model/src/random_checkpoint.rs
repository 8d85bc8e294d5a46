//! A checkpoint of random numbers of any size, written piece by piece.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, FloatDType};
use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::layout::{TensorRole, TensorSpec};
use crate::save::{dtype_name, write_json};
use crate::weights::name_hash;
use crate::{Companions, ModelConfig, ModelError};

/// What a checkpoint of random numbers is made from; the same gives the same files, byte for byte.
///
/// Matrices have the deviation `1 / sqrt(inputs)`, the token table 1, gains are one, and biases have
/// the deviation 0.05, so that one that is left out or taken from another layer shows.
#[derive(Clone, Debug)]
pub struct RandomCheckpoint<'a> {
    /// The shape.
    pub config: &'a ModelConfig,
    /// Decides all numbers, together with the names of the tensors.
    pub seed: u64,
    /// How numbers are stored.
    pub dtype: FloatDType,
    /// Most bytes of tensors in a file; a larger tensor has a file of its own.
    pub shard_size: u64,
}

const BIAS_DEVIATION: f64 = 0.05;

/// Numbers made by one thread at a time, and numbers in memory between two writes.
const BLOCK: usize = 1 << 16;
const BATCH: usize = 64 * BLOCK;

impl RandomCheckpoint<'_> {
    /// Writes `config.json`, the weights (`model.safetensors`, or shards with an index) and `companions`
    /// into a folder that exists; returns the bytes of all tensors.
    ///
    /// Needs some megabytes of memory, whatever the size of the model. There is no `lm_head`, and the
    /// configuration says that it is tied.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn write(&self, folder: &Path, companions: &Companions) -> Result<u64, ModelError> {
        let config = ModelConfig { tie_word_embeddings: true, ..self.config.clone() };
        write_json(&folder.join("config.json"), &config.to_json(dtype_name(self.dtype.into())))?;
        companions.write(folder)?;
        let shards = self.shards();
        let names = file_names(shards.len());
        for (tensors, name) in shards.iter().zip(&names) {
            self.write_shard(&folder.join(name), tensors)?;
        }
        let total = shards.iter().flatten().map(|tensor| self.bytes(tensor)).sum();
        if shards.len() > 1 {
            let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map(&shards, &names)});
            write_json(&folder.join("model.safetensors.index.json"), &index)?;
        }
        Ok(total)
    }

    fn bytes(&self, tensor: &TensorSpec) -> u64 {
        (tensor.numbers() * DType::from(self.dtype).size()) as u64
    }

    /// The tensors of each file, in order.
    fn shards(&self) -> Vec<Vec<TensorSpec>> {
        let (mut shards, mut size) = (vec![Vec::new()], 0);
        for tensor in self.config.tensors() {
            let bytes = self.bytes(&tensor);
            if size > 0 && size + bytes > self.shard_size {
                shards.push(Vec::new());
                size = 0;
            }
            size += bytes;
            shards.last_mut().expect("there is always one").push(tensor);
        }
        shards
    }

    fn write_shard(&self, path: &Path, tensors: &[TensorSpec]) -> Result<(), ModelError> {
        let header = self.header(path, tensors)?;
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            for tensor in tensors {
                self.write_numbers(&mut file, tensor)?;
            }
            file.flush()
        };
        write().map_err(ModelError::write(path))
    }

    /// The header of a file, padded so that numbers begin at a multiple of 64 bytes.
    fn header(&self, path: &Path, tensors: &[TensorSpec]) -> Result<Vec<u8>, ModelError> {
        let mut start = 0;
        let infos = tensors.iter().map(|tensor| {
            let data_offsets = (start, start + self.bytes(tensor) as usize);
            start = data_offsets.1;
            let info = TensorInfo { dtype: stored(self.dtype), shape: tensor.shape.clone(), data_offsets };
            (tensor.name.clone(), info)
        });
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let metadata = Metadata::new(Some(metadata), infos.collect())
            .map_err(|source| ModelError::Safetensors { path: path.to_owned(), source })?;
        let mut header = serde_json::to_vec(&metadata).map_err(ModelError::json(path))?;
        header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');
        Ok(header)
    }

    fn write_numbers(&self, file: &mut impl Write, tensor: &TensorSpec) -> std::io::Result<()> {
        let numbers = Numbers::of(tensor, self.seed);
        let (count, size) = (tensor.numbers(), DType::from(self.dtype).size());
        let mut buffer = vec![0; count.min(BATCH) * size];
        for first in (0..count).step_by(BATCH) {
            let part = &mut buffer[..(count - first).min(BATCH) * size];
            part.par_chunks_mut(BLOCK * size)
                .enumerate()
                .for_each(|(block, out)| numbers.fill(first + block * BLOCK, self.dtype, out));
            file.write_all(part)?;
        }
        Ok(())
    }
}

/// The numbers of one tensor; each is a function of its place.
enum Numbers {
    Ones,
    Random { key: u64, scale: f32 },
}

impl Numbers {
    fn of(tensor: &TensorSpec, seed: u64) -> Self {
        let inputs: usize = tensor.shape[1..].iter().product();
        let deviation = match tensor.role {
            TensorRole::Gain => return Numbers::Ones,
            TensorRole::Table => 1.0,
            TensorRole::Matrix => (inputs as f64).sqrt().recip(),
            TensorRole::Bias => BIAS_DEVIATION,
        };
        // Of the sum of four numbers that are even over 0..65536.
        let spread = ((65536f64 * 65536.0 - 1.0) / 3.0).sqrt();
        let key = mixed(seed.wrapping_add(mixed(name_hash(&tensor.name))));
        Numbers::Random { key, scale: (deviation / spread) as f32 }
    }

    /// The numbers from place `first` on, as they stand in a file.
    fn fill(&self, first: usize, dtype: FloatDType, out: &mut [u8]) {
        match dtype {
            FloatDType::BF16 => self.fill_with(first, out, |x| half::bf16::from_f32(x).to_le_bytes()),
            FloatDType::F16 => self.fill_with(first, out, |x| half::f16::from_f32(x).to_le_bytes()),
            _ => self.fill_with(first, out, f32::to_le_bytes),
        }
    }

    fn fill_with<const N: usize>(&self, first: usize, out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
        let places = out.as_chunks_mut::<N>().0.iter_mut().zip(first as u64..);
        match *self {
            Numbers::Ones => places.for_each(|(place, _)| *place = bytes(1.0)),
            Numbers::Random { key, scale } => {
                places.for_each(|(place, i)| *place = bytes(bell(key, i) * scale));
            }
        }
    }
}

/// Number `i` of the stream `key`: the sum of four even numbers around zero, which is close to normal and,
/// unlike Box and Muller's transform, a matter of a nanosecond and of whole numbers alone.
fn bell(key: u64, i: u64) -> f32 {
    let bits = mixed(key.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let part = |shift: u32| (bits >> shift) as u16 as i32;
    (part(0) + part(16) + part(32) + part(48) - 131_070) as f32
}

/// The last step of SplitMix64: every bit of the result depends on every bit of `x`.
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn stored(dtype: FloatDType) -> Dtype {
    match dtype {
        FloatDType::BF16 => Dtype::BF16,
        FloatDType::F16 => Dtype::F16,
        _ => Dtype::F32,
    }
}

fn file_names(count: usize) -> Vec<PathBuf> {
    match count {
        1 => vec!["model.safetensors".into()],
        _ => (1..=count).map(|i| format!("model-{i:05}-of-{count:05}.safetensors").into()).collect(),
    }
}

fn weight_map<'a>(shards: &'a [Vec<TensorSpec>], names: &'a [PathBuf]) -> BTreeMap<&'a str, &'a Path> {
    let pairs = shards.iter().zip(names);
    pairs.flat_map(|(tensors, file)| tensors.iter().map(|tensor| (&*tensor.name, &**file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(name: &str, seed: u64, count: usize) -> Vec<f32> {
        let shape = vec![count, 16];
        let spec = TensorSpec { name: name.into(), shape, role: TensorRole::Matrix };
        let mut bytes = vec![0; 4 * count];
        Numbers::of(&spec, seed).fill(0, FloatDType::F32, &mut bytes);
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn numbers_have_their_deviation_and_depend_on_seed_and_name() {
        let count = 100_000;
        let values = numbers("a", 1, count);
        let mean =
            |of: &dyn Fn(f64) -> f64| values.iter().map(|x| of(f64::from(*x))).sum::<f64>() / count as f64;
        assert!(mean(&|x| x).abs() < 0.003, "{}", mean(&|x| x));
        // 1 / 16 inputs.
        assert!((mean(&|x| x * x) - 0.0625).abs() < 0.001, "{}", mean(&|x| x * x));
        let neighbours = values.windows(2).map(|pair| f64::from(pair[0] * pair[1])).sum::<f64>();
        assert!((neighbours / count as f64).abs() < 0.001, "{neighbours}");
        assert_ne!(values, numbers("a", 2, count));
        assert_ne!(values, numbers("b", 1, count));
    }

    /// A file is the same however its numbers were shared out.
    #[test]
    fn a_number_depends_on_its_place_alone() {
        let numbers = Numbers::Random { key: 7, scale: 0.5 };
        let (mut whole, mut end) = (vec![0; 200], vec![0; 80]);
        numbers.fill(0, FloatDType::BF16, &mut whole);
        numbers.fill(60, FloatDType::BF16, &mut end);
        assert_eq!(whole[120..], end[..]);
    }
}
