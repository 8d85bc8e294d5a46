//! safetensors files: read through a memory map, written one tensor at a time.

use std::borrow::Cow;
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

    /// The numbers of a tensor, widened.
    pub(crate) fn floats(&self, name: &str, entry: &Entry) -> Result<Vec<f32>, MergeError> {
        let read = reader(entry.dtype).ok_or_else(|| self.not_floats(name, entry))?;
        Ok(self.bytes(entry).chunks_exact(entry.dtype.bitsize() / 8).map(|x| read(x) as f32).collect())
    }

    pub(crate) fn not_floats(&self, name: &str, entry: &Entry) -> MergeError {
        let problem = format!("is {:?}, expected F32, F16, BF16 or F64; convert it first", entry.dtype);
        MergeError::tensor(&self.path, name, problem)
    }
}

/// How one number of `dtype` is read; `None` where it is no float that we do.
pub(crate) fn reader(dtype: Dtype) -> Option<fn(&[u8]) -> f64> {
    const WHOLE: &str = "the file's header was checked against its length";
    match dtype {
        Dtype::F64 => Some(|x| f64::from_le_bytes(x.try_into().expect(WHOLE))),
        Dtype::F32 => Some(|x| f32::from_le_bytes(x.try_into().expect(WHOLE)).into()),
        Dtype::F16 => Some(|x| f16::from_le_bytes(x.try_into().expect(WHOLE)).into()),
        Dtype::BF16 => Some(|x| bf16::from_le_bytes(x.try_into().expect(WHOLE)).into()),
        _ => None,
    }
}

/// Appends `value` as `dtype` and says whether it is finite there.
///
/// # Panics
/// If [`reader`] doesn't do `dtype`.
pub(crate) fn push(bytes: &mut Vec<u8>, dtype: Dtype, value: f64) -> bool {
    match dtype {
        Dtype::F64 => {
            bytes.extend_from_slice(&value.to_le_bytes());
            value.is_finite()
        }
        Dtype::F32 => {
            bytes.extend_from_slice(&(value as f32).to_le_bytes());
            (value as f32).is_finite()
        }
        Dtype::F16 => {
            let value = f16::from_f64(value);
            bytes.extend_from_slice(&value.to_le_bytes());
            value.is_finite()
        }
        Dtype::BF16 => {
            let value = bf16::from_f64(value);
            bytes.extend_from_slice(&value.to_le_bytes());
            value.is_finite()
        }
        other => unreachable!("{other:?} was refused when it was read"),
    }
}

/// Writes a file and waits until it is on the disk; `data` gives one tensor's bytes after another.
pub(crate) fn write<'a>(
    path: &Path,
    tensors: &[(&str, Dtype, &[usize])],
    metadata: Option<HashMap<String, String>>,
    mut data: impl FnMut(&str) -> Result<Cow<'a, [u8]>, MergeError>,
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
    for (name, ..) in tensors {
        out.write_all(&data(name)?).map_err(fail())?;
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
        write(&path, &tensors, None, |name| {
            let dtype = all[names.iter().position(|n| n == name).unwrap()];
            let mut bytes = Vec::new();
            assert!(push(&mut bytes, dtype, 1.5) && push(&mut bytes, dtype, -0.25));
            Ok(bytes.into())
        })
        .unwrap();
        let file = WeightFile::open(&path).unwrap();
        assert_eq!(file.tensors().len(), 4);
        for (name, entry) in file.tensors() {
            assert_eq!(file.floats(name, entry).unwrap(), [1.5, -0.25], "{name}");
        }
    }

    #[test]
    fn what_overflows_is_noticed() {
        assert!(!push(&mut Vec::new(), Dtype::F16, 1e6));
        assert!(push(&mut Vec::new(), Dtype::BF16, 1e6));
        assert!(!push(&mut Vec::new(), Dtype::F32, f64::NAN));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let path = Path::new("/dev/full");
        let error = write(path, &[("x", Dtype::F32, &[1])], None, |_| Ok(vec![0; 4].into())).unwrap_err();
        let MergeError::Io { action: "write", source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    }
}
