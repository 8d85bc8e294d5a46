//! safetensors files: read through a memory map, written one tensor at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use crate::MergeError;

/// The tensors of one file.
pub(crate) struct WeightFile {
    path: PathBuf,
    map: Mmap,
    tensors: BTreeMap<String, Entry>,
    metadata: Option<HashMap<String, String>>,
}

/// Where a tensor stands and what it is.
pub(crate) struct Entry {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    bytes: Range<usize>,
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Self, MergeError> {
        let file = File::open(path).map_err(MergeError::io("read", path))?;
        // SAFETY: the map is only read. A file that shrinks meanwhile would end the process, as it does
        // for every reader of memory-mapped weights; outputs never overwrite a file in place.
        let map = unsafe { Mmap::map(&file) }.map_err(MergeError::io("read", path))?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|source| MergeError::Safetensors { path: path.into(), source })?;
        let start = header + size_of::<u64>();
        let tensors = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (from, to) = info.data_offsets;
                let bytes = start + from..start + to;
                (name, Entry { dtype: info.dtype, shape: info.shape.clone(), bytes })
            })
            .collect();
        Ok(WeightFile { path: path.into(), metadata: metadata.metadata().clone(), map, tensors })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, Entry> {
        &self.tensors
    }

    /// The file's own remarks, such as `format`.
    pub(crate) fn metadata(&self) -> Option<HashMap<String, String>> {
        self.metadata.clone()
    }

    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.map[entry.bytes.clone()]
    }

    /// The numbers of a tensor, as f32.
    pub(crate) fn floats(&self, name: &str, entry: &Entry) -> Result<Vec<f32>, MergeError> {
        widen(entry.dtype, self.bytes(entry)).ok_or_else(|| self.not_floats(name, entry))
    }

    /// Gives back the memory of a tensor that was read and is not needed soon.
    pub(crate) fn release(&self, entry: &Entry) {
        self.release_part(entry, 0..entry.bytes.len());
    }

    /// Gives back the memory of some bytes of a tensor.
    #[cfg(unix)]
    pub(crate) fn release_part(&self, entry: &Entry, bytes: Range<usize>) {
        use memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: nothing was ever written into this map of a file, so pages that are looked at again come
        // back from the file as they were.
        let advised = unsafe {
            self.map.unchecked_advise_range(DontNeed, entry.bytes.start + bytes.start, bytes.len())
        };
        // Where it isn't taken, memory is released later.
        drop(advised);
    }

    #[cfg(not(unix))]
    pub(crate) fn release_part(&self, _entry: &Entry, _bytes: Range<usize>) {}

    pub(crate) fn not_floats(&self, name: &str, entry: &Entry) -> MergeError {
        let problem = format!("is {:?}, expected F32, F16, BF16 or F64; convert it first", entry.dtype);
        MergeError::tensor(&self.path, name, problem)
    }
}

const WHOLE: &str = "the file's header was checked against its length";

/// Little-endian numbers of `dtype` as f32; `None` where they are no floats that we do.
pub(crate) fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let words = |x: &[u8]| -> [u8; 2] { x.try_into().expect(WHOLE) };
    Some(match dtype {
        Dtype::F64 => f64s(dtype, bytes)?.into_iter().map(|x| x as f32).collect(),
        Dtype::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect(WHOLE))).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|x| f16::from_le_bytes(words(x)).to_f32()).collect(),
        Dtype::BF16 => bytes.chunks_exact(2).map(|x| bf16::from_le_bytes(words(x)).to_f32()).collect(),
        _ => return None,
    })
}

/// Little-endian numbers of `dtype` as f64; `None` where they are no floats that we do.
pub(crate) fn f64s(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    match dtype {
        Dtype::F64 => {
            Some(bytes.chunks_exact(8).map(|x| f64::from_le_bytes(x.try_into().expect(WHOLE))).collect())
        }
        _ => Some(widen(dtype, bytes)?.into_iter().map(f64::from).collect()),
    }
}

