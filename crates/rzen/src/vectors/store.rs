//! Vectors that outlive a run: one file for each model and way of reading, vectors by content.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::content::Key;
use crate::files::{self, hex};

const MAGIC: &[u8; 8] = b"rzenvec1";
/// Magic, the model's key, the vectors' size, a checksum of these.
const HEADER: usize = 8 + 32 + 4 + 4;

/// A file of vectors, which only grows.
///
/// After a header come records of a key, a vector in little-endian f32, and a checksum. What a killed program had begun to
/// write at the end is cut off when the file is opened again; a record that the disk spoilt is passed over, and its item embedded
/// again.
#[derive(Debug)]
pub struct VectorStore {
    path: PathBuf,
    file: File,
    model: Key,
    dim: Option<usize>,
    places: HashMap<Key, u64>,
    /// Where records stand that were spoilt, which new ones replace.
    spoilt: Vec<u64>,
}

impl VectorStore {
    /// Opens the vectors of `model` in `folder`, which is made where it isn't there. `model` is a hash of everything besides an
    /// item that its vector depends on.
    ///
    /// # Errors
    /// If the file can't be read or written, is no such file, or another program has it open.
    pub fn open(folder: &Path, model: &Key) -> Result<Self> {
        let path = file_of(folder, model);
        let advice = || format!("the vectors {}; may the folder be written?", path.display());
        fs::create_dir_all(folder).with_context(advice)?;
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).with_context(advice)?;
        if let Some(warning) = warning_of_lock(file.try_lock(), &path)? {
            eprintln!("{warning}");
        }
        let Found { dim, places, end, spoilt } =
            read(&file, model).with_context(|| format!("the vectors {}", path.display()))?;
        if !spoilt.is_empty() {
            eprintln!(
                "{} of the vectors in {} are not as they were written, and are computed again where they are needed; is the disk sound?",
                spoilt.len(),
                path.display()
            );
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).with_context(advice)?;
        Ok(VectorStore { path, file, model: *model, dim, places, spoilt })
    }

    /// Opens the vectors of `model` in `folder` to read them alone, as several programs may at once, beside one that adds some.
    ///
    /// # Errors
    /// If there is no such file, or it can't be read.
    pub fn open_to_read(folder: &Path, model: &Key) -> Result<Self> {
        let path = file_of(folder, model);
        let advice = || format!("the vectors {}", path.display());
        let file = File::open(&path).with_context(advice)?;
        let Found { dim, places, spoilt, .. } = read(&file, model).with_context(advice)?;
        Ok(VectorStore { path, file, model: *model, dim, places, spoilt })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, which nobody else has open while it is; where that fails it stays, and is told.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!(
                "can't remove the vectors {}: {error}; nothing needs them any more",
                self.path.display()
            );
        }
    }

    /// Vectors held.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if nothing is held.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Numbers in a vector; `None` as long as there is none.
    pub fn dim(&self) -> Option<usize> {
        self.dim
    }

    /// Whether a vector is held.
    pub fn contains(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    /// Adds vectors; they are on the disk when this returns.
    ///
    /// # Errors
    /// If the file can't be written, or a vector has another size than the others.
    pub fn add(&mut self, vectors: &[(Key, Vec<f32>)]) -> Result<()> {
        let Some((_, first)) = vectors.first() else { return Ok(()) };
        let mut bytes = Vec::new();
        let dim = *self.dim.get_or_insert(first.len());
        if self.places.is_empty() {
            bytes = header(&self.model, dim);
            self.file.seek(SeekFrom::Start(0))?;
        }
        let mut end = self.file.stream_position()? + bytes.len() as u64;
        let mut replaced = Vec::new();
        for (key, vector) in vectors {
            ensure!(vector.len() == dim, "a vector has {} numbers, expected {dim}", vector.len());
            let start = bytes.len();
            bytes.extend_from_slice(key);
            bytes.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
            bytes.extend_from_slice(&crc32c::crc32c(&bytes[start..]).to_le_bytes());
            let place = match self.spoilt.pop() {
                None => end,
                Some(place) => {
                    replaced.push((place, bytes.split_off(start)));
                    place
                }
            };
            self.places.insert(*key, place);
            end += if place == end { record(dim) as u64 } else { 0 };
        }
        let mut write = || {
            self.file.write_all(&bytes)?;
            for (place, record) in &replaced {
                self.file.seek(SeekFrom::Start(*place))?;
                self.file.write_all(record)?;
            }
            self.file.seek(SeekFrom::Start(end))?;
            self.file.sync_data()
        };
        let written = write();
        written.with_context(|| {
            format!("can't write the vectors {}; is there room on the disk?", self.path.display())
        })
    }

    /// The vectors of `keys`, one after another.
    ///
    /// # Errors
    /// If the file can't be read, or no longer holds what was written there.
    ///
    /// # Panics
    /// If one is not held.
    pub fn rows(&mut self, keys: &[Key]) -> Result<Vec<f32>> {
        let dim = self.dim.unwrap_or(0);
        let end = self.file.stream_position()?;
        let mut rows = vec![0.0; keys.len() * dim];
        let mut bytes = Vec::new();
        let place = |key| *self.places.get(key).expect("only vectors that are held are asked for");
        // In the order of the file, as disks like to be read.
        let mut wanted: Vec<(u64, usize)> =
            keys.iter().enumerate().map(|(at, key)| (place(key), at)).collect();
        wanted.sort_unstable();
        let mut read = |rows: &mut [f32]| -> Result<()> {
            let length = record(dim);
            // Records that follow one another are read at once, a megabyte or so.
            let runs = wanted.chunk_by(|one, next| next.0 - one.0 == length as u64);
            for run in runs.flat_map(|run| run.chunks((1 << 20) / length + 1)) {
                bytes.resize(run.len() * length, 0);
                self.file.seek(SeekFrom::Start(run[0].0))?;
                self.file.read_exact(&mut bytes)?;
                for ((place, at), record) in run.iter().zip(bytes.chunks_exact(length)) {
                    let body = whole_record(record).filter(|body| body.starts_with(&keys[*at]));
                    let body =
                        body.with_context(|| format!("what was written at byte {place} is not there"))?;
                    let row = &mut rows[at * dim..][..dim];
                    row.iter_mut().zip(numbers(&body[32..])).for_each(|(row, number)| *row = number);
                }
            }
            Ok(self.file.seek(SeekFrom::Start(end)).map(drop)?)
        };
        read(&mut rows).with_context(|| {
            format!(
                "can't read the vectors {}; if another program wrote to the file, or the disk lost some of it, remove it: \
                 its items are embedded again",
                self.path.display()
            )
        })?;
        Ok(rows)
    }
}

