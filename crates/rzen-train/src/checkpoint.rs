//! Folders that a run can be taken up from.
//!
//! A checkpoint is written under a temporary name, synced to the disk and renamed, so that a folder
//! under its final name is whole; what is not (copied by halves, cut or spoilt by a broken disk) is found by the
//! sizes and sums in `state.json`, the file written last.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use burn::module::Module;
use rzen_core::SaveWeights;
use serde_json::Value;

use crate::optimizer::Optimizer;
use crate::retention::{TEMPORARY, clear_temporary, drop_old, list, remove, with_suffix};
use crate::state::FORMAT;
use crate::{CheckpointError, Contrastive, State};

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.bpk";

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Where it lies.
    pub folder: PathBuf,
    /// What it says about itself.
    pub state: State,
}

/// The newest checkpoint of a run.
#[derive(Debug)]
pub struct Latest {
    /// The newest complete one, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// Newer folders that are not complete, and why.
    pub skipped: Vec<CheckpointError>,
}

impl Checkpoint {
    /// Opens a checkpoint whose files are all there and of the size that they had.
    ///
    /// # Errors
    /// [`CheckpointError::Incomplete`] names the file that is missing or cut; [`CheckpointError::Io`] one that the system
    /// doesn't let be read; [`CheckpointError::Format`] a checkpoint of another version.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let incomplete =
            |problem: String| CheckpointError::Incomplete { folder: folder.to_path_buf(), problem };
        let text = fs::read_to_string(folder.join(STATE)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
                incomplete(format!("`{STATE}` can't be read ({error})"))
            }
            _ => io("read", &folder.join(STATE))(error),
        })?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| incomplete(format!("`{STATE}` is not JSON ({error})")))?;
        let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
        if format != u64::from(FORMAT) {
            return Err(CheckpointError::Format {
                folder: folder.to_path_buf(),
                found: format,
                expected: FORMAT,
            });
        }
        let state: State = serde_json::from_value(value)
            .map_err(|error| incomplete(format!("`{STATE}` can't be understood ({error})")))?;
        for (name, expected) in &state.files {
            match fs::metadata(folder.join(name)) {
                Ok(found) if found.len() == *expected => {}
                Ok(found) => {
                    return Err(incomplete(format!(
                        "`{name}` has {} bytes, expected {expected}",
                        found.len()
                    )));
                }
                Err(error) => return Err(incomplete(format!("`{name}` can't be read ({error})"))),
            }
        }
        Ok(Checkpoint { folder: folder.to_path_buf(), state })
    }

    /// Reads every file and compares its sum with the one that was written down.
    ///
    /// # Errors
    /// [`CheckpointError::Incomplete`] names the file that is other than it was.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        for (name, expected) in &self.state.sums {
            let path = self.folder.join(name);
            let found = sum(&path).map_err(io("read", &path))?;
            if found != *expected {
                let problem = format!(
                    "`{name}` is not as it was written (CRC-32C {found:08x}, expected {expected:08x})"
                );
                return Err(CheckpointError::Incomplete { folder: self.folder.clone(), problem });
            }
        }
        Ok(())
    }

    /// The folder that the encoder saved its weights to.
    pub fn encoder(&self) -> PathBuf {
        self.folder.join("encoder")
    }

    /// The folder that the objective saved its weights to.
    pub fn objective(&self) -> PathBuf {
        self.folder.join("objective")
    }

    /// Gives the optimizer its moments back.
    pub(crate) fn restore(&self, optimizer: Optimizer) -> Result<Optimizer, CheckpointError> {
        let path = self.folder.join(OPTIMIZER);
        let (optimizer, found) = optimizer.load(&path).map_err(|source| CheckpointError::Optimizer {
            action: "read",
            path,
            source,
        })?;
        let expected = self.state.optimizer_tensors;
        if found != expected {
            let problem = format!("`{OPTIMIZER}` holds {found} tensors, expected {expected}");
            return Err(CheckpointError::Incomplete { folder: self.folder.clone(), problem });
        }
        Ok(optimizer)
    }
}

/// Looks for the newest complete checkpoint under `run` (a [`RunFolder::path`](crate::RunFolder::path)), and reads it
/// whole to be sure.
///
/// Temporary folders are passed over in silence; a run that has none yet gives `None`.
///
/// # Errors
/// If the folder is there and can't be read, if a checkpoint is of another version, and [`CheckpointError::NoneWhole`] if there
/// are some and none is complete: a run that began anew would overwrite them.
pub fn latest(run: &Path) -> Result<Latest, CheckpointError> {
    let checkpoints = run.join("checkpoints");
    let mut skipped = Vec::new();
    for (_, folder) in list(&checkpoints)?.into_iter().rev() {
        let whole = Checkpoint::open(&folder).and_then(|found| found.verify().map(|()| found));
        match whole {
            Ok(checkpoint) => return Ok(Latest { checkpoint: Some(checkpoint), skipped }),
            Err(error @ CheckpointError::Incomplete { .. }) => skipped.push(error),
            Err(error) => return Err(error),
        }
    }
    match skipped.first() {
        Some(newest) => Err(CheckpointError::NoneWhole { checkpoints, newest: newest.to_string() }),
        None => Ok(Latest { checkpoint: None, skipped }),
    }
}

