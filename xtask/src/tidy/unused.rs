//! Dependencies that no source names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::workspace::{Crate, Dependency, Kind, Workspace};

/// Dependencies that neither a source file nor a Cargo feature of their crate uses.
pub fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let sources = Sources::read(&krate.folder)?;
        for dependency in &krate.dependencies {
            if !is_used(krate, dependency, &sources) {
                findings.push(format!(
                    "{}: {} `{}` is used nowhere in its sources: remove it, or list it in \
                     [package.metadata.tidy] unused and say why",
                    krate.name,
                    dependency.kind.section(),
                    dependency.name
                ));
            }
        }
    }
    Ok(findings)
}

/// The code of a crate, without plain comments, by what may use it.
struct Sources {
    /// `src/`: normal dependencies must occur here.
    src: String,
    /// Tests, benches, examples and examples in documentation: dev-dependencies must occur here or in `src`.
    rest: String,
    build: String,
}

impl Sources {
    fn read(folder: &Path) -> Result<Self> {
        let mut sources = Self { src: String::new(), rest: String::new(), build: String::new() };
        for file in rust_files(folder)? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let place = if file == folder.join("build.rs") {
                &mut sources.build
            } else if file.starts_with(folder.join("src")) {
                &mut sources.src
            } else {
                &mut sources.rest
            };
            let is_documentation =
                |line: &&str| ["///", "//!"].iter().any(|mark| line.trim_start().starts_with(mark));
            let (documentation, code): (Vec<&str>, Vec<&str>) = text.lines().partition(is_documentation);
            for line in code {
                place.push_str(line.split("//").next().unwrap_or_default());
                place.push('\n');
            }
            for line in documentation {
                sources.rest.push_str(line);
                sources.rest.push('\n');
            }
        }
        Ok(sources)
    }
}

fn is_used(krate: &Crate, dependency: &Dependency, sources: &Sources) -> bool {
    let name = dependency.name.as_str();
    let in_features = || {
        let names_it = |enabled: &String| {
            let enabled = enabled.strip_prefix("dep:").unwrap_or(enabled);
            enabled.split(['/', '?']).next() == Some(name)
        };
        krate.features.iter().flat_map(|(_, enables)| enables).any(names_it)
    };
    let path = name.replace('-', "_");
    let in_code = match dependency.kind {
        Kind::Normal => names_crate(&sources.src, &path),
        Kind::Dev => names_crate(&sources.src, &path) || names_crate(&sources.rest, &path),
        Kind::Build => names_crate(&sources.build, &path),
    };
    in_code || in_features() || krate.unused_on_purpose.contains(&dependency.name)
}

/// Whether `code` has `name::` or `use name` as words. A bare word would not do: `image` is also a variable.
fn names_crate(code: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        whole && (after.starts_with("::") || before.ends_with("use ") || before.ends_with("extern crate "))
    })
}

/// All `.rs` files below `folder`, sorted.
fn rust_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_named_by_path_or_import() {
        for code in ["image::open(p)", "use image;", "use image as pictures;", "let x = ::image::Rgb(y);"] {
            assert!(names_crate(code, "image"), "{code}");
        }
        for code in ["let image = 1;", "my_image::f()", "use images::x;", "crate_image_x::f()"] {
            assert!(!names_crate(code, "image"), "{code}");
        }
    }
}
