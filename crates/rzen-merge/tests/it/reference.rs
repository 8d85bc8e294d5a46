//! The folder of golden outputs.

use std::path::PathBuf;

/// A file of the reference folder, or `None` (and a line that says so) where it isn't there.
///
/// # Panics
/// If `RZEN_REFERENCE` is set and names no folder.
pub fn file(name: &str) -> Option<PathBuf> {
    let path = folder().join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn folder() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if let Some(folder) = std::env::var_os("RZEN_REFERENCE") {
        // Tests run in their crate's folder; a relative path counts from the workspace, as one types it.
        let folder = root.join(folder);
        assert!(folder.is_dir(), "RZEN_REFERENCE: {} is no folder", folder.display());
        return folder;
    }
    let shared = root.join("../shared/reference");
    if shared.is_dir() { shared } else { root.join("fixtures/reference") }
}
