//! Whether an output can be written, found out before the work.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Makes the folder that `output`, a file, goes into, and tries to write there.
///
/// # Errors
/// If a folder stands under that name, or its own folder can't be made or written.
pub fn check_file(output: &Path) -> Result<()> {
    ensure!(!output.is_dir(), "--output {}: a folder stands there; name a file", output.display());
    check_place(output)
}

/// Makes the folder that `output`, a folder, goes into, and tries to write there.
///
/// # Errors
/// If something stands there and may not be replaced, or the folder above can't be made or written.
pub fn check_folder(output: &Path, overwrite: bool) -> Result<()> {
    ensure!(
        overwrite || fs::symlink_metadata(output).is_err(),
        "--output {} exists; choose another name, or give --overwrite to replace it",
        output.display()
    );
    check_place(output)
}

fn check_place(output: &Path) -> Result<()> {
    let name = output.file_name().with_context(|| format!("--output {} has no name", output.display()))?;
    let parent = match output.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let advice = || {
        format!(
            "--output {}: {} can't be written; choose a folder that may be",
            output.display(),
            parent.display()
        )
    };
    fs::create_dir_all(&parent).with_context(advice)?;
    // Only writing tells: permissions don't know of read-only disks.
    let probe = parent.join(format!(".{}.{}.check", name.to_string_lossy(), std::process::id()));
    File::create(&probe).and_then(|_| fs::remove_file(&probe)).with_context(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_and_what_can_not_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let inside = place.path().join("a/b/scores.json");
        check_file(&inside).unwrap();
        assert_eq!(fs::read_dir(place.path().join("a/b")).unwrap().count(), 0, "no probe is left");
        fs::write(&inside, "").unwrap();
        check_file(&inside).unwrap();
        let below = format!("{:#}", check_file(&inside.join("x.json")).unwrap_err());
        assert!(below.contains("scores.json") && below.contains("choose a folder"), "{below}");
        let folder = check_file(&place.path().join("a")).unwrap_err().to_string();
        assert!(folder.contains("a folder stands there"), "{folder}");
        let taken = check_folder(&place.path().join("a"), false).unwrap_err().to_string();
        assert!(taken.contains("--overwrite"), "{taken}");
        check_folder(&place.path().join("a"), true).unwrap();
    }
}