fn file_of(folder: &Path, model: &Key) -> PathBuf {
    folder.join(format!("{}.vectors", &hex(model)[..16]))
}

/// What to say about a file that could not be locked.
///
/// # Errors
/// If another program has it locked.
fn warning_of_lock(lock: Result<(), TryLockError>, path: &Path) -> Result<Option<String>> {
    files::warning_of_lock(
        lock,
        path,
        "another rzen has it open; wait for it, or name other --vectors",
        "see that no other rzen uses it meanwhile, or name --vectors on a disk that can lock",
    )
}

/// Bytes of a record.
fn record(dim: usize) -> usize {
    32 + dim * 4 + 4
}

fn header(model: &Key, dim: usize) -> Vec<u8> {
    let mut bytes = [MAGIC.as_slice(), model, &(dim as u32).to_le_bytes()].concat();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|number| f32::from_le_bytes(*number))
}

/// What a file holds.
struct Found {
    /// The size of the vectors.
    dim: Option<usize>,
    /// Where each whole record begins.
    places: HashMap<Key, u64>,
    /// Where the last whole one ends.
    end: u64,
    /// Where records before that begin which are not whole.
    spoilt: Vec<u64>,
}

fn read(file: &File, model: &Key) -> Result<Found> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut head = [0; HEADER];
    let mut places = HashMap::new();
    let filled = fill(&mut reader, &mut head)?;
    let known = filled.min(MAGIC.len());
    ensure!(head[..known] == MAGIC[..known], FOREIGN);
    if filled < HEADER {
        // The first program was killed before it had written anything.
        return Ok(Found { dim: None, places, end: 0, spoilt: Vec::new() });
    }
    let dim = u32::from_le_bytes([head[40], head[41], head[42], head[43]]) as usize;
    ensure!(head[..] == header(model, dim)[..], FOREIGN);
    let mut bytes = vec![0; record(dim)];
    let (mut place, mut end) = (HEADER as u64, 0);
    let mut spoilt = Vec::new();
    while fill(&mut reader, &mut bytes)? == bytes.len() {
        let next = place + bytes.len() as u64;
        match whole_record(&bytes) {
            None => spoilt.push(place),
            Some(body) => {
                places.insert(body[..32].try_into().expect("a key has 32 bytes"), place);
                end = next;
            }
        }
        place = next;
    }
    // What is wrong at the end is what a killed program had begun.
    spoilt.retain(|place| *place < end);
    // Without a vector the header is written again, with the size of the next one.
    Ok(Found { dim: (!places.is_empty()).then_some(dim), places, end, spoilt })
}

/// Key and numbers of a record whose checksum holds.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let (body, sum) = bytes.split_at(bytes.len() - 4);
    (crc32c::crc32c(body).to_le_bytes() == *sum).then_some(body)
}

const FOREIGN: &str = "this is no file of this model's vectors; remove it";