/// Where the checkpoint of a step lies.
pub(crate) fn folder(checkpoints: &Path, step: usize) -> PathBuf {
    checkpoints.join(format!("step_{step:06}"))
}

/// Writes a checkpoint into `checkpoints`, which lies in the run's folder, and then drops those that `state.config`
/// does not keep.
///
/// `state` comes without its files and tensors; the model is on the plain device.
pub(crate) fn save<E, O>(
    checkpoints: &Path,
    model: &Contrastive<E, O>,
    optimizer: &Optimizer,
    mut state: State,
) -> Result<PathBuf, CheckpointError>
where
    E: Module + SaveWeights,
    O: Module + SaveWeights,
{
    fs::create_dir_all(checkpoints).map_err(io("make the folder", checkpoints))?;
    // The folders may be new, and so may `metrics.jsonl`.
    checkpoints.ancestors().skip(1).take(2).try_for_each(sync_folder)?;
    clear_temporary(checkpoints)?;
    let folder = folder(checkpoints, state.step);
    let temporary = Temporary::create(&folder)?;
    save_part("encoder", &model.encoder, &temporary.path)?;
    save_part("objective", &model.objective, &temporary.path)?;
    let path = temporary.path.join(OPTIMIZER);
    state.optimizer_tensors = optimizer.save(&path).map_err(|source| CheckpointError::Optimizer {
        action: "write",
        path,
        source,
    })?;
    state.files = sync_files(&temporary.path)?;
    for name in state.files.keys() {
        let path = temporary.path.join(name);
        state.sums.insert(name.clone(), sum(&path).map_err(io("read", &path))?);
    }
    write_state(&temporary.path.join(STATE), &state)?;
    sync_folder(&temporary.path)?;
    temporary.rename(&folder)?;
    drop_old(checkpoints, state.step, &state.config)?;
    Ok(folder)
}

fn save_part(part: &'static str, weights: &impl SaveWeights, folder: &Path) -> Result<(), CheckpointError> {
    let folder = folder.join(part);
    fs::create_dir(&folder).map_err(io("make the folder", &folder))?;
    weights.save_weights(&folder).map_err(|source| CheckpointError::Weights { part, folder, source })
}

fn write_state(path: &Path, state: &State) -> Result<(), CheckpointError> {
    let text = serde_json::to_string_pretty(state).expect("a state has string keys alone");
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(io("write", path))
}

/// A folder that is removed unless it gets its name.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Makes an empty folder beside `folder`.
    fn create(folder: &Path) -> Result<Self, CheckpointError> {
        let path = with_suffix(folder, TEMPORARY);
        fs::create_dir(&path).map_err(io("make the folder", &path))?;
        Ok(Temporary { path })
    }

    /// Puts the folder in the place of `folder`, which may be there from a run that was cut off.
    fn rename(self, folder: &Path) -> Result<(), CheckpointError> {
        if folder.exists() {
            remove(folder)?;
        }
        fs::rename(&self.path, folder).map_err(io("rename to", folder))?;
        sync_folder(folder.parent().expect("a checkpoint lies in a folder"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing left; if the disk refuses, the next save tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub(crate) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, CheckpointError> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())))
            .collect::<io::Result<Vec<_>>>()
    };
    read().map_err(io("read the folder", folder))
}

/// Syncs every file under `root` and gives their sizes by relative path.
fn sync_files(root: &Path) -> Result<BTreeMap<String, u64>, CheckpointError> {
    let mut sizes = BTreeMap::new();
    let mut folders = vec![(String::new(), root.to_path_buf())];
    while let Some((prefix, folder)) = folders.pop() {
        for (name, path) in entries(&folder)? {
            if path.is_dir() {
                folders.push((format!("{prefix}{name}/"), path));
            } else {
                sizes.insert(format!("{prefix}{name}"), sync_file(&path).map_err(io("sync", &path))?);
            }
        }
        sync_folder(&folder)?;
    }
    Ok(sizes)
}

/// The CRC-32C of a file.
fn sum(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let (mut sum, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(sum),
            count => sum = crc32c::crc32c_append(sum, &piece[..count]),
        }
    }
}

fn sync_file(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Makes new names in `folder` last.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(here).and_then(|folder| folder.sync_all()).map_err(io("sync", folder))
}

/// Folders can't be synced here; names last as long as the file system says.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<(), CheckpointError> {
    Ok(())
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { action, path, source }
}
