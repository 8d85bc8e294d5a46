//! The folder of golden outputs.

use std::path::PathBuf;

/// A file of the reference folder, or `None` (and a line that says so) where it isn't there.
pub fn file(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("RZEN_REFERENCE") {
        return folder.into();
    }
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let shared = root.join("../shared/reference");
    if shared.is_dir() { shared } else { root.join("fixtures/reference") }
}