/// Reads into `bytes` until they are full or the file ends; returns how many were read.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Key = [7; 32];

    fn vectors(count: u8) -> Vec<(Key, Vec<f32>)> {
        (0..count).map(|i| ([i; 32], vec![f32::from(i), 0.5, -1.0])).collect()
    }

    #[test]
    fn vectors_are_there_again_after_the_program_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let open = || VectorStore::open(folder.path(), &MODEL).unwrap();
        let mut store = open();
        assert_eq!((store.len(), store.dim()), (0, None));
        store.add(&vectors(2)).unwrap();
        store.add(&vectors(4)[2..]).unwrap();
        assert_eq!(store.rows(&[[3; 32], [0; 32]]).unwrap(), [3.0, 0.5, -1.0, 0.0, 0.5, -1.0]);
        let path = store.path().to_owned();
        drop(store);
        // Killed while the last vector was written, or before anything was.
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let mut store = open();
        assert_eq!((store.len(), store.contains(&[3; 32])), (3, false));
        store.add(&vectors(4)[3..]).unwrap();
        drop(store);
        assert_eq!(fs::read(&path).unwrap(), whole);
        for cut in [0, 5, HEADER - 1, HEADER, HEADER + 20] {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut store = open();
            assert!(store.is_empty());
            store.add(&vectors(4)).unwrap();
            drop(store);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
        // A disk that lost a byte loses that vector alone.
        let mut spoilt = whole.clone();
        spoilt[HEADER + 40] ^= 1;
        fs::write(&path, &spoilt).unwrap();
        let mut store = open();
        assert_eq!((store.len(), store.contains(&[0; 32])), (3, false));
        assert_eq!(store.rows(&[[3; 32]]).unwrap(), [3.0, 0.5, -1.0]);
        // It comes back to its place, and others behind the last.
        store.add(&[vectors(1), vectors(6)[4..].to_vec()].concat()).unwrap();
        assert_eq!(store.rows(&[[5; 32], [0; 32]]).unwrap(), [5.0, 0.5, -1.0, 0.0, 0.5, -1.0]);
        drop(store);
        assert_eq!(fs::read(&path).unwrap()[..whole.len()], whole);
        let mut store = open();
        assert_eq!((store.len(), store.spoilt.len()), (6, 0));
        assert_eq!(store.rows(&[[4; 32], [3; 32]]).unwrap(), [4.0, 0.5, -1.0, 3.0, 0.5, -1.0]);
    }

    #[test]
    fn what_changed_under_an_open_store_is_not_taken_for_a_vector() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = VectorStore::open(folder.path(), &MODEL).unwrap();
        store.add(&vectors(3)).unwrap();
        let whole = fs::read(store.path()).unwrap();
        let second = HEADER + record(3);
        // A lost byte, another vector in its place, and a file that was cut.
        let mut spoilt = whole.clone();
        spoilt[second + 40] ^= 1;
        let mut moved = whole.clone();
        moved.copy_within(HEADER..second, second);
        for bytes in [&spoilt[..], &moved, &whole[..second + 9]] {
            fs::write(store.path(), bytes).unwrap();
            assert_eq!(store.rows(&[[0; 32]]).unwrap(), [0.0, 0.5, -1.0]);
            let error = format!("{:#}", store.rows(&[[0; 32], [1; 32]]).unwrap_err());
            assert!(error.contains(".vectors") && error.contains("remove it"), "{error}");
        }
        fs::write(store.path(), whole).unwrap();
        assert_eq!(store.rows(&[[1; 32]]).unwrap(), [1.0, 0.5, -1.0]);
    }

    #[test]
    fn a_disk_that_can_not_lock_is_told() {
        let path = Path::new("v/07.vectors");
        let failed = TryLockError::Error(std::io::Error::other("no locks"));
        let warning = warning_of_lock(Err(failed), path).unwrap().unwrap();
        assert!(warning.contains("07.vectors") && warning.contains("no locks"), "{warning}");
        assert!(warning.contains("--vectors"), "{warning}");
        assert_eq!(warning_of_lock(Ok(()), path).unwrap(), None);
        assert!(warning_of_lock(Err(TryLockError::WouldBlock), path).is_err());
    }

    #[test]
    fn other_models_and_other_files_are_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = VectorStore::open(folder.path(), &MODEL).unwrap();
        store.add(&vectors(2)).unwrap();
        let busy = VectorStore::open(folder.path(), &MODEL).unwrap_err().to_string();
        assert!(busy.contains("another rzen"), "{busy}");
        assert!(store.add(&[([9; 32], vec![1.0])]).unwrap_err().to_string().contains("1 numbers"));
        let mut other = [7; 32];
        other[31] = 8;
        assert!(VectorStore::open(folder.path(), &[8; 32]).unwrap().is_empty());
        let path = store.path().to_owned();
        drop(store);
        // The same beginning of the name, another model.
        let error = format!("{:#}", VectorStore::open(folder.path(), &other).unwrap_err());
        assert!(error.contains("remove it") && error.contains(".vectors"), "{error}");
        fs::write(&path, "my notes, which are longer than any header of such a file may be").unwrap();
        assert!(VectorStore::open(folder.path(), &MODEL).is_err());
        assert!(fs::read_to_string(&path).unwrap().starts_with("my notes"));
    }
}
