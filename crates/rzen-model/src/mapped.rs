//! Numbers of a mapped file: used where they stand, or converted in one pass.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, FloatDType, TensorData};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::vec::HalfBitsVecExt;
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::ModelError;

/// A file in memory, read from disk page by page as it is looked at.
pub(crate) struct MappedFile {
    pub(crate) path: PathBuf,
    bytes: Mmap,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::io(path))?;
        // SAFETY: the map is read-only, and lives as long as a model whose weights stand in it. Nobody may
        // write into the file or cut it off meanwhile. This program never does: it writes new files and renames
        // them, which leaves the old one whole until its last map is gone. Another program that rewrites a
        // checkpoint in place while it is in use can't be guarded against, nor while it is being read.
        let bytes = unsafe { Mmap::map(&file) }.map_err(ModelError::io(path))?;
        Ok(MappedFile { path: path.to_owned(), bytes })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives back the memory of a part that was read and is not needed soon.
    #[cfg(unix)]
    fn release(&self, range: &Range<usize>) {
        use memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: nothing was ever written into this map of a file, so pages that are looked at again come
        // back from the file as they were.
        let advised = unsafe { self.bytes.unchecked_advise_range(DontNeed, range.start, range.len()) };
        // Where it isn't taken, memory is released later.
        drop(advised);
    }

    #[cfg(not(unix))]
    fn release(&self, _range: &Range<usize>) {}
}

/// Where a tensor stands in a file.
pub(crate) struct Stored {
    pub(crate) file: Arc<MappedFile>,
    /// Its name there.
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) range: Range<usize>,
}

/// Numbers that are converted and checked by one thread at a time.
const BLOCK: usize = 1 << 16;

impl Stored {
    /// Its numbers as `dtype`, in a tensor of this shape.
    ///
    /// Numbers that are stored so stay in the file's pages, and are copied where somebody writes on them. Others
    /// are converted, and the pages that they came from are released.
    ///
    /// # Errors
    /// If numbers are stored as something else than floats of 16 or 32 bits, or one is not finite, or is infinite
    /// as `dtype`.
    pub(crate) fn read(&self, shape: &[usize], dtype: FloatDType) -> Result<TensorData, ModelError> {
        let format = Format::of(self.dtype).ok_or_else(|| ModelError::Dtype {
            file: self.file.path.clone(),
            name: self.name.clone(),
            found: format!("{:?}", self.dtype),
        })?;
        if format.dtype() == dtype && self.can_be_shared(format) {
            self.check(format, dtype)?;
            return Ok(TensorData::from_bytes(self.shared(), shape.to_vec(), dtype.into()));
        }
        let data = match dtype {
            FloatDType::BF16 => {
                let narrow = |x: &[f32], out: &mut [u16]| {
                    out.reinterpret_cast_mut::<half::bf16>().convert_from_f32_slice(x);
                };
                TensorData::new(
                    self.narrowed(format, dtype, narrow)?.reinterpret_into::<half::bf16>(),
                    shape.to_vec(),
                )
            }
            FloatDType::F16 => {
                let narrow = |x: &[f32], out: &mut [u16]| {
                    out.reinterpret_cast_mut::<half::f16>().convert_from_f32_slice(x);
                };
                TensorData::new(
                    self.narrowed(format, dtype, narrow)?.reinterpret_into::<half::f16>(),
                    shape.to_vec(),
                )
            }
            _ => TensorData::new(self.widened(format, dtype)?, shape.to_vec()).convert_dtype(dtype.into()),
        };
        self.file.release(&self.range);
        Ok(data)
    }

    fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }

    /// Whether the file's pages can be a tensor's memory. Elsewhere than on unix, a file that is mapped could not be
    /// renamed over or removed.
    fn can_be_shared(&self, format: Format) -> bool {
        let aligned = self.bytes().as_ptr().addr().is_multiple_of(format.size());
        cfg!(all(unix, target_endian = "little")) && aligned
    }

    /// The file's pages, kept mapped for as long as they are used.
    fn shared(&self) -> Bytes {
        struct Whole(Arc<MappedFile>);
        impl AsRef<[u8]> for Whole {
            fn as_ref(&self) -> &[u8] {
                self.0.bytes()
            }
        }
        let whole = bytes::Bytes::from_owner(Whole(self.file.clone()));
        Bytes::from_shared(whole.slice(self.range.clone()), AllocationProperty::File)
    }

    fn widened(&self, format: Format, dtype: FloatDType) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0f32; self.bytes().len() / format.size()];
        let limit = overflow(dtype);
        let blocks = values.par_chunks_mut(BLOCK).zip(self.bytes().par_chunks(BLOCK * format.size()));
        let bad = blocks.map(|(out, bytes)| {
            format.widen(bytes, out);
            any_from(out, limit)
        });
        self.refuse_if(bad.reduce(|| false, |a, b| a | b), format, dtype)?;
        Ok(values)
    }

    /// The bits of its numbers as 16-bit floats, made by `narrow`.
    fn narrowed(
        &self,
        format: Format,
        dtype: FloatDType,
        narrow: impl Fn(&[f32], &mut [u16]) + Sync,
    ) -> Result<Vec<u16>, ModelError> {
        let mut values = vec![0u16; self.bytes().len() / format.size()];
        let limit = overflow(dtype);
        let blocks = values.par_chunks_mut(BLOCK).zip(self.bytes().par_chunks(BLOCK * format.size()));
        let bad = blocks.map(|(out, bytes)| {
            let mut wide = vec![0f32; out.len()];
            format.widen(bytes, &mut wide);
            narrow(&wide, out);
            any_from(&wide, limit)
        });
        self.refuse_if(bad.reduce(|| false, |a, b| a | b), format, dtype)?;
        Ok(values)
    }

    fn check(&self, format: Format, dtype: FloatDType) -> Result<(), ModelError> {
        let limit = overflow(dtype);
        let bad = self.bytes().par_chunks(BLOCK * format.size()).map_init(
            || vec![0f32; BLOCK],
            |wide, bytes| {
                let wide = &mut wide[..bytes.len() / format.size()];
                format.widen(bytes, wide);
                any_from(wide, limit)
            },
        );
        self.refuse_if(bad.reduce(|| false, |a, b| a | b), format, dtype)
    }

    /// Says which number is bad; one that is not finite goes before one that is too large.
    fn refuse_if(&self, bad: bool, format: Format, dtype: FloatDType) -> Result<(), ModelError> {
        if !bad {
            return Ok(());
        }
        let mut values = vec![0f32; self.bytes().len() / format.size()];
        format.widen(self.bytes(), &mut values);
        let (file, name) = (self.file.path.clone(), self.name.clone());
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(ModelError::NotFinite { file, name, found: values[at], at });
        }
        let limit = overflow(dtype);
        let at = values.iter().position(|x| x.abs() >= limit).expect("a number was found to be bad");
        Err(ModelError::TooLarge { file, name, found: values[at], at, dtype: DType::from(dtype).name() })
    }
}

/// Whether a number's size is `limit` or more, or it is not a number.
fn any_from(values: &[f32], limit: f32) -> bool {
    let limit = limit.to_bits();
    // Bits without the sign are in the order of sizes, NaN last. Without an early end several are compared at once.
    values.iter().fold(false, |bad, x| bad | (x.abs().to_bits() >= limit))
}

/// The least number that rounds to infinity.
fn overflow(dtype: FloatDType) -> f32 {
    match dtype {
        FloatDType::F16 => 65520.0,
        FloatDType::BF16 => f32::from_bits(0x7f7f_8000),
        _ => f32::INFINITY,
    }
}

/// How numbers are stored.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    F32,
    F16,
    BF16,
}