/// Numbers as `dtype`, little-endian, or the place and value of the first that is not finite there.
///
/// # Panics
/// If [`widen`] doesn't do `dtype`.
pub(crate) fn narrow(dtype: Dtype, numbers: &[f64]) -> Result<Vec<u8>, (usize, f64)> {
    let finite = |is: fn(f64) -> bool| match numbers.iter().position(|x| !is(*x)) {
        None => Ok(()),
        Some(at) => Err((at, numbers[at])),
    };
    match dtype {
        Dtype::F64 => {
            finite(f64::is_finite)?;
            Ok(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
        Dtype::F32 => {
            finite(|x| (x as f32).is_finite())?;
            Ok(f32_bytes(numbers.iter().map(|x| *x as f32)))
        }
        Dtype::F16 => {
            finite(|x| f16::from_f64(x).is_finite())?;
            Ok(numbers.iter().flat_map(|x| f16::from_f64(*x).to_le_bytes()).collect())
        }
        Dtype::BF16 => {
            finite(|x| bf16::from_f64(x).is_finite())?;
            Ok(numbers.iter().flat_map(|x| bf16::from_f64(*x).to_le_bytes()).collect())
        }
        other => unreachable!("{other:?} was refused when it was read"),
    }
}

/// f32, little-endian.
pub(crate) fn f32_bytes(numbers: impl ExactSizeIterator<Item = f32>) -> Vec<u8> {
    let mut bytes = vec![0; 4 * numbers.len()];
    bytes.chunks_exact_mut(4).zip(numbers).for_each(|(place, x)| place.copy_from_slice(&x.to_le_bytes()));
    bytes
}

/// Takes the next bytes of a tensor.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), MergeError>;

/// Writes a file and waits until it is on the disk; `data` gives one tensor's bytes after another, in pieces.
///
/// # Panics
/// If it gives more or fewer than the tensor has.
pub(crate) fn write(
    path: &Path,
    tensors: &[(&str, Dtype, &[usize])],
    metadata: Option<HashMap<String, String>>,
    mut data: impl FnMut(&str, Sink) -> Result<(), MergeError>,
) -> Result<(), MergeError> {
    let mut tensors = tensors.to_vec();
    // The format wants wide numbers first, so that all are aligned.
    tensors.sort_by_key(|(name, dtype, _)| (std::cmp::Reverse(dtype.bitsize()), *name));
    let header = header(path, &tensors, metadata)?;

    let fail = || MergeError::io("write", path);
    let file = File::create(path).map_err(fail())?;
    let mut out = BufWriter::with_capacity(1 << 20, &file);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(fail())?;
    out.write_all(&header).map_err(fail())?;
    for (name, dtype, shape) in tensors {
        let mut missing = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        data(name, &mut |piece| {
            missing = missing.checked_sub(piece.len()).expect("no more bytes than the tensor has");
            out.write_all(piece).map_err(fail())
        })?;
        assert_eq!(missing, 0, "missing bytes of `{name}`");
    }
    out.flush().map_err(fail())?;
    drop(out);
    file.sync_all().map_err(fail())
}

fn header(
    path: &Path,
    tensors: &[(&str, Dtype, &[usize])],
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, MergeError> {
    let mut end = 0;
    let infos = tensors
        .iter()
        .map(|(name, dtype, shape)| {
            let start = end;
            end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (
                name.to_string(),
                TensorInfo { dtype: *dtype, shape: shape.to_vec(), data_offsets: (start, end) },
            )
        })
        .collect();
    let metadata = Metadata::new(metadata, infos)
        .map_err(|source| MergeError::Safetensors { path: path.into(), source })?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|source| MergeError::Json { path: path.into(), source })?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_is_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let all = [Dtype::BF16, Dtype::F64, Dtype::F16, Dtype::F32];
        let names = all.map(|dtype| format!("{dtype:?}"));
        let shape = [2usize];
        let tensors: Vec<_> = names.iter().zip(all).map(|(n, d)| (n.as_str(), d, shape.as_slice())).collect();
        write(&path, &tensors, None, |name, sink| {
            let dtype = all[names.iter().position(|n| n == name).unwrap()];
            sink(&narrow(dtype, &[1.5]).unwrap())?;
            sink(&narrow(dtype, &[-0.25]).unwrap())
        })
        .unwrap();
        let file = WeightFile::open(&path).unwrap();
        assert_eq!(file.tensors().len(), 4);
        for (name, entry) in file.tensors() {
            assert_eq!(file.floats(name, entry).unwrap(), [1.5, -0.25], "{name}");
            file.release(entry);
            assert_eq!(f64s(entry.dtype, file.bytes(entry)).unwrap(), [1.5, -0.25], "{name}");
        }
    }

    #[test]
    fn what_overflows_is_noticed() {
        assert_eq!(narrow(Dtype::F16, &[1.0, 1e6]), Err((1, 1e6)));
        assert!(narrow(Dtype::BF16, &[1e6]).is_ok());
        assert_eq!(narrow(Dtype::F32, &[1e300]), Err((0, 1e300)));
        assert!(narrow(Dtype::F32, &[f64::NAN]).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let path = Path::new("/dev/full");
        let error = write(path, &[("x", Dtype::F32, &[1])], None, |_, sink| sink(&[0; 4])).unwrap_err();
        let MergeError::Io { action: "write", source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    }
}
