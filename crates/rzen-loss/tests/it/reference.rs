//! The folder of golden outputs.

use std::path::{Path, PathBuf};

/// A file of the reference folder; the small set that lies in `fixtures` has all of them.
///
/// # Panics
/// If it isn't there.
pub fn file(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.is_file(), "{} is missing; is the reference folder complete?", path.display());
    path
}

fn folder() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if let Some(named) = std::env::var_os("RZEN_REFERENCE") {
        // Counted from the root of the workspace, whatever folder cargo runs the tests in.
        let folder = root.join(named);
        assert!(folder.is_dir(), "RZEN_REFERENCE is {}, which is no folder", folder.display());
        return folder;
    }
    let shared = root.join("../shared/reference");
    if shared.is_dir() { shared } else { root.join("fixtures/reference") }
}
