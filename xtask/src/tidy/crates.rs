//! What every crate of the workspace carries.

use std::fs;

use anyhow::{Context, Result};

use super::arrows::is_library;
use super::workspace::Workspace;

/// A description in every manifest, `#![warn(missing_docs)]` in every library crate.
pub fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        if krate.description.as_deref().unwrap_or_default().is_empty() {
            findings.push(format!("{}: Cargo.toml has no `description`: add one sentence", krate.name));
        }
        if is_library(&krate.name) {
            let root = krate.folder.join("src/lib.rs");
            let source = fs::read_to_string(&root).with_context(|| format!("reading {}", root.display()))?;
            if !source.lines().any(|line| line.trim() == "#![warn(missing_docs)]") {
                findings.push(format!("{}: add `#![warn(missing_docs)]` to src/lib.rs", krate.name));
            }
        }
    }
    Ok(findings)
}
