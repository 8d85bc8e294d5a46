//! Output folders that appear complete or not at all.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

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

/// A folder beside the output; gone when dropped before [`commit`](StagedFolder::commit).
pub(crate) struct StagedFolder {
    output: PathBuf,
    staged: PathBuf,
    existing: Existing,
}

impl StagedFolder {
    pub(crate) fn create(output: &Path, existing: Existing) -> Result<Self, MergeError> {
        if existing == Existing::Refuse && fs::symlink_metadata(output).is_ok() {
            return Err(MergeError::Exists { path: output.into() });
        }
        let staged = sibling(output, "partial")?;
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(MergeError::io("clear", &staged))?;
        }
        fs::create_dir_all(&staged).map_err(MergeError::io("create", &staged))?;
        Ok(StagedFolder { output: output.into(), staged, existing })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.staged
    }

    /// Waits until everything is on the disk and gives the folder its name.
    pub(crate) fn commit(self) -> Result<(), MergeError> {
        let entries = fs::read_dir(&self.staged).map_err(MergeError::io("read", &self.staged))?;
        for entry in entries {
            let path = entry.map_err(MergeError::io("read", &self.staged))?.path();
            sync(&path)?;
        }
        sync(&self.staged)?;
        self.rename()?;
        sync(&parent(&self.output))
    }

    fn rename(&self) -> Result<(), MergeError> {
        let fail = MergeError::io("give its name to", &self.output);
        let occupied = fs::symlink_metadata(&self.output).is_ok();
        if !occupied {
            return fs::rename(&self.staged, &self.output).map_err(fail);
        }
        if self.existing == Existing::Refuse {
            return Err(MergeError::Exists { path: self.output.clone() });
        }
        let old = sibling(&self.output, "replaced")?;
        fs::rename(&self.output, &old).map_err(MergeError::io("move away", &self.output))?;
        if let Err(error) = fs::rename(&self.staged, &self.output) {
            // The first failure is the one to tell; where this fails too, the old folder keeps its new name.
            let _ = fs::rename(&old, &self.output);
            return Err(fail(error));
        }
        let removed = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        removed.map_err(MergeError::io("remove", &old))
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // After a commit it is gone; otherwise an error is on its way that matters more than this one.
        let _ = fs::remove_dir_all(&self.staged);
    }
}

/// Copies the files of `from` that are no weights: configurations, tokenizer, processor.
pub(crate) fn copy_other_files(from: &Path, to: &Path) -> Result<(), MergeError> {
    let entries = fs::read_dir(from).map_err(MergeError::io("read", from))?;
    for entry in entries {
        let path = entry.map_err(MergeError::io("read", from))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_file() && !name.starts_with('.') && !holds_weights(name) {
            fs::copy(&path, to.join(name)).map_err(MergeError::io("copy", &path))?;
        }
    }
    Ok(())
}

/// Weights of any format, and their indexes: they would be those from before the merge.
fn holds_weights(name: &str) -> bool {
    const FORMATS: [&str; 9] =
        [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"];
    FORMATS.iter().any(|format| name.ends_with(format)) || name.ends_with(".index.json")
}

fn sync(path: &Path) -> Result<(), MergeError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(MergeError::io("sync", path))
}

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
    Ok(parent(output).join(format!(".{}.{role}-{}", name.to_string_lossy(), std::process::id())))
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
}