impl Format {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Format::F32),
            Dtype::F16 => Some(Format::F16),
            Dtype::BF16 => Some(Format::BF16),
            _ => None,
        }
    }

    fn dtype(self) -> FloatDType {
        match self {
            Format::F32 => FloatDType::F32,
            Format::F16 => FloatDType::F16,
            Format::BF16 => FloatDType::BF16,
        }
    }

    fn size(self) -> usize {
        if self == Format::F32 { 4 } else { 2 }
    }

    /// Numbers of a file, which may stand anywhere, as f32.
    fn widen(self, bytes: &[u8], out: &mut [f32]) {
        let pairs = bytes.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair));
        match self {
            Format::F32 => {
                let values = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four));
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            }
            Format::BF16 => {
                let values = pairs.map(|bits| f32::from_bits(u32::from(bits) << 16));
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
            }
            Format::F16 => {
                let bits: Vec<u16> = pairs.collect();
                bits.reinterpret_cast::<half::f16>().convert_to_f32_slice(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numbers` at a place of a file that is `shift` bytes off from an even one.
    fn stored(folder: &Path, shift: usize, dtype: Dtype, numbers: &[u8]) -> Stored {
        let path = folder.join(format!("{shift}"));
        std::fs::write(&path, [&vec![0; 8 + shift], numbers, &[0; 3]].concat()).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        Stored { file, name: "x".into(), dtype, range: 8 + shift..8 + shift + numbers.len() }
    }

    fn bits(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()
    }

    fn place(data: &TensorData) -> usize {
        data.as_bytes().as_ptr().addr()
    }

    #[test]
    fn what_is_stored_as_it_is_asked_for_is_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = bits(&[1.0, -2.5, 0.0, 3e38]);
        let mapped = stored(folder.path(), 0, Dtype::BF16, &numbers);
        let data = mapped.read(&[2, 2], FloatDType::BF16).unwrap();
        assert_eq!(place(&data) == mapped.bytes().as_ptr().addr(), cfg!(unix));
        assert_eq!(data.as_bytes(), numbers);
        // Copied, for numbers would stand across the words of memory.
        let odd = stored(folder.path(), 1, Dtype::BF16, &numbers);
        let copied = odd.read(&[2, 2], FloatDType::BF16).unwrap();
        assert_ne!(place(&copied), odd.bytes().as_ptr().addr());
        assert_eq!(copied.as_bytes(), numbers);
        assert_eq!(data, copied);
    }

    /// A model that is trained, or whose file is replaced, must not see or change the other's numbers.
    #[test]
    fn writing_on_a_mapped_tensor_leaves_the_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = bits(&[1.0, 2.0]);
        let mapped = stored(folder.path(), 0, Dtype::BF16, &numbers);
        let mut data = mapped.read(&[2], FloatDType::BF16).unwrap();
        let other = data.clone();
        data.as_mut_slice::<half::bf16>().unwrap()[0] = half::bf16::from_f32(7.0);
        assert_eq!(data.as_slice::<half::bf16>().unwrap()[0].to_f32(), 7.0);
        assert_eq!(other.as_bytes(), numbers);
        assert_eq!(mapped.bytes(), numbers);
        // The map outlives the list of tensors and the file's name.
        let path = mapped.file.path.clone();
        drop(mapped);
        std::fs::remove_file(path).unwrap();
        assert_eq!(other.as_bytes(), numbers);
    }

    #[test]
    fn every_type_becomes_every_other() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..3 * BLOCK + 5).map(|i| (i as f32 - 1000.0) / 8.0).map(f32::sin).collect();
        let f32s: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let types = [(Dtype::F32, f32s), (Dtype::F16, f16s), (Dtype::BF16, bits(&values))];
        for (dtype, bytes) in types {
            let stored = stored(folder.path(), 0, dtype, &bytes);
            let format = Format::of(dtype).unwrap();
            let mut wide = vec![0.0; values.len()];
            format.widen(&bytes, &mut wide);
            assert!(wide.iter().zip(&values).all(|(a, b)| (a - b).abs() < 4e-3));
            for to in [FloatDType::F32, FloatDType::F16, FloatDType::BF16] {
                let expected = TensorData::new(wide.clone(), [values.len()]).convert_dtype(to.into());
                assert_eq!(stored.read(&[values.len()], to).unwrap().as_bytes(), expected.as_bytes());
            }
        }
    }

    #[test]
    fn the_first_bad_number_of_a_large_tensor_is_placed() {
        let folder = tempfile::tempdir().unwrap();
        let at = 2 * BLOCK + 77;
        let refusal = |values: &[f32], to| {
            let mut both = [Dtype::F32, Dtype::BF16].map(|dtype| {
                let bytes = match dtype {
                    Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                    _ => bits(values),
                };
                stored(folder.path(), 0, dtype, &bytes).read(&[values.len()], to).unwrap_err().to_string()
            });
            both[1] = both[1].replace("70144", "70000");
            assert_eq!(both[0], both[1]);
            both[0].clone()
        };
        let mut values = vec![1f32; 4 * BLOCK];
        values[at] = f32::NAN;
        values[at + BLOCK] = f32::INFINITY;
        for to in [FloatDType::F32, FloatDType::F16, FloatDType::BF16] {
            let error = refusal(&values, to);
            assert!(error.contains(&format!("`x` holds NaN at element {at};")), "{error}");
        }
        (values[at], values[at + BLOCK]) = (1.0, 70_000.0);
        let error = refusal(&values, FloatDType::F16);
        assert!(
            error.contains(&format!("70000 at element {}, which is infinite as f16", at + BLOCK)),
            "{error}"
        );
        values[4 * BLOCK - 1] = f32::NEG_INFINITY;
        let error = refusal(&values, FloatDType::F16);
        assert!(error.contains(&format!("-inf at element {}", 4 * BLOCK - 1)), "{error}");
    }

    #[test]
    fn what_overflows_is_what_rounds_to_infinity() {
        let before = |x: f32| f32::from_bits(x.to_bits() - 1);
        let f16 = overflow(FloatDType::F16);
        assert!(half::f16::from_f32(f16).is_infinite() && half::f16::from_f32(before(f16)).is_finite());
        let bf16 = overflow(FloatDType::BF16);
        assert!(half::bf16::from_f32(bf16).is_infinite() && half::bf16::from_f32(before(bf16)).is_finite());
    }
}
