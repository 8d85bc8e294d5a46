//! Folders and files that are whole or not there.

use std::fs::{self, TryLockError};
use std::io::Read;
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, Result, bail};
use rzen_merge::{Existing, MergeError, StagedFolder};
use sha2::{Digest, Sha256};

/// Lets `write` fill a [`StagedFolder`] and gives it its final name. What stands there and may be replaced stays until then.
///
/// # Errors
/// Whatever `write` says, or that something stands there that may not be replaced; nothing is left behind then, and under the
/// final name stands nothing, or what stood there before.
pub fn whole_folder(
    folder: &Path,
    existing: Existing,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let finish = || -> Result<()> {
        let staged = StagedFolder::create(folder, existing)?;
        write(staged.path())?;
        Ok(staged.commit()?)
    };
    finish().map_err(|error| match error.downcast_ref() {
        // The disk has no part in it.
        Some(MergeError::Exists { .. } | MergeError::Busy { .. }) => error,
        _ => error.context(failed(folder)),
    })
}

/// Writes a file under a temporary name, syncs it and renames it.
///
/// # Errors
/// If the disk is full or the folder can't be written; nothing stands under the final name then, or what
/// stood there before.
pub fn whole_file(path: &Path, write: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<()> {
    let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.part"));
    let finish = || -> Result<()> {
        let mut file = fs::File::create(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)?;
        sync_folder(parent_of(path))?;
        Ok(())
    };
    finish().inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(|| failed(path))
}

/// Whether a name is one that [`whole_folder`] or [`whole_file`] may leave where the program is killed.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".part")
}

/// The whole path that `path` leads to, whether or not something is there: links are followed, `..` is resolved.
///
/// # Errors
/// If there is no working directory, or the path is empty.
pub fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let mut whole = PathBuf::new();
    for part in absolute(path)?.components() {
        match part {
            Component::ParentDir => drop(whole.pop()),
            part => whole.push(part),
        }
        whole = whole.canonicalize().unwrap_or(whole);
    }
    Ok(whole)
}

/// Locks a folder for as long as the file is held; `None` where the system can't, which is told. `does` is what holders of the lock
/// do, as in `trains into`.
///
/// # Errors
/// If another program holds the lock.
pub fn lock_folder(folder: &Path, does: &str) -> Result<Option<fs::File>> {
    // Not everywhere is a folder something that can be opened.
    let Ok(file) = fs::File::open(folder) else { return Ok(None) };
    let busy =
        format!("another rzen {does} this folder; wait for it or stop it, or give --output another folder");
    let warning =
        warning_of_lock(file.try_lock(), folder, &busy, &format!("see that no other rzen {does} it"))?;
    Ok(match warning {
        None => Some(file),
        Some(warning) => {
            eprintln!("{warning}");
            None
        }
    })
}

/// What to say about a file or folder that could not be locked, with the `advice` for that.
///
/// # Errors
/// If another program has it locked: `busy`.
pub fn warning_of_lock(
    lock: Result<(), TryLockError>,
    path: &Path,
    busy: &str,
    advice: &str,
) -> Result<Option<String>> {
    match lock {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => bail!("{}: {busy}", path.display()),
        // A disk that can't lock is no reason not to work.
        Err(TryLockError::Error(error)) => {
            Ok(Some(format!("can't lock {}: {error}; {advice}", path.display())))
        }
    }
}

/// The SHA-256 of a file.
///
/// # Errors
/// What the system says.
pub fn sha256(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&piece[..count]),
        }
    }
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(path: &Path) -> String {
    format!("can't write {}; is there room on the disk, and may its folder be written?", path.display())
}

/// The folder that `path` lies in; a bare name lies in the working directory.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes new names in `folder` last, where folders can be synced.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("out");
        let failed = whole_folder(&folder, Existing::Refuse, |part| {
            fs::create_dir(part.join("inner"))?;
            fs::write(part.join("inner/half"), "half")?;
            anyhow::bail!("no space left")
        });
        let message = format!("{:#}", failed.unwrap_err());
        assert!(message.contains("no space left") && message.contains("room on the disk"), "{message}");
        assert!(message.contains("out"), "{message}");
        assert!(whole_file(&place.path().join("file"), |_| anyhow::bail!("no space left")).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        whole_folder(&folder, Existing::Refuse, |part| {
            fs::create_dir(part.join("inner"))?;
            Ok(fs::write(part.join("inner/whole"), "whole")?)
        })
        .unwrap();
        assert_eq!(fs::read_to_string(folder.join("inner/whole")).unwrap(), "whole");
    }

    #[test]
    fn an_earlier_folder_stays_until_the_new_one_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("out");
        let text = || fs::read_to_string(folder.join("file")).unwrap();
        let put = |existing, text: &'static str| {
            whole_folder(&folder, existing, |part| Ok(fs::write(part.join("file"), text)?))
        };
        put(Existing::Refuse, "old").unwrap();
        let refused = format!("{:#}", put(Existing::Refuse, "new").unwrap_err());
        assert!(refused.contains("out exists; choose another") && !refused.contains("room"), "{refused}");
        let failed = whole_folder(&folder, Existing::Replace, |_| anyhow::bail!("no space left"));
        assert!(failed.is_err() && text() == "old");
        put(Existing::Replace, "new").unwrap();
        assert_eq!((text().as_str(), fs::read_dir(place.path()).unwrap().count()), ("new", 1));
        // Killed after the earlier one was moved away.
        fs::rename(&folder, place.path().join(".out.earlier.part")).unwrap();
        assert!(whole_folder(&folder, Existing::Replace, |_| anyhow::bail!("no space left")).is_err());
        assert_eq!((text().as_str(), fs::read_dir(place.path()).unwrap().count()), ("new", 1));
    }

    #[test]
    fn a_bare_name_lies_in_the_working_directory() {
        assert_eq!(parent_of(Path::new("report")), Path::new("."));
        assert_eq!(parent_of(Path::new("runs/report")), Path::new("runs"));
        assert_eq!(parent_of(Path::new("/report")), Path::new("/"));
    }

    #[test]
    fn paths_are_resolved_before_they_are_there() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().canonicalize().unwrap();
        fs::create_dir(real.join("there")).unwrap();
        for (path, expected) in [
            ("there", "there"),
            ("there/./a", "there/a"),
            ("gone/../there/a", "there/a"),
            ("gone/a/../../gone/b", "gone/b"),
        ] {
            assert_eq!(resolved(&place.path().join(path)).unwrap(), real.join(expected), "{path}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(real.join("there"), real.join("link")).unwrap();
            assert_eq!(resolved(&real.join("link/a")).unwrap(), real.join("there/a"));
        }
        assert_eq!(resolved(Path::new("gone")).unwrap(), resolved(Path::new("./x/../gone")).unwrap());
    }

    #[test]
    fn leftovers_are_known_by_name() {
        assert!(is_temporary(".recipe.toml.part"));
        assert!(!is_temporary("recipe.toml") && !is_temporary(".hidden"));
    }
}
