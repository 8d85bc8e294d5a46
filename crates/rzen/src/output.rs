//! Whether an output can be written, found out before the work.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rzen_merge::Existing;
use serde_json::Value;

use crate::files::{parent_of, resolved};

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

/// What `--overwrite` says.
pub fn existing(overwrite: bool) -> Existing {
    if overwrite { Existing::Replace } else { Existing::Refuse }
}

/// Refuses to begin what the disk has no room for, where the system tells how much there is.
///
/// # Errors
/// Names both sizes.
pub fn check_space(output: &Path, bytes: u64) -> Result<()> {
    #[cfg(unix)]
    if let Ok(disk) = rustix::fs::statvfs(parent_of(output)) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        ensure!(
            bytes <= free,
            "--output {} takes {:.1} GB, and its disk has {:.1} GB left; free some, or choose another disk",
            output.display(),
            bytes as f64 / 1e9,
            free as f64 / 1e9
        );
    }
    #[cfg(not(unix))]
    let _ = (output, bytes);
    Ok(())
}

/// Refuses an output folder that holds something that is read, and would be lost when the output is replaced.
///
/// # Errors
/// Names both.
pub fn check_apart(output: &Path, reads: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<()> {
    let whole = resolved(output)?;
    for source in reads {
        let source = source.as_ref();
        ensure!(
            !resolved(source)?.starts_with(&whole),
            "--output {} holds {}, which is read; name another folder",
            output.display(),
            source.display()
        );
    }
    Ok(())
}

/// Refuses to replace a folder with files that none of our writings left there. Each says in its `record`, a JSON file, what
/// `files` it wrote; `who` is what wrote it, as in `no mining wrote`.
///
/// # Errors
/// If something stands there without such a record, or a file that the record does not name.
pub fn check_written(output: &Path, record: &str, who: &str) -> Result<()> {
    if !output.exists() {
        return Ok(());
    }
    let ours = written_before(&output.join(record)).with_context(|| {
        format!(
            "--overwrite replaces what a {who} wrote, and {} is no such folder; move it away",
            output.display()
        )
    })?;
    match files_below(output)?.into_iter().find(|file| !ours.contains(file)) {
        None => Ok(()),
        Some(file) => bail!(
            "--overwrite would remove {}, which no {who} wrote; move it away",
            output.join(file).display()
        ),
    }
}

fn written_before(record: &Path) -> Result<BTreeSet<PathBuf>> {
    let record: Value = serde_json::from_slice(&fs::read(record)?)?;
    let files = record["files"].as_array().context("it lists no files")?;
    Ok(files.iter().filter_map(Value::as_str).map(PathBuf::from).collect())
}

/// The files in a folder and the folders in it, by their paths from there.
///
/// # Errors
/// If one of these folders can't be read.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(relative) = folders.pop() {
        for entry in fs::read_dir(folder.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// The folder that keeps vectors from run to run: the one given, or `OUTPUT.vectors` beside the output.
///
/// # Errors
/// If it lies in the output, which is replaced as a whole, or the output has no name.
pub fn vectors_beside(output: &Path, given: Option<&Path>) -> Result<PathBuf> {
    let beside = || {
        let mut name = output.file_name().context("--output has no name; give a folder")?.to_owned();
        name.push(".vectors");
        Ok::<_, anyhow::Error>(output.with_file_name(name))
    };
    let vectors = given.map_or_else(beside, |given| Ok(given.to_owned()))?;
    ensure!(
        !resolved(&vectors)?.starts_with(resolved(output)?),
        "--vectors {} lies in the output; name a folder beside it",
        vectors.display()
    );
    Ok(vectors)
}

fn check_place(output: &Path) -> Result<()> {
    let name = output.file_name().with_context(|| format!("--output {} has no name", output.display()))?;
    let parent = parent_of(output);
    let advice = || {
        format!(
            "--output {}: {} can't be written; choose a folder that may be",
            output.display(),
            parent.display()
        )
    };
    fs::create_dir_all(parent).with_context(advice)?;
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
        check_space(&inside, 1).unwrap();
        #[cfg(unix)]
        {
            let full = check_space(&inside, u64::MAX).unwrap_err().to_string();
            assert!(full.contains("scores.json takes 18446744073.7 GB"), "{full}");
        }
    }
}
