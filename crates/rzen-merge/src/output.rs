//! Output folders that appear complete or not at all.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::MergeError;

/// What to do where something stands under the output's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Fail before any work is done.
    #[default]
    Refuse,
    /// Put the output in its place once the output is complete.
    Replace,
}

/// A folder beside an output, which is filled and then takes the output's name; gone when dropped before
/// [`commit`](StagedFolder::commit).
///
/// What a killed process left of the same output goes when it is written again, or comes back where it had moved the earlier
/// output away and not yet put the new one in its place.
pub struct StagedFolder {
    output: PathBuf,
    staged: PathBuf,
    /// Where what stood there waits until the new folder has its place.
    earlier: PathBuf,
    existing: Existing,
    /// By which other processes know that the folder is being filled; the system lets go of it where this one is killed.
    _lock: Option<File>,
    committed: bool,
}

impl StagedFolder {
    /// Makes `.NAME.part` beside `output`, with the folders above it.
    ///
    /// # Errors
    /// If `output` exists and may not be replaced, another process is writing it, or the folder can't be made.
    pub fn create(output: &Path, existing: Existing) -> Result<Self, MergeError> {
        let (staged, earlier) = (sibling(output, "part")?, sibling(output, "earlier.part")?);
        if exists(&staged) {
            let _lock = lock(&staged, output)?;
            remove(&staged)?;
        }
        if exists(&earlier) {
            if exists(output) {
                remove(&earlier)?;
            } else {
                fs::rename(&earlier, output).map_err(MergeError::io("give its name back to", output))?;
            }
        }
        if existing == Existing::Refuse && exists(output) {
            return Err(MergeError::Exists { path: output.into() });
        }
        fs::create_dir_all(parent(output)).map_err(MergeError::io("create", &parent(output)))?;
        fs::create_dir(&staged).map_err(MergeError::io("create", &staged))?;
        let _lock = lock(&staged, output)?;
        Ok(StagedFolder { output: output.into(), staged, earlier, existing, _lock, committed: false })
    }

    /// Where files go until the folder is whole.
    pub fn path(&self) -> &Path {
        &self.staged
    }

    /// Waits until everything is on the disk and gives the folder its name.
    ///
    /// # Errors
    /// If something stands there that may not be replaced, or the disk says no; what stood there is still there then.
    pub fn commit(mut self) -> Result<(), MergeError> {
        sync_tree(&self.staged)?;
        let replaces = exists(&self.output);
        if replaces && self.existing == Existing::Refuse {
            return Err(MergeError::Exists { path: self.output.clone() });
        }
        if replaces {
            fs::rename(&self.output, &self.earlier).map_err(MergeError::io("move away", &self.output))?;
        }
        if let Err(error) = fs::rename(&self.staged, &self.output) {
            if replaces {
                // The first failure is the one to tell; where this fails too, the earlier output keeps its other name.
                drop(fs::rename(&self.earlier, &self.output));
            }
            return Err(MergeError::io("give its name to", &self.output)(error));
        }
        self.committed = true;
        sync_folder(&parent(&self.output))?;
        if replaces { remove(&self.earlier) } else { Ok(()) }
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if !self.committed {
            // An error is on its way that matters more than this one.
            drop(fs::remove_dir_all(&self.staged));
        }
    }
}

/// Lets `write` fill a [`StagedFolder`] and gives it its name.
pub(crate) fn whole<T>(
    output: &Path,
    existing: Existing,
    write: impl FnOnce(&Path) -> Result<T, MergeError>,
) -> Result<T, MergeError> {
    let staged = StagedFolder::create(output, existing)?;
    let written = write(staged.path())?;
    staged.commit()?;
    Ok(written)
}

/// Copies what of the checkpoint's folder `from` is no weights of its own: configurations, tokenizer, processor, and the
/// folders that belong to a model. Returns the names of the folders that stay behind.
pub(crate) fn copy_other_files(from: &Path, to: &Path) -> Result<Vec<String>, MergeError> {
    let folders = folders_of_a_model(from);
    let mut left_out = Vec::new();
    for (name, path) in entries(from)? {
        if path.is_file() && !holds_weights(&name) {
            fs::copy(&path, to.join(name)).map_err(MergeError::io("copy", &path))?;
        } else if path.is_dir() && folders.contains(&name) {
            copy_tree(&path, &to.join(name))?;
        } else if path.is_dir() {
            left_out.push(name);
        }
    }
    left_out.sort();
    Ok(left_out)
}

/// The folders that `modules.json` of sentence-transformers names (`1_Pooling` and the like; a dense layer has weights of its
/// own there), and chat templates. Others hold exports, states of a training or logs of the model before the merge.
fn folders_of_a_model(folder: &Path) -> Vec<String> {
    let text = fs::read(folder.join("modules.json")).unwrap_or_default();
    let modules: Vec<Value> = serde_json::from_slice(&text).unwrap_or_default();
    let paths = modules.iter().filter_map(|module| Some(module.get("path")?.as_str()?.to_owned()));
    paths.chain(["additional_chat_templates".to_owned()]).collect()
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), MergeError> {
    fs::create_dir(to).map_err(MergeError::io("create", to))?;
    for (name, path) in entries(from)? {
        if path.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).map_err(MergeError::io("copy", &path))?;
        }
    }
    Ok(())
}

