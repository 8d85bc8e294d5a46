//! Which crate may depend on which: the picture in `docs/ARCHITECTURE.md` as a table.

use super::workspace::{Kind, Workspace};

/// The arrows of one crate. An arrow that is not here is a change of the architecture.
struct Arrows {
    from: &'static str,
    normal: &'static [&'static str],
    /// Arrows for tests only, beside the normal ones.
    dev: &'static [&'static str],
}

const CORE: &[&str] = &["rzen-core"];
const LIBRARIES: &[&str] = &[
    "rzen-core",
    "rzen-kernels",
    "rzen-data",
    "rzen-model",
    "rzen-loss",
    "rzen-train",
    "rzen-merge",
    "rzen-eval",
    "rzen-serve",
];

const PICTURE: &[Arrows] = &[
    Arrows { from: "rzen-core", normal: &[], dev: &[] },
    Arrows { from: "rzen-data", normal: CORE, dev: &[] },
    Arrows { from: "rzen-kernels", normal: &[], dev: &[] },
    Arrows { from: "rzen-model", normal: &["rzen-core", "rzen-kernels"], dev: &[] },
    Arrows { from: "rzen-loss", normal: CORE, dev: &[] },
    // The trainer is generic over the objective; its tests step a real one.
    Arrows { from: "rzen-train", normal: CORE, dev: &["rzen-loss"] },
    Arrows { from: "rzen-merge", normal: &[], dev: &[] },
    Arrows { from: "rzen-eval", normal: &["rzen-core", "rzen-kernels"], dev: &[] },
    Arrows { from: "rzen-serve", normal: CORE, dev: &[] },
    Arrows { from: "rzen", normal: LIBRARIES, dev: &[] },
    Arrows { from: "xtask", normal: &[], dev: &[] },
    Arrows { from: "benches", normal: LIBRARIES, dev: &["rzen"] },
];

/// Whether `name` is one of the library crates.
pub fn is_library(name: &str) -> bool {
    LIBRARIES.contains(&name)
}

/// Every arrow between the workspace's crates that the picture does not have.
pub fn check(workspace: &Workspace) -> Vec<String> {
    let is_ours = |name: &str| workspace.crates.iter().any(|krate| krate.name == name);
    let mut findings = Vec::new();
    for krate in &workspace.crates {
        let Some(arrows) = PICTURE.iter().find(|arrows| arrows.from == krate.name) else {
            findings.push(format!(
                "crate `{}` is not in the picture: draw it in docs/ARCHITECTURE.md and in xtask/src/tidy/arrows.rs",
                krate.name
            ));
            continue;
        };
        for dependency in krate.dependencies.iter().filter(|dependency| is_ours(&dependency.name)) {
            let to = dependency.name.as_str();
            let drawn =
                arrows.normal.contains(&to) || (dependency.kind == Kind::Dev && arrows.dev.contains(&to));
            if !drawn {
                findings.push(format!(
                    "{} -> {to} ({}) is not in the picture: siblings meet only through the types of rzen-core",
                    krate.name,
                    dependency.kind.section()
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of crates without dependencies, and one arrow.
    fn findings(from: &str, to: &str, kind: &str) -> Vec<String> {
        let package = |name: &str| {
            let dependencies = if name == from {
                serde_json::json!([{ "name": to, "kind": kind }, { "name": "serde", "kind": null }])
            } else {
                serde_json::json!([])
            };
            serde_json::json!({
                "name": name, "manifest_path": format!("/w/{name}/Cargo.toml"), "dependencies": dependencies,
            })
        };
        let packages: Vec<_> = PICTURE.iter().map(|arrows| package(arrows.from)).collect();
        let metadata = serde_json::json!({ "workspace_root": "/w", "packages": packages });
        check(&Workspace::parse(&metadata.to_string()).unwrap())
    }

    #[test]
    fn drawn_arrows_pass() {
        for (from, to, kind) in [
            ("rzen-data", "rzen-core", "normal"),
            ("rzen", "rzen-merge", "normal"),
            ("rzen-train", "rzen-loss", "dev"),
            ("benches", "rzen-model", "dev"),
        ] {
            assert_eq!(findings(from, to, kind), Vec::<String>::new(), "{from} -> {to}");
        }
    }

    #[test]
    fn every_other_arrow_is_a_finding() {
        for (from, to, kind) in [
            ("rzen-core", "rzen-data", "normal"),
            ("rzen-train", "rzen-loss", "normal"),
            ("rzen-train", "rzen-loss", "build"),
            ("rzen-train", "rzen-model", "dev"),
            ("rzen-merge", "rzen-core", "normal"),
            ("rzen-eval", "rzen", "dev"),
            ("xtask", "rzen-core", "normal"),
            ("rzen", "benches", "dev"),
        ] {
            let findings = findings(from, to, kind);
            assert_eq!(findings.len(), 1, "{from} -> {to}: {findings:?}");
            assert!(findings[0].starts_with(&format!("{from} -> {to} ")), "{findings:?}");
        }
    }

    #[test]
    fn a_crate_outside_the_picture_is_a_finding() {
        let json = r#"{"workspace_root": "/w", "packages": [{"name": "rzen-utils", "manifest_path": "/w/u/Cargo.toml"}]}"#;
        let findings = check(&Workspace::parse(json).unwrap());
        assert!(findings[0].starts_with("crate `rzen-utils` is not in the picture"), "{findings:?}");
    }
}
