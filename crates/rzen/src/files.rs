//! Folders and files that are whole or not there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Lets `write` fill a temporary folder beside `folder`, syncs it and gives it its final name.
///
/// # Errors
/// Whatever `write` says; nothing is left behind then, and nothing stands under the final name.
pub fn whole_folder(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = folder.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
    let temporary = parent.join(format!(".{name}.part"));
    if temporary.exists() {
        fs::remove_dir_all(&temporary).with_context(|| format!("{}", temporary.display()))?;
    }
    let finish = || -> Result<()> {
        fs::create_dir(&temporary)?;
        write(&temporary)?;
        for entry in fs::read_dir(&temporary)? {
            fs::File::open(entry?.path())?.sync_all()?;
        }
        fs::rename(&temporary, folder)?;
        fs::File::open(parent)?.sync_all()?;
        Ok(())
    };
    finish()
        .inspect_err(|_| drop(fs::remove_dir_all(&temporary)))
        .with_context(|| format!("writing {}", folder.display()))
}

/// Writes a file under a temporary name, syncs it and renames it.
///
/// # Errors
/// If the disk is full or the folder can't be written; nothing stands under the final name then.
pub fn whole_file(path: &Path, write: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<()> {
    let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.part"));
    let finish = || -> Result<()> {
        let mut file = fs::File::create(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        Ok(())
    };
    finish()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("out");
        let failed = whole_folder(&folder, |part| {
            fs::write(part.join("half"), "half")?;
            anyhow::bail!("no space left")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("no space left"));
        assert!(whole_file(&place.path().join("file"), |_| anyhow::bail!("no space left")).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        whole_folder(&folder, |part| Ok(fs::write(part.join("whole"), "whole")?)).unwrap();
        assert_eq!(fs::read_to_string(folder.join("whole")).unwrap(), "whole");
    }
}