/// What lies in a folder, but for what is hidden.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, MergeError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(MergeError::io("read", folder))? {
        let path = entry.map_err(MergeError::io("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
        if let Some(name) = name {
            found.push((name.to_owned(), path));
        }
    }
    Ok(found)
}

/// Weights of any format, and their indexes: they would be those from before the merge.
fn holds_weights(name: &str) -> bool {
    const FORMATS: [&str; 9] =
        [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"];
    FORMATS.iter().any(|format| name.ends_with(format)) || name.ends_with(".index.json")
}

/// Takes a folder that `output` is filled in for this process. Where folders can't be locked, nobody is kept out.
fn lock(folder: &Path, output: &Path) -> Result<Option<File>, MergeError> {
    let Ok(file) = File::open(folder) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(MergeError::Busy { path: output.into() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Also of a link that leads nowhere.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn remove(path: &Path) -> Result<(), MergeError> {
    match if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(MergeError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_tree(folder: &Path) -> Result<(), MergeError> {
    for entry in fs::read_dir(folder).map_err(MergeError::io("read", folder))? {
        let path = entry.map_err(MergeError::io("read", folder))?.path();
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => sync(&path)?,
        }
    }
    sync_folder(folder)
}

/// Makes new names in `folder` last, where folders can be synced.
fn sync_folder(folder: &Path) -> Result<(), MergeError> {
    if cfg!(unix) { sync(folder) } else { Ok(()) }
}

fn sync(path: &Path) -> Result<(), MergeError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(MergeError::io("sync", path))
}

/// The folder that `output` lies in; a bare name lies in the working directory.
fn parent(output: &Path) -> PathBuf {
    match output.parent() {
        Some(parent) if parent != Path::new("") => parent.into(),
        _ => ".".into(),
    }
}

fn sibling(output: &Path, role: &str) -> Result<PathBuf, MergeError> {
    let name = output.file_name().ok_or_else(|| {
        MergeError::Recipe(format!("the output `{}` has no name; give it one", output.display()))
    })?;
    Ok(parent(output).join(format!(".{}.{role}", name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_unfinished_output_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("soup");
        let staged = StagedFolder::create(&output, Existing::Refuse).unwrap();
        fs::write(staged.path().join("half"), "h").unwrap();
        assert!(!output.exists());
        drop(staged);
        assert!(names(home.path()).is_empty());
    }

    #[test]
    fn an_existing_output_stays_unless_told() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("soup");
        for (existing, text) in [(Existing::Refuse, "old"), (Existing::Replace, "new")] {
            let staged = StagedFolder::create(&output, existing).unwrap();
            fs::write(staged.path().join("file"), text).unwrap();
            staged.commit().unwrap();
            assert!(matches!(
                StagedFolder::create(&output, Existing::Refuse),
                Err(MergeError::Exists { .. })
            ));
            assert_eq!(fs::read_to_string(output.join("file")).unwrap(), text);
            assert_eq!(names(home.path()), ["soup"]);
        }
    }

    #[test]
    fn an_output_that_turns_up_meanwhile_stays() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("soup");
        let staged = StagedFolder::create(&output, Existing::Refuse).unwrap();
        fs::create_dir(&output).unwrap();
        assert!(matches!(staged.commit(), Err(MergeError::Exists { .. })));
        assert_eq!(names(home.path()), ["soup"]);
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_it_moved_away_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("soup");
        let [part, earlier] = [".soup.part", ".soup.earlier.part"].map(|name| home.path().join(name));
        fs::create_dir(&part).unwrap();
        fs::write(part.join("half"), "h").unwrap();
        fs::create_dir(&earlier).unwrap();
        fs::write(earlier.join("file"), "old").unwrap();
        let staged = StagedFolder::create(&output, Existing::Replace).unwrap();
        assert_eq!(fs::read_to_string(output.join("file")).unwrap(), "old", "killed between its two names");
        assert!(names(staged.path()).is_empty());
        drop(staged);
        assert_eq!(names(home.path()), ["soup"]);
        // Killed after the new one had its place.
        fs::create_dir(&earlier).unwrap();
        whole(&output, Existing::Replace, |part| {
            fs::write(part.join("file"), "new").map_err(MergeError::io("write", part))
        })
        .unwrap();
        assert_eq!(fs::read_to_string(output.join("file")).unwrap(), "new");
        assert_eq!(names(home.path()), ["soup"]);
    }

    #[cfg(unix)]
    #[test]
    fn an_output_is_filled_by_one_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("soup");
        let first = StagedFolder::create(&output, Existing::Replace).unwrap();
        fs::write(first.path().join("file"), "first").unwrap();
        let second = StagedFolder::create(&output, Existing::Replace).map(|_| ()).unwrap_err();
        assert!(matches!(second, MergeError::Busy { .. }), "{second}");
        first.commit().unwrap();
        assert_eq!(names(&output), ["file"]);
        StagedFolder::create(&output, Existing::Replace).unwrap();
    }
}
