//! The workspace's crates as `cargo metadata` tells them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

/// The workspace's own crates; nothing of the registry.
pub struct Workspace {
    pub root: PathBuf,
    pub crates: Vec<Crate>,
}

pub struct Crate {
    pub name: String,
    pub description: Option<String>,
    pub folder: PathBuf,
    pub dependencies: Vec<Dependency>,
    /// Cargo features: name and what it turns on.
    pub features: Vec<(String, Vec<String>)>,
    /// `[package.metadata.tidy] unused`: dependencies that are there on purpose although no source names them.
    pub unused_on_purpose: Vec<String>,
}

pub struct Dependency {
    pub name: String,
    pub kind: Kind,
    pub features: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Normal,
    Dev,
    Build,
}

impl Workspace {
    /// Asks cargo; needs no network and fails if `Cargo.lock` is out of date.
    pub fn load() -> Result<Self> {
        let json = super::cargo_output(&["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
        Self::parse(&json)
    }

    /// Reads the output of `cargo metadata --no-deps`.
    pub fn parse(json: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(json).context("cargo metadata is not JSON")?;
        let crates = metadata["packages"].as_array().context("cargo metadata has no `packages`")?;
        Ok(Self {
            root: PathBuf::from(text(&metadata["workspace_root"])?),
            crates: crates.iter().map(Crate::parse).collect::<Result<_>>()?,
        })
    }
}

impl Crate {
    fn parse(package: &Value) -> Result<Self> {
        let name = text(&package["name"])?;
        let manifest = PathBuf::from(text(&package["manifest_path"])?);
        let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
        let features = package["features"].as_object().into_iter().flatten();
        Ok(Self {
            description: package["description"].as_str().map(str::to_owned),
            folder: manifest.parent().context("a manifest lies in a folder")?.to_owned(),
            dependencies: dependencies
                .iter()
                .map(Dependency::parse)
                .collect::<Result<_>>()
                .with_context(|| format!("dependencies of `{name}`"))?,
            features: features.map(|(feature, enables)| (feature.clone(), strings(enables))).collect(),
            unused_on_purpose: strings(&package["metadata"]["tidy"]["unused"]),
            name,
        })
    }
}

impl Kind {
    /// The manifest's section.
    pub fn section(self) -> &'static str {
        match self {
            Self::Normal => "[dependencies]",
            Self::Dev => "[dev-dependencies]",
            Self::Build => "[build-dependencies]",
        }
    }
}

impl Dependency {
    fn parse(dependency: &Value) -> Result<Self> {
        let kind = match dependency["kind"].as_str() {
            Some("dev") => Kind::Dev,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        };
        // A renamed dependency appears in sources under its new name.
        let name = dependency["rename"]
            .as_str()
            .map_or_else(|| text(&dependency["name"]), |name| Ok(name.into()))?;
        Ok(Self { name, kind, features: strings(&dependency["features"]) })
    }
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("cargo metadata: {value} should be a string"))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
